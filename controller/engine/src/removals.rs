//! The brake's inputs: which removals nobody has confirmed, over all Services.

use std::collections::BTreeSet;
use std::sync::Arc;

use windlass_crds::document::Declaration;
use windlass_crds::id::{HostId, ServiceKey};
use windlass_crds::record::Owned;
use windlass_planner::brake::Removals;

use crate::cache::{Cache, Surroundings};

/// What would be taken down if nobody stopped it.
pub fn pending(cache: &Cache, around: &Surroundings) -> Removals {
    let mut removals = Removals::default();
    for (key, owned, declared) in cache.placements() {
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
fn leaving(owned: &Owned, declared: Option<&Result<Arc<Declaration>, ()>>, around: &Surroundings) -> BTreeSet<HostId> {
    let spec = match declared {
        None => return owned.hosts.keys().cloned().collect(),
        Some(Ok(declaration)) => match declaration.as_ref() {
            Declaration::Service(service) => Some(service.spec.clone()),
            _ => None,
        },
        // What makes no sense changes nothing: the last that did stays in force.
        Some(Err(())) => owned.accepted.as_ref().map(|accepted| accepted.spec.clone()),
    };
    let Some(spec) = spec else { return BTreeSet::new() };
    let placed = spec.hosts(around.labelled());
    owned.hosts.keys().filter(|host| !placed.contains(host)).cloned().collect()
}

/// All that would go, for people: `service/web on web1`.
pub fn lines(removals: &Removals) -> Vec<String> {
    let line = |(service, host): &(ServiceKey, HostId)| format!("{service} on {host}");
    removals.pairs.iter().map(line).collect()
}
