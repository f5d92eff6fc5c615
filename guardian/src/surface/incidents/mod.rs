//! Incidents: what the records of one actor in one burst add up to.
//!
//! Only data and sums; [`read`] is where the journal comes in.

mod gather;
mod outage;
mod read;

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::model::{
    Family,
    record::{ActorRecord, Cause, EventRecord, ObjectKind, Outcome, Verdict},
};

pub use gather::Gather;
pub use read::{Found, SERVED, read};

/// Objects of one kind that are named; the others are only counted.
pub const EXAMPLES: usize = 3;

/// The changes of one actor in one burst.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// The `incident` of its records: the id of the first change of it that was told.
    pub id: String,
    /// When the first change was made: RFC 3339 in UTC.
    pub first: String,
    /// When the last change was made.
    pub last: String,
    /// By whom, as the most telling record has it.
    pub actor: Arc<ActorRecord>,
    /// Whose change it counts as.
    pub verdict: Verdict,
    /// How many changes it consists of.
    pub changes: u64,
    /// Of these, how many only followed from another one: a link, an address or a nexthop that was lost first.
    pub consequences: u64,
    /// What was lost, by kind and family.
    pub lost: Vec<Lost>,
    /// How many changes came by which path.
    pub causes: BTreeMap<Cause, u64>,
    /// How many changes came to which end.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// How long something was missing.
    pub outage: Outage,
    /// Lookups that failed while something was missing; `None` where they were not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_lookups: Option<u64>,
    /// How often this actor has done something like it before.
    pub before: Before,
    /// The record that says most about it.
    pub telling: EventRecord,
}

/// Objects of one kind and family that were lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// The kind.
    pub kind: ObjectKind,
    /// The family, where the kind has one.
    pub family: Option<Family>,
    /// How many changes there were to such objects.
    pub count: u64,
    /// The first few of them, by what they are known by.
    pub examples: Vec<String>,
}

/// How long something was missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    /// For how long at least one object was missing, in microseconds: the union of the outages.
    pub total_us: u64,
    /// The longest outage of one object, in microseconds.
    pub longest_us: u64,
    /// Objects that were not back when they were last told of.
    pub open: u64,
}

/// Earlier incidents of the same actor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// How many the journal has.
    pub times: u64,
    /// Whether there may have been more: the journal does not reach further back.
    pub at_least: bool,
}

/// Whether a change only followed from another one.
pub const fn is_consequence(cause: Cause) -> bool {
    match cause {
        Cause::LinkDown | Cause::LinkRemoved | Cause::AddressRemoved | Cause::NexthopRemoved => true,
        Cause::Request | Cause::Replace | Cause::Kernel | Cause::Unknown => false,
    }
}

/// Whether `event` says more about its incident than `than`: what was not the owner's before what was, what was
/// done before what followed from it, what is not put right before what is. Of equals the first is kept.
pub fn tells_more(event: &EventRecord, than: &EventRecord) -> bool {
    let rank = |event: &EventRecord| {
        let outcome = match event.outcome {
            Outcome::Failed => 4,
            Outcome::Held => 3,
            Outcome::Observed => 2,
            Outcome::Restored | Outcome::AlreadyPresent => 1,
            Outcome::Allowed => 0,
        };
        (event.verdict != Verdict::Owner, !is_consequence(event.cause), outcome)
    };
    rank(event) > rank(than)
}

#[cfg(test)]
mod tests;
