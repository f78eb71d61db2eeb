//! Moves one Service to its declaration.
//!
//! Level-triggered: everything is read afresh on every turn, so a lost event costs only time. A turn looks at hosts,
//! plans, records, and sends errands; while errands are out it waits for the first of them, or for news.

mod arrivals;
mod brought;
mod foreseen;
mod gate;
mod nonsense;
mod pace;
mod record;
mod scene;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;
use windlass_crds::host::Target;
use windlass_crds::id::{HostId, RevisionNumber, Sequence, ServiceKey};
use windlass_crds::observation::HostObservation;
use windlass_crds::record::{Owned, Rollout, RolloutState};
use windlass_crds::service::ServiceSpec;
use windlass_crds::status::ServiceStatus;
use windlass_crds::step::Step;
use windlass_hosts::fleet::{Fleet, Seen, Stamp};
use windlass_planner::flap;
use windlass_planner::gate::refreshed;
use windlass_planner::hold::ails;
use windlass_planner::input::{Activity, Files, Goal, Health, HostInput, HostView, Inputs, Placement, UnderWay};
use windlass_planner::plan::{Act, Plan, RolloutChange, only_brings, plan};
use windlass_planner::planted::{Bug, planted};
use windlass_planner::position::unproven;
use windlass_planner::status::Work;
use windlass_planner::verdict::confirm_within;
use windlass_store::{CommitError, ReadError, SequenceError, StoreRevision, WriteError};

pub use self::foreseen::{Foreseen, foresee};
pub use self::nonsense::stalled;
use self::pace::{Pace, pulse_interval};
#[cfg(test)]
pub(crate) use self::record::LEFT_BEHIND;
use self::scene::Scene;
use crate::checkpoint::{Checkpoint, reached};
use crate::controller::{Controller, Memory, Pulse, Scan, TRANSFERS};
use crate::execute::{Errand, Outcome, Recall};
use crate::goal::FoundPlaces;
use crate::judge::LOG_LINES;
use crate::look::Looked;
use crate::moving::Moves;
use crate::queue::Next;
use crate::requests::Refused;
use crate::wave::Wave;

/// A host that has not answered by then is passed over for now, so that it holds nobody up.
const FIRST_ANSWER: Duration = Duration::from_millis(700);

/// So long after a look a host is taken to be as it was, but for what we have done there: it is looked at again after
/// [`TRY_AGAIN`] unless something is being done there, and so much longer a program takes that starts soon. Of a
/// thousand hosts that were looked at when a rollout began most are switched seconds later.
const STILL_NEW: Duration = Duration::from_secs(13);

/// While other hosts are at something, so long is waited for more of them once one is back: each turn is a commit, for
/// which the store waits for its disk, and a plan of all hosts. Short beside any restart.
const TOGETHER: Duration = Duration::from_millis(8);

/// So long after its time a host has taken back what nobody has confirmed: the time may be up to two seconds late, and
/// the old version has to be started.
const GONE_BACK: Duration = Duration::from_secs(4);

/// A host out of reach is tried again after this.
const TRY_AGAIN: Duration = Duration::from_secs(10);

/// While hosts are at something, so many of the others are looked at once more at a time: nothing is begun on a host
/// that is being looked at, and a thousand were seen at the same moment.
const LOOKED_AT_AGAIN: usize = 32;

/// So many hosts of a Service are brought what they will run at a time: twice as many as may be at once for all of them
/// together, so that there is always a next one. They come in the order of the plan, which gives places to those that
/// come first; and another Service waits for a few of them at most.
const BROUGHT_AT_ONCE: usize = 2 * TRANSFERS;

/// More rollouts than this in one reconcile means that hosts say yes and stay as they are: the key backs off.
const OPENED: u32 = 6;

/// Why something could not be reconciled this time.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// What was decided could not be recorded, so nothing was done.
    #[error("cannot record what was decided")]
    Commit(#[from] CommitError),
    /// A request is refused, and no answer can be left; so it stays, and is dealt with again.
    #[error("cannot answer a request")]
    Answer(#[from] WriteError),
    /// No number could be drawn for a rollout.
    #[error("cannot draw a sequence")]
    Sequence(#[from] SequenceError),
    /// The store does not say how far the audit trail has come, and nothing is done that is not told.
    #[error("cannot read the audit trail")]
    Audit(#[source] ReadError),
}

/// What came back from a host, or from a source.
enum Returned {
    Scan(Option<Box<Scan>>),
    /// From where the host led to then.
    Host(Arc<Target>, Answered),
}

/// What came back from a host.
enum Answered {
    Look(Looked),
    /// To which question, and what.
    Pulse(u64, Option<Pulse>),
    Errand(Sequence, Vec<Act>, Outcome),
}

/// One reconcile of one Service.
struct Turn<'a, F> {
    controller: &'a Arc<Controller<F>>,
    key: &'a ServiceKey,
    memory: Memory,
    out: FuturesUnordered<BoxFuture<'a, Returned>>,
    scanning: bool,
    /// Hosts that are being asked how the Service is, each with the number of the question.
    asking: BTreeMap<HostId, u64>,
    /// Questions that were asked in this reconcile.
    questions: u64,
    /// When the next question is due.
    ask_at: Option<Instant>,
    looking: BTreeSet<HostId>,
    busy: BTreeMap<HostId, (UnderWay, Recall)>,
    /// Those of them that are confirmed together.
    wave: Wave,
    /// What was recorded, and not seen in the cache yet.
    written: Option<StoreRevision>,
    /// Its hosts, as they were found last.
    places: Option<FoundPlaces>,
    /// Those of them that are only being brought what they will run.
    bringing: BTreeSet<HostId>,
    /// What was seen in this reconcile.
    views: BTreeMap<HostId, HostView>,
    /// When.
    seen_at: BTreeMap<HostId, Instant>,
    /// What was said last, as it is stored and as it reads: of a thousand hosts that takes a while to read.
    said: Option<(Bytes, Arc<ServiceStatus>)>,
    /// What ended and is not recorded yet.
    ended: Vec<(HostId, Sequence, Outcome)>,
    losses: BTreeMap<HostId, u32>,
    /// Rollouts that began in this reconcile.
    opened: u32,
    /// Held while one is under way.
    moves: Option<Moves>,
    /// Requests that could not be done, and why.
    refused: Vec<Refused>,
    failed: bool,
    /// The controller is being stopped: nothing new is begun.
    stop: &'a CancellationToken,
    stopping: bool,
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
            asking: BTreeMap::new(),
            questions: 0,
            ask_at: None,
            looking: BTreeSet::new(),
            busy: BTreeMap::new(),
            wave: Wave::default(),
            written: None,
            places: None,
            bringing: BTreeSet::new(),
            views: BTreeMap::new(),
            seen_at: BTreeMap::new(),
            said: None,
            ended: Vec::new(),
            losses: BTreeMap::new(),
            opened: 0,
            moves: None,
            refused: Vec::new(),
            failed: false,
            stop,
            stopping: false,
        }
    }

    async fn run(&mut self) -> Result<Next, ReconcileError> {
        loop {
            // Not every turn asks, and a time that has gone by would end its wait at once, again and again.
            self.ask_at = self.ask_at.filter(|_| planted(Bug::PastAwaited));
            let fingerprint = self.controller.cache.fingerprint(self.key);
            let scene = self.scene().await;
            let Some(spec) = scene.accepted.as_ref().map(|accepted| accepted.spec.clone()) else {
                return self.nonsense(&scene).await;
            };
            self.observe(&scene).await;
            let (mut plan, rollout) = self.decide(&scene);
            self.add_logs(&scene, &mut plan).await;
            let held = self.failed && reopens_what_halted(&plan, rollout.as_ref());
            if held {
                plan.rollout = RolloutChange::Keep;
                plan.touch.clear();
            }
            let sends = !held && !plan.gone && !self.stop.is_cancelled();
            if sends {
                for (host, acts) in plan.actions.iter().filter(|(host, _)| !self.looking.contains(*host)) {
                    plan.report.begin(host, acts);
                }
            }
            let rollout = self.record(&scene, &plan, rollout).await?;
            if sends && !self.stop.is_cancelled() {
                self.send(&scene, &plan, rollout.as_ref());
                self.ask(&scene, &plan, rollout.as_ref());
            }
            self.catch_up().await;
            if held {
                // What halted is tried again after a wait that grows. A look at the source takes a second or more until
                // the source has settled, and may bring what ends that.
                if !self.scanning || self.stop.is_cancelled() {
                    return Ok(self.retry());
                }
                let stop = self.stop;
                tokio::select! {
                    () = self.wait(&fingerprint) => {}
                    () = stop.cancelled() => {}
                }
                continue;
            }
            if plan.granted {
                // What was approved is in force from here on.
                continue;
            }
            if plan.gone {
                let cached = self.controller.cache.service(self.key);
                if cached.owned.is_none() && cached.declared.is_none() {
                    return Ok(Next::Never);
                }
                continue;
            }
            if self.stop.is_cancelled() && self.out.is_empty() {
                return Ok(Next::Never);
            }
            if matches!(plan.rollout, RolloutChange::Open { .. }) {
                self.opened += 1;
                if self.opened > OPENED {
                    tracing::warn!(service = %self.key, "rollout after rollout, and hosts stay as they are");
                    return Ok(self.retry());
                }
            }
            let looked = self.placements_seen(&scene);
            let resting = looked && self.out.is_empty() && plan.actions.is_empty() && plan.stamp.is_empty();
            let keeps = plan.rollout == RolloutChange::Keep && plan.canary.is_none();
            if resting && keeps {
                return Ok(self.next(&scene, &spec, &plan));
            }
            if plan.rollout == RolloutChange::Close(RolloutState::Halted) {
                self.failed = true;
                if self.out.is_empty() {
                    return Ok(self.retry());
                }
            }
            if keeps && plan.stamp.is_empty() {
                self.wait(&fingerprint).await;
            }
        }
    }

    /// Waits until the cache has seen what was recorded last: nothing may be decided on less. What was decided is recorded
    /// by then, and is sent before.
    async fn catch_up(&mut self) {
        if let Some(revision) = self.written.take() {
            self.controller.reach(revision).await;
        }
    }

    /// The stamp of the rollout that goes on under us.
    fn stamp(&self, rollout: Option<&Rollout>) -> Option<Stamp> {
        let ours =
            rollout.filter(|rollout| rollout.state == RolloutState::Active && rollout.term == self.controller.term);
        ours.map(|rollout| Stamp { sequence: rollout.sequence, cluster: self.controller.cluster.clone() })
    }

    /// Begins to look at every host that was not looked at since something happened to it, and stamps those that lack
    /// the rollout's stamp.
    fn begin_looks(&mut self, placements: &BTreeMap<HostId, (Arc<Target>, Placement)>, rollout: Option<&Rollout>) {
        let stamp = self.stamp(rollout);
        let mut room = LOOKED_AT_AGAIN.saturating_sub(self.looking.len());
        // Those whose turn comes last first: the others are about to be worked on.
        for (id, (target, placement)) in placements.iter().rev() {
            let refused = matches!(placement, Placement::Refused(_));
            if refused || self.busy.contains_key(id) || self.looking.contains(id) || !self.is_stale(id, stamp.as_ref())
            {
                continue;
            }
            if !self.busy.is_empty() && !self.is_needed(id, stamp.as_ref()) {
                if room == 0 {
                    continue;
                }
                room -= 1;
            }
            let scrutiny = Controller::<F>::scrutiny(&mut self.memory, id);
            let seen = self.just_seen(id).cloned();
            let at = self.seen_at.get(id).copied();
            let (controller, key, from) = (Arc::clone(self.controller), self.key.clone(), target.clone());
            let target = target.clone();
            let stamp = stamp.clone();
            self.looking.insert(id.clone());
            let look = async move {
                if let (Some(seen), Some(at), Some(stamp)) = (seen, at, &stamp)
                    && let Some(stamped) = controller.stamp(&key, &target, stamp, seen, at).await
                {
                    return stamped;
                }
                controller.look(&key, &target, stamp, scrutiny).await
            };
            // A task of its own, so that it moves while this turn reads the source.
            let task = AbortOnDropHandle::new(tokio::spawn(look.in_current_span()));
            let looked = async move {
                let looked = task.await.unwrap_or_else(|_| Looked::nothing());
                Returned::Host(from, Answered::Look(looked))
            };
            self.out.push(looked.boxed());
        }
    }

    /// Waits until every host that is worth it was looked at.
    async fn observe(&mut self, scene: &Scene) {
        self.begin_looks(&scene.places.placements, scene.rollout.as_ref());
        let stamp = self.stamp(scene.rollout.as_ref());
        let stamped = stamp.is_some() && !self.looking.is_empty();
        let deadline = Instant::now() + FIRST_ANSWER;
        while self.looking.iter().any(|id| self.is_expected(id, stamp.as_ref())) {
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
        let mut hosts = scene.places.placements.iter();
        hosts.all(|(id, (_, placement))| matches!(placement, Placement::Refused(_)) || self.views.contains_key(id))
    }

    /// Whether a host is worth waiting for: one that was out of reach last time is not. While others are at something,
    /// neither is one that is only looked at once more: it would hold them up, and nothing is done there before.
    fn is_expected(&self, id: &HostId, stamp: Option<&Stamp>) -> bool {
        match self.views.get(id).or_else(|| self.memory.views.get(id)) {
            Some(HostView::Unreachable(_)) => false,
            _ => self.busy.is_empty() || self.is_needed(id, stamp),
        }
    }

    /// Whether a look at a host tells what nothing can be decided without: it was not seen yet, or not stamped.
    fn is_needed(&self, id: &HostId, stamp: Option<&Stamp>) -> bool {
        match self.views.get(id) {
            Some(HostView::Seen(seen)) => stamp.is_some_and(|stamp| seen.service.sequence < stamp.sequence),
            _ => true,
        }
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

    /// A host that leads elsewhere than before is another machine, of which nothing is known. Were what was seen of
    /// the old one taken for it, the records would lose the way there, and what it runs would run on unseen.
    fn follow(&mut self, placements: &BTreeMap<HostId, (Arc<Target>, Placement)>) {
        for (id, (target, _)) in placements {
            if self.memory.targets.get(id).is_some_and(|before| before == target) {
                continue;
            }
            if self.memory.targets.insert(id.clone(), Arc::clone(target)).is_some() {
                self.looking.remove(id);
                self.views.remove(id);
                self.seen_at.remove(id);
                self.memory.views.remove(id);
                self.memory.health.remove(id);
                self.memory.ill_since.remove(id);
                self.memory.read_through.remove(id);
                self.memory.goes_back.remove(id);
            }
        }
        // Should it come back while a look at it is under way, it is looked at anew.
        self.looking.retain(|id| placements.contains_key(id));
        self.memory.targets.retain(|id, _| placements.contains_key(id));
    }

    fn take_in(&mut self, returned: Returned) {
        match returned {
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
            Returned::Host(target, answered) => {
                let mut stays = self.memory.targets.get(&target.id).is_some_and(|now| *now == target);
                match &answered {
                    Answered::Look(_) => {}
                    Answered::Pulse(question, _) => {
                        // One that was asked before the host was worked on says nothing of what runs there now.
                        let asked = self.asking.get(&target.id) == Some(question);
                        stays &= asked;
                        if asked {
                            self.asking.remove(&target.id);
                        }
                    }
                    Answered::Errand(..) => {
                        self.busy.remove(&target.id);
                        self.bringing.remove(&target.id);
                    }
                }
                if stays {
                    self.take_answer(target.id.clone(), answered);
                }
            }
        }
    }

    /// Takes in what came back from where a host still leads to.
    fn take_answer(&mut self, host: HostId, answered: Answered) {
        match answered {
            Answered::Look(Looked { view, read_through, at }) => {
                self.looking.remove(&host);
                if read_through {
                    self.memory.read_through.insert(host.clone(), Instant::now());
                }
                self.seen_at.insert(host.clone(), at);
                // What was seen of it before this reconcile says nothing any more.
                self.memory.views.remove(&host);
                self.views.insert(host, view);
            }
            Answered::Pulse(_, pulse) => {
                if let Some(pulse) = pulse {
                    self.memory.health.insert(host, pulse);
                }
            }
            Answered::Errand(sequence, acts, outcome) => {
                if !self.knows_what_came(&host, sequence, &acts, &outcome) {
                    self.views.remove(&host);
                }
                if matches!(outcome, Outcome::Done(_)) {
                    self.memory.goes_back.remove(&host);
                }
                if !only_brings(&acts) {
                    // What it answered before it was switched says nothing any more.
                    self.memory.health.remove(&host);
                }
                self.ended.push((host, sequence, outcome));
            }
        }
    }

    /// Adds to what was seen of a host what an errand has brought there since. Whether that is all there is to know:
    /// after [`STILL_NEW`] the rest may be another.
    fn knows_what_came(&mut self, host: &HostId, sequence: Sequence, acts: &[Act], outcome: &Outcome) -> bool {
        let new = self.is_still_new(host);
        let Outcome::Done(run) = outcome else { return false };
        let Some(HostView::Seen(seen)) = self.views.get_mut(host).filter(|_| new) else { return false };
        brought::add(&mut Arc::make_mut(seen).service, sequence, acts, run.clone())
    }

    /// What was found of a host, where that is still new.
    fn just_seen(&self, host: &HostId) -> Option<&HostObservation> {
        match self.views.get(host) {
            Some(HostView::Seen(seen)) if self.is_still_new(host) => Some(seen),
            _ => None,
        }
    }

    /// Whether a host was looked at so short a time ago that it is as it was, but for what we have done there.
    fn is_still_new(&self, host: &HostId) -> bool {
        self.seen_at.get(host).is_some_and(|at| at.elapsed() < STILL_NEW)
    }

    /// Asks how the Service is where that is due and nothing is under way; the answers come beside the rest.
    fn ask(&mut self, scene: &Scene, plan: &Plan, rollout: Option<&Rollout>) {
        // A rollout that waits for a person may do so for days, and a canary is watched.
        let held = matches!(plan.report.work, Work::Held | Work::Waiting);
        // One that goes on asks only where it has not come to: it stops when many fall ill there.
        let goes_on = rollout.filter(|rollout| rollout.state == RolloutState::Active && !held);
        for (id, (target, placement)) in &scene.places.placements {
            if self.busy.contains_key(id) || goes_on.is_some_and(|rollout| rollout.touched.contains(id)) {
                continue;
            }
            let confirmed = match self.views.get(id) {
                Some(HostView::Seen(seen)) => {
                    seen.service.good.filter(|_| seen.service.good == seen.service.unit.revision())
                }
                _ => None,
            };
            let Some(revision) = confirmed else { continue };
            let interval = scene.judged_by(plan, revision).and_then(|spec| pulse_interval(spec, plan));
            let Some(interval) = interval else { continue };
            let before = self.memory.health.get(id).cloned();
            if *placement != Placement::Placed || self.asking.contains_key(id) {
                continue;
            }
            if !Controller::<F>::pulse_due(interval, before.as_ref()) {
                let due = before.map(|before| before.at + interval);
                self.ask_at = self.ask_at.into_iter().chain(due).min();
                continue;
            }
            let Some(rules) = scene.rules(plan, revision, id) else { continue };
            self.questions += 1;
            let question = self.questions;
            self.asking.insert(id.clone(), question);
            let (controller, target) = (self.controller, target.clone());
            let pulse = async move {
                let pulse = controller.pulse(&rules, &target, before).await;
                Returned::Host(target, Answered::Pulse(question, pulse))
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
            Some(accepted) if scene.view.declared.is_some() && !scene.leaves => {
                Goal::Run { spec: &accepted.spec, generation: accepted.generation, files: scene.files.clone() }
            }
            _ => Goal::Remove,
        };
        Inputs {
            service: self.key,
            now: self.controller.now(),
            term: self.controller.term,
            fresh_term: self.controller.is_fresh(),
            goal,
            gated: !scene.rules.is_empty(),
            proposal: scene.proposed.as_ref().map(|proposed| proposed.as_input(&scene.rules)),
            complaint: scene.complaint.clone(),
            owned,
            revisions: &scene.view.revisions,
            rollout,
            hosts,
            removals: self.controller.cache.removal_gate(self.key),
        }
    }

    /// Takes in since when hosts ail that were well.
    fn notice(&mut self, scene: &Scene, hosts: &mut BTreeMap<HostId, HostInput>) {
        self.memory.ill_since.retain(|id, _| hosts.contains_key(id));
        let asked = scene.accepted.as_ref().is_some_and(|accepted| accepted.spec.health.is_some());
        for (id, host) in hosts {
            match ails(host) {
                // That it runs is not all there is to being well, where it can be asked.
                Some(false) if host.health == Health::Well || !asked => {
                    self.memory.ill_since.insert(id.clone(), None);
                }
                Some(true) => {
                    if let Some(since) = self.memory.ill_since.get_mut(id) {
                        since.get_or_insert_with(|| self.controller.now());
                    }
                }
                Some(false) | None => {}
            }
            host.ill_since = self.memory.ill_since.get(id).copied().flatten();
        }
    }

    fn hosts(&self, scene: &Scene) -> BTreeMap<HostId, HostInput> {
        let input = |(id, (target, placement)): (&HostId, &(Arc<Target>, Placement))| {
            let view = match self.busy.get(id) {
                Some((errand, _)) => HostView::Busy(errand.clone()),
                None => self.views.get(id).cloned().unwrap_or_else(|| self.unseen(id)),
            };
            let health = match self.memory.health.get(id) {
                // Not often enough to count, and no good answer either.
                Some(pulse) if pulse.bad > 0 && pulse.health == Health::Well => Health::Unknown,
                Some(pulse) => pulse.health.clone(),
                None => Health::Unknown,
            };
            let (placement, group) = (placement.clone(), scene.places.groups.get(id).cloned());
            (id.clone(), HostInput { target: target.clone(), placement, view, health, ill_since: None, group })
        };
        scene.places.placements.iter().map(input).collect()
    }

    /// A host whose look is not back yet: out of reach if it was, else nothing is said of it.
    fn unseen(&self, id: &HostId) -> HostView {
        match self.memory.views.get(id) {
            Some(HostView::Unreachable(error)) => HostView::Unreachable(error.clone()),
            _ => HostView::NotLookedAt,
        }
    }

    /// Takes in what people asked and what came back from hosts, then plans.
    fn decide(&mut self, scene: &Scene) -> (Plan, Option<Rollout>) {
        let mut hosts = self.hosts(scene);
        self.notice(scene, &mut hosts);
        let mut owned = Owned::clone(&scene.owned);
        let mut rollout = scene.rollout.clone();
        // What waits for an approval is not in force.
        let waits = scene.proposed.is_some() || !scene.rules.is_empty() && scene.files == Files::AsBefore;
        if scene.view.declared.is_some() && scene.complaint.is_none() && !waits {
            if owned.accepted.as_ref().map(|before| before.generation)
                != scene.accepted.as_ref().map(|accepted| accepted.generation)
            {
                // Who declares it anew has seen what was said of machines that were left behind.
                owned.hosts.values_mut().for_each(|host| host.former.clear());
            }
            if let Some(accepted) = &scene.accepted {
                flap::accept(&mut owned, accepted, self.controller.now());
            }
        }
        if scene.proposed.is_some() {
            let before = owned.clone();
            owned.gate = refreshed(&self.inputs(scene, &before, scene.rollout.as_ref(), &hosts)).or(owned.gate);
        }
        self.take_requests(scene, &hosts, &mut owned, rollout.as_mut());
        if scene.owned.paused.is_some()
            && owned.paused.is_none()
            && let Some(rollout) = rollout.as_mut().filter(|rollout| rollout.state == RolloutState::Active)
        {
            // The time of the pause is nobody's delay.
            rollout.progressed = self.controller.now();
        }
        for (host, sequence, outcome) in std::mem::take(&mut self.ended) {
            // What was found under an older number says nothing about this rollout.
            if let Some(rollout) = rollout.as_mut().filter(|rollout| rollout.sequence == sequence) {
                self.take_outcome(scene, &host, outcome, &mut owned, rollout);
            }
        }
        let plan = plan(&self.inputs(scene, &owned, rollout.as_ref(), &hosts));
        reached(Checkpoint::Planned);
        (plan, rollout)
    }

    /// Adds the last lines of the log of a host that has fallen.
    async fn add_logs(&mut self, scene: &Scene, plan: &mut Plan) {
        let Some((host, _)) = &plan.fallen else { return };
        let Some((target, _)) = scene.places.placements.get(host) else { return };
        let logs = self.controller.fleet.logs(target, self.key, LOG_LINES).await.unwrap_or_default();
        plan.add_logs(&logs);
    }

    /// Sends the errands of a plan.
    fn send(&mut self, scene: &Scene, plan: &Plan, rollout: Option<&Rollout>) {
        let Some(stamp) = self.stamp(rollout) else { return };
        let Some(accepted) = &scene.accepted else { return };
        for (id, acts) in &plan.actions {
            let Some((target, _)) = scene.places.placements.get(id) else { continue };
            if self.looking.contains(id) {
                // What it is like is just being found out; the next turn decides on that.
                continue;
            }
            let brings = only_brings(acts);
            if brings && self.bringing.len() >= BROUGHT_AT_ONCE {
                continue;
            }
            let judged = acts.iter().any(|act| matches!(act, Act::Judge { .. }));
            let confirmed = acts.iter().any(|act| matches!(act, Act::Step(Step::Confirm { .. })));
            // What was switched and never confirmed stays down while something else is brought there.
            let down = match self.views.get(id) {
                Some(HostView::Seen(seen)) => seen.service.good.is_some() && (judged || unproven(&seen.service)),
                _ => false,
            };
            let activity = if down { Activity::Disruptive } else { Activity::Quiet };
            let number = revision_of(acts).or(plan.aim.revision());
            let revision = number.and_then(|number| scene.view.revisions.get(&number)).or(plan.new_revision.as_ref());
            let judged_by = number.and_then(|number| scene.rules(plan, number, id));
            let judged_by = judged_by.unwrap_or_else(|| scene.rules_of(&accepted.spec, id));
            let confirm_within = confirm_within(&judged_by.spec);
            if acts.iter().any(|act| matches!(act, Act::Step(Step::Activate { .. } | Step::Revert { .. }))) {
                self.memory.goes_back.insert(id.clone(), Instant::now() + confirm_within + GONE_BACK);
            }
            let recall = Recall::default();
            let errand = Errand {
                host: id.clone(),
                target: target.clone(),
                service: self.key.clone(),
                stamp: stamp.clone(),
                acts: acts.clone(),
                revision: revision.cloned(),
                judged_by: Some(judged_by),
                force_after: accepted.spec.lifecycle.force_after.duration(),
                confirm_within,
                history: scene.view.revisions.values().map(|revision| revision.release).collect(),
                seen: self.just_seen(id).map(|seen| Seen::from(&seen.service)),
                recall: recall.clone(),
                starts: Arc::clone(&self.memory.starts),
                wave: (plan.last_wave && confirmed).then(|| self.wave.join()),
            };
            self.busy.insert(id.clone(), (UnderWay { activity, acts: acts.as_slice().into() }, recall));
            if brings {
                self.bringing.insert(id.clone());
            }
            self.asking.remove(id);
            let controller = self.controller;
            let (target, acts) = (target.clone(), acts.clone());
            let sequence = stamp.sequence;
            // A task of its own, so that it moves while this turn writes to the store or reads a source.
            let controller = Arc::clone(controller);
            let running = async move { controller.run(&errand).await };
            let task = AbortOnDropHandle::new(tokio::spawn(running.in_current_span()));
            let errand = async move {
                let outcome = task.await.unwrap_or(Outcome::Cancelled);
                Returned::Host(target, Answered::Errand(sequence, acts, outcome))
            };
            self.out.push(errand.boxed());
        }
    }

    /// When to look again.
    fn next(&self, scene: &Scene, spec: &ServiceSpec, plan: &Plan) -> Next {
        if self.failed {
            return self.retry();
        }
        let lost = self.views.values().any(|view| matches!(view, HostView::Unreachable(_) | HostView::Refusing(_)));
        let declared = scene.view.declared.is_some();
        let pause = Pace { plan, spec, declared, lost, now: self.controller.now() }.pause();
        Next::After(self.until_one_goes_back().map_or(pause, |wait| wait.min(pause)))
    }

    /// Tries again, and soon after a host has taken back what nobody has confirmed.
    fn retry(&self) -> Next {
        self.until_one_goes_back().map_or(Next::Retry, Next::RetryWithin)
    }

    /// How long until the next host has taken back what it was switched to.
    fn until_one_goes_back(&self) -> Option<Duration> {
        let now = Instant::now();
        let times = self.memory.goes_back.values().filter(|at| **at > now);
        times.min().map(|at| *at - now)
    }

    /// Takes in what is back by now; whether that was anything.
    fn take_in_what_is_back(&mut self) -> bool {
        let mut any = false;
        while let Some(returned) = self.out.next().now_or_never().flatten() {
            self.take_in(returned);
            any = true;
        }
        any
    }

    /// Takes in what else is back by now, and what comes in a moment where other hosts are at something: it is decided
    /// on in the same turn, and recorded in the same commit.
    async fn take_in_more(&mut self) {
        let until = Instant::now() + TOGETHER;
        while !self.busy.is_empty()
            && let Ok(Some(returned)) = tokio::time::timeout_at(until, self.out.next()).await
        {
            self.take_in(returned);
        }
        self.take_in_what_is_back();
    }

    /// Waits until something comes back from a host, or something else is wanted.
    async fn wait(&mut self, fingerprint: &crate::cache::Fingerprint) {
        let mut changes = self.controller.cache.changes();
        let again = tokio::time::sleep(TRY_AGAIN);
        let ask = tokio::time::sleep_until(self.ask_at.unwrap_or_else(|| Instant::now() + TRY_AGAIN));
        tokio::pin!(again, ask);
        loop {
            if self.controller.cache.fingerprint(self.key) != *fingerprint {
                // A verdict may take long, and what it is about may not be wanted any more. Steps are never cut.
                for (_, recall) in self.busy.values() {
                    recall.at_once();
                }
                if !self.busy.is_empty()
                    && let Some(returned) = self.out.next().await
                {
                    self.take_in(returned);
                }
                self.views.clear();
                return;
            }
            if self.take_in_what_is_back() {
                // It has waited while the last turn was at work, and does not wait for more.
                return;
            }
            tokio::select! {
                returned = self.out.next() => {
                    if let Some(returned) = returned {
                        self.take_in(returned);
                    }
                    self.take_in_more().await;
                    return;
                }
                _ = changes.changed() => {}
                // Nobody is asked any more by a controller that is being stopped.
                () = &mut ask, if self.ask_at.is_some() && !self.stop.is_cancelled() => return,
                () = self.stop.cancelled(), if !self.busy.is_empty() && !self.stopping => {
                    self.stopping = true;
                    self.busy.values().for_each(|(_, recall)| recall.at_once());
                }
                () = &mut again => {
                    self.views.retain(|_, view| matches!(view, HostView::Seen(_)));
                    return;
                }
            }
        }
    }
}

/// The revision that acts are about, where they are about one.
fn revision_of(acts: &[Act]) -> Option<RevisionNumber> {
    acts.iter().find_map(|act| match act {
        Act::Step(step) => step.revision(),
        Act::Judge { revision } => Some(*revision),
    })
}

/// Whether a plan begins anew what has just halted.
fn reopens_what_halted(plan: &Plan, last: Option<&Rollout>) -> bool {
    let halted = last.is_some_and(|last| last.state == RolloutState::Halted && last.revision == plan.aim.revision());
    halted && matches!(plan.rollout, RolloutChange::Open { .. })
}
