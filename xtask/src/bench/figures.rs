//! Percentiles.

use std::time::Duration;

/// Measured durations, sorted.
#[derive(Clone, Debug, Default)]
pub struct Figures(Vec<Duration>);

impl Figures {
    /// Of these durations.
    pub fn new(mut durations: Vec<Duration>) -> Self {
        durations.sort_unstable();
        Self(durations)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The smallest duration that at least `percent` of them do not exceed, in microseconds; nearest rank.
    pub fn percentile(&self, percent: usize) -> f64 {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).map_or(f64::NAN, |d| d.as_secs_f64() * 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let figures = Figures::new((1..=10).rev().map(Duration::from_micros).collect());
        let near = |percent, us: f64| assert!((figures.percentile(percent) - us).abs() < 1e-6);
        near(50, 5.0);
        near(90, 9.0);
        near(99, 10.0);
        near(100, 10.0);
        near(0, 1.0);
        assert!(Figures::default().percentile(50).is_nan());
    }
}
