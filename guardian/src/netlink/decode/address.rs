//! `struct ifaddrmsg`, as `inet_fill_ifaddr` (`net/ipv4/devinet.c`) and `inet6_fill_ifaddr`
//! (`net/ipv6/addrconf.c`) fill it.

use super::{ip, raw, split, whole_u32};
use crate::{
    model::{
        Address, AddressKey, Attribute, Family,
        address::{FOREVER, ifa, lifetimes},
    },
    netlink::message::{DecodeError, Frame, nl, u32_at},
};

const IFADDRMSG_LEN: usize = 8;
/// `IFA_F_OPTIMISTIC`: the kernel clears it when no duplicate was found.
const IFA_F_OPTIMISTIC: u32 = 0x04;
/// `IFA_TARGET_NETNSID`: only in answers to those who asked with it.
const IFA_TARGET_NETNSID: u16 = 10;

pub(super) fn address(frame: &Frame<'_>) -> Result<Option<Address>, DecodeError> {
    let (fixed, walk) = split(frame, IFADDRMSG_LEN)?;
    let &[family, len, flags, scope, ..] = fixed else {
        return Ok(None);
    };
    let Some(family) = Family::from_number(family) else {
        return Ok(None);
    };
    if len > family.bits() {
        return Err(DecodeError::PrefixLength(len));
    }
    let message = frame.header.kind;
    let (mut local, mut peer) = (None, None);
    let mut flags = u32::from(flags);
    let mut expires = false;
    let mut rest = Vec::new();
    for attribute in walk {
        let (type_, value) = attribute?;
        let number = type_ & nl::NLA_TYPE_MASK;
        let wrong = DecodeError::Value { kind: message, number, len: value.len() };
        match number {
            ifa::LOCAL => local = Some(ip(family, value).ok_or(wrong)?),
            ifa::ADDRESS => peer = Some(ip(family, value).ok_or(wrong)?),
            ifa::FLAGS => flags = whole_u32(value).ok_or(wrong)?,
            ifa::CACHEINFO => {
                let (Some(preferred), Some(valid)) = (u32_at(value, 0), u32_at(value, 4)) else {
                    return Err(wrong);
                };
                expires = valid != FOREVER;
                // A preferred lifetime that still runs is another number at each look; one that has run out
                // makes the address deprecated.
                if !expires && preferred == 0 {
                    rest.push(raw(type_, &lifetimes(preferred, valid)));
                }
            }
            IFA_TARGET_NETNSID => {}
            _ => rest.push(raw(type_, value)),
        }
    }
    let missing = DecodeError::Missing { kind: message, number: ifa::ADDRESS };
    let local = local.or(peer).ok_or(missing)?;
    rest.sort_by_key(Attribute::number);
    Ok(Some(Address {
        key: AddressKey { link: u32_at(fixed, 4).unwrap_or(0), local, len, peer: peer.unwrap_or(local) },
        scope,
        flags: flags & !(ifa::F_VOLATILE | IFA_F_OPTIMISTIC),
        tentative: flags & ifa::F_TENTATIVE != 0,
        expires,
        attributes: rest,
    }))
}
