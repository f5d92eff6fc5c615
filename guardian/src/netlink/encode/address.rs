//! Addresses, for `inet_rtm_newaddr` (`net/ipv4/devinet.c`) and `inet6_rtm_newaddr` (`net/ipv6/addrconf.c`).

use super::{EncodeError, Request};
use crate::{
    model::{
        Address, AddressKey,
        address::{FOREVER, ifa, lifetimes},
    },
    netlink::message::nl,
};

/// Asks the kernel to hold `address`. Which address of a network is its first the kernel decides by itself.
pub(super) fn set(address: &Address) -> Result<Request, EncodeError> {
    let mut request =
        about(nl::RTM_NEWADDR, address, address.flags & !(ifa::F_SECONDARY | ifa::F_DEPRECATED))?;
    // IPv4 reports the flag, but an endless lifetime with it (`inet_fill_ifaddr`).
    let told = address.attributes.iter().any(|attribute| attribute.number() == ifa::CACHEINFO);
    if address.flags & ifa::F_DEPRECATED != 0 && !told {
        request.push(ifa::CACHEINFO, lifetimes(0, FOREVER).to_vec())?;
    }
    Ok(request)
}

/// Asks the kernel to drop `address`, whatever its label, scope and flags are now.
pub(super) fn delete(address: &Address) -> Request {
    let mut request = header(nl::RTM_DELADDR, &address.key, 0, 0);
    request.local(&address.key);
    request
}

/// All that is known of `address`.
pub(super) fn message(address: &Address) -> Result<Request, EncodeError> {
    let tentative = if address.tentative { ifa::F_TENTATIVE } else { 0 };
    let mut request = about(nl::RTM_NEWADDR, address, address.flags | tentative)?;
    if address.expires {
        request.push(ifa::CACHEINFO, lifetimes(1, 1).to_vec())?;
    }
    Ok(request)
}

fn about(kind: u16, address: &Address, flags: u32) -> Result<Request, EncodeError> {
    let mut request = header(kind, &address.key, flags, address.scope);
    request.local(&address.key);
    request.number(ifa::FLAGS, flags);
    for attribute in &address.attributes {
        request.push(attribute.kind, attribute.value.to_vec())?;
    }
    Ok(request)
}

/// `struct ifaddrmsg`.
fn header(kind: u16, key: &AddressKey, flags: u32, scope: u8) -> Request {
    // IFA_FLAGS decides; the old field holds the low eight of its bits.
    let mut fixed = vec![key.family().number(), key.len, flags as u8, scope];
    fixed.extend(key.link.to_ne_bytes());
    Request::new(kind, fixed)
}

impl Request {
    /// Asks for one IPv6 address; `inet6_rtm_getaddr` wants the prefix length to be 0.
    pub(in crate::netlink) fn get_address(key: &AddressKey) -> Self {
        let mut request = header(nl::RTM_GETADDR, &AddressKey { len: 0, ..*key }, 0, 0);
        request.addr(ifa::ADDRESS, key.local);
        request
    }

    fn local(&mut self, key: &AddressKey) {
        self.addr(ifa::LOCAL, key.local);
        self.addr(ifa::ADDRESS, key.peer);
    }
}
