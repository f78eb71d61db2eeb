//! The brake's inputs: which removals nobody has confirmed, over all Services.

use std::collections::BTreeSet;

use windlass_crds::document::Declaration;
use windlass_crds::id::HostId;
use windlass_crds::record::Owned;
use windlass_planner::brake::Removals;

use crate::cache::{Cache, OwnedView, Read, Surroundings};

/// What would be taken down if nobody stopped it.
pub fn pending(cache: &Cache, around: &Surroundings) -> Removals {
    let mut removals = Removals::default();
    for OwnedView { key, owned, declared } in cache.owned() {
        removals.all += owned.hosts.len();
        let leaving = leaving(&owned, declared.as_ref(), around);
        let unmatched = !leaving.is_empty() && leaving.len() == owned.hosts.len() && declared.is_some();
        if unmatched {
            removals.unmatched.insert(key.clone());
        }
        let unconfirmed = leaving.into_iter().filter(|host| !owned.confirmed_removals.contains(host));
        removals.pairs.extend(unconfirmed.map(|host| (key.clone(), host)));
    }
    removals
}

/// The hosts that a Service is on and shall not be on.
fn leaving(owned: &Owned, declared: Option<&Read>, around: &Surroundings) -> BTreeSet<HostId> {
    let spec = match declared.map(|read| read.parsed.as_deref()) {
        None => return owned.hosts.keys().cloned().collect(),
        Some(Ok(Declaration::Service(service))) => Some(&service.spec),
        Some(Ok(_)) => None,
        // What makes no sense changes nothing: the last that did stays in force.
        Some(Err(_)) => owned.accepted.as_ref().map(|accepted| &accepted.spec),
    };
    let Some(spec) = spec else { return BTreeSet::new() };
    let placed = spec.hosts(around.labelled());
    owned.hosts.keys().filter(|host| !placed.contains(host)).cloned().collect()
}
