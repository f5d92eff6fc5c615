//! Who `current` is, and whether it can be blamed.

use super::{
    IDENTITY, SELF,
    read::{
        CGROUP_NODE, CRED_UID, CSS_SET_CGROUP, KERNFS_ID, REGS_CALL, REGS_LAST, SIGNAL_LIVE, TASK_CGROUPS,
        TASK_COMM, TASK_CRED, TASK_FLAGS, TASK_LEADER, TASK_LOGIN_UID, TASK_PID, TASK_SIGNAL, TASK_STACK,
        TASK_START, TASK_TGID, TASK_THREAD_INFO, THREAD_INFO_PREEMPT, at, field, member, present,
    },
};
use aya_ebpf::helpers::{
    bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
    generated::{bpf_get_current_task, bpf_get_smp_processor_id},
};
use core::{mem::MaybeUninit, ptr};
use route_guardian_ebpf::{
    CONTEXT_EXITING, CONTEXT_INTERRUPT, CONTEXT_KTHREAD, Id, Identity, MessageHead, PADDING_UNKNOWN,
    TASK_KNOWN, Whoami,
};

/// `include/linux/sched.h`, the same from 2.6 to 6.18.
const PF_EXITING: u32 = 0x4;
/// Since 5.12; unused before.
const PF_IO_WORKER: u32 = 0x10;
const PF_KTHREAD: u32 = 0x0020_0000;

/// `include/linux/preempt.h`: serving a softirq, a hard interrupt or an NMI. Having softirqs merely
/// disabled (0x200) is normal in a system call.
const PREEMPT_INTERRUPT: u32 = 0x0000_0100 | 0x000f_0000 | 0x00f0_0000;

/// The address of `current`; 0 where the daemon did not choose to read it.
#[inline(always)]
pub(super) fn current() -> u64 {
    if IDENTITY.load() == Identity::Task as u32 {
        // SAFETY: no arguments; any program type with CAP_PERFMON may call it since 5.8.
        unsafe { bpf_get_current_task() }
    } else {
        0
    }
}

/// The process of a task.
#[inline(always)]
pub(super) fn id(task: u64) -> Id {
    let leader: u64 = field(task, &TASK_LEADER);
    Id { tgid: field(task, &TASK_TGID), pad: 0, start: field(leader, &TASK_START) }
}

/// The number of `current`'s process, in whatever context; 0 where nobody can say.
#[inline(always)]
pub(super) fn tgid(task: u64) -> u32 {
    let identity = IDENTITY.load();
    if identity == Identity::Task as u32 {
        field(task, &TASK_TGID)
    } else if identity == Identity::Helpers as u32 {
        (bpf_get_current_pid_tgid() >> 32) as u32
    } else {
        0
    }
}

/// Fills in everything about the task that runs this program. `asked`: it carries out its own request for certain, and is
/// not merely interrupted.
#[inline(always)]
pub(super) fn identify(task: u64, head: &mut MessageHead, asked: bool) {
    // SAFETY: no arguments; socket filters may call it since 4.9, all other programs of ours too.
    head.cpu = unsafe { bpf_get_smp_processor_id() };
    if IDENTITY.load() == Identity::Task as u32 {
        head.bits = TASK_KNOWN | context(task, asked);
        head.id = id(task);
        head.tid = field(task, &TASK_PID);
        head.uid = uid(task);
        head.cgroup = cgroup(task);
        head.comm = field(task, &TASK_COMM);
    } else if IDENTITY.load() == Identity::Helpers as u32 {
        let both = bpf_get_current_pid_tgid();
        head.bits = TASK_KNOWN;
        head.id = Id { tgid: (both >> 32) as u32, pad: 0, start: 0 };
        head.tid = both as u32;
        head.uid = bpf_get_current_uid_gid() as u32;
        if let Ok(comm) = bpf_get_current_comm() {
            head.comm = comm;
        }
    }
}

/// `CONTEXT_*` of the task that runs this program.
#[inline(always)]
fn context(task: u64, asked: bool) -> u32 {
    let flags: u32 = field(task, &TASK_FLAGS);
    let mut bits = 0;
    if flags & PF_KTHREAD != 0 {
        bits |= CONTEXT_KTHREAD;
    }
    if flags & PF_EXITING != 0 {
        bits |= CONTEXT_EXITING;
    }
    if !asked && (off_stack(task) || preempted(task) || cut_short(task, flags)) {
        bits |= CONTEXT_INTERRUPT;
    }
    bits
}

/// Whether this program runs on another stack than the task's own: x86-64 and arm64 (since 6.0) serve softirqs on a stack
/// of their own (`do_softirq_own_stack`), and interrupts too. Not so x86-64 where the task was in user mode: see
/// [`cut_short`].
#[inline(always)]
fn off_stack(task: u64) -> bool {
    let Some(own) = SELF.get(0) else { return false };
    own.stack_size != 0 && present(&TASK_STACK) && stack_offset(task) >= u64::from(own.stack_size)
}

/// Whether the task came into the kernel by no system call: an interrupt came while it ran in user mode. Since 5.12 x86-64
/// serves that, and the softirqs after it, on the task's own stack, which is empty then (`call_on_irqstack_cond` in
/// `arch/x86/include/asm/irq_stack.h`, `invoke_softirq` in `kernel/softirq.c`).
///
/// A task that a signal ends is not in a system call when its files are closed, nor is a worker of `io_uring`, which has the
/// registers of who started it; but neither is ever in user mode.
#[inline(always)]
fn cut_short(task: u64, flags: u32) -> bool {
    /// `orig_ax` of all that is no system call: `idtentry_body` in `arch/x86/entry/entry_64.S` since 5.8,
    /// `fred_entry_from_user` in `arch/x86/entry/entry_fred.c`.
    const NO_CALL: u64 = u64::MAX;
    flags & (PF_EXITING | PF_IO_WORKER) == 0
        && SELF.get(0).is_some_and(|own| call(task, own) == Some(NO_CALL))
}

/// The number of the system call that the task came into the kernel with: `task_pt_regs(task)->orig_ax`.
#[inline(always)]
fn call(task: u64, own: &Whoami) -> Option<u64> {
    if own.stack_size == 0 || own.stack_padding == PADDING_UNKNOWN || !present(&REGS_CALL) {
        return None;
    }
    let stack: u64 = field(task, &TASK_STACK);
    let end = stack.wrapping_add(u64::from(own.stack_size.wrapping_sub(own.stack_padding)));
    let registers = end.wrapping_sub(u64::from(REGS_LAST.load()) + size_of::<u64>() as u64);
    Some(field(registers, &REGS_CALL))
}

/// How far above the low end of the task's stack this program runs, in bytes; huge where it
/// runs elsewhere.
///
/// The verifier does not let a program turn the address of its frame into a number. So the address is
/// put on the stack and read back with the helper that reads kernel memory.
#[inline(always)]
pub(super) fn stack_offset(task: u64) -> u64 {
    let mut here = MaybeUninit::<u64>::uninit();
    let mut spilled = MaybeUninit::<*mut u64>::uninit();
    // SAFETY: both are locals; `here` is only pointed at.
    unsafe { ptr::write_volatile(spilled.as_mut_ptr(), here.as_mut_ptr()) };
    let address: u64 = at(spilled.as_ptr() as u64);
    address.wrapping_sub(field::<u64>(task, &TASK_STACK))
}

/// The same by `thread_info.preempt_count`, where the architecture keeps it there (arm64; not x86).
#[inline(always)]
fn preempted(task: u64) -> bool {
    if !present(&THREAD_INFO_PREEMPT) {
        return false;
    }
    let count: u32 = field(member(task, &TASK_THREAD_INFO), &THREAD_INFO_PREEMPT);
    count & PREEMPT_INTERRUPT != 0
}

/// The real user id.
#[inline(always)]
pub(super) fn uid(task: u64) -> u32 {
    field(field(task, &TASK_CRED), &CRED_UID)
}

/// The audit login uid, `u32::MAX` where none.
#[inline(always)]
pub(super) fn login_uid(task: u64) -> u32 {
    if present(&TASK_LOGIN_UID) { field(task, &TASK_LOGIN_UID) } else { u32::MAX }
}

/// The id of the cgroup in the unified hierarchy, 0 where unknown.
#[inline(always)]
pub(super) fn cgroup(task: u64) -> u64 {
    if !present(&TASK_CGROUPS) {
        return 0;
    }
    let set: u64 = field(task, &TASK_CGROUPS);
    let group: u64 = field(set, &CSS_SET_CGROUP);
    let node: u64 = field(group, &CGROUP_NODE);
    field(node, &KERNFS_ID)
}

/// Whether a task is a kernel thread.
#[inline(always)]
pub(super) fn is_kernel(task: u64) -> bool {
    field::<u32>(task, &TASK_FLAGS) & PF_KTHREAD != 0
}

/// Whether a task is the first of its process.
#[inline(always)]
pub(super) fn is_leader(task: u64) -> bool {
    field::<u32>(task, &TASK_PID) == field::<u32>(task, &TASK_TGID)
}

/// Whether an exiting task was the last of its process (`signal_struct.live` has been counted down before
/// the tracepoint).
#[inline(always)]
pub(super) fn is_last(task: u64) -> bool {
    if present(&SIGNAL_LIVE) {
        field::<u32>(field(task, &TASK_SIGNAL), &SIGNAL_LIVE) == 0
    } else {
        is_leader(task)
    }
}

/// Stores who `current` is: the daemon that has just sent to its own socket.
#[inline(always)]
pub(super) fn remember_self() {
    let Some(own) = SELF.get_ptr_mut(0) else { return };
    let mut head = MessageHead::default();
    let task = current();
    identify(task, &mut head, false);
    // SAFETY: a map value; only the daemon's own thread gets here, at the start, and reads it when it has.
    unsafe {
        (*own).id = head.id;
        (*own).tid = head.tid;
        (*own).bits = head.bits;
        (*own).comm = head.comm;
        if task != 0 && present(&TASK_STACK) {
            (*own).stack_offset = stack_offset(task).min(u64::from(u32::MAX)) as u32;
            (*own).call = call(task, &*own).unwrap_or(0);
        }
    }
}

/// Whether `current` is a thread of the daemon. Reads nothing else of it.
#[inline(always)]
pub(super) fn is_own(task: u64) -> bool {
    is_self(tgid(task))
}

/// Whether a process is the daemon itself, by its number alone: that is the daemon's as long as it lives.
#[inline(always)]
pub(super) fn is_self(tgid: u32) -> bool {
    SELF.get(0).is_some_and(|own: &Whoami| own.id.tgid != 0 && own.id.tgid == tgid)
}
