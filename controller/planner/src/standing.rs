//! How each host of a Service stands: what it needs, whether it is down by our hand, what to say of it.

use std::collections::BTreeMap;

use windlass_crds::id::{HostId, RevisionNumber};
use windlass_crds::observation::{ActiveState, ServiceObservation, UnitFile};
use windlass_crds::record::{
    Blocked, Evidence, Hold, Owned, Purpose, Revision, Rollout, RolloutState, Verdict, WentBack,
};
use windlass_crds::service::{DeletionPolicy, ServiceSpec};
use windlass_crds::status::{HostRow, HostState};
use windlass_crds::step::{DataFate, Step, StepError};

use crate::canary::Canary;
use crate::flap::flaps;
use crate::input::{Activity, Goal, Health, HostInput, HostView, Inputs, Placement, RemovalGate};
use crate::plan::{Act, in_words, next};
use crate::planted::{Bug, planted};
use crate::position::{
    Damage, Position, Staged, at_rest, has_exited, position, running, switched_by, switched_under, unproven, went_back,
};
use crate::target::Aim;

/// What a host needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing, or nothing that can be done now.
    Nothing,
    /// Something, and its turn has not come.
    Later,
    /// Something that interrupts nothing.
    Quiet(Vec<Act>),
    /// A switch: it interrupts what runs.
    Switch {
        /// What to do.
        acts: Vec<Act>,
        /// What is lost by it.
        costs: Cost,
    },
}

impl Need {
    /// What would be done.
    pub(crate) fn acts(&self) -> &[Act] {
        match self {
            Self::Nothing | Self::Later => &[],
            Self::Quiet(acts) | Self::Switch { acts, .. } => acts,
        }
    }
}

/// What a switch costs of what may be down at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cost {
    /// It carried nothing healthy, or does not run.
    Nothing,
    /// It runs and was switched before without a verdict: it is counted as down, and serves all the same, perhaps.
    ItsOwnPlace,
    /// It runs something healthy.
    APlace,
}

/// How one host stands.
pub(crate) struct Standing {
    /// What to say of it.
    pub(crate) row: HostRow,
    /// What it needs.
    pub(crate) need: Need,
    /// Down by our hand, or lost after we touched it.
    pub(crate) down: bool,
    /// Whether it runs the target, confirmed.
    pub(crate) settled: bool,
}

impl Standing {
    pub(crate) fn idle(revision: Option<RevisionNumber>, state: HostState, message: impl Into<String>) -> Self {
        let row = HostRow { revision, state, message: message.into(), since: None };
        Self { row, need: Need::Nothing, down: false, settled: false }
    }
}

/// What is decided before any host is looked at.
pub(crate) struct Context<'a> {
    /// Everything that is known.
    pub(crate) inputs: &'a Inputs<'a>,
    /// Where hosts are brought to.
    pub(crate) aim: &'a Aim,
    /// The revision that this is, where it is one.
    pub(crate) target: Option<&'a Revision>,
    /// The rollout that goes on towards it.
    pub(crate) active: Option<&'a Rollout>,
    /// The canary by which it gets there, where it does so by one.
    pub(crate) canary: Option<Canary<'a>>,
    /// What holds everything up until a person resumes.
    pub(crate) hold: Option<Hold>,
    /// Hosts that have taken the target back by themselves, and not confirmed it since.
    pub(crate) went_back: &'a BTreeMap<HostId, WentBack>,
}

/// Where one host is brought to.
pub(crate) enum Course<'a> {
    /// To the target, as all are.
    Target,
    /// To an earlier revision, until its step comes.
    Outside(&'a Revision),
    /// To an earlier revision, where there is one: the target was unhealthy there.
    HeldBack(Option<&'a Revision>, &'a Evidence),
}

impl Context<'_> {
    /// The declaration that is in force.
    pub(crate) fn spec(&self) -> Option<&ServiceSpec> {
        match &self.inputs.goal {
            Goal::Run { spec, .. } => Some(spec),
            Goal::Remove => self.inputs.owned.accepted.as_ref().map(|accepted| &accepted.spec),
        }
    }

    /// Whether a rollout switched a host, or may have, and nothing says that it is well since.
    pub(crate) fn touched(&self, id: &HostId) -> bool {
        let by = |rollout: &Rollout| rollout.state != RolloutState::Succeeded && rollout.touched.contains(id);
        self.inputs.rollout.is_some_and(by) || self.inputs.owned.hosts.get(id).is_some_and(|host| host.in_doubt)
    }

    /// Whether a host that is seen was switched by the rollout, and has something confirmed all the same. What was to be
    /// switched, and was lost before, ails by itself.
    fn switched(&self, id: &HostId, seen: &ServiceObservation) -> bool {
        self.touched(id) && self.inputs.rollout.is_some_and(|rollout| switched_by(seen, rollout))
    }

    /// Whether a host that nobody sees may be down by our hand. What a new leader's records say of one that it has yet to
    /// stamp is no more than that we were there: they may be those of an older store.
    fn may_be_down(&self, id: &HostId) -> bool {
        let fresh = self.inputs.fresh_term && self.inputs.owned.hosts.contains_key(id);
        fresh || (self.carried(id) && self.touched(id))
    }

    /// Whether a host that nobody sees carried a healthy revision, as far as the records say.
    fn carried(&self, id: &HostId) -> bool {
        // While some hosts have yet to confirm anything, others may have.
        let owned = self.inputs.owned;
        owned.hosts.get(id).is_some_and(|host| host.confirmed || !owned.good.is_empty())
    }

    fn unseen(&self, id: &HostId, state: HostState, message: impl Into<String>) -> Standing {
        Standing { down: self.may_be_down(id), ..Standing::idle(None, state, message) }
    }

    /// How one host stands; a host that is rid of the Service leaves `owned`.
    pub(crate) fn standing(&self, id: &HostId, host: &HostInput, owned: &mut Owned) -> Standing {
        if host.placement == Placement::Unplaced {
            return self.leaving(id, host, owned);
        }
        if let Placement::Refused(complaint) = &host.placement {
            // What is not allowed now may have been switched when it was.
            let down = matches!(&host.view, HostView::Busy(errand) if errand.activity == Activity::Disruptive)
                || self.may_be_down(id);
            return Standing { down, ..Standing::idle(None, HostState::Failed, complaint.message.clone()) };
        }
        match &host.view {
            HostView::Busy(errand) => {
                // What was left down by an earlier rollout stays so while something is brought there.
                let down = errand.activity == Activity::Disruptive || (self.carried(id) && self.touched(id));
                // What its unit names meanwhile, nobody has looked.
                Standing { down, ..Standing::idle(None, HostState::Working, in_words(&errand.acts)) }
            }
            HostView::Unreachable(error) => self.unseen(id, HostState::Unreachable, error.to_string()),
            HostView::Refusing(error) => self.unseen(id, HostState::Failed, error.to_string()),
            HostView::NotLookedAt => self.unseen(id, HostState::Pending, ""),
            HostView::Seen(seen) => match (self.target, self.aim) {
                (Some(target), _) => self.placed(id, host, &seen.service, target),
                (None, Aim::Nothing { .. }) => stopping(&seen.service),
                (None, Aim::Stay { blocked }) => staying(host, &seen.service, blocked),
                (None, _) => Standing::idle(seen.service.unit.revision(), HostState::Pending, ""),
            },
        }
    }

    /// The revision that was unhealthy on a host, and how that showed there, where the host is kept off it.
    fn held_back(&self, id: &HostId, revision: RevisionNumber) -> Option<&Evidence> {
        self.inputs.owned.held_back.get(id).and_then(|revisions| revisions.get(&revision))
    }

    /// What a host has confirmed itself, where the records know it.
    fn confirmed_on(&self, seen: &ServiceObservation) -> Option<&Revision> {
        let own = seen.good.and_then(|good| self.inputs.revisions.get(&good));
        own.filter(|own| seen.revisions.get(&own.number) == Some(&own.release))
    }

    pub(crate) fn course(&self, id: &HostId, seen: &ServiceObservation, target: &Revision) -> Course<'_> {
        if let Some(evidence) = self.held_back(id, target.number) {
            let usable = |good: &RevisionNumber| *good != target.number && self.held_back(id, *good).is_none();
            let good = self.inputs.owned.good.iter().rev().copied().filter(usable);
            let known = good.into_iter().find_map(|good| self.inputs.revisions.get(&good));
            // What it has confirmed itself, while other hosts have yet to.
            let own = self.confirmed_on(seen).filter(|own| usable(&own.number));
            return Course::HeldBack(known.or(own), evidence);
        }
        match &self.canary {
            Some(canary) if !canary.members.contains(id) => Course::Outside(canary.back),
            _ => Course::Target,
        }
    }

    fn placed(&self, id: &HostId, host: &HostInput, seen: &ServiceObservation, target: &Revision) -> Standing {
        let mut standing = match self.course(id, seen, target) {
            Course::Target => {
                let standing = self.bring(id, host, seen, target);
                return match self.meanwhile(id, seen, &standing) {
                    Some(own) => Standing { settled: false, ..self.bring(id, host, seen, own) },
                    None => standing,
                };
            }
            Course::Outside(back) => {
                let mut standing = self.bring(id, host, seen, back);
                if standing.settled || self.may_be_first(id, target.number) {
                    standing.need = Need::Later;
                    if matches!(standing.row.state, HostState::Ready | HostState::Pending) {
                        (standing.row.state, standing.row.message) =
                            (HostState::Pending, "its step of the canary has not come".to_owned());
                    }
                }
                standing
            }
            Course::HeldBack(back, evidence) => {
                let mut standing = match back {
                    Some(back) => self.bring(id, host, seen, back),
                    None => stopping(seen),
                };
                if matches!(standing.row.state, HostState::Ready | HostState::Stopped) {
                    standing.row.state = if back.is_some() { HostState::HeldBack } else { HostState::Stopped };
                    standing.row.message =
                        format!("revision {} was unhealthy here: {}", target.number, evidence.summary);
                }
                standing
            }
        };
        // What it runs is not what is declared.
        standing.settled = false;
        standing
    }

    /// What a host gets meanwhile that counts as down and waits for another one, which has taken the target back by
    /// itself: what it has confirmed. The other one may wait for its place.
    fn meanwhile(&self, id: &HostId, seen: &ServiceObservation, standing: &Standing) -> Option<&Revision> {
        if !(standing.down && self.awaits_another_try(id, standing)) {
            return None;
        }
        let own = self.confirmed_on(seen).filter(|own| self.held_back(id, own.number).is_none())?;
        let blocked = self.inputs.owned.blocked.iter().any(|blocked| blocked.revision == own.number);
        (!blocked && position(seen, own.number, &own.release) != Position::Settled).then_some(own)
    }

    /// What it takes to bring a host to a revision.
    fn bring(&self, id: &HostId, host: &HostInput, seen: &ServiceObservation, target: &Revision) -> Standing {
        let (revision, carries) = (target.number, seen.unit.revision());
        let ailment = ailment(host, seen);
        let up = running(seen);
        let carried = seen.good.is_some();
        let open = unproven(seen);
        let down = carried && (open || (ailment.is_some() && self.switched(id, seen)));
        // What is counted as down already is no loss any more.
        let costs = match (carried && up, down) {
            (false, _) => Cost::Nothing,
            (true, true) => Cost::ItsOwnPlace,
            (true, false) => Cost::APlace,
        };
        let stage = || Act::Step(Step::Stage { revision, release: target.release });
        let (state, need) = match position(seen, revision, &target.release) {
            Position::Settled if self.owes_restart(seen) => {
                (HostState::Pending, Need::Switch { acts: self.switch(revision), costs })
            }
            Position::Settled => {
                // What is left of drift here is a drop-in.
                let (state, message) = match ailment {
                    Some(ailment) => (HostState::Unhealthy, ailment),
                    None if !seen.drift.is_empty() => (HostState::Drifted, drift_message(seen)),
                    None => (HostState::Ready, String::new()),
                };
                return Standing { settled: true, down, ..Standing::idle(carries, state, message) };
            }
            // What was found to have ended is started again under the next number before it is judged again.
            Position::Unjudged if self.owes_restart(seen) || (has_exited(seen) && !self.switched_it(seen)) => {
                (HostState::Starting, Need::Switch { acts: self.switch(revision), costs })
            }
            Position::Unjudged => (HostState::Starting, Need::Quiet(self.judge(revision))),
            Position::Drifted { .. } if planted(Bug::NothingIsRepaired) => (HostState::Drifted, Need::Nothing),
            Position::Drifted { .. } if flaps(self.inputs.owned, id, seen, revision, self.inputs.now).is_some() => {
                (HostState::Drifted, Need::Nothing)
            }
            Position::Drifted { files } => {
                let mut acts = self.switch(revision);
                if files == Damage::Files {
                    acts.insert(0, stage());
                }
                (HostState::Drifted, Need::Switch { acts, costs })
            }
            Position::Elsewhere { staged: Staged::No } => (HostState::Pending, Need::Quiet(vec![stage()])),
            Position::Elsewhere { staged: Staged::Yes } => {
                let mut acts = self.switch(revision);
                if self.active.is_some_and(|active| active.restage.contains(id)) {
                    acts.insert(0, stage());
                }
                (HostState::Pending, Need::Switch { acts, costs })
            }
        };
        let (state, message) = self.trouble(id).unwrap_or_else(|| match state {
            HostState::Drifted if need == Need::Nothing => (state, format!("{}; it flaps", drift_message(seen))),
            HostState::Drifted => (state, drift_message(seen)),
            _ => (state, self.taken_back(seen, target).unwrap_or_else(|| next(need.acts()))),
        });
        Standing { need, down, ..Standing::idle(carries, state, message) }
    }

    /// Whether the rollout that goes on is what switched the host last.
    fn switched_it(&self, seen: &ServiceObservation) -> bool {
        self.active.is_some_and(|active| switched_under(seen) == Some(active.sequence))
    }

    /// What went wrong on a host when it was last worked on.
    fn trouble(&self, id: &HostId) -> Option<(HostState, String)> {
        let rollout = self.inputs.rollout?;
        if let Some(failure) = rollout.failures.get(id) {
            return Some((HostState::Failed, format!("{}: {}", failure.step, failure.error)));
        }
        match rollout.verdicts.get(id) {
            Some(Verdict::Unhealthy { evidence }) => Some((HostState::Unhealthy, evidence.summary.clone())),
            Some(Verdict::Healthy) | None => None,
        }
    }

    /// What to say of a host that has gone back by itself.
    fn taken_back(&self, seen: &ServiceObservation, target: &Revision) -> Option<String> {
        let (_, revision) = went_back(seen).filter(|(_, revision)| *revision == target.number)?;
        Some(format!("it went back by itself: revision {revision} was not confirmed in time"))
    }

    /// A host that the Service shall leave.
    fn leaving(&self, id: &HostId, host: &HostInput, owned: &mut Owned) -> Standing {
        if !owned.hosts.contains_key(id) {
            // It leads to another machine than the one that the Service was put on.
            return Standing::idle(None, HostState::Removing, "");
        }
        // Both are for a declaration that is deleted: a host that is no longer chosen is cleared in any case, and its
        // data may be moved after the service.
        let policy = match self.aim {
            Aim::Removed => self.spec().map_or(DeletionPolicy::Remove, |spec| spec.deletion_policy),
            _ => DeletionPolicy::Remove,
        };
        let purge = *self.aim == Aim::Removed && self.spec().is_some_and(|spec| spec.purge_data);
        let confirmed = owned.confirmed_removals.contains(id) || self.inputs.removals == RemovalGate::Open;
        let carries = match &host.view {
            HostView::Seen(seen) => seen.service.unit.revision(),
            _ => None,
        };
        if !confirmed {
            return Standing::idle(carries, HostState::Removing, "waits for `windlass confirm-removal`");
        }
        if policy == DeletionPolicy::Keep {
            disown(id, owned);
            return Standing::idle(carries, HostState::Removing, "disowned and left running");
        }
        match &host.view {
            HostView::Seen(seen) if !seen.service.present => {
                disown(id, owned);
                Standing::idle(None, HostState::Removing, "")
            }
            HostView::Seen(_) => {
                let data = if purge || planted(Bug::DataPurged) { DataFate::Purge } else { DataFate::Keep };
                let need = Need::Quiet(vec![Act::Step(Step::Remove { data })]);
                let (state, message) = self.trouble(id).unwrap_or((HostState::Removing, String::new()));
                Standing { need, ..Standing::idle(carries, state, message) }
            }
            HostView::Busy(_) => Standing::idle(carries, HostState::Removing, ""),
            HostView::Unreachable(error) => Standing::idle(None, HostState::Unreachable, error.to_string()),
            HostView::Refusing(error @ StepError::OwnedByAnother { .. }) => {
                // It is another store's to keep or to clear away.
                disown(id, owned);
                Standing::idle(None, HostState::Removing, error.to_string())
            }
            HostView::Refusing(error) => Standing::idle(None, HostState::Failed, error.to_string()),
            HostView::NotLookedAt => Standing::idle(None, HostState::Removing, ""),
        }
    }

    fn judge(&self, revision: RevisionNumber) -> Vec<Act> {
        let keep = self.inputs.revisions.keys().copied().filter(|kept| *kept != revision).collect();
        let confirm = Act::Step(Step::Confirm { revision, keep });
        if planted(Bug::NobodyJudges) {
            return vec![confirm];
        }
        vec![Act::Judge { revision }, confirm]
    }

    fn switch(&self, revision: RevisionNumber) -> Vec<Act> {
        // What is gone back to is checked file by file first.
        let back = matches!(self.aim, Aim::Back { .. } | Aim::Undone { .. })
            || self.target.is_some_and(|target| target.number != revision);
        let step = if back { Step::Revert { revision } } else { Step::Activate { revision } };
        std::iter::once(Act::Step(step)).chain(self.judge(revision)).collect()
    }

    /// Why a rollout towards the aim would be made.
    pub(crate) fn purpose(&self) -> Purpose {
        let last_to_here = self.inputs.rollout.filter(|rollout| rollout.revision == self.aim.revision());
        let done_before = last_to_here.is_some_and(|rollout| {
            rollout.state == RolloutState::Succeeded
                || (matches!(rollout.purpose, Purpose::Repair | Purpose::Restart)
                    && rollout.state != RolloutState::Unhealthy)
        });
        let again = if self.restarting() { Purpose::Restart } else { Purpose::Repair };
        match self.aim {
            Aim::Removed | Aim::Unknown | Aim::Stay { .. } => Purpose::Removal,
            Aim::Nothing { .. } => Purpose::Rollback,
            Aim::Declared(revision) if self.inputs.owned.good.last() == Some(revision) => again,
            Aim::Declared(_) => Purpose::Deploy,
            Aim::Back { .. } | Aim::Undone { .. } if done_before => again,
            Aim::Back { .. } => Purpose::Rollback,
            Aim::Undone { .. } => Purpose::Undo,
        }
    }
}

/// A host leaves the records.
pub(crate) fn disown(id: &HostId, owned: &mut Owned) {
    owned.hosts.remove(id);
    owned.confirmed_removals.remove(id);
}

/// A host of a Service of which nothing good is known.
fn stopping(seen: &ServiceObservation) -> Standing {
    let carries = seen.unit.revision();
    if seen.good.is_some() && !unproven(seen) {
        return left_alone(seen);
    }
    let need = if at_rest(seen) { Need::Nothing } else { Need::Quiet(vec![Act::Step(Step::Stop)]) };
    let state = if planted(Bug::RowsLie) { HostState::Ready } else { HostState::Stopped };
    let row = Standing::idle(carries, state, "there is nothing good to go back to");
    Standing { need, ..row }
}

/// What was unhealthy elsewhere was confirmed here: what serves is not taken down, and what somebody changes is not put
/// right, since it is not deployed by itself any more.
fn left_alone(seen: &ServiceObservation) -> Standing {
    let carries = seen.unit.revision();
    let why = "left as it is, since it was unhealthy elsewhere";
    if carries != seen.good {
        return Standing::idle(carries, HostState::Drifted, format!("{}; {why}", drift_message(seen)));
    }
    if !running(seen) {
        return Standing::idle(carries, HostState::Stopped, why);
    }
    Standing { settled: true, ..Standing::idle(carries, HostState::Ready, "") }
}

/// A host of a Service that was unhealthy somewhere, and is left as it is everywhere.
fn staying(host: &HostInput, seen: &ServiceObservation, blocked: &Blocked) -> Standing {
    let carries = seen.unit.revision();
    let well = ailment(host, seen).is_none();
    if position(seen, blocked.revision, &blocked.release) == Position::Settled && well {
        return Standing { settled: true, ..Standing::idle(carries, HostState::Ready, "") };
    }
    let (state, message) = if carries == Some(blocked.revision) {
        (HostState::Unhealthy, "left as it is: rollbackOnFailure is off")
    } else {
        (HostState::Pending, "left as it is, since what is declared was unhealthy elsewhere")
    };
    Standing::idle(carries, state, message)
}

/// What ails what runs on a host, if anything does.
pub(crate) fn ailment(host: &HostInput, seen: &ServiceObservation) -> Option<String> {
    if let Health::Ill(message) = &host.health {
        return Some(message.clone());
    }
    let run = &seen.run;
    let ended =
        || format!("{}, status {}", if run.result.is_empty() { "no result" } else { &run.result }, run.exit_status);
    match run.active {
        ActiveState::Active | ActiveState::Reloading => None,
        ActiveState::Failed => Some(format!("the unit failed ({})", ended())),
        ActiveState::Inactive => Some(format!("the program exited ({})", ended())),
        ActiveState::Activating if run.sub == "auto-restart" => {
            Some(format!("the program exited and waits to be started again ({})", ended()))
        }
        ActiveState::Activating => Some("the unit is still starting".to_owned()),
        ActiveState::Deactivating => Some("the unit is stopping".to_owned()),
        ActiveState::Unknown => Some("the unit is in a state that this version does not know".to_owned()),
    }
}

/// What was changed behind our back, in a few words.
pub(crate) fn drift_message(seen: &ServiceObservation) -> String {
    let mut words: Vec<String> = seen.drift.iter().map(ToString::to_string).collect();
    if words.is_empty() {
        let word = match seen.unit {
            UnitFile::Absent => "the unit file is gone",
            UnitFile::Revision(revision) if !seen.revisions.contains_key(&revision) => "what it runs from is gone",
            UnitFile::Revision(_) if seen.run.needs_reload => "systemd has not read the unit file that is there",
            UnitFile::Revision(_) | UnitFile::Changed(_) | UnitFile::Foreign => "the unit file was changed",
        };
        words.push(word.to_owned());
    }
    words.join("; ")
}
