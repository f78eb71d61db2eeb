//! Tells the log, the span and the metrics what was decided about rollouts, once it is recorded.

use tracing::Span;
use windlass_crds::id::ServiceKey;
use windlass_crds::record::{Revision, Rollout, RolloutState};

use crate::commit::RolloutRecords;
use crate::metrics::Metrics;

/// Tells what a commit has changed: a revision that was accepted, a rollout that ended, one that began.
pub fn recorded(
    service: &ServiceKey,
    before: Option<&Rollout>,
    records: &RolloutRecords,
    accepted: Option<&Revision>,
    metrics: &Metrics,
) {
    if let Some(revision) = accepted {
        tracing::info!(%service, revision = revision.number.0, release = %revision.release, "revision accepted");
    }
    let was_active = before.filter(|before| before.state == RolloutState::Active);
    if let Some(ended) = records.last.as_ref().filter(|last| last.state != RolloutState::Active)
        && was_active.is_some_and(|before| before.sequence == ended.sequence)
    {
        metrics.rolled_out(ended.purpose, ended.state);
        tell(service, ended, "rollout ended");
    }
    if let Some(begun) = &records.opened {
        tell(service, begun, "rollout began");
    }
}

/// Names the rollout that goes on in the span of the reconcile.
pub fn under_way(rollout: Option<&Rollout>) {
    let Some(rollout) = rollout.filter(|rollout| rollout.state == RolloutState::Active) else { return };
    let span = Span::current();
    span.record("sequence", rollout.sequence.0).record("purpose", rollout.purpose.word());
    if let Some(revision) = rollout.revision {
        span.record("revision", revision.0);
    }
}

fn tell(service: &ServiceKey, rollout: &Rollout, what: &str) {
    let (sequence, purpose, outcome) = (rollout.sequence.0, rollout.purpose.word(), rollout.state.word());
    let revision = rollout.revision.map(|revision| revision.0);
    let took_ms = rollout.progressed.duration_since(rollout.started).as_millis() as i64;
    match rollout.state {
        RolloutState::Active => tracing::info!(%service, sequence, purpose, revision, "{what}"),
        RolloutState::Succeeded | RolloutState::Superseded => {
            tracing::info!(%service, sequence, purpose, revision, outcome, took_ms, "{what}");
        }
        RolloutState::Unhealthy | RolloutState::Halted | RolloutState::Aborted => {
            let failures: Vec<String> =
                rollout.failures.iter().map(|(host, failure)| format!("{host}: {}", failure.error)).collect();
            let why = failures.join("; ");
            tracing::warn!(%service, sequence, purpose, revision, outcome, took_ms, why, "{what}");
        }
    }
}
