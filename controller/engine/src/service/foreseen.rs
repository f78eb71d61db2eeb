//! What would be done next for one Service, found out by the same turn that does it, without doing any of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::stream::StreamExt;
use tokio_util::sync::CancellationToken;
use windlass_crds::digest::ReleaseDigest;
use windlass_crds::id::{HostId, RevisionNumber, ServiceKey};
use windlass_crds::manifest::Manifest;
use windlass_crds::record::{Revision, Rollout};
use windlass_hosts::fleet::Fleet;
use windlass_planner::input::{HostInput, HostView};
use windlass_planner::plan::{Plan, RolloutChange, plan as plan_next};

use super::Turn;
use crate::controller::{Controller, Memory};

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

impl Foreseen {
    /// The revision of what is declared, recorded already or not.
    pub fn declared(&self) -> Option<&Revision> {
        let number = self.plan.declared?;
        let new = self.plan.new_revision.as_ref().filter(|new| new.number == number);
        new.or_else(|| self.revisions.get(&number))
    }

    /// The release that a host runs: that of the revision which its unit names.
    pub fn running(&self, host: &HostId) -> Option<ReleaseDigest> {
        let HostView::Seen(seen) = &self.hosts.get(host)?.view else { return None };
        let revision = seen.service.unit.revision()?;
        let recorded = || self.revisions.get(&revision).map(|revision| revision.release);
        seen.service.revisions.get(&revision).copied().or_else(recorded)
    }
}

/// What would be done next for one Service, and what is said of it; nothing is recorded or changed anywhere.
///
/// `None` where it is neither declared nor owned, or was never declared in a way that makes sense.
pub async fn foresee<F: Fleet>(controller: &Arc<Controller<F>>, key: &ServiceKey) -> Option<Foreseen> {
    let stop = CancellationToken::new();
    let mut turn = Turn::new(controller, key, Memory::default(), &stop);
    let mut scene = turn.scene().await;
    scene.accepted.as_ref()?;
    turn.observe(&scene).await;
    while !turn.looking.is_empty()
        && let Some(returned) = turn.out.next().await
    {
        turn.take_in(returned);
    }
    let (plan, _) = turn.decide(&scene);
    let owned = plan.owned.clone();
    let source =
        turn.memory.scan.as_ref().and_then(|scan| scan.found.as_ref()).map(|found| Arc::clone(&found.manifest));
    let revisions = BTreeMap::clone(&scene.view.revisions);
    let mut hosts = turn.hosts(&scene);
    let foreseen = |plan, hosts| Some(Foreseen { plan, hosts, revisions, source });
    let RolloutChange::Open { purpose, revision, above } = plan.rollout else { return foreseen(plan, hosts) };
    // The rollout would begin; what it would do first is what somebody who asks wants to know.
    let seen = hosts.clone();
    for host in hosts.values_mut() {
        if let HostView::Seen(seen) = &mut host.view {
            Arc::make_mut(seen).service.sequence = above.next();
        }
    }
    let begun = Rollout {
        canary: plan.canary.clone(),
        ..Rollout::begin(above.next(), purpose, revision, controller.term, controller.now())
    };
    // The record precedes the act: whoever begins has written it down by then.
    Arc::make_mut(&mut scene.view.revisions).extend(plan.new_revision.iter().map(|new| (new.number, new.clone())));
    let mut next = plan_next(&turn.inputs(&scene, &owned, Some(&begun), &hosts));
    next.rollout = plan.rollout;
    next.new_revision = plan.new_revision.or(next.new_revision);
    foreseen(next, seen)
}
