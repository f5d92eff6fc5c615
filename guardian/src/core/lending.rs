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
//! Nothing of this is guarded: it is in no RIB, and is never missing. Whoever sets that address ends the loan, and so does
//! systemd-networkd with another one of that network on that card.

use std::{sync::Arc, time::Duration};

use foldhash::HashMap;

use super::{
    flow::{Effect, Report},
    loan::{Loan, Phase, Standing, network_route},
    machine::{Core, Who},
    plan::{Action, Applied},
    restore::errno_text,
    suspicion::Subject,
};
use crate::model::{
    Address, AddressKey, Family, Key, Link, Mode, Object, Stamp,
    record::{Cause, Change, Outcome, Verdict},
};

/// Addresses outside of the scope that are remembered; of more, those that come later are not.
const STANDING: usize = 4096;

/// Loans at once.
const LOANS: usize = 64;

/// Who sets an address of a card and takes another away within this time has put the one in the other's place.
const EXCHANGE: Duration = Duration::from_secs(2);

impl Core {
    /// An address is gone: lends it if the scope depends on it and systemd-networkd has taken it away, which sets it
    /// again; and forgets it if it was lent and its end, or somebody else, has taken it away.
    pub(super) fn lend(&mut self, now: Stamp, gone: &Address, who: &Who) {
        let stood = self.loans.standing.remove(&gone.key);
        let place = (gone.key.link, gone.key.local);
        if who.own || gone.key.family() != Family::Inet {
            return;
        }
        let by_networkd = is_by_networkd(who);
        let Some(loan) = self.loans.loans.get_mut(&place) else {
            // What somebody else has set networkd will not set again.
            let was_others = stood.and_then(|stood| stood.by).is_some_and(|(_, by_networkd)| !by_networkd);
            if by_networkd && !was_others && self.is_to_be_lent(now, gone, who) {
                self.grant(now, gone, who);
            }
            return;
        };
        let over = loan.phase == Phase::Over;
        if loan.address != gone.key {
            if by_networkd && over && loan.has_address {
                // Taken away again before what was lent was taken back: that stays.
                loan.arrived();
                loan.since = now;
                let report = self.report_on(now, gone, who);
                self.tell_of(report, Outcome::AlreadyPresent, Some(now), None);
            }
        } else if by_networkd && !over && loan.left > 0 && loan.until > now {
            loan.phase = Phase::Granted;
            (loan.has_address, loan.has_route) = (false, false);
            loan.left -= 1;
            let report = self.report_on(now, gone, who);
            if let Some(loan) = self.loans.loans.get_mut(&place) {
                loan.report = Some(report);
            }
        } else {
            // The route may have to be taken back still, where the address stands otherwise.
            loan.has_address = false;
            loan.phase = Phase::Over;
            if !over {
                loan.has_route = false;
                let report = self.report_on(now, gone, who);
                let text = "the loan is over, and systemd-networkd has not set the address again";
                self.tell_of(report, Outcome::Observed, None, Some(text.into()));
            }
            self.end_loans(|_| false);
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
            has_address: false,
            has_route: false,
        };
        self.loans.loans.insert((gone.key.link, gone.key.local), loan);
    }

    /// Whether an address is worth lending: needed by what is guarded, not guarded itself, and not to be given up, as
    /// it is where the same process has set another on that card, or the address stands elsewhere.
    fn is_to_be_lent(&self, now: Stamp, gone: &Address, who: &Who) -> bool {
        let key = &gone.key;
        let given_up = |(other, standing): (&AddressKey, &Standing)| {
            let same = standing.by.is_some_and(|(process, _)| who.process() == Some(process));
            other.local == key.local
                || (other.link == key.link && same && who.at.since(standing.told) < EXCHANGE)
        };
        self.synced
            && self.loans.loans.len() < LOANS
            && self.settings.mode == Mode::Restore
            && self.orphaned(now).is_none()
            && key.peer == key.local
            && self.rib.get(&Key::Address(*key)).is_none()
            && self.scope.may_lend(key, &self.links)
            && !self.loans.standing.iter().any(given_up)
            && self.is_depended_on(key)
    }

    /// Whether a guarded tunnel sends from an address, or a guarded route has it as its source; or leaves by its link, if
    /// it was the last one there: with that its routes fall.
    fn is_depended_on(&self, key: &AddressKey) -> bool {
        let others = self.loans.standing.keys().map(|other| other.link);
        let lent = self.loans.loans.keys().map(|(link, _)| *link);
        let last = others.chain(lent).all(|link| link != key.link);
        let subject = Subject::Address(*key);
        let needs = |object: &Arc<Object>| {
            object
                .route()
                .is_some_and(|route| route.prefsrc() == Some(key.local) || (last && subject.concerns(object)))
        };
        let sends = |link: &Link| {
            link.tunnel_source() == Some(key.local) && !self.outside_links.contains(&link.index)
        };
        self.links.iter().any(sends) || self.rib.iter().any(|(_, entry)| entry.desired.iter().any(needs))
    }

    /// An address is set: it is known from now on to stand there, and may end loans.
    pub(super) fn repay(&mut self, address: &Address, who: &Who) {
        if who.own || address.key.family() != Family::Inet {
            return;
        }
        let key = Key::Address(address.key);
        let is_known = self.loans.standing.contains_key(&address.key);
        let is_lent = self.loans.loans.values().any(|loan| loan.address == address.key);
        if self.rib.get(&key).is_none() && !is_lent && (is_known || self.loans.standing.len() < STANDING) {
            let by = who.process().map(|process| (process, is_by_networkd(who)));
            self.loans.standing.insert(address.key, Standing { told: who.at, by });
        }
        for loan in self.loans.loans.values_mut() {
            // Somebody has made it theirs.
            loan.has_address &= loan.address != address.key || address.expires;
        }
        self.take_back(address, is_by_networkd(who), who.at);
    }

    fn take_back(&mut self, address: &Address, by_networkd: bool, at: Stamp) {
        let key = address.key;
        // The kernel makes this of it, and leaves the very same one that is there (`fib_add_ifaddr`).
        let made = network_route(address);
        let mut reports = Vec::new();
        for loan in self.loans.loans.values_mut().filter(|loan| loan.ends_with(&key, by_networkd)) {
            loan.has_address &= loan.address != key;
            loan.has_route &= made != loan.route;
            reports.extend(loan.report.take());
        }
        for report in reports {
            self.tell_of(report, Outcome::AlreadyPresent, Some(at), None);
        }
        self.end_loans(|loan| loan.ends_with(&key, by_networkd));
    }

    /// A link is as it is now, before that is taken in: what is a port has no address, and what was down has lost the
    /// route to its network.
    pub(super) fn lender_set(&mut self, link: &Link) {
        let was_up = self.links.get(link.index).is_some_and(Link::is_up);
        let enslaved = link.port.is_some();
        self.end_loans(|loan| enslaved && loan.address.link == link.index);
        for loan in self.loans.loans.values_mut().filter(|loan| loan.address.link == link.index) {
            // It fell with the link, and what is there now is not ours.
            loan.has_route &= link.is_up() && was_up;
            if loan.phase == Phase::Lent && link.is_up() && !was_up {
                loan.arrived();
            }
        }
    }

    /// Nothing is lent any more: the scope or the settings are others. Where nothing is written any more either, it runs
    /// out.
    pub(super) fn call_loans_in(&mut self) {
        self.end_loans(|_| true);
        if self.settings.mode == Mode::Observe {
            self.loans.loans.clear();
        }
    }

    fn end_loans(&mut self, of: impl Fn(&Loan) -> bool) {
        for report in self.loans.end(of) {
            self.tell_of(report, Outcome::Observed, None, None);
        }
    }

    /// What loans have to be written now; nothing that is guarded.
    pub(super) fn plan_of_loans(&mut self, now: Stamp) -> Vec<(Key, Action)> {
        let rib = &self.rib;
        for report in self.loans.leave(|key| rib.get(key).is_some()) {
            self.tell_of(report, Outcome::Observed, None, None);
        }
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
            // It may have been lent when the dump was read, and taken back since.
            let temporary = address.expires && key.len == Family::Inet.bits();
            let is_known = self.loans.standing.contains_key(&key);
            if is_known || temporary || self.rib.get(&Key::Address(key)).is_some() {
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
            *(if address { &mut loan.has_address } else { &mut loan.has_route }) = false;
            self.end_loans(|_| false);
            if let Object::Address(address) = object {
                // What had it as its source fell with it, if it does not stand elsewhere.
                let who = Who { own: false, ..self.consequence(sent) };
                self.suspect(Subject::Address(address.key), Cause::AddressRemoved, &who);
            }
            return;
        }
        if !address {
            (loan.phase, loan.has_route) = (Phase::Lent, written);
        } else if written || *result == Applied::Exists {
            loan.has_address = written;
            loan.arrived();
            let report = loan.report.take();
            let (outcome, terms) = if written {
                let seconds = loan.until.since(done).as_millis().div_ceil(1000);
                let terms = format!("lent for {seconds}s, or until systemd-networkd has set it again");
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
pub(super) fn is_by_networkd(who: &Who) -> bool {
    let exe = who.actor.process().and_then(|process| process.exe.as_deref());
    who.verdict == Verdict::Foreign && exe.is_some_and(is_networkd)
}

/// Whether this is the path of systemd-networkd's executable.
pub fn is_networkd(exe: &str) -> bool {
    exe.ends_with("/systemd-networkd")
}
