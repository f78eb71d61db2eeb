//! The oracle: what must hold at every moment, whatever happens, and who watches that it does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use windlass_crds::digest::ReleaseDigest;
use windlass_crds::host::Target;
use windlass_crds::id::{HostId, RevisionNumber, Sequence, ServiceKey};
use windlass_crds::record::{Owned, WentBack};
use windlass_crds::service::Canary;
use windlass_crds::step::{DataFate, Step, StepError};
use windlass_hosts::fleet::Order;
use windlass_hosts::memory::MemoryFleet;
use windlass_planner::position::at_rest;
use windlass_store::{Control, Key, Store, StoreRevision};

use crate::history::History;
use crate::sight::activates;
use crate::way::Way;

/// A service on a machine.
type Spot = (String, ServiceKey);

/// Who watches. It asks the store and the hosts by ways of its own, on which nothing is ever lost.
pub struct Oracle {
    fleet: MemoryFleet,
    history: History,
    truth: OnceLock<Store>,
    seen: Mutex<Seen>,
    /// An older store knows less of what is owned than was done on hosts, and than is on its way there.
    restored: AtomicBool,
    /// A controller may act that leads no more.
    strays: AtomicBool,
}

#[derive(Debug, Default)]
struct Seen {
    sequences: BTreeMap<Spot, Sequence>,
    /// Where something good was confirmed.
    good: BTreeSet<Spot>,
    /// Where a program has fallen ill by itself: it is up and down by turns, and nobody can know when.
    ill: BTreeSet<Spot>,
    /// Releases that do not work: on one host, or on none.
    bad: BTreeMap<ReleaseDigest, Option<String>>,
    /// Canaries whose steps a person lets begin.
    approved: BTreeMap<ServiceKey, Approved>,
    /// How many hosts of a service may be down, and where it is placed since when.
    allowed: BTreeMap<ServiceKey, (usize, BTreeMap<String, Instant>)>,
    /// Where something is declared, and since when.
    wanted: BTreeMap<Spot, Instant>,
    /// Where a switch was ordered, and nothing was confirmed since.
    open: BTreeMap<Spot, HostId>,
    /// Those of them of which an older store, once it was put in, did not know.
    forgotten: BTreeMap<Spot, Known>,
    /// Where nobody has looked since an older store was put in.
    unheard: BTreeSet<Spot>,
    /// What hosts ran when it was put in: that a rollout which it knows of brings them that, nobody can hold against it.
    ran: BTreeMap<Spot, RevisionNumber>,
    /// Machines that are declared no more.
    gone: BTreeSet<String>,
    /// Which revisions were switched to where another one was good already.
    brought: BTreeSet<(Spot, RevisionNumber)>,
    /// Who leads, by the revision at which that began, and since when; watched only while it matters.
    term: Option<(StoreRevision, Instant)>,
}

/// A canary whose steps a person lets begin.
#[derive(Debug)]
struct Approved {
    rules: Canary,
    /// Each time that a person has said so, by revision: on how few hosts it was placed then, or has been since.
    said: BTreeMap<RevisionNumber, Vec<usize>>,
    /// Since when it is placed where it is, and on how many hosts it was before.
    since: Instant,
    before: usize,
}

impl Approved {
    /// How many of so many hosts may run a revision.
    fn most(&self, revision: RevisionNumber, hosts: usize) -> usize {
        // A step that brings it to no further host is passed over.
        let mut counts = self.rules.counts(hosts);
        counts.dedup();
        let said = self.said.get(&revision).map(Vec::as_slice).unwrap_or_default();
        let most = counts.get(said.len()).or(counts.last()).copied().unwrap_or_default();
        // Where there were fewer, so may have been more of its steps: nobody knows when a controller has heard of it.
        let mut step = 0;
        for then in said {
            let counts = self.rules.counts(*then);
            let further = (step..counts.len()).find(|at| counts[*at] > counts[step]);
            match further {
                Some(further) if counts[further] < *then => step = further,
                _ => return hosts,
            }
        }
        most.max(self.rules.counts(hosts).get(step).copied().unwrap_or(hosts))
    }
}

/// What an older store knows of a host that has been switched since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Nothing.
    Nothing,
    /// That the service was put there.
    Owned,
    /// That it may be down by our hand.
    InDoubt,
}

/// A host counts that has been one of a service's for so long: what is done on others was decided on before.
const DECIDED: Duration = Duration::from_secs(15);

/// What was declared so long ago is known to whoever leads: longer than anybody leads who hears nothing.
const KNOWN: Duration = Duration::from_secs(30);

/// For so long after a takeover a host counts as down that could not be stamped: a minute, less what it takes to see that
/// somebody else leads.
const FRESH: Duration = Duration::from_secs(58);

/// For so long it is watched who leads, after an older store was put in: longer than any host is cut off.
const WATCHED: Duration = Duration::from_secs(400);

/// What was recorded in the store when a step was decided on.
#[derive(Debug, Clone)]
pub struct Issued {
    owned: bool,
    blocked: bool,
    /// Another host has taken back the same by itself, and comes first.
    too_soon: bool,
    /// It is removed from where it is declared.
    unwanted: bool,
}

impl Seen {
    fn is_bad_on(&self, release: &ReleaseDigest, address: &str) -> bool {
        self.bad.get(release).is_some_and(|on| on.as_deref().is_none_or(|on| on == address))
    }
}

impl Oracle {
    /// One that watches these hosts.
    pub fn new(fleet: &MemoryFleet, history: &History) -> Self {
        let (fleet, history) = (fleet.clone(), history.clone());
        Self {
            fleet,
            history,
            truth: OnceLock::new(),
            seen: Mutex::default(),
            restored: AtomicBool::new(false),
            strays: AtomicBool::new(false),
        }
    }

    /// Gives it its way to the store.
    pub fn watch(&self, store: Store) {
        let _ = self.truth.set(store);
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is recorded at the moment in which a step is decided on.
    pub async fn issued(&self, way: &Way, target: &Target, order: &Order) -> Issued {
        let Some(truth) = self.truth.get() else {
            return Issued { owned: true, blocked: false, too_soon: false, unwanted: false };
        };
        let entry = truth.get(&Key::Owned(order.service.clone())).await.ok().flatten();
        let owned: Owned = entry.and_then(|entry| serde_json::from_slice(&entry.value).ok()).unwrap_or_default();
        let spot = (target.address.clone(), order.service.clone());
        let leads = self.note_stray(way, target, order).await;
        let unwanted = leads && matches!(order.step, Step::Remove { .. }) && self.is_declared_at(&spot);
        match order.step {
            // Whatever becomes of it.
            Step::Remove { .. } => drop(self.seen().good.remove(&spot)),
            Step::Activate { .. } | Step::Revert { .. } | Step::Stop => {
                self.seen().open.insert(spot, target.id.clone());
            }
            Step::Stage { .. } | Step::Confirm { .. } => {}
        }
        let blocked = activates(&order.step)
            && order.step.revision().is_some_and(|revision| owned.blocked.iter().any(|one| one.revision == revision));
        self.count_canary(target, order, &owned);
        let another = |(host, went): (&HostId, &WentBack)| {
            *host != target.id && activates(&order.step) && order.step.revision() == Some(went.revision)
        };
        // One that has it already may be started again.
        let has_it = self.fleet.peek(&target.address, &order.service).service.unit.revision() == order.step.revision();
        let too_soon = owned.went_back.iter().any(another) && !owned.went_back.contains_key(&target.id) && !has_it;
        Issued { owned: owned.hosts.contains_key(&target.id), blocked, too_soon, unwanted }
    }

    /// A step was done, or not, and whoever ordered it has heard of that.
    pub fn done(&self, way: &Way, target: &Target, order: &Order, issued: &Issued, outcome: &Result<(), StepError>) {
        if !matches!(outcome, Err(StepError::Contact { .. })) {
            self.heard(&target.address, &order.service);
        }
        self.happened(way, target, order, issued, outcome);
    }

    fn happened(&self, way: &Way, target: &Target, order: &Order, issued: &Issued, outcome: &Result<(), StepError>) {
        let (name, host, step) = (way.name(), &target.id, &order.step);
        let sequence = order.stamp.sequence;
        let happened = match outcome {
            Ok(()) => "done".to_owned(),
            Err(error) => error.to_string(),
        };
        self.history.tell(format_args!("{name}: {} {host} {step} under {sequence}: {happened}", order.service));
        let acted = matches!(outcome, Ok(()) | Err(StepError::StartFailed { .. }));
        if acted && !issued.owned && !self.is_restored() {
            self.history.violated(format_args!("{step} on {host} for {}, which does not own it", order.service));
        }
        if acted && issued.blocked {
            self.history.violated(format_args!("{step} on {host} for {}, which is blocked", order.service));
        }
        if acted && issued.unwanted {
            self.history.violated(format_args!("{step} on {host} for {}, which is declared there", order.service));
        }
        if acted && matches!(step, Step::Remove { data: DataFate::Purge }) {
            self.history.violated(format_args!("{step} on {host} for {}, which nobody has asked for", order.service));
        }
        // What cuts its host off gives no answer.
        let tried = acted || matches!(outcome, Err(StepError::Contact { .. }));
        if tried && issued.too_soon {
            self.history.violated(format_args!("{step} on {host} for {}, which another host took back", order.service));
        }
        if matches!((step, outcome), (Step::Confirm { .. } | Step::Remove { .. }, Ok(()))) {
            self.seen().open.remove(&(target.address.clone(), order.service.clone()));
        }
        self.count_down(target, order);
        self.look(&target.address, &order.service);
    }

    /// A step has arrived, or not, long after its sender died.
    pub fn arrived(&self, way: &Way, target: &Target, order: &Order, issued: &Issued, outcome: &Result<(), StepError>) {
        self.history.tell(format_args!("what {} has sent before it died arrives at {}", way.name(), target.id));
        if matches!(outcome, Ok(()) | Err(StepError::StartFailed { .. })) {
            // Whoever leads by then has not ordered it.
            let spot = (target.address.clone(), order.service.clone());
            self.seen().forgotten.entry(spot).or_insert(Known::Owned);
        }
        self.happened(way, target, order, issued, outcome);
    }

    /// Looks at a service on a machine.
    pub fn look(&self, address: &str, service: &ServiceKey) {
        let found = self.fleet.peek(address, service).service;
        let spot = (address.to_owned(), service.clone());
        let mut seen = self.seen();
        let before = seen.sequences.insert(spot.clone(), found.sequence).unwrap_or_default();
        if found.sequence < before {
            let now = found.sequence;
            self.history.violated(format_args!("{address} has gone back from sequence {before} to {now} of {service}"));
        }
        match found.good {
            Some(good) if !found.revisions.contains_key(&good) => {
                self.history
                    .violated(format_args!("{address} has lost the files of its good revision {good} of {service}"));
            }
            Some(good) => {
                if found.revisions.get(&good).is_some_and(|release| seen.is_bad_on(release, address)) {
                    self.history
                        .violated(format_args!("{address} has revision {good} of {service} for good, which is bad"));
                }
                seen.good.insert(spot);
            }
            None if seen.good.contains(&spot) => {
                seen.good.remove(&spot);
                self.history.violated(format_args!("{address} does not know any more what was good of {service}"));
            }
            None => {}
        }
    }

    /// Never more hosts are down by our hand than may be, of those that it was placed on when the step was decided on
    /// and still is: whoever leaves it is taken down in any case.
    fn count_down(&self, target: &Target, order: &Order) {
        if !matches!(order.step, Step::Activate { .. } | Step::Revert { .. } | Step::Stop) {
            return;
        }
        let (allowed, placed) = self.seen().allowed.get(&order.service).cloned().unwrap_or_default();
        let ill = self.seen().ill.clone();
        let forgotten = self.seen().forgotten.clone();
        let term = self.seen().term;
        let old = term.is_some_and(|(_, since)| since.elapsed() >= FRESH);
        // Nobody can know what the records do not say of a host that is out of reach.
        let known = |address: &String| match forgotten.get(&(address.clone(), order.service.clone())) {
            Some(Known::Nothing) => false,
            Some(Known::Owned) => !old,
            Some(Known::InDoubt) | None => true,
        };
        let well = |address: &String| !ill.contains(&(address.clone(), order.service.clone()));
        let stays = |address: &String| placed.get(address).is_some_and(|since| since.elapsed() >= DECIDED);
        let counts = |address: &String| stays(address) && well(address) && known(address);
        let down: Vec<String> = self.fleet.down(&order.service).into_iter().filter(counts).collect();
        // Others may have been cut off while it was placed elsewhere.
        if down.len() > allowed && down.contains(&target.address) {
            let down = down.join(", ");
            self.history.violated(format_args!("{} may have {allowed} hosts down, and has {down}", order.service));
        }
    }

    /// No more hosts run a revision than its canary has come to, where a person lets each step begin.
    fn count_canary(&self, target: &Target, order: &Order, owned: &Owned) {
        let Step::Activate { revision } = order.step else { return };
        let first = owned.good.is_empty() || owned.good.last() == Some(&revision);
        let spot = |address: &String| (address.clone(), order.service.clone());
        let mut seen = self.seen();
        if !first {
            seen.brought.insert((spot(&target.address), revision));
        }
        let (Some(approved), Some((_, placed))) =
            (seen.approved.get(&order.service).filter(|_| !first), seen.allowed.get(&order.service))
        else {
            return;
        };
        if approved.since.elapsed() < DECIDED {
            return;
        }
        // What an older store does not know to be on a host that is out of reach, nobody can know.
        let known = |address: &String| {
            let mut hosts = owned.hosts.values().filter(|host| host.target.address == *address);
            let said = hosts.any(|host| host.carries == Some(revision));
            said || !seen.unheard.contains(&spot(address))
        };
        let runs = |address: &&String| {
            let found = self.fleet.peek(address, &order.service).service;
            let before = seen.ran.get(&spot(address));
            // One that rests with it, as a first deploy has left it, runs nothing; and where that has left it on a machine
            // that nobody may go to any more, it is none of those that there are.
            let rests = at_rest(&found) && found.good != Some(revision);
            let left = (rests || seen.gone.contains(*address)) && !seen.brought.contains(&(spot(address), revision));
            let brought = found.unit.revision() == Some(revision) && !left && before != Some(&revision);
            **address == target.address || brought && known(address)
        };
        let running = placed.keys().filter(runs).count();
        let most = approved.most(revision, placed.len());
        drop(seen);
        if running > most {
            let host = &target.id;
            self.history.violated(format_args!("{} on {host} makes {running} canaries, and {most} may be", order.step));
        }
    }

    /// A person lets the steps of this canary begin.
    pub fn lets_begin(&self, service: &ServiceKey, rules: Canary) {
        let approved = Approved { rules, said: BTreeMap::new(), since: Instant::now(), before: 0 };
        self.seen().approved.insert(service.clone(), approved);
    }

    /// It is no canary any more.
    pub fn lets_all_begin(&self, service: &ServiceKey) {
        self.seen().approved.remove(service);
    }

    /// A person has let the next one begin.
    pub fn approved(&self, service: &ServiceKey, revision: RevisionNumber) {
        let mut seen = self.seen();
        let Seen { approved, allowed, .. } = &mut *seen;
        let (Some(approved), Some((_, placed))) = (approved.get_mut(service), allowed.get(service)) else { return };
        let decided = approved.since.elapsed() >= DECIDED;
        let fewest = if decided { placed.len() } else { placed.len().min(approved.before) };
        approved.said.entry(revision).or_default().push(fewest);
    }

    /// A program has fallen ill by itself.
    pub fn is_ill(&self, address: &str, service: &ServiceKey) {
        self.seen().ill.insert((address.to_owned(), service.clone()));
    }

    /// The store is an older copy from now on.
    pub async fn restored(self: &Arc<Self>) {
        self.restored.store(true, Ordering::Relaxed);
        let Some(truth) = self.truth.get() else { return };
        self.note_unheard();
        let open = self.seen().open.clone();
        for ((address, service), host) in open {
            let entry = truth.get(&Key::Owned(service.clone())).await.ok().flatten();
            let owned: Owned = entry.and_then(|entry| serde_json::from_slice(&entry.value).ok()).unwrap_or_default();
            let known = match owned.hosts.get(&host) {
                Some(known) if known.in_doubt && (known.confirmed || !owned.good.is_empty()) => Known::InDoubt,
                Some(_) => Known::Owned,
                None => Known::Nothing,
            };
            self.seen().forgotten.insert((address, service), known);
        }
        tokio::spawn(Arc::clone(self).watch_terms());
    }

    fn note_unheard(&self) {
        let mut seen = self.seen();
        let Seen { allowed, unheard, ran, .. } = &mut *seen;
        let spots = allowed
            .iter()
            .flat_map(|(service, (_, placed))| placed.keys().map(|address| (address.clone(), service.clone())));
        unheard.extend(spots);
        ran.extend(unheard.iter().filter_map(|spot| {
            let revision = self.fleet.peek(&spot.0, &spot.1).service.unit.revision();
            revision.map(|revision| (spot.clone(), revision))
        }));
    }

    /// Watches who leads.
    async fn watch_terms(self: Arc<Self>) {
        let (Some(truth), until) = (self.truth.get(), Instant::now() + WATCHED) else { return };
        while Instant::now() < until {
            if let Ok(Some(leader)) = truth.get(&Key::Control(Control::Leader)).await {
                let mut seen = self.seen();
                if seen.term.is_none_or(|(began, _)| began != leader.create_revision) {
                    seen.term = Some((leader.create_revision, Instant::now()));
                }
            }
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// A host was seen: what is done from now on knows of it.
    pub fn heard(&self, address: &str, service: &ServiceKey) {
        let spot = (address.to_owned(), service.clone());
        let mut seen = self.seen();
        seen.unheard.remove(&spot);
        seen.forgotten.remove(&spot);
    }

    /// Whether it is.
    pub fn is_restored(&self) -> bool {
        self.restored.load(Ordering::Relaxed)
    }

    /// A service is placed on these hosts, of which so many may be down.
    pub fn allow(&self, service: &ServiceKey, most: usize, placed: BTreeSet<String>) {
        let mut seen = self.seen();
        let (allowed, since) = seen.allowed.entry(service.clone()).or_default();
        let moved = !since.keys().eq(placed.iter());
        let (before, now) = (since.len(), placed.len());
        *allowed = most;
        since.retain(|address, _| placed.contains(address));
        for address in placed {
            since.entry(address).or_insert_with(Instant::now);
        }
        if let Some(approved) = seen.approved.get_mut(service).filter(|_| moved) {
            approved.since = Instant::now();
            approved.before = before;
            approved.said.values_mut().flatten().for_each(|then| *then = now.min(*then));
        }
    }

    /// These files do not work: on one host, or on none.
    pub fn is_bad(&self, release: ReleaseDigest, on: Option<String>) {
        self.seen().bad.insert(release, on);
    }

    /// Whether these files are known not to work on a host.
    pub fn knows_as_bad(&self, release: &ReleaseDigest, address: &str) -> bool {
        self.seen().is_bad_on(release, address)
    }

    /// From now on a controller may act that leads no more, on a host that nobody else reaches: it is watched who leads,
    /// and for how long.
    pub fn expect_strays(self: &Arc<Self>) {
        if !self.strays.swap(true, Ordering::Relaxed) {
            tokio::spawn(Arc::clone(self).watch_terms());
        }
    }

    /// What is done by a controller that leads no more is nothing that the one that leads could know of. Whether this one
    /// leads.
    async fn note_stray(&self, way: &Way, target: &Target, order: &Order) -> bool {
        if !self.strays.load(Ordering::Relaxed) {
            return true;
        }
        let Some(truth) = self.truth.get() else { return true };
        let leader = truth.leader().await.ok().flatten();
        let leads = leader.is_none_or(|leader| leader.identity == way.name());
        if !leads {
            let spot = (target.address.clone(), order.service.clone());
            self.seen().forgotten.entry(spot).or_insert(Known::Owned);
        }
        leads
    }

    /// A service is declared on these machines.
    pub fn declared(&self, service: &ServiceKey, addresses: &BTreeSet<String>) {
        let mut seen = self.seen();
        seen.wanted.retain(|(address, of), _| of != service || addresses.contains(address));
        for address in addresses {
            seen.wanted.entry((address.clone(), service.clone())).or_insert_with(Instant::now);
        }
    }

    /// Something that makes no sense has taken the place of a declaration: what nobody had read of that is known to nobody.
    pub fn mistyped(&self, service: &ServiceKey, read: &BTreeSet<String>) {
        self.seen().wanted.retain(|(address, of), _| of != service || read.contains(address));
    }

    /// A machine is declared no more: what becomes of what is there is not looked at.
    pub fn undeclared_host(&self, gone: &str) {
        let mut seen = self.seen();
        seen.wanted.retain(|(address, _), _| address != gone);
        seen.gone.insert(gone.to_owned());
    }

    /// A machine is declared.
    pub fn declared_host(&self, address: &str) {
        self.seen().gone.remove(address);
    }

    /// Whether somebody has declared it there, long enough for whoever leads to know. What an older store says is not
    /// known.
    fn is_declared_at(&self, spot: &Spot) -> bool {
        let since = self.seen().wanted.get(spot).copied();
        !self.is_restored() && since.is_some_and(|since| since.elapsed() >= KNOWN)
    }

    /// A hand other than ours took something away from a host.
    pub fn forget(&self, address: &str, service: &ServiceKey) {
        let spot = (address.to_owned(), service.clone());
        let mut seen = self.seen();
        seen.sequences.remove(&spot);
        seen.good.remove(&spot);
    }
}
