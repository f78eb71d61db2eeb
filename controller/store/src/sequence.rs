//! The sequence counter: one for the whole store, only grows.

use tokio::sync::MutexGuard;
use windlass_crds::id::Sequence;

use crate::commit::{CommitError, Expectation, Write};
use crate::connect::Store;
use crate::entry::StoreRevision;
use crate::key::{Control, Key};
use crate::leadership::Leadership;
use crate::read::ReadError;

/// Why no sequence was drawn.
#[derive(Debug, thiserror::Error)]
pub enum SequenceError {
    /// The counter could not be read.
    #[error("cannot read the sequence counter")]
    Read(#[source] ReadError),
    /// Somebody put something else there. It is not replaced: it is what tells hosts old commands from new ones.
    #[error("{key} holds {value:?}, not a number\nhint: put the highest sequence there that any host has seen")]
    Damaged {
        /// The counter's key.
        key: Key,
        /// What it holds.
        value: String,
    },
}

/// A sequence that is drawn by the commit that needs it, and by no other: see [`Store::draw`].
#[derive(Debug)]
pub struct Draw<'a> {
    /// Locked, since two who draw would only hinder each other. Nothing is in it while it is not known whether the
    /// commit was made: then the next one reads it again.
    counter: MutexGuard<'a, Option<Counter>>,
    sequence: Sequence,
    expect: Expectation,
}

impl Draw<'_> {
    /// The sequence, once the commit is made.
    pub fn sequence(&self) -> Sequence {
        self.sequence
    }
}

/// The counter as it was last seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counter {
    last: Sequence,
    at: Option<StoreRevision>,
}

impl Store {
    /// A sequence that nobody else has or gets, `at_least` as high as asked: a host that has seen a higher one than the
    /// store knows, after a backup was restored, raises the store. It is drawn by [`Store::commit_drawing`]. No round
    /// trip, but one for the first of a leadership and after a commit that failed.
    ///
    /// # Errors
    /// When the store does not answer, or the counter is damaged.
    pub async fn draw<'a>(&self, leadership: &'a Leadership, at_least: Sequence) -> Result<Draw<'a>, SequenceError> {
        let mut counter = leadership.counter().await;
        let known = match counter.take() {
            Some(known) => known,
            None => self.read_counter().await?,
        };
        let expect = known.at.map_or(Expectation::Absent, Expectation::At);
        Ok(Draw { counter, sequence: known.last.next().max(at_least), expect })
    }

    /// As [`Store::commit`], and draws a sequence in the same transaction. A commit that was not made may be made again
    /// with the same one.
    ///
    /// # Errors
    /// As [`Store::commit`]. A [`CommitError::Conflict`] of the counter says that somebody has put another one there,
    /// as who repairs a store does; it is read again for the next.
    pub async fn commit_drawing(
        &self,
        leadership: &Leadership,
        draw: &mut Draw<'_>,
        writes: &[Write],
    ) -> Result<StoreRevision, CommitError> {
        let Draw { counter, sequence, expect } = draw;
        let (sequence, expect) = (*sequence, *expect);
        let raise = Write::put(Key::Control(Control::SequenceCounter), sequence.to_string()).expecting(expect);
        let writes: Vec<Write> = writes.iter().cloned().chain([raise]).collect();
        let at = self.commit(leadership, &writes).await?;
        **counter = Some(Counter { last: sequence, at: Some(at) });
        Ok(at)
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
