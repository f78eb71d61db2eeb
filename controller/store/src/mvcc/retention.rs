//! How much history is kept: a policy over when which revision was, and its driver.

use std::collections::VecDeque;
use std::mem;
use std::time::Duration;

use super::backend::{DefragmentError, Size};
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
    /// Bytes of the file that nothing is in: where it has more of them than this, and more than twice as many as of
    /// others (redb doubles a file that is full), they are given back to the disk. Reads and writes wait meanwhile, a
    /// second for each 60 MB that are left.
    pub unused: u64,
}

impl Default for Retention {
    /// An hour, and 10,000 revisions. 64 MiB are not worth a pause: what is written next uses them.
    fn default() -> Self {
        Self { time: Duration::from_secs(3600), revisions: 10_000, unused: 64 << 20 }
    }
}

/// Finds out up to which revision history may be forgotten. A clock that begins anew with each start keeps more, never
/// less.
#[derive(Debug)]
pub struct Retainer {
    retention: Retention,
    /// When which revision was, oldest first; of those older than what is kept only the last. At most [`SAMPLES`] + 2.
    samples: VecDeque<(Duration, i64)>,
    /// Whether something has been forgotten since the room was looked at.
    forgotten: bool,
}

impl Retainer {
    /// Knows of no revision yet.
    pub fn new(retention: Retention) -> Self {
        Self { retention, samples: VecDeque::new(), forgotten: false }
    }

    /// Takes note of the store's revision, and says up to which one history may be forgotten, where that is further
    /// than it is `compacted` already. It can be called at any time, and seldom has something to say.
    pub fn forgettable(&mut self, now: Duration, revision: i64, compacted: i64) -> Option<i64> {
        let Retention { time, revisions, unused: _ } = self.retention;
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
    /// What a store needs from time to time, mostly some milliseconds of it: forgets what is older than is kept, takes
    /// some of what is forgotten off the disk, and gives room back where that is worth it; whether there is more, and
    /// this is to be called again soon.
    ///
    /// # Errors
    /// [`Refusal::Broken`]. It stays to be done.
    pub fn tend(&self, retainer: &mut Retainer, now: Duration) -> Result<bool, Refusal> {
        if let Some(revision) = retainer.forgettable(now, self.revision(), self.compacted()) {
            match self.compact(revision) {
                // Somebody has asked for more meanwhile.
                Ok(_) | Err(Refusal::Compacted) => retainer.forgotten = true,
                Err(refusal) => return Err(refusal),
            }
        }
        let more = self.forget_some()?;
        retainer.forgotten |= more;
        if !more && mem::take(&mut retainer.forgotten) {
            let Size { file, used } = self.room()?;
            if file.saturating_sub(used) > retainer.retention.unused.max(2 * used) {
                match self.defragment() {
                    // While a copy is taken it stays; the next compaction comes here again.
                    Ok(_) | Err(DefragmentError::InUse) => {}
                    Err(DefragmentError::Failed(error)) => return Err(error.into()),
                }
            }
        }
        Ok(more)
    }
}
