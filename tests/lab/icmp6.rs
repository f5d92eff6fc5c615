//! A raw socket of ICMP for IPv6, to speak as a router.

use std::{
    io,
    mem::size_of,
    net::Ipv6Addr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// Sends a message of ICMP for IPv6, whose checksum the kernel fills in, to all nodes on the link `index`, with a hop limit
/// of 255.
pub fn send(index: u32, message: &[u8]) -> io::Result<()> {
    // SAFETY: no pointers; the result is checked before it is owned.
    let fd =
        unsafe { libc::socket(libc::AF_INET6, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_ICMPV6) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    for (option, value) in [(libc::IPV6_MULTICAST_HOPS, 255), (libc::IPV6_MULTICAST_IF, index as i32)] {
        // SAFETY: the pointer and the length describe `value`.
        let set = unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::IPPROTO_IPV6,
                option,
                (&raw const value).cast(),
                size_of::<i32>() as u32,
            )
        };
        if set != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: all-zero is a valid sockaddr_in6.
    let mut to: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
    to.sin6_family = libc::AF_INET6 as u16;
    to.sin6_addr.s6_addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).octets();
    to.sin6_scope_id = index;
    // SAFETY: the pointers and lengths describe `message` and `to`.
    let sent = unsafe {
        libc::sendto(
            fd.as_raw_fd(),
            message.as_ptr().cast(),
            message.len(),
            0,
            (&raw const to).cast(),
            size_of::<libc::sockaddr_in6>() as u32,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
