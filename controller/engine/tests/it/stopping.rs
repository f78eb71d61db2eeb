//! How a controller stops, in virtual time: nothing here waits for a clock on a wall.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::ensure;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use windlass_crds::digest::FileDigest;
use windlass_crds::manifest::{Entry, Manifest};
use windlass_crds::request::Request;
use windlass_engine::audit::{AuditOptions, RETENTION, SigningKey};
use windlass_engine::{ServeError, Tenant, serve_within};
use windlass_hosts::memory::{HostSettings, Link, MemoryFleet};
use windlass_sources::{MemoryTrees, Sources};
use windlass_store::{Cut, Gate, InProcess, Machine, Passage, Prefix, Store};

use crate::world::{World, resource};

/// What is waited for comes within this: some seconds of virtual time.
const SOON: Duration = Duration::from_secs(120);

/// A controller that stops asks what time it is once a turn, and a turn waits for something: a handful of times until the
/// one look that is out comes back after 8 s. One that goes round and round would ask for ever, at one moment.
const FEW: u32 = 100;

/// A way to the store on which nothing is lost.
struct Open;

impl Gate for Open {
    fn pass(&self, _: &str, _: Passage) -> BoxFuture<'static, Result<(), Cut>> {
        std::future::ready(Ok(())).boxed()
    }

    fn broken(&self) -> BoxFuture<'static, ()> {
        std::future::pending().boxed()
    }
}

/// A controller in virtual time, and how often it has asked what time it is since it was told to stop.
struct Controller {
    fleet: MemoryFleet,
    store: Store,
    stop: CancellationToken,
    asked: Arc<AtomicU32>,
    running: JoinHandle<Result<(), ServeError>>,
}

impl Controller {
    /// One that leads over two hosts, on which `web` is declared.
    async fn start() -> anyhow::Result<Self> {
        let began = Instant::now();
        let chance = Arc::new(AtomicU32::new(1));
        let machine = Machine::simulated(
            move || began.elapsed() + Duration::from_secs(1000),
            move || u64::from(chance.fetch_add(1, Ordering::Relaxed)),
        );
        let within = InProcess::new(machine.clone(), Prefix::default())?;
        let store = within.client(machine.clone(), Arc::new(Open)).await?;
        let fleet = MemoryFleet::new();
        let trees = MemoryTrees::default();
        trees.put(Path::new("/web"), tree());
        declare(&store, &fleet).await?;
        let (stop, asked) = (CancellationToken::new(), Arc::new(AtomicU32::new(0)));
        let tenant = Tenant {
            store: within.client(machine, Arc::new(Open)).await?,
            fleet: Arc::new(fleet.clone()),
            sources: Sources::in_memory(trees),
            machine: "00000000000000000000000000000001".parse()?,
            name: "test".to_owned(),
            audit: AuditOptions { key: SigningKey::from_seed([1; 32]), retention: RETENTION },
            clock: clock(began, &stop, &asked),
        };
        let running = tokio::spawn({
            let stop = stop.clone();
            async move {
                // The store lives as long as its controller.
                let _within = within;
                serve_within(tenant, stop).await
            }
        });
        Ok(Self { fleet, store, stop, asked, running })
    }

    async fn until(&self, what: &str, holds: impl Fn(&MemoryFleet) -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + SOON;
        while !holds(&self.fleet) {
            ensure!(Instant::now() < deadline, "waited {SOON:?} for {what}: {:#?}", self.fleet.changes());
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}

/// What time it is. Whoever goes round and round is ended there: no time passes for him, and so no test would end either.
fn clock(began: Instant, stop: &CancellationToken, asked: &Arc<AtomicU32>) -> Arc<dyn Fn() -> Timestamp + Send + Sync> {
    let (stop, asked) = (stop.clone(), Arc::clone(asked));
    Arc::new(move || {
        if stop.is_cancelled() {
            let times = asked.fetch_add(1, Ordering::Relaxed);
            assert!(times < FEW, "it goes round and round");
        }
        let passed = SignedDuration::try_from(began.elapsed()).unwrap_or_default();
        Timestamp::from_second(1_800_000_000).expect("it is a time") + passed
    })
}

fn tree() -> Manifest {
    let file = Entry::File { digest: FileDigest::of(b"print(1)"), size: 8, executable: false };
    Manifest { entries: [("server.py".parse().expect("a path"), file)].into() }
}

async fn declare(store: &Store, fleet: &MemoryFleet) -> anyhow::Result<()> {
    let zone = "{apiVersion: windlass/v1, kind: NetworkZone, metadata: {name: test}, spec: {location: vpn, cidrs: [198.18.0.0/15]}}";
    store.declare(&resource("networkzones/test"), zone.into()).await?;
    for (name, address) in [("web1", "198.18.0.1"), ("web2", "198.18.0.2")] {
        fleet.add(address, HostSettings::default());
        fleet.add_alias(name, address);
        let host = format!(
            "{{apiVersion: windlass/v1, kind: Host, metadata: {{name: {name}}}, spec: {{address: {address}}}}}"
        );
        store.declare(&resource(&format!("hosts/{name}")), host.into()).await?;
    }
    let web = "apiVersion: windlass/v1\nkind: Service\nmetadata: {name: web}\nspec:\n  placement: {hosts: [web1, web2]}\n  source: {path: /web}\n  runtime: {target: python, entryPoint: server.py}\n  network: {port: 8080, transport: http}\n  health: {endpoint: /health, interval: 1s}\n  rollout: {minHealthyTime: 0s}\n";
    store.declare(&resource("services/default/web"), web.into()).await?;
    Ok(())
}

/// One host does not answer, and another was due to be asked how it is: nobody is asked any more by a controller that is
/// being stopped, and it must not be woken for that again and again.
#[tokio::test(start_paused = true)]
async fn one_that_stops_waits_for_what_is_out_and_for_nothing_else() -> anyhow::Result<()> {
    let controller = Controller::start().await?;
    let Controller { fleet, store, stop, .. } = &controller;
    let serves = |host: &str| fleet.serves(host, &World::key("web"));
    controller.until("both hosts to serve", |_| serves("web1") && serves("web2")).await?;
    fleet.set_link("web1", Link::partitioned());
    // It is known to be out of reach by then, so nobody waits for the next look at it, and the other host is asked once a
    // second.
    sleep(Duration::from_secs(100)).await;
    let look = serde_json::to_vec(&Request::Reconcile)?;
    store.request(&resource("services/default/web"), &"look".parse()?, look).await?;
    // A look is out for 8 s.
    sleep(Duration::from_secs(2)).await;
    let before = Instant::now();
    stop.cancel();
    let Controller { asked, running, .. } = controller;
    running.await??;
    let (asked, took) = (asked.load(Ordering::Relaxed), before.elapsed());
    ensure!(asked < FEW, "it went round and round");
    ensure!(took > Duration::from_secs(1), "it was at nothing when it was stopped, and ended after {took:?}");
    Ok(())
}
