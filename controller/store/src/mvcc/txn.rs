//! Transactions: conditions first, all of them as things stood before, then the operations of one branch.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use bytes::Bytes;

use super::engine::Draft;
use super::model::{KeyRange, KeyValue};
use super::request::{
    Answer, Compare, Detail, MOST_OPERATIONS, Operand, Operation, Outcome, Range, Refusal, Relation, Txn,
};

/// How deep transactions stand in one another. etcd sets no bound, and can be made to overflow its stack; nobody needs
/// more than two.
const DEEPEST: usize = 16;

/// Which branch a transaction takes, and those in it.
struct Path {
    succeeded: bool,
    /// One for each transaction in the branch, in its order.
    inner: Vec<Path>,
}

impl Draft<'_> {
    /// Does a transaction.
    pub(super) fn txn(&mut self, txn: &Txn) -> Result<Outcome, Refusal> {
        check(txn, 0)?;
        let path = self.path(txn)?;
        self.check_branch(txn, &path)?;
        self.take(txn, &path)
    }

    /// Chooses branches, all by what is there before anything is done.
    fn path(&self, txn: &Txn) -> Result<Path, Refusal> {
        let mut succeeded = true;
        for compare in &txn.compare {
            succeeded = succeeded && self.holds(compare)?;
        }
        let inner = branch(txn, succeeded).iter().filter_map(|operation| match operation {
            Operation::Txn(inner) => Some(self.path(inner)),
            _ => None,
        });
        Ok(Path { succeeded, inner: inner.collect::<Result<_, _>>()? })
    }

    fn holds(&self, compare: &Compare) -> Result<bool, Refusal> {
        let by_value = matches!(compare.operand, Operand::Value(_));
        let detail = if by_value { Detail::Pairs } else { Detail::Keys };
        let found = self.range(&Range { detail, ..Range::of(compare.keys.clone()) })?;
        if found.pairs.is_empty() {
            // Nothing has no value to compare; everything else of it is 0.
            return Ok(!by_value && fits(compare, &KeyValue::default()));
        }
        Ok(found.pairs.iter().all(|pair| fits(compare, pair)))
    }

    /// What would be refused is refused before anything is done.
    fn check_branch(&self, txn: &Txn, path: &Path) -> Result<(), Refusal> {
        let mut inner = path.inner.iter();
        for operation in branch(txn, path.succeeded) {
            match operation {
                Operation::Put(put) => self.check_put(put)?,
                Operation::Range(range) if range.revision > self.revision => return Err(Refusal::FutureRevision),
                Operation::Range(range) if range.revision > 0 && range.revision < self.inner.compacted => {
                    return Err(Refusal::Compacted);
                }
                Operation::Range(_) | Operation::Delete(_) => {}
                Operation::Txn(txn) => {
                    if let Some(path) = inner.next() {
                        self.check_branch(txn, path)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, txn: &Txn, path: &Path) -> Result<Outcome, Refusal> {
        let mut inner = path.inner.iter();
        let mut answers = Vec::new();
        for operation in branch(txn, path.succeeded) {
            answers.push(match operation {
                Operation::Range(range) => {
                    let found = self.range(range)?;
                    Answer::Range(self.current(), found)
                }
                Operation::Put(put) => {
                    let previous = self.put(put)?;
                    Answer::Put(self.current(), previous)
                }
                Operation::Delete(delete) => {
                    let (count, deleted) = self.delete(delete)?;
                    Answer::Delete(self.current(), count, deleted)
                }
                Operation::Txn(txn) => {
                    let path = inner.next().expect("a path for each transaction of the branch");
                    Answer::Txn(self.take(txn, path)?)
                }
            });
        }
        Ok(Outcome { succeeded: path.succeeded, answers })
    }
}

fn branch(txn: &Txn, succeeded: bool) -> &[Operation] {
    if succeeded { &txn.success } else { &txn.failure }
}

fn fits(compare: &Compare, pair: &KeyValue) -> bool {
    let order = match &compare.operand {
        Operand::Version(version) => pair.version.cmp(version),
        Operand::Created(created) => pair.created.cmp(created),
        Operand::Modified(modified) => pair.modified.cmp(modified),
        Operand::Value(value) => pair.value.cmp(value),
        Operand::Lease(lease) => pair.lease.0.cmp(lease),
    };
    match compare.relation {
        Relation::Equal => order == Ordering::Equal,
        Relation::Greater => order == Ordering::Greater,
        Relation::Less => order == Ordering::Less,
        Relation::NotEqual => order != Ordering::Equal,
    }
}

/// Whether a transaction may be asked at all (etcd's `checkTxnRequest`).
fn check(txn: &Txn, depth: usize) -> Result<(), Refusal> {
    check_shape(txn, depth)?;
    writes(&txn.success)?;
    writes(&txn.failure)?;
    Ok(())
}

fn check_shape(txn: &Txn, depth: usize) -> Result<(), Refusal> {
    let Txn { compare, success, failure } = txn;
    let most = compare.len().max(success.len()).max(failure.len());
    if most > MOST_OPERATIONS || depth > DEEPEST {
        return Err(Refusal::TooManyOperations);
    }
    if compare.iter().any(|compare| compare.keys.begin().is_empty()) {
        return Err(Refusal::EmptyKey);
    }
    for operation in success.iter().chain(failure) {
        let empty = match operation {
            Operation::Range(range) => range.keys.begin().is_empty(),
            Operation::Put(put) => put.key.is_empty(),
            Operation::Delete(delete) => delete.keys.begin().is_empty(),
            Operation::Txn(txn) => {
                check_shape(txn, depth + 1)?;
                false
            }
        };
        if empty {
            return Err(Refusal::EmptyKey);
        }
    }
    Ok(())
}

/// What a branch may write: keys that it puts, ranges that it deletes.
#[derive(Default)]
struct Writes {
    puts: BTreeSet<Bytes>,
    deletions: Vec<KeyRange>,
}

impl Writes {
    fn deletes(&self, key: &[u8]) -> bool {
        self.deletions.iter().any(|range| range.contains(key))
    }
}

/// What a branch may write; refused where a key could be written twice (etcd's `checkIntervals`).
fn writes(branch: &[Operation]) -> Result<Writes, Refusal> {
    let mut all = Writes::default();
    for operation in branch {
        if let Operation::Delete(delete) = operation {
            all.deletions.push(delete.keys.clone());
        }
    }
    for operation in branch {
        let Operation::Txn(txn) = operation else { continue };
        let (then, otherwise) = (writes(&txn.success)?, writes(&txn.failure)?);
        for key in &then.puts {
            if all.deletes(key) || !all.puts.insert(key.clone()) {
                return Err(Refusal::DuplicateKey);
            }
        }
        for key in &otherwise.puts {
            // Of the two only one is done.
            if all.deletes(key) || (!all.puts.insert(key.clone()) && !then.puts.contains(key)) {
                return Err(Refusal::DuplicateKey);
            }
        }
        all.deletions.extend(then.deletions);
        all.deletions.extend(otherwise.deletions);
    }
    for operation in branch {
        if let Operation::Put(put) = operation
            && (all.deletes(&put.key) || !all.puts.insert(put.key.clone()))
        {
            return Err(Refusal::DuplicateKey);
        }
    }
    Ok(all)
}
