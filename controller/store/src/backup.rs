//! A copy of the embedded store while it is served, and how much room it takes.

use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncWriteExt as _;

use crate::call::{CallError, DEADLINE, Repeat};
use crate::connect::Store;
use crate::entry::StoreRevision;
use crate::mvcc::SNAPSHOT_BEGINNING;
use crate::report::Call;

/// Bytes of the checksum at a copy's end.
const CHECKSUM: usize = 32;

/// What a store says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreState {
    /// Who answered.
    pub endpoint: String,
    /// The version of etcd that it is, or answers as.
    pub version: String,
    /// Its revision.
    pub revision: StoreRevision,
    /// Bytes on its disk.
    pub bytes: u64,
}

/// A copy that was taken, and found to be whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backup {
    /// The store's revision in it.
    pub revision: i64,
    /// Bytes.
    pub bytes: u64,
}

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The store did not answer, or ended before it was through.
    #[error("cannot read from the store")]
    Call(#[source] CallError),
    /// It is not a store of our own.
    #[error("the store at {0} is an etcd\nhint: `etcdctl snapshot save FILE` copies that")]
    Etcd(String),
    /// What came is not what was sent.
    #[error("what came from the store is damaged; nothing was kept\nhint: take it again")]
    Damaged,
    /// There is something already.
    #[error("{} is there already\nhint: a copy never overwrites another; take a new name", .0.display())]
    Exists(PathBuf),
    /// It cannot be written.
    #[error("cannot write {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
}

impl Store {
    /// What the store says of itself. One round trip.
    ///
    /// # Errors
    /// When it does not answer within about 5 s, or refuses.
    pub async fn state(&self) -> Result<StoreState, CallError> {
        let asked = async |mut client: etcd_client::Client| client.status().await;
        let status = self.call(Call::Status, Repeat::Freely, asked).await?;
        Ok(StoreState {
            endpoint: self.pool().current().url().to_owned(),
            version: status.version().to_owned(),
            revision: StoreRevision::from_etcd(status.header().map_or(0, etcd_client::ResponseHeader::revision)),
            bytes: u64::try_from(status.db_size()).unwrap_or_default(),
        })
    }

    /// Copies all of an embedded store into a new file, for its owner only. What is written meanwhile is not in it.
    ///
    /// # Errors
    /// [`BackupError`]. There is no file then.
    pub async fn backup(&self, path: &Path) -> Result<Backup, BackupError> {
        let unusable = |error: io::Error| match error.kind() {
            io::ErrorKind::AlreadyExists => BackupError::Exists(path.to_owned()),
            _ => BackupError::File { path: path.to_owned(), error },
        };
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(path).await.map_err(unusable)?;
        let copied = self.copy_to(file, path).await;
        if copied.is_err() {
            // What is half a copy would be taken for one.
            let _ = tokio::fs::remove_file(path).await;
        }
        copied
    }

    async fn copy_to(&self, mut file: File, path: &Path) -> Result<Backup, BackupError> {
        let unusable = |error| BackupError::File { path: path.to_owned(), error };
        let begin = async |mut client: etcd_client::Client| client.snapshot().await;
        let mut pieces = self.call(Call::Snapshot, Repeat::Freely, begin).await.map_err(BackupError::Call)?;
        let endpoint = self.pool().current().url().to_owned();
        let mut copy = Checked::default();
        loop {
            let piece = tokio::time::timeout(DEADLINE, pieces.message()).await;
            let piece = piece.map_err(|_| CallError::deadline(&endpoint, DEADLINE));
            let piece = piece.and_then(|piece| piece.map_err(|error| CallError::new(&endpoint, &error)));
            let Some(piece) = piece.map_err(BackupError::Call)? else { break };
            copy.take(piece.blob());
            if !copy.is_ours() {
                return Err(BackupError::Etcd(endpoint));
            }
            file.write_all(piece.blob()).await.map_err(unusable)?;
        }
        let backup = copy.end().ok_or(BackupError::Damaged)?;
        file.sync_all().await.map_err(unusable)?;
        Ok(backup)
    }
}

/// What has come of a copy.
#[derive(Default)]
struct Checked {
    digest: Sha256,
    /// What may be the checksum.
    last: Vec<u8>,
    beginning: Vec<u8>,
    bytes: u64,
}

impl Checked {
    fn take(&mut self, piece: &[u8]) {
        let missing = (SNAPSHOT_BEGINNING.len() + 8).saturating_sub(self.beginning.len());
        self.beginning.extend(&piece[..missing.min(piece.len())]);
        self.bytes += piece.len() as u64;
        self.last.extend(piece);
        let known = self.last.len().saturating_sub(CHECKSUM);
        self.digest.update(&self.last[..known]);
        self.last.drain(..known);
    }

    /// Whether it can still be a copy of a store of our own.
    fn is_ours(&self) -> bool {
        let length = self.beginning.len().min(SNAPSHOT_BEGINNING.len());
        self.beginning[..length] == SNAPSHOT_BEGINNING[..length]
    }

    /// The copy, where all of it has come.
    fn end(self) -> Option<Backup> {
        let revision = self.beginning.get(SNAPSHOT_BEGINNING.len()..)?;
        let revision = i64::from_le_bytes(revision.try_into().ok()?);
        (self.digest.finalize()[..] == self.last[..]).then_some(Backup { revision, bytes: self.bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_whole_or_none_however_it_comes() {
        let mut copy = SNAPSHOT_BEGINNING.to_vec();
        copy.extend(7_i64.to_le_bytes());
        copy.extend([3; 1000]);
        let sum = Sha256::digest(&copy);
        copy.extend(sum);
        let end = |bytes: &[u8], piece: usize| {
            let mut checked = Checked::default();
            bytes.chunks(piece).for_each(|piece| checked.take(piece));
            checked.end()
        };
        for piece in [1, 7, 31, 32, 33, 500, 5000] {
            assert_eq!(end(&copy, piece), Some(Backup { revision: 7, bytes: copy.len() as u64 }), "{piece}");
            assert_eq!(end(&copy[..copy.len() - 1], piece), None);
            let mut damaged = copy.clone();
            damaged[500] ^= 1;
            assert_eq!(end(&damaged, piece), None);
        }
        assert_eq!(end(&[], 1), None);
    }
}
