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

/// When something was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deletion {
    /// The answer has not come yet.
    UnderWay,
    /// At this revision.
    At(StoreRevision),
}

/// What is remembered of each ConfigRepo. Losing it costs time, never correctness.
#[derive(Debug, Default)]
pub struct RepoMemories {
    memories: Mutex<BTreeMap<RepoName, Memory>>,
    /// What was deleted since no file declares it any more, and whose commit that was.
    deleted: Mutex<BTreeMap<ResourceKey, (Deletion, Actor)>>,
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

    /// Remembers whose commit it is that deletes these. Said before it is made, since others may see it before we do.
    pub fn note_deleting(&self, keys: &[ResourceKey], by: &Actor) {
        let mut deleted = self.deleted.lock().expect("no panic happens under this lock");
        if deleted.len() >= MOST_DELETED {
            deleted.clear();
        }
        deleted.extend(keys.iter().map(|key| (key.clone(), (Deletion::UnderWay, by.clone()))));
    }

    /// Remembers at which revision they were deleted; none where they were not, or nobody knows.
    pub fn note_deleted(&self, keys: &[ResourceKey], at: Option<StoreRevision>) {
        let mut deleted = self.deleted.lock().expect("no panic happens under this lock");
        for key in keys {
            match (at, deleted.get_mut(key)) {
                (Some(at), Some((when, _))) => *when = Deletion::At(at),
                (Some(_), None) => {}
                (None, _) => drop(deleted.remove(key)),
            }
        }
    }

    /// Whose commit it was that deleted a declaration at a revision, where it was one's.
    pub fn deleter(&self, resource: &ResourceKey, at: StoreRevision) -> Option<Actor> {
        let deleted = self.deleted.lock().expect("no panic happens under this lock");
        let is_it = |when: &Deletion| matches!(when, Deletion::UnderWay) || *when == Deletion::At(at);
        deleted.get(resource).filter(|(when, _)| is_it(when)).map(|(_, by)| by.clone())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_commit_deletes_something_is_known_before_the_answer_comes() {
        let memories = RepoMemories::default();
        let keys = ["hosts/a", "hosts/b"].map(|path| ResourceKey::from_path(path).expect(path));
        let by = Actor::Certificate { name: "whoever".to_owned() };
        let (at, later) = (StoreRevision::default(), StoreRevision(7));
        memories.note_deleting(&keys, &by);
        assert_eq!(
            memories.deleter(&keys[0], at),
            Some(by.clone()),
            "others have seen it, and the answer is under way"
        );
        memories.note_deleted(&keys[..1], Some(at));
        assert_eq!(memories.deleter(&keys[0], at), Some(by));
        assert_eq!(memories.deleter(&keys[0], later), None, "somebody else has, later");
        memories.note_deleted(&keys[1..], None);
        assert_eq!(memories.deleter(&keys[1], at), None, "it was not made");
    }
}
