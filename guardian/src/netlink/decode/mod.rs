//! From the kernel's bytes to the model's words.
//!
//! Written against `include/uapi/linux/rtnetlink.h` and the functions that fill the messages; each file names
//! its own. What the kernel reports but does not take back is left out, so that an object that was restored is
//! equal to what it was.

mod address;
mod link;
mod nexthop;
mod route;
mod rule;

use std::net::IpAddr;

use super::message::{Attributes, DecodeError, Frame, attributes, nl};
use crate::model::{Attribute, Family, Notice, Object, Prefix};

pub(super) use link::AF_INET6;

/// What a message announces. `None` for what the model has no word for: message types other than those of links,
/// addresses, routes, rules and nexthop objects, the link messages of bridges and of IPv6, cached routes, and
/// families other than `inet` and `inet6`.
///
/// # Errors
/// The message contradicts itself; see [`DecodeError`].
pub fn decode(frame: &Frame<'_>) -> Result<Option<Notice>, DecodeError> {
    let object = match frame.header.kind {
        nl::RTM_NEWLINK | nl::RTM_DELLINK => link::link(frame)?.map(Object::Link),
        nl::RTM_NEWADDR | nl::RTM_DELADDR => address::address(frame)?.map(Object::Address),
        nl::RTM_NEWROUTE | nl::RTM_DELROUTE => route::route(frame)?.map(Object::Route),
        nl::RTM_NEWRULE | nl::RTM_DELRULE => rule::rule(frame)?.map(Object::Rule),
        nl::RTM_NEWNEXTHOP | nl::RTM_DELNEXTHOP => nexthop::nexthop(frame)?.map(Object::Nexthop),
        _ => None,
    };
    let Some(object) = object else { return Ok(None) };
    let gone = matches!(
        frame.header.kind,
        nl::RTM_DELLINK | nl::RTM_DELADDR | nl::RTM_DELROUTE | nl::RTM_DELRULE | nl::RTM_DELNEXTHOP
    );
    if gone {
        return Ok(Some(Notice::Gone { object }));
    }
    let flags = frame.header.flags;
    Ok(Some(Notice::Set {
        object,
        replaced: flags & nl::NLM_F_REPLACE != 0,
        appended: flags & nl::NLM_F_APPEND != 0,
    }))
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
