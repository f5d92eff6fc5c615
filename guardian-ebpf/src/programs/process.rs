//! The map of processes: finding, filling, announcing.

use super::{
    BLANK, EVENTS, PROCESSES, lost, path,
    read::{MM_ARG_END, MM_ARG_START, TASK_COMM, TASK_MM, TASK_PARENT, field, opaque, present},
    task,
};
use aya_ebpf::helpers::generated::{bpf_probe_read_user, bpf_ringbuf_output};
use route_guardian_ebpf::{
    ARGV_MAX, COARSE_NS, ExitRecord, Id, KIND_EXIT, LOST_EXITS, LOST_PROCESSES, PROCESS_ANNOUNCED,
    PROCESS_COARSE, PROCESS_EXE_TEXT, PROCESS_EXITED, PROCESS_READY, PROCESS_TOLD, ProcessRecord,
};

/// Ancestors that are announced with a process.
const GENERATIONS: u32 = 16;

/// `BPF_ANY` of `bpf_map_update_elem`.
const ANY: u64 = 0;

/// The entry of a process; `None` where there is none, or one of an earlier process of the same number.
/// An entry that came from /proc learns its exact start time.
#[inline(always)]
pub(super) fn find(id: Id) -> Option<*mut ProcessRecord> {
    let info = PROCESSES.get_ptr_mut(id.tgid)?;
    // SAFETY: map memory stays readable while the program runs; see `PROCESSES` on reuse.
    unsafe {
        if (*info).flags & PROCESS_READY == 0 {
            return None;
        }
        let start = (*info).id.start;
        if start == id.start {
            return Some(info);
        }
        if (*info).flags & PROCESS_COARSE != 0 && id.start.wrapping_sub(start) < COARSE_NS {
            (*info).id.start = id.start;
            (*info).flags &= !PROCESS_COARSE;
            return Some(info);
        }
    }
    None
}

/// Whether a task is known to run a program of this name, by the file that it has executed. Of those that are older than the
/// daemon nothing is said here.
#[inline(always)]
pub(super) fn is_networkd(task: u64) -> bool {
    /// The last component of the path, terminated: the first of a record.
    const NAME: ([u64; 2], u8) = ([u64::from_ne_bytes(*b"systemd-"), u64::from_ne_bytes(*b"networkd")], 0);
    if task == 0 {
        return false;
    }
    let Some(info) = find(task::id(task)) else { return false };
    // SAFETY: as in `find`; the name ends within `exe`.
    unsafe {
        let exe = (&raw const (*info).exe).cast::<u8>();
        let name = (exe.cast::<[u64; 2]>().read_unaligned(), exe.add(size_of::<[u64; 2]>()).read());
        (*info).flags & PROCESS_EXE_TEXT == 0 && name == NAME
    }
}

/// A new, blank entry for a process. It is filled in place: nobody else takes it for this process
/// before `PROCESS_READY` is set.
#[inline(always)]
pub(super) fn insert(id: Id, parent: Id) -> Option<*mut ProcessRecord> {
    let blank = BLANK.get(0)?;
    if PROCESSES.insert(id.tgid, blank, ANY).is_err() {
        lost(LOST_PROCESSES);
        return None;
    }
    let info = PROCESSES.get_ptr_mut(id.tgid)?;
    // SAFETY: as in `find`.
    unsafe {
        (*info).id = id;
        (*info).parent = parent;
    }
    Some(info)
}

/// A copy of the entry `from` for a process that was forked off it.
#[inline(always)]
#[allow(clippy::needless_borrows_for_generic_args, reason = "by value it would not fit on the stack")]
pub(super) fn copy(from: *const ProcessRecord, id: Id, parent: Id) -> Option<*mut ProcessRecord> {
    // SAFETY: `from` is map memory, which the helper copies from.
    if PROCESSES.insert(id.tgid, unsafe { &*from }, ANY).is_err() {
        lost(LOST_PROCESSES);
        return None;
    }
    let info = PROCESSES.get_ptr_mut(id.tgid)?;
    // SAFETY: as in `find`. The process does not run yet: nobody asks for it.
    unsafe {
        (*info).id = id;
        (*info).parent = parent;
        (*info).flags &= !(PROCESS_ANNOUNCED | PROCESS_TOLD | PROCESS_EXITED | PROCESS_COARSE);
    }
    Some(info)
}

/// Brings what may have changed since the last exec up to date.
///
/// # Safety
/// `info` must point at a whole record in map memory.
#[inline(always)]
pub(super) unsafe fn refresh(task: u64, info: *mut ProcessRecord) {
    // SAFETY: within the record.
    unsafe {
        (*info).uid = task::uid(task);
        (*info).login_uid = task::login_uid(task);
        (*info).cgroup = task::cgroup(task);
        path::mark_deleted(field(task, &TASK_MM), info);
    }
}

/// Fills in the program of a task. The arguments are read from the memory of `current`, which has to be the
/// task itself or the parent it was just forked off.
///
/// # Safety
/// `info` must point at a whole record in map memory.
#[inline(always)]
pub(super) unsafe fn fill(task: u64, info: *mut ProcessRecord) {
    let mm: u64 = field(task, &TASK_MM);
    // SAFETY: within the record.
    unsafe {
        (*info).flags &= !(PROCESS_READY | PROCESS_ANNOUNCED | PROCESS_EXITED);
        refresh(task, info);
        (*info).comm = field(task, &TASK_COMM);
        path::write(mm, info);
        arguments(mm, info);
        (*info).flags |= PROCESS_READY;
    }
}

/// Copies the arguments (`mm_struct.arg_start` to `arg_end`, what /proc/PID/cmdline shows).
#[inline(always)]
unsafe fn arguments(mm: u64, info: *mut ProcessRecord) {
    let (mut whole, mut kept) = (0, 0);
    if mm != 0 && present(&MM_ARG_START) {
        let start: u64 = field(mm, &MM_ARG_START);
        let end: u64 = field(mm, &MM_ARG_END);
        whole = end.wrapping_sub(start) as u32;
        if end > start {
            let wanted = if whole as usize > ARGV_MAX { ARGV_MAX as u32 } else { whole };
            let n = (opaque(wanted).wrapping_sub(1) & (ARGV_MAX as u32 - 1)) + 1;
            // SAFETY: `n` is at most `ARGV_MAX`; the helper checks the address and does not fault pages in.
            if unsafe { bpf_probe_read_user((&raw mut (*info).argv).cast(), n, start as *const _) } == 0 {
                kept = n;
            }
        }
    }
    // SAFETY: within the record.
    unsafe {
        (*info).argv_len = kept;
        (*info).argv_whole = whole;
    }
}

/// Tells the daemon about the process of `task` and its ancestors, as far as it has not been told. Returns the
/// process's entry. `wakeup` as in `output`.
#[inline(always)]
pub(super) fn announce(task: u64, id: Id, wakeup: u64) -> Option<*mut ProcessRecord> {
    let actor = if let Some(info) = find(id) {
        info
    } else {
        let info = insert(id, task::id(field(task, &TASK_PARENT)))?;
        // SAFETY: just inserted; `task` is `current`.
        unsafe { fill(task, info) };
        info
    };
    // SAFETY: `find` and `insert` return whole records.
    unsafe {
        if (*actor).flags & PROCESS_ANNOUNCED == 0 {
            refresh(task, actor);
        }
    }
    let mut info = actor;
    let mut above = task;
    for _ in 0..GENERATIONS {
        // SAFETY: as above.
        unsafe {
            if (*info).flags & PROCESS_ANNOUNCED != 0 {
                break;
            }
            // An entry from /proc knows the start of its parent in ticks only. If that parent still lives,
            // take it exactly.
            let mut parent = (*info).parent;
            if above != 0 {
                above = field(above, &TASK_PARENT);
                let alive = task::id(above);
                if alive.tgid == parent.tgid && alive.start.wrapping_sub(parent.start) < COARSE_NS {
                    parent = alive;
                    (*info).parent = alive;
                } else {
                    above = 0;
                }
            }
            if !send(info, wakeup) {
                break;
            }
            (*info).flags |= PROCESS_ANNOUNCED | PROCESS_TOLD;
            match find(parent) {
                Some(next) => info = next,
                None => break,
            }
        }
    }
    Some(actor)
}

/// Sends a process record.
#[inline(always)]
unsafe fn send(info: *mut ProcessRecord, wakeup: u64) -> bool {
    // SAFETY: a whole record in map memory.
    let sent = unsafe { output(info.cast(), size_of::<ProcessRecord>(), wakeup) };
    if !sent {
        lost(LOST_PROCESSES);
    }
    sent
}

/// Tells the daemon that a process is gone. `wakeup` as in `output`.
#[inline(always)]
pub(super) fn send_exit(id: Id, wakeup: u64) {
    let record = ExitRecord { kind: KIND_EXIT, pad: 0, id };
    // SAFETY: a whole record on the stack.
    if !unsafe { output((&raw const record).cast_mut().cast(), size_of::<ExitRecord>(), wakeup) } {
        lost(LOST_EXITS);
    }
}

/// Copies a record into the ring. Without `wakeup` (0) the kernel wakes the daemon if it has read all before; with
/// `BPF_RB_NO_WAKEUP` the caller must, also for what comes behind it (`bpf_ringbuf_commit` compares positions).
#[inline(always)]
unsafe fn output(data: *mut u8, size: usize, wakeup: u64) -> bool {
    let ring = (&raw const EVENTS).cast_mut().cast();
    // SAFETY: the caller vouches for `data`; the map is a ring buffer.
    unsafe { bpf_ringbuf_output(ring, data.cast(), size as u64, wakeup) == 0 }
}
