//! How long a Service's program has taken lately until it first answered: for so long nobody need ask it again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use windlass_planner::verdict::PATIENT_PAUSE;

/// The longest time for which a program is not asked: so late it may be noticed that a new version starts at once.
const LONGEST: Duration = PATIENT_PAUSE;

/// How long the starts of one program took lately, in microseconds; nothing is known of it at first.
#[derive(Debug, Default)]
pub struct Starts(AtomicU64);

impl Starts {
    /// It has answered for the first time so long after its start. The shortest counts at once, longer ones little by
    /// little: on a busy host all of them take longer.
    pub fn took(&self, time: Duration) {
        let took = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
        let before = self.0.load(Ordering::Relaxed);
        let now = if before == 0 || took < before { took } else { before + (took - before) / 4 };
        // Two hosts may tell at once; either will do.
        self.0.store(now, Ordering::Relaxed);
    }

    /// For so long after its start it is not worth asking: half of what it took.
    pub fn quiet(&self) -> Duration {
        (Duration::from_micros(self.0.load(Ordering::Relaxed)) / 2).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_left_alone_for_half_of_what_it_took_lately() {
        let starts = Starts::default();
        assert_eq!(starts.quiet(), Duration::ZERO, "nothing is known");
        for (took, quiet) in [(200, 100), (600, 150), (60, 30), (100, 35), (10_000, 250), (0, 0)] {
            starts.took(Duration::from_millis(took));
            assert_eq!(starts.quiet().as_millis(), quiet, "after {took} ms");
        }
    }
}
