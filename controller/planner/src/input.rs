//! What the planner decides from.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use windlass_crds::condition::Reason;
use windlass_crds::digest::ReleaseDigest;
use windlass_crds::host::Target;
use windlass_crds::id::{Generation, HostId, RevisionNumber, ServiceKey};
use windlass_crds::observation::HostObservation;
use windlass_crds::record::{Owned, Revision, Rollout, SourceOrigin};
use windlass_crds::service::ServiceSpec;
use windlass_crds::step::{ContactError, StepError};

use crate::gate::Proposal;
use crate::plan::Act;

/// Everything that is known about one Service at one moment.
#[derive(Debug, Clone)]
pub struct Inputs<'a> {
    /// Which Service.
    pub service: &'a ServiceKey,
    /// The moment.
    pub now: Timestamp,
    /// The id of the controller's term as leader.
    pub term: u64,
    /// Whether the controller became leader less than a minute ago: what it cannot reach may be down by its
    /// predecessor's hand.
    pub fresh_term: bool,
    /// What shall be.
    pub goal: Goal<'a>,
    /// What was declared, and waits for people to approve it, while an earlier declaration stays in force; where there is
    /// none, `goal` is that too, without files.
    pub proposal: Option<Proposal<'a>>,
    /// Whether anybody asks for approvals: what is in force is recorded then, with its files.
    pub gated: bool,
    /// Why what is declared cannot be had, while an earlier declaration stays in force.
    pub complaint: Option<Complaint>,
    /// What is recorded of it.
    pub owned: &'a Owned,
    /// Its revisions.
    pub revisions: &'a BTreeMap<RevisionNumber, Revision>,
    /// Its last rollout.
    pub rollout: Option<&'a Rollout>,
    /// Every host that it is placed on or may have left something on.
    pub hosts: &'a BTreeMap<HostId, HostInput>,
    /// Whether removals that nobody has confirmed may go on.
    pub removals: RemovalGate,
}

/// What shall be.
#[derive(Debug, Clone)]
pub enum Goal<'a> {
    /// It runs.
    Run {
        /// The declaration that is in force.
        spec: &'a ServiceSpec,
        /// Its generation.
        generation: Generation,
        /// The files that it shall run.
        files: Files,
    },
    /// It is taken off all hosts.
    Remove,
}

/// The files that a Service shall run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Files {
    /// These, read from the source.
    Release {
        /// Their digest.
        digest: ReleaseDigest,
        /// Where they were read.
        origin: SourceOrigin,
    },
    /// Those that it runs already: the source cannot be had at present.
    AsBefore,
}

/// Why what is declared cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// For programs.
    pub reason: Reason,
    /// For people.
    pub message: String,
}

/// A host as it matters to one Service.
#[derive(Debug, Clone)]
pub struct HostInput {
    /// The way there.
    pub target: Arc<Target>,
    /// Whether the Service shall run there.
    pub placement: Placement,
    /// What was found there.
    pub view: HostView,
    /// How the Service on it answered when it was last asked, outside any rollout.
    pub health: Health,
    /// Since when what is confirmed there ails; none where it was never seen well under this controller.
    pub ill_since: Option<Timestamp>,
    /// Its zone, or its value of the label, where `rollout.order` names one and it has one.
    pub group: Option<String>,
}

/// Whether a Service shall run on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// It shall.
    Placed,
    /// It shall not (any more).
    Unplaced,
    /// It shall, and may not: no connection is made.
    Refused(Complaint),
}

/// What was found on a host.
#[derive(Debug, Clone)]
pub enum HostView {
    /// A step, or a verdict, is under way.
    Busy(UnderWay),
    /// It could not be talked to. Nothing is known.
    Unreachable(ContactError),
    /// It answers, and refuses us.
    Refusing(StepError),
    /// This; shared, since each plan is given what was found on every host.
    Seen(Arc<HostObservation>),
    /// Nobody looked.
    NotLookedAt,
}

/// What is under way on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnderWay {
    /// What becomes of what runs there.
    pub activity: Activity,
    /// What it was sent with, which may be done in part.
    pub acts: Arc<[Act]>,
}

/// What becomes of what runs on a host while something is under way there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Nothing that runs is changed by it.
    Quiet,
    /// The Service is being switched, and carried a healthy revision before.
    Disruptive,
}

/// How a Service answered when it was last asked, outside any rollout.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Health {
    /// It was not asked, the question did not get through, or it answered badly, and not yet often enough to count.
    #[default]
    Unknown,
    /// Well, the last time.
    Well,
    /// So many bad answers in a row that it counts; the last one.
    Ill(String),
}

/// Whether removals that nobody has confirmed may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemovalGate {
    /// They may.
    Open,
    /// They wait for a person.
    Held,
}
