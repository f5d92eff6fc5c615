//! The life of a loss: from the change that caused it to the report that it is over.

use std::{sync::Arc, time::Duration};

use foldhash::HashMap;

use super::{
    damping::Culprit,
    flow::{Effect, Reason, Report},
    machine::{Core, Who},
    rib::{Entry, Loss, Phase},
};
use crate::model::{
    Key, Mode, Object, Process, ProcessId, Stamp,
    record::{Cause, Change, ObjectKind, Outcome, Verdict},
};

/// A process that undoes a restore within this time insists: it is let finish first, which it has when it
/// ends or when it lets as much time pass. `ip route flush` repeats itself until nothing is left
/// (`iproute_flush`), and would otherwise fight for 30 s.
const INSISTENCE: Duration = Duration::from_millis(100);

/// Nobody is waited for longer than this.
const INSISTENCE_MAX: Duration = Duration::from_secs(2);

/// Processes that are let finish at once; beyond it only damping holds back.
const INSISTING: usize = 64;

/// Why damping holds something.
const DAMPED: &str = "held back: it is undone again and again";

/// Why a membership in a bridge waits ([`super::damping::Account::recoil`]).
const RECOILED: &str = "held back: who undoes it does so whenever it comes back, and is let finish first";

/// What was lost.
pub(super) struct Lost {
    /// The object as it was.
    pub object: Arc<Object>,
    /// What happened to it.
    pub change: Change,
    /// What is in its place, if anything.
    pub now: Option<Arc<Object>>,
}

impl Lost {
    /// An object that is gone, with nothing in its place.
    pub const fn deleted(object: Arc<Object>) -> Self {
        Self { object, change: Change::Deleted, now: None }
    }
}

impl Core {
    /// A guarded object is gone or is not what it was, and its owner did not do it.
    pub(super) fn lose(&mut self, now: Stamp, key: Key, lost: Lost, cause: Cause, who: &Who) {
        let pending = self.rib.get(&key).and_then(|entry| entry.loss.as_deref());
        if pending.is_some_and(|loss| loss.phase != Phase::Left) {
            return;
        }
        self.forget_loss(key);
        let seq = self.next_seq();
        let incident = self.incidents.of(&who.actor, who.at, seq);
        let Lost { object, change, now: rival } = lost;
        let loss = Loss {
            seq,
            now: rival,
            incident,
            at: who.at,
            detected: now,
            object,
            change,
            cause,
            actor: Arc::clone(&who.actor),
            origin: who.origin.clone(),
            verdict: who.verdict,
            phase: Phase::Left,
            silent: who.port == 0,
            attempts: 0,
            contested: 0,
            refused: false,
            reported: false,
            let_go: false,
            error: None,
        };
        let Some(entry) = self.rib.get_mut(&key) else { return };
        entry.loss = Some(Box::new(loss));
        if matches!(key, Key::Port(_)) {
            self.port_was_taken(who);
        }
        if self.settings.mode == Mode::Observe {
            self.report(key, Outcome::Observed, None);
        } else if let Some(text) = self.orphaned(now) {
            self.set_phase(key, Phase::Orphaned);
            self.report(key, Outcome::Held, Some(text));
        } else if who.verdict == Verdict::Unknown {
            self.set_phase(key, Phase::Settling(who.at.after(self.settings.settle)));
        } else if let Some(process) = self.insister(now, key, cause, who) {
            let waits = &mut self.wait_for(now, key, process).with_all;
            if !waits.contains(&key.kind()) {
                waits.push(key.kind());
            }
        } else {
            self.admit(now, key);
        }
    }

    /// The process behind a loss, if it has undone more restores of that kind in a row than anybody gets before damping.
    /// What falls with something else does not count. Of who sweeps it is counted whatever it takes ([`Core::sweeper`]).
    fn insister(&mut self, now: Stamp, key: Key, cause: Cause, who: &Who) -> Option<ProcessId> {
        let process = who.process()?;
        if let Some(insistence) = self.insisting.get_mut(&process) {
            insistence.goes_on(now);
            if insistence.with_all.contains(&key.kind()) {
                return Some(process);
            }
        }
        if !matches!(cause, Cause::Request | Cause::Replace) {
            return None;
        }
        let damping = self.settings.damping;
        let account = self.rib.get_mut(&key)?.account(&Culprit::from(&*who.actor), &damping, who.at);
        let insists = account.insists(who.at, process, INSISTENCE);
        if !insists && !who.actor.process().is_some_and(|process| sweeps(process)) {
            return None;
        }
        if self.undone.len() > INSISTING {
            self.undone.retain(|_, (_, at)| who.at.since(*at) < INSISTENCE);
        }
        let (times, last) = self.undone.entry((process, key.kind())).or_default();
        *times = if who.at.since(*last) < INSISTENCE { times.saturating_add(1) } else { 1 };
        *last = who.at;
        (insists && *times > damping.burst && has_room(&self.insisting, process)).then_some(process)
    }

    /// The process behind a loss, if it sweeps and has taken more of that kind in a row than anybody gets before damping: it
    /// looks again for what comes back meanwhile, and nothing would be won but work for both.
    fn sweeper(&self, key: Key) -> Option<ProcessId> {
        let process = self.rib.get(&key)?.loss.as_deref()?.actor.process()?;
        let &(times, _) = self.undone.get(&(process.id, key.kind()))?;
        let sweeps = times > self.settings.damping.burst && sweeps(process);
        (sweeps && has_room(&self.insisting, process.id)).then_some(process.id)
    }

    /// Holds a loss until the process has finished.
    fn wait_for(&mut self, now: Stamp, key: Key, process: ProcessId) -> &mut Insistence {
        self.set_phase(key, Phase::Insisted(process));
        let insistence = self.insisting.entry(process).or_default();
        insistence.keys.push(key);
        insistence.goes_on(now);
        insistence
    }

    /// Lets a loss through to the executor if its account allows, else holds it.
    pub(super) fn admit(&mut self, now: Stamp, key: Key) {
        let damping = self.settings.damping;
        let Some(entry) = self.rib.get_mut(&key) else { return };
        let Some(loss) = entry.loss.as_deref() else { return };
        let culprit = Culprit::from(&*loss.actor);
        let (at, process) = (loss.at, loss.actor.process().map(|process| process.id));
        let first = !matches!(loss.phase, Phase::Insisted(_));
        let left_its_bridge = matches!(key, Key::Port(_)) && entry.observed.is_empty();
        let account = entry.account(&culprit, &damping, now);
        // Has one process used up the budget by itself, its end comes before the end of the hold.
        let alone = process.filter(|&p| first && account.insists(at, p, INSISTENCE));
        let recoil = process.filter(|_| left_its_bridge).and_then(|process| {
            let until = at.after(account.recoil(&damping, at, process)?);
            (until > now).then_some((until, process, account.is_first_recoil()))
        });
        match (account.draw(&damping, now, &key), alone) {
            (Ok(()), _) => match recoil {
                Some((until, by, first)) => {
                    self.set_phase(key, Phase::Recoiled { until, by, first });
                    self.report(key, Outcome::Held, Some(RECOILED.into()));
                }
                None => match self.sweeper(key) {
                    Some(process) => {
                        self.wait_for(now, key, process);
                    }
                    None => self.set_phase(key, Phase::Ready),
                },
            },
            (Err(_), Some(process)) if has_room(&self.insisting, process) => {
                if let Some(loss) = entry.loss.as_mut() {
                    loss.refused = true;
                }
                self.wait_for(now, key, process);
            }
            (Err(until), _) => self.hold(key, recoil.map_or(until, |(latest, ..)| until.max(latest))),
        }
    }

    /// A process that insisted has been quiet: systemd-networkd for one takes every foreign rule away once for each
    /// link that it configures, and is done then. The first hold is served by that; later ones are not.
    pub(super) fn admit_after_quiet(&mut self, now: Stamp, key: Key) {
        let damping = self.settings.damping;
        let Some(entry) = self.rib.get_mut(&key) else { return };
        let Some(loss) = entry.loss.as_deref() else { return };
        let (culprit, refused) = (Culprit::from(&*loss.actor), loss.refused);
        let account = entry.account(&culprit, &damping, now);
        if !refused && account.draw(&damping, now, &key).is_ok() || account.is_first_hold() {
            self.set_phase(key, Phase::Ready);
            return;
        }
        let until = account.held_until();
        self.hold(key, until);
    }

    /// Holds a loss by damping.
    fn hold(&mut self, key: Key, until: Stamp) {
        self.set_phase(key, Phase::Held(until));
        self.effects.push(Effect::Damped(true));
        self.report(key, Outcome::Held, Some(DAMPED.into()));
    }

    /// Why nothing is put back now, if no owner has been running for long: nobody processes withdrawals.
    pub(super) fn orphaned(&self, now: Stamp) -> Option<String> {
        let (limit, since) = (self.settings.absent_after?, self.owner_gone?);
        (now.since(since) >= limit).then(|| {
            format!(
                "no owner has been running for more than {limit:?}: what it would have withdrawn nobody knows"
            )
        })
    }

    /// Whether an owner is running has changed: what was held for want of one comes back when one is.
    pub(super) fn owner_is(&mut self, now: Stamp, alive: bool, since: Stamp) {
        self.owner_gone = (!alive).then_some(since);
        if !alive {
            return;
        }
        for key in self.rib.keys() {
            let phase = self.rib.get(&key).and_then(|entry| entry.loss.as_deref()).map(|loss| loss.phase);
            if phase == Some(Phase::Orphaned) {
                self.admit(now, key);
            }
        }
    }

    /// Moves a loss to another phase, with its timer and its place in the queues.
    pub(super) fn set_phase(&mut self, key: Key, phase: Phase) {
        let Some(loss) = self.rib.get_mut(&key).and_then(|entry| entry.loss.as_mut()) else { return };
        let before = std::mem::replace(&mut loss.phase, phase);
        self.leave_phase(key, before);
        self.rib.recount(&key);
        if let Some(at) = phase.deadline() {
            self.timers.insert((at, key));
        }
        match phase {
            Phase::Ready => self.ready.push_back(key),
            Phase::Orphaned => self.orphans += 1,
            Phase::Recoiled { .. } => self.recoiled += 1,
            Phase::Waiting { .. } => {
                self.waiting.insert(key);
            }
            _ => {}
        }
    }

    fn leave_phase(&mut self, key: Key, phase: Phase) {
        if let Some(at) = phase.deadline() {
            self.timers.remove(&(at, key));
        }
        match phase {
            Phase::Waiting { .. } => {
                self.waiting.remove(&key);
            }
            Phase::Held(_) => self.effects.push(Effect::Damped(false)),
            Phase::Orphaned => self.orphans = self.orphans.saturating_sub(1),
            Phase::Recoiled { .. } => self.recoiled = self.recoiled.saturating_sub(1),
            _ => {}
        }
    }

    /// Drops a loss without a word.
    pub(super) fn forget_loss(&mut self, key: Key) -> Option<Box<Loss>> {
        let loss = self.rib.get_mut(&key).and_then(|entry| entry.loss.take())?;
        self.leave_phase(key, loss.phase);
        self.rib.recount(&key);
        Some(loss)
    }

    /// Lets go of a loss, if there is one, in favour of the next one of the same object; tells so.
    pub(super) fn supersede(&mut self, key: Key, who: &Who) {
        let Some(entry) = self.rib.get_mut(&key) else { return };
        let Some(loss) = entry.loss.as_mut() else { return };
        loss.let_go = true;
        let text = if loss.actor == who.actor {
            "it was changed again before it was put right"
        } else if entry.observed.is_empty() {
            "somebody else has taken it away altogether before it was put right"
        } else {
            "somebody else has changed it again before it was put right"
        };
        self.report(key, Outcome::Observed, Some(text.into()));
        self.forget_loss(key);
    }

    /// Ends a loss, if there is one and all is there again; tells so.
    pub(super) fn resolve(&mut self, key: Key, outcome: Outcome, at: Stamp) -> bool {
        if !self.rib.get(&key).is_some_and(Entry::is_whole) {
            return false;
        }
        let Some(mut loss) = self.forget_loss(key) else { return false };
        loss.error = None;
        self.effects.push(Effect::Report(Box::new(report_of(&loss, loss.reported, outcome, Some(at)))));
        true
    }

    /// Tells how a loss stands, once per text.
    pub(super) fn report(&mut self, key: Key, outcome: Outcome, error: Option<String>) {
        let Some(loss) = self.rib.get_mut(&key).and_then(|entry| entry.loss.as_mut()) else { return };
        if loss.reported && loss.error == error {
            return;
        }
        let again = std::mem::replace(&mut loss.reported, true);
        loss.error = error;
        let report = report_of(loss, again, outcome, None);
        self.effects.push(Effect::Report(Box::new(report)));
    }

    pub(super) fn tell_allowed(
        &mut self,
        now: Stamp,
        object: &Arc<Object>,
        change: Change,
        cause: Cause,
        who: &Who,
    ) {
        self.tell(now, object, change, cause, who, Outcome::Allowed);
    }

    pub(super) fn tell(
        &mut self,
        now: Stamp,
        object: &Arc<Object>,
        change: Change,
        cause: Cause,
        who: &Who,
        outcome: Outcome,
    ) {
        let report = self.told(now, object, change, cause, who, outcome);
        self.effects.push(Effect::Report(Box::new(report)));
    }

    /// What is to be told of a change, once.
    pub(super) fn told(
        &mut self,
        now: Stamp,
        object: &Arc<Object>,
        change: Change,
        cause: Cause,
        who: &Who,
        outcome: Outcome,
    ) -> Report {
        let seq = self.next_seq();
        Report {
            seq,
            again: false,
            incident: self.incidents.of(&who.actor, who.at, seq),
            at: who.at,
            detected: now,
            object: Arc::clone(object),
            now: None,
            change,
            cause,
            actor: Arc::clone(&who.actor),
            origin: who.origin.clone(),
            verdict: who.verdict,
            outcome,
            restored: None,
            // What is only told of is not followed.
            let_go: outcome == Outcome::Observed,
            error: None,
        }
    }

    pub(super) fn reread(&mut self, reason: Reason) {
        if !self.effects.contains(&Effect::Reread(reason)) {
            self.effects.push(Effect::Reread(reason));
        }
    }

    pub(super) const fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }
}

/// What a process that insists has taken, and when it is taken to have finished, if it does not end before.
#[derive(Debug, Default)]
pub(super) struct Insistence {
    pub keys: Vec<Key>,
    /// Of these kinds all that it takes waits; of others only that of which it has used up the budget.
    pub with_all: Vec<ObjectKind>,
    since: Option<Stamp>,
    pub until: Stamp,
}

impl Insistence {
    /// It is not quiet yet.
    fn goes_on(&mut self, now: Stamp) {
        let latest = self.since.get_or_insert(now).after(INSISTENCE_MAX);
        self.until = now.after(INSISTENCE).min(latest);
    }
}

/// Whether this is `ip … flush`, which repeats itself until a dump shows nothing any more (`iproute_flush` of iproute2's
/// `ip/iproute.c`, `ipaddr_flush` of `ip/ipaddress.c`, and busybox after them). Its words may be cut short (`matches` of
/// `lib/utils.c`). Who but calls himself so is waited for as anybody is who insists, and no longer.
fn sweeps(process: &Process) -> bool {
    let name = process.exe.as_deref().and_then(|exe| exe.rsplit('/').next());
    let is_flush = |word: &String| !word.is_empty() && "flush".starts_with(word.as_str());
    matches!(name, Some("ip" | "ip.iproute2" | "busybox")) && process.argv.iter().skip(1).any(is_flush)
}

/// Whether one more may be waited for; who is already may.
fn has_room(insisting: &HashMap<ProcessId, Insistence>, process: ProcessId) -> bool {
    insisting.len() < INSISTING || insisting.contains_key(&process)
}

fn report_of(loss: &Loss, again: bool, outcome: Outcome, restored: Option<Stamp>) -> Report {
    Report {
        seq: loss.seq,
        now: loss.now.clone(),
        again,
        incident: loss.incident,
        at: loss.at,
        detected: loss.detected,
        object: Arc::clone(&loss.object),
        change: loss.change,
        cause: loss.cause,
        actor: Arc::clone(&loss.actor),
        origin: loss.origin.clone(),
        verdict: loss.verdict,
        outcome,
        restored,
        let_go: loss.let_go,
        error: loss.error.clone(),
    }
}
