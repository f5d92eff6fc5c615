//! Plans: what to write now, what came of it, what is tried again when.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::{
    damping::Culprit,
    flow::Reason,
    machine::Core,
    plan::{Action, Applied},
    rib::{Phase, Wrote},
};
use crate::model::{
    Leg, Mode, Prefix, ProcessId, Route, RouteKey, Stamp,
    record::{Cause, Outcome},
    route::rt,
};

/// The first retry of what the kernel refused; doubled each time. What it needs usually appears with a
/// message, which retries at once: this is the safety net.
const RETRY: Duration = Duration::from_secs(1);

/// The longest time between two retries.
const RETRY_MAX: Duration = Duration::from_secs(60);

const EPERM: i32 = 1;
const ENOMEM: i32 = 12;
const EACCES: i32 = 13;
const ENODEV: i32 = 19;
const EINVAL: i32 = 22;
const ENETDOWN: i32 = 100;

impl Core {
    /// The next writes, at most `max`, those first that others need: connected routes before gateways.
    /// What came of them goes to [`Core::applied`] before anything else is fed.
    pub fn plan(&mut self, now: Stamp, max: usize) -> Vec<Action> {
        self.tick(now);
        if self.settings.mode == Mode::Observe {
            self.ready.clear();
        }
        let mut batch = Vec::new();
        while batch.len() < max
            && let Some(key) = self.ready.pop_front()
        {
            let Some(entry) = self.rib.get(&key) else { continue };
            if entry.loss.as_deref().is_some_and(|loss| loss.phase != Phase::Ready) {
                continue;
            }
            match entry.next_action() {
                Some(action) => batch.push((key, action)),
                None => {
                    self.resolve(key, Outcome::AlreadyPresent, now);
                }
            }
        }
        batch.sort_by_key(|(key, action)| (rank(action), *key));
        batch.dedup_by_key(|(key, _)| *key);
        let actions = batch.iter().map(|(_, action)| action.clone()).collect();
        self.in_flight = batch;
        actions
    }

    /// Whether writes are waiting to be planned.
    pub fn has_work(&self) -> bool {
        !self.ready.is_empty()
    }

    /// When [`Core::plan`] wants to be called at the latest, if nothing else happens.
    pub fn deadline(&self) -> Option<Stamp> {
        let timer = self.timers.first().map(|&(at, _)| at);
        timer.into_iter().chain(self.insisting.values().map(|insistence| insistence.until)).min()
    }

    /// What came of the last plan, in its order: requests sent from `sent` on, all answered at `done`.
    pub fn applied(&mut self, results: Vec<Applied>, sent: Stamp, done: Stamp) {
        let batch = std::mem::take(&mut self.in_flight);
        for ((key, action), result) in batch.into_iter().zip(results) {
            self.apply_one(key, &action, result, Wrote { sent, done });
            self.rib.recount(&key);
        }
    }

    fn apply_one(&mut self, key: RouteKey, action: &Action, result: Applied, wrote: Wrote) {
        let Some(entry) = self.rib.get_mut(&key) else { return };
        let replaced = matches!(action, Action::Replace(_));
        let appended = matches!(action, Action::Append(_));
        match result {
            Applied::Verified | Applied::Gone if matches!(action, Action::Remove(_)) => {
                entry.observed.remove(action.route());
                entry.told = wrote.done;
                entry.wrote = Some(wrote);
                entry.surplus = None;
                self.settle_accounts(key);
            }
            Applied::Verified => {
                let route = Arc::new(action.route().clone());
                entry.observed.set(Arc::clone(&route), replaced, appended);
                entry.ours = Some(route);
                entry.told = wrote.done;
                entry.wrote = Some(wrote);
                if let Some(loss) = entry.loss.as_deref() {
                    let process = loss.actor.process().map(|process| process.id);
                    let culprit = Culprit::from(&*loss.actor);
                    let damping = self.settings.damping;
                    entry.account(&culprit, &damping, wrote.done).restored(wrote.done, process);
                }
                if !self.resolve(key, Outcome::Restored, wrote.done) {
                    self.ready.push_back(key);
                }
                let route = action.route();
                self.help(|waiting| needs(waiting, route));
            }
            Applied::Differs(Some(held)) => {
                let text = held.text(&self.links);
                entry.observed.set(held.into(), replaced, appended);
                entry.told = wrote.done;
                entry.wrote = Some(wrote);
                self.set_phase(key, Phase::Left);
                self.report(key, Outcome::Failed, Some(format!("the kernel made of it: {text}")));
            }
            Applied::Differs(None) => {
                entry.wrote = Some(wrote);
                self.set_phase(key, Phase::Contested);
                self.reread(Reason::Mismatch);
            }
            Applied::Exists => {
                self.set_phase(key, Phase::Contested);
                self.reread(Reason::Exists);
            }
            Applied::Gone => {
                self.set_phase(key, Phase::Contested);
                self.reread(Reason::Mismatch);
            }
            Applied::Refused { errno, message } => self.refused(key, errno, message.as_deref(), wrote.done),
        }
    }

    fn refused(&mut self, key: RouteKey, errno: i32, message: Option<&str>, now: Stamp) {
        let Some(loss) = self.rib.get_mut(&key).and_then(|entry| entry.loss.as_mut()) else { return };
        let attempts = loss.attempts;
        loss.attempts = attempts.saturating_add(1);
        // The kernel took it away as a consequence of the link's end, and says so now.
        if loss.silent && loss.cause == Cause::Request {
            match errno {
                ENETDOWN => loss.cause = Cause::LinkDown,
                ENODEV => loss.cause = Cause::LinkRemoved,
                EINVAL => loss.cause = Cause::AddressRemoved,
                _ => {}
            }
        }
        let retry =
            RETRY.saturating_mul(1u32.checked_shl(attempts.into()).unwrap_or(u32::MAX)).min(RETRY_MAX);
        self.set_phase(key, Phase::Waiting { retry: now.after(retry) });
        let text = errno_text(errno, message);
        // A refusal for want of a link, an address or a gateway ends when that is there.
        let outcome = if matches!(errno, EPERM | ENOMEM | EACCES) { Outcome::Failed } else { Outcome::Held };
        let error = if outcome == Outcome::Held { format!("waits: {text}") } else { text };
        self.report(key, outcome, Some(error));
    }

    /// Retries at once what waits and for which `helps` holds.
    pub(super) fn help(&mut self, helps: impl Fn(&Route) -> bool) {
        if self.waiting.is_empty() {
            return;
        }
        let helped: Vec<RouteKey> = self
            .waiting
            .iter()
            .filter(|key| self.rib.get(key).is_some_and(|entry| entry.desired.iter().any(|r| helps(r))))
            .copied()
            .collect();
        for key in helped {
            self.set_phase(key, Phase::Ready);
        }
    }

    fn tick(&mut self, now: Stamp) {
        let finished: Vec<ProcessId> =
            self.insisting.iter().filter(|(_, i)| i.until <= now).map(|(process, _)| *process).collect();
        for process in finished {
            self.finished(now, process, false);
        }
        while let Some(&(at, key)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            let phase = self.rib.get(&key).and_then(|entry| entry.loss.as_deref()).map(|loss| loss.phase);
            match phase {
                Some(Phase::Settling(_)) => self.admit(now, key),
                Some(Phase::Held(_) | Phase::Waiting { .. }) => self.set_phase(key, Phase::Ready),
                _ => {}
            }
        }
    }

    /// A process has finished what it insisted on: that can come back. If it has ended it cannot take it
    /// away again, whatever its account says.
    pub(super) fn finished(&mut self, now: Stamp, process: ProcessId, ended: bool) {
        self.undone.remove(&process);
        for key in self.insisting.remove(&process).unwrap_or_default().keys {
            let phase = self.rib.get(&key).and_then(|entry| entry.loss.as_deref()).map(|loss| loss.phase);
            match phase {
                Some(Phase::Insisted(by)) if by == process && ended => self.set_phase(key, Phase::Ready),
                Some(Phase::Insisted(by)) if by == process => self.admit(now, key),
                _ => {}
            }
        }
    }

    /// An operator's word: what is missing and chosen is tried now, with a clean slate. Returns how many.
    pub fn release(&mut self, chosen: impl Fn(&RouteKey) -> bool) -> usize {
        let mut released = 0;
        for key in self.rib.keys() {
            let Some(entry) = self.rib.get_mut(&key).filter(|_| chosen(&key)) else { continue };
            entry.forgive();
            if entry.loss.is_some() && !entry.is_whole() && self.settings.mode == Mode::Restore {
                self.set_phase(key, Phase::Ready);
                released += 1;
            }
        }
        self.insisting.retain(|_, insistence| {
            insistence.keys.retain(|key| !chosen(key));
            !insistence.keys.is_empty()
        });
        released
    }

    /// What would have to be written now for everything to be there, in order.
    pub fn would_write(&self) -> Vec<Action> {
        let mut actions: Vec<_> =
            self.rib.iter().filter_map(|(key, entry)| Some((*key, entry.next_action()?))).collect();
        actions.sort_by_key(|(key, action)| (rank(action), *key));
        actions.into_iter().map(|(_, action)| action).collect()
    }
}

/// Removals of our own first; then local routes, without which the kernel takes none with their address as
/// preferred source (`fib_valid_prefsrc`); then what is on a link, and behind it what has a gateway there.
fn rank(action: &Action) -> u8 {
    match action {
        Action::Remove(_) => 0,
        other if other.route().kind == rt::RTN_LOCAL => 1,
        other if other.route().legs.iter().all(|leg| leg.gateway().is_none()) => 2,
        _ => 3,
    }
}

/// Whether `waiting` may have been refused for want of `route`: it covers one of its gateways.
fn needs(waiting: &Route, route: &Route) -> bool {
    waiting.legs.iter().filter_map(Leg::gateway).any(|gateway| covers(&route.key.dst, gateway))
}

fn covers(prefix: &Prefix, addr: IpAddr) -> bool {
    let bits = if addr.is_ipv4() { 32 } else { 128 };
    Prefix::new(addr, bits).is_some_and(|host| prefix.covers(&host))
}

/// An error number in words, with the kernel's own where it had any.
fn errno_text(errno: i32, message: Option<&str>) -> String {
    let plain = std::io::Error::from_raw_os_error(errno).to_string();
    let plain = plain.split(" (os error").next().unwrap_or(&plain).to_owned();
    match message {
        Some(message) => format!("{plain}: {message}"),
        None => plain,
    }
}
