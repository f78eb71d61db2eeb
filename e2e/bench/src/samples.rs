//! What was measured more than once: its middle, and how far it spreads.

use std::fmt;
use std::time::Duration;

/// Times of one thing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    /// Adds one.
    pub(crate) fn push(&mut self, took: Duration) {
        self.0.push(took);
        self.0.sort_unstable();
    }

    /// The one in the middle; of two in the middle their mean; 0 where there is none.
    pub(crate) fn median(&self) -> Duration {
        match self.0.len() {
            0 => Duration::ZERO,
            count if count % 2 == 1 => self.0[count / 2],
            count => (self.0[count / 2 - 1] + self.0[count / 2]) / 2,
        }
    }

    /// How many times as long as others it took, by their middles.
    pub(crate) fn to(&self, others: &Self) -> f64 {
        self.median().as_secs_f64() / others.median().as_secs_f64()
    }

    /// Of a hundred, the one in this place from the shortest on; 0 where there is none.
    pub(crate) fn of_a_hundred(&self, place: usize) -> Duration {
        self.0.get(self.0.len() * place / 100).copied().unwrap_or_default()
    }

    /// The shortest.
    pub(crate) fn least(&self) -> Duration {
        self.0.first().copied().unwrap_or_default()
    }

    /// The longest.
    pub(crate) fn most(&self) -> Duration {
        self.0.last().copied().unwrap_or_default()
    }
}

impl FromIterator<Duration> for Samples {
    fn from_iter<I: IntoIterator<Item = Duration>>(times: I) -> Self {
        let mut samples = Self::default();
        times.into_iter().for_each(|took| samples.push(took));
        samples
    }
}

impl fmt::Display for Samples {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&format!(
            "{} ({} to {})",
            milliseconds(self.median()),
            milliseconds(self.least()),
            milliseconds(self.most())
        ))
    }
}

/// `123 ms`, with one place behind the point below 100 ms.
pub(crate) fn milliseconds(time: Duration) -> String {
    let thousandths = time.as_secs_f64() * 1000.0;
    if thousandths < 100.0 { format!("{thousandths:.1} ms") } else { format!("{thousandths:.0} ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_found() {
        for (times, median) in [(&[][..], 0), (&[7], 7), (&[9, 1, 5], 5), (&[9, 1, 5, 100], 7)] {
            let samples: Samples = times.iter().map(|time| Duration::from_millis(*time)).collect();
            assert_eq!(samples.median(), Duration::from_millis(median), "{times:?}");
        }
        let hundred: Samples = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(hundred.of_a_hundred(99), Duration::from_millis(100));
        assert_eq!(hundred.of_a_hundred(50), Duration::from_millis(51));
        let samples: Samples = [250, 99].map(Duration::from_millis).into_iter().collect();
        assert_eq!(samples.to_string(), "174 ms (99.0 ms to 250 ms)");
    }
}
