//! Durations as people write them: `250ms`, `30s`, `5m`, `1h`, `1h30m`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The longest span that a declaration may hold: a year. What is longer is a slip of the hand.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Why a text is not a span.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpanError {
    /// Not numbers with units.
    #[error("{0:?} is not a duration; write 250ms, 30s, 5m or 1h")]
    Malformed(String),
    /// More than a year.
    #[error("{0:?} is longer than a year")]
    TooLong(String),
}

/// A span of time, in whole milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(Duration);

impl Span {
    /// So many seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// As the standard library has it.
    pub const fn duration(self) -> Duration {
        self.0
    }
}

/// Units, the largest first, in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let wrong = || SpanError::Malformed(text.to_owned());
        let too_long = || SpanError::TooLong(text.to_owned());
        let mut rest = text;
        let mut total: u64 = 0;
        let mut largest = usize::MAX;
        while !rest.is_empty() || largest == usize::MAX {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
            rest = &rest[digits..];
            let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            let index = UNITS.iter().position(|(unit, _)| *unit == &rest[..letters]).ok_or_else(wrong)?;
            // Each unit once, from the largest down.
            if largest != usize::MAX && index <= largest {
                return Err(wrong());
            }
            largest = index;
            rest = &rest[letters..];
            let part = number.checked_mul(UNITS[index].1).ok_or_else(too_long)?;
            total = total.checked_add(part).ok_or_else(too_long)?;
        }
        let span = Duration::from_millis(total);
        if span > LONGEST { Err(too_long()) } else { Ok(Self(span)) }
    }
}

impl TryFrom<String> for Span {
    type Error = SpanError;
    fn try_from(text: String) -> Result<Self, SpanError> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> String {
        span.to_string()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).expect("a span is at most a year");
        if rest == 0 {
            return out.write_str("0s");
        }
        for (unit, size) in UNITS {
            if rest >= size {
                write!(out, "{}{unit}", rest / size)?;
                rest %= size;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_what_people_write() {
        for (text, milliseconds) in
            [("250ms", 250), ("30s", 30_000), ("5m", 300_000), ("1h", 3_600_000), ("1h30m", 5_400_000), ("0s", 0)]
        {
            let span: Span = text.parse().expect(text);
            assert_eq!(span.duration(), Duration::from_millis(milliseconds), "{text}");
            assert_eq!(span.to_string(), text);
        }
        assert_eq!("90s".parse::<Span>().expect("90s").to_string(), "1m30s");
        for text in
            ["", "30", "s", "-1s", "1.5s", "30 s", "30S", "5m5m", "5s1h", "400d", "99999999999999999999s", "1µs"]
        {
            assert!(text.parse::<Span>().is_err(), "{text:?}");
        }
    }
}
