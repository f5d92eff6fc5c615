//! Whether systemd-networkd manages guarded ports: it takes those out of their bridge when it is started next, or reads its
//! files again, and their cables are to be ready then ([`crate::core::Core::cables`]).
//!
//! It says so in what it saves of a link: the file that it manages it by (`link_save` of `src/network`, systemd 246 to 257).
//! That is no interface that anybody promises; where it says nothing the cables get ready when it takes the first port.

use std::{
    fs::File,
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::task::{JoinHandle, spawn_blocking};

use super::{clock, guard::Guard, meetings::FOLDER};
use crate::{
    core::{Input, is_networkd},
    model::{ProcessId, Stamp},
    procfs,
};

/// When ports have come it may not have gone through them yet.
const SOON: Duration = Duration::from_secs(1);

/// When it has taken one, it may be at it for a while.
const LATER: Duration = Duration::from_secs(5);

/// So often it is looked in vain before that means anything: it may not have saved what it does yet, or be away since it is
/// started again.
const LOOKS: u32 = 3;

/// Who manages ports may come to manage none.
const AGAIN: Duration = Duration::from_secs(60);

/// What is read of a file at most, in bytes; it has some hundred.
const SAVED: u64 = 64 << 10;

/// Who manages guarded ports, as far as it was looked.
#[derive(Debug, Default)]
pub(super) struct Managed {
    by: Option<ProcessId>,
    /// The ports when it was last decided to look.
    ports: Vec<u32>,
    next: Option<Stamp>,
    /// How often it was looked in vain since there was reason to.
    in_vain: u32,
    /// On a thread of its own, since a file system may not answer. Where none does nobody looks again, and all stays as it is.
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
        self.in_vain = 0;
    }

    /// Takes in what a look has found; whether that means anything.
    fn found(&mut self, now: Stamp, by: Option<ProcessId>) -> bool {
        if by.is_some() {
            self.look_after(now, AGAIN);
        } else {
            self.in_vain += 1;
            if self.in_vain < LOOKS {
                self.next.get_or_insert(now.after(LATER));
                return false;
            }
        }
        self.by = by;
        true
    }
}

impl Guard {
    /// Other ports may be guarded now.
    pub(super) fn heed_ports(&mut self) {
        let ports = self.core.ports();
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
        let ports = self.source.cables().map(|_| self.managed.ports.clone()).unwrap_or_default();
        let known = self.managed.by;
        self.managed.looking = Some(spawn_blocking(move || look(known, &ports)));
    }

    /// Whether a look has come to an end; it wakes `cx` when one has. To be called within the runtime.
    pub(super) fn has_looked(&mut self, cx: &mut Context<'_>) -> bool {
        let looking = self.managed.looking.as_mut().map(|looking| Pin::new(looking).poll(cx));
        let Some(Poll::Ready(found)) = looking else { return false };
        self.managed.looking = None;
        // A look that broke off has found nobody.
        if self.managed.found(clock::now(), found.ok().flatten()) {
            self.core.step(clock::now(), Input::Manages(self.managed.by));
        }
        true
    }
}

/// The one that manages any of these links, by ifindex: `known`, or any that runs in this network namespace.
fn look(known: Option<ProcessId>, ports: &[u32]) -> Option<ProcessId> {
    if ports.is_empty() {
        return None;
    }
    let manages = |process: &ProcessId| {
        // Anybody may give himself that name, and say what he wants. Who may not take a port does not manage one.
        procfs::may_configure_network(*process)
            && procfs::folder(*process, FOLDER)
                .is_some_and(|folder| ports.iter().any(|port| is_managed(&folder, *port)))
    };
    known.filter(manages).or_else(|| procfs::here(is_networkd).map(|process| process.id).find(manages))
}

/// Whether it manages a link, by what it has saved of it in this folder.
fn is_managed(folder: &File, link: u32) -> bool {
    let Some(saved) = procfs::text_of(folder, &link.to_string(), SAVED) else { return false };
    let value = |name| saved.lines().find_map(|line| line.strip_prefix(name));
    value("NETWORK_FILE=").is_some_and(|file| !file.is_empty()) && value("ADMIN_STATE=") != Some("unmanaged")
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
        let pipe = temporary.path().join("11");
        assert!(std::process::Command::new("mkfifo").arg(pipe).status().unwrap().success());
        assert!(!is_managed(&folder, 11), "a pipe that nobody writes to");
    }

    fn at(seconds: u64) -> Stamp {
        Stamp(1).after(Duration::from_secs(seconds))
    }

    /// What a look finds is told, and whether it is looked again.
    fn looks(managed: &mut Managed, now: u64, found: bool) -> (Option<bool>, Option<Stamp>) {
        managed.next = None;
        let is_news = managed.found(at(now), found.then_some(NETWORKD));
        (is_news.then_some(managed.by.is_some()), managed.deadline())
    }

    #[test]
    fn it_may_take_a_while_until_anything_is_saved() {
        let mut managed = Managed::default();
        managed.look_after(at(0), SOON);
        managed.look(at(0));
        assert_eq!(managed.deadline(), Some(at(1)), "the earlier one");
        assert_eq!(looks(&mut managed, 1, false), (None, Some(at(6))));
        assert_eq!(looks(&mut managed, 6, true), (Some(true), Some(at(66))));
        managed.look(at(30));
        assert_eq!(managed.deadline(), Some(at(35)));
    }

    #[test]
    fn a_restart_is_no_reason_to_put_anything_away() {
        let mut managed = Managed::default();
        assert_eq!(looks(&mut managed, 0, true), (Some(true), Some(at(60))));
        assert_eq!(looks(&mut managed, 60, false), (None, Some(at(65))));
        assert_eq!(looks(&mut managed, 65, true), (Some(true), Some(at(125))));
        // However late each is.
        for (now, news) in [(125, None), (200, None), (300, Some(false))] {
            assert_eq!(looks(&mut managed, now, false), (news, news.is_none().then(|| at(now + 5))));
        }
    }
}
