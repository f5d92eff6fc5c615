//! Whether systemd-networkd manages guarded ports: it takes those out of their bridge when it is started next, or reads its
//! files again, and their cables are to be ready then ([`crate::core::Core::cables`]).
//!
//! It says so in what it saves of a link: the file that it manages it by (`link_save` of `src/network`, systemd 246 to 257).
//! That is no interface that anybody promises; where it says nothing the cables get ready when it takes the first port.

use std::{
    fs::File,
    future::Future as _,
    io::Read as _,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use rustix::fs::{Mode, OFlags, openat};
use tokio::task::{JoinHandle, spawn_blocking};

use super::{clock, guard::Guard, meetings::FOLDER};
use crate::{
    core::is_networkd,
    model::{ProcessId, Stamp},
    procfs,
};

/// When ports have come it may not have gone through them yet.
const SOON: Duration = Duration::from_secs(1);

/// When it has taken one, it may be at it for a while.
const LATER: Duration = Duration::from_secs(5);

/// It may take so long until it has saved what it does, and be away for so long where it is started again.
const DOUBT: Duration = Duration::from_secs(10);

/// Who manages ports may come to manage none.
const AGAIN: Duration = Duration::from_secs(60);

/// What is read of a file at most, in bytes; it has some hundred.
const SAVED: u64 = 64 << 10;

/// Who manages guarded ports, as far as it was looked.
#[derive(Debug, Default)]
pub(super) struct Managed {
    by: Option<ProcessId>,
    ports: usize,
    next: Option<Stamp>,
    /// Until when it means nothing that nobody is found.
    in_doubt: Stamp,
    /// On a thread of its own, since a file system may not answer.
    looking: Option<JoinHandle<Option<ProcessId>>>,
}

impl Managed {
    /// When it is looked next. While a look is going on, none is due.
    pub fn deadline(&self) -> Option<Stamp> {
        self.next.filter(|_| self.looking.is_none())
    }

    /// Ports have been taken, or all is different.
    pub fn look(&mut self, now: Stamp) {
        self.look_after(now, LATER);
    }

    fn look_after(&mut self, now: Stamp, time: Duration) {
        let at = now.after(time);
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
        self.in_doubt = at.after(DOUBT);
    }

    /// Ready when a look has come to an end: who it is. To be called within the runtime.
    pub fn poll_found(&mut self, cx: &mut Context<'_>) -> Poll<Option<ProcessId>> {
        let Some(Poll::Ready(found)) = self.looking.as_mut().map(|looking| Pin::new(looking).poll(cx)) else {
            return Poll::Pending;
        };
        self.looking = None;
        Poll::Ready(self.found(clock::now(), found.ok().flatten()))
    }

    fn found(&mut self, now: Stamp, by: Option<ProcessId>) -> Option<ProcessId> {
        if by.is_some() {
            self.look_after(now, AGAIN);
        } else if now < self.in_doubt {
            self.next.get_or_insert(now.after(LATER));
            return self.by;
        }
        self.by = by;
        self.by
    }
}

impl Guard {
    /// Ports may have come, or gone.
    pub(super) fn heed_ports(&mut self) {
        let ports = self.core.ports().len();
        if ports != self.managed.ports {
            self.managed.ports = ports;
            self.managed.look_after(clock::now(), SOON);
        }
    }

    /// Looks, where it is time.
    pub(super) fn look_who_manages(&mut self, now: Stamp) {
        if self.managed.deadline().is_none_or(|at| at > now) {
            return;
        }
        self.managed.next = None;
        // Without cables nothing comes of it.
        let ports = self.source.cables().map(|_| self.core.ports()).unwrap_or_default();
        let known = self.managed.by;
        self.managed.looking = Some(spawn_blocking(move || look(known, &ports)));
    }
}

/// The one that manages any of these links, by ifindex: `known`, or any that runs in this network namespace.
fn look(known: Option<ProcessId>, ports: &[u32]) -> Option<ProcessId> {
    let manages = |process: &ProcessId| {
        procfs::folder(*process, FOLDER)
            .is_some_and(|folder| ports.iter().any(|port| is_managed(&folder, *port)))
    };
    if ports.is_empty() {
        return None;
    }
    known.filter(manages).or_else(|| procfs::here(is_networkd).map(|process| process.id).find(manages))
}

/// Whether it manages a link, by what it has saved of it in this folder.
fn is_managed(folder: &File, link: u32) -> bool {
    // It is for somebody else to say what is there: no pipe, and no link to elsewhere.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = openat(folder, link.to_string(), flags, Mode::empty()) else { return false };
    let mut saved = String::new();
    let read = File::from(file).take(SAVED).read_to_string(&mut saved);
    let value = |name| saved.lines().find_map(|line| line.strip_prefix(name));
    read.is_ok()
        && value("NETWORK_FILE=").is_some_and(|file| !file.is_empty())
        && value("ADMIN_STATE=") != Some("unmanaged")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const NETWORKD: ProcessId = ProcessId { tgid: 7, start_ns: 1 };

    #[test]
    fn what_is_saved_says_whether_a_link_is_managed() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = File::open(temporary.path()).unwrap();
        let file = "NETWORK_FILE=/etc/systemd/network/zz-default.network\n";
        for (saved, is) in [
            (format!("ADMIN_STATE=configured\n{file}"), true),
            (format!("ADMIN_STATE=configuring\nOPER_STATE=degraded\n{file}"), true),
            (format!("ADMIN_STATE=unmanaged\n{file}"), false),
            ("ADMIN_STATE=unmanaged\nOPER_STATE=degraded\n".into(), false),
            ("ADMIN_STATE=initialized\nNETWORK_FILE=\n".into(), false),
            (String::new(), false),
        ] {
            fs::write(temporary.path().join("7"), &saved).unwrap();
            assert_eq!(is_managed(&folder, 7), is, "{saved}");
        }
        assert!(!is_managed(&folder, 8), "nothing is saved of it");
        fs::write(temporary.path().join("9"), [0xff]).unwrap();
        assert!(!is_managed(&folder, 9), "no text");
        fs::write(temporary.path().join("other"), format!("ADMIN_STATE=configured\n{file}")).unwrap();
        std::os::unix::fs::symlink("other", temporary.path().join("10")).unwrap();
        assert!(!is_managed(&folder, 10), "a link to elsewhere");
        assert!(
            std::process::Command::new("mkfifo").arg(temporary.path().join("11")).status().unwrap().success()
        );
        assert!(!is_managed(&folder, 11), "a pipe that nobody writes to");
    }

    fn at(seconds: u64) -> Stamp {
        Stamp(1).after(Duration::from_secs(seconds))
    }

    /// What a look finds is told, and whether it is looked again.
    fn looks(managed: &mut Managed, now: u64, found: bool) -> (bool, Option<Stamp>) {
        managed.next = None;
        let by = managed.found(at(now), found.then_some(NETWORKD));
        (by == Some(NETWORKD), managed.deadline())
    }

    #[test]
    fn it_may_take_a_while_until_anything_is_saved() {
        let mut managed = Managed::default();
        managed.look_after(at(0), SOON);
        managed.look(at(0));
        assert_eq!(managed.deadline(), Some(at(1)), "the earlier one");
        assert_eq!(looks(&mut managed, 1, false), (false, Some(at(6))));
        assert_eq!(looks(&mut managed, 6, true), (true, Some(at(66))));
        managed.look(at(30));
        assert_eq!(managed.deadline(), Some(at(35)));
    }

    #[test]
    fn a_restart_is_no_reason_to_put_anything_away() {
        let mut managed = Managed::default();
        assert_eq!(looks(&mut managed, 0, true), (true, Some(at(60))));
        assert_eq!(looks(&mut managed, 60, false), (true, Some(at(65))));
        assert_eq!(looks(&mut managed, 65, true), (true, Some(at(125))));
        for (now, manages) in [(125, true), (130, true), (135, false)] {
            let again = manages.then(|| at(now + 5));
            assert_eq!(looks(&mut managed, now, false), (manages, again));
        }
    }
}
