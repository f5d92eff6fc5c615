//! Whether a process that is let finish has finished.
//!
//! With all: it sleeps, and has slept for a moment. systemd-networkd for one does all that follows from a message in one
//! go, and sleeps in `epoll_wait` when it is through.
//!
//! With one link: systemd-networkd forgets a link that leaves a bridge, and saves nothing of it any more; when it has met it
//! anew, and asked the kernel about it, it saves it as a new one. Where it finds it after that is of no matter to it.
//!
//! Nothing is announced of either; so it is looked, but only while something of a pod's waits for it.

use std::{collections::HashMap, time::Duration};

use crate::{
    core::Wait,
    model::{ProcessId, Stamp},
    procfs::Version,
};

/// Who has slept for so long has nothing to do: what a process waits for in passing, such as a lock, takes less.
const RESTS: Duration = Duration::from_millis(2);

/// How often it is looked, at first; who takes long is looked at less often.
const LOOK: Duration = Duration::from_millis(1);

/// After which part of the time that it has taken by now it is looked again.
const PART: u32 = 32;

/// Who is not looked at for so long after it was due is waited for no longer.
const OVER: Duration = Duration::from_secs(1);

/// The process that is looked at.
#[derive(Debug, Default)]
pub struct Patience {
    process: Option<Seen>,
    links: HashMap<u32, Known>,
}

/// A link that was taken.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// When.
    at: Stamp,
    /// What was saved of it when it was looked first.
    version: Option<Version>,
    /// Whether it has been forgotten since.
    forgotten: bool,
}

#[derive(Debug)]
struct Seen {
    process: ProcessId,
    begun: Stamp,
    next: Stamp,
    /// How often it had gone to sleep when it was last seen to sleep, and since when that has been so.
    asleep: Option<(u64, Stamp)>,
}

impl Patience {
    /// When to look at this process, which is waited for with these: at once where one of them is new.
    pub fn deadline(&self, process: ProcessId, mut waits: impl Iterator<Item = Wait>) -> Stamp {
        let seen = self.process.as_ref().filter(|seen| seen.process == process);
        let is_known = |wait: Wait| self.links.get(&wait.link).is_some_and(|known| known.at == wait.at);
        seen.filter(|_| waits.all(is_known)).map_or(Stamp(0), |seen| seen.next)
    }

    /// Looks at what is saved of a link now. Whether it has been met anew since it was looked first.
    pub fn has_met(&mut self, wait: Wait, version: Option<Version>, is_new: impl FnOnce() -> bool) -> bool {
        let first = Known { at: wait.at, version, forgotten: version.is_none() };
        let known = self.links.entry(wait.link).or_insert(first);
        if known.at != wait.at {
            *known = first;
        }
        known.forgotten |= version.is_none();
        let met = version.is_some() && (known.forgotten || version != known.version && is_new());
        if met {
            self.links.remove(&wait.link);
        }
        met
    }

    /// Looks at the process; `asleep` is what [`crate::procfs::asleep`] says. Whether it rests.
    pub fn rests(&mut self, now: Stamp, process: ProcessId, asleep: Option<u64>) -> bool {
        // Who was due long ago was waited for at another time.
        let known = self.process.take();
        let known = known.filter(|seen| seen.process == process && now < seen.next.after(OVER));
        let mut seen = known.unwrap_or_else(|| Seen { process, begun: now, next: now, asleep: None });
        seen.asleep = asleep.map(|times| match seen.asleep {
            Some((before, since)) if before == times => (times, since),
            _ => (times, now),
        });
        if seen.asleep.is_some_and(|(_, since)| now.since(since) >= RESTS) {
            self.links.clear();
            return true;
        }
        seen.next = now.after(LOOK.max(now.since(seen.begun) / PART));
        self.process = Some(seen);
        false
    }
}

#[cfg(test)]
mod tests {
    use std::iter;

    use super::*;

    const NETWORKD: ProcessId = ProcessId { tgid: 7, start_ns: 1 };

    #[test]
    fn who_sleeps_on_rests() {
        let mut patience = Patience::default();
        let ms = |ms| Stamp(0).after(Duration::from_millis(ms));
        assert_eq!(patience.deadline(NETWORKD, iter::empty()), Stamp(0), "at once");
        assert!(!patience.rests(ms(5), NETWORKD, None), "it runs");
        assert_eq!(patience.deadline(NETWORKD, iter::empty()), ms(6));
        assert!(!patience.rests(ms(6), NETWORKD, Some(3)));
        assert!(!patience.rests(ms(9), NETWORKD, Some(4)), "it has not slept all the time");
        assert!(!patience.rests(ms(10), NETWORKD, Some(4)), "not long enough");
        assert!(!patience.rests(ms(20), NETWORKD, None));
        assert!(!patience.rests(ms(21), NETWORKD, Some(4)));
        assert!(patience.rests(ms(23), NETWORKD, Some(4)));
        let other = ProcessId { tgid: 8, start_ns: 1 };
        assert!(!patience.rests(ms(24), other, Some(4)), "nothing is known of it");
        assert!(!patience.rests(ms(30), NETWORKD, Some(4)), "it is another time");
    }

    #[test]
    fn who_takes_long_is_looked_at_less_often() {
        let mut patience = Patience::default();
        let (mut now, mut looks) = (Stamp(1), 0);
        while now < Stamp(3_000_000_000) {
            patience.rests(now, NETWORKD, None);
            now = patience.deadline(NETWORKD, iter::empty());
            looks += 1;
        }
        assert!(looks < 300, "{looks}");
        assert!(now < Stamp(4_000_000_000), "{now:?}");
    }

    #[test]
    fn a_link_is_met_anew_once_something_new_is_saved_of_it() {
        let mut patience = Patience::default();
        let wait = |link, at| Wait { link, at: Stamp(at) };
        let saved = |nth| Some(Version::nth(nth));
        patience.rests(Stamp(1), NETWORKD, None);
        let due = |patience: &Patience, wait| patience.deadline(NETWORKD, iter::once(wait)) > Stamp(0);
        assert!(!due(&patience, wait(7, 5)), "it is looked at once what was saved of it");
        assert!(!patience.has_met(wait(7, 5), saved(1), || true), "that was before");
        assert!(due(&patience, wait(7, 5)));
        assert!(!patience.has_met(wait(7, 5), saved(1), || true));
        assert!(!patience.has_met(wait(7, 5), saved(2), || false), "it was not forgotten yet");
        assert!(!patience.has_met(wait(8, 6), saved(3), || true), "another one");
        assert!(patience.has_met(wait(7, 5), saved(4), || true));
        assert!(!patience.has_met(wait(8, 6), None, || true), "forgotten");
        assert!(patience.has_met(wait(8, 6), saved(5), || false), "it has gone on");
        // Taken again.
        assert!(!due(&patience, wait(7, 9)));
        assert!(!patience.has_met(wait(7, 9), saved(4), || true));
        assert!(!patience.has_met(wait(7, 20), saved(5), || true), "and again, before it was met");
        assert!(patience.has_met(wait(7, 20), saved(6), || true));
    }

    /// Another time it is looked at as often as at first.
    #[test]
    fn an_earlier_time_does_not_count() {
        let mut patience = Patience::default();
        assert!(!patience.rests(Stamp(1), NETWORKD, None));
        let later = Stamp(1).after(Duration::from_secs(60));
        assert!(!patience.rests(later, NETWORKD, None));
        assert_eq!(patience.deadline(NETWORKD, iter::empty()), later.after(LOOK));
    }
}
