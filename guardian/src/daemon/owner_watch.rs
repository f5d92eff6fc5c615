//! Whether an owner of the scope is alive: while none is, nobody processes withdrawals.
//!
//! Each owner is held by a pidfd, which becomes readable when the process ends: nothing polls while one lives.
//! That one has come back is told by the exec sensor ([`OwnerWatch::started`]), by its own changes
//! ([`OwnerWatch::seen`]), or found by looking again when it matters ([`OwnerWatch::look_again`]).

use std::{
    fs,
    future::Future as _,
    io,
    os::fd::{FromRawFd as _, OwnedFd},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{Interest, unix::AsyncFd},
    task::{JoinHandle, spawn_blocking},
    time::sleep,
};

use super::clock;
use crate::{
    attribution::{OwnerRule, cgroup::parse_membership},
    model::{Actor, Process, ProcessId, Stamp},
    procfs,
};

/// The most owners that are held at a time. More need not be: when the last one of them has ended, all
/// processes are looked at again before none is said to be alive.
const OWNERS_MAX: usize = 16;

/// At most this often all processes are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Knows whether an owner is alive. To be used within a tokio runtime.
#[derive(Debug)]
pub struct OwnerWatch {
    rule: OwnerRule,
    owners: Vec<Held>,
    gone_since: Option<Stamp>,
    seen: bool,
    /// What [`OwnerWatch::poll_changed`] has told last.
    told: Option<Stamp>,
    /// When all processes were looked at last, or are going to be.
    looked: Stamp,
    looking: Option<JoinHandle<Vec<Found>>>,
    /// When the last owner that was held has ended.
    ended: Option<Stamp>,
}

/// An owner that is alive as far as known.
#[derive(Debug)]
struct Held {
    process: ProcessId,
    /// `None` where the kernel gives none: its end must be told or looked for then.
    pidfd: Option<AsyncFd<OwnedFd>>,
}

/// An owner that a look at the processes has found.
#[derive(Debug)]
struct Found {
    process: ProcessId,
    pidfd: io::Result<OwnedFd>,
}

impl OwnerWatch {
    /// Looks at all processes once. Without an owner among them, none has been alive since now.
    pub fn new(rule: OwnerRule) -> Self {
        let now = clock::now();
        let mut watch = Self {
            rule,
            owners: Vec::new(),
            gone_since: None,
            seen: false,
            told: None,
            looked: now,
            looking: None,
            ended: None,
        };
        let found = look(&watch.rule);
        watch.take(found, now);
        watch.told = watch.gone_since;
        watch
    }

    /// Whether an owner is alive, as far as known.
    pub const fn alive(&self) -> bool {
        self.gone_since.is_none()
    }

    /// Since when none has been alive; `None` while one is. Before an owner was ever seen: since the first look.
    pub const fn gone_since(&self) -> Option<Stamp> {
        self.gone_since
    }

    /// The owners that are alive as far as known, at most [`OWNERS_MAX`].
    pub fn pids(&self) -> Vec<u32> {
        self.owners.iter().map(|owner| owner.process.tgid).collect()
    }

    /// Whether an owner was ever alive since the first look.
    pub const fn was_seen(&self) -> bool {
        self.seen
    }

    /// Takes over another rule, by which all processes are looked at anew in the background.
    pub fn set_rule(&mut self, rule: OwnerRule) {
        if rule == self.rule {
            return;
        }
        self.rule = rule;
        self.owners.clear();
        self.looking = None;
        self.start_look(clock::now());
    }

    /// Ready when an owner is alive where none was, or none where one was. Otherwise it wakes `cx` when that may be.
    pub fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.owners.retain(|owner| match &owner.pidfd {
                Some(pidfd) => pidfd.poll_read_ready(cx).is_pending(),
                None => true,
            });
            if self.owners.is_empty() && self.alive() {
                // Another may have come meanwhile.
                let now = clock::now();
                self.ended.get_or_insert(now);
                if self.looking.is_none() {
                    self.start_look(now);
                }
            }
            match self.looking.as_mut().map(|looking| Pin::new(looking).poll(cx)) {
                Some(Poll::Ready(found)) => {
                    self.looking = None;
                    // A look that broke off has found nobody.
                    self.take(found.unwrap_or_default(), clock::now());
                }
                Some(Poll::Pending) | None => break,
            }
        }
        if self.gone_since == self.told {
            return Poll::Pending;
        }
        self.told = self.gone_since;
        Poll::Ready(())
    }

    /// Looks at all processes again, in the background, where no owner is known or none that can be waited for;
    /// at most once a second. To be called when it matters: a loss is to be decided.
    pub fn look_again(&mut self, now: Stamp) {
        if self.is_waiting() || self.looking.is_some() || now.since(self.looked) < LOOK_EVERY {
            return;
        }
        self.start_look(now);
    }

    /// A process was started: it may be an owner.
    pub fn started(&mut self, process: &Process) {
        if !self.is_waiting() && process.exe.as_deref().is_some_and(|exe| is_daemon(&self.rule, exe)) {
            self.hold(process.id);
        }
    }

    /// A process made a change as an owner, or as what an owner has started.
    pub fn seen(&mut self, actor: &Actor) {
        let Actor::Process { process, ancestors, cgroup, .. } = actor else { return };
        if self.is_waiting() {
            return;
        }
        if cgroup.as_deref().is_some_and(|path| self.rule.names_cgroup(path)) {
            self.hold(process.id);
        }
        for process in std::iter::once(process).chain(ancestors) {
            self.started(process);
        }
    }

    /// A process has ended. Needed only where the kernel gives no pidfds (before Linux 5.3).
    pub fn ended(&mut self, process: ProcessId) {
        let before = self.owners.len();
        self.owners.retain(|owner| !procfs::same_run(owner.process, process));
        if self.owners.len() < before && self.owners.is_empty() {
            let now = clock::now();
            self.ended.get_or_insert(now);
            self.start_look(now);
        }
    }

    /// Whether an owner is alive whose end will be told.
    fn is_waiting(&self) -> bool {
        self.owners.iter().any(|owner| owner.pidfd.is_some())
    }

    /// Owners that come and go by the thousand do not make for more looks than one a second.
    fn start_look(&mut self, now: Stamp) {
        let next = self.looked.after(LOOK_EVERY).since(now);
        self.looked = now.after(next);
        let rule = self.rule.clone();
        self.looking = Some(tokio::spawn(async move {
            sleep(next).await;
            spawn_blocking(move || look(&rule)).await.unwrap_or_default()
        }));
    }

    /// Takes in what a look has found.
    fn take(&mut self, found: Vec<Found>, now: Stamp) {
        if found.len() < OWNERS_MAX {
            let there = |owner: &Held| found.iter().any(|f| procfs::same_run(f.process, owner.process));
            self.owners.retain(there);
        }
        let before = self.owners.len();
        for owner in found {
            self.add(owner);
        }
        self.settle(now);
        if self.owners.len() > before {
            // Once more, later: between fork and exec a child has the executable of its parent.
            self.start_look(now);
        }
    }

    /// Holds one process, if it still runs as an owner.
    fn hold(&mut self, process: ProcessId) {
        if let Some(found) = find(&self.rule, process.tgid)
            && procfs::same_run(found.process, process)
        {
            self.add(found);
            self.settle(clock::now());
        }
    }

    fn add(&mut self, found: Found) {
        let there = self.owners.iter().any(|owner| procfs::same_run(owner.process, found.process));
        if there || self.owners.len() >= OWNERS_MAX {
            return;
        }
        let pidfd = found.pidfd.and_then(|pidfd| {
            // SAFETY: the AsyncFd owns the descriptor, which stays the same for as long as it lives.
            unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }.map_err(io::Error::from)
        });
        if let Err(error) = &pidfd {
            log::debug!("owner {}: its end is not told, only looked for: {error}", found.process.tgid);
        }
        self.owners.push(Held { process: found.process, pidfd: pidfd.ok() });
    }

    fn settle(&mut self, now: Stamp) {
        let ended = self.ended.take();
        if self.owners.is_empty() {
            self.gone_since.get_or_insert(ended.unwrap_or(now));
        } else {
            self.gone_since = None;
            self.seen = true;
        }
    }
}

/// The owners among all processes, at most [`OWNERS_MAX`]. Reads one or two files of each process.
fn look(rule: &OwnerRule) -> Vec<Found> {
    let pids = fs::read_dir("/proc").into_iter().flatten();
    pids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&pid| is_owner(rule, pid))
        .filter_map(|pid| find(rule, pid))
        .take(OWNERS_MAX)
        .collect()
}

/// The owner with this pid, if it is one.
fn find(rule: &OwnerRule, pid: u32) -> Option<Found> {
    // The descriptor comes first. If the pid is another's when it is looked at, the descriptor tells an end at
    // once, and all are looked at again.
    let pidfd = pidfd_open(pid);
    let process = procfs::read(pid)?.id;
    is_owner(rule, pid).then_some(Found { process, pidfd })
}

/// Whether it is an owner itself, not for having been started by one. A process that has ended and that nobody
/// has waited for has no executable.
fn is_owner(rule: &OwnerRule, pid: u32) -> bool {
    match fs::read_link(format!("/proc/{pid}/exe")) {
        Ok(exe) if is_daemon(rule, &exe.to_string_lossy()) => return true,
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return false,
        _ => {}
    }
    rule.needs_cgroups()
        && fs::read_to_string(format!("/proc/{pid}/cgroup"))
            .is_ok_and(|text| parse_membership(&text).is_some_and(|path| rule.names_cgroup(path)))
}

/// Whether this is the program of an owner that stays. A CNI plugin is an owner for as long as a pod takes to start,
/// and processes no withdrawals: pods that come and go are no sign that the CNI's daemon lives.
fn is_daemon(rule: &OwnerRule, exe: &str) -> bool {
    rule.names_exe(exe) && !exe.contains("/cni/bin/")
}

/// `pidfd_open(2)`, since Linux 5.3.
fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes two numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match i32::try_from(fd) {
        // SAFETY: the kernel has just returned this descriptor to us and to nobody else; it closes on exec.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
#[path = "owner_watch_tests.rs"]
mod tests;
