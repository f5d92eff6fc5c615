//! Who made a change.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// One run of one process: a pid alone is reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId {
    /// The thread group id in the initial pid namespace, what users call the pid.
    pub tgid: u32,
    /// `task_struct.start_boottime` of the group leader, in nanoseconds of `CLOCK_BOOTTIME`. From /proc
    /// (`/proc/PID/stat`, field 22) it is known in ticks of 10 ms only.
    pub start_ns: u64,
}

/// A process as it was when it last executed a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Which run of which pid.
    pub id: ProcessId,
    /// The process that started it, also when that is gone since; `None` for PID 1 and where unknown.
    pub parent: Option<ProcessId>,
    /// `task_struct.comm`, at most 15 bytes. Anyone can set it: never used to decide.
    pub comm: String,
    /// The path of the executable file in its mount namespace; `None` where unknown.
    pub exe: Option<String>,
    /// Whether that file was deleted, or another was put in its place, by the time of the change; or never had a
    /// place (`memfd_create`).
    pub exe_deleted: bool,
    /// The arguments, cut at [`Process::ARGV_MAX`] bytes in all.
    pub argv: Vec<String>,
    /// Whether `argv` was cut.
    pub argv_cut: bool,
    /// The real user id.
    pub uid: u32,
    /// The audit login uid; `None` where nobody logged in.
    pub login_uid: Option<u32>,
    /// The id of its cgroup in the unified hierarchy, 0 where unknown.
    pub cgroup_id: u64,
}

impl Process {
    /// The most bytes of arguments that are kept, terminators included.
    pub const ARGV_MAX: usize = 512;
}

/// How sure the answer to *who* is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// Taken in the task that made the change, with its executable.
    Exact,
    /// The process is known, but not all about it: its executable, arguments or ancestors are missing.
    Partial,
    /// Nobody can be named.
    #[default]
    None,
}

impl Confidence {
    /// All of them, for metrics that exist from the start.
    pub const ALL: [Self; 3] = [Self::Exact, Self::Partial, Self::None];

    /// The word used in records and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Partial => "partial",
            Self::None => "none",
        }
    }
}

/// The dozen kinds of actors that metrics tell apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "named after the programs")]
pub enum ActorClass {
    Networkd,
    #[serde(rename = "networkmanager")]
    NetworkManager,
    Iproute2,
    KubeRouter,
    Cni,
    Frr,
    Bird,
    Dhcp,
    CloudInit,
    Container,
    Kernel,
    Other,
    #[default]
    Unknown,
}

impl ActorClass {
    /// All of them, for metrics that exist from the start.
    pub const ALL: [Self; 13] = [
        Self::Networkd,
        Self::NetworkManager,
        Self::Iproute2,
        Self::KubeRouter,
        Self::Cni,
        Self::Frr,
        Self::Bird,
        Self::Dhcp,
        Self::CloudInit,
        Self::Container,
        Self::Kernel,
        Self::Other,
        Self::Unknown,
    ];

    /// The word used in records and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Networkd => "networkd",
            Self::NetworkManager => "networkmanager",
            Self::Iproute2 => "iproute2",
            Self::KubeRouter => "kube_router",
            Self::Cni => "cni",
            Self::Frr => "frr",
            Self::Bird => "bird",
            Self::Dhcp => "dhcp",
            Self::CloudInit => "cloud_init",
            Self::Container => "container",
            Self::Kernel => "kernel",
            Self::Other => "other",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for ActorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The answer to *who*: a process with its family tree, the kernel itself, or nobody that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Actor {
    /// A process that asked for the change.
    Process {
        /// The process.
        process: Arc<Process>,
        /// The id of the thread that did, where it was not the first of the process.
        thread: Option<u32>,
        /// Its ancestors, the parent first, as far as known.
        ancestors: Vec<Arc<Process>>,
        /// The path of its cgroup, where resolved.
        cgroup: Option<Arc<str>>,
        /// How complete this is: never [`Confidence::None`].
        confidence: Confidence,
    },
    /// The kernel did it by itself: a kernel thread, a softirq, an expiry, a router advertisement.
    Kernel {
        /// The name of the kernel thread or the reason, for people.
        what: Arc<str>,
    },
    /// Attribution was lost or is not available.
    #[default]
    Unknown,
}

impl Actor {
    /// The process, if it was one.
    pub const fn process(&self) -> Option<&Arc<Process>> {
        match self {
            Self::Process { process, .. } => Some(process),
            _ => None,
        }
    }

    /// How sure the answer is. What the kernel did by itself is known exactly.
    pub const fn confidence(&self) -> Confidence {
        match self {
            Self::Process { confidence, .. } => *confidence,
            Self::Kernel { .. } => Confidence::Exact,
            Self::Unknown => Confidence::None,
        }
    }
}
