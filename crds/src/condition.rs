//! Conditions, as kstatus has them: what a resource's state is, why, and since when.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::Generation;

/// Which aspect of a resource a condition speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ConditionType {
    /// The declared revision runs, healthy and confirmed, on every host.
    Ready,
    /// Windlass is at work, or waits for something that it expects to pass.
    Reconciling,
    /// Nothing more happens by itself: a person has to do something.
    Stalled,
    /// At least one host serves.
    Available,
    /// A host is out of reach, or does not do what was asked of it.
    Degraded,
    /// A host was changed behind Windlass's back.
    Drifted,
}

impl fmt::Display for ConditionType {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Ready => "Ready",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
            Self::Available => "Available",
            Self::Degraded => "Degraded",
            Self::Drifted => "Drifted",
        })
    }
}

impl ConditionType {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 6] =
        [Self::Ready, Self::Reconciling, Self::Stalled, Self::Available, Self::Degraded, Self::Drifted];
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody can tell at present.
    Unknown,
}

impl fmt::Display for ConditionStatus {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        })
    }
}

/// Why a condition is as it is: for programs; people read the message beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Reason {
    /// What is declared is what runs.
    Converged,
    /// Nothing is wrong.
    AsExpected,
    /// A rollout is under way.
    RollingOut,
    /// A rollback is under way.
    RollingBack,
    /// What somebody changed on a host is being put right.
    Repairing,
    /// The program is being started anew on every host, because a person said so.
    Restarting,
    /// A person has paused it: nothing more is begun on any host.
    Paused,
    /// The declared revision was unhealthy; the last good one runs.
    RolledBack,
    /// The declared revision was unhealthy, and it stays where it is because `rollbackOnFailure` is off; or a host was
    /// unhealthy after a restart.
    Unhealthy,
    /// A person went back to an older revision.
    Undone,
    /// A person ended the rollout of the declared revision; the last good one runs.
    Aborted,
    /// The declared revision runs, but for hosts on which it was unhealthy: so few that only those went back.
    HeldBack,
    /// The hosts of a canary's step have to stay healthy for a while.
    Baking,
    /// The next step of a canary waits for `windlass rollout approve`.
    WaitingForApproval,
    /// People have approved what was declared: it comes into force.
    Approved,
    /// The first revision of a service was unhealthy, and was stopped.
    FirstDeployUnhealthy,
    /// A host took the declared revision back by itself twice, since nobody could confirm it in time.
    Unconfirmed,
    /// Many hosts turned unhealthy within a minute without anything having been done there.
    MassUnhealthy,
    /// The same was put right on a host again and again, and is changed each time.
    Flapping,
    /// A step failed for another reason than health; the rollout waits before it tries again.
    StepFailed,
    /// No progress for `progressDeadline`.
    ProgressDeadlineExceeded,
    /// Some hosts could not be reached.
    HostUnreachable,
    /// Some hosts answer, and the service on them does not.
    HostUnhealthy,
    /// The declaration is gone; the service is being taken down.
    Removing,
    /// Removals wait for `windlass confirm-removal`.
    RemovalNeedsConfirmation,
    /// YAML or JSON that does not parse, or a value that makes no sense.
    InvalidDeclaration,
    /// A kind or apiVersion that does not exist.
    UnknownKind,
    /// A field that does not exist.
    UnknownField,
    /// The name in the document is not the one in the key.
    NameMismatch,
    /// More than 256 KiB.
    TooLarge,
    /// A field that parses, and that this version cannot honour.
    NotSupported,
    /// A placement names a Host that is not declared.
    HostNotFound,
    /// A placement matches no host.
    NoHosts,
    /// An address leads to another machine than before; what the old one still runs was left behind.
    HostReplaced,
    /// Two names for one machine.
    DuplicateHost,
    /// Plaintext on a network where it is not allowed.
    PlaintextRefused,
    /// The host belongs to another store's controller.
    OwnedByAnother,
    /// The host's key is not the one that is pinned or known.
    HostKeyRejected,
    /// The host refused the login.
    LoginRefused,
    /// The host lacks something that Windlass needs there.
    HostUnsuitable,
    /// The source cannot be read.
    SourceUnavailable,
    /// The source cannot be made into a release.
    SourceInvalid,
    /// The source keeps changing.
    SourceUnsettled,
    /// After a takeover, the source here is not what was deployed from elsewhere.
    SourceDiffers,
    /// The entry point is not in the release.
    EntryPointMissing,
    /// The release wants dependencies installed, which this version does not do.
    InstallNotSupported,
    /// A file, the unit or its state was changed on a host.
    DriftFound,
    /// What a person asked for once could not be done.
    RequestRefused,
    /// Everything that the latest commit declares is in force.
    Applied,
    /// A ConfigRepo is left alone, because its declaration says so.
    Suspended,
    /// The repository cannot be reached, or does not let us in.
    RepoUnavailable,
    /// What the controller has of a repository is damaged, or what came from it is none.
    RepoInvalid,
    /// The repository has no such branch or tag, or none in that range.
    RefNotFound,
    /// A branch leads to a commit that does not come after the one before: it was rewritten.
    HistoryRewritten,
    /// The commit is not signed.
    UnsignedCommit,
    /// The commit is signed by somebody who is not allowed to, or wrongly.
    SignerNotAllowed,
    /// Nothing is declared in a commit, so nothing is deleted for it.
    EmptyTree,
    /// More, or larger, than a ConfigRepo may be.
    RepoTooLarge,
    /// A link or a path that would lead out of the repository.
    LeavesTree,
    /// Two files declare the same.
    DeclaredTwice,
    /// Somebody else has declared it, or has changed what a ConfigRepo owns.
    Conflict,
    /// The host answers.
    Reachable,
    /// It has not been looked at yet.
    NotObserved,
}

impl fmt::Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A reason is written as its variant is named, which is how serde writes it too.
        out.pad(&format!("{self:?}"))
    }
}

/// One condition of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Which aspect.
    #[serde(rename = "type")]
    pub kind: ConditionType,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why, for programs.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
    /// The generation that this speaks of.
    pub observed_generation: Generation,
    /// When `status` last became what it is.
    pub last_transition_time: Timestamp,
}
