//! From what the sensors saw to *who*: a process with its family tree, the kernel itself, or nobody known.
//!
//! Everything here is on the hot path once per process, not once per message: a process that deletes
//! ten thousand routes is looked up once and answered ten thousand times from the same [`Actor`].
//!
//! Two rules keep the answer honest. `task->comm` and the arguments can be set by anybody, so they are
//! shown and never decide whose a change is. And what is not known is said to be not known:
//! [`Confidence::Partial`] where the executable, the arguments or a part of the family tree is missing.

pub mod cgroup;
pub mod class;
pub mod owner;
pub mod pods;
mod port;
pub mod record;
pub mod table;

use std::{collections::HashMap, sync::Arc};

pub use class::class_of;
pub use owner::{OwnerError, OwnerRule};
pub use record::actor_record;

use crate::{
    model::{Actor, Confidence, Process, ProcessId, record::ActorRecord},
    procfs,
};
use cgroup::Cgroups;
use pods::Pods;
use port::Ports;
use table::ProcessTable;

/// `task->comm` as the kernel has it: padded with zero bytes (`TASK_COMM_LEN`).
pub type Comm = [u8; 16];

/// Work that the kernel does by itself, in the context of whoever happens to be running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelWork {
    /// A router advertisement was received (`net/ipv6/ndisc.c`).
    RouterAdvertisement,
    /// A route or an address reached the end of its lifetime (`fib6_run_gc`, `check_lifetime`).
    Expiry,
}

/// What a sensor knows about the task in whose context a change was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "four independent facts about a task")]
pub struct TaskFacts {
    /// The process of the task; a `start_ns` of 0 stands for a start time that is not known.
    pub id: ProcessId,
    /// The thread, 0 where unknown.
    pub tid: u32,
    /// The real user id at the time of the change.
    pub uid: u32,
    /// The CPU that the change was made on, where the sensor saw it.
    pub cpu: Option<u32>,
    /// The name of the thread that made the change.
    pub comm: Comm,
    /// The id of its cgroup in the unified hierarchy, 0 where unknown.
    pub cgroup_id: u64,
    /// `PF_KTHREAD` is set: a kernel thread, whatever its name.
    pub kthread: bool,
    /// The change was made in a softirq: the task was interrupted and has nothing to do with it.
    pub interrupt: bool,
    /// The sensor saw the task at all.
    pub known: bool,
    /// The netlink port of the request; 0 where there was none.
    pub port: u32,
    /// The change itself says that the kernel made it.
    pub kernel_made: Option<KernelWork>,
}

/// Answers *who* for every change, from the sensors' records, /proc and the cgroup filesystem.
pub struct Attribution {
    table: ProcessTable,
    cgroups: Cgroups,
    cgroups_at_once: bool,
    /// The ids of cgroups that [`Attribution::look_up_cgroups`] will look up.
    unplaced: Vec<u64>,
    pods: Pods,
    ports: Ports,
    last_record: Option<(Arc<Actor>, Arc<ActorRecord>)>,
    kernel_threads: HashMap<Comm, Arc<Actor>>,
    softirq: Arc<Actor>,
    advertisement: Arc<Actor>,
    expiry: Arc<Actor>,
    unknown: Arc<Actor>,
}

impl Attribution {
    /// How many processes are remembered where nothing else is said: about 4 MiB when full.
    pub const PROCESSES: usize = 4096;
    /// How many names of kernel threads are remembered; kworkers have many.
    const KERNEL_THREADS: usize = 256;
    /// How many cgroups wait to be looked up; those of more processes are when their record is made.
    const UNPLACED: usize = 64;

    /// Remembers at most `processes` processes. Looks for the cgroup filesystem, and knows nobody yet.
    pub fn new(processes: usize) -> Self {
        Self {
            table: ProcessTable::new(processes),
            cgroups: Cgroups::discover(),
            cgroups_at_once: true,
            unplaced: Vec::new(),
            pods: Pods::discover(),
            ports: Ports::default(),
            last_record: None,
            kernel_threads: HashMap::new(),
            softirq: kernel_actor("softirq"),
            advertisement: kernel_actor("router advertisement"),
            expiry: kernel_actor("expiry"),
            unknown: Arc::default(),
        }
    }

    /// Whether the cgroup of an actor is looked up before it is answered for, which costs some tens of
    /// microseconds for every new process. Needed where it decides who the owner is; else
    /// [`Attribution::look_up_cgroups`] does it when there is time.
    pub const fn look_up_cgroups_at_once(&mut self, at_once: bool) {
        self.cgroups_at_once = at_once;
    }

    /// Looks up the cgroups of those who were answered for without. To be called when what they did is mended and
    /// before anything waits: a service manager removes a unit's cgroup as soon as it hears that nobody is in it.
    pub fn look_up_cgroups(&mut self) {
        for cgroup_id in self.unplaced.drain(..) {
            self.cgroups.remember(cgroup_id);
        }
    }

    /// An actor in the words of the outer interface, with its cgroup.
    pub fn record(&mut self, actor: &Arc<Actor>) -> Arc<ActorRecord> {
        if let Some((known, record)) = &self.last_record
            && Arc::ptr_eq(known, actor)
        {
            return Arc::clone(record);
        }
        let mut record = match &**actor {
            Actor::Process { process, thread, ancestors, cgroup: None, confidence } => {
                let cgroup = self.cgroups.path(process.cgroup_id, process.id);
                let (process, ancestors) = (Arc::clone(process), ancestors.clone());
                let (thread, confidence) = (*thread, *confidence);
                actor_record(&Actor::Process { process, thread, ancestors, cgroup, confidence })
            }
            other => actor_record(other),
        };
        if let Some(around) = actor.process().and_then(|process| procfs::surroundings(process.id)) {
            record.cwd = around.cwd;
            record.exe_deleted |= around.exe_deleted;
        }
        self.pods.complete(&mut record);
        let record = Arc::new(record);
        self.last_record = Some((Arc::clone(actor), Arc::clone(&record)));
        record
    }

    /// Learns the processes that are running now, as far as there is room; answers how many.
    ///
    /// To be called once the exec sensor is attached, so that nobody falls between the two.
    pub fn prime(&mut self) -> usize {
        let room = self.table.capacity().saturating_sub(self.table.len());
        let mut learnt = 0;
        for process in procfs::all().take(room) {
            self.table.prime(process);
            learnt += 1;
        }
        learnt
    }

    /// Takes a process as a sensor saw it start, or execute another program.
    pub fn learn(&mut self, process: Process) {
        self.table.learn(process);
    }

    /// Notes that a process is gone. It is still remembered: its last messages may arrive after it.
    pub fn exited(&mut self, id: ProcessId) {
        self.table.exited(id);
    }

    /// How many processes were forgotten to stay within the bound.
    pub const fn evictions(&self) -> u64 {
        self.table.evictions()
    }

    /// Who made a change. A process that is not known is asked from `sensor` (by its pid: the exec sensor's
    /// own memory), then from /proc, once.
    ///
    /// For a process that was asked about before, this is one look-up and one reference count.
    pub fn actor_of(&mut self, task: &TaskFacts, sensor: &dyn Fn(u32) -> Option<Process>) -> Arc<Actor> {
        match task.kernel_made {
            Some(KernelWork::RouterAdvertisement) => return Arc::clone(&self.advertisement),
            Some(KernelWork::Expiry) => return Arc::clone(&self.expiry),
            None => {}
        }
        if task.interrupt {
            return Arc::clone(&self.softirq);
        }
        if !task.known {
            let holder = if task.port == 0 { None } else { self.ports.holder(task.port) };
            return holder.unwrap_or_else(|| Arc::clone(&self.unknown));
        }
        if task.kthread {
            return self.kernel_thread(task.comm);
        }
        if let Some(actor) = self.table.cached(task) {
            return actor;
        }
        self.build(task, sensor)
    }

    fn cgroup(&mut self, cgroup_id: u64, process: ProcessId) -> Option<Arc<str>> {
        if self.cgroups_at_once {
            return self.cgroups.path(cgroup_id, process);
        }
        if self.unplaced.len() < Self::UNPLACED {
            self.unplaced.push(cgroup_id);
        }
        None
    }

    fn kernel_thread(&mut self, comm: Comm) -> Arc<Actor> {
        if self.kernel_threads.len() >= Self::KERNEL_THREADS && !self.kernel_threads.contains_key(&comm) {
            self.kernel_threads.clear();
        }
        Arc::clone(self.kernel_threads.entry(comm).or_insert_with(|| kernel_actor(&comm_text(&comm))))
    }

    fn build(&mut self, task: &TaskFacts, sensor: &dyn Fn(u32) -> Option<Process>) -> Arc<Actor> {
        let ask = |wanted: ProcessId| {
            let right = |process: &Process| procfs::same_run(process.id, wanted);
            sensor(wanted.tgid).filter(right).or_else(|| procfs::read(wanted.tgid).filter(right))
        };
        let thread = (task.tid != 0 && task.tid != task.id.tgid).then_some(task.tid);
        let actor = if let Some(process) = self.table.subject(task, &ask) {
            let (ancestors, whole) = self.table.ancestors(&process, &ask);
            let exe_whole = process.exe.as_deref().is_some_and(|exe| !exe.starts_with('…'));
            // Without a start time it may be another run of that pid.
            let certain = task.id.start_ns != 0;
            let complete = certain && whole && exe_whole && !process.argv.is_empty();
            Actor::Process {
                cgroup: self.cgroup(process.cgroup_id, process.id),
                confidence: if complete { Confidence::Exact } else { Confidence::Partial },
                process,
                thread,
                ancestors,
            }
        } else {
            Actor::Process {
                process: Arc::new(stranger(task)),
                thread,
                ancestors: Vec::new(),
                cgroup: self.cgroup(task.cgroup_id, task.id),
                confidence: Confidence::Partial,
            }
        };
        let actor = Arc::new(actor);
        self.table.cache(task, &actor);
        actor
    }
}

/// A process of which only that is known what the change itself brought along.
fn stranger(task: &TaskFacts) -> Process {
    Process {
        id: task.id,
        parent: None,
        comm: comm_text(&task.comm).into(),
        exe: None,
        exe_deleted: false,
        argv: Vec::new(),
        argv_cut: false,
        uid: task.uid,
        login_uid: None,
        cgroup_id: task.cgroup_id,
    }
}

fn kernel_actor(what: &str) -> Arc<Actor> {
    Arc::new(Actor::Kernel { what: what.into() })
}

/// The name up to its first zero byte; what is not UTF-8 is replaced.
fn comm_text(comm: &Comm) -> std::borrow::Cow<'_, str> {
    let end = comm.iter().position(|&byte| byte == 0).unwrap_or(comm.len());
    String::from_utf8_lossy(comm.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests;
