//! How much history is kept: a policy over when which revision was, and its driver.

use std::collections::VecDeque;
use std::time::Duration;

use super::engine::Engine;
use super::request::Refusal;

/// How often in the time that is kept the revision is taken note of. So up to one sixtieth more is kept, and each
/// compaction, which looks at every key, forgets about a sixtieth.
const SAMPLES: u32 = 60;

/// How much history is kept at least: all of the last while, and so many revisions, whichever is more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// How long what was can be read. Somebody who lists and then watches needs as long as that takes him.
    pub time: Duration,
    /// How many revisions can be read back.
    pub revisions: i64,
}

impl Default for Retention {
    /// An hour, and 10,000 revisions.
    fn default() -> Self {
        Self { time: Duration::from_secs(3600), revisions: 10_000 }
    }
}

/// Finds out up to which revision history may be forgotten. A clock that begins anew with each start keeps more, never
/// less.
#[derive(Debug)]
pub struct Retainer {
    retention: Retention,
    /// When which revision was, oldest first; of those older than what is kept only the last. At most [`SAMPLES`] + 2.
    samples: VecDeque<(Duration, i64)>,
}

impl Retainer {
    /// Knows of no revision yet.
    pub fn new(retention: Retention) -> Self {
        Self { retention, samples: VecDeque::new() }
    }

    /// Takes note of the store's revision, and says up to which one history may be forgotten, where that is further
    /// than it is `compacted` already. It can be called at any time, and seldom has something to say.
    pub fn forgettable(&mut self, now: Duration, revision: i64, compacted: i64) -> Option<i64> {
        let Retention { time, revisions } = self.retention;
        if self.samples.back().is_some_and(|(last, _)| now < *last + time / SAMPLES) {
            return None;
        }
        self.samples.push_back((now, revision));
        let begin = now.checked_sub(time)?;
        while self.samples.get(1).is_some_and(|(at, _)| *at <= begin) {
            self.samples.pop_front();
        }
        let (_, then) = self.samples.front().filter(|(at, _)| *at <= begin)?;
        let until = (*then).min(revision - revisions);
        (until > compacted).then_some(until)
    }
}

impl Engine {
    /// What a store needs from time to time, some milliseconds of it: forgets what is older than is kept, and takes
    /// some of what is forgotten off the disk; whether there is more, and this is to be called again soon.
    ///
    /// # Errors
    /// [`Refusal::Broken`]. It stays to be done.
    pub fn tend(&self, retainer: &mut Retainer, now: Duration) -> Result<bool, Refusal> {
        if let Some(revision) = retainer.forgettable(now, self.revision(), self.compacted()) {
            match self.compact(revision) {
                // Somebody has asked for more meanwhile.
                Ok(_) | Err(Refusal::Compacted) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        self.forget_some()
    }
}
