//! The brake's inputs: which removals nobody has confirmed, over all Services.

use std::collections::BTreeSet;

use windlass_crds::document::Declaration;
use windlass_crds::host::Labels;
use windlass_crds::id::HostId;
use windlass_crds::record::Owned;
use windlass_crds::service::ServiceSpec;
use windlass_planner::brake::Removals;

use crate::cache::{Cache, Read, Surroundings};

/// What would be taken down if nobody stopped it.
pub fn pending(cache: &Cache, around: &Surroundings) -> Removals {
    let mut removals = Removals::default();
    cache.each_owned(|key, owned, declared| {
        removals.all += owned.hosts.len();
        let Some(spec) = spec(owned, declared) else { return };
        let placed = spec.map(|spec| placed(spec, owned, around)).unwrap_or_default();
        let leaving: Vec<HostId> = owned.hosts.keys().filter(|host| !placed.contains(host)).cloned().collect();
        if spec.is_some_and(|spec| matches_nothing(spec, around)) && !leaving.is_empty() {
            removals.unmatched.insert(key.clone());
        }
        let unconfirmed = leaving.into_iter().filter(|host| !owned.confirmed_removals.contains(host));
        removals.pairs.extend(unconfirmed.map(|host| (key.clone(), host)));
    });
    removals
}

/// The spec that is in force: inside `None` where the Service is deleted, outside where nobody knows it.
fn spec<'a>(owned: &'a Owned, declared: Option<&'a Read>) -> Option<Option<&'a ServiceSpec>> {
    match declared.map(|read| read.parsed.as_deref()) {
        None => Some(None),
        Some(Ok(Declaration::Service(service))) => Some(Some(&service.spec)),
        Some(Ok(_)) => None,
        // What makes no sense changes nothing: the last that did stays in force.
        Some(Err(_)) => owned.accepted.as_ref().map(|accepted| Some(&accepted.spec)),
    }
}

/// The hosts that a Service shall be on. One that it is on by a selector, and whose Host makes no sense now, may be one
/// of them still.
fn placed(spec: &ServiceSpec, owned: &Owned, around: &Surroundings) -> BTreeSet<HostId> {
    let mut placed = spec.hosts(around.labelled());
    if !spec.placement.selector.is_empty() {
        placed.extend(owned.hosts.keys().filter(|host| around.is_broken(host)).cloned());
    }
    placed
}

/// Whether there is a selector, and it matches no Host.
fn matches_nothing(spec: &ServiceSpec, around: &Surroundings) -> bool {
    let selector = &spec.placement.selector;
    let matches = |labels: &Labels| selector.iter().all(|(key, value)| labels.get(key) == Some(value));
    !selector.is_empty() && !around.labelled().any(|(_, labels)| matches(labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hosts with the label `role: web`, those with a `!` behind the name being garbage.
    fn around(hosts: &str) -> Surroundings {
        let mut around = Surroundings::default();
        for word in hosts.split_ascii_whitespace() {
            let name: windlass_crds::id::HostName = word.trim_end_matches('!').parse().expect(word);
            around.host_names.insert(name.clone());
            if !word.ends_with('!') {
                let labels = Labels::from([("role".to_owned(), "web".to_owned())]);
                let spec = serde_json::from_str(r#"{"address": "198.18.0.1"}"#).expect("the least Host");
                around.hosts.insert(name, (labels, spec));
            }
        }
        around
    }

    fn service(placement: &str) -> ServiceSpec {
        let text = format!(
            r#"{{"placement": {placement}, "source": {{"path": "/srv"}}, "runtime": {{"target": "python", "entryPoint": "a.py"}}}}"#
        );
        serde_json::from_str(&text).expect("a Service")
    }

    fn owned(hosts: &str) -> Owned {
        let mut owned = Owned::default();
        for word in hosts.split_ascii_whitespace() {
            let id: HostId = word.parse().expect(word);
            let target = windlass_crds::host::Target::inline(&"root@198.18.0.1".parse().expect("a destination"));
            let target = target.expect("it is inline");
            owned.hosts.insert(
                id,
                windlass_crds::record::OwnedHost {
                    target,
                    machine: None,
                    former: Vec::new(),
                    confirmed: false,
                    in_doubt: false,
                },
            );
        }
        owned
    }

    #[test]
    fn a_host_that_makes_no_sense_is_not_left() {
        let spec = service(r#"{"selector": {"role": "web"}}"#);
        let names = |hosts: BTreeSet<HostId>| hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(names(placed(&spec, &owned("web1 web2"), &around("web1 web2!"))), "web1 web2");
        assert_eq!(names(placed(&spec, &owned("web1 web2"), &around("web1"))), "web1");
        // One that it never was on is not taken for one of its own.
        assert_eq!(names(placed(&spec, &owned("web1"), &around("web1 web2!"))), "web1");
    }

    #[test]
    fn a_selector_that_matches_nothing_is_told_beside_named_hosts_too() {
        let both = service(r#"{"hosts": ["web1"], "selector": {"role": "teir"}}"#);
        assert!(matches_nothing(&both, &around("web1 web2")));
        assert!(!matches_nothing(&service(r#"{"hosts": ["web1"]}"#), &around("web1")));
        assert!(!matches_nothing(&service(r#"{"selector": {"role": "web"}}"#), &around("web1")));
    }
}
