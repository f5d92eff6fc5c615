//! The socket filters.

use super::{
    EVENTS, debug, lost, process,
    read::opaque,
    scope::{self, Header},
    task,
};
use aya_ebpf::{
    bindings::{BPF_RB_CONS_POS, BPF_RB_NO_WAKEUP, BPF_RB_PROD_POS},
    helpers::generated::{
        bpf_ktime_get_ns, bpf_ringbuf_discard, bpf_ringbuf_query, bpf_ringbuf_reserve, bpf_ringbuf_submit,
        bpf_skb_load_bytes,
    },
    macros::socket_filter,
    programs::SkBuffContext,
};
use route_guardian_ebpf::{
    CONTEXT_EXITING, CONTEXT_INTERRUPT, CONTEXT_KTHREAD, CONTEXT_SELF, KIND_MESSAGE, LOST_MESSAGES,
    LOST_TRUNCATED, MESSAGE_CLASSES, MESSAGE_CUT, MESSAGE_TRUNCATED, MessageHead, PROCESS_EXITED,
    PROCESS_TOLD,
};

/// The message is in the ring already: in the socket's queue nobody needs it.
const DROP: i64 = 0;

/// The message goes into the socket's queue as well, for no reason but that the daemon wakes.
///
/// Whole: cut shorter it would be so for all who listen after the daemon (`do_one_broadcast()` gives the first of them
/// the message itself, and copies for the others are made of that).
const WAKE: i64 = u32::MAX as i64;

/// Sees every notification of the groups that the daemon's socket joined.
///
/// Called by `sk_filter()` in `do_one_broadcast()`, `net/netlink/af_netlink.c`:
/// `static void do_one_broadcast(struct sock *sk, struct netlink_broadcast_data *p)`, synchronously in the
/// task that caused the notification, before its system call returns; or in a kernel thread or a
/// softirq. So since at least 4.18, to 6.18. May be preempted and re-entered on the same CPU.
///
/// The daemon is woken through the socket (`__netlink_sendskb()` calls `sk_data_ready`), in this very task. The ring
/// itself would wake it from an interrupt that the CPU must first send to itself (`bpf_ringbuf_commit()` of
/// `kernel/bpf/ringbuf.c`), which takes many times as long.
#[socket_filter]
#[allow(clippy::needless_pass_by_value, reason = "the macro calls it so")]
pub fn tap(ctx: SkBuffContext) -> i64 {
    if sense(&ctx) { WAKE } else { DROP }
}

/// Learns who the daemon is: attached to one end of a socket pair, to whose other end the daemon sends.
///
/// Called by `sk_filter()` in `unix_dgram_sendmsg()`, `net/unix/af_unix.c`, in the sending task; so since at
/// least 4.18, to 6.18.
#[socket_filter]
pub fn whoami(_ctx: SkBuffContext) -> i64 {
    task::remember_self();
    DROP
}

/// A position in the ring, in bytes since its beginning.
#[inline(always)]
fn position(which: u32) -> u64 {
    // SAFETY: the map is a ring buffer.
    unsafe { bpf_ringbuf_query((&raw const EVENTS).cast_mut().cast(), u64::from(which)) }
}

/// Tells of a message. Whether the daemon must be woken for it.
#[inline(always)]
fn sense(ctx: &SkBuffContext) -> bool {
    // SAFETY: no arguments.
    let at = unsafe { bpf_ktime_get_ns() };
    let Some(header) = scope::load::<Header>(ctx, 0) else { return false };
    if !scope::is_of_interest(ctx, &header) {
        return false;
    }
    let task = task::current();
    // What the daemon asked for carries its port, and it has the answer. What the kernel does besides, a route with an
    // address, carries none; nor does what an interrupt does that comes in between. Ten thousand restores go through here.
    if header.port != 0 && task::is_own(task) {
        return false;
    }
    let before = position(BPF_RB_PROD_POS);
    let mut head = MessageHead { kind: KIND_MESSAGE, at, ..MessageHead::default() };
    // Where the message carries a port somebody asked for this, however the task came into the kernel: io_uring goes on
    // with a request when an interrupt returns to user mode.
    task::identify(task, &mut head, header.port != 0);
    let late = attribute(task, &mut head, u64::from(BPF_RB_NO_WAKEUP));
    debug!(
        ctx,
        "message type {} flags {} of pid {} bits {}", header.kind, header.flags, head.id.tgid, head.bits
    );
    deliver(ctx, &mut head);
    if late {
        process::send_exit(head.id, u64::from(BPF_RB_NO_WAKEUP));
    }
    // Who has read up to here sleeps or is about to; who has not comes to it. Whatever the daemon reads next has been
    // written before it is asked how far it has read: committing a record is a full barrier (`xchg`).
    position(BPF_RB_CONS_POS) >= before
}

/// Sends who the task is ahead of the record of `head`, and marks what the daemon has brought about itself. Whether the
/// task's end is to be told again behind it. `wakeup` is the ring's flag for what is sent.
#[inline(always)]
pub(super) fn attribute(task: u64, head: &mut MessageHead, wakeup: u64) -> bool {
    // Where an interrupt or a kernel thread does it, `current` is nobody to ask, and the daemon may be
    // the one interrupted.
    if head.bits & (CONTEXT_INTERRUPT | CONTEXT_KTHREAD) != 0 {
        return false;
    }
    if task::is_self(head.id.tgid) {
        head.bits |= CONTEXT_SELF;
        return false;
    }
    if task == 0 {
        return false;
    }
    let told = process::announce(task, head.id, wakeup);
    // Files are closed after the exit has been told: it is told again for what that brings about.
    // SAFETY: a record in map memory.
    told.is_some_and(|info| unsafe {
        head.bits & CONTEXT_EXITING != 0
            && (*info).flags & (PROCESS_EXITED | PROCESS_TOLD) == PROCESS_EXITED | PROCESS_TOLD
    })
}

/// Puts the message into the ring, in the smallest class that holds it.
#[inline(always)]
fn deliver(ctx: &SkBuffContext, head: &mut MessageHead) {
    const A: u32 = MESSAGE_CLASSES[0];
    const B: u32 = MESSAGE_CLASSES[1];
    const C: u32 = MESSAGE_CLASSES[2];
    const D: u32 = MESSAGE_CLASSES[3];
    const E: u32 = MESSAGE_CLASSES[4];
    const F: u32 = MESSAGE_CLASSES[5];
    let len = ctx.len();
    head.whole = len;
    head.kept = len;
    // One code for all classes: the verifier follows each way through it, and knows the size on each. The kernel
    // before 6.8 lets a socket have no more than 20 KiB of a filter (`net.core.optmem_max`).
    let room = if len <= A {
        opaque(A)
    } else if len <= B {
        opaque(B)
    } else if len <= C {
        opaque(C)
    } else if len <= D {
        opaque(D)
    } else if len <= E {
        opaque(E)
    } else if len <= F {
        opaque(F)
    } else {
        lost(LOST_TRUNCATED);
        head.bits |= MESSAGE_TRUNCATED;
        head.kept = MESSAGE_CUT;
        opaque(MESSAGE_CUT)
    };
    copy(ctx, head, room);
}

/// Reserves place for the head and `room` bytes of message, a power of two, and fills it: per-CPU scratch would not
/// survive re-entry.
#[inline(always)]
fn copy(ctx: &SkBuffContext, head: &MessageHead, room: u32) {
    let ring = (&raw const EVENTS).cast_mut().cast();
    let bytes = size_of::<MessageHead>() as u64 + u64::from(room);
    // SAFETY: the map is a ring buffer, and every way out submits or discards the place.
    unsafe {
        let place = bpf_ringbuf_reserve(ring, bytes, 0).cast::<MessageHead>();
        if place.is_null() {
            lost(LOST_MESSAGES);
            return;
        }
        let n = (opaque(head.kept).wrapping_sub(1) & (room - 1)) + 1;
        if bpf_skb_load_bytes(ctx.skb.skb.cast(), 0, place.add(1).cast(), n) != 0 {
            lost(LOST_MESSAGES);
            bpf_ringbuf_discard(place.cast(), 0);
            return;
        }
        place.write(*head);
        bpf_ringbuf_submit(place.cast(), u64::from(BPF_RB_NO_WAKEUP));
    }
}
