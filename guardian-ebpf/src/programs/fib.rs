//! IPv4 routes that go without a message: those that the kernel flushes with a link, an address or a nexthop object.
//!
//! What is deleted on request is announced, and the tap sees it; only what goes while a table is flushed is told here.
//! Each program exists for a trampoline (fentry, fexit) and for a breakpoint (kprobe, kretprobe); the daemon attaches the
//! one that the kernel takes.

use super::{
    EVENTS, FLUSHING,
    lookups::is_own,
    lost,
    read::{
        FIB_DSCP, FIB_INFO, FIB_LEG, FIB_LEGS, FIB_METRIC, FIB_NEXTHOP, FIB_PROTOCOL, FIB_SCOPE, FIB_SUFFIX,
        FIB_TABLE, FIB_TOS, FIB_TYPE, LEG_OIF, field, member, present,
    },
    scope, tap, task,
};
use aya_ebpf::{
    helpers::generated::{bpf_ktime_get_ns, bpf_ringbuf_output},
    macros::{fentry, fexit, kprobe, kretprobe},
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext},
};
use route_guardian_ebpf::{FallenRecord, FallenRoute, KIND_FALLEN, LOST_MESSAGES, MessageHead};

/// A table is flushed.
///
/// `int fib_table_flush(struct net *net, struct fib_table *tb, bool flush_all)` from 4.20 to 6.18, `net/ipv4/fib_trie.c`;
/// called by `fib_flush()` for every table, and when a network namespace ends.
#[fentry(function = "fib_table_flush")]
#[allow(clippy::needless_pass_by_value, reason = "the macro calls it so")]
pub fn flush_begins(ctx: FEntryContext) -> i32 {
    begins(ctx.arg(0));
    0
}

/// See [`flush_begins`].
#[kprobe]
#[allow(clippy::needless_pass_by_value, reason = "the macro calls it so")]
pub fn flush_begins_probe(ctx: ProbeContext) -> u32 {
    if let Some(net) = ctx.arg(0) {
        begins(net);
    }
    0
}

/// See [`flush_begins`].
#[fexit(function = "fib_table_flush")]
#[allow(clippy::needless_pass_by_value, reason = "the macro calls it so")]
pub fn flush_ends(_ctx: FExitContext) -> i32 {
    ends();
    0
}

/// See [`flush_begins`].
#[kretprobe]
#[allow(clippy::needless_pass_by_value, reason = "the macro calls it so")]
pub fn flush_ends_probe(_ctx: RetProbeContext) -> u32 {
    ends();
    0
}

/// A route goes, announced or not; it and what it refers to are still whole.
///
/// `static void fib_notify_alias_delete(struct net *net, u32 key, struct hlist_head *fah, struct fib_alias *fa_to_delete,
/// struct netlink_ext_ack *extack)` from 5.6 to 6.18, `net/ipv4/fib_trie.c`. `key` is the destination in the order of the
/// machine.
#[fentry(function = "fib_notify_alias_delete")]
#[allow(clippy::needless_pass_by_value, reason = "the macro calls it so")]
pub fn route_falls(ctx: FEntryContext) -> i32 {
    falls(ctx.arg(1), ctx.arg(3));
    0
}

/// See [`route_falls`].
#[kprobe]
#[allow(clippy::needless_pass_by_value, reason = "the macro calls it so")]
pub fn route_falls_probe(ctx: ProbeContext) -> u32 {
    if let (Some(key), Some(alias)) = (ctx.arg(1), ctx.arg(3)) {
        falls(key, alias);
    }
    0
}

#[inline(always)]
fn begins(net: u64) {
    let this = task::current();
    if this == 0 || !is_own(net) {
        return;
    }
    // Without the mark what falls is not told: a loss.
    if FLUSHING.insert(this, 1, 0).is_err() {
        lost(LOST_MESSAGES);
    }
}

#[inline(always)]
fn ends() {
    // Of other namespaces there is none.
    let _ = FLUSHING.remove(task::current());
}

/// A route of the `struct fib_alias` at `alias` goes, to the destination `key`.
#[inline(always)]
fn falls(key: u32, alias: u64) {
    let this = task::current();
    if FLUSHING.get_ptr(this).is_none() {
        return;
    }
    let info: u64 = field(alias, &FIB_INFO);
    let protocol: u8 = field(info, &FIB_PROTOCOL);
    let table: u32 = field(alias, &FIB_TABLE);
    if !scope::has_protocol(protocol) && !scope::has_table(table) && leads_outside(info) {
        return;
    }
    // SAFETY: no arguments.
    let at = unsafe { bpf_ktime_get_ns() };
    let bytes = size_of::<FallenRoute>() as u32;
    let mut head = MessageHead { kind: KIND_FALLEN, at, whole: bytes, kept: bytes, ..MessageHead::default() };
    // It holds a mutex (RTNL), which no interrupt can.
    task::identify(this, &mut head, true);
    let late = tap::attribute(this, &mut head, 0);
    let suffix: u8 = field(alias, &FIB_SUFFIX);
    let tos: u8 = if present(&FIB_TOS) { field(alias, &FIB_TOS) } else { field(alias, &FIB_DSCP) };
    let mut record = FallenRecord {
        head,
        route: FallenRoute {
            to: key.to_be(),
            table,
            metric: field(info, &FIB_METRIC),
            len: 32u8.wrapping_sub(suffix),
            tos,
            kind: field(alias, &FIB_TYPE),
            protocol,
            scope: field(info, &FIB_SCOPE),
            pad: [0; 7],
        },
    };
    // SAFETY: the map is a ring buffer; the record lives through the call and has no padding.
    let ret = unsafe {
        bpf_ringbuf_output(
            (&raw const EVENTS).cast_mut().cast(),
            (&raw mut record).cast(),
            size_of::<FallenRecord>() as u64,
            0,
        )
    };
    if ret != 0 {
        lost(LOST_MESSAGES);
    }
    if late {
        super::process::send_exit(record.head.id, 0);
    }
}

/// Whether the only way of a `struct fib_info` is a link that is known to be out of scope.
#[inline(always)]
fn leads_outside(info: u64) -> bool {
    let nexthop: u64 = field(info, &FIB_NEXTHOP);
    if nexthop != 0 || field::<u32>(info, &FIB_LEGS) != 1 {
        return false;
    }
    let link: u32 = field(member(info, &FIB_LEG), &LEG_OIF);
    scope::is_outside(link)
}
