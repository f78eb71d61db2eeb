//! A world for the planner: records, hosts and time; and a driver that does what is planned, act by act.

use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use windlass_crds::digest::ReleaseDigest;
use windlass_crds::host::Target;
use windlass_crds::id::{Generation, HostId, RevisionNumber, Sequence, ServiceKey};
use windlass_crds::observation::{HostFacts, HostObservation, Scope};
use windlass_crds::record::{
    Accepted, CanaryProgress, Evidence, HoldCause, Owned, OwnedHost, Purpose, Revision, Rollout, RolloutState,
};
use windlass_crds::record::{SourceOrigin, StepFailure};
use windlass_crds::service::{Canary, CanaryStep, Health as Probe, MaxUnavailable, Network, Promotion, Runtime};
use windlass_crds::service::{RuntimeTarget, ServiceSpec, Source, Strategy};
use windlass_crds::span::Span;
use windlass_crds::step::{ContactError, Step, StepError, Verb};
use windlass_planner::hold::ails;
use windlass_planner::input::RemovalGate;
use windlass_planner::input::{
    Activity, Complaint, Files, Goal, Health, HostInput, HostView, Inputs, Placement, UnderWay,
};
use windlass_planner::plan::{Act, Plan, RolloutChange, plan};
use windlass_planner::status::Work;
use windlass_planner::target::Aim;
use windlass_planner::{abort, canary, record};

use crate::machine::{Done, Errand, Link, Machine};
use crate::notation;

/// More turns than any story takes: whatever needs more goes round in circles.
const TURNS: usize = 300;

/// The files that a letter stands for.
pub(crate) fn release(letter: char) -> ReleaseDigest {
    ReleaseDigest::of(letter.to_string().as_bytes())
}

fn host_id(name: &str) -> HostId {
    name.parse().expect(name)
}

fn origin() -> SourceOrigin {
    SourceOrigin {
        machine: "0123456789abcdef".parse().expect("hexadecimal"),
        path: "/srv/web".to_owned(),
        commit: None,
    }
}

/// A web service.
pub(crate) fn spec() -> ServiceSpec {
    ServiceSpec {
        placement: windlass_crds::service::Placement::default(),
        source: Source {
            path: Some("/srv/web".to_owned()),
            git: None,
            repo: None,
            include: Vec::new(),
            exclude: Vec::new(),
            change_detection: windlass_crds::service::ChangeDetection::default(),
        },
        runtime: Runtime {
            target: RuntimeTarget::Python,
            entry_point: "server.py".parse().expect("a path"),
            args: Vec::new(),
            env: BTreeMap::new(),
            env_from: Vec::new(),
            install: windlass_crds::service::Install::Auto,
            user: None,
            limits: None,
        },
        network: Some(Network {
            port: NonZeroU16::new(8080).expect("not zero"),
            transport: None,
            certificate: None,
            auth: None,
        }),
        lifecycle: windlass_crds::service::Lifecycle::default(),
        hooks: windlass_crds::service::Hooks::default(),
        health: Some(Probe::default()),
        rollout: windlass_crds::service::Rollout::default(),
        deletion_policy: windlass_crds::service::DeletionPolicy::Remove,
        purge_data: false,
    }
}

/// Everything that the planner decides from, and what would come of it.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) now: Timestamp,
    pub(crate) term: u64,
    pub(crate) fresh_term: bool,
    pub(crate) spec: ServiceSpec,
    pub(crate) declared: bool,
    /// The letter of the files; none while the source is away.
    pub(crate) files: Option<char>,
    pub(crate) complaint: Option<Complaint>,
    pub(crate) owned: Owned,
    pub(crate) revisions: BTreeMap<RevisionNumber, Revision>,
    pub(crate) rollout: Option<Rollout>,
    pub(crate) hosts: BTreeMap<String, Machine>,
    pub(crate) removals: RemovalGate,
    /// The store's counter.
    pub(crate) sequence: u64,
    /// Which files are unhealthy, and where; `*` is everywhere.
    pub(crate) bad: BTreeSet<(String, char)>,
    /// Steps that fail once.
    pub(crate) failing: BTreeMap<(String, Verb), StepError>,
    /// Hosts that are lost once they have done this, and before they say so.
    pub(crate) losing: BTreeMap<String, Verb>,
    /// What happened.
    pub(crate) log: Vec<String>,
    /// The zones or labels of hosts.
    pub(crate) groups: BTreeMap<String, String>,
    /// A host was asked in the last turn, and answered something new.
    news: bool,
    /// Whether `maxUnavailable` is watched.
    pub(crate) watched: bool,
}

impl World {
    /// Hosts as [`notation`] has them, and revisions 1 to 4 with files A to D; A is declared.
    pub(crate) fn of(hosts: &str) -> Self {
        let hosts: BTreeMap<String, Machine> = notation::hosts(hosts).into_iter().collect();
        let spec = spec();
        let service_spec = spec.clone();
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let revision = |number: u64| Revision {
            number: RevisionNumber(number),
            spec: Box::new(service_spec.clone()),
            release: release(notation::letter(number)),
            workload: service_spec.workload(&release(notation::letter(number))),
            created: now,
            source: origin(),
        };
        let mut world = Self {
            now,
            term: 1,
            fresh_term: false,
            spec,
            declared: true,
            files: Some('A'),
            complaint: None,
            owned: Owned { last_revision: RevisionNumber(4), ..Owned::default() },
            revisions: (1..=4).map(|number| (RevisionNumber(number), revision(number))).collect(),
            rollout: None,
            hosts,
            removals: RemovalGate::Open,
            sequence: notation::SEEN,
            bad: BTreeSet::new(),
            failing: BTreeMap::new(),
            losing: BTreeMap::new(),
            log: Vec::new(),
            groups: BTreeMap::new(),
            news: false,
            watched: true,
        };
        for (name, machine) in &world.hosts {
            let owned = OwnedHost {
                target: target(name).into(),
                machine: Some(machine.id.parse().expect("hexadecimal")),
                former: Vec::new(),
                confirmed: machine.seen.good.is_some(),
                in_doubt: false,
                carries: machine.seen.unit.revision(),
            };
            let never_seen = machine.seen.unit.revision().is_none() && machine.link != Link::Up;
            if !never_seen {
                world.owned.hosts.insert(host_id(name), owned);
            }
        }
        world
    }

    /// Hosts without anything, and nothing recorded.
    pub(crate) fn empty(names: &str) -> Self {
        let hosts: Vec<String> = names.split_whitespace().map(|name| format!("{name}=-^0")).collect();
        let mut world = Self::of(&hosts.join(" "));
        world.owned = Owned::default();
        world.revisions.clear();
        world.sequence = 0;
        world
    }

    /// What is declared has these files.
    pub(crate) fn declare(mut self, files: char) -> Self {
        self.set_files(files);
        self
    }

    pub(crate) fn set_files(&mut self, files: char) {
        self.files = Some(files);
        self.log.push(format!("declared {files}"));
    }

    /// These revisions were good, the last one last.
    pub(crate) fn good<const N: usize>(mut self, good: [u64; N]) -> Self {
        self.owned.good = good.map(RevisionNumber).to_vec();
        self
    }

    /// A rollout goes on under sequence 5.
    pub(crate) fn rolling(mut self, purpose: Purpose, revision: u64) -> Self {
        let revision = Some(RevisionNumber(revision)).filter(|revision| revision.0 > 0);
        self.rollout = Some(Rollout::begin(Sequence(notation::SEEN), purpose, revision, self.term, self.now));
        self
    }

    /// The rollout has touched these.
    pub(crate) fn touched(mut self, names: &str) -> Self {
        let rollout = self.rollout.as_mut().expect("a rollout");
        rollout.touched = names.split_whitespace().map(host_id).collect();
        self
    }

    pub(crate) fn ended(mut self, state: RolloutState) -> Self {
        self.rollout.as_mut().expect("a rollout").state = state;
        self
    }

    pub(crate) fn max_unavailable(mut self, text: &str) -> Self {
        self.spec.rollout.max_unavailable = portion(text);
        self
    }

    /// Changes anything else.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Files that are unhealthy on a host, or on `*`.
    pub(crate) fn bad(mut self, host: &str, files: char) -> Self {
        self.bad.insert((host.to_owned(), files));
        self
    }

    pub(crate) fn host(&mut self, name: &str) -> &mut Machine {
        self.hosts.get_mut(name).expect(name)
    }

    /// A person goes back to a revision.
    pub(crate) fn undo(&mut self, to: u64) {
        let files = self.files.expect("files");
        let declared = self.revisions.values().find(|revision| revision.release == release(files)).expect("recorded");
        let cause = windlass_crds::record::BlockCause::Undone { to: RevisionNumber(to) };
        let blocked = windlass_crds::record::Blocked {
            spec: self.spec.digest(),
            release: declared.release,
            revision: declared.number,
            cause,
        };
        record::block(&mut self.owned, blocked);
        record::decided(&mut self.owned, self.now);
        self.log.push(format!("undo to {to}"));
    }

    /// A person wants what is blocked to be tried again.
    pub(crate) fn retry(&mut self) {
        record::retry(&mut self.owned, self.now);
        self.log.push("retry".to_owned());
    }

    /// A person wants the program started anew everywhere.
    pub(crate) fn restart(&mut self) {
        let seen = self.hosts.values().map(|machine| machine.seen.sequence);
        self.owned.restart = seen.chain(self.rollout.iter().map(|rollout| rollout.sequence)).max();
        self.owned.repairs.clear();
        self.log.push("restart".to_owned());
    }

    /// A canary of these steps.
    pub(crate) fn canary(mut self, steps: &str) -> Self {
        let step = |text: &str| CanaryStep(portion(text));
        self.spec.rollout.strategy = Strategy::Canary;
        let steps = steps.split_whitespace().map(step).collect();
        self.spec.rollout.canary = Some(Canary { steps, bake: None, promotion: None });
        self
    }

    /// Whose steps are watched for so long.
    pub(crate) fn baking(mut self, seconds: u64) -> Self {
        self.spec.rollout.canary.as_mut().expect("a canary").bake = Some(Span::seconds(seconds));
        self
    }

    /// Whose steps a person lets begin.
    pub(crate) fn approved(mut self) -> Self {
        self.spec.rollout.canary.as_mut().expect("a canary").promotion = Some(Promotion::Approved);
        self
    }

    /// So many hosts may fail.
    pub(crate) fn max_failures(mut self, most: u32) -> Self {
        self.spec.rollout.max_failures = most;
        self
    }

    /// `a=x b=y`: hosts of groups.
    pub(crate) fn grouped(mut self, groups: &str) -> Self {
        let pair = |word: &str| word.split_once('=').map(|(host, group)| (host.to_owned(), group.to_owned()));
        self.groups = groups.split_whitespace().filter_map(pair).collect();
        self
    }

    /// A person lets the next step of a canary begin.
    pub(crate) fn approve(&mut self, revision: u64, step: Option<u32>) {
        let rollout = self.rollout.clone().expect("a rollout");
        let answer = self.with_inputs(|inputs| canary::approve(inputs, &rollout, RevisionNumber(revision), step));
        match answer {
            Ok(progress) => {
                self.rollout.as_mut().expect("a rollout").canary = Some(progress);
                self.log.push("approved".to_owned());
            }
            Err(why) => self.log.push(format!("approval refused: {why}")),
        }
    }

    /// A person ends the rollout.
    pub(crate) fn abort(&mut self) {
        let answer = self.with_inputs(abort::abort);
        match answer {
            Ok(abort::Abort::Restart) => self.owned.restart = None,
            Ok(abort::Abort::Deploy(revision)) => {
                let (known, now) = (self.revisions[&revision].clone(), self.now);
                abort::record(&mut self.owned, self.rollout.as_mut(), &known, &self.spec, now);
            }
            Err(why) => return self.log.push(format!("abort refused: {why}")),
        }
        // Nobody waits for a verdict on what is not wanted any more.
        for machine in self.hosts.values_mut() {
            let judged = |errand: &Errand| matches!(errand.acts.first(), Some(Act::Judge { .. }));
            machine.errand = machine.errand.take().filter(|errand| !judged(errand));
        }
        self.log.push("aborted".to_owned());
    }

    /// A person holds it.
    pub(crate) fn pause(&mut self) {
        self.owned.paused = Some(self.now);
        self.log.push("pause".to_owned());
    }

    /// A host takes back by itself what nobody has confirmed there.
    pub(crate) fn go_back(&mut self, name: &str) {
        if self.host(name).go_back() {
            self.log.push(format!("{name} goes back by itself"));
        }
    }

    /// And lets it go on.
    pub(crate) fn resume(&mut self) {
        self.owned.paused = None;
        record::resume(&mut self.owned, self.now);
        self.log.push("resume".to_owned());
    }

    /// Another controller takes over; nothing is under way any more.
    pub(crate) fn take_over(&mut self) {
        self.term += 1;
        for machine in self.hosts.values_mut() {
            machine.errand = None;
        }
        self.log.push(format!("term {}", self.term));
    }

    /// The declaration is deleted.
    pub(crate) fn delete(&mut self) {
        self.declared = false;
        self.owned.accepted = Some(Accepted { generation: Generation(1), spec: self.spec.clone() });
        for machine in self.hosts.values_mut() {
            machine.placement = Placement::Unplaced;
        }
        self.log.push("deleted".to_owned());
    }

    fn view(&self, machine: &Machine) -> HostView {
        if let Some(errand) = &machine.errand {
            return HostView::Busy(UnderWay { activity: errand.activity, acts: errand.acts.as_slice().into() });
        }
        match machine.link {
            Link::Cut => HostView::Unreachable(ContactError::Timeout { seconds: 10 }),
            Link::Foreign => {
                let owner = "feedfeedfeed".parse().expect("hexadecimal");
                HostView::Refusing(StepError::OwnedByAnother { owner })
            }
            Link::Dark => HostView::NotLookedAt,
            Link::Up => {
                let facts = HostFacts {
                    machine: machine.id.parse().expect("hexadecimal"),
                    boot: machine.boot.parse().expect("hexadecimal"),
                    scope: Scope::System,
                    user: "root".to_owned(),
                    cluster: None,
                    remote_dir: "/opt/windlass".to_owned(),
                    systemd: 252,
                };
                HostView::Seen(Arc::new(HostObservation { facts, service: machine.observed() }))
            }
        }
    }

    /// Plans, and does nothing.
    pub(crate) fn plan(&self) -> Plan {
        self.with_inputs(plan)
    }

    /// What comes of everything that is known.
    fn with_inputs<T>(&self, decide: impl FnOnce(&Inputs<'_>) -> T) -> T {
        let service: ServiceKey = "default/web".parse().expect("a key");
        let input = |(name, machine): (&String, &Machine)| {
            let (placement, view) = (machine.placement.clone(), self.view(machine));
            (
                host_id(name),
                HostInput {
                    target: target(name).into(),
                    placement,
                    view,
                    health: machine.health.clone(),
                    ill_since: machine.ill_since,
                    group: self.groups.get(name).cloned(),
                },
            )
        };
        // As the engine has it: those that it is placed on, and those that it may have left something on.
        let known = |(name, machine): &(&String, &Machine)| {
            machine.placement != Placement::Unplaced || self.owned.hosts.contains_key(&host_id(name))
        };
        let hosts: BTreeMap<HostId, HostInput> = self.hosts.iter().filter(known).map(input).collect();
        let files = match self.files {
            Some(letter) => Files::Release { digest: release(letter), origin: origin() },
            None => Files::AsBefore,
        };
        let running = Goal::Run { spec: &self.spec, generation: Generation(1), files };
        decide(&Inputs {
            proposal: None,
            gated: false,
            service: &service,
            now: self.now,
            term: self.term,
            fresh_term: self.fresh_term,
            goal: if self.declared { running } else { Goal::Remove },
            complaint: self.complaint.clone(),
            owned: &self.owned,
            revisions: &self.revisions,
            rollout: self.rollout.as_ref(),
            hosts: &hosts,
            removals: self.removals,
        })
    }

    /// Takes in since when what was well ails, as the engine does.
    fn notice(&mut self) {
        let ails: BTreeMap<HostId, Option<bool>> =
            self.with_inputs(|inputs| inputs.hosts.iter().map(|(id, host)| (id.clone(), ails(host))).collect());
        for (name, machine) in &mut self.hosts {
            match ails.get(&host_id(name)).copied().flatten() {
                Some(false) => (machine.was_well, machine.ill_since) = (true, None),
                Some(true) if machine.was_well => machine.ill_since = machine.ill_since.or(Some(self.now)),
                Some(true) | None => {}
            }
        }
    }

    /// Plans, checks what must hold of every plan, records, and sends out errands.
    pub(crate) fn turn(&mut self) -> Plan {
        self.notice();
        let plan = self.plan();
        self.check(&plan);
        self.now += SignedDuration::from_millis(100);
        if let Some(new) = &plan.new_revision {
            let before = self.revisions.insert(new.number, new.clone());
            assert!(before.is_none(), "revision {} is recorded already", new.number);
        }
        self.owned.clone_from(&plan.owned);
        self.record(&plan);
        if !plan.stamp.is_empty() {
            let sequence = self.rollout.as_ref().expect("a rollout that stamps").sequence;
            for id in &plan.stamp {
                self.host(&id.to_string()).seen.sequence = sequence;
            }
            let names: Vec<String> = plan.stamp.iter().map(HostId::to_string).collect();
            self.log.push(format!("stamp {} with {sequence}", names.join(" ")));
        }
        for (id, acts) in &plan.actions {
            let sequence = self.rollout.as_ref().expect("a rollout that acts").sequence;
            let machine = self.host(&id.to_string());
            let judged = acts.iter().any(|act| matches!(act, Act::Judge { .. }));
            let disruptive = judged && machine.seen.good.is_some();
            let activity = if disruptive { Activity::Disruptive } else { Activity::Quiet };
            // What it answered before says nothing any more.
            machine.health = Health::Unknown;
            machine.errand = Some(Errand { acts: acts.clone(), sequence, activity });
        }
        self.news = plan.report.work != Work::UnderWay && self.ask();
        plan
    }

    /// Everything that runs and was confirmed is asked how it is, as the engine does where nothing is under way.
    /// Whether that told anything new.
    fn ask(&mut self) -> bool {
        let mut news = false;
        for machine in self.hosts.values_mut() {
            let confirmed = machine.seen.good.is_some() && machine.seen.good == machine.seen.unit.revision();
            let answers = machine.link == Link::Up && machine.errand.is_none() && machine.is_up();
            if confirmed && answers && machine.health == Health::Unknown {
                machine.health = Health::Well;
                news = true;
            }
        }
        news
    }

    fn record(&mut self, plan: &Plan) {
        match &plan.rollout {
            RolloutChange::Keep => {
                if let Some(rollout) = self.rollout.as_mut().filter(|_| !plan.touch.is_empty() || plan.canary.is_some())
                {
                    rollout.touched.extend(plan.touch.iter().cloned());
                    rollout.progressed = self.now;
                    if let Some(progress) = &plan.canary {
                        let before = rollout.canary.replace(progress.clone()).unwrap_or_default();
                        self.log.extend(told(&before, progress));
                    }
                }
            }
            RolloutChange::Close(state) => {
                let rollout = self.rollout.as_mut().expect("only what is open is closed");
                let halted = (rollout.state, *state) == (RolloutState::Halted, RolloutState::Succeeded);
                assert!(rollout.state == RolloutState::Active || halted, "only what is open is closed");
                rollout.state = *state;
                self.log.push(format!("{} {state:?}", rollout.sequence));
                if let Some((host, evidence)) = &plan.fallen {
                    self.log.push(format!("{host} has fallen: {}", evidence.summary));
                }
            }
            RolloutChange::Open { purpose, revision, above } => {
                if let Some(last) = self.rollout.as_ref().filter(|last| last.state == RolloutState::Active) {
                    self.log.push(format!("{} Superseded", last.sequence));
                }
                self.sequence = self.sequence.max(above.0) + 1;
                let to = revision.map_or(String::new(), |revision| format!(" to {revision}"));
                let purpose = *purpose;
                let doubt = plan.touch.iter().fold(String::new(), |text, id| format!("{text}, {id} in doubt"));
                self.log.push(format!("{} {purpose:?}{to}{doubt}", self.sequence));
                *self = self.clone().rolling(purpose, revision.map_or(0, |revision| revision.0));
                let sequence = Sequence(self.sequence);
                let rollout = self.rollout.as_mut().expect("just made");
                rollout.sequence = sequence;
                rollout.touched.clone_from(&plan.touch);
                rollout.canary.clone_from(&plan.canary);
            }
        }
    }

    /// What must hold of every plan, whatever the world is like.
    pub(crate) fn check(&self, plan: &Plan) {
        let allowed = match self.spec.rollout.strategy {
            Strategy::AllAtOnce => usize::MAX,
            _ => self.spec.rollout.max_unavailable.of(self.placed()),
        };
        // What it shall leave is no loss.
        let counts = |machine: &Machine| machine.taken_down && machine.placement == Placement::Placed;
        let down: Vec<&String> =
            self.hosts.iter().filter(|(_, machine)| counts(machine)).map(|(name, _)| name).collect();
        assert!(!self.watched || down.len() <= allowed, "{down:?} are down\n{}", self.log.join("\n"));
        assert_eq!(self.plan().actions, plan.actions, "the same inputs, another plan");
        let rollout = self.rollout.as_ref();
        for (id, acts) in &plan.actions {
            let machine = &self.hosts[&id.to_string()];
            let unit = machine.seen.unit.revision();
            let taken_back = plan.owned.blocked.iter().any(|blocked| Some(blocked.revision) == unit);
            let at_rest = unit.is_some() && machine.confirmed && !taken_back;
            let held = self.owned.paused.is_some() || plan.owned.hold.is_some();
            assert!(!(held && self.declared && at_rest), "{id} is begun in a pause");
            let stands_still = plan.owned.hold.as_ref();
            let stands_still =
                stands_still.is_some_and(|hold| matches!(hold.cause, HoldCause::MassUnhealthy { .. })) && self.declared;
            let changes = |act: &Act| !matches!(act, Act::Judge { .. } | Act::Step(Step::Confirm { .. }));
            assert!(!(stands_still && acts.iter().any(changes)), "{id} is changed while hosts fall ill");
            assert!(machine.errand.is_none(), "{id} is busy");
            assert_eq!(machine.link, Link::Up, "{id} was not seen");
            assert!(!matches!(machine.placement, Placement::Refused(_)), "{id} is refused");
            let rollout = rollout.expect("nothing is done without a rollout");
            assert_eq!((rollout.state, rollout.term), (RolloutState::Active, self.term), "the rollout is not ours");
            for (index, act) in acts.iter().enumerate() {
                let Act::Step(step) = act else { continue };
                if let Step::Activate { revision } | Step::Revert { revision } = step {
                    let blocked = plan.owned.blocked.iter().any(|blocked| blocked.revision == *revision);
                    assert!(!blocked, "revision {revision} is blocked");
                    assert!(rollout.touched.contains(id) || plan.touch.contains(id), "{id} is not recorded as touched");
                }
                if let Step::Confirm { revision, .. } = step {
                    let judged = acts[..index].contains(&Act::Judge { revision: *revision });
                    assert!(judged, "{id} is to confirm what nobody judged");
                }
            }
        }
        self.check_canary(plan);
        for (name, machine) in self.hosts.iter().filter(|_| !plan.actions.is_empty()) {
            let behind = machine.seen.sequence < rollout.expect("a rollout").sequence;
            let reachable = machine.link == Link::Up && machine.errand.is_none();
            let known = self.owned.hosts.contains_key(&host_id(name));
            assert!(!(behind && reachable && known), "{name} was not stamped\n{}", self.log.join("\n"));
        }
    }

    /// No host is switched to a revision whose canary has not come so far, nor without a record of it.
    fn check_canary(&self, plan: &Plan) {
        let canary = self.spec.rollout.canary.as_ref().filter(|_| self.spec.rollout.strategy == Strategy::Canary);
        let (Some(canary), Aim::Declared(target)) = (canary, &plan.aim) else { return };
        if self.owned.good.is_empty() || self.owned.good.last() == Some(target) {
            return;
        }
        let switches = |acts: &[Act]| acts.contains(&Act::Step(Step::Activate { revision: *target }));
        let switched: Vec<&HostId> = plan.actions.iter().filter(|(_, acts)| switches(acts)).map(|(id, _)| id).collect();
        if switched.is_empty() {
            return;
        }
        let before = self.rollout.as_ref().and_then(|rollout| rollout.canary.clone()).unwrap_or_default();
        let now = plan.canary.as_ref().unwrap_or(&before);
        assert!(switched.iter().all(|id| now.hosts.contains(*id)), "{switched:?} are not recorded: {now:?}");
        let fresh = now.hosts.len() - now.hosts.intersection(&before.hosts).count();
        let placed = |id: &&HostId| self.hosts[&id.to_string()].placement == Placement::Placed;
        let most = canary.counts(self.placed()).get(now.step as usize - 1).copied().unwrap_or(usize::MAX);
        assert!(fresh == 0 || now.hosts.iter().filter(placed).count() <= most, "{now:?} in {canary:?}");
    }

    /// How many hosts it is placed on.
    pub(crate) fn placed(&self) -> usize {
        self.hosts.values().filter(|machine| machine.placement == Placement::Placed).count()
    }

    /// The next act of one busy host.
    pub(crate) fn act(&mut self, name: &str) {
        let machine = self.host(name);
        let Some(mut errand) = machine.errand.take() else { return };
        if errand.acts.is_empty() {
            return;
        }
        let act = errand.acts.remove(0);
        let goes_on = match act {
            Act::Judge { revision } => self.judge(name, revision),
            Act::Step(step) => self.step(name, &step, errand.sequence),
        };
        if goes_on && !errand.acts.is_empty() {
            self.host(name).errand = Some(errand);
        }
    }

    fn judge(&mut self, name: &str, revision: RevisionNumber) -> bool {
        let known = self.revisions[&revision].clone();
        let machine = &self.hosts[name];
        if machine.link != Link::Up {
            self.log.push(format!("{name} lost"));
            return false;
        }
        if machine.went_back() {
            self.log.push(format!("{name} has gone back"));
            let failure = StepFailure { step: format!("verdict on {revision}"), error: StepError::Voided { revision } };
            record::failed(self.rollout.as_mut().expect("a rollout that judges"), &host_id(name), failure);
            return false;
        }
        let ill = self.bad.iter().any(|(host, files)| {
            (host == name || host == "*") && machine.seen.revisions.get(&revision) == Some(&release(*files))
        });
        if machine.is_up() && !ill {
            self.log.push(format!("{name} healthy"));
            return true;
        }
        self.log.push(format!("{name} unhealthy"));
        let evidence = Evidence { summary: "it answers 500".to_owned(), answer: None, logs: Vec::new() };
        let rollout = self.rollout.as_mut().expect("a rollout that judges");
        record::unhealthy(&mut self.owned, rollout, &host_id(name), &known, &self.spec, evidence, self.now);
        self.log.push(format!("{} {:?}", rollout.sequence, rollout.state));
        false
    }

    fn step(&mut self, name: &str, step: &Step, sequence: Sequence) -> bool {
        if self.hosts[name].link != Link::Up {
            self.log.push(format!("{name} lost before {step}"));
            return false;
        }
        let failure = self.failing.remove(&(name.to_owned(), step.verb()));
        let result = match failure {
            Some(error) => Err(error),
            None => self.host(name).step(step, sequence),
        };
        match result {
            Ok(done) => {
                let before = if done == Done::Before { " (before)" } else { "" };
                self.log.push(format!("{name} {step}{before}"));
                if self.losing.get(name) == Some(&step.verb()) {
                    self.losing.remove(name);
                    self.host(name).link = Link::Cut;
                    self.log.push(format!("{name} lost"));
                    return false;
                }
                true
            }
            Err(StepError::Superseded { theirs, .. }) => {
                self.log.push(format!("{name} refuses {step}: it has seen {theirs}"));
                false
            }
            Err(error) => {
                self.log.push(format!("{name} {step}: {error}"));
                let failure = StepFailure { step: step.to_string(), error };
                record::failed(self.rollout.as_mut().expect("a rollout that acts"), &host_id(name), failure);
                false
            }
        }
    }

    /// One act on every busy host, in the order of their names.
    pub(crate) fn act_all(&mut self) {
        let names: Vec<String> = self.hosts.keys().cloned().collect();
        for name in names {
            self.act(&name);
        }
    }

    /// Whether anything is under way.
    pub(crate) fn is_busy(&self) -> bool {
        self.hosts.values().any(|machine| machine.errand.is_some())
    }

    /// Turns until `stop` says so.
    pub(crate) fn until(&mut self, stop: impl Fn(&Self) -> bool) {
        for _ in 0..TURNS {
            if stop(self) {
                return;
            }
            let busy = self.is_busy();
            let plan = self.turn();
            self.act_all();
            if !busy {
                self.pass(&plan);
            }
        }
        panic!("it never came to that:\n{}", self.log.join("\n"));
    }

    /// Turns until a line of the log ends so.
    pub(crate) fn until_logged(&mut self, end: &str) {
        let from = self.log.len();
        self.until(|world| world.log[from..].iter().any(|line| line.ends_with(end)));
    }

    /// So many turns.
    pub(crate) fn turns(&mut self, count: usize) {
        for _ in 0..count {
            self.turn();
            self.act_all();
        }
    }

    /// Lets the time pass that a plan waits for, where it waits for nothing else.
    fn pass(&mut self, plan: &Plan) -> bool {
        let Some(at) = plan.again.filter(|_| plan.is_idle()) else { return false };
        let time = self.now.duration_until(at).round(jiff::Unit::Second).expect("short");
        self.log.push(format!("{time:#} pass"));
        self.now = at;
        true
    }

    /// Turns until nothing more happens, and checks that planning again changes nothing.
    pub(crate) fn settle(&mut self) -> Plan {
        for _ in 0..TURNS {
            let (before, busy) = (self.owned.clone(), self.is_busy());
            let plan = self.turn();
            if plan.gone {
                return plan;
            }
            self.act_all();
            if !busy && self.pass(&plan) {
                continue;
            }
            if plan.is_idle() && !busy && !self.news && self.owned == before {
                let again = self.plan();
                assert!(again.is_idle(), "planning again does something:\n{}", self.log.join("\n"));
                assert_eq!(again.owned, self.owned, "planning again records something");
                assert_eq!(again.report, plan.report, "planning again says something else");
                return again;
            }
        }
        panic!("it never comes to rest:\n{}", self.log[..60.min(self.log.len())].join("\n"));
    }
}

/// What has changed about a canary.
fn told(before: &CanaryProgress, after: &CanaryProgress) -> Vec<String> {
    let mut lines = Vec::new();
    if before.step != after.step {
        lines.push(format!("step {}", after.step));
    } else if before.well_since.is_none() && after.well_since.is_some() {
        lines.push(format!("step {} is well", after.step));
    } else if before.well_since.is_some() && after.well_since.is_none() {
        lines.push(format!("step {} is not well any more", after.step));
    }
    lines
}

/// `2` or `25%`.
fn portion(text: &str) -> MaxUnavailable {
    let number = |text: &str| text.parse::<u32>().expect("a number");
    match text.strip_suffix('%') {
        Some(percent) => MaxUnavailable::Percent(u8::try_from(number(percent)).expect("at most 100")),
        None => MaxUnavailable::Count(NonZeroU32::new(number(text)).expect("not zero")),
    }
}

/// The way to a host.
fn target(name: &str) -> Target {
    Target {
        id: host_id(name),
        address: format!("{name}.example"),
        port: NonZeroU16::new(22).expect("not zero"),
        user: None,
        key_file: None,
        host_keys: Vec::new(),
        privilege: None,
        remote_dir: None,
    }
}
