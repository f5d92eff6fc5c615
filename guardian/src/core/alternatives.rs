//! The routes that share one key, and what a notification does to them.
//!
//! The kernel may hold several: IPv4 routes that were appended or prepended (`fib_table_insert` in
//! `net/ipv4/fib_trie.c`), IPv6 routes to the same destination on several links, such as `fe80::/64`
//! (`fib6_add_rt2node` in `net/ipv6/ip6_fib.c`).

use std::sync::Arc;

use crate::model::{Family, Leg, Route};

/// The routes of one key in the kernel's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alternatives(Vec<Arc<Route>>);

/// What a removal found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// The route was there, as a whole or as some legs of it: this is what it was before.
    Removed(Arc<Route>),
    /// No route of this key is known: an old message, or one that was seen already.
    Unknown,
    /// Routes of this key are known, but none like this: the knowledge is out of date.
    Mismatch,
}

impl Alternatives {
    /// In the kernel's order; the first is the one that packets take.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.0.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether one of them is `route`.
    pub fn contains(&self, route: &Route) -> bool {
        self.0.iter().any(|r| r.same(route))
    }

    /// The first of `self` that is not in `other`.
    pub fn first_missing_in(&self, other: &Self) -> Option<&Arc<Route>> {
        self.0.iter().find(|r| !other.contains(r))
    }

    /// Puts `route` at the end, as a dump lists them.
    pub fn push(&mut self, route: Arc<Route>) {
        self.0.push(route);
    }

    /// Keeps those for which `keep` holds.
    pub fn retain(&mut self, keep: impl FnMut(&Arc<Route>) -> bool) {
        self.0.retain(keep);
    }

    /// `RTM_NEWROUTE` with these flags. Seeing it again changes nothing.
    pub fn set(&mut self, route: Arc<Route>, replaced: bool, appended: bool) {
        if self.contains(&route) {
            return;
        }
        let place = match route.family() {
            // NLM_F_REPLACE takes the first of the key (`fa_first`).
            Family::Inet => (replaced && !self.0.is_empty()).then_some(0),
            // An IPv6 message about a multipath route names all its legs. A replace takes the first that
            // is as capable of multipath as the new one, else the first of the metric.
            Family::Inet6 => {
                let alike =
                    self.0.iter().position(|r| is_multipath_capable(r) == is_multipath_capable(&route));
                if replaced {
                    alike.or((!self.0.is_empty()).then_some(0))
                } else if is_multipath_capable(&route) {
                    alike
                } else {
                    None
                }
            }
        };
        match place.and_then(|index| self.0.get_mut(index)) {
            Some(old) => *old = route,
            None if route.family() == Family::Inet && !appended => self.0.insert(0, route),
            None => self.0.push(route),
        }
    }

    /// `RTM_DELROUTE`. Of an IPv6 multipath route it may name single legs.
    pub fn remove(&mut self, route: &Route) -> Removal {
        if self.0.is_empty() {
            return Removal::Unknown;
        }
        let whole =
            self.0.iter().position(|r| r.same(route)).or_else(|| {
                self.0.iter().position(|r| r.kind == route.kind && same_ways(&r.legs, &route.legs))
            });
        if let Some(index) = whole {
            return Removal::Removed(self.0.remove(index));
        }
        if route.family() == Family::Inet6 {
            let part = self.0.iter_mut().enumerate().find(|(_, r)| {
                r.legs.len() > route.legs.len()
                    && !route.legs.is_empty()
                    && route.legs.iter().all(|leg| r.legs.iter().any(|l| same_way(l, leg)))
            });
            if let Some((_, group)) = part {
                let before = Arc::clone(group);
                Arc::make_mut(group).legs.retain(|leg| !route.legs.iter().any(|gone| same_way(leg, gone)));
                return Removal::Removed(before);
            }
        }
        Removal::Mismatch
    }
}

impl FromIterator<Arc<Route>> for Alternatives {
    fn from_iter<I: IntoIterator<Item = Arc<Route>>>(routes: I) -> Self {
        Self(routes.into_iter().collect())
    }
}

/// `rt6_qualify_for_ecmp` of `include/net/ip6_route.h`: routes by gateway can become legs of one.
pub fn is_multipath_capable(route: &Route) -> bool {
    route.family() == Family::Inet6
        && route.nexthop_id().is_none()
        && !route.legs.is_empty()
        && route.legs.iter().all(|leg| leg.gateway().is_some())
}

/// The same way out; the weight does not matter, since the message about one leg has none.
fn same_way(a: &Leg, b: &Leg) -> bool {
    a.oif == b.oif && a.attributes == b.attributes
}

fn same_ways(a: &[Leg], b: &[Leg]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_way(a, b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::{route, via};

    fn list(routes: &[Route]) -> Alternatives {
        routes.iter().cloned().map(Arc::new).collect()
    }

    #[test]
    fn ipv4_replace_takes_the_first_append_goes_last_and_plain_goes_first() {
        let (a, b, c, d) =
            (route("10.0.0.0/8", 1), route("10.0.0.0/8", 2), route("10.0.0.0/8", 3), route("10.0.0.0/8", 4));
        let mut routes = Alternatives::default();
        routes.set(Arc::new(a), false, false);
        routes.set(Arc::new(b.clone()), false, true);
        routes.set(Arc::new(c.clone()), true, false);
        assert_eq!(routes, list(&[c.clone(), b.clone()]));
        routes.set(Arc::new(d.clone()), false, false);
        assert_eq!(routes, list(&[d, c, b]));
    }

    #[test]
    fn ipv6_legs_go_one_by_one() {
        let mut both = via("fd00::/64", 1, "fe80::1");
        both.legs.extend(via("fd00::/64", 2, "fe80::2").legs);
        let mut routes = list(&[both.clone()]);
        let one = via("fd00::/64", 2, "fe80::2");
        assert_eq!(routes.remove(&one), Removal::Removed(Arc::new(both)));
        assert_eq!(routes, list(&[via("fd00::/64", 1, "fe80::1")]));
        assert_eq!(routes.remove(&one), Removal::Mismatch);
        routes.remove(&via("fd00::/64", 1, "fe80::1"));
        assert_eq!(routes.remove(&one), Removal::Unknown);
    }

    #[test]
    fn ipv6_routes_on_links_stand_side_by_side() {
        let mut routes = Alternatives::default();
        routes.set(Arc::new(route("fe80::/64", 1)), false, false);
        routes.set(Arc::new(route("fe80::/64", 2)), false, false);
        assert_eq!(routes.len(), 2);
        assert!(matches!(routes.remove(&route("fe80::/64", 1)), Removal::Removed(_)));
        assert_eq!(routes, list(&[route("fe80::/64", 2)]));
    }

    #[test]
    fn seeing_a_message_twice_changes_nothing() {
        let mut routes = list(&[route("10.0.0.0/8", 1)]);
        routes.set(Arc::new(route("10.0.0.0/8", 1)), false, false);
        assert_eq!(routes.len(), 1);
    }
}
