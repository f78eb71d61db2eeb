//! A hash of what the store holds at a revision, by which two stores are told apart.

use super::engine::Engine;
use super::model::{Change, KeyValue};
use super::request::Refusal;

/// What [`Engine::hash`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hash {
    /// The hash (CRC-32).
    pub hash: u32,
    /// The revision that it is of.
    pub revision: i64,
    /// The revision before which nothing is in it.
    pub compacted: i64,
}

impl Engine {
    /// Hashes every change up to a revision that can still be read: keys, values, revisions, versions and leases, not
    /// who wrote them. 0 or less is now.
    ///
    /// Two stores with the same history that were compacted at the same revision have the same hash, whatever has been
    /// written since, on whatever they are kept. It is not the number that etcd has for the same keys.
    ///
    /// # Errors
    /// [`Refusal::Compacted`], [`Refusal::FutureRevision`], [`Refusal::Broken`].
    pub fn hash(&self, revision: i64) -> Result<Hash, Refusal> {
        let mut contents = self.contents()?;
        let compacted = contents.compacted;
        let revision = if revision <= 0 { contents.revision } else { revision };
        if revision > contents.revision {
            return Err(Refusal::FutureRevision);
        }
        if revision < compacted {
            return Err(Refusal::Compacted);
        }
        contents.revision = revision;
        let mut hasher = crc32fast::Hasher::new();
        loop {
            let changes = contents.piece()?;
            if changes.is_empty() {
                return Ok(Hash { hash: hasher.finalize(), revision, compacted });
            }
            changes.iter().for_each(|change| add(&mut hasher, change));
        }
    }
}

fn add(hasher: &mut crc32fast::Hasher, change: &Change) {
    let Change { at, pair, deleted, author: _ } = change;
    let KeyValue { key, value, created, modified: _, version, lease } = pair;
    let numbers =
        [at.main, at.sub, *created, *version, lease.0, i64::from(*deleted), key.len() as i64, value.len() as i64];
    numbers.iter().for_each(|number| hasher.update(&number.to_le_bytes()));
    hasher.update(key);
    hasher.update(value);
}
