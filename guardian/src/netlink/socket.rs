//! What every rtnetlink socket here needs and netlink-sys does not offer.

use std::{io, os::fd::AsRawFd, time::Duration};

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// The kernel, as a peer of a netlink socket.
pub(super) fn kernel() -> SocketAddr {
    SocketAddr::new(0, 0)
}

/// A bound `NETLINK_ROUTE` socket of the calling thread's network namespace, with a receive buffer of
/// `receive_buffer` bytes.
pub(super) fn open(receive_buffer: usize) -> io::Result<Socket> {
    let mut socket = unbound()?;
    prepare(&mut socket, 0, receive_buffer)?;
    Ok(socket)
}

/// A `NETLINK_ROUTE` socket of the calling thread's network namespace, not bound yet.
pub(super) fn unbound() -> io::Result<Socket> {
    Socket::new(NETLINK_ROUTE)
}

/// Binds a socket to a port id, 0 for one of the kernel's choice, and sizes its receive buffer.
pub(super) fn prepare(socket: &mut Socket, port: u32, receive_buffer: usize) -> io::Result<()> {
    socket.bind(&SocketAddr::new(port, 0))?;
    set_receive_buffer(socket, receive_buffer)
}

/// The port id that others see as `nlmsg_pid`.
pub(super) fn port(socket: &Socket) -> io::Result<u32> {
    let mut own = kernel();
    socket.get_address(&mut own)?;
    Ok(own.port_number())
}

/// Lets `recv` fail with `EAGAIN` when nothing has come for so long.
pub(super) fn set_receive_timeout(socket: &Socket, limit: Duration) -> io::Result<()> {
    let limit = libc::timeval {
        tv_sec: limit.as_secs() as libc::time_t,
        tv_usec: libc::suseconds_t::from(limit.subsec_micros()),
    };
    set_option(socket, libc::SO_RCVTIMEO, &limit)
}

/// `SO_RCVBUFFORCE`, which may exceed `net.core.rmem_max` and wants `CAP_NET_ADMIN`; without it
/// `SO_RCVBUF`, which the kernel cuts to that limit.
fn set_receive_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    match set_option(socket, libc::SO_RCVBUFFORCE, &bytes) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            set_option(socket, libc::SO_RCVBUF, &bytes)
        }
        result => result,
    }
}

fn set_option<T>(socket: &Socket, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the pointer and the length describe `value`, which outlives the call; the kernel only
    // reads it. The descriptor belongs to `socket`.
    let failed = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
