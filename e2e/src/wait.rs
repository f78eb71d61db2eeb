//! Waiting for what must come, with a deadline and the reason why it has not come yet.

use std::fmt::Display;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// How long anything may take that should take a second or a few. Long, since two cores share many
/// hosts; what must be quick says its own limit.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Between two looks.
const POLL: Duration = Duration::from_millis(50);

/// Looks until `look` finds what it wants, for [`PATIENCE`] at most.
///
/// # Errors
/// With the last look's own error.
pub fn eventually<T>(what: impl Display, look: impl FnMut() -> Result<T>) -> Result<T> {
    within(PATIENCE, what, look)
}

/// Looks until `look` finds what it wants.
///
/// # Errors
/// With the last look's own error, when `limit` is over.
pub fn within<T>(limit: Duration, what: impl Display, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() > deadline => {
                return Err(error).with_context(|| format!("waited {limit:?} in vain: {what}"));
            }
            Err(_) => sleep(POLL),
        }
    }
}

/// Looks again and again for a while, since what must never happen has no event to wait for.
///
/// # Errors
/// With the first look's error.
pub fn holds(during: Duration, what: impl Display, mut look: impl FnMut() -> Result<()>) -> Result<()> {
    let end = Instant::now() + during;
    while Instant::now() < end {
        look().with_context(|| format!("did not hold for {during:?}: {what}"))?;
        sleep(POLL);
    }
    Ok(())
}
