//! The two clocks: the kernel's stamps and the wall.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

use crate::model::Stamp;

/// Now on `CLOCK_MONOTONIC`, as `bpf_ktime_get_ns` has it.
pub fn now() -> Stamp {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec that outlives the call; CLOCK_MONOTONIC exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    Stamp(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// The wall-clock time of a stamp that is not long ago, in time since 1970.
pub fn wall(stamp: Stamp) -> Duration {
    let ago = now().since(stamp);
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since_1970.saturating_sub(ago)
}

/// RFC 3339 in UTC with microseconds.
pub fn rfc3339(since_1970: Duration) -> String {
    let micros = i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_microsecond(micros).map_or_else(|_| String::new(), |time| format!("{time:.6}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_becomes_a_time() {
        let text = rfc3339(Duration::from_micros(1_795_316_531_204_518));
        assert_eq!(text, "2026-11-22T03:02:11.204518Z");
        let earlier = Stamp(now().0 - 5_000_000_000);
        let passed = wall(now()).saturating_sub(wall(earlier));
        assert!(passed >= Duration::from_millis(4990) && passed < Duration::from_millis(5500), "{passed:?}");
    }
}
