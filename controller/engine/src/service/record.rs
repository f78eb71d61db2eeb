//! Records what a turn decided, before anything of it is done.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use tracing::Span;
use windlass_crds::actor::Actor;
use windlass_crds::approval::Gated;
use windlass_crds::audit::Entry;
use windlass_crds::condition::Reason;
use windlass_crds::id::{ResourceKey, Sequence};
use windlass_crds::record::{Owned, Rollout, RolloutState};
use windlass_crds::status::ServiceStatus;
use windlass_hosts::fleet::Fleet;
use windlass_planner::plan::{Plan, RolloutChange};
use windlass_planner::planted::{Bug, planted};
use windlass_store::{Act, Draw, Key, RequestId, SequenceError, Write, WriteError};

use super::scene::Scene;
use super::{ReconcileError, Turn};
use crate::audit::{self, Decided, ServiceDeclaration, Telling, decided, waits};
use crate::cache::Record;
use crate::checkpoint::{Checkpoint, reached};
use crate::commit::{Records, RolloutRecords, rollouts, status};
use crate::controller::Controller;
use crate::events::{self, News};
use crate::narrate;

/// So many machines that were left behind are told by an event in one commit, which holds 126 writes; all of them are
/// in what is owned.
pub(crate) const LEFT_BEHIND: usize = 10;

/// What a turn came to, as it shall be recorded.
struct Decision<'a> {
    plan: &'a Plan,
    owned: &'a Owned,
    rollouts: RolloutRecords,
    /// What was said before.
    before: Arc<ServiceStatus>,
    now: Timestamp,
}

impl Decision<'_> {
    /// The rollout that holds from here on.
    fn current(&self) -> Option<&Rollout> {
        self.rollouts.opened.as_ref().or(self.rollouts.last.as_ref())
    }

    /// The status that follows from it.
    fn said(&self, scene: &Scene) -> ServiceStatus {
        let mut said = status(self.plan, self.current(), scene.generation(), &self.before, self.now);
        said.release = said.release.or_else(|| {
            let target = self.plan.aim.revision()?;
            scene.view.revisions.get(&target).map(|revision| revision.release)
        });
        said
    }
}

impl<F: Fleet> Turn<'_, F> {
    /// Records what was decided before anything of it is done; returns the rollout that holds from here on.
    pub(super) async fn record(
        &mut self,
        scene: &Scene,
        plan: &Plan,
        last: Option<Rollout>,
    ) -> Result<Option<Rollout>, ReconcileError> {
        let resource = ResourceKey::Service(self.key.clone());
        if matches!(plan.rollout, RolloutChange::Open { .. }) {
            // Known before the counter is locked for the draw.
            self.controller.know(&resource).await?;
        }
        let draw = draw(self.controller, plan).await?;
        let drawn = sequence(plan, draw.as_ref());
        let closes = matches!(plan.rollout, RolloutChange::Close(_));
        if closes {
            reached(Checkpoint::BeforeClose);
            self.moves = None;
        }
        let was_active = scene.rollout.as_ref().is_some_and(|rollout| rollout.state == RolloutState::Active);
        let blocked = plan.fallen.is_some()
            || was_active && last.as_ref().is_some_and(|rollout| rollout.state == RolloutState::Unhealthy);
        let owned = &plan.owned;
        let as_recorded = *owned == *scene.owned && last == scene.rollout;
        let now = self.controller.now();
        let rollouts = rollouts(last, plan, drawn, self.controller.term, now);
        let decision = Decision { plan, owned, rollouts, before: scene.said(&mut self.said), now };
        let current = decision.current().cloned();
        Span::current().record("generation", scene.generation().0);
        narrate::under_way(current.as_ref());
        let spoken_of = decision.before.observed_generation == scene.generation();
        if as_recorded && self.knows_nothing_new(scene, plan) && spoken_of {
            // Somebody has just begun to lead. What was said before is still the best that is known.
            return Ok(current);
        }
        let said = decision.said(scene);
        let askers = self.askers(scene, &resource);
        let asked = audit::asked(&scene.view.requests, self.refused.iter(), &askers);
        let writes = self.writes(scene, &decision, &said).await?;
        if writes.is_empty() {
            return Ok(current);
        }
        let status = written(&writes);
        self.foretell(&decision, &writes);
        let mut telling = self.telling(scene, &decision, asked).await?;
        telling.ends = closes;
        let revision = self.controller.commit_telling(draw, writes, telling).await?;
        let accepted = plan.new_revision.as_ref();
        let metrics = &self.controller.metrics;
        narrate::recorded(self.key, scene.rollout.as_ref(), &decision.rollouts, accepted, metrics);
        self.written = Some(revision);
        self.said = status.map(|bytes| (bytes, Arc::new(said))).or_else(|| self.said.take());
        let moves = current.as_ref().is_some_and(|rollout| rollout.state == RolloutState::Active);
        self.moves = moves.then(|| self.controller.moving.begin());
        if drawn.is_some() {
            reached(Checkpoint::RolloutOpened);
        }
        if blocked {
            reached(Checkpoint::BlockRecorded);
        }
        if closes {
            reached(Checkpoint::AfterClose);
        }
        Ok(current)
    }

    /// What the cache need not read again once it is written.
    fn foretell(&self, decision: &Decision<'_>, writes: &[Write]) {
        let rollouts = || decision.rollouts.opened.iter().chain(&decision.rollouts.last);
        for write in writes {
            match &write.key {
                Key::Owned(_) => {
                    self.controller.cache.foretell(write, || Record::Owned(Arc::new(decision.owned.clone())));
                }
                Key::Rollout(_, sequence) => {
                    if let Some(rollout) = rollouts().find(|rollout| rollout.sequence == *sequence) {
                        self.controller.cache.foretell(write, || Record::Rollout(Box::new(rollout.clone())));
                    }
                }
                _ => {}
            }
        }
    }

    /// Who has made the requests; who approves is known by the signature, where there is one.
    fn askers(&self, scene: &Scene, resource: &ResourceKey) -> BTreeMap<RequestId, Actor> {
        let mut askers = self.controller.askers(resource, scene.view.requests.keys(), &scene.view.asked_at);
        let approvers = scene.approvers.iter();
        askers.extend(approvers.filter_map(|(id, by)| Some((id.clone(), by.as_ref().ok()?.clone()))));
        askers
    }

    /// What the trail is told with it.
    async fn telling(
        &mut self,
        scene: &Scene,
        decision: &Decision<'_>,
        asked: Vec<Entry>,
    ) -> Result<Telling, ReconcileError> {
        let Decision { plan, rollouts, .. } = decision;
        let (read, before) = (scene.view.declared.as_ref(), scene.owned.accepted.as_ref());
        let resource = ResourceKey::Service(self.key.clone());
        let mut telling = self.controller.tell_service(&resource, ServiceDeclaration { read, before }).await?;
        if waits(plan, scene.generation()) {
            telling.waits();
        }
        telling.entries.extend(asked);
        telling.entries.extend(decided(&Decided {
            service: self.key,
            plan,
            owned: &scene.owned,
            revisions: &scene.view.revisions,
            before: scene.rollout.as_ref(),
            rollouts,
            hosts: scene.places.placements.keys().collect(),
        }));
        Ok(telling)
    }

    /// Whether a host was not looked at yet, and nothing is to be done or answered meanwhile.
    fn knows_nothing_new(&self, scene: &Scene, plan: &Plan) -> bool {
        plan.is_idle() && scene.view.requests.is_empty() && !self.placements_seen(scene)
    }

    /// Everything that has to be written; nothing where everything is as it was.
    async fn writes(
        &mut self,
        scene: &Scene,
        decision: &Decision<'_>,
        said: &ServiceStatus,
    ) -> Result<Vec<Write>, WriteError> {
        let Decision { plan, owned, rollouts, before, now } = decision;
        let limit = scene.accepted.as_ref().map(|accepted| accepted.spec.rollout.revision_history_limit.get() as usize);
        let mut writes = Records {
            key: self.key,
            view: &scene.view,
            plan,
            owned,
            rollouts,
            status: said,
            history_limit: limit.unwrap_or(usize::MAX),
        }
        .writes();
        let mut news: Vec<News> = self.refused.drain(..).map(News::from).collect();
        if !plan.gone {
            news.extend(events::transitions(&before.conditions, &said.conditions));
            news.extend(plan.owned.gate.as_ref().filter(|_| plan.granted).map(|gate| approved(gate)));
            let left_behind = plan.left_behind.iter().take(LEFT_BEHIND);
            news.extend(left_behind.map(|left| News::new(Reason::HostReplaced, left.to_string())));
        }
        let resource = ResourceKey::Service(self.key.clone());
        writes.extend(self.controller.events.writes(&self.controller.store, &resource, *now, news).await?);
        Ok(writes)
    }
}

/// Who has let in what comes into force now, and why.
fn approved(gate: &Gated) -> News {
    let each = gate.approvals.iter().map(|approval| format!("{}: {}", approval.by, approval.reason));
    let by = each.collect::<Vec<_>>().join("; ");
    let Gated { revision, author, plan, .. } = gate;
    News::new(Reason::Approved, format!("revision {revision}, declared by {author}, plan {plan}, was approved by {by}"))
}

/// The status that is put, as it will be stored.
fn written(writes: &[Write]) -> Option<Bytes> {
    writes.iter().find_map(|write| match (&write.key, &write.act) {
        (Key::Status(_), Act::Put { value, .. }) => Some(Bytes::copy_from_slice(value)),
        _ => None,
    })
}

/// Draws the number of the rollout that begins, where one does: the commit that records it does so.
async fn draw<'a, F: Fleet>(controller: &'a Controller<F>, plan: &Plan) -> Result<Option<Draw<'a>>, SequenceError> {
    match &plan.rollout {
        RolloutChange::Open { above, .. } if !reuses(*above) => {
            controller.store.draw(controller.leadership(), above.next()).await.map(Some)
        }
        _ => Ok(None),
    }
}

/// The number of the rollout that begins.
fn sequence(plan: &Plan, draw: Option<&Draw<'_>>) -> Option<Sequence> {
    match &plan.rollout {
        RolloutChange::Open { above, .. } if reuses(*above) => Some(*above),
        _ => draw.map(Draw::sequence),
    }
}

fn reuses(above: Sequence) -> bool {
    planted(Bug::SequenceReused) && above > Sequence::default()
}
