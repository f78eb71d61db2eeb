//! The hosts together with time: what is due on them, the links to them, and how many are down by our hand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use windlass_crds::digest::{PayloadDigest, ReleaseDigest};
use windlass_crds::id::{RevisionNumber, ServiceKey};
use windlass_crds::manifest::Manifest;
use windlass_crds::observation::{StepState, UnitFile};
use windlass_crds::service::ServiceSpec;
use windlass_crds::step::{DataFate, StepError, Verb};

use super::behaviour::{Behaviour, Life, Moment, Program, RestartPolicy, Start};
use super::calls::{Call, Called, Caller};
use super::faults::{Edit, Flaw, Link};
use super::host::{Held, Host, Release, Run, Running, Staged};
use super::steps::{Armed, SWITCHING, final_state};

/// How long things take, in the fleet's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// There and back again.
    pub latency: Duration,
    /// What a stage sends, a second.
    pub bytes_per_second: u64,
    /// What each stage takes beside that.
    pub stage: Duration,
    /// systemd's daemon-reload.
    pub reload: Duration,
    /// Every other effect of a step.
    pub effect: Duration,
    /// How long a step waits for another one's lock, besides its own `force_after`.
    pub lock: Duration,
    /// How long a stamp does.
    pub stamp_lock: Duration,
    /// How systemd starts programs again.
    pub restart: RestartPolicy,
}

impl Default for Timing {
    /// Near what was measured on small hosts, but for a latency of 4 ms.
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(4),
            bytes_per_second: 50 << 20,
            stage: Duration::from_millis(30),
            reload: Duration::from_millis(110),
            effect: Duration::from_millis(5),
            lock: Duration::from_secs(10),
            stamp_lock: Duration::from_secs(5),
            restart: RestartPolicy::default(),
        }
    }
}

/// Chooses what a program does.
pub(super) type Chooser = Arc<dyn Fn(&Program) -> Behaviour + Send + Sync>;
/// Says how long a call takes, there and back.
pub(super) type Pace = Arc<dyn Fn(&str, Call) -> Duration + Send + Sync>;

/// Something that a step does to a host.
#[derive(Debug)]
pub(super) enum Effect {
    /// A release and a revision are there.
    Install { revision: RevisionNumber, spec: Arc<ServiceSpec>, manifest: Box<Manifest> },
    /// The dead man's switch waits for a confirmation of what is switched to next, or of nothing.
    Arm(Option<Armed>),
    /// It goes off, if that is still the one.
    Deadman(Armed),
    /// The unit is that of another revision.
    Switch(RevisionNumber),
    /// systemd has read it.
    Reload,
    /// The unit is stopped.
    Stop { killed: bool, then: Then },
    /// The unit is started.
    Start,
    /// The revision to go back to is this one, and only these others stay.
    Good { revision: RevisionNumber, keep: BTreeSet<RevisionNumber> },
    /// Nothing is there any more but the fence, and the data where it is kept.
    Erase(DataFate),
    /// The step is over; its record says so where it ended for good.
    Record,
    /// The host loses power.
    PowerCut { dark: Duration },
}

/// What a stop is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// It stays stopped.
    Rest,
    /// Another revision starts.
    Restart,
    /// It goes for ever: nobody waits for it to come back.
    Leave,
}

/// An effect and where it happens.
#[derive(Debug)]
struct Due {
    address: String,
    service: ServiceKey,
    effect: Effect,
}

/// So many ends of steps wait for their callers on a service of a host: each has one lock, so few call at once.
const UNHEARD: usize = 64;

/// At most so many calls are kept in the log: a rollout over 1,000 hosts makes about half of that.
const LOG_LENGTH: usize = 100_000;

/// What is kept for whoever looks back upon it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watch {
    /// Each call, and how many hosts were down at once.
    Closely,
    /// Nothing.
    Nothing,
}

/// Everything there is.
pub(super) struct World {
    watch: Watch,
    pub(super) hosts: BTreeMap<String, Host>,
    /// Other addresses of the same machines.
    pub(super) aliases: BTreeMap<String, String>,
    pub(super) links: BTreeMap<(Option<Caller>, String), Link>,
    pub(super) timing: Timing,
    pub(super) pace: Option<Pace>,
    pub(super) chooser: Option<Chooser>,
    pub(super) behaviours: BTreeMap<ReleaseDigest, Behaviour>,
    pub(super) flaw: Option<Flaw>,
    /// What will happen, in order.
    agenda: BTreeMap<(Moment, u64), Due>,
    pub(super) drawn: u64,
    calls: BTreeMap<u64, Called>,
    next_call: u64,
    /// Hosts that served a confirmed revision when we took it down, until one is confirmed again.
    touched: BTreeMap<ServiceKey, BTreeSet<String>>,
    max_down: BTreeMap<ServiceKey, usize>,
}

impl World {
    pub(super) fn new(watch: Watch) -> Self {
        Self {
            watch,
            hosts: BTreeMap::new(),
            aliases: BTreeMap::new(),
            links: BTreeMap::new(),
            timing: Timing::default(),
            pace: None,
            chooser: None,
            behaviours: BTreeMap::new(),
            flaw: None,
            agenda: BTreeMap::new(),
            drawn: 0,
            calls: BTreeMap::new(),
            next_call: 0,
            touched: BTreeMap::new(),
            max_down: BTreeMap::new(),
        }
    }

    /// The address that a machine's state goes by.
    pub(super) fn resolve(&self, address: &str) -> String {
        self.aliases.get(address).map_or(address, String::as_str).to_owned()
    }

    /// Does everything that is due by now, in order.
    pub(super) fn settle(&mut self, now: Moment) {
        while let Some(entry) = self.agenda.first_entry() {
            let (at, _) = *entry.key();
            if at > now {
                break;
            }
            let Due { address, service, effect } = entry.remove();
            self.apply(&address, &service, effect, at);
            self.measure(&service, at);
        }
        let touched: Vec<ServiceKey> = self.touched.keys().cloned().collect();
        for service in touched {
            self.measure(&service, now);
        }
    }

    /// Notes effects that follow each other from now on; returns when the last one happens.
    pub(super) fn schedule(
        &mut self,
        address: &str,
        service: &ServiceKey,
        effects: Vec<(Duration, Effect)>,
        now: Moment,
    ) -> Moment {
        let mut at = now;
        for (delay, effect) in effects {
            at += delay;
            self.drawn += 1;
            let due = Due { address: address.to_owned(), service: service.clone(), effect };
            self.agenda.insert((at, self.drawn), due);
        }
        at
    }

    fn held(&mut self, address: &str, service: &ServiceKey) -> &mut Held {
        let host = self.hosts.get_mut(address).expect("effects happen on hosts that are there");
        host.services.entry(service.clone()).or_default()
    }

    fn apply(&mut self, address: &str, service: &ServiceKey, effect: Effect, at: Moment) {
        match effect {
            Effect::Install { revision, spec, manifest } => {
                let flawed = self.flaw == Some(Flaw::KeepsTheLastAlone);
                let held = self.held(address, service);
                if flawed {
                    held.revisions.clear();
                }
                held.install(revision, spec, *manifest);
            }
            Effect::Arm(armed) => {
                self.held(address, service).armed = armed;
                self.wait_for_confirmation(address, service, at);
            }
            Effect::Deadman(armed) => self.go_off(address, service, armed, at),
            Effect::Switch(revision) => {
                let held = self.held(address, service);
                // A unit that systemd has never loaded needs no reload.
                held.needs_reload = held.unit != UnitFile::Absent;
                held.unit = UnitFile::Revision(revision);
                held.enabled = true;
            }
            Effect::Reload => self.held(address, service).needs_reload = false,
            Effect::Stop { killed, then } => {
                if then != Then::Restart {
                    self.held(address, service).armed = None;
                }
                if then != Then::Leave {
                    self.touch(address, service, at);
                }
                self.held(address, service).stop_run(at, killed);
            }
            Effect::Start => self.start(address, service, at),
            Effect::Good { revision, keep } => {
                self.held(address, service).confirm(revision, &keep);
                self.untouch(address, service);
            }
            Effect::Erase(data) => {
                self.held(address, service).erase(data);
                self.untouch(address, service);
            }
            Effect::Record => self.held(address, service).end_step(),
            Effect::PowerCut { dark } => self.reboot(address, at, dark),
        }
    }

    /// Starts a unit by hand.
    fn start(&mut self, address: &str, service: &ServiceKey, at: Moment) {
        self.touch(address, service, at);
        let fails = self.start_at(address, service, at);
        let held = self.held(address, service);
        held.data = true;
        if fails
            && let Some(running) = &mut held.running
            && running.outcome.is_ok()
        {
            let detail =
                format!("Job for {} failed because the control process exited with error code.", service.unit());
            running.outcome = Err(StepError::StartFailed { detail });
        }
    }

    /// Has the dead man's switch go off when it is due, or at the end of a boot where that is later.
    fn wait_for_confirmation(&mut self, address: &str, service: &ServiceKey, now: Moment) {
        let up = self.hosts[address].up;
        if let Some(armed) = self.held(address, service).armed {
            let delay = armed.due.max(up).saturating_sub(now);
            self.schedule(address, service, vec![(delay, Effect::Deadman(armed))], now);
        }
    }

    /// The dead man's switch: the host goes back by itself. Under the lock, as a step is.
    fn go_off(&mut self, address: &str, service: &ServiceKey, armed: Armed, at: Moment) {
        if let Some(until) = self.locked(address, service) {
            let delay = until.saturating_sub(at) + self.timing.effect;
            self.schedule(address, service, vec![(delay, Effect::Deadman(armed))], at);
            return;
        }
        let held = self.held(address, service);
        if held.armed != Some(armed) {
            return;
        }
        held.armed = None;
        if !held.void(&armed) {
            return;
        }
        match held.good.or(armed.back) {
            // That somebody has edited its files can be put right once the host can be reached.
            Some(back) if held.staged(back).is_some() => {
                (held.last, held.unit, held.needs_reload) = (Some(Verb::Revert), UnitFile::Revision(back), false);
                held.enabled = true;
                self.start_at(address, service, at);
                // It runs what was confirmed there.
                self.untouch(address, service);
            }
            Some(_) | None => {
                (held.last, held.enabled) = (Some(Verb::Stop), false);
                held.stop_run(at, false);
            }
        }
    }

    /// Starts what the unit names, now or at a later boot; says whether systemd could not.
    fn start_at(&mut self, address: &str, service: &ServiceKey, at: Moment) -> bool {
        let host = self.hosts.get_mut(address).expect("units start on hosts that are there");
        let pid = host.draw_pid();
        let held = host.services.entry(service.clone()).or_default();
        held.stop_run(at, false);
        let Some(revision) = held.unit.revision() else { return true };
        let Some((staged, _)) = held.staged(revision) else { return true };
        let program = Program {
            address: address.to_owned(),
            service: service.clone(),
            revision,
            release: staged.release,
            spec: Arc::clone(&staged.spec),
        };
        let behaviour = match (self.behaviours.get(&program.release), &self.chooser) {
            (Some(behaviour), _) => behaviour.clone(),
            (None, Some(chooser)) => chooser(&program),
            (None, None) => Behaviour::default(),
        };
        let fails = behaviour.start == Start::Fails;
        let policy = self.timing.restart;
        let life = Life { start: at, program, behaviour, pid, restarts: 0, before: None, policy };
        held.run = Run::Alive(Box::new(life));
        fails
    }

    /// A host loses power, and can be reached again after `dark`; what starts at boot starts then.
    pub(super) fn reboot(&mut self, address: &str, now: Moment, dark: Duration) {
        self.agenda.retain(|_, due| due.address != address);
        let Some(host) = self.hosts.get_mut(address) else { return };
        let starting = host.reboot(now, now + dark);
        let armed: Vec<ServiceKey> = host.services.keys().cloned().collect();
        for service in starting {
            self.start_at(address, &service, now + dark);
        }
        for service in armed {
            self.wait_for_confirmation(address, &service, now);
        }
    }

    /// A hand other than ours.
    pub(super) fn edit(&mut self, address: &str, service: &ServiceKey, edit: Edit, now: Moment) {
        if edit == Edit::Start && matches!(self.held(address, service).run, Run::Idle { .. }) {
            self.start_at(address, service, now);
        }
        self.held(address, service).edit(edit, now);
    }

    /// From here on a host that does not serve is down by our hand, if it served a confirmed revision until now.
    fn touch(&mut self, address: &str, service: &ServiceKey, at: Moment) {
        if self.watch == Watch::Nothing {
            return;
        }
        let host = &self.hosts[address];
        let confirmed = host.services.get(service).is_some_and(|held| held.good.is_some());
        if confirmed && host.serves(service, at) {
            self.touched.entry(service.clone()).or_default().insert(address.to_owned());
        }
    }

    fn untouch(&mut self, address: &str, service: &ServiceKey) {
        if let Some(touched) = self.touched.get_mut(service) {
            touched.remove(address);
            if touched.is_empty() {
                self.touched.remove(service);
            }
        }
    }

    fn measure(&mut self, service: &ServiceKey, at: Moment) {
        let down = self.down(service, at).len();
        if down > 0 {
            let most = self.max_down.entry(service.clone()).or_default();
            *most = down.max(*most);
        }
    }

    /// The addresses of the hosts that are down by our hand.
    pub(super) fn down(&self, service: &ServiceKey, at: Moment) -> BTreeSet<String> {
        let touched = self.touched.get(service).into_iter().flatten();
        touched.filter(|address| !self.hosts[*address].serves(service, at)).cloned().collect()
    }

    /// The most hosts that were down by our hand at once.
    pub(super) fn max_down(&self, service: &ServiceKey) -> usize {
        self.max_down.get(service).copied().unwrap_or(0)
    }

    /// Counts from what is down now.
    pub(super) fn forget_max_down(&mut self, service: &ServiceKey, at: Moment) {
        self.max_down.remove(service);
        self.measure(service, at);
    }

    /// The way from a caller to a host.
    pub(super) fn link(&self, caller: Caller, address: &str) -> Link {
        let own = self.links.get(&(Some(caller), address.to_owned())).filter(|link| **link != Link::Up);
        own.or_else(|| self.links.get(&(None, address.to_owned()))).cloned().unwrap_or_default()
    }

    /// Half of the time that a call takes.
    pub(super) fn half_way(&self, address: &str, call: Call) -> Duration {
        self.pace.as_ref().map_or(self.timing.latency, |pace| pace(address, call)) / 2
    }

    /// Notes a call in the log, and gives it its number.
    pub(super) fn log(&mut self, mut called: Called) -> Called {
        called.number = self.next_call;
        self.next_call += 1;
        if self.watch == Watch::Nothing {
            return called;
        }
        self.calls.insert(called.number, called.clone());
        while self.calls.len() > LOG_LENGTH {
            self.calls.pop_first();
        }
        called
    }

    /// The call with this number, if the log still has it.
    pub(super) fn called(&mut self, number: u64) -> Option<&mut Called> {
        self.calls.get_mut(&number)
    }

    /// The log.
    pub(super) fn calls(&self) -> impl Iterator<Item = &Called> {
        self.calls.values()
    }

    /// Empties the log.
    pub(super) fn clear_calls(&mut self) {
        self.calls.clear();
    }
}

impl Held {
    /// Lets the lock go.
    fn end_step(&mut self) {
        let Some(Running { number, verb, ends: _, outcome }) = self.running.take() else { return };
        if let Some(record) = self.steps.get_mut(&verb) {
            record.state = final_state(verb, &outcome).unwrap_or(record.state);
        }
        self.ended.insert(number, outcome);
        // Callers that went away never fetch theirs.
        while self.ended.len() > UNHEARD {
            self.ended.pop_first();
        }
    }

    /// What would be gone back from: the unit is still at what was activated, by this activation or by one before that was
    /// overtaken, and nobody has confirmed it.
    fn unconfirmed(&self, armed: &Armed) -> Option<RevisionNumber> {
        self.unit.revision().filter(|runs| Some(*runs) != self.good.or(armed.back))
    }

    /// Whether the dead man's switch will find something to go back from.
    pub(super) fn goes_back(&self) -> bool {
        self.armed.is_some_and(|armed| self.unconfirmed(&armed).is_some())
    }

    /// Voids an activation, so that no confirmation is taken any more; says whether there is anything to go back from.
    fn void(&mut self, armed: &Armed) -> bool {
        let Some(runs) = self.unconfirmed(armed) else { return false };
        for verb in SWITCHING {
            if let Some(record) = self.steps.get_mut(&verb)
                && record.revision == runs
                && matches!(record.state, StepState::Ok | StepState::Begun)
            {
                record.state = StepState::Voided;
            }
        }
        true
    }

    fn install(&mut self, revision: RevisionNumber, spec: Arc<ServiceSpec>, manifest: Manifest) {
        let release = manifest.digest();
        self.releases.insert(release, Release { manifest, damage: BTreeMap::new() });
        self.revisions.insert(revision, Staged { release, spec, changed: false });
        self.incoming = None;
    }

    fn confirm(&mut self, revision: RevisionNumber, keep: &BTreeSet<RevisionNumber>) {
        self.good = Some(revision);
        self.armed = None;
        self.revisions.retain(|number, _| *number == revision || keep.contains(number));
        let named: BTreeSet<ReleaseDigest> = self.revisions.values().map(|staged| staged.release).collect();
        self.releases.retain(|digest, _| named.contains(digest));
        self.incoming = None;
    }

    /// The fence stays, as do what the log holds and, unless it is purged, the data.
    fn erase(&mut self, data: DataFate) {
        *self = Self {
            sequence: self.sequence,
            steps: std::mem::take(&mut self.steps),
            ended: std::mem::take(&mut self.ended),
            last: self.last,
            drop_ins: std::mem::take(&mut self.drop_ins),
            running: self.running.take(),
            journal: std::mem::take(&mut self.journal),
            data: self.data && data == DataFate::Keep,
            ..Self::default()
        };
    }
}

/// The name that a payload goes by: the same release and revision are sent as the same bytes.
pub(super) fn payload_name(revision: RevisionNumber, release: &ReleaseDigest) -> PayloadDigest {
    PayloadDigest::of(format!("{revision} {release}").as_bytes())
}
