//! `struct rtmsg`, as `fib_dump_info` (`net/ipv4/fib_semantics.c`) and `rt6_fill_node` (`net/ipv6/route.c`) fill it.

use super::{prefix, raw, split, whole_u32};
use crate::{
    model::{Attribute, Family, Leg, Route, RouteKey, route::rt},
    netlink::message::{DecodeError, Frame, attributes, nl, u16_at, u32_at},
};

/// `RTM_F_CLONED`: a cache entry, not a route.
const RTM_F_CLONED: u32 = 0x200;
const RTMSG_LEN: usize = 12;
const RTNEXTHOP_LEN: usize = 8;
const RTA_UID: u16 = 25;
const RTA_PAD: u16 = 26;

/// A route of `struct rtmsg`.
pub(super) fn route(frame: &Frame<'_>) -> Result<Option<Route>, DecodeError> {
    let (fixed, walk) = split(frame, RTMSG_LEN)?;
    let &[family, dst_len, src_len, tos, table, protocol, scope, kind, ..] = fixed else {
        return Ok(None);
    };
    let flags = u32_at(fixed, 8).unwrap_or(0);
    let Some(family) = Family::from_number(family) else {
        return Ok(None);
    };
    if flags & RTM_F_CLONED != 0 {
        return Ok(None);
    }

    let message = frame.header.kind;
    let (mut dst, mut src) = (None, None);
    let (mut table, mut metric) = (u32::from(table), 0);
    let mut expires = false;
    let mut only = Leg::default();
    let mut legs = Vec::new();
    let mut rest = Vec::new();
    for attribute in walk {
        let (type_, value) = attribute?;
        let number = type_ & nl::NLA_TYPE_MASK;
        let wrong = DecodeError::Value { kind: message, number, len: value.len() };
        match number {
            rt::RTA_DST => dst = Some(value),
            rt::RTA_SRC => src = Some(value),
            rt::RTA_TABLE => table = whole_u32(value).ok_or(wrong)?,
            rt::RTA_PRIORITY => metric = whole_u32(value).ok_or(wrong)?,
            rt::RTA_OIF => only.oif = whole_u32(value).ok_or(wrong)?,
            rt::RTA_MULTIPATH => legs = multipath(value, message)?,
            // `struct rta_cacheinfo`: `rta_expires` is the third of its 32-bit fields.
            rt::RTA_CACHEINFO => expires |= u32_at(value, 8).ok_or(wrong)? != 0,
            rt::RTA_EXPIRES => expires |= value.iter().any(|&byte| byte != 0),
            rt::RTA_IIF | RTA_UID | RTA_PAD => {}
            _ if belongs_to_leg(number) => only.attributes.push(raw(type_, value)),
            _ => rest.push(raw(type_, value)),
        }
    }
    if legs.is_empty() {
        if only.oif != 0 || !only.attributes.is_empty() {
            only.attributes.sort_by_key(Attribute::number);
            legs.push(only);
        }
    } else if family == Family::Inet6 {
        legs.sort();
    }
    rest.sort_by_key(Attribute::number);

    let dst = prefix(family, dst_len, dst, message, rt::RTA_DST)?;
    let src = match src_len {
        0 => None,
        len => Some(prefix(family, len, src, message, rt::RTA_SRC)?),
    };
    Ok(Some(Route {
        key: RouteKey { table, dst, src, tos, metric },
        protocol,
        scope,
        kind,
        flags: flags & rt::RTNH_F_ONLINK,
        expires,
        legs,
        attributes: rest,
    }))
}

/// Whether an attribute of a route with one way out describes that way (`fib_nexthop_info`).
const fn belongs_to_leg(number: u16) -> bool {
    matches!(
        number,
        rt::RTA_GATEWAY | rt::RTA_VIA | rt::RTA_FLOW | rt::RTA_NEWDST | rt::RTA_ENCAP_TYPE | rt::RTA_ENCAP
    )
}

/// The legs of `RTA_MULTIPATH`: a row of `struct rtnexthop`, each with attributes of its own.
fn multipath(mut bytes: &[u8], message: u16) -> Result<Vec<Leg>, DecodeError> {
    let mut legs = Vec::new();
    while !bytes.is_empty() {
        let claimed = u16_at(bytes, 0).map_or(0, usize::from);
        let wrong = DecodeError::Attribute { claimed, left: bytes.len() };
        let this = bytes.get(..claimed).ok_or(wrong.clone())?;
        let (&[_, _, flags, hops, ..], Some(oif), Some(nested)) =
            (this, u32_at(this, 4), this.get(RTNEXTHOP_LEN..))
        else {
            return Err(wrong);
        };
        let mut leg = Leg {
            oif,
            hops,
            flags: flags & rt::RTNH_F_ONLINK as u8,
            attributes: attributes(nested)
                .map(|attribute| attribute.map(|(type_, value)| raw(type_, value)))
                .collect::<Result<_, _>>()?,
        };
        leg.attributes.sort_by_key(Attribute::number);
        legs.push(leg);
        bytes = bytes.get(claimed.next_multiple_of(4)..).unwrap_or_default();
    }
    if legs.is_empty() {
        return Err(DecodeError::Value { kind: message, number: rt::RTA_MULTIPATH, len: 0 });
    }
    Ok(legs)
}
