//! The event record: what the journal, `events -o json` and scripts hold on to.
//!
//! The field names and words are an outer interface; add to them, never rename or drop.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    actor::{ActorClass, Confidence},
    prefix::Family,
};

/// Makes a word list usable as record field, metric label and command-line value.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$vmeta])* #[serde(rename = $word)] $variant,)+ }

        impl $name {
            /// All of them, for metrics that exist from the start.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word used in records and labels.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

words! {
    /// The kinds of kernel objects.
    ObjectKind {
        /// A network interface.
        Link = "link",
        /// An address on an interface.
        Address = "address",
        /// A route.
        Route = "route",
        /// A policy rule.
        Rule = "rule",
        /// A nexthop object.
        Nexthop = "nexthop",
    }
}

impl ObjectKind {
    /// The families that it comes in; links and nexthop objects have none.
    pub const fn families(self) -> &'static [Option<Family>] {
        match self {
            Self::Link | Self::Nexthop => &[None],
            Self::Address | Self::Route | Self::Rule => &[Some(Family::Inet), Some(Family::Inet6)],
        }
    }

    /// Every kind with each of its families: what is counted.
    pub fn with_families() -> impl Iterator<Item = (Self, Option<Family>)> {
        Self::ALL.iter().flat_map(|&kind| kind.families().iter().map(move |&family| (kind, family)))
    }
}

words! {
    /// What happened to the object.
    Change {
        /// It is gone.
        Deleted = "deleted",
        /// Another took its place.
        Replaced = "replaced",
        /// It is there, but different.
        Changed = "changed",
        /// It is there, but down.
        Down = "down",
    }
}

words! {
    /// By which path it happened.
    Cause {
        /// Somebody asked for exactly this.
        Request = "request",
        /// Somebody replaced it.
        Replace = "replace",
        /// Its link went down.
        LinkDown = "link_down",
        /// Its link was deleted.
        LinkRemoved = "link_removed",
        /// An address it depends on was removed.
        AddressRemoved = "address_removed",
        /// The nexthop object it refers to was removed.
        NexthopRemoved = "nexthop_removed",
        /// The kernel did it by itself.
        Kernel = "kernel",
        /// Found missing by a resync; nobody saw it go.
        Unknown = "unknown",
    }
}

words! {
    /// Whose change it was.
    Verdict {
        /// Not the owner's: undone.
        Foreign = "foreign",
        /// The owner's: obeyed.
        Owner = "owner",
        /// The kernel's own.
        Kernel = "kernel",
        /// Nobody can say.
        Unknown = "unknown",
    }
}

words! {
    /// What the guardian did about it.
    Outcome {
        /// Put back, and verified.
        Restored = "restored",
        /// Somebody else had put it back first.
        AlreadyPresent = "already_present",
        /// Observe mode: seen, not touched.
        Observed = "observed",
        /// The owner's change: obeyed.
        Allowed = "allowed",
        /// Held back by damping, or until what it needs is there; see `error`.
        Held = "held",
        /// The kernel refused; see `error`.
        Failed = "failed",
    }
}

/// The object of a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRecord {
    /// What it is.
    pub kind: ObjectKind,
    /// Its address family; `None` for links.
    pub family: Option<Family>,
    /// What it is known by: a prefix, an interface name, a rule's priority.
    pub key: String,
    /// The routing table, for routes and rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// What `ip` would print.
    pub text: String,
}

/// An ancestor of an actor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AncestorRecord {
    /// The process id.
    pub pid: u32,
    /// When it started, in nanoseconds since boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_ns: Option<u64>,
    /// The real user id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// What it calls itself.
    pub comm: String,
    /// Its executable.
    pub exe: Option<String>,
    /// Whether the executable was deleted or replaced since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exe_deleted: bool,
    /// Its arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub argv: Vec<String>,
}

/// The actor behind a change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorRecord {
    /// Which of the fixed kinds it is.
    pub class: ActorClass,
    /// The process id in the initial pid namespace; `None` for the kernel and the unknown.
    pub pid: Option<u32>,
    /// When it started, in nanoseconds since boot: with the pid, which run of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_ns: Option<u64>,
    /// The id of the thread that made the change, where it was not the first of the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tid: Option<u32>,
    /// What it calls itself; for the kernel, the thread or reason.
    pub comm: String,
    /// Its executable.
    pub exe: Option<String>,
    /// Whether the executable was deleted or replaced since, or never had a place in a filesystem.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exe_deleted: bool,
    /// Its working directory, where it still ran when the record was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Its arguments, possibly cut (`argv_cut`).
    pub argv: Vec<String>,
    /// Whether `argv` was cut.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub argv_cut: bool,
    /// The real user id.
    pub uid: Option<u32>,
    /// The audit login uid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_uid: Option<u32>,
    /// The cgroup path.
    pub cgroup: Option<String>,
    /// The systemd unit.
    pub unit: Option<String>,
    /// The innermost systemd slice that the unit is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<String>,
    /// The container id.
    pub container: Option<String>,
    /// The container's runtime: `containerd`, `cri-o`, `docker` or `podman`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// The uid of the pod.
    pub pod: Option<String>,
    /// The namespace of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_namespace: Option<String>,
    /// The name of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_name: Option<String>,
    /// Its ancestors, the parent first.
    pub ancestors: Vec<AncestorRecord>,
    /// How sure this is.
    pub confidence: Confidence,
}

/// One change to a guarded object and what was done about it.
///
/// A later line with the same `id` supersedes an earlier one: what was held may be restored later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    /// A ULID.
    pub id: String,
    /// The ULID of the incident: the changes of one actor in one burst.
    pub incident: String,
    /// When the kernel made the change: RFC 3339 in UTC with microseconds.
    pub time: String,
    /// What was changed.
    pub object: ObjectRecord,
    /// How.
    pub change: Change,
    /// By which path.
    pub cause: Cause,
    /// By whom. Shared by the records of a burst: a table that was flushed has thousands of them.
    pub actor: Arc<ActorRecord>,
    /// Whose request likely led to what the kernel did later: a carrier that drops because somebody took the other end
    /// down, a lifetime that somebody set. Likely, not certain: nothing ties the two together but time and object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Arc<ActorRecord>>,
    /// Whose change it counts as.
    pub verdict: Verdict,
    /// What was done.
    pub outcome: Outcome,
    /// From the kernel's stamp to the guardian's decision, in microseconds.
    pub detection_us: Option<u64>,
    /// From the kernel's stamp to the verified restore, in microseconds.
    pub outage_us: Option<u64>,
    /// Lookups in its table for its destination while it was missing, whatever they found instead: nothing, a less
    /// specific route, or one of another metric. `None` where they were not counted: for other objects than routes, for
    /// outages of a few milliseconds, which are over before counting could begin, where the kernel does not take the
    /// programs, and where another route of the same destination and table is counted already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_lookups: Option<u64>,
    /// Nobody waits for it to come back: a pod's cable that went with its pod, or what another change took over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub let_go: bool,
    /// Why it failed or is held.
    pub error: Option<String>,
    /// What is different, where the object is there but not as it was: `mtu 1500 → mtu 1400`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl EventRecord {
    /// Whether the object may still be missing, as far as this record goes.
    pub const fn is_open(&self) -> bool {
        matches!(self.outcome, Outcome::Held | Outcome::Failed | Outcome::Observed) && !self.let_go
    }

    /// Whether it says more of their incident than another: what was asked for before what followed from it, what
    /// is still missing before what is back, and links, which take the rest along, before the rest.
    pub fn tells_more_than(&self, other: &Self) -> bool {
        let rank = |event: &Self| {
            let asked = matches!(event.cause, Cause::Request | Cause::Replace);
            (!asked, !event.is_open(), event.object.kind)
        };
        rank(self) < rank(other)
    }
}

/// The words in which one text of an object differs from another; `None` where they are the same.
pub fn difference(before: &str, after: &str) -> Option<String> {
    let [was, is] = [before, after].map(|text| text.split_whitespace().collect::<Vec<_>>());
    if was == is {
        return None;
    }
    let shorter = was.len().min(is.len());
    let head = was.iter().zip(&is).take_while(|(a, b)| a == b).count();
    let tail = was.iter().rev().zip(is.iter().rev()).take(shorter - head).take_while(|(a, b)| a == b).count();
    // A value says little without the word before it, and nothing less.
    let start = if head > 1 || head + tail == shorter { head.saturating_sub(1) } else { head };
    let part = |words: &[&str]| words.get(start..words.len() - tail).unwrap_or_default().join(" ");
    Some(format!("{} → {}", part(&was), part(&is)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_said_with_the_word_before_it() {
        let differs = |before, after| difference(before, after).unwrap_or_default();
        assert_eq!(
            differs("kube-bridge type bridge mtu 1500 up", "kube-bridge type bridge mtu 1400 up"),
            "mtu 1500 → mtu 1400"
        );
        assert_eq!(
            differs("10.2.0.0/24 via 10.0.0.1 dev eth0", "10.2.0.0/24 dev eth0"),
            "10.2.0.0/24 via 10.0.0.1 → 10.2.0.0/24"
        );
        assert_eq!(differs("x mtu 1500 up", "x mtu 1500"), "1500 up → 1500");
        assert_eq!(differs("a a", "a"), "a a → a");
        assert_eq!(difference("a  b", "a b"), None);
    }
}
