//! Builders for the tests of the core.

use crate::model::{
    Address, AddressKey, Attribute, Family, Leg, Link, Notice, Object, Prefix, Route, RouteKey, route::rt,
};

pub fn link(index: u32, name: &str) -> Link {
    Link { index, name: name.into(), flags: 1, ..Link::default() }
}

/// The announcement of an object that is there.
pub fn set(object: impl Into<Object>) -> Notice {
    Notice::Set { object: object.into(), replaced: false, appended: false }
}

/// The announcement of a route that has taken another's place.
pub fn replaced(object: impl Into<Object>) -> Notice {
    Notice::Set { object: object.into(), replaced: true, appended: false }
}

/// The announcement of a route that stands beside others.
pub fn appended(object: impl Into<Object>) -> Notice {
    Notice::Set { object: object.into(), replaced: false, appended: true }
}

/// The announcement of an object that is gone.
pub fn gone(object: impl Into<Object>) -> Notice {
    Notice::Gone { object: object.into() }
}

/// A permanent address.
pub fn address(local: &str, link: u32, len: u8) -> Address {
    let local = local.parse().unwrap();
    Address {
        key: AddressKey { link, local, len, peer: local },
        scope: rt::SCOPE_UNIVERSE,
        flags: 0,
        tentative: false,
        expires: false,
        attributes: vec![],
    }
}

/// A unicast route of protocol 17 on a link.
pub fn route(dst: &str, oif: u32) -> Route {
    let dst: Prefix = dst.parse().unwrap();
    Route {
        key: RouteKey {
            table: rt::TABLE_MAIN,
            dst,
            src: None,
            tos: 0,
            metric: if dst.family() == Family::Inet6 { 1024 } else { 0 },
        },
        protocol: 17,
        scope: rt::SCOPE_UNIVERSE,
        kind: rt::RTN_UNICAST,
        flags: 0,
        expires: false,
        legs: vec![Leg { oif, ..Leg::default() }],
        attributes: vec![],
    }
}

/// The same by a gateway.
pub fn via(dst: &str, oif: u32, gateway: &str) -> Route {
    let mut route = route(dst, oif);
    let value: Box<[u8]> = match gateway.parse().unwrap() {
        std::net::IpAddr::V4(a) => a.octets().into(),
        std::net::IpAddr::V6(a) => a.octets().into(),
    };
    route.legs[0].attributes.push(Attribute { kind: rt::RTA_GATEWAY, value });
    route
}
