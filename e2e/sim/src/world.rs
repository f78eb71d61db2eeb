//! The world of a run: a store, hosts, sources, controllers, and people who declare services.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::Instant;
use windlass_crds::digest::{FileDigest, ReleaseDigest};
use windlass_crds::document::{Declaration, parse_at};
use windlass_crds::id::{ResourceKey, ServiceKey};
use windlass_crds::manifest::{Entry, Manifest};
use windlass_crds::record::Owned;
use windlass_crds::request::Request;
use windlass_crds::status::{HostStatus, ServiceStatus};
use windlass_hosts::memory::{Behaviour, Edit, Flaw, HostSettings, MemoryFleet};
use windlass_planner::planted::{Bug, planted};
use windlass_sources::MemoryTrees;
use windlass_store::{InProcess, Key, Machine, Prefix, Store, StoreRevision};

use crate::chance::Chance;
use crate::extras::Edition;
use crate::history::History;
use crate::oracle::Oracle;
use crate::seat::{Ground, Seat};
use crate::way::{Death, Way};

/// Whether a version of a program works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quality {
    /// It does.
    Good,
    /// It answers 500.
    Unwell,
    /// It exits at once.
    Exits,
    /// It never listens.
    Deaf,
    /// systemd cannot start it.
    Unstartable,
    /// It works, and keeps everybody from its host.
    Severing,
    /// It answers 500 on the host of this number, and works on all others.
    Picky(u8),
}

impl Quality {
    /// Those that are not good.
    pub const BAD: [Self; 5] = [Self::Unwell, Self::Exits, Self::Deaf, Self::Unstartable, Self::Severing];

    fn behaviour(self) -> Option<Behaviour> {
        Some(match self {
            Self::Good => Behaviour::default(),
            Self::Unwell => Behaviour::unhealthy(500),
            Self::Exits => Behaviour::exits_at_once(),
            Self::Deaf => Behaviour::never_listens(),
            Self::Unstartable => Behaviour::start_fails(),
            Self::Severing => Behaviour::severs(),
            // Where it runs decides.
            Self::Picky(_) => return None,
        })
    }
}

/// A service, as whoever declares it has it in mind.
#[derive(Debug, Clone)]
pub struct Model {
    /// Its name.
    pub key: ServiceKey,
    /// Where it listens.
    pub port: u16,
    /// The hosts that it shall run on.
    pub hosts: BTreeSet<String>,
    /// Counts what was made of it, so that no two versions are alike.
    pub version: u64,
    /// Whether each version is good.
    pub qualities: Vec<Quality>,
    /// Which settings it is declared with.
    pub environment: u64,
    /// Whether the present version is good.
    pub quality: Quality,
    /// Its files.
    pub release: ReleaseDigest,
    /// Whether it is declared at present.
    pub declared: bool,
    /// How many of its hosts may be down.
    pub max_unavailable: usize,
    /// How many of its hosts may fail.
    pub max_failures: usize,
    /// More below `rollout`.
    pub rollout: String,
}

/// Everything there is in a run.
pub struct World {
    /// What controllers stand on.
    pub ground: Ground,
    /// The store, by a way on which nothing is lost.
    pub truth: Store,
    /// The controllers.
    pub seats: Vec<Seat>,
    /// The services.
    pub services: Vec<Model>,
    /// The hosts' addresses.
    pub hosts: Vec<String>,
    /// Copies of the store.
    pub copies: Vec<Vec<u8>>,
    /// Where programs have fallen ill by themselves.
    pub ill: BTreeSet<(String, ServiceKey)>,
    /// Something is tried again for ever.
    pub(crate) restless: AtomicBool,
    requests: AtomicU64,
    /// Files that do not work on one host, and on which.
    picky: Arc<Mutex<BTreeMap<ReleaseDigest, String>>>,
}

impl World {
    /// A store that knows some hosts, and services that are not declared yet.
    ///
    /// # Errors
    /// When the store in memory does not work.
    pub async fn new(chance: &Chance, edition: Edition, hosts: usize, services: usize) -> anyhow::Result<Self> {
        let (history, began) = (History::default(), Instant::now());
        let numbers = chance.fork("store");
        let machine = Machine::simulated(move || began.elapsed() + Duration::from_secs(1000), move || numbers.number());
        let store = Arc::new(InProcess::new(machine.clone(), Prefix::default())?);
        let fleet = MemoryFleet::new();
        plant_flaws(&fleet);
        let oracle = Arc::new(Oracle::new(&fleet, &history));
        let open = Way::new("truth", chance, &history, began).without_delays();
        let truth = store.client(machine, Arc::new(open)).await?;
        truth.cluster_id().await?;
        oracle.watch(truth.clone());
        let trees = MemoryTrees::default();
        let ground = Ground { store, fleet, trees, oracle, history, chance: chance.clone(), began };
        let hosts: Vec<String> = (1..=hosts).map(|number| format!("198.18.0.{number}")).collect();
        let mut world = Self {
            ground,
            truth,
            seats: Vec::new(),
            services: Vec::new(),
            hosts,
            copies: Vec::new(),
            ill: BTreeSet::new(),
            restless: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            picky: Arc::default(),
        };
        let picky = Arc::clone(&world.picky);
        world.ground.fleet.choose_behaviours(move |program| {
            let picky = picky.lock().unwrap_or_else(PoisonError::into_inner);
            match picky.get(&program.release) {
                Some(on) if *on == program.address => Behaviour::unhealthy(500),
                _ => Behaviour::default(),
            }
        });
        world.lay_out(edition, services).await?;
        Ok(world)
    }

    async fn lay_out(&mut self, edition: Edition, services: usize) -> anyhow::Result<()> {
        let zone = "{apiVersion: windlass/v1, kind: NetworkZone, metadata: {name: all}, spec: {location: vpn, cidrs: [198.18.0.0/15]}}";
        self.truth.declare(&resource("networkzones/all")?, zone.into()).await?;
        for (index, address) in self.hosts.iter().enumerate() {
            self.ground.fleet.add(address, HostSettings::default());
            self.ground.fleet.add_alias(&host_name(index), address);
        }
        for index in 0..self.hosts.len() {
            self.declare_host(index, "").await?;
        }
        for number in 1..=services {
            // From the second edition on the second one has a namespace of its own, and the name of the first.
            let key = if edition >= Edition::Second && number == 2 {
                "blue/s1".to_owned()
            } else {
                format!("default/s{number}")
            };
            let key: ServiceKey = key.parse()?;
            let release = Manifest::default().digest();
            self.services.push(Model {
                key,
                port: 8080 + u16::try_from(number)?,
                hosts: BTreeSet::new(),
                version: 0,
                qualities: Vec::new(),
                environment: 0,
                quality: Quality::Good,
                release,
                declared: false,
                max_unavailable: 1,
                max_failures: 0,
                rollout: String::new(),
            });
        }
        Ok(())
    }

    /// Whether any version does not work on one host alone.
    pub(crate) fn has_picky(&self) -> bool {
        !self.picky.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Declares a Host, with labels.
    ///
    /// # Errors
    /// When the store does not take it.
    pub async fn declare_host(&self, index: usize, labels: &str) -> anyhow::Result<()> {
        let (name, address) = (host_name(index), &self.hosts[index]);
        let text = format!(
            "{{apiVersion: windlass/v1, kind: Host, metadata: {{name: {name}, labels: {{{labels}}}}}, spec: {{address: {address}}}}}"
        );
        self.ground.oracle.declared_host(address);
        self.truth.declare(&resource(&format!("hosts/{name}"))?, text.into()).await?;
        Ok(())
    }

    /// Deletes the declaration of a Host.
    ///
    /// # Errors
    /// When the store does not take it.
    pub async fn delete_host(&self, index: usize) -> anyhow::Result<()> {
        self.ground.oracle.undeclared_host(&self.hosts[index]);
        self.truth.delete_declaration(&resource(&format!("hosts/{}", host_name(index)))?).await?;
        Ok(())
    }

    /// Puts some of the hosts into a zone of their own, or takes that away.
    ///
    /// # Errors
    /// When the store does not take it.
    pub async fn zone(&self, there: bool) -> anyhow::Result<()> {
        let key = resource("networkzones/some")?;
        let zone = "{apiVersion: windlass/v1, kind: NetworkZone, metadata: {name: some}, spec: {location: vpn, cidrs: [198.18.0.2/31]}}";
        if there {
            self.truth.declare(&key, zone.into()).await?;
        } else {
            self.truth.delete_declaration(&key).await?;
        }
        Ok(())
    }

    /// Starts another controller.
    pub fn start(&mut self, death: Option<Death>) {
        let number = u32::try_from(self.seats.len()).expect("there are few");
        self.seats.push(Seat::start(&self.ground, number, death));
    }

    /// Tells what happens.
    pub fn tell(&self, what: impl std::fmt::Display) {
        self.ground.history.tell(what);
    }

    /// Changes the files of a service.
    pub fn edit_source(&mut self, service: usize, quality: Quality) {
        let Self { services, ground, hosts, picky, .. } = self;
        let model = &mut services[service];
        model.version += 1;
        model.qualities.push(quality);
        model.quality = quality;
        let tree = tree(&model.key, model.version);
        model.release = tree.digest();
        if let Some(behaviour) = quality.behaviour() {
            ground.fleet.set_behaviour(model.release, behaviour);
        }
        match quality {
            Quality::Good => {}
            Quality::Picky(number) => {
                let on = hosts[usize::from(number)].clone();
                picky.lock().unwrap_or_else(PoisonError::into_inner).insert(model.release, on.clone());
                ground.oracle.is_bad(model.release, Some(on));
            }
            _ => ground.oracle.is_bad(model.release, None),
        }
        ground.trees.put(&root(&model.key), tree);
        ground.history.tell(format_args!("source of {}: version {} is {quality:?}", model.key, model.version));
    }

    /// Puts the files of an earlier version of a service, counted from 1, where they were.
    pub fn bring_back(&mut self, service: usize, version: u64) {
        let Self { services, ground, .. } = self;
        let model = &mut services[service];
        let at = usize::try_from(version - 1).expect("there are few");
        model.quality = model.qualities[at];
        let tree = tree(&model.key, version);
        model.release = tree.digest();
        ground.trees.put(&root(&model.key), tree);
        ground.history.tell(format_args!("source of {}: version {version} again, {:?}", model.key, model.quality));
    }

    /// Puts something that makes no sense where a service is declared.
    ///
    /// # Errors
    /// When the store does not take it.
    pub async fn mistype(&self, service: usize, text: &str) -> anyhow::Result<()> {
        let key = ResourceKey::Service(self.services[service].key.clone());
        self.tell(format_args!("declared as {key}: {text:?}"));
        let owned = self.owned(&self.services[service].key).await?;
        let read = owned.and_then(|owned| owned.accepted).map(|accepted| accepted.spec.placement.hosts);
        let read = read.unwrap_or_default().iter().map(|host| self.address(&host.to_string())).collect();
        self.ground.oracle.mistyped(&self.services[service].key, &read);
        self.truth.declare(&key, text.into()).await?;
        Ok(())
    }

    /// Declares a service as the model has it.
    ///
    /// # Errors
    /// When the store does not take it.
    pub async fn declare(&mut self, service: usize) -> anyhow::Result<()> {
        let placed: BTreeSet<String> = self.services[service].hosts.iter().map(|name| self.address(name)).collect();
        let model = &mut self.services[service];
        model.declared = true;
        let text = text(model);
        self.ground.oracle.declared(&model.key, &placed);
        self.ground.oracle.allow(&model.key, model.max_unavailable, placed);
        self.ground.history.tell(format_args!("declared {} on {:?}", model.key, model.hosts));
        let key = ResourceKey::Service(model.key.clone());
        self.truth.declare(&key, text.into()).await?;
        Ok(())
    }

    /// Where an older copy of the store says that services belong: what was declared since is not declared.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn place_as_declared(&self) -> anyhow::Result<()> {
        for model in &self.services {
            let key = ResourceKey::Service(model.key.clone());
            let Some(entry) = self.truth.get(&Key::Declared(key.clone())).await? else { continue };
            let Ok(Declaration::Service(declared)) = parse_at(&key, &entry.value) else { continue };
            let placed = declared.spec.placement.hosts.iter().map(|host| self.address(&host.to_string())).collect();
            self.ground.oracle.allow(&model.key, model.max_unavailable, placed);
        }
        Ok(())
    }

    /// Deletes a declaration.
    ///
    /// # Errors
    /// When the store does not take it.
    pub async fn delete(&mut self, service: usize) -> anyhow::Result<()> {
        let model = &mut self.services[service];
        model.declared = false;
        self.ground.history.tell(format_args!("deleted {}", model.key));
        self.ground.oracle.declared(&model.key, &BTreeSet::new());
        self.truth.delete_declaration(&ResourceKey::Service(model.key.clone())).await?;
        Ok(())
    }

    /// Asks for something.
    ///
    /// # Errors
    /// When the store does not take it.
    pub async fn ask(&self, service: usize, request: &Request) -> anyhow::Result<()> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let key = ResourceKey::Service(self.services[service].key.clone());
        self.tell(format_args!("asked {} of {key}", request.name()));
        if let Request::Approve { revision, .. } = request {
            self.ground.oracle.approved(&self.services[service].key, *revision);
        }
        let id = format!("{number:06}").parse()?;
        self.truth.request(&key, &id, serde_json::to_vec(request)?).await?;
        Ok(())
    }

    /// What is said of a service.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn status(&self, key: &ServiceKey) -> anyhow::Result<Option<ServiceStatus>> {
        let entry = self.truth.get(&Key::Status(ResourceKey::Service(key.clone()))).await?;
        entry.map(|entry| serde_json::from_slice(&entry.value).context("a status")).transpose()
    }

    /// What is said of a Host.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn host_status(&self, name: &str) -> anyhow::Result<Option<HostStatus>> {
        let entry = self.truth.get(&Key::Status(ResourceKey::Host(name.parse().context("a name")?))).await?;
        entry.map(|entry| serde_json::from_slice(&entry.value).context("a status")).transpose()
    }

    /// What is recorded of a service.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn owned(&self, key: &ServiceKey) -> anyhow::Result<Option<Owned>> {
        let entry = self.truth.get(&Key::Owned(key.clone())).await?;
        entry.map(|entry| serde_json::from_slice(&entry.value).context("what is owned")).transpose()
    }

    /// When a service was declared last.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn declared_at(&self, key: &ServiceKey) -> anyhow::Result<Option<StoreRevision>> {
        let entry = self.truth.get(&Key::Declared(ResourceKey::Service(key.clone()))).await?;
        Ok(entry.map(|entry| entry.mod_revision))
    }

    /// The address of a host by its name.
    pub fn address(&self, name: &str) -> String {
        let index = (0..self.hosts.len()).find(|index| host_name(*index) == name);
        index.map(|index| self.hosts[index].clone()).unwrap_or_else(|| name.to_owned())
    }

    /// Whether a host runs a version of a service that works there.
    pub(crate) fn is_well(&self, address: &str, key: &ServiceKey) -> bool {
        let found = self.ground.fleet.peek(address, key).service;
        let runs = found.unit.revision().and_then(|revision| found.revisions.get(&revision));
        runs.is_some_and(|release| !self.ground.oracle.knows_as_bad(release, address))
    }

    /// What runs on a host falls ill by itself.
    pub(crate) fn fall_ill(&mut self, address: &str, key: &ServiceKey, behaviour: Behaviour) {
        self.ill.insert((address.to_owned(), key.clone()));
        self.ground.oracle.is_ill(address, key);
        self.ground.fleet.edit(address, key, Edit::Behave(behaviour));
    }

    /// The ways of every controller's present life.
    pub fn ways(&self) -> Vec<Way> {
        self.seats.iter().map(Seat::way).collect()
    }
}

/// What is planted in hosts, not in the controller.
fn plant_flaws(fleet: &MemoryFleet) {
    for (bug, flaw) in [(Bug::OldOrdersTaken, Flaw::TakesOldOrders), (Bug::LastAloneKept, Flaw::KeepsTheLastAlone)] {
        if planted(bug) {
            fleet.set_flaw(flaw);
        }
    }
}

/// The name of a Host.
pub fn host_name(index: usize) -> String {
    format!("h{}", index + 1)
}

fn resource(path: &str) -> anyhow::Result<ResourceKey> {
    ResourceKey::from_path(path).with_context(|| format!("{path} is no resource"))
}

fn root(key: &ServiceKey) -> PathBuf {
    PathBuf::from(format!("/src/{}", key.to_string().replace('/', "-")))
}

/// A tree of three files, one of which differs from version to version.
fn tree(key: &ServiceKey, version: u64) -> Manifest {
    let file = |name: &str, text: String| {
        let entry = Entry::File { digest: FileDigest::of(text.as_bytes()), size: 100_000, executable: true };
        (name.parse().expect("a path"), entry)
    };
    let files = [
        file("server.py", format!("{key} {version}")),
        file("lib/a.py", format!("{key} a")),
        file("lib/b.py", format!("{key} b")),
    ];
    Manifest { entries: files.into() }
}

fn text(model: &Model) -> String {
    let hosts: Vec<&str> = model.hosts.iter().map(String::as_str).collect();
    let name = model.key.to_string();
    let (namespace, name) = name.split_once('/').unwrap_or_default();
    format!(
        "apiVersion: windlass/v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  placement: {{hosts: [{hosts}]}}\n  source: {{path: {root}, changeDetection: {{interval: 5s}}}}\n  runtime: {{target: python, entryPoint: server.py{environment}}}\n  network: {{port: {port}, transport: http}}\n  health: {{endpoint: /health, interval: 5s, healthyThreshold: 2, unhealthyThreshold: 2, startPeriod: 3s}}\n  rollout: {{minHealthyTime: 1s, maxUnavailable: {max}{failures}{rollout}}}\n",
        hosts = hosts.join(", "),
        port = model.port,
        root = root(&model.key).display(),
        max = model.max_unavailable,
        failures = match model.max_failures {
            0 => String::new(),
            most => format!(", maxFailures: {most}"),
        },
        rollout = model.rollout,
        environment = match model.environment {
            0 => String::new(),
            number => format!(", env: {{KIND: \"{number}\"}}"),
        },
    )
}
