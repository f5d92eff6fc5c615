//! From the core's reports to the records of the outer interface.

use std::{
    collections::VecDeque,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use ulid::Ulid;

use super::clock;
use crate::{
    core::Report,
    model::{
        Links, Object, Stamp,
        record::{ActorRecord, EventRecord, ObjectRecord, Outcome, difference},
    },
};

/// Open incidents whose ids are remembered.
const INCIDENTS: usize = 256;

/// Gives changes and incidents their ULIDs: the time of the change, then 48 bits of this run of the
/// guardian, then the number of the change.
#[derive(Debug)]
pub struct Ids {
    run: u128,
    /// Taken together once: the id of a change must not depend on when it is asked for.
    origin: (Stamp, Duration),
    incidents: VecDeque<(u64, String)>,
}

impl Ids {
    /// Ids that no other run has.
    pub fn new() -> Self {
        let random = RandomState::new().hash_one(std::process::id());
        let now = clock::now();
        let origin = (now, clock::wall(now));
        Self { run: u128::from(random >> 16) << 32, origin, incidents: VecDeque::new() }
    }

    fn id(&self, at: Stamp, seq: u64) -> String {
        let (stamp, wall) = self.origin;
        let wall = (wall + at.since(stamp)).saturating_sub(stamp.since(at));
        let millis = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
        Ulid::from_parts(millis, self.run | u128::from(seq & 0xffff_ffff)).to_string()
    }

    /// The id of an incident is that of the first change of it that was told.
    fn incident(&mut self, seq: u64, id: &str) -> String {
        if let Some((_, known)) = self.incidents.iter().rev().find(|(incident, _)| *incident == seq) {
            return known.clone();
        }
        if self.incidents.len() >= INCIDENTS {
            self.incidents.pop_front();
        }
        self.incidents.push_back((seq, id.to_owned()));
        id.to_owned()
    }

    /// The record of a report.
    pub fn record(
        &mut self,
        report: &Report,
        actor: Arc<ActorRecord>,
        origin: Option<Arc<ActorRecord>>,
        failed_lookups: Option<u64>,
        links: &Links,
    ) -> EventRecord {
        let id = self.id(report.at, report.seq);
        let incident = self.incident(report.incident, &id);
        let micros = |stamp: Stamp| u64::try_from(stamp.since(report.at).as_micros()).unwrap_or(u64::MAX);
        let there = matches!(report.outcome, Outcome::Restored | Outcome::AlreadyPresent);
        EventRecord {
            id,
            incident,
            time: clock::rfc3339(clock::wall(report.at)),
            object: object(&report.object, links),
            change: report.change,
            cause: report.cause,
            actor,
            origin,
            verdict: report.verdict,
            outcome: report.outcome,
            detection_us: Some(micros(report.detected)),
            outage_us: report.restored.filter(|_| there).map(micros),
            failed_lookups,
            let_go: report.let_go,
            error: report.error.clone(),
            detail: report
                .now
                .as_ref()
                .and_then(|now| difference(&report.object.text(links), &now.text(links))),
        }
    }
}

/// An object as records and reports show it.
pub fn object(object: &Object, links: &Links) -> ObjectRecord {
    let key = object.key();
    ObjectRecord {
        kind: key.kind(),
        family: key.family(),
        key: object.name(links),
        table: object.table(),
        text: object.text(links),
    }
}
