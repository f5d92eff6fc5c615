//! What the kernel announces: one decoded rtnetlink notification.

use std::net::IpAddr;

use super::{link::Link, route::Route};

/// An address on a link, as far as routes need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// The ifindex of the link that holds it.
    pub link: u32,
    /// The local address (`IFA_LOCAL`, else `IFA_ADDRESS`).
    pub addr: IpAddr,
    /// The prefix length in bits.
    pub len: u8,
}

/// One notification of the groups that the guardian listens to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// `RTM_NEWROUTE`.
    RouteSet {
        /// The route as it is now; for IPv6 with all its legs.
        route: Route,
        /// `NLM_F_REPLACE`: it took the place of the route that was looked up by the same key.
        replaced: bool,
        /// `NLM_F_APPEND`: it stands beside others of the same key.
        appended: bool,
    },
    /// `RTM_DELROUTE`. For one leg of an IPv6 multipath route it names that leg only.
    RouteGone {
        /// What was removed.
        route: Route,
    },
    /// `RTM_NEWLINK` that is not a bridge port's (`AF_BRIDGE`) message.
    LinkSet {
        /// The link as it is now.
        link: Link,
    },
    /// `RTM_DELLINK`, likewise.
    LinkGone {
        /// The link as it was.
        link: Link,
    },
    /// `RTM_NEWADDR`.
    AddressSet {
        /// The address.
        address: Address,
    },
    /// `RTM_DELADDR`.
    AddressGone {
        /// The address.
        address: Address,
    },
    /// `RTM_NEWNEXTHOP`.
    NexthopSet {
        /// `NHA_ID`.
        id: u32,
    },
    /// `RTM_DELNEXTHOP`.
    NexthopGone {
        /// `NHA_ID`.
        id: u32,
    },
}
