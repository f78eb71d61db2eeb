//! What is remembered of ConfigRepos, and which of them a webhook has called.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use windlass_crds::actor::Actor;
use windlass_crds::configrepo::CommitId;
use windlass_crds::document::Declaration;
use windlass_crds::id::{RepoName, ResourceKey};
use windlass_store::StoreRevision;

use crate::backoff::Jitter;
use crate::configrepo::Memory;

/// So many deletions are remembered until they are told: as many as are made at once, many times over.
const MOST_DELETED: usize = 4096;

/// What is remembered of each ConfigRepo. Losing it costs time, never correctness.
#[derive(Debug, Default)]
pub struct RepoMemories {
    memories: Mutex<BTreeMap<RepoName, Memory>>,
    /// What was deleted since no file declares it any more: at which revision, and whose commit that was.
    deleted: Mutex<BTreeMap<ResourceKey, (StoreRevision, Actor)>>,
    /// Tells intervals apart.
    pub jitter: Jitter,
}

impl RepoMemories {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<RepoName, Memory>> {
        self.memories.lock().expect("no panic happens under this lock")
    }

    /// What is remembered of one.
    pub fn recall(&self, name: &RepoName) -> Memory {
        self.lock().get(name).cloned().unwrap_or_default()
    }

    /// Remembers it.
    pub fn remember(&self, name: &RepoName, memory: Memory) {
        self.lock().insert(name.clone(), memory);
    }

    /// Forgets one that is gone.
    pub fn forget(&self, name: &RepoName) {
        self.lock().remove(name);
    }

    /// Who has declared something, where the commit that is in force says just that: what merely says that it is the
    /// repository's is not.
    pub fn author(&self, name: &RepoName, declared: &Declaration) -> Option<Actor> {
        self.lock().get(name).and_then(|memory| memory.author(name, declared))
    }

    /// Remembers whose commit it was that deleted these.
    pub fn note_deleted<'a>(&self, keys: impl Iterator<Item = &'a ResourceKey>, at: StoreRevision, by: &Actor) {
        let mut deleted = self.deleted.lock().expect("no panic happens under this lock");
        if deleted.len() >= MOST_DELETED {
            deleted.clear();
        }
        deleted.extend(keys.map(|key| (key.clone(), (at, by.clone()))));
    }

    /// Whose commit it was that deleted a declaration at a revision, where it was one's.
    pub fn deleter(&self, resource: &ResourceKey, at: StoreRevision) -> Option<Actor> {
        let deleted = self.deleted.lock().expect("no panic happens under this lock");
        deleted.get(resource).filter(|(when, _)| *when == at).map(|(_, by)| by.clone())
    }

    /// The commit of one that is in force, where that is known.
    pub fn commit(&self, name: &RepoName) -> Option<CommitId> {
        self.lock().get(name).and_then(|memory| memory.commit().cloned())
    }
}

/// Repositories whose servers have said that something is new: each is asked once, however often that is said.
#[derive(Debug, Default)]
pub struct Hooks(Mutex<BTreeSet<RepoName>>);

impl Hooks {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<RepoName>> {
        self.0.lock().expect("no panic happens under this lock")
    }

    /// Its server says that something is new. Only names that are declared get here, so there are few.
    pub fn ring(&self, name: &RepoName) {
        self.lock().insert(name.clone());
    }

    /// Whether its server has said so, and it was not asked since.
    pub fn is_rung(&self, name: &RepoName) -> bool {
        self.lock().contains(name)
    }

    /// It is being asked.
    pub fn take(&self, name: &RepoName) {
        self.lock().remove(name);
    }
}
