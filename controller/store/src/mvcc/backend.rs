//! Where the history is kept: on a disk, or in memory.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::model::{Change, KeyValue, LeaseNumber, Revision};

/// What is kept of one change beside its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// The key.
    pub key: Bytes,
    /// The revision in which its generation began.
    pub created: i64,
    /// The how-manieth put of its generation; 0 is its deletion.
    pub version: i64,
    /// The lease that it goes with.
    pub lease: LeaseNumber,
    /// Who did it, where that is known.
    pub author: Option<Arc<str>>,
}

impl Meta {
    /// The change as watchers see it.
    pub(super) fn into_change(self, at: Revision, value: Bytes) -> Change {
        let Self { key, created, version, lease, author } = self;
        let deleted = version == 0;
        let (created, lease) = if deleted { (0, LeaseNumber::NONE) } else { (created, lease) };
        Change { at, pair: KeyValue { key, value, created, modified: at.main, version, lease }, deleted, author }
    }

    /// What is kept of a change, and its value.
    pub(super) fn of_change(change: Change) -> (Self, Bytes) {
        let Change { at: _, pair, deleted, author } = change;
        let KeyValue { key, value, created, modified: _, version, lease } = pair;
        (Self { key, created, version: if deleted { 0 } else { version }, lease, author }, value)
    }
}

/// A piece of the history that is being read: so many changes or bytes, and each transaction whole.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) changes: Vec<Change>,
    bytes: usize,
    most: usize,
    most_bytes: usize,
}

impl Piece {
    pub(super) fn new(most: usize, most_bytes: usize) -> Self {
        Self { changes: Vec::new(), bytes: 0, most, most_bytes }
    }

    /// Whether it has enough, and the next change begins another transaction.
    pub(super) fn ends_before(&self, next: Revision) -> bool {
        let begins = self.changes.last().is_none_or(|last| last.at.main != next.main);
        begins && (self.changes.len() >= self.most || self.bytes >= self.most_bytes)
    }

    pub(super) fn push(&mut self, change: Change) {
        self.bytes += change.pair.key.len() + change.pair.value.len();
        self.changes.push(change);
    }
}

/// What goes to the disk at once: all of it, or nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// New changes, with their values.
    pub changes: BTreeMap<Revision, (Meta, Bytes)>,
    /// Changes that are forgotten.
    pub forgotten: Vec<Revision>,
    /// Leases that were granted, with their time to live in seconds, or ended.
    pub leases: BTreeMap<LeaseNumber, Option<i64>>,
    /// The revision up to which history may be forgotten, where that has moved, with the store's revision then.
    pub compacted: Option<(i64, i64)>,
}

impl Batch {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        let Self { changes, forgotten, leases, compacted } = self;
        changes.is_empty() && forgotten.is_empty() && leases.is_empty() && compacted.is_none()
    }
}

/// What there is beside changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The store's revision when that was last written down on its own; changes may be later.
    pub revision: i64,
    /// Up to which revision history may be gone.
    pub compacted: i64,
    /// Leases with their time to live in seconds.
    pub leases: BTreeMap<LeaseNumber, i64>,
}

/// Why the history could not be read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BackendError {
    /// There is no room for it.
    #[error("no room: {0}")]
    NoSpace(String),
    /// The disk failed.
    #[error("{0}")]
    Io(String),
    /// That change is not there any more.
    #[error("revision {}.{} is not there any more", .0.main, .0.sub)]
    Gone(Revision),
    /// What is there is not what was written.
    #[error("damaged: {0}")]
    Damaged(String),
}

impl BackendError {
    /// The same, and of which file it was said.
    pub(super) fn of(self, path: &Path) -> Self {
        let of = |what| format!("{}: {what}", path.display());
        match self {
            Self::NoSpace(what) => Self::NoSpace(of(what)),
            Self::Io(what) => Self::Io(of(what)),
            Self::Damaged(what) => Self::Damaged(of(what)),
            Self::Gone(at) => Self::Gone(at),
        }
    }
}

/// Keeps the history.
pub trait Backend: Debug + Send + Sync {
    /// Reads everything but the values, oldest first.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged.
    fn load(&self, each: &mut dyn FnMut(Revision, Meta)) -> Result<State, BackendError>;

    /// Writes a batch. Once this returns it outlives a power cut. Where it fails nothing of it is seen, unless the
    /// process ends before anything else could be written: then it may be there, whole.
    ///
    /// # Errors
    /// When it was not written.
    fn commit(&self, batch: &Batch) -> Result<(), BackendError>;

    /// The values of these changes.
    ///
    /// # Errors
    /// [`BackendError::Gone`], where one was forgotten; and when they cannot be read.
    fn values(&self, at: &[Revision]) -> Result<Vec<Bytes>, BackendError>;

    /// Changes with their values, oldest first, from a revision on: at most so many, or the first few that have so many
    /// bytes. Each transaction comes whole.
    ///
    /// # Errors
    /// When they cannot be read.
    fn changes(&self, from: i64, most: usize, bytes: usize) -> Result<Vec<Change>, BackendError>;

    /// Everything as it is now, whatever is written later.
    ///
    /// # Errors
    /// When it cannot be read.
    fn view(&self) -> Result<Box<dyn View>, BackendError>;

    /// How much room it takes. This reads everything once, so it is for people, not for every request.
    ///
    /// # Errors
    /// When it cannot be read.
    fn size(&self) -> Result<Size, BackendError>;

    /// Bytes on the disk, which is cheap to tell.
    ///
    /// # Errors
    /// When it cannot be told.
    fn file_bytes(&self) -> Result<u64, BackendError> {
        self.size().map(|size| size.file)
    }

    /// Gives back the room that nothing is in. Reads and writes wait meanwhile.
    ///
    /// # Errors
    /// [`DefragmentError`]. What is there stays.
    fn defragment(&self) -> Result<(), DefragmentError>;
}

/// What a backend held at one moment. While it lives, the room of what is overwritten is not used again.
pub trait View: Debug + Send {
    /// What there was beside changes.
    fn state(&self) -> &State;

    /// As [`Backend::changes`]. Behind the last revision that was acknowledged there may be more, which has not happened.
    ///
    /// # Errors
    /// When they cannot be read, or the disk has failed since.
    fn changes(&self, from: i64, most: usize, bytes: usize) -> Result<Vec<Change>, BackendError>;
}

/// How much room a store takes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// On the disk.
    pub file: u64,
    /// That something is in; the rest is used again, or given back by [`Backend::defragment`].
    pub used: u64,
}

/// Why room could not be given back.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DefragmentError {
    /// Somebody reads the store as it was.
    #[error("a copy of the store is being taken; hint: try again once that is done")]
    InUse,
    /// The disk failed.
    #[error("the store could not be defragmented")]
    Failed(#[from] BackendError),
}
