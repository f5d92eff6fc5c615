//! Plans: what to write now, what came of it, what is tried again when.

use std::{sync::Arc, time::Duration};

use foldhash::HashSet;

use super::{
    damping::Culprit,
    flow::Reason,
    lending::is_by_networkd,
    machine::{Core, Who},
    plan::{Action, Applied},
    rib::{Entry, Loss, Phase, Wrote},
    suspicion::{ONE_REQUEST, Subject},
};
use crate::model::{
    Key, Links, Mode, Object, ProcessId, Stamp,
    record::{Cause, Outcome},
    route::rt,
};

/// The first retry of what the kernel refused; doubled each time. What it needs usually appears with a
/// message, which retries at once: this is the safety net.
const RETRY: Duration = Duration::from_secs(1);

/// How often it is believed that somebody else was first.
const CONTESTS: u8 = 2;

/// How often the order of addresses is put right for one loss.
const REORDER: u8 = 3;

/// The longest time between two retries.
const RETRY_MAX: Duration = Duration::from_secs(60);

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const ENOMEM: i32 = 12;
const EACCES: i32 = 13;
const EEXIST: i32 = 17;
const ENODEV: i32 = 19;
const EINVAL: i32 = 22;
const EOPNOTSUPP: i32 = 95;
const ENETDOWN: i32 = 100;

/// Who is let finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waited {
    /// The process.
    pub process: ProcessId,
    /// Whether it is systemd-networkd, which says when it has met a link anew ([`Input::Met`]).
    pub is_networkd: bool,
}

impl Core {
    /// The next writes, at most `max`, those first that others need, and only those.
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
        if self.settings.mode == Mode::Restore {
            batch.extend(self.plan_of_loans(now));
        }
        batch.sort_by_key(|(key, action)| (rank(action), self.place(key), *key));
        batch.dedup_by_key(|(key, _)| *key);
        if let Some(first) = batch.first().map(|(_, action)| stage(rank(action))) {
            let later =
                batch.iter().position(|(_, action)| stage(rank(action)) > first).unwrap_or(batch.len());
            self.ready.extend(batch.drain(later..).map(|(key, _)| key));
        }
        let actions = batch.iter().map(|(_, action)| action.clone()).collect();
        self.in_flight = batch;
        actions
    }

    /// Rules of one priority are written in the order in which they stood.
    fn place(&self, key: &Key) -> u64 {
        self.rib.get(key).map_or(0, |entry| entry.place)
    }

    /// Whether writes are waiting to be planned.
    pub fn has_work(&self) -> bool {
        !self.ready.is_empty() || self.loans.has_work()
    }

    /// Whether one route alone is being written, and nothing is to be done at once when the kernel has verified it, but to
    /// tell of it.
    pub fn writes_the_last(&self) -> bool {
        let [(key @ Key::Route(_), Action::Add(_))] = &self.in_flight[..] else { return false };
        self.rib.get(key).is_some_and(|entry| entry.desired.len() == 1)
            && self.waiting.is_empty()
            && self.effects.is_empty()
            && !self.has_work()
    }

    /// When [`Core::plan`] wants to be called at the latest, if nothing else happens.
    pub fn deadline(&self) -> Option<Stamp> {
        let timer = self.timers.first().map(|&(at, _)| at);
        let insisting = self.insisting.values().map(|insistence| insistence.until);
        timer.into_iter().chain(insisting).chain(self.cables_deadline()).min()
    }

    /// What came of the last plan, in its order: requests sent from `sent` on, all answered at `done`.
    pub fn applied(&mut self, results: Vec<Applied>, sent: Stamp, done: Stamp) {
        let batch = std::mem::take(&mut self.in_flight);
        for ((key, action), result) in batch.into_iter().zip(results) {
            if self.loans.has(action.object()) && self.rib.get(&key).is_none() {
                self.lent(&action, &result, sent, done);
                continue;
            }
            self.apply_one(key, &action, result, Wrote { sent, done });
            self.rib.recount(&key);
        }
    }

    fn apply_one(&mut self, key: Key, action: &Action, result: Applied, wrote: Wrote) {
        let Some(entry) = self.rib.get_mut(&key) else { return };
        let replaced = matches!(action, Action::Replace(_));
        let appended = matches!(action, Action::Append(_));
        match result {
            Applied::Verified | Applied::Gone if matches!(action, Action::Remove(_)) => {
                entry.observed.remove(action.object());
                entry.told = wrote.done;
                entry.wrote = Some(wrote);
                entry.surplus = None;
                // Who has taken it away before us is told as such, and is behind what fell with it.
                let behind = (result == Applied::Verified).then(|| entry.loss.as_deref().map(Who::of));
                if (entry.loss.is_some() || entry.again)
                    && entry.desired.first_missing_in(&entry.observed).is_some()
                {
                    self.ready.push_back(key);
                }
                if let (Key::Address(address), Some(behind)) = (key, behind) {
                    // Routes fall with it in silence, and it was not we who made this necessary.
                    let who = behind.unwrap_or_else(|| self.consequence(wrote.sent));
                    self.suspect(
                        Subject::Address(address),
                        Cause::AddressRemoved,
                        &Who { at: wrote.sent, own: false, ..who },
                    );
                }
                self.settle_accounts(key);
            }
            Applied::Verified => {
                let object = Arc::new(action.object().clone());
                entry.observed.set(Arc::clone(&object), replaced, appended);
                entry.ours = Some(object);
                entry.again = false;
                entry.told = wrote.done;
                entry.wrote = Some(wrote);
                if let Some(loss) = entry.loss.as_deref() {
                    let process = loss.actor.process().map(|process| process.id);
                    let culprit = Culprit::from(&*loss.actor);
                    let damping = self.settings.damping;
                    entry.account(&culprit, &damping, wrote.done).restored(wrote.sent, wrote.done, process);
                }
                if !self.resolve(key, Outcome::Restored, wrote.done) {
                    self.ready.push_back(key);
                }
                match action.object() {
                    Object::Link(link) => self.link_is_back(link, wrote.done),
                    Object::Rule(_) if matches!(action, Action::Add(_)) => self.rule_is_back(key),
                    _ => {}
                }
                let object = action.object();
                self.help(|waiting| object.helps(waiting));
            }
            Applied::Differs(Some(hit)) if matches!(action, Action::Remove(_)) => {
                // The kernel has taken another one: it looks at less than all of a route.
                entry.observed.remove(&hit);
                entry.told = wrote.done;
                entry.wrote = Some(wrote);
                self.set_phase(key, Phase::Contested);
                self.reread(Reason::Mismatch);
            }
            Applied::Differs(Some(held)) => {
                let text = held.text(&self.links);
                let held = Arc::new(held);
                entry.observed.set(Arc::clone(&held), replaced, appended);
                entry.ours = Some(held);
                entry.told = wrote.done;
                entry.wrote = Some(wrote);
                // An address that came after the one that was promoted in its place: first that one goes.
                let in_the_way = matches!(entry.next_action(), Some(Action::Remove(_)));
                if let Some(loss) = entry.loss.as_mut().filter(|loss| in_the_way && loss.attempts < REORDER) {
                    loss.attempts += 1;
                    self.set_phase(key, Phase::Ready);
                    return;
                }
                let left = if key.is_route() { Phase::Left } else { self.later(key, wrote.done) };
                self.set_phase(key, left);
                self.report(key, Outcome::Failed, Some(format!("the kernel made of it: {text}")));
            }
            Applied::Differs(None) => {
                entry.wrote = Some(wrote);
                self.set_phase(key, Phase::Contested);
                self.reread(Reason::Mismatch);
            }
            Applied::Exists if self.is_superseded(action.object()) => {
                self.report(key, Outcome::AlreadyPresent, None);
                self.let_go(key);
            }
            Applied::Exists => self.contested(key, EEXIST, Reason::Exists, wrote.done),
            Applied::Gone => self.contested(key, ENOENT, Reason::Mismatch, wrote.done),
            Applied::Refused { errno, message } => self.refused(key, errno, message.as_deref(), wrote.done),
        }
    }

    fn refused(&mut self, key: Key, errno: i32, message: Option<&str>, now: Stamp) {
        let Some(loss) = self.rib.get_mut(&key).and_then(|entry| entry.loss.as_mut()) else { return };
        // Its other end is gone with the namespace that it was in: whoever needs the cable makes another.
        if matches!(&*loss.object, Object::Link(link) if link.kind.as_deref() == Some("veth"))
            && errno == EOPNOTSUPP
        {
            self.report(key, Outcome::Failed, Some(errno_text(errno, message)));
            self.let_go(key);
            return;
        }
        // The kernel took it away as a consequence of the link's end, and says so now.
        let falls = key.is_route() || matches!(key, Key::Address(_));
        if loss.silent && loss.cause == Cause::Request && falls {
            match errno {
                ENETDOWN => loss.cause = Cause::LinkDown,
                ENODEV => loss.cause = Cause::LinkRemoved,
                EINVAL => loss.cause = Cause::AddressRemoved,
                _ => {}
            }
        }
        if loss.silent && falls && now.since(loss.at) < ONE_REQUEST {
            // What took it away may not be over, and tells of itself next: of a link that goes down its routes fall first.
            let retry = loss.at.after(ONE_REQUEST);
            self.set_phase(key, Phase::Waiting { retry });
            return;
        }
        let later = self.later(key, now);
        self.set_phase(key, later);
        let text = errno_text(errno, message);
        // A refusal for want of a link, an address or a gateway ends when that is there.
        let outcome = if matches!(errno, EPERM | ENOMEM | EACCES) { Outcome::Failed } else { Outcome::Held };
        let error = if outcome == Outcome::Held { format!("waits: {text}") } else { text };
        self.report(key, outcome, Some(error));
    }

    /// A rule comes back behind those of its priority (`fib_nl_newrule`): those that stood behind it are written again.
    fn rule_is_back(&mut self, key: Key) {
        let Key::Rule(back) = key else { return };
        let Some(place) = self.rib.get(&key).map(|entry| entry.place) else { return };
        let behind: Vec<Key> = self
            .rib
            .iter()
            .filter(|(other, entry)| {
                matches!(other, Key::Rule(r) if r.family == back.family && r.priority == back.priority)
                    && entry.place > place
                    && entry.loss.is_none()
                    && !entry.observed.is_empty()
            })
            .map(|(other, _)| *other)
            .collect();
        for other in behind {
            if let Some(entry) = self.rib.get_mut(&other) {
                entry.again = true;
            }
            self.ready.push_back(other);
        }
    }

    /// Somebody else was first: a dump tells what is there. If that is nothing time and again, the kernel's word for
    /// it is a refusal.
    fn contested(&mut self, key: Key, errno: i32, reason: Reason, now: Stamp) {
        let loss = self.rib.get_mut(&key).and_then(|entry| entry.loss.as_mut());
        let times = loss.map_or(0, |loss| {
            loss.contested = loss.contested.saturating_add(1);
            loss.contested
        });
        if times > CONTESTS {
            self.refused(key, errno, None, now);
        } else {
            self.set_phase(key, Phase::Contested);
            self.reread(reason);
        }
    }

    /// Whether another link has the name of one that was lost: it has taken its place.
    fn is_superseded(&self, object: &Object) -> bool {
        let Object::Link(link) = object else { return false };
        self.links.named(&link.name).is_some_and(|other| other.index != link.index)
    }

    /// When what did not come back is tried again: later each time.
    fn later(&mut self, key: Key, now: Stamp) -> Phase {
        let loss = self.rib.get_mut(&key).and_then(|entry| entry.loss.as_mut());
        let attempts = loss.map_or(0, |loss| {
            let attempts = loss.attempts;
            loss.attempts = attempts.saturating_add(1);
            attempts
        });
        let retry =
            RETRY.saturating_mul(1u32.checked_shl(attempts.into()).unwrap_or(u32::MAX)).min(RETRY_MAX);
        Phase::Waiting { retry: now.after(retry) }
    }

    /// Retries at once what waits and for which `helps` holds.
    pub(super) fn help(&mut self, helps: impl Fn(&Object) -> bool) {
        if self.waiting.is_empty() {
            return;
        }
        let helped: Vec<Key> = self
            .waiting
            .iter()
            .filter(|key| self.rib.get(key).is_some_and(|entry| entry.desired.iter().any(|o| helps(o))))
            .copied()
            .collect();
        for key in helped {
            self.set_phase(key, Phase::Ready);
        }
    }

    fn tick(&mut self, now: Stamp) {
        self.cables_due(now);
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
                Some(Phase::Held(_) | Phase::Recoiled { .. } | Phase::Waiting { .. }) => {
                    self.set_phase(key, Phase::Ready);
                }
                _ => {}
            }
        }
    }

    /// A process has finished what it insisted on: that can come back. If it has ended it cannot take it
    /// away again, whatever its account says.
    pub(super) fn finished(&mut self, now: Stamp, process: ProcessId, ended: bool) {
        self.undone.retain(|(by, _), _| *by != process);
        for key in self.insisting.remove(&process).unwrap_or_default().keys {
            let phase = self.rib.get(&key).and_then(|entry| entry.loss.as_deref()).map(|loss| loss.phase);
            match phase {
                Some(Phase::Insisted(by)) if by == process && ended => self.set_phase(key, Phase::Ready),
                Some(Phase::Insisted(by)) if by == process => self.admit_after_quiet(now, key),
                _ => {}
            }
        }
        if ended {
            for (key, ..) in self.recoils().filter(|&(_, by, _)| by == process).collect::<Vec<_>>() {
                self.set_phase(key, Phase::Ready);
            }
        }
    }

    /// A process that is let finish has nothing more to do: what it has taken can come back. Who takes it even then had
    /// more to do than could be seen, and is given its time.
    pub(super) fn rests(&mut self, process: ProcessId) {
        for (key, ..) in self.recoils().filter(|&(_, by, first)| by == process && first).collect::<Vec<_>>() {
            self.set_phase(key, Phase::Ready);
        }
    }

    /// systemd-networkd has met a link anew: it can be a port again.
    pub(super) fn met(&mut self, link: u32) {
        let key = Key::Port(link);
        let waits = |loss: &Loss| {
            matches!(loss.phase, Phase::Recoiled { first: true, .. }) && is_by_networkd(&Who::of(loss))
        };
        if self.rib.get(&key).and_then(|entry| entry.loss.as_deref()).is_some_and(waits) {
            self.set_phase(key, Phase::Ready);
        }
    }

    /// Who is let finish, where it matters at once that it has ([`Input::Rests`], [`Input::Met`]).
    pub fn waited_for(&self) -> Option<Waited> {
        let (key, process, _) = self.recoils().find(|&(_, _, first)| first)?;
        let loss = self.rib.get(&key)?.loss.as_deref()?;
        Some(Waited { process, is_networkd: is_by_networkd(&Who::of(loss)) })
    }

    /// What waits for a process that recoils, for which, and whether for the first time.
    fn recoils(&self) -> impl Iterator<Item = (Key, ProcessId, bool)> {
        let timers = (self.recoiled > 0).then_some(&self.timers);
        timers.into_iter().flatten().filter_map(|&(_, key)| {
            match self.rib.get(&key)?.loss.as_deref()?.phase {
                Phase::Recoiled { by, first, .. } => Some((key, by, first)),
                _ => None,
            }
        })
    }

    /// An operator's word: what is missing and chosen is tried now, with a clean slate. Returns how many.
    pub fn release(&mut self, chosen: impl Fn(&Object, &Links) -> bool) -> usize {
        let mut released = 0;
        let is_chosen = |object: &Object| chosen(object, &self.links);
        let of_entry = |entry: &Entry| {
            entry.desired.iter().chain(entry.loss.iter().map(|loss| &loss.object)).any(|o| is_chosen(o))
        };
        let chosen: HashSet<Key> =
            self.rib.iter().filter(|(_, entry)| of_entry(entry)).map(|(key, _)| *key).collect();
        for key in chosen.iter().copied() {
            let Some(entry) = self.rib.get_mut(&key) else { continue };
            entry.forgive();
            if entry.loss.is_some() && !entry.is_whole() && self.settings.mode == Mode::Restore {
                self.set_phase(key, Phase::Ready);
                released += 1;
            }
        }
        self.insisting.retain(|_, insistence| {
            insistence.keys.retain(|key| !chosen.contains(key));
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

/// The order in which objects need each other. What is in the way goes first; then links, ports, addresses that stand
/// otherwise than they should, addresses with the first of each network before the
/// others, nexthop objects before groups; local routes, without which the kernel takes none with their address as
/// preferred source (`fib_valid_prefsrc`), what is on a link, and behind it what has a gateway there; rules last.
fn rank(action: &Action) -> u8 {
    if let Action::Remove(object) = action {
        return if matches!(object, Object::Address(_)) { 3 } else { 0 };
    }
    match action.object() {
        Object::Link(_) => 1,
        Object::Port(_) => 2,
        Object::Address(address) if address.is_primary() => 4,
        Object::Address(_) => 5,
        Object::Nexthop(nexthop) if nexthop.members().next().is_none() => 6,
        Object::Nexthop(_) => 7,
        Object::Route(route) if route.kind == rt::RTN_LOCAL => 8,
        Object::Route(route) if route.legs.iter().all(|leg| leg.gateway().is_none()) => 9,
        Object::Route(_) => 10,
        Object::Rule(_) => 11,
    }
}

/// What is written in one go: the kernel itself makes routes with an address and addresses with a link, and what it has
/// made is looked at before anything else is written.
const fn stage(rank: u8) -> u8 {
    match rank {
        0..=3 => rank,
        4 | 5 => 4,
        _ => 5,
    }
}

/// An error number in words, with the kernel's own where it had any.
pub(super) fn errno_text(errno: i32, message: Option<&str>) -> String {
    let plain = std::io::Error::from_raw_os_error(errno).to_string();
    let plain = plain.split(" (os error").next().unwrap_or(&plain).to_owned();
    match message {
        Some(message) => format!("{plain}: {message}"),
        None => plain,
    }
}
