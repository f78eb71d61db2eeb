//! What redb and the disk say, in the backend's words.

use std::io;

use crate::mvcc::backend::BackendError;

impl From<redb::Error> for BackendError {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Corrupted(what) => Self::Damaged(what),
            redb::Error::Io(error) => error.into(),
            // No version of ours has written another one.
            redb::Error::UpgradeRequired(_) => Self::Damaged(error.to_string()),
            other => Self::Io(other.to_string()),
        }
    }
}

impl From<io::Error> for BackendError {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{FileTooLarge, InvalidData, QuotaExceeded, StorageFull, UnexpectedEof};
        match error.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => Self::NoSpace(error.to_string()),
            InvalidData | UnexpectedEof => Self::Damaged(error.to_string()),
            _ => Self::Io(error.to_string()),
        }
    }
}

impl From<redb::StorageError> for BackendError {
    fn from(error: redb::StorageError) -> Self {
        redb::Error::from(error).into()
    }
}

impl From<redb::TableError> for BackendError {
    fn from(error: redb::TableError) -> Self {
        match error {
            redb::TableError::Storage(error) => error.into(),
            // Another table than ours, or none.
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl From<redb::TransactionError> for BackendError {
    fn from(error: redb::TransactionError) -> Self {
        redb::Error::from(error).into()
    }
}

impl From<redb::CommitError> for BackendError {
    fn from(error: redb::CommitError) -> Self {
        redb::Error::from(error).into()
    }
}

impl From<redb::DatabaseError> for BackendError {
    fn from(error: redb::DatabaseError) -> Self {
        redb::Error::from(error).into()
    }
}
