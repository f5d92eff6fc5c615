//! The kernel's notifications, for the mode without BPF.

use std::{
    io,
    os::fd::{AsRawFd, RawFd},
};

use rtnetlink::sys::Socket;

use super::socket;

/// `enum rtnetlink_groups` of `include/uapi/linux/rtnetlink.h`, the groups that the tap listens to.
pub const GROUPS: [u32; 8] = [
    1,  // RTNLGRP_LINK
    5,  // RTNLGRP_IPV4_IFADDR
    7,  // RTNLGRP_IPV4_ROUTE
    8,  // RTNLGRP_IPV4_RULE
    9,  // RTNLGRP_IPV6_IFADDR
    11, // RTNLGRP_IPV6_ROUTE
    19, // RTNLGRP_IPV6_RULE
    32, // RTNLGRP_NEXTHOP
];

/// A receive buffer that holds the notifications of some ten thousand routes flushed at once, in bytes.
pub const RECEIVE_BUFFER: usize = 16 << 20;

/// Longer than the longest notification: no attribute exceeds 64 KiB.
const DATAGRAM: usize = 128 * 1024;

/// What came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// A datagram of one or more messages; see [`frames`](super::frames).
    Datagram(&'a [u8]),
    /// The receive buffer overran (`ENOBUFS`): notifications are lost, only a dump tells what is.
    Overrun,
}

/// A socket in the groups of links, addresses, routes, rules and nexthop objects, in the network
/// namespace of the thread that opened it.
pub struct Listener {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Listener {
    /// Opens the socket; from then on it misses nothing but overruns. `receive_buffer` is in bytes,
    /// [`RECEIVE_BUFFER`] as a rule.
    ///
    /// # Errors
    /// Those of `socket`, `bind` and `setsockopt`. A kernel without nexthop objects (before 5.3) is
    /// none.
    pub fn open(receive_buffer: usize) -> io::Result<Self> {
        let socket = socket::open(receive_buffer)?;
        socket.set_non_blocking(true)?;
        for group in GROUPS {
            match socket.add_membership(group) {
                Err(error) if group == 32 && error.raw_os_error() == Some(libc::EINVAL) => {}
                result => result?,
            }
        }
        Ok(Self { socket, buffer: Vec::with_capacity(DATAGRAM) })
    }

    /// The next datagram; `None` where nothing has come.
    ///
    /// # Errors
    /// Those of `recvfrom`, apart from overruns and interruptions.
    pub fn recv(&mut self) -> io::Result<Option<Received<'_>>> {
        loop {
            self.buffer.clear();
            match self.socket.recv_from(&mut self.buffer, 0) {
                // Anybody with CAP_NET_ADMIN may write to this port; only the kernel is believed.
                Ok((_, from)) if from.port_number() != 0 => {}
                // Cut to the buffer.
                Ok(_) if self.buffer.len() >= DATAGRAM => return Ok(Some(Received::Overrun)),
                Ok(_) => break,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    return Ok(Some(Received::Overrun));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Some(Received::Datagram(&self.buffer)))
    }
}

impl AsRawFd for Listener {
    /// Readable when something has come.
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
