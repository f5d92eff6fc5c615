//! Counting the route lookups that miss a guarded route while it is not there.
//!
//! These are on the path of packets: the daemon attaches them while something is missing, and no longer. In
//! whatever context the packet is.

use super::{
    WATCHED, increment,
    read::{
        FLOW4_TO, FLOW6_FROM, FLOW6_TO, FOUND6_FLAGS, LEG_LINK, LINK_NET, NET_NS, NS_INUM, TABLE6_ID, field,
        member,
    },
};
use aya_ebpf::{Global, macros::raw_tracepoint, maps::lpm_trie::Key, programs::RawTracePointContext};
use route_guardian_ebpf::{LOOKUP_HEAD_BITS, lookup_key};

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

/// `include/uapi/linux/route.h`: nothing was found, or a route that says so.
const RTF_REJECT: u32 = 0x0200;

/// The inode number of the daemon's network namespace.
#[unsafe(no_mangle)]
static NETNS: Global<u32> = Global::new(0);

/// An IPv4 lookup in one table, whatever it found.
///
/// `TP_PROTO(u32 tb_id, const struct flowi4 *flp, const struct fib_nh_common *nhc, int err)` from 5.2 to 6.18, in
/// `fib_table_lookup()`, `net/ipv4/fib_trie.c`. Without `nhc` nothing was found, and the kernel does not say in which
/// network namespace: such a lookup counts in any, and only in one without a default route does it happen.
#[raw_tracepoint(tracepoint = "fib_table_lookup")]
#[allow(clippy::needless_pass_by_value, reason = "the macro calls it so")]
pub fn lookup4(ctx: RawTracePointContext) -> i32 {
    let leg = ctx.arg::<u64>(2);
    if leg != 0 {
        let link: u64 = field(leg, &LEG_LINK);
        // A route that rejects has no link.
        if link != 0 && !is_own(field(link, &LINK_NET)) {
            return 0;
        }
    }
    let to: u32 = field(ctx.arg::<u64>(1), &FLOW4_TO);
    count(AF_INET, ctx.arg::<u64>(0) as u32, [to, 0, 0, 0], 32);
    0
}

/// An IPv6 lookup in one table, whatever it found.
///
/// `TP_PROTO(const struct net *net, const struct fib6_result *res, struct fib6_table *table, const struct flowi6 *flp)`
/// from 5.2 to 6.18, in `fib6_table_lookup()` and `ip6_pol_route_lookup()`, `net/ipv6/route.c`.
#[raw_tracepoint(tracepoint = "fib6_table_lookup")]
#[allow(clippy::needless_pass_by_value, reason = "the macro calls it so")]
pub fn lookup6(ctx: RawTracePointContext) -> i32 {
    if !is_own(ctx.arg::<u64>(0)) {
        return 0;
    }
    let flow = ctx.arg::<u64>(3);
    let from: [u64; 2] = field(flow, &FLOW6_FROM);
    let flags: u32 = field(ctx.arg::<u64>(1), &FOUND6_FLAGS);
    // Of a packet that has no source yet a lookup that fails is done again with one (`ip6_dst_lookup_tail`).
    if from == [0, 0] && flags & RTF_REJECT != 0 {
        return 0;
    }
    let table: u32 = field(ctx.arg::<u64>(2), &TABLE6_ID);
    count(AF_INET6, table, field(flow, &FLOW6_TO), 128);
    0
}

/// Whether a `struct net` is the daemon's.
#[inline(always)]
pub(super) fn is_own(net: u64) -> bool {
    field::<u32>(member(net, &NET_NS), &NS_INUM) == NETNS.load()
}

/// Counts a lookup of `to` for the longest prefix of its table that is watched.
#[inline(always)]
fn count(family: u32, table: u32, to: [u32; 4], bits: u32) {
    let key = Key::new(LOOKUP_HEAD_BITS + bits, lookup_key(family, table, to));
    if let Some(counter) = WATCHED.get(&key) {
        // SAFETY: a map value.
        unsafe { increment(counter) };
    }
}
