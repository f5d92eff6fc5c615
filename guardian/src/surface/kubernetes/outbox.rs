//! Which Events there are to make: changes that are alike become one, whose count grows, and all of them together cost
//! the API server no more than a budget.
//!
//! There is no clock and no I/O in it. What the API server does not take now waits here, in bounded space: a series
//! takes the same room however many changes it tells of.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{
    bucket::Bucket,
    message::{is_warning, message, reason, who},
};
use crate::model::{
    Stamp,
    record::{EventRecord, ObjectKind, Outcome},
};

/// Requests at once, and one more in a while: as `client-go` has it for each source and object
/// (`tools/record/events_cache.go`).
const BURST: u32 = 25;
const REFILL: Duration = Duration::from_secs(300);

/// What is left of the budget by one who goes on and on, for what is new.
const RESERVE: u32 = 10;

/// Series that are open at once.
pub(super) const SERIES: usize = 64;

/// Until what a burst takes along is told with it.
const SETTLE: Duration = Duration::from_secs(1);

/// The shortest time between two words on one series.
const UPDATE: Duration = Duration::from_secs(10);

/// A series that has had no change for so long has ended; the next one like it begins another Event.
const IDLE: Duration = Duration::from_secs(600);

/// For so long it is tried to tell of the last change: as long as an API server keeps Events (`--event-ttl`).
pub(super) const STALE: Duration = Duration::from_secs(3600);

/// What an Event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// What is unique in its name, for `metadata.name`.
    pub id: String,
    /// In `CamelCase`.
    pub reason: String,
    /// Whether its type is `Warning`, and not `Normal`.
    pub warning: bool,
    /// For people.
    pub message: String,
    /// Changes that it tells of.
    pub count: u64,
    /// The time of the first, RFC 3339 in UTC.
    pub first: String,
    /// The time of the last.
    pub last: String,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Write {
    /// Make the Event.
    Create(Told),
    /// Say what has become of it: count, time of the last change, message.
    Update(Told),
}

/// Why a request was in vain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Trouble {
    /// Nobody answered, or not now: it is to be tried again.
    #[error("{0}")]
    Away(String),
    /// What was to be changed is not there any more.
    #[error("{0}")]
    Gone(String),
    /// It is not taken, however often it is tried.
    #[error("{0}")]
    Refused(String),
}

/// What makes changes alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Likeness {
    kind: ObjectKind,
    reason: String,
    outcome: Outcome,
    who: String,
}

#[derive(Debug)]
struct Series {
    id: String,
    first: String,
    latest: Arc<EventRecord>,
    /// When the last change came.
    touched: Stamp,
    count: u64,
    /// Of these, the ones that the API server knows of.
    told: u64,
    is_made: bool,
    /// When it may be told of, should there be anything.
    due: Stamp,
}

impl Series {
    const fn waiting(&self) -> u64 {
        self.count - self.told
    }

    /// What a budget has to have left for it: to make an Event was paid for when the series began.
    fn due(&self, now: Stamp, budget: &Bucket) -> Option<Stamp> {
        match (self.waiting(), self.is_made) {
            (0, _) => None,
            (_, false) => Some(self.due),
            (_, true) => Some(self.due.max(budget.more_than(now, RESERVE))),
        }
    }
}

/// The changes that are told of, and those that are to be.
#[derive(Debug)]
pub(super) struct Outbox {
    series: HashMap<Likeness, Series>,
    budget: Bucket,
    /// The request that is on its way, and the count that it tells.
    sent: Option<(Likeness, u64)>,
    /// Series so far.
    made: u64,
    /// What became of changes since this was last asked, one of `metrics::KUBE_EVENTS` each.
    became: Vec<(&'static str, u64)>,
}

impl Outbox {
    pub fn new() -> Self {
        let budget = Bucket::new(BURST, REFILL);
        Self { series: HashMap::new(), budget, sent: None, made: 0, became: Vec::new() }
    }

    /// A change is to be told of.
    pub fn take(&mut self, now: Stamp, event: Arc<EventRecord>) {
        self.forget(now);
        let (kind, outcome) = (event.object.kind, event.outcome);
        let likeness = Likeness { kind, reason: reason(&event), outcome, who: who(&event.actor) };
        if let Some(series) = self.series.get_mut(&likeness) {
            if series.waiting() == 0 {
                series.due = series.due.max(now.after(SETTLE));
            }
            (series.touched, series.latest, series.count) = (now, event, series.count + 1);
            return;
        }
        if self.series.len() >= SERIES || !self.budget.take(now, 0) {
            self.became("limited", 1);
            return;
        }
        self.made += 1;
        let series = Series {
            // The change alone does not suffice: what was held and came back later is told twice.
            id: format!("{}.{:x}", event.id.to_lowercase(), self.made),
            first: event.time.clone(),
            latest: event,
            touched: now,
            count: 1,
            told: 0,
            is_made: false,
            due: now.after(SETTLE),
        };
        self.series.insert(likeness, series);
    }

    /// The next request, if there is one to be sent now: one at a time.
    pub fn next(&mut self, now: Stamp) -> Option<Write> {
        self.forget(now);
        if self.sent.is_some() {
            return None;
        }
        let budget = &self.budget;
        let due = |series: &Series| series.due(now, budget).filter(|due| *due <= now);
        let (likeness, series) =
            self.series.iter().filter(|(_, s)| due(s).is_some()).min_by_key(|(_, s)| (s.is_made, s.due))?;
        let told = Told {
            id: series.id.clone(),
            reason: likeness.reason.clone(),
            warning: is_warning(likeness.outcome),
            message: message(&series.latest, series.count),
            count: series.count,
            first: series.first.clone(),
            last: series.latest.time.clone(),
        };
        self.sent = Some((likeness.clone(), series.count));
        Some(if series.is_made {
            self.budget.take(now, RESERVE);
            Write::Update(told)
        } else {
            Write::Create(told)
        })
    }

    /// When the next request may be due; `None` while nothing waits, or one is on its way.
    pub fn deadline(&self, now: Stamp) -> Option<Stamp> {
        if self.sent.is_some() {
            return None;
        }
        self.series.values().filter_map(|series| series.due(now, &self.budget)).min()
    }

    /// What came of the request.
    pub fn done(&mut self, now: Stamp, result: &Result<(), Trouble>) {
        let Some((likeness, count)) = self.sent.take() else { return };
        let Some(series) = self.series.get_mut(&likeness) else { return };
        match result {
            Ok(()) => {
                let (before, was_made) = (series.told, series.is_made);
                (series.told, series.is_made, series.due) = (count, true, now.after(UPDATE));
                let new = u64::from(!was_made && before == 0);
                self.became("created", new);
                self.became("updated", count - before - new);
            }
            // It is tried again when the API server is there: what it costs is paid then.
            Err(Trouble::Away(_)) if series.is_made => self.budget.give_back(),
            Err(Trouble::Away(_)) => {}
            // The API server keeps Events for a while only. It is made again, with all that it has told.
            Err(Trouble::Gone(_)) => (series.is_made, series.due) = (false, now),
            Err(Trouble::Refused(_)) => {
                let waiting = series.waiting();
                self.series.remove(&likeness);
                self.became("refused", waiting);
            }
        }
    }

    /// What became of changes since this was last asked.
    pub fn became_of(&mut self) -> Vec<(&'static str, u64)> {
        std::mem::take(&mut self.became)
    }

    fn became(&mut self, what: &'static str, count: u64) {
        if count > 0 {
            self.became.push((what, count));
        }
    }

    /// Lets go of series that have ended, and of what nobody would read any more.
    fn forget(&mut self, now: Stamp) {
        let sent = self.sent.as_ref().map(|(likeness, _)| likeness);
        let mut dropped = 0;
        self.series.retain(|likeness, series| {
            let age = now.since(series.touched);
            let keep = sent == Some(likeness) || age < if series.waiting() == 0 { IDLE } else { STALE };
            if !keep {
                dropped += series.waiting();
            }
            keep
        });
        self.became("dropped", dropped);
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
