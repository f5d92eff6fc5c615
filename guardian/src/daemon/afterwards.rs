//! What can wait until a restore is done: records, counters of losses, gauges.
//!
//! A restore often runs on the CPU of the very program that made it necessary, before that program goes on. To
//! tell of it takes as long again, and nobody waits for that: it is done a moment later.

use std::{sync::Arc, thread, time::Duration};

use tokio::{sync::mpsc::error::TrySendError, task::spawn_blocking};

use super::{clock, edges::Told, guard::Guard, meetings::Meetings, patience::Patience};
use crate::{
    core::{Counts, Input, Reason, Report, Waited},
    footprint,
    model::{
        ActorClass, Stamp,
        record::{EventRecord, ObjectKind, Verdict},
    },
    procfs,
    surface::metrics::{Metrics, Objects},
};

/// Records are made this long after the first change that they tell of: longer than a tick of most kernels' clocks, so that
/// the guard goes to sleep without setting a timer, which would take longer than all the rest of its way there.
pub(super) const RECORDS: Duration = Duration::from_millis(10);

/// Gauges follow a change after this time, so that a burst costs one count.
const GAUGES: Duration = Duration::from_millis(20);

/// How often lookups are taken over from the kernel side while they are counted.
const COST: Duration = Duration::from_secs(1);

/// How often the edges are given [`RECORDS`] of time to make room, at the end.
const PATIENCE: u32 = 200;

/// Reports that are kept at most; a table that was flushed should not wait for its own history.
const REPORTS: usize = 65_536;

/// After so many records it is worth the while to give back what they took on their way.
const BURST: usize = 512;

/// What is put off, and until when.
#[derive(Default)]
pub(super) struct Later {
    /// How many records were made since memory was given back.
    made: usize,
    /// With the number of lookups that failed meanwhile, where they were counted.
    reports: Vec<(Report, Option<u64>)>,
    records: Option<Stamp>,
    gauges: Option<Stamp>,
}

impl Later {
    /// Something has happened.
    pub fn touch(&mut self, now: Stamp) {
        self.records.get_or_insert(now.after(RECORDS));
        let gauges = now.after(GAUGES);
        self.gauges = Some(self.gauges.map_or(gauges, |due| due.min(gauges)));
    }

    /// Keeps a report until there is time to make a record of it.
    pub fn report(&mut self, now: Stamp, report: Report, failed_lookups: Option<u64>) {
        self.touch(now);
        self.reports.push((report, failed_lookups));
    }

    /// Keeps what the edges had no room for; what comes on top of the most that is kept is lost, and counted.
    fn keep(&mut self, now: Stamp, mut rest: Vec<(Report, Option<u64>)>, metrics: &Metrics) {
        let most = REPORTS.saturating_sub(1);
        metrics.add_lost("queue", rest.len().saturating_sub(most) as u64);
        rest.truncate(most);
        if !rest.is_empty() {
            self.records = Some(now.after(RECORDS));
        }
        self.reports = rest;
    }

    /// Whether everything is told.
    pub const fn is_empty(&self) -> bool {
        self.reports.is_empty()
    }

    /// Whether it cannot wait, however much there is to do.
    pub const fn is_full(&self) -> bool {
        self.reports.len() >= REPORTS
    }

    /// When the first of it is due.
    pub fn deadline(&self) -> Option<Stamp> {
        self.records.into_iter().chain(self.gauges).min()
    }
}

impl Guard {
    /// What the clock asks for, besides the core's own timers.
    pub(super) fn due(&mut self) {
        let now = clock::now();
        if self.core.has_orphans() {
            self.owner_watch.look_again(now);
        }
        self.restart.save(now, || (self.core.desired(), self.core.links().clone()));
        if self.dump_not_before.is_some_and(|at| at <= now) {
            self.dump_not_before = None;
        }
        self.wait_for(now);
        self.look_who_manages(now);
        self.afterwards(now);
        self.service.turned(now);
    }

    /// Looks whether a process that is let finish rests, and hears what it says, if it is one that does.
    fn wait_for(&mut self, now: Stamp) {
        let waited = self.core.waited_for();
        let heard = waited.filter(|waited| waited.is_networkd).map(|waited| waited.process);
        let is_opening = self.meetings.as_ref().is_some_and(Meetings::is_opening);
        if self.meetings.as_ref().map(Meetings::process) != heard && !is_opening {
            self.stop_hearing();
            self.meetings = heard.map(Meetings::begin);
        }
        let Some(Waited { process, .. }) = waited else {
            self.patience = Patience::default();
            return;
        };
        if self.patience.deadline(process) <= now
            && self.patience.looks(now, process, procfs::asleep(process))
        {
            self.core.step(now, Input::Rests(process));
            self.write(false);
            self.effects();
        }
    }

    fn stop_hearing(&mut self) {
        if let Some(fd) = self.meetings.take().as_ref().and_then(Meetings::descriptor)
            && let Err(error) = self.reactor.forget(&[fd])
        {
            log::error!("cannot stop hearing what systemd-networkd saves: {error}");
        }
    }

    /// Does what was put off until now.
    fn afterwards(&mut self, now: Stamp) {
        let due = |at: Option<Stamp>| at.is_some_and(|at| at <= now);
        if due(self.later.records) {
            self.tell();
            self.settle(now);
        }
        if due(self.later.gauges) {
            self.later.gauges = None;
            self.show_gauges();
            self.look_at_cost();
            if self.cost.is_counting() {
                self.later.gauges = Some(now.after(COST));
            }
            if self.later.is_empty() && self.later.made >= BURST {
                self.later.made = 0;
                spawn_blocking(footprint::trim_heap);
            }
        }
    }

    /// Sleeps where the last loss was made from now on, unless somebody is still at it.
    fn settle(&mut self, now: Stamp) {
        if self.core.waited_for().is_some() || self.core.has_work() {
            self.affinity.stay();
        } else if self.affinity.waits(now) {
            self.later.touch(now);
        } else if let Err(error) = self.affinity.settle() {
            log::debug!("the guard thread stays on the CPU that it is on: {error}");
        }
    }

    /// Turns reports into records and sends them to the edges, and counts what was lost.
    pub(super) fn tell(&mut self) {
        self.later.records = None;
        self.count_losses();
        let mut reports = std::mem::take(&mut self.later.reports).into_iter();
        // Nobody else sends: what has room now has it until it is sent.
        for (report, failed_lookups) in reports.by_ref().take(self.told.capacity()) {
            let mut actor = self.attribution.record(&report.actor);
            // A program of that name is kube-router where the configuration says so, and nowhere else.
            if actor.class == ActorClass::KubeRouter && report.verdict != Verdict::Owner {
                Arc::make_mut(&mut actor).class = ActorClass::Other;
            }
            let origin = report.origin.as_ref().map(|origin| self.attribution.record(origin));
            let record = self.ids.record(&report, actor, origin, failed_lookups, self.core.links());
            self.remember(&record);
            self.later.made += 1;
            match self.told.try_send(Told { record, again: report.again }) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => self.metrics.add_lost("queue", 1),
                Err(TrySendError::Closed(_)) => log::error!("the edges thread is gone; records are lost"),
            }
        }
        self.later.keep(clock::now(), reports.collect(), &self.metrics);
    }

    /// Tells everything, at the end: waits for the edges, though not for ever.
    pub(super) fn tell_all(&mut self) {
        for _ in 0..PATIENCE {
            self.tell();
            if self.later.is_empty() {
                return;
            }
            thread::sleep(RECORDS);
        }
        log::error!("{} records are lost: the journal is too slow to take them", self.later.reports.len());
        self.metrics.add_lost("queue", self.later.reports.len() as u64);
    }

    /// Keeps the change that tells most of the last incident, for `status`.
    fn remember(&mut self, record: &EventRecord) {
        let outdone = self.last.as_ref().is_some_and(|last| {
            last.incident == record.incident && last.id != record.id && !record.tells_more_than(last)
        });
        // A later word on an incident that is over is no news.
        let late = self.last.as_ref().is_some_and(|last| record.incident < last.incident);
        if record.verdict != Verdict::Owner && !outdone && !late {
            self.last = Some(record.clone());
        }
    }

    /// Counts what the kernel side had to drop; a message that was lost makes state to be read again.
    pub(super) fn count_losses(&mut self) {
        let lost = self.source.lost();
        let messages = lost.messages.saturating_sub(self.lost.messages);
        let others = (lost.processes + lost.exits).saturating_sub(self.lost.processes + self.lost.exits);
        if messages > 0 {
            log::warn!(
                "{messages} messages are lost, by a full ring or for want of memory; state is read again"
            );
            self.metrics.add_lost("ringbuf", messages);
            self.want(Reason::Lost);
        }
        if others > 0 {
            self.metrics.add_lost("ringbuf", others);
        }
        self.lost = lost;
    }

    /// Sets the gauges to what there is.
    pub(super) fn show_gauges(&self) {
        for (kind, family) in ObjectKind::with_families() {
            let Counts { protected, missing, held } = self.core.counts(kind, family);
            let counts = Objects { protected: protected as u64, missing: missing as u64, held: held as u64 };
            self.metrics.set_objects(kind, family, counts);
        }
    }
}
