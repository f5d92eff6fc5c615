//! The objects that share one key, and what a notification does to them.
//!
//! Of routes the kernel may hold several: IPv4 routes that were appended or prepended (`fib_table_insert` in
//! `net/ipv4/fib_trie.c`), IPv6 routes to the same destination on several links, such as `fe80::/64`
//! (`fib6_add_rt2node` in `net/ipv6/ip6_fib.c`).

use std::sync::Arc;

use crate::model::{Attribute, Family, Leg, Object, Route, address::ifa, link::ifla, route::rt};

/// The objects of one key in the kernel's order; of all but routes there is one at most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alternatives(Vec<Arc<Object>>);

/// What a removal found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// The object was there, a route as a whole or some legs of it: this is what it was before.
    Removed(Arc<Object>),
    /// No object of this key is known: an old message, or one that was seen already.
    Unknown,
    /// Routes of this key are known, but none like this: the knowledge is out of date.
    Mismatch,
}

impl Alternatives {
    /// In the kernel's order; the first is the one that packets take.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Object>> {
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

    /// Whether one of them is `object`.
    pub fn contains(&self, object: &Object) -> bool {
        // Most often it is the very same one.
        self.0.iter().any(|o| std::ptr::eq(Arc::as_ptr(o), object)) || self.0.iter().any(|o| o.same(object))
    }

    /// The first of `self` that is not in `other`.
    pub fn first_missing_in(&self, other: &Self) -> Option<&Arc<Object>> {
        self.0.iter().find(|o| !other.contains(o))
    }

    /// The nexthop objects that they refer to, groups to their members.
    pub fn nexthops(&self) -> Vec<u32> {
        let of = |object: &Arc<Object>| match &**object {
            Object::Route(route) => route.nexthop_id().into_iter().collect::<Vec<_>>(),
            Object::Nexthop(group) => group.members().collect(),
            _ => Vec::new(),
        };
        self.0.iter().flat_map(of).collect()
    }

    /// Puts `object` at the end, as a dump lists them.
    pub fn push(&mut self, object: Arc<Object>) {
        self.0.push(object);
    }

    /// A number that changes when they do: where they lie in memory. 0 for none.
    pub fn print(&self) -> usize {
        let places = self.0.iter().enumerate();
        places.fold(0, |print, (n, object)| print ^ Arc::as_ptr(object).addr().rotate_left(n as u32))
    }

    /// Keeps those for which `keep` holds.
    pub fn retain(&mut self, keep: impl FnMut(&Arc<Object>) -> bool) {
        self.0.retain(keep);
    }

    /// Takes over from `newer`, where an object there is the same in all that is guarded, what else it says: a
    /// bridge's hardware address, the legs that a nexthop object stands for. What is to come back as it was stays.
    pub fn refresh(&mut self, newer: &Self) {
        for old in &mut self.0 {
            if let Some(new) = newer.0.iter().find(|new| new.same(old)) {
                *old = with_what_stays_of(old, new);
            }
        }
    }

    /// `RTM_NEW*` with these flags. Seeing a route again changes nothing.
    pub fn set(&mut self, object: Arc<Object>, replaced: bool, appended: bool) {
        let Object::Route(route) = &*object else {
            self.0.clear();
            self.0.push(object);
            return;
        };
        if self.contains(&object) {
            return;
        }
        let place = match route.family() {
            _ if replaced => self.place_of_replaced(&object),
            // An IPv6 message about a multipath route names all its legs.
            Family::Inet6 if is_multipath_capable(&object) => self.place_of_alike(&object),
            _ => None,
        };
        match place.and_then(|index| self.0.get_mut(index)) {
            Some(old) => *old = object,
            None if route.family() == Family::Inet && !appended => self.0.insert(0, object),
            None => self.0.push(object),
        }
    }

    /// The route that the kernel takes away for `object`, asked for with `NLM_F_REPLACE`.
    pub fn replaced_by(&self, object: &Object) -> Option<&Arc<Object>> {
        self.place_of_replaced(object).and_then(|place| self.0.get(place))
    }

    /// Of IPv4 the first of the key (`fa_first`); of IPv6 the first that is as capable of multipath as the new one, else
    /// the first of the metric.
    fn place_of_replaced(&self, object: &Object) -> Option<usize> {
        let alike =
            self.place_of_alike(object).filter(|_| object.route().map(Route::family) == Some(Family::Inet6));
        alike.or((!self.0.is_empty()).then_some(0))
    }

    fn place_of_alike(&self, object: &Object) -> Option<usize> {
        self.0.iter().position(|o| is_multipath_capable(o) == is_multipath_capable(object))
    }

    /// `RTM_DEL*`. Of an IPv6 multipath route it may name single legs.
    pub fn remove(&mut self, object: &Object) -> Removal {
        if self.0.is_empty() {
            return Removal::Unknown;
        }
        let Object::Route(route) = object else {
            return self.0.pop().map_or(Removal::Unknown, Removal::Removed);
        };
        let alike =
            |o: &Object| o.route().is_some_and(|r| r.kind == route.kind && same_ways(&r.legs, &route.legs));
        let whole =
            self.0.iter().position(|o| o.same(object)).or_else(|| self.0.iter().position(|o| alike(o)));
        if let Some(index) = whole {
            return Removal::Removed(self.0.remove(index));
        }
        if route.family() == Family::Inet6 {
            let is_part = |r: &Route| {
                r.legs.len() > route.legs.len()
                    && !route.legs.is_empty()
                    && route.legs.iter().all(|leg| r.legs.iter().any(|l| same_way(l, leg)))
            };
            let part = self.0.iter_mut().find(|o| o.route().is_some_and(is_part));
            if let Some(group) = part {
                let before = Arc::clone(group);
                if let Object::Route(left) = Arc::make_mut(group) {
                    left.legs.retain(|leg| !route.legs.iter().any(|gone| same_way(leg, gone)));
                }
                return Removal::Removed(before);
            }
        }
        Removal::Mismatch
    }
}

/// `new`, but for a bridge's hardware address: one that has lost its ports has lost that too, and is to come back with
/// the one that its pods know; and but for an address's label, which the kernel numbers when a link is renamed.
fn with_what_stays_of(old: &Object, new: &Arc<Object>) -> Arc<Object> {
    let with = |attributes: &mut Vec<Attribute>, was: &[Attribute], number: u16| {
        attributes.retain(|attribute| attribute.number() != number);
        attributes.extend(was.iter().find(|attribute| attribute.number() == number).cloned());
        attributes.sort_by_key(Attribute::number);
    };
    let mut kept = Arc::clone(new);
    match (old, &**new) {
        (Object::Link(was), Object::Link(is))
            if was.is_bridge() && was.attribute(ifla::ADDRESS) != is.attribute(ifla::ADDRESS) =>
        {
            if let Object::Link(link) = Arc::make_mut(&mut kept) {
                with(&mut link.attributes, &was.attributes, ifla::ADDRESS);
            }
        }
        (Object::Address(was), Object::Address(is)) if was.attributes != is.attributes => {
            if let Object::Address(address) = Arc::make_mut(&mut kept) {
                with(&mut address.attributes, &was.attributes, ifa::LABEL);
            }
        }
        _ => {}
    }
    kept
}

impl FromIterator<Arc<Object>> for Alternatives {
    fn from_iter<I: IntoIterator<Item = Arc<Object>>>(objects: I) -> Self {
        Self(objects.into_iter().collect())
    }
}

/// `rt6_qualify_for_ecmp` of `include/net/ip6_route.h`: routes by gateway can become legs of one, but for those from a
/// router advertisement (`RTF_ADDRCONF`).
pub fn is_multipath_capable(object: &Object) -> bool {
    let Some(route) = object.route() else { return false };
    route.family() == Family::Inet6
        && route.protocol != rt::PROT_RA
        && route.nexthop_id().is_none()
        && !route.legs.is_empty()
        && route.legs.iter().all(|leg| leg.gateway().is_some())
}

/// Whether both are IPv6 routes of one key that the kernel has made with addresses of different links, as `fe80::/64`:
/// they know nothing of each other.
pub fn stands_on_another_link(one: &Object, other: &Object) -> bool {
    let (Some(one), Some(other)) = (one.route(), other.route()) else { return false };
    let is_kernels = |route: &Route| route.family() == Family::Inet6 && route.protocol == rt::PROT_KERNEL;
    is_kernels(one) && is_kernels(other) && !one.oifs().any(|link| other.oifs().any(|other| other == link))
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
        routes.iter().cloned().map(|route| Arc::new(route.into())).collect()
    }

    #[test]
    fn ipv4_replace_takes_the_first_append_goes_last_and_plain_goes_first() {
        let (a, b, c, d) =
            (route("10.0.0.0/8", 1), route("10.0.0.0/8", 2), route("10.0.0.0/8", 3), route("10.0.0.0/8", 4));
        let mut routes = Alternatives::default();
        routes.set(Arc::new(a.into()), false, false);
        routes.set(Arc::new(b.clone().into()), false, true);
        routes.set(Arc::new(c.clone().into()), true, false);
        assert_eq!(routes, list(&[c.clone(), b.clone()]));
        routes.set(Arc::new(d.clone().into()), false, false);
        assert_eq!(routes, list(&[d, c, b]));
    }

    #[test]
    fn ipv6_legs_go_one_by_one() {
        let mut both = via("fd00::/64", 1, "fe80::1");
        both.legs.extend(via("fd00::/64", 2, "fe80::2").legs);
        let mut routes = list(&[both.clone()]);
        let one = via("fd00::/64", 2, "fe80::2");
        assert_eq!(routes.remove(&one.clone().into()), Removal::Removed(Arc::new(both.into())));
        assert_eq!(routes, list(&[via("fd00::/64", 1, "fe80::1")]));
        assert_eq!(routes.remove(&one.clone().into()), Removal::Mismatch);
        routes.remove(&via("fd00::/64", 1, "fe80::1").into());
        assert_eq!(routes.remove(&one.clone().into()), Removal::Unknown);
    }

    #[test]
    fn ipv6_routes_on_links_stand_side_by_side() {
        let mut routes = Alternatives::default();
        routes.set(Arc::new(route("fe80::/64", 1).into()), false, false);
        routes.set(Arc::new(route("fe80::/64", 2).into()), false, false);
        assert_eq!(routes.len(), 2);
        assert!(matches!(routes.remove(&route("fe80::/64", 1).into()), Removal::Removed(_)));
        assert_eq!(routes, list(&[route("fe80::/64", 2)]));
    }

    #[test]
    fn seeing_a_message_twice_changes_nothing() {
        let mut routes = list(&[route("10.0.0.0/8", 1)]);
        routes.set(Arc::new(route("10.0.0.0/8", 1).into()), false, false);
        assert_eq!(routes.len(), 1);
    }
}
