//! The cache: everything under the prefix but events and the audit trail, as of one revision.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use tokio::sync::watch;
use windlass_crds::configrepo::Manager;
use windlass_crds::digest::ReleaseDigest;
use windlass_crds::document::{Declaration, Declared, parse_at};
use windlass_crds::host::{HostSpec, Labels, Target};
use windlass_crds::id::{
    Generation, HostId, HostName, Kind, PolicyName, RepoName, ResourceKey, RevisionNumber, Sequence, ServiceKey,
    ZoneName,
};
use windlass_crds::policy::PolicySpec;
use windlass_crds::problem::Problem;
use windlass_crds::record::{Owned, Revision, Rollout, RolloutState};
use windlass_crds::request::Request;
use windlass_crds::service::ServiceSpec;
use windlass_crds::status::{ConfigRepoStatus, PolicyStatus};
use windlass_crds::zone::NetworkZoneSpec;
use windlass_planner::input::RemovalGate;
use windlass_planner::planted::{Bug, planted};
use windlass_store::{Act, Change, Entry, Key, RequestId, StoreRevision, Update, Write};

use crate::census::Census;
use crate::removals::Tally;

/// So many deletions are remembered; beyond that nobody is named who deleted what is still being taken down.
const MOST_DELETED: usize = 4096;

/// A value, and when it was last put.
#[derive(Debug, Clone)]
pub struct Stored<T> {
    /// What the key holds.
    pub value: T,
    /// The key's `mod_revision`.
    pub at: StoreRevision,
}

/// The rollouts of a Service. Each apart, since a map keeps room for eleven, and most have few.
pub type Rollouts = BTreeMap<Sequence, Arc<Stored<Rollout>>>;

/// A declaration as it was read: it may make no sense.
#[derive(Debug, Clone)]
pub struct Read {
    /// What it says, or everything that is wrong with it.
    pub parsed: Result<Arc<Declaration>, Vec<Problem>>,
    /// The key's `mod_revision`: the declaration's generation.
    pub at: StoreRevision,
    /// When it last came to say something else: putting the same again changes nothing.
    pub changed: StoreRevision,
}

/// What the store holds, typed.
#[derive(Debug, Default)]
pub struct State {
    declared: BTreeMap<ResourceKey, Read>,
    requests: BTreeMap<ResourceKey, BTreeMap<RequestId, Stored<Result<Request, String>>>>,
    statuses: BTreeMap<ResourceKey, Stored<Bytes>>,
    owned: BTreeMap<ServiceKey, Stored<Arc<Owned>>>,
    revisions: BTreeMap<ServiceKey, Arc<BTreeMap<RevisionNumber, Revision>>>,
    rollouts: BTreeMap<ServiceKey, Arc<Rollouts>>,
    /// When declarations were deleted of which something is left to be done.
    deleted: BTreeMap<ResourceKey, StoreRevision>,
    revision: StoreRevision,
    /// What is said of ConfigRepos, and what each owns by that.
    repos: BTreeMap<RepoName, Repo>,
    /// What is declared beside Services; nothing once some of that has changed, until somebody asks.
    around: Option<Around>,
    /// What would be taken down if nobody stopped it.
    removals: Tally,
    /// What we are about to write ourselves, as it reads.
    foretold: BTreeMap<Key, Foretold>,
}

/// A record that we are about to write.
#[derive(Debug)]
struct Foretold {
    bytes: Vec<u8>,
    record: Record,
}

/// A record that is large where a Service has many hosts.
#[derive(Debug)]
pub enum Record {
    /// What is owned.
    Owned(Arc<Owned>),
    /// A rollout.
    Rollout(Box<Rollout>),
}

/// From so many bytes on it takes a part of a millisecond to read a record. Where it is checked that it reads as was
/// foretold, all are foretold.
const LARGE: usize = if cfg!(debug_assertions) { 1 } else { 16 * 1024 };

/// What is said of a ConfigRepo.
#[derive(Debug, Clone)]
struct Repo {
    said: Arc<ConfigRepoStatus>,
    /// What it owns: each change of a declaration asks whose it is.
    owned: BTreeSet<ResourceKey>,
}

/// What a ConfigRepo has to know to write what it declares.
#[derive(Debug, Clone, Default)]
pub struct AroundRepo {
    /// What is stored of what it declares, owns, or is said to manage.
    pub declared: BTreeMap<ResourceKey, Read>,
    /// The other ConfigRepos that are declared, and what is said of them.
    pub others: BTreeMap<RepoName, Arc<ConfigRepoStatus>>,
}

/// What is declared beside Services, read once for all who ask: each plan does.
#[derive(Debug, Clone)]
struct Around {
    surroundings: Arc<Surroundings>,
    /// When some of it last came to say something else.
    changed: Option<StoreRevision>,
    /// How many declarations there are.
    count: usize,
}

/// Everything about one Service, as the cache holds it at one moment.
#[derive(Debug, Clone, Default)]
pub struct ServiceView {
    /// Its declaration.
    pub declared: Option<Read>,
    /// What is asked.
    pub requests: BTreeMap<RequestId, Result<Request, String>>,
    /// When each of that was.
    pub asked_at: BTreeMap<RequestId, StoreRevision>,
    /// Its status, as bytes.
    pub status: Option<Stored<Bytes>>,
    /// What it may have left where.
    pub owned: Option<Stored<Arc<Owned>>>,
    /// Its revisions.
    pub revisions: Arc<BTreeMap<RevisionNumber, Revision>>,
    /// Its rollouts.
    pub rollouts: Arc<Rollouts>,
}

/// A declaration, its status and its requests, copied out of the cache.
#[derive(Debug, Clone, Default)]
pub struct ResourceView {
    /// The declaration.
    pub declared: Option<Read>,
    /// Its status, as bytes.
    pub status: Option<Stored<Bytes>>,
    /// What is asked.
    pub requests: BTreeMap<RequestId, Result<Request, String>>,
    /// When each of that was.
    pub asked_at: BTreeMap<RequestId, StoreRevision>,
}

/// Every valid Host and NetworkZone.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Hosts that make sense.
    pub hosts: BTreeMap<HostName, (Labels, HostSpec)>,
    /// How they are reached.
    pub targets: BTreeMap<HostName, Arc<Target>>,
    /// Hosts that are declared, whether or not they make sense.
    pub host_names: BTreeSet<HostName>,
    /// Zones that make sense.
    pub zones: Vec<(ZoneName, NetworkZoneSpec)>,
    /// Zones that make no sense: while there is one, nothing can be said about plaintext.
    pub broken_zones: Vec<ResourceKey>,
    /// What has to be approved: of a Policy that makes no sense, what was in force before.
    pub policies: BTreeMap<PolicyName, PolicySpec>,
    /// Policies that make no sense, and of which nobody knows what they said before: they may hold anywhere.
    pub broken_policies: BTreeSet<PolicyName>,
}

impl Surroundings {
    /// Adds what is declared of a Host or of a zone.
    fn add(&mut self, key: &ResourceKey, read: &Read) {
        if let ResourceKey::Host(name) = key {
            self.host_names.insert(name.clone());
        }
        match (&read.parsed, key) {
            (Ok(declaration), _) => match declaration.as_ref() {
                Declaration::Host(Declared { key, labels, spec, .. }) => {
                    let target = Target::declared(HostId::Named(key.clone()), spec);
                    self.targets.insert(key.clone(), Arc::new(target));
                    self.hosts.insert(key.clone(), (labels.clone(), spec.clone()));
                }
                Declaration::NetworkZone(zone) => self.zones.push((zone.key.clone(), zone.spec.clone())),
                Declaration::Policy(policy) => drop(self.policies.insert(policy.key.clone(), policy.spec.clone())),
                Declaration::Service(_) | Declaration::ConfigRepo(_) => {}
            },
            (Err(_), ResourceKey::NetworkZone(_)) => self.broken_zones.push(key.clone()),
            (Err(_), _) => {}
        }
    }

    /// Whether a Host is declared in a way that makes no sense. What it was before is not known any more, so nothing
    /// is done to it.
    pub fn is_broken(&self, host: &HostId) -> bool {
        matches!(host, HostId::Named(name) if self.host_names.contains(name) && !self.hosts.contains_key(name))
    }

    /// Hosts with their labels, as selectors look at them.
    pub fn labelled(&self) -> impl Iterator<Item = (HostId, &Labels)> {
        self.hosts.iter().map(|(name, (labels, _))| (HostId::Named(name.clone()), labels))
    }
}

/// The longest request, in bytes: what it says is repeated in records and events. A signature has some thousand.
const REQUEST_BYTES: usize = 6 * 1024;

/// What was in force of a Policy that makes no sense now.
fn in_force_before(key: &ResourceKey, statuses: &BTreeMap<ResourceKey, Stored<Bytes>>) -> Option<PolicySpec> {
    let said: PolicyStatus = serde_json::from_slice(&statuses.get(key)?.value).ok()?;
    said.accepted
}

/// The cache, shared by whoever reads it.
#[derive(Debug)]
pub struct Cache {
    state: Mutex<State>,
    reached: watch::Sender<StoreRevision>,
}

impl Default for Cache {
    fn default() -> Self {
        Self { state: Mutex::default(), reached: watch::Sender::new(StoreRevision::default()) }
    }
}

impl Cache {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic happens under this lock")
    }

    /// Takes in an update; returns what it concerns, which shall be looked at again.
    pub fn apply(&self, update: Update) -> BTreeSet<ResourceKey> {
        let mut state = self.lock();
        let (touched, revision) = match update {
            Update::Snapshot { entries, revision } => {
                let mut touched = state.everything();
                if !planted(Bug::ListsAddOnly) {
                    *state = State::default();
                }
                for entry in entries {
                    state.put(entry, &mut BTreeSet::new());
                }
                touched.extend(state.everything());
                (touched, revision)
            }
            Update::Changes { changes, revision } => {
                let mut touched = BTreeSet::new();
                for change in changes {
                    match change {
                        Change::Put(entry) => state.put(entry, &mut touched),
                        Change::Deleted { key, revision } => state.delete(&key, revision, &mut touched),
                    }
                }
                (touched, revision)
            }
            Update::Progress { revision } => (BTreeSet::new(), revision),
            Update::Interrupted { .. } => return BTreeSet::new(),
        };
        state.revision = revision;
        drop(state);
        self.reached.send_replace(revision);
        touched
    }

    /// Waits until everything up to `revision` has been seen.
    pub async fn reach(&self, revision: StoreRevision) {
        let mut reached = self.reached.subscribe();
        // It can only fail when the sender is gone, and the sender is ours.
        let _ = reached.wait_for(|reached| *reached >= revision).await;
    }

    /// Tells of each further revision that was seen.
    pub fn changes(&self) -> watch::Receiver<StoreRevision> {
        self.reached.subscribe()
    }

    /// Everything about one Service.
    pub fn service(&self, key: &ServiceKey) -> ServiceView {
        let state = self.lock();
        let resource = ResourceKey::Service(key.clone());
        ServiceView {
            declared: state.declared.get(&resource).cloned(),
            requests: state.asked(&resource),
            asked_at: state.asked_at(&resource),
            status: state.statuses.get(&resource).cloned(),
            owned: state.owned.get(key).cloned(),
            revisions: state.revisions.get(key).cloned().unwrap_or_default(),
            rollouts: state.rollouts.get(key).cloned().unwrap_or_default(),
        }
    }

    /// A declaration, its status and its requests.
    pub fn resource(&self, key: &ResourceKey) -> ResourceView {
        let state = self.lock();
        ResourceView {
            declared: state.declared.get(key).cloned(),
            status: state.statuses.get(key).cloned(),
            requests: state.asked(key),
            asked_at: state.asked_at(key),
        }
    }

    /// What a ConfigRepo has to know to write `wanted`.
    pub fn around_repo<'a>(&self, name: &RepoName, wanted: impl Iterator<Item = &'a ResourceKey>) -> AroundRepo {
        let state = self.lock();
        let manager = Manager::Repo(name.clone());
        let ours = |read: &Read| read.parsed.as_ref().is_ok_and(|declared| declared.managed_by() == Some(&manager));
        let named = |key: &ResourceKey| Some((key.clone(), state.declared.get(key)?.clone()));
        let mut declared: BTreeMap<ResourceKey, Read> = wanted.filter_map(named).collect();
        declared.extend(state.repos.get(name).into_iter().flat_map(|repo| &repo.owned).filter_map(named));
        let rest = state.declared.iter().filter(|(_, read)| ours(read));
        declared.extend(rest.map(|(key, read)| (key.clone(), read.clone())));
        let others = state.declared.keys().filter_map(|key| match key {
            ResourceKey::ConfigRepo(other) if other != name => {
                let said = state.repos.get(other).map(|repo| Arc::clone(&repo.said)).unwrap_or_default();
                Some((other.clone(), said))
            }
            _ => None,
        });
        AroundRepo { declared, others: others.collect() }
    }

    /// The ConfigRepos that own something of what has changed: they put their own back.
    pub fn owners_of(&self, changed: &BTreeSet<ResourceKey>) -> BTreeSet<ResourceKey> {
        let state = self.lock();
        let owns = |repo: &Repo| changed.iter().any(|key| repo.owned.contains(key));
        let owners = state.repos.iter().filter(|(_, repo)| owns(repo));
        owners.map(|(name, _)| ResourceKey::ConfigRepo(name.clone())).collect()
    }

    /// When the declaration of a resource was deleted, where that was seen.
    pub fn deleted(&self, key: &ResourceKey) -> Option<StoreRevision> {
        self.lock().deleted.get(key).copied()
    }

    /// Whether anything is asked of a resource.
    pub fn is_asked(&self, key: &ResourceKey) -> bool {
        self.lock().requests.contains_key(key)
    }

    /// Every valid Host and NetworkZone.
    pub fn surroundings(&self) -> Arc<Surroundings> {
        Arc::clone(&self.lock().around().surroundings)
    }

    /// What a Service's world was when this was called: another value means that a plan for it may be out of date.
    pub fn fingerprint(&self, key: &ServiceKey) -> Fingerprint {
        let mut state = self.lock();
        let resource = ResourceKey::Service(key.clone());
        let Around { changed, count, .. } = *state.around();
        Fingerprint {
            declared: state.declared.get(&resource).map(|read| read.at),
            requests: state
                .requests
                .get(&resource)
                .map(|requests| requests.keys().cloned().collect())
                .unwrap_or_default(),
            around: changed,
            declared_around: count,
        }
    }

    /// Everything that has to be looked at by whoever becomes leader.
    pub fn everything(&self) -> BTreeSet<ResourceKey> {
        self.lock().everything()
    }

    /// Whether removals of a Service that nobody has confirmed may go on, by what would be taken down of all of them.
    pub fn removal_gate(&self, key: &ServiceKey) -> RemovalGate {
        let mut state = self.lock();
        let surroundings = Arc::clone(&state.around().surroundings);
        let State { removals, owned, declared, .. } = &mut *state;
        removals.count_anew(&surroundings, |service| {
            let owned = owned.get(service)?;
            Some((owned.value.as_ref(), declared.get(&ResourceKey::Service(service.clone()))))
        });
        removals.gate(key)
    }

    /// Says how a record reads that is about to be written, so that it is not read again once it comes back: what is the
    /// same to the last byte is. `make` is called where it is large.
    pub fn foretell(&self, write: &Write, make: impl FnOnce() -> Record) {
        if let Act::Put { value, .. } = &write.act
            && value.len() >= LARGE
        {
            let foretold = Foretold { bytes: value.clone(), record: make() };
            self.lock().foretold.insert(write.key.clone(), foretold);
        }
    }

    /// The Services that changes of Hosts and zones may concern. One pass for all of them: after a list everything may
    /// have changed.
    pub fn concerned_by(&self, changed: &BTreeSet<ResourceKey>) -> BTreeSet<ServiceKey> {
        let zone = changed.iter().any(|key| matches!(key, ResourceKey::NetworkZone(_) | ResourceKey::Policy(_)));
        let hosts = changed.iter().filter_map(|key| match key {
            ResourceKey::Host(name) => Some(HostId::Named(name.clone())),
            _ => None,
        });
        let hosts: BTreeSet<HostId> = hosts.collect();
        if !zone && hosts.is_empty() {
            return BTreeSet::new();
        }
        let state = self.lock();
        let places = |read: &Read| match read.parsed.as_deref() {
            Ok(Declaration::Service(Declared { spec: ServiceSpec { placement, .. }, .. })) => {
                !placement.selector.is_empty() || placement.hosts.iter().any(|host| hosts.contains(host))
            }
            _ => false,
        };
        let declared = state.declared.iter().filter_map(|(key, read)| match key {
            ResourceKey::Service(service) if zone || places(read) => Some(service.clone()),
            _ => None,
        });
        let owns = |owned: &Owned| owned.hosts.keys().any(|host| hosts.contains(host));
        let owned = state.owned.iter().filter(|(_, owned)| zone || owns(&owned.value)).map(|(key, _)| key.clone());
        declared.chain(owned).collect()
    }

    /// The releases that some revision names.
    pub fn releases(&self) -> BTreeSet<ReleaseDigest> {
        let state = self.lock();
        state.revisions.values().flat_map(|revisions| revisions.values()).map(|revision| revision.release).collect()
    }

    /// How what is declared is, in numbers.
    pub fn census(&self) -> Census {
        let state = self.lock();
        let declared = state.declared.keys().map(|key| (key.kind(), state.statuses.get(key).cloned()));
        let declared: Vec<_> = declared.filter(|(kind, _)| matches!(kind, Kind::Host | Kind::Service)).collect();
        let active = |rollouts: &Rollouts| {
            rollouts.values().next_back().is_some_and(|rollout| rollout.value.state == RolloutState::Active)
        };
        let active = state.rollouts.values().filter(|rollouts| active(rollouts)).count() as u64;
        // Statuses are read without the lock: there may be thousands.
        drop(state);
        Census::of(declared, active)
    }
}

/// See [`Cache::fingerprint`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    declared: Option<StoreRevision>,
    requests: BTreeSet<RequestId>,
    around: Option<StoreRevision>,
    declared_around: usize,
}

impl State {
    fn everything(&self) -> BTreeSet<ResourceKey> {
        let owned = self.owned.keys().cloned().map(ResourceKey::Service);
        let rest = self.declared.keys().chain(self.requests.keys()).chain(self.statuses.keys());
        rest.cloned().chain(owned).collect()
    }

    /// What is declared beside Services. It stands behind them in the order of keys.
    fn around(&mut self) -> &Around {
        let Self { around, declared, statuses, .. } = self;
        around.get_or_insert_with(|| {
            let beside = declared.iter().rev().take_while(|(key, _)| !matches!(key, ResourceKey::Service(_)));
            let beside: Vec<_> = beside.collect();
            let mut surroundings = Surroundings::default();
            beside.iter().rev().for_each(|(key, read)| surroundings.add(key, read));
            for (key, _) in beside.iter().filter(|(_, read)| read.parsed.is_err()) {
                let ResourceKey::Policy(name) = key else { continue };
                match in_force_before(key, statuses) {
                    Some(before) => drop(surroundings.policies.insert(name.clone(), before)),
                    None => drop(surroundings.broken_policies.insert(name.clone())),
                }
            }
            let changed = beside.iter().map(|(_, read)| read.changed).max();
            Around { surroundings: Arc::new(surroundings), changed, count: beside.len() }
        })
    }

    /// Something else is declared of a resource than before.
    fn redeclared(&mut self, resource: &ResourceKey) {
        match resource {
            ResourceKey::Service(service) => self.removals.touch(service),
            ResourceKey::Host(_)
            | ResourceKey::NetworkZone(_)
            | ResourceKey::ConfigRepo(_)
            | ResourceKey::Policy(_) => {
                self.around = None;
                self.removals.touch_selectors();
            }
        }
    }

    /// When each thing was asked of a resource.
    fn asked_at(&self, resource: &ResourceKey) -> BTreeMap<RequestId, StoreRevision> {
        self.requests.get(resource).into_iter().flatten().map(|(id, asked)| (id.clone(), asked.at)).collect()
    }

    /// What is asked of a resource. Who asked to go back before something else was declared did not mean that.
    fn asked(&self, resource: &ResourceKey) -> BTreeMap<RequestId, Result<Request, String>> {
        // What waits for an approval has changed nothing yet.
        let waits = |read: &&Read| match resource {
            ResourceKey::Service(service) => {
                self.owned.get(service).is_some_and(|owned| owned.value.awaits(Generation(read.at.0)))
            }
            _ => false,
        };
        let changed = self.declared.get(resource).filter(|read| !waits(read)).map(|read| read.changed);
        let overtaken = |asked: &Stored<Result<Request, String>>| match &asked.value {
            Ok(request @ (Request::Undo { .. } | Request::Abort { .. }))
                if changed.is_some_and(|changed| asked.at < changed) =>
            {
                Err(format!("{}: something else was declared since it was asked", request.name()))
            }
            request => request.clone(),
        };
        let requests = self.requests.get(resource).into_iter().flatten();
        requests.map(|(id, asked)| (id.clone(), overtaken(asked))).collect()
    }

    fn put(&mut self, entry: Entry, touched: &mut BTreeSet<ResourceKey>) {
        let Entry { key, value, mod_revision: at, .. } = entry;
        match key {
            Key::Declared(resource) => {
                let parsed = parse_at(&resource, &value).map(Arc::new);
                let same = self.declared.get(&resource).filter(|before| before.parsed == parsed);
                let changed = same.map_or(at, |before| before.changed);
                if same.is_none() {
                    self.redeclared(&resource);
                }
                self.declared.insert(resource.clone(), Read { parsed, at, changed });
                self.deleted.remove(&resource);
                touched.insert(resource);
            }
            Key::Request { target, id } => {
                let value = match value.len() {
                    0..=REQUEST_BYTES => serde_json::from_slice(&value).map_err(|error| error.to_string()),
                    more => Err(format!("{more} bytes, and a request may have at most {REQUEST_BYTES}")),
                };
                self.requests.entry(target.clone()).or_default().insert(id, Stored { value, at });
                touched.insert(target);
            }
            Key::Status(resource) => {
                if let ResourceKey::ConfigRepo(name) = &resource {
                    let said: ConfigRepoStatus = serde_json::from_slice(&value).unwrap_or_default();
                    let owned = said.owns().cloned().collect();
                    self.repos.insert(name.clone(), Repo { said: Arc::new(said), owned });
                }
                if matches!(resource, ResourceKey::Policy(_)) {
                    self.around = None;
                }
                self.statuses.insert(resource, Stored { value: value.into(), at });
            }
            Key::Owned(service) => match self.owned_of(&service, &value) {
                Ok(value) => {
                    self.removals.touch(&service);
                    self.owned.insert(service, Stored { value, at });
                }
                Err(error) => tracing::error!(%service, %error, "the record of what is owned is damaged"),
            },
            Key::Revision(service, number) => match serde_json::from_slice(&value) {
                Ok(revision) => {
                    Arc::make_mut(self.revisions.entry(service).or_default()).insert(number, revision);
                }
                Err(error) => tracing::error!(%service, %number, %error, "the record of a revision is damaged"),
            },
            Key::Rollout(service, sequence) => match self.rollout_of(&service, sequence, &value) {
                Ok(value) => {
                    Arc::make_mut(self.rollouts.entry(service).or_default())
                        .insert(sequence, Arc::new(Stored { value, at }));
                }
                Err(error) => tracing::error!(%service, %sequence, %error, "the record of a rollout is damaged"),
            },
            Key::Event { .. } | Key::Audit(..) | Key::Control(_) | Key::Unknown(_) => {}
        }
    }

    /// What is owned, as it is stored.
    fn owned_of(&mut self, service: &ServiceKey, bytes: &[u8]) -> serde_json::Result<Arc<Owned>> {
        match self.foretold(&Key::Owned(service.clone()), bytes) {
            Some(Record::Owned(owned)) => {
                debug_assert_eq!(serde_json::from_slice::<Owned>(bytes).ok().as_ref(), Some(owned.as_ref()));
                Ok(owned)
            }
            _ => serde_json::from_slice(bytes).map(Arc::new),
        }
    }

    /// A rollout, as it is stored.
    fn rollout_of(&mut self, service: &ServiceKey, sequence: Sequence, bytes: &[u8]) -> serde_json::Result<Rollout> {
        match self.foretold(&Key::Rollout(service.clone(), sequence), bytes) {
            Some(Record::Rollout(rollout)) => {
                debug_assert_eq!(serde_json::from_slice(bytes).ok().as_ref(), Some(rollout.as_ref()));
                Ok(*rollout)
            }
            _ => serde_json::from_slice(bytes),
        }
    }

    /// What was foretold of a key, where just that has come.
    fn foretold(&mut self, key: &Key, bytes: &[u8]) -> Option<Record> {
        let foretold = self.foretold.remove(key).filter(|foretold| foretold.bytes == bytes)?;
        Some(foretold.record)
    }

    fn delete(&mut self, key: &Key, at: StoreRevision, touched: &mut BTreeSet<ResourceKey>) {
        self.foretold.remove(key);
        match key {
            Key::Declared(resource) => {
                self.declared.remove(resource);
                // Of what nothing is left nobody asks any more: so few that are still worked on are here.
                if self.deleted.len() >= MOST_DELETED {
                    self.deleted.clear();
                }
                self.deleted.insert(resource.clone(), at);
                self.redeclared(resource);
                touched.insert(resource.clone());
            }
            Key::Request { target, id } => {
                if let Some(requests) = self.requests.get_mut(target) {
                    requests.remove(id);
                    if requests.is_empty() {
                        self.requests.remove(target);
                    }
                }
            }
            Key::Status(resource) => {
                if let ResourceKey::ConfigRepo(name) = resource {
                    self.repos.remove(name);
                }
                self.statuses.remove(resource);
            }
            Key::Owned(service) => {
                self.owned.remove(service);
                self.removals.touch(service);
            }
            Key::Revision(service, number) => {
                if let Some(revisions) = self.revisions.get_mut(service) {
                    Arc::make_mut(revisions).remove(number);
                }
            }
            Key::Rollout(service, sequence) => {
                if let Some(rollouts) = self.rollouts.get_mut(service) {
                    Arc::make_mut(rollouts).remove(sequence);
                }
            }
            Key::Event { .. } | Key::Audit(..) | Key::Control(_) | Key::Unknown(_) => {}
        }
    }
}
