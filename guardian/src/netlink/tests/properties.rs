//! Nothing that arrives makes the decoder panic, and nothing is lost on the way out and back.

use proptest::{collection::vec, prelude::*};

use crate::{
    model::{Attribute, Family, Leg, Notice, Prefix, Route, RouteKey, route::rt},
    netlink::{decode, encode::Request, frames, message::nl, wire::push},
};

/// The datagram of a request.
fn bytes(request: &Request) -> Vec<u8> {
    let mut bytes = Vec::new();
    push(&mut bytes, request, 1);
    bytes
}

fn attribute(kinds: &'static [u16]) -> impl Strategy<Value = Attribute> {
    (prop::sample::select(kinds), vec(any::<u8>(), 0..40))
        .prop_map(|(kind, value)| Attribute { kind, value: value.into() })
}

fn sorted(mut attributes: Vec<Attribute>) -> Vec<Attribute> {
    attributes.sort_by_key(Attribute::number);
    attributes
}

fn leg() -> impl Strategy<Value = Leg> {
    const KINDS: &[u16] = &[
        rt::RTA_GATEWAY,
        rt::RTA_VIA,
        rt::RTA_FLOW,
        rt::RTA_NEWDST,
        rt::RTA_ENCAP_TYPE,
        rt::RTA_ENCAP | nl::NLA_F_NESTED,
    ];
    (1u32.., any::<u8>(), prop::sample::select(vec![0u8, 4]), vec(attribute(KINDS), 0..4))
        .prop_map(|(oif, hops, flags, attributes)| Leg { oif, hops, flags, attributes: sorted(attributes) })
}

prop_compose! {
    fn route()(
        family in prop::sample::select(Family::ALL.to_vec()),
        addr in any::<[u8; 16]>(),
        src in any::<[u8; 16]>(),
        lens in any::<(u8, u8)>(),
        key in (any::<u32>(), any::<u8>(), 1u32..),
        header in (any::<u8>(), any::<u8>(), any::<u8>(), prop::sample::select(vec![0u32, 4])),
        mut legs in vec(leg(), 0..5),
        rest in vec(attribute(&[rt::RTA_PREFSRC, rt::RTA_METRICS, 10, rt::RTA_PREF, 24, 27, 0x804d, 999]), 0..5),
    ) -> Route {
        let prefix = |bytes: [u8; 16], len: u8| match family {
            Family::Inet => Prefix::new([bytes[0], bytes[1], bytes[2], bytes[3]].into(), len % 33),
            Family::Inet6 => Prefix::new(bytes.into(), len % 129),
        }
        .unwrap();
        if let [only] = legs.as_mut_slice() {
            (only.hops, only.flags) = (0, 0);
        }
        if family == Family::Inet6 {
            legs.sort();
        }
        Route {
            key: RouteKey {
                table: key.0,
                dst: prefix(addr, lens.0),
                src: Some(prefix(src, lens.1)).filter(|src| src.len() != 0),
                tos: key.1,
                metric: key.2,
            },
            protocol: header.0,
            scope: header.1,
            kind: header.2,
            flags: header.3,
            expires: false,
            legs,
            attributes: sorted(rest),
        }
    }
}

fn decode_all(bytes: &[u8]) {
    for frame in frames(bytes).flatten() {
        let _ = decode(&frame);
    }
}

proptest! {
    #[test]
    fn a_route_survives_the_way_out_and_back(route in route(), flags in 0u16..0x1000) {
        let bytes = bytes(&Request::set(&route, flags).unwrap());
        let frame = frames(&bytes).next().unwrap().unwrap();
        prop_assert_eq!(frame.header.kind, nl::RTM_NEWROUTE);
        let Some(Notice::RouteSet { route: back, replaced, .. }) = decode(&frame).unwrap() else {
            panic!("no route");
        };
        prop_assert_eq!(replaced, flags & nl::NLM_F_REPLACE != 0);
        prop_assert!(back.same(&route), "{:#?}\n{:#?}", back, route);
    }

    #[test]
    fn random_bytes_never_panic(kind in any::<u16>(), known in any::<bool>(), payload in vec(any::<u8>(), 0..300)) {
        const KNOWN: [u16; 8] = [16, 17, 20, 21, 24, 25, 104, 105];
        decode_all(&payload);
        let kind = if known { KNOWN[usize::from(kind) % 8] } else { kind };
        let mut message = (16 + payload.len() as u32).to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend([0; 10]);
        message.extend(&payload);
        decode_all(&message);
        // The same with a family that is decoded.
        for family in [0, 2, 10] {
            if let Some(first) = message.get_mut(16) {
                *first = family;
            }
            decode_all(&message);
        }
    }

    #[test]
    fn cut_and_spoilt_messages_never_panic(route in route(), cut in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = bytes(&Request::set(&route, 0).unwrap());
        let spoil = at.index(bytes.len());
        bytes[spoil] = byte;
        decode_all(&bytes);
        // Cut, but with a length that says so: the attributes are what is broken.
        let len = 16 + cut.index(bytes.len() - 15);
        bytes.truncate(len);
        bytes[..4].copy_from_slice(&(len as u32).to_ne_bytes());
        decode_all(&bytes);
    }
}

#[test]
fn every_header_value_survives_netlink_packet_route() {
    use rtnetlink::packet_route::{
        AddressFamily,
        route::{RouteProtocol, RouteScope, RouteType},
    };
    for value in 0..=u8::MAX {
        assert_eq!(u8::from(RouteProtocol::from(value)), value);
        assert_eq!(u8::from(RouteScope::from(value)), value);
        assert_eq!(u8::from(RouteType::from(value)), value);
        assert_eq!(u8::from(AddressFamily::from(value)), value);
    }
}
