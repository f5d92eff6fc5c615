//! Which messages the daemon needs to see. When unsure, it does.

use super::{OUTSIDE_LINKS, SCOPE_TABLES, cable, task};
use aya_ebpf::{Global, helpers::generated::bpf_skb_load_bytes, programs::SkBuffContext};
use core::mem::MaybeUninit;

/// `RTM_*`, `include/uapi/linux/rtnetlink.h`.
const NEW_LINK: u16 = 16;
const DEL_LINK: u16 = 17;
const NEW_ADDR: u16 = 20;
const DEL_ADDR: u16 = 21;
const NEW_ROUTE: u16 = 24;
const DEL_ROUTE: u16 = 25;
const NEW_RULE: u16 = 32;
const DEL_RULE: u16 = 33;
const NEW_NEXTHOP: u16 = 104;
const DEL_NEXTHOP: u16 = 105;

/// `RTA_*`, likewise.
const RTA_OIF: u16 = 4;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_NH_ID: u16 = 30;
/// `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER` taken away.
const RTA_TYPE: u16 = 0x3fff;

const NLM_F_EXCL: u16 = 0x200;
const RTM_F_CLONED: u32 = 0x200;
const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
const AF_INET6: u8 = 10;

/// Attributes and legs that are looked at; a message with more is kept.
const ATTRIBUTES: u32 = 24;
const LEGS: u32 = 16;

/// Routing protocols in scope: bit `n % 64` of word `n / 64`.
#[unsafe(no_mangle)]
static PROTOCOLS_0: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static PROTOCOLS_1: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static PROTOCOLS_2: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static PROTOCOLS_3: Global<u64> = Global::new(0);

/// `struct nlmsghdr`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Header {
    pub len: u32,
    pub kind: u16,
    pub flags: u16,
    pub seq: u32,
    pub port: u32,
}

/// Where the body of a message begins.
const BODY: u32 = size_of::<Header>() as u32;

/// `struct rtmsg`.
#[derive(Clone, Copy)]
#[repr(C)]
struct RouteHeader {
    family: u8,
    lens_and_tos: [u8; 3],
    table: u8,
    protocol: u8,
    scope_and_type: [u8; 2],
    flags: u32,
}

/// Bytes of the message; `None` past its end.
#[inline(always)]
pub(super) fn load<T: Copy>(ctx: &SkBuffContext, offset: u32) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes exactly the given size or zeroes it.
    unsafe {
        let ret =
            bpf_skb_load_bytes(ctx.skb.skb.cast(), offset, value.as_mut_ptr().cast(), size_of::<T>() as u32);
        if ret == 0 { Some(value.assume_init()) } else { None }
    }
}

/// Whether a message of this kind can concern anybody: decided by its head alone.
#[inline(always)]
pub(super) fn is_of_interest(ctx: &SkBuffContext, header: &Header) -> bool {
    match header.kind {
        NEW_ROUTE | DEL_ROUTE => {
            let Some(route) = load::<RouteHeader>(ctx, BODY) else { return false };
            if route.family != AF_INET && route.family != AF_INET6 {
                return false;
            }
            // What one destination was told (a path MTU, a redirect), not a route.
            if route.flags & RTM_F_CLONED != 0 {
                return false;
            }
            // Two messages in one buffer: not seen in practice, and the daemon tells them apart.
            let several = ctx.len() > (header.len.wrapping_add(3) & !3);
            several
                // The kernel says EXCL where nothing of this key was there (`fib_table_insert`,
                // `fib6_add_rt2node`). Anything else replaces or joins what is, and that may be guarded.
                || (header.kind == NEW_ROUTE && header.flags & NLM_F_EXCL == 0)
                || has_protocol(route.protocol)
                || has_table(u32::from(route.table))
                || attributes_in_scope(ctx, BODY + size_of::<RouteHeader>() as u32)
        }
        NEW_LINK | DEL_LINK => !is_by_bridge(ctx, header),
        NEW_ADDR | DEL_ADDR | NEW_RULE | DEL_RULE | NEW_NEXTHOP | DEL_NEXTHOP => true,
        _ => false,
    }
}

/// Whether a message is a bridge's view of one of its ports, which is another table; cables heed it.
#[inline(always)]
fn is_by_bridge(ctx: &SkBuffContext, header: &Header) -> bool {
    // `ifi_family` and `ifi_index` of `struct ifinfomsg`
    if load::<u8>(ctx, BODY) != Some(AF_BRIDGE) {
        return false;
    }
    if let Some(port) = load::<u32>(ctx, BODY + 4) {
        if header.kind == NEW_LINK {
            cable::is_in(port);
        } else {
            cable::is_leaving(port, task::current());
        }
    }
    true
}

/// Whether routes of this protocol are in scope on any link.
#[inline(always)]
pub(super) fn has_protocol(protocol: u8) -> bool {
    let word = match protocol >> 6 {
        0 => PROTOCOLS_0.load(),
        1 => PROTOCOLS_1.load(),
        2 => PROTOCOLS_2.load(),
        _ => PROTOCOLS_3.load(),
    };
    (word >> (protocol & 63)) & 1 != 0
}

/// Whether all routes of this table are in scope.
#[inline(always)]
pub(super) fn has_table(table: u32) -> bool {
    SCOPE_TABLES.get_ptr(table).is_some()
}

/// Whether a link is known to be out of scope.
#[inline(always)]
pub(super) fn is_outside(ifindex: u32) -> bool {
    OUTSIDE_LINKS.get_ptr(ifindex).is_some()
}

/// Walks the attributes of a route for a table in scope, or an interface not known to be out of it.
#[inline(always)]
fn attributes_in_scope(ctx: &SkBuffContext, start: u32) -> bool {
    let mut offset = start;
    let (mut legs, mut legs_end) = (0, 0);
    let mut ended = false;
    for _ in 0..ATTRIBUTES {
        // `struct rtattr`
        let Some([len, kind]) = load::<[u16; 2]>(ctx, offset) else {
            ended = true;
            break;
        };
        if len < 4 {
            return true;
        }
        match kind & RTA_TYPE {
            RTA_OIF => match load(ctx, offset.wrapping_add(4)) {
                Some(link) if is_outside(link) => {}
                _ => return true,
            },
            RTA_TABLE => match load(ctx, offset.wrapping_add(4)) {
                Some(table) if !has_table(table) => {}
                _ => return true,
            },
            RTA_NH_ID => return true,
            RTA_MULTIPATH => {
                legs = offset.wrapping_add(4);
                legs_end = offset.wrapping_add(u32::from(len));
            }
            _ => {}
        }
        offset = offset.wrapping_add((u32::from(len) + 3) & !3);
    }
    !ended || legs_in_scope(ctx, legs, legs_end)
}

/// Walks the legs of a multipath route, `struct rtnexthop` each, for an interface not known to be out
/// of scope.
#[inline(always)]
fn legs_in_scope(ctx: &SkBuffContext, start: u32, end: u32) -> bool {
    let mut offset = start;
    for _ in 0..LEGS {
        if offset >= end {
            return false;
        }
        // rtnh_len, rtnh_flags and rtnh_hops, rtnh_ifindex in two halves
        let Some([len, _, low, high]) = load::<[u16; 4]>(ctx, offset) else { return true };
        if len < 8 || !is_outside(u32::from(low) | u32::from(high) << 16) {
            return true;
        }
        offset = offset.wrapping_add((u32::from(len) + 3) & !3);
    }
    offset < end
}
