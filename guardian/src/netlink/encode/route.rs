//! Routes, for `inet_rtm_newroute` (`net/ipv4/fib_frontend.c`) and `inet6_rtm_newroute` (`net/ipv6/route.c`).

use rtnetlink::packet_core::{DefaultNla, Emitable};
use rtnetlink::packet_route::route::{RouteFlags, RouteHeader, RouteType};

use super::{EncodeError, Request, VALUE_MAX, encapsulation};
use crate::{
    model::{Family, Leg, Route, route::rt},
    netlink::message::nl,
};

const RTNEXTHOP_LEN: usize = 8;

/// Asks the kernel to hold `route`.
pub(super) fn set(route: &Route) -> Result<Request, EncodeError> {
    let mut request = about(nl::RTM_NEWROUTE, route, route.kind.into())?;
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
pub(super) fn delete(route: &Route) -> Result<Request, EncodeError> {
    let named = route.nexthop_id().is_some();
    // With a blackhole nexthop object the kernel reports `blackhole` but holds `unicast`.
    let kind = if named { RouteType::Unspec } else { route.kind.into() };
    let mut request = about(nl::RTM_DELROUTE, route, kind)?;
    match (route.family(), route.legs.as_slice()) {
        _ if named => {}
        (Family::Inet, [only]) => request.only_leg(only)?,
        // IPv6: a route named by its device alone takes its siblings along, a leg of a multipath
        // request does not (`fc_delete_all_nh` in `inet6_rtm_delroute`).
        (_, legs) => request.multipath(legs)?,
    }
    Ok(request)
}

/// All that is known of `route`, also what the kernel would not take.
pub(super) fn message(route: &Route) -> Result<Request, EncodeError> {
    let mut request = header(nl::RTM_NEWROUTE, route, route.kind.into(), route.flags)?;
    if route.expires {
        request.number(rt::RTA_EXPIRES, 1);
    }
    match route.legs.as_slice() {
        [only] if only.hops == 0 && only.flags == 0 => {
            if only.oif != 0 {
                request.number(rt::RTA_OIF, only.oif);
            }
            for attribute in &only.attributes {
                request.push(attribute.kind, attribute.value.to_vec())?;
            }
            Ok(request)
        }
        legs => {
            request.legs(legs, |leg| leg.attributes.iter().map(|a| (a.kind, a.value.to_vec())).collect())?;
            Ok(request)
        }
    }
}

fn about(kind: u16, route: &Route, type_: RouteType) -> Result<Request, EncodeError> {
    if route.family() == Family::Inet6 && route.key.metric == 0 {
        return Err(EncodeError::MetricZero);
    }
    // The kernel itself takes these from the nexthop object where there is one.
    let flags = if route.nexthop_id().is_some() { 0 } else { route.flags };
    header(kind, route, type_, flags)
}

fn header(kind: u16, route: &Route, type_: RouteType, flags: u32) -> Result<Request, EncodeError> {
    let key = &route.key;
    let header = RouteHeader {
        address_family: key.family().number().into(),
        destination_prefix_length: key.dst.len(),
        source_prefix_length: key.src.map_or(0, |src| src.len()),
        tos: key.tos,
        // RTA_TABLE decides; RT_TABLE_UNSPEC where the number does not fit.
        table: u8::try_from(key.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC),
        protocol: route.protocol.into(),
        scope: route.scope.into(),
        kind: type_,
        flags: RouteFlags::from_bits_retain(flags),
    };
    let mut fixed = vec![0; header.buffer_len()];
    header.emit(&mut fixed);
    let mut request = Request::new(kind, fixed);
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

impl Request {
    /// Asks for the routes of a table, or of all, with a `struct rtmsg` that names the family.
    pub(in crate::netlink) fn dump_routes(fixed: Vec<u8>, table: Option<u32>) -> Self {
        let mut request = Self::dump(nl::RTM_GETROUTE, fixed);
        if let Some(table) = table {
            request.number(rt::RTA_TABLE, table);
        }
        request
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

    fn multipath(&mut self, legs: &[Leg]) -> Result<(), EncodeError> {
        self.legs(legs, |leg| leg_attributes(leg).collect())
    }

    /// `RTA_MULTIPATH`: a row of `struct rtnexthop`, each with attributes of its own.
    fn legs(
        &mut self,
        legs: &[Leg],
        attributes: impl Fn(&Leg) -> Vec<(u16, Vec<u8>)>,
    ) -> Result<(), EncodeError> {
        if legs.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(legs.len() * 2 * RTNEXTHOP_LEN);
        for leg in legs {
            if let Some(too_long) = leg.attributes.iter().find(|a| a.value.len() > VALUE_MAX) {
                return Err(EncodeError::TooLong { number: too_long.number(), len: too_long.value.len() });
            }
            let nested: Vec<_> =
                attributes(leg).into_iter().map(|(kind, value)| DefaultNla::new(kind, value)).collect();
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
}

/// The attributes of a leg as the kernel takes them.
fn leg_attributes(leg: &Leg) -> impl Iterator<Item = (u16, Vec<u8>)> + '_ {
    encapsulation::sent(&leg.attributes, rt::RTA_ENCAP_TYPE, rt::RTA_ENCAP)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Attribute;

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
