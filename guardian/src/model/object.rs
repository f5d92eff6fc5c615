//! Everything that is guarded, under one name.

use super::{
    address::{Address, AddressKey},
    link::{Link, Links, Port},
    nexthop::Nexthop,
    prefix::Family,
    record::ObjectKind,
    route::{Route, RouteKey},
    rule::{Rule, RuleKey},
};

/// What identifies an object. In the order in which objects need each other: a link before its ports and
/// addresses, these before nexthop objects and routes, rules last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A link, by ifindex.
    Link(u32),
    /// A link's membership in a bridge, by the ifindex of the link.
    Port(u32),
    /// An address.
    Address(AddressKey),
    /// A nexthop object, by id.
    Nexthop(u32),
    /// The routes that the kernel looks up as one.
    Route(RouteKey),
    /// A policy rule.
    Rule(RuleKey),
}

impl Key {
    /// What kind of object it is; a membership in a bridge counts as its link.
    pub const fn kind(&self) -> ObjectKind {
        match self {
            Self::Link(_) | Self::Port(_) => ObjectKind::Link,
            Self::Address(_) => ObjectKind::Address,
            Self::Nexthop(_) => ObjectKind::Nexthop,
            Self::Route(_) => ObjectKind::Route,
            Self::Rule(_) => ObjectKind::Rule,
        }
    }

    /// Whether it is a route's: the kernel may hold several of one key.
    pub const fn is_route(&self) -> bool {
        matches!(self, Self::Route(_))
    }

    /// Whether the kernel holds one object of it at most.
    pub const fn is_single(&self) -> bool {
        !self.is_route()
    }

    /// The address family; `None` for links and nexthop objects.
    pub const fn family(&self) -> Option<Family> {
        match self {
            Self::Link(_) | Self::Port(_) | Self::Nexthop(_) => None,
            Self::Address(key) => Some(key.family()),
            Self::Route(key) => Some(key.family()),
            Self::Rule(key) => Some(key.family),
        }
    }
}

/// One object of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A link.
    Link(Link),
    /// A link's membership in a bridge.
    Port(Port),
    /// An address.
    Address(Address),
    /// A nexthop object.
    Nexthop(Nexthop),
    /// A route.
    Route(Route),
    /// A policy rule.
    Rule(Rule),
}

impl Object {
    /// What identifies it.
    pub fn key(&self) -> Key {
        match self {
            Self::Link(link) => Key::Link(link.index),
            Self::Port(port) => Key::Port(port.link),
            Self::Address(address) => Key::Address(address.key),
            Self::Nexthop(nexthop) => Key::Nexthop(nexthop.id),
            Self::Route(route) => Key::Route(route.key),
            Self::Rule(rule) => Key::Rule(rule.key()),
        }
    }

    /// The route, if it is one.
    pub const fn route(&self) -> Option<&Route> {
        match self {
            Self::Route(route) => Some(route),
            _ => None,
        }
    }

    /// Whether the kernel, asked for `self`, would hold what it holds with `other`, in all that is guarded.
    pub fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Link(a), Self::Link(b)) => a.same(b),
            (Self::Port(a), Self::Port(b)) => a.same(b),
            (Self::Address(a), Self::Address(b)) => a.same(b),
            (Self::Nexthop(a), Self::Nexthop(b)) => a == b,
            (Self::Route(a), Self::Route(b)) => a.same(b),
            (Self::Rule(a), Self::Rule(b)) => a == b,
            _ => false,
        }
    }

    /// The links that it is, lies on or leads through.
    pub fn links(&self) -> Vec<u32> {
        match self {
            Self::Link(link) => vec![link.index],
            Self::Port(port) => vec![port.link, port.master],
            Self::Address(address) => vec![address.key.link],
            Self::Nexthop(nexthop) => vec![nexthop.oif],
            Self::Route(route) => route.oifs().collect(),
            Self::Rule(_) => Vec::new(),
        }
    }

    /// What it is known by: a name, an address, an id, a prefix, a priority.
    pub fn name(&self, links: &Links) -> String {
        match self {
            Self::Link(link) => link.name.clone(),
            Self::Port(port) => links.name(port.link),
            Self::Address(address) => format!("{}/{}", address.key.local, address.key.len),
            Self::Nexthop(nexthop) => nexthop.id.to_string(),
            Self::Route(route) => route.key.dst.to_string(),
            Self::Rule(rule) => rule.priority.to_string(),
        }
    }

    /// Who made a route, a nexthop object or a rule, by number (`RTPROT_*`).
    pub fn protocol(&self) -> Option<u8> {
        match self {
            Self::Route(route) => Some(route.protocol),
            Self::Nexthop(nexthop) => Some(nexthop.protocol),
            Self::Rule(rule) => Some(rule.protocol()),
            _ => None,
        }
    }

    /// The table of a route or a rule.
    pub const fn table(&self) -> Option<u32> {
        match self {
            Self::Route(route) => Some(route.key.table),
            Self::Rule(rule) => Some(rule.table),
            _ => None,
        }
    }

    /// What `ip` would print of it.
    pub fn text(&self, links: &Links) -> String {
        match self {
            Self::Link(link) => link.text(),
            Self::Port(port) => port.text(links),
            Self::Address(address) => address.text(links),
            Self::Nexthop(nexthop) => nexthop.text(links),
            Self::Route(route) => route.text(links),
            Self::Rule(rule) => rule.text(),
        }
    }
}

impl From<Route> for Object {
    fn from(route: Route) -> Self {
        Self::Route(route)
    }
}

impl From<Link> for Object {
    fn from(link: Link) -> Self {
        Self::Link(link)
    }
}

impl From<Address> for Object {
    fn from(address: Address) -> Self {
        Self::Address(address)
    }
}

impl From<Nexthop> for Object {
    fn from(nexthop: Nexthop) -> Self {
        Self::Nexthop(nexthop)
    }
}

impl From<Rule> for Object {
    fn from(rule: Rule) -> Self {
        Self::Rule(rule)
    }
}
