//! What flows into the state machine and out of it.

use std::sync::Arc;

use crate::model::{
    Actor, Fallen, Notice, Object, ProcessId, Stamp,
    record::{Cause, Change, Outcome, Verdict},
};

/// Something happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// The kernel announced a change.
    Notice {
        /// When the kernel made it.
        at: Stamp,
        /// The change.
        notice: Notice,
        /// The netlink port of the request behind it; 0 for ioctl, sysctl and side effects.
        port: u32,
        /// Who made it.
        actor: Arc<Actor>,
        /// Whose change it counts as.
        verdict: Verdict,
    },
    /// A change that our own writes have brought about: what the kernel makes or drops with an address or a link.
    Own {
        /// When.
        at: Stamp,
        /// The change.
        notice: Notice,
    },
    /// The kernel has flushed a route without announcing that.
    Fallen {
        /// When.
        at: Stamp,
        /// The route.
        route: Fallen,
        /// In whose request.
        actor: Arc<Actor>,
        /// Whose change it counts as.
        verdict: Verdict,
        /// Whether our own write has brought it about.
        own: bool,
    },
    /// A process that had made a change is gone.
    Gone(ProcessId),
    /// A process of [`super::Core::waited_for`] has nothing to do but to wait.
    Rests(ProcessId),
    /// systemd-networkd has met the link of this ifindex anew, which it had forgotten, and knows that it is in no bridge.
    Met(u32),
    /// Which run of systemd-networkd manages ports of [`super::Core::ports`], if one does: it takes them out of their bridge
    /// when it is started next, or reads its files again.
    Manages(Option<ProcessId>),
    /// Whether any owner is running, and since when that is so.
    Owner {
        /// Whether one is.
        alive: bool,
        /// Since when.
        since: Stamp,
    },
    /// The kernel's state, read anew.
    Dump(Dump),
}

/// The kernel's state as a dump showed it.
#[derive(Clone, Debug)]
pub struct Dump {
    /// Before the first request: what was announced later is newer than this dump.
    pub started: Stamp,
    /// After the last answer.
    pub ended: Stamp,
    /// All links, addresses, nexthop objects, routes of all tables, and rules, of both families.
    pub objects: Vec<Object>,
}

/// Something is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Tell the world of a change and of what came of it.
    Report(Box<Report>),
    /// Read the kernel's state again and feed it back.
    Reread(Reason),
    /// A link is known to be out of scope, or is so no longer: it is guarded now, or gone.
    Link {
        /// Its ifindex.
        index: u32,
        /// Whether it is known to be out of scope.
        outside: bool,
    },
    /// An object went into a hold (`true`) or came out of it.
    Damped(bool),
}

/// Why state is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// At start.
    Start,
    /// Objects may have gone without a message, with a link, an address or a nexthop object, or have come into
    /// scope with a link's new name.
    Silent,
    /// A message does not fit what is known.
    Mismatch,
    /// Somebody had put there what we wanted to put.
    Exists,
    /// Messages were lost.
    Lost,
    /// A message came cut.
    Truncated,
    /// A dump was interrupted by changes each time it was tried.
    Interrupted,
    /// An operator asked.
    Operator,
}

impl Reason {
    /// All of them, for metrics that exist from the start.
    pub const ALL: [Self; 8] = [
        Self::Start,
        Self::Silent,
        Self::Mismatch,
        Self::Exists,
        Self::Lost,
        Self::Truncated,
        Self::Interrupted,
        Self::Operator,
    ];

    /// The word used in labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Silent => "silent",
            Self::Mismatch => "mismatch",
            Self::Exists => "exists",
            Self::Lost => "lost",
            Self::Truncated => "truncated",
            Self::Interrupted => "interrupted",
            Self::Operator => "operator",
        }
    }
}

/// One change to a guarded object and what came of it so far. A later report of the same `seq`
/// supersedes an earlier one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Counts the changes since the guardian started.
    pub seq: u64,
    /// Whether this change was told of before.
    pub again: bool,
    /// The `seq` of the first change of the incident: the changes of one actor in one burst.
    pub incident: u64,
    /// When the kernel made the change.
    pub at: Stamp,
    /// When the guardian had decided what to do.
    pub detected: Stamp,
    /// The object as it was before.
    pub object: Arc<Object>,
    /// What was in its place after the change, where it was not gone altogether.
    pub now: Option<Arc<Object>>,
    /// What happened to it.
    pub change: Change,
    /// By which path.
    pub cause: Cause,
    /// By whom.
    pub actor: Arc<Actor>,
    /// Whose earlier request likely led to what the kernel did.
    pub origin: Option<Arc<Actor>>,
    /// Whose change it counts as.
    pub verdict: Verdict,
    /// What came of it.
    pub outcome: Outcome,
    /// When it was verified to be there again.
    pub restored: Option<Stamp>,
    /// Nobody waits for it to come back.
    pub let_go: bool,
    /// Why it failed or is held; what was lent meanwhile, where it is back.
    pub error: Option<String>,
}
