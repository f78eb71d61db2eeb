//! What has arrived since the last turn, taken into the records: requests of people, and what came back from hosts.

use std::collections::BTreeMap;

use windlass_crds::id::HostId;
use windlass_crds::record::{Owned, Rollout, RolloutState, StepFailure};
use windlass_crds::step::{ContactError, StepError};
use windlass_hosts::fleet::Fleet;
use windlass_planner::input::{HostInput, Placement};
use windlass_planner::planted::{Bug, planted};
use windlass_planner::{record, restart, target};

use super::Turn;
use super::scene::Scene;
use crate::execute::Outcome;
use crate::requests::{self, Subject};

/// A host that loses contact in the middle of so many errands in a row counts as failing, and the key backs off.
const LOSSES: u32 = 3;

impl<F: Fleet> Turn<'_, F> {
    /// Takes in what people ask.
    pub(super) fn take_requests(
        &mut self,
        scene: &Scene,
        hosts: &BTreeMap<HostId, HostInput>,
        owned: &mut Owned,
        rollout: Option<&mut Rollout>,
    ) {
        if scene.view.requests.is_empty() {
            return;
        }
        let before = owned.clone();
        let inputs = self.inputs(scene, &before, scene.rollout.as_ref(), hosts);
        let choice = target::choose(&inputs);
        let declared = choice.declared.and_then(|number| scene.view.revisions.get(&number).or(choice.new.as_ref()));
        let leaving = hosts.iter().filter(|(_, host)| host.placement == Placement::Unplaced).map(|(id, _)| id.clone());
        let mut subject = Subject {
            owned,
            revisions: &scene.view.revisions,
            declared,
            unseen: choice.new.is_some(),
            leaving: leaving.collect(),
            aim: &choice.aim,
            since: restart::since(&inputs),
            inputs: &inputs,
            rollout,
            rules: &scene.rules,
            approvers: &scene.approvers,
        };
        self.refused = requests::take(&scene.view.requests, &mut subject).refused;
    }

    /// Takes in how an errand ended.
    pub(super) fn take_outcome(
        &mut self,
        scene: &Scene,
        host: &HostId,
        outcome: Outcome,
        owned: &mut Owned,
        rollout: &mut Rollout,
    ) {
        match outcome {
            Outcome::Done(_) => {
                self.losses.remove(host);
            }
            Outcome::Failed(failure) => record::failed(rollout, host, failure),
            Outcome::Unhealthy { .. } if planted(Bug::VerdictForgotten) => {}
            Outcome::Unhealthy { revision, evidence } => {
                let (Some(known), Some(accepted)) = (scene.view.revisions.get(&revision), &scene.accepted) else {
                    return;
                };
                record::unhealthy(owned, rollout, host, known, &accepted.spec, evidence, self.controller.now());
                // What has not begun on other hosts shall not: some wait for a place, or for another Service's step.
                let blocked = owned.blocked.iter().any(|blocked| blocked.revision == revision);
                let blocked = blocked || planted(Bug::VerdictsCutShort);
                for (_, recall) in self.busy.values() {
                    if blocked { recall.at_once() } else { recall.begin_nothing() }
                }
                self.failed |= rollout.state == RolloutState::Halted;
            }
            Outcome::Unsure(error) => self.lost(host, error, rollout),
            Outcome::Superseded | Outcome::Cancelled => {}
        }
    }

    /// Contact was lost in the middle of an errand: the host is looked at again, and gets a few more chances.
    fn lost(&mut self, host: &HostId, error: ContactError, rollout: &mut Rollout) {
        let losses = self.losses.entry(host.clone()).or_default();
        *losses += 1;
        if *losses >= LOSSES {
            let failure = StepFailure { step: "contact".to_owned(), error: StepError::Contact { error } };
            record::failed(rollout, host, failure);
        }
    }
}
