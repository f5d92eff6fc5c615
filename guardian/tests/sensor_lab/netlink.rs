//! Small clients that change routes without `ip`: system calls only, so that they run in a forked child.

use std::{
    ffi::CString,
    io, mem,
    time::{Duration, Instant},
};

use io_uring::{IoUring, opcode, squeue, types};

fn check(ret: impl Into<i64>) {
    assert!(ret.into() >= 0, "{}", io::Error::last_os_error());
}

/// `RTM_DELROUTE` for an IPv4 route of the main table.
fn deletion(destination: [u8; 4], len: u8) -> [u8; 36] {
    let [a, b, c, d] = destination;
    let mut message = [0_u8; 36];
    message[..4].copy_from_slice(&36_u32.to_ne_bytes());
    message[4..6].copy_from_slice(&25_u16.to_ne_bytes());
    message[6..8].copy_from_slice(&5_u16.to_ne_bytes());
    message[16..28].copy_from_slice(&[2, len, 0, 0, 254, 0, 255, 0, 0, 0, 0, 0]);
    message[28..36].copy_from_slice(&[8, 0, 1, 0, a, b, c, d]);
    message
}

/// Deletes an IPv4 route of the main table.
pub fn delete(destination: [u8; 4], len: u8) {
    let message = deletion(destination, len);
    let mut answer = [0_u8; 128];
    // SAFETY: buffers of the lengths given.
    unsafe {
        let socket = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, 0);
        check(socket);
        check(libc::send(socket, message.as_ptr().cast(), message.len(), 0) as i64);
        check(libc::recv(socket, answer.as_mut_ptr().cast(), answer.len(), 0) as i64);
        libc::close(socket);
    }
    assert_eq!(i32::from_ne_bytes(answer[16..20].try_into().unwrap()), 0, "the kernel refused");
}

/// The same by `io_uring`, a moment after it was asked for: while this computes, the timer's interrupt takes it into the
/// kernel, which goes on with the request on its way back.
pub fn delete_by_io_uring(destination: [u8; 4], len: u8) {
    let message = deletion(destination, len);
    let moment = types::Timespec::new().nsec(20_000_000);
    let mut ring = IoUring::new(4).expect("this test needs io_uring (`kernel.io_uring_disabled`)");
    // SAFETY: the message, the time and the socket outlive the requests.
    unsafe {
        let socket = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, 0);
        check(socket);
        let wait = opcode::Timeout::new(&raw const moment).build().flags(squeue::Flags::IO_HARDLINK);
        let send = opcode::Send::new(types::Fd(socket), message.as_ptr(), message.len() as u32).build();
        ring.submission().push_multiple(&[wait, send]).unwrap();
        ring.submit().unwrap();
        let started = Instant::now();
        while ring.completion().len() < 2 {
            assert!(started.elapsed() < Duration::from_secs(30), "io_uring has not done it");
            std::hint::spin_loop();
        }
        libc::close(socket);
    }
    let results: Vec<i32> = ring.completion().map(|entry| entry.result()).collect();
    assert_eq!(results, [-libc::ETIME, message.len() as i32]);
}

/// Deletes an IPv4 route with `SIOCDELRT`, as `route del` does.
pub fn delete_by_ioctl(destination: [u8; 4], len: u8) {
    // SAFETY: plain structures, for which zero is a value; an open socket.
    unsafe {
        let mut entry: libc::rtentry = mem::zeroed();
        let address = |bytes: [u8; 4]| {
            let mut address: libc::sockaddr_in = mem::zeroed();
            address.sin_family = libc::AF_INET as u16;
            address.sin_addr.s_addr = u32::from_ne_bytes(bytes);
            mem::transmute::<libc::sockaddr_in, libc::sockaddr>(address)
        };
        entry.rt_dst = address(destination);
        entry.rt_genmask = address((u32::MAX << (32 - len)).to_be_bytes());
        entry.rt_flags = libc::RTF_UP;
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
        check(socket);
        check(libc::ioctl(socket, libc::SIOCDELRT as _, &raw const entry));
        libc::close(socket);
    }
}

/// Makes a tun device, sets it up and holds it until killed.
pub fn hold_tun(name: &str) -> ! {
    // SAFETY: as above.
    unsafe {
        let file = libc::open(c"/dev/net/tun".as_ptr(), libc::O_RDWR);
        check(file);
        let mut request: libc::ifreq = mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as i16;
        check(libc::ioctl(file, libc::TUNSETIFF as _, &raw const request));
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
        request.ifr_ifru.ifru_flags = libc::IFF_UP as i16;
        check(libc::ioctl(socket, libc::SIOCSIFFLAGS as _, &raw const request));
        loop {
            libc::pause();
        }
    }
}

/// Sends a router advertisement with a default route, or with a lifetime of 0 its withdrawal, and a prefix to all nodes
/// (RFC 4861, 4.2).
pub fn send_advertisement(link: &str, lifetime: u16) {
    let name = CString::new(link).unwrap();
    let [high, low] = lifetime.to_be_bytes();
    let mut message = vec![134_u8, 0, 0, 0, 64, 0, high, low, 0, 0, 0, 0, 0, 0, 0, 0];
    // Prefix information: on-link and autonomous, valid for a while.
    message.extend([3, 4, 64, 0xc0, 0, 0, 0x0e, 0x10, 0, 0, 0x0e, 0x10, 0, 0, 0, 0]);
    message.extend([0xfd, 0x61, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    // SAFETY: buffers of the lengths given.
    unsafe {
        let socket = libc::socket(libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6);
        check(socket);
        let hops: i32 = 255;
        check(libc::setsockopt(
            socket,
            libc::IPPROTO_IPV6,
            libc::IPV6_MULTICAST_HOPS,
            (&raw const hops).cast(),
            4,
        ));
        let mut to: libc::sockaddr_in6 = mem::zeroed();
        to.sin6_family = libc::AF_INET6 as u16;
        to.sin6_addr.s6_addr = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        to.sin6_scope_id = libc::if_nametoindex(name.as_ptr());
        check(libc::sendto(
            socket,
            message.as_ptr().cast(),
            message.len(),
            0,
            (&raw const to).cast(),
            size_of_val(&to) as u32,
        ) as i64);
        libc::close(socket);
    }
}
