//! Routes that go without a message, and what a dump says about them.
//!
//! The kernel announces neither the IPv4 routes that fall with a link, with the last address of an
//! interface or with a nexthop object (`fib_sync_down_dev`, `fib_flush` in `net/ipv4`): the announced
//! cause is remembered as a suspicion, the routes are read again, and what is missing then is put down to
//! the request that caused it.

use std::{collections::HashMap, sync::Arc};

use super::{
    alternatives::Alternatives,
    flow::{Dump, Reason},
    machine::{Core, Who},
    rib::Phase,
};
use crate::model::{
    Actor, Address, Family, Route, RouteKey, Stamp,
    record::{Cause, Change, Outcome, Verdict},
};

/// Suspicions kept between two dumps; more would only mean that none of them tells much.
const CAPACITY: usize = 64;

/// What may have taken routes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Link(u32),
    Address(Address),
    Nexthop(u32),
    Key(RouteKey),
}

impl Subject {
    fn concerns(&self, route: &Route) -> bool {
        match self {
            Self::Link(index) => route.oifs().any(|oif| oif == *index),
            Self::Address(address) => {
                route.prefsrc() == Some(address.addr)
                    || (address.addr.is_ipv4() == (route.family() == Family::Inet)
                        && route.oifs().any(|oif| oif == address.link))
            }
            Self::Nexthop(id) => route.nexthop_id() == Some(*id),
            Self::Key(key) => route.key == *key,
        }
    }
}

/// An announced change that may have had silent consequences.
#[derive(Clone, Debug)]
pub(super) struct Suspicion {
    subject: Subject,
    cause: Cause,
    who: Who,
}

impl Suspicion {
    pub fn new(subject: Subject, cause: Cause, who: &Who) -> Self {
        Self { subject, cause, who: who.clone() }
    }
}

/// Whether a cause explains another: addresses go with their link, in the same request.
fn outranks(cause: Cause, known: Cause) -> bool {
    match known {
        Cause::Request => true,
        Cause::AddressRemoved => matches!(cause, Cause::LinkDown | Cause::LinkRemoved),
        _ => false,
    }
}

impl Core {
    /// Remembers an announced change and asks for a dump, if anything guarded may have gone with it.
    pub(super) fn suspect(&mut self, subject: Subject, cause: Cause, who: &Who) {
        // What is missing already because of an explicit message of the same request gets its true cause.
        let mut concerned = false;
        for entry in self.rib.iter_mut() {
            if !entry.desired.iter().any(|route| subject.concerns(route)) {
                continue;
            }
            match entry.loss.as_mut() {
                Some(loss) if loss.silent && loss.actor == who.actor && outranks(cause, loss.cause) => {
                    loss.cause = cause;
                }
                Some(_) => {}
                None => concerned = true,
            }
        }
        if concerned {
            if self.suspicions.len() >= CAPACITY {
                self.suspicions.remove(0);
            }
            self.suspicions.push(Suspicion::new(subject, cause, who));
            self.reread(Reason::Silent);
        }
    }

    /// Compares what is known with what the kernel holds.
    pub(super) fn dump(&mut self, now: Stamp, dump: Dump) {
        if let Some(links) = dump.links {
            self.links_dumped(links, dump.started);
        }
        let mut held: HashMap<RouteKey, Alternatives> = HashMap::new();
        for route in dump.routes {
            if self.rib.get(&route.key).is_some() || self.scope.covers(&route, &self.links) {
                held.entry(route.key).or_default().push(Arc::new(route));
            }
        }
        let suspicions = std::mem::take(&mut self.suspicions);
        // What was announced since may have had its consequences after the dump: the next one tells.
        self.suspicions = suspicions.iter().filter(|s| s.who.at >= dump.started).cloned().collect();
        for key in self.rib.keys() {
            let observed = held.remove(&key).unwrap_or_default();
            self.compare(now, key, observed, dump.started, dump.ended, &suspicions);
            self.rib.recount(&key);
        }
        for (key, mut routes) in held {
            if !self.withdrawn.contains(&key) {
                let entry = self.rib.entry(key);
                entry.observed = routes.clone();
                entry.told = dump.started;
                routes.retain(|route| self.scope.covers(route, &self.links));
                entry.desired = routes;
                self.rib.recount(&key);
            }
        }
        self.synced = true;
    }

    fn compare(
        &mut self,
        now: Stamp,
        key: RouteKey,
        observed: Alternatives,
        started: Stamp,
        ended: Stamp,
        suspicions: &[Suspicion],
    ) {
        let Some(entry) = self.rib.get_mut(&key) else { return };
        if entry.told >= started || entry.wrote.is_some_and(|wrote| wrote.done >= started) {
            // What is known is newer than this dump; one that began later will tell.
            if entry.doubt || entry.loss.as_deref().is_some_and(|loss| loss.phase == Phase::Contested) {
                self.reread(Reason::Exists);
            }
            return;
        }
        let doubt = std::mem::take(&mut entry.doubt);
        let was_whole = doubt || entry.is_whole();
        entry.observed = observed;
        entry.told = started;
        if doubt && entry.desired.is_empty() {
            entry.surplus = entry.ours.clone().filter(|ours| entry.observed.contains(ours));
            self.settle_accounts(key);
            return;
        }
        if entry.is_whole() {
            self.resolve(key, Outcome::AlreadyPresent, ended);
            self.settle_accounts(key);
            return;
        }
        match entry.loss.as_deref().map(|loss| loss.phase) {
            Some(Phase::Contested) => self.set_phase(key, Phase::Ready),
            Some(_) => {}
            // Known already: a write of our own is on its way.
            None if !was_whole => self.settle_accounts(key),
            None => self.found_missing(now, key, suspicions, ended, doubt),
        }
    }

    fn found_missing(
        &mut self,
        now: Stamp,
        key: RouteKey,
        suspicions: &[Suspicion],
        ended: Stamp,
        doubt: bool,
    ) {
        let Some(entry) = self.rib.get_mut(&key) else { return };
        let Some(missing) = entry.desired.first_missing_in(&entry.observed).cloned() else { return };
        let suspect = suspicions.iter().find(|s| s.subject.concerns(&missing));
        let stands = entry.desired.iter().any(|route| entry.observed.contains(route));
        let replaced = !entry.observed.is_empty() && !stands;
        match suspect {
            Some(Suspicion { cause, who, .. }) if who.verdict == Verdict::Owner => {
                let observed = &entry.observed;
                entry.desired.retain(|route| observed.contains(route));
                if entry.desired.is_empty() {
                    self.withdraw(key);
                }
                self.tell_allowed(now, &missing, Change::Deleted, *cause, who);
            }
            Some(Suspicion { cause, who, .. }) => {
                let change = if replaced { Change::Replaced } else { Change::Deleted };
                self.lose(now, key, missing, change, *cause, who);
            }
            // The owner's word is known, and so is that we have overwritten it.
            None if doubt => {}
            // A message was lost. What stands in its place may well be the owner's: it is taken for it.
            None if replaced => entry.desired = entry.observed.clone(),
            None => {
                let who =
                    Who { at: ended, port: 0, actor: Arc::new(Actor::Unknown), verdict: Verdict::Unknown };
                self.lose(now, key, missing, Change::Deleted, Cause::Unknown, &who);
            }
        }
        self.settle_accounts(key);
    }
}
