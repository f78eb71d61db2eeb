//! Entries: what a key held at a revision of the store.

use std::fmt;

use serde::{Deserialize, Serialize};
use windlass_crds::id::Generation;

use crate::key::{Key, Prefix};

/// A revision of the whole store: etcd counts every transaction that changed something. Only grows, unless a
/// backup is restored.
///
/// Not to be confused with the revision of a service, [`windlass_crds::id::RevisionNumber`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StoreRevision(pub u64);

impl StoreRevision {
    /// As etcd wants it.
    pub(crate) fn as_etcd(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }

    /// As etcd gave it; etcd counts from 1 and never below 0.
    pub(crate) fn from_etcd(revision: i64) -> Self {
        Self(u64::try_from(revision).unwrap_or(0))
    }
}

impl fmt::Display for StoreRevision {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl From<StoreRevision> for Generation {
    /// The generation of a declaration is the store's revision at which its key was last put.
    fn from(revision: StoreRevision) -> Self {
        Self(revision.0)
    }
}

/// A lease of etcd: keys put under it vanish together when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseId(pub(crate) i64);

impl fmt::Display for LeaseId {
    /// Hexadecimal, as etcdctl prints it.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:x}", self.0)
    }
}

/// One key and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it names.
    pub key: Key,
    /// Its value, as it was put.
    pub value: Vec<u8>,
    /// When it was last put. What [`crate::Expectation::At`] compares with.
    pub mod_revision: StoreRevision,
    /// When it was first put since it was last absent.
    pub create_revision: StoreRevision,
    /// How often it was put since then, from 1.
    pub version: u64,
    /// The lease that it ends with, if any.
    pub lease: Option<LeaseId>,
}

impl Entry {
    pub(crate) fn new(prefix: &Prefix, pair: &etcd_client::KeyValue) -> Option<Self> {
        Some(Self {
            key: Key::parse(prefix, pair.key())?,
            value: pair.value().to_owned(),
            mod_revision: StoreRevision::from_etcd(pair.mod_revision()),
            create_revision: StoreRevision::from_etcd(pair.create_revision()),
            version: u64::try_from(pair.version()).unwrap_or(0),
            lease: (pair.lease() != 0).then_some(LeaseId(pair.lease())),
        })
    }
}

/// What a scope held, all of it at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// In the order of the keys' bytes.
    pub entries: Vec<Entry>,
    /// When.
    pub revision: StoreRevision,
}
