//! The kernel's words for what it refuses.

use super::{WORDS, read::string, task};
use aya_ebpf::{
    helpers::generated::bpf_ktime_get_ns, macros::raw_tracepoint, programs::RawTracePointContext,
};
use route_guardian_ebpf::WORDS_MAX;

/// A netlink request is refused, or taken with a warning, in so many words; those for the daemon are kept.
///
/// `TP_PROTO(const char *msg)` from 5.12 to 6.18, in `do_trace_netlink_extack()`, `net/netlink/af_netlink.c`, in the task
/// whose request it is (`NL_SET_ERR_MSG`).
#[raw_tracepoint(tracepoint = "netlink_extack")]
#[allow(clippy::needless_pass_by_value, reason = "the macro calls it so")]
pub fn extack(ctx: RawTracePointContext) -> i32 {
    let this = task::current();
    if this == 0 || !task::is_own(this) {
        return 0;
    }
    let Some(words) = WORDS.get_ptr_mut(0) else { return 0 };
    // SAFETY: a map value with that much room; only the daemon's one thread that writes is refused anything, and reads
    // this afterwards.
    unsafe {
        (*words).at = bpf_ktime_get_ns();
        string((&raw mut (*words).text).cast(), WORDS_MAX as u32, ctx.arg::<u64>(0));
    }
    0
}
