//! Work that leaves nothing behind, also when it is interrupted.
//!
//! The verb runs in a child with private mount and network namespaces; its files are on a tmpfs that only it
//! and its children see. Whatever ends it, the kernel takes all of that away. What is left to do are the
//! processes: they are one process group, and whoever waits for the child kills the group at the end.

use std::{
    env, io,
    mem::MaybeUninit,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, ExitCode},
    ptr,
};

use anyhow::{Context, Result, ensure};

use crate::program::{as_root, is_root};

/// Set in the child.
const INSIDE: &str = "ROUTE_GUARDIAN_XTASK_CONTAINED";
/// Set where the preparations have been made, by who has become root since.
pub const PREPARED: &str = "ROUTE_GUARDIAN_XTASK_PREPARED";
/// A folder on the private tmpfs, for everything that is written.
pub const DIR: &str = "/run";
/// What ends the work early.
const INTERRUPTS: [i32; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// Whether this is the child.
pub fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// Whether this is who was called, and neither the child nor who has become root for it.
pub fn is_outermost() -> bool {
    !is_inside() && env::var_os(PREPARED).is_none()
}

/// Runs `prepare` as who we are, then `work` contained, as root.
pub fn run<T>(prepare: impl FnOnce() -> Result<T>, work: impl FnOnce() -> Result<()>) -> Result<ExitCode> {
    if is_inside() {
        die_with_parent()?;
        private_mounts()?;
        return work().map(|()| ExitCode::SUCCESS);
    }
    if env::var_os(PREPARED).is_none() {
        prepare()?;
    }
    let me = env::current_exe()?;
    if !is_root() {
        let mut again = as_root(&me, "making network namespaces")?;
        let status = again.args(env::args_os().skip(1)).env(PREPARED, "1").status()?;
        return Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    supervise(Command::new(me).args(env::args_os().skip(1)).env(INSIDE, "1"))
}

/// A set of signals.
fn set(signals: &[i32]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set that it gets a valid pointer to; the numbers are signals.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        set.assume_init()
    }
}

/// Blocks these signals and no others. Programs that are started inherit it.
fn block(signals: &[i32]) {
    let set = set(signals);
    // SAFETY: a valid set; the old mask is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut()) };
}

fn await_one(signals: &[i32]) -> i32 {
    let (set, mut signal) = (set(signals), 0);
    // SAFETY: a valid set, and a valid place for the answer.
    unsafe { libc::sigwait(&raw const set, &raw mut signal) };
    signal
}

/// Starts the child in a process group of its own, waits for its end or an interrupt, and kills the group.
fn supervise(command: &mut Command) -> Result<ExitCode> {
    let mut awaited = INTERRUPTS.to_vec();
    awaited.push(libc::SIGCHLD);
    // Before the child is there, so that nothing falls between; the child opens up again.
    block(&awaited);
    let mut child = command.process_group(0).spawn().context("cannot start the contained part")?;
    let group = child.id().cast_signed();
    let interrupt = loop {
        match await_one(&awaited) {
            libc::SIGCHLD if has_ended(child.id())? => break None,
            libc::SIGCHLD => {}
            signal => break Some(signal),
        }
    };
    // The child is not reaped yet, so that the group is still its own.
    // SAFETY: takes two numbers.
    unsafe { libc::kill(-group, libc::SIGKILL) };
    let status = child.wait()?;
    Ok(match interrupt {
        Some(signal) => ExitCode::from(128 + u8::try_from(signal)?),
        None if status.success() => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    })
}

/// Whether a child has ended, without reaping it.
fn has_ended(pid: u32) -> Result<bool> {
    // SAFETY: all-zero is a valid siginfo_t.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: a valid place for the answer.
    let waited = unsafe { libc::waitid(libc::P_PID, pid, &raw mut info, options) };
    ensure!(waited == 0, "cannot wait for the contained part: {}", io::Error::last_os_error());
    // SAFETY: waitid has filled it in, or left it zero.
    Ok(unsafe { info.si_pid() } != 0)
}

/// Ends this process and its group when the supervisor is killed, which then cannot do it.
///
/// By a handler and not by a thread that waits for a blocked signal: what is started from here would inherit the
/// block, and the guardian is to end by SIGTERM.
fn die_with_parent() -> Result<()> {
    extern "C" fn end_group(_: i32) {
        // SAFETY: async-signal-safe; takes two numbers, 0 is the own group.
        unsafe { libc::kill(0, libc::SIGKILL) };
    }
    let handler: extern "C" fn(i32) = end_group;
    // SAFETY: the handler does nothing but a system call; a program that is executed does not inherit it.
    let before = unsafe { libc::signal(libc::SIGTERM, handler as libc::sighandler_t) };
    ensure!(before != libc::SIG_ERR, "cannot handle SIGTERM: {}", io::Error::last_os_error());
    block(&[]);
    // SAFETY: takes numbers only.
    let set = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) };
    ensure!(set == 0, "cannot ask for the parent's death: {}", io::Error::last_os_error());
    Ok(())
}

/// A mount namespace of this process's own, with an empty [`DIR`].
pub fn private_mounts() -> Result<()> {
    let mount = |source: &std::ffi::CStr, target: &std::ffi::CStr, flags| {
        // SAFETY: the pointers are to C strings that live across the call, or null.
        match unsafe { libc::mount(source.as_ptr(), target.as_ptr(), source.as_ptr(), flags, ptr::null()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: changes only which mount namespace this process is in.
    let unshared = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    ensure!(unshared == 0, "cannot make a mount namespace: {}", io::Error::last_os_error());
    mount(c"none", c"/", libc::MS_REC | libc::MS_PRIVATE).context("cannot make the mounts private")?;
    ensure!(Path::new(DIR).is_dir(), "{DIR} is no folder");
    mount(c"tmpfs", c"/run", libc::MS_NOSUID | libc::MS_NODEV).context("cannot mount a tmpfs")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A guardian that is started with SIGTERM blocked would never end by it.
    #[test]
    fn what_is_started_inherits_no_blocked_signal() -> Result<()> {
        block(&INTERRUPTS);
        let blocked = || -> Result<String> {
            let status = fs::read_to_string("/proc/thread-self/status")?;
            let line = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
            Ok(line.context("no SigBlk")?.trim().to_owned())
        };
        assert_ne!(blocked()?, "0000000000000000", "the supervisor's");
        die_with_parent()?;
        assert_eq!(blocked()?, "0000000000000000");
        let child = Command::new("grep").args(["SigBlk:", "/proc/self/status"]).output()?;
        assert_eq!(String::from_utf8_lossy(&child.stdout).trim(), "SigBlk:\t0000000000000000");
        Ok(())
    }
}
