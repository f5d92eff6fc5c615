//! How many requests Events may cost.

use std::time::Duration;

use crate::model::Stamp;

/// A token bucket. There is no clock in it.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    most: u32,
    refill: Duration,
    tokens: u32,
    /// When the last token came; while it is full, nothing comes.
    since: Stamp,
}

impl Bucket {
    /// A full one of `most` tokens, which gets another every `refill`.
    pub const fn new(most: u32, refill: Duration) -> Self {
        Self { most, refill, tokens: most, since: Stamp(0) }
    }

    /// Takes a token if more than `reserve` are there.
    pub fn take(&mut self, now: Stamp, reserve: u32) -> bool {
        self.fill(now);
        let there = self.tokens > reserve;
        self.tokens -= u32::from(there);
        there
    }

    /// A token that was taken in vain.
    pub fn give_back(&mut self) {
        self.tokens = (self.tokens + 1).min(self.most);
    }

    /// When more than `reserve` are there, should nobody take one; not before `now`.
    pub fn more_than(&self, now: Stamp, reserve: u32) -> Stamp {
        let mut later = self.clone();
        later.fill(now);
        match (reserve + 1).saturating_sub(later.tokens) {
            0 => now,
            wanting => later.since.after(later.refill * wanting),
        }
    }

    fn fill(&mut self, now: Stamp) {
        let came =
            u32::try_from(now.since(self.since).as_nanos() / self.refill.as_nanos()).unwrap_or(u32::MAX);
        self.tokens = self.tokens.saturating_add(came).min(self.most);
        self.since = if self.tokens == self.most { now } else { self.since.after(self.refill * came) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_one_in_a_while() {
        let at = |seconds| Stamp(0).after(Duration::from_secs(seconds));
        let mut bucket = Bucket::new(3, Duration::from_secs(60));
        // Idle for long, it holds no more than it may.
        let taken = |bucket: &mut Bucket, now| (0..9).filter(|_| bucket.take(now, 0)).count();
        assert_eq!(taken(&mut bucket, at(10_000)), 3);
        assert_eq!(bucket.more_than(at(10_030), 0), at(10_060));
        assert_eq!(taken(&mut bucket, at(10_059)), 0);
        assert_eq!(taken(&mut bucket, at(10_060)), 1);
        assert_eq!(taken(&mut bucket, at(10_200)), 2);
        // What is reserved is left there.
        assert!(!bucket.take(at(10_290), 1));
        assert_eq!(bucket.more_than(at(10_290), 1), at(10_300));
        assert!(bucket.take(at(10_300), 1));
    }
}
