//! Kernel time.

use std::time::Duration;

/// A point on `CLOCK_MONOTONIC`, in nanoseconds: what `bpf_ktime_get_ns` returns in the kernel
/// (`kernel/bpf/helpers.c`) and `clock_gettime(CLOCK_MONOTONIC)` in user space, so that both compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(pub u64);

impl Stamp {
    /// The time from `earlier` to `self`; zero where `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The point `delay` after `self`, at most the end of time.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX)))
    }
}
