//! The brake: too many removals at once wait for a person.
//!
//! Computed from state, not from events, so that it holds across restarts and leaders.

use std::collections::BTreeSet;

use windlass_crds::id::{HostId, ServiceKey};

use crate::input::RemovalGate;

/// So many services have to be concerned before the brake holds.
const SERVICES: usize = 3;

/// And more than so many of a hundred of all pairs of service and host.
const PERCENT: usize = 20;

/// What the removals that nobody has confirmed would take down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removals {
    /// Pairs of service and host.
    pub pairs: BTreeSet<(ServiceKey, HostId)>,
    /// Services whose selector matches no host any more: their removals always wait.
    pub unmatched: BTreeSet<ServiceKey>,
    /// How many pairs there are in all.
    pub all: usize,
}

impl Removals {
    /// Whether the unconfirmed removals of `service` may go on.
    pub fn gate(&self, service: &ServiceKey) -> RemovalGate {
        let services: BTreeSet<&ServiceKey> = self.pairs.iter().map(|(service, _)| service).collect();
        let many = services.len() >= SERVICES && self.pairs.len() * 100 > self.all * PERCENT;
        if many || self.unmatched.contains(service) { RemovalGate::Held } else { RemovalGate::Open }
    }
}
