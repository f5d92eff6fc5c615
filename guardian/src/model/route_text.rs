//! Routes as `ip route` prints them.

use std::fmt::Write as _;

use super::{
    attribute::Attribute,
    link::Links,
    prefix::Prefix,
    route::{Leg, Route, rt},
};

impl Route {
    /// The line that `ip route` would print, with the table where it is not the main one.
    pub fn text(&self, links: &Links) -> String {
        let mut out = String::new();
        if self.kind != rt::RTN_UNICAST {
            let _ = write!(out, "{} ", kind_word(self.kind));
        }
        out += &destination(&self.key.dst);
        if let Some(src) = self.key.src {
            let _ = write!(out, " from {}", destination(&src));
        }
        if self.key.tos != 0 {
            let _ = write!(out, " tos {:#04x}", self.key.tos);
        }
        let id = self.nexthop_id();
        if let Some(id) = id {
            let _ = write!(out, " nhid {id}");
        }
        // With a nexthop object the legs only describe it, as it was when the route was told of last.
        let legs = if id.is_some() { &[] } else { self.legs.as_slice() };
        if let [leg] = legs {
            write_leg(&mut out, leg, links);
        }
        if self.key.table != rt::TABLE_MAIN {
            match self.key.table {
                rt::TABLE_LOCAL => out += " table local",
                table => {
                    let _ = write!(out, " table {table}");
                }
            }
        }
        match self.protocol {
            rt::PROT_BOOT => {}
            rt::PROT_KERNEL => out += " proto kernel",
            rt::PROT_STATIC => out += " proto static",
            rt::PROT_RA => out += " proto ra",
            number => {
                let _ = write!(out, " proto {number}");
            }
        }
        if self.family() == super::Family::Inet {
            match self.scope {
                rt::SCOPE_UNIVERSE => {}
                rt::SCOPE_LINK => out += " scope link",
                rt::SCOPE_HOST => out += " scope host",
                rt::SCOPE_NOWHERE => out += " scope nowhere",
                number => {
                    let _ = write!(out, " scope {number}");
                }
            }
        }
        if let Some(src) = self.prefsrc() {
            let _ = write!(out, " src {src}");
        }
        if self.key.metric != 0 {
            let _ = write!(out, " metric {}", self.key.metric);
        }
        if self.flags & rt::RTNH_F_ONLINK != 0 && legs.len() <= 1 {
            out += " onlink";
        }
        if let Some(metrics) = self.attribute(rt::RTA_METRICS) {
            write_metrics(&mut out, metrics);
        }
        if legs.len() > 1 {
            for leg in legs {
                out += " nexthop";
                write_leg(&mut out, leg, links);
                let _ = write!(out, " weight {}", u16::from(leg.hops) + 1);
                if u32::from(leg.flags) & rt::RTNH_F_ONLINK != 0 {
                    out += " onlink";
                }
            }
        }
        out
    }
}

fn destination(prefix: &Prefix) -> String {
    if prefix.len() == 0 {
        "default".to_owned()
    } else if prefix.len() == prefix.family().bits() {
        prefix.addr().to_string()
    } else {
        prefix.to_string()
    }
}

fn write_leg(out: &mut String, leg: &Leg, links: &Links) {
    if let Some(encap) = leg.attributes.iter().find(|a| a.number() == rt::RTA_ENCAP_TYPE) {
        let _ = write!(out, " encap {}", encap_word(encap));
    }
    if let Some(gateway) = leg.gateway() {
        let via6 = leg.attributes.iter().any(|a| a.number() == rt::RTA_VIA);
        let _ = write!(out, " via {}{gateway}", if via6 { "inet6 " } else { "" });
    }
    if leg.oif != 0 {
        let _ = write!(out, " dev {}", links.name(leg.oif));
    }
}

/// The type words of iproute2's `rtnl_rtntype_n2a`.
fn kind_word(kind: u8) -> String {
    match kind {
        rt::RTN_LOCAL => "local".into(),
        rt::RTN_BROADCAST => "broadcast".into(),
        rt::RTN_ANYCAST => "anycast".into(),
        rt::RTN_MULTICAST => "multicast".into(),
        rt::RTN_BLACKHOLE => "blackhole".into(),
        rt::RTN_UNREACHABLE => "unreachable".into(),
        rt::RTN_PROHIBIT => "prohibit".into(),
        rt::RTN_THROW => "throw".into(),
        rt::RTN_NAT => "nat".into(),
        other => other.to_string(),
    }
}

/// `enum lwtunnel_encap_types` of `include/uapi/linux/lwtunnel.h`.
fn encap_word(encap: &Attribute) -> String {
    let number = <[u8; 2]>::try_from(encap.value.as_ref()).map_or(0, u16::from_ne_bytes);
    match number {
        1 => "mpls".into(),
        2 => "ip".into(),
        3 => "ila".into(),
        4 => "ip6".into(),
        5 => "seg6".into(),
        6 => "bpf".into(),
        7 => "seg6local".into(),
        8 => "rpl".into(),
        9 => "ioam6".into(),
        10 => "xfrm".into(),
        other => other.to_string(),
    }
}

/// `RTAX_*` of `include/uapi/linux/rtnetlink.h`, by number.
const METRICS: [&str; 18] = [
    "",
    "lock",
    "mtu",
    "window",
    "rtt",
    "rttvar",
    "ssthresh",
    "cwnd",
    "advmss",
    "reordering",
    "hoplimit",
    "initcwnd",
    "features",
    "rto_min",
    "initrwnd",
    "quickack",
    "congctl",
    "fastopen_no_cookie",
];

fn write_metrics(out: &mut String, metrics: &Attribute) {
    let mut lock = 0;
    let mut rest: &[u8] = &metrics.value;
    let mut found = Vec::new();
    while let Some((kind, value, tail)) = next_attribute(rest) {
        rest = tail;
        match (kind, <[u8; 4]>::try_from(value)) {
            (1, Ok(bits)) => lock = u32::from_ne_bytes(bits),
            (16, _) => {
                let name = value.split(|&b| b == 0).next().unwrap_or_default();
                found.push((kind, String::from_utf8_lossy(name).into_owned()));
            }
            (_, Ok(number)) => found.push((kind, u32::from_ne_bytes(number).to_string())),
            _ => {}
        }
    }
    for (kind, value) in found {
        let Some(name) = METRICS.get(usize::from(kind)) else {
            continue;
        };
        let locked = if kind < 32 && lock & (1 << kind) != 0 { "lock " } else { "" };
        let _ = write!(out, " {name} {locked}{value}");
    }
}

/// The next attribute of a nest (`struct nlattr`: length, type, value, padded to 4): type, value, rest.
fn next_attribute(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let len = usize::from(u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]));
    let kind = u16::from_ne_bytes([*bytes.get(2)?, *bytes.get(3)?]) & 0x3fff;
    let value = bytes.get(4..len)?;
    let rest = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Link, RouteKey};

    fn attribute(kind: u16, value: &[u8]) -> Attribute {
        Attribute { kind, value: value.into() }
    }

    #[test]
    fn reads_as_ip_would_print_it() {
        let links: Links =
            [Link { index: 2, name: "eth0".into(), flags: 1, ..Link::default() }].into_iter().collect();
        let mut route = Route {
            key: RouteKey {
                table: rt::TABLE_MAIN,
                dst: "10.244.2.0/24".parse().unwrap(),
                src: None,
                tos: 0,
                metric: 0,
            },
            protocol: 17,
            scope: rt::SCOPE_UNIVERSE,
            kind: rt::RTN_UNICAST,
            flags: 0,
            expires: false,
            legs: vec![Leg {
                oif: 2,
                attributes: vec![attribute(rt::RTA_GATEWAY, &[10, 0, 0, 11])],
                ..Leg::default()
            }],
            attributes: vec![],
        };
        assert_eq!(route.text(&links), "10.244.2.0/24 via 10.0.0.11 dev eth0 proto 17");

        route.attributes.push(attribute(rt::RTA_METRICS | 0x8000, &{
            let mut nest = vec![8, 0, 1, 0, 4, 0, 0, 0];
            nest.extend([8, 0, 2, 0]);
            nest.extend(1400u32.to_ne_bytes());
            nest
        }));
        route.key.table = 300;
        route.legs.push(Leg { oif: 9, hops: 4, ..Leg::default() });
        assert_eq!(
            route.text(&links),
            "10.244.2.0/24 table 300 proto 17 mtu lock 1400 \
             nexthop via 10.0.0.11 dev eth0 weight 1 nexthop dev if9 weight 5"
        );
    }
}
