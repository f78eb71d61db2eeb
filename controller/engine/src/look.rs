//! Looks at hosts: what a host is like, as the planner wants to know it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use windlass_crds::host::Target;
use windlass_crds::id::{HostId, ResourceKey, ServiceKey};
use windlass_crds::observation::{
    Drift, HealthAnswer, HostFacts, HostObservation, ServiceObservation, StepRecord, StepState,
};
use windlass_crds::step::{ContactError, StepError};
use windlass_hosts::fleet::{Fleet, Look, Scrutiny, Stamp};
use windlass_planner::input::{Health, HostView};
use windlass_planner::planted::{Bug, planted};

use crate::contacts::News;
use crate::controller::{Controller, Memory, Pulse};
use crate::judge::{Rules, question};

/// Every file of what runs is read so often.
const READ_THROUGH: Duration = Duration::from_secs(3600);

/// What one look at a host found.
pub struct Looked {
    /// What was found.
    pub view: HostView,
    /// Whether every file was read, and none differs. Where one does, the next look is as close: a quick one would not see
    /// it any more, and what was found would be forgotten before it is put right.
    pub read_through: bool,
    /// When.
    pub at: Instant,
}

impl Looked {
    /// A look that did not come to its end.
    pub fn nothing() -> Self {
        let error = ContactError::Local { detail: "a look ended before its time".to_owned() };
        Self { view: HostView::Unreachable(error), read_through: false, at: Instant::now() }
    }
}

impl<F: Fleet> Controller<F> {
    /// How closely a host is looked at: every file once an hour, first an hour after the first look.
    pub fn scrutiny(memory: &mut Memory, host: &HostId) -> Scrutiny {
        let since = memory.read_through.entry(host.clone()).or_insert_with(Instant::now);
        if since.elapsed() >= READ_THROUGH && !planted(Bug::HashesUnread) { Scrutiny::Full } else { Scrutiny::Quick }
    }

    /// Whether a host is this store's, or nobody's yet. A look without a stamp is answered by any host; whatever else
    /// is asked would only be refused there.
    ///
    /// # Errors
    /// [`StepError::OwnedByAnother`].
    pub fn check_owner(&self, facts: &HostFacts) -> Result<(), StepError> {
        match &facts.cluster {
            Some(owner) if *owner != self.cluster => Err(StepError::OwnedByAnother { owner: owner.clone() }),
            _ => Ok(()),
        }
    }

    /// Looks at a Service on a host, and stamps the host where there is a stamp.
    pub async fn look(
        &self,
        service: &ServiceKey,
        target: &Target,
        stamp: Option<Stamp>,
        scrutiny: Scrutiny,
    ) -> Looked {
        if let Some(error) = self.contacts.held(target) {
            return Looked { view: HostView::Unreachable(error), read_through: false, at: Instant::now() };
        }
        let mut look = Look { service: service.clone(), stamp, scrutiny };
        let mut found = self.fleet.observe(target, &look).await;
        if let Err(StepError::Superseded { .. }) = &found {
            // Somebody's number is higher. Seen without a stamp it can be told, and the planner draws one above it.
            look.stamp = None;
            found = self.fleet.observe(target, &look).await;
        }
        let view = match found {
            Ok(observation) => {
                self.in_touch(target);
                match self.check_owner(&observation.facts) {
                    Err(error) => HostView::Refusing(error),
                    Ok(()) => HostView::Seen(Arc::new(observation)),
                }
            }
            Err(StepError::Contact { error }) => HostView::Unreachable(self.out_of_touch(target, error)),
            Err(error @ StepError::TimedOut { .. }) => {
                HostView::Unreachable(self.out_of_touch(target, ContactError::Lost { detail: error.to_string() }))
            }
            Err(error) => HostView::Refusing(error),
        };
        let read_through =
            scrutiny == Scrutiny::Full && matches!(&view, HostView::Seen(seen) if is_whole(&seen.service));
        Looked { view, read_through, at: Instant::now() }
    }

    /// Stamps a host that was looked at just now. Nothing where it does not let itself be stamped, which a look tells
    /// better, and where something was done there since, or may have been: the one who led before us may still have
    /// been at it. No step changes a host before it is recorded as begun there, so the records tell.
    pub async fn stamp(
        &self,
        service: &ServiceKey,
        target: &Target,
        stamp: &Stamp,
        mut seen: HostObservation,
        at: Instant,
    ) -> Option<Looked> {
        self.check_owner(&seen.facts).ok()?;
        let records = self.fleet.stamp(target, service, stamp).await.ok()?;
        self.in_touch(target);
        let ended = |record: &StepRecord| record.state != StepState::Begun;
        if records != seen.service.steps || !records.values().all(ended) {
            return None;
        }
        seen.service.sequence = stamp.sequence;
        seen.facts.cluster = Some(stamp.cluster.clone());
        Some(Looked { view: HostView::Seen(Arc::new(seen)), read_through: false, at })
    }

    /// A host does not answer; what is said of it is to change too, if that is news. Tells why.
    fn out_of_touch(&self, target: &Target, error: ContactError) -> ContactError {
        let (error, news) = self.contacts.failed(target, error);
        self.told_of(&target.id, news);
        error
    }

    /// A host answers.
    pub(crate) fn in_touch(&self, target: &Target) {
        let news = self.contacts.answered(&target.id);
        self.told_of(&target.id, news);
    }

    /// The Host itself is looked at once a minute only, and would be said to be what it was until then.
    fn told_of(&self, host: &HostId, news: News) {
        if let (HostId::Named(name), News::Yes) = (host, news) {
            self.queue.push(ResourceKey::Host(name.clone()));
        }
    }

    /// Whether it is time to ask a Service how it is, which happens so often.
    pub fn pulse_due(interval: Duration, before: Option<&Pulse>) -> bool {
        before.is_none_or(|before| before.at.elapsed() >= interval)
    }

    /// Asks a Service how it is, outside any rollout.
    pub async fn pulse(&self, rules: &Rules, target: &Target, before: Option<Pulse>) -> Option<Pulse> {
        let health = rules.spec.health.as_ref()?;
        let question = question(rules, target)?;
        let bad = before.as_ref().map_or(0, |before| before.bad);
        let kept = before.map_or(Health::Unknown, |before| before.health);
        let complaint = match self.fleet.ask(target, &question).await {
            HealthAnswer::Http { status: 200..=399, .. } | HealthAnswer::Open => {
                return Some(Pulse { health: Health::Well, bad: 0, at: Instant::now() });
            }
            HealthAnswer::Unknown { .. } => return Some(Pulse { health: kept, bad, at: Instant::now() }),
            HealthAnswer::Http { status, .. } => format!("the health endpoint answers {status}"),
            HealthAnswer::Silent { detail } => format!("the health endpoint does not answer: {detail}"),
        };
        let bad = bad + 1;
        let counts = bad >= health.unhealthy_threshold.get();
        Some(Pulse { health: if counts { Health::Ill(complaint) } else { kept }, bad, at: Instant::now() })
    }
}

/// Whether every file of what a host runs is as it was brought there.
fn is_whole(seen: &ServiceObservation) -> bool {
    !seen.drift.iter().any(|drift| matches!(drift, Drift::FilesChanged { .. }))
}
