//! What is said of a Service: the rows of its hosts and its conditions.

use std::collections::BTreeMap;

use windlass_crds::condition::{ConditionStatus, ConditionType, Reason};
use windlass_crds::id::{HostId, ResourceKey, RevisionNumber};
use windlass_crds::record::{BlockCause, Blocked, Hold, HoldCause, Owned, Purpose, Rollout, RolloutState, Verdict};
use windlass_crds::status::{ApprovalStatus, CanaryStatus, Failure, Finding, HostRow, HostState};
use windlass_crds::step::{ContactError, StepError};

use crate::canary::{Canary, Stage};
use crate::flap::flaps;
use crate::gate;
use crate::input::{Activity, Complaint, Goal, HostInput, HostView, Inputs, Placement, RemovalGate, UnderWay};
use crate::plan::{Act, in_words, next, only_brings};
use crate::position::running;
use crate::target::Aim;

/// So many hosts are named of those that turned unhealthy together.
const NAMED: usize = 5;

/// What to say of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Each host.
    pub hosts: BTreeMap<HostId, HostRow>,
    /// Hosts that run the target, healthy and confirmed.
    pub ready: u32,
    /// Hosts that should.
    pub desired: u32,
    /// What holds.
    pub findings: Vec<Finding>,
    /// Why the declared revision failed.
    pub failure: Option<Failure>,
    /// How far the canary has come, where there is one.
    pub canary: Option<CanaryStatus>,
    /// What is declared and waits for people to approve it.
    pub approval: Option<ApprovalStatus>,
    /// Whether anything is left to be done.
    pub work: Work,
}

/// Whether anything is left to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Nothing is.
    Nothing,
    /// Something is, and all of it waits until a person resumes.
    Held,
    /// Something is, and it waits until a canary has been well for long enough, or a person lets it go on.
    Waiting,
    /// Something is, now or later.
    UnderWay,
}

/// A reason and its sentence.
type Why = (Reason, String);

/// What was found out, and is to be told.
pub(crate) struct Findings<'a> {
    /// Each host.
    pub(crate) rows: BTreeMap<HostId, HostRow>,
    /// Hosts that nothing is done on, since they are one machine.
    pub(crate) twins: &'a BTreeMap<HostId, HostId>,
    /// What is left to be done.
    pub(crate) work: Work,
    /// The canary, and how it stands.
    pub(crate) canary: Option<(&'a Canary<'a>, &'a Stage)>,
}

impl Report {
    pub(crate) fn new(inputs: &Inputs<'_>, aim: &Aim, owned: &Owned, found: Findings<'_>) -> Self {
        let Findings { rows: hosts, twins, work, canary } = found;
        let placed = |id: &HostId| inputs.hosts.get(id).is_some_and(|host| host.placement != Placement::Unplaced);
        let desired = hosts.keys().filter(|id| placed(id)).count();
        let ready = hosts.values().filter(|row| row.state == HostState::Ready).count();
        let approval = owned.gate.as_ref().and_then(|gate| gate::told(inputs, gate));
        let told = Told {
            inputs,
            aim,
            owned,
            hosts: &hosts,
            twins,
            work,
            canary,
            approval: approval.as_ref(),
            ready,
            desired,
        };
        let findings = told.findings();
        let failure = match aim {
            Aim::Back { blocked, .. } | Aim::Nothing { blocked } | Aim::Stay { blocked } => failure(blocked),
            Aim::Declared(revision) => held_back(owned, *revision),
            _ => None,
        };
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let canary = canary.map(|(canary, stage)| canary.status(stage));
        Self { ready: count(ready), desired: count(desired), hosts, findings, failure, canary, approval, work }
    }

    /// Says of a host that a switch is about to be sent to that it is under way: this is told before, and nothing else may
    /// be until it is over. What is only brought may wait for a free line, and stays what comes next.
    pub fn begin(&mut self, host: &HostId, acts: &[Act]) {
        let waits = |row: &&mut HostRow| row.state == HostState::Pending && !only_brings(acts);
        let Some(row) = self.hosts.get_mut(host).filter(waits) else { return };
        if let Some(rest) = row.message.strip_prefix(&next(acts)) {
            (row.state, row.message) = (HostState::Working, format!("{}{rest}", in_words(acts)));
        }
    }
}

fn failure(blocked: &Blocked) -> Option<Failure> {
    let BlockCause::Unhealthy { host, evidence } = &blocked.cause else { return None };
    Some(Failure { revision: blocked.revision, host: host.clone(), evidence: evidence.clone() })
}

/// How a revision failed on the first of the hosts that it was taken back from alone.
fn held_back(owned: &Owned, revision: RevisionNumber) -> Option<Failure> {
    owned.held_back.iter().find_map(|(host, held)| {
        let evidence = held.get(&revision)?.clone();
        Some(Failure { revision, host: host.clone(), evidence })
    })
}

/// The names of hosts, or of fields, the first few where they are many.
fn some_of<'a, T: ToString + 'a>(all: impl IntoIterator<Item = &'a T, IntoIter: ExactSizeIterator>) -> String {
    let all = all.into_iter();
    let count = all.len();
    let names: Vec<String> = all.take(NAMED).map(ToString::to_string).collect();
    match count.saturating_sub(NAMED) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

struct Told<'a> {
    inputs: &'a Inputs<'a>,
    aim: &'a Aim,
    owned: &'a Owned,
    hosts: &'a BTreeMap<HostId, HostRow>,
    twins: &'a BTreeMap<HostId, HostId>,
    work: Work,
    canary: Option<(&'a Canary<'a>, &'a Stage)>,
    approval: Option<&'a ApprovalStatus>,
    ready: usize,
    desired: usize,
}

impl Told<'_> {
    fn findings(&self) -> Vec<Finding> {
        let finding = |kind, status, (reason, message): Why| Finding { kind, status, reason, message };
        let either = |kind, why: Option<Why>| match why {
            Some(why) => finding(kind, ConditionStatus::True, why),
            None => finding(kind, ConditionStatus::False, (Reason::AsExpected, String::new())),
        };
        let (ready, why) = self.ready();
        vec![
            finding(ConditionType::Ready, ready, why),
            either(ConditionType::Reconciling, self.reconciling()),
            either(ConditionType::Stalled, self.stalled()),
            self.available(),
            either(ConditionType::Degraded, self.degraded()),
            either(ConditionType::Drifted, self.drifted()),
        ]
    }

    fn rows(&self, state: HostState) -> Vec<(&HostId, &HostRow)> {
        self.hosts.iter().filter(|(_, row)| row.state == state).collect()
    }

    /// `web1, web2: message of the first`.
    fn naming(rows: &[(&HostId, &HostRow)]) -> String {
        let names: Vec<String> = rows.iter().map(|(id, _)| id.to_string()).collect();
        let first = rows.first().map_or("", |(_, row)| row.message.as_str());
        if first.is_empty() { names.join(", ") } else { format!("{}: {first}", names.join(", ")) }
    }

    fn ready(&self) -> (ConditionStatus, Why) {
        let no = |why: Why| (ConditionStatus::False, why);
        if let Some(why) = self.complaint().or_else(|| self.held()).or_else(|| self.held_up()) {
            return no(why);
        }
        if *self.aim == Aim::Removed {
            return no((Reason::Removing, "the declaration is gone; the service is being taken down".to_owned()));
        }
        if let Some(why) = self.went_back() {
            return no(why);
        }
        if let Some(why) = self.refusal() {
            return no(why);
        }
        if let Some(why) = self.failed_restart().or_else(|| self.failed_step()).or_else(|| self.refused_look()) {
            return no(why);
        }
        if self.is_under_way() {
            return no(self.under_way());
        }
        if let Some(why) = self.ill().or_else(|| self.held_back()) {
            return no(why);
        }
        if let Some(why) = self.flapping().or_else(|| self.drifted()) {
            return no(why);
        }
        if let Some(why) = self.paused().filter(|_| self.work == Work::Held) {
            return no(why);
        }
        if let Some(why) = self.awaited() {
            return no(why);
        }
        // A host that the Service only has to leave says nothing about those that it runs on.
        let mut lost = self.rows(HostState::Unreachable);
        lost.retain(|(id, _)| self.inputs.hosts.get(*id).is_some_and(|host| host.placement != Placement::Unplaced));
        if !lost.is_empty() {
            return (ConditionStatus::Unknown, (Reason::HostUnreachable, Self::naming(&lost)));
        }
        if self.ready == self.desired && self.desired > 0 {
            return (ConditionStatus::True, (Reason::Converged, self.progress()));
        }
        if self.desired == 0 {
            return no((Reason::NoHosts, "it is placed on no host".to_owned()));
        }
        (ConditionStatus::Unknown, (Reason::NotObserved, self.progress()))
    }

    fn is_under_way(&self) -> bool {
        matches!(self.work, Work::UnderWay | Work::Waiting)
    }

    fn progress(&self) -> String {
        match self.aim.revision() {
            Some(revision) => format!("revision {revision} runs on {} of {} hosts", self.ready, self.desired),
            None => format!("{} hosts", self.desired),
        }
    }

    fn complaint(&self) -> Option<Why> {
        self.inputs.complaint.as_ref().map(|Complaint { reason, message }| (*reason, message.clone()))
    }

    /// Removals that wait for a person.
    fn held(&self) -> Option<Why> {
        let leaving: Vec<_> = self.hosts.iter().filter(|(id, _)| self.waits_for_confirmation(id)).collect();
        if self.inputs.removals == RemovalGate::Open || leaving.is_empty() {
            return None;
        }
        let names: Vec<String> = leaving.iter().map(|(id, _)| id.to_string()).collect();
        let message = format!(
            "removal from {} waits for `windlass confirm-removal`: it may be a slip, since so much else would go too or the selector matches nothing any more",
            names.join(", ")
        );
        Some((Reason::RemovalNeedsConfirmation, message))
    }

    fn waits_for_confirmation(&self, id: &HostId) -> bool {
        let unplaced = self.inputs.hosts.get(id).is_some_and(|host| host.placement == Placement::Unplaced);
        unplaced && !self.owned.confirmed_removals.contains(id)
    }

    fn went_back(&self) -> Option<Why> {
        let what = |blocked: &Blocked| match &blocked.cause {
            BlockCause::Unhealthy { host, evidence } => format!("was unhealthy on {host}: {}", evidence.summary),
            BlockCause::Undone { .. } => "was gone back from by a person".to_owned(),
            BlockCause::Aborted { at } => format!("was aborted by a person at {at}"),
        };
        let aborted = |blocked: &Blocked| matches!(blocked.cause, BlockCause::Aborted { .. });
        match self.aim {
            Aim::Back { to, blocked } => {
                let verb = if self.is_under_way() { "going back" } else { "went back" };
                let message = format!(
                    "revision {} {}; {verb} to revision {to}, which runs on {} of {} hosts; declare something else or `windlass rollout retry`",
                    blocked.revision,
                    what(blocked),
                    self.ready,
                    self.desired
                );
                let reason = if aborted(blocked) { Reason::Aborted } else { Reason::RolledBack };
                Some((if self.is_under_way() { Reason::RollingBack } else { reason }, message))
            }
            Aim::Nothing { blocked } => {
                let message = format!(
                    "revision {} {}; there is nothing good to go back to, so it is stopped where it was not healthy",
                    blocked.revision,
                    what(blocked)
                );
                Some((if aborted(blocked) { Reason::Aborted } else { Reason::FirstDeployUnhealthy }, message))
            }
            Aim::Stay { blocked } => {
                let message = format!(
                    "revision {} {}; it stays, because rollbackOnFailure is off",
                    blocked.revision,
                    what(blocked)
                );
                Some((Reason::Unhealthy, message))
            }
            Aim::Undone { to } if self.work == Work::Nothing => {
                let message = format!(
                    "a person went back to revision {to}; declare something else or `windlass rollout retry` to leave it"
                );
                Some((Reason::Undone, message))
            }
            _ => None,
        }
    }

    /// Hosts that nothing is done on until a person changes something.
    fn refusal(&self) -> Option<Why> {
        if let Some((left, right)) = self.twins.iter().next() {
            return Some((
                Reason::DuplicateHost,
                format!("{left} and {right} are one machine; remove one of the names"),
            ));
        }
        self.inputs.hosts.iter().find_map(|(id, host)| match (&host.placement, &host.view) {
            (Placement::Refused(complaint), _) => Some((complaint.reason, format!("{id}: {}", complaint.message))),
            (_, HostView::Refusing(error @ StepError::OwnedByAnother { .. })) => {
                Some((Reason::OwnedByAnother, format!("{id}: {error}")))
            }
            (_, HostView::Unreachable(error @ ContactError::HostKey { .. })) => {
                Some((Reason::HostKeyRejected, format!("{id}: {error}")))
            }
            (_, HostView::Unreachable(error @ ContactError::Login { .. })) => {
                Some((Reason::LoginRefused, format!("{id}: {error}")))
            }
            (_, HostView::Unreachable(error @ ContactError::Unsuitable { .. })) => {
                Some((Reason::HostUnsuitable, format!("{id}: {error}")))
            }
            _ => None,
        })
    }

    /// A host that did not come up again: no other one is restarted, and nothing is gone back to.
    fn failed_restart(&self) -> Option<Why> {
        let halted = |rollout: &&Rollout| rollout.purpose == Purpose::Restart && rollout.state == RolloutState::Halted;
        let rollout = self.inputs.rollout.filter(halted).filter(|_| self.work != Work::Nothing)?;
        let (host, summary) = rollout.verdicts.iter().find_map(|(host, verdict)| match verdict {
            Verdict::Unhealthy { evidence } => Some((host, &evidence.summary)),
            Verdict::Healthy => None,
        })?;
        let message = format!(
            "{host} was not well after its restart: {summary}; no other host is restarted, and {host} is tried again"
        );
        Some((Reason::Unhealthy, message))
    }

    fn failed_step(&self) -> Option<Why> {
        let rollout = self.inputs.rollout.filter(|_| self.is_under_way())?;
        if let Some((host, failure)) = rollout.failures.first_key_value() {
            let message = format!("{} on {host}: {}; it is tried again", failure.step, failure.error);
            return Some((Reason::StepFailed, message));
        }
        // What was only repaired or gone back to is tried again too.
        let ill = self.rows(HostState::Unhealthy);
        let halted = rollout.state == RolloutState::Halted && !ill.is_empty();
        halted.then(|| (Reason::HostUnhealthy, format!("{}; it is tried again", Self::naming(&ill))))
    }

    /// Hosts that answer, and do not let themselves be looked at or stamped: a read-only disk.
    fn refused_look(&self) -> Option<Why> {
        self.inputs.hosts.iter().find_map(|(id, host)| match &host.view {
            HostView::Refusing(StepError::Superseded { .. }) => None,
            HostView::Refusing(error) if host.placement != Placement::Unplaced => {
                Some((Reason::StepFailed, format!("{id}: {error}; it is tried again")))
            }
            _ => None,
        })
    }

    fn ill(&self) -> Option<Why> {
        let ill = self.rows(HostState::Unhealthy);
        (!ill.is_empty()).then(|| (Reason::HostUnhealthy, Self::naming(&ill)))
    }

    /// Hosts on which what is declared was unhealthy, within `maxFailures`.
    fn held_back(&self) -> Option<Why> {
        let mut held = self.rows(HostState::HeldBack);
        if let Aim::Declared(revision) = self.aim {
            // Where there was nothing to go back to, it was stopped.
            let stopped = self.rows(HostState::Stopped).into_iter();
            let of = |id: &HostId| self.owned.held_back.get(id).is_some_and(|held| held.contains_key(revision));
            held.extend(stopped.filter(|(id, _)| of(id)));
        }
        if held.is_empty() {
            return None;
        }
        let message = format!(
            "{}; it was taken back there alone, within maxFailures: `windlass rollout retry` tries it again",
            Self::naming(&held)
        );
        Some((Reason::HeldBack, message))
    }

    fn reconciling(&self) -> Option<Why> {
        self.paused().or_else(|| self.is_under_way().then(|| self.under_way())).or_else(|| self.awaited())
    }

    /// What waits for people to approve it, or was approved just now.
    fn awaited(&self) -> Option<Why> {
        if let Some(gate) =
            self.owned.gate.as_ref().filter(|gate| gate.granted.is_some() && self.inputs.proposal.is_some())
        {
            return Some((Reason::RollingOut, format!("revision {} is approved, and comes into force", gate.revision)));
        }
        let ApprovalStatus { revision, plan, author, asked_by, approvals, missing, .. } = self.approval?;
        let service = ResourceKey::Service(self.inputs.service.clone());
        let so_far = match approvals.as_slice() {
            [] => String::new(),
            [first, ..] => format!("approved by {}; ", first.by),
        };
        let people = if *missing == 1 { "1 person".to_owned() } else { format!("{missing} people") };
        let message = format!(
            "revision {revision}, declared by {author}, waits for {people} to approve it ({}); {so_far}`windlass rollout approve {service} --revision {revision} --plan {} --reason …`; `windlass describe {service}` shows what it is",
            asked_by.join(", "),
            plan.short()
        );
        Some((Reason::WaitingForApproval, message))
    }

    /// Whether a person holds it, whatever is left to be done.
    fn paused(&self) -> Option<Why> {
        let since = self.owned.paused.filter(|_| *self.aim != Aim::Removed)?;
        let message = format!("paused since {since}: nothing is begun on any host until `windlass rollout resume`");
        Some((Reason::Paused, message))
    }

    /// What holds it up until a person resumes.
    fn held_up(&self) -> Option<Why> {
        let Hold { since, cause } = self.owned.hold.as_ref().filter(|_| *self.aim != Aim::Removed)?;
        let service = ResourceKey::Service(self.inputs.service.clone());
        Some(match cause {
            HoldCause::Unconfirmed { host, revision } => {
                let message = format!(
                    "{host} took revision {revision} back by itself twice, since nobody could log in and confirm it in time; nothing is begun on any host since {since}: declare something else, `windlass rollout resume {service}` tries it again, `windlass rollout undo {service}` goes back everywhere"
                );
                (Reason::Unconfirmed, message)
            }
            HoldCause::MassUnhealthy { hosts, of } => {
                let message = format!(
                    "{} of {of} hosts turned unhealthy within a minute, and nothing had been done there: {}; nothing is switched on any host since {since}, neither on nor back: `windlass rollout resume {service}` lets it go on, `windlass rollout undo {service}` goes back",
                    hosts.len(),
                    some_of(hosts)
                );
                (Reason::MassUnhealthy, message)
            }
            HoldCause::Contested { fields } => {
                let message = format!(
                    "the declaration was changed back and forth 4 times within an hour: {}; nothing is begun on any host since {since}: find out who else writes it, then `windlass rollout resume {service}`, or `windlass rollout undo {service}`",
                    some_of(fields)
                );
                (Reason::Flapping, message)
            }
        })
    }

    fn under_way(&self) -> Why {
        let restarts = self
            .inputs
            .rollout
            .is_some_and(|rollout| rollout.purpose == Purpose::Restart && rollout.state == RolloutState::Active);
        let reason = match self.aim {
            Aim::Removed => Reason::Removing,
            Aim::Back { .. } | Aim::Nothing { .. } => Reason::RollingBack,
            _ if restarts => Reason::Restarting,
            _ if self.drifted().is_some() => Reason::Repairing,
            _ => return self.rolling_out(),
        };
        (reason, self.progress())
    }

    /// How far a rollout has come, and what it waits for.
    fn rolling_out(&self) -> Why {
        let mut progress = self.progress();
        if !self.owned.went_back.is_empty() {
            let names: Vec<String> = self.owned.went_back.keys().map(ToString::to_string).collect();
            let revision = self.aim.revision().unwrap_or_default();
            progress.push_str(&format!(
                "; {} took revision {revision} back, unconfirmed: it is tried once more there, and nowhere else before",
                names.join(", ")
            ));
        }
        let Some((canary, stage)) = self.canary else { return (Reason::RollingOut, progress) };
        let CanaryStatus { step, steps, .. } = canary.status(stage);
        let (reason, more) = match stage {
            Stage::Baking(until) => {
                (Reason::Baking, format!("step {step} of {steps} has to stay healthy until {until}"))
            }
            Stage::Approval(since) => {
                let service = ResourceKey::Service(self.inputs.service.clone());
                let revision = self.aim.revision().unwrap_or_default();
                let message = format!(
                    "step {step} of {steps} is well, and has been waiting since {since}: `windlass rollout approve {service} --revision {revision}` lets the next one begin"
                );
                (Reason::WaitingForApproval, message)
            }
            Stage::Unsure(hosts) if !hosts.is_empty() => {
                let names: Vec<String> = hosts.iter().map(ToString::to_string).collect();
                let message =
                    format!("step {step} of {steps} ends once these are seen to be well: {}", names.join(", "));
                (Reason::RollingOut, message)
            }
            Stage::UnderWay | Stage::Unsure(_) | Stage::Held | Stage::Next(_) | Stage::Done => {
                (Reason::RollingOut, format!("step {step} of {steps}"))
            }
        };
        (reason, format!("{progress}; {more}"))
    }

    fn stalled(&self) -> Option<Why> {
        let lost_time = || {
            let Goal::Run { spec, .. } = &self.inputs.goal else { return None };
            let rollout = self.inputs.rollout.filter(|rollout| rollout.state == RolloutState::Active)?;
            // Who pauses it does not ask how long, and what a canary waits for takes as long as it takes.
            let patient = matches!(self.canary, Some((_, Stage::Baking(_) | Stage::Approval(_))));
            let rollout = Some(rollout).filter(|_| self.owned.paused.is_none() && !patient)?;
            let baked = self.canary.and_then(|(canary, _)| canary.baked());
            let waited =
                self.inputs.now.duration_since(baked.map_or(rollout.progressed, |at| at.max(rollout.progressed)));
            let deadline = spec.rollout.progress_deadline;
            let over = waited.unsigned_abs() > deadline.duration() && !waited.is_negative();
            over.then(|| (Reason::ProgressDeadlineExceeded, format!("no progress for {deadline}; it goes on trying")))
        };
        let settled_elsewhere = || {
            if self.is_under_way() || self.inputs.proposal.is_some() {
                None
            } else {
                self.went_back().or_else(|| self.held_back())
            }
        };
        self.complaint()
            .or_else(|| self.held())
            .or_else(|| self.held_up())
            .or_else(settled_elsewhere)
            .or_else(|| self.refusal())
            .or_else(|| self.failed_restart())
            .or_else(|| self.flapping())
            .or_else(lost_time)
    }

    fn available(&self) -> Finding {
        let count = self.inputs.hosts.iter().filter(|(id, host)| self.serves(id, host)).count();
        let told = self.inputs.hosts.iter().filter(|(id, _)| self.hosts.contains_key(*id));
        let mut views = told.map(|(_, host)| &host.view);
        let unseen =
            views.find(|view| matches!(view, HostView::Unreachable(_) | HostView::Refusing(_) | HostView::NotLookedAt));
        let (status, reason) = match unseen {
            _ if count > 0 => (ConditionStatus::True, Reason::AsExpected),
            Some(HostView::NotLookedAt | HostView::Refusing(_)) => (ConditionStatus::Unknown, Reason::NotObserved),
            Some(_) => (ConditionStatus::Unknown, Reason::HostUnreachable),
            None if *self.aim == Aim::Removed => (ConditionStatus::False, Reason::Removing),
            None if self.desired == 0 => (ConditionStatus::False, Reason::NoHosts),
            None => (ConditionStatus::False, Reason::HostUnhealthy),
        };
        let message = format!("{count} of {} hosts serve", self.desired.max(count));
        Finding { kind: ConditionType::Available, status, reason, message }
    }

    /// Whether a host is up with something that was confirmed, whatever is planned for it.
    fn serves(&self, id: &HostId, host: &HostInput) -> bool {
        match &host.view {
            HostView::Seen(seen) => {
                let confirmed = seen.service.good.is_some() && seen.service.good == seen.service.unit.revision();
                let ill = self.hosts.get(id).is_some_and(|row| row.state == HostState::Unhealthy);
                confirmed && running(&seen.service) && !ill
            }
            // What is under way there changes nothing that runs.
            HostView::Busy(UnderWay { activity: Activity::Quiet, .. }) => {
                self.owned.hosts.contains_key(id) && !self.owned.good.is_empty()
            }
            HostView::Busy(UnderWay { activity: Activity::Disruptive, .. })
            | HostView::Unreachable(_)
            | HostView::Refusing(_)
            | HostView::NotLookedAt => false,
        }
    }

    fn degraded(&self) -> Option<Why> {
        let lost = self.rows(HostState::Unreachable);
        if !lost.is_empty() {
            return Some((Reason::HostUnreachable, Self::naming(&lost)));
        }
        let failed = self.rows(HostState::Failed);
        if !failed.is_empty() {
            return Some(self.refusal().unwrap_or((Reason::StepFailed, Self::naming(&failed))));
        }
        self.ill().or_else(|| self.held_back())
    }

    /// A host on which the same is changed as often as it is put right.
    fn flapping(&self) -> Option<Why> {
        let Inputs { now, hosts, .. } = self.inputs;
        let (id, what) = self.rows(HostState::Drifted).into_iter().find_map(|(id, _)| {
            let HostView::Seen(seen) = &hosts.get(id)?.view else { return None };
            Some((id, flaps(self.inputs.owned, id, &seen.service, self.aim.revision()?, *now)?))
        })?;
        let service = ResourceKey::Service(self.inputs.service.clone());
        let message = format!(
            "{id} was repaired 4 times within an hour, and is changed again: {what}; it is left so meanwhile: find out what changes it there, `windlass rollout resume {service}` repairs it once more"
        );
        Some((Reason::Flapping, message))
    }

    fn drifted(&self) -> Option<Why> {
        let drifted = self.rows(HostState::Drifted);
        (!drifted.is_empty()).then(|| (Reason::DriftFound, Self::naming(&drifted)))
    }
}

impl Report {
    /// The revision that a host's unit names, where it was seen.
    pub fn revision_on(&self, host: &HostId) -> Option<RevisionNumber> {
        self.hosts.get(host).and_then(|row| row.revision)
    }
}
