//! Everything that the store knows at one moment, piece by piece.

use std::collections::BTreeSet;

use super::backend::{BackendError, State, View};
use super::engine::Engine;
use super::model::{Change, Revision};

/// Changes that are read at once, and bytes: little enough to be held for everybody who may ask, and enough for reading
/// them to cost more than asking.
const CHANGES_AT_ONCE: usize = 1000;
const BYTES_AT_ONCE: usize = 256 * 1024;

/// What can be read of the store since it was compacted, as it was when this was made. What is written later is not in
/// it, and what is compacted later still is.
#[derive(Debug)]
pub(super) struct Contents {
    /// The store's revision then.
    pub(super) revision: i64,
    pub(super) compacted: i64,
    view: Box<dyn View>,
    /// Changes that nobody can see, and that are on the disk yet.
    forgotten: BTreeSet<Revision>,
    /// From where to read on.
    next: i64,
}

impl Contents {
    pub(super) fn state(&self) -> &State {
        self.view.state()
    }

    /// The next changes, oldest first; none where all were read. Each transaction is whole.
    pub(super) fn piece(&mut self) -> Result<Vec<Change>, BackendError> {
        while self.next <= self.revision {
            let mut changes = self.view.changes(self.next, CHANGES_AT_ONCE, BYTES_AT_ONCE)?;
            self.next = changes.last().map_or(i64::MAX, |last| last.at.main + 1);
            changes.retain(|change| change.at.main <= self.revision && !self.forgotten.contains(&change.at));
            if !changes.is_empty() {
                return Ok(changes);
            }
        }
        Ok(Vec::new())
    }
}

impl Engine {
    /// Everything as it is now. Waits until what is being written is.
    pub(super) fn contents(&self) -> Result<Contents, BackendError> {
        let alone = self.alone();
        let (revision, compacted) = {
            let inner = self.inner();
            (inner.committed, inner.compacted)
        };
        let view = self.backend().view()?;
        let forgotten = alone.forgotten.iter().copied().collect();
        Ok(Contents { revision, compacted, view, forgotten, next: 0 })
    }
}
