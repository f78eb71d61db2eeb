//! The controller's life: connect, follow the store, lead or stand by, work, stop.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::field::{Empty, display};
use tracing::{Instrument as _, Span};
use windlass_crds::id::{MachineId, ResourceKey};
use windlass_hosts::fleet::Fleet;
use windlass_sources::{ContentsError, Sources};
use windlass_store::{
    Authors, CampaignError, ConnectError, ConnectOptions, EndpointError, IdentityError, LEADERSHIP_TTL, Leadership,
    Problem, Scope, Store, Update,
};

use crate::audit::{AuditOptions, KeyError, SigningKey};
use crate::cache::Cache;
use crate::controller::{Clock, Controller, Identity, Parts};
use crate::goal::chain;
use crate::health::Health;
use crate::http::{Told, answer};
use crate::metrics::Metrics;
use crate::queue::{Next, Queue, Taken};
use crate::repos::Hooks;
use crate::{configrepo, host, service};

/// So many keys are reconciled at once. A Service is for as long as its rollout lasts, and 20 may change in a second,
/// each of which takes its program half a minute to start, and some seconds to show that it stays well. Waiting for
/// hosts is most of what they do, and each costs some ten kilobytes.
pub const WORKERS: usize = 1024;

/// A store that is away is tried again after this.
const STORE_RETRY: Duration = Duration::from_secs(2);

/// Steps that are under way get so long to end when the controller is stopped; hosts end them by themselves later.
const GRACE: Duration = Duration::from_secs(20);

/// Files of releases that no revision names any more are deleted so often: they cost nothing but room.
const CLEAR_EVERY: Duration = Duration::from_secs(3600);

/// How a controller is started.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Where the store is.
    pub store: ConnectOptions,
    /// Who wrote what is in it.
    pub authors: Authors,
    /// Where files are kept, and the key that signs the audit trail.
    pub data_dir: PathBuf,
    /// How long the audit trail is kept.
    pub audit_retention: Duration,
    /// Where `/healthz` and its like are answered.
    pub listen: SocketAddr,
    /// What the controller calls itself among others.
    pub identity: String,
}

/// Why a controller ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Nothing can be kept there.
    #[error("cannot use the data directory {}", directory.display())]
    Data {
        /// Which.
        directory: PathBuf,
        /// Why.
        #[source]
        error: ContentsError,
    },
    /// The port is taken, or may not be used.
    #[error("cannot listen on {address}\nhint: --listen takes another address")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        error: std::io::Error,
    },
    /// There is nothing to sign the audit trail with, not even for now.
    #[error("cannot sign the audit trail")]
    AuditKey(#[from] KeyError),
    /// This machine has no id.
    #[error("/etc/machine-id cannot be read; systemd-machine-id-setup makes one")]
    Machine,
    /// The store will never have us.
    #[error("cannot use the store")]
    Store(#[from] ConnectError),
    /// The store is not one that this version can use.
    #[error("cannot use the store")]
    Identity(#[from] IdentityError),
    /// The store does not let us lead.
    #[error("cannot become leader")]
    Campaign(#[from] CampaignError),
}

/// Runs a controller until `shutdown`.
///
/// # Errors
/// When it cannot start, or the store will never have it. A store that is away is waited for.
pub async fn serve<F: Fleet>(
    options: ServeOptions,
    fleet: Arc<F>,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let address = options.listen;
    let listener = TcpListener::bind(address).await.map_err(|error| ServeError::Listen { address, error })?;
    let sources = Sources::open(&options.data_dir)
        .map_err(|error| ServeError::Data { directory: options.data_dir.clone(), error })?;
    let machine = machine_id().ok_or(ServeError::Machine)?;
    let health = Arc::new(Health::default());
    let (cache, queue) = (Arc::new(Cache::default()), Arc::new(Queue::default()));
    let metrics = Arc::new(Metrics::default());
    let audit = AuditOptions { key: signing_key(&options.data_dir, &metrics)?, retention: options.audit_retention };
    let hooks = Arc::new(Hooks::default());
    let asked = Arc::clone(&fleet);
    let told = Told {
        health: Arc::clone(&health),
        queue: Arc::clone(&queue),
        cache: Arc::clone(&cache),
        metrics: Arc::clone(&metrics),
        hooks: Arc::clone(&hooks),
        traffic: Box::new(move || asked.traffic()),
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(answer(listener, Arc::new(told)));
    tracing::info!(address = %address, "listening");
    let clock: Clock = Arc::new(Timestamp::now);
    let shared = Shared { fleet, sources, machine, health, cache, queue, metrics, hooks, audit, clock };
    let ended = match connect(&options.store, &shared.health, &shutdown).await {
        Ok(Some(store)) => {
            terms(store.knowing(options.authors), &options.identity, &shared, &shutdown, &mut tasks).await
        }
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    // Whoever starts the next one finds the address free.
    tasks.shutdown().await;
    ended
}

/// What a controller is made of that has a store already, and answers nobody by HTTP.
pub struct Tenant<F> {
    /// The store.
    pub store: Store,
    /// The hosts.
    pub fleet: Arc<F>,
    /// The sources.
    pub sources: Sources,
    /// The machine that it runs on.
    pub machine: MachineId,
    /// What it calls itself among others.
    pub name: String,
    /// How it writes the audit trail.
    pub audit: AuditOptions,
    /// What time it is there.
    pub clock: Clock,
}

/// Runs a controller until `shutdown`, as [`serve`] does, in a process that is not its own: a simulation's.
///
/// # Errors
/// When the store will never have it.
pub async fn serve_within<F: Fleet>(tenant: Tenant<F>, shutdown: CancellationToken) -> Result<(), ServeError> {
    let Tenant { store, fleet, sources, machine, name, audit, clock } = tenant;
    let shared = Shared {
        fleet,
        sources,
        machine,
        health: Arc::default(),
        cache: Arc::default(),
        queue: Arc::default(),
        metrics: Arc::default(),
        hooks: Arc::default(),
        audit,
        clock,
    };
    let mut tasks = JoinSet::new();
    let ended = terms(store, &name, &shared, &shutdown, &mut tasks).await;
    tasks.shutdown().await;
    ended
}

/// What one term as leader hands on to the next.
struct Shared<F> {
    fleet: Arc<F>,
    sources: Sources,
    machine: MachineId,
    health: Arc<Health>,
    cache: Arc<Cache>,
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
    hooks: Arc<Hooks>,
    audit: AuditOptions,
    clock: Clock,
}

/// Follows the store, and leads whenever nobody else does, until `shutdown`.
async fn terms<F: Fleet>(
    store: Store,
    name: &str,
    shared: &Shared<F>,
    shutdown: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> Result<(), ServeError> {
    let Shared { fleet, sources, machine, health, cache, queue, metrics, hooks, audit, clock } = shared;
    let counted = Arc::clone(metrics);
    let store = store.reporting_to(Arc::new(move |report| counted.called(report)));
    let cluster = store.cluster_id().await?;
    tasks.spawn(follow(store.clone(), Arc::clone(cache), Arc::clone(queue), Arc::clone(health)));
    let identity = Identity { cluster, machine: machine.clone(), name: name.to_owned() };
    loop {
        let campaign = store.campaign(name, LEADERSHIP_TTL);
        let leadership = tokio::select! {
            leadership = campaign => leadership?,
            () = shutdown.cancelled() => return Ok(()),
        };
        let parts = Parts {
            store: store.clone(),
            cache: Arc::clone(cache),
            fleet: Arc::clone(fleet),
            sources: sources.clone(),
            identity: identity.clone(),
            queue: Arc::clone(queue),
            metrics: Arc::clone(metrics),
            hooks: Arc::clone(hooks),
            audit: audit.clone(),
            clock: Arc::clone(clock),
        };
        if lead(parts, leadership, health, shutdown).await {
            return Ok(());
        }
    }
}

/// What the audit trail is signed with. Hosts matter more than what is told of them: where the key that is kept cannot be
/// used, it is left as it is, and another one is taken that ends with this process.
fn signing_key(data_dir: &Path, metrics: &Metrics) -> Result<SigningKey, KeyError> {
    match SigningKey::of(data_dir) {
        Err(error @ (KeyError::File { .. } | KeyError::Damaged(_))) => {
            let key = SigningKey::for_now()?;
            let (error, public) = (chain(&error), key.public());
            tracing::error!(error, key = %public, "the audit trail is signed with a key that nobody knows until this controller ends");
            metrics.signs_for_now();
            Ok(key)
        }
        key => key,
    }
}

/// The id of this machine.
fn machine_id() -> Option<MachineId> {
    std::fs::read_to_string("/etc/machine-id").ok()?.trim().parse().ok()
}

/// Whether waiting does not help: a person has to change something here or there.
fn is_final(error: &ConnectError) -> bool {
    let ConnectError::NoneUsable(endpoints) = error else { return true };
    endpoints.iter().all(|endpoint| match endpoint {
        EndpointError::Call(call) => matches!(
            call.problem,
            Problem::UntrustedCertificate
                | Problem::CertificateRequired
                | Problem::TlsMismatch
                | Problem::Unauthenticated
                | Problem::Denied
        ),
        EndpointError::TooOld { .. } | EndpointError::Layout { .. } => true,
    })
}

/// Connects; `None` where the controller is stopped meanwhile.
async fn connect(
    options: &ConnectOptions,
    health: &Health,
    shutdown: &CancellationToken,
) -> Result<Option<Store>, ServeError> {
    loop {
        let connected = tokio::select! {
            connected = Store::connect(options) => connected,
            () = shutdown.cancelled() => return Ok(None),
        };
        match connected {
            Ok(store) => return Ok(Some(store)),
            Err(error) if is_final(&error) => return Err(error.into()),
            Err(error) => {
                let why = chain(&error);
                if !health.store_is_away() {
                    tracing::warn!(error = why, "the store is away; waiting for it");
                }
                health.interrupted(why);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(STORE_RETRY) => {}
            () = shutdown.cancelled() => return Ok(None),
        }
    }
}

/// Keeps the cache as the store is, and tells the queue what changed.
async fn follow(store: Store, cache: Arc<Cache>, queue: Arc<Queue>, health: Arc<Health>) {
    let mut follower = store.follow(Scope::state());
    loop {
        let update = follower.next().await;
        if let Update::Interrupted { error } = &update {
            let why = chain(error);
            tracing::warn!(error = why, "the store is away; what runs goes on");
            health.interrupted(why);
            continue;
        }
        let touched = cache.apply(update);
        if let Some(away) = health.heard() {
            tracing::info!(since = %away.since, "the store is back");
        }
        if !health.leads() {
            continue;
        }
        let concerned = cache.concerned_by(&touched).into_iter().map(ResourceKey::Service);
        let owners = cache.owners_of(&touched);
        for key in concerned.chain(owners).chain(touched) {
            queue.push(key);
        }
    }
}

/// Works as leader until the leadership is lost (false) or the controller is stopped (true).
async fn lead<F: Fleet>(
    parts: Parts<F>,
    leadership: Leadership,
    health: &Arc<Health>,
    shutdown: &CancellationToken,
) -> bool {
    let (store, cache, queue) = (parts.store.clone(), Arc::clone(&parts.cache), Arc::clone(&parts.queue));
    let controller = Arc::new(Controller::new(parts, leadership));
    // Everything written before our term has to be seen first, or we would decide on what our predecessor saw.
    let began = match store.revision().await {
        Ok(revision) => revision,
        Err(error) => {
            tracing::warn!(error = chain(&error), "cannot begin to lead");
            return false;
        }
    };
    tokio::select! {
        () = controller.reach(began) => {}
        loss = controller.leadership().lost() => {
            tracing::warn!(%loss, "leadership lost before it began");
            return false;
        }
        () = shutdown.cancelled() => {}
    }
    tracing::info!(term = controller.term, "leading");
    health.set_leads(true);
    for key in cache.everything() {
        queue.push(key);
    }
    let stop = shutdown.child_token();
    let mut workers = JoinSet::new();
    workers.spawn(work(Arc::clone(&controller), Arc::clone(health), stop.clone()));
    workers.spawn(clear_away(Arc::clone(&controller), stop.clone()));
    let (anchoring, stopped) = (Arc::clone(&controller), stop.clone());
    workers.spawn(async move { anchoring.keep_anchored(&stopped).await });
    let stopped = tokio::select! {
        loss = controller.leadership().lost() => {
            tracing::warn!(%loss, "no longer leading; another controller takes over");
            false
        }
        () = shutdown.cancelled() => true,
    };
    health.set_leads(false);
    if stopped {
        // What is under way on hosts is let to end; what it finds is recorded while we still lead.
        let _ = tokio::time::timeout(GRACE, async { while workers.join_next().await.is_some() {} }).await;
    }
    workers.shutdown().await;
    queue.clear();
    if stopped {
        controller.anchor_the_rest().await;
    }
    if stopped && let Err(error) = controller.leadership().resign().await {
        tracing::warn!(error = chain(&error), "could not give up the leadership; it ends by itself");
    }
    stopped
}

/// Deletes the files that no revision names any more, now and then.
async fn clear_away<F: Fleet>(controller: Arc<Controller<F>>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(CLEAR_EVERY) => {}
            () = stop.cancelled() => return,
        }
        match controller.sources.clear_away(controller.needed_releases()).await {
            Ok(sweep) => tracing::debug!(?sweep, "files of old releases cleared away"),
            Err(error) => tracing::warn!(error = chain(&error), "cannot clear away files of old releases"),
        }
    }
}

/// Takes keys from the queue and reconciles them, many at once.
async fn work<F: Fleet>(controller: Arc<Controller<F>>, health: Arc<Health>, stop: CancellationToken) {
    let room = Arc::new(Semaphore::new(WORKERS));
    let mut running = JoinSet::new();
    loop {
        let permit = Arc::clone(&room).acquire_owned().await.expect("the semaphore is never closed");
        let Taken { key, late } = tokio::select! {
            taken = controller.queue.take() => taken,
            () = stop.cancelled() => break,
        };
        while running.try_join_next().is_some() {}
        controller.metrics.taken(late);
        let (controller, health, stop) = (Arc::clone(&controller), Arc::clone(&health), stop.clone());
        running.spawn(async move {
            let _permit = permit;
            let (shared, name) = (Arc::clone(&controller), key.clone());
            let begun = Instant::now();
            let span = span_of(&name);
            let task = tokio::spawn(async move { one(&shared, &name, &health, &stop).await }.instrument(span));
            // A panic is a bug of ours; it must not take the key out of the queue for good.
            let next = AbortOnDropHandle::new(task).await.unwrap_or(Next::Retry);
            controller.metrics.reconciled(key.kind(), next, begun.elapsed());
            controller.queue.done(&key, next);
        });
    }
    while running.join_next().await.is_some() {}
}

/// The span of one reconcile. What it finds out is recorded as it goes.
fn span_of(key: &ResourceKey) -> Span {
    let span = tracing::info_span!(
        "reconcile",
        kind = key.kind().singular(),
        service = Empty,
        host = Empty,
        resource = Empty,
        generation = Empty,
        sequence = Empty,
        revision = Empty,
        purpose = Empty,
        outcome = Empty,
        error = Empty,
        otel.status_code = Empty,
    );
    match key {
        ResourceKey::Service(service) => span.record("service", display(service)),
        ResourceKey::Host(host) => span.record("host", display(host)),
        ResourceKey::NetworkZone(_) | ResourceKey::ConfigRepo(_) | ResourceKey::Policy(_) => {
            span.record("resource", display(key))
        }
    };
    span
}

/// Reconciles one key.
async fn one<F: Fleet>(
    controller: &Arc<Controller<F>>,
    key: &ResourceKey,
    health: &Health,
    stop: &CancellationToken,
) -> Next {
    let result = match key {
        ResourceKey::Service(name) => {
            // A Service may be at it for minutes; it ends at the next point where nothing is under way.
            let reconcile = service::reconcile(controller, name, stop);
            reconcile.await.map_err(|error| chain(&error))
        }
        ResourceKey::Host(name) => host::reconcile(controller, name).await.map_err(|error| chain(&error)),
        ResourceKey::ConfigRepo(name) => configrepo::reconcile(controller, name).await.map_err(|error| chain(&error)),
        ResourceKey::Policy(_) => host::reconcile_policy(controller, key).await.map_err(|error| chain(&error)),
        ResourceKey::NetworkZone(_) => host::reconcile_plain(controller, key).await.map_err(|error| chain(&error)),
    };
    let span = Span::current();
    match result {
        Ok(next) => {
            span.record("outcome", if next.has_failed() { "failed" } else { "done" });
            if controller.complaints.ends(key) {
                tracing::info!(resource = %key, "reconciled again");
            }
            // More may be asked than one commit could end.
            let more = !next.has_failed() && controller.cache.is_asked(key);
            if more { Next::After(Duration::ZERO) } else { next }
        }
        Err(error) => {
            span.record("outcome", "failed").record("error", &error).record("otel.status_code", "ERROR");
            // A store that is away is told once for all; whatever else is wrong with this key, once for it.
            if controller.complaints.begins(key, &error) && !health.store_is_away() {
                tracing::warn!(resource = %key, error, "not reconciled; trying again later");
            } else {
                tracing::debug!(resource = %key, error, "still not reconciled");
            }
            Next::Retry
        }
    }
}
