//! Steps on a host in memory, under its fence: who is refused, who is answered from a record, what is done.

use std::sync::Arc;
use std::time::Duration;

use windlass_crds::id::{BootId, RevisionNumber, Sequence, ServiceKey};
use windlass_crds::observation::{StepRecord, StepState, UnitFile};
use windlass_crds::step::{Step, StepError, Verb};

use super::behaviour::Moment;
use super::faults::{FileChange, Flaw, Mishap};
use super::host::{Held, Running};
use super::world::{Effect, Then, Timing, World};
use crate::fleet::{Material, Order, Scrutiny, Stamp};

/// A dead man's switch: what becomes of an activation that nobody confirms in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Armed {
    /// Under which sequence it was activated.
    pub(super) sequence: Sequence,
    /// What was activated.
    pub(super) revision: RevisionNumber,
    /// What is gone back to; the program is stopped where that is nothing.
    pub(super) back: Option<RevisionNumber>,
    /// When.
    pub(super) due: Moment,
}

/// What a host says to a step.
#[derive(Debug)]
pub(super) enum Entry {
    /// Another step holds the lock until then.
    Locked { until: Moment },
    /// No.
    Refused(StepError),
    /// It was done, and ended like this.
    Replayed(Result<(), StepError>),
    /// Its record says that it has begun.
    Open,
}

/// A step that is being done.
#[derive(Debug)]
pub(super) struct Doing {
    /// Under which number its end will be told.
    pub(super) number: u64,
    /// When it ends, unless the host leaves this boot before.
    pub(super) ends: Moment,
    /// In which boot.
    pub(super) boot: BootId,
}

/// The verbs whose success a confirmation accepts.
pub(super) const SWITCHING: [Verb; 2] = [Verb::Activate, Verb::Revert];
/// The script's exit code for a unit that systemd did not start.
const START_FAILED: i32 = 49;

/// The revision in the id of a step; 0 where it is about none.
pub(super) fn id_revision(step: &Step) -> RevisionNumber {
    step.revision().unwrap_or_default()
}

/// What a record says of an outcome; `None` where trying again may end otherwise, so that it is not final.
pub(super) fn final_state(verb: Verb, outcome: &Result<(), StepError>) -> Option<StepState> {
    let code = match outcome {
        Ok(()) => return Some(StepState::Ok),
        Err(StepError::StartFailed { .. }) => START_FAILED,
        Err(StepError::Failed { code, .. }) => *code,
        Err(StepError::NoSpace { .. } | StepError::ReadOnly { .. }) => 1,
        Err(
            StepError::Contact { .. }
            | StepError::Superseded { .. }
            | StepError::OwnedByAnother { .. }
            | StepError::Locked
            | StepError::TimedOut { .. }
            | StepError::Damaged { .. }
            | StepError::Base { .. }
            | StepError::NotStaged { .. }
            | StepError::NotActivated { .. }
            | StepError::Voided { .. },
        ) => return None,
    };
    (verb != Verb::Stage).then_some(StepState::Failed(code))
}

/// What is answered from a record: it holds no more than the exit code.
fn replayed(state: StepState, revision: RevisionNumber) -> Option<Result<(), StepError>> {
    let detail = "as it was recorded before".to_owned();
    match state {
        StepState::Begun => None,
        StepState::Ok => Some(Ok(())),
        StepState::Voided => Some(Err(StepError::Voided { revision })),
        StepState::Failed(START_FAILED) => Some(Err(StepError::StartFailed { detail })),
        StepState::Failed(code) => Some(Err(StepError::Failed { code, detail })),
    }
}

impl World {
    /// Lets a sequence in, and notes it: the host belongs to its store and follows it from now on.
    pub(super) fn pass_fence(&mut self, address: &str, service: &ServiceKey, stamp: &Stamp) -> Result<(), StepError> {
        let flawed = self.flaw == Some(Flaw::TakesOldOrders);
        let host = self.hosts.get_mut(address).expect("whoever is at a host's fence has reached it");
        if let Some(owner) = host.cluster.as_ref().filter(|owner| **owner != stamp.cluster) {
            return Err(StepError::OwnedByAnother { owner: owner.clone() });
        }
        let held = host.services.entry(service.clone()).or_default();
        if stamp.sequence < held.sequence && !flawed {
            return Err(StepError::Superseded { ours: stamp.sequence, theirs: held.sequence });
        }
        held.sequence = stamp.sequence;
        host.cluster = Some(stamp.cluster.clone());
        Ok(())
    }

    /// Until when another step holds a service's lock.
    pub(super) fn locked(&self, address: &str, service: &ServiceKey) -> Option<Moment> {
        let held = self.hosts.get(address)?.services.get(service)?;
        held.running.as_ref().map(|running| running.ends)
    }

    /// Passes the fence, and records that a step has begun unless its record is the answer.
    pub(super) fn enter(&mut self, address: &str, order: &Order) -> Entry {
        if let Some(until) = self.locked(address, &order.service) {
            return Entry::Locked { until };
        }
        if let Err(error) = self.pass_fence(address, &order.service, &order.stamp) {
            return Entry::Refused(error);
        }
        let (sequence, revision) = (order.stamp.sequence, id_revision(&order.step));
        let host = self.hosts.get_mut(address).expect("it has a fence, so it is there");
        let held = host.services.entry(order.service.clone()).or_default();
        let verb = order.step.verb();
        let record = held.steps.get(&verb).filter(|record| record.sequence == sequence && record.revision == revision);
        if let Some(outcome) = record.and_then(|record| replayed(record.state, revision)) {
            return Entry::Replayed(outcome);
        }
        held.steps.insert(verb, StepRecord { sequence, revision, state: StepState::Begun });
        Entry::Open
    }

    /// Does a step that has entered, from now on.
    ///
    /// # Errors
    /// When what is there does not allow it: the record goes on to say that it has begun.
    pub(super) fn carry_out(
        &mut self,
        address: &str,
        order: &Order,
        material: Option<&Material>,
        mishap: Option<&Mishap>,
        now: Moment,
    ) -> Result<Doing, StepError> {
        let timing = self.timing;
        self.drawn += 1;
        let number = self.drawn;
        let host = self.hosts.get_mut(address).expect("it has a fence, so it is there");
        let boot = host.boot.clone();
        let held = host.services.entry(order.service.clone()).or_default();
        held.check(&order.step)?;
        let verb = order.step.verb();
        let (mut effects, outcome) = match mishap {
            Some(Mishap::Answers(error)) => (Vec::new(), Err(error.clone())),
            Some(Mishap::TimesOut) => {
                let detail = format!("systemctl, in {}", order.step);
                (held.effects(order, material, &timing, now), Err(StepError::TimedOut { detail }))
            }
            _ => (held.effects(order, material, &timing, now), Ok(())),
        };
        if !matches!(verb, Verb::Stage | Verb::Confirm) {
            held.last = Some(verb);
        }
        effects.push((timing.effect, Effect::Record));
        if let Some(Mishap::PowerCut { effects: count, dark }) = mishap {
            effects.truncate(*count);
            effects.push((timing.effect, Effect::PowerCut { dark: *dark }));
        }
        let ends = now + effects.iter().map(|(delay, _)| *delay).sum::<Duration>();
        held.running = Some(Running { number, verb, ends, outcome });
        self.schedule(address, &order.service, effects, now);
        Ok(Doing { number, ends, boot })
    }

    /// How a step ended; `None` where the host lost power in it.
    pub(super) fn end_of(
        &mut self,
        address: &str,
        service: &ServiceKey,
        doing: &Doing,
    ) -> Option<Result<(), StepError>> {
        let host = self.hosts.get_mut(address).filter(|host| host.boot == doing.boot)?;
        host.services.get_mut(service)?.ended.remove(&doing.number)
    }
}

impl Held {
    /// What a step demands of what is there.
    fn check(&self, step: &Step) -> Result<(), StepError> {
        match step {
            Step::Stage { .. } | Step::Stop | Step::Remove { .. } => Ok(()),
            Step::Activate { revision } => self.check_staged(*revision, Scrutiny::Quick),
            Step::Revert { revision } => self.check_staged(*revision, Scrutiny::Full),
            Step::Confirm { revision, keep: _ } => self.check_activated(*revision),
        }
    }

    /// Whether a revision is there whole; going back to one looks at every file's hash, too.
    fn check_staged(&self, revision: RevisionNumber, scrutiny: Scrutiny) -> Result<(), StepError> {
        let seen = |how: &FileChange| scrutiny == Scrutiny::Full || *how != FileChange::Hidden;
        let detail = match (self.revisions.get(&revision), self.staged(revision)) {
            (None, _) => "it is not there".to_owned(),
            (Some(_), None) => "its release is not there".to_owned(),
            (Some(_), Some((staged, _))) if staged.changed => "its unit or env was changed".to_owned(),
            (Some(_), Some((_, release))) => match release.damage.iter().find(|(_, how)| seen(how)) {
                Some((path, _)) => format!("changed: {path}"),
                None => return Ok(()),
            },
        };
        Err(StepError::NotStaged { revision, detail })
    }

    /// Whether what runs is this revision, and was switched to with success.
    fn check_activated(&self, revision: RevisionNumber) -> Result<(), StepError> {
        let switched =
            self.last_switch().is_some_and(|record| record.revision == revision && record.state == StepState::Ok);
        let detail = if !switched {
            "no record says that it was activated"
        } else if self.unit.revision() != Some(revision) {
            "the unit is another one"
        } else {
            return Ok(());
        };
        Err(StepError::NotActivated { revision, detail: detail.to_owned() })
    }

    /// What a step does, each thing so long after the one before.
    fn effects(
        &self,
        order: &Order,
        material: Option<&Material>,
        timing: &Timing,
        now: Moment,
    ) -> Vec<(Duration, Effect)> {
        let Timing { effect, reload, stage, .. } = *timing;
        let stop = |then: Then| {
            let takes = self.alive(now).map_or(Duration::ZERO, |(life, _)| life.behaviour.stops);
            (takes.min(order.force_after), Effect::Stop { killed: takes > order.force_after, then })
        };
        match &order.step {
            Step::Stage { revision, release: _ } => {
                let Some(material) = material else { return Vec::new() };
                let spec = Arc::new(material.spec.clone());
                let manifest = Box::new((*material.manifest).clone());
                vec![(stage, Effect::Install { revision: *revision, spec, manifest })]
            }
            Step::Stop => vec![stop(Then::Rest)],
            Step::Activate { revision } | Step::Revert { revision } => {
                let armed = Armed {
                    sequence: order.stamp.sequence,
                    revision: *revision,
                    back: self.good,
                    due: now + effect + order.confirm_within,
                };
                vec![
                    (effect, Effect::Arm(Some(armed).filter(|armed| armed.back != Some(armed.revision)))),
                    (effect, Effect::Switch(*revision)),
                    (if self.unit == UnitFile::Absent { Duration::ZERO } else { reload }, Effect::Reload),
                    stop(Then::Restart),
                    (effect, Effect::Start),
                ]
            }
            Step::Confirm { revision, keep } => {
                let keep = keep.iter().copied().collect();
                vec![(effect, Effect::Good { revision: *revision, keep })]
            }
            Step::Remove { data } => vec![stop(Then::Leave), (reload, Effect::Erase(*data))],
        }
    }
}
