//! The plan: what to record and what to do next for one Service, and what to say of it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use windlass_crds::id::{HostId, MachineId, RevisionNumber, Sequence};
use windlass_crds::record::{Owned, OwnedHost, Purpose, Revision, Rollout, RolloutState};
use windlass_crds::service::{DeletionPolicy, ServiceSpec};
use windlass_crds::status::{HostRow, HostState};
use windlass_crds::step::{DataFate, Step};

use crate::input::{Activity, Goal, Health, HostInput, HostView, Inputs, Placement, RemovalGate};
use crate::position::{Damage, Position, Staged, position, running};
use crate::record;
use crate::status::Report;
use crate::target::{Aim, choose};

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
    /// Hosts whose switch is about to begin: recorded before it does.
    pub touch: BTreeSet<HostId>,
    /// Nothing is left of a removed Service: its records go too.
    pub gone: bool,
    /// What to say.
    pub report: Report,
}

impl Plan {
    /// Whether there is nothing to record about a rollout and nothing to do.
    pub fn is_idle(&self) -> bool {
        self.rollout == RolloutChange::Keep && self.stamp.is_empty() && self.actions.is_empty() && !self.gone
    }
}

/// What a host needs.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Need {
    /// Nothing, or nothing that can be done now.
    Nothing,
    /// Something that interrupts nothing.
    Quiet(Vec<Act>),
    /// A switch: it interrupts what runs.
    Switch {
        acts: Vec<Act>,
        /// Whether what runs there is a loss: it carried a healthy revision, and runs.
        costs: bool,
    },
}

/// How one host stands.
struct Standing {
    row: HostRow,
    need: Need,
    /// Down by our hand, or lost after we touched it.
    down: bool,
    settled: bool,
}

impl Standing {
    fn idle(revision: Option<RevisionNumber>, state: HostState, message: impl Into<String>) -> Self {
        let row = HostRow { revision, state, message: message.into() };
        Self { row, need: Need::Nothing, down: false, settled: false }
    }
}

/// Decides what to record and to do next.
pub fn plan(inputs: &Inputs<'_>) -> Plan {
    let choice = choose(inputs);
    let mut owned = claim(inputs, &choice.aim, choice.new.as_ref());
    let target = choice.aim.revision().and_then(|number| revision(inputs, choice.new.as_ref(), number));
    let twins = twins(inputs);
    let active = active(inputs, &choice.aim);
    let context = Context { inputs, aim: &choice.aim, target, active };
    let mut standings = BTreeMap::new();
    for (id, host) in inputs.hosts {
        let standing = match twins.get(id) {
            Some(twin) => Standing::idle(
                revision_of(host),
                HostState::Failed,
                format!("it is the same machine as {twin}; nothing is done on either"),
            ),
            None => context.standing(id, host, &mut owned),
        };
        standings.insert(id.clone(), standing);
    }
    let allowed = context.allow(&standings);
    let change = context.rollout(&standings, &allowed);
    let stamp = context.stamps(&change, &allowed);
    let acting =
        change == RolloutChange::Keep && stamp.is_empty() && active.is_some_and(|active| active.failures.is_empty());
    let actions = if acting { allowed } else { BTreeMap::new() };
    let touched =
        |acts: &[Act]| acts.iter().any(|act| matches!(act, Act::Step(Step::Activate { .. } | Step::Revert { .. })));
    let known = |id: &HostId| active.is_some_and(|active| active.touched.contains(id));
    let touch = actions.iter().filter(|(id, acts)| touched(acts) && !known(id)).map(|(id, _)| id.clone()).collect();
    if change == RolloutChange::Close(RolloutState::Succeeded)
        && let Some(target) = context.target
        && standings.values().any(|standing| standing.settled)
    {
        record::good(&mut owned, target.number, history_limit(inputs));
    }
    let rows: BTreeMap<HostId, HostRow> =
        standings.iter().map(|(id, standing)| (id.clone(), standing.row.clone())).collect();
    let busy = inputs.hosts.values().any(|host| matches!(host.view, HostView::Busy(_)));
    let working = busy || standings.values().any(|standing| standing.need != Need::Nothing);
    let gone = choice.aim == Aim::Removed && owned.hosts.is_empty() && !busy;
    let report = Report::new(inputs, &choice.aim, &owned, rows, &twins, working);
    Plan {
        aim: choice.aim,
        declared: choice.declared,
        new_revision: choice.new,
        owned,
        rollout: change,
        stamp,
        actions,
        touch,
        gone,
        report,
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

fn revision_of(host: &HostInput) -> Option<RevisionNumber> {
    match &host.view {
        HostView::Seen(seen) => seen.service.unit.revision(),
        _ => None,
    }
}

/// What `owned/` says once every host that may be touched is in it.
fn claim(inputs: &Inputs<'_>, aim: &Aim, new: Option<&Revision>) -> Owned {
    let mut owned = inputs.owned.clone();
    if let Some(new) = new {
        owned.last_revision = new.number;
    }
    if let Aim::Declared(declared) = aim {
        // Something else is declared now, which lifts what was blocked.
        owned.blocked.retain(|blocked| blocked.revision == *declared);
    }
    for (id, host) in inputs.hosts {
        let machine: Option<MachineId> = match &host.view {
            HostView::Seen(seen) => Some(seen.facts.machine.clone()),
            _ => None,
        };
        if host.placement == Placement::Placed && aim.revision().is_some() {
            let known = owned.hosts.get(id).and_then(|known| known.machine.clone());
            let claimed = OwnedHost { target: host.target.clone(), machine: machine.or(known) };
            owned.hosts.insert(id.clone(), claimed);
        }
        if host.placement != Placement::Unplaced {
            owned.confirmed_removals.remove(id);
        }
    }
    owned
}

/// Hosts that are one machine under two names, each with another of its names.
fn twins(inputs: &Inputs<'_>) -> BTreeMap<HostId, HostId> {
    let mut by_machine: BTreeMap<MachineId, Vec<&HostId>> = BTreeMap::new();
    for (id, host) in inputs.hosts {
        let machine = match &host.view {
            HostView::Seen(seen) => Some(seen.facts.machine.clone()),
            _ => inputs.owned.hosts.get(id).and_then(|owned| owned.machine.clone()),
        };
        if let Some(machine) = machine {
            by_machine.entry(machine).or_default().push(id);
        }
    }
    let mut twins = BTreeMap::new();
    for names in by_machine.values().filter(|names| names.len() > 1) {
        for (index, name) in names.iter().enumerate() {
            twins.insert((*name).clone(), names[usize::from(index == 0)].clone());
        }
    }
    twins
}

/// The rollout that goes on towards this aim under this controller.
fn active<'a>(inputs: &Inputs<'a>, aim: &Aim) -> Option<&'a Rollout> {
    inputs.rollout.filter(|rollout| {
        rollout.state == RolloutState::Active && rollout.term == inputs.term && rollout.revision == aim.revision()
    })
}

struct Context<'a> {
    inputs: &'a Inputs<'a>,
    aim: &'a Aim,
    target: Option<&'a Revision>,
    active: Option<&'a Rollout>,
}

impl Context<'_> {
    fn spec(&self) -> Option<&ServiceSpec> {
        match &self.inputs.goal {
            Goal::Run { spec, .. } => Some(spec),
            Goal::Remove => self.inputs.owned.accepted.as_ref().map(|accepted| &accepted.spec),
        }
    }

    fn touched(&self, id: &HostId) -> bool {
        self.inputs.rollout.is_some_and(|rollout| rollout.state == RolloutState::Active && rollout.touched.contains(id))
    }

    /// Whether a host that nobody sees may be down by our hand.
    fn may_be_down(&self, id: &HostId) -> bool {
        let carried = self.inputs.owned.hosts.contains_key(id) && !self.inputs.owned.good.is_empty();
        carried && (self.touched(id) || self.inputs.fresh_term)
    }

    /// How one host stands; a host that is rid of the Service leaves `owned`.
    fn standing(&self, id: &HostId, host: &HostInput, owned: &mut Owned) -> Standing {
        if host.placement == Placement::Unplaced {
            return self.leaving(id, host, owned);
        }
        if let Placement::Refused(complaint) = &host.placement {
            return Standing::idle(None, HostState::Failed, complaint.message.clone());
        }
        match &host.view {
            HostView::Busy(activity) => {
                let mut standing = Standing::idle(None, HostState::Working, "");
                standing.down = *activity == Activity::Disruptive;
                standing
            }
            HostView::Unreachable(error) => {
                let mut standing = Standing::idle(None, HostState::Unreachable, error.to_string());
                standing.down = self.may_be_down(id);
                standing
            }
            HostView::Refusing(error) => Standing::idle(None, HostState::Failed, error.to_string()),
            HostView::NotLookedAt => {
                let mut standing = Standing::idle(None, HostState::Pending, "");
                standing.down = self.may_be_down(id);
                standing
            }
            HostView::Seen(_) => self.placed(id, host),
        }
    }

    fn placed(&self, id: &HostId, host: &HostInput) -> Standing {
        let HostView::Seen(seen) = &host.view else { unreachable!("only called for hosts that were seen") };
        let seen = &seen.service;
        let carries = seen.unit.revision();
        let Some(target) = self.target else {
            return match self.aim {
                Aim::Nothing { .. } => {
                    let stopped = !running(seen) && seen.run.pid.is_none();
                    let need = if stopped { Need::Nothing } else { Need::Quiet(vec![Act::Step(Step::Stop)]) };
                    Standing {
                        need,
                        ..Standing::idle(carries, HostState::Stopped, "there is nothing good to go back to")
                    }
                }
                Aim::Stay { .. } => {
                    Standing::idle(carries, HostState::Unhealthy, "left as it is: rollbackOnFailure is off")
                }
                _ => Standing::idle(carries, HostState::Pending, ""),
            };
        };
        let revision = target.number;
        let carried = seen.good.is_some();
        let up = running(seen);
        let (state, need, down) = match position(seen, revision, &target.release) {
            Position::Settled => {
                let ill = if let Health::Ill(message) = &host.health { Some(message.clone()) } else { None };
                let state = if ill.is_some() { HostState::Unhealthy } else { HostState::Ready };
                let message = ill.unwrap_or_default();
                return Standing { settled: true, ..Standing::idle(carries, state, message) };
            }
            Position::Unjudged => (HostState::Starting, Need::Quiet(self.judge(revision)), carried),
            Position::Drifted { files } => {
                let mut acts = self.switch(revision);
                if files == Damage::Files {
                    acts.insert(0, Act::Step(Step::Stage { revision, release: target.release }));
                }
                (HostState::Drifted, Need::Switch { acts, costs: carried && up }, self.touched(id) && carried && !up)
            }
            Position::Elsewhere { staged: Staged::No } => {
                let acts = vec![Act::Step(Step::Stage { revision, release: target.release })];
                (HostState::Pending, Need::Quiet(acts), self.touched(id) && carried && !up)
            }
            Position::Elsewhere { staged: Staged::Yes } => {
                // What runs and was never confirmed is no loss, and is already counted as down where it replaced
                // something good.
                let unconfirmed = carries.is_some() && seen.good != carries;
                let costs = carried && up && !unconfirmed;
                let down = carried && (unconfirmed || (self.touched(id) && !up));
                (HostState::Pending, Need::Switch { acts: self.switch(revision), costs }, down)
            }
        };
        let failure = self.inputs.rollout.and_then(|rollout| rollout.failures.get(id));
        let message = match failure {
            Some(failure) => format!("{}: {}", failure.step, failure.error),
            None if state == HostState::Drifted => drift_message(seen),
            None => String::new(),
        };
        let state = if failure.is_some() { HostState::Failed } else { state };
        Standing { need, down, ..Standing::idle(carries, state, message) }
    }

    /// A host that the Service shall leave.
    fn leaving(&self, id: &HostId, host: &HostInput, owned: &mut Owned) -> Standing {
        let policy = self.spec().map_or(DeletionPolicy::Remove, |spec| spec.deletion_policy);
        let purge = self.spec().is_some_and(|spec| spec.purge_data);
        let confirmed = owned.confirmed_removals.contains(id) || self.inputs.removals == RemovalGate::Open;
        let carries = revision_of(host);
        if !confirmed {
            return Standing::idle(carries, HostState::Removing, "waits for `windlass confirm-removal`");
        }
        if policy == DeletionPolicy::Keep {
            owned.hosts.remove(id);
            return Standing::idle(carries, HostState::Removing, "disowned and left running");
        }
        match &host.view {
            HostView::Seen(seen) if !seen.service.present => {
                owned.hosts.remove(id);
                owned.confirmed_removals.remove(id);
                Standing::idle(None, HostState::Removing, "")
            }
            HostView::Seen(_) => {
                let data = if purge { DataFate::Purge } else { DataFate::Keep };
                let need = Need::Quiet(vec![Act::Step(Step::Remove { data })]);
                Standing { need, ..Standing::idle(carries, HostState::Removing, "") }
            }
            HostView::Busy(_) => Standing::idle(carries, HostState::Removing, ""),
            HostView::Unreachable(error) => Standing::idle(None, HostState::Unreachable, error.to_string()),
            HostView::Refusing(error) => Standing::idle(None, HostState::Failed, error.to_string()),
            HostView::NotLookedAt => Standing::idle(None, HostState::Removing, ""),
        }
    }

    fn judge(&self, revision: RevisionNumber) -> Vec<Act> {
        let keep = self.inputs.revisions.keys().copied().filter(|kept| *kept != revision).collect();
        vec![Act::Judge { revision }, Act::Step(Step::Confirm { revision, keep })]
    }

    fn switch(&self, revision: RevisionNumber) -> Vec<Act> {
        // What is gone back to is checked file by file first.
        let step = match self.aim {
            Aim::Back { .. } | Aim::Undone { .. } => Step::Revert { revision },
            _ => Step::Activate { revision },
        };
        std::iter::once(Act::Step(step)).chain(self.judge(revision)).collect()
    }

    /// What may be done now without more hosts down than allowed, in the order of their names.
    fn allow(&self, standings: &BTreeMap<HostId, Standing>) -> BTreeMap<HostId, Vec<Act>> {
        let placed = |id: &&HostId| self.inputs.hosts.get(*id).is_some_and(|host| host.placement == Placement::Placed);
        let hosts = standings.keys().filter(placed).count();
        let most = self.spec().map_or(1, |spec| spec.rollout.max_unavailable.of(hosts));
        let mut down = standings.values().filter(|standing| standing.down).count();
        let mut allowed = BTreeMap::new();
        for (id, standing) in standings {
            match &standing.need {
                Need::Nothing => {}
                Need::Quiet(acts) => {
                    allowed.insert(id.clone(), acts.clone());
                }
                Need::Switch { acts, costs: false } => {
                    allowed.insert(id.clone(), acts.clone());
                }
                Need::Switch { acts, costs: true } if down < most => {
                    down += 1;
                    allowed.insert(id.clone(), acts.clone());
                }
                Need::Switch { .. } => {}
            }
        }
        allowed
    }

    /// What becomes of the last rollout.
    fn rollout(&self, standings: &BTreeMap<HostId, Standing>, allowed: &BTreeMap<HostId, Vec<Act>>) -> RolloutChange {
        let busy = self.inputs.hosts.values().any(|host| matches!(host.view, HostView::Busy(_)));
        let unseen = self
            .inputs
            .hosts
            .values()
            .any(|host| host.placement != Placement::Unplaced && matches!(host.view, HostView::NotLookedAt));
        let work = standings.values().any(|standing| standing.need != Need::Nothing);
        let last = self.inputs.rollout.filter(|rollout| rollout.state == RolloutState::Active);
        if !work {
            return match last {
                Some(_) if busy => RolloutChange::Keep,
                // A host that has not answered yet still belongs to it.
                Some(last) if unseen && last.failures.is_empty() && last.revision == self.aim.revision() => {
                    RolloutChange::Keep
                }
                Some(last) if !last.failures.is_empty() => RolloutChange::Close(RolloutState::Halted),
                Some(last) if last.revision == self.aim.revision() => RolloutChange::Close(RolloutState::Succeeded),
                Some(_) => RolloutChange::Close(RolloutState::Superseded),
                None => RolloutChange::Keep,
            };
        }
        let highest = self.highest_seen();
        match self.active {
            // What is under way belongs to another rollout: it ends first.
            None if busy => RolloutChange::Keep,
            // Everything waits for hosts that are down: a new number would change nothing.
            None if allowed.is_empty() && last.is_none() => RolloutChange::Keep,
            None => self.open(highest),
            Some(active) if !active.failures.is_empty() => {
                if busy {
                    RolloutChange::Keep
                } else {
                    RolloutChange::Close(RolloutState::Halted)
                }
            }
            Some(active) if highest > active.sequence => self.open(highest),
            Some(_) => RolloutChange::Keep,
        }
    }

    fn open(&self, above: Sequence) -> RolloutChange {
        RolloutChange::Open { purpose: self.purpose(), revision: self.aim.revision(), above }
    }

    fn purpose(&self) -> Purpose {
        let last_to_here = self.inputs.rollout.filter(|rollout| rollout.revision == self.aim.revision());
        let done_before = last_to_here.is_some_and(|rollout| {
            rollout.state == RolloutState::Succeeded
                || (rollout.purpose == Purpose::Repair && rollout.state != RolloutState::Unhealthy)
        });
        match self.aim {
            Aim::Removed => Purpose::Removal,
            Aim::Unknown | Aim::Stay { .. } => Purpose::Removal,
            Aim::Nothing { .. } => Purpose::Rollback,
            Aim::Declared(revision) if self.inputs.owned.good.last() == Some(revision) => Purpose::Repair,
            Aim::Declared(_) => Purpose::Deploy,
            Aim::Back { .. } | Aim::Undone { .. } if done_before => Purpose::Repair,
            Aim::Back { .. } => Purpose::Rollback,
            Aim::Undone { .. } => Purpose::Undo,
        }
    }

    fn highest_seen(&self) -> Sequence {
        let sequences = self.inputs.hosts.values().filter_map(|host| match &host.view {
            HostView::Seen(seen) => Some(seen.service.sequence),
            _ => None,
        });
        sequences.max().unwrap_or_default()
    }

    /// The hosts that must see the sequence before anything is done: every one within reach.
    fn stamps(&self, change: &RolloutChange, allowed: &BTreeMap<HostId, Vec<Act>>) -> BTreeSet<HostId> {
        let Some(active) = self.active.filter(|_| *change == RolloutChange::Keep && !allowed.is_empty()) else {
            return BTreeSet::new();
        };
        let behind = |host: &HostInput| match &host.view {
            HostView::Seen(seen) => seen.service.sequence < active.sequence,
            _ => false,
        };
        self.inputs.hosts.iter().filter(|(_, host)| behind(host)).map(|(id, _)| id.clone()).collect()
    }
}

/// What was changed behind our back, in a few words.
fn drift_message(seen: &windlass_crds::observation::ServiceObservation) -> String {
    use windlass_crds::observation::Drift;
    let mut words: Vec<String> = seen
        .drift
        .iter()
        .map(|drift| match drift {
            Drift::UnitChanged => "the unit file was changed".to_owned(),
            Drift::DropIn { paths } => format!("drop-ins change the unit: {}", paths.join(", ")),
            Drift::FilesChanged { paths } => format!("files were changed: {}", paths.join(", ")),
            Drift::RevisionChanged => "the revision's unit or environment was changed".to_owned(),
            Drift::NotEnabled => "the unit does not start at boot any more".to_owned(),
            Drift::Stopped => "the unit was stopped".to_owned(),
        })
        .collect();
    if words.is_empty() {
        words.push("the unit file was changed".to_owned());
    }
    words.join("; ")
}
