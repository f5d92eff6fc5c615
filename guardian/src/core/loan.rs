//! The node's own address, lent to its card while systemd-networkd configures that.
//!
//! Tunnels send from an address that is not the CNI's but the node's, and it is systemd-networkd's to set. When that is
//! restarted, or reconfigures the card, it takes the address away and sets it again when it has it anew: tens of
//! milliseconds later, or seconds. Until then no tunnel sends, and routes with that source or by that card cannot come
//! back. So the address is put back at once, for a time: the kernel itself takes it away again (`check_lifetime` in
//! `net/ipv4/devinet.c`), and with it the routes of the main table that have it as their source.
//!
//! It is lent as a host address of its own, beside the route to its network: an address of the same network would make
//! the one that systemd-networkd sets next a secondary one (`__inet_insert_ifa`), which goes with the first. IPv4 only:
//! there alone do routes fall with the last address of a link.
//!
//! Nothing of this is guarded: it is in no RIB, is never missing, and whoever sets an address of that card ends the loan.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use foldhash::HashMap;

use super::{
    flow::{Effect, Report},
    machine::{Core, Who},
    plan::{Action, Applied},
    restore::errno_text,
    suspicion::Subject,
};
use crate::model::{
    Address, AddressKey, Attribute, Family, Key, Leg, Link, Mode, Object, ProcessId, Route, RouteKey, Stamp,
    address::{ifa, lifetimes},
    record::{Cause, Change, Outcome, Verdict},
    route::rt,
};

/// Addresses outside of the scope that are remembered; of more, those that come later are not.
const STANDING: usize = 4096;

/// How much later than it should the kernel may take an address away: it counts in seconds, and looks now and then.
const OVERDUE: Duration = Duration::from_secs(10);

/// Where a loan stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
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
struct Loan {
    address: AddressKey,
    scope: u8,
    /// The route to its network, where there is to be one.
    route: Option<Route>,
    phase: Phase,
    since: Stamp,
    /// When the kernel takes it away, however often it is written until then.
    until: Stamp,
    /// How often it may be written again.
    left: u32,
    /// What is to be told of it once it is written.
    report: Option<Report>,
    /// Whether it is we who have written the address, and the route.
    ours: (bool, bool),
}

impl Loan {
    /// The host address, with what is left of its time.
    fn host(&self, now: Stamp) -> Object {
        let left = self.until.since(now).as_millis().div_ceil(1000).max(1);
        let seconds = u32::try_from(left).unwrap_or(u32::MAX - 1);
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
    fn wanted(&self, now: Stamp) -> Vec<Action> {
        let route = || self.route.clone().map(Object::Route);
        match self.phase {
            Phase::Granted => vec![Action::Add(self.host(now))],
            Phase::Arrived => route().map(Action::Add).into_iter().collect(),
            Phase::Lent => Vec::new(),
            // Together, so that neither stands without the other; the route first, before it can fall.
            Phase::Over => {
                let route = route().filter(|_| self.ours.1);
                let address = Some(self.host(now)).filter(|_| self.ours.0);
                route.into_iter().chain(address).map(Action::Remove).collect()
            }
        }
    }

    /// Whether anything is to be written.
    const fn is_due(&self) -> bool {
        match self.phase {
            Phase::Granted => true,
            Phase::Arrived => self.route.is_some(),
            Phase::Lent => false,
            Phase::Over => self.ours.0 || (self.ours.1 && self.route.is_some()),
        }
    }

    /// Whether this is its address, or its route and no other of that key.
    fn has(&self, object: &Object) -> bool {
        match object {
            Object::Address(address) => address.key == self.address,
            Object::Route(route) => self.route.as_ref() == Some(route),
            _ => false,
        }
    }

    /// The next step, once the address is there.
    const fn arrived(&mut self) {
        self.phase = if self.route.is_some() { Phase::Arrived } else { Phase::Lent };
    }

    /// Whether it is over when this is set: its address, wherever, or one that systemd-networkd sets on its card.
    fn ends_with(&self, key: &AddressKey, by_networkd: bool) -> bool {
        let is_itself = self.address == *key;
        // A link that is renamed has its addresses announced again.
        let elsewhere = self.address.local == key.local && !is_itself;
        elsewhere || (by_networkd && (is_itself || self.address.link == key.link))
    }
}

/// An address that nobody guards.
#[derive(Clone, Copy, Debug)]
struct Standing {
    told: Stamp,
    /// Who has set it, where that was seen.
    by: Option<ProcessId>,
}

/// What is lent, by link and address, and the addresses of the node's cards.
#[derive(Debug, Default)]
pub(super) struct Loans {
    loans: BTreeMap<(u32, IpAddr), Loan>,
    standing: HashMap<AddressKey, Standing>,
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
    pub fn leave(&mut self, guarded: impl Fn(&Key) -> bool) {
        self.loans.retain(|_, loan| !guarded(&Key::Address(loan.address)));
        for loan in self.loans.values_mut() {
            loan.route.take_if(|route| guarded(&Key::Route(route.key)));
        }
    }

    fn end(&mut self, of: impl Fn(&Loan) -> bool) {
        self.loans.retain(|_, loan| {
            if of(loan) {
                loan.phase = Phase::Over;
            }
            loan.phase != Phase::Over || loan.is_due()
        });
    }
}

impl Core {
    /// An address is gone: lends it if the scope depends on it and systemd-networkd has taken it away, which sets it
    /// again; and forgets it if it was lent and its end, or somebody else, has taken it away.
    pub(super) fn lend(&mut self, now: Stamp, gone: &Address, who: &Who) {
        self.loans.standing.remove(&gone.key);
        let place = (gone.key.link, gone.key.local);
        if who.own || gone.key.family() != Family::Inet {
            return;
        }
        let by_networkd = is_by_networkd(who);
        let Some(loan) = self.loans.loans.get_mut(&place) else {
            if by_networkd && self.is_to_be_lent(now, gone, who) {
                self.grant(now, gone, who);
            }
            return;
        };
        let over = loan.phase == Phase::Over;
        if loan.address != gone.key {
            if by_networkd && over && loan.ours.0 {
                // Taken away again before what was lent was taken back: that stays.
                loan.arrived();
                let report = self.report_on(now, gone, who);
                self.tell_of(report, Outcome::AlreadyPresent, Some(now), None);
            }
        } else if by_networkd && !over && loan.left > 0 && loan.until > now {
            (loan.phase, loan.ours) = (Phase::Granted, (false, false));
            loan.left -= 1;
            let report = self.report_on(now, gone, who);
            if let Some(loan) = self.loans.loans.get_mut(&place) {
                loan.report = Some(report);
            }
        } else {
            self.loans.loans.remove(&place);
            if !over {
                let report = self.report_on(now, gone, who);
                let text = "the loan is over, and systemd-networkd has not set the address again";
                self.tell_of(report, Outcome::Observed, None, Some(text.into()));
            }
        }
    }

    fn grant(&mut self, now: Stamp, gone: &Address, who: &Who) {
        let Some(time) = self.settings.lend else { return };
        let route = network_route(gone).filter(|route| self.rib.get(&Key::Route(route.key)).is_none());
        let loan = Loan {
            address: AddressKey { len: Family::Inet.bits(), ..gone.key },
            scope: gone.scope,
            route,
            phase: Phase::Granted,
            since: now,
            until: now.after(time),
            left: self.settings.damping.burst,
            report: Some(self.report_on(now, gone, who)),
            ours: (false, false),
        };
        self.loans.loans.insert((gone.key.link, gone.key.local), loan);
    }

    /// Whether an address is worth lending: needed by what is guarded, not guarded itself, and not to be given up, as
    /// it is where the same process has set another on that card, or the address stands elsewhere.
    fn is_to_be_lent(&self, now: Stamp, gone: &Address, who: &Who) -> bool {
        let key = &gone.key;
        let given_up = |(other, standing): (&AddressKey, &Standing)| {
            other.local == key.local
                || (other.link == key.link && standing.by.is_some() && standing.by == who.process())
        };
        self.synced
            && self.settings.mode == Mode::Restore
            && self.orphaned(now).is_none()
            && key.peer == key.local
            && self.rib.get(&Key::Address(*key)).is_none()
            && self.scope.may_lend(key, &self.links)
            && !self.loans.standing.iter().any(given_up)
            && self.is_depended_on(key)
    }

    /// Whether a guarded tunnel sends from an address, or a guarded route needs it.
    fn is_depended_on(&self, key: &AddressKey) -> bool {
        let subject = Subject::Address(*key);
        let needs = |object: &Arc<Object>| object.route().is_some() && subject.concerns(object);
        let sends = |link: &Link| {
            link.tunnel_source() == Some(key.local) && !self.outside_links.contains(&link.index)
        };
        self.links.iter().any(sends) || self.rib.iter().any(|(_, entry)| entry.desired.iter().any(needs))
    }

    /// An address is set: with that the loans of its card, and of this address, are over.
    pub(super) fn repay(&mut self, address: &Address, who: &Who) {
        if who.own || address.key.family() != Family::Inet {
            return;
        }
        let key = Key::Address(address.key);
        let is_known = self.loans.standing.contains_key(&address.key);
        let is_lent = self.loans.loans.values().any(|loan| loan.address == address.key);
        if self.rib.get(&key).is_none() && !is_lent && (is_known || self.loans.standing.len() < STANDING) {
            self.loans.standing.insert(address.key, Standing { told: who.at, by: who.process() });
        }
        self.take_back(address, is_by_networkd(who), who.at);
    }

    fn take_back(&mut self, address: &Address, by_networkd: bool, at: Stamp) {
        let key = address.key;
        // The kernel makes this of it, and leaves the very same one that is there (`fib_add_ifaddr`).
        let made = network_route(address);
        let mut reports = Vec::new();
        for loan in self.loans.loans.values_mut().filter(|loan| loan.ends_with(&key, by_networkd)) {
            loan.ours.0 &= loan.address != key;
            loan.ours.1 &= made != loan.route;
            reports.extend(loan.report.take());
        }
        for report in reports {
            self.tell_of(report, Outcome::AlreadyPresent, Some(at), None);
        }
        self.loans.end(|loan| loan.ends_with(&key, by_networkd));
    }

    /// A link is as it is now, before that is taken in: what is a port has no address, and what was down has lost the
    /// route to its network.
    pub(super) fn lender_set(&mut self, link: &Link) {
        let was_up = self.links.get(link.index).is_some_and(Link::is_up);
        let enslaved = link.port.is_some();
        self.loans.end(|loan| enslaved && loan.address.link == link.index);
        for loan in self.loans.loans.values_mut().filter(|loan| loan.address.link == link.index) {
            if loan.phase == Phase::Lent && link.is_up() && !was_up {
                loan.arrived();
            }
        }
    }

    /// Nothing is lent any more: the scope or the settings are others. Where nothing is written any more either, it runs
    /// out.
    pub(super) fn end_loans(&mut self) {
        self.loans.end(|_| true);
        if self.settings.mode == Mode::Observe {
            self.loans.loans.clear();
        }
    }

    /// What loans have to be written now; nothing that is guarded.
    pub(super) fn plan_of_loans(&mut self, now: Stamp) -> Vec<(Key, Action)> {
        let rib = &self.rib;
        self.loans.leave(|key| rib.get(key).is_some());
        self.loans.plan(now)
    }

    /// The addresses that a dump has found.
    pub(super) fn cards_dumped(&mut self, objects: &[Object], started: Stamp) {
        let addresses = objects.iter().filter_map(|object| match object {
            Object::Address(address) if address.key.family() == Family::Inet => Some(address),
            _ => None,
        });
        let there: HashMap<AddressKey, &Address> = addresses.map(|address| (address.key, address)).collect();
        self.loans.standing.retain(|key, standing| standing.told >= started || there.contains_key(key));
        for (key, address) in there {
            if self.loans.standing.contains_key(&key) || self.rib.get(&Key::Address(key)).is_some() {
                continue;
            }
            // What was lent does not count, nor what went while the dump was read.
            match self.loans.loans.get(&(key.link, key.local)) {
                None if self.loans.standing.len() < STANDING => {
                    self.loans.standing.insert(key, Standing { told: started, by: None });
                }
                Some(loan) if loan.address != key && loan.phase == Phase::Lent && loan.since < started => {
                    // The message of that was lost.
                    self.take_back(address, true, started);
                }
                _ => {}
            }
        }
    }

    /// What came of a write of a loan's. What the kernel refuses is not tried again.
    pub(super) fn lent(&mut self, action: &Action, result: &Applied, sent: Stamp, done: Stamp) {
        let object = action.object();
        let Some(loan) = self.loans.loans.values_mut().find(|loan| loan.has(object)) else { return };
        let (written, address) = (*result == Applied::Verified, matches!(object, Object::Address(_)));
        if matches!(action, Action::Remove(_)) {
            *(if address { &mut loan.ours.0 } else { &mut loan.ours.1 }) = false;
            self.loans.end(|_| false);
            if let Object::Address(address) = object {
                // What had it as its source fell with it, if it does not stand elsewhere.
                let who = Who { own: false, ..self.consequence(sent) };
                self.suspect(Subject::Address(address.key), Cause::AddressRemoved, &who);
            }
            return;
        }
        if !address {
            (loan.phase, loan.ours.1) = (Phase::Lent, written);
        } else if written || *result == Applied::Exists {
            loan.ours.0 = written;
            loan.arrived();
            let report = loan.report.take();
            let (outcome, terms) = if written {
                let time = self.settings.lend.unwrap_or_default();
                let terms = format!("lent for {time:?}, or until systemd-networkd has set it again");
                (Outcome::Restored, Some(terms))
            } else {
                (Outcome::AlreadyPresent, None)
            };
            if let Some(report) = report {
                self.tell_of(report, outcome, Some(done), terms);
            }
        } else {
            let report = loan.report.take();
            self.loans.loans.retain(|_, loan| !loan.has(object));
            let why = match result {
                Applied::Refused { errno, message } => errno_text(*errno, message.as_deref()),
                _ => "the kernel made something else of it".into(),
            };
            if let Some(report) = report {
                self.tell_of(report, Outcome::Failed, None, Some(format!("could not be lent: {why}")));
            }
        }
        if written {
            self.help(|waiting| object.helps(waiting));
        }
    }

    /// The deletion of an address that is not guarded, to be told when it is known what came of it.
    fn report_on(&mut self, now: Stamp, gone: &Address, who: &Who) -> Report {
        let object = Arc::new(Object::Address(gone.clone()));
        self.told(now, &object, Change::Deleted, who.cause(), who, Outcome::Observed)
    }

    fn tell_of(&mut self, report: Report, outcome: Outcome, restored: Option<Stamp>, error: Option<String>) {
        let let_go = restored.is_none();
        let report = Report { outcome, restored, let_go, error, ..report };
        self.effects.push(Effect::Report(Box::new(report)));
    }
}

/// By the path of its executable; a name alone anyone can take, and would be lent an address for a moment.
fn is_by_networkd(who: &Who) -> bool {
    let exe = who.actor.process().and_then(|process| process.exe.as_deref());
    who.verdict == Verdict::Foreign && exe.is_some_and(|exe| exe.ends_with("/systemd-networkd"))
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
