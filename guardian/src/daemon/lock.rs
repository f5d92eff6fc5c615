//! One guardian a network namespace.

use std::{
    io,
    mem::size_of,
    os::{
        fd::AsRawFd as _,
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
};

/// An abstract Unix socket: such names live in the network namespace (`net/unix/af_unix.c`,
/// `unix_find_socket_byname`), and go away with the process.
const NAME: &[u8] = b"route-guardian";

/// Held for as long as this process guards its network namespace.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "held, never used")] UnixListener);

/// Takes the lock of the network namespace, or says who has it.
pub fn take() -> anyhow::Result<Lock> {
    let name = SocketAddr::from_abstract_name(NAME)?;
    match UnixListener::bind_addr(&name) {
        Ok(listener) => Ok(Lock(listener)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let holder = UnixStream::connect_addr(&name).ok().and_then(|peer| pid_of(&peer));
            let holder = holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
            anyhow::bail!(
                "another route-guardian{holder} guards this network namespace already; stop it first, or \
                 start this one in another namespace"
            )
        }
        Err(error) => Err(anyhow::Error::new(error).context("cannot take the lock of the network namespace")),
    }
}

/// `SO_PEERCRED` of a socket that was connected: who listens at the other end.
fn pid_of(peer: &UnixStream) -> Option<i32> {
    let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = libc::socklen_t::try_from(size_of::<libc::ucred>()).ok()?;
    // SAFETY: both pointers are to locals that outlive the call, and `length` is the size of the first.
    let result = unsafe {
        libc::getsockopt(
            peer.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut length,
        )
    };
    (result == 0 && credentials.pid > 0).then_some(credentials.pid)
}
