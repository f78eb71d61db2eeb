//! Whether a transaction may be asked at all: its size, its keys, and that it writes none of them twice.
//!
//! This looks at the request alone, so it is done before anybody has to wait for it.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::ops::Bound;

use bytes::Bytes;

use super::model::{Bounds, KeyRange};
use super::request::{MOST_OPERATIONS, Operation, Refusal, Txn};

/// How deep transactions stand in one another. etcd sets no bound, and can be made to overflow its stack; nobody needs
/// more than two.
const DEEPEST: usize = 16;

/// As etcd's `checkTxnRequest`.
pub(super) fn check(txn: &Txn) -> Result<(), Refusal> {
    check_shape(txn, 0)?;
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
    deletions: Spans,
}

impl Writes {
    /// Takes up others, of which any may be written in the same transaction as these, or none.
    fn join(&mut self, mut others: Self) {
        // The fewer go to the more, so that depth costs little.
        if self.puts.len() < others.puts.len() {
            mem::swap(&mut self.puts, &mut others.puts);
        }
        self.puts.extend(others.puts);
        if self.deletions.0.len() < others.deletions.0.len() {
            mem::swap(&mut self.deletions, &mut others.deletions);
        }
        others.deletions.0.into_iter().for_each(|(begin, end)| self.deletions.add(begin, end));
    }

    /// Whether one of those keys is put, or deleted, already.
    fn meet(&self, puts: &BTreeSet<Bytes>) -> bool {
        let (few, many) = if puts.len() < self.puts.len() { (puts, &self.puts) } else { (&self.puts, puts) };
        few.iter().any(|key| many.contains(key))
            || (!self.deletions.0.is_empty() && puts.iter().any(|key| self.deletions.contains(key)))
    }
}

/// What a branch may write; refused where a key could be written twice. As etcd's `checkIntervals`: what one inner
/// transaction puts and a later one deletes is not refused.
fn writes(branch: &[Operation]) -> Result<Writes, Refusal> {
    let mut all = Writes::default();
    for operation in branch {
        if let Operation::Delete(delete) = operation {
            all.deletions.add_range(&delete.keys);
        }
    }
    for operation in branch {
        let Operation::Txn(txn) = operation else { continue };
        let mut inner = writes(&txn.success)?;
        // Of the two only one is done, so they may write the same.
        inner.join(writes(&txn.failure)?);
        if all.meet(&inner.puts) {
            return Err(Refusal::DuplicateKey);
        }
        all.join(inner);
    }
    for operation in branch {
        if let Operation::Put(put) = operation
            && (all.deletions.contains(&put.key) || !all.puts.insert(put.key.clone()))
        {
            return Err(Refusal::DuplicateKey);
        }
    }
    Ok(all)
}

/// Ranges of keys, those that overlap as one: where each begins, and before which key it ends; nothing is behind the
/// last key.
#[derive(Default)]
struct Spans(BTreeMap<Bytes, Option<Bytes>>);

impl Spans {
    fn contains(&self, key: &[u8]) -> bool {
        let before = self.0.range::<[u8], Bounds<'_>>((Bound::Unbounded, Bound::Included(key))).next_back();
        before.is_some_and(|(_, end)| end.as_ref().is_none_or(|end| key < &end[..]))
    }

    fn add_range(&mut self, keys: &KeyRange) {
        match keys {
            // The next key there can be.
            KeyRange::One(key) => self.add(key.clone(), Some([key, &[0][..]].concat().into())),
            KeyRange::Until(begin, end) if begin < end => self.add(begin.clone(), Some(end.clone())),
            KeyRange::Until(..) => {}
            KeyRange::From(begin) => self.add(begin.clone(), None),
        }
    }

    fn add(&mut self, mut begin: Bytes, mut end: Option<Bytes>) {
        if let Some((before, until)) = self.0.range::<Bytes, _>(..=&begin).next_back()
            && until.as_ref().is_none_or(|until| *until >= begin)
        {
            (begin, end) = (before.clone(), later(end, until.clone()));
        }
        while let Some((next, until)) = self.0.range::<Bytes, _>(&begin..).next()
            && end.as_ref().is_none_or(|end| next <= end)
        {
            let (next, until) = (next.clone(), until.clone());
            end = later(end, until);
            self.0.remove(&next);
        }
        self.0.insert(begin, end);
    }
}

fn later(one: Option<Bytes>, other: Option<Bytes>) -> Option<Bytes> {
    one.zip(other).map(|(one, other)| one.max(other))
}
