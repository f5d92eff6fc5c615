//! From the kernel's bytes to the model's words.
//!
//! Written against `include/uapi/linux/rtnetlink.h` and the functions that fill the messages:
//! `fib_dump_info` (`net/ipv4/fib_semantics.c`), `rt6_fill_node` (`net/ipv6/route.c`),
//! `rtnl_fill_ifinfo`, `inet_fill_ifaddr`, `inet6_fill_ifaddr`, `nh_fill_node`.

use std::net::IpAddr;

use super::message::{Attributes, DecodeError, Frame, attributes, nl, u16_at, u32_at};
use crate::model::{Address, Attribute, Family, Leg, Link, Notice, Prefix, Route, RouteKey, route::rt};

/// `RTM_F_CLONED`: a cache entry, not a route.
const RTM_F_CLONED: u32 = 0x200;
const RTMSG_LEN: usize = 12;
const IFINFOMSG_LEN: usize = 16;
const IFADDRMSG_LEN: usize = 8;
const NHMSG_LEN: usize = 8;
const RTNEXTHOP_LEN: usize = 8;

const AF_UNSPEC: u8 = 0;
const IFLA_IFNAME: u16 = 3;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const NHA_ID: u16 = 1;
const RTA_UID: u16 = 25;
const RTA_PAD: u16 = 26;

/// What a message announces. `None` for what the model has no word for: message types other than those
/// of links, addresses, routes and nexthop objects, bridge ports' link messages, cached routes, and
/// families other than `inet` and `inet6`.
///
/// # Errors
/// The message contradicts itself; see [`DecodeError`].
pub fn decode(frame: &Frame<'_>) -> Result<Option<Notice>, DecodeError> {
    let flags = frame.header.flags;
    Ok(match frame.header.kind {
        nl::RTM_NEWROUTE => route(frame)?.map(|route| Notice::RouteSet {
            route,
            replaced: flags & nl::NLM_F_REPLACE != 0,
            appended: flags & nl::NLM_F_APPEND != 0,
        }),
        nl::RTM_DELROUTE => route(frame)?.map(|route| Notice::RouteGone { route }),
        nl::RTM_NEWLINK => link(frame)?.map(|link| Notice::LinkSet { link }),
        nl::RTM_DELLINK => link(frame)?.map(|link| Notice::LinkGone { link }),
        nl::RTM_NEWADDR => address(frame)?.map(|address| Notice::AddressSet { address }),
        nl::RTM_DELADDR => address(frame)?.map(|address| Notice::AddressGone { address }),
        nl::RTM_NEWNEXTHOP => Some(Notice::NexthopSet { id: nexthop_id(frame)? }),
        nl::RTM_DELNEXTHOP => Some(Notice::NexthopGone { id: nexthop_id(frame)? }),
        _ => None,
    })
}

/// The fixed part of a message (`need` bytes) and its attributes.
fn split<'a>(frame: &Frame<'a>, need: usize) -> Result<(&'a [u8], Attributes<'a>), DecodeError> {
    let (fixed, rest) = frame.payload.split_at_checked(need).ok_or(DecodeError::Header {
        kind: frame.header.kind,
        have: frame.payload.len(),
        need,
    })?;
    Ok((fixed, attributes(rest)))
}

/// A route of `struct rtmsg`.
fn route(frame: &Frame<'_>) -> Result<Option<Route>, DecodeError> {
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

/// A prefix of `len` bits. The kernel leaves the address out where `len` is 0.
fn prefix(
    family: Family,
    len: u8,
    value: Option<&[u8]>,
    kind: u16,
    number: u16,
) -> Result<Prefix, DecodeError> {
    let addr = match value {
        Some(value) => ip(family, value).ok_or(DecodeError::Value { kind, number, len: value.len() })?,
        None if len == 0 => return Ok(Prefix::any(family)),
        None => return Err(DecodeError::Missing { kind, number }),
    };
    Prefix::new(addr, len).ok_or(DecodeError::PrefixLength(len))
}

/// A link of `struct ifinfomsg`.
fn link(frame: &Frame<'_>) -> Result<Option<Link>, DecodeError> {
    let (fixed, walk) = split(frame, IFINFOMSG_LEN)?;
    // AF_BRIDGE announces a port of a bridge, AF_INET6 the settings of IPv6 on a link.
    if fixed.first() != Some(&AF_UNSPEC) {
        return Ok(None);
    }
    let (index, flags) = (u32_at(fixed, 4).unwrap_or(0), u32_at(fixed, 8).unwrap_or(0));
    let mut name = None;
    for attribute in walk {
        let (type_, value) = attribute?;
        if type_ & nl::NLA_TYPE_MASK == IFLA_IFNAME {
            let text = value.split(|&byte| byte == 0).next().unwrap_or_default();
            name = Some(String::from_utf8_lossy(text).into_owned());
        }
    }
    let name = name.ok_or(DecodeError::Missing { kind: frame.header.kind, number: IFLA_IFNAME })?;
    Ok(Some(Link { index, name, flags }))
}

/// An address of `struct ifaddrmsg`.
fn address(frame: &Frame<'_>) -> Result<Option<Address>, DecodeError> {
    let (fixed, walk) = split(frame, IFADDRMSG_LEN)?;
    let &[family, len, ..] = fixed else {
        return Ok(None);
    };
    let Some(family) = Family::from_number(family) else {
        return Ok(None);
    };
    if len > family.bits() {
        return Err(DecodeError::PrefixLength(len));
    }
    let (mut local, mut peer) = (None, None);
    for attribute in walk {
        let (type_, value) = attribute?;
        let number = type_ & nl::NLA_TYPE_MASK;
        let found = match number {
            IFA_LOCAL => &mut local,
            IFA_ADDRESS => &mut peer,
            _ => continue,
        };
        let wrong = DecodeError::Value { kind: frame.header.kind, number, len: value.len() };
        *found = Some(ip(family, value).ok_or(wrong)?);
    }
    let addr = local.or(peer).ok_or(DecodeError::Missing { kind: frame.header.kind, number: IFA_ADDRESS })?;
    Ok(Some(Address { link: u32_at(fixed, 4).unwrap_or(0), addr, len }))
}

/// `NHA_ID` of `struct nhmsg`.
fn nexthop_id(frame: &Frame<'_>) -> Result<u32, DecodeError> {
    let (_, walk) = split(frame, NHMSG_LEN)?;
    let kind = frame.header.kind;
    for attribute in walk {
        let (type_, value) = attribute?;
        if type_ & nl::NLA_TYPE_MASK == NHA_ID {
            return whole_u32(value).ok_or(DecodeError::Value { kind, number: NHA_ID, len: value.len() });
        }
    }
    Err(DecodeError::Missing { kind, number: NHA_ID })
}

fn raw(kind: u16, value: &[u8]) -> Attribute {
    Attribute { kind, value: value.into() }
}

fn whole_u32(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_ne_bytes)
}

fn ip(family: Family, value: &[u8]) -> Option<IpAddr> {
    match family {
        Family::Inet => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
        Family::Inet6 => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
    }
}
