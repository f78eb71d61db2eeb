//! Canaries: some hosts get a revision first, are watched for a while, and only then others follow.
//!
//! The hosts of the steps so far are brought to the revision, and all others are kept on the last good one meanwhile.
//! A Service of which nothing is good yet has nothing that a canary could save: its first deploy goes everywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use windlass_crds::id::{HostId, RevisionNumber};
use windlass_crds::observation::{ActiveState, ServiceObservation};
use windlass_crds::record::{CanaryProgress, Evidence, Revision, Rollout, RolloutState};
use windlass_crds::service::{Canary as Rules, Strategy};
use windlass_crds::status::CanaryStatus;

use crate::input::{Goal, Health, HostInput, HostView, Inputs, Placement};
use crate::planted::{Bug, planted};
use crate::position::{at_rest, unproven};
use crate::standing::{Context, Need, Standing, ailment};
use crate::target::Aim;

/// A canary as it stands before any host is asked what it needs.
pub(crate) struct Canary<'a> {
    rules: &'a Rules,
    /// As it is recorded.
    progress: CanaryProgress,
    /// How many hosts have the revision after each step.
    counts: Vec<usize>,
    /// Hosts that carry the revision, or may.
    carrying: BTreeSet<HostId>,
    /// Those, and those whose turn it is.
    pub(crate) members: BTreeSet<HostId>,
    /// A host was not looked at yet, so whose turn it is cannot be told.
    blind: bool,
    /// What all others run meanwhile.
    pub(crate) back: &'a Revision,
}

/// How the step that is under way stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Hosts are being brought the revision.
    UnderWay,
    /// They have been well for long enough, and some are not known to be so now.
    Unsure(Vec<HostId>),
    /// They have to stay healthy until then.
    Baking(Timestamp),
    /// A person has to let the next step begin; since when.
    Approval(Timestamp),
    /// The next step would begin, were it not for a pause.
    Held,
    /// The next step begins.
    Next(u32),
    /// There is none.
    Done,
}

impl Stage {
    /// Whether nothing is to be done but to watch.
    pub(crate) fn waits(&self) -> bool {
        matches!(self, Self::Unsure(_) | Self::Baking(_) | Self::Approval(_) | Self::Held)
    }
}

/// What is known of the hosts of the steps so far.
enum Found {
    /// Something is done, or left to be done, on one.
    Working,
    /// One is out of sight.
    OutOfSight(Vec<HostId>),
    /// All run it, and how one of them answers is not known.
    Doubtful(Vec<HostId>),
    /// All run it well.
    Well,
}

/// How far the canary of a revision has come, by the last rollout: one that ended for good leaves nothing to go on
/// with.
fn recorded(last: Option<&Rollout>, revision: RevisionNumber) -> CanaryProgress {
    let last = last.filter(|last| last.revision == Some(revision));
    let last = last.filter(|last| matches!(last.state, RolloutState::Active | RolloutState::Halted));
    last.and_then(|last| last.canary.clone()).unwrap_or_default()
}

impl<'a> Context<'a> {
    /// The canary by which the target gets to the hosts, where it does so by one.
    pub(crate) fn find_canary(&self) -> Option<Canary<'a>> {
        let Goal::Run { spec, .. } = &self.inputs.goal else { return None };
        let rules = spec.rollout.canary.as_ref().filter(|_| spec.rollout.strategy == Strategy::Canary)?;
        let target = self.target.filter(|_| matches!(self.aim, Aim::Declared(_)))?;
        if self.inputs.owned.good.last() == Some(&target.number) {
            return None;
        }
        let other = |good: &&RevisionNumber| **good != target.number;
        let back =
            self.inputs.owned.good.iter().rev().filter(other).find_map(|good| self.inputs.revisions.get(good))?;
        let mut progress = recorded(self.inputs.rollout, target.number);
        let mut placed: Vec<&HostId> = self.in_order().into_iter().filter(|id| self.is_placed(id)).collect();
        // Where it was taken back it is tried again before it goes anywhere else, so that is where a new one begins.
        // So it is with one that rests with it, unconfirmed: several may, after a first deploy that came to nothing.
        let idles = |id: &HostId| !progress.hosts.contains(id) && self.idles_with(id, target.number);
        placed.sort_by_key(|id| (!self.went_back.contains_key(*id), !idles(id)));
        let counts = rules.counts(placed.len());
        progress.step = progress.step.clamp(1, u32::try_from(counts.len()).unwrap_or(u32::MAX).max(1));
        // One that nobody may go to at present, since its Host was deleted for instance, is lost, and not replaced.
        let kept = |id: &&HostId| self.inputs.hosts.get(*id).is_some_and(|host| host.placement != Placement::Unplaced);
        let carries = |id: &&HostId| {
            let carries = self.is_placed(id) && self.carried_by(id) == Some(target.number);
            progress.hosts.contains(*id) || carries && !idles(id)
        };
        let carrying: BTreeSet<HostId> = self.in_order().into_iter().filter(kept).filter(carries).cloned().collect();
        let blind = self.blind();
        let mut members = carrying.clone();
        if !blind {
            let count = counts.get(progress.step as usize - 1).copied().unwrap_or(placed.len());
            let there = |id: &&&HostId| {
                matches!(self.inputs.hosts[**id].view, HostView::Seen(_) | HostView::Busy(_))
                    && !carrying.contains(**id)
            };
            let turn = placed.iter().filter(there).take(count.saturating_sub(carrying.len()));
            members.extend(turn.map(|id| (**id).clone()));
        }
        Some(Canary { rules, progress, counts, carrying, members, blind, back })
    }

    /// Whether the Service belongs on a host.
    pub(crate) fn is_placed(&self, id: &HostId) -> bool {
        self.inputs.hosts.get(id).is_some_and(|host| host.placement == Placement::Placed)
    }

    /// The revision that a host's unit names.
    pub(crate) fn unit_on(&self, id: &HostId) -> Option<RevisionNumber> {
        match self.inputs.hosts.get(id).map(|host| &host.view) {
            Some(HostView::Seen(seen)) => seen.service.unit.revision(),
            _ => None,
        }
    }

    /// The same, or where the host is not seen, what the records say of it: the rollout that brought it there may have
    /// been another one, with a declaration that was deleted since.
    fn carried_by(&self, id: &HostId) -> Option<RevisionNumber> {
        match self.inputs.hosts.get(id).map(|host| &host.view) {
            Some(HostView::Seen(_)) => self.unit_on(id),
            _ => self.inputs.owned.hosts.get(id).and_then(|host| host.carries),
        }
    }

    /// Whether a host that rests with the target keeps it for now: while one was not looked at yet nobody's turn comes, and
    /// its own may be the first.
    pub(crate) fn may_be_first(&self, id: &HostId, target: RevisionNumber) -> bool {
        self.canary.as_ref().is_some_and(|canary| canary.blind) && self.idles_with(id, target)
    }

    /// Whether a host has a revision, does not run it, and has never confirmed it.
    fn idles_with(&self, id: &HostId, revision: RevisionNumber) -> bool {
        let Some(HostView::Seen(seen)) = self.inputs.hosts.get(id).map(|host| &host.view) else { return false };
        let seen = &seen.service;
        at_rest(seen) && seen.unit.revision() == Some(revision) && seen.good != Some(revision)
    }

    /// A host that was found healthy with the target, and is not any more while its step is watched.
    pub(crate) fn fallen(&self) -> Option<(HostId, Evidence)> {
        let (canary, target) = (self.canary.as_ref()?, self.target?);
        let last = self.inputs.rollout?;
        if last.state != RolloutState::Active || last.revision != Some(target.number) {
            return None;
        }
        canary.carrying.iter().find_map(|id| {
            let host = self.inputs.hosts.get(id)?;
            let HostView::Seen(seen) = &host.view else { return None };
            let seen = &seen.service;
            let confirmed = seen.unit.revision() == Some(target.number) && seen.good == seen.unit.revision();
            // What ran there before this canary began may have been started again at any time since.
            let restarts = if canary.progress.hosts.contains(id) { seen.run.restarts } else { 0 };
            let why = fell(host, seen, restarts).filter(|_| confirmed && !unproven(seen))?;
            let summary = format!("{why}, after it was found healthy");
            Some((id.clone(), Evidence { summary, answer: None, logs: Vec::new() }))
        })
    }
}

/// What ails a program that was healthy, if it is surely its own fault: one that was stopped in good order, by a person
/// or by a reboot, is started again instead.
fn fell(host: &HostInput, seen: &ServiceObservation, restarts: u32) -> Option<String> {
    let stopped = seen.run.active == ActiveState::Inactive && matches!(seen.run.result.as_str(), "" | "success");
    let down = seen.run.sub == "auto-restart" || at_rest(seen) && !stopped;
    let again = || (restarts > 0).then(|| "the program exited, and systemd started it again".to_owned());
    if down || matches!(host.health, Health::Ill(_)) { ailment(host, seen) } else { again() }
}

impl Canary<'_> {
    /// How the step that is under way stands.
    pub(crate) fn stage(&self, context: &Context<'_>, standings: &BTreeMap<HostId, Standing>) -> Stage {
        let (now, bake) = (context.inputs.now, self.rules.bakes_for());
        let found = self.found(context, standings);
        let since = match (&found, self.progress.well_since) {
            (Found::Working, _) | (Found::OutOfSight(_), None) => return Stage::UnderWay,
            (_, Some(since)) => since,
            (_, None) => now,
        };
        let until = since.checked_add(bake).unwrap_or(Timestamp::MAX);
        if now < until {
            return Stage::Baking(until);
        }
        let Some(next) = self.next() else {
            return match found {
                Found::OutOfSight(hosts) | Found::Doubtful(hosts) => Stage::Unsure(hosts),
                Found::Working | Found::Well => Stage::Done,
            };
        };
        if self.rules.needs_approval() && !self.progress.approved && !planted(Bug::StepsUnapproved) {
            return Stage::Approval(until);
        }
        match found {
            Found::OutOfSight(hosts) | Found::Doubtful(hosts) => Stage::Unsure(hosts),
            // Nothing is begun in a pause, not even a step.
            Found::Working | Found::Well if context.is_held() => Stage::Held,
            Found::Working | Found::Well => Stage::Next(next),
        }
    }

    fn found(&self, context: &Context<'_>, standings: &BTreeMap<HostId, Standing>) -> Found {
        let asked = !self.rules.bakes_for().is_zero() && context.spec().is_some_and(|spec| spec.health.is_some());
        let (mut unseen, mut doubtful) = (Vec::new(), Vec::new());
        for id in &self.members {
            let (Some(host), Some(standing)) = (context.inputs.hosts.get(id), standings.get(id)) else { continue };
            match &host.view {
                HostView::Seen(_) if standing.settled && standing.need == Need::Nothing => {
                    if asked && host.health != Health::Well {
                        doubtful.push(id.clone());
                    }
                }
                HostView::Seen(_) | HostView::Busy(_) => return Found::Working,
                _ => unseen.push(id.clone()),
            }
        }
        match () {
            // Nobody can be reached.
            () if self.members.is_empty() => Found::Working,
            () if self.blind || !unseen.is_empty() => Found::OutOfSight(unseen),
            () if !doubtful.is_empty() => Found::Doubtful(doubtful),
            () => Found::Well,
        }
    }

    /// The next step that brings the revision to any host.
    fn next(&self) -> Option<u32> {
        let later = (self.progress.step + 1..).zip(self.counts.iter().skip(self.progress.step as usize));
        later.into_iter().find(|(_, count)| **count > self.carrying.len()).map(|(step, _)| step)
    }

    /// What shall be recorded of it: where it stands, and the hosts that are about to be switched.
    pub(crate) fn progress(&self, stage: &Stage, touched: BTreeSet<HostId>, now: Timestamp) -> CanaryProgress {
        let mut progress = self.progress.clone();
        progress.hosts.extend(touched);
        match stage {
            Stage::UnderWay => progress.well_since = None,
            Stage::Baking(_) | Stage::Approval(_) => progress.well_since = progress.well_since.or(Some(now)),
            Stage::Next(step) => {
                progress = CanaryProgress { step: *step, well_since: None, approved: false, ..progress };
            }
            Stage::Unsure(_) | Stage::Held | Stage::Done => {}
        }
        progress
    }

    /// What is said of it.
    pub(crate) fn status(&self, stage: &Stage) -> CanaryStatus {
        CanaryStatus {
            step: self.progress.step,
            steps: u32::try_from(self.counts.len()).unwrap_or(u32::MAX),
            baking_until: if let Stage::Baking(until) = stage { Some(*until) } else { None },
            waiting_since: if let Stage::Approval(since) = stage { Some(*since) } else { None },
        }
    }

    /// When its step had been well for long enough, where it has been.
    pub(crate) fn baked(&self) -> Option<Timestamp> {
        self.progress.well_since.and_then(|since| since.checked_add(self.rules.bakes_for()).ok())
    }
}

/// Why a person's approval is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unapproved {
    /// No canary is under way.
    Nothing,
    /// Another revision is on its way.
    Revision(RevisionNumber),
    /// Another step is under way.
    Step(u32),
    /// The step is still being brought to hosts.
    UnderWay(u32),
    /// The step has to stay healthy until then.
    Baking(u32, Timestamp),
    /// Nobody has to approve anything.
    Automatic,
    /// The next step is approved already.
    Already,
    /// There is no next step.
    Last(u32),
}

impl fmt::Display for Unapproved {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => out.write_str("no canary is under way, so nothing waits for approval"),
            Self::Revision(revision) => write!(out, "it is revision {revision} that is on its way to the hosts"),
            Self::Step(step) => write!(out, "it is step {step} that is under way"),
            Self::UnderWay(step) => write!(out, "step {step} is still under way; it can be approved when it is well"),
            Self::Baking(step, until) => {
                write!(out, "step {step} has to stay healthy until {until}; it can be approved then")
            }
            Self::Automatic => out.write_str("`promotion` is automatic: nothing waits for approval"),
            Self::Already => out.write_str("the next step is approved already"),
            Self::Last(step) => write!(out, "step {step} is the last one: nothing waits for approval"),
        }
    }
}

/// Takes in that a person lets the step after `step` of a revision begin, or after whichever is under way.
///
/// # Errors
/// When that is not what waits. Nothing is approved ahead of time: who approves has seen how the step did.
pub fn approve(
    inputs: &Inputs<'_>,
    rollout: &Rollout,
    revision: RevisionNumber,
    step: Option<u32>,
) -> Result<CanaryProgress, Unapproved> {
    let choice = crate::target::choose(inputs);
    let target = choice.aim.revision().and_then(|number| inputs.revisions.get(&number));
    let mut context = Context {
        inputs,
        aim: &choice.aim,
        target,
        active: None,
        canary: None,
        hold: inputs.owned.hold.clone(),
        went_back: &inputs.owned.went_back,
    };
    context.canary = context.find_canary();
    let under_way = matches!(rollout.state, RolloutState::Active | RolloutState::Halted);
    let canary = context.canary.as_ref().filter(|_| under_way && rollout.revision == choice.aim.revision());
    let (Some(canary), Some(target)) = (canary, target) else { return Err(Unapproved::Nothing) };
    let progress =
        CanaryProgress { approved: rollout.canary.as_ref().is_some_and(|own| own.approved), ..canary.progress.clone() };
    if target.number != revision {
        return Err(Unapproved::Revision(target.number));
    }
    if step.is_some_and(|step| step != progress.step) {
        return Err(Unapproved::Step(progress.step));
    }
    if !canary.rules.needs_approval() {
        return Err(Unapproved::Automatic);
    }
    let Some(baked) = canary.baked() else { return Err(Unapproved::UnderWay(progress.step)) };
    if canary.next().is_none() {
        return Err(Unapproved::Last(progress.step));
    }
    if inputs.now < baked {
        return Err(Unapproved::Baking(progress.step, baked));
    }
    if progress.approved {
        return Err(Unapproved::Already);
    }
    Ok(CanaryProgress { approved: true, ..progress })
}
