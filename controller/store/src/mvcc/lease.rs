//! Leases: keys that go when nobody keeps them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use super::engine::Engine;
use super::model::LeaseNumber;
use super::request::Refusal;

/// Seconds that a lease lasts at least: what etcd's default election timeout makes of it.
pub(super) const SHORTEST_LEASE: i64 = 2;

/// A lease.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    /// For how long it was granted, in seconds.
    pub(super) seconds: i64,
    /// When it ends, on the caller's clock.
    pub(super) ends: Duration,
    /// What goes with it.
    pub(super) keys: BTreeSet<Bytes>,
}

impl Lease {
    pub(super) fn new(seconds: i64, now: Duration) -> Self {
        Self { seconds, ends: now + lasting(seconds), keys: BTreeSet::new() }
    }
}

fn lasting(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Leases {
    pub(super) all: BTreeMap<LeaseNumber, Lease>,
}

impl Leases {
    /// A key goes with another lease than before; [`LeaseNumber::NONE`] is none.
    pub(super) fn moved(&mut self, key: &Bytes, before: LeaseNumber, now: LeaseNumber) {
        if before == now {
            return;
        }
        if let Some(lease) = self.all.get_mut(&before) {
            lease.keys.remove(key);
        }
        if let Some(lease) = self.all.get_mut(&now) {
            lease.keys.insert(key.clone());
        }
    }

    /// Says anew which keys go with which lease.
    pub(super) fn attach_all<'a>(&mut self, living: impl Iterator<Item = (&'a Bytes, LeaseNumber)>) {
        self.all.values_mut().for_each(|lease| lease.keys.clear());
        for (key, lease) in living {
            self.moved(key, LeaseNumber::NONE, lease);
        }
    }
}

/// What is known of a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseState {
    /// For how long it was granted, in seconds.
    pub granted: i64,
    /// How long it lasts yet.
    pub remaining: Duration,
    /// What goes with it.
    pub keys: Vec<Bytes>,
}

impl Engine {
    /// Lets a lease last its whole time again; how many seconds that is.
    ///
    /// Where it has ended by `now` it is gone, whether or not somebody has taken its keys away yet.
    ///
    /// # Errors
    /// [`Refusal::LeaseNotFound`].
    pub fn keep_alive(&self, number: LeaseNumber, now: Duration) -> Result<i64, Refusal> {
        let mut inner = self.inner_mut();
        let lease = inner.leases.all.get_mut(&number).filter(|lease| lease.ends > now);
        let lease = lease.ok_or(Refusal::LeaseNotFound)?;
        lease.ends = now + lasting(lease.seconds);
        Ok(lease.seconds)
    }

    /// What is known of a lease, with its keys or without.
    ///
    /// # Errors
    /// [`Refusal::LeaseNotFound`].
    pub fn lease(&self, number: LeaseNumber, now: Duration) -> Result<LeaseState, Refusal> {
        let inner = self.inner();
        let lease = inner.leases.all.get(&number).filter(|lease| lease.ends > now).ok_or(Refusal::LeaseNotFound)?;
        let Lease { seconds, ends, keys } = lease;
        Ok(LeaseState { granted: *seconds, remaining: ends.saturating_sub(now), keys: keys.iter().cloned().collect() })
    }

    /// The leases that there are.
    pub fn leases(&self) -> Vec<LeaseNumber> {
        self.inner().leases.all.keys().copied().collect()
    }

    /// The leases that have ended by `now`, and are to be revoked; and when the next one ends.
    pub fn ended_leases(&self, now: Duration) -> (Vec<LeaseNumber>, Option<Duration>) {
        let inner = self.inner();
        let ended = inner.leases.all.iter().filter(|(_, lease)| lease.ends <= now).map(|(number, _)| *number);
        let next = inner.leases.all.values().filter(|lease| lease.ends > now).map(|lease| lease.ends).min();
        (ended.collect(), next)
    }
}
