//! What is counted and timed while the controller works, for `/metrics`.
//!
//! Labels hold what there are few of (verbs, outcomes, kinds), never a host or a Service: a fleet of a thousand hosts
//! must not make a thousand histograms.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use windlass_crds::id::Kind;
use windlass_crds::record::{Purpose, RolloutState};
use windlass_crds::step::{StepError, Verb};
use windlass_store::{Call, CallReport};

use crate::queue::Next;

pub use exposition::{CONTENT_TYPE, Now, exposition};

mod exposition;

/// Upper bounds, in seconds, for what takes a round trip: to the store, or through the queue.
const QUICK: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// Upper bounds, in seconds, for what takes as long as a program or a rollout does.
const LONG: [f64; 12] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// A label's name and its value, which come from the program, never from a user.
type Label = (&'static str, &'static str);

/// Makes the histograms of a family.
#[derive(Debug, Clone, Copy)]
struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

type Histograms<const LABELS: usize> = Family<[Label; LABELS], Histogram, Buckets>;
type Counters<const LABELS: usize> = Family<[Label; LABELS], Counter>;

/// How waiting for a verdict ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    /// It is well.
    Healthy,
    /// It is not.
    Unhealthy,
    /// The host could not be talked to.
    OutOfReach,
    /// It took too long.
    Undecided,
    /// Something else was wanted.
    Cancelled,
}

impl Judged {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Healthy, Self::Unhealthy, Self::OutOfReach, Self::Undecided, Self::Cancelled];

    /// As metrics, spans and logs call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::OutOfReach => "out_of_reach",
            Self::Undecided => "undecided",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Counters and histograms, shared by everything that works.
#[derive(Debug)]
pub struct Metrics {
    reconciles: Histograms<2>,
    queue_waits: Histogram,
    steps: Counters<2>,
    step_durations: Histograms<1>,
    verdicts: Counters<1>,
    verdict_durations: Histogram,
    rollouts: Counters<2>,
    store_requests: Histograms<1>,
    store_errors: Counters<2>,
    audit_key: Gauge,
    audit_untold: Counters<1>,
}

/// What of the audit trail could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untold {
    /// A record of what was done.
    Record,
    /// An anchor of records that are there.
    Anchor,
}

impl Untold {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Record, Self::Anchor];

    /// As metrics call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Anchor => "anchor",
        }
    }
}

impl Default for Metrics {
    /// What happens in every life begins at 0, so that a rate can be told from the first time on.
    fn default() -> Self {
        let metrics = Self {
            reconciles: Family::new_with_constructor(Buckets(&LONG)),
            queue_waits: Histogram::new(QUICK),
            steps: Family::default(),
            step_durations: Family::new_with_constructor(Buckets(&LONG)),
            verdicts: Family::default(),
            verdict_durations: Histogram::new(LONG),
            rollouts: Family::default(),
            store_requests: Family::new_with_constructor(Buckets(&QUICK)),
            store_errors: Family::default(),
            audit_key: Gauge::default(),
            audit_untold: Family::default(),
        };
        metrics.audit_key.set(1);
        for untold in Untold::ALL {
            metrics.audit_untold.get_or_create_owned(&[("part", untold.as_str())]);
        }
        for verb in Verb::ALL {
            metrics.steps.get_or_create_owned(&[("verb", verb.as_str()), ("outcome", "done")]);
            metrics.step_durations.get_or_create_owned(&[("verb", verb.as_str())]);
        }
        for judged in Judged::ALL {
            metrics.verdicts.get_or_create_owned(&[("verdict", judged.as_str())]);
        }
        for outcome in ["done", "failed"] {
            metrics.reconciles.get_or_create_owned(&[("kind", Kind::Service.singular()), ("outcome", outcome)]);
            metrics.reconciles.get_or_create_owned(&[("kind", Kind::Host.singular()), ("outcome", outcome)]);
        }
        for purpose in [Purpose::Deploy, Purpose::Rollback] {
            let outcome = RolloutState::Succeeded.word();
            metrics.rollouts.get_or_create_owned(&[("purpose", purpose.word()), ("outcome", outcome)]);
        }
        for call in [Call::Range, Call::Txn, Call::LeaseKeepAlive] {
            metrics.store_requests.get_or_create_owned(&[("call", call.as_str())]);
            metrics.store_errors.get_or_create_owned(&[("call", call.as_str()), ("problem", "unreachable")]);
        }
        metrics
    }
}

impl Metrics {
    /// A key was reconciled.
    pub fn reconciled(&self, kind: Kind, next: Next, took: Duration) {
        let outcome = if next.has_failed() { "failed" } else { "done" };
        self.reconciles.get_or_create(&[("kind", kind.singular()), ("outcome", outcome)]).observe(took.as_secs_f64());
    }

    /// A key was taken from the queue so long after it was due.
    pub fn taken(&self, late: Duration) {
        self.queue_waits.observe(late.as_secs_f64());
    }

    /// A step on a host ended.
    pub fn stepped(&self, verb: Verb, result: Result<(), &StepError>, took: Duration) {
        let outcome = result.map_or_else(step_failure, |()| "done");
        self.steps.get_or_create(&[("verb", verb.as_str()), ("outcome", outcome)]).inc();
        self.step_durations.get_or_create(&[("verb", verb.as_str())]).observe(took.as_secs_f64());
    }

    /// Waiting for a verdict ended.
    pub fn judged(&self, judged: Judged, took: Duration) {
        self.verdicts.get_or_create(&[("verdict", judged.as_str())]).inc();
        self.verdict_durations.observe(took.as_secs_f64());
    }

    /// A rollout was closed.
    pub fn rolled_out(&self, purpose: Purpose, outcome: RolloutState) {
        self.rollouts.get_or_create(&[("purpose", purpose.word()), ("outcome", outcome.word())]).inc();
    }

    /// The audit trail is signed with a key that is not kept.
    pub fn signs_for_now(&self) {
        self.audit_key.set(0);
    }

    /// Something was done that the audit trail cannot tell.
    pub fn untold(&self, untold: Untold) {
        self.audit_untold.get_or_create(&[("part", untold.as_str())]).inc();
    }

    /// A request to the store ended.
    pub fn called(&self, report: &CallReport) {
        let call = report.call.as_str();
        self.store_requests.get_or_create(&[("call", call)]).observe(report.took.as_secs_f64());
        if let Some(problem) = report.problem {
            self.store_errors.get_or_create(&[("call", call), ("problem", problem.as_str())]).inc();
        }
    }
}

/// Why a step was not done, in one word.
pub fn step_failure(error: &StepError) -> &'static str {
    match error {
        StepError::Contact { .. } => "contact",
        StepError::Superseded { .. } => "superseded",
        StepError::OwnedByAnother { .. } => "owned_by_another",
        StepError::Locked => "locked",
        StepError::TimedOut { .. } => "timed_out",
        StepError::NoSpace { .. } => "no_space",
        StepError::ReadOnly { .. } => "read_only",
        StepError::Damaged { .. } => "damaged",
        StepError::Base { .. } => "base",
        StepError::NotStaged { .. } => "not_staged",
        StepError::NotActivated { .. } => "not_activated",
        StepError::Voided { .. } => "voided",
        StepError::StartFailed { .. } => "start_failed",
        StepError::Failed { .. } => "failed",
    }
}
