//! What a host in memory holds, and what a look at it finds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use windlass_crds::digest::{PayloadDigest, ReleaseDigest};
use windlass_crds::host::HostKey;
use windlass_crds::id::{BootId, ClusterId, MachineId, RevisionNumber, Sequence, ServiceKey};
use windlass_crds::manifest::{Entry, Manifest};
use windlass_crds::observation::{
    ActiveState, Drift, HealthAnswer, HostFacts, HostObservation, Listener, RunState, Scope, ServiceObservation,
    StepRecord, StepState, UnitFile,
};
use windlass_crds::service::ServiceSpec;
use windlass_crds::step::{StepError, Verb};

use super::behaviour::{End, Life, Moment, PID_STRIDE, Phase};
use super::faults::{Edit, FileChange, HostChange, Waiting};
use super::steps::{Armed, SWITCHING};
use crate::fleet::{Adoption, Probe, Question, Scrutiny};

/// What TLS finds where plaintext is spoken.
const NO_TLS: &str = "it does not answer with TLS; `transport: https` needs it";

/// What a host is from the beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSettings {
    /// Whose systemd runs the units.
    pub scope: Scope,
    /// The login where the target names none.
    pub user: String,
    /// The key that it shows; a target that pins others does not get in. Without one, any pin will do.
    pub host_key: Option<HostKey>,
    /// Its disk, in KiB.
    pub capacity_kib: u64,
    /// The version of its systemd.
    pub systemd: u32,
}

impl Default for HostSettings {
    /// Root on a machine with Debian 12's systemd and 8 GiB.
    fn default() -> Self {
        Self { scope: Scope::System, user: "root".to_owned(), host_key: None, capacity_kib: 8 << 20, systemd: 252 }
    }
}

/// How long a host has been up when the fleet begins.
const UPTIME: Duration = Duration::from_secs(1000);
/// What a host's monotonic clock shows when it can be reached again after a boot.
const BOOT: Duration = Duration::from_secs(5);
/// What a unit's main process ends with that is stopped, or killed (signal(7)).
const SIGTERM: i32 = 15;
/// See [`SIGTERM`].
const SIGKILL: i32 = 9;
/// At most so many files are named in a drift, as `Drift::FilesChanged` says.
const FILES_NAMED: usize = 10;
/// So many lines of each unit are kept: more than anybody asks for.
const JOURNAL: usize = 1000;

/// A host.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) settings: HostSettings,
    pub(super) machine: MachineId,
    pub(super) boot: BootId,
    boots: u32,
    pub(super) cluster: Option<ClusterId>,
    pub(super) disk_full: bool,
    occupied: BTreeSet<NonZeroU16>,
    hides_listeners: bool,
    pub(super) refuses_forwarding: bool,
    /// When it could or can be reached first since its last boot.
    pub(super) up: Moment,
    next_pid: u32,
    pub(super) services: BTreeMap<ServiceKey, Held>,
    pub(super) mishaps: VecDeque<Waiting>,
}

/// What a host holds of one service.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) sequence: Sequence,
    pub(super) steps: BTreeMap<Verb, StepRecord>,
    /// Its dead man's switch, where it waits for a confirmation.
    pub(super) armed: Option<Armed>,
    pub(super) running: Option<Running>,
    /// How steps ended whose callers have not heard yet, by the number that they were begun under.
    pub(super) ended: BTreeMap<u64, Result<(), StepError>>,
    pub(super) releases: BTreeMap<ReleaseDigest, Release>,
    pub(super) revisions: BTreeMap<RevisionNumber, Staged>,
    pub(super) unit: UnitFile,
    pub(super) drop_ins: BTreeSet<String>,
    pub(super) needs_reload: bool,
    pub(super) enabled: bool,
    pub(super) good: Option<RevisionNumber>,
    pub(super) incoming: Option<(PayloadDigest, u64)>,
    /// Whether its folder is there, be it empty.
    pub(super) home: bool,
    pub(super) data: bool,
    pub(super) run: Run,
    /// Which step decided last whether the unit runs.
    pub(super) last: Option<Verb>,
    pub(super) journal: VecDeque<String>,
}

/// A step that is being done, and holds the lock.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) number: u64,
    pub(super) verb: Verb,
    pub(super) ends: Moment,
    /// How it will have ended.
    pub(super) outcome: Result<(), StepError>,
}

/// A release.
#[derive(Debug)]
pub(super) struct Release {
    pub(super) manifest: Manifest,
    pub(super) damage: BTreeMap<String, FileChange>,
}

/// A revision.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) release: ReleaseDigest,
    pub(super) spec: Arc<ServiceSpec>,
    pub(super) changed: bool,
}

/// What the unit is at.
#[derive(Debug)]
pub(super) enum Run {
    /// It was never started, or was stopped.
    Idle {
        /// When it was active last, and how it ended.
        last: Option<(Moment, End)>,
        /// Dead, or failed.
        active: ActiveState,
    },
    /// It was started and not stopped; its program may have ended by itself.
    Alive(Box<Life>),
}

impl Default for Run {
    fn default() -> Self {
        Self::Idle { last: None, active: ActiveState::Inactive }
    }
}

impl Host {
    /// A host that has been up for a while.
    pub(super) fn new(address: &str, settings: HostSettings, now: Moment) -> Self {
        let machine = PayloadDigest::of(address.as_bytes()).to_string()[..32].to_owned();
        let mut host = Self {
            settings,
            machine: machine.try_into().expect("32 hexadecimal digits are a machine id"),
            boot: "00000000-0000-0000-0000-000000000000".parse().expect("it is a boot id"),
            boots: 0,
            cluster: None,
            disk_full: false,
            occupied: BTreeSet::new(),
            hides_listeners: false,
            refuses_forwarding: false,
            up: now,
            next_pid: 0,
            services: BTreeMap::new(),
            mishaps: VecDeque::new(),
        };
        host.boot_again(now);
        host
    }

    /// Another boot id, and process ids from the beginning.
    fn boot_again(&mut self, up: Moment) {
        let machine = &self.machine.as_str()[..8];
        self.boot = format!("{machine}-0000-4000-8000-{:012x}", self.boots).parse().expect("it is a boot id");
        self.boots += 1;
        self.up = up;
        self.next_pid = 300;
    }

    /// Its monotonic clock, in microseconds.
    pub(super) fn monotonic(&self, at: Moment) -> u64 {
        let base = if self.boots == 1 { UPTIME } else { BOOT };
        u64::try_from((at + base).saturating_sub(self.up).as_micros()).unwrap_or(u64::MAX)
    }

    /// The process ids of another unit.
    pub(super) fn draw_pid(&mut self) -> u32 {
        self.next_pid += PID_STRIDE;
        self.next_pid
    }

    /// Loses power, and is back at `up`: what was under way ends, and nobody knows how.
    ///
    /// Returns the services whose units start at boot.
    pub(super) fn reboot(&mut self, now: Moment, up: Moment) -> Vec<ServiceKey> {
        self.boot_again(up);
        let mut starting = Vec::new();
        for (service, held) in &mut self.services {
            held.running = None;
            held.needs_reload = false;
            held.end_run(now);
            held.run = Run::default();
            if held.enabled && held.unit.revision().is_some() {
                starting.push(service.clone());
            }
        }
        starting
    }

    /// Free space, in KiB.
    pub(super) fn free_kib(&self) -> u64 {
        if self.disk_full {
            return 0;
        }
        let releases = self.services.values().flat_map(|held| held.releases.values());
        let used: u64 = releases.map(|release| release.manifest.size().div_ceil(1024)).sum();
        self.settings.capacity_kib.saturating_sub(used)
    }

    /// What a look finds; `user` is the login that looks.
    pub(super) fn observe(
        &self,
        service: &ServiceKey,
        scrutiny: Scrutiny,
        user: Option<&str>,
        now: Moment,
    ) -> HostObservation {
        let user = user.unwrap_or(&self.settings.user).to_owned();
        let remote_dir = match self.settings.scope {
            Scope::System => "/opt/windlass".to_owned(),
            Scope::User => format!("/home/{user}/.local/share/windlass"),
        };
        let facts = HostFacts {
            machine: self.machine.clone(),
            boot: self.boot.clone(),
            scope: self.settings.scope,
            user,
            cluster: self.cluster.clone(),
            remote_dir,
            systemd: self.settings.systemd,
        };
        let service = match self.services.get(service) {
            Some(held) => held.observe(scrutiny, now, |at| self.monotonic(at)),
            None => Held::default().observe(scrutiny, now, |at| self.monotonic(at)),
        };
        HostObservation { facts, service }
    }

    /// What systemd says of a service's unit.
    pub(super) fn run_state(&self, service: &ServiceKey, now: Moment) -> RunState {
        match self.services.get(service) {
            Some(held) => held.run_state(now, |at| self.monotonic(at)),
            None => Held::default().run_state(now, |at| self.monotonic(at)),
        }
    }

    /// The service whose program listens on a port, and its age: of several that would, the one that was there first.
    pub(super) fn listener_on(&self, port: NonZeroU16, now: Moment) -> Option<(&ServiceKey, &Life, Duration)> {
        let listening = self.services.iter().filter_map(|(key, held)| {
            let (life, age) = held.alive(now)?;
            let bound = life.program.spec.port() == Some(port) && life.behaviour.listens_at(age);
            bound.then_some((key, life, age))
        });
        listening.reduce(|first, other| if other.2 > first.2 { other } else { first })
    }

    /// Whether a program that runs keeps everybody from the host.
    pub(super) fn is_severed(&self, now: Moment) -> bool {
        self.services.values().any(|held| held.alive(now).is_some_and(|(life, _)| life.behaviour.severs))
    }

    /// Whether some program that we know nothing of has the port.
    pub(super) fn is_occupied(&self, port: NonZeroU16) -> bool {
        self.occupied.contains(&port)
    }

    /// Who listens on a port, as seen from a service.
    pub(super) fn listener(&self, service: &ServiceKey, port: NonZeroU16, now: Moment) -> Listener {
        if self.hides_listeners {
            return Listener::Hidden;
        }
        if self.is_occupied(port) {
            return Listener::Another;
        }
        match self.listener_on(port, now) {
            Some((key, ..)) if key == service => Listener::Ours,
            Some(_) => Listener::Another,
            None => Listener::Nobody,
        }
    }

    /// What is answered to a health question, and after how long.
    pub(super) fn ask(&self, question: &Question, now: Moment) -> (HealthAnswer, Duration) {
        let silent = |detail: &str| HealthAnswer::Silent { detail: detail.to_owned() };
        let answer = if self.refuses_forwarding {
            HealthAnswer::Unknown { detail: "administratively prohibited: open failed".to_owned() }
        } else if self.is_occupied(question.port) {
            match &question.probe {
                Probe::Http(_) => HealthAnswer::Http { status: 200, body: "another program".to_owned() },
                Probe::Connect => HealthAnswer::Open,
                Probe::Tls { .. } => silent(NO_TLS),
            }
        } else {
            let Some((_, life, age)) = self.listener_on(question.port, now) else {
                // A forward to a closed port connects, and is reset then.
                return (silent("connection reset"), Duration::ZERO);
            };
            let path = match (&question.probe, &life.behaviour.certificate) {
                (Probe::Connect, _) => None,
                (Probe::Http(path), None) => Some(path),
                (Probe::Http(_), Some(_)) => return (silent("connection reset"), Duration::ZERO),
                (Probe::Tls { .. }, None) => return (silent(NO_TLS), Duration::ZERO),
                (Probe::Tls { path, issued }, Some(name)) if issued.to == *name => path.as_ref(),
                (Probe::Tls { issued, .. }, Some(_)) => {
                    return (silent(&format!("its certificate is not for {}", issued.to)), Duration::ZERO);
                }
            };
            match (path, life.behaviour.status_at(age)) {
                (None, _) => HealthAnswer::Open,
                (Some(_), Some(status)) => {
                    HealthAnswer::Http { status, body: format!("revision {}", life.program.revision) }
                }
                (Some(_), None) => {
                    let seconds = question.timeout.as_secs_f64();
                    return (silent(&format!("no answer within {seconds} s")), question.timeout);
                }
            }
        };
        (answer, Duration::ZERO)
    }

    /// Whether a service's program runs, and answers well where it has a port.
    pub(super) fn serves(&self, service: &ServiceKey, now: Moment) -> bool {
        let Some((life, age)) = self.services.get(service).and_then(|held| held.alive(now)) else { return false };
        if self.is_severed(now) {
            return false;
        }
        let Some(port) = life.program.spec.port() else { return now >= self.up };
        let well = life.behaviour.status_at(age).is_some_and(|status| (200..400).contains(&status));
        let ours = !self.is_occupied(port) && self.listener_on(port, now).is_some_and(|(key, ..)| key == service);
        now >= self.up && ours && well
    }

    /// Makes it another store's; nobody's is left to the first stamp.
    pub(super) fn adopt(&mut self, adoption: &Adoption) -> Result<(), StepError> {
        match self.cluster.clone() {
            Some(owner) if owner != adoption.from && owner != adoption.to => Err(StepError::OwnedByAnother { owner }),
            Some(_) => {
                self.cluster = Some(adoption.to.clone());
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Changes the host itself.
    pub(super) fn change(&mut self, change: HostChange) {
        match change {
            HostChange::DiskFull => self.disk_full = true,
            HostChange::DiskFree => self.disk_full = false,
            HostChange::Machine(machine) => self.machine = machine,
            HostChange::Cluster(cluster) => self.cluster = cluster,
            HostChange::Occupied(port) => {
                self.occupied.insert(port);
            }
            HostChange::Vacated(port) => {
                self.occupied.remove(&port);
            }
            HostChange::HidesListeners => self.hides_listeners = true,
            HostChange::RefusesForwarding => self.refuses_forwarding = true,
        }
    }
}

impl Held {
    /// The program that runs, and its age.
    pub(super) fn alive(&self, now: Moment) -> Option<(&Life, Duration)> {
        match &self.run {
            Run::Idle { .. } => None,
            Run::Alive(life) => life.age(now).map(|age| (&**life, age)),
        }
    }

    /// Whether its program keeps everybody from the host once it runs.
    pub(super) fn severs(&self) -> bool {
        matches!(&self.run, Run::Alive(life) if life.behaviour.severs)
    }

    /// Keeps what the program has logged, when it is about to end for good.
    pub(super) fn end_run(&mut self, now: Moment) {
        if let Run::Alive(life) = &self.run {
            self.journal.extend(life.logs(now, JOURNAL));
            let surplus = self.journal.len().saturating_sub(JOURNAL);
            self.journal.drain(..surplus);
        }
    }

    /// The unit is stopped; `killed` where it had to be.
    pub(super) fn stop_run(&mut self, now: Moment, killed: bool) {
        self.end_run(now);
        let Run::Alive(life) = &self.run else { return };
        // A unit that has failed stays so; one that waits for its next start is dead, and keeps its result.
        let (since, end, active) = match life.phase(now) {
            Phase::Running { since, .. } if killed => {
                (since, End { result: "timeout", status: SIGKILL }, ActiveState::Failed)
            }
            Phase::Running { since, .. } => (since, End { result: "success", status: SIGTERM }, ActiveState::Inactive),
            Phase::Waiting { since, end, .. } => (since, end, ActiveState::Inactive),
            Phase::GivenUp { since, end, .. } => (since, end, ActiveState::Failed),
        };
        self.journal.push_back(if killed { "Stopped: killed after its time." } else { "Stopped." }.to_owned());
        self.run = Run::Idle { last: Some((since, end)), active };
    }

    /// The last lines of its log, oldest first.
    pub(super) fn logs(&self, now: Moment, lines: usize) -> Vec<String> {
        let mut logged: Vec<String> = self.journal.iter().cloned().collect();
        if let Run::Alive(life) = &self.run {
            logged.extend(life.logs(now, lines));
        }
        let surplus = logged.len().saturating_sub(lines);
        logged.split_off(surplus)
    }

    /// What systemd says.
    pub(super) fn run_state(&self, now: Moment, monotonic: impl Fn(Moment) -> u64) -> RunState {
        let state = match &self.run {
            Run::Alive(life) => life.run_state(now, monotonic),
            Run::Idle { last, active } => {
                let (since, end) = match last {
                    Some((since, end)) => (monotonic(*since), *end),
                    None => (0, End { result: "success", status: 0 }),
                };
                RunState {
                    active: *active,
                    sub: if *active == ActiveState::Failed { "failed" } else { "dead" }.to_owned(),
                    since,
                    result: end.result.to_owned(),
                    exit_status: end.status,
                    ..RunState::default()
                }
            }
        };
        let enabled = self.enabled && self.unit != UnitFile::Absent;
        RunState { needs_reload: self.needs_reload, enabled, ..state }
    }

    /// Whether a revision is there whole, and its release with it.
    pub(super) fn staged(&self, revision: RevisionNumber) -> Option<(&Staged, &Release)> {
        let staged = self.revisions.get(&revision)?;
        Some((staged, self.releases.get(&staged.release)?))
    }

    /// Whether it has taken back its last switch by itself.
    pub(super) fn is_voided(&self) -> bool {
        self.last_switch().is_some_and(|record| record.state == StepState::Voided)
    }

    /// The record of the last switch, whichever way it was.
    pub(super) fn last_switch(&self) -> Option<&StepRecord> {
        SWITCHING.iter().filter_map(|verb| self.steps.get(verb)).max_by_key(|record| record.sequence)
    }

    fn observe(&self, scrutiny: Scrutiny, now: Moment, monotonic: impl Fn(Moment) -> u64) -> ServiceObservation {
        let whole = self.revisions.iter().filter(|(_, staged)| self.releases.contains_key(&staged.release));
        ServiceObservation {
            sequence: self.sequence,
            unit: self.unit,
            good: self.good,
            revisions: whole.map(|(number, staged)| (*number, staged.release)).collect(),
            releases: self.releases.keys().copied().collect(),
            units: BTreeSet::new(),
            run: self.run_state(now, monotonic),
            steps: self.steps.clone(),
            drift: self.drift(scrutiny, now),
            incoming: self.incoming,
            present: self.home || self.unit != UnitFile::Absent,
        }
    }

    fn drift(&self, scrutiny: Scrutiny, now: Moment) -> BTreeSet<Drift> {
        let mut drift = BTreeSet::new();
        if matches!(self.unit, UnitFile::Changed(_) | UnitFile::Foreign) {
            drift.insert(Drift::UnitChanged);
        }
        if !self.drop_ins.is_empty() && self.unit != UnitFile::Absent {
            drift.insert(Drift::DropIn { paths: self.drop_ins.iter().cloned().collect() });
        }
        let Some(revision) = self.unit.revision() else { return drift };
        match self.staged(revision) {
            None => {
                drift.insert(Drift::RevisionChanged);
            }
            Some((staged, release)) => {
                if staged.changed {
                    drift.insert(Drift::RevisionChanged);
                }
                let seen = |how: FileChange| scrutiny == Scrutiny::Full || how != FileChange::Hidden;
                let damage = release.damage.iter().filter(|(_, how)| seen(**how));
                let paths: Vec<String> = damage.map(|(path, _)| path.clone()).take(FILES_NAMED).collect();
                if !paths.is_empty() {
                    drift.insert(Drift::FilesChanged { paths });
                }
            }
        }
        if !self.enabled {
            drift.insert(Drift::NotEnabled);
        }
        let ended = match &self.run {
            Run::Idle { .. } => true,
            Run::Alive(life) => matches!(life.phase(now), Phase::GivenUp { .. }),
        };
        if ended && !matches!(self.last, Some(Verb::Stop | Verb::Remove)) {
            drift.insert(Drift::Stopped);
        }
        drift
    }

    /// Somebody else's hand on what is stored; what concerns what runs is the world's.
    pub(super) fn edit(&mut self, edit: Edit, now: Moment) {
        match edit {
            Edit::File { path, how } => self.damage(path, how),
            Edit::Unit => {
                if let Some(revision) = self.unit.revision() {
                    self.unit = UnitFile::Changed(revision);
                }
                self.needs_reload = true;
            }
            Edit::ForeignUnit => (self.unit, self.needs_reload) = (UnitFile::Foreign, true),
            Edit::NoUnit => (self.unit, self.needs_reload) = (UnitFile::Absent, true),
            Edit::DropIn { path } => {
                self.drop_ins.insert(path);
                self.needs_reload = true;
            }
            Edit::Revision => {
                if let Some(staged) = self.unit.revision().and_then(|revision| self.revisions.get_mut(&revision)) {
                    staged.changed = true;
                }
            }
            Edit::Stop => self.stop_run(now, false),
            Edit::Disable => self.enabled = false,
            Edit::Kill => self.kill(now),
            Edit::LoseFence => {
                self.sequence = Sequence::default();
                // The timer is none of it, and knows from the link to what is good that nobody has confirmed anything.
                self.steps.clear();
                self.last = None;
            }
            Edit::Wipe => {
                self.stop_run(now, false);
                let journal = std::mem::take(&mut self.journal);
                *self = Self { journal, drop_ins: std::mem::take(&mut self.drop_ins), ..Self::default() };
            }
            Edit::Behave(behaviour) => {
                if let Run::Alive(life) = &mut self.run {
                    life.behaviour = behaviour;
                }
            }
            Edit::Start => {}
        }
    }

    /// A file of the release that the unit names is changed, and with it every link to it where it is written in place.
    fn damage(&mut self, path: String, how: FileChange) {
        let release =
            self.unit.revision().and_then(|revision| self.revisions.get(&revision)).map(|staged| staged.release);
        let Some(release) = release.and_then(|digest| self.releases.get_mut(&digest)) else { return };
        let entry = release.manifest.entries.iter().find(|(known, _)| known.as_str() == path).map(|(_, entry)| entry);
        let file = entry.cloned().filter(|entry| matches!(entry, Entry::File { .. }));
        release.damage.insert(path, how);
        let Some(file) = file.filter(|_| how != FileChange::Replaced) else { return };
        for release in self.releases.values_mut() {
            let links = release.manifest.entries.iter().filter(|(_, entry)| **entry == file);
            let paths: Vec<String> = links.map(|(path, _)| path.as_str().to_owned()).collect();
            release.damage.extend(paths.into_iter().map(|path| (path, how)));
        }
    }

    /// The main process is killed: systemd starts another after a while.
    fn kill(&mut self, now: Moment) {
        let Run::Alive(life) = &self.run else { return };
        let Phase::Running { index, since } = life.phase(now) else { return };
        let mut next = Life {
            start: now + life.policy.after,
            pid: life.pid_of(index) + 1,
            restarts: life.restarts + index,
            before: Some((since, End { result: "signal", status: SIGKILL })),
            ..(**life).clone()
        };
        next.restarts += 1;
        self.end_run(now);
        self.journal
            .push_back(format!("{}: Main process exited, code=killed, status=9/KILL", next.program.service.unit()));
        self.run = Run::Alive(Box::new(next));
    }
}
