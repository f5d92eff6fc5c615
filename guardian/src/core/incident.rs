//! Incidents: the changes of one actor in one burst.

use std::time::Duration;

use super::damping::Culprit;
use crate::model::{Actor, ProcessId, Stamp};

/// Changes of one actor that lie closer together belong to one incident.
const GAP: Duration = Duration::from_secs(2);

/// Actors remembered at once; the one that has been quiet for longest gives way.
const CAPACITY: usize = 64;

#[derive(Debug)]
struct Burst {
    process: Option<ProcessId>,
    culprit: Culprit,
    incident: u64,
    last: Stamp,
}

/// The incidents that are still open.
#[derive(Debug, Default)]
pub struct Incidents(Vec<Burst>);

impl Incidents {
    /// The incident of a change at `at` by `actor`; a new one is named by the change's own `seq`.
    pub fn of(&mut self, actor: &Actor, at: Stamp, seq: u64) -> u64 {
        let process = actor.process().map(|p| p.id);
        let culprit = Culprit::from(actor);
        if let Some(burst) =
            self.0.iter_mut().find(|b| b.process == process && b.culprit == culprit && at.since(b.last) < GAP)
        {
            burst.last = burst.last.max(at);
            return burst.incident;
        }
        self.0.retain(|b| at.since(b.last) < GAP);
        if self.0.len() >= CAPACITY
            && let Some(oldest) = (0..self.0.len()).min_by_key(|&i| self.0[i].last)
        {
            self.0.swap_remove(oldest);
        }
        self.0.push(Burst { process, culprit, incident: seq, last: at });
        seq
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_one_incident_and_a_pause_ends_it() {
        let mut incidents = Incidents::default();
        let who = Actor::Kernel { what: "kworker".into() };
        assert_eq!(incidents.of(&who, Stamp(0), 1), 1);
        assert_eq!(incidents.of(&who, Stamp(1_000_000_000), 2), 1);
        assert_eq!(incidents.of(&Actor::Unknown, Stamp(1_000_000_000), 3), 3);
        assert_eq!(incidents.of(&who, Stamp(9_000_000_000), 4), 4);
    }
}
