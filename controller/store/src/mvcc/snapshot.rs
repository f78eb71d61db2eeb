//! A copy of the whole store as one stream of bytes, and a store made of such a stream.
//!
//! ```text
//! "windlass-store/1"  revision  compacted  leases: count, (number, seconds)…
//! changes: (length of the rest, revision, created, version, lease, lengths of author and key, author, key, value)…
//! 0 as the length of another change; zeros up to a multiple of 512 bytes; SHA-256 of everything before
//! ```
//! Numbers are of eight bytes, little-endian; lengths of four. The end is as etcd's copies have it, because `etcdctl
//! snapshot save` looks for it.

use std::io::{self, Read};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::backend::{Backend, BackendError, Batch, Meta};
use super::contents::Contents;
use super::engine::Engine;
use super::model::{Change, LeaseNumber, Revision};

/// How a copy begins; its revision follows.
pub const BEGINNING: &[u8; 16] = b"windlass-store/1";

/// What a copy's length without its checksum is a multiple of.
const BLOCK: u64 = 512;

/// Bytes that one change may have: forty times the largest request, so that a damaged length is told before so much
/// memory is asked for.
const LONGEST_CHANGE: usize = 64 << 20;

/// Bytes that are written at once where a store is made of a copy.
const WRITTEN_AT_ONCE: usize = 4 << 20;

/// Numbers of a change's record: main, sub, created, version, lease.
const NUMBERS: usize = 5;

impl Engine {
    /// A copy of everything as it is now, in pieces. Reads and writes go on meanwhile, and are not in it; the room of
    /// what is overwritten is only used again once it is dropped.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn snapshot(&self) -> Result<Snapshot, BackendError> {
        let contents = self.contents()?;
        Ok(Snapshot { contents, digest: Sha256::new(), length: 0, next: Part::Beginning })
    }
}

/// A copy that is being taken: its bytes, in pieces of some hundred kilobytes. After an error there is nothing more.
#[derive(Debug)]
pub struct Snapshot {
    contents: Contents,
    digest: Sha256,
    length: u64,
    next: Part,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Beginning,
    Changes,
    Nothing,
}

impl Snapshot {
    /// The store's revision in it.
    pub fn revision(&self) -> i64 {
        self.contents.revision
    }

    fn beginning(&self) -> Vec<u8> {
        let leases = &self.contents.state().leases;
        let mut bytes = BEGINNING.to_vec();
        let numbers = [self.contents.revision, self.contents.compacted, leases.len() as i64];
        let leases = leases.iter().flat_map(|(number, seconds)| [number.0, *seconds]);
        numbers.into_iter().chain(leases).for_each(|number| bytes.extend(number.to_le_bytes()));
        bytes
    }

    fn counted(&mut self, bytes: Vec<u8>) -> Bytes {
        self.digest.update(&bytes);
        self.length += bytes.len() as u64;
        bytes.into()
    }

    fn end(&mut self) -> Bytes {
        let mut bytes = 0_u32.to_le_bytes().to_vec();
        let length = self.length + bytes.len() as u64;
        bytes.resize(bytes.len() + (length.next_multiple_of(BLOCK) - length) as usize, 0);
        self.digest.update(&bytes);
        bytes.extend(self.digest.finalize_reset());
        bytes.into()
    }
}

impl Iterator for Snapshot {
    type Item = Result<Bytes, BackendError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.next {
            Part::Beginning => {
                self.next = Part::Changes;
                let beginning = self.beginning();
                Some(Ok(self.counted(beginning)))
            }
            Part::Changes => {
                let changes = self.contents.piece();
                if changes.as_ref().is_ok_and(|changes| !changes.is_empty()) {
                    return Some(changes.map(|changes| {
                        let mut bytes = Vec::new();
                        changes.into_iter().for_each(|change| write_change(&mut bytes, change));
                        self.counted(bytes)
                    }));
                }
                self.next = Part::Nothing;
                Some(changes.map(|_| self.end()))
            }
            Part::Nothing => None,
        }
    }
}

fn write_change(to: &mut Vec<u8>, change: Change) {
    let at = change.at;
    let (Meta { key, created, version, lease, author }, value) = Meta::of_change(change);
    let author = author.as_deref().unwrap_or_default().as_bytes();
    let length = NUMBERS * 8 + 8 + author.len() + key.len() + value.len();
    to.extend((length as u32).to_le_bytes());
    [at.main, at.sub, created, version, lease.0].iter().for_each(|number| to.extend(number.to_le_bytes()));
    [author.len(), key.len()].iter().for_each(|length| to.extend((*length as u32).to_le_bytes()));
    [author, &key, &value].iter().for_each(|part| to.extend_from_slice(part));
}

/// What a store has that was made of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// Its revision.
    pub revision: i64,
    /// How many changes.
    pub changes: u64,
    /// How many leases.
    pub leases: u64,
}

/// Why no store was made of a copy.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// It cannot be read.
    #[error("the copy cannot be read")]
    Unreadable(#[source] io::Error),
    /// It is something else.
    #[error("this is not a copy of a store of Windlass' own; hint: `windlass store backup` makes one")]
    Foreign,
    /// It ends too early, or is not as it was written.
    #[error("the copy is damaged: {0}; hint: take another one")]
    Damaged(&'static str),
    /// There is a store already, or its file cannot be made.
    #[error(transparent)]
    File(#[from] super::disk::OpenError),
    /// There is a store already.
    #[error("{} is there already; nothing was changed; hint: move it away first", .0.display())]
    Exists(std::path::PathBuf),
    /// It could not be written.
    #[error("the store could not be written")]
    Written(#[from] BackendError),
}

/// Writes what a copy has into an empty backend. Only once this has returned it is known to be whole.
///
/// # Errors
/// [`RestoreError`]; the backend is then of no use.
pub fn restore(from: &mut dyn Read, into: &dyn Backend) -> Result<Restored, RestoreError> {
    let mut copy = Copy { from, digest: Sha256::new(), length: 0 };
    match copy.bytes() {
        Ok(beginning) if beginning == *BEGINNING => {}
        Ok(_) | Err(RestoreError::Damaged(_)) => return Err(RestoreError::Foreign),
        Err(error) => return Err(error),
    }
    let (revision, compacted, leases) = (copy.number()?, copy.number()?, copy.number()?);
    let mut batch = Batch { compacted: Some((compacted, revision)), ..Batch::default() };
    for _ in 0..leases {
        let number = LeaseNumber(copy.number()?);
        batch.leases.insert(number, Some(copy.number()?));
    }
    let leases = batch.leases.len() as u64;
    let (mut changes, mut bytes, mut last) = (0, 0, Revision::default());
    while let Some((at, meta, value)) = copy.change()? {
        if at <= last || at.main > revision {
            return Err(RestoreError::Damaged("its changes are not in their order"));
        }
        last = at;
        changes += 1;
        bytes += meta.key.len() + value.len();
        batch.changes.insert(at, (meta, value));
        if bytes >= WRITTEN_AT_ONCE {
            into.commit(&std::mem::take(&mut batch))?;
            bytes = 0;
        }
    }
    copy.end()?;
    into.commit(&batch)?;
    Ok(Restored { revision, changes, leases })
}

/// A copy that is being read.
struct Copy<'a> {
    from: &'a mut dyn Read,
    digest: Sha256,
    length: u64,
}

impl Copy<'_> {
    fn read(&mut self, length: usize) -> Result<Vec<u8>, RestoreError> {
        let mut bytes = vec![0; length];
        self.from.read_exact(&mut bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => RestoreError::Damaged("it ends too early"),
            _ => RestoreError::Unreadable(error),
        })?;
        self.length += length as u64;
        Ok(bytes)
    }

    fn counted(&mut self, length: usize) -> Result<Vec<u8>, RestoreError> {
        let bytes = self.read(length)?;
        self.digest.update(&bytes);
        Ok(bytes)
    }

    fn bytes<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], RestoreError> {
        Ok(self.counted(LENGTH)?.try_into().expect("as many as were asked for"))
    }

    fn number(&mut self) -> Result<i64, RestoreError> {
        Ok(i64::from_le_bytes(self.bytes()?))
    }

    /// The next change; nothing behind the last.
    fn change(&mut self) -> Result<Option<(Revision, Meta, Bytes)>, RestoreError> {
        let length = u32::from_le_bytes(self.bytes()?) as usize;
        match length {
            0 => return Ok(None),
            1..=LONGEST_CHANGE => {}
            _ => return Err(RestoreError::Damaged("a change has no sensible length")),
        }
        let record = Bytes::from(self.counted(length)?);
        read_change(&record).map(Some).ok_or(RestoreError::Damaged("a change makes no sense"))
    }

    fn end(&mut self) -> Result<(), RestoreError> {
        let left = (self.length.next_multiple_of(BLOCK) - self.length) as usize;
        self.counted(left)?;
        let expected = self.digest.finalize_reset();
        if self.read(expected.len())? != expected[..] {
            return Err(RestoreError::Damaged("its checksum is another one"));
        }
        match self.from.read(&mut [0]).map_err(RestoreError::Unreadable)? {
            0 => Ok(()),
            _ => Err(RestoreError::Damaged("something stands behind its end")),
        }
    }
}

fn read_change(record: &Bytes) -> Option<(Revision, Meta, Bytes)> {
    let number = |at: usize| Some(i64::from_le_bytes(*record.get(at * 8..)?.first_chunk()?));
    let length = |at: usize| Some(u32::from_le_bytes(*record.get(NUMBERS * 8 + at * 4..)?.first_chunk()?) as usize);
    let author_at = NUMBERS * 8 + 8;
    let key_at = author_at.checked_add(length(0)?)?;
    let value_at = key_at.checked_add(length(1)?)?;
    let author = std::str::from_utf8(record.get(author_at..key_at)?).ok()?;
    record.get(key_at..value_at)?;
    let at = Revision { main: number(0)?, sub: number(1)? };
    let meta = Meta {
        key: record.slice(key_at..value_at),
        created: number(2)?,
        version: number(3)?,
        lease: LeaseNumber(number(4)?),
        author: (!author.is_empty()).then(|| author.into()),
    };
    Some((at, meta, record.slice(value_at..)))
}
