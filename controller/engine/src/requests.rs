//! Requests: what people ask for once, taken into the records.

use std::collections::BTreeMap;

use windlass_crds::actor::Actor;
use windlass_crds::approval::Approved;
use windlass_crds::condition::Reason;
use windlass_crds::digest::PlanDigest;
use windlass_crds::id::{HostId, Kind, ResourceKey, RevisionNumber, Sequence};
use windlass_crds::record::{BlockCause, Blocked, Owned, Revision, Rollout};
use windlass_crds::request::Request;
use windlass_planner::abort::{self, Abort, Unaborted};
use windlass_planner::canary::{self, Unapproved};
use windlass_planner::gate::{self, Rule};
use windlass_planner::input::{Goal, Inputs};
use windlass_planner::record::{block, decided};
use windlass_planner::target::Aim;
use windlass_store::{Key, RequestId, Write};

use crate::events::News;

/// So many requests are taken in at once: a commit holds 126 writes.
const MOST: usize = 30;

/// Leaves as many requests as one commit can end; the rest is taken next time.
pub fn bound(requests: &mut BTreeMap<RequestId, Result<Request, String>>) {
    if let Some(surplus) = requests.keys().nth(MOST).cloned() {
        requests.split_off(&surplus);
    }
}

/// The writes that end requests.
pub fn ended<Asked>(key: &ResourceKey, requests: &BTreeMap<RequestId, Asked>) -> impl Iterator<Item = Write> {
    requests.keys().map(move |id| Write::delete(Key::Request { target: key.clone(), id: id.clone() }))
}

/// What the requests for a Service amount to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Somebody wants the source and the hosts looked at now.
    pub look: bool,
    /// What could not be done.
    pub refused: Vec<Refused>,
}

/// A request that could not be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Which.
    pub request: RequestId,
    /// Why, for people.
    pub why: String,
}

impl From<Refused> for News {
    fn from(Refused { request, why }: Refused) -> Self {
        Self { reason: Reason::RequestRefused, message: why, request: Some(request) }
    }
}

/// How it stands with what is declared of a resource that is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is in force.
    Sound,
    /// It makes no sense, for this reason; what was in force before is not known.
    Nonsense(Reason),
    /// There is none, and nothing is left of it.
    Absent,
}

/// What cannot be done of what is asked of a Host, a zone, or a Service that is not known.
pub fn refusals(
    key: &ResourceKey,
    standing: Standing,
    requests: &BTreeMap<RequestId, Result<Request, String>>,
) -> Vec<Refused> {
    let why = |request: &Request| {
        let meant_for = match request {
            // Its status says what became of the look.
            Request::Reconcile if standing != Standing::Absent => return None,
            Request::Reconcile => key.kind(),
            Request::Adopt { .. } => Kind::Host,
            // Nothing of it is left on any host.
            Request::ConfirmRemoval { .. } if key.kind() == Kind::Service => return None,
            Request::Undo { .. }
            | Request::Retry
            | Request::ConfirmRemoval { .. }
            | Request::Restart
            | Request::Abort { .. }
            | Request::Approve { .. }
            | Request::Pause
            | Request::Resume => Kind::Service,
        };
        if meant_for != key.kind() {
            return Some(format!("only a {meant_for} can be asked this"));
        }
        match standing {
            Standing::Sound => None,
            Standing::Nonsense(reason) => Some(format!("what is declared of {key} makes no sense ({reason})")),
            Standing::Absent => Some(format!("{key} is not declared")),
        }
    };
    let refused = |(id, request): (&RequestId, &Result<Request, String>)| {
        let why = match request {
            Ok(request) => format!("{}: {}", request.name(), why(request)?),
            Err(error) => format!("{id}: {error}"),
        };
        Some(Refused { request: id.clone(), why })
    };
    requests.iter().filter_map(refused).collect()
}

/// What a request may change of.
pub struct Subject<'a> {
    /// What is recorded of the Service; changed.
    pub owned: &'a mut Owned,
    /// Its revisions.
    pub revisions: &'a BTreeMap<RevisionNumber, Revision>,
    /// The revision of what is declared, where it has one.
    pub declared: Option<&'a Revision>,
    /// Nobody has seen that revision yet: it was found only now.
    pub unseen: bool,
    /// Hosts that it shall leave.
    pub leaving: Vec<HostId>,
    /// Where its hosts are brought to.
    pub aim: &'a Aim,
    /// A switch above this sequence is later than the requests.
    pub since: Sequence,
    /// Everything that is known of it, as it was before the requests.
    pub inputs: &'a Inputs<'a>,
    /// The last rollout; changed.
    pub rollout: Option<&'a mut Rollout>,
    /// Who asks for an approval of what is declared.
    pub rules: &'a [Rule],
    /// Who asks for each approval, or why that is not believed.
    pub approvers: &'a BTreeMap<RequestId, Result<Actor, String>>,
}

impl Subject<'_> {
    /// What is known of it by now: a request sees what those before it have done.
    fn with_inputs<T>(&self, decide: impl FnOnce(&Inputs<'_>) -> T) -> T {
        let owned = self.owned.clone();
        decide(&Inputs { owned: &owned, rollout: self.rollout.as_deref(), ..self.inputs.clone() })
    }
}

/// Takes the requests in, in the order of their ids.
pub fn take(requests: &BTreeMap<RequestId, Result<Request, String>>, subject: &mut Subject<'_>) -> Asked {
    let mut asked = Asked::default();
    for (id, request) in requests {
        let mut refuse = |why: String| asked.refused.push(Refused { request: id.clone(), why });
        match request {
            Ok(Request::Reconcile) => asked.look = true,
            Ok(Request::Retry) => {
                asked.look = true;
                windlass_planner::record::retry(subject.owned, subject.inputs.now);
            }
            Ok(Request::ConfirmRemoval { hosts }) => {
                let meant = |host: &&HostId| hosts.is_empty() || hosts.contains(*host);
                subject.owned.confirmed_removals.extend(subject.leaving.iter().filter(meant).cloned());
            }
            Ok(Request::Restart) => {
                if let Err(why) = restart(subject) {
                    refuse(format!("restart: {why}"));
                }
            }
            // What is paused, or is not, stays as it is.
            Ok(Request::Pause) => subject.owned.paused = subject.owned.paused.or(Some(subject.inputs.now)),
            Ok(Request::Resume) => {
                subject.owned.paused = None;
                windlass_planner::record::resume(subject.owned, subject.inputs.now);
            }
            Ok(Request::Abort { from }) => {
                if let Err(why) = end(*from, subject) {
                    refuse(format!("abort: {why}"));
                }
            }
            Ok(Request::Approve { revision, step, plan: None, .. })
                if step.is_some() || !waits_for(subject.owned, *revision) =>
            {
                if let Err(why) = approve(*revision, *step, subject) {
                    refuse(format!("approve: {why}"));
                }
            }
            Ok(Request::Approve { revision, plan, reason, at, .. }) => {
                let approver = subject.approvers.get(id).cloned().unwrap_or(Ok(Actor::UNKNOWN));
                let reason = reason.clone().unwrap_or_default();
                let approved = approver.and_then(|by| {
                    let at = at.filter(|_| matches!(by, Actor::SshKey { .. })).unwrap_or(subject.inputs.now);
                    let_in((*revision, *plan), Approved { by, at, reason }, subject)
                });
                if let Err(why) = approved {
                    refuse(format!("approve: {why}"));
                }
            }
            Ok(request @ Request::Adopt { .. }) => {
                refuse(format!("{}: only a Host can be asked this", request.name()));
            }
            Ok(Request::Undo { revision, from }) => {
                if let Err(why) = undo(*revision, *from, subject) {
                    refuse(format!("undo: {why}"));
                }
            }
            Err(error) => refuse(format!("{id}: {error}")),
        }
    }
    asked
}

/// Ends the rollout that is under way.
fn end(from: Option<RevisionNumber>, subject: &mut Subject<'_>) -> Result<(), String> {
    still_declared(from, subject.declared)?;
    match subject.with_inputs(abort::abort).map_err(|why| why.to_string())? {
        Abort::Restart => subject.owned.restart = None,
        Abort::Deploy(revision) => {
            let declared = subject.declared.filter(|declared| declared.number == revision);
            let known = subject.revisions.get(&revision).or(declared).ok_or_else(|| Unaborted::Nothing.to_string())?;
            let spec = match &subject.inputs.goal {
                Goal::Run { spec, .. } => spec,
                Goal::Remove => known.spec.as_ref(),
            };
            abort::record(subject.owned, subject.rollout.as_deref_mut(), known, spec, subject.inputs.now);
        }
    }
    Ok(())
}

/// Whoever asks to go back from a revision does not mean another one, which was found since.
fn still_declared(from: Option<RevisionNumber>, declared: Option<&Revision>) -> Result<(), String> {
    match (from, declared.map(|declared| declared.number)) {
        (Some(from), Some(number)) if from != number => Err(format!(
            "revision {from} is not what is declared any more: revision {number} is; ask again to go back from that"
        )),
        _ => Ok(()),
    }
}

/// Lets the next step of a canary begin.
fn approve(revision: RevisionNumber, step: Option<u32>, subject: &mut Subject<'_>) -> Result<(), Unapproved> {
    let rollout = subject.rollout.as_deref().ok_or(Unapproved::Nothing)?;
    let progress = subject.with_inputs(|inputs| canary::approve(inputs, rollout, revision, step))?;
    if let Some(rollout) = subject.rollout.as_deref_mut() {
        rollout.canary = Some(progress);
    }
    Ok(())
}

/// Whether a revision waits until it may come into force.
fn waits_for(owned: &Owned, revision: RevisionNumber) -> bool {
    owned.gate.as_ref().is_some_and(|gate| gate.granted.is_none() && gate.revision == revision)
}

/// Lets what was declared come into force, or brings that nearer.
fn let_in(
    (revision, plan): (RevisionNumber, Option<PlanDigest>),
    approval: Approved,
    subject: &mut Subject<'_>,
) -> Result<(), String> {
    let now = subject.inputs.now;
    let gate = subject.owned.gate.as_deref_mut();
    gate::approve(gate, subject.rules, (revision, plan), approval, now).map_err(|error| error.to_string())
}

fn restart(subject: &mut Subject<'_>) -> Result<(), &'static str> {
    match subject.aim {
        Aim::Declared(_) | Aim::Back { .. } | Aim::Undone { .. } => {
            subject.owned.restart = Some(subject.since);
            subject.owned.repairs.clear();
            decided(subject.owned, subject.inputs.now);
            Ok(())
        }
        Aim::Nothing { .. } | Aim::Stay { .. } => {
            Err("what is declared was unhealthy; `windlass rollout retry` deploys it once more")
        }
        Aim::Unknown => Err("nothing was ever deployed"),
        Aim::Removed => Err("it is being taken down"),
    }
}

fn undo(wanted: Option<RevisionNumber>, from: Option<RevisionNumber>, subject: &mut Subject<'_>) -> Result<(), String> {
    let Some(declared) = subject.declared else {
        return Err("there is no revision to go back from".to_owned());
    };
    still_declared(from, Some(declared))?;
    if subject.unseen && !subject.owned.good.is_empty() {
        let number = declared.number;
        return Err(format!(
            "something else was found to deploy since it was asked: revision {number}; ask again to go back from that"
        ));
    }
    let before = subject.owned.good.iter().rev().find(|good| **good != declared.number);
    let to = match wanted.or(before.copied()) {
        Some(to) if !subject.revisions.contains_key(&to) => return Err(format!("there is no revision {to} any more")),
        // Whoever goes back does not bring what nobody has let in.
        Some(to) if to != declared.number && !subject.rules.is_empty() && !subject.owned.good.contains(&to) => {
            return Err(format!(
                "revision {to} was never in force on all hosts, and what comes into force has to be approved"
            ));
        }
        Some(to) if to == declared.number => {
            // Back to what is declared: nothing stands in its way any more.
            subject.owned.blocked.clear();
            decided(subject.owned, subject.inputs.now);
            return Ok(());
        }
        Some(to) => to,
        None => return Err("there is no earlier revision that was good".to_owned()),
    };
    // Wherever it was unhealthy: a person wants it.
    subject.owned.held_back.values_mut().for_each(|held| drop(held.remove(&to)));
    let blocked = Blocked {
        spec: declared.spec.digest(),
        release: declared.release,
        revision: declared.number,
        cause: BlockCause::Undone { to },
    };
    block(subject.owned, blocked);
    decided(subject.owned, subject.inputs.now);
    Ok(())
}
