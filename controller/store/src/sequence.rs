//! The sequence counter: one for the whole store, only grows.

use windlass_crds::id::Sequence;

use crate::commit::{CommitError, Expectation, Write};
use crate::connect::Store;
use crate::entry::StoreRevision;
use crate::key::{Control, Key};
use crate::leadership::Leadership;
use crate::read::ReadError;

/// How often drawing begins again because the counter was not where we left it: once after each of our own lost
/// answers, and only the leader draws.
const TRIES: usize = 5;

/// Why no sequence was drawn.
#[derive(Debug, thiserror::Error)]
pub enum SequenceError {
    /// The counter could not be read.
    #[error("cannot read the sequence counter")]
    Read(#[source] ReadError),
    /// The counter could not be written. Where that is unknown a sequence may be lost, which does no harm.
    #[error("cannot raise the sequence counter")]
    Commit(#[source] CommitError),
    /// Somebody put something else there. It is not replaced: it is what tells hosts old commands from new ones.
    #[error("{key} holds {value:?}, not a number\nhint: put the highest sequence there that any host has seen")]
    Damaged {
        /// The counter's key.
        key: Key,
        /// What it holds.
        value: String,
    },
    /// Others write the counter as fast as we do.
    #[error("the sequence counter changes all the time, although only one controller leads")]
    Contended,
}

/// The counter as it was last seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counter {
    last: Sequence,
    at: Option<StoreRevision>,
}

impl Store {
    /// Draws a sequence that nobody else has or gets, `at_least` as high as asked: a host that has seen a higher
    /// one than the store knows, after a backup was restored, raises the store. One round trip, two for the first
    /// of a leadership.
    ///
    /// # Errors
    /// When we no longer lead, the store does not answer, or the counter is damaged.
    pub async fn next_sequence(&self, leadership: &Leadership, at_least: Sequence) -> Result<Sequence, SequenceError> {
        let mut known = leadership.counter().await;
        for _ in 0..TRIES {
            // Taken out, so that a lost answer, or a caller that gives up, makes the next one read again.
            let counter = match known.take() {
                Some(counter) => counter,
                None => self.read_counter().await?,
            };
            let next = counter.last.next().max(at_least);
            let expect = counter.at.map_or(Expectation::Absent, Expectation::At);
            let write = Write::put(Key::Control(Control::SequenceCounter), next.to_string()).expecting(expect);
            match self.commit(leadership, &[write]).await {
                Ok(at) => {
                    *known = Some(Counter { last: next, at: Some(at) });
                    return Ok(next);
                }
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(SequenceError::Commit(error)),
            }
        }
        Err(SequenceError::Contended)
    }

    async fn read_counter(&self) -> Result<Counter, SequenceError> {
        let key = Key::Control(Control::SequenceCounter);
        let Some(entry) = self.get(&key).await.map_err(SequenceError::Read)? else {
            return Ok(Counter { last: Sequence(0), at: None });
        };
        let text = String::from_utf8_lossy(&entry.value);
        match text.trim().parse() {
            Ok(last) => Ok(Counter { last, at: Some(entry.mod_revision) }),
            Err(_) => Err(SequenceError::Damaged { key, value: text.chars().take(40).collect() }),
        }
    }
}
