//! Reading the kernel's state again: at the start, and whenever something may have been missed.

use std::time::Duration;

use tokio::task::spawn_blocking;

use super::{clock, guard::Guard};
use crate::{
    core::{Dump, Input, Reason},
    footprint,
    model::Stamp,
    netlink::{DumpError, State, dump},
};

/// When a dump that failed is tried again; doubled each time, up to [`RETRY_MAX`].
pub(super) const RETRY: Duration = Duration::from_millis(20);

/// The longest time between two dumps that fail.
const RETRY_MAX: Duration = Duration::from_secs(1);

impl Guard {
    /// Asks for a dump; the one that runs already may be too early.
    pub(super) fn want(&mut self, reason: Reason) {
        self.wanted.insert(reason);
    }

    /// Asks for another dump in a while.
    fn dump_again(&mut self, now: Stamp) {
        self.want(Reason::Interrupted);
        self.dump_not_before = Some(now.after(self.dump_retry));
        self.dump_retry = (self.dump_retry * 2).min(RETRY_MAX);
    }

    /// Starts the dump that is wanted, unless one is running.
    pub(super) fn start_dump(&mut self) {
        let now = clock::now();
        if self.dumping.is_some() || self.dump_not_before.is_some_and(|at| now < at) {
            return;
        }
        if !self.wanted.is_empty() {
            self.dump_not_before = None;
            for reason in std::mem::take(&mut self.wanted) {
                self.metrics.add_resync(reason.as_str());
            }
            self.dumping = Some(spawn_blocking(move || {
                let started = clock::now();
                dump().map(|state| (started, state))
            }));
        }
    }

    /// Subscribe, dump, replay: what was announced up to the dump's end is taken in before it.
    pub(super) fn dumped(&mut self, result: Result<(Stamp, State), DumpError>) {
        let ended = clock::now();
        match result {
            Ok((started, state)) => {
                while self.source.take(self.executor.port(), &mut self.taken) {
                    self.take_in();
                }
                self.take_in();
                if state.complete {
                    self.dump_retry = RETRY;
                } else {
                    self.dump_again(ended);
                    // What a cut dump has can be adopted; that something is missing it cannot say.
                    if self.core.is_synced() {
                        return;
                    }
                }
                let first = !self.core.is_synced();
                let dump = Dump { started, ended, objects: state.objects };
                self.core.step(clock::now(), Input::Dump(dump));
                self.later.touch(ended);
                if first {
                    // Who hears that it is ready may look at once.
                    self.show_gauges();
                    self.restart.compare(&self.core.desired(), self.core.links());
                    let objects = self.core.desired().len();
                    log::info!("first snapshot taken: {objects} objects guarded");
                    self.tell_ready(None);
                    footprint::unmap_text();
                }
            }
            Err(error) => {
                log::error!("{error}; it is tried again");
                self.dump_again(ended);
            }
        }
        self.write(false);
        self.effects();
    }
}
