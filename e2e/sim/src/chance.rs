//! Chance: numbers that look random and follow from a seed alone.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A stream of numbers. Clones draw from the same stream; a fork has one of its own.
#[derive(Debug, Clone)]
pub struct Chance(Arc<AtomicU64>);

impl Chance {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(AtomicU64::new(seed)))
    }

    /// Another stream, by its name, so that who draws more from one changes nothing in the other.
    #[must_use]
    pub fn fork(&self, name: &str) -> Self {
        let mut seed = self.0.load(Ordering::Relaxed);
        for byte in name.bytes() {
            seed = mix(seed ^ u64::from(byte));
        }
        Self::new(seed)
    }

    /// Any number (SplitMix64: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
    pub fn number(&self) -> u64 {
        mix(self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed).wrapping_add(0x9E37_79B9_7F4A_7C15))
    }

    /// A number of a range that is not empty.
    pub fn within(&self, range: Range<u64>) -> u64 {
        range.start + self.number() % (range.end - range.start)
    }

    /// True so many times of a hundred.
    pub fn percent(&self, percent: u64) -> bool {
        self.within(0..100) < percent
    }

    /// A time of a range, to the millisecond.
    pub fn time(&self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.within(range))
    }

    /// One of some.
    ///
    /// # Panics
    /// Where there is none.
    pub fn pick<'a, T>(&self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.within(0..from.len() as u64)).expect("it is an index")]
    }
}

fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}
