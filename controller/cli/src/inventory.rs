//! Inventory: what the store says of each resource, put together from its keys.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use windlass_crds::condition::Reason;
use windlass_crds::document::{self, Declaration};
use windlass_crds::id::{Generation, ResourceKey};
use windlass_crds::problem::Problem;
use windlass_crds::record::Owned;
use windlass_crds::status::{AnyStatus, ConfigRepoStatus, HostStatus, ServiceStatus};
use windlass_engine::events::Event;
use windlass_store::{Change, Entry, Key, ReadError, RequestId, Scope, Section, Store, Update};

use crate::resources::Selection;

/// The sections that an inventory is made of.
pub(crate) const SECTIONS: [Section; 4] = [Section::Declared, Section::Owned, Section::Requests, Section::Status];

/// So many named resources are read key by key, each of which costs up to four round trips; more of them cost less
/// when whole sections are read.
const NAMED: usize = 8;

/// The keys that speak of named resources.
pub(crate) fn scope_of(keys: &[ResourceKey]) -> Scope {
    match keys.iter().map(Scope::resource).reduce(Scope::and) {
        Some(scope) if keys.len() <= NAMED => scope,
        _ => Scope::sections(&SECTIONS),
    }
}

/// The keys that speak of a resource, and the events, one of which tells that a request for it cannot be done.
pub(crate) fn scope_of_request(key: &ResourceKey) -> Scope {
    Scope::resource(key).and(Scope::section(Section::Events))
}

/// What the store says of one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resource {
    /// Which.
    pub(crate) key: ResourceKey,
    /// What a user wrote.
    pub(crate) declared: Option<Entry>,
    /// What the controller says.
    pub(crate) status: Option<Entry>,
    /// What it left on hosts; Services only.
    pub(crate) owned: Option<Entry>,
    /// What it was asked and has not done yet.
    pub(crate) requests: BTreeSet<RequestId>,
}

impl Resource {
    /// A resource of which the store says nothing.
    pub(crate) fn new(key: ResourceKey) -> Self {
        Self { key, declared: None, status: None, owned: None, requests: BTreeSet::new() }
    }

    /// The generation of what is declared.
    pub(crate) fn generation(&self) -> Option<Generation> {
        self.declared.as_ref().map(|entry| entry.mod_revision.into())
    }

    /// What is declared, or what is wrong with it.
    pub(crate) fn declaration(&self) -> Option<Result<Declaration, Vec<Problem>>> {
        self.declared.as_ref().map(|entry| document::parse_at(&self.key, &entry.value))
    }

    /// The part of the status that every kind has.
    pub(crate) fn any_status(&self) -> AnyStatus {
        read(self.status.as_ref()).unwrap_or_default()
    }

    /// The status of a Service.
    pub(crate) fn service_status(&self) -> ServiceStatus {
        read(self.status.as_ref()).unwrap_or_default()
    }

    /// The status of a Host.
    pub(crate) fn host_status(&self) -> HostStatus {
        read(self.status.as_ref()).unwrap_or_default()
    }

    /// The status of a ConfigRepo.
    pub(crate) fn repo_status(&self) -> ConfigRepoStatus {
        read(self.status.as_ref()).unwrap_or_default()
    }

    /// What the controller left on hosts.
    pub(crate) fn owned_record(&self) -> Option<Owned> {
        read(self.owned.as_ref())
    }

    /// Whether the status speaks of what is declared now.
    pub(crate) fn is_observed(&self) -> bool {
        match self.generation() {
            Some(generation) => self.status.is_some() && self.any_status().observed_generation >= generation,
            None => true,
        }
    }

    /// Whether anything of it is there, requests aside: those that nobody takes would make a resource of their own.
    pub(crate) fn exists(&self) -> bool {
        self.declared.is_some() || self.status.is_some() || self.owned.is_some()
    }

    /// The one word that tells how it is.
    pub(crate) fn reason(&self) -> Reason {
        use windlass_crds::condition::{ConditionStatus::True, ConditionType};
        let AnyStatus { conditions, .. } = self.any_status();
        let condition = |kind| conditions.iter().find(|condition| condition.kind == kind);
        let holds = |kind| condition(kind).filter(|condition| condition.status == True);
        if !self.is_observed() {
            return match self.declaration() {
                Some(Err(problems)) => problems.first().map_or(Reason::InvalidDeclaration, |problem| problem.reason),
                _ => Reason::NotObserved,
            };
        }
        let told = holds(ConditionType::Stalled)
            .or_else(|| holds(ConditionType::Ready))
            .or_else(|| holds(ConditionType::Reconciling))
            .or_else(|| condition(ConditionType::Ready));
        match told {
            Some(condition) if self.declared.is_some() || condition.reason == Reason::RemovalNeedsConfirmation => {
                condition.reason
            }
            _ if self.declared.is_none() => Reason::Removing,
            _ => Reason::NotObserved,
        }
    }
}

/// A value of the controller's; nothing when it cannot be read, as from a later version.
fn read<T: DeserializeOwned>(entry: Option<&Entry>) -> Option<T> {
    entry.and_then(|entry| serde_json::from_slice(&entry.value).ok())
}

/// What the store says of every resource that was asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inventory {
    resources: BTreeMap<ResourceKey, Resource>,
    /// Keys below `declared/` that name no resource.
    strays: BTreeSet<String>,
    /// Requests that the controller could not do, and why; only where events are followed too.
    refusals: BTreeMap<RequestId, String>,
}

impl Inventory {
    /// Reads it: a list for kinds, a few keys for names.
    ///
    /// # Errors
    /// When the store does not answer.
    pub(crate) async fn read(store: &Store, selection: &Selection) -> Result<Self, ReadError> {
        let mut inventory = Self::default();
        match selection {
            Selection::Kinds(_) => {
                let listing = store.list(&Scope::sections(&SECTIONS)).await?;
                inventory.put_all(listing.entries);
            }
            Selection::Named(keys) => {
                for key in keys {
                    inventory.put_all(read_one(store, key).await?);
                }
            }
        }
        Ok(inventory)
    }

    /// Takes in what a follower tells, and names the resources that it may have changed.
    pub(crate) fn take(&mut self, update: Update) -> BTreeSet<ResourceKey> {
        match update {
            Update::Snapshot { entries, .. } => {
                let mut before = std::mem::take(self);
                self.put_all(entries);
                before.resources.retain(|key, old| self.get(key) != Some(old));
                let fresh = self.resources.keys().filter(|key| !before.resources.contains_key(*key)).cloned();
                let fresh: BTreeSet<ResourceKey> = fresh.collect();
                before.resources.into_keys().chain(fresh).collect()
            }
            Update::Changes { changes, .. } => changes.into_iter().filter_map(|change| self.change(change)).collect(),
            Update::Progress { .. } | Update::Interrupted { .. } => BTreeSet::new(),
        }
    }

    /// The keys of a selection by name, all of which must be there.
    ///
    /// # Errors
    /// When one is not.
    pub(crate) fn require<'keys>(&self, selection: &'keys Selection) -> anyhow::Result<&'keys [ResourceKey]> {
        let Selection::Named(keys) = selection else { return Ok(&[]) };
        let missing = |key: &&ResourceKey| self.get(key).is_none_or(|resource| !resource.exists());
        let missing: Vec<String> = keys.iter().filter(missing).map(ToString::to_string).collect();
        if missing.is_empty() { Ok(keys) } else { anyhow::bail!("not found: {}", missing.join(", ")) }
    }

    /// One resource; nothing when the store says nothing of it.
    pub(crate) fn get(&self, key: &ResourceKey) -> Option<&Resource> {
        self.resources.get(key)
    }

    /// Why the controller could not do a request, where it said so.
    pub(crate) fn refusal(&self, request: &RequestId) -> Option<&str> {
        self.refusals.get(request).map(String::as_str)
    }

    /// Every resource, sorted by kind, namespace and name.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Resource> {
        self.resources.values().filter(|resource| resource.exists())
    }

    /// Keys below `declared/` that name no resource, so that nothing will ever be done with them.
    pub(crate) fn strays(&self) -> impl Iterator<Item = &str> {
        self.strays.iter().map(String::as_str)
    }

    fn put_all(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            self.change(Change::Put(entry));
        }
    }

    fn change(&mut self, change: Change) -> Option<ResourceKey> {
        let key = resource_of(change.key());
        let Some(key) = key else {
            self.stray(&change);
            return None;
        };
        let resource = self.resources.entry(key.clone()).or_insert_with(|| Resource::new(key.clone()));
        let (name, entry) = match change {
            Change::Put(entry) => (entry.key.clone(), Some(entry)),
            Change::Deleted { key, .. } => (key, None),
        };
        match name {
            Key::Declared(_) => resource.declared = entry,
            Key::Status(_) => resource.status = entry,
            Key::Owned(_) => resource.owned = entry,
            Key::Request { id, .. } if entry.is_some() => drop(resource.requests.insert(id)),
            Key::Request { id, .. } => drop(resource.requests.remove(&id)),
            _ => {}
        }
        if !resource.exists() && resource.requests.is_empty() {
            self.resources.remove(&key);
        }
        Some(key)
    }

    /// Takes in what is about no resource.
    fn stray(&mut self, change: &Change) {
        if let Change::Put(entry @ Entry { key: Key::Event { .. }, .. }) = change {
            let refusal = read::<Event>(Some(entry)).filter(|event| event.reason == Reason::RequestRefused);
            let refusal = refusal.and_then(|event| Some((event.request?, event.message)));
            self.refusals.extend(refusal);
            return;
        }
        let Key::Unknown(path) = change.key() else { return };
        if !path.as_bytes().starts_with(b"declared/") {
            return;
        }
        match change {
            Change::Put(_) => drop(self.strays.insert(path.to_string())),
            Change::Deleted { .. } => drop(self.strays.remove(&path.to_string())),
        }
    }
}

/// The resource that a key speaks of.
fn resource_of(key: &Key) -> Option<ResourceKey> {
    match key {
        Key::Declared(resource) | Key::Status(resource) | Key::Request { target: resource, .. } => {
            Some(resource.clone())
        }
        Key::Owned(service) => Some(ResourceKey::Service(service.clone())),
        _ => None,
    }
}

/// The keys of one resource. Each is read by itself: what changes between two reads shows in the next `get`.
async fn read_one(store: &Store, key: &ResourceKey) -> Result<Vec<Entry>, ReadError> {
    let (declared, status) = (Key::Declared(key.clone()), Key::Status(key.clone()));
    let owned = match key {
        ResourceKey::Service(service) => Some(Key::Owned(service.clone())),
        _ => None,
    };
    let owned = async {
        match &owned {
            Some(owned) => store.get(owned).await,
            None => Ok(None),
        }
    };
    let (declared, status, owned) = tokio::try_join!(store.get(&declared), store.get(&status), owned)?;
    Ok([declared, status, owned].into_iter().flatten().collect())
}
