//! `struct nhmsg`, as `nh_fill_node` (`net/ipv4/nexthop.c`) fills it.

use super::{raw, split, whole_u32};
use crate::{
    model::{Attribute, Nexthop, nexthop::nha, route::rt},
    netlink::message::{DecodeError, Frame, attributes, nl, u32_at},
};

const NHMSG_LEN: usize = 8;
/// `NHA_RES_GROUP`: the settings of a resilient group, and for how long it has been out of balance.
const NHA_RES_GROUP: u16 = 12;
/// `NHA_RES_GROUP_PAD`, `NHA_RES_GROUP_UNBALANCED_TIME`.
const RES_GROUP_STATE: [u16; 2] = [0, 4];
/// `NHA_RES_BUCKET`, `NHA_OP_FLAGS`, `NHA_GROUP_STATS`, `NHA_HW_STATS_ENABLE`, `NHA_HW_STATS_USED`: the state of
/// a bucket, and statistics for those who asked.
const STATE: std::ops::RangeInclusive<u16> = 13..=17;

pub(super) fn nexthop(frame: &Frame<'_>) -> Result<Option<Nexthop>, DecodeError> {
    let (fixed, walk) = split(frame, NHMSG_LEN)?;
    let &[family, _scope, protocol, ..] = fixed else {
        return Ok(None);
    };
    let message = frame.header.kind;
    let (mut id, mut oif) = (None, 0);
    let mut rest = Vec::new();
    for attribute in walk {
        let (type_, value) = attribute?;
        let number = type_ & nl::NLA_TYPE_MASK;
        let wrong = DecodeError::Value { kind: message, number, len: value.len() };
        match number {
            nha::ID => id = Some(whole_u32(value).ok_or(wrong)?),
            nha::OIF => oif = whole_u32(value).ok_or(wrong)?,
            NHA_RES_GROUP => rest.push(raw(type_, &resilience(value)?)),
            number if STATE.contains(&number) => {}
            _ => rest.push(raw(type_, value)),
        }
    }
    rest.sort_by_key(Attribute::number);
    Ok(Some(Nexthop {
        id: id.ok_or(DecodeError::Missing { kind: message, number: nha::ID })?,
        family,
        protocol,
        flags: u32_at(fixed, 4).unwrap_or(0) & rt::RTNH_F_ONLINK,
        oif,
        attributes: rest,
    }))
}

/// The entries of `NHA_RES_GROUP` that a request may have, in the kernel's bytes.
fn resilience(nest: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut kept = Vec::with_capacity(nest.len());
    for entry in attributes(nest) {
        let (type_, value) = entry?;
        if RES_GROUP_STATE.contains(&(type_ & nl::NLA_TYPE_MASK)) {
            continue;
        }
        kept.extend((value.len() as u16 + 4).to_ne_bytes());
        kept.extend(type_.to_ne_bytes());
        kept.extend(value);
        kept.resize(kept.len().next_multiple_of(4), 0);
    }
    Ok(kept)
}
