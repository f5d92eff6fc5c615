//! Links and their ports, for `rtnl_newlink` and `do_setlink` (`net/core/rtnetlink.c`).

use rtnetlink::packet_core::DefaultNla;

use super::{EncodeError, Request, packed};
use crate::{
    model::{Attribute, Link, link::ifla},
    netlink::{
        decode::AF_INET6,
        message::{nl, u32_at},
    },
};

/// `RTEXT_FILTER_SKIP_STATS`.
const SKIP_STATS: u32 = 8;
const IFLA_EXT_MASK: u16 = 29;
/// `VETH_INFO_PEER` of `include/uapi/linux/veth.h`: a `struct ifinfomsg` and attributes.
const VETH_INFO_PEER: u16 = 1;
const IFINFOMSG_LEN: usize = 16;

/// Everything that makes a link but what it is a port of.
pub(super) fn message(link: &Link) -> Result<Request, EncodeError> {
    let mut request = Request::new(nl::RTM_NEWLINK, ifinfomsg(link.index, link.flags, 0));
    request.name(&link.name);
    if link.mtu != 0 {
        request.mtu(link.mtu);
    }
    for attribute in &link.attributes {
        request.attribute(attribute)?;
    }
    if let Some(mode) = link.addr_gen_mode {
        request.addr_gen_mode(mode)?;
    }
    let mut info = Vec::new();
    if let Some(kind) = &link.kind {
        info.push(DefaultNla::new(ifla::INFO_KIND, terminated(kind)));
        info.push(DefaultNla::new(ifla::INFO_DATA, packed(ifla::INFO_DATA, &owned(&link.data)?)?));
    }
    if let Some(port) = &link.port {
        request.master(port.master);
        if let Some(kind) = &port.kind {
            let options = packed(ifla::INFO_SLAVE_DATA, &owned(&port.options)?)?;
            info.push(DefaultNla::new(ifla::INFO_SLAVE_KIND, terminated(kind)));
            info.push(DefaultNla::new(ifla::INFO_SLAVE_DATA, options));
        }
    }
    if !info.is_empty() {
        request.nest(ifla::LINKINFO, &info)?;
    }
    Ok(request)
}

impl Request {
    /// A request about a link, to which the other methods here add what is to be set.
    pub(in crate::netlink) fn of_link(kind: u16, index: u32) -> Self {
        Self::new(kind, ifinfomsg(index, 0, 0))
    }

    /// A request that sets some of a link's flags: those in `change`, to what they are in `flags`.
    pub(in crate::netlink) fn link_flags(index: u32, flags: u32, change: u32) -> Self {
        Self::new(nl::RTM_NEWLINK, ifinfomsg(index, flags & change, change))
    }

    /// Asks for one link.
    pub(in crate::netlink) fn get_link(index: u32) -> Self {
        let mut request = Self::of_link(nl::RTM_GETLINK, index);
        request.number(IFLA_EXT_MASK, SKIP_STATS);
        request
    }

    /// Asks for all links.
    pub(in crate::netlink) fn dump_links() -> Self {
        let mut request = Self::dump(nl::RTM_GETLINK, vec![0; IFINFOMSG_LEN]);
        request.number(IFLA_EXT_MASK, SKIP_STATS);
        request
    }

    /// Asks for a link of this index, down. A veth comes with its other end, `peer`.
    pub(in crate::netlink) fn create_link(link: &Link, peer: Option<&Link>) -> Result<Self, EncodeError> {
        let mut request = Self::of_link(nl::RTM_NEWLINK, link.index).with(nl::NLM_F_CREATE | nl::NLM_F_EXCL);
        for nla in made(link)? {
            request.push_nla(nla);
        }
        // IFLA_LINK of a veth is its other end, which the kernel knows by itself.
        for attribute in [ifla::LINK, ifla::LINK_NETNSID].map(|number| link.attribute(number)) {
            if let Some(attribute) = attribute.filter(|_| peer.is_none()) {
                request.attribute(attribute)?;
            }
        }
        let Some(kind) = &link.kind else { return Ok(request) };
        let data = match peer {
            Some(peer) => {
                let mut bytes = ifinfomsg(peer.index, 0, 0);
                bytes.extend(packed(VETH_INFO_PEER, &made(peer)?)?);
                vec![DefaultNla::new(VETH_INFO_PEER, bytes)]
            }
            None => owned(&accepted(kind, &complete(kind, &at_first(kind, &link.data))))?,
        };
        request.info(ifla::INFO_KIND, kind, ifla::INFO_DATA, &data)?;
        Ok(request)
    }

    /// `IFLA_IFNAME`.
    pub(in crate::netlink) fn name(&mut self, name: &str) {
        self.push_nla(DefaultNla::new(ifla::IFNAME, terminated(name)));
    }

    /// `IFLA_MTU`.
    pub(in crate::netlink) fn mtu(&mut self, mtu: u32) {
        self.number(ifla::MTU, mtu);
    }

    /// `IFLA_MASTER`, 0 for none.
    pub(in crate::netlink) fn master(&mut self, master: u32) {
        self.number(ifla::MASTER, master);
    }

    /// An attribute as the kernel has reported it.
    pub(in crate::netlink) fn attribute(&mut self, attribute: &Attribute) -> Result<(), EncodeError> {
        self.push(attribute.kind, attribute.value.to_vec())
    }

    /// `IFLA_INET6_ADDR_GEN_MODE`. The kernel sees to it only on a link that exists.
    pub(in crate::netlink) fn addr_gen_mode(&mut self, mode: u8) -> Result<(), EncodeError> {
        let setting = [DefaultNla::new(ifla::INET6_ADDR_GEN_MODE, vec![mode])];
        let family = [DefaultNla::new(AF_INET6, packed(AF_INET6, &setting)?)];
        self.nest(ifla::AF_SPEC, &family)
    }

    /// Options of the link's kind.
    pub(in crate::netlink) fn data(&mut self, kind: &str, data: &[Attribute]) -> Result<(), EncodeError> {
        self.info(ifla::INFO_KIND, kind, ifla::INFO_DATA, &owned(&accepted(kind, data))?)
    }

    /// Options of a port, by the kind of its master.
    pub(in crate::netlink) fn options(
        &mut self,
        kind: &str,
        options: &[Attribute],
    ) -> Result<(), EncodeError> {
        self.info(ifla::INFO_SLAVE_KIND, kind, ifla::INFO_SLAVE_DATA, &owned(options)?)
    }

    fn info(&mut self, kind: u16, word: &str, data: u16, entries: &[DefaultNla]) -> Result<(), EncodeError> {
        let mut info = vec![DefaultNla::new(kind, terminated(word))];
        if !entries.is_empty() {
            info.push(DefaultNla::new(data, packed(data, entries)?));
        }
        self.nest(ifla::LINKINFO, &info)
    }

    fn push_nla(&mut self, nla: DefaultNla) {
        self.attributes.push(nla);
    }
}

/// What a link is made with (`rtnl_create_link`): alias, other names, flags and the settings of IPv6 are not among it.
fn made(link: &Link) -> Result<Vec<DefaultNla>, EncodeError> {
    let mut nlas = vec![DefaultNla::new(ifla::IFNAME, terminated(&link.name))];
    if link.mtu != 0 {
        nlas.push(DefaultNla::new(ifla::MTU, link.mtu.to_ne_bytes().to_vec()));
    }
    let later = [ifla::LINK, ifla::LINK_NETNSID, ifla::IFALIAS, ifla::PROP_LIST];
    // A bridge that has lost its last port has no address; the kernel refuses to set none.
    let none = |a: &Attribute| a.number() == ifla::ADDRESS && a.value.iter().all(|&byte| byte == 0);
    let now: Vec<_> =
        link.attributes.iter().filter(|a| !later.contains(&a.number()) && !none(a)).cloned().collect();
    nlas.extend(owned(&now)?);
    Ok(nlas)
}

/// The kinds whose options go one by one to the link that exists, and what such a link is made with. A bridge
/// without VLANs reports that it does not filter them and refuses to be told so (`br_vlan_filter_toggle` without
/// `CONFIG_BRIDGE_VLAN_FILTERING`); of a bond's options some exclude others (`bond_opts`).
const MADE_WITH: [(&str, &[u16]); 2] = [("bridge", &[]), ("bond", &[1 /* IFLA_BOND_MODE */])];

/// The options that a link of this kind is made with.
fn at_first(kind: &str, data: &[Attribute]) -> Vec<Attribute> {
    let wanted = MADE_WITH.iter().find(|(name, _)| *name == kind).map(|(_, wanted)| wanted);
    data.iter().filter(|a| wanted.is_none_or(|wanted| wanted.contains(&a.number()))).cloned().collect()
}

/// `IFLA_VLAN_FLAGS`, a `struct ifla_vlan_flags`: the flags, and which of them are meant.
const VLAN_FLAGS: u16 = 2;

/// `data` with what the kernel leaves out although it is not what a new link has: a VLAN without any flag, where
/// a new one has `VLAN_FLAG_REORDER_HDR`.
pub(in crate::netlink) fn complete(kind: &str, data: &[Attribute]) -> Vec<Attribute> {
    let mut data = data.to_vec();
    if kind == "vlan" && !data.iter().any(|attribute| attribute.number() == VLAN_FLAGS) {
        let value = [0, u32::MAX].map(u32::to_ne_bytes).concat();
        data.push(Attribute { kind: VLAN_FLAGS, value: value.into() });
    }
    data
}

/// What the kernel takes of `data`, in the form in which it takes it.
fn accepted(kind: &str, data: &[Attribute]) -> Vec<Attribute> {
    /// `IFLA_MACVLAN_MACADDR_DATA`, the list of addresses of a link in source mode, needs to be told what to
    /// do with it: `IFLA_MACVLAN_MACADDR_MODE` with `MACVLAN_MACADDR_SET`.
    const MACADDR_DATA: u16 = 5;
    const MACADDR_MODE: u16 = 3;
    const MACADDR_SET: u32 = 3;
    /// `IFLA_VXLAN_TTL_INHERIT`: reported as a number, taken as a flag.
    const VXLAN_TTL_INHERIT: u16 = 28;
    /// `IFLA_VXLAN_REMCSUM_RX`: even 0 counts as a use of header bits (`vxlan_nl2conf` since 6.14).
    const VXLAN_REMCSUM_RX: u16 = 22;
    /// The VLAN flags that kernels have known for long, all but `VLAN_FLAG_BRIDGE_BINDING`. The kernel reports
    /// every bit as meant, and does nothing where it does not know one (`vlan_dev_change_flags`).
    const VLAN_KNOWN: u32 = 0xf;
    let mut sent = Vec::with_capacity(data.len() + 1);
    for attribute in data {
        match (kind, attribute.number()) {
            ("macvlan" | "macvtap", MACADDR_DATA) => {
                sent.push(Attribute { kind: MACADDR_MODE, value: MACADDR_SET.to_ne_bytes().into() });
                sent.push(attribute.clone());
            }
            ("vlan", VLAN_FLAGS) => {
                let flags = u32_at(&attribute.value, 0).unwrap_or(0);
                let value = [flags, flags | VLAN_KNOWN].map(u32::to_ne_bytes).concat();
                sent.push(Attribute { kind: VLAN_FLAGS, value: value.into() });
            }
            ("vxlan", VXLAN_REMCSUM_RX) if attribute.value.iter().all(|&byte| byte == 0) => {}
            ("vxlan", VXLAN_TTL_INHERIT) => {
                if attribute.value.iter().any(|&byte| byte != 0) {
                    sent.push(Attribute { kind: VXLAN_TTL_INHERIT, value: [].into() });
                }
            }
            _ => sent.push(attribute.clone()),
        }
    }
    sent
}

fn owned(attributes: &[Attribute]) -> Result<Vec<DefaultNla>, EncodeError> {
    attributes
        .iter()
        .map(|attribute| {
            let (number, len) = (attribute.number(), attribute.value.len());
            if len > super::VALUE_MAX {
                return Err(EncodeError::TooLong { number, len });
            }
            Ok(DefaultNla::new(attribute.kind, attribute.value.to_vec()))
        })
        .collect()
}

fn terminated(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

/// `struct ifinfomsg` of `AF_UNSPEC`.
fn ifinfomsg(index: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    for number in [index, flags, change] {
        bytes.extend(number.to_ne_bytes());
    }
    bytes
}
