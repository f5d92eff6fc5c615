//! Which objects are guarded.

use std::collections::BTreeSet;

use glob::Pattern;

use crate::model::{
    Address, AddressKey, Family, Link, Links, Nexthop, Object, Port, Prefix, Route, Rule, route::rt,
};

/// The scope: what a profile and the configuration choose, compiled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Globs on interface names: such links are guarded, with their addresses, the ports of such bridges, and the
    /// routes that leave by them.
    pub links: Vec<Pattern>,
    /// Routes, rules and nexthop objects with one of these protocol numbers are guarded on any link.
    pub protocols: BTreeSet<u8>,
    /// Routes in one of these tables are guarded, and rules that lead to one.
    pub tables: BTreeSet<u32>,
    /// Destinations never touched, with all that they cover.
    pub exclude_prefixes: Vec<Prefix>,
    /// Globs on interface names never touched; stronger than everything above.
    pub exclude_links: Vec<Pattern>,
}

impl Scope {
    /// Whether a link of this name is guarded.
    pub fn covers_link(&self, name: &str) -> bool {
        self.links.iter().any(|glob| glob.matches(name)) && !self.excludes_link(name)
    }

    fn excludes_link(&self, name: &str) -> bool {
        self.exclude_links.iter().any(|glob| glob.matches(name))
    }

    /// Whether this object is guarded.
    pub fn covers(&self, object: &Object, links: &Links) -> bool {
        match object {
            Object::Link(link) => self.covers_link(&link.name),
            Object::Port(port) => self.covers_port(port, links),
            Object::Address(address) => self.covers_address(address, links),
            Object::Nexthop(nexthop) => self.covers_nexthop(nexthop, links),
            Object::Route(route) => self.covers_route(route, links),
            Object::Rule(rule) => self.covers_rule(rule),
        }
    }

    /// Whether an address that is not guarded may be lent for the sake of what is.
    pub fn may_lend(&self, key: &AddressKey, links: &Links) -> bool {
        let host = Prefix::new(key.local, key.family().bits());
        let is_card = |link: &Link| {
            link.master().is_none() && !self.excludes_link(&link.name) && !self.covers_link(&link.name)
        };
        links.get(key.link).is_some_and(is_card) && !host.is_some_and(|host| self.excludes_prefix(&host))
    }

    /// By its bridge. A link that is guarded itself has its master among what is compared.
    fn covers_port(&self, port: &Port, links: &Links) -> bool {
        let covered = |index| links.get(index).is_some_and(|link| self.covers_link(&link.name));
        let excluded = links.get(port.link).is_some_and(|link| self.excludes_link(&link.name));
        !excluded && covered(port.master) && !covered(port.link)
    }

    /// By its link. What expires by itself is left to whoever renews it.
    fn covers_address(&self, address: &Address, links: &Links) -> bool {
        let host = Prefix::new(address.key.local, address.key.family().bits());
        !address.expires
            && links.get(address.key.link).is_some_and(|link| self.covers_link(&link.name))
            && !host.is_some_and(|host| self.excludes_prefix(&host))
    }

    fn covers_nexthop(&self, nexthop: &Nexthop, links: &Links) -> bool {
        let name = links.get(nexthop.oif).map(|link| link.name.as_str());
        !name.is_some_and(|name| self.excludes_link(name))
            && (self.protocols.contains(&nexthop.protocol) || name.is_some_and(|name| self.covers_link(name)))
    }

    fn covers_rule(&self, rule: &Rule) -> bool {
        let excluded = [rule.src, rule.dst].into_iter().flatten().any(|prefix| self.excludes_prefix(&prefix));
        !excluded && (self.tables.contains(&rule.table) || self.protocols.contains(&rule.protocol()))
    }

    fn excludes_prefix(&self, prefix: &Prefix) -> bool {
        self.exclude_prefixes.iter().any(|excluded| excluded.covers(prefix))
    }

    /// Whether this route is guarded.
    ///
    /// Left out whatever the configuration says: routes that expire by themselves, and the IPv6 host and
    /// anycast routes that the kernel keeps for each address: they come back with the address
    /// (`addrconf_dad_work` in `net/ipv6/addrconf.c`), and their metric 0 cannot be written by anybody else
    /// (`ip6_route_info_create`). What a router advertises is its own, unless its protocol is guarded by name; its
    /// lifetime may be set after it was announced (`rt6_add_dflt_router` in `net/ipv6/route.c`; seen on Linux 6.1).
    fn covers_route(&self, route: &Route, links: &Links) -> bool {
        let is_advertised = route.protocol == rt::PROT_RA && !self.protocols.contains(&rt::PROT_RA);
        if route.expires || is_advertised || is_address_bound(route) {
            return false;
        }
        if self.excludes_prefix(&route.key.dst) {
            return false;
        }
        let mut named = false;
        for link in route.oifs().filter_map(|oif| links.get(oif)) {
            if self.excludes_link(&link.name) {
                return false;
            }
            named |= self.links.iter().any(|glob| glob.matches(&link.name));
        }
        named || self.protocols.contains(&route.protocol) || self.tables.contains(&route.key.table)
    }
}

fn is_address_bound(route: &Route) -> bool {
    route.family() == Family::Inet6
        && route.protocol == rt::PROT_KERNEL
        && matches!(route.kind, rt::RTN_LOCAL | rt::RTN_ANYCAST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::{link, route};

    fn scope() -> Scope {
        Scope {
            links: vec![Pattern::new("tun-*").unwrap()],
            protocols: [17].into(),
            tables: [77].into(),
            exclude_prefixes: vec!["10.9.0.0/16".parse().unwrap()],
            exclude_links: vec![Pattern::new("tun-x*").unwrap()],
        }
    }

    #[test]
    fn by_link_protocol_or_table() {
        let links: Links = [link(1, "eth0"), link(2, "tun-a"), link(3, "tun-xy")].into_iter().collect();
        let on = |dst: &str, oif, protocol, table| {
            let mut r = route(dst, oif);
            r.protocol = protocol;
            r.key.table = table;
            scope().covers(&r.into(), &links)
        };
        assert!(on("10.1.0.0/16", 2, 3, 254), "by link");
        assert!(on("10.1.0.0/16", 1, 17, 254), "by protocol");
        assert!(on("10.1.0.0/16", 1, 3, 77), "by table");
        assert!(!on("10.1.0.0/16", 1, 3, 254), "none of them");
        assert!(!on("10.9.1.0/24", 2, 17, 77), "excluded prefix");
        assert!(!on("10.1.0.0/16", 3, 17, 77), "excluded link");
    }

    /// Linux 6.1 announces it before it has set the lifetime.
    #[test]
    fn what_a_router_advertises_is_left_to_it_also_without_a_lifetime() {
        let links: Links = [link(2, "tun-a")].into_iter().collect();
        let mut r = route("::/0", 2);
        r.protocol = rt::PROT_RA;
        assert!(!scope().covers(&r.clone().into(), &links));
        let asked_for = Scope { protocols: [rt::PROT_RA].into(), ..scope() };
        assert!(asked_for.covers(&r.into(), &links));
    }

    #[test]
    fn what_the_kernel_keeps_for_an_address_is_left_to_it() {
        let links: Links = [link(2, "tun-a")].into_iter().collect();
        let mut r = route("fd00::1/128", 2);
        r.protocol = rt::PROT_KERNEL;
        r.kind = rt::RTN_LOCAL;
        assert!(!scope().covers(&r.clone().into(), &links));
        r.kind = rt::RTN_UNICAST;
        assert!(scope().covers(&r.clone().into(), &links));
        r.expires = true;
        assert!(!scope().covers(&r.clone().into(), &links));
        let mut r = route("ff00::/8", 2);
        r.protocol = rt::PROT_KERNEL;
        r.kind = rt::RTN_MULTICAST;
        assert!(
            scope().covers(&r.into(), &links),
            "neighbours are asked for by it, and anybody can write it"
        );
    }
}
