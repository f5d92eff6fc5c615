//! What the core wants written, and the moment after.

use std::time::Duration;

use super::{afterwards::RECORDS, clock, guard::Guard, reactor::Woken};
use crate::{core::plan::Applied, model::Stamp};

/// Writes in one go, between two looks at what has come.
const WRITES: usize = 256;

/// How long the guard stands aside at most: until it has records to make, and for the same reason no less.
const ASIDE: Duration = RECORDS;

impl Guard {
    /// One round of writes; whether there was anything to write. Where nothing is left to take in, it may end with a sleep.
    pub(super) fn write(&mut self, is_last: bool) -> bool {
        let actions = self.core.plan(clock::now(), WRITES);
        if actions.is_empty() {
            return false;
        }
        self.affinity.undoes();
        let sent = clock::now();
        let mut results = self.executor.apply(&actions);
        let done = clock::now();
        if is_last && results == [Applied::Verified] && self.core.writes_the_last() {
            self.stand_aside(done);
        }
        self.source.complete(&mut results, sent);
        self.core.applied(results, sent, done);
        self.later.touch(clock::now());
        true
    }

    /// Sleeps before the books are kept: a restore often runs on the CPU of the very program that made it necessary, and
    /// that program has waited long enough. What comes meanwhile ends it.
    ///
    /// Not where anything else is due so soon, and not while lookups are counted, which would go on for what is back.
    fn stand_aside(&mut self, now: Stamp) {
        let due = self.core.deadline().is_some_and(|at| at < now.after(ASIDE));
        let has_other_things_to_do = due || self.core.waited_for().is_some() || self.cost.is_counting();
        if has_other_things_to_do || self.rung {
            return;
        }
        // Where it cannot sleep it says so when it tries again. What a source has is taken in the next turn.
        let woken = self.reactor.sleep(Some(ASIDE)).unwrap_or(Woken::Source);
        if woken == Woken::Loss {
            self.count_losses();
        }
        self.rung = matches!(woken, Woken::Bell | Woken::Loss);
    }
}
