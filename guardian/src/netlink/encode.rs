//! From a route to the request that makes the kernel hold it, or drop it.
//!
//! The header is netlink-packet-route's, every attribute goes out in the bytes it came in
//! (`DefaultNla` of netlink-packet-core): nexthop ids and encapsulations nobody here knows survive.
//! Not netlink-packet-route's `RouteAttribute::Other`, which drops `NLA_F_NESTED` from the type, and
//! the kernel refuses some encapsulations (ioam6, rpl, xfrm) without it.

use std::net::IpAddr;

use rtnetlink::packet_core::{DefaultNla, Emitable, NetlinkSerializable};
use rtnetlink::packet_route::route::{RouteFlags, RouteHeader, RouteType};

use super::message::nl;
use crate::model::{Attribute, Family, Leg, Prefix, Route, route::rt};

/// The most that an attribute's 16-bit length leaves for its value.
const VALUE_MAX: usize = u16::MAX as usize - 4;
const RTNEXTHOP_LEN: usize = 8;

/// Why a route cannot be put into a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// No netlink attribute can be so long.
    #[error("attribute {number} has {len} bytes; netlink carries at most {VALUE_MAX}")]
    TooLong {
        /// The attribute's type.
        number: u16,
        /// Bytes in its value.
        len: usize,
    },
    /// IPv6 routes of metric 0 are the kernel's own (`addrconf`). From outside it takes 0 as 1024 when
    /// it adds (`ip6_route_info_create`) and as any when it deletes: it would be another route.
    #[error("an IPv6 route of metric 0 comes from an address; only adding the address brings it back")]
    MetricZero,
}

impl EncodeError {
    /// The error number the kernel would have used.
    pub const fn errno(self) -> i32 {
        match self {
            Self::TooLong { .. } => libc::EMSGSIZE,
            Self::MetricZero => libc::EOPNOTSUPP,
        }
    }
}

/// An `RTM_NEWROUTE` or `RTM_DELROUTE` request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    kind: u16,
    flags: u16,
    header: RouteHeader,
    attributes: Vec<DefaultNla>,
}

impl Request {
    /// Asks the kernel to hold `route`. `flags` are those of a request to add: `NLM_F_CREATE` with
    /// `NLM_F_EXCL`, `NLM_F_APPEND` or `NLM_F_REPLACE`.
    pub fn set(route: &Route, flags: u16) -> Result<Self, EncodeError> {
        let mut request = Self::about(nl::RTM_NEWROUTE, route)?;
        request.flags |= flags;
        match route.legs.as_slice() {
            // The kernel refuses both a nexthop object and what it stands for.
            _ if route.nexthop_id().is_some() => {}
            [only] => request.only_leg(only)?,
            legs => request.multipath(legs)?,
        }
        Ok(request)
    }

    /// Asks the kernel to drop `route`, and no other of its key: `fib_table_delete` and `ip6_route_del`
    /// compare what the request names.
    pub fn delete(route: &Route) -> Result<Self, EncodeError> {
        let mut request = Self::about(nl::RTM_DELROUTE, route)?;
        match (route.family(), route.legs.as_slice()) {
            _ if route.nexthop_id().is_some() => {
                // With a blackhole nexthop object the kernel reports `blackhole` but holds `unicast`.
                request.header.kind = RouteType::Unspec;
            }
            (Family::Inet, [only]) => request.only_leg(only)?,
            // IPv6: a route named by its device alone takes its siblings along, a leg of a multipath
            // request does not (`fc_delete_all_nh` in `inet6_rtm_delroute`).
            (_, legs) => request.multipath(legs)?,
        }
        Ok(request)
    }

    /// `nlmsg_flags`: the kernel is to acknowledge the request and to echo its notification.
    pub const fn flags(&self) -> u16 {
        nl::NLM_F_REQUEST | nl::NLM_F_ACK | nl::NLM_F_ECHO | self.flags
    }

    fn about(kind: u16, route: &Route) -> Result<Self, EncodeError> {
        let key = &route.key;
        if key.family() == Family::Inet6 && key.metric == 0 {
            return Err(EncodeError::MetricZero);
        }
        // The kernel itself takes these from the nexthop object where there is one.
        let flags = if route.nexthop_id().is_some() { 0 } else { route.flags };
        let header = RouteHeader {
            address_family: key.family().number().into(),
            destination_prefix_length: key.dst.len(),
            source_prefix_length: key.src.map_or(0, |src| src.len()),
            tos: key.tos,
            // RTA_TABLE decides; RT_TABLE_UNSPEC where the number does not fit.
            table: u8::try_from(key.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC),
            protocol: route.protocol.into(),
            scope: route.scope.into(),
            kind: route.kind.into(),
            flags: RouteFlags::from_bits_retain(flags),
        };
        let mut request = Self { kind, flags: 0, header, attributes: Vec::with_capacity(8) };
        request.prefix(rt::RTA_DST, Some(&key.dst));
        request.prefix(rt::RTA_SRC, key.src.as_ref());
        request.number(rt::RTA_TABLE, key.table);
        if key.metric != 0 {
            request.number(rt::RTA_PRIORITY, key.metric);
        }
        for attribute in &route.attributes {
            request.push(attribute.kind, attribute.value.to_vec())?;
        }
        Ok(request)
    }

    fn only_leg(&mut self, leg: &Leg) -> Result<(), EncodeError> {
        if leg.oif != 0 {
            self.number(rt::RTA_OIF, leg.oif);
        }
        for (kind, value) in leg_attributes(leg) {
            self.push(kind, value)?;
        }
        Ok(())
    }

    /// `RTA_MULTIPATH`: a row of `struct rtnexthop`, each with attributes of its own.
    fn multipath(&mut self, legs: &[Leg]) -> Result<(), EncodeError> {
        if legs.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(legs.len() * 2 * RTNEXTHOP_LEN);
        for leg in legs {
            let nested: Vec<_> =
                leg_attributes(leg).map(|(kind, value)| DefaultNla::new(kind, value)).collect();
            if let Some(too_long) = leg.attributes.iter().find(|a| a.value.len() > VALUE_MAX) {
                return Err(EncodeError::TooLong { number: too_long.number(), len: too_long.value.len() });
            }
            let start = bytes.len();
            let len = RTNEXTHOP_LEN + nested.as_slice().buffer_len();
            let Ok(len16) = u16::try_from(len) else {
                return Err(EncodeError::TooLong { number: rt::RTA_MULTIPATH, len });
            };
            bytes.extend(len16.to_ne_bytes());
            bytes.extend([leg.flags, leg.hops]);
            bytes.extend(leg.oif.to_ne_bytes());
            bytes.resize(start + len, 0);
            if let Some(room) = bytes.get_mut(start + RTNEXTHOP_LEN..) {
                nested.as_slice().emit(room);
            }
        }
        self.push(rt::RTA_MULTIPATH, bytes)
    }

    fn prefix(&mut self, number: u16, prefix: Option<&Prefix>) {
        let value = match prefix.filter(|prefix| prefix.len() != 0).map(Prefix::addr) {
            None => return,
            Some(IpAddr::V4(addr)) => addr.octets().to_vec(),
            Some(IpAddr::V6(addr)) => addr.octets().to_vec(),
        };
        self.attributes.push(DefaultNla::new(number, value));
    }

    fn number(&mut self, number: u16, value: u32) {
        self.attributes.push(DefaultNla::new(number, value.to_ne_bytes().to_vec()));
    }

    fn push(&mut self, kind: u16, value: Vec<u8>) -> Result<(), EncodeError> {
        if value.len() > VALUE_MAX {
            return Err(EncodeError::TooLong { number: kind & nl::NLA_TYPE_MASK, len: value.len() });
        }
        self.attributes.push(DefaultNla::new(kind, value));
        Ok(())
    }
}

impl NetlinkSerializable for Request {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.header.buffer_len() + self.attributes.as_slice().buffer_len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (header, rest) = buffer.split_at_mut(self.header.buffer_len());
        self.header.emit(header);
        self.attributes.as_slice().emit(rest);
    }
}

/// The attributes of a leg as the kernel takes them.
fn leg_attributes(leg: &Leg) -> impl Iterator<Item = (u16, Vec<u8>)> + '_ {
    let encap = leg.attributes.iter().find(|a| a.number() == rt::RTA_ENCAP_TYPE);
    let options = encap.is_some_and(has_options);
    leg.attributes.iter().map(move |attribute| {
        let mut value = attribute.value.to_vec();
        if attribute.number() != rt::RTA_ENCAP {
            return (attribute.kind, value);
        }
        if options {
            mark_options(&mut value);
        }
        (attribute.kind | nl::NLA_F_NESTED, value)
    })
}

/// `LWTUNNEL_ENCAP_IP` and `LWTUNNEL_ENCAP_IP6` of `include/uapi/linux/lwtunnel.h`.
fn has_options(encap_type: &Attribute) -> bool {
    let number = <[u8; 2]>::try_from(encap_type.value.as_ref()).map_or(0, u16::from_ne_bytes);
    matches!(number, 2 | 4)
}

/// The kernel reports tunnel options (geneve, vxlan, erspan) without `NLA_F_NESTED` and refuses them
/// without it: `ip_tun_fill_encap_opts` against `ip_tun_parse_opts` in `net/ipv4/ip_tunnel_core.c`.
fn mark_options(encap: &mut [u8]) {
    /// `LWTUNNEL_IP_OPTS`, and `LWTUNNEL_IP6_OPTS` likewise.
    const OPTIONS: u16 = 8;
    each_attribute(encap, &mut |kind, value| {
        if *kind & nl::NLA_TYPE_MASK == OPTIONS {
            *kind |= nl::NLA_F_NESTED;
            each_attribute(value, &mut |kind, _| *kind |= nl::NLA_F_NESTED);
        }
    });
}

/// Calls `visit` with type and value of each well-formed attribute of a nest, and writes the type back.
fn each_attribute(mut bytes: &mut [u8], visit: &mut dyn FnMut(&mut u16, &mut [u8])) {
    while let Some((&mut [len0, len1, ref mut kind0, ref mut kind1], rest)) =
        bytes.split_first_chunk_mut::<4>()
    {
        let len = usize::from(u16::from_ne_bytes([len0, len1]));
        let Some(value) = len.checked_sub(4).and_then(|len| rest.get_mut(..len)) else {
            return;
        };
        let mut kind = u16::from_ne_bytes([*kind0, *kind1]);
        visit(&mut kind, value);
        [*kind0, *kind1] = kind.to_ne_bytes();
        bytes = rest.get_mut(len.next_multiple_of(4) - 4..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunnel_options_go_out_as_nests() {
        let attribute = |kind: u16, value: &[u8]| Attribute { kind, value: value.into() };
        // LWTUNNEL_IP_ID, then LWTUNNEL_IP_OPTS with one LWTUNNEL_IP_OPTS_GENEVE.
        let encap = [8, 0, 1, 0, 1, 2, 3, 4, 12, 0, 8, 0, 8, 0, 1, 0, 9, 9, 9, 9];
        let mut leg = Leg {
            oif: 2,
            attributes: vec![
                attribute(rt::RTA_ENCAP_TYPE, &2u16.to_ne_bytes()),
                attribute(rt::RTA_ENCAP, &encap),
            ],
            ..Leg::default()
        };
        let sent: Vec<_> = leg_attributes(&leg).collect();
        let [(_, _), (kind, value)] = sent.as_slice() else { panic!("{sent:?}") };
        assert_eq!(*kind, rt::RTA_ENCAP | nl::NLA_F_NESTED);
        let flag = (nl::NLA_F_NESTED >> 8) as u8;
        let mut marked = encap;
        if cfg!(target_endian = "little") {
            (marked[11], marked[15]) = (flag, flag);
        } else {
            (marked[10], marked[14]) = (flag, flag);
        }
        assert_eq!(value, &marked);

        // Another type's attribute 8 is no nest of options.
        leg.attributes[0] = attribute(rt::RTA_ENCAP_TYPE, &5u16.to_ne_bytes());
        assert_eq!(leg_attributes(&leg).last().unwrap().1, encap);
    }
}
