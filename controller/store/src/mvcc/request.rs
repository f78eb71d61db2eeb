//! What is asked of the store, what it answers, and why it refuses, in etcd's words.

use bytes::Bytes;

use super::model::{KeyRange, KeyValue, LeaseNumber};

/// What a range is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SortBy {
    /// The key, as it is anyway.
    #[default]
    Key,
    /// How often it was put.
    Version,
    /// When it came to be.
    Created,
    /// When it was last put.
    Modified,
    /// The value's bytes.
    Value,
}

/// In which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SortOrder {
    /// Not asked for.
    #[default]
    None,
    /// Smallest first.
    Ascending,
    /// Largest first.
    Descending,
}

/// How much of each pair a range shall give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Detail {
    /// Everything.
    #[default]
    Pairs,
    /// No values.
    Keys,
    /// Only how many there are.
    Count,
}

/// Smallest and largest revision; 0 is no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Within {
    /// Smallest.
    pub least: i64,
    /// Largest.
    pub most: i64,
}

impl Within {
    /// Whether there is any bound.
    pub fn is_bounded(self) -> bool {
        self.least != 0 || self.most != 0
    }

    /// Whether a revision keeps to it.
    pub fn admits(self, revision: i64) -> bool {
        (self.least == 0 || revision >= self.least) && (self.most == 0 || revision <= self.most)
    }
}

/// Reads pairs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// Which keys.
    pub keys: KeyRange,
    /// At which revision; 0 or less is now.
    pub revision: i64,
    /// At most so many pairs; 0 or less is all.
    pub limit: i64,
    /// Sorted by what.
    pub sort_by: SortBy,
    /// In which order.
    pub order: SortOrder,
    /// How much of each.
    pub detail: Detail,
    /// Only those last put within.
    pub modified: Within,
    /// Only those that came to be within.
    pub created: Within,
}

impl Range {
    /// Everything about these keys, as it is now.
    pub fn of(keys: KeyRange) -> Self {
        Self {
            keys,
            revision: 0,
            limit: 0,
            sort_by: SortBy::default(),
            order: SortOrder::default(),
            detail: Detail::default(),
            modified: Within::default(),
            created: Within::default(),
        }
    }
}

/// What a put writes of a value or a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field<T> {
    /// This.
    New(T),
    /// What is there; the key must be.
    Keep,
}

/// Writes a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Field<Bytes>,
    /// The lease that it goes with.
    pub lease: Field<LeaseNumber>,
    /// Whether the pair before is to be told.
    pub tell_previous: bool,
}

impl Put {
    /// Bytes of its key and value.
    pub(super) fn bytes(&self) -> usize {
        let Self { key, value, lease: _, tell_previous: _ } = self;
        key.len() + if let Field::New(value) = value { value.len() } else { 0 }
    }
}

/// Deletes pairs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delete {
    /// Which.
    pub keys: KeyRange,
    /// Whether what was deleted is to be told.
    pub tell_previous: bool,
}

/// What a comparison looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operand {
    /// How often it was put.
    Version(i64),
    /// When it came to be.
    Created(i64),
    /// When it was last put.
    Modified(i64),
    /// The value.
    Value(Bytes),
    /// The lease.
    Lease(i64),
}

/// How it must be to the operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// The same.
    Equal,
    /// Greater.
    Greater,
    /// Less.
    Less,
    /// Not the same.
    NotEqual,
}

/// A condition of a transaction. It holds where it holds for every pair in the range; of no pair at all everything but
/// the value is 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    /// Of which pairs.
    pub keys: KeyRange,
    /// How.
    pub relation: Relation,
    /// To what.
    pub operand: Operand,
}

/// One operation of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Reads.
    Range(Range),
    /// Writes.
    Put(Put),
    /// Deletes.
    Delete(Delete),
    /// A transaction in this one.
    Txn(Txn),
}

/// Conditions, and what is done where all of them hold or where one does not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Txn {
    /// The conditions.
    pub compare: Vec<Compare>,
    /// Where they hold.
    pub success: Vec<Operation>,
    /// Where one does not.
    pub failure: Vec<Operation>,
}

impl Txn {
    /// Bytes of its keys and values, and of what holds them.
    pub(super) fn bytes(&self) -> usize {
        let Self { compare, success, failure } = self;
        let compare = compare.iter().map(|compare| {
            let operand = if let Operand::Value(value) = &compare.operand { value.len() } else { 0 };
            size_of::<Compare>() + compare.keys.bytes() + operand
        });
        let operations = success.iter().chain(failure).map(|operation| {
            size_of::<Operation>()
                + match operation {
                    Operation::Range(range) => range.keys.bytes(),
                    Operation::Put(put) => put.bytes(),
                    Operation::Delete(delete) => delete.keys.bytes(),
                    Operation::Txn(txn) => txn.bytes(),
                }
        });
        compare.chain(operations).sum()
    }
}

/// What a [`Range`] found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// The pairs.
    pub pairs: Vec<KeyValue>,
    /// Whether the limit cut some off.
    pub more: bool,
    /// How many keys the range has, whatever the limit and the bounds.
    pub count: i64,
}

/// What an [`Operation`] answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Of a [`Range`], at a revision.
    Range(i64, Found),
    /// Of a [`Put`]: its revision, and the pair before where that was asked for and there was one.
    Put(i64, Option<KeyValue>),
    /// Of a [`Delete`]: the revision then, how many, and which where that was asked for.
    Delete(i64, i64, Vec<KeyValue>),
    /// Of a [`Txn`] in a transaction.
    Txn(Outcome),
}

/// What a [`Txn`] did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Whether the conditions held.
    pub succeeded: bool,
    /// An answer an operation.
    pub answers: Vec<Answer>,
}

/// Why something was refused. The words are etcd's, for clients tell errors apart by them
/// (`api/v3rpc/rpctypes/error.go`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No key.
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    /// `ignore_value` or `ignore_lease` of a key that is not there.
    #[error("etcdserver: key not found")]
    KeyNotFound,
    /// A value beside `ignore_value`.
    #[error("etcdserver: value is provided")]
    ValueProvided,
    /// A lease beside `ignore_lease`.
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    /// More than [`MOST_OPERATIONS`].
    #[error("etcdserver: too many operations in txn request")]
    TooManyOperations,
    /// Two operations of a transaction write the same key.
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    /// The revision's history is gone.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    /// The revision is not there yet.
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    /// No such lease.
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    /// A lease with that number is there.
    #[error("etcdserver: lease already exists")]
    LeaseExists,
    /// Nobody lives so long.
    #[error("etcdserver: too large lease TTL")]
    LeaseTtlTooLarge,
    /// More than [`MOST_BYTES`].
    #[error("etcdserver: request is too large")]
    TooLarge,
    /// More than [`MOST_ANSWER`].
    #[error(
        "etcdserver: the answer is larger than {} MiB; hint: ask for fewer keys at a time (`--limit`), and go on behind the last one that came", MOST_ANSWER >> 20
    )]
    AnswerTooLarge,
    /// As many as there may be.
    #[error("etcdserver: too many leases ({0}); hint: revoke what nobody needs, or let one lease have several keys")]
    TooManyLeases(usize),
    /// The disk did not take it; nothing of it was written.
    #[error(
        "etcdserver: mvcc: database space exceeded: {0}; reads go on; hint: make room on the store's disk, or forget history (`etcdctl compaction`) and give its space back (`etcdctl defrag`)"
    )]
    NoSpace(String),
    /// The disk failed; nothing of it is acknowledged.
    #[error("the store could not be written: {0}; hint: look at the machine's disk and log")]
    Broken(String),
}

/// Conditions, and operations of a branch, that a transaction may have: etcd's default.
pub const MOST_OPERATIONS: usize = 128;

/// Bytes that a request may have: etcd's default.
pub const MOST_BYTES: usize = 1536 * 1024;

/// Bytes that an answer may have, and that a transaction may read: 10,000 pairs of 6 kB, which is a store of the size
/// that this one is made for. etcd sets no bound, and takes as much memory as it is asked for.
pub const MOST_ANSWER: usize = 64 << 20;

/// Leases that there may be. A controller has one, and one for the events of a while; etcd sets no bound.
pub const MOST_LEASES: usize = 50_000;

/// Seconds that a lease may last: etcd's.
pub const LONGEST_LEASE: i64 = 9_000_000_000;
