//! Percentiles.

use std::time::Duration;

/// What was measured, sorted.
#[derive(Clone, Debug, Default)]
pub struct Figures(Vec<f64>);

impl Figures {
    /// Of these.
    pub fn new(measured: impl IntoIterator<Item = f64>) -> Self {
        let mut measured: Vec<f64> = measured.into_iter().collect();
        measured.sort_by(f64::total_cmp);
        Self(measured)
    }

    /// Of these durations, in microseconds.
    pub fn of_durations(durations: impl IntoIterator<Item = Duration>) -> Self {
        Self::new(durations.into_iter().map(|duration| duration.as_secs_f64() * 1e6))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The smallest that at least `percent` of them do not exceed; nearest rank.
    pub fn percentile(&self, percent: usize) -> f64 {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).copied().unwrap_or(f64::NAN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let figures = Figures::of_durations((1..=10).rev().map(Duration::from_micros));
        let near = |percent, us: f64| assert!((figures.percentile(percent) - us).abs() < 1e-6);
        near(50, 5.0);
        near(90, 9.0);
        near(99, 10.0);
        near(100, 10.0);
        near(0, 1.0);
        assert!(Figures::default().percentile(50).is_nan());
    }
}
