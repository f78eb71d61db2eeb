//! The scene of a turn: everything that is known at its beginning, read afresh.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use windlass_crds::actor::Actor;
use windlass_crds::condition::Reason;
use windlass_crds::id::{Generation, HostId, RevisionNumber};
use windlass_crds::record::{Accepted, Owned, Rollout};
use windlass_crds::request::Request;
use windlass_crds::service::{ServiceSpec, Transport};
use windlass_crds::status::ServiceStatus;
use windlass_hosts::fleet::Fleet;
use windlass_planner::gate::{Rule, was_removed};
use windlass_planner::input::{Complaint, Files, Placement};
use windlass_planner::plan::Plan;
use windlass_planner::planted::{Bug, planted};
use windlass_sources::ScanMode;
use windlass_store::RequestId;

use super::gate::{Gate, Proposed};
use super::{Returned, Turn};
use crate::cache::{ServiceView, Surroundings};
use crate::controller::Controller;
use crate::goal::{FoundPlaces, Places, in_force, places};
use crate::judge::Rules;
use crate::requests;

/// What is known at the beginning of a turn.
pub(super) struct Scene {
    pub(super) view: ServiceView,
    pub(super) accepted: Option<Accepted>,
    pub(super) complaint: Option<Complaint>,
    pub(super) owned: Arc<Owned>,
    pub(super) rollout: Option<Rollout>,
    pub(super) places: Arc<Places>,
    pub(super) files: Files,
    /// Who asks for an approval.
    pub(super) rules: Vec<Rule>,
    /// What is declared and waits for one; `accepted` is what was in force before, where anything was.
    pub(super) proposed: Option<Proposed>,
    /// It was being taken off its hosts, and nothing else may come into force yet: that goes on.
    pub(super) leaves: bool,
    /// Who asks for each approval.
    pub(super) approvers: BTreeMap<RequestId, Result<Actor, String>>,
}

impl Scene {
    /// The generation that is spoken of: that of the declaration, or of the last one that there was.
    pub(super) fn generation(&self) -> Generation {
        let declared = self.view.declared.as_ref().map(|read| Generation(read.at.0));
        declared.or_else(|| self.accepted.as_ref().map(|accepted| accepted.generation)).unwrap_or_default()
    }

    /// What was said of it before; `known` is what that was when last somebody asked, as it is stored and as it reads.
    pub(super) fn said(&self, known: &mut Option<(Bytes, Arc<ServiceStatus>)>) -> Arc<ServiceStatus> {
        let Some(stored) = &self.view.status else { return Arc::default() };
        match known {
            Some((bytes, said)) if *bytes == stored.value => Arc::clone(said),
            _ => {
                let said: Arc<ServiceStatus> = Arc::new(serde_json::from_slice(&stored.value).unwrap_or_default());
                *known = Some((stored.value.clone(), Arc::clone(&said)));
                said
            }
        }
    }

    /// By whose rules a revision is judged on a host: what is declared by what is declared, what was gone back to by
    /// what it was declared with.
    pub(super) fn rules(&self, plan: &Plan, revision: RevisionNumber, host: &HostId) -> Option<Rules> {
        self.judged_by(plan, revision).map(|spec| self.rules_of(spec, host))
    }

    /// The declaration that says how a revision is judged.
    pub(super) fn judged_by(&self, plan: &Plan, revision: RevisionNumber) -> Option<&ServiceSpec> {
        if plan.declared == Some(revision) {
            self.accepted.as_ref().map(|accepted| &accepted.spec)
        } else {
            self.view.revisions.get(&revision).map(|revision| revision.spec.as_ref())
        }
    }

    /// The rules of a declaration, on a host.
    pub(super) fn rules_of(&self, spec: &ServiceSpec, host: &HostId) -> Rules {
        // Whoever is asked is placed there, and has a default; if ever one had not, the strictest would be right.
        let default_transport = self.places.default_transports.get(host).copied().unwrap_or(Transport::Https);
        Rules { spec: spec.clone(), default_transport }
    }
}

/// The files of what is in force while something else waits.
fn files_in_force(view: &ServiceView, owned: &Owned) -> Files {
    let in_force = owned.in_force.as_ref();
    let record = in_force.and_then(|in_force| view.revisions.get(&in_force.revision));
    match in_force.zip(record) {
        Some((in_force, record)) => Files::Release { digest: in_force.release, origin: record.source.clone() },
        None => Files::AsBefore,
    }
}

impl<F: Fleet> Turn<'_, F> {
    /// Reads everything afresh.
    pub(super) async fn scene(&mut self) -> Scene {
        let controller = self.controller;
        let mut view = controller.cache.service(self.key);
        if planted(Bug::NonsenseRemoves) {
            view.declared.take_if(|read| read.parsed.is_err());
        }
        requests::bound(&mut view.requests);
        let (candidate, mut complaint) = in_force(&view);
        let around = controller.cache.surroundings();
        let owned = view.owned.as_ref().map(|owned| Arc::clone(&owned.value)).unwrap_or_default();
        let rollout = view.rollouts.values().next_back().map(|stored| stored.value.clone());
        let declared = view.declared.is_some();
        let Gate { rules, mut accepted } = self.gate(candidate.as_ref(), &owned, &around);
        let asked = view.requests.values().any(|request| matches!(request, Ok(Request::Reconcile | Request::Retry)));
        let granted = owned.gate.as_ref().is_some_and(|gate| gate.granted.is_some());
        let leaves = declared && !rules.is_empty() && !granted && was_removed(&owned, rollout.as_ref());
        let spec = accepted.as_ref().filter(|_| declared && !leaves).map(|accepted| &accepted.spec);
        let generation = accepted.as_ref().map(|accepted| accepted.generation);
        let mut places = self.places(spec, generation, &owned, Arc::clone(&around)).await;
        let placements = &places.placements;
        if asked {
            placements.keys().for_each(|host| controller.contacts.try_at_once(host));
        }
        if accepted.is_some() {
            // Hosts are looked at while the source is read.
            self.begin_looks(placements, rollout.as_ref());
        }
        let mut files = Files::AsBefore;
        let mut proposed = None;
        if let Some(candidate) = candidate.as_ref().filter(|_| declared && complaint.is_none()) {
            self.read_source(candidate, asked).await;
            let (found, trouble) = controller.files(self.key, candidate, &view, &self.memory);
            complaint = trouble;
            proposed = self.proposed(&rules, candidate, &view, &found, &around);
            files = if proposed.is_some() { files_in_force(&view, &owned) } else { found };
        }
        if proposed.is_some()
            && !leaves
            && let Some(before) = owned.accepted.clone().filter(|before| accepted.as_ref() != Some(before))
        {
            // It was approved with other files.
            places = self.places(Some(&before.spec), Some(before.generation), &owned, around).await;
            accepted = Some(before);
        }
        let placements = &places.placements;
        if declared
            && complaint.is_none()
            && !leaves
            && !placements.values().any(|(_, placement)| *placement != Placement::Unplaced)
        {
            let spec = accepted.as_ref().map(|accepted| &accepted.spec);
            let labels = spec.map(|spec| spec.placement.selector.iter().map(|(key, value)| format!("{key}={value}")));
            let labels = labels.map(|labels| labels.collect::<Vec<_>>().join(",")).unwrap_or_default();
            let message = format!(
                "spec.placement: the selector {labels} matches no Host; `windlass get hosts -o yaml` shows the labels that there are"
            );
            complaint = Some(Complaint { reason: Reason::NoHosts, message });
        }
        let approvers = controller.approvers(self.key, &view, &rules, proposed.is_some()).await;
        Scene { view, accepted, complaint, owned, rollout, places, files, rules, proposed, leaves, approvers }
    }

    /// Finds the hosts, where they may be others than a moment ago.
    async fn places(
        &mut self,
        spec: Option<&ServiceSpec>,
        generation: Option<Generation>,
        owned: &Owned,
        around: Arc<Surroundings>,
    ) -> Arc<Places> {
        let generation = generation.filter(|_| spec.is_some());
        if let Some(places) = self.places.as_ref().and_then(|found| found.hold(&around, generation, owned)) {
            return places;
        }
        let places = Arc::new(places(spec, owned, &around).await);
        self.follow(&places.placements);
        self.places = Some(FoundPlaces::new(Arc::clone(&places), around, generation));
        places
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
}
