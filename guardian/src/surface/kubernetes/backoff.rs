//! When an API server that does not answer is tried again.

use std::time::Duration;

use crate::model::Stamp;

/// The first pause; doubled each time, up to [`MAX`].
const INITIAL: Duration = Duration::from_secs(1);

/// The longest pause, to which up to half of it is added.
pub(super) const MAX: Duration = Duration::from_secs(300);

/// Pauses between attempts, longer each time. There is no clock in it.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    /// Of 0 to 1: how much is added, so that not all nodes of a cluster come back in the same second.
    spread: f64,
    pause: Duration,
    until: Option<Stamp>,
}

impl Backoff {
    /// Ready at once.
    pub fn new(spread: f64) -> Self {
        Self { spread: spread.clamp(0.0, 1.0), pause: INITIAL, until: None }
    }

    /// Whether it may be tried.
    pub fn is_ready(&self, now: Stamp) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    /// Until when it has to wait; `None` where it need not.
    pub const fn until(&self) -> Option<Stamp> {
        self.until
    }

    /// It did not answer.
    pub fn failed(&mut self, now: Stamp) {
        self.until = Some(now.after(self.pause.mul_f64(1.0 + self.spread / 2.0)));
        self.pause = (self.pause * 2).min(MAX);
    }

    /// It answered.
    pub fn succeeded(&mut self) {
        (self.pause, self.until) = (INITIAL, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The attempts in an hour in which every one fails after ten seconds.
    fn attempts(spread: f64) -> Vec<u64> {
        let (mut backoff, mut now, mut all) = (Backoff::new(spread), Stamp(0), Vec::new());
        while now < Stamp(0).after(Duration::from_secs(3600)) {
            assert!(backoff.is_ready(now));
            all.push(now.0 / 1_000_000_000);
            backoff.failed(now.after(Duration::from_secs(10)));
            now = backoff.until().unwrap();
        }
        all
    }

    #[test]
    fn an_hour_is_a_few_attempts_and_nodes_come_at_different_times() {
        let (first, last) = (attempts(0.0), attempts(1.0));
        assert_eq!(first[..4], [0, 11, 23, 37]);
        assert!((15..25).contains(&first.len()) && (12..25).contains(&last.len()), "{first:?} {last:?}");
        assert!(
            first.windows(2).chain(last.windows(2)).all(|two| two[1] - two[0] <= 460),
            "{first:?} {last:?}"
        );
        assert!(first.last().unwrap().abs_diff(*last.last().unwrap()) > 30, "{first:?} {last:?}");
    }

    #[test]
    fn an_answer_begins_anew() {
        let mut backoff = Backoff::new(0.0);
        for _ in 0..20 {
            backoff.failed(Stamp(0));
        }
        assert_eq!(backoff.until(), Some(Stamp(0).after(MAX)));
        backoff.succeeded();
        assert!(backoff.is_ready(Stamp(0)));
        backoff.failed(Stamp(0));
        assert_eq!(backoff.until(), Some(Stamp(0).after(INITIAL)));
    }
}
