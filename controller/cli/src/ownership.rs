//! Ownership: whether a ConfigRepo declares something, so that whoever declares it by hand is told before, and not after.

use windlass_crds::configrepo::Manager;
use windlass_crds::document::{Declaration, parse_at};
use windlass_crds::id::{RepoName, ResourceKey};
use windlass_crds::status::ConfigRepoStatus;
use windlass_store::{Entry, Key, Store};

use crate::declarations::Intent;
use crate::failure::hinted;

/// Who declares something, beside whoever may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// A ConfigRepo, which would put its own back.
    Repo(Owner),
    /// People, who took it from a ConfigRepo.
    People,
    /// Nobody in particular, or a ConfigRepo that is suspended or gone.
    Nobody,
}

/// A ConfigRepo that declares something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    repo: RepoName,
    what: ResourceKey,
    file: Option<String>,
}

impl Owner {
    /// Why it is not written by hand.
    pub(crate) fn conflict(&self, place: &str, intent: Intent) -> anyhow::Error {
        let Self { repo, what, file } = self;
        let place = if place.is_empty() { String::new() } else { format!("{place}: ") };
        let file = file.as_ref().map(|file| format!(" in {file}")).unwrap_or_default();
        let undone = intent.undone();
        let error = anyhow::anyhow!("{place}Conflict: {what} is declared by configrepo/{repo}{file}; {undone}");
        hinted(
            error,
            "change it there; `windlass apply --adopt` takes it over, and the repository leaves it alone then",
        )
    }
}

/// Who declares `what`, of which this is stored.
///
/// # Errors
/// When the store does not answer.
pub(crate) async fn of(store: &Store, what: &ResourceKey, stored: Option<&Entry>) -> anyhow::Result<Ownership> {
    let Some(entry) = stored else { return Ok(Ownership::Nobody) };
    let repo = match parse_at(what, &entry.value).ok().and_then(|declared| declared.managed_by().cloned()) {
        Some(Manager::Repo(repo)) => repo,
        Some(Manager::People) => return Ok(Ownership::People),
        None => return Ok(Ownership::Nobody),
    };
    let key = ResourceKey::ConfigRepo(repo.clone());
    let declared = store.get(&Key::Declared(key.clone())).await?;
    let follows = match declared.map(|entry| parse_at(&key, &entry.value)) {
        None => false,
        Some(Ok(Declaration::ConfigRepo(declared))) => !declared.spec.suspend,
        // What it would do once it makes sense again, nobody knows.
        Some(_) => true,
    };
    if !follows {
        return Ok(Ownership::Nobody);
    }
    let status = store.get(&Key::Status(key)).await?;
    let status: ConfigRepoStatus =
        status.and_then(|entry| serde_json::from_slice(&entry.value).ok()).unwrap_or_default();
    let file = status.inventory.iter().find(|(_, keys)| keys.contains(what)).map(|(file, _)| file.clone());
    Ok(Ownership::Repo(Owner { repo, what: what.clone(), file }))
}
