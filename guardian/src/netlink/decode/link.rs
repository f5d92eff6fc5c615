//! `struct ifinfomsg`, as `rtnl_fill_ifinfo` (`net/core/rtnetlink.c`) fills it.

use super::{raw, split, whole_u32};
use crate::{
    model::{Attribute, Link, Port, attribute::text, link::ifla},
    netlink::message::{DecodeError, Frame, attributes, nl, u32_at},
};

const IFINFOMSG_LEN: usize = 16;
const AF_UNSPEC: u8 = 0;
/// The number under which IPv6 has its settings in `IFLA_AF_SPEC`.
pub(in crate::netlink) const AF_INET6: u16 = 10;

/// What else of a link somebody can set, and the kernel takes back when it makes one anew
/// (`rtnl_create_link`) or afterwards.
const KEPT: [u16; 15] = [
    ifla::ADDRESS,
    ifla::BROADCAST,
    ifla::LINK,
    ifla::TXQLEN,
    ifla::IFALIAS,
    ifla::GROUP,
    ifla::NUM_TX_QUEUES,
    ifla::NUM_RX_QUEUES,
    ifla::LINK_NETNSID,
    40, // IFLA_GSO_MAX_SEGS
    41, // IFLA_GSO_MAX_SIZE
    ifla::PROP_LIST,
    58, // IFLA_GRO_MAX_SIZE
    63, // IFLA_GSO_IPV4_MAX_SIZE
    64, // IFLA_GRO_IPV4_MAX_SIZE
];

/// The entries of `IFLA_INFO_DATA` that the kernel makes by itself, by kind; all others somebody can set.
const STATE: [(&str, &[u16]); 5] = [
    (
        "bridge",
        &[
            10, 11, 12, 13, // IFLA_BR_ROOT_ID, _BRIDGE_ID, _ROOT_PORT, _ROOT_PATH_COST
            14, 15, // IFLA_BR_TOPOLOGY_CHANGE, _TOPOLOGY_CHANGE_DETECTED
            16, 17, 18, 19, // IFLA_BR_HELLO_TIMER, _TCN_TIMER, _TOPOLOGY_CHANGE_TIMER, _GC_TIMER
            21, // IFLA_BR_FDB_FLUSH, an order
            40, // IFLA_BR_PAD
            47, // IFLA_BR_MCAST_QUERIER_STATE
            48, // IFLA_BR_FDB_N_LEARNED
        ],
    ),
    // IFLA_MACVLAN_MACADDR_MODE and _MACADDR are orders; _MACADDR_COUNT, _BC_QUEUE_LEN_USED
    ("macvlan", &[3, 4, 6, 8]),
    ("macvtap", &[3, 4, 6, 8]),
    // IFLA_BOND_ACTIVE_SLAVE, _AD_INFO
    ("bond", &[2, 23]),
    // IFLA_HSR_SUPERVISION_ADDR, _SEQ_NR
    ("hsr", &[4, 5]),
];

/// The entries of `IFLA_INFO_SLAVE_DATA` that somebody can set, by kind of master.
const PORT_OPTIONS: [(&str, &[u16]); 2] = [
    (
        "bridge",
        &[
            2, 3, 4, // IFLA_BRPORT_PRIORITY, _COST, _MODE (hairpin)
            5, 6, 7, // IFLA_BRPORT_GUARD, _PROTECT, _FAST_LEAVE
            8, 9, // IFLA_BRPORT_LEARNING, _UNICAST_FLOOD
            10, 12, // IFLA_BRPORT_PROXYARP, _PROXYARP_WIFI
            25, 27, 28, // IFLA_BRPORT_MULTICAST_ROUTER, _MCAST_FLOOD, _MCAST_TO_UCAST
            29, 30, 31, // IFLA_BRPORT_VLAN_TUNNEL, _BCAST_FLOOD, _GROUP_FWD_MASK
            32, 33, 34, // IFLA_BRPORT_NEIGH_SUPPRESS, _ISOLATED, _BACKUP_PORT
            37, 39, 40, // IFLA_BRPORT_MCAST_EHT_HOSTS_LIMIT, _LOCKED, _MAB
            42, 43, 44, // IFLA_BRPORT_MCAST_MAX_GROUPS, _NEIGH_VLAN_SUPPRESS, _BACKUP_NHID
        ],
    ),
    // IFLA_BOND_SLAVE_QUEUE_ID, _PRIO
    ("bond", &[5, 9]),
];

/// Whether an entry of `IFLA_INFO_DATA` is something that somebody sets.
pub(in crate::netlink) fn is_settable(kind: &str, number: u16) -> bool {
    !STATE.iter().any(|(name, state)| *name == kind && state.contains(&number))
}

/// Whether an entry of `IFLA_INFO_SLAVE_DATA` is something that somebody sets.
pub(in crate::netlink) fn is_port_option(master: &str, number: u16) -> bool {
    PORT_OPTIONS.iter().any(|(name, options)| *name == master && options.contains(&number))
}

pub(super) fn link(frame: &Frame<'_>) -> Result<Option<Link>, DecodeError> {
    let (fixed, walk) = split(frame, IFINFOMSG_LEN)?;
    // AF_BRIDGE announces a port of a bridge, AF_INET6 the settings of IPv6 on a link.
    if fixed.first() != Some(&AF_UNSPEC) {
        return Ok(None);
    }
    let message = frame.header.kind;
    let index = u32_at(fixed, 4).unwrap_or(0);
    let mut link = Link { index, flags: u32_at(fixed, 8).unwrap_or(0), ..Link::default() };
    let (mut name, mut master) = (None, None);
    let mut info = Info::default();
    for attribute in walk {
        let (type_, value) = attribute?;
        let number = type_ & nl::NLA_TYPE_MASK;
        let wrong = DecodeError::Value { kind: message, number, len: value.len() };
        match number {
            ifla::IFNAME => name = Some(text(value)),
            ifla::MTU => link.mtu = whole_u32(value).ok_or(wrong)?,
            ifla::MASTER => master = Some(whole_u32(value).ok_or(wrong)?),
            ifla::LINKINFO => info = Info::of(value)?,
            ifla::AF_SPEC => link.addr_gen_mode = addr_gen_mode(value)?,
            _ if KEPT.contains(&number) => link.attributes.push(raw(type_, value)),
            _ => {}
        }
    }
    link.name = name.ok_or(DecodeError::Missing { kind: message, number: ifla::IFNAME })?;
    link.attributes.sort_by_key(Attribute::number);
    link.port =
        master.map(|master| Port { link: index, master, kind: info.master_kind, options: info.options });
    (link.kind, link.data) = (info.kind, info.data);
    Ok(Some(link))
}

/// What `IFLA_LINKINFO` has.
#[derive(Default)]
struct Info {
    kind: Option<Box<str>>,
    data: Vec<Attribute>,
    master_kind: Option<Box<str>>,
    options: Vec<Attribute>,
}

impl Info {
    fn of(nest: &[u8]) -> Result<Self, DecodeError> {
        let mut info = Self::default();
        let (mut data, mut options): (&[u8], &[u8]) = (&[], &[]);
        for entry in attributes(nest) {
            let (type_, value) = entry?;
            match type_ & nl::NLA_TYPE_MASK {
                ifla::INFO_KIND => info.kind = Some(text(value).into()),
                ifla::INFO_DATA => data = value,
                ifla::INFO_SLAVE_KIND => info.master_kind = Some(text(value).into()),
                ifla::INFO_SLAVE_DATA => options = value,
                _ => {}
            }
        }
        if let Some(kind) = &info.kind {
            info.data = entries(data, |number| is_settable(kind, number))?;
        }
        if let Some(kind) = &info.master_kind {
            info.options = entries(options, |number| is_port_option(kind, number))?;
        }
        Ok(info)
    }
}

/// The wanted entries of a nest, by type.
fn entries(nest: &[u8], wanted: impl Fn(u16) -> bool) -> Result<Vec<Attribute>, DecodeError> {
    let mut found = Vec::new();
    for entry in attributes(nest) {
        let (type_, value) = entry?;
        if wanted(type_ & nl::NLA_TYPE_MASK) {
            found.push(raw(type_, value));
        }
    }
    found.sort_by_key(Attribute::number);
    Ok(found)
}

/// `IFLA_INET6_ADDR_GEN_MODE` in what `IFLA_AF_SPEC` has of IPv6.
fn addr_gen_mode(spec: &[u8]) -> Result<Option<u8>, DecodeError> {
    for family in attributes(spec) {
        let (type_, settings) = family?;
        if type_ & nl::NLA_TYPE_MASK != AF_INET6 {
            continue;
        }
        for setting in attributes(settings) {
            let (type_, value) = setting?;
            if type_ & nl::NLA_TYPE_MASK == ifla::INET6_ADDR_GEN_MODE {
                return Ok(value.first().copied());
            }
        }
    }
    Ok(None)
}
