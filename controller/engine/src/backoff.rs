//! How long what failed waits before it is tried again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The first wait.
const FIRST: Duration = Duration::from_secs(1);

/// The longest: a person who has mended something waits no longer than this without asking.
const LONGEST: Duration = Duration::from_secs(300);

/// The wait after the `failures`th failure in a row, from 1: doubled each time, with jitter of up to a fifth, so that
/// what failed together is not tried again together.
pub fn wait(failures: u32, jitter: u64) -> Duration {
    wait_at_most(LONGEST, failures, jitter)
}

/// The same, growing to `longest` only.
pub fn wait_at_most(longest: Duration, failures: u32, jitter: u64) -> Duration {
    let doubled = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(longest);
    earlier(doubled, 5, jitter)
}

/// What is done once an interval, up to a tenth of that earlier: what was begun together is not done together.
pub fn spread(interval: Duration, jitter: u64) -> Duration {
    earlier(interval, 10, jitter)
}

/// A wait, shorter by up to one in so many parts of it.
fn earlier(wait: Duration, parts: u64, jitter: u64) -> Duration {
    let part = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX) / parts;
    wait - Duration::from_millis(jitter.checked_rem(part).unwrap_or(0))
}

/// Tells waits apart that begin together: another number each time.
#[derive(Debug, Default)]
pub struct Jitter(AtomicU64);

impl Jitter {
    /// The next one. Any numbers that differ will do.
    pub fn next(&self) -> u64 {
        self.0.fetch_add(0x9E37_79B9, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_five_minutes() {
        let whole: Vec<u64> = (1..=11).map(|failures| wait(failures, 0).as_secs()).collect();
        assert_eq!(whole, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert!((0..1000).all(|jitter| (Duration::from_millis(800)..=FIRST).contains(&wait(1, jitter))));
        assert_eq!(wait(u32::MAX, 0), LONGEST);
    }

    #[test]
    fn what_begins_together_is_not_done_together() {
        let (minute, jitter) = (Duration::from_secs(60), Jitter::default());
        let waits: std::collections::BTreeSet<Duration> =
            std::iter::repeat_with(|| spread(minute, jitter.next())).take(100).collect();
        assert!(waits.iter().all(|wait| (Duration::from_secs(54)..=minute).contains(wait)), "{waits:?}");
        assert!(waits.len() > 90, "{} of 100 differ", waits.len());
        // Nothing to spread, and nothing to divide by.
        assert_eq!(spread(Duration::from_millis(9), 7), Duration::from_millis(9));
    }
}
