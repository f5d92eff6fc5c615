//! Network interfaces, and what makes them ports of a bridge.

use std::{collections::HashMap, fmt::Write as _, net::IpAddr, time::Duration};

use super::{actor::ProcessId, attribute::Attribute, time::Stamp};

/// `IFF_*` of `include/uapi/linux/if.h`.
#[allow(missing_docs, reason = "the kernel's names say it")]
pub mod iff {
    pub const UP: u32 = 0x1;
    pub const POINTOPOINT: u32 = 0x10;
    pub const RUNNING: u32 = 0x40;
    pub const NOARP: u32 = 0x80;
    pub const PROMISC: u32 = 0x100;
    pub const ALLMULTI: u32 = 0x200;
    pub const MULTICAST: u32 = 0x1000;
    /// What somebody sets, as opposed to what the kernel finds out.
    pub const SETTABLE: u32 = UP | NOARP | PROMISC | ALLMULTI | MULTICAST;
}

/// The numbers of `include/uapi/linux/if_link.h` that the guardian reasons with.
#[allow(missing_docs, reason = "the kernel's names say it")]
pub mod ifla {
    pub const ADDRESS: u16 = 1;
    pub const BROADCAST: u16 = 2;
    pub const IFNAME: u16 = 3;
    pub const MTU: u16 = 4;
    pub const LINK: u16 = 5;
    pub const MASTER: u16 = 10;
    pub const TXQLEN: u16 = 13;
    pub const LINKINFO: u16 = 18;
    pub const IFALIAS: u16 = 20;
    pub const AF_SPEC: u16 = 26;
    pub const GROUP: u16 = 27;
    pub const NUM_TX_QUEUES: u16 = 31;
    pub const NUM_RX_QUEUES: u16 = 32;
    pub const LINK_NETNSID: u16 = 37;
    pub const PROP_LIST: u16 = 52;
    pub const INFO_KIND: u16 = 1;
    pub const INFO_DATA: u16 = 2;
    pub const INFO_SLAVE_KIND: u16 = 4;
    pub const INFO_SLAVE_DATA: u16 = 5;
    pub const INET6_ADDR_GEN_MODE: u16 = 8;
    pub const BR_VLAN_FILTERING: u16 = 7;
    pub const BRPORT_MODE: u16 = 4;
    pub const BRPORT_ISOLATED: u16 = 33;
}

/// A network interface of the guarded namespace, as the kernel would take it back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The kernel's `ifindex`, always above zero.
    pub index: u32,
    /// The name, at most 15 bytes; bytes that are not UTF-8 are replaced.
    pub name: String,
    /// `ifi_flags`: [`iff::UP`] and the others.
    pub flags: u32,
    /// `IFLA_MTU`, in bytes; 0 where the message has none.
    pub mtu: u32,
    /// `IFLA_INFO_KIND`, such as `bridge`; `None` for what no program makes.
    pub kind: Option<Box<str>>,
    /// The entries of `IFLA_INFO_DATA` that somebody sets, by type.
    pub data: Vec<Attribute>,
    /// `IFLA_INET6_ADDR_GEN_MODE`; `None` where IPv6 does not know the link.
    pub addr_gen_mode: Option<u8>,
    /// What else somebody may have set (address, queue length, group, alias, lower link, other names), by type.
    pub attributes: Vec<Attribute>,
    /// What it is a port of.
    pub port: Option<Port>,
}

impl Link {
    /// Whether it has a carrier.
    pub const fn is_running(&self) -> bool {
        self.flags & iff::RUNNING != 0
    }

    /// Whether it is administratively up.
    pub const fn is_up(&self) -> bool {
        self.flags & iff::UP != 0
    }

    /// Whether it has one other end: a tunnel with a remote address, a tun device.
    pub const fn is_point_to_point(&self) -> bool {
        self.flags & iff::POINTOPOINT != 0
    }

    /// The ifindex of the link that it lies on (`IFLA_LINK`), in this namespace.
    pub fn lower(&self) -> Option<u32> {
        let here = self.attribute(ifla::LINK_NETNSID).is_none();
        self.attribute(ifla::LINK).filter(|_| here).and_then(Attribute::as_u32)
    }

    /// The node's address that a tunnel sends from, if it is a tunnel that has one set: `IFLA_IPTUN_LOCAL` and
    /// `IFLA_GRE_LOCAL` of `include/uapi/linux/if_tunnel.h`, `IFLA_VXLAN_LOCAL` of `if_link.h`.
    pub fn tunnel_source(&self) -> Option<IpAddr> {
        let local = match self.kind.as_deref()? {
            "ipip" | "sit" => 2,
            "gre" | "gretap" | "erspan" => 6,
            "vxlan" => 4,
            _ => return None,
        };
        let source = self.data.iter().find(|option| option.number() == local)?.as_addr()?;
        (!source.is_unspecified()).then_some(source)
    }

    /// Its hardware address, where it has one of Ethernet's.
    pub fn hardware_address(&self) -> Option<[u8; 6]> {
        self.attribute(ifla::ADDRESS)?.value[..].try_into().ok()
    }

    /// Whether it is a bridge that tells VLANs apart (`IFLA_BR_VLAN_FILTERING`).
    pub fn tells_vlans_apart(&self) -> bool {
        self.is_bridge() && self.data.iter().any(|a| a.number() == ifla::BR_VLAN_FILTERING && a.is_set())
    }

    /// Whether it is a bridge.
    pub fn is_bridge(&self) -> bool {
        self.kind.as_deref() == Some("bridge")
    }

    /// The ifindex of its master, if it has one.
    pub fn master(&self) -> Option<u32> {
        self.port.as_ref().map(|port| port.master)
    }

    /// Whether it is, in what is guarded, what `other` is: name, settable flags, MTU, master, kind and its options.
    /// The hardware address is not: a bridge takes it from its ports.
    pub fn same(&self, other: &Self) -> bool {
        self.index == other.index
            && self.name == other.name
            && self.flags & iff::SETTABLE == other.flags & iff::SETTABLE
            && self.mtu == other.mtu
            && self.master() == other.master()
            && self.kind == other.kind
            && self.data == other.data
            && self.addr_gen_mode == other.addr_gen_mode
    }

    /// The first attribute of this type.
    pub fn attribute(&self, number: u16) -> Option<&Attribute> {
        self.attributes.iter().find(|a| a.number() == number)
    }

    /// What `ip link` says of it, in short.
    pub fn text(&self) -> String {
        let mut out = self.name.clone();
        if let Some(kind) = &self.kind {
            let _ = write!(out, " type {kind}");
        }
        if self.mtu != 0 {
            let _ = write!(out, " mtu {}", self.mtu);
        }
        out += if self.is_up() { " up" } else { " down" };
        out
    }
}

/// A link's membership in a bridge or another master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The ifindex of the link.
    pub link: u32,
    /// The ifindex of the master (`IFLA_MASTER`).
    pub master: u32,
    /// `IFLA_INFO_SLAVE_KIND`, such as `bridge`.
    pub kind: Option<Box<str>>,
    /// The entries of `IFLA_INFO_SLAVE_DATA` that somebody sets, such as hairpin mode, by type.
    pub options: Vec<Attribute>,
}

impl Port {
    /// Whether it is the same membership, with hairpin mode or without; other options may have changed.
    pub fn same(&self, other: &Self) -> bool {
        self.link == other.link && self.master == other.master && self.hairpin() == other.hairpin()
    }

    /// The bytes of `IFLA_BRPORT_MODE`: whether a pod may reach itself by a service.
    fn hairpin(&self) -> Option<&[u8]> {
        self.of_bridge(ifla::BRPORT_MODE).map(|option| option.value.as_ref())
    }

    /// Whether it reaches no other port that is isolated, too (`IFLA_BRPORT_ISOLATED`).
    pub fn is_isolated(&self) -> bool {
        self.of_bridge(ifla::BRPORT_ISOLATED).is_some_and(Attribute::is_set)
    }

    /// Whether it is one of a bridge.
    pub fn is_of_bridge(&self) -> bool {
        self.kind.as_deref() == Some("bridge")
    }

    /// An option that ports of bridges have.
    fn of_bridge(&self, number: u16) -> Option<&Attribute> {
        self.options.iter().find(|option| self.is_of_bridge() && option.number() == number)
    }

    /// `LINK master MASTER`, as for `ip link set`.
    pub fn text(&self, links: &Links) -> String {
        format!("{} master {}", links.name(self.link), links.name(self.master))
    }
}

/// What carries a port's frames while it is out of its bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cable {
    /// The port's name.
    pub port: String,
    /// The ifindex of the bridge that it belongs to.
    pub bridge: u32,
    /// The bridge's name.
    pub bridge_name: String,
    /// How often a bridge of that ifindex has gone: what was attached to it has gone with it.
    pub bridge_gone: u32,
    /// The bridge's hardware address as it is now: one without its own takes that of a port.
    pub address: [u8; 6],
    /// The process that has it switched on when it takes the port, in the guardian's pid namespace; a later run of
    /// systemd-networkd has, too.
    pub by: ProcessId,
    /// For how long it is switched on then.
    pub time: Duration,
    /// When it ends, whatever happens; `None` where it is to be ready, and not to carry anything yet.
    pub until: Option<Stamp>,
}

/// Names of removed links that are remembered, so that their routes can still be told by name.
const GONE: usize = 1024;

/// The interfaces of the namespace by ifindex.
#[derive(Clone, Debug, Default)]
pub struct Links {
    present: HashMap<u32, Link>,
    gone: HashMap<u32, String>,
}

impl Links {
    /// The link with this ifindex.
    pub fn get(&self, index: u32) -> Option<&Link> {
        self.present.get(&index)
    }

    /// The link of this name.
    pub fn named(&self, name: &str) -> Option<&Link> {
        self.present.values().find(|link| link.name == name)
    }

    /// The name of the link with this ifindex, also of one that is gone, or `if<index>`, the form that `ip`
    /// uses for links it cannot name.
    pub fn name(&self, index: u32) -> String {
        let name = self.get(index).map(|link| &link.name).or_else(|| self.gone.get(&index));
        name.cloned().unwrap_or_else(|| format!("if{index}"))
    }

    /// Records a link as it is now; returns what was known of it.
    pub fn set(&mut self, link: Link) -> Option<Link> {
        self.gone.remove(&link.index);
        self.present.insert(link.index, link)
    }

    /// Forgets a link; returns what was known of it.
    pub fn remove(&mut self, index: u32) -> Option<Link> {
        let link = self.present.remove(&index)?;
        if self.gone.len() >= GONE {
            self.gone.clear();
        }
        self.gone.insert(index, link.name.clone());
        Some(link)
    }

    /// All links, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Link> {
        self.present.values()
    }
}

impl FromIterator<Link> for Links {
    fn from_iter<I: IntoIterator<Item = Link>>(links: I) -> Self {
        let present = links.into_iter().map(|link| (link.index, link)).collect();
        Self { present, gone: HashMap::new() }
    }
}
