//! Moves one Service to its declaration.
//!
//! Level-triggered: everything is read afresh on every turn, so a lost event costs only time. A turn looks at hosts,
//! plans, records, and sends errands; while errands are out it waits for the first of them, or for news.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument as _, Span};
use windlass_crds::condition::{ConditionStatus, ConditionType, Reason};
use windlass_crds::host::Target;
use windlass_crds::id::{Generation, HostId, ResourceKey, RevisionNumber, Sequence, ServiceKey};
use windlass_crds::manifest::Manifest;
use windlass_crds::observation::{StepRecord, StepState};
use windlass_crds::record::{Accepted, Owned, Revision, Rollout, RolloutState, StepFailure};
use windlass_crds::service::{ServiceSpec, Transport};
use windlass_crds::status::{Finding, ServiceStatus, conditions};
use windlass_crds::step::{ContactError, Step, StepError, Verb};
use windlass_hosts::fleet::{Fleet, Stamp};
use windlass_planner::input::{Activity, Complaint, Files, Goal, Health, HostInput, HostView, Inputs, Placement};
use windlass_planner::plan::{Act, Plan, RolloutChange, plan};
use windlass_planner::status::Work;
use windlass_planner::{record, restart, target};
use windlass_sources::ScanMode;
use windlass_store::{CommitError, Key, SequenceError, Write};

use crate::cache::{ServiceView, Surroundings};
use crate::checkpoint::{Checkpoint, reached};
use crate::commit::{Records, json, rollouts, status};
use crate::controller::{Controller, Memory, Pulse, Scan, now};
use crate::events::News;
use crate::execute::{Errand, Outcome};
use crate::goal::{Places, in_force, places};
use crate::judge::Rules;
use crate::look::Looked;
use crate::narrate;
use crate::queue::Next;
use crate::removals;
use crate::requests::{self, Refused, Subject};

/// A host that has not answered by then is passed over for now, so that it holds nobody up.
const FIRST_ANSWER: Duration = Duration::from_millis(700);

/// So long after a look a host is taken to be as it was, but for what we have brought there: short beside the time in
/// which anybody else does something to a host.
const STILL_NEW: Duration = Duration::from_secs(1);

/// Hosts are looked at so often where nothing happens (design: every 60 s).
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// A host out of reach is tried again after this.
const TRY_AGAIN: Duration = Duration::from_secs(10);

/// What waits for hosts that are down is looked at again after this.
const WAITING: Duration = Duration::from_secs(3);

/// A host that loses contact in the middle of so many errands in a row counts as failing, and the key backs off.
const LOSSES: u32 = 3;

/// More rollouts than this in one reconcile means that hosts say yes and stay as they are: the key backs off.
const OPENED: u32 = 6;

/// Why a Service could not be reconciled this time.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// What was decided could not be recorded, so nothing was done.
    #[error("cannot record what was decided")]
    Commit(#[from] CommitError),
    /// No number could be drawn for a rollout.
    #[error("cannot draw a sequence")]
    Sequence(#[from] SequenceError),
}

/// What came back from a host.
enum Returned {
    Scan(Option<Box<Scan>>),
    Look(Looked),
    Pulse(HostId, Option<Pulse>),
    Errand(HostId, Sequence, Vec<Act>, Outcome),
}

/// One reconcile of one Service.
struct Turn<'a, F> {
    controller: &'a Arc<Controller<F>>,
    key: &'a ServiceKey,
    memory: Memory,
    out: FuturesUnordered<BoxFuture<'a, Returned>>,
    scanning: bool,
    asking: BTreeSet<HostId>,
    looking: BTreeSet<HostId>,
    busy: BTreeMap<HostId, (Activity, CancellationToken)>,
    /// What was seen in this reconcile.
    views: BTreeMap<HostId, HostView>,
    /// When.
    seen_at: BTreeMap<HostId, Instant>,
    /// What ended and is not recorded yet.
    ended: Vec<(HostId, Sequence, Outcome)>,
    losses: BTreeMap<HostId, u32>,
    /// Rollouts that began in this reconcile.
    opened: u32,
    /// Requests that could not be done, and why.
    refused: Vec<Refused>,
    failed: bool,
    /// The controller is being stopped: nothing new is begun.
    stop: &'a CancellationToken,
    stopping: bool,
}

/// What is known at the beginning of a turn.
struct Scene {
    view: ServiceView,
    accepted: Option<Accepted>,
    complaint: Option<Complaint>,
    around: Surroundings,
    owned: Owned,
    rollout: Option<Rollout>,
    placements: BTreeMap<HostId, (Target, Placement)>,
    default_transports: BTreeMap<HostId, Transport>,
    files: Files,
}

/// What would be done next for one Service, and what that was found out from.
#[derive(Debug, Clone)]
pub struct Foreseen {
    /// What would be done.
    pub plan: Plan,
    /// Its hosts as they were found.
    pub hosts: BTreeMap<HostId, HostInput>,
    /// The revisions that are recorded.
    pub revisions: BTreeMap<RevisionNumber, Revision>,
    /// What the source holds, where it could be read.
    pub source: Option<Arc<Manifest>>,
}

/// Moves one Service to its declaration, until there is nothing more to do for now.
///
/// # Errors
/// When the store does not take what was decided. Nothing was done then that is not recorded.
pub async fn reconcile<F: Fleet>(
    controller: &Arc<Controller<F>>,
    key: &ServiceKey,
    stop: &CancellationToken,
) -> Result<Next, ReconcileError> {
    let memory = controller.recall(key);
    let mut turn = Turn::new(controller, key, memory, stop);
    let result = turn.run().await;
    let Turn { mut memory, views, .. } = turn;
    if matches!(result, Ok(Next::Never)) && controller.cache.service(key).owned.is_none() {
        controller.forget(key);
    } else {
        memory.views = views;
        controller.remember(key, memory);
    }
    result
}

/// What would be done next for one Service, and what is said of it; nothing is recorded or changed anywhere.
///
/// `None` where it is neither declared nor owned, or was never declared in a way that makes sense.
pub async fn foresee<F: Fleet>(controller: &Arc<Controller<F>>, key: &ServiceKey) -> Option<Foreseen> {
    let stop = CancellationToken::new();
    let mut turn = Turn::new(controller, key, Memory::default(), &stop);
    let scene = turn.scene().await;
    scene.accepted.as_ref()?;
    turn.observe(&scene).await;
    while !turn.looking.is_empty()
        && let Some(returned) = turn.out.next().await
    {
        turn.take_in(returned);
    }
    let (plan, owned, _) = turn.decide(&scene);
    let source =
        turn.memory.scan.as_ref().and_then(|scan| scan.found.as_ref()).map(|found| Arc::clone(&found.manifest));
    let revisions = scene.view.revisions.clone();
    let mut hosts = turn.hosts(&scene);
    let foreseen = |plan, hosts| Some(Foreseen { plan, hosts, revisions, source });
    let RolloutChange::Open { purpose, revision, above } = plan.rollout else { return foreseen(plan, hosts) };
    // The rollout would begin; what it would do first is what somebody who asks wants to know.
    let seen = hosts.clone();
    for host in hosts.values_mut() {
        if let HostView::Seen(seen) = &mut host.view {
            seen.service.sequence = above.next();
        }
    }
    let begun = Rollout {
        sequence: above.next(),
        purpose,
        revision,
        term: controller.term,
        started: now(),
        progressed: now(),
        state: RolloutState::Active,
        touched: BTreeSet::new(),
        restage: BTreeSet::new(),
        verdicts: BTreeMap::new(),
        failures: BTreeMap::new(),
    };
    let mut next = windlass_planner::plan::plan(&turn.inputs(&scene, &owned, Some(&begun), &hosts));
    next.rollout = plan.rollout;
    next.new_revision = plan.new_revision.or(next.new_revision);
    foreseen(next, seen)
}

impl<'a, F: Fleet> Turn<'a, F> {
    fn new(
        controller: &'a Arc<Controller<F>>,
        key: &'a ServiceKey,
        memory: Memory,
        stop: &'a CancellationToken,
    ) -> Self {
        Self {
            controller,
            key,
            memory,
            out: FuturesUnordered::new(),
            scanning: false,
            asking: BTreeSet::new(),
            looking: BTreeSet::new(),
            busy: BTreeMap::new(),
            views: BTreeMap::new(),
            seen_at: BTreeMap::new(),
            ended: Vec::new(),
            losses: BTreeMap::new(),
            opened: 0,
            refused: Vec::new(),
            failed: false,
            stop,
            stopping: false,
        }
    }

    async fn run(&mut self) -> Result<Next, ReconcileError> {
        loop {
            let fingerprint = self.controller.cache.fingerprint(self.key);
            let scene = self.scene().await;
            let Some(spec) = scene.accepted.as_ref().map(|accepted| accepted.spec.clone()) else {
                return self.nonsense(&scene).await;
            };
            self.observe(&scene).await;
            let (mut plan, owned, rollout) = self.decide(&scene);
            let held = self.failed && reopens_what_halted(&plan, rollout.as_ref());
            if held {
                plan.rollout = RolloutChange::Keep;
                plan.touch.clear();
            }
            let rollout = self.record(&scene, &plan, &owned, rollout).await?;
            if held {
                // What halted is tried again after a wait that grows.
                return Ok(Next::Retry);
            }
            if plan.gone {
                if self.controller.cache.service(self.key).owned.is_none() {
                    return Ok(Next::Never);
                }
                continue;
            }
            if self.stop.is_cancelled() && self.out.is_empty() {
                return Ok(Next::Never);
            }
            if !self.stop.is_cancelled() {
                self.send(&scene, &plan, rollout.as_ref());
                self.ask(&scene, &plan, rollout.as_ref());
            }
            if matches!(plan.rollout, RolloutChange::Open { .. }) {
                self.opened += 1;
                if self.opened > OPENED {
                    tracing::warn!(service = %self.key, "rollout after rollout, and hosts stay as they are");
                    return Ok(Next::Retry);
                }
            }
            let looked = self.placements_seen(&scene);
            let resting = looked && self.out.is_empty() && plan.actions.is_empty() && plan.stamp.is_empty();
            if resting && matches!(plan.rollout, RolloutChange::Keep) {
                return Ok(self.next(&scene, &spec, &plan));
            }
            if plan.rollout == RolloutChange::Close(RolloutState::Halted) {
                self.failed = true;
                if self.out.is_empty() {
                    return Ok(Next::Retry);
                }
            }
            if plan.rollout == RolloutChange::Keep && plan.stamp.is_empty() {
                self.wait(&fingerprint).await;
            }
        }
    }

    /// Reads everything afresh.
    async fn scene(&mut self) -> Scene {
        let controller = self.controller;
        let mut view = controller.cache.service(self.key);
        requests::bound(&mut view.requests);
        let (accepted, mut complaint) = in_force(&view);
        let around = controller.cache.surroundings();
        let owned = view.owned.as_ref().map(|owned| owned.value.clone()).unwrap_or_default();
        let rollout = view.rollouts.values().next_back().map(|stored| stored.value.clone());
        let declared = view.declared.is_some();
        let asked = view.requests.values().any(|request| {
            matches!(request, Ok(windlass_crds::request::Request::Reconcile | windlass_crds::request::Request::Retry))
        });
        let mut files = Files::AsBefore;
        if let Some(accepted) = accepted.as_ref().filter(|_| declared && complaint.is_none()) {
            self.read_source(accepted, asked).await;
            let (found, trouble) = controller.files(self.key, accepted, &view, &self.memory);
            files = found;
            complaint = complaint.or(trouble);
        }
        let spec = accepted.as_ref().filter(|_| declared).map(|accepted| &accepted.spec);
        let Places { placements, default_transports } = places(spec, &owned, &around).await;
        if declared
            && complaint.is_none()
            && !placements.values().any(|(_, placement)| *placement != Placement::Unplaced)
        {
            let labels = spec.map(|spec| spec.placement.selector.iter().map(|(key, value)| format!("{key}={value}")));
            let labels = labels.map(|labels| labels.collect::<Vec<_>>().join(",")).unwrap_or_default();
            let message = format!(
                "spec.placement: the selector {labels} matches no Host; `windlass get hosts -o yaml` shows the labels that there are"
            );
            complaint = Some(Complaint { reason: Reason::NoHosts, message });
        }
        Scene { view, accepted, complaint, around, owned, rollout, placements, default_transports, files }
    }

    /// Looks at the source where that is due: at once when a person waits for it, else beside the rest.
    async fn read_source(&mut self, accepted: &Accepted, asked: bool) {
        let controller = self.controller;
        let before = self.memory.scan.clone();
        match Controller::<F>::scan_due(accepted, &self.memory, asked) {
            None => {}
            Some(ScanMode::Ask) => {
                self.memory.scan = controller.scan(accepted, ScanMode::Ask, before).await;
            }
            Some(ScanMode::Interval) if self.scanning => {}
            Some(ScanMode::Interval) => {
                self.scanning = true;
                let accepted = accepted.clone();
                let scan = async move {
                    Returned::Scan(controller.scan(&accepted, ScanMode::Interval, before).await.map(Box::new))
                };
                self.out.push(scan.boxed());
            }
        }
    }

    /// The stamp of the rollout that goes on under us.
    fn stamp(&self, rollout: Option<&Rollout>) -> Option<Stamp> {
        let ours =
            rollout.filter(|rollout| rollout.state == RolloutState::Active && rollout.term == self.controller.term);
        ours.map(|rollout| Stamp { sequence: rollout.sequence, cluster: self.controller.cluster.clone() })
    }

    /// Looks at every host that was not looked at since something happened to it.
    async fn observe(&mut self, scene: &Scene) {
        let stamp = self.stamp(scene.rollout.as_ref());
        for (id, (target, placement)) in &scene.placements {
            let refused = matches!(placement, Placement::Refused(_));
            if refused || self.busy.contains_key(id) || self.looking.contains(id) || !self.is_stale(id, stamp.as_ref())
            {
                continue;
            }
            let scrutiny = Controller::<F>::scrutiny(&mut self.memory, id);
            let (controller, key, id, target) = (self.controller, self.key, id.clone(), target.clone());
            let stamp = stamp.clone();
            self.looking.insert(id.clone());
            let look = async move { Returned::Look(controller.look(key, id, &target, stamp, scrutiny).await) };
            self.out.push(look.boxed());
        }
        let stamped = stamp.is_some() && !self.looking.is_empty();
        let deadline = Instant::now() + FIRST_ANSWER;
        while self.looking.iter().any(|id| self.is_expected(id)) {
            match tokio::time::timeout_at(deadline, self.out.next()).await {
                Ok(Some(returned)) => self.take_in(returned),
                Ok(None) | Err(_) => break,
            }
        }
        if stamped {
            reached(Checkpoint::Stamped);
        }
    }

    /// Whether every host that may be looked at has been.
    fn placements_seen(&self, scene: &Scene) -> bool {
        let mut hosts = scene.placements.iter();
        hosts.all(|(id, (_, placement))| matches!(placement, Placement::Refused(_)) || self.views.contains_key(id))
    }

    /// Whether a host is worth waiting for: one that was out of reach last time is not.
    fn is_expected(&self, id: &HostId) -> bool {
        let last = self.views.get(id).or_else(|| self.memory.views.get(id));
        !matches!(last, Some(HostView::Unreachable(_)))
    }

    fn is_stale(&self, id: &HostId, stamp: Option<&Stamp>) -> bool {
        match self.views.get(id) {
            None => true,
            Some(HostView::Seen(seen)) => {
                let old = self.seen_at.get(id).is_none_or(|at| at.elapsed() >= TRY_AGAIN);
                old || stamp.is_some_and(|stamp| seen.service.sequence < stamp.sequence)
            }
            Some(_) => false,
        }
    }

    fn take_in(&mut self, returned: Returned) {
        match returned {
            Returned::Look(Looked { host, view, read_through }) => {
                self.looking.remove(&host);
                if read_through {
                    self.memory.read_through.insert(host.clone(), Instant::now());
                }
                self.seen_at.insert(host.clone(), Instant::now());
                self.views.insert(host, view);
            }
            Returned::Scan(scan) => {
                self.scanning = false;
                // A person who asked meanwhile was answered from a later look.
                let newer = self.memory.scan.as_ref().map(|known| known.at);
                if let Some(scan) = scan
                    && newer.is_none_or(|newer| newer < scan.at)
                {
                    self.memory.scan = Some(*scan);
                }
            }
            Returned::Pulse(host, pulse) => {
                self.asking.remove(&host);
                if let Some(pulse) = pulse {
                    self.memory.health.insert(host, pulse);
                }
            }
            Returned::Errand(host, sequence, acts, outcome) => {
                self.busy.remove(&host);
                if !self.knows_what_came(&host, sequence, &acts, &outcome) {
                    self.views.remove(&host);
                }
                // What it answered before it was switched says nothing any more.
                self.memory.health.remove(&host);
                self.ended.push((host, sequence, outcome));
            }
        }
    }

    /// Adds to what was seen of a host what a stage has brought there since. Whether that is all there is to know: a
    /// stage changes nothing else, but after [`STILL_NEW`] the rest may be another.
    fn knows_what_came(&mut self, host: &HostId, sequence: Sequence, acts: &[Act], outcome: &Outcome) -> bool {
        let new = self.seen_at.get(host).is_some_and(|at| at.elapsed() < STILL_NEW);
        let ([Act::Step(Step::Stage { revision, release })], Outcome::Done) = (acts, outcome) else { return false };
        let Some(HostView::Seen(seen)) = self.views.get_mut(host).filter(|_| new) else { return false };
        let service = &mut seen.service;
        service.present = true;
        service.releases.insert(*release);
        service.revisions.insert(*revision, *release);
        let record = StepRecord { sequence, revision: *revision, state: StepState::Ok };
        service.steps.insert(Verb::Stage, record);
        true
    }

    /// Asks how the Service is where that is due and nothing is under way; the answers come beside the rest.
    fn ask(&mut self, scene: &Scene, plan: &Plan, rollout: Option<&Rollout>) {
        // A rollout that waits for a person may do so for days.
        let held = plan.report.work == Work::Held;
        if !held && rollout.is_some_and(|rollout| rollout.state == RolloutState::Active) {
            return;
        }
        for (id, (target, placement)) in &scene.placements {
            let confirmed = match self.views.get(id) {
                Some(HostView::Seen(seen)) => {
                    seen.service.good.filter(|_| seen.service.good == seen.service.unit.revision())
                }
                _ => None,
            };
            let Some(revision) = confirmed else { continue };
            let Some(rules) = rules(scene, plan, revision, id) else { continue };
            let before = self.memory.health.get(id).cloned();
            let due = Controller::<F>::pulse_due(&rules.spec, before.as_ref());
            if *placement != Placement::Placed || !due || !self.asking.insert(id.clone()) {
                continue;
            }
            let (controller, id, target) = (self.controller, id.clone(), target.clone());
            let pulse = async move {
                let pulse = controller.pulse(&rules, &target, before).await;
                Returned::Pulse(id, pulse)
            };
            self.out.push(pulse.boxed());
        }
    }

    fn inputs<'b>(
        &self,
        scene: &'b Scene,
        owned: &'b Owned,
        rollout: Option<&'b Rollout>,
        hosts: &'b BTreeMap<HostId, HostInput>,
    ) -> Inputs<'b>
    where
        'a: 'b,
    {
        let goal = match &scene.accepted {
            Some(accepted) if scene.view.declared.is_some() => {
                Goal::Run { spec: &accepted.spec, generation: accepted.generation, files: scene.files.clone() }
            }
            _ => Goal::Remove,
        };
        let removals = removals::pending(&self.controller.cache, &scene.around);
        Inputs {
            service: self.key,
            now: now(),
            term: self.controller.term,
            fresh_term: self.controller.is_fresh(),
            goal,
            complaint: scene.complaint.clone(),
            owned,
            revisions: &scene.view.revisions,
            rollout,
            hosts,
            removals: removals.gate(self.key),
        }
    }

    fn hosts(&self, scene: &Scene) -> BTreeMap<HostId, HostInput> {
        let input = |(id, (target, placement)): (&HostId, &(Target, Placement))| {
            let view = match self.busy.get(id) {
                Some((activity, _)) => HostView::Busy(*activity),
                None => self.views.get(id).cloned().unwrap_or_else(|| self.unseen(id)),
            };
            let health = self.memory.health.get(id).map_or(Health::Unknown, |pulse| pulse.health.clone());
            (id.clone(), HostInput { target: target.clone(), placement: placement.clone(), view, health })
        };
        scene.placements.iter().map(input).collect()
    }

    /// A host whose look is not back yet: out of reach if it was, else nothing is said of it.
    fn unseen(&self, id: &HostId) -> HostView {
        match self.memory.views.get(id) {
            Some(HostView::Unreachable(error)) => HostView::Unreachable(error.clone()),
            _ => HostView::NotLookedAt,
        }
    }

    /// Takes in what people asked and what came back from hosts, then plans.
    fn decide(&mut self, scene: &Scene) -> (Plan, Owned, Option<Rollout>) {
        let hosts = self.hosts(scene);
        let mut owned = scene.owned.clone();
        let mut rollout = scene.rollout.clone();
        if scene.view.declared.is_some() && scene.complaint.is_none() {
            if owned.accepted.as_ref().map(|before| before.generation)
                != scene.accepted.as_ref().map(|accepted| accepted.generation)
            {
                // Who declares it anew has seen what was said of machines that were left behind.
                owned.hosts.values_mut().for_each(|host| host.former.clear());
            }
            owned.accepted.clone_from(&scene.accepted);
        }
        self.take_requests(scene, &hosts, &mut owned);
        if scene.owned.paused.is_some()
            && owned.paused.is_none()
            && let Some(rollout) = rollout.as_mut().filter(|rollout| rollout.state == RolloutState::Active)
        {
            // The time of the pause is nobody's delay.
            rollout.progressed = now();
        }
        for (host, sequence, outcome) in std::mem::take(&mut self.ended) {
            // What was found under an older number says nothing about this rollout.
            if let Some(rollout) = rollout.as_mut().filter(|rollout| rollout.sequence == sequence) {
                self.take_outcome(scene, &host, outcome, &mut owned, rollout);
            }
        }
        let plan = plan(&self.inputs(scene, &owned, rollout.as_ref(), &hosts));
        let owned = plan.owned.clone();
        reached(Checkpoint::Planned);
        (plan, owned, rollout)
    }

    fn take_requests(&mut self, scene: &Scene, hosts: &BTreeMap<HostId, HostInput>, owned: &mut Owned) {
        if scene.view.requests.is_empty() {
            return;
        }
        let before = owned.clone();
        let inputs = self.inputs(scene, &before, scene.rollout.as_ref(), hosts);
        let choice = target::choose(&inputs);
        let declared = choice.declared.and_then(|number| scene.view.revisions.get(&number).or(choice.new.as_ref()));
        let leaving = hosts.iter().filter(|(_, host)| host.placement == Placement::Unplaced).map(|(id, _)| id.clone());
        let mut subject = Subject {
            owned,
            revisions: &scene.view.revisions,
            declared,
            leaving: leaving.collect(),
            aim: &choice.aim,
            since: restart::since(&inputs),
            now: now(),
        };
        self.refused = requests::take(&scene.view.requests, &mut subject).refused;
    }

    fn take_outcome(
        &mut self,
        scene: &Scene,
        host: &HostId,
        outcome: Outcome,
        owned: &mut Owned,
        rollout: &mut Rollout,
    ) {
        match outcome {
            Outcome::Done => {
                self.losses.remove(host);
            }
            Outcome::Failed(failure) => record::failed(rollout, host, failure),
            Outcome::Unhealthy { revision, evidence } => {
                let (Some(known), Some(accepted)) = (scene.view.revisions.get(&revision), &scene.accepted) else {
                    return;
                };
                record::unhealthy(owned, rollout, host, known, &accepted.spec, evidence, now());
                self.failed |= rollout.state == RolloutState::Halted;
            }
            Outcome::Unsure(error) => self.lost(host, error, rollout),
            Outcome::Superseded | Outcome::Cancelled => {}
        }
    }

    /// Contact was lost in the middle of an errand: the host is looked at again, and gets a few more chances.
    fn lost(&mut self, host: &HostId, error: ContactError, rollout: &mut Rollout) {
        let losses = self.losses.entry(host.clone()).or_default();
        *losses += 1;
        if *losses >= LOSSES {
            let failure = StepFailure { step: "contact".to_owned(), error: StepError::Contact { error } };
            record::failed(rollout, host, failure);
        }
    }

    /// Records what was decided before anything of it is done; returns the rollout that holds from here on.
    async fn record(
        &mut self,
        scene: &Scene,
        plan: &Plan,
        owned: &Owned,
        last: Option<Rollout>,
    ) -> Result<Option<Rollout>, ReconcileError> {
        let controller = self.controller;
        let drawn = match &plan.rollout {
            RolloutChange::Open { above, .. } => {
                let sequence = controller.store.next_sequence(controller.leadership(), above.next()).await?;
                reached(Checkpoint::SequenceDrawn);
                Some(sequence)
            }
            _ => None,
        };
        if matches!(plan.rollout, RolloutChange::Close(_)) {
            reached(Checkpoint::BeforeClose);
        }
        let was_active = scene.rollout.as_ref().is_some_and(|rollout| rollout.state == RolloutState::Active);
        let blocked = was_active && last.as_ref().is_some_and(|rollout| rollout.state == RolloutState::Unhealthy);
        let as_recorded = *owned == scene.owned && last == scene.rollout;
        let now = now();
        let records = rollouts(last, plan, drawn, controller.term, now);
        let current = records.opened.clone().or_else(|| records.last.clone());
        let before: ServiceStatus = scene
            .view
            .status
            .as_ref()
            .and_then(|stored| serde_json::from_slice(&stored.value).ok())
            .unwrap_or_default();
        let generation = self.generation(scene);
        Span::current().record("generation", generation.0);
        narrate::under_way(current.as_ref());
        if as_recorded && self.knows_nothing_new(scene, plan) && before.observed_generation == generation {
            // Somebody has just begun to lead. What was said before is still the best that is known.
            return Ok(current);
        }
        let mut said = status(plan, current.as_ref(), generation, &before, now);
        said.release = said.release.or_else(|| {
            let target = plan.aim.revision()?;
            scene.view.revisions.get(&target).map(|revision| revision.release)
        });
        let limit = scene
            .accepted
            .as_ref()
            .map_or(usize::MAX, |accepted| accepted.spec.rollout.revision_history_limit.get() as usize);
        let resource = ResourceKey::Service(self.key.clone());
        let mut writes = Records {
            key: self.key,
            view: &scene.view,
            plan,
            owned,
            rollouts: &records,
            status: &said,
            history_limit: limit,
        }
        .writes();
        if !plan.gone {
            let mut news = crate::events::transitions(&before.conditions, &said.conditions);
            news.extend(self.refused.drain(..).map(News::from));
            news.extend(plan.left_behind.iter().map(|left| News::new(Reason::HostReplaced, left.to_string())));
            writes.extend(controller.events.writes(&controller.store, &resource, now, news).await);
        }
        if writes.is_empty() {
            return Ok(current);
        }
        let committed = controller.store.commit(controller.leadership(), &writes).await;
        if let Err(CommitError::LeaseGone(_)) = &committed {
            controller.events.forget_lease().await;
        }
        let revision = committed?;
        let accepted = plan.new_revision.as_ref();
        narrate::recorded(self.key, scene.rollout.as_ref(), &records, accepted, &controller.metrics);
        controller.cache.reach(revision).await;
        if drawn.is_some() {
            reached(Checkpoint::RolloutOpened);
        }
        if blocked {
            reached(Checkpoint::BlockRecorded);
        }
        if matches!(plan.rollout, RolloutChange::Close(_)) {
            reached(Checkpoint::AfterClose);
        }
        Ok(current)
    }

    /// Whether a host was not looked at yet, and nothing is to be done or answered meanwhile.
    fn knows_nothing_new(&self, scene: &Scene, plan: &Plan) -> bool {
        plan.is_idle() && scene.view.requests.is_empty() && !self.placements_seen(scene)
    }

    fn generation(&self, scene: &Scene) -> Generation {
        let declared = scene.view.declared.as_ref().map(|read| Generation(read.at.0));
        declared.or_else(|| scene.accepted.as_ref().map(|accepted| accepted.generation)).unwrap_or_default()
    }

    /// Sends the errands of a plan.
    fn send(&mut self, scene: &Scene, plan: &Plan, rollout: Option<&Rollout>) {
        let Some(stamp) = self.stamp(rollout) else { return };
        let Some(accepted) = &scene.accepted else { return };
        for (id, acts) in &plan.actions {
            let Some((target, _)) = scene.placements.get(id) else { continue };
            if self.looking.contains(id) {
                // What it is like is just being found out; the next turn decides on that.
                continue;
            }
            let carried = match self.views.get(id) {
                Some(HostView::Seen(seen)) => seen.service.good.is_some(),
                _ => false,
            };
            let judged = acts.iter().any(|act| matches!(act, Act::Judge { .. }));
            let activity = if carried && judged { Activity::Disruptive } else { Activity::Quiet };
            let number = plan.aim.revision();
            let revision = number.and_then(|number| scene.view.revisions.get(&number)).or(plan.new_revision.as_ref());
            let judged_by = number.and_then(|number| rules(scene, plan, number, id));
            let judged_by = judged_by.unwrap_or_else(|| rules_of(scene, &accepted.spec, id));
            let cancel = CancellationToken::new();
            let errand = Errand {
                host: id.clone(),
                target: target.clone(),
                service: self.key.clone(),
                stamp: stamp.clone(),
                acts: acts.clone(),
                revision: revision.cloned(),
                judged_by: Some(judged_by),
                force_after: accepted.spec.lifecycle.force_after.duration(),
                history: scene.view.revisions.values().map(|revision| revision.release).collect(),
                cancel: cancel.clone(),
            };
            self.busy.insert(id.clone(), (activity, cancel));
            let controller = self.controller;
            let (host, acts) = (id.clone(), acts.clone());
            let sequence = stamp.sequence;
            // A task of its own, so that it moves while this turn writes to the store or reads a source.
            let controller = Arc::clone(controller);
            let running = async move { controller.run(&errand).await };
            let task = AbortOnDropHandle::new(tokio::spawn(running.in_current_span()));
            let errand =
                async move { Returned::Errand(host, sequence, acts, task.await.unwrap_or(Outcome::Cancelled)) };
            self.out.push(errand.boxed());
        }
    }

    /// Waits until something comes back from a host, or something else is wanted.
    async fn wait(&mut self, fingerprint: &crate::cache::Fingerprint) {
        let mut changes = self.controller.cache.changes();
        let again = tokio::time::sleep(TRY_AGAIN);
        tokio::pin!(again);
        loop {
            if self.controller.cache.fingerprint(self.key) != *fingerprint {
                // A verdict may take long, and what it is about may not be wanted any more. Steps are never cut.
                for (_, cancel) in self.busy.values() {
                    cancel.cancel();
                }
                if !self.busy.is_empty()
                    && let Some(returned) = self.out.next().await
                {
                    self.take_in(returned);
                }
                self.views.clear();
                return;
            }
            tokio::select! {
                returned = self.out.next() => {
                    if let Some(returned) = returned {
                        self.take_in(returned);
                    }
                    return;
                }
                _ = changes.changed() => {}
                () = self.stop.cancelled(), if !self.busy.is_empty() && !self.stopping => {
                    self.stopping = true;
                    self.busy.values().for_each(|(_, cancel)| cancel.cancel());
                }
                () = &mut again => {
                    self.views.retain(|_, view| matches!(view, HostView::Seen(_)));
                    return;
                }
            }
        }
    }

    /// When to look again.
    fn next(&self, scene: &Scene, spec: &ServiceSpec, plan: &Plan) -> Next {
        if self.failed {
            return Next::Retry;
        }
        if self.controller.cache.is_asked(&ResourceKey::Service(self.key.clone())) {
            // More was asked than one commit could end.
            return Next::After(Duration::ZERO);
        }
        let declared = scene.view.declared.is_some();
        let mut waits = vec![LOOK_EVERY];
        if declared {
            waits.push(spec.source.change_detection.interval.duration());
            waits.extend(spec.health.as_ref().map(|health| health.interval.duration()));
        }
        let lost = self.views.values().any(|view| matches!(view, HostView::Unreachable(_) | HostView::Refusing(_)));
        if lost {
            waits.push(TRY_AGAIN);
        }
        if plan.report.work == Work::UnderWay {
            waits.push(WAITING);
        }
        let held = |finding: &Finding| finding.reason == Reason::RemovalNeedsConfirmation;
        if plan.report.findings.iter().any(held) {
            // Whether it is held depends on what becomes of other Services.
            waits.push(TRY_AGAIN);
        }
        Next::After(waits.into_iter().min().unwrap_or(LOOK_EVERY))
    }

    /// Says of a declaration that never made sense what is wrong with it.
    async fn nonsense(&mut self, scene: &Scene) -> Result<Next, ReconcileError> {
        let controller = self.controller;
        let resource = ResourceKey::Service(self.key.clone());
        let mut writes: Vec<Write> = Vec::new();
        match &scene.complaint {
            Some(complaint) => {
                let now = now();
                let before: ServiceStatus = scene
                    .view
                    .status
                    .as_ref()
                    .and_then(|stored| serde_json::from_slice(&stored.value).ok())
                    .unwrap_or_default();
                let said = ServiceStatus {
                    observed_generation: self.generation(scene),
                    conditions: conditions(stalled(complaint), self.generation(scene), &before.conditions, now),
                    ..ServiceStatus::default()
                };
                let bytes = json(&said);
                if scene.view.status.as_ref().is_none_or(|stored| stored.value != bytes) {
                    let news = crate::events::transitions(&before.conditions, &said.conditions);
                    writes.push(Write::put(Key::Status(resource.clone()), bytes));
                    writes.extend(controller.events.writes(&controller.store, &resource, now, news).await);
                }
            }
            // Neither declared nor owned: only what was said of it is left.
            None => writes.extend(scene.view.status.as_ref().map(|_| Write::delete(Key::Status(resource.clone())))),
        }
        let request =
            |id: &windlass_store::RequestId| Write::delete(Key::Request { target: resource.clone(), id: id.clone() });
        writes.extend(scene.view.requests.keys().map(request));
        if !writes.is_empty() {
            let revision = controller.store.commit(controller.leadership(), &writes).await?;
            controller.cache.reach(revision).await;
        }
        let more = controller.cache.is_asked(&resource);
        Ok(if more { Next::After(Duration::ZERO) } else { Next::Never })
    }
}

/// Whether a plan begins anew what has just halted.
fn reopens_what_halted(plan: &Plan, last: Option<&Rollout>) -> bool {
    let halted = last.is_some_and(|last| last.state == RolloutState::Halted && last.revision == plan.aim.revision());
    halted && matches!(plan.rollout, RolloutChange::Open { .. })
}

/// By whose rules a revision is judged on a host: what is declared by what is declared, what was gone back to by what
/// it was declared with.
fn rules(scene: &Scene, plan: &Plan, revision: RevisionNumber, host: &HostId) -> Option<Rules> {
    let spec = if plan.declared == Some(revision) {
        scene.accepted.as_ref().map(|accepted| &accepted.spec)
    } else {
        scene.view.revisions.get(&revision).map(|revision| &revision.spec)
    };
    spec.map(|spec| rules_of(scene, spec, host))
}

fn rules_of(scene: &Scene, spec: &ServiceSpec, host: &HostId) -> Rules {
    // Whoever is asked is placed there, and has a default; if ever one had not, the strictest would be right.
    let default_transport = scene.default_transports.get(host).copied().unwrap_or(Transport::Https);
    Rules { spec: spec.clone(), default_transport }
}

/// The conditions of something that makes no sense.
pub fn stalled(complaint: &Complaint) -> Vec<Finding> {
    let finding = |kind, status| Finding { kind, status, reason: complaint.reason, message: complaint.message.clone() };
    vec![
        finding(ConditionType::Ready, ConditionStatus::False),
        Finding {
            kind: ConditionType::Reconciling,
            status: ConditionStatus::False,
            reason: Reason::AsExpected,
            message: String::new(),
        },
        finding(ConditionType::Stalled, ConditionStatus::True),
    ]
}
