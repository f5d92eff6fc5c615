//! Children that do not outlive the one who started them.

use std::{
    io,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

/// How long a child may take to end after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(5);

/// A child that ends when this value is dropped, and when the thread that started it ends.
#[derive(Debug)]
pub struct Tethered {
    child: Child,
}

/// Starts a command that gets SIGKILL when the thread that started it ends (`PR_SET_PDEATHSIG`).
///
/// A program that changes its user loses that tether; dropping the value still ends it.
pub fn tethered(command: &mut Command) -> io::Result<Tethered> {
    // SAFETY: prctl is async-signal-safe and touches no memory of ours.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    Ok(Tethered { child: command.spawn()? })
}

impl Tethered {
    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The child, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Sends a signal, unless it has ended.
    pub fn signal(&mut self, signal: i32) -> io::Result<()> {
        if self.ended()?.is_none() {
            // SAFETY: kill takes two numbers; the child is not reaped, so the pid is still its own.
            if unsafe { libc::kill(self.pid().cast_signed(), signal) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }

    /// SIGTERM, then SIGKILL to what does not end within five seconds.
    pub fn stop(&mut self) -> io::Result<ExitStatus> {
        self.signal(libc::SIGTERM)?;
        self.wait(PATIENCE)
    }

    /// Waits for the end; SIGKILL when it takes longer than `limit`.
    pub fn wait(&mut self, limit: Duration) -> io::Result<ExitStatus> {
        let begin = Instant::now();
        while begin.elapsed() < limit {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(2));
        }
        self.child.kill()?;
        self.child.wait()
    }

    /// Whether it ended by SIGKILL, which is what [`Self::stop`] does to the stubborn.
    pub fn was_killed(status: ExitStatus) -> bool {
        status.signal() == Some(libc::SIGKILL)
    }
}

impl Drop for Tethered {
    fn drop(&mut self) {
        // Nothing sensible can be done about a child that cannot be ended.
        let _ = self.stop();
    }
}
