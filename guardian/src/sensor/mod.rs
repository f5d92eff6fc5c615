//! The eBPF sensors: what changed, told in the moment of the change, and who changed it.
//!
//! The *tap* is a socket filter on a multicast socket of our own; the tracepoints on fork, exec and exit keep
//! the map of processes that the tap joins its messages with, in the kernel. Both write to one ring.

mod btf;
mod cables;
mod fib;
mod load;
mod lookups;
mod offsets;
mod processes;
mod ring;
mod tap;

use std::{
    collections::BTreeSet,
    fmt, io,
    os::fd::{AsRawFd, RawFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use aya::maps::{Array, HashMap, MapData, RingBuf};
use route_guardian_ebpf::{LOST_EXITS, LOST_MESSAGES, LOST_PROCESSES, LOST_TRUNCATED, PROCESS_READY};

pub use btf::BtfError;
pub use cables::Cables;
pub use lookups::{Lookup, Lookups, Switch};

use crate::model::{Fallen, Process, ProcessId, Stamp};
use load::{LastWords, Loaded, Record};

/// Which routes the kernel side lets pass, besides those on links that [`Sensors::set_links`] does not rule out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelScope {
    /// Routing protocols (`RTPROT_*`).
    pub protocols: Vec<u8>,
    /// Routing tables.
    pub tables: Vec<u32>,
}

/// How the sensors are set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// What may pass.
    pub scope: KernelScope,
    /// Whether the programs log what they do, through the crate `log`.
    pub debug: bool,
    /// The size of the ring in bytes; rounded up to a power of two and at least a page.
    pub ring_bytes: u32,
    /// Whether hooks on kernel functions are tried as trampolines (fentry) first, and not only as breakpoints (kprobe).
    pub trampolines: bool,
}

impl Options {
    /// The size of the ring that holds the deletion of 10,000 routes while nobody reads.
    pub const RING_BYTES: u32 = 4 << 20;
}

impl Default for Options {
    fn default() -> Self {
        Self { scope: KernelScope::default(), debug: false, ring_bytes: Self::RING_BYTES, trampolines: true }
    }
}

/// The task that ran when a message was made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts about a task")]
pub struct Task {
    /// Its process. Without [`Task::known`] all zero; a start time of 0 where the kernel has no type information.
    pub id: ProcessId,
    /// The thread, in the initial pid namespace.
    pub tid: u32,
    /// The real user id.
    pub uid: u32,
    /// The CPU that the change was made on.
    pub cpu: u32,
    /// The thread's name, padded with NUL, which anyone can set: never used to decide.
    pub comm: [u8; 16],
    /// The id of its cgroup in the unified hierarchy, 0 where unknown.
    pub cgroup_id: u64,
    /// A kernel thread: nobody asked.
    pub kthread: bool,
    /// The task was ending: the change is what its end brought about.
    pub exiting: bool,
    /// A softirq or interrupt: the task is whoever was interrupted, and not to blame.
    pub interrupt: bool,
    /// The daemon itself: the kernel did it besides what the daemon asked for.
    pub own: bool,
    /// Whether the task could be read at all.
    pub known: bool,
}

/// One record of the ring.
#[derive(Debug)]
pub enum Sensed<'a> {
    /// A netlink message in scope, by somebody else than this process.
    Message {
        /// When it was made.
        at: Stamp,
        /// By whom.
        task: Task,
        /// The message, beginning with its `nlmsghdr`.
        bytes: &'a [u8],
        /// Its true length: more than `bytes` where it was cut, and has to be read again.
        whole_len: usize,
    },
    /// An IPv4 route in scope that the kernel has flushed without a message.
    Fallen {
        /// When.
        at: Stamp,
        /// In which task.
        task: Task,
        /// The route, as far as the kernel's table knows it.
        route: Fallen,
    },
    /// Who a process is: before the first message of it or of a process it started, and anew
    /// after it has executed something else.
    Process(Process),
    /// A process that was told about has ended. It may come twice, and messages may follow: a dying
    /// process's files are closed after this.
    Exit(ProcessId),
}

/// How many records were lost since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Messages that found the ring full, or that the kernel itself could not make.
    pub messages: u64,
    /// Process records: the answer to *who* is less complete.
    pub processes: u64,
    /// Exit records.
    pub exits: u64,
    /// Messages that were delivered cut.
    pub truncated: u64,
}

/// The state of one sensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SensorStatus {
    /// `tap`, `identity`, `interrupt`, `exec`, `fork`, `exit`, `extack`, `processes`, `lookups`, `cable` or `fib`.
    pub name: &'static str,
    /// Whether it works.
    pub attached: bool,
    /// Why not, or what it lacks.
    pub why: Option<String>,
}

/// Whether what a sensor tells is found another way where it is not attached: later (`fib`), or most of it (`extack`).
pub fn is_optional(sensor: &str) -> bool {
    matches!(sensor, "fib" | "extack" | "cable")
}

/// Why the tap, without which there are no sensors, does not work.
#[derive(Debug, thiserror::Error)]
pub enum SensorError {
    /// The programs could not be loaded, whatever they were told to do without.
    #[error("the kernel does not take the BPF programs: {0}")]
    Load(String),
    /// A map or program is missing from the object: it was built from something else.
    #[error("the BPF object has no {0}: build it again with `cargo xtask build`")]
    Object(&'static str),
    /// The socket could not be made.
    #[error("cannot listen to rtnetlink: {0}")]
    Socket(#[from] io::Error),
    /// A map could not be written.
    #[error("cannot write the BPF map {map}: {source}")]
    Map {
        /// Its name.
        map: &'static str,
        /// Why.
        source: aya::maps::MapError,
    },
}

/// What is behind a lock, whoever has panicked with it: each of them leaves what is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// After so many records the tap's socket is emptied: at most one message has been let into its queue for each, and so
/// many have room in it, however long they are.
const KNOCKS: usize = 16;

/// The map of links that are known to be out of scope.
const OUTSIDE_LINKS: &str = "OUTSIDE_LINKS";

/// The attached sensors. They are detached when this is dropped.
pub struct Sensors {
    ring: RingBuf<MapData>,
    links: HashMap<MapData, u32, u8>,
    /// What the map `links` holds.
    outside: BTreeSet<u32>,
    /// Whether it was told that there is no room for more.
    told_full: bool,
    processes: HashMap<MapData, u32, Record>,
    lost: Array<MapData, u64>,
    words: Array<MapData, LastWords>,
    overruns: AtomicU64,
    logger: Option<load::Logger>,
    status: Vec<SensorStatus>,
    socket: tap::TapSocket,
    /// How many records were taken since the socket was emptied.
    knocks: AtomicUsize,
    lookups: Option<Lookups>,
    cables: Option<Cables>,
    /// Holds the programs and their links.
    _ebpf: Arc<Mutex<aya::Ebpf>>,
}

impl Sensors {
    /// Loads and attaches everything, for the network namespace of the calling thread. Needs `CAP_BPF`,
    /// `CAP_PERFMON` and `CAP_NET_ADMIN`, or root. Takes some tens of milliseconds.
    ///
    /// The only fatal failure is that of the tap; the rest is told by [`Sensors::status`].
    pub fn open(options: &Options) -> Result<Self, SensorError> {
        let Loaded { mut ebpf, socket, status } = load::load(options)?;
        let logger = options.debug.then(|| load::logger(&mut ebpf)).flatten();
        let mut take = |name| ebpf.take_map(name).ok_or(SensorError::Object(name));
        let broken = |map| move |source| SensorError::Map { map, source };
        let ring = RingBuf::try_from(take("EVENTS")?).map_err(broken("EVENTS"))?;
        let links = HashMap::try_from(take(OUTSIDE_LINKS)?).map_err(broken(OUTSIDE_LINKS))?;
        let processes = HashMap::try_from(take("PROCESSES")?).map_err(broken("PROCESSES"))?;
        let lost = Array::try_from(take("LOST")?).map_err(broken("LOST"))?;
        let words = Array::try_from(take("WORDS")?).map_err(broken("WORDS"))?;
        let ebpf = Arc::new(Mutex::new(ebpf));
        let has = |name| status.iter().any(|sensor: &SensorStatus| sensor.name == name && sensor.attached);
        let (counts, carries) = (has("lookups"), has("cable"));
        Ok(Self {
            ring,
            links,
            outside: BTreeSet::new(),
            told_full: false,
            processes,
            lost,
            words,
            overruns: AtomicU64::new(0),
            logger,
            status,
            socket,
            knocks: AtomicUsize::new(0),
            lookups: counts.then(|| Lookups::new(Arc::clone(&ebpf))).transpose()?,
            cables: carries.then(|| Cables::new(Arc::clone(&ebpf))).transpose()?,
            _ebpf: ebpf,
        })
    }

    /// Passes up to `max` records to `sink`, oldest first, and returns how many there were. When it returns less
    /// than `max` the ring is empty, and one of the [`descriptors`](Sensors::descriptors) wakes with the next record.
    pub fn drain(&mut self, max: usize, sink: &mut dyn FnMut(Sensed<'_>)) -> usize {
        let mut taken = 0;
        while taken < max {
            // Before the ring is looked at: what comes then wakes anew.
            let knocks = self.knocks.get_mut();
            if *knocks >= KNOCKS {
                *knocks = 0;
                if self.socket.empty() {
                    *self.overruns.get_mut() += 1;
                }
            }
            let Some(item) = self.ring.next() else { break };
            taken += 1;
            *self.knocks.get_mut() += 1;
            if let Some(sensed) = ring::decode(&item) {
                sink(sensed);
            }
        }
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
        taken
    }

    /// Replaces the interfaces that are known to be out of scope, by ifindex; only the difference costs. Routes on
    /// all others are kept, so that none is missed on a link that was created a moment ago.
    ///
    /// Fails as [`Sensors::set_link`] does; what is left of the difference is made up by the next call.
    pub fn set_links(&mut self, outside: &BTreeSet<u32>) -> Result<(), SensorError> {
        // These first: at no time is more ruled out than before or after.
        for link in self.outside.difference(outside).copied().collect::<Vec<_>>() {
            self.set_link(link, false)?;
        }
        for link in outside {
            self.set_link(*link, true)?;
        }
        Ok(())
    }

    /// Notes that an interface is known to be out of scope, or is so no longer: because it is in scope now, or gone,
    /// after which another link may get its ifindex. At most one write to a map.
    ///
    /// A link that finds no room is not ruled out, which costs attention and nothing else: it is logged, once. Fails
    /// where a link cannot be taken out: its routes are not seen then.
    pub fn set_link(&mut self, link: u32, outside: bool) -> Result<(), SensorError> {
        if self.outside.contains(&link) == outside {
            return Ok(());
        }
        if !outside {
            self.links.remove(&link).map_err(|source| SensorError::Map { map: OUTSIDE_LINKS, source })?;
            self.outside.remove(&link);
        } else if let Err(error) = self.links.insert(link, 1, 0) {
            if !std::mem::replace(&mut self.told_full, true) {
                let held = self.outside.len();
                log::warn!(
                    "the tap rules out {held} links and no more, and sees the routes of all others: {error}"
                );
            }
        } else {
            self.outside.insert(link);
        }
        Ok(())
    }

    /// What wakes when there are records: the tap's socket, and the ring for what the tap has not written. Each becomes
    /// readable anew with what comes to an empty ring (`EPOLLET` of `epoll(7)`).
    pub fn descriptors(&self) -> [RawFd; 2] {
        [self.socket.as_raw_fd(), self.ring.as_raw_fd()]
    }

    /// What was lost since the start. Where the socket has lost something, the next [`drain`](Sensors::drain) makes room in
    /// it: until then it may not wake.
    pub fn lost(&self) -> Lost {
        if self.socket.overrun() {
            self.overruns.fetch_add(1, Ordering::Relaxed);
            self.knocks.store(KNOCKS, Ordering::Relaxed);
        }
        let count = |kind| self.lost.get(&kind, 0).unwrap_or(0);
        Lost {
            messages: count(LOST_MESSAGES) + self.overruns.load(Ordering::Relaxed),
            processes: count(LOST_PROCESSES),
            exits: count(LOST_EXITS),
            truncated: count(LOST_TRUNCATED),
        }
    }

    /// The kernel's words for refusing the last request of this process, if it has said any since: for an
    /// acknowledgement that was lost or says nothing.
    pub fn words(&self, since: Stamp) -> Option<String> {
        let LastWords(words) = self.words.get(&0, 0).ok()?;
        (words.at >= since.0).then(|| ring::words(&words.text)).filter(|text| !text.is_empty())
    }

    /// The counters of lookups, where they can be had.
    pub const fn lookups(&mut self) -> Option<&mut Lookups> {
        self.lookups.as_mut()
    }

    /// What carries ports, where it can be had.
    pub const fn cables(&self) -> Option<&Cables> {
        self.cables.as_ref()
    }

    /// What works and what does not.
    pub fn status(&self) -> Vec<SensorStatus> {
        self.status.clone()
    }

    /// A process that the kernel side knows, alive or lately gone; for what is not in the ring yet or was lost.
    /// A process that it has forgotten may still be found by [`procfs::read`](crate::procfs::read).
    pub fn process(&self, tgid: u32) -> Option<Process> {
        let Record(record) = self.processes.get(&tgid, 0).ok()?;
        (record.flags & PROCESS_READY != 0).then(|| ring::process(&record))
    }
}

impl fmt::Debug for Sensors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sensors").field("status", &self.status).finish_non_exhaustive()
    }
}
