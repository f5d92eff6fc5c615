//! The tracepoints on the life of processes, as raw tracepoints: all run in process context and change
//! only entries of the task they are about.

use super::{
    PROCESSES, debug, process,
    read::{TASK_COMM, TASK_PARENT, field},
    task,
};
use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use route_guardian_ebpf::{PROCESS_EXITED, PROCESS_TOLD};

/// A process is forked: it is what its parent was, until it executes something else.
///
/// `TP_PROTO(struct task_struct *parent, struct task_struct *child)` from 2.6 to 6.18, in
/// `kernel_clone()`, in the parent, before the child runs.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
#[allow(clippy::needless_pass_by_value, reason = "the macro calls it so")]
pub fn process_fork(ctx: RawTracePointContext) -> i32 {
    let child = ctx.arg::<u64>(1);
    if !task::is_leader(child) || task::is_kernel(child) {
        return 0;
    }
    let parent = ctx.arg::<u64>(0);
    let (id, parent_id) = (task::id(child), task::id(parent));
    match process::find(parent_id) {
        Some(from) => {
            if let Some(info) = process::copy(from, id, parent_id) {
                // SAFETY: a record in map memory.
                unsafe {
                    process::refresh(child, info);
                    (*info).comm = field(child, &TASK_COMM);
                }
            }
        }
        None => {
            if let Some(info) = process::insert(id, parent_id) {
                // SAFETY: a record in map memory; `current` is the parent, whose memory the child's is a copy of.
                unsafe { process::fill(child, info) };
            }
        }
    }
    0
}

/// A process executes a program.
///
/// `TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)` from 3.4 to 6.18, in
/// `exec_binprm()`, in the task, when the new program's memory is in place and no other thread is left.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
#[allow(clippy::needless_pass_by_value, reason = "the macro calls it so")]
pub fn process_exec(ctx: RawTracePointContext) -> i32 {
    let this = ctx.arg::<u64>(0);
    let id = task::id(this);
    let info = match process::find(id) {
        Some(info) => Some(info),
        None => process::insert(id, task::id(field(this, &TASK_PARENT))),
    };
    if let Some(info) = info {
        // SAFETY: a record in map memory; `this` is `current`.
        unsafe { process::fill(this, info) };
    }
    debug!(&ctx, "exec of pid {}", id.tgid);
    0
}

/// A thread ends; with the last one its process does. The entry stays for children and late messages.
///
/// `TP_PROTO(struct task_struct *p)` from 2.6, with `bool group_dead` after it since 6.16, in `do_exit()`, in the
/// task, after its memory and before its files are given up.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
#[allow(clippy::needless_pass_by_value, reason = "the macro calls it so")]
pub fn process_exit(ctx: RawTracePointContext) -> i32 {
    let this = ctx.arg::<u64>(0);
    if !task::is_last(this) {
        return 0;
    }
    let id = task::id(this);
    if PROCESSES.get_ptr(id.tgid).is_none() {
        return 0;
    }
    if let Some(info) = process::find(id) {
        // SAFETY: a record in map memory.
        unsafe {
            (*info).flags |= PROCESS_EXITED;
            if (*info).flags & PROCESS_TOLD != 0 {
                process::send_exit(id, 0);
            }
        }
    }
    0
}
