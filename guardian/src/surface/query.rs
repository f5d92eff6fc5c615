//! Questions to the journal.

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _},
    path::Path,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::journal;
use crate::model::{Prefix, record::EventRecord};

/// The longest line that is read; a longer one is no event.
const LINE_MAX: u64 = 1 << 20;

/// Which events are wanted. What is not set does not restrict.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Query {
    /// Only events at or after this time.
    pub since: Option<Timestamp>,
    /// Only events before this time.
    pub until: Option<Timestamp>,
    /// Only the last so many.
    pub last: Option<usize>,
    /// Only objects whose text or key has this in it, or whose prefix lies in it.
    pub object: Option<String>,
    /// Only actors that have this in their class, command, executable, unit, pod or cgroup, or as pid.
    pub actor: Option<String>,
    /// Only the event with this id, or with an id that ends so.
    pub id: Option<String>,
    /// Only the events of the incident with this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of_incident: Option<String>,
}

impl Query {
    /// The most events of one answer of the daemon, which has to hold them: some 5 MB.
    pub const SERVED: usize = 2_000;

    /// The most events that are read from the files directly.
    pub const READ: usize = 100_000;

    /// Whether an event is wanted, but for [`Query::last`].
    pub fn matches(&self, event: &EventRecord) -> bool {
        self.id.as_ref().is_none_or(|id| !id.is_empty() && event.id.ends_with(&id.to_uppercase()))
            && self.of_incident.as_ref().is_none_or(|incident| event.incident == *incident)
            && self.matches_but_id(event)
    }

    /// Whether an event is of the time, the objects and the actors that are wanted.
    pub(super) fn matches_but_id(&self, event: &EventRecord) -> bool {
        let time: Option<Timestamp> = event.time.parse().ok();
        let from = self.since.is_none_or(|since| time.is_some_and(|time| time >= since));
        let to = self.until.is_none_or(|until| time.is_some_and(|time| time < until));
        from && to
            && self.object.as_ref().is_none_or(|text| object_matches(event, text))
            && self.actor.as_ref().is_none_or(|text| actor_matches(event, text))
    }
}

fn object_matches(event: &EventRecord, wanted: &str) -> bool {
    let object = &event.object;
    let within = || {
        let (Ok(outer), Ok(inner)) = (wanted.parse::<Prefix>(), object.key.parse::<Prefix>()) else {
            return false;
        };
        outer.covers(&inner)
    };
    object.text.contains(wanted) || object.key.contains(wanted) || object.kind.as_str() == wanted || within()
}

fn actor_matches(event: &EventRecord, wanted: &str) -> bool {
    let actor = &event.actor;
    let texts = [&actor.exe, &actor.unit, &actor.pod, &actor.cgroup, &actor.container];
    actor.class.as_str().contains(wanted)
        || actor.comm.contains(wanted)
        || actor.pid.is_some_and(|pid| wanted.parse() == Ok(pid))
        || texts.into_iter().flatten().any(|text| text.contains(wanted))
}

/// What a query found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The events, the newest last; of each id the last word.
    pub events: Vec<EventRecord>,
    /// Lines that are no event: torn by a crash, or not ours.
    pub torn: u64,
    /// Older events that were left out because there were too many.
    pub left_out: u64,
}

/// Reads the journal in `dir`, at most the last `most` events. An absent journal is an empty one.
pub fn read(dir: &Path, query: &Query, most: usize) -> io::Result<Found> {
    let mut window = Window::new(query.last.unwrap_or(most).min(most));
    let torn = each(dir, |event| {
        if query.matches(&event) {
            window.push(event);
        }
    })?;
    let left_out = if query.last.is_some_and(|last| last <= most) { 0 } else { window.dropped };
    Ok(Found { events: window.events.into_iter().collect(), torn, left_out })
}

/// Hands over every record of the journal, the oldest first. Returns how many lines were no event.
pub(super) fn each(dir: &Path, mut take: impl FnMut(EventRecord)) -> io::Result<u64> {
    let mut torn = 0;
    for path in journal::segments(dir) {
        match File::open(&path) {
            Ok(file) => torn += read_lines(BufReader::new(file), &mut take)?,
            // Rotated away since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(torn)
}

/// Returns how many lines were no event.
fn read_lines(mut file: BufReader<File>, take: &mut impl FnMut(EventRecord)) -> io::Result<u64> {
    let mut torn = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        if file.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)? == 0 {
            return Ok(torn);
        }
        match serde_json::from_slice::<EventRecord>(&line) {
            Ok(event) => take(event),
            Err(_) => torn += 1,
        }
    }
}

/// The last events, by id.
struct Window {
    most: usize,
    events: VecDeque<EventRecord>,
    /// Where an id stands, counted from the first event ever pushed.
    places: HashMap<String, u64>,
    dropped: u64,
}

impl Window {
    fn new(most: usize) -> Self {
        Self { most, events: VecDeque::new(), places: HashMap::new(), dropped: 0 }
    }

    fn push(&mut self, event: EventRecord) {
        if self.most == 0 {
            return;
        }
        if let Some(&place) = self.places.get(&event.id) {
            let index = place.checked_sub(self.dropped).and_then(|index| usize::try_from(index).ok());
            if let Some(earlier) = index.and_then(|index| self.events.get_mut(index)) {
                *earlier = event;
            }
            return;
        }
        if self.events.len() == self.most
            && let Some(oldest) = self.events.pop_front()
        {
            self.places.remove(&oldest.id);
            self.dropped += 1;
        }
        self.places.insert(event.id.clone(), self.dropped + self.events.len() as u64);
        self.events.push_back(event);
    }
}
