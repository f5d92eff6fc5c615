//! What an outage costs: lookups are counted while a guarded route is missing.
//!
//! Only an outage of some length is worth it: to attach the programs takes longer than a restore. What is back
//! before [`afterwards`](super::afterwards) looks is not counted, and its record says nothing.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::task::{JoinHandle, spawn_blocking};

use super::guard::Guard;
use crate::{
    core::Report,
    model::Family,
    sensor::{Lookup, Lookups, Switch},
    surface::metrics::Metrics,
};

/// Routes whose lookups are counted at a time.
const WATCHED: usize = route_guardian_ebpf::WATCHED_ROUTES as usize;

/// The losses whose lookups are counted, and whether the programs are attached for them.
#[derive(Default)]
pub(super) struct Cost {
    /// By the number of the change.
    watched: HashMap<u64, Watched>,
    /// Whether the programs are wanted, and asked for.
    wanted: bool,
    /// Whether they are attached, and counting.
    attached: Arc<AtomicBool>,
    switching: Option<JoinHandle<()>>,
}

struct Watched {
    lookup: Lookup,
    family: Family,
    /// How many the metrics have already.
    told: u64,
}

impl Cost {
    /// Whether anything is counted, so that it has to be looked at again.
    pub fn is_counting(&self) -> bool {
        self.wanted || !self.watched.is_empty()
    }

    /// The number of lookups for what a report tells of, if they are counted; for the last time where it has ended.
    fn of(&mut self, report: &Report, lookups: &mut Lookups, metrics: &Metrics) -> Option<u64> {
        let watched = self.watched.get_mut(&report.seq)?;
        let count = lookups.count(&watched.lookup);
        watched.tell(count, metrics);
        if report.restored.is_some() {
            lookups.end(&watched.lookup);
            self.watched.remove(&report.seq);
        }
        self.attached.load(Ordering::Acquire).then_some(count)
    }
}

impl Watched {
    /// Passes on to the metrics what they do not have yet.
    fn tell(&mut self, count: u64, metrics: &Metrics) {
        metrics.add_failed_lookups(self.family, count.saturating_sub(self.told));
        self.told = self.told.max(count);
    }
}

impl Guard {
    /// The number of lookups for what a report tells of. Costs nothing where nothing has been missing for long.
    pub(super) fn failed_lookups(&mut self, report: &Report) -> Option<u64> {
        if self.cost.watched.is_empty() {
            return None;
        }
        self.cost.of(report, self.source.lookups()?, &self.metrics)
    }

    /// Counts for what is missing now, and no more for what is not.
    pub(super) fn look_at_cost(&mut self) {
        let Some(lookups) = self.source.lookups() else { return };
        let lost = self.core.lost_routes(WATCHED);
        let cost = &mut self.cost;
        // What was withdrawn has no report.
        let metrics = &self.metrics;
        cost.watched.retain(|seq, watched| {
            watched.tell(lookups.count(&watched.lookup), metrics);
            let is_lost = lost.contains_key(seq);
            if !is_lost {
                lookups.end(&watched.lookup);
            }
            is_lost
        });
        for (seq, key) in lost {
            let lookup = Lookup::from(&key);
            if !cost.watched.contains_key(&seq) && lookups.watch(&lookup) {
                cost.watched.insert(seq, Watched { lookup, family: key.family(), told: 0 });
            }
        }
        let wanted = !cost.watched.is_empty();
        if cost.switching.as_ref().is_none_or(JoinHandle::is_finished) && wanted != cost.wanted {
            cost.wanted = wanted;
            let (switch, attached) = (lookups.switch(), Arc::clone(&cost.attached));
            cost.switching = Some(spawn_blocking(move || turn(&switch, wanted, &attached)));
        }
    }
}

fn turn(switch: &Switch, on: bool, attached: &AtomicBool) {
    if on {
        match switch.on() {
            Ok(()) => attached.store(true, Ordering::Release),
            // Not tried again before the next outage.
            Err(error) => log::warn!("lookups are not counted: {error}"),
        }
    } else {
        attached.store(false, Ordering::Release);
        switch.off();
    }
}
