//! The last changes, at hand: who watches reads them as soon as they are written, and no disk for them.

use std::collections::VecDeque;

use bytes::Bytes;

use super::backend::{Batch, Piece};
use super::model::Change;

/// Changes that are kept, and bytes of their keys and values: what is written in a busy second, and small beside the
/// rest. Who is further behind reads the disk.
const CHANGES: usize = 1000;
const BYTES: usize = 1 << 20;

/// The last changes: all of them from a revision on.
#[derive(Debug, Default)]
pub(super) struct Recent {
    changes: VecDeque<Change>,
    bytes: usize,
    from: i64,
}

impl Recent {
    /// Those after a revision, of which there are none yet.
    pub(super) fn after(revision: i64) -> Self {
        Self { changes: VecDeque::new(), bytes: 0, from: revision + 1 }
    }

    /// A batch was written, up to a revision.
    pub(super) fn push(&mut self, batch: &Batch, revision: i64) {
        let bytes: usize = batch.changes.values().map(|(meta, value)| meta.key.len() + value.len()).sum();
        if bytes > BYTES || batch.changes.len() > CHANGES {
            *self = Self::after(revision);
            return;
        }
        for (at, (meta, value)) in &batch.changes {
            // A copy: what came with it in a request is not kept.
            self.changes.push_back(meta.clone().into_change(*at, Bytes::copy_from_slice(value)));
        }
        self.bytes += bytes;
        while self.bytes > BYTES || self.changes.len() > CHANGES {
            self.forget_first();
        }
    }

    /// Forgets the first transaction, whole.
    fn forget_first(&mut self) {
        let Some(first) = self.changes.front().map(|change| change.at.main) else { return };
        while let Some(change) = self.changes.pop_front_if(|change| change.at.main == first) {
            self.bytes -= change.pair.key.len() + change.pair.value.len();
        }
        self.from = first + 1;
    }

    /// Whether all from a revision on are here.
    pub(super) fn has(&self, from: i64) -> bool {
        from >= self.from
    }

    /// As [`Backend::changes`](super::Backend::changes); `None` where they are on the disk alone.
    pub(super) fn since(&self, from: i64, most: usize, bytes: usize) -> Option<Vec<Change>> {
        if !self.has(from) {
            return None;
        }
        let mut piece = Piece::new(most, bytes);
        let begin = self.changes.partition_point(|change| change.at.main < from);
        for change in self.changes.range(begin..) {
            if piece.ends_before(change.at) {
                break;
            }
            piece.push(change.clone());
        }
        Some(piece.changes)
    }
}
