//! Compaction: what nobody can ask for any more is forgotten.

use super::backend::{BackendError, Batch, DefragmentError, Size};
use super::engine::{Done, Engine, Inner, Reply};
use super::model::Revision;
use super::request::Refusal;

/// Changes that are taken off the disk in one commit, so that no write waits for longer than some milliseconds.
const FORGOTTEN_AT_ONCE: usize = 2000;

impl Engine {
    /// Forgets what cannot be seen at `revision` or later. Reads before it are refused from then on.
    ///
    /// The space is given back by and by: see [`Engine::forget_some`].
    ///
    /// # Errors
    /// [`Refusal::Compacted`] and [`Refusal::FutureRevision`], as etcd; [`Refusal::Broken`], and nothing has changed.
    pub fn compact(&self, revision: i64) -> Result<Done, Refusal> {
        let mut alone = self.alone();
        let now = {
            let inner = self.inner();
            if revision <= inner.compacted {
                return Err(Refusal::Compacted);
            }
            if revision > inner.committed {
                return Err(Refusal::FutureRevision);
            }
            inner.committed
        };
        // Written before anything is forgotten: who was told a revision is gone is told so for ever.
        self.backend().commit(&Batch { compacted: Some((revision, now)), ..Batch::default() })?;
        let mut inner = self.inner_mut();
        inner.compacted = revision;
        let gone = inner.index.compact(revision);
        alone.forgotten.extend(gone);
        Ok(Done { revision: now, reply: Reply::Compacted })
    }

    /// Takes some of what is forgotten off the disk; whether there is more.
    ///
    /// # Errors
    /// [`Refusal::Broken`]. It stays to be taken off.
    pub fn forget_some(&self) -> Result<bool, Refusal> {
        let mut alone = self.alone();
        let from = alone.forgotten.len().saturating_sub(FORGOTTEN_AT_ONCE);
        let forgotten: Vec<Revision> = alone.forgotten[from..].to_vec();
        if forgotten.is_empty() {
            return Ok(false);
        }
        self.backend().commit(&Batch { forgotten, ..Batch::default() })?;
        alone.forgotten.truncate(from);
        Ok(!alone.forgotten.is_empty())
    }

    /// How much room the store takes; see [`Backend::size`](super::Backend::size).
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn room(&self) -> Result<Size, BackendError> {
        self.backend().size()
    }

    /// Bytes that it takes on the disk.
    ///
    /// # Errors
    /// When it cannot be told.
    pub fn file_bytes(&self) -> Result<u64, BackendError> {
        self.backend().file_bytes()
    }

    /// Gives back the room that nothing is in, and how much there is then. Reads and writes wait meanwhile.
    ///
    /// # Errors
    /// [`DefragmentError`]. What is there stays.
    pub fn defragment(&self) -> Result<Size, DefragmentError> {
        let _alone = self.alone();
        self.backend().defragment()?;
        Ok(self.backend().size()?)
    }

    /// The revision before which nothing can be read.
    pub fn compacted(&self) -> i64 {
        self.inner().compacted
    }
}

/// What a crash kept from being forgotten.
pub(super) fn left_over(inner: &mut Inner) -> Vec<Revision> {
    if inner.compacted > 0 { inner.index.compact(inner.compacted) } else { Vec::new() }
}
