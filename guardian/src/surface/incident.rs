//! Incidents: the changes that one actor made in one burst, taken together.
//!
//! The core decides which changes belong together and the journal has each of them; here they are counted, from
//! the journal, in one pass and in bounded memory.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    io,
    path::Path,
    sync::Arc,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::query::{self, Query};
use crate::model::{
    Family,
    record::{ActorRecord, Cause, EventRecord, ObjectKind, Outcome, Verdict},
};

/// Objects of a kind that are named in an incident.
const NAMED: usize = 3;

/// Changes that are kept while a journal is read, some 100 bytes each; the oldest incidents make room.
const CHANGES: usize = 50_000;

/// The newest incidents, which a later change may make such as are asked for. Of those before them only such are kept.
const FRESH: usize = 1_024;

/// Incidents that were let go of and are remembered, so that a later word on one does not begin another.
const GONE: usize = 16_384;

/// Actors whose earlier incidents are counted.
const ACTORS: usize = 4_096;

/// What was lost of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostKind {
    /// The kind.
    pub kind: ObjectKind,
    /// Its family.
    pub family: Option<Family>,
    /// How many objects.
    pub count: u64,
    /// The keys of the first few.
    pub keys: Vec<String>,
}

/// One incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// The ULID that its changes carry as `incident`.
    pub id: String,
    /// The time of its first change.
    pub first: String,
    /// The time of its last change.
    pub last: String,
    /// Whose it was.
    pub actor: Arc<ActorRecord>,
    /// Whose it counts as.
    pub verdict: Verdict,
    /// How many changes it has.
    pub changes: u64,
    /// What was lost or changed.
    pub lost: Vec<LostKind>,
    /// How many by which path.
    pub causes: BTreeMap<Cause, u64>,
    /// How many ended how.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// How many may be missing still.
    pub open: u64,
    /// For how long something was missing that is back, in microseconds; what was missing at once counts once.
    pub outage_us: Option<u64>,
    /// The longest that one object was missing, in microseconds.
    pub longest_us: Option<u64>,
    /// Lookups that missed one of its routes, where any were counted.
    pub failed_lookups: Option<u64>,
    /// How many incidents of the same actor, whatever process it was, are in the journal before it.
    pub before: u64,
    /// When the last of these began.
    pub previous: Option<String>,
    /// The change that tells most: what was asked for, not what followed from it.
    pub head: EventRecord,
}

impl Incident {
    /// The most incidents of one answer of the daemon, which has to hold them.
    pub const SERVED: usize = 500;
    /// The most incidents of one reading of the files, some 2 kB each.
    pub const READ: usize = 10_000;
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The newest last.
    pub incidents: Vec<Incident>,
    /// Lines of the journal that are no event.
    pub torn: u64,
    /// Older ones that were left out because there were too many.
    pub left_out: u64,
}

/// Reads the incidents in the journal in `dir` that have a change which `query` wants, with all their changes. The
/// owner's own changes are none.
///
/// # Errors
/// Those of reading the files; an absent journal is an empty one.
pub fn read(dir: &Path, query: &Query, most: usize) -> io::Result<Found> {
    let mut all = Gathering::new(query.clone(), query.last.unwrap_or(most).min(most));
    let torn = query::each(dir, &mut |event| all.push(event))?;
    Ok(Found { torn, ..all.finish() })
}

/// What is kept of a change.
struct Fact {
    kind: ObjectKind,
    family: Option<Family>,
    cause: Cause,
    outcome: Outcome,
    is_open: bool,
    /// In microseconds since 1970.
    at: i64,
    outage_us: Option<u64>,
    failed_lookups: Option<u64>,
}

impl Fact {
    fn of(event: &EventRecord) -> Self {
        Self {
            kind: event.object.kind,
            family: event.object.family,
            cause: event.cause,
            outcome: event.outcome,
            is_open: event.is_open(),
            at: event.time.parse::<Timestamp>().map_or(0, Timestamp::as_microsecond),
            outage_us: event.outage_us,
            failed_lookups: event.failed_lookups,
        }
    }
}

/// An incident that is being put together.
struct Burst {
    facts: HashMap<u128, Fact>,
    named: BTreeMap<(ObjectKind, Option<Family>), Vec<String>>,
    first: String,
    last: String,
    head: EventRecord,
    wanted: bool,
    before: u64,
    previous: Option<String>,
}

/// Puts incidents together from events in the order of the journal.
struct Gathering {
    query: Query,
    most: usize,
    bursts: HashMap<String, Burst>,
    /// The newest incidents, the oldest first.
    fresh: VecDeque<String>,
    /// Those before them that are asked for.
    kept: VecDeque<String>,
    facts: usize,
    /// How many incidents an actor has had, and when the last one began.
    actors: HashMap<String, (u64, String)>,
    gone: Gone,
    /// Those that were asked for and are more than can be answered.
    too_many: u64,
    /// Those that were asked for and had to make room.
    gave_way: u64,
}

impl Gathering {
    fn new(query: Query, most: usize) -> Self {
        Self {
            query,
            most,
            bursts: HashMap::new(),
            fresh: VecDeque::new(),
            kept: VecDeque::new(),
            facts: 0,
            actors: HashMap::new(),
            gone: Gone::default(),
            too_many: 0,
            gave_way: 0,
        }
    }

    fn push(&mut self, event: EventRecord) {
        if event.verdict == Verdict::Owner {
            return;
        }
        let Ok(id) = event.id.parse::<ulid::Ulid>() else { return };
        let wanted = self.query.matches(&event);
        if !self.bursts.contains_key(&event.incident) {
            // A later word on a change of an incident that was let go of.
            if self.gone.has(&event.incident) {
                return;
            }
            self.begin(&event);
        }
        let Some(burst) = self.bursts.get_mut(&event.incident) else { return };
        burst.wanted |= wanted;
        if burst.facts.insert(id.0, Fact::of(&event)).is_none() {
            self.facts += 1;
            let named = burst.named.entry((event.object.kind, event.object.family)).or_default();
            if named.len() < NAMED && !named.contains(&event.object.key) {
                named.push(event.object.key.clone());
            }
        }
        if event.time < burst.first {
            burst.first.clone_from(&event.time);
            if let Some((_, begun)) = self.actors.get_mut(&identity(&event.actor)) {
                begun.clone_from(&event.time);
            }
        }
        if event.time > burst.last {
            burst.last.clone_from(&event.time);
        }
        if event.id == burst.head.id || event.tells_more_than(&burst.head) {
            burst.head = event;
        }
        if self.facts > CHANGES {
            self.make_room();
        }
    }

    /// Lets go of incidents until there is room for a while: first of those that are not asked for so far, then of the
    /// oldest.
    fn make_room(&mut self) {
        let is_wanted = |id: &&String| self.bursts.get(*id).is_some_and(|burst| burst.wanted);
        let fresh = || self.fresh.iter().take(self.fresh.len().saturating_sub(1));
        let others = fresh().filter(|id| !is_wanted(id));
        let order: Vec<String> = others.chain(&self.kept).chain(fresh().filter(is_wanted)).cloned().collect();
        for id in order {
            if self.facts <= CHANGES - CHANGES / 8 {
                break;
            }
            self.gave_way += u64::from(self.let_go(&id));
        }
        self.kept.retain(|id| self.bursts.contains_key(id));
        self.fresh.retain(|id| self.bursts.contains_key(id));
    }

    fn begin(&mut self, event: &EventRecord) {
        let actor = identity(&event.actor);
        if self.actors.len() >= ACTORS && !self.actors.contains_key(&actor) {
            self.actors.clear();
        }
        let (count, begun) = self.actors.entry(actor).or_default();
        let (before, previous) = (*count, (*count > 0).then(|| begun.clone()));
        *count += 1;
        begun.clone_from(&event.time);
        let burst = Burst {
            facts: HashMap::new(),
            named: BTreeMap::new(),
            first: event.time.clone(),
            last: event.time.clone(),
            head: event.clone(),
            wanted: false,
            before,
            previous,
        };
        self.bursts.insert(event.incident.clone(), burst);
        self.fresh.push_back(event.incident.clone());
        if self.fresh.len() > FRESH
            && let Some(id) = self.fresh.pop_front()
        {
            if !self.bursts.get(&id).is_some_and(|burst| burst.wanted) {
                self.let_go(&id);
                return;
            }
            self.kept.push_back(id);
            if self.kept.len() > self.most
                && let Some(oldest) = self.kept.pop_front()
            {
                self.too_many += u64::from(self.let_go(&oldest));
            }
        }
    }

    /// Returns whether it was asked for.
    fn let_go(&mut self, id: &str) -> bool {
        let Some(burst) = self.bursts.remove(id) else { return false };
        self.facts -= burst.facts.len();
        self.gone.add(id);
        burst.wanted
    }

    fn finish(mut self) -> Found {
        let mut incidents = VecDeque::new();
        while let Some(id) = self.fresh.pop_back().or_else(|| self.kept.pop_back()) {
            let Some(burst) = self.bursts.remove(&id) else { continue };
            if !burst.wanted {
                continue;
            }
            if incidents.len() < self.most {
                incidents.push_front(burst.finish(id));
            } else {
                self.too_many += 1;
            }
        }
        let left_out = match self.query.last {
            None => self.too_many + self.gave_way,
            // Those before the last so many were not asked for.
            Some(last) => (self.too_many + self.gave_way).min(last.saturating_sub(incidents.len()) as u64),
        };
        Found { incidents: incidents.into(), torn: 0, left_out }
    }
}

/// Incidents that were let go of, the newest of them. Not by their place in time: a clock that was set back gives new
/// ones earlier ids.
#[derive(Default)]
struct Gone {
    ids: HashSet<u128>,
    order: VecDeque<u128>,
}

impl Gone {
    fn add(&mut self, id: &str) {
        let Ok(ulid::Ulid(id)) = id.parse() else { return };
        if self.ids.insert(id) {
            self.order.push_back(id);
        }
        if self.order.len() > GONE
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }

    fn has(&self, id: &str) -> bool {
        id.parse().is_ok_and(|ulid::Ulid(id)| self.ids.contains(&id))
    }
}

impl Burst {
    fn finish(self, id: String) -> Incident {
        let mut counts: BTreeMap<(ObjectKind, Option<Family>), u64> = BTreeMap::new();
        let (mut causes, mut outcomes) = (BTreeMap::new(), BTreeMap::new());
        for fact in self.facts.values() {
            *counts.entry((fact.kind, fact.family)).or_default() += 1;
            *causes.entry(fact.cause).or_default() += 1;
            *outcomes.entry(fact.outcome).or_default() += 1;
        }
        let mut named = self.named;
        let lost = counts
            .into_iter()
            .map(|((kind, family), count)| LostKind {
                kind,
                family,
                count,
                keys: named.remove(&(kind, family)).unwrap_or_default(),
            })
            .collect();
        let away = |fact: &Fact| fact.outage_us.map(|us| (fact.at, fact.at.saturating_add_unsigned(us)));
        Incident {
            id,
            first: self.first,
            last: self.last,
            actor: Arc::clone(&self.head.actor),
            verdict: self.head.verdict,
            changes: self.facts.len() as u64,
            lost,
            causes,
            outcomes,
            open: self.facts.values().filter(|fact| fact.is_open).count() as u64,
            outage_us: union(self.facts.values().filter_map(away).collect()),
            longest_us: self.facts.values().filter_map(|fact| fact.outage_us).max(),
            failed_lookups: self.facts.values().filter_map(|fact| fact.failed_lookups).reduce(|a, b| a + b),
            before: self.before,
            previous: self.previous,
            head: self.head,
        }
    }
}

/// The length of all intervals taken together; `None` where there is none.
fn union(mut intervals: Vec<(i64, i64)>) -> Option<u64> {
    intervals.sort_unstable();
    let mut rest = intervals.into_iter();
    let (mut from, mut to) = rest.next()?;
    let mut length = 0_u64;
    for (start, end) in rest {
        if start > to {
            length += to.abs_diff(from);
            (from, to) = (start, end);
        } else {
            to = to.max(end);
        }
    }
    Some(length + to.abs_diff(from))
}

/// What makes two processes the same actor: the program and its unit.
fn identity(actor: &ActorRecord) -> String {
    let program = actor.exe.as_deref().unwrap_or(&actor.comm);
    format!("{} {program} {}", actor.class, actor.unit.as_deref().unwrap_or_default())
}

#[cfg(test)]
#[path = "incident_tests.rs"]
mod tests;
