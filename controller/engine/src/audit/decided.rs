//! What is told of a plan's decisions: revisions, rollouts with what they came to on each host, blocks, the end.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use windlass_crds::audit::{Entry, What};
use windlass_crds::digest::PlanDigest;
use windlass_crds::id::{Generation, HostId, RevisionNumber, ServiceKey};
use windlass_crds::record::{BlockCause, Blocked, Owned, Revision, Rollout, RolloutState};
use windlass_crds::status::HostState;
use windlass_planner::plan::Plan;

use crate::commit::RolloutRecords;

/// What was decided, and what it was decided on.
pub(crate) struct Decided<'a> {
    /// Of which Service.
    pub(crate) service: &'a ServiceKey,
    /// The plan.
    pub(crate) plan: &'a Plan,
    /// What was owned before.
    pub(crate) owned: &'a Owned,
    /// The revisions that there were before.
    pub(crate) revisions: &'a BTreeMap<RevisionNumber, Revision>,
    /// The last rollout, as it was stored.
    pub(crate) before: Option<&'a Rollout>,
    /// The rollouts, as they shall be.
    pub(crate) rollouts: &'a RolloutRecords,
    /// The hosts that it is for, or is taken off.
    pub(crate) hosts: BTreeSet<&'a HostId>,
}

/// What is told of it, in the order in which it follows from each other.
pub(crate) fn decided(decided: &Decided<'_>) -> Vec<Entry> {
    let Decided { service, plan, owned, revisions, before, rollouts, hosts } = decided;
    let mut told = Vec::new();
    if let Some(Revision { number, spec, release, source, .. }) = &plan.new_revision {
        let (revision, spec, commit) = (*number, spec.digest(), source.commit.clone());
        told.push(What::Accepted { revision, release: *release, spec, commit });
    }
    let new = plan.owned.blocked.iter().filter(|blocked| !owned.blocked.contains(blocked));
    told.extend(new.map(|blocked| What::blocked(blocked.revision, &why(blocked))));
    let was_active = before.filter(|before| before.state == RolloutState::Active);
    if let Some(ended) = rollouts.last.as_ref().filter(|last| last.state != RolloutState::Active)
        && was_active.is_some_and(|before| before.sequence == ended.sequence)
    {
        let rows = plan.report.hosts.iter();
        let ready = rows.filter(|(_, row)| row.state == HostState::Ready).map(|(id, _)| id).collect();
        told.push(What::ended(ended, hosts, &ready));
    }
    if let Some(opened) = &rollouts.opened {
        let new = plan.new_revision.as_ref();
        let to = opened
            .revision
            .and_then(|number| new.filter(|new| new.number == number).or_else(|| revisions.get(&number)));
        told.push(What::Opened {
            sequence: opened.sequence,
            purpose: opened.purpose,
            from: owned.good.last().copied(),
            to: opened.revision,
            plan: digest(service, opened, to, hosts),
            approved: granted(plan, opened),
        });
    }
    if plan.gone {
        told.push(What::Removed);
    }
    approvals(plan, owned).chain(told.into_iter().map(Entry::of_controller)).collect()
}

/// Approvals that have come in, of whoever has given them.
fn approvals(plan: &Plan, owned: &Owned) -> impl Iterator<Item = Entry> {
    let before = owned.gate.iter().flat_map(|gate| gate.approvals.iter().map(|approved| (gate.plan, approved)));
    let before: Vec<_> = before.collect();
    let now = plan.owned.gate.iter().flat_map(|gate| gate.approvals.iter().map(move |approved| (gate, approved)));
    now.filter(move |(gate, approved)| !before.contains(&(gate.plan, *approved))).map(|(gate, approved)| Entry {
        who: approved.by.clone(),
        what: What::Approved {
            revision: gate.revision,
            plan: gate.plan,
            reason: Some(approved.reason.clone()).filter(|reason| !reason.is_empty()),
        },
    })
}

/// Whether what is declared waits for people to approve it.
pub(crate) fn waits(plan: &Plan, generation: Generation) -> bool {
    plan.owned.gate.as_ref().is_some_and(|gate| gate.granted.is_none() && gate.generation == generation)
}

/// What people have approved of what a rollout brings.
fn granted(plan: &Plan, rollout: &Rollout) -> Option<PlanDigest> {
    let gate = plan.owned.gate.as_ref().filter(|gate| gate.granted.is_some())?;
    (rollout.revision == Some(gate.revision)).then_some(gate.plan)
}

/// What a rollout brings where.
fn digest(service: &ServiceKey, rollout: &Rollout, to: Option<&Revision>, hosts: &BTreeSet<&HostId>) -> PlanDigest {
    // The names stand in their order, and a map of them is written in it.
    let plan = json!({
        "service": service.to_string(),
        "purpose": rollout.purpose,
        "revision": rollout.revision,
        "spec": to.map(|to| to.spec.digest()),
        "release": to.map(|to| to.release),
        "hosts": hosts,
    });
    PlanDigest::of(plan.to_string().as_bytes())
}

fn why(blocked: &Blocked) -> String {
    match &blocked.cause {
        BlockCause::Unhealthy { host, evidence } => format!("{host} was not well: {}", evidence.summary),
        BlockCause::Undone { to } => format!("somebody went back to revision {to}"),
        BlockCause::Aborted { .. } => "somebody ended its rollout".to_owned(),
    }
}
