//! The node's own address, lent to its card while systemd-networkd configures that.
//!
//! Tunnels send from an address that is not the CNI's but the node's, and it is systemd-networkd's to set. When that is
//! restarted, or reconfigures the card, it takes the address away and sets it again when it has it anew: tens of
//! milliseconds later, or seconds. Until then no tunnel sends, and routes with that source or by that card cannot come
//! back. So the address is put back at once, for a time: the kernel itself takes it away again (`check_lifetime` in
//! `net/ipv4/devinet.c`), and with it all routes that have it as their source.
//!
//! It is lent as a host address of its own, beside the route to its network: an address of the same network would make
//! the one that systemd-networkd sets next a secondary one (`__inet_insert_ifa`), which goes with the first. IPv4 only:
//! there alone do routes fall with the last address of a link.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use super::{
    alternatives::Alternatives,
    losses::Lost,
    machine::{Core, Who},
    suspicion::Subject,
};
use crate::model::{
    Address, AddressKey, Attribute, Family, Key, Leg, Mode, Object, Route, RouteKey, Stamp,
    address::{ifa, lifetimes},
    record::{Outcome, Verdict},
    route::rt,
};

/// What is lent, by link and address.
#[derive(Debug, Default)]
pub(super) struct Loans(BTreeMap<(u32, IpAddr), Loan>);

#[derive(Clone, Copy, Debug)]
struct Loan {
    /// The host address.
    address: Key,
    /// The route to its network, if there is to be one.
    route: Option<Key>,
}

impl Loan {
    fn has(self, key: &Key) -> bool {
        self.address == *key || self.route == Some(*key)
    }
}

impl Core {
    /// Whether this is lent, and nobody's to guard.
    pub(super) fn is_lent(&self, key: &Key) -> bool {
        self.loans.0.values().any(|loan| loan.has(key))
    }

    /// What is to be said of a restore that only lends.
    pub(super) fn terms(&self, key: &Key) -> Option<String> {
        let time = self.settings.lend.filter(|_| self.is_lent(key))?;
        Some(format!("lent for {time:?}, or until systemd-networkd has set it again"))
    }

    /// An address is gone: lends it if the scope depends on it and systemd-networkd has taken it away, which sets it
    /// again; and forgets it if it was lent and somebody else, or its end, has taken it away.
    pub(super) fn lend(&mut self, now: Stamp, gone: &Address, who: &Who) {
        let key = Key::Address(gone.key);
        let place = (gone.key.link, gone.key.local);
        let loan = self.loans.0.get(&place).copied().filter(|loan| loan.address == key);
        if who.own || (loan.is_none() && !self.is_to_be_lent(&gone.key)) {
            return;
        }
        let Some(time) = self.settings.lend.filter(|_| is_by_networkd(who)) else {
            if loan.is_some() {
                self.cease(place);
            }
            return;
        };
        if let Some(loan) = loan {
            // Told as a loss of its own; its route fell with it.
            if let Some((key, entry)) = loan.route.and_then(|key| Some((key, self.rib.get_mut(&key)?))) {
                entry.observed = Alternatives::default();
                self.ready.push_back(key);
            }
            return;
        }
        let lent = host(gone, time);
        let route = network_route(gone).map(Object::Route);
        let address = lent.key();
        let route = route.filter(|route| self.rib.get(&route.key()).is_none());
        let key_of_route = route.as_ref().map(Object::key);
        for object in [Some(lent), route].into_iter().flatten() {
            let key = object.key();
            self.rib.entry(key).desired.push(Arc::new(object));
            self.rib.recount(&key);
        }
        self.loans.0.insert(place, Loan { address, route: key_of_route });
        self.lose(now, address, Lost::deleted(Arc::new(Object::Address(gone.clone()))), who.cause(), who);
        self.ready.extend(key_of_route);
    }

    /// Whether an address of this key is worth lending: not guarded itself, and needed by what is.
    fn is_to_be_lent(&self, key: &AddressKey) -> bool {
        self.synced
            && self.settings.mode == Mode::Restore
            && key.family() == Family::Inet
            && key.peer == key.local
            && self.rib.get(&Key::Address(*key)).is_none()
            && self.scope.may_lend(key, &self.links)
            && self.is_depended_on(key)
    }

    /// Whether a guarded tunnel sends from an address, or a guarded route needs it.
    fn is_depended_on(&self, key: &AddressKey) -> bool {
        let subject = Subject::Address(*key);
        let needs = |object: &Arc<Object>| object.route().is_some() && subject.concerns(object);
        let sends = |link: &crate::model::Link| {
            link.tunnel_source() == Some(key.local) && !self.outside_links.contains(&link.index)
        };
        self.links.iter().any(sends) || self.rib.iter().any(|(_, entry)| entry.desired.iter().any(needs))
    }

    /// An object is set: if that is what was lent, by somebody to whom it belongs, the loan is over.
    pub(super) fn repay(&mut self, object: &Object, who: &Who) {
        let Object::Address(address) = object else { return };
        let place = (address.key.link, address.key.local);
        if who.own || !self.loans.0.contains_key(&place) {
            return;
        }
        let Some(loan) = self.loans.0.remove(&place) else { return };
        // The kernel makes the same route of it, and leaves the one that is there (`fib_add_ifaddr`).
        let made = network_route(address).map(|route| Key::Route(route.key));
        let kept = [Some(object.key()), made];
        for key in [Some(loan.address), loan.route].into_iter().flatten() {
            let Some(entry) = self.rib.get_mut(&key) else { continue };
            entry.desired = Alternatives::default();
            entry.surplus = entry.observed.iter().next().cloned().filter(|_| !kept.contains(&Some(key)));
            self.resolve(key, Outcome::AlreadyPresent, who.at);
            self.rib.recount(&key);
            self.settle_accounts(key);
        }
    }

    /// What was lent has gone unseen, or the kernel has refused it: that is the end of it. It is somebody else's to set.
    pub(super) fn write_off(&mut self, key: &Key) {
        let Some((&place, loan)) = self.loans.0.iter_mut().find(|(_, loan)| loan.has(key)) else { return };
        if loan.address == *key {
            self.cease(place);
        } else {
            loan.route = None;
            self.let_go(*key);
        }
    }

    fn cease(&mut self, place: (u32, IpAddr)) {
        let Some(loan) = self.loans.0.remove(&place) else { return };
        if let Some(loss) = self.rib.get(&loan.address).and_then(|entry| entry.loss.as_deref()) {
            let why = loss.error.as_deref().unwrap_or("somebody else has taken it away again");
            let text = format!("could not be lent: {why}");
            self.report(loan.address, Outcome::Failed, Some(text));
        }
        self.let_go(loan.address);
        if let Some(route) = loan.route {
            self.let_go(route);
        }
    }
}

/// By the path of its executable; a name alone anyone can take, and would be lent an address for a moment.
fn is_by_networkd(who: &Who) -> bool {
    let exe = who.actor.process().and_then(|process| process.exe.as_deref());
    who.verdict == Verdict::Foreign && exe.is_some_and(|exe| exe.ends_with("/systemd-networkd"))
}

/// The address as it is lent: without its network, for a time.
fn host(address: &Address, time: Duration) -> Object {
    let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX - 1).max(1);
    let lifetimes = Attribute { kind: ifa::CACHEINFO, value: lifetimes(seconds, seconds).into() };
    Object::Address(Address {
        key: AddressKey { len: Family::Inet.bits(), ..address.key },
        flags: 0,
        tentative: false,
        expires: true,
        attributes: vec![lifetimes],
        ..*address
    })
}

/// The route that the kernel makes to an address's network (`fib_add_ifaddr` in `net/ipv4/fib_frontend.c`).
fn network_route(address: &Address) -> Option<Route> {
    if address.flags & (ifa::F_NOPREFIXROUTE | ifa::F_SECONDARY) != 0 {
        return None;
    }
    let dst = address.key.network().filter(|network| network.len() < Family::Inet.bits())?;
    let IpAddr::V4(local) = address.key.local else { return None };
    let metric = address.attributes.iter().find(|attribute| attribute.number() == ifa::RT_PRIORITY);
    let source = Attribute { kind: rt::RTA_PREFSRC, value: local.octets().into() };
    Some(Route {
        key: RouteKey {
            table: rt::TABLE_MAIN,
            dst,
            src: None,
            tos: 0,
            metric: metric.and_then(Attribute::as_u32).unwrap_or(0),
        },
        protocol: rt::PROT_KERNEL,
        scope: rt::SCOPE_LINK,
        kind: rt::RTN_UNICAST,
        flags: 0,
        expires: false,
        legs: vec![Leg { oif: address.key.link, ..Leg::default() }],
        attributes: vec![source],
    })
}
