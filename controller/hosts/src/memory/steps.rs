//! Steps on a host in memory, under its fence: who is refused, who is answered from a record, what is done.

use std::time::Duration;

use windlass_crds::id::{BootId, RevisionNumber, ServiceKey};
use windlass_crds::step::{Step, StepError, Verb};

use super::behaviour::Moment;
use super::faults::Mishap;
use super::host::{Held, Kept, Running};
use super::world::{Effect, Then, World};
use crate::fleet::{Material, Order, Stamp};

/// What a host says to a step.
#[derive(Debug)]
pub(super) enum Entry {
    /// Another step holds the lock until then.
    Locked { until: Moment },
    /// No; the records say nothing of it.
    Refused(StepError),
    /// It was done, and ended like this.
    Replayed(Result<(), StepError>),
    /// It was begun and ends then, unless the host leaves this boot before.
    Begun { ends: Moment, boot: BootId },
}

/// The verbs whose success a confirmation accepts.
const SWITCHING: [Verb; 2] = [Verb::Activate, Verb::Revert];

/// The revision in the id of a step; 0 where it is about none.
pub(super) fn id_revision(step: &Step) -> RevisionNumber {
    step.revision().unwrap_or_default()
}

impl World {
    /// Lets a sequence in, and notes it: the host belongs to its store and follows it from now on.
    pub(super) fn pass_fence(&mut self, address: &str, service: &ServiceKey, stamp: &Stamp) -> Result<(), StepError> {
        let host = self.hosts.get_mut(address).expect("whoever is at a host's fence has reached it");
        if let Some(owner) = host.cluster.as_ref().filter(|owner| **owner != stamp.cluster) {
            return Err(StepError::OwnedByAnother { owner: owner.clone() });
        }
        let held = host.services.entry(service.clone()).or_default();
        if stamp.sequence < held.sequence {
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

    /// What the record of a step says; `None` where it was never asked for, or had only begun.
    pub(super) fn recorded(&self, address: &str, order: &Order) -> Option<Result<(), StepError>> {
        let held = self.hosts.get(address)?.services.get(&order.service)?;
        let kept = held.steps.get(&order.step.verb())?;
        let same = kept.sequence == order.stamp.sequence && kept.revision == id_revision(&order.step);
        kept.outcome.clone().filter(|_| same)
    }

    /// Begins a step, if nothing speaks against it.
    pub(super) fn begin(
        &mut self,
        address: &str,
        order: &Order,
        material: Option<&Material>,
        mishap: Option<&Mishap>,
        now: Moment,
    ) -> Entry {
        if let Some(until) = self.locked(address, &order.service) {
            return Entry::Locked { until };
        }
        if let Err(error) = self.pass_fence(address, &order.service, &order.stamp) {
            return Entry::Refused(error);
        }
        if let Some(outcome) = self.recorded(address, order) {
            return Entry::Replayed(outcome);
        }
        let timing = self.timing;
        let host = self.hosts.get_mut(address).expect("whoever begins a step has reached the host");
        let full = host.disk_full;
        let boot = host.boot.clone();
        let held = host.services.entry(order.service.clone()).or_default();
        if let Err(error) = held.check(&order.step) {
            return Entry::Refused(error);
        }
        let failure = match mishap {
            Some(Mishap::Answers(error)) => Some(error.clone()),
            _ if full && material.is_some() => {
                Some(StepError::NoSpace { detail: "No space left on device".to_owned() })
            }
            _ => None,
        };
        let mut effects = match failure {
            Some(_) => Vec::new(),
            None => held.effects(order, material, timing.effect, timing.reload, timing.stage, now),
        };
        effects.push((timing.effect, Effect::Record));
        if let Some(Mishap::PowerCut { effects: count, dark }) = mishap {
            effects.truncate(*count);
            effects.push((timing.effect, Effect::PowerCut { dark: *dark }));
        }
        let outcome = match (mishap, failure) {
            (Some(Mishap::TimesOut), _) => None,
            (_, Some(error)) => Some(Err(error)),
            (_, None) => Some(Ok(())),
        };
        let verb = order.step.verb();
        let kept = Kept { sequence: order.stamp.sequence, revision: id_revision(&order.step), outcome: None };
        held.steps.insert(verb, kept);
        let ends = now + effects.iter().map(|(delay, _)| *delay).sum::<Duration>();
        held.running = Some(Running { verb, ends, outcome });
        self.schedule(address, &order.service, effects, now);
        Entry::Begun { ends, boot }
    }
}

impl Held {
    /// What a step demands of what is there.
    fn check(&self, step: &Step) -> Result<(), StepError> {
        match step {
            Step::Stage { .. } | Step::Stop | Step::Remove { .. } => Ok(()),
            Step::Activate { revision } => self.check_staged(*revision),
            Step::Revert { revision } => self.check_staged(*revision).and_then(|()| self.check_files(*revision)),
            Step::Confirm { revision, keep: _ } => self.check_activated(*revision),
        }
    }

    fn check_staged(&self, revision: RevisionNumber) -> Result<(), StepError> {
        let detail = match (self.revisions.get(&revision), self.staged(revision)) {
            (None, _) => "it is not there",
            (Some(_), None) => "its release is not there",
            (Some(_), Some(_)) => return Ok(()),
        };
        Err(StepError::NotStaged { revision, detail: detail.to_owned() })
    }

    /// Every file, by its hash.
    fn check_files(&self, revision: RevisionNumber) -> Result<(), StepError> {
        let Some((staged, release)) = self.staged(revision) else { return Ok(()) };
        let detail = match release.damage.keys().next() {
            Some(path) => format!("{path} is not what it should be"),
            None if staged.changed => "its unit or its environment is not what it should be".to_owned(),
            None => return Ok(()),
        };
        Err(StepError::NotStaged { revision, detail })
    }

    /// Whether what runs is this revision, and was switched to with success.
    fn check_activated(&self, revision: RevisionNumber) -> Result<(), StepError> {
        let switched = |verb: &Verb| {
            let kept = self.steps.get(verb)?;
            (kept.revision == revision && kept.outcome == Some(Ok(()))).then_some(())
        };
        let detail = if !SWITCHING.iter().any(|verb| switched(verb).is_some()) {
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
        effect: Duration,
        reload: Duration,
        stage: Duration,
        now: Moment,
    ) -> Vec<(Duration, Effect)> {
        let stop = |then: Then| {
            let takes = self.alive(now).map_or(Duration::ZERO, |(life, _)| life.behaviour.stops);
            (takes.min(order.force_after), Effect::Stop { killed: takes > order.force_after, then })
        };
        match &order.step {
            Step::Stage { revision, release: _ } => {
                let Some(material) = material else { return Vec::new() };
                let spec = Box::new(material.spec.clone());
                let manifest = Box::new(material.manifest.clone());
                vec![(stage, Effect::Install { revision: *revision, spec, manifest })]
            }
            Step::Stop => vec![stop(Then::Rest)],
            Step::Activate { revision } | Step::Revert { revision } => vec![
                (effect, Effect::Switch(*revision)),
                (reload, Effect::Reload),
                stop(Then::Restart),
                (effect, Effect::Start),
            ],
            Step::Confirm { revision, keep } => {
                let keep = keep.iter().copied().collect();
                vec![(effect, Effect::Good { revision: *revision, keep })]
            }
            Step::Remove { data } => vec![stop(Then::Leave), (reload, Effect::Erase(*data))],
        }
    }
}
