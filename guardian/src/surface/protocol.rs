//! The words on the control socket: one request a connection, a line of JSON; replies, a line of JSON each.

use serde::{Deserialize, Serialize};

use super::{
    incidents::Incident,
    query::Query,
    report::{DiffReport, RestoreReport, Snapshot, StatusReport},
};
use crate::model::record::EventRecord;

/// The most bytes of a request: room for a snapshot of tens of thousands of routes.
pub const REQUEST_MAX: u64 = 16 << 20;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "request", deny_unknown_fields)]
pub enum Request {
    /// How the daemon is.
    Status,
    /// Events of the journal, and with `follow` those that come.
    Events {
        /// Which events.
        #[serde(default)]
        query: Query,
        /// Go on with those that come.
        #[serde(default)]
        follow: bool,
    },
    /// Incidents of the journal; an id is that of an incident.
    Incidents {
        /// Which ones: those with an event like this.
        #[serde(default)]
        query: Query,
    },
    /// The desired state, or the observed one.
    Snapshot {
        /// What the guardian believes that the kernel holds, instead of what is desired.
        #[serde(default)]
        observed: bool,
    },
    /// Desired state, or the given one, against the kernel.
    Diff {
        /// Compare this instead of the desired state.
        #[serde(default)]
        desired: Option<Snapshot>,
    },
    /// Put back now what is missing.
    Restore {
        /// Only say what would be written.
        #[serde(default)]
        dry_run: bool,
    },
    /// Let go of what damping holds.
    Release {
        /// Only objects that go by this: a prefix, a name, a priority.
        #[serde(default)]
        key: Option<String>,
    },
    /// Proof that the loops turn.
    Heartbeat,
    /// Read the configuration again.
    Reload,
}

impl Request {
    /// Whether it changes something, which is for root and the daemon's own user alone.
    pub const fn changes_something(&self) -> bool {
        matches!(self, Self::Restore { dry_run: false } | Self::Release { .. } | Self::Reload)
    }
}

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To `status`.
    Status(Box<StatusReport>),
    /// To `events`, each.
    Event(Box<EventRecord>),
    /// To `incidents`, each; then an `end`.
    Incident(Box<Incident>),
    /// To `events`, after those of the journal.
    End {
        /// Lines of the journal that were no event.
        torn: u64,
        /// Older events that were left out.
        left_out: u64,
    },
    /// To `snapshot`.
    Snapshot(Snapshot),
    /// To `diff`.
    Diff(DiffReport),
    /// To `restore`.
    Restore(RestoreReport),
    /// To `release`: how many were let go.
    Released(usize),
    /// To `heartbeat` and `reload`.
    Done,
    /// It could not be done: why.
    Error(String),
}
