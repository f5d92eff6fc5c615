//! The programs by subject, and the maps and globals they share.

mod cable;
mod extack;
mod fib;
mod lifecycle;
mod lookups;
mod path;
mod process;
mod read;
mod scope;
mod tap;
mod task;

use aya_ebpf::{
    Global,
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, RingBuf},
};
use core::arch::asm;
use route_guardian_ebpf::{
    Behind, CABLES_MAX, Cable, LOOKUP_KEY, LOST_KINDS, ProcessRecord, WATCHED_ROUTES, Whoami, Words,
};

/// The one stream of records to the daemon: one order for messages, processes and exits. The size is set
/// at load.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// Who is who, by thread group id. The entries outlive their processes: children and late messages
/// need them.
///
/// An element of an LRU map may be given to another key while a program still writes to it. A program
/// writes only to entries it has just inserted or looked up, so that takes as many insertions as
/// the map has entries within microseconds; the reader compares `id`.
#[map]
static PROCESSES: LruHashMap<u32, ProcessRecord> = LruHashMap::with_max_entries(8192, 0);

/// Never written to: what a new entry of `PROCESSES` starts as. A `ProcessRecord` does not fit on the
/// stack, and per-CPU scratch would be overwritten by a softirq or a task that preempts this one.
#[map]
static BLANK: Array<ProcessRecord> = Array::with_max_entries(1, 0);

/// The interfaces that are known to be out of scope, kept by the daemon. One that it has not heard of yet, or
/// that finds no room, is not in here, and its routes are kept.
#[map]
static OUTSIDE_LINKS: HashMap<u32, u8> = HashMap::with_max_entries(65536, BPF_F_NO_PREALLOC);

/// The routing tables in scope, set at load.
#[map]
static SCOPE_TABLES: HashMap<u32, u8> = HashMap::with_max_entries(65536, BPF_F_NO_PREALLOC);

/// Who the daemon is, as `whoami` found it.
#[map]
static SELF: Array<Whoami> = Array::with_max_entries(1, 0);

/// The kernel's last words for refusing something to the daemon.
#[map]
static WORDS: Array<Words> = Array::with_max_entries(1, 0);

/// The guarded routes that are missing, by `lookup_key` and length, and how many lookups would have taken them.
#[map]
static WATCHED: LpmTrie<[u32; LOOKUP_KEY / 4], u64> = LpmTrie::with_max_entries(WATCHED_ROUTES, 0);

/// The tasks, by address, that flush an IPv4 table of the daemon's network namespace just now: one, as long as the kernel
/// has one lock for that.
#[map]
static FLUSHING: HashMap<u64, u8> = HashMap::with_max_entries(64, 0);

/// The cables that are lent, or ready to be, by the ifindex of their port. Written by the daemon only.
#[map]
static CABLES: HashMap<u32, Cable> = HashMap::with_max_entries(CABLES_MAX, BPF_F_NO_PREALLOC);

/// The ports of `CABLES` that the kernel's own word has switched on, and until when (`CLOCK_MONOTONIC`, in nanoseconds). Written by
/// the tap; the daemon only takes away those that have no cable any more.
#[map]
static SWITCHED: HashMap<u32, u64> = HashMap::with_max_entries(CABLES_MAX, BPF_F_NO_PREALLOC);

/// The ports of `CABLES`, and zeros behind them.
#[map]
static PORTS: Array<u32> = Array::with_max_entries(CABLES_MAX, 0);

/// Where a hardware address was heard last.
#[map]
static BEHIND: LruHashMap<u64, Behind> = LruHashMap::with_max_entries(1024, 0);

/// What was lost, by kind, since load. One atomic counter per kind and not one per CPU: a preempted
/// program would lose increments of those, and nothing counts often.
#[map]
static LOST: Array<u64> = Array::with_max_entries(LOST_KINDS, 0);

const BPF_F_NO_PREALLOC: u32 = 1;

/// How `current` is read: `route_guardian_ebpf::Identity`. What this rules out is dead code to the
/// verifier, so that helpers the kernel does not allow here are never looked at.
#[unsafe(no_mangle)]
static IDENTITY: Global<u32> = Global::new(0);

/// Whether the programs tell what they do: 0 makes every log statement dead code.
#[unsafe(no_mangle)]
static DEBUG: Global<u32> = Global::new(0);

/// Counts one loss.
#[inline(always)]
fn lost(kind: u32) {
    if let Some(counter) = LOST.get_ptr(kind) {
        // SAFETY: a map value.
        unsafe { increment(counter) };
    }
}

/// Adds one to a counter, atomically: `core` has no such thing for this target.
///
/// # Safety
/// `counter` must be the value of a map, which lives as long as the program and is aligned to 8 bytes.
#[inline(always)]
unsafe fn increment(counter: *const u64) {
    // SAFETY: the caller vouches for `counter`.
    unsafe {
        asm!("lock *(u64 *)({counter} + 0) += {one}", counter = in(reg) counter, one = in(reg) 1u64);
    };
}

/// `$what` with aya-log, if the daemon asked for it.
macro_rules! debug {
    ($($what:tt)*) => {
        if super::DEBUG.load() != 0 {
            aya_log_ebpf::info!($($what)*);
        }
    };
}
use debug;
