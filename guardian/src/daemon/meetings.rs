//! Which links systemd-networkd meets anew, of those that it has forgotten.
//!
//! It forgets a link that leaves a bridge, and what it has saved of it with it. When it has met it anew, and asked the kernel
//! about it, it saves it again (`link_drop` and `link_save` of `src/network`, systemd 246 to 257). Where it finds it after
//! that is of no matter to it: a port that comes back earlier is taken out again, one that comes back then is left alone.
//!
//! That it saves links in `/run/systemd/netif/links` is no interface that anybody promises. Where there is nothing, or
//! nothing that may be read, it is waited until the process rests, or for as long as it took the last time.

use std::{
    collections::BTreeSet,
    fs::File,
    mem::MaybeUninit,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    pin::Pin,
    task::{Context, Poll},
};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::{model::ProcessId, procfs};

/// Where it saves them, a file for each ifindex.
pub(super) const FOLDER: &str = "run/systemd/netif/links";

/// What is heard at once, between two looks at what else has come.
const BATCH: usize = 1024;

/// Links that are known to be forgotten; more than a node has.
const FORGOTTEN: usize = 4096;

/// What one process says, while it is waited for.
#[derive(Debug)]
pub struct Meetings {
    process: ProcessId,
    state: State,
    forgotten: BTreeSet<u32>,
}

#[derive(Debug)]
enum State {
    /// On a thread of its own: it is for the process to say what its folder is, and that may make who opens it wait.
    Opening(JoinHandle<Option<OwnedFd>>),
    Open(OwnedFd),
    /// There is nothing to be heard.
    Closed,
}

impl Meetings {
    /// Begins to listen. To be called within the runtime.
    pub fn begin(process: ProcessId) -> Self {
        let state = State::Opening(spawn_blocking(move || open(process)));
        Self { process, state, forgotten: BTreeSet::new() }
    }

    /// Whose they are.
    pub const fn process(&self) -> ProcessId {
        self.process
    }

    /// Whether the thread that opens them has not come back. Another one might be kept waiting, too.
    pub fn is_opening(&self) -> bool {
        matches!(&self.state, State::Opening(opening) if !opening.is_finished())
    }

    /// Once it is open: what wakes when there is something to hear.
    pub fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<RawFd> {
        let State::Opening(opening) = &mut self.state else { return Poll::Pending };
        let Poll::Ready(opened) = Pin::new(opening).poll(cx) else { return Poll::Pending };
        self.state = opened.ok().flatten().map_or(State::Closed, State::Open);
        self.descriptor().map_or(Poll::Pending, Poll::Ready)
    }

    /// What wakes, where it is open.
    pub fn descriptor(&self) -> Option<RawFd> {
        match &self.state {
            State::Open(fd) => Some(fd.as_raw_fd()),
            _ => None,
        }
    }

    /// Hears, by ifindex, which links have been met anew since this was asked last. Never waits; whether there may be more,
    /// for which nobody is woken again.
    pub fn hear(&mut self, met: &mut Vec<u32>) -> bool {
        let State::Open(fd) = &self.state else { return false };
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(fd, &mut buffer);
        for _ in 0..BATCH {
            let Ok(event) = reader.next() else { return false };
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                self.forgotten.clear();
            }
            // It writes each under another name first.
            let name = event.file_name().and_then(|name| name.to_str().ok());
            let Some(link) = name.and_then(|name| name.parse().ok()) else { continue };
            if !event.events().contains(ReadFlags::DELETE) {
                met.extend(self.forgotten.take(&link));
            } else if self.forgotten.len() < FORGOTTEN {
                self.forgotten.insert(link);
            }
        }
        true
    }
}

fn open(process: ProcessId) -> Option<OwnedFd> {
    let folder = procfs::folder(process, FOLDER)?;
    watch(&folder).inspect_err(|error| log::debug!("cannot hear what systemd-networkd saves: {error}")).ok()
}

fn watch(folder: &File) -> rustix::io::Result<OwnedFd> {
    let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let flags = WatchFlags::DELETE | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
    inotify::add_watch(&inotify, format!("/proc/self/fd/{}", folder.as_raw_fd()), flags)?;
    Ok(inotify)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, thread, time::Duration};

    use super::*;

    fn meetings(folder: &Path) -> Meetings {
        let inotify = watch(&File::open(folder).unwrap()).unwrap();
        let process = ProcessId { tgid: 7, start_ns: 1 };
        Meetings { process, state: State::Open(inotify), forgotten: BTreeSet::new() }
    }

    fn heard(meetings: &mut Meetings) -> Vec<u32> {
        let mut met = Vec::new();
        while meetings.hear(&mut met) {}
        met
    }

    /// As `link_save` does it: under another name, and then in its place.
    fn save(folder: &Path, link: u32) {
        fs::write(folder.join(".#new"), "ADMIN_STATE=initialized\n").unwrap();
        fs::rename(folder.join(".#new"), folder.join(link.to_string())).unwrap();
    }

    #[test]
    fn a_link_is_met_anew_once_it_was_forgotten_and_is_saved() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path();
        for link in [7, 8, 9] {
            save(folder, link);
        }
        let mut meetings = meetings(folder);
        assert!(heard(&mut meetings).is_empty(), "that was before");
        save(folder, 7);
        assert!(heard(&mut meetings).is_empty(), "it is on its way, and has not been forgotten");
        fs::remove_file(folder.join("7")).unwrap();
        fs::remove_file(folder.join("8")).unwrap();
        assert!(heard(&mut meetings).is_empty());
        save(folder, 9);
        save(folder, 8);
        assert_eq!(heard(&mut meetings), [8]);
        save(folder, 8);
        save(folder, 7);
        assert_eq!(heard(&mut meetings), [7], "8 has been told");
        fs::remove_file(folder.join("8")).unwrap();
        save(folder, 8);
        assert_eq!(heard(&mut meetings), [8], "and is told again");
        fs::write(folder.join("lost+found"), "").unwrap();
        assert!(heard(&mut meetings).is_empty());
    }

    /// Whose folder it is can make much of nothing: others have their turn meanwhile, and what is kept is bounded.
    #[test]
    fn a_flood_is_heard_in_parts() {
        let temporary = tempfile::tempdir().unwrap();
        let mut meetings = meetings(temporary.path());
        for link in 0..5000 {
            save(temporary.path(), link);
            fs::remove_file(temporary.path().join(link.to_string())).unwrap();
        }
        let (mut met, mut parts) = (Vec::new(), 1);
        while meetings.hear(&mut met) {
            parts += 1;
        }
        assert!(met.is_empty() && parts > 5, "{parts}");
        assert_eq!(meetings.forgotten.len(), FORGOTTEN);
    }

    #[tokio::test]
    async fn who_has_no_such_folder_is_not_heard() {
        let nobody = ProcessId { tgid: u32::MAX, start_ns: 1 };
        let mut meetings = Meetings::begin(nobody);
        while matches!(meetings.state, State::Opening(_)) {
            let _ = std::future::poll_fn(|cx| Poll::Ready(meetings.poll_open(cx))).await;
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!((meetings.descriptor(), heard(&mut meetings)), (None, vec![]));
    }
}
