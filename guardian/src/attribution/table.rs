//! The processes we know, bounded, and the answers already given about them.

use std::{
    collections::{VecDeque, hash_map::Entry as Slot},
    sync::Arc,
};

use foldhash::HashMap;

use super::{Comm, TaskFacts, comm_text};
use crate::{
    model::{Actor, Confidence, Process, ProcessId},
    procfs::{TICK_NS, same_run},
};

/// Whether `a` started before `b`, by more than a tick.
const fn started_before(a: ProcessId, b: ProcessId) -> bool {
    a.start_ns != 0 && b.start_ns != 0 && a.start_ns / TICK_NS < b.start_ns / TICK_NS
}

/// How a process that is not in the table is asked for. The answer must be the run that was asked for.
pub type Ask<'a> = &'a dyn Fn(ProcessId) -> Option<Process>;

/// A bounded memory of processes, by pid, with the last actor built for each.
///
/// When it is full, the one that was not used for longest goes, roughly: a queue in order of arrival, where
/// whoever was used since it was last looked at goes to the back once more (the *clock* algorithm). So PID
/// 1 and the shells stay and the thousand short-lived children pass through.
pub struct ProcessTable {
    entries: HashMap<u32, Entry>,
    /// Every key of `entries` exactly once.
    queue: VecDeque<u32>,
    capacity: usize,
    evictions: u64,
    /// Counts the gaps that were filled: a partial answer given before may be better now.
    filled: u64,
}

struct Entry {
    id: ProcessId,
    /// `None`: was asked for, and nobody knew.
    process: Option<Arc<Process>>,
    answer: Option<Answer>,
    /// Names under which threads of this process came by since it executed its program.
    comms: [Comm; 2],
    used: bool,
    exited: bool,
}

/// An actor, and what it was built from besides the table.
struct Answer {
    actor: Arc<Actor>,
    tid: u32,
    uid: u32,
    cgroup_id: u64,
    filled: u64,
}

impl Entry {
    const fn new(id: ProcessId, process: Option<Arc<Process>>) -> Self {
        Self { id, process, answer: None, comms: [[0; 16]; 2], used: false, exited: false }
    }
}

impl ProcessTable {
    /// The longest family tree that is followed.
    pub const MAX_ANCESTORS: usize = 32;

    /// An empty table for at most `capacity` processes (at least one).
    pub fn new(capacity: usize) -> Self {
        Self {
            entries: HashMap::default(),
            queue: VecDeque::new(),
            capacity: capacity.max(1),
            evictions: 0,
            filled: 0,
        }
    }

    /// How many processes it holds, gaps included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The most it may hold.
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many were forgotten to stay within the capacity.
    pub const fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Takes a process as it is now. Another program in the same run makes the next answer a new one. A
    /// record that tells nothing new changes nothing, nor does one of an earlier run of the pid, which is
    /// late.
    ///
    /// The parent that is known stays: what changes later is only who adopted an orphan.
    pub fn learn(&mut self, mut process: Process) {
        let id = process.id;
        match self.entries.entry(id.tgid) {
            Slot::Occupied(mut slot) => {
                let entry = slot.get_mut();
                if started_before(id, entry.id) {
                    return;
                }
                let same = same_run(entry.id, id);
                if let Some(known) = entry.process.as_ref().filter(|_| same) {
                    if tells_nothing_new(known, &process) {
                        return;
                    }
                    process.parent = known.parent.or(process.parent);
                }
                self.filled += u64::from(entry.process.is_none());
                let used = same && entry.used;
                *entry = Entry { used, ..Entry::new(id, Some(Arc::new(process))) };
            }
            Slot::Vacant(_) => self.insert(Entry::new(id, Some(Arc::new(process)))),
        }
    }

    /// Takes a process as /proc has it at start, unless a sensor already told better.
    pub fn prime(&mut self, process: Process) {
        if !self.entries.contains_key(&process.id.tgid) {
            self.learn(process);
        }
    }

    /// Notes that the process is gone. It stays, for its late messages and its children's family trees, but
    /// is among the first to be forgotten.
    pub fn exited(&mut self, id: ProcessId) {
        if let Some(entry) = self.entries.get_mut(&id.tgid)
            && same_run(entry.id, id)
        {
            entry.exited = true;
            entry.used = false;
        }
    }

    /// The answer that was given for this task before, if nothing speaks against it.
    ///
    /// A name that was not seen in this process before does: it may have executed another program where no
    /// sensor tells us so. So do another user and another cgroup, and a gap that was filled meanwhile.
    pub fn cached(&mut self, task: &TaskFacts) -> Option<Arc<Actor>> {
        let filled = self.filled;
        let entry = self.entries.get_mut(&task.id.tgid).filter(|entry| same_run(entry.id, task.id))?;
        let answer = entry.answer.as_ref()?;
        let valid = answer.uid == task.uid
            && answer.tid == task.tid
            && answer.cgroup_id == task.cgroup_id
            && entry.comms.contains(&task.comm)
            && (answer.filled == filled || answer.actor.confidence() == Confidence::Exact);
        if !valid {
            return None;
        }
        entry.used = true;
        Some(Arc::clone(&answer.actor))
    }

    /// Keeps an answer for [`Self::cached`].
    pub fn cache(&mut self, task: &TaskFacts, actor: &Arc<Actor>) {
        let filled = self.filled;
        let Some(entry) = self.entries.get_mut(&task.id.tgid).filter(|entry| same_run(entry.id, task.id))
        else {
            return;
        };
        if !entry.comms.contains(&task.comm) {
            entry.comms.rotate_right(1);
            entry.comms[0] = task.comm;
        }
        entry.answer = Some(Answer {
            actor: Arc::clone(actor),
            tid: task.tid,
            uid: task.uid,
            cgroup_id: task.cgroup_id,
            filled,
        });
    }

    /// The process of a task, with the user and the cgroup that the task has now.
    ///
    /// Where the task has a name that was not seen before, the process is asked for again: without an exec
    /// sensor that is how another program in the same process is noticed.
    pub fn subject(&mut self, task: &TaskFacts, ask: Ask) -> Option<Arc<Process>> {
        let mut process = self.process(task.id, ask)?;
        if self.may_be_stale(task, &process)
            && let Some(now) = ask(task.id)
        {
            self.learn(Process { id: process.id, ..now });
            process = self.process(task.id, ask)?;
        }
        let cgroup_id = if task.cgroup_id == 0 { process.cgroup_id } else { task.cgroup_id };
        if process.uid != task.uid || process.cgroup_id != cgroup_id {
            process = Arc::new(Process { uid: task.uid, cgroup_id, ..Process::clone(&process) });
            if let Some(entry) = self.entries.get_mut(&task.id.tgid) {
                entry.process = Some(Arc::clone(&process));
            }
        }
        Some(process)
    }

    fn may_be_stale(&self, task: &TaskFacts, process: &Process) -> bool {
        process.comm != comm_text(&task.comm)
            && self
                .entries
                .get(&task.id.tgid)
                .is_some_and(|entry| !entry.exited && !entry.comms.contains(&task.comm))
    }

    /// The ancestors, the parent first, and whether that is all of them: the last is PID 1, or has no parent
    /// (`kthreadd`, or the first process that entered a pid namespace from outside).
    ///
    /// Not all of them, where one is not known, where its pid belongs to somebody younger than the child,
    /// in a loop, and beyond [`Self::MAX_ANCESTORS`].
    pub fn ancestors(&mut self, process: &Process, ask: Ask) -> (Vec<Arc<Process>>, bool) {
        let mut found: Vec<Arc<Process>> = Vec::new();
        let (mut child, mut parent) = (process.id, process.parent);
        loop {
            if child.tgid == 1 {
                return (found, true);
            }
            let Some(id) = parent else { return (found, false) };
            if id.tgid == 0 {
                return (found, true);
            }
            let known =
                id.tgid == process.id.tgid || found.iter().any(|ancestor| ancestor.id.tgid == id.tgid);
            if known || found.len() >= Self::MAX_ANCESTORS {
                return (found, false);
            }
            match self.process(id, ask) {
                Some(ancestor) if !started_before(child, ancestor.id) => {
                    (child, parent) = (ancestor.id, ancestor.parent);
                    found.push(ancestor);
                }
                _ => return (found, false),
            }
        }
    }

    /// A process: as known, or else asked for, once.
    fn process(&mut self, id: ProcessId, ask: Ask) -> Option<Arc<Process>> {
        if let Some(entry) = self.entries.get_mut(&id.tgid) {
            // A gap that was asked for without a start time says nothing about this run.
            let blind_gap = entry.process.is_none() && entry.id.start_ns == 0 && id.start_ns != 0;
            if same_run(entry.id, id) && !blind_gap {
                entry.used = true;
                return entry.process.clone();
            }
            if started_before(id, entry.id) {
                // The pid has a new holder; nobody keeps the old one.
                return None;
            }
        }
        let process = ask(id).map(|process| {
            // What /proc tells is cut to ticks; keep the better of the two.
            let start_ns = if id.start_ns == 0 { process.id.start_ns } else { id.start_ns };
            Arc::new(Process { id: ProcessId { start_ns, ..id }, ..process })
        });
        let id = process.as_ref().map_or(id, |process| process.id);
        self.insert(Entry { used: true, ..Entry::new(id, process.clone()) });
        process
    }

    /// Puts an entry in the place of another of its pid, or else into the room that is made for it.
    fn insert(&mut self, entry: Entry) {
        let tgid = entry.id.tgid;
        if let Some(place) = self.entries.get_mut(&tgid) {
            *place = entry;
            return;
        }
        while self.entries.len() >= self.capacity
            && let Some(oldest) = self.queue.pop_front()
        {
            match self.entries.get_mut(&oldest) {
                Some(entry) if entry.used => {
                    entry.used = false;
                    self.queue.push_back(oldest);
                }
                _ => {
                    self.entries.remove(&oldest);
                    self.evictions += 1;
                }
            }
        }
        self.entries.insert(tgid, entry);
        self.queue.push_back(tgid);
    }
}

/// Whether a record of the same run describes the program that is known already, or (of a process on its
/// way out, whose memory is gone) none.
fn tells_nothing_new(known: &Process, now: &Process) -> bool {
    let gone = now.exe.is_none() && known.exe.is_some();
    gone || (now.exe == known.exe && now.argv == known.argv && now.argv_cut == known.argv_cut)
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
