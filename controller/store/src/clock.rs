//! The clock that leases are measured on: it runs while the machine sleeps.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The time since boot, sleep included (CLOCK_BOOTTIME, clock_gettime(2)).
///
/// tokio's timers and `Instant` stop while the machine sleeps, so a lease measured on them would look alive on a
/// laptop that was closed for an hour.
pub(crate) fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u32::try_from(now.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanoseconds)
}
