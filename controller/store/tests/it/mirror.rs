//! What a follower's listener knows: a map that updates are applied to, with the promises checked on the way.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use windlass_store::{Change, Entry, Follower, Key, StoreRevision, Update};

use crate::PATIENCE;

pub(crate) struct Mirror {
    follower: Follower,
    pub(crate) entries: BTreeMap<Key, Entry>,
    pub(crate) revision: StoreRevision,
    pub(crate) snapshots: usize,
    pub(crate) interruptions: usize,
    /// Signs of life.
    pub(crate) signs: usize,
    /// Put or deleted, told one by one.
    pub(crate) changes: usize,
}

impl Mirror {
    /// Waits for the first snapshot.
    pub(crate) async fn of(follower: Follower) -> Result<Self> {
        let mut mirror = Self {
            follower,
            entries: BTreeMap::new(),
            revision: StoreRevision(0),
            snapshots: 0,
            interruptions: 0,
            signs: 0,
            changes: 0,
        };
        mirror.until("the first snapshot", |mirror| mirror.snapshots == 1).await?;
        Ok(mirror)
    }

    pub(crate) fn value(&self, key: &Key) -> Option<&str> {
        std::str::from_utf8(&self.entries.get(key)?.value).ok()
    }

    /// Takes updates until it is so.
    pub(crate) async fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) -> Result<Duration> {
        let begun = Instant::now();
        while !is_so(self) {
            let left = PATIENCE.saturating_sub(begun.elapsed());
            let update = tokio::time::timeout(left, self.follower.next()).await;
            self.apply(update.with_context(|| format!("still not: {what}"))?)?;
        }
        Ok(begun.elapsed())
    }

    fn apply(&mut self, update: Update) -> Result<()> {
        match update {
            Update::Snapshot { entries, revision } => {
                ensure!(entries.iter().all(|entry| entry.mod_revision <= revision));
                self.entries = entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
                self.revision = revision;
                self.snapshots += 1;
            }
            Update::Changes { changes, revision } => {
                let mut at = self.revision;
                for change in changes {
                    // A revision is told whole, so a later update never begins in the middle of it.
                    ensure!(change.revision() > self.revision, "{change:?} after {}", self.revision);
                    ensure!(change.revision() >= at, "out of order: {change:?} after {at}");
                    at = change.revision();
                    self.changes += 1;
                    match change {
                        Change::Put(entry) => self.entries.insert(entry.key.clone(), entry),
                        Change::Deleted { key, .. } => self.entries.remove(&key),
                    };
                }
                ensure!(revision >= at);
                self.revision = revision;
            }
            Update::Progress { revision } => {
                ensure!(revision >= self.revision, "{revision} after {}", self.revision);
                self.revision = revision;
                self.signs += 1;
            }
            Update::Interrupted { .. } => self.interruptions += 1,
        }
        Ok(())
    }
}
