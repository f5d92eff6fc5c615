//! A rtnetlink client of a few lines, beside iproute2 and the guardian's own code: to take routes away
//! without `ip`, to time their return, and to compare what the kernel holds byte by byte.

use std::{
    io,
    mem::size_of,
    net::IpAddr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// `RTM_F_FIB_MATCH` of `include/uapi/linux/rtnetlink.h`: answer with the route itself.
const RTM_F_FIB_MATCH: u32 = 0x2000;
/// `RTNLGRP_IPV4_ROUTE` as a bit of `nl_groups` (`RTMGRP_IPV4_ROUTE`).
pub const GROUP_IPV4_ROUTE: u32 = 0x40;
/// `struct nlmsghdr`.
pub const HEADER: usize = 16;
/// `struct rtmsg`.
pub const RTMSG: usize = 12;
/// Of `rtm_flags`: the link has no carrier (`include/uapi/linux/rtnetlink.h`).
const RTNH_F_LINKDOWN: u32 = 16;
/// `NETLINK_EXT_ACK` and friends are not wanted; a dump in 32 KiB steps is.
const BUFFER: usize = 1 << 16;
/// How many datagrams an answer may be behind or take: a million routes, and news of others.
const ANSWERS: u32 = 100_000;

/// A netlink socket in the network namespace of the thread that opened it, where it stays.
#[derive(Debug)]
pub struct Client {
    fd: OwnedFd,
    seq: u32,
    buffer: Vec<u8>,
}

/// What a route is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The network.
    pub dst: IpAddr,
    /// The prefix length in bits.
    pub len: u8,
    /// The routing table.
    pub table: u32,
}

impl Key {
    /// `dst/len` in the main table.
    pub const fn main(dst: IpAddr, len: u8) -> Self {
        Self { dst, len, table: 254 }
    }

    /// A complete request to delete this route, to which no answer is wanted.
    pub fn deletion(&self) -> Vec<u8> {
        let payload = self.message();
        let mut message = Vec::with_capacity(HEADER + payload.len());
        message.extend(((HEADER + payload.len()) as u32).to_ne_bytes());
        message.extend(libc::RTM_DELROUTE.to_ne_bytes());
        message.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
        message.extend([0; 8]);
        message.extend(payload);
        message
    }

    /// `struct rtmsg` and the attributes that name this route, and no other field set.
    fn message(&self) -> Vec<u8> {
        let mut message = rtmsg(self.dst, self.len);
        // RT_TABLE_COMPAT: the attribute counts.
        message[4] = u8::try_from(self.table).unwrap_or(252);
        push(&mut message, libc::RTA_TABLE, &self.table.to_ne_bytes());
        push_address(&mut message, libc::RTA_DST, self.dst);
        message
    }
}

impl AsRawFd for Client {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.fd.as_raw_fd()
    }
}

impl Client {
    /// Opens a socket for requests.
    pub fn open() -> io::Result<Self> {
        Self::subscribe(0)
    }

    /// Opens a socket that also hears the multicast groups in this bit set.
    pub fn subscribe(groups: u32) -> io::Result<Self> {
        // SAFETY: no pointers; the result is checked before it is owned.
        let fd = unsafe {
            libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: all-zero is a valid sockaddr_nl.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as u16;
        address.nl_groups = groups;
        // SAFETY: the pointer and the length describe `address`, which lives across the call.
        let bound = unsafe {
            libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size_of::<libc::sockaddr_nl>() as u32)
        };
        if bound != 0 {
            return Err(io::Error::last_os_error());
        }
        let client = Self { fd, seq: 0, buffer: vec![0; BUFFER] };
        client.patience(10)?;
        Ok(client)
    }

    /// A receive that waits for longer than so many seconds fails with `WouldBlock`.
    fn patience(&self, seconds: libc::time_t) -> io::Result<()> {
        let limit = libc::timeval { tv_sec: seconds, tv_usec: 0 };
        // SAFETY: the pointer and the length describe `limit`.
        let set = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVTIMEO,
                (&raw const limit).cast(),
                size_of::<libc::timeval>() as u32,
            )
        };
        if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Enlarges the receive buffer to `bytes`, past the system's limit (`SO_RCVBUFFORCE`).
    pub fn receive_buffer(&self, bytes: i32) -> io::Result<()> {
        // SAFETY: the pointer and the length describe `bytes`.
        let set = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVBUFFORCE,
                (&raw const bytes).cast(),
                size_of::<i32>() as u32,
            )
        };
        if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Sends bytes as they are: one or several complete messages.
    pub fn send_raw(&self, bytes: &[u8]) -> io::Result<()> {
        // SAFETY: the pointer and the length describe `bytes`.
        let sent = unsafe { libc::send(self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// A complete message with the next sequence number.
    pub fn message(&mut self, kind: u16, flags: i32, payload: &[u8]) -> Vec<u8> {
        self.seq += 1;
        let mut message = Vec::with_capacity(HEADER + payload.len());
        message.extend(((HEADER + payload.len()) as u32).to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend((flags as u16).to_ne_bytes());
        message.extend(self.seq.to_ne_bytes());
        message.extend(0u32.to_ne_bytes());
        message.extend(payload);
        message
    }

    /// Waits for one datagram; for ten seconds, no longer.
    pub fn receive(&mut self) -> io::Result<&[u8]> {
        loop {
            // SAFETY: the pointer and the length describe the buffer, which nobody else touches meanwhile.
            let len = unsafe {
                libc::recv(self.fd.as_raw_fd(), self.buffer.as_mut_ptr().cast(), self.buffer.len(), 0)
            };
            if let Ok(len) = usize::try_from(len) {
                return Ok(&self.buffer[..len]);
            }
            let error = io::Error::last_os_error();
            // A receive with a time limit is not taken up again after a stop or a freeze (`signal(7)`).
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    /// Sends a request and waits for the kernel's acknowledgement.
    pub fn request(&mut self, kind: u16, flags: i32, payload: &[u8]) -> io::Result<()> {
        let message = self.message(kind, libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags, payload);
        self.send_raw(&message)?;
        for _ in 0..ANSWERS {
            let answer = self.receive()?;
            if let Some((libc::NLMSG_ERROR, body)) =
                messages(answer).next().map(|m| (i32::from(m.kind), m.body))
            {
                return match number(body) {
                    0 => Ok(()),
                    error => Err(io::Error::from_raw_os_error(-error.cast_signed())),
                };
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Deletes a route.
    pub fn delete(&mut self, key: Key) -> io::Result<()> {
        self.request(libc::RTM_DELROUTE, 0, &key.message())
    }

    /// Deletes routes as fast as a socket can carry it: a few hundred requests in one call.
    pub fn delete_all(&mut self, keys: &[Key]) -> io::Result<()> {
        for chunk in keys.chunks(400) {
            let batch: Vec<u8> = chunk
                .iter()
                .flat_map(|key| self.message(libc::RTM_DELROUTE, libc::NLM_F_REQUEST, &key.message()))
                .collect();
            self.send_raw(&batch)?;
        }
        Ok(())
    }

    /// Whether exactly this route answers for its network, in one round trip: the request of `ip route get
    /// fibmatch`.
    pub fn answers(&mut self, key: Key) -> io::Result<bool> {
        Ok(self.lookup(key)?.is_some())
    }

    /// The gateway of the route that answers for exactly this network, if there is one and it has one.
    pub fn gateway(&mut self, key: Key) -> io::Result<Option<IpAddr>> {
        let body = self.lookup(key)?.unwrap_or_default();
        let mut gateways = attributes(body.get(RTMSG..).unwrap_or_default());
        Ok(gateways.find_map(|(kind, value)| match (kind, value.len()) {
            (libc::RTA_GATEWAY, 4) => value.first_chunk::<4>().map(|&octets| octets.into()),
            (libc::RTA_GATEWAY, 16) => value.first_chunk::<16>().map(|&octets| octets.into()),
            _ => None,
        }))
    }

    fn lookup(&mut self, key: Key) -> io::Result<Option<Vec<u8>>> {
        let host = if key.dst.is_ipv4() { 32 } else { 128 };
        let mut payload = rtmsg(key.dst, host);
        payload[8..12].copy_from_slice(&RTM_F_FIB_MATCH.to_ne_bytes());
        push_address(&mut payload, libc::RTA_DST, key.dst);
        let message = self.message(libc::RTM_GETROUTE, libc::NLM_F_REQUEST, &payload);
        self.send_raw(&message)?;
        let seq = self.seq;
        for _ in 0..ANSWERS {
            let answer = self.receive()?;
            let Some(first) = messages(answer).find(|m| m.seq == seq) else { continue };
            let exact = first.kind == libc::RTM_NEWROUTE && first.body.get(1) == Some(&key.len);
            return Ok(exact.then(|| first.body.to_vec()));
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Every route of a family (`AF_INET`, `AF_INET6`) in every table, as the kernel words it, without what
    /// changes by itself: the age and use counters of IPv6 (`RTA_CACHEINFO`) and the order of IPv6 legs.
    pub fn routes(&mut self, family: i32) -> io::Result<Vec<Vec<u8>>> {
        let mut payload = [0; RTMSG];
        payload[0] = family as u8;
        let message = self.message(libc::RTM_GETROUTE, libc::NLM_F_REQUEST | libc::NLM_F_DUMP, &payload);
        self.send_raw(&message)?;
        let mut routes = Vec::new();
        for _ in 0..ANSWERS {
            for message in messages(self.receive()?) {
                match message.kind {
                    libc::RTM_NEWROUTE => routes.push(settled(message.body)),
                    kind if i32::from(kind) == libc::NLMSG_DONE => {
                        routes.sort();
                        return Ok(routes);
                    }
                    kind if i32::from(kind) == libc::NLMSG_ERROR => {
                        return Err(io::Error::from_raw_os_error(-number(message.body).cast_signed()));
                    }
                    _ => {}
                }
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

/// One netlink message.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_seq`.
    pub seq: u32,
    /// What follows the header.
    pub body: &'a [u8],
}

/// The messages of a datagram.
pub fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let len = number(datagram) as usize;
        let body = datagram.get(HEADER..len)?;
        let kind = u16::from_ne_bytes([datagram[4], datagram[5]]);
        let seq = number(&datagram[8..]);
        datagram = datagram.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind, seq, body })
    })
}

/// The attributes in a message's body, after `struct rtmsg`, or in a nest: type without flags, value.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]));
        let kind = u16::from_ne_bytes([*bytes.get(2)?, *bytes.get(3)?]) & 0x3fff;
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().copied().map_or(0, u32::from_ne_bytes)
}

fn rtmsg(dst: IpAddr, len: u8) -> Vec<u8> {
    let family = if dst.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut message = vec![0; RTMSG];
    message[0] = family as u8;
    message[1] = len;
    // RT_SCOPE_NOWHERE: any scope will do, as `ip route del` asks.
    message[6] = 255;
    message
}

fn push(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend((4 + value.len() as u16).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

fn push_address(message: &mut Vec<u8>, kind: u16, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => push(message, kind, &v4.octets()),
        IpAddr::V6(v6) => push(message, kind, &v6.octets()),
    }
}

/// A route message without what changes by itself. `rtm_flags`, the last of the header, tell whether the link has its
/// carrier, of which routes hear up to a second after the link (`net/core/link_watch.c`).
fn settled(body: &[u8]) -> Vec<u8> {
    let v6 = body.first() == Some(&(libc::AF_INET6 as u8));
    let mut route = body[..RTMSG].to_vec();
    if let Some(flags) = route.last_chunk_mut() {
        *flags = (u32::from_ne_bytes(*flags) & !RTNH_F_LINKDOWN).to_ne_bytes();
    }
    for (kind, value) in attributes(&body[RTMSG..]) {
        match kind {
            libc::RTA_CACHEINFO => {}
            libc::RTA_MULTIPATH if v6 => push(&mut route, kind, &sorted_legs(value)),
            _ => push(&mut route, kind, value),
        }
    }
    route
}

/// The legs (`struct rtnexthop`, whose first field is its length) in an order of their own.
fn sorted_legs(mut nest: &[u8]) -> Vec<u8> {
    let mut legs = Vec::new();
    while let Some(len) = nest.first_chunk().map(|l| usize::from(u16::from_ne_bytes(*l))).filter(|&l| l >= 8)
    {
        let Some(leg) = nest.get(..len) else { break };
        legs.push(leg);
        nest = nest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    legs.sort_unstable();
    legs.concat()
}
