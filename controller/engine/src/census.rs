//! How what is declared is, in numbers: for `/metrics`.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use windlass_crds::condition::{Condition, ConditionStatus, ConditionType, Reason};
use windlass_crds::id::Kind;
use windlass_crds::status::condition;

use crate::cache::Stored;

/// How many hosts and Services are in which state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    /// Hosts by state.
    pub hosts: BTreeMap<&'static str, u64>,
    /// Services by state.
    pub services: BTreeMap<&'static str, u64>,
    /// Rollouts that go on.
    pub active: u64,
}

/// The part of any status that is read here.
#[derive(Debug, Default, Deserialize)]
struct Said {
    #[serde(default)]
    conditions: Vec<Condition>,
}

/// The states of a host; each is told, also where it is nobody's.
const HOSTS: [&str; 5] = ["ready", "unreachable", "refused", "unsuitable", "unknown"];

/// The states of a Service.
const SERVICES: [&str; 5] = ["ready", "changing", "stalled", "not_ready", "unknown"];

impl Census {
    /// Counts what is declared, by what is said of it.
    pub fn of(declared: Vec<(Kind, Option<Stored<Bytes>>)>, active: u64) -> Self {
        let none = |states: [&'static str; 5]| states.into_iter().map(|state| (state, 0)).collect();
        let mut census = Self { hosts: none(HOSTS), services: none(SERVICES), active };
        for (kind, status) in declared {
            let said: Said = status.and_then(|stored| serde_json::from_slice(&stored.value).ok()).unwrap_or_default();
            let (counts, state) = match kind {
                Kind::Host => (&mut census.hosts, host(&said.conditions)),
                Kind::Service => (&mut census.services, service(&said.conditions)),
                Kind::NetworkZone | Kind::ConfigRepo | Kind::Policy => continue,
            };
            *counts.entry(state).or_default() += 1;
        }
        census
    }
}

fn host(conditions: &[Condition]) -> &'static str {
    let Some(ready) = condition(conditions, ConditionType::Ready) else { return "unknown" };
    match ready.reason {
        Reason::HostUnreachable => "unreachable",
        Reason::HostKeyRejected | Reason::LoginRefused | Reason::OwnedByAnother => "refused",
        _ if ready.status == ConditionStatus::True => "ready",
        _ => "unsuitable",
    }
}

fn service(conditions: &[Condition]) -> &'static str {
    let is = |kind| condition(conditions, kind).is_some_and(|found| found.status == ConditionStatus::True);
    if is(ConditionType::Ready) {
        "ready"
    } else if is(ConditionType::Reconciling) {
        "changing"
    } else if is(ConditionType::Stalled) {
        "stalled"
    } else if condition(conditions, ConditionType::Ready).is_some() {
        "not_ready"
    } else {
        "unknown"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `Ready=False/HostUnreachable` and so on, as a status holds it.
    fn status(conditions: &[(&str, &str, &str)]) -> Option<Stored<Bytes>> {
        let one = |(kind, status, reason): &(&str, &str, &str)| {
            format!(
                r#"{{"type":"{kind}","status":"{status}","reason":"{reason}","message":"","observedGeneration":1,"lastTransitionTime":"2026-01-01T00:00:00Z"}}"#
            )
        };
        let conditions: Vec<String> = conditions.iter().map(one).collect();
        let value = format!(r#"{{"conditions":[{}]}}"#, conditions.join(",")).into();
        Some(Stored { value, at: windlass_store::StoreRevision::default() })
    }

    #[track_caller]
    fn check(kind: Kind, conditions: &[(&str, &str, &str)], state: &str) {
        let said: Said = serde_json::from_slice(&status(conditions).expect("a status").value).expect("JSON");
        assert_eq!(said.conditions.len(), conditions.len());
        let census = Census::of(vec![(kind, status(conditions))], 0);
        let counts = if kind == Kind::Host { &census.hosts } else { &census.services };
        let found: Vec<_> = counts.iter().filter(|(_, count)| **count > 0).collect();
        assert_eq!(found, [(&state, &1)]);
    }

    #[test]
    fn every_status_is_one_state() {
        check(Kind::Host, &[("Ready", "True", "Reachable")], "ready");
        check(Kind::Host, &[("Ready", "Unknown", "HostUnreachable")], "unreachable");
        check(Kind::Host, &[("Ready", "False", "LoginRefused"), ("Stalled", "True", "LoginRefused")], "refused");
        check(Kind::Host, &[("Ready", "False", "HostUnsuitable")], "unsuitable");
        check(Kind::Host, &[], "unknown");
        check(Kind::Service, &[("Ready", "True", "Converged")], "ready");
        check(Kind::Service, &[("Ready", "False", "RollingOut"), ("Reconciling", "True", "RollingOut")], "changing");
        check(Kind::Service, &[("Ready", "False", "RolledBack"), ("Stalled", "True", "RolledBack")], "stalled");
        check(Kind::Service, &[("Ready", "Unknown", "HostUnreachable")], "not_ready");
        check(Kind::Service, &[], "unknown");
        let zone = Census::of(vec![(Kind::NetworkZone, None), (Kind::Host, None)], 3);
        assert_eq!((zone.active, zone.hosts["unknown"], zone.services.values().sum::<u64>()), (3, 1, 0));
    }
}
