//! Carrying the frames of ports that have to stay out of their bridge for a while.
//!
//! A port that is out of its bridge is a link that nobody listens to: what comes from it for the node's own address on the
//! bridge is dropped, and what the node sends by the bridge does not find it. These two take what comes and hand it to the
//! bridge's link, and what goes out there and hand it to the port, as the bridge would. What pods of one node send each
//! other goes by the node's IP, and by its firewall, so long; what they ask each other about their addresses goes from one
//! to the other. They are on the path of packets: where systemd-networkd does no such thing the daemon does not attach
//! them, a cable that is ready leaves every frame as it is, and one that is lent ends by itself when its time is up.

use super::{BEHIND, CABLES, PORTS, SWITCHED, process, task};
use aya_ebpf::{
    bindings::BPF_F_INGRESS,
    helpers::{bpf_ktime_get_ns, bpf_redirect},
    macros::classifier,
    programs::TcContext,
};
use route_guardian_ebpf::{Behind, CABLES_MAX, Cable, address_bytes, address_word};

/// Whoever else is attached has a word, and the kernel goes on as without us: `TC_ACT_UNSPEC`.
const NEXT: i32 = -1;

/// A frame for somebody whom nobody has heard yet goes to all ports, once in so many nanoseconds: one answer is enough.
const FLOOD_NS: u64 = 100_000_000;

/// For how many nanoseconds a port that is back in its bridge goes on being carried. A bridge without any port has no carrier,
/// and drops what the node sends; when it has one again a worker of the kernel's has to hear of that first (`linkwatch_run_queue`
/// of `net/core/link_watch.c`).
const LINGER_NS: u64 = 1_000_000_000;

/// `struct ethhdr`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Frame {
    to: [u8; 6],
    from: [u8; 6],
    kind: [u8; 2],
}

impl Frame {
    /// Whether it is for many.
    const fn is_for_many(&self) -> bool {
        self.to[0] & 1 != 0
    }
}

/// A frame that a port of ours receives, in its bridge or out of it.
///
/// `sch_handle_ingress(struct sk_buff *skb, struct packet_type **pt_prev, int *ret, struct net_device *orig_dev,
/// bool *another)` of `net/core/dev.c`, from 5.10 to 6.18, before the bridge gets it; in a softirq.
#[classifier]
#[allow(clippy::needless_pass_by_value, reason = "the macro calls it so")]
pub fn cable_in(ctx: TcContext) -> i32 {
    let port = ifindex(&ctx);
    let Some(cable) = cable_of(port) else { return NEXT };
    let Ok(frame) = ctx.load::<Frame>(0) else { return NEXT };
    // No bridge takes those.
    if frame.from[0] & 1 != 0 {
        return NEXT;
    }
    // Also while it is merely ready.
    let from = address_word(frame.from);
    if where_is(from).port != port {
        let _ = BEHIND.insert(from, Behind { flooded: 0, port, pad: 0 }, 0);
    }
    let is_out = is_lent(port, &cable);
    let bridge = cable.bridge;
    if frame.is_for_many() {
        if !is_out {
            return to_all(&ctx, bridge, port);
        }
        // To those in the bridge and those that are out as if the node sent it, and to the node.
        let _ = ctx.clone_redirect(bridge, 0);
        return redirect(bridge, u64::from(BPF_F_INGRESS));
    }
    let node = address_bytes(cable.address);
    if frame.to != node {
        let other = where_is(address_word(frame.to)).port;
        let is_other_out = other != 0 && is_carried(other, bridge);
        if !is_out && !is_other_out {
            return NEXT;
        }
        // Who has an address is a matter of its link: the node would not pass it on.
        if is_about_neighbours(&ctx, &frame) {
            return redirect(if is_other_out { other } else { bridge }, 0);
        }
        if ctx.store(0, &node, 0).is_err() {
            return NEXT;
        }
    }
    if is_out { redirect(bridge, u64::from(BPF_F_INGRESS)) } else { NEXT }
}

/// A frame that the node sends by a bridge of ours.
///
/// `sch_handle_egress(struct sk_buff *skb, int *ret, struct net_device *dev)` of `net/core/dev.c`, from 5.10 to 6.18, before
/// the bridge gets it; in whatever context it is sent.
#[classifier]
#[allow(clippy::needless_pass_by_value, reason = "the macro calls it so")]
pub fn cable_out(ctx: TcContext) -> i32 {
    let Ok(frame) = ctx.load::<Frame>(0) else { return NEXT };
    let bridge = ifindex(&ctx);
    // What a port has sent does not come back to it.
    let from = where_is(address_word(frame.from)).port;
    if frame.is_for_many() {
        return to_all(&ctx, bridge, from);
    }
    let to = address_word(frame.to);
    let Behind { port, flooded, .. } = where_is(to);
    if let Some(cable) = cable_of(port)
        && cable.bridge == bridge
    {
        return if is_lent(port, &cable) { redirect(port, 0) } else { NEXT };
    }
    let now = now();
    if now.wrapping_sub(flooded) < FLOOD_NS {
        return NEXT;
    }
    let _ = BEHIND.insert(to, Behind { flooded: now, port, pad: 0 }, 0);
    to_all(&ctx, bridge, from)
}

/// Gives all ports that are out a copy but one, and leaves the frame to the bridge.
#[inline(always)]
fn to_all(ctx: &TcContext, bridge: u32, but: u32) -> i32 {
    for index in 0..CABLES_MAX {
        // SAFETY: a map value.
        let port = PORTS.get_ptr(index).map_or(0, |port| unsafe { port.read() });
        if port == 0 {
            break;
        }
        if port != but && is_carried(port, bridge) {
            let _ = ctx.clone_redirect(port, 0);
        }
    }
    NEXT
}

/// Whether it is of ARP, or of the neighbour discovery of IPv6 (RFC 4861).
#[inline(always)]
fn is_about_neighbours(ctx: &TcContext, frame: &Frame) -> bool {
    const NEXT_HEADER: usize = 14 + 6;
    const ICMP6: u8 = 58;
    const TYPE: usize = 14 + 40;
    match frame.kind {
        [0x08, 0x06] => true,
        [0x86, 0xdd] => {
            ctx.load::<u8>(NEXT_HEADER) == Ok(ICMP6) && matches!(ctx.load::<u8>(TYPE), Ok(133..=137))
        }
        _ => false,
    }
}

/// Where somebody was heard, all zero where nobody knows.
#[inline(always)]
fn where_is(who: u64) -> Behind {
    // SAFETY: a map value.
    BEHIND.get_ptr(who).map_or(Behind { flooded: 0, port: 0, pad: 0 }, |behind| unsafe { behind.read() })
}

/// What a port has.
#[inline(always)]
fn cable_of(port: u32) -> Option<Cable> {
    // SAFETY: a map value; the kernel frees one that is replaced when no program uses it any more.
    Some(unsafe { CABLES.get_ptr(port)?.read() })
}

/// Whether it carries, and is not merely ready to.
#[inline(always)]
fn is_lent(port: u32, cable: &Cable) -> bool {
    let now = now();
    // SAFETY: likewise.
    now < cable.until || SWITCHED.get_ptr(port).is_some_and(|until| now < unsafe { until.read() })
}

/// Whether what is for a port is to be carried to it from this bridge.
#[inline(always)]
fn is_carried(port: u32, bridge: u32) -> bool {
    cable_of(port).is_some_and(|cable| cable.bridge == bridge && is_lent(port, &cable))
}

/// A link has become a port of a bridge, or is told of as one.
///
/// `br_ifinfo_notify(int event, const struct net_bridge *br, const struct net_bridge_port *port)` with `RTM_NEWLINK` in
/// `br_add_if()`, `net/bridge/br_if.c`, from 5.10 to 6.18: near its end, the bridge has it.
#[inline(always)]
pub(super) fn is_in(port: u32) {
    if let Some(cable) = cable_of(port)
        && is_lent(port, &cable)
    {
        let _ = SWITCHED.insert(port, now().wrapping_add(LINGER_NS), 0);
    }
}

/// A link is about to leave its bridge, by the hand of a task.
///
/// The same with `RTM_DELLINK` in `del_nbp()`, from 5.10 to 6.18: near its beginning. That it has left is told when all who may
/// still use it have been waited for.
///
/// What systemd-networkd does first when it has been started may be this: nobody has told the daemon of it yet.
#[inline(always)]
pub(super) fn is_leaving(port: u32, task: u64) {
    if let Some(cable) = cable_of(port)
        && (cable.by == task::tgid(task) || process::is_networkd(task))
    {
        let _ = SWITCHED.insert(port, now().wrapping_add(cable.time), 0);
    }
}

#[inline(always)]
fn redirect(link: u32, flags: u64) -> i32 {
    // SAFETY: a helper that takes numbers.
    unsafe { bpf_redirect(link, flags) as i32 }
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}

#[inline(always)]
fn ifindex(ctx: &TcContext) -> u32 {
    // SAFETY: the context that the kernel has given.
    unsafe { (*ctx.skb.skb).ifindex }
}
