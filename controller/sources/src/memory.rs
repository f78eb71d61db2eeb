//! Sources in memory: trees that a test or a simulation lays out and changes, and the files of releases made of them.
//!
//! They settle as trees on a disk do. A tree here is a release as a whole: globs have no say in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use windlass_crds::digest::ReleaseDigest;
use windlass_crds::manifest::Manifest;

use crate::contents::Sweep;
use crate::error::SourceError;
use crate::release::{Release, SETTLE_PAUSE, SETTLE_PAUSES, ScanMode, ScanStats};

/// Trees by their roots, and the manifests whose files are here. Clones see the same.
#[derive(Debug, Clone, Default)]
pub struct MemoryTrees {
    trees: Arc<Mutex<BTreeMap<PathBuf, Arc<Manifest>>>>,
    kept: Arc<Mutex<BTreeMap<ReleaseDigest, Arc<Manifest>>>>,
}

impl MemoryTrees {
    fn trees(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Arc<Manifest>>> {
        self.trees.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<ReleaseDigest, Arc<Manifest>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lays out a tree, or changes it.
    pub fn put(&self, root: &Path, tree: Manifest) {
        self.trees().insert(root.to_owned(), Arc::new(tree));
    }

    /// Takes a tree away.
    pub fn remove(&self, root: &Path) {
        self.trees().remove(root);
    }

    pub(crate) async fn release(
        &self,
        root: &Path,
        mode: ScanMode,
        last: Option<&ReleaseDigest>,
    ) -> Result<Release, SourceError> {
        let mut found = self.look(root)?;
        if mode == ScanMode::Interval && last != Some(&found.digest()) {
            let mut settled = false;
            for _ in 0..SETTLE_PAUSES {
                tokio::time::sleep(SETTLE_PAUSE).await;
                let later = self.look(root)?;
                settled = later == found;
                found = later;
                if settled {
                    break;
                }
            }
            if !settled {
                let path = found.entries.keys().next().map(ToString::to_string).unwrap_or_default();
                return Err(SourceError::Unsettled { root: root.to_owned(), path });
            }
        }
        if found.entries.is_empty() {
            return Err(SourceError::Empty { root: root.to_owned() });
        }
        let digest = found.digest();
        self.kept().insert(digest, Arc::clone(&found));
        let stats = ScanStats { files: found.entries.len(), ..ScanStats::default() };
        Ok(Release { digest, manifest: found, stats })
    }

    fn look(&self, root: &Path) -> Result<Arc<Manifest>, SourceError> {
        let away = || SourceError::Unavailable {
            root: root.to_owned(),
            error: std::io::Error::from(std::io::ErrorKind::NotFound),
        };
        self.trees().get(root).cloned().ok_or_else(away)
    }

    pub(crate) fn manifest(&self, digest: &ReleaseDigest) -> Option<Manifest> {
        self.kept().get(digest).map(|manifest| Manifest::clone(manifest))
    }

    pub(crate) fn has(&self, manifest: &Manifest) -> bool {
        self.kept().contains_key(&manifest.digest())
    }

    pub(crate) fn retain(&self, keep: &BTreeSet<ReleaseDigest>) -> Sweep {
        let mut kept = self.kept();
        let before = kept.len();
        kept.retain(|digest, _| keep.contains(digest));
        Sweep::Done { removed: before - kept.len(), bytes: 0 }
    }
}

#[cfg(test)]
mod tests {
    use windlass_crds::digest::FileDigest;
    use windlass_crds::manifest::Entry;

    use super::*;

    fn tree(text: &str) -> Manifest {
        let entry = Entry::File { digest: FileDigest::of(text.as_bytes()), size: text.len() as u64, executable: false };
        Manifest { entries: [("server.py".parse().expect("a path"), entry)].into() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_tree_that_changes_must_settle_unless_somebody_asks() {
        let (trees, root) = (MemoryTrees::default(), Path::new("/src"));
        assert!(matches!(trees.release(root, ScanMode::Ask, None).await, Err(SourceError::Unavailable { .. })));
        trees.put(root, tree("one"));
        let one = trees.release(root, ScanMode::Ask, None).await.expect("a release");
        assert_eq!(one.digest, tree("one").digest());
        assert!(trees.has(&one.manifest) && trees.manifest(&one.digest).is_some());
        trees.put(root, tree("two"));
        let changing = async {
            for number in 0..10 {
                tokio::time::sleep(SETTLE_PAUSE / 2).await;
                trees.put(root, tree(&number.to_string()));
            }
        };
        let (found, ()) = tokio::join!(trees.release(root, ScanMode::Interval, Some(&one.digest)), changing);
        assert!(matches!(found, Err(SourceError::Unsettled { .. })), "{found:?}");
        let settled = trees.release(root, ScanMode::Interval, Some(&one.digest)).await.expect("it has settled");
        assert_eq!(settled.digest, tree("9").digest());
        trees.put(root, Manifest::default());
        assert!(matches!(trees.release(root, ScanMode::Ask, None).await, Err(SourceError::Empty { .. })));
    }
}
