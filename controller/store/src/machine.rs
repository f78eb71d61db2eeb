//! What a program is given by the machine that it runs on: the clock that leases are measured on, and chance.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A clock that runs while the machine sleeps, and numbers that nobody foresees. A simulation has its own.
#[derive(Clone)]
pub struct Machine {
    clock: Arc<dyn Fn() -> Duration + Send + Sync>,
    chance: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl fmt::Debug for Machine {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Machine").field("since_boot", &self.since_boot()).finish_non_exhaustive()
    }
}

impl Default for Machine {
    /// The one that this runs on.
    fn default() -> Self {
        // The standard library seeds each hasher at random; what numbers of this kind are for needs no better.
        Self { clock: Arc::new(since_boot), chance: Arc::new(|| RandomState::new().build_hasher().finish()) }
    }
}

impl Machine {
    /// Another one, with the time since its boot, and numbers of its own.
    pub fn simulated(
        clock: impl Fn() -> Duration + Send + Sync + 'static,
        chance: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        Self { clock: Arc::new(clock), chance: Arc::new(chance) }
    }

    /// The time since boot, sleep included.
    pub fn since_boot(&self) -> Duration {
        (self.clock)()
    }

    /// A number that nobody foresees. Not for secrets.
    pub fn chance(&self) -> u64 {
        (self.chance)()
    }

    /// Between half of `pause` and all of it, so that no two clients keep step.
    pub(crate) fn jitter(&self, pause: Duration) -> Duration {
        pause / 2 + (pause / 2).mul_f64(self.chance() as f64 / u64::MAX as f64)
    }
}

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
