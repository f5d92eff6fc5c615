//! Addresses on interfaces.

use std::{fmt::Write as _, net::IpAddr};

use super::{
    attribute::Attribute,
    link::Links,
    prefix::{Family, Prefix},
    route::rt,
};

/// The numbers of `include/uapi/linux/if_addr.h` that the guardian reasons with.
#[allow(missing_docs, reason = "the kernel's names say it")]
pub mod ifa {
    pub const ADDRESS: u16 = 1;
    pub const LOCAL: u16 = 2;
    pub const LABEL: u16 = 3;
    pub const BROADCAST: u16 = 4;
    pub const CACHEINFO: u16 = 6;
    pub const FLAGS: u16 = 8;
    pub const RT_PRIORITY: u16 = 9;
    pub const PROTO: u16 = 11;

    /// IPv4: not the first of its network on the link, which the kernel decides by the order of additions.
    pub const F_SECONDARY: u32 = 0x01;
    pub const F_NODAD: u32 = 0x02;
    pub const F_DADFAILED: u32 = 0x08;
    /// Follows from a preferred lifetime of 0.
    pub const F_DEPRECATED: u32 = 0x20;
    pub const F_TENTATIVE: u32 = 0x40;
    pub const F_PERMANENT: u32 = 0x80;
    pub const F_NOPREFIXROUTE: u32 = 0x200;
    pub const F_STABLE_PRIVACY: u32 = 0x800;
    /// What the kernel finds out by itself.
    pub const F_VOLATILE: u32 = F_DADFAILED | F_TENTATIVE | F_PERMANENT | F_STABLE_PRIVACY;
}

/// `INFINITY_LIFE_TIME` of `include/net/addrconf.h`.
pub const FOREVER: u32 = u32::MAX;

/// A `struct ifa_cacheinfo` without its two time stamps; both lifetimes are in seconds.
pub fn lifetimes(preferred: u32, valid: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&preferred.to_ne_bytes());
    bytes[4..8].copy_from_slice(&valid.to_ne_bytes());
    bytes
}

/// What the kernel looks an address up by: `inet_rtm_deladdr` in `net/ipv4/devinet.c`, `inet6_addr_del`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressKey {
    /// The ifindex of the link that holds it.
    pub link: u32,
    /// The local address (`IFA_LOCAL`, else `IFA_ADDRESS`).
    pub local: IpAddr,
    /// The prefix length in bits.
    pub len: u8,
    /// The other end of a point-to-point link (`IFA_ADDRESS`), else the local address again.
    pub peer: IpAddr,
}

impl AddressKey {
    /// The address family.
    pub const fn family(&self) -> Family {
        match self.local {
            IpAddr::V4(_) => Family::Inet,
            IpAddr::V6(_) => Family::Inet6,
        }
    }

    /// The network that the kernel makes a connected route to, unless told otherwise.
    pub fn network(&self) -> Option<Prefix> {
        Prefix::new(self.peer, self.len)
    }
}

/// An address as the kernel would take it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// What identifies it.
    pub key: AddressKey,
    /// `ifa_scope`, one of `RT_SCOPE_*`.
    pub scope: u8,
    /// `IFA_FLAGS` without [`ifa::F_VOLATILE`].
    pub flags: u32,
    /// Whether it is usable: IPv6 looks for duplicates first (`IFA_F_TENTATIVE`).
    pub tentative: bool,
    /// Whether the kernel will remove it by itself after a time: what is left of that is another number at each look,
    /// and is not kept. Such an address is not restored.
    pub expires: bool,
    /// What else there is (label, broadcast, metric, protocol, lifetimes without their ages), by type.
    pub attributes: Vec<Attribute>,
}

impl Address {
    /// Whether the kernel, asked for `self`, would hold what it holds with `other`, but for the label: that is a name
    /// for people, which the kernel changes when the link is renamed (`inetdev_changename`), and which nobody can
    /// change without taking the address away. Lifetimes that run are not compared.
    pub fn same(&self, other: &Self) -> bool {
        let left_out: &[u16] =
            if self.expires && other.expires { &[ifa::LABEL, ifa::CACHEINFO] } else { &[ifa::LABEL] };
        self.key == other.key
            && self.scope == other.scope
            && self.flags == other.flags
            && self.without(left_out).eq(other.without(left_out))
    }

    fn without(&self, kinds: &'static [u16]) -> impl Iterator<Item = &Attribute> {
        self.attributes.iter().filter(|attribute| !kinds.contains(&attribute.number()))
    }

    /// Whether it is the first of its network on the link, or has nothing to do with that (IPv6).
    pub const fn is_primary(&self) -> bool {
        self.key.family() as u8 == Family::Inet6 as u8 || self.flags & ifa::F_SECONDARY == 0
    }

    /// Whether the kernel turns `self` into `wanted` where it stands.
    ///
    /// Which IPv4 address of a network is the first is decided by the order of additions; of the rest
    /// `inet_rtm_newaddr` replaces the lifetimes, the metric and the protocol, and leaves broadcast address, scope
    /// and flags as they are. `inet6_addr_modify` replaces flags and peer too; the scope follows from the address.
    pub fn can_become(&self, wanted: &Self) -> bool {
        const FREE: &[u16] = &[ifa::LABEL, ifa::CACHEINFO, ifa::RT_PRIORITY, ifa::PROTO];
        self.key.family() == Family::Inet6
            || (self.is_primary() == wanted.is_primary()
                && self.scope == wanted.scope
                && (self.flags ^ wanted.flags) & !ifa::F_DEPRECATED == 0
                && self.without(FREE).eq(wanted.without(FREE)))
    }

    /// The part of `ip address` that says which it is.
    pub fn text(&self, links: &Links) -> String {
        let AddressKey { link, local, len, peer } = self.key;
        let mut out = local.to_string();
        if peer != local {
            let _ = write!(out, " peer {peer}");
        }
        let _ = write!(out, "/{len} dev {}", links.name(link));
        match self.scope {
            rt::SCOPE_UNIVERSE => {}
            rt::SCOPE_LINK => out += " scope link",
            rt::SCOPE_HOST => out += " scope host",
            number => {
                let _ = write!(out, " scope {number}");
            }
        }
        out
    }
}
