//! Records: what the controller keeps in the store because no look at a host could find it out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::approval::Gated;
use crate::configrepo::CommitId;
use crate::digest::{ReleaseDigest, SpecDigest, WorkloadDigest};
use crate::host::Target;
use crate::id::{Generation, HostId, MachineId, RevisionNumber, Sequence};
use crate::observation::HealthAnswer;
use crate::service::ServiceSpec;
use crate::step::StepError;

/// Where a service may have left something, and what is decided about it: `owned/<namespace>/<name>`.
///
/// Written before the first side effect. Owned without declared means "being removed".
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Owned {
    /// Every host that may carry something of the service.
    pub hosts: BTreeMap<HostId, OwnedHost>,
    /// The declaration that is in force: the last one that made sense.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted: Option<Accepted>,
    /// What may not be deployed by itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blocked: Vec<Blocked>,
    /// The revisions that every host within reach confirmed, the latest last: what a rollback goes back to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub good: Vec<RevisionNumber>,
    /// The number that the next new revision gets, minus one.
    pub last_revision: RevisionNumber,
    /// Hosts from which a person has agreed to remove the service; what was agreed stays agreed.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub confirmed_removals: BTreeSet<HostId>,
    /// Somebody wants the program started anew: on every host that was last switched under this sequence or a lower
    /// one. It stays until no host is left that has yet to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<Sequence>,
    /// Since when nothing more is begun on any host, because a person said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<Timestamp>,
    /// Hosts that took a switch to the revision that is wanted back by themselves, since nobody confirmed it in time.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub went_back: BTreeMap<HostId, WentBack>,
    /// Hosts on which the revision that is wanted was unhealthy, and is tried again, since it has been good elsewhere: by
    /// that verdict, a host that goes back by itself then is not one on which nobody could confirm it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub found_unhealthy: BTreeMap<HostId, FoundUnhealthy>,
    /// Nothing more is begun on any host, because of what happened there, until a person resumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// When a person last let it go on after hosts had turned unhealthy: what ailed by then is known, and holds nothing up
    /// again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumed: Option<Timestamp>,
    /// Whether the declaration was lately changed back to what it had been.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contest: Option<Contest>,
    /// What was put right on hosts lately by itself.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub repairs: BTreeMap<HostId, Repairs>,
    /// What is in force of a Service that needs approvals: it stays so while something else waits for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_force: Option<InForce>,
    /// What was declared last that had to be approved, whether or not it is by now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate: Option<Box<Gated>>,
    /// Hosts that were taken back alone, within `maxFailures`: which revisions they are not brought again by
    /// themselves, and how those turned out there.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub held_back: BTreeMap<HostId, BTreeMap<RevisionNumber, Evidence>>,
}

impl Owned {
    /// Whether what was declared at a revision of the store is what waits for an approval.
    pub fn awaits(&self, generation: impl Into<Generation>) -> bool {
        let generation = generation.into();
        self.gate.as_ref().is_some_and(|gate| gate.granted.is_none() && gate.generation == generation)
    }
}

/// A host that took switches back by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WentBack {
    /// From which revision.
    pub revision: RevisionNumber,
    /// Under which sequences it had been switched to it.
    pub sequences: BTreeSet<Sequence>,
}

/// A host on which a revision was unhealthy that is good elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundUnhealthy {
    /// Which revision.
    pub revision: RevisionNumber,
    /// Under which sequence that was found last. The host may have been switched under an earlier one.
    pub under: Sequence,
}

/// How often a declaration was changed back to what it had been before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Contest {
    /// What was declared before what is now, all of it.
    pub before: SpecDigest,
    /// When it was changed back, the last few times, the latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub times: Vec<Timestamp>,
}

/// How often the same was put right on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Repairs {
    /// While it ran this revision.
    pub revision: RevisionNumber,
    /// What was found changed there, as it is told.
    pub what: String,
    /// Under which sequence it was put right last, if that has come to its end.
    pub under: Sequence,
    /// When it was begun, the last few times, the latest last.
    pub times: Vec<Timestamp>,
}

/// What holds a service up on all of its hosts: a rollout neither goes on nor back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub cause: HoldCause,
}

/// Why nothing more is begun by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "why")]
pub enum HoldCause {
    /// A host took the same revision back by itself again: whatever keeps it from being confirmed may be the revision.
    Unconfirmed {
        /// Which host.
        host: HostId,
        /// Which revision.
        revision: RevisionNumber,
    },
    /// Many hosts turned unhealthy within a minute, and nothing had been done there: going on or back may make it worse.
    MassUnhealthy {
        /// Which hosts.
        hosts: BTreeSet<HostId>,
        /// Of how many.
        of: usize,
    },
    /// The declaration is changed back and forth: two writers have it, and neither knows of the other.
    Contested {
        /// What they disagree about, by path.
        fields: Vec<String>,
    },
}

/// How to get to a host again, also when its Host is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnedHost {
    /// The way there.
    pub target: Arc<Target>,
    /// Which machine it was, once it has been seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineId>,
    /// Something was confirmed there, when it was last seen.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub confirmed: bool,
    /// It was, or may have been, switched, and nothing confirmed was seen to run there since. Kept over whatever becomes
    /// of the rollout and of the declaration.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_doubt: bool,
    /// The revision that its unit named when it was last seen, or that it was about to be switched to since. Kept over
    /// whatever becomes of the rollout and of the declaration: out of sight, it may run that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carries: Option<RevisionNumber>,
    /// Machines that were found there before and are out of reach since the address leads to another one: whatever
    /// they run was left behind. The last one last; until somebody declares the Service again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<MachineId>,
}

/// What is in force of a Service that needs approvals, files and all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InForce {
    /// All that its declaration says.
    pub spec: SpecDigest,
    /// Its files.
    pub release: ReleaseDigest,
    /// The revision that it is.
    pub revision: RevisionNumber,
}

/// A declaration that made sense.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Accepted {
    /// The `mod_revision` of its key.
    pub generation: Generation,
    /// What it says.
    pub spec: ServiceSpec,
}

/// Something that is not deployed again by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Blocked {
    /// The spec that it had.
    pub spec: SpecDigest,
    /// The files that it had.
    pub release: ReleaseDigest,
    /// The revision that it was.
    pub revision: RevisionNumber,
    /// Why.
    pub cause: BlockCause,
}

/// Why something is not deployed again by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "cause")]
pub enum BlockCause {
    /// It was unhealthy.
    Unhealthy {
        /// Where.
        host: HostId,
        /// How that showed.
        evidence: Evidence,
    },
    /// A person went back.
    Undone {
        /// To this revision.
        to: RevisionNumber,
    },
    /// A person ended its rollout.
    Aborted {
        /// When.
        at: Timestamp,
    },
}

/// How it showed that a revision is unhealthy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// One sentence.
    pub summary: String,
    /// What the health endpoint answered last, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<HealthAnswer>,
    /// The last lines that the unit logged, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logs: Vec<String>,
}

/// An accepted Service spec together with its release: `revisions/<namespace>/<name>/<n>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// Its number.
    pub number: RevisionNumber,
    /// The spec as it was accepted. Apart, since it is most of it: a map of revisions keeps room for eleven.
    pub spec: Box<ServiceSpec>,
    /// The files.
    pub release: ReleaseDigest,
    /// What hosts get of it.
    pub workload: WorkloadDigest,
    /// When it was made.
    pub created: Timestamp,
    /// Where the source was: which controller's machine, which directory.
    pub source: SourceOrigin,
}

/// Where a release came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceOrigin {
    /// The machine id of the controller that read it.
    pub machine: MachineId,
    /// The directory there; `configrepo/fleet apps/web` where it is one of a ConfigRepo.
    pub path: String,
    /// The commit that it was in when it was read, where it is one of a ConfigRepo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
}

/// Why a rollout is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Purpose {
    /// To bring what is declared.
    Deploy,
    /// To go back from what was unhealthy.
    Rollback,
    /// To put right what somebody changed on a host, or what a host missed.
    Repair,
    /// To go back because a person said so.
    Undo,
    /// To take the service off hosts.
    Removal,
    /// To start the program anew, because a person said so.
    Restart,
}

impl Purpose {
    /// Why, in one word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Rollback => "rollback",
            Self::Repair => "repair",
            Self::Undo => "undo",
            Self::Removal => "removal",
            Self::Restart => "restart",
        }
    }
}

/// One attempt to bring hosts to a revision: `rollouts/<namespace>/<name>/<sequence>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// Its number; what hosts are stamped with.
    pub sequence: Sequence,
    /// Why.
    pub purpose: Purpose,
    /// To which revision; none where the service is removed or stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<RevisionNumber>,
    /// Which controller, by the id of its term as leader: another one draws a new sequence.
    pub term: u64,
    /// When it began.
    pub started: Timestamp,
    /// When something last moved forward.
    pub progressed: Timestamp,
    /// How it stands.
    pub state: RolloutState,
    /// The hosts that were, or may have been, switched under this sequence: written before each switch.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub touched: BTreeSet<HostId>,
    /// Hosts on which the last attempt found the revision's files damaged: they are brought again before the switch.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub restage: BTreeSet<HostId>,
    /// What was found of each host that was switched.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub verdicts: BTreeMap<HostId, Verdict>,
    /// Which steps failed for another reason than health.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failures: BTreeMap<HostId, StepFailure>,
    /// How far its canary has come, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryProgress>,
}

impl Rollout {
    /// One that begins.
    pub fn begin(
        sequence: Sequence,
        purpose: Purpose,
        revision: Option<RevisionNumber>,
        term: u64,
        now: Timestamp,
    ) -> Self {
        Self {
            sequence,
            purpose,
            revision,
            term,
            started: now,
            progressed: now,
            state: RolloutState::Active,
            touched: BTreeSet::new(),
            restage: BTreeSet::new(),
            verdicts: BTreeMap::new(),
            failures: BTreeMap::new(),
            canary: None,
        }
    }
}

/// How far a canary has come. Another rollout to the same revision, by another controller or after a failed step, goes
/// on from here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CanaryProgress {
    /// The step that is under way, from 1.
    pub step: u32,
    /// The hosts that were, or may have been, switched to the revision: written before each switch.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub hosts: BTreeSet<HostId>,
    /// Since when every host of the step has been well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub well_since: Option<Timestamp>,
    /// A person has approved the next step, which has not begun yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub approved: bool,
}

impl Default for CanaryProgress {
    /// Nothing is done yet.
    fn default() -> Self {
        Self { step: 1, hosts: BTreeSet::new(), well_since: None, approved: false }
    }
}

/// How a rollout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RolloutState {
    /// It goes on.
    Active,
    /// Every host that could be reached is where it should be.
    Succeeded,
    /// A host was unhealthy with it.
    Unhealthy,
    /// A step failed, or what it went back to was unhealthy too; another attempt follows.
    Halted,
    /// Something else came before it was done.
    Superseded,
    /// A person ended it.
    Aborted,
}

impl RolloutState {
    /// How it stands, in one word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Succeeded => "succeeded",
            Self::Unhealthy => "unhealthy",
            Self::Halted => "halted",
            Self::Superseded => "superseded",
            Self::Aborted => "aborted",
        }
    }
}

/// What was found of a host that was switched to a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "verdict")]
pub enum Verdict {
    /// It is well.
    Healthy,
    /// It is not.
    Unhealthy {
        /// How that showed.
        evidence: Evidence,
    },
}

/// A step that failed for another reason than health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepFailure {
    /// Which, as it is shown: `stage 4`.
    pub step: String,
    /// Why.
    pub error: StepError,
}
