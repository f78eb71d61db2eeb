//! What is in the file, as it was when a reading of it began.

use std::fmt;

use bytes::Bytes;
use redb::{ReadTransaction, ReadableTableMetadata as _, TableStats};

use super::record::{decode, place, revision, unseal};
use super::{CHANGES, LEASES, STATE, VALUES};
use crate::mvcc::backend::{BackendError, Piece, State, View};
use crate::mvcc::model::{Change, Revision};

/// A reading that stays open.
pub(super) struct Reading {
    pub(super) read: ReadTransaction,
    pub(super) state: State,
}

impl fmt::Debug for Reading {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Reading").field("state", &self.state).finish_non_exhaustive()
    }
}

impl View for Reading {
    fn state(&self) -> &State {
        &self.state
    }

    fn changes(&self, from: i64, most: usize, bytes: usize) -> Result<Vec<Change>, BackendError> {
        changes(&self.read, from, most, bytes)
    }
}

/// The first of the changes from a revision on: so many, or of so many bytes, and each transaction whole.
pub(super) fn changes(
    read: &ReadTransaction,
    from: i64,
    most: usize,
    most_bytes: usize,
) -> Result<Vec<Change>, BackendError> {
    let (changes, values) = (read.open_table(CHANGES)?, read.open_table(VALUES)?);
    let mut piece = Piece::new(most, most_bytes);
    for entry in changes.range(place(Revision { main: from, sub: 0 })..)? {
        let (at, sealed) = entry?;
        let at = revision(at.value());
        if piece.ends_before(at) {
            break;
        }
        let record = decode(at, sealed.value())?;
        let value = match record.value {
            Some(value) => Bytes::copy_from_slice(value),
            None => match values.get(place(at))? {
                Some(sealed) => Bytes::copy_from_slice(unseal(at, sealed.value())?),
                None => Bytes::new(),
            },
        };
        piece.push(record.meta()?.into_change(at, value));
    }
    Ok(piece.changes)
}

/// Bytes of the pages that something is in.
pub(super) fn used(read: &ReadTransaction) -> Result<u64, BackendError> {
    let bytes = |stats: TableStats| stats.stored_bytes() + stats.metadata_bytes() + stats.fragmented_bytes();
    let tables = [
        read.open_table(CHANGES)?.stats()?,
        read.open_table(VALUES)?.stats()?,
        read.open_table(LEASES)?.stats()?,
        read.open_table(STATE)?.stats()?,
    ];
    Ok(tables.into_iter().map(bytes).sum())
}
