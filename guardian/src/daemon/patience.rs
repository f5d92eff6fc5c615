//! Whether a process that is let finish has nothing more to do: it sleeps, and has slept for a moment.
//!
//! systemd-networkd for one does all that follows from a message in one go, and sleeps in `epoll_wait` when it is through.
//! Nothing is announced then; so it is looked at, but only while something of a pod's waits for it.

use std::time::Duration;

use crate::model::{ProcessId, Stamp};

/// Who has slept for so long has nothing to do: what a process waits for in passing, such as a lock, takes less.
const RESTS: Duration = Duration::from_millis(2);

/// How often it is looked, at first; who takes long is looked at less often.
const LOOK: Duration = Duration::from_millis(1);

/// After which part of the time that it has taken by now it is looked again.
const PART: u32 = 8;

/// The process that is looked at.
#[derive(Debug, Default)]
pub struct Patience(Option<Seen>);

#[derive(Debug)]
struct Seen {
    process: ProcessId,
    begun: Stamp,
    next: Stamp,
    /// How often it had gone to sleep when it was last seen to sleep, and since when that has been so.
    asleep: Option<(u64, Stamp)>,
}

impl Patience {
    /// When to look at this process.
    pub fn deadline(&self, process: ProcessId) -> Stamp {
        self.0.as_ref().filter(|seen| seen.process == process).map_or(Stamp(0), |seen| seen.next)
    }

    /// Looks at it; `asleep` is what [`crate::procfs::asleep`] says. Whether it rests.
    pub fn looks(&mut self, now: Stamp, process: ProcessId, asleep: Option<u64>) -> bool {
        let known = self.0.take().filter(|seen| seen.process == process);
        let mut seen = known.unwrap_or(Seen { process, begun: now, next: now, asleep: None });
        seen.asleep = asleep.map(|times| match seen.asleep {
            Some((before, since)) if before == times => (times, since),
            _ => (times, now),
        });
        if seen.asleep.is_some_and(|(_, since)| now.since(since) >= RESTS) {
            return true;
        }
        seen.next = now.after(LOOK.max(now.since(seen.begun) / PART));
        self.0 = Some(seen);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORKD: ProcessId = ProcessId { tgid: 7, start_ns: 1 };

    #[test]
    fn who_sleeps_on_rests() {
        let mut patience = Patience::default();
        let ms = |ms| Stamp(0).after(Duration::from_millis(ms));
        assert_eq!(patience.deadline(NETWORKD), Stamp(0), "at once");
        assert!(!patience.looks(ms(5), NETWORKD, None), "it runs");
        assert_eq!(patience.deadline(NETWORKD), ms(6));
        assert!(!patience.looks(ms(6), NETWORKD, Some(3)));
        assert!(!patience.looks(ms(9), NETWORKD, Some(4)), "it has not slept all the time");
        assert!(!patience.looks(ms(10), NETWORKD, Some(4)), "not long enough");
        assert!(!patience.looks(ms(20), NETWORKD, None));
        assert!(!patience.looks(ms(21), NETWORKD, Some(4)));
        assert!(patience.looks(ms(23), NETWORKD, Some(4)));
        let other = ProcessId { tgid: 8, start_ns: 1 };
        assert!(!patience.looks(ms(24), other, Some(4)), "nothing is known of it");
        assert!(!patience.looks(ms(30), NETWORKD, Some(4)), "it is another time");
    }

    #[test]
    fn who_takes_long_is_looked_at_less_often() {
        let mut patience = Patience::default();
        let (mut now, mut looks) = (Stamp(1), 0);
        while now < Stamp(3_000_000_000) {
            patience.looks(now, NETWORKD, None);
            now = patience.deadline(NETWORKD);
            looks += 1;
        }
        assert!(looks < 80, "{looks}");
        assert!(now < Stamp(4_000_000_000), "{now:?}");
    }
}
