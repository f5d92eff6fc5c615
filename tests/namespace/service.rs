//! What the service manager hears (`sd_notify(3)`): here the test listens in its place.

use std::{
    fs, io,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use lab::{Guardian, Lab};

/// The limit of the watchdog in these tests.
const LIMIT: Duration = Duration::from_millis(800);

/// The other end of `NOTIFY_SOCKET`.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(dir: &Path) -> Result<Self> {
        let path = dir.join("notify.sock");
        let socket = UnixDatagram::bind(&path)?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        Ok(Self { socket, path })
    }

    /// Starts a guardian that is told of this manager, and of more of the environment.
    fn start(&self, lab: &Lab, more: &str) -> Result<Guardian> {
        lab.guardian().through(&format!("env NOTIFY_SOCKET={} {more}", self.path.display())).start()
    }

    /// The next message within `limit`, if there is one: its lines, and when it came.
    fn next(&self, limit: Duration) -> Result<Option<(Vec<String>, Instant)>> {
        let begin = Instant::now();
        let mut message = [0; 4096];
        while begin.elapsed() < limit {
            match self.socket.recv(&mut message) {
                Ok(length) => {
                    let text = std::str::from_utf8(&message[..length])?;
                    return Ok(Some((text.lines().map(Into::into).collect(), Instant::now())));
                }
                // A receive with a time limit is not taken up again after a stop or a freeze (`signal(7)`).
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// The next message other than `WATCHDOG=1`.
    fn word(&self) -> Result<Vec<String>> {
        let begin = Instant::now();
        while let Some((lines, _)) = self.next(Duration::from_secs(5).saturating_sub(begin.elapsed()))? {
            if lines != ["WATCHDOG=1"] {
                return Ok(lines);
            }
        }
        bail!("waited in vain for a message")
    }

    /// The next message has to be this `state`, with this `status`.
    fn hears_ready(&self, status: &str) -> Result<()> {
        let lines = self.word()?;
        assert_eq!(lines, ["READY=1".to_owned(), format!("STATUS={status}")]);
        Ok(())
    }

    /// The next message has to be that of a reload, with the time since the boot at which it began.
    fn hears_reloading(&self, since: u128) -> Result<()> {
        let lines = self.word()?;
        ensure!(lines.len() == 2 && lines[0] == "RELOADING=1", "{lines:?}");
        let time: u128 = lines[1].strip_prefix("MONOTONIC_USEC=").context("no time")?.parse()?;
        ensure!((since..=monotonic_usec()?).contains(&time), "{time} is not after {since}");
        Ok(())
    }
}

/// `CLOCK_MONOTONIC` in microseconds; where no guest was ever suspended, it is the time since the boot.
fn monotonic_usec() -> Result<u128> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec that outlives the call.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    ensure!(result == 0, "no clock: {}", io::Error::last_os_error());
    Ok(Duration::new(u64::try_from(time.tv_sec)?, u32::try_from(time.tv_nsec)?).as_micros())
}

const FINE: &str = "guarding: profile kube-router, mode restore";

#[test]
fn the_service_manager_hears_of_start_reload_and_end() -> Result<()> {
    let lab = Lab::node()?;
    let manager = Manager::new(lab.dir())?;
    let mut guardian = manager.start(&lab, "")?;
    manager.hears_ready(FINE)?;

    let good = fs::read_to_string(guardian.config())?;
    fs::write(guardian.config(), format!("mode = \"observe\"\n{good}"))?;
    let before = monotonic_usec()?;
    guardian.signal(libc::SIGHUP)?;
    manager.hears_reloading(before)?;
    manager.hears_ready("guarding: profile kube-router, mode observe")?;

    fs::write(guardian.config(), "mode = ")?;
    let before = monotonic_usec()?;
    guardian.signal(libc::SIGHUP)?;
    manager.hears_reloading(before)?;
    manager
        .hears_ready("guarding: profile kube-router, mode observe; the last reload failed, see the log")?;

    assert!(guardian.stop()?.success());
    assert_eq!(manager.word()?, ["STOPPING=1"]);
    assert!(manager.next(Duration::from_millis(100))?.is_none(), "nothing comes after the end");
    Ok(())
}

#[test]
fn the_service_manager_hears_that_nobody_can_be_named() -> Result<()> {
    let lab = Lab::node()?;
    let manager = Manager::new(lab.dir())?;
    let _guardian = lab
        .guardian()
        .through(&format!("env NOTIFY_SOCKET={}", manager.path.display()))
        .args("--no-bpf")
        .start()?;
    manager.hears_ready(&format!("{FINE}; no actor can be named"))
}

/// Half of the limit between two, and more than that only where the machine is busy: never the limit.
#[test]
fn the_watchdog_hears_of_the_guard_loop() -> Result<()> {
    let lab = Lab::node()?;
    let manager = Manager::new(lab.dir())?;
    let guardian = manager.start(&lab, &format!("WATCHDOG_USEC={}", LIMIT.as_micros()))?;
    let beat = || -> Result<Instant> {
        while let Some((lines, at)) = manager.next(LIMIT)? {
            if lines == ["WATCHDOG=1"] {
                return Ok(at);
            }
        }
        bail!("no word within the limit of the watchdog")
    };
    let mut last = beat()?;
    let mut gaps = Vec::new();
    for _ in 0..6 {
        let at = beat()?;
        gaps.push(at - last);
        last = at;
    }
    gaps.sort();
    // The first may have waited in the socket since the start.
    ensure!((LIMIT / 4..LIMIT * 3 / 4).contains(&gaps[gaps.len() / 2]), "{gaps:?}");
    drop(guardian);
    Ok(())
}

/// The other threads go on meanwhile: it is the guard's own that has to be heard of.
#[test]
fn the_watchdog_hears_nothing_of_a_guard_thread_that_hangs() -> Result<()> {
    let lab = Lab::node()?;
    let manager = Manager::new(lab.dir())?;
    let guardian = manager.start(&lab, &format!("WATCHDOG_USEC={}", LIMIT.as_micros()))?;
    manager.hears_ready(FINE)?;
    let halted = Halted::new(guardian.pid())?;
    while manager.next(Duration::from_millis(50))?.is_some() {}
    ensure!(manager.next(LIMIT * 2)?.is_none(), "it was heard of while it stood still");
    assert_eq!(guardian.get("/metrics")?.0, 200, "the rest of it is alive");
    drop(halted);
    ensure!(manager.next(LIMIT)?.is_some(), "it is not heard of again");
    Ok(())
}

/// A thread that stands still until this is dropped; its siblings do not (`ptrace(2)`, `PTRACE_INTERRUPT`).
struct Halted(libc::pid_t);

impl Halted {
    fn new(thread: u32) -> Result<Self> {
        let thread = thread.cast_signed();
        ptrace(libc::PTRACE_SEIZE, thread)?;
        let halted = Self(thread);
        ptrace(libc::PTRACE_INTERRUPT, thread)?;
        // SAFETY: the kernel takes a null pointer for "no status wanted".
        let stopped = unsafe { libc::waitpid(thread, std::ptr::null_mut(), libc::__WALL) };
        ensure!(stopped == thread, "it does not stand still: {}", io::Error::last_os_error());
        Ok(halted)
    }
}

impl Drop for Halted {
    fn drop(&mut self) {
        // Where it has ended there is nothing to let go of.
        let _ = ptrace(libc::PTRACE_DETACH, self.0);
    }
}

/// A request without arguments.
fn ptrace(request: libc::c_uint, thread: libc::pid_t) -> io::Result<()> {
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: these requests neither read nor write memory of ours.
    match unsafe { libc::ptrace(request, thread, none, none) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The watchdog of another process is none of the guardian's business (`sd_watchdog_enabled(3)`), and without one
/// there is nothing to wake up for.
#[test]
fn without_a_watchdog_of_its_own_it_does_not_wake_up() -> Result<()> {
    let lab = Lab::node()?;
    let manager = Manager::new(lab.dir())?;
    let guardian = manager.start(&lab, &format!("WATCHDOG_PID=1 WATCHDOG_USEC={}", LIMIT.as_micros()))?;
    manager.hears_ready(FINE)?;
    assert!(manager.next(LIMIT * 2)?.is_none());
    // What is left of the start is over by now.
    guardian.sleeps_for(LIMIT * 2)?;
    assert!(manager.next(LIMIT)?.is_none());
    Ok(())
}
