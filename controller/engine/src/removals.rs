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
        let Some(placed) = placed(&owned, declared.as_ref(), around) else { continue };
        let leaving: Vec<HostId> = owned.hosts.keys().filter(|host| !placed.contains(host)).cloned().collect();
        if placed.is_empty() && declared.is_some() && !leaving.is_empty() {
            removals.unmatched.insert(key.clone());
        }
        let unconfirmed = leaving.into_iter().filter(|host| !owned.confirmed_removals.contains(host));
        removals.pairs.extend(unconfirmed.map(|host| (key.clone(), host)));
    }
    removals
}

/// The hosts that a Service shall be on; `None` where nobody knows, and nothing leaves.
fn placed(owned: &Owned, declared: Option<&Read>, around: &Surroundings) -> Option<BTreeSet<HostId>> {
    let spec = match declared.map(|read| read.parsed.as_deref()) {
        None => return Some(BTreeSet::new()),
        Some(Ok(Declaration::Service(service))) => Some(&service.spec),
        Some(Ok(_)) => None,
        // What makes no sense changes nothing: the last that did stays in force.
        Some(Err(_)) => owned.accepted.as_ref().map(|accepted| &accepted.spec),
    };
    Some(spec?.hosts(around.labelled()))
}
