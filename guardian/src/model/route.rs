//! Routes, kept as the kernel describes them.
//!
//! A route is its key, a few header fields, its legs and *every other attribute in the kernel's own
//! bytes*: an attribute that nobody here has heard of comes back as it was. What the kernel reports but
//! does not take back (cache information, dead and link-down marks) is left out when a message is
//! decoded, so two routes that are equal here are equal to the kernel.

use std::net::IpAddr;

use super::{
    attribute::Attribute,
    prefix::{Family, Prefix},
};

/// The numbers of `include/uapi/linux/rtnetlink.h` that the guardian reasons with.
#[allow(missing_docs, reason = "the kernel's names say it")]
pub mod rt {
    pub const TABLE_MAIN: u32 = 254;
    pub const TABLE_LOCAL: u32 = 255;

    pub const PROT_UNSPEC: u8 = 0;
    pub const PROT_REDIRECT: u8 = 1;
    pub const PROT_KERNEL: u8 = 2;
    pub const PROT_BOOT: u8 = 3;
    pub const PROT_STATIC: u8 = 4;
    pub const PROT_RA: u8 = 9;

    pub const SCOPE_UNIVERSE: u8 = 0;
    pub const SCOPE_LINK: u8 = 253;
    pub const SCOPE_HOST: u8 = 254;
    pub const SCOPE_NOWHERE: u8 = 255;

    pub const RTN_UNICAST: u8 = 1;
    pub const RTN_LOCAL: u8 = 2;
    pub const RTN_BROADCAST: u8 = 3;
    pub const RTN_ANYCAST: u8 = 4;
    pub const RTN_MULTICAST: u8 = 5;
    pub const RTN_BLACKHOLE: u8 = 6;
    pub const RTN_UNREACHABLE: u8 = 7;
    pub const RTN_PROHIBIT: u8 = 8;
    pub const RTN_THROW: u8 = 9;
    pub const RTN_NAT: u8 = 10;

    pub const RTNH_F_ONLINK: u32 = 4;

    pub const RTA_DST: u16 = 1;
    pub const RTA_SRC: u16 = 2;
    pub const RTA_IIF: u16 = 3;
    pub const RTA_OIF: u16 = 4;
    pub const RTA_GATEWAY: u16 = 5;
    pub const RTA_PRIORITY: u16 = 6;
    pub const RTA_PREFSRC: u16 = 7;
    pub const RTA_METRICS: u16 = 8;
    pub const RTA_MULTIPATH: u16 = 9;
    pub const RTA_FLOW: u16 = 11;
    pub const RTA_CACHEINFO: u16 = 12;
    pub const RTA_TABLE: u16 = 15;
    pub const RTA_VIA: u16 = 18;
    pub const RTA_NEWDST: u16 = 19;
    pub const RTA_PREF: u16 = 20;
    pub const RTA_ENCAP_TYPE: u16 = 21;
    pub const RTA_ENCAP: u16 = 22;
    pub const RTA_EXPIRES: u16 = 23;
    pub const RTA_NH_ID: u16 = 30;
}

/// What the kernel looks a route up by when it is added, replaced or deleted: `fib_find_alias` in
/// `net/ipv4/fib_trie.c`, `fib6_add_rt2node` in `net/ipv6/ip6_fib.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey {
    /// The table by number, above 255 too.
    pub table: u32,
    /// The destination; it carries the family.
    pub dst: Prefix,
    /// The source of an IPv6 subtree route (`RTA_SRC`), `None` for all others.
    pub src: Option<Prefix>,
    /// `rtm_tos`; always 0 for IPv6.
    pub tos: u8,
    /// `RTA_PRIORITY`, 0 where the message has none.
    pub metric: u32,
}

/// An IPv4 route that the kernel has flushed without a message, as far as its table knows it (`struct fib_alias`): not
/// its ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fallen {
    /// What it was looked up by.
    pub key: RouteKey,
    /// `rtm_type`.
    pub kind: u8,
    /// `rtm_protocol`.
    pub protocol: u8,
    /// `rtm_scope`.
    pub scope: u8,
}

impl Fallen {
    /// Whether it can have been this route.
    pub fn can_be(&self, route: &Route) -> bool {
        route.key == self.key
            && (route.kind, route.protocol, route.scope) == (self.kind, self.protocol, self.scope)
    }
}

impl RouteKey {
    /// The address family.
    pub const fn family(&self) -> Family {
        self.dst.family()
    }
}

/// One way out of a route: a nexthop of `RTA_MULTIPATH`, or the only one.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Leg {
    /// The outgoing interface, 0 where the kernel names none.
    pub oif: u32,
    /// `rtnh_hops`: the weight less one. 0 for a route's only leg.
    pub hops: u8,
    /// `rtnh_flags`, of which only `RTNH_F_ONLINK` is kept.
    pub flags: u8,
    /// `RTA_GATEWAY` or `RTA_VIA`, `RTA_FLOW`, `RTA_NEWDST`, `RTA_ENCAP*` and what else the leg has,
    /// by type.
    pub attributes: Vec<Attribute>,
}

impl Leg {
    /// The gateway, also an IPv6 gateway of an IPv4 route (`RTA_VIA`, `struct rtvia`: a 16-bit family
    /// before the address).
    pub fn gateway(&self) -> Option<IpAddr> {
        self.attributes.iter().find_map(|a| match a.number() {
            rt::RTA_GATEWAY => a.as_addr(),
            rt::RTA_VIA => {
                a.value.get(2..).and_then(|addr| <[u8; 16]>::try_from(addr).ok()).map(IpAddr::from)
            }
            _ => None,
        })
    }
}

/// A route as the kernel would take it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What identifies it.
    pub key: RouteKey,
    /// `rtm_protocol`: who made it, by number.
    pub protocol: u8,
    /// `rtm_scope`; always 0 for IPv6.
    pub scope: u8,
    /// `rtm_type`, one of `RTN_*`.
    pub kind: u8,
    /// `rtm_flags`, of which only `RTNH_F_ONLINK` is kept.
    pub flags: u32,
    /// Whether the kernel will remove it by itself after a time (`rta_expires`, router advertisements).
    /// Such a route is not restored.
    pub expires: bool,
    /// The ways out, in the kernel's order (IPv4) or sorted (IPv6, where the order has no meaning).
    /// With a nexthop object these only describe it.
    pub legs: Vec<Leg>,
    /// Every attribute that is neither part of the key nor of a leg, by type.
    pub attributes: Vec<Attribute>,
}

impl Route {
    /// The address family.
    pub const fn family(&self) -> Family {
        self.key.family()
    }

    /// The first attribute of this type.
    pub fn attribute(&self, number: u16) -> Option<&Attribute> {
        self.attributes.iter().find(|a| a.number() == number)
    }

    /// The nexthop object it refers to (`RTA_NH_ID`).
    pub fn nexthop_id(&self) -> Option<u32> {
        self.attribute(rt::RTA_NH_ID).and_then(Attribute::as_u32)
    }

    /// The preferred source address (`RTA_PREFSRC`).
    pub fn prefsrc(&self) -> Option<IpAddr> {
        self.attribute(rt::RTA_PREFSRC).and_then(Attribute::as_addr)
    }

    /// The interfaces it leaves by.
    pub fn oifs(&self) -> impl Iterator<Item = u32> {
        self.legs.iter().map(|leg| leg.oif).filter(|&oif| oif != 0)
    }

    /// Whether the kernel, asked for `self`, would hold what it holds with `other`: equal in all but,
    /// where both name the same nexthop object, the legs that only describe it.
    pub fn same(&self, other: &Self) -> bool {
        self.key == other.key
            && self.protocol == other.protocol
            && self.scope == other.scope
            && self.kind == other.kind
            && self.flags == other.flags
            && self.attributes == other.attributes
            && (self.legs == other.legs || self.nexthop_id().is_some())
    }
}
