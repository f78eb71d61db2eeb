//! Commits: the controller's writes, in one transaction that holds only while it leads and nobody was quicker.

use etcd_client::{Compare, CompareOp, GetOptions, KeyValue, PutOptions, Txn, TxnOp, TxnOpResponse, TxnResponse};

use crate::call::{CallError, Problem, Repeat};
use crate::connect::Store;
use crate::entry::{LeaseId, StoreRevision};
use crate::key::{Control, Key};
use crate::leadership::Leadership;
use crate::report::Call;

/// etcd's limit on the operations, and on the comparisons, of one transaction (`--max-txn-ops`).
const OPERATIONS: usize = 128;

/// The comparisons that guard leadership.
const GUARDS: usize = 2;

/// The most writes in one commit.
pub const MOST_WRITES: usize = OPERATIONS - GUARDS;

/// etcd's limit on the size of one request (`--max-request-bytes`).
pub const REQUEST_BYTES: usize = 1_572_864;

/// What protobuf adds to each operation at most, beside its key and value.
const OVERHEAD: usize = 48;

/// What a write expects of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expectation {
    /// Anything.
    Any,
    /// That it is not there.
    Absent,
    /// That it was last put at this revision.
    At(StoreRevision),
}

impl Expectation {
    /// As etcd checks it; nothing where anything will do.
    pub(crate) fn compare(self, path: &[u8]) -> Option<Compare> {
        let revision = match self {
            Self::Any => return None,
            // etcd gives a key that is not there the revision 0.
            Self::Absent => 0,
            Self::At(revision) => revision.as_etcd(),
        };
        Some(Compare::mod_revision(path, CompareOp::Equal, revision))
    }
}

/// What a write does to its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Puts a value.
    Put {
        /// The value.
        value: Vec<u8>,
        /// The lease that the key ends with.
        lease: Option<LeaseId>,
    },
    /// Deletes it, if it is there.
    Delete,
    /// Nothing: the commit only holds where the key is as expected.
    Keep,
}

/// One write of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The key.
    pub key: Key,
    /// What must hold, or nothing of the commit is done.
    pub expect: Expectation,
    /// What to do.
    pub act: Act,
}

impl Write {
    /// Puts a value, whatever is there.
    pub fn put(key: Key, value: impl Into<Vec<u8>>) -> Self {
        Self { key, expect: Expectation::Any, act: Act::Put { value: value.into(), lease: None } }
    }

    /// Puts a value that ends with a lease, whatever is there.
    pub fn put_leased(key: Key, value: impl Into<Vec<u8>>, lease: LeaseId) -> Self {
        Self { key, expect: Expectation::Any, act: Act::Put { value: value.into(), lease: Some(lease) } }
    }

    /// Deletes a key, whatever it holds.
    pub fn delete(key: Key) -> Self {
        Self { key, expect: Expectation::Any, act: Act::Delete }
    }

    /// Leaves a key alone, and holds only while it was last put at this revision.
    pub fn keep(key: Key, at: StoreRevision) -> Self {
        Self { key, expect: Expectation::At(at), act: Act::Keep }
    }

    /// The same write, only where `expect` holds.
    #[must_use]
    pub fn expecting(mut self, expect: Expectation) -> Self {
        self.expect = expect;
        self
    }

    fn bytes(&self, path: &[u8]) -> usize {
        let value = match &self.act {
            Act::Put { value, .. } => value.len(),
            Act::Delete | Act::Keep => 0,
        };
        // In the comparison, in the operation, and in the read that says who was quicker.
        3 * (path.len() + OVERHEAD) + value
    }

    fn compare(&self, path: &[u8]) -> Option<Compare> {
        self.expect.compare(path)
    }

    fn operation(&self, path: &[u8]) -> Option<TxnOp> {
        match &self.act {
            Act::Put { value, lease } => {
                let options = lease.map(|lease| PutOptions::new().with_lease(lease.0));
                Some(TxnOp::put(path, value.clone(), options))
            }
            Act::Delete => Some(TxnOp::delete(path, None)),
            Act::Keep => None,
        }
    }

    fn is_met_by(&self, pair: Option<&KeyValue>) -> bool {
        let revision = pair.map_or(0, KeyValue::mod_revision);
        match self.expect {
            Expectation::Any => true,
            Expectation::Absent => revision == 0,
            Expectation::At(expected) => revision == expected.as_etcd(),
        }
    }
}

/// Why a commit was not made, or may not have been.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Another leads, or nobody does. Nothing was written.
    #[error("this controller no longer leads")]
    LeadershipLost,
    /// Somebody was quicker. Nothing was written.
    #[error("{key} is not as expected: {}", describe(.found))]
    Conflict {
        /// The first of the keys that are not as expected.
        key: Box<Key>,
        /// When it was last put; nothing when it is not there.
        found: Option<StoreRevision>,
    },
    /// One commit may write a key only once. Nothing was written.
    #[error("{key} is written twice in one commit")]
    Twice {
        /// Which one.
        key: Key,
    },
    /// More writes than etcd takes at once. Nothing was written.
    #[error("{writes} writes in one commit, and {MOST_WRITES} are the most")]
    TooMany {
        /// How many.
        writes: usize,
    },
    /// More bytes than etcd takes at once. Nothing was written.
    #[error("a commit of about {bytes} bytes, and {REQUEST_BYTES} are the most")]
    TooLarge {
        /// How many, about.
        bytes: usize,
    },
    /// The lease of a write has ended. Nothing was written.
    #[error("the lease of a key has ended")]
    LeaseGone(#[source] CallError),
    /// The store refused, or could not be asked. Nothing was written.
    #[error("nothing was written to the store")]
    NotApplied(#[source] CallError),
    /// The answer was lost: read again what is there.
    #[error("the store may or may not have taken the commit")]
    Unknown(#[source] CallError),
}

fn describe(found: &Option<StoreRevision>) -> String {
    match found {
        Some(revision) => format!("put at revision {revision}"),
        None => "not there".to_owned(),
    }
}

impl From<CallError> for CommitError {
    fn from(error: CallError) -> Self {
        match error.problem {
            Problem::LeaseGone => Self::LeaseGone(error),
            _ if error.may_have_applied() => Self::Unknown(error),
            _ => Self::NotApplied(error),
        }
    }
}

impl Store {
    /// Writes all of `writes`, or nothing, only while we lead and only where each expectation holds. One round
    /// trip. The revision is that of all its writes, for waiting until a cache has seen them.
    ///
    /// # Errors
    /// See [`CommitError`]: all but `Unknown` say that nothing was written.
    pub async fn commit(&self, leadership: &Leadership, writes: &[Write]) -> Result<StoreRevision, CommitError> {
        let paths: Vec<Vec<u8>> = writes.iter().map(|write| self.path(&write.key)).collect();
        check_limits(writes, &paths)?;
        if !leadership.is_valid() {
            return Err(CommitError::LeadershipLost);
        }
        let answer = self
            .call(Call::Txn, Repeat::WhenNotApplied, |mut client| {
                let txn = self.transaction(leadership, writes, &paths);
                async move { client.txn(txn).await }
            })
            .await?;
        if answer.succeeded() {
            return Ok(crate::write::revision(answer.header()));
        }
        let found = found(&answer);
        let (leader, rest) = found.split_first().map_or((&None, &[][..]), |(leader, rest)| (leader, rest));
        if !leadership.holds(leader.as_ref()) {
            leadership.lose(crate::Loss::Replaced);
            return Err(CommitError::LeadershipLost);
        }
        let guarded = writes.iter().filter(|write| write.expect != Expectation::Any);
        match guarded.zip(rest).find(|(write, pair)| !write.is_met_by(pair.as_ref())) {
            Some((write, pair)) => Err(CommitError::Conflict {
                key: Box::new(write.key.clone()),
                found: pair.as_ref().map(|pair| StoreRevision::from_etcd(pair.mod_revision())),
            }),
            // The comparisons and the reads are of one instant, so this is an etcd that contradicts itself.
            None => Err(CommitError::LeadershipLost),
        }
    }

    fn transaction(&self, leadership: &Leadership, writes: &[Write], paths: &[Vec<u8>]) -> Txn {
        let leader = self.path(&Key::Control(Control::Leader));
        let mut compares = leadership.guards(&leader);
        let keys_only = || Some(GetOptions::new().with_keys_only());
        let mut reads = vec![TxnOp::get(leader, keys_only())];
        for (write, path) in writes.iter().zip(paths) {
            if let Some(compare) = write.compare(path) {
                compares.push(compare);
                reads.push(TxnOp::get(path.clone(), keys_only()));
            }
        }
        let operations: Vec<TxnOp> =
            writes.iter().zip(paths).filter_map(|(write, path)| write.operation(path)).collect();
        Txn::new().when(compares).and_then(operations).or_else(reads)
    }
}

fn check_limits(writes: &[Write], paths: &[Vec<u8>]) -> Result<(), CommitError> {
    if writes.len() > MOST_WRITES {
        return Err(CommitError::TooMany { writes: writes.len() });
    }
    let bytes = writes.iter().zip(paths).map(|(write, path)| write.bytes(path)).sum::<usize>() + 4 * OVERHEAD;
    if bytes > REQUEST_BYTES {
        return Err(CommitError::TooLarge { bytes });
    }
    let mut sorted: Vec<&Key> = writes.iter().map(|write| &write.key).collect();
    sorted.sort();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(CommitError::Twice { key: pair[0].clone() }),
        None => Ok(()),
    }
}

/// What the reads of a transaction found, each of a single key, in order.
pub(crate) fn found(answer: &TxnResponse) -> Vec<Option<KeyValue>> {
    answer
        .op_responses()
        .into_iter()
        .filter_map(|response| match response {
            TxnOpResponse::Get(mut answer) => Some(answer.take_kvs().into_iter().next()),
            _ => None,
        })
        .collect()
}
