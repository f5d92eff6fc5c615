//! From an object to the request that makes the kernel hold it, or drop it.
//!
//! Every attribute goes out in the bytes it came in (`DefaultNla` of netlink-packet-core): nexthop ids and
//! encapsulations nobody here knows survive. Not netlink-packet-route's `RouteAttribute::Other`, which drops
//! `NLA_F_NESTED` from the type, and the kernel refuses some encapsulations (ioam6, rpl, xfrm) without it.

mod address;
mod encapsulation;
mod link;
mod nexthop;
mod route;
mod rule;

use std::net::IpAddr;

use rtnetlink::packet_core::{DefaultNla, Emitable, NetlinkSerializable};

pub(super) use link::complete;

use super::{message::nl, wire::push};
use crate::model::{Object, Prefix};

/// The most that an attribute's 16-bit length leaves for its value.
const VALUE_MAX: usize = u16::MAX as usize - 4;

/// Why an object cannot be put into a request.
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
    /// No request does this to an object of this kind.
    #[error("{0}")]
    Impossible(&'static str),
}

impl EncodeError {
    /// The error number the kernel would have used.
    pub const fn errno(self) -> i32 {
        match self {
            Self::TooLong { .. } => libc::EMSGSIZE,
            Self::MetricZero | Self::Impossible(_) => libc::EOPNOTSUPP,
        }
    }
}

/// A request to the kernel, or a message in the form of its notifications.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    kind: u16,
    flags: u16,
    header: Vec<u8>,
    attributes: Vec<DefaultNla>,
}

impl Request {
    /// A request with the fixed header of its kind. The kernel is to acknowledge it and to echo its notification.
    pub(super) const fn new(kind: u16, header: Vec<u8>) -> Self {
        let flags = nl::NLM_F_REQUEST | nl::NLM_F_ACK | nl::NLM_F_ECHO;
        Self { kind, flags, header, attributes: Vec::new() }
    }

    /// A request to read all objects of a kind.
    pub(super) const fn dump(kind: u16, header: Vec<u8>) -> Self {
        Self { kind, flags: nl::NLM_F_REQUEST | nl::NLM_F_DUMP, header, attributes: Vec::new() }
    }

    /// Asks the kernel to hold `object`. `flags` are those of a request to add: `NLM_F_CREATE` with
    /// `NLM_F_EXCL`, `NLM_F_APPEND` or `NLM_F_REPLACE`.
    ///
    /// # Errors
    /// Links and their ports take several requests, with answers between them; see
    /// [`Executor::apply`](super::Executor::apply).
    pub fn set(object: &Object, flags: u16) -> Result<Self, EncodeError> {
        let mut request = match object {
            Object::Route(route) => route::set(route)?,
            Object::Address(address) => address::set(address)?,
            Object::Nexthop(nexthop) => nexthop::set(nexthop)?,
            Object::Rule(rule) => rule::about(nl::RTM_NEWRULE, rule)?,
            Object::Link(_) | Object::Port(_) => {
                return Err(EncodeError::Impossible("a link takes several requests"));
            }
        };
        request.flags |= flags;
        Ok(request)
    }

    /// Asks the kernel to drop `object`, and no other of its key.
    pub fn delete(object: &Object) -> Result<Self, EncodeError> {
        match object {
            Object::Route(route) => route::delete(route),
            Object::Address(address) => Ok(address::delete(address)),
            Object::Nexthop(nexthop) => Ok(nexthop::delete(nexthop)),
            Object::Rule(rule) => rule::about(nl::RTM_DELRULE, rule),
            Object::Link(link) => Ok(Self::of_link(nl::RTM_DELLINK, link.index)),
            Object::Port(port) => {
                let mut request = Self::of_link(nl::RTM_NEWLINK, port.link);
                request.master(0);
                Ok(request)
            }
        }
    }

    /// `nlmsg_flags`.
    pub const fn flags(&self) -> u16 {
        self.flags
    }

    /// The same request with more of `nlmsg_flags`.
    #[must_use]
    pub(super) const fn with(mut self, flags: u16) -> Self {
        self.flags |= flags;
        self
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

    fn addr(&mut self, number: u16, addr: IpAddr) {
        self.attributes.push(DefaultNla::new(number, octets(addr)));
    }

    /// An attribute made of attributes.
    fn nest(&mut self, kind: u16, entries: &[DefaultNla]) -> Result<(), EncodeError> {
        self.push(kind, packed(kind, entries)?)
    }
}

/// The entries of a nest, one after the other. `kind` is that of the nest.
fn packed(kind: u16, entries: &[DefaultNla]) -> Result<Vec<u8>, EncodeError> {
    let len = entries.buffer_len();
    if len > VALUE_MAX {
        return Err(EncodeError::TooLong { number: kind & nl::NLA_TYPE_MASK, len });
    }
    let mut bytes = vec![0; len];
    entries.emit(&mut bytes);
    Ok(bytes)
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

/// One `RTM_NEW*` message as the kernel would announce the object, which [`frames`](super::frames) and
/// [`decode`](super::decode()) turn back into an equal one: a link with what it is a port of, a route with what the
/// kernel would not take from anybody.
///
/// # Errors
/// The object has an attribute longer than netlink carries, or is a port, which its link's message tells of.
pub fn message(object: &Object) -> Result<Vec<u8>, EncodeError> {
    let mut request = match object {
        Object::Route(route) => route::message(route)?,
        Object::Address(address) => address::message(address)?,
        Object::Nexthop(nexthop) => nexthop::message(nexthop)?,
        Object::Rule(rule) => rule::about(nl::RTM_NEWRULE, rule)?,
        Object::Link(link) => link::message(link)?,
        Object::Port(_) => return Err(EncodeError::Impossible("a port is part of its link's message")),
    };
    request.flags = 0;
    let mut bytes = Vec::with_capacity(256);
    push(&mut bytes, &request, 0);
    Ok(bytes)
}

impl NetlinkSerializable for Request {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.header.len() + self.attributes.as_slice().buffer_len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (header, rest) = buffer.split_at_mut(self.header.len());
        header.copy_from_slice(&self.header);
        self.attributes.as_slice().emit(rest);
    }
}
