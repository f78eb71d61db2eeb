//! Who declared or asked something, as far as anybody can know.

use std::collections::BTreeMap;

use windlass_crds::actor::Actor;
use windlass_crds::configrepo::Manager;
use windlass_crds::id::ResourceKey;
use windlass_hosts::fleet::Fleet;
use windlass_store::embedded::OWN_NAME;
use windlass_store::{Key, RequestId, StoreRevision};

use crate::cache::Read;
use crate::controller::Controller;

/// Who has made each of the requests for a resource.
pub(crate) type Askers = BTreeMap<RequestId, Actor>;

impl<F: Fleet> Controller<F> {
    /// Who wrote a declaration: the commit that a ConfigRepo has read it from, or whoever put it into the store.
    pub(crate) fn declarer(&self, resource: &ResourceKey, read: &Read) -> Actor {
        let by = self.author(&Key::Declared(resource.clone()), read.at);
        // What a ConfigRepo declares the controller has written, so far as the store knows who wrote it.
        if is_ours_or_unknown(&by)
            && let Ok(declared) = &read.parsed
            && let Some(Manager::Repo(repo)) = declared.managed_by()
            && let Some(actor) = self.repos.author(repo, declared)
        {
            return actor;
        }
        itself(by)
    }

    /// Who deleted a declaration.
    pub(crate) fn deleter(&self, resource: &ResourceKey) -> Actor {
        let at = self.cache.deleted(resource);
        let by = at.map_or(Actor::UNKNOWN, |at| self.author(&Key::Declared(resource.clone()), at));
        match at {
            Some(at) if is_ours_or_unknown(&by) => self.repos.deleter(resource, at).unwrap_or(itself(by)),
            _ => by,
        }
    }

    /// Who has made these requests for a resource, by when each was.
    pub(crate) fn askers<'a>(
        &self,
        resource: &ResourceKey,
        ids: impl Iterator<Item = &'a RequestId>,
        asked_at: &BTreeMap<RequestId, StoreRevision>,
    ) -> Askers {
        let asker = |id: &RequestId| {
            let key = Key::Request { target: resource.clone(), id: id.clone() };
            Some((id.clone(), self.author(&key, *asked_at.get(id)?)))
        };
        ids.filter_map(asker).collect()
    }

    /// Whose certificate stood behind a change.
    pub(crate) fn author(&self, key: &Key, at: StoreRevision) -> Actor {
        self.store.author(key, at).map_or(Actor::UNKNOWN, |name| Actor::Certificate { name: name.as_str().to_owned() })
    }
}

/// The controller has a certificate of its own, which nobody else shows.
fn itself(by: Actor) -> Actor {
    match by {
        Actor::Certificate { name } if name == OWN_NAME => Actor::Controller,
        by => by,
    }
}

/// Whether a change may be the controller's own.
fn is_ours_or_unknown(by: &Actor) -> bool {
    match by {
        Actor::Certificate { name } => name == OWN_NAME,
        other => *other == Actor::UNKNOWN,
    }
}
