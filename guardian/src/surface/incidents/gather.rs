//! From records, as they stream by, to incidents.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher as _, RandomState},
};

use jiff::Timestamp;

use super::{Before, EXAMPLES, Incident, Lost, Outage, is_consequence, outage::Union, tells_more};
use crate::{
    model::{
        ActorClass,
        record::{ActorRecord, EventRecord, Outcome},
    },
    surface::query::Query,
};

/// Changes of one incident of which a later word supersedes an earlier one; of more, every word counts.
const SAID: usize = 16_384;

/// Incidents beyond those that were asked for, whose matching record may be still to come.
const AHEAD: usize = 256;

/// Programs whose incidents are counted; of more, the count begins anew and is said to be a lower bound.
const PROGRAMS: usize = 4096;

/// Gathers the incidents that a query asks for: those of which a record matches. It keeps the last so many, each
/// bounded in itself.
#[derive(Debug)]
pub struct Gather<'q> {
    query: &'q Query,
    most: usize,
    incidents: HashMap<String, Growing>,
    /// The ids of [`Self::incidents`], the oldest first.
    order: VecDeque<String>,
    programs: HashMap<Program, u64>,
    /// Whether something came before the first record.
    cut: bool,
    dropped: u64,
}

/// What the same actor goes by from one run to the next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Program {
    class: ActorClass,
    name: String,
    unit: Option<String>,
}

impl Program {
    /// `None` for those of whom nothing is known: two of them need not be the same.
    fn of(actor: &ActorRecord) -> Option<Self> {
        if actor.class == ActorClass::Unknown && actor.pid.is_none() {
            return None;
        }
        // Kernel threads are told apart by numbers that mean nothing the next time.
        let name = match (actor.class, &actor.exe) {
            (ActorClass::Kernel, _) => String::new(),
            (_, Some(exe)) => exe.trim_end_matches(" (deleted)").to_owned(),
            (_, None) => actor.comm.clone(),
        };
        Some(Self { class: actor.class, name, unit: actor.unit.clone() })
    }
}

impl<'q> Gather<'q> {
    /// For the last `most` incidents that match; `cut` says that older records existed once.
    pub fn new(query: &'q Query, most: usize, cut: bool) -> Self {
        Self {
            query,
            most: query.last.unwrap_or(most).min(most),
            incidents: HashMap::new(),
            order: VecDeque::new(),
            programs: HashMap::new(),
            cut,
            dropped: 0,
        }
    }

    /// Takes the next record, or the next word on an earlier one.
    pub fn push(&mut self, event: EventRecord) {
        let of_id = |id: &String| !id.is_empty() && event.incident.ends_with(&id.to_uppercase());
        let wanted = self.query.id.as_ref().is_none_or(of_id) && self.query.matches_but_id(&event);
        if let Some(growing) = self.incidents.get_mut(&event.incident) {
            growing.wanted |= wanted;
            growing.push(event);
            return;
        }
        let before = self.before(&event.actor);
        // Those that were asked for, and room for those whose matching record is still to come.
        if self.order.len() >= self.most + AHEAD {
            self.make_room();
        }
        self.order.push_back(event.incident.clone());
        self.incidents.insert(event.incident.clone(), Growing::new(event, wanted, before));
    }

    fn before(&mut self, actor: &ActorRecord) -> Before {
        if self.programs.len() >= PROGRAMS {
            self.programs.clear();
            self.cut = true;
        }
        let Some(program) = Program::of(actor) else { return Before::default() };
        let times = self.programs.entry(program).or_default();
        *times += 1;
        Before { times: *times - 1, at_least: self.cut }
    }

    /// The oldest gives way; it is missed only if it was asked for.
    fn make_room(&mut self) {
        if let Some(oldest) = self.order.pop_front()
            && let Some(growing) = self.incidents.remove(&oldest)
            && growing.wanted
        {
            self.keep(growing);
        }
    }

    /// What matches is kept for as long as it is one of the last that do.
    fn keep(&mut self, growing: Growing) {
        let id = growing.incident.id.clone();
        let kept = self.order.iter().filter(|id| self.incidents.get(*id).is_some_and(|g| g.wanted)).count();
        if kept >= self.most {
            self.dropped += 1;
            return;
        }
        // In its place again; what was not asked for and is the oldest goes instead.
        if let Some(at) = self.order.iter().position(|id| self.incidents.get(id).is_some_and(|g| !g.wanted))
            && let Some(other) = self.order.remove(at)
        {
            self.incidents.remove(&other);
        }
        self.order.push_front(id.clone());
        self.incidents.insert(id, growing);
    }

    /// The incidents, the newest last, and how many older ones that match were left out.
    pub fn finish(mut self) -> (Vec<Incident>, u64) {
        let mut found: Vec<Incident> = Vec::new();
        for id in &self.order {
            if let Some(growing) = self.incidents.remove(id).filter(|growing| growing.wanted) {
                found.push(growing.finish());
            }
        }
        let surplus = found.len().saturating_sub(self.most);
        found.drain(..surplus);
        (found, self.dropped + surplus as u64)
    }
}

/// An incident that may still grow.
#[derive(Debug)]
struct Growing {
    incident: Incident,
    union: Union,
    /// What was last said of each change, by a hash of its id: an id as a text is four times as long.
    said: HashMap<u64, Outcome>,
    hasher: RandomState,
    wanted: bool,
}

impl Growing {
    fn new(event: EventRecord, wanted: bool, before: Before) -> Self {
        let incident = Incident {
            id: event.incident.clone(),
            first: event.time.clone(),
            last: event.time.clone(),
            actor: event.actor.clone(),
            verdict: event.verdict,
            changes: 0,
            consequences: 0,
            lost: Vec::new(),
            causes: [].into(),
            outcomes: [].into(),
            outage: Outage::default(),
            failed_lookups: None,
            before,
            telling: event.clone(),
        };
        let mut growing = Self {
            incident,
            union: Union::default(),
            said: HashMap::new(),
            hasher: RandomState::new(),
            wanted,
        };
        growing.push(event);
        growing
    }

    fn push(&mut self, event: EventRecord) {
        let open = |outcome| matches!(outcome, Outcome::Held | Outcome::Failed | Outcome::Observed);
        let id = self.hasher.hash_one(&event.id);
        let earlier = self.said.get(&id).copied();
        if earlier.is_some_and(|earlier| !open(earlier)) {
            // A line that comes twice counts once.
            return;
        }
        let incident = &mut self.incident;
        if let Some(earlier) = earlier {
            if let Some(count) = incident.outcomes.get_mut(&earlier) {
                *count -= 1;
            }
        } else {
            incident.changes += 1;
            incident.consequences += u64::from(is_consequence(event.cause));
            *incident.causes.entry(event.cause).or_default() += 1;
            add(&mut incident.lost, &event);
        }
        *incident.outcomes.entry(event.outcome).or_default() += 1;
        // RFC 3339 in UTC with a fixed number of digits: the order of the texts is that of the times.
        if event.time < incident.first {
            incident.first.clone_from(&event.time);
        }
        if event.time > incident.last {
            incident.last.clone_from(&event.time);
        }
        if let Some(us) = event.outage_us {
            incident.outage.longest_us = incident.outage.longest_us.max(us);
            if let Ok(start) = event.time.parse::<Timestamp>() {
                self.union.add(start, us);
            }
        }
        if earlier.is_some() || self.said.len() < SAID {
            self.said.insert(id, event.outcome);
        }
        if event.id == incident.telling.id || tells_more(&event, &incident.telling) {
            incident.actor = event.actor.clone();
            incident.verdict = event.verdict;
            incident.telling = event;
        }
    }

    fn finish(mut self) -> Incident {
        self.incident.outcomes.retain(|_, count| *count > 0);
        self.incident.lost.sort_by_key(|lost| (lost.kind, lost.family));
        let open = [Outcome::Held, Outcome::Failed, Outcome::Observed];
        self.incident.outage.open =
            open.iter().filter_map(|outcome| self.incident.outcomes.get(outcome)).sum();
        self.incident.outage.total_us = self.union.total();
        self.incident
    }
}

fn add(lost: &mut Vec<Lost>, event: &EventRecord) {
    let object = &event.object;
    let kind = (object.kind, object.family);
    let at = lost.iter().position(|lost| (lost.kind, lost.family) == kind).unwrap_or_else(|| {
        lost.push(Lost { kind: kind.0, family: kind.1, count: 0, examples: Vec::new() });
        lost.len() - 1
    });
    let of = &mut lost[at];
    of.count += 1;
    if of.examples.len() < EXAMPLES && !of.examples.contains(&object.key) {
        of.examples.push(object.key.clone());
    }
}
