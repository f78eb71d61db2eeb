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
    /// Says which keys go with which lease, where nothing was said of it yet.
    pub(super) fn attach<'a>(&mut self, living: impl Iterator<Item = (&'a Bytes, LeaseNumber)>) {
        for (key, lease) in living {
            if let Some(lease) = self.all.get_mut(&lease) {
                lease.keys.insert(key.clone());
            }
        }
    }

    /// A batch was written.
    pub(super) fn take(&mut self, draft: LeaseDraft) {
        for (number, lease) in draft.all {
            match lease {
                Some(lease) => self.all.insert(number, lease),
                None => self.all.remove(&number),
            };
        }
        for (key, Moved { before, now }) in draft.moved {
            if let Some(lease) = self.all.get_mut(&before) {
                lease.keys.remove(&key);
            }
            if let Some(lease) = self.all.get_mut(&now) {
                lease.keys.insert(key);
            }
        }
    }
}

/// What a batch does to leases. Nobody else sees it before the batch is written; where it is not, this is let go of.
#[derive(Debug, Default)]
pub(super) struct LeaseDraft {
    /// Those that it makes, and those that it ends.
    all: BTreeMap<LeaseNumber, Option<Lease>>,
    moved: BTreeMap<Bytes, Moved>,
}

/// With which lease a key goes; [`LeaseNumber::NONE`] is none.
#[derive(Debug)]
struct Moved {
    /// Before the batch.
    before: LeaseNumber,
    /// As far as the batch has been made.
    now: LeaseNumber,
}

impl LeaseDraft {
    pub(super) fn get<'a>(&'a self, written: &'a Leases, number: LeaseNumber) -> Option<&'a Lease> {
        self.all.get(&number).map_or_else(|| written.all.get(&number), Option::as_ref)
    }

    /// How many there are, at most: those of the batch that it makes anew count twice.
    pub(super) fn count(&self, written: &Leases) -> usize {
        let made = self.all.values().filter(|lease| lease.is_some()).count();
        written.all.len() + made
    }

    /// What goes with a lease.
    pub(super) fn keys(&self, written: &Leases, number: LeaseNumber) -> BTreeSet<Bytes> {
        // Had the batch ended it, each of these would have been moved away.
        let mut keys = written.all.get(&number).map(|lease| lease.keys.clone()).unwrap_or_default();
        for (key, Moved { now, .. }) in &self.moved {
            match *now == number {
                true => keys.insert(key.clone()),
                false => keys.remove(key),
            };
        }
        keys
    }

    pub(super) fn grant(&mut self, number: LeaseNumber, lease: Lease) {
        self.all.insert(number, Some(lease));
    }

    /// Ends a lease with which nothing goes any more.
    pub(super) fn end(&mut self, number: LeaseNumber) {
        self.all.insert(number, None);
    }

    /// A key goes with another lease than before.
    pub(super) fn moved(&mut self, key: &Bytes, before: LeaseNumber, now: LeaseNumber) {
        if before != now {
            self.moved.entry(key.clone()).or_insert(Moved { before, now }).now = now;
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

    /// How many leases there are.
    pub fn lease_count(&self) -> usize {
        self.inner().leases.all.len()
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
