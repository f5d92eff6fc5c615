//! Nothing that arrives makes the decoder panic, and nothing is lost on the way out and back.

use std::net::IpAddr;

use proptest::{collection::vec, prelude::*};

use crate::{
    model::{
        Address, AddressKey, Attribute, Family, Leg, Link, Nexthop, Notice, Object, Port, Prefix, Route,
        RouteKey, Rule, address::ifa, route::rt,
    },
    netlink::{decode, encode::Request, frames, message, message::nl, wire::push},
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

fn address_of(family: Family, bytes: [u8; 16]) -> IpAddr {
    match family {
        Family::Inet => [bytes[0], bytes[1], bytes[2], bytes[3]].into(),
        Family::Inet6 => bytes.into(),
    }
}

prop_compose! {
    fn address()(
        family in prop::sample::select(Family::ALL.to_vec()),
        local in any::<[u8; 16]>(),
        peer in any::<[u8; 16]>(),
        link in any::<u32>(),
        numbers in any::<(u8, u8, u32)>(),
        tentative in any::<bool>(),
        lifetime in 0..3,
        rest in vec(attribute(&[ifa::LABEL, ifa::BROADCAST, ifa::RT_PRIORITY, 11, 999]), 0..4),
    ) -> Object {
        let (len, scope, flags) = numbers;
        let mut rest = rest;
        if lifetime == 2 {
            let deprecated = [0, u32::MAX, 0, 0].map(u32::to_ne_bytes).concat();
            rest.push(Attribute { kind: ifa::CACHEINFO, value: deprecated.into() });
        }
        Object::Address(Address {
            key: AddressKey {
                link,
                local: address_of(family, local),
                len: len % (family.bits() + 1),
                peer: address_of(family, peer),
            },
            scope,
            flags: flags & !(ifa::F_VOLATILE | 4),
            tentative,
            expires: lifetime == 1,
            attributes: sorted(rest),
        })
    }
}

prop_compose! {
    fn rule()(
        family in prop::sample::select(Family::ALL.to_vec()),
        dst in any::<([u8; 16], u8)>(),
        src in any::<([u8; 16], u8)>(),
        numbers in any::<(u32, u32, u8, bool, u8)>(),
        rest in vec(attribute(&[3, 4, 10, 14, 16, 17, 19, 20, 21, 22, 23, 24, 999]), 0..4),
    ) -> Object {
        let prefix = |(bytes, len): ([u8; 16], u8)| {
            Prefix::new(address_of(family, bytes), len % (family.bits() + 1)).filter(|prefix| prefix.len() != 0)
        };
        let (priority, table, action, invert, tos) = numbers;
        Object::Rule(Rule {
            family,
            priority,
            table,
            action,
            flags: if invert { 2 } else { 0 },
            tos,
            dst: prefix(dst),
            src: prefix(src),
            attributes: sorted(rest),
        })
    }
}

prop_compose! {
    fn nexthop()(
        numbers in any::<(u32, u8, u8, u32)>(),
        onlink in any::<bool>(),
        rest in vec(attribute(&[2, 3, 4, 6, 7, 8 | nl::NLA_F_NESTED, 11, 999]), 0..4),
    ) -> Object {
        let (id, family, protocol, oif) = numbers;
        let flags = if onlink { 4 } else { 0 };
        Object::Nexthop(Nexthop { id, family, protocol, flags, oif, attributes: sorted(rest) })
    }
}

prop_compose! {
    fn link()(
        numbers in any::<(u32, u32, u32)>(),
        name in "[a-z0-9]{1,15}",
        kind in prop::option::of("[a-z]{1,9}x"),
        addr_gen_mode in any::<Option<u8>>(),
        data in vec(attribute(&[1, 2, 5, 20, 999]), 0..4),
        rest in vec(attribute(&[1, 2, 5, 13, 20, 27, 31, 32, 37, 0x34 | nl::NLA_F_NESTED]), 0..6),
        master in prop::option::of((any::<u32>(), prop::option::of(Just("bridge")))),
        options in vec(attribute(&[2, 3, 4, 8, 33]), 0..4),
    ) -> Object {
        let (index, flags, mtu) = numbers;
        let port = master.map(|(master, kind)| Port {
            link: index,
            master,
            kind: kind.map(Into::into),
            options: if kind.is_some() { sorted(options) } else { Vec::new() },
        });
        let data = if kind.is_some() { sorted(data) } else { Vec::new() };
        let kind = kind.map(Into::into);
        Object::Link(Link { index, name, flags, mtu, kind, data, addr_gen_mode, attributes: sorted(rest), port })
    }
}

/// What a message tells of.
fn told(bytes: &[u8]) -> Object {
    let frame = frames(bytes).next().unwrap().unwrap();
    match decode(&frame).unwrap() {
        Some(Notice::Set { object, .. }) => object,
        other => panic!("{other:?}"),
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
        let bytes = bytes(&Request::set(&route.clone().into(), flags).unwrap());
        let frame = frames(&bytes).next().unwrap().unwrap();
        prop_assert_eq!(frame.header.kind, nl::RTM_NEWROUTE);
        let Some(Notice::Set { object: Object::Route(back), replaced, .. }) = decode(&frame).unwrap() else {
            panic!("no route");
        };
        prop_assert_eq!(replaced, flags & nl::NLM_F_REPLACE != 0);
        prop_assert!(back.same(&route), "{:#?}\n{:#?}", back, route);
    }

    #[test]
    fn a_request_asks_for_the_object(object in prop_oneof![address(), rule(), nexthop()]) {
        let bytes = bytes(&Request::set(&object, nl::NLM_F_CREATE).unwrap());
        let back = told(&bytes);
        let object = match object {
            // Which address is secondary is the kernel's to say.
            Object::Address(asked) => Object::Address(Address {
                flags: asked.flags & !(ifa::F_SECONDARY | 0x20),
                tentative: false,
                expires: false,
                ..asked
            }),
            other => other,
        };
        // A deprecated address is asked for by its lifetimes.
        if let (Object::Address(back), Object::Address(asked)) = (&back, &object) {
            let number = |address: &Address| address.attributes.iter().filter(|a| a.number() != 6).count();
            prop_assert_eq!(number(back), number(asked));
            prop_assert_eq!(Address { attributes: vec![], ..back.clone() }, Address { attributes: vec![], ..asked.clone() });
        } else {
            prop_assert_eq!(&back, &object);
        }
    }

    #[test]
    fn a_message_tells_all_of_an_object(
        object in prop_oneof![route().prop_map(Object::Route), address(), rule(), nexthop(), link()],
        expires in any::<bool>(),
    ) {
        let object = match object {
            Object::Route(route) => Object::Route(Route { expires, ..route }),
            other => other,
        };
        prop_assert_eq!(told(&message(&object).unwrap()), object);
    }

    #[test]
    fn random_bytes_never_panic(kind in any::<u16>(), known in any::<bool>(), payload in vec(any::<u8>(), 0..300)) {
        const KNOWN: [u16; 10] = [16, 17, 20, 21, 24, 25, 32, 33, 104, 105];
        decode_all(&payload);
        let kind = if known { KNOWN[usize::from(kind) % 10] } else { kind };
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
        let mut bytes = bytes(&Request::set(&route.into(), 0).unwrap());
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
