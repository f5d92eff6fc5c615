//! The sockets that the socket filters sit on.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    os::unix::net::UnixDatagram,
};

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// The groups whose notifications the tap sees: `RTNLGRP_*` of `include/uapi/linux/rtnetlink.h`.
const GROUPS: [u32; 8] = [
    1,  // LINK
    5,  // IPV4_IFADDR
    7,  // IPV4_ROUTE
    8,  // IPV4_RULE
    9,  // IPV6_IFADDR
    11, // IPV6_ROUTE
    19, // IPV6_RULE
    32, // NEXTHOP, since 5.3
];

/// Room in the queue, in bytes.
const QUEUE: libc::c_int = 1 << 20;

/// A multicast socket in the network namespace of the calling thread.
#[derive(Debug)]
pub struct TapSocket(Socket);

impl TapSocket {
    /// Makes a socket that has joined no group yet.
    pub fn new() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        // Where the administrator's default would hold no message; more than `net.core.rmem_max` it does not get.
        socket.set_rx_buf_sz(QUEUE)?;
        Ok(Self(socket))
    }

    /// Joins the groups; after the filter is attached, so that nothing passes it.
    pub fn listen(&mut self) -> io::Result<()> {
        GROUPS.iter().try_for_each(|&group| self.0.add_membership(group))
    }

    /// Whether the kernel could not make a notification since this was last asked, or put one into the queue: it then sets
    /// `ENOBUFS` on every listener (`rtnl_set_sk_err`) or this one (`netlink_overrun`), and the tap has seen nothing or
    /// could wake nobody. The latter stays so until the queue is [empty](Self::empty).
    pub fn overrun(&self) -> bool {
        let mut error: libc::c_int = 0;
        let mut len = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: `error` and `len` are valid for the call and of the sizes given.
        let ret = unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ERROR,
                (&raw mut error).cast(),
                &raw mut len,
            )
        };
        ret == 0 && error == libc::ENOBUFS
    }

    /// Throws away what has been let into the queue so that this process wakes: whoever calls it must look at the ring
    /// before the next sleep. Whether there was an [overrun](Self::overrun).
    pub fn empty(&self) -> bool {
        let mut overrun = false;
        // The rest of a message is thrown away with its first byte.
        let mut byte = Vec::with_capacity(1);
        loop {
            byte.clear();
            match self.0.recv(&mut byte, 0) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => overrun = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // There is nothing more.
                Err(_) => return overrun,
            }
        }
    }
}

impl AsRawFd for TapSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for TapSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The system call by which [`introduce`] makes the programs see its thread.
pub const INTRODUCTION: u64 = libc::SYS_sendto as u64;

/// Makes the programs see this very thread: sends one byte through a socket pair that `attach` has put a filter on.
pub fn introduce<E: From<io::Error>>(attach: impl FnOnce(&UnixDatagram) -> Result<(), E>) -> Result<(), E> {
    let (near, far) = UnixDatagram::pair()?;
    attach(&far)?;
    let byte = 0_u8;
    // SAFETY: one readable byte. (The standard library's `send` is `write`, whose number 1 may stand anywhere.)
    let sent = unsafe { libc::send(near.as_raw_fd(), (&raw const byte).cast(), 1, libc::MSG_NOSIGNAL) };
    if sent >= 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        // What a filter drops is reported to the sender as refused.
        error if error.raw_os_error() == Some(libc::EPERM) => Ok(()),
        error => Err(error.into()),
    }
}
