//! How long at least one of several things was missing.

use jiff::Timestamp;

/// Intervals that do not touch and are remembered at once; of more, the two that lie closest become one, which
/// makes the sum too long by the gap between them rather than too short.
const INTERVALS: usize = 64;

/// The union of intervals in microseconds since the epoch, in bounded memory.
#[derive(Debug, Default)]
pub(super) struct Union(Vec<(i64, i64)>);

impl Union {
    /// Adds the `us` microseconds from `start` on.
    pub(super) fn add(&mut self, start: Timestamp, us: u64) {
        let mut from = start.as_microsecond();
        let mut to = from.saturating_add(i64::try_from(us).unwrap_or(i64::MAX));
        // Those that end before it stay before it; those that it touches become part of it.
        let first = self.0.partition_point(|&(_, end)| end < from);
        let after = self.0.partition_point(|&(start, _)| start <= to);
        for &(start, end) in self.0.get(first..after).unwrap_or_default() {
            (from, to) = (from.min(start), to.max(end));
        }
        self.0.splice(first..after.max(first), [(from, to)]);
        if self.0.len() > INTERVALS
            && let Some(at) = (1..self.0.len()).min_by_key(|&i| self.0[i].0 - self.0[i - 1].1)
        {
            let (_, end) = self.0.remove(at);
            self.0[at - 1].1 = end;
        }
    }

    /// The length of all of them, in microseconds.
    pub(super) fn total(&self) -> u64 {
        self.0.iter().map(|(from, to)| u64::try_from(to.saturating_sub(*from)).unwrap_or(0)).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_as_long_as_all_that_it_covers(intervals in prop::collection::vec((0_i64..500, 0_u64..40), 0..60)) {
            let mut union = Union::default();
            let mut covered = HashSet::new();
            for (start, us) in intervals {
                union.add(Timestamp::from_microsecond(start).unwrap(), us);
                covered.extend((0..us).map(|n| start as u64 + n));
            }
            prop_assert_eq!(union.total(), covered.len() as u64);
            prop_assert!(union.0.windows(2).all(|pair| pair[0].1 < pair[1].0));
        }

        #[test]
        fn it_is_bounded_and_never_too_short(gaps in prop::collection::vec(2_i64..100, 0..300)) {
            let mut union = Union::default();
            let mut at = 0;
            for gap in &gaps {
                at += gap;
                union.add(Timestamp::from_microsecond(at).unwrap(), 1);
            }
            prop_assert!(union.0.len() <= INTERVALS);
            prop_assert!(union.total() >= gaps.len() as u64);
        }
    }
}
