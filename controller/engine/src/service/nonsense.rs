//! What is said of a declaration that never made sense.

use windlass_crds::condition::{ConditionStatus, ConditionType, Reason};
use windlass_crds::id::ResourceKey;
use windlass_crds::status::{Finding, ServiceStatus, conditions};
use windlass_hosts::fleet::Fleet;
use windlass_planner::input::Complaint;
use windlass_store::{Key, Write};

use super::scene::Scene;
use super::{ReconcileError, Turn};
use crate::audit::{self, ServiceDeclaration};
use crate::commit::{ERASED, json};
use crate::events::{self, News};
use crate::queue::Next;
use crate::requests::{self, Standing};

impl<F: Fleet> Turn<'_, F> {
    /// Says of a declaration that never made sense what is wrong with it.
    pub(super) async fn nonsense(&mut self, scene: &Scene) -> Result<Next, ReconcileError> {
        let controller = self.controller;
        let resource = ResourceKey::Service(self.key.clone());
        let (now, mut writes) = (self.controller.now(), Vec::new());
        let standing = scene.complaint.as_ref().map_or(Standing::Absent, |found| Standing::Nonsense(found.reason));
        let refused = requests::refusals(&resource, standing, &scene.view.requests);
        let told = audit::asked(
            &scene.view.requests,
            refused.iter(),
            &controller.askers(&resource, scene.view.requests.keys(), &scene.view.asked_at),
        );
        let mut news: Vec<News> = refused.into_iter().map(News::from).collect();
        match &scene.complaint {
            Some(complaint) => {
                let before = scene.said(&mut self.said);
                let said = ServiceStatus {
                    observed_generation: scene.generation(),
                    conditions: conditions(stalled(complaint), scene.generation(), &before.conditions, now),
                    ..ServiceStatus::default()
                };
                let bytes = json(&said);
                if scene.view.status.as_ref().is_none_or(|stored| stored.value != bytes) {
                    news.extend(events::transitions(&before.conditions, &said.conditions));
                    writes.push(Write::put(Key::Status(resource.clone()), bytes));
                }
            }
            // Neither declared nor owned: only what was said of it is left.
            None => {
                writes.extend(scene.view.status.as_ref().map(|_| Write::delete(Key::Status(resource.clone()))));
                // What waited for an approval, and never came to be.
                if scene.owned.hosts.is_empty() {
                    let revisions = scene.view.revisions.keys().take(ERASED);
                    writes.extend(revisions.map(|number| Write::delete(Key::Revision(self.key.clone(), *number))));
                    writes.extend(scene.view.owned.as_ref().map(|_| Write::delete(Key::Owned(self.key.clone()))));
                }
            }
        }
        writes.extend(requests::ended(&resource, &scene.view.requests));
        writes.extend(controller.events.writes(&controller.store, &resource, now, news).await?);
        if !writes.is_empty() {
            let declaration = ServiceDeclaration { read: scene.view.declared.as_ref(), before: None };
            let mut telling = controller.tell_service(&resource, declaration).await?;
            telling.entries.extend(told);
            let revision = controller.commit_telling(None, writes, telling).await?;
            controller.reach(revision).await;
        }
        Ok(Next::Never)
    }
}

/// The conditions of something that makes no sense.
pub fn stalled(complaint: &Complaint) -> Vec<Finding> {
    let finding = |kind, status| Finding { kind, status, reason: complaint.reason, message: complaint.message.clone() };
    vec![
        finding(ConditionType::Ready, ConditionStatus::False),
        Finding {
            kind: ConditionType::Reconciling,
            status: ConditionStatus::False,
            reason: Reason::AsExpected,
            message: String::new(),
        },
        finding(ConditionType::Stalled, ConditionStatus::True),
    ]
}
