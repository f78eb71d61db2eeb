//! A store that keeps every revision whole: too slow for use, and too simple to be wrong.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use windlass_store::mvcc::{Change, KeyRange, KeyValue, LeaseNumber, Revision};

/// Every revision with all pairs that it has.
#[derive(Debug, Clone)]
pub(crate) struct Naive {
    pub(crate) revisions: Vec<BTreeMap<Bytes, KeyValue>>,
    pub(crate) changes: Vec<Change>,
    pub(crate) leases: BTreeSet<LeaseNumber>,
    pub(crate) compacted: i64,
}

impl Naive {
    /// As etcd begins: at revision 1, which is empty, as 0 is.
    pub(crate) fn new() -> Self {
        Self { revisions: vec![BTreeMap::new(); 2], changes: Vec::new(), leases: BTreeSet::new(), compacted: 0 }
    }

    pub(crate) fn revision(&self) -> i64 {
        self.revisions.len() as i64 - 1
    }

    pub(crate) fn now(&self) -> &BTreeMap<Bytes, KeyValue> {
        self.revisions.last().expect("there always is one")
    }

    /// The pairs of a range at a revision.
    pub(crate) fn range(&self, keys: &KeyRange, revision: i64) -> Vec<KeyValue> {
        let at = &self.revisions[usize::try_from(revision).expect("a revision that there was")];
        at.values().filter(|pair| keys.contains(&pair.key)).cloned().collect()
    }

    /// Does puts and deletions as one revision; none where nothing changes.
    pub(crate) fn transact(&mut self, writes: &[Write]) -> i64 {
        let main = self.revision() + 1;
        let mut next = self.now().clone();
        let mut sub = 0;
        let mut place = || {
            sub += 1;
            Revision { main, sub: sub - 1 }
        };
        for write in writes {
            match write {
                Write::Put(key, value, lease) => {
                    let before = next.get(key);
                    let pair = KeyValue {
                        key: key.clone(),
                        value: value.clone(),
                        created: before.map_or(main, |before| before.created),
                        modified: main,
                        version: before.map_or(1, |before| before.version + 1),
                        lease: *lease,
                    };
                    self.changes.push(Change { at: place(), pair: pair.clone(), deleted: false, author: None });
                    next.insert(key.clone(), pair);
                }
                Write::Delete(keys) => {
                    let gone: Vec<Bytes> = next.keys().filter(|key| keys.contains(key)).cloned().collect();
                    for key in gone {
                        next.remove(&key);
                        let pair = KeyValue { key, modified: main, ..KeyValue::default() };
                        self.changes.push(Change { at: place(), pair, deleted: true, author: None });
                    }
                }
            }
        }
        if sub > 0 {
            self.revisions.push(next);
        }
        self.revision()
    }

    /// Ends a lease, and deletes what goes with it.
    pub(crate) fn revoke(&mut self, lease: LeaseNumber) {
        self.leases.remove(&lease);
        let gone = self.now().values().filter(|pair| pair.lease == lease);
        let writes: Vec<Write> = gone.map(|pair| Write::Delete(KeyRange::One(pair.key.clone()))).collect();
        self.transact(&writes);
    }
}

/// One change.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    /// A pair.
    Put(Bytes, Bytes, LeaseNumber),
    /// All of a range.
    Delete(KeyRange),
}
