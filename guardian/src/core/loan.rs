//! What is lent of the node's own, and where each loan stands ([`super::lending`]).

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use foldhash::HashMap;

use super::{flow::Report, plan::Action};
use crate::model::{
    Address, AddressKey, Attribute, Family, Key, Leg, Object, ProcessId, Route, RouteKey, Stamp,
    address::{ifa, lifetimes},
    route::rt,
};

/// How much later than it should the kernel may take an address away: it counts in seconds, and looks now and then.
const OVERDUE: Duration = Duration::from_secs(10);

/// Where a loan stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The address is to be written.
    Granted,
    /// The address is there; the route to its network is to be written.
    Arrived,
    /// All is there.
    Lent,
    /// It is to be taken back.
    Over,
}

/// An address that is lent.
#[derive(Debug)]
pub(super) struct Loan {
    pub address: AddressKey,
    pub scope: u8,
    /// The route to its network, where there is to be one.
    pub route: Option<Route>,
    pub phase: Phase,
    /// When it was granted: a dump that began later knows more.
    pub since: Stamp,
    /// When the kernel takes it away, however often it is written until then.
    pub until: Stamp,
    /// How often it may be written again.
    pub left: u32,
    /// What is to be told of it once it is written.
    pub report: Option<Report>,
    /// Whether the address that is there is what was lent, and nobody's own.
    pub has_address: bool,
    /// Whether the route is.
    pub has_route: bool,
}

impl Loan {
    /// The host address, with what is left of its time.
    pub fn host(&self, now: Stamp) -> Object {
        let left = self.until.since(now).as_millis().div_ceil(1000).max(1);
        let seconds = u32::try_from(left).unwrap_or(u32::MAX).min(u32::MAX - 1);
        let lifetimes = Attribute { kind: ifa::CACHEINFO, value: lifetimes(seconds, seconds).into() };
        Object::Address(Address {
            key: self.address,
            scope: self.scope,
            flags: 0,
            tentative: false,
            expires: true,
            attributes: vec![lifetimes],
        })
    }

    /// What is to be written next.
    pub fn wanted(&self, now: Stamp) -> Vec<Action> {
        let route = || self.route.clone().map(Object::Route);
        match self.phase {
            Phase::Granted => vec![Action::Add(self.host(now))],
            Phase::Arrived => route().map(Action::Add).into_iter().collect(),
            Phase::Lent => Vec::new(),
            // The route first, before it can fall.
            Phase::Over => {
                let route = route().filter(|_| self.has_route);
                let address = Some(self.host(now)).filter(|_| self.has_address);
                route.into_iter().chain(address).map(Action::Remove).collect()
            }
        }
    }

    /// Whether anything is to be written.
    pub const fn is_due(&self) -> bool {
        match self.phase {
            Phase::Granted => true,
            Phase::Arrived => self.route.is_some(),
            Phase::Lent => false,
            Phase::Over => self.has_address || (self.has_route && self.route.is_some()),
        }
    }

    /// Whether this is its address, or its route and no other of that key.
    pub fn has(&self, object: &Object) -> bool {
        match object {
            Object::Address(address) => address.key == self.address,
            Object::Route(route) => self.route.as_ref() == Some(route),
            _ => false,
        }
    }

    /// The next step, once the address is there.
    pub const fn arrived(&mut self) {
        self.phase = if self.route.is_some() { Phase::Arrived } else { Phase::Lent };
    }

    /// Whether it is over when this is set: its address, wherever, or another of its network that systemd-networkd sets
    /// on its card. An address of another network, such as a link-local one, says nothing of it.
    pub fn ends_with(&self, key: &AddressKey, by_networkd: bool) -> bool {
        let is_itself = self.address == *key;
        // A link that is renamed has its addresses announced again.
        let elsewhere = self.address.local == key.local && !is_itself;
        let network = self.route.as_ref().map(|route| route.key.dst);
        let instead =
            self.address.link == key.link && network.is_some_and(|network| network.contains(key.local));
        elsewhere || (by_networkd && (is_itself || instead))
    }
}

/// An address that nobody guards.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub told: Stamp,
    /// Who has set it, where that was seen, and whether that is systemd-networkd.
    pub by: Option<(ProcessId, bool)>,
}

/// What is lent, by link and address, and the addresses of the node's cards.
#[derive(Debug, Default)]
pub(super) struct Loans {
    pub loans: BTreeMap<(u32, IpAddr), Loan>,
    pub standing: HashMap<AddressKey, Standing>,
}

impl Loans {
    /// What is to be written now. Of what ran out long ago the message was lost: it is forgotten.
    pub fn plan(&mut self, now: Stamp) -> Vec<(Key, Action)> {
        self.loans.retain(|_, loan| loan.until.after(OVERDUE) > now);
        let wanted = self.loans.values().flat_map(|loan| loan.wanted(now));
        wanted.map(|action| (action.object().key(), action)).collect()
    }

    /// Whether anything is to be written.
    pub fn has_work(&self) -> bool {
        self.loans.values().any(Loan::is_due)
    }

    /// Whether a write of this is a loan's.
    pub fn has(&self, object: &Object) -> bool {
        self.loans.values().any(|loan| loan.has(object))
    }

    /// Nothing is lent of what is guarded now.
    pub fn leave(&mut self, guarded: impl Fn(&Key) -> bool) -> Vec<Report> {
        for loan in self.loans.values_mut() {
            if loan.route.take_if(|route| guarded(&Key::Route(route.key))).is_some()
                && loan.phase == Phase::Arrived
            {
                loan.arrived();
            }
            if guarded(&Key::Address(loan.address)) {
                (loan.phase, loan.has_address) = (Phase::Over, false);
            }
        }
        self.end(|_| false)
    }

    /// Ends those, and forgets what is over and needs no more writing; what was not told of it yet.
    pub fn end(&mut self, of: impl Fn(&Loan) -> bool) -> Vec<Report> {
        let mut untold = Vec::new();
        self.loans.retain(|_, loan| {
            if of(loan) {
                loan.phase = Phase::Over;
            }
            let stays = loan.phase != Phase::Over || loan.is_due();
            if loan.phase == Phase::Over {
                untold.extend(loan.report.take());
            }
            stays
        });
        untold
    }
}

/// The route that the kernel makes to an address's network (`fib_add_ifaddr` in `net/ipv4/fib_frontend.c`).
pub(super) fn network_route(address: &Address) -> Option<Route> {
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
