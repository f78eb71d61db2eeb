//! etcd's data model: revisions, key-value pairs, events, and ranges of keys.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

/// A point in the store's history: each transaction that changes something has a `main` of its own, each change in it a
/// `sub`, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision {
    /// Which transaction.
    pub main: i64,
    /// Which change in it.
    pub sub: i64,
}

/// A lease's number; 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LeaseNumber(pub i64);

impl LeaseNumber {
    /// No lease.
    pub const NONE: Self = Self(0);
}

/// A key, its value, and where in the history it was put.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value; empty where only keys were asked for.
    pub value: Bytes,
    /// The revision in which the key came to be.
    pub created: i64,
    /// The revision in which it was last put.
    pub modified: i64,
    /// How often it was put since it came to be.
    pub version: i64,
    /// The lease that it goes with.
    pub lease: LeaseNumber,
}

/// What one change did to one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// When.
    pub at: Revision,
    /// The pair as it is since; of a deletion the key and the revision only.
    pub pair: KeyValue,
    /// Whether the key was deleted.
    pub deleted: bool,
    /// Who did it, where that is known.
    pub author: Option<Arc<str>>,
}

/// A first and a last key, as ordered maps take them.
pub(super) type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// A range of keys, as etcd's requests say it: a key and an end that is not in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyRange {
    /// This key only.
    One(Bytes),
    /// From a key up to, not including, another. Empty where the end is not behind the beginning.
    Until(Bytes, Bytes),
    /// From a key to the last one.
    From(Bytes),
}

impl KeyRange {
    /// etcd's two fields: no end is one key, an end of one zero byte is everything from the key on.
    pub fn new(key: Bytes, end: Bytes) -> Self {
        match &end[..] {
            [] => Self::One(key),
            [0] => Self::From(key),
            _ => Self::Until(key, end),
        }
    }

    /// The first key that may be in it.
    pub fn begin(&self) -> &Bytes {
        let (Self::One(key) | Self::Until(key, _) | Self::From(key)) = self;
        key
    }

    /// Bytes of its keys.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::One(key) | Self::From(key) => key.len(),
            Self::Until(begin, end) => begin.len() + end.len(),
        }
    }

    /// Whether a key is in it.
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::One(only) => only == key,
            Self::Until(begin, end) => begin <= key && key < &end[..],
            Self::From(begin) => begin <= key,
        }
    }

    /// For an ordered map; nothing where the range is empty.
    pub(super) fn bounds(&self) -> Option<Bounds<'_>> {
        match self {
            Self::One(key) => Some((Bound::Included(key), Bound::Included(key))),
            Self::Until(begin, end) if begin < end => Some((Bound::Included(begin), Bound::Excluded(end))),
            Self::Until(..) => None,
            Self::From(begin) => Some((Bound::Included(begin), Bound::Unbounded)),
        }
    }
}
