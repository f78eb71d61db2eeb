//! The plan: what to record and what to do next for one Service, and what to say of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use serde::Serialize;
use windlass_crds::id::{HostId, RevisionNumber, Sequence};
use windlass_crds::observation::StepState;
use windlass_crds::record::{BlockCause, CanaryProgress, Evidence, Owned, Purpose, Revision, Rollout, RolloutState};
use windlass_crds::service::Strategy;
use windlass_crds::status::{HostRow, HostState};
use windlass_crds::step::{Step, StepError, Verb};

use crate::canary::Stage;
use crate::claim::{Claimed, LeftBehind, claim, haunted};
use crate::gate::{self, Waiting};
use crate::input::{Activity, Goal, HostInput, HostView, Inputs, Placement, UnderWay};
use crate::order::{switched_to, switches_to};
use crate::planted::{Bug, planted};
use crate::position::{running, unproven};
use crate::record;
use crate::standing::{Context, Cost, Course, Need, Standing, disown};
use crate::status::{Findings, Report, Work};
use crate::target::{Aim, choose};
use crate::twins::{Twin, surely_one, twins};

/// What one host is asked to do, in this order; the first that does not succeed ends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Act {
    /// A step on the host.
    Step(Step),
    /// Wait until it is known whether a revision is healthy there.
    Judge {
        /// Which.
        revision: RevisionNumber,
    },
}

impl fmt::Display for Act {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step(step) => step.fmt(out),
            Self::Judge { revision } => write!(out, "verdict on {revision}"),
        }
    }
}

/// `activate 2, verdict on 2, confirm 2`.
pub fn in_words(acts: &[Act]) -> String {
    acts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What a row begins with that says what comes next.
pub const NEXT: &str = "next: ";

/// What a host begins with once it is its turn: `next: stage 2`.
pub fn next(acts: &[Act]) -> String {
    acts.first().map(|act| format!("{NEXT}{act}")).unwrap_or_default()
}

/// Whether nothing but a release is brought by it.
pub fn only_brings(acts: &[Act]) -> bool {
    acts.iter().all(|act| matches!(act, Act::Step(Step::Stage { .. })))
}

/// What becomes of the last rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RolloutChange {
    /// Nothing.
    Keep,
    /// Another one begins, under a new sequence; an active one is superseded.
    Open {
        /// Why.
        purpose: Purpose,
        /// To which revision.
        revision: Option<RevisionNumber>,
        /// The new sequence has to be above this: a host has seen it.
        above: Sequence,
    },
    /// It ends.
    Close(RolloutState),
}

/// What to record, then what to do, and what to say.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where the hosts are brought to.
    pub aim: Aim,
    /// The revision of what is declared.
    pub declared: Option<RevisionNumber>,
    /// A revision to record.
    pub new_revision: Option<Revision>,
    /// What `owned/` shall say.
    pub owned: Owned,
    /// What becomes of the last rollout.
    pub rollout: RolloutChange,
    /// Hosts that have to see the rollout's sequence before anything is done.
    pub stamp: BTreeSet<HostId>,
    /// What to do, by host.
    pub actions: BTreeMap<HostId, Vec<Act>>,
    /// Hosts that the rollout has touched from now on: those whose switch is about to begin, recorded before it
    /// does, and where a rollout opens, those that the one before it left in doubt.
    pub touch: BTreeSet<HostId>,
    /// How far the canary has come from now on, where that is to be recorded: of the rollout that opens, or that goes
    /// on.
    pub canary: Option<CanaryProgress>,
    /// A host that was healthy and is not any more, while it was watched: a verdict of the last rollout.
    pub fallen: Option<(HostId, Evidence)>,
    /// Whether nobody waits for a place that one of the hosts at work has: all that are left are at it at once.
    pub last_wave: bool,
    /// When planning again may come to something else, though nothing happens.
    pub again: Option<Timestamp>,
    /// Machines that were found to be other ones than before, with what they may still run.
    pub left_behind: Vec<LeftBehind>,
    /// What was declared was approved just now: it comes into force with the next plan.
    pub granted: bool,
    /// Nothing is left of a removed Service: its records go too.
    pub gone: bool,
    /// What to say.
    pub report: Report,
}

impl Plan {
    /// Adds what a host that has fallen logged last, wherever that is told.
    pub fn add_logs(&mut self, logs: &[String]) {
        let Some((host, evidence)) = &mut self.fallen else { return };
        evidence.logs = logs.to_vec();
        for blocked in &mut self.owned.blocked {
            if let BlockCause::Unhealthy { host: on, evidence: told } = &mut blocked.cause
                && on == host
                && told.summary == evidence.summary
            {
                told.logs = logs.to_vec();
            }
        }
        if let Some(failure) = &mut self.report.failure {
            failure.evidence.logs = logs.to_vec();
        }
    }

    /// Whether there is nothing to record about a rollout and nothing to do.
    pub fn is_idle(&self) -> bool {
        let recorded = self.rollout == RolloutChange::Keep && self.canary.is_none();
        recorded && self.stamp.is_empty() && self.actions.is_empty() && !self.gone
    }
}

/// Decides what to record and to do next.
pub fn plan(inputs: &Inputs<'_>) -> Plan {
    let mut choice = choose(inputs);
    let waiting = inputs.proposal.as_ref().map(|proposal| gate::wait(inputs, proposal));
    let gate = match waiting {
        Some(Waiting { gate, new }) => {
            choice.new = new;
            Some(Box::new(gate))
        }
        None => gate::kept(inputs),
    };
    let granted = inputs.proposal.is_some() && gate.as_ref().is_some_and(|gate| gate.granted.is_some());
    let Claimed { mut owned, left_behind } = claim(inputs, &choice.aim, choice.new.as_ref());
    owned.gate = gate;
    owned.in_force = gate::in_force(inputs, choice.declared);
    let target = choice.aim.revision().and_then(|number| revision(inputs, choice.new.as_ref(), number));
    let twins = twins(inputs);
    let active = active(inputs, &choice.aim);
    let (hold, went_back) = (owned.hold.clone(), owned.went_back.clone());
    let mut context = Context { inputs, aim: &choice.aim, target, active, canary: None, hold, went_back: &went_back };
    context.canary = context.find_canary();
    let mut standings = BTreeMap::new();
    for (id, host) in inputs.hosts {
        let standing = match twins.get(id) {
            Some(twin) => context.twin(id, host, twin, &mut owned),
            None => context.standing(id, host, &mut owned),
        };
        standings.insert(id.clone(), standing);
    }
    context.keep_serving(&mut standings);
    // Before anything is taken back: what has fallen may have fallen with the others.
    if context.hold.is_none() {
        context.hold = context.mass_unhealthy(&standings);
        owned.hold.clone_from(&context.hold);
    }
    if !context.stands_still()
        && let (Some(fallen), Some(target)) = (context.fallen().or_else(|| context.stranded()), target)
    {
        return taken_back(inputs, target, fallen);
    }
    let stage = context.canary.as_ref().map(|canary| canary.stage(&context, &standings));
    let over = stage.as_ref().is_none_or(|stage| *stage == Stage::Done);
    let allowed = context.allow(&standings);
    let change = context.rollout(&standings, &allowed, over);
    let stamp = context.stamps(&change, &allowed);
    let goes_on = |active: &Rollout| {
        (active.failures.is_empty() || context.tolerates(active)) && context.highest_seen() <= active.sequence
    };
    let acting = change == RolloutChange::Keep && stamp.is_empty() && active.is_some_and(goes_on);
    let actions = if acting { allowed } else { BTreeMap::new() };
    let last_wave = context.is_last_wave(&standings, &actions);
    let touch = context.touch(&change, &actions);
    record::doubt(&mut owned, &touch);
    for (id, acts) in &actions {
        if let Some(revision) = switched_to(acts) {
            record::carries(&mut owned, id, revision);
        }
    }
    context.note_repairs(&mut owned, &actions, &touch);
    if let Some(target) = context.target
        && over
        && context.converged(&standings)
        && owned.good.last() != Some(&target.number)
    {
        record::good(&mut owned, target.number, history_limit(inputs));
    }
    let told = |id: &HostId| inputs.hosts[id].placement != Placement::Unplaced || owned.hosts.contains_key(id);
    let row = |(id, standing): (&HostId, &Standing)| (id.clone(), haunted(standing.row.clone(), owned.hosts.get(id)));
    let rows: BTreeMap<HostId, HostRow> = standings.iter().filter(|(id, _)| told(id)).map(row).collect();
    if owned.restart.is_some() && context.restarted() {
        owned.restart = None;
    }
    let progress = context.progress(stage.as_ref(), &change, &actions);
    let waits = stage.as_ref().is_some_and(Stage::waits) && actions.is_empty() && stamp.is_empty();
    let work = context.work(&standings, &change, waits);
    let gone = choice.aim == Aim::Removed && owned.hosts.is_empty() && !context.busy();
    let stalled = twins.into_iter().filter_map(|(id, twin)| match twin {
        Twin::Stalled(other) => Some((id, other)),
        Twin::Renamed(_) | Twin::After(_) => None,
    });
    let stalled = stalled.collect();
    let found = Findings { rows, twins: &stalled, work, canary: context.canary.as_ref().zip(stage.as_ref()) };
    let report = Report::new(inputs, &choice.aim, &owned, found);
    let baked = if let Some(Stage::Baking(until)) = stage { Some(until) } else { None };
    let expires = inputs.proposal.as_ref().zip(owned.gate.as_ref());
    let expires = expires.and_then(|(proposal, gate)| gate::expires(gate, proposal.rules, inputs.now));
    let again = baked.into_iter().chain(expires).min();
    Plan {
        aim: choice.aim,
        declared: choice.declared,
        new_revision: choice.new,
        owned,
        rollout: change,
        stamp,
        actions,
        touch,
        canary: progress,
        fallen: None,
        last_wave,
        again,
        left_behind,
        granted,
        gone,
        report,
    }
}

/// What becomes of it when a host is not well any more while its step is watched: the revision is blocked, as by a
/// verdict, and the next plan goes back.
fn taken_back(inputs: &Inputs<'_>, target: &Revision, (host, evidence): (HostId, Evidence)) -> Plan {
    let mut owned = inputs.owned.clone();
    let declared = match &inputs.goal {
        Goal::Run { spec, .. } => spec,
        Goal::Remove => target.spec.as_ref(),
    };
    let cause = BlockCause::Unhealthy { host: host.clone(), evidence: evidence.clone() };
    record::block_revision(&mut owned, target, declared, cause);
    owned.restart = None;
    let next = plan(&Inputs { owned: &owned, ..inputs.clone() });
    Plan {
        rollout: RolloutChange::Close(RolloutState::Unhealthy),
        stamp: BTreeSet::new(),
        actions: BTreeMap::new(),
        touch: BTreeSet::new(),
        canary: None,
        fallen: Some((host, evidence)),
        ..next
    }
}

/// How many revisions are kept.
pub fn history_limit(inputs: &Inputs<'_>) -> usize {
    match &inputs.goal {
        Goal::Run { spec, .. } => spec.rollout.revision_history_limit.get() as usize,
        Goal::Remove => usize::MAX,
    }
}

fn revision<'a>(inputs: &Inputs<'a>, new: Option<&'a Revision>, number: RevisionNumber) -> Option<&'a Revision> {
    new.filter(|new| new.number == number).or_else(|| inputs.revisions.get(&number))
}

/// The rollout that goes on towards this aim under this controller.
fn active<'a>(inputs: &Inputs<'a>, aim: &Aim) -> Option<&'a Rollout> {
    let removal = *aim == Aim::Removed;
    inputs.rollout.filter(|rollout| {
        rollout.state == RolloutState::Active
            && rollout.term == inputs.term
            && rollout.revision == aim.revision()
            && (aim.revision().is_none() || inputs.owned.restart.is_none_or(|since| rollout.sequence > since))
            && (!removal || rollout.purpose == Purpose::Removal)
    })
}

impl Context<'_> {
    /// A host that goes by more than one name.
    fn twin(&self, id: &HostId, host: &HostInput, twin: &Twin, owned: &mut Owned) -> Standing {
        let carries = match &host.view {
            HostView::Seen(seen) => seen.service.unit.revision(),
            _ => None,
        };
        match twin {
            Twin::Stalled(other) => {
                let message = format!("it is the same machine as {other}; nothing is done on either");
                // It may be down by our hand all the same.
                let down = host.placement == Placement::Placed && self.standing(id, host, &mut owned.clone()).down;
                Standing { down, ..Standing::idle(carries, HostState::Failed, message) }
            }
            Twin::Renamed(other) => {
                if surely_one(host, &self.inputs.hosts[other]) {
                    disown(id, owned);
                }
                Standing::idle(carries, HostState::Removing, format!("it goes by the name of {other} now"))
            }
            Twin::After(other) => {
                Standing::idle(carries, HostState::Removing, format!("the same machine as {other}, which comes first"))
            }
        }
    }

    /// What a host that the Service leaves runs well is not taken down before the Service serves where it shall be:
    /// who gives a Host another address, or chooses another Host, wants it moved, not interrupted.
    fn keep_serving(&self, standings: &mut BTreeMap<HostId, Standing>) {
        let placed = |id: &HostId| self.inputs.hosts[id].placement != Placement::Unplaced;
        // One that was held back serves what was good before.
        let serves = |standing: &Standing| {
            standing.settled && standing.row.state != HostState::Unhealthy
                || standing.row.state == HostState::HeldBack && standing.need == Need::Nothing
        };
        let moves = matches!(self.inputs.goal, Goal::Run { .. }) && standings.keys().any(|id| self.is_placed(id));
        if !moves || standings.iter().any(|(id, standing)| placed(id) && serves(standing)) {
            return;
        }
        for (id, standing) in standings.iter_mut().filter(|(id, _)| !placed(id)) {
            let HostView::Seen(seen) = &self.inputs.hosts[id].view else { continue };
            if standing.need != Need::Nothing && seen.service.good.is_some() && running(&seen.service) {
                standing.need = Need::Nothing;
                standing.row.message = "goes on until it serves elsewhere".to_owned();
            }
        }
    }

    /// A host that was held back, and has nothing that it could go back to, though it served: its own good revision is
    /// none that the records know, those of an older store. It stays down, so no other host may follow it there.
    fn stranded(&self) -> Option<(HostId, Evidence)> {
        let target = self.target?;
        let ours = |last: &&Rollout| last.state == RolloutState::Active && last.revision == Some(target.number);
        self.inputs.rollout.filter(ours)?;
        self.inputs.hosts.iter().find_map(|(id, host)| {
            let HostView::Seen(seen) = &host.view else { return None };
            let served = seen.service.good.is_some_and(|good| good != target.number);
            match self.course(id, &seen.service, target) {
                Course::HeldBack(None, evidence) if served && self.is_placed(id) => {
                    Some((id.clone(), evidence.clone()))
                }
                _ => None,
            }
        })
    }

    /// Whether something is under way on any host.
    fn busy(&self) -> bool {
        self.inputs.hosts.values().any(|host| matches!(host.view, HostView::Busy(_)))
    }

    /// Whether a host that it is placed on has yet to be looked at.
    pub(crate) fn blind(&self) -> bool {
        let unseen =
            |host: &HostInput| host.placement == Placement::Placed && matches!(host.view, HostView::NotLookedAt);
        self.inputs.hosts.values().any(unseen)
    }

    /// Whether anything is left to be done, now or later; `waits` where a canary does, for time or a person.
    fn work(&self, standings: &BTreeMap<HostId, Standing>, change: &RolloutChange, waits: bool) -> Work {
        let goes_on = self.active.is_some() && *change == RolloutChange::Keep;
        let needs = standings.values().any(|standing| standing.need != Need::Nothing);
        match () {
            () if !self.busy() && self.held(standings) => Work::Held,
            () if goes_on && waits && !self.busy() => Work::Waiting,
            () if goes_on || self.busy() || needs => Work::UnderWay,
            () => Work::Nothing,
        }
    }

    /// Whether every host within reach has confirmed the target.
    fn converged(&self, standings: &BTreeMap<HostId, Standing>) -> bool {
        let work = standings.values().any(|standing| standing.need != Need::Nothing);
        !work && !self.busy() && !self.blind() && standings.values().any(|standing| standing.settled)
    }

    /// Whether a host that runs something good is being brought the next revision, or will be at once.
    fn comes_first(&self, id: &HostId, standing: &Standing) -> bool {
        let carries = self.inputs.owned.hosts.contains_key(id) && !self.inputs.owned.good.is_empty();
        let brought = match &standing.need {
            Need::Quiet(acts) => matches!(acts.first(), Some(Act::Step(Step::Stage { .. }))),
            _ => matches!(
                self.inputs.hosts.get(id).map(|host| &host.view),
                Some(HostView::Busy(UnderWay { activity: Activity::Quiet, .. }))
            ),
        };
        carries && brought && self.is_placed(id)
    }

    /// How many hosts may be down at once by our hand.
    fn most_down(&self, standings: &BTreeMap<HostId, Standing>) -> usize {
        let hosts = standings.keys().filter(|id| self.is_placed(id)).count();
        let most = self.spec().map_or(1, |spec| match spec.rollout.strategy {
            Strategy::AllAtOnce => usize::MAX,
            _ => spec.rollout.max_unavailable.of(hosts),
        });
        if planted(Bug::AllHostsAtOnce) { usize::MAX } else { most }
    }

    /// Whether every host that is not settled is at work, or begins now, and there is a place for each of them.
    fn is_last_wave(&self, standings: &BTreeMap<HostId, Standing>, actions: &BTreeMap<HostId, Vec<Act>>) -> bool {
        let mut left = 0;
        for (id, _) in standings.iter().filter(|(id, standing)| self.is_placed(id) && !standing.settled) {
            let busy = matches!(self.inputs.hosts[id].view, HostView::Busy(_));
            if !busy && !actions.contains_key(id) {
                return false;
            }
            left += 1;
        }
        left <= self.most_down(standings)
    }

    /// What may be done now without more hosts down than allowed, in the order in which hosts come.
    fn allow(&self, standings: &BTreeMap<HostId, Standing>) -> BTreeMap<HostId, Vec<Act>> {
        let most = self.most_down(standings);
        let mut down = standings.values().filter(|standing| standing.down).count();
        // Those of them that run: more were left so by chance than may be, and they are not all stopped at once.
        let running = |standing: &&Standing| {
            standing.down && matches!(standing.need, Need::Switch { costs: Cost::ItsOwnPlace, .. })
        };
        let mut stopped = down - standings.values().filter(running).count();
        // Places that belong to hosts earlier in the order, which are only being brought what they will run.
        let mut promised = 0;
        let open = self.open_group(standings);
        let mut allowed = BTreeMap::new();
        for id in self.in_need() {
            let Some(standing) = standings.get(id) else { continue };
            if self.waits(id, standing) {
                continue;
            }
            if self.passed_over(id) {
                continue;
            }
            promised += usize::from(self.comes_first(id, standing));
            if self.spent(id, standing) || self.comes_later(id, standing, open) || self.awaits_another_try(id, standing)
            {
                continue;
            }
            match &standing.need {
                Need::Nothing | Need::Later => {}
                Need::Quiet(acts) | Need::Switch { acts, costs: Cost::Nothing } => {
                    allowed.insert(id.clone(), acts.clone());
                }
                Need::Switch { acts, costs: Cost::ItsOwnPlace } if stopped < most => {
                    stopped += 1;
                    allowed.insert(id.clone(), acts.clone());
                }
                Need::Switch { acts, costs: Cost::APlace } if down.saturating_add(promised) < most => {
                    down += 1;
                    stopped += 1;
                    allowed.insert(id.clone(), acts.clone());
                }
                Need::Switch { .. } => {}
            }
        }
        allowed
    }

    /// Whether a rollout goes on though steps have failed on some hosts.
    fn tolerates(&self, active: &Rollout) -> bool {
        let most = self.spec().map_or(0, |spec| spec.rollout.max_failures as usize);
        active.purpose == Purpose::Deploy && record::failed_hosts(self.inputs.owned, active).count() <= most
    }

    /// Whether a step failed on a host, and the rollout goes on with the others.
    pub(crate) fn passed_over(&self, id: &HostId) -> bool {
        self.active.is_some_and(|active| active.failures.contains_key(id) && self.tolerates(active))
    }

    /// What is to be recorded of the canary.
    fn progress(
        &self,
        stage: Option<&Stage>,
        change: &RolloutChange,
        actions: &BTreeMap<HostId, Vec<Act>>,
    ) -> Option<CanaryProgress> {
        let (canary, stage, target) = (self.canary.as_ref()?, stage?, self.target?);
        let switched = actions.iter().filter(|(_, acts)| switches_to(acts, target.number));
        let progress = canary.progress(stage, switched.map(|(id, _)| id.clone()).collect(), self.inputs.now);
        match (change, self.active) {
            (RolloutChange::Open { .. }, _) => Some(progress),
            (RolloutChange::Keep, Some(active)) => Some(progress).filter(|new| active.canary.as_ref() != Some(new)),
            _ => None,
        }
    }

    /// Whether a host needs what it has done before under this sequence: it would answer from its record and do
    /// nothing, so that takes another one. So does a switch forward after one back, of which no host could tell later
    /// which was the last.
    fn spent(&self, id: &HostId, standing: &Standing) -> bool {
        let (Some(active), Some(HostView::Seen(seen))) =
            (self.active, self.inputs.hosts.get(id).map(|host| &host.view))
        else {
            return false;
        };
        let under = |verb| seen.service.steps.get(&verb).filter(|record| record.sequence == active.sequence);
        standing.need.acts().iter().any(|act| {
            let Act::Step(step) = act else { return false };
            let done = under(step.verb()).is_some_and(|record| {
                record.revision == step.revision().unwrap_or_default()
                    && matches!(record.state, StepState::Ok | StepState::Voided)
            });
            done || (step.verb() == Verb::Activate && under(Verb::Revert).is_some())
        })
    }

    /// What becomes of the last rollout.
    fn rollout(
        &self,
        standings: &BTreeMap<HostId, Standing>,
        allowed: &BTreeMap<HostId, Vec<Act>>,
        over: bool,
    ) -> RolloutChange {
        let busy = self.busy();
        let last = self.inputs.rollout.filter(|rollout| rollout.state == RolloutState::Active);
        if over && standings.values().all(|standing| standing.need == Need::Nothing) {
            if planted(Bug::NeverDone) && last.is_none() && !busy && self.target.is_some() {
                return self.open(self.highest_seen());
            }
            return self.end(last, standings);
        }
        if self.hold.is_some() && *self.aim != Aim::Removed && allowed.is_empty() {
            // What nobody may go on with by himself is no rollout any more: hosts are not stamped for it.
            let over = self.active.is_some() && !busy;
            return if over { RolloutChange::Close(RolloutState::Halted) } else { RolloutChange::Keep };
        }
        if self.held(standings) {
            return RolloutChange::Keep;
        }
        let spent = |(id, standing): (&HostId, &Standing)| self.spent(id, standing) && !self.waits(id, standing);
        let highest = self.highest_seen();
        match self.active {
            // What is under way belongs to another rollout: it ends first.
            None if busy => RolloutChange::Keep,
            // What can be gone back to depends on what each host calls good under its number: the records of an older store
            // may be of other files.
            None if self.blind() && matches!(self.aim, Aim::Back { .. }) => RolloutChange::Keep,
            // Everything waits for hosts that are down: a new number would change nothing.
            None if allowed.is_empty() && last.is_none() && self.canary.is_none() => RolloutChange::Keep,
            None => self.open(highest),
            Some(_) if busy => RolloutChange::Keep,
            Some(active) if !active.failures.is_empty() && (allowed.is_empty() || !self.tolerates(active)) => {
                RolloutChange::Close(RolloutState::Halted)
            }
            Some(active) if highest > active.sequence => self.open(highest),
            Some(_) if allowed.is_empty() && standings.iter().any(spent) => self.open(highest),
            Some(_) => RolloutChange::Keep,
        }
    }

    /// How the last rollout ends, when there is nothing left to do in it. One that was halted has succeeded once
    /// its hosts are where it should have brought them.
    fn end(&self, last: Option<&Rollout>, standings: &BTreeMap<HostId, Standing>) -> RolloutChange {
        let halted = self.inputs.rollout.filter(|rollout| rollout.state == RolloutState::Halted);
        let Some(last) = last.or(halted).filter(|_| !self.busy()) else { return RolloutChange::Keep };
        let change = |state| if last.state == state { RolloutChange::Keep } else { RolloutChange::Close(state) };
        if last.revision != self.aim.revision() {
            return if last.state == RolloutState::Active {
                change(RolloutState::Superseded)
            } else {
                RolloutChange::Keep
            };
        }
        // A host that has not answered yet still belongs to it.
        if self.blind() && (last.failures.is_empty() || last.state == RolloutState::Halted) {
            return RolloutChange::Keep;
        }
        let refused = |host: &HostInput| matches!(host.placement, Placement::Refused(_));
        let out_of_sight = |id: &HostId| match self.inputs.hosts.get(id) {
            Some(host) if refused(host) => true,
            Some(host) => self.is_placed(id) && !matches!(host.view, HostView::Seen(_)),
            None => false,
        };
        let nowhere = self.aim.revision().is_some()
            && standings.keys().any(|id| self.is_placed(id))
            && !standings.values().any(|standing| standing.settled);
        if nowhere || last.touched.iter().any(out_of_sight) {
            return change(RolloutState::Halted);
        }
        change(RolloutState::Succeeded)
    }

    fn open(&self, highest: Sequence) -> RolloutChange {
        let above = highest.max(self.inputs.owned.restart.unwrap_or_default());
        RolloutChange::Open { purpose: self.purpose(), revision: self.aim.revision(), above }
    }

    fn highest_seen(&self) -> Sequence {
        if planted(Bug::HostsUnasked) {
            return Sequence::default();
        }
        let sequences = self.inputs.hosts.values().filter_map(|host| match &host.view {
            HostView::Seen(seen) => Some(seen.service.sequence),
            HostView::Refusing(StepError::Superseded { theirs, .. }) => Some(*theirs),
            _ => None,
        });
        sequences.max().unwrap_or_default()
    }

    /// The hosts that must see the sequence before anything is done: every one within reach.
    fn stamps(&self, change: &RolloutChange, allowed: &BTreeMap<HostId, Vec<Act>>) -> BTreeSet<HostId> {
        let Some(active) = self.active.filter(|_| *change == RolloutChange::Keep && !allowed.is_empty()) else {
            return BTreeSet::new();
        };
        let behind = |host: &HostInput| match (&host.view, &host.placement) {
            (_, Placement::Refused(_)) => false,
            (HostView::Seen(seen), _) => seen.service.sequence < active.sequence,
            _ => false,
        };
        self.inputs.hosts.iter().filter(|(_, host)| behind(host)).map(|(id, _)| id.clone()).collect()
    }

    /// The hosts that the rollout touches from now on.
    fn touch(&self, change: &RolloutChange, actions: &BTreeMap<HostId, Vec<Act>>) -> BTreeSet<HostId> {
        if planted(Bug::TouchForgotten) {
            return BTreeSet::new();
        }
        if let RolloutChange::Open { .. } = change {
            let proven = |id: &HostId| match self.inputs.hosts.get(id).map(|host| &host.view) {
                Some(HostView::Seen(seen)) => !unproven(&seen.service),
                _ => false,
            };
            let touched = self.inputs.rollout.into_iter().flat_map(|rollout| &rollout.touched);
            return touched.filter(|id| self.touched(id) && !proven(id)).cloned().collect();
        }
        let known = |id: &HostId| self.active.is_some_and(|active| active.touched.contains(id));
        let switches =
            |acts: &[Act]| acts.iter().any(|act| matches!(act, Act::Step(Step::Activate { .. } | Step::Revert { .. })));
        actions.iter().filter(|(id, acts)| switches(acts) && !known(id)).map(|(id, _)| id.clone()).collect()
    }
}
