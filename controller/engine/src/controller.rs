//! The controller: what every reconciler shares, for one term as leader.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use windlass_crds::digest::ReleaseDigest;
use windlass_crds::host::Target;
use windlass_crds::id::{ClusterId, HostId, MachineId, ServiceKey};
use windlass_crds::manifest::Manifest;
use windlass_hosts::fleet::Fleet;
use windlass_planner::input::{Health, HostView};
use windlass_sources::{Release, Sources};
use windlass_store::{CommitError, Draw, Leadership, Store, StoreRevision, Write};

use crate::audit::{AuditOptions, Trail};
use crate::cache::Cache;
use crate::complaints::Complaints;
use crate::contacts::Contacts;
use crate::events::Events;
use crate::metrics::Metrics;
use crate::moving::Moving;
use crate::queue::Queue;
use crate::repos::{Hooks, RepoMemories};
use crate::starts::Starts;

/// So many releases are on their way to hosts at once: a controller's uplink is shared, and each takes a file handle
/// and a buffer.
pub const TRANSFERS: usize = 16;

/// What a predecessor did to a host that cannot be reached is unknown for so long: it counts as down.
const FRESH: Duration = Duration::from_secs(60);

/// For so long the files of a release are taken to be where they were: as long as it takes to stage on many hosts, and
/// short beside the time in which anybody tidies up a disk.
const STILL_WHOLE: Duration = Duration::from_secs(10);

/// So many manifests are kept at hand; then all are forgotten, and read from the disk again when they are needed. A
/// rollout reads eleven at most, however many hosts it has, and one of a large release takes a hundred kilobytes.
const MANIFESTS: usize = 256;

/// Tells the time of day: `Timestamp::now`, but in a simulation.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What was written is seen within milliseconds. After so long the store is asked whether it still has come that far.
const STILL_BEHIND: Duration = Duration::from_secs(10);

/// What every reconciler shares.
pub struct Controller<F> {
    /// The store.
    pub store: Store,
    /// What it holds.
    pub cache: Arc<Cache>,
    /// The hosts.
    pub fleet: Arc<F>,
    /// The sources.
    pub sources: Sources,
    /// Our term as leader: nothing is written without it. A preview has none.
    leadership: Option<Leadership>,
    /// The id of the term.
    pub term: u64,
    /// The id of the store, which hosts remember.
    pub cluster: ClusterId,
    /// The machine that this runs on.
    pub machine: MachineId,
    /// What waits.
    pub queue: Arc<Queue>,
    /// Rollouts that are under way.
    pub moving: Moving,
    /// What happened.
    pub events: Events,
    /// Who did what, for as long as it is kept.
    pub audit: Trail,
    /// What is counted and timed.
    pub metrics: Arc<Metrics>,
    /// What went wrong last time.
    pub complaints: Complaints,
    /// Releases on their way.
    pub transfers: Semaphore,
    clock: Clock,
    began: Instant,
    memories: Mutex<BTreeMap<ServiceKey, Memory>>,
    host_locks: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// Which hosts are out of reach.
    pub contacts: Contacts,
    /// What is remembered of ConfigRepos.
    pub repos: RepoMemories,
    /// Which of them a webhook has called.
    pub hooks: Arc<Hooks>,
    manifests: Mutex<BTreeMap<ReleaseDigest, Arc<Manifest>>>,
    /// When all files of a release were last seen to be here.
    whole: Mutex<BTreeMap<ReleaseDigest, Instant>>,
}

/// Who a controller is: what stays the same over its terms.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The id of the store.
    pub cluster: ClusterId,
    /// The machine that this runs on.
    pub machine: MachineId,
    /// What the controller calls itself among others.
    pub name: String,
}

/// What is remembered of a Service between two reconciles. Losing it costs time, never correctness.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// The last look at its source.
    pub scan: Option<Scan>,
    /// Where its hosts led to when last something was wanted of them: what is kept here was found there. Most Services
    /// have one host, and a map keeps room for eleven: so it holds what is small.
    pub targets: BTreeMap<HostId, Arc<Target>>,
    /// What its hosts were like.
    pub views: BTreeMap<HostId, HostView>,
    /// How it answered there.
    pub health: BTreeMap<HostId, Pulse>,
    /// Where what is confirmed there was seen well: since when it ails, if it does.
    pub ill_since: BTreeMap<HostId, Option<Timestamp>>,
    /// When every file was last read there.
    pub read_through: BTreeMap<HostId, Instant>,
    /// When a host that was switched has taken that back by itself, unless it was confirmed.
    pub goes_back: BTreeMap<HostId, Instant>,
    /// How long its program took lately until it answered.
    pub starts: Arc<Starts>,
}

/// A look at a source.
#[derive(Debug, Clone)]
pub struct Scan {
    /// Of which declaration.
    pub generation: u64,
    /// When.
    pub at: Instant,
    /// What was found.
    pub found: Option<Release>,
    /// Why nothing was found, and how often in a row.
    pub trouble: Option<(windlass_planner::input::Complaint, u32)>,
}

/// How a Service answered on a host, outside any rollout.
#[derive(Debug, Clone)]
pub struct Pulse {
    /// What follows from it.
    pub health: Health,
    /// Bad answers in a row.
    pub bad: u32,
    /// When it was last asked.
    pub at: Instant,
}

/// What a new term begins with.
pub struct Parts<F> {
    /// The store.
    pub store: Store,
    /// What it holds.
    pub cache: Arc<Cache>,
    /// The hosts.
    pub fleet: Arc<F>,
    /// The sources.
    pub sources: Sources,
    /// Who we are.
    pub identity: Identity,
    /// What waits.
    pub queue: Arc<Queue>,
    /// What is counted and timed.
    pub metrics: Arc<Metrics>,
    /// Which ConfigRepos a webhook has called.
    pub hooks: Arc<Hooks>,
    /// How the audit trail is written.
    pub audit: AuditOptions,
    /// What time it is.
    pub clock: Clock,
}

impl<F: Fleet> Controller<F> {
    /// The moment, to the millisecond, which is as exact as records need to be.
    pub fn now(&self) -> Timestamp {
        let now = (self.clock)();
        Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
    }

    /// Begins a term.
    pub fn new(parts: Parts<F>, leadership: Leadership) -> Self {
        let term = leadership.term().0;
        Self::with(parts, Some(leadership), term)
    }

    /// Only looks, as whoever leads in `term` would.
    pub fn spectator(parts: Parts<F>, term: u64) -> Self {
        Self::with(parts, None, term)
    }

    fn with(parts: Parts<F>, leadership: Option<Leadership>, term: u64) -> Self {
        let Parts { store, cache, fleet, sources, identity, queue, metrics, hooks, audit, clock } = parts;
        Self {
            events: Events::default(),
            audit: Trail::new(audit, identity.name, identity.cluster.clone(), term, Arc::clone(&metrics)),
            metrics,
            complaints: Complaints::default(),
            store,
            cache,
            fleet,
            sources,
            leadership,
            term,
            cluster: identity.cluster,
            machine: identity.machine,
            queue,
            moving: Moving::default(),
            transfers: Semaphore::new(TRANSFERS),
            clock,
            began: Instant::now(),
            memories: Mutex::default(),
            host_locks: Mutex::default(),
            contacts: Contacts::default(),
            repos: RepoMemories::default(),
            hooks,
            manifests: Mutex::default(),
            whole: Mutex::default(),
        }
    }

    /// Our term as leader.
    ///
    /// # Panics
    /// For a spectator, who never records anything.
    pub fn leadership(&self) -> &Leadership {
        self.leadership.as_ref().expect("only a leader records anything")
    }

    /// Writes all of it while we lead, or nothing.
    ///
    /// # Errors
    /// When the store does not take it.
    pub async fn commit(&self, writes: &[Write]) -> Result<StoreRevision, CommitError> {
        self.commit_drawing(None, writes).await
    }

    /// The same, and draws a sequence with it.
    ///
    /// # Errors
    /// When the store does not take it.
    pub async fn commit_drawing(
        &self,
        draw: Option<&mut Draw<'_>>,
        writes: &[Write],
    ) -> Result<StoreRevision, CommitError> {
        let committed = self.try_to_commit(draw, writes).await;
        if committed.is_err() {
            self.events.not_written(writes);
        }
        committed
    }

    /// The same for whoever may make it once more: its events count as written until then.
    pub(crate) async fn try_to_commit(
        &self,
        draw: Option<&mut Draw<'_>>,
        writes: &[Write],
    ) -> Result<StoreRevision, CommitError> {
        let committed = match draw {
            Some(draw) => self.store.commit_drawing(self.leadership(), draw, writes).await,
            None => self.store.commit(self.leadership(), writes).await,
        };
        if let Err(CommitError::LeaseGone(_)) = &committed {
            self.events.forget_lease().await;
        }
        committed
    }

    /// Waits until everything up to `revision` has been seen: what we wrote ourselves, or what was there before us.
    ///
    /// A store that was turned back to an older copy meanwhile does not come to that revision; then what it holds is
    /// what there is.
    pub async fn reach(&self, revision: StoreRevision) {
        while tokio::time::timeout(STILL_BEHIND, self.cache.reach(revision)).await.is_err() {
            match self.store.revision().await {
                Ok(now) if now < revision => {
                    tracing::warn!(%revision, %now, "the store was turned back");
                    return;
                }
                // It is merely late: a watch that says nothing is noticed, and made anew.
                now => tracing::debug!(%revision, ?now, "what was written has not been seen yet"),
            }
        }
    }

    /// Whether the term is less than a minute old.
    pub fn is_fresh(&self) -> bool {
        self.leadership.is_some() && self.began.elapsed() < FRESH
    }

    fn memories(&self) -> MutexGuard<'_, BTreeMap<ServiceKey, Memory>> {
        self.memories.lock().expect("no panic happens under this lock")
    }

    /// What is remembered of a Service.
    pub fn recall(&self, key: &ServiceKey) -> Memory {
        self.memories().get(key).cloned().unwrap_or_default()
    }

    /// Remembers it.
    pub fn remember(&self, key: &ServiceKey, memory: Memory) {
        self.memories().insert(key.clone(), memory);
    }

    /// Forgets a Service that is gone.
    pub fn forget(&self, key: &ServiceKey) {
        self.memories().remove(key);
    }

    /// The releases that somebody may still need: what revisions name, and what sources were found to hold.
    pub fn needed_releases(&self) -> BTreeSet<ReleaseDigest> {
        let mut needed = self.cache.releases();
        let memories = self.memories();
        let found = memories.values().filter_map(|memory| memory.scan.as_ref()?.found.as_ref());
        needed.extend(found.map(|release| release.digest));
        needed
    }

    /// One mutating step a host at a time, whichever Service it is for.
    pub fn host_lock(&self, target: &Target) -> Arc<tokio::sync::Mutex<()>> {
        let name = format!("{}:{}", target.address, target.port);
        let mut locks = self.host_locks.lock().expect("no panic happens under this lock");
        Arc::clone(locks.entry(name).or_default())
    }

    /// The manifest of a release whose files are here.
    pub async fn manifest(&self, digest: &ReleaseDigest) -> Option<Arc<Manifest>> {
        if let Some(known) = self.manifests.lock().expect("no panic happens under this lock").get(digest) {
            return Some(Arc::clone(known));
        }
        let manifest = match self.sources.manifest(digest).await {
            Ok(manifest) => Arc::new(manifest?),
            Err(error) => {
                tracing::error!(%digest, error = &error as &dyn std::error::Error, "cannot read a manifest");
                return None;
            }
        };
        let mut known = self.manifests.lock().expect("no panic happens under this lock");
        if known.len() >= MANIFESTS {
            known.clear();
            self.whole().clear();
        }
        known.insert(*digest, Arc::clone(&manifest));
        Some(manifest)
    }

    /// Whether all files of a release are here. What was just found for one host is not asked of the disk again for
    /// the next: a file that goes meanwhile is missed when it is to be sent.
    pub async fn is_whole(&self, digest: &ReleaseDigest, manifest: &Arc<Manifest>) -> bool {
        if self.whole().get(digest).is_some_and(|at| at.elapsed() < STILL_WHOLE) {
            return true;
        }
        let whole = self.sources.is_whole(manifest).await;
        if whole {
            self.whole().insert(*digest, Instant::now());
        }
        whole
    }

    /// What was sent is not what arrived: reads the files of a release that are here, and gives up those that a power cut,
    /// or somebody, has changed. They are brought again then, from where they came from.
    pub async fn doubt(&self, manifest: &Arc<Manifest>) {
        match self.sources.verify(manifest).await {
            Ok(0) => {}
            Ok(damaged) => {
                let digest = manifest.digest();
                tracing::warn!(%digest, damaged, "files of this release were damaged in the data directory; they are read again");
                self.whole().remove(&digest);
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "cannot look for damaged files");
            }
        }
    }

    fn whole(&self) -> MutexGuard<'_, BTreeMap<ReleaseDigest, Instant>> {
        self.whole.lock().expect("no panic happens under this lock")
    }
}
