//! A preview: what the controller would do next, found out by the same code, without doing any of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use windlass_crds::digest::ReleaseDigest;
use windlass_crds::id::{MachineId, ResourceKey, ServiceKey};
use windlass_crds::manifest::Manifest;
use windlass_crds::record::RolloutState;
use windlass_hosts::fleet::Fleet;
use windlass_planner::input::HostView;
use windlass_planner::plan::Plan;
use windlass_sources::{ContentsError, Sources};
use windlass_store::{Change, Entry, IdentityError, Key, ReadError, Scope, Store, StoreRevision, Update};

use crate::audit::{AuditOptions, RETENTION, SigningKey};
use crate::cache::Cache;
use crate::controller::{Controller, Identity, Parts};
use crate::metrics::Metrics;
use crate::queue::Queue;
use crate::service::{Foreseen, foresee};

/// What would be done for one Service.
#[derive(Debug, Clone)]
pub struct Preview {
    /// Which.
    pub service: ServiceKey,
    /// What would be done, and on what grounds; none where nothing is declared that makes sense.
    pub foreseen: Option<Foreseen>,
}

impl Preview {
    /// The plan, where there is one.
    pub fn plan(&self) -> Option<&Plan> {
        self.foreseen.as_ref().map(|foreseen| &foreseen.plan)
    }
}

/// What is in each release that matters to a Service: the one that is declared and those that its hosts run. Each is
/// asked for once, from the hosts that hold it one after the other until one of them tells it; one that nobody tells
/// is left out.
pub async fn manifests<F: Fleet>(
    fleet: &F,
    service: &ServiceKey,
    foreseen: &Foreseen,
) -> BTreeMap<ReleaseDigest, Arc<Manifest>> {
    let mut known = BTreeMap::new();
    if let Some(source) = &foreseen.source {
        known.insert(source.digest(), Arc::clone(source));
    }
    let declared = foreseen.declared().map(|declared| declared.release);
    let wanted: BTreeSet<ReleaseDigest> =
        foreseen.hosts.keys().filter_map(|host| foreseen.running(host)).chain(declared).collect();
    for release in wanted {
        for host in foreseen.hosts.values() {
            if known.contains_key(&release) {
                break;
            }
            let holds = matches!(&host.view, HostView::Seen(seen) if seen.service.releases.contains(&release));
            if holds && let Ok(Some(manifest)) = fleet.manifest(&host.target, service, &release).await {
                known.insert(release, Arc::new(manifest));
            }
        }
    }
    known
}

/// A declaration that is planned with as if it stood in the store.
#[derive(Debug, Clone)]
pub struct Supposed {
    /// Which resource it declares.
    pub key: ResourceKey,
    /// What would be written.
    pub text: Vec<u8>,
}

/// What a preview is asked for.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// These Services,
    pub services: BTreeSet<ServiceKey>,
    /// as they would be with these declarations; and every other Service that those concern.
    pub supposed: Vec<Supposed>,
}

impl Question {
    /// Takes what is supposed into the cache, and names every Service to look at.
    fn pose(self, cache: &Cache, revision: StoreRevision) -> BTreeSet<ServiceKey> {
        // Any revision will do that is later than all there are: nothing is written under it.
        let next = StoreRevision(revision.0 + 1);
        let change = |Supposed { key, text }| {
            Change::Put(Entry {
                key: Key::Declared(key),
                value: text,
                mod_revision: next,
                create_revision: next,
                version: 1,
                lease: None,
            })
        };
        let Self { mut services, supposed } = self;
        let changes = supposed.into_iter().map(change).collect();
        let touched = cache.apply(Update::Changes { changes, revision: next });
        // A Host that says what it said before concerns nobody.
        let says_something_new =
            |key: &ResourceKey| cache.resource(key).declared.is_some_and(|read| read.changed == next);
        let mut around = BTreeSet::new();
        for key in touched {
            if let ResourceKey::Service(service) = key {
                services.insert(service);
            } else if says_something_new(&key) {
                around.insert(key);
            }
        }
        services.extend(cache.concerned_by(&around));
        services
    }
}

/// Why there is no preview.
#[derive(Debug, thiserror::Error)]
pub enum PreviewError {
    /// The store cannot be read.
    #[error("cannot read the store")]
    Store(#[from] ReadError),
    /// The store is not one that this version can use.
    #[error("cannot use the store")]
    Identity(#[from] IdentityError),
    /// There is no room for the files of sources.
    #[error("cannot keep the files of sources")]
    Contents(#[from] ContentsError),
}

/// Looks at Services as the controller does, and plans.
///
/// `directory` keeps the files that are read; `machine` is the machine that this runs on, where relative to a
/// controller elsewhere the same path may hold another tree.
///
/// # Errors
/// When the store or the directory cannot be used. What is wrong with a Service or a host is part of its plan.
pub async fn preview<F: Fleet>(
    store: &Store,
    fleet: Arc<F>,
    directory: &Path,
    machine: MachineId,
    question: Question,
) -> Result<Vec<Preview>, PreviewError> {
    let listing = store.list(&Scope::state()).await?;
    let cache = Arc::new(Cache::default());
    cache.apply(Update::Snapshot { entries: listing.entries, revision: listing.revision });
    let services = question.pose(&cache, listing.revision);
    let cluster = store.supposed_cluster_id().await?;
    let mut previews = Vec::new();
    for service in services {
        let rollouts = cache.service(&service).rollouts;
        let active = rollouts.values().next_back().filter(|rollout| rollout.value.state == RolloutState::Active);
        let parts = Parts {
            store: store.clone(),
            cache: Arc::clone(&cache),
            fleet: Arc::clone(&fleet),
            sources: Sources::open(directory)?,
            identity: Identity { cluster: cluster.clone(), machine: machine.clone(), name: "preview".to_owned() },
            queue: Arc::new(Queue::default()),
            metrics: Arc::new(Metrics::default()),
            hooks: Arc::default(),
            // Who only looks tells nothing.
            audit: AuditOptions { key: SigningKey::from_seed([0; 32]), retention: RETENTION },
            clock: Arc::new(Timestamp::now),
        };
        let term = active.map_or(0, |rollout| rollout.value.term);
        let controller = Arc::new(Controller::spectator(parts, term));
        let foreseen = foresee(&controller, &service).await;
        previews.push(Preview { service, foreseen });
    }
    Ok(previews)
}
