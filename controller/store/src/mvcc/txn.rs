//! Transactions: conditions first, all of them as things stood before, then the operations of one branch.

use super::engine::Draft;
use super::model::KeyValue;
use super::request::{Answer, Compare, Detail, Operand, Operation, Outcome, Range, Refusal, Relation, Txn};
use std::cmp::Ordering;

/// Which branch a transaction takes, and those in it.
struct Path {
    succeeded: bool,
    /// One for each transaction in the branch, in its order.
    inner: Vec<Path>,
}

/// How [`Path::inner`] is made.
const PATHS: &str = "a path for each transaction of the branch";

impl Draft<'_> {
    /// Does a transaction that was checked.
    pub(super) fn txn(&mut self, txn: &Txn) -> Result<Outcome, Refusal> {
        let path = self.path(txn)?;
        self.check_branch(txn, &path)?;
        self.take(txn, &path)
    }

    /// Chooses branches, all by what is there before anything is done.
    fn path(&mut self, txn: &Txn) -> Result<Path, Refusal> {
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

    fn holds(&mut self, compare: &Compare) -> Result<bool, Refusal> {
        let by_value = matches!(compare.operand, Operand::Value(_));
        let detail = if by_value { Detail::Pairs } else { Detail::Keys };
        let found = self.range(&Range { detail, ..Range::of(compare.keys.clone()) })?;
        if found.pairs.is_empty() {
            // Nothing has no value to compare; everything else of it is 0.
            return Ok(!by_value && fits(compare, &KeyValue::default()));
        }
        Ok(found.pairs.iter().all(|pair| fits(compare, pair)))
    }

    /// What would be refused is refused before anything is done: first what is put, of all that is done, and then what
    /// is read, as etcd does it.
    fn check_branch(&self, txn: &Txn, path: &Path) -> Result<(), Refusal> {
        each(txn, path, &mut |operation| match operation {
            // Here etcd asks for the key before the lease.
            Operation::Put(put) => self.check_kept(put).and_then(|()| self.check_put(put)),
            _ => Ok(()),
        })?;
        each(txn, path, &mut |operation| match operation {
            Operation::Range(range) if range.revision > self.revision => Err(Refusal::FutureRevision),
            Operation::Range(range) if range.revision > 0 && range.revision < self.inner.compacted => {
                Err(Refusal::Compacted)
            }
            _ => Ok(()),
        })
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
                    let path = inner.next().expect(PATHS);
                    Answer::Txn(self.take(txn, path)?)
                }
            });
        }
        Ok(Outcome { succeeded: path.succeeded, answers })
    }
}

/// Goes through what is done, in its order, until something is refused.
fn each(txn: &Txn, path: &Path, check: &mut impl FnMut(&Operation) -> Result<(), Refusal>) -> Result<(), Refusal> {
    let mut inner = path.inner.iter();
    for operation in branch(txn, path.succeeded) {
        match operation {
            Operation::Txn(txn) => each(txn, inner.next().expect(PATHS), check)?,
            operation => check(operation)?,
        }
    }
    Ok(())
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
