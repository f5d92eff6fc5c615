//! Against the real kernel, each test in a network namespace of its own. Without root they fail
//! and say so.

mod kernel;
mod links;
mod objects;
mod properties;
mod shapes;

use std::{os::fd::AsRawFd as _, process::Command, time::Duration};

use super::Listener;

/// Runs a test in a fresh network namespace with two veth pairs: `eth0` (`10.0.0.1/24`, `fd00::1/64`) and
/// `eth1` (`10.0.1.1/24`, `fd01::1/64`), both up.
fn in_netns(test: impl FnOnce() + Send + 'static) {
    let bare = move || {
        for index in 0..2 {
            ip(&format!("link add eth{index} type veth peer name peer{index}"));
            for link in ["eth", "peer"] {
                // Two requests: in one, older kernels see to the flags first, and a link-local address comes
                // and goes.
                ip(&format!("link set {link}{index} addrgenmode none"));
                ip(&format!("link set {link}{index} up"));
            }
            ip(&format!("addr add 10.0.{index}.1/24 dev eth{index}"));
            ip(&format!("addr add fd0{index}::1/64 dev eth{index} nodad"));
        }
        // What the kernel adds in its own time (IPv6's local routes, and those of a link with a carrier) is not to
        // come amid a test.
        let settled = || {
            let local = ip("-6 route show table local");
            ip("link show up").matches("state UP").count() == 4
                && ["local fd00::1 ", "local fd01::1 "].iter().all(|route| local.contains(route))
                && local.matches("multicast ff00::/8").count() == 4
        };
        for _ in 0..200 {
            if settled() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        test();
    };
    let thread = std::thread::spawn(move || {
        // SAFETY: a plain system call that moves the calling thread, and nothing else, to a new network
        // namespace.
        let refused = unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0;
        assert!(!refused, "a network namespace wants root (CAP_SYS_ADMIN); `cargo xtask test` sees to it");
        ip("link set lo up");
        bare();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Longer than anything announced takes to come.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether there is something to hear, or comes in time.
fn comes(listener: &Listener, limit: Duration) -> bool {
    let mut waited = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one `pollfd`, which outlives the call.
    unsafe { libc::poll(&raw mut waited, 1, limit.as_millis() as libc::c_int) == 1 }
}

/// Runs `ip`, which must succeed, and returns what it printed.
fn ip(arguments: &str) -> String {
    try_ip(arguments).unwrap_or_else(|error| panic!("ip {arguments}: {error}"))
}

/// Runs `ip`; the error is what it printed to standard error.
fn try_ip(arguments: &str) -> Result<String, String> {
    let output =
        Command::new("timeout").args(["10", "ip"]).args(arguments.split_whitespace()).output().unwrap();
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// All routes as `ip` describes them.
fn all_routes() -> String {
    ip("-d -j route show table all") + &ip("-6 -d -j route show table all")
}
