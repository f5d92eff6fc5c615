//! Children that do not outlive the one who started them.

use std::{
    io,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::slowness;

/// How long a child may take to end after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(5);

/// A child that ends when this value is dropped, and when the thread that started it ends.
#[derive(Debug)]
pub struct Tethered {
    child: Child,
}

/// Starts a command that gets SIGKILL when the thread that started it ends (`PR_SET_PDEATHSIG`).
///
/// A program that changes its user loses that tether; dropping the value still ends it, and so does the end of its
/// lab.
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

    /// SIGTERM, then SIGKILL to what does not end within five seconds, on a machine that is not slow.
    pub fn stop(&mut self) -> io::Result<ExitStatus> {
        self.signal(libc::SIGTERM)?;
        self.wait(PATIENCE)
    }

    /// Waits for the end; SIGKILL when it takes longer than `limit`.
    pub fn wait(&mut self, limit: Duration) -> io::Result<ExitStatus> {
        let begin = Instant::now();
        while begin.elapsed() < limit * slowness() {
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

/// Waits for the end of its standard input, then ends what is still in the network namespace `$1`, but for itself and
/// the process `$2`, and removes the folder `$3`.
const REAP: &str = r#"
read -r _
for turn in 1 2 3 4 5; do
    left=
    for found in $(find /proc -mindepth 3 -maxdepth 3 -path '/proc/[0-9]*/ns/net' -lname "$1" 2>/dev/null); do
        pid=${found#/proc/}
        pid=${pid%%/*}
        [ -e "/proc/$pid/ns/net" ] || continue
        case $pid in $$ | $2) ;; *) left="$left $pid" ;; esac
    done
    [ -n "$left" ] || break
    kill -KILL $left 2>/dev/null
done
rm -rf "$3"
"#;

/// Sees to it that nothing is left of a network namespace: no process in it and none of its files, also when the
/// test's process is killed, and also of programs that have got rid of their tether ([`tethered`]).
#[derive(Debug)]
pub(crate) struct Reaper {
    child: Child,
}

impl Reaper {
    /// For the network namespace of this thread, whose link below `/proc` says `namespace` (`net:[4026532000]`).
    pub(crate) fn new(namespace: &str, dir: &Path) -> io::Result<Self> {
        // To `find` it is a pattern.
        let pattern = namespace.replace('[', "\\[").replace(']', "\\]");
        let child = Command::new("sh")
            .args(["-c", REAP, "reaper", &pattern, &std::process::id().to_string()])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // What is sent to the tests' group, such as an interrupt, is not for it.
            .process_group(0)
            .spawn()?;
        Ok(Self { child })
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        // The end of its input is what it waits for.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
