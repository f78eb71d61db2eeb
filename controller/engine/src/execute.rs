//! Acts on hosts: what the planner decided, in its order, without any choice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::field::{Empty, display};
use tracing::{Instrument as _, Span};
use windlass_crds::host::Target;
use windlass_crds::id::{HostId, RevisionNumber, ServiceKey};
use windlass_crds::observation::RunState;
use windlass_crds::record::{Evidence, Revision, StepFailure};
use windlass_crds::service::ServiceSpec;
use windlass_crds::step::{ContactError, Step, StepError, Verb};
use windlass_hosts::fleet::{Fleet, Material, Order, Seen, Stamp};
use windlass_planner::plan::Act;
use windlass_planner::planted::{Bug, planted};

use crate::checkpoint::{Checkpoint, reached};
use crate::controller::Controller;
use crate::judge::{Case, Found, LOG_LINES, Rules, judge};
use crate::metrics::step_failure;
use crate::starts::Starts;
use crate::wave::Member;

/// What one host is to do, and all that it takes.
pub struct Errand {
    /// Which host.
    pub host: HostId,
    /// The way there.
    pub target: Arc<Target>,
    /// For which Service.
    pub service: ServiceKey,
    /// Under which sequence.
    pub stamp: Stamp,
    /// What to do.
    pub acts: Vec<Act>,
    /// The revision that it is about, where it is about one.
    pub revision: Option<Revision>,
    /// By whose rules it is judged.
    pub judged_by: Option<Rules>,
    /// How long the program may take to stop.
    pub force_after: Duration,
    /// How long a switch may go without a confirmation.
    pub confirm_within: Duration,
    /// Releases that hosts may have.
    pub history: Vec<windlass_crds::digest::ReleaseDigest>,
    /// What has just been seen on the host.
    pub seen: Option<Seen>,
    /// How long its program took lately until it answered.
    pub starts: Arc<Starts>,
    /// With whom it is confirmed, where nobody waits for the place of this host.
    pub wave: Option<Member>,
    /// Calls it off.
    pub recall: Recall,
}

/// Calls an errand off. A step that has begun is never cut.
#[derive(Debug, Clone)]
pub struct Recall {
    waiting: CancellationToken,
    beginning: CancellationToken,
}

impl Default for Recall {
    fn default() -> Self {
        let waiting = CancellationToken::new();
        Self { beginning: waiting.child_token(), waiting }
    }
}

impl Recall {
    /// What it has not begun does not begin. What was begun is judged: that another host failed is no reason not to know.
    pub fn begin_nothing(&self) {
        self.beginning.cancel();
    }

    /// Nor is a verdict waited for: it is about what is not wanted any more.
    pub fn at_once(&self) {
        self.waiting.cancel();
    }

    fn begins_nothing(&self) -> bool {
        self.beginning.is_cancelled() && !planted(Bug::RecallUnheard)
    }
}

/// How an errand ended.
#[derive(Debug)]
pub enum Outcome {
    /// Everything was done; what systemd says of a program that was judged.
    Done(Option<RunState>),
    /// A step failed, for another reason than health.
    Failed(StepFailure),
    /// Contact was lost: what was under way may have happened.
    Unsure(ContactError),
    /// The revision is unhealthy there.
    Unhealthy {
        /// Which.
        revision: RevisionNumber,
        /// How that showed.
        evidence: Evidence,
    },
    /// Somebody's sequence is higher.
    Superseded,
    /// Something else is wanted now.
    Cancelled,
}

fn checkpoints(verb: Verb) -> Option<(Checkpoint, Checkpoint)> {
    match verb {
        Verb::Stage => Some((Checkpoint::BeforeStage, Checkpoint::AfterStage)),
        Verb::Activate => Some((Checkpoint::BeforeActivate, Checkpoint::AfterActivate)),
        Verb::Confirm => Some((Checkpoint::BeforeConfirm, Checkpoint::AfterConfirm)),
        Verb::Revert => Some((Checkpoint::BeforeRevert, Checkpoint::AfterRevert)),
        Verb::Remove => Some((Checkpoint::BeforeRemove, Checkpoint::AfterRemove)),
        Verb::Stop => None,
    }
}

/// The span of one step on one host.
fn step_span(errand: &Errand, step: &Step) -> Span {
    tracing::info_span!(
        "step",
        service = %errand.service,
        host = %errand.host,
        step = %step,
        verb = step.verb().as_str(),
        sequence = errand.stamp.sequence.0,
        outcome = Empty,
        error = Empty,
        otel.status_code = Empty,
    )
}

/// The span of waiting for a verdict on one host.
fn verdict_span(errand: &Errand, revision: RevisionNumber) -> Span {
    tracing::info_span!(
        "verdict",
        service = %errand.service,
        host = %errand.host,
        revision = revision.0,
        sequence = errand.stamp.sequence.0,
        outcome = Empty,
        why = Empty,
        otel.status_code = Empty,
    )
}

/// Whether a step begins something that need not be begun. What is well is confirmed whatever is wanted next.
fn begins(step: &Step) -> bool {
    matches!(step, Step::Stage { .. } | Step::Activate { .. } | Step::Revert { .. })
}

impl<F: Fleet> Controller<F> {
    /// Does an errand to its end, or to the first act that does not succeed.
    pub async fn run(&self, errand: &Errand) -> Outcome {
        let mut run = None;
        for act in &errand.acts {
            if let (Act::Step(Step::Confirm { .. }), Some(member)) = (act, &errand.wave) {
                member.wait_for_others(&errand.recall.beginning).await;
            }
            let ended = match act {
                Act::Step(step) if begins(step) && errand.recall.begins_nothing() => Some(Outcome::Cancelled),
                Act::Step(step) => self.step(errand, step).instrument(step_span(errand, step)).await,
                Act::Judge { revision } => {
                    let verdict = self.verdict(errand, *revision).instrument(verdict_span(errand, *revision)).await;
                    verdict.map(|found| run = found).err()
                }
            };
            if let Some(outcome) = ended {
                return outcome;
            }
        }
        Outcome::Done(run)
    }

    async fn step(&self, errand: &Errand, step: &Step) -> Option<Outcome> {
        let named = checkpoints(step.verb());
        if let Some((before, _)) = named {
            reached(before);
        }
        let started = std::time::Instant::now();
        let result = match self.perform(errand, step).await {
            Some(result) => result,
            None => return Some(Outcome::Cancelled),
        };
        let (service, host) = (&errand.service, &errand.host);
        let took = started.elapsed();
        self.metrics.stepped(step.verb(), result.as_ref().copied(), took);
        let (sequence, took_ms, span) = (errand.stamp.sequence.0, took.as_millis() as u64, Span::current());
        match &result {
            Ok(()) => {
                span.record("outcome", "done");
                tracing::info!(%service, %host, sequence, %step, took_ms, "step done");
            }
            Err(error) => {
                let outcome = step_failure(error);
                span.record("outcome", outcome).record("error", display(error)).record("otel.status_code", "ERROR");
                tracing::warn!(%service, %host, sequence, %step, took_ms, outcome, %error, "step not done");
            }
        }
        match result {
            Ok(()) => {
                if let Some((_, after)) = named {
                    reached(after);
                }
                None
            }
            Err(StepError::Contact { error }) => Some(Outcome::Unsure(error)),
            Err(StepError::Superseded { .. }) => Some(Outcome::Superseded),
            // What systemd cannot start is as unhealthy as what exits a moment later.
            Err(StepError::StartFailed { detail }) => Some(self.not_started(errand, step, detail).await),
            Err(error) => Some(Outcome::Failed(StepFailure { step: step.to_string(), error })),
        }
    }

    async fn not_started(&self, errand: &Errand, step: &Step, detail: String) -> Outcome {
        let Some(revision) = step.revision() else {
            return Outcome::Failed(StepFailure { step: step.to_string(), error: StepError::StartFailed { detail } });
        };
        reached(Checkpoint::Judged);
        let logs = self.fleet.logs(&errand.target, &errand.service, LOG_LINES).await.unwrap_or_default();
        let summary = format!("systemd did not start it: {detail}");
        Outcome::Unhealthy { revision, evidence: Evidence { summary, answer: None, logs } }
    }

    /// Does a step once it is its turn on the host; `None` where it is not wanted any more by then.
    async fn perform(&self, errand: &Errand, step: &Step) -> Option<Result<(), StepError>> {
        let order = Order {
            service: errand.service.clone(),
            stamp: errand.stamp.clone(),
            step: step.clone(),
            force_after: errand.force_after,
            confirm_within: errand.confirm_within,
        };
        let lock = self.host_lock(&errand.target);
        if !matches!(step, Step::Stage { .. }) {
            let _one_at_a_time = lock.lock().await;
            if begins(step) && errand.recall.begins_nothing() {
                return None;
            }
            let done = self.fleet.act(&errand.target, &order).await;
            return Some(self.heard(errand, done));
        }
        let material = match self.material(errand).await {
            Ok(material) => material,
            Err(error) => return Some(Err(error)),
        };
        let _turn = self.transfers.acquire().await.expect("the semaphore is never closed");
        let _one_at_a_time = lock.lock().await;
        if errand.recall.begins_nothing() {
            return None;
        }
        let done = self.fleet.stage(&errand.target, &order, &material).await;
        if let Err(StepError::Damaged { .. }) = done {
            self.doubt(&material.manifest).await;
        }
        Some(self.heard(errand, done))
    }

    /// A host that did, or refused, what it was asked is within reach, whatever was said of it meanwhile.
    fn heard(&self, errand: &Errand, done: Result<(), StepError>) -> Result<(), StepError> {
        if !matches!(done, Err(StepError::Contact { .. } | StepError::TimedOut { .. })) {
            self.in_touch(&errand.target);
        }
        done
    }

    /// Everything that a stage brings.
    async fn material(&self, errand: &Errand) -> Result<Material, StepError> {
        let absent = |detail: String| StepError::Failed { code: -1, detail };
        let revision = errand.revision.as_ref().ok_or_else(|| absent("the revision is not recorded".to_owned()))?;
        let Some(manifest) = self.manifest(&revision.release).await else {
            let detail = format!(
                "the files of revision {} are not on this controller's machine any more; declare it again",
                revision.number
            );
            return Err(absent(detail));
        };
        if !self.is_whole(&revision.release, &manifest).await {
            let detail = format!("files of revision {} are missing on this controller's machine", revision.number);
            return Err(absent(detail));
        }
        let mut bases = BTreeMap::new();
        for digest in &errand.history {
            if let Some(base) = self.manifest(digest).await {
                bases.insert(*digest, base);
            }
        }
        let sources = self.sources.clone();
        Ok(Material {
            spec: ServiceSpec::clone(&revision.spec),
            manifest,
            bases,
            contents: Arc::new(move |digest| sources.content_path(digest)),
            seen: errand.seen.clone(),
        })
    }

    /// What systemd says of a revision that is healthy, or why the errand ends.
    async fn verdict(&self, errand: &Errand, revision: RevisionNumber) -> Result<Option<RunState>, Outcome> {
        let Some(rules) = &errand.judged_by else { return Ok(None) };
        // What runs already says nothing of how long it takes to start.
        let starts =
            errand.acts.iter().any(|act| matches!(act, Act::Step(Step::Activate { .. } | Step::Revert { .. })));
        let starts = starts.then_some(errand.starts.as_ref());
        let case = Case { target: &errand.target, service: &errand.service, rules, starts };
        let started = std::time::Instant::now();
        let found = judge(self.fleet.as_ref(), case, &errand.recall.waiting).await;
        let took = started.elapsed();
        let judged = found.judged();
        self.metrics.judged(judged, took);
        Span::current().record("outcome", judged.as_str());
        let (service, host, took_ms) = (&errand.service, &errand.host, took.as_millis() as u64);
        let sequence = errand.stamp.sequence.0;
        let no_verdict = |error| Outcome::Failed(StepFailure { step: format!("verdict on {revision}"), error });
        match found {
            Found::Healthy(run) => {
                tracing::info!(%service, %host, sequence, revision = revision.0, took_ms, "healthy");
                reached(Checkpoint::Judged);
                Ok(Some(run))
            }
            Found::Unhealthy(evidence) => {
                Span::current().record("why", &evidence.summary).record("otel.status_code", "ERROR");
                tracing::warn!(%service, %host, sequence, revision = revision.0, took_ms, why = evidence.summary, "unhealthy");
                reached(Checkpoint::Judged);
                Err(Outcome::Unhealthy { revision, evidence })
            }
            Found::OutOfReach(error) => {
                tracing::warn!(%service, %host, sequence, revision = revision.0, took_ms, %error, "no verdict: out of reach");
                Err(Outcome::Unsure(error))
            }
            Found::Undecided(detail) => {
                tracing::warn!(%service, %host, sequence, revision = revision.0, took_ms, why = detail, "no verdict");
                Err(no_verdict(StepError::Failed { code: -1, detail }))
            }
            Found::TakenBack => {
                tracing::warn!(%service, %host, sequence, revision = revision.0, took_ms, "taken back by the host itself");
                Err(no_verdict(StepError::Voided { revision }))
            }
            Found::Cancelled => Err(Outcome::Cancelled),
        }
    }
}
