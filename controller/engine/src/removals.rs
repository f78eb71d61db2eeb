//! The brake's inputs: which removals nobody has confirmed, over all Services.

use std::collections::{BTreeMap, BTreeSet};

use windlass_crds::document::Declaration;
use windlass_crds::host::Labels;
use windlass_crds::id::{Generation, HostId, ServiceKey};
use windlass_crds::record::Owned;
use windlass_crds::service::ServiceSpec;
use windlass_planner::brake::Removals;
use windlass_planner::input::RemovalGate;

use crate::cache::{Read, Surroundings};

/// What would be taken down if nobody stopped it, over all Services. Each plan asks, and there may be ten thousand: so
/// only the share of a Service is counted anew of which something has changed.
#[derive(Debug, Default)]
pub struct Tally {
    removals: Removals,
    shares: BTreeMap<ServiceKey, Share>,
    /// Services that something has changed of since they were counted.
    stale: BTreeSet<ServiceKey>,
    /// Hosts have changed since then, which selectors choose from.
    selectors_stale: bool,
}

/// What a Service has in it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Share {
    /// Pairs of it and a host.
    all: usize,
    /// Hosts that it would be taken from, and nobody has said that it may.
    unconfirmed: Vec<HostId>,
    /// Whether its selector matches nothing any more.
    unmatched: bool,
    /// Whether it has a selector: then it is another one when Hosts change.
    selects: bool,
}

impl Tally {
    /// Something was declared or recorded of a Service, or is not any more.
    pub fn touch(&mut self, service: &ServiceKey) {
        self.stale.insert(service.clone());
    }

    /// Hosts were declared, or are not any more.
    pub fn touch_selectors(&mut self) {
        self.selectors_stale = true;
    }

    /// Takes in what has changed. `find` tells what a Service may have left on hosts, if anything, and its declaration.
    pub fn count_anew<'a>(
        &mut self,
        around: &Surroundings,
        find: impl Fn(&ServiceKey) -> Option<(&'a Owned, Option<&'a Read>)>,
    ) {
        if std::mem::take(&mut self.selectors_stale) {
            let selecting = self.shares.iter().filter(|(_, share)| share.selects);
            self.stale.extend(selecting.map(|(service, _)| service.clone()));
        }
        for service in std::mem::take(&mut self.stale) {
            let share = find(&service).map(|(owned, declared)| Share::of(owned, declared, around));
            self.replace(service, share);
        }
    }

    fn replace(&mut self, service: ServiceKey, share: Option<Share>) {
        if let Some(before) = self.shares.remove(&service) {
            self.removals.all -= before.all;
            self.removals.unmatched.remove(&service);
            for host in before.unconfirmed {
                self.removals.pairs.remove(&(service.clone(), host));
            }
        }
        let Some(share) = share else { return };
        self.removals.all += share.all;
        self.removals.pairs.extend(share.unconfirmed.iter().map(|host| (service.clone(), host.clone())));
        if share.unmatched {
            self.removals.unmatched.insert(service.clone());
        }
        self.shares.insert(service, share);
    }

    /// Whether the unconfirmed removals of a Service may go on.
    pub fn gate(&self, service: &ServiceKey) -> RemovalGate {
        self.removals.gate(service)
    }
}

impl Share {
    fn of(owned: &Owned, declared: Option<&Read>, around: &Surroundings) -> Self {
        let all = owned.hosts.len();
        let Some(spec) = spec(owned, declared) else { return Self { all, ..Self::default() } };
        // Looked up, since a thousand may be named, and this is counted at each turn.
        let named: BTreeSet<&HostId> = spec.iter().flat_map(|spec| &spec.placement.hosts).collect();
        let stays = |host: &&HostId| named.contains(host) || spec.is_some_and(|spec| is_selected(spec, host, around));
        let leaving: Vec<&HostId> = owned.hosts.keys().filter(|host| !stays(host)).collect();
        let unmatched = spec.is_some_and(|spec| matches_nothing(spec, around)) && !leaving.is_empty();
        let unconfirmed = leaving.into_iter().filter(|host| !owned.confirmed_removals.contains(*host));
        let selects = spec.is_some_and(|spec| !spec.placement.selector.is_empty());
        Self { all, unconfirmed: unconfirmed.cloned().collect(), unmatched, selects }
    }
}

/// The spec that is in force: inside `None` where the Service is deleted, outside where nobody knows it.
fn spec<'a>(owned: &'a Owned, declared: Option<&'a Read>) -> Option<Option<&'a ServiceSpec>> {
    match declared.map(|read| read.parsed.as_deref()) {
        None => Some(None),
        // What waits for an approval takes nothing off any host.
        Some(Ok(Declaration::Service(_))) if declared.is_some_and(|read| owned.awaits(Generation(read.at.0))) => {
            owned.accepted.as_ref().map(|accepted| Some(&accepted.spec))
        }
        Some(Ok(Declaration::Service(service))) => Some(Some(&service.spec)),
        Some(Ok(_)) => None,
        // What makes no sense changes nothing: the last that did stays in force.
        Some(Err(_)) => owned.accepted.as_ref().map(|accepted| Some(&accepted.spec)),
    }
}

/// Whether a Service shall be on a host by its selector. One that it is on by that, and whose Host makes no sense now, may
/// be one of them still.
fn is_selected(spec: &ServiceSpec, host: &HostId, around: &Surroundings) -> bool {
    let selects = !spec.placement.selector.is_empty();
    let chosen = |name| around.hosts.get(name).is_some_and(|(labels, _)| matches(spec, labels));
    selects && (around.is_broken(host) || matches!(host, HostId::Named(name) if chosen(name)))
}

/// Whether a selector chooses a Host with these labels.
fn matches(spec: &ServiceSpec, labels: &Labels) -> bool {
    spec.placement.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Whether there is a selector, and it matches no Host.
fn matches_nothing(spec: &ServiceSpec, around: &Surroundings) -> bool {
    !spec.placement.selector.is_empty() && !around.hosts.values().any(|(labels, _)| matches(spec, labels))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use windlass_crds::document::Declared;

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
                    target: target.into(),
                    machine: None,
                    former: Vec::new(),
                    confirmed: false,
                    in_doubt: false,
                    carries: None,
                },
            );
        }
        owned
    }

    /// A declaration as the cache read it.
    fn read(spec: &ServiceSpec) -> Read {
        let key = "default/web".parse().expect("two labels");
        let declared = Declared { key, labels: Labels::new(), managed_by: None, spec: spec.clone() };
        let at = windlass_store::StoreRevision(1);
        Read { parsed: Ok(Arc::new(Declaration::Service(declared))), at, changed: at }
    }

    /// Whatever changes, in whatever order it is taken in: what was kept is what counting all of it anew gives.
    #[test]
    fn what_is_kept_is_what_counting_anew_gives() {
        let arounds = [around("web1 web2 web3"), around("web1 web2!"), around("")];
        let specs = [r#"{"hosts": ["web1"]}"#, r#"{"selector": {"role": "web"}}"#, r#"{"hosts": ["web9"]}"#];
        let reads: Vec<Option<Read>> = specs.iter().map(|spec| Some(read(&service(spec)))).chain([None]).collect();
        let records = ["web1 web2", "web2", "", "web1 web2 web3"].map(owned);
        let keys: Vec<ServiceKey> = (0..5).map(|n| format!("default/s{n}").parse().expect("two labels")).collect();
        let mut world: BTreeMap<ServiceKey, (usize, usize)> = BTreeMap::new();
        let (mut kept, mut hosts) = (Tally::default(), 0);
        for step in 0..400_usize {
            let draw = |most: usize, salt: usize| (step * 7919 + salt * 104_729) / 13 % most;
            let key = &keys[draw(keys.len(), 1)];
            match draw(7, 2) {
                0 => {
                    hosts = draw(arounds.len(), 3);
                    kept.touch_selectors();
                }
                1 => {
                    world.remove(key);
                    kept.touch(key);
                }
                _ => {
                    world.insert(key.clone(), (draw(records.len(), 4), draw(reads.len(), 5)));
                    kept.touch(key);
                }
            }
            // Not after each of them is it asked for.
            if step % 3 > 0 {
                continue;
            }
            let find = |key: &ServiceKey| world.get(key).map(|(owned, read)| (&records[*owned], reads[*read].as_ref()));
            kept.count_anew(&arounds[hosts], find);
            let mut anew = Tally::default();
            world.keys().for_each(|key| anew.touch(key));
            anew.count_anew(&arounds[hosts], find);
            assert_eq!(kept.removals, anew.removals, "step {step}");
            assert_eq!(kept.shares, anew.shares, "step {step}");
        }
        assert!(kept.removals.all > 0, "it came to something");
    }

    #[test]
    fn a_host_that_makes_no_sense_is_not_left() {
        let spec = service(r#"{"selector": {"role": "web"}}"#);
        let placed = |spec: &ServiceSpec, owned: &Owned, around: &Surroundings| {
            let placed = |host: &HostId| spec.placement.hosts.contains(host) || is_selected(spec, host, around);
            let stay = owned.hosts.keys().filter(|host| placed(host));
            stay.map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(placed(&spec, &owned("web1 web2"), &around("web1 web2!")), "web1 web2");
        assert_eq!(placed(&spec, &owned("web1 web2"), &around("web1")), "web1");
        // One that it never was on is not taken for one of its own.
        assert_eq!(placed(&spec, &owned("web1"), &around("web1 web2!")), "web1");
    }

    #[test]
    fn a_selector_that_matches_nothing_is_told_beside_named_hosts_too() {
        let both = service(r#"{"hosts": ["web1"], "selector": {"role": "teir"}}"#);
        assert!(matches_nothing(&both, &around("web1 web2")));
        assert!(!matches_nothing(&service(r#"{"hosts": ["web1"]}"#), &around("web1")));
        assert!(!matches_nothing(&service(r#"{"selector": {"role": "web"}}"#), &around("web1")));
    }
}
