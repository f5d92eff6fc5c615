//! Nexthop objects and groups of them.

use std::{fmt::Write as _, net::IpAddr};

use super::{attribute::Attribute, link::Links};

/// The numbers of `include/uapi/linux/nexthop.h` that the guardian reasons with.
#[allow(missing_docs, reason = "the kernel's names say it")]
pub mod nha {
    pub const ID: u16 = 1;
    pub const GROUP: u16 = 2;
    pub const GROUP_TYPE: u16 = 3;
    pub const BLACKHOLE: u16 = 4;
    pub const OIF: u16 = 5;
    pub const GATEWAY: u16 = 6;
    pub const FDB: u16 = 11;
}

/// A nexthop object as the kernel would take it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nexthop {
    /// `NHA_ID`.
    pub id: u32,
    /// `nh_family`, `AF_UNSPEC` (0) for groups.
    pub family: u8,
    /// `nh_protocol`: who made it, by number.
    pub protocol: u8,
    /// `nh_flags`, of which only `RTNH_F_ONLINK` is kept.
    pub flags: u32,
    /// The outgoing interface, 0 where there is none.
    pub oif: u32,
    /// Every other attribute, by type.
    pub attributes: Vec<Attribute>,
}

impl Nexthop {
    /// The first attribute of this type.
    pub fn attribute(&self, number: u16) -> Option<&Attribute> {
        self.attributes.iter().find(|a| a.number() == number)
    }

    /// The ids of the members of a group: `NHA_GROUP` is a row of `struct nexthop_grp`, eight bytes each.
    pub fn members(&self) -> impl Iterator<Item = u32> + '_ {
        let group = self.attribute(nha::GROUP).map(|a| a.value.as_ref()).unwrap_or_default();
        group.chunks_exact(8).filter_map(|member| member.first_chunk().copied().map(u32::from_ne_bytes))
    }

    /// The gateway, if it has one.
    pub fn gateway(&self) -> Option<IpAddr> {
        self.attribute(nha::GATEWAY).and_then(Attribute::as_addr)
    }

    /// The line of `ip nexthop`, in short.
    pub fn text(&self, links: &Links) -> String {
        let mut out = format!("id {}", self.id);
        let members: Vec<String> = self.members().map(|id| id.to_string()).collect();
        if !members.is_empty() {
            let _ = write!(out, " group {}", members.join("/"));
        }
        if self.attribute(nha::BLACKHOLE).is_some() {
            out += " blackhole";
        }
        if let Some(gateway) = self.gateway() {
            let _ = write!(out, " via {gateway}");
        }
        if self.oif != 0 {
            let _ = write!(out, " dev {}", links.name(self.oif));
        }
        if self.protocol != 0 {
            let _ = write!(out, " proto {}", self.protocol);
        }
        out
    }
}
