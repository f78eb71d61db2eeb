//! Steps: the idempotent acts that a plan asks of one host, and how they can fail.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::ReleaseDigest;
use crate::id::{ClusterId, RevisionNumber, Sequence};

/// What a step does; a host keeps one record for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verb {
    /// Brings a release and a revision to the host; changes nothing that runs.
    Stage,
    /// Stops the unit.
    Stop,
    /// Switches the unit to a staged revision and starts it.
    Activate,
    /// Makes what was activated the revision to go back to, and clears away what is no longer needed.
    Confirm,
    /// Goes back to a revision that was confirmed before, after checking every file of it.
    Revert,
    /// Takes the service off the host.
    Remove,
}

impl Verb {
    /// All of them, in the order of a deploy.
    pub const ALL: [Self; 6] = [Self::Stage, Self::Stop, Self::Activate, Self::Confirm, Self::Revert, Self::Remove];

    /// As the host script calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stage => "stage",
            Self::Stop => "stop",
            Self::Activate => "activate",
            Self::Confirm => "confirm",
            Self::Revert => "revert",
            Self::Remove => "remove",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

/// One idempotent act on one host, under the fence.
///
/// Its id on the host is the rollout's sequence, the verb and the revision: within one sequence each is done at
/// most once, and asked for again it is answered from its record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Step {
    /// See [`Verb::Stage`].
    Stage {
        /// The revision that is brought.
        revision: RevisionNumber,
        /// The files that it names.
        release: ReleaseDigest,
    },
    /// See [`Verb::Stop`].
    Stop,
    /// See [`Verb::Activate`].
    Activate {
        /// A revision that is staged there.
        revision: RevisionNumber,
    },
    /// See [`Verb::Confirm`].
    Confirm {
        /// The revision that was activated.
        revision: RevisionNumber,
        /// Other revisions that stay on the host.
        keep: Vec<RevisionNumber>,
    },
    /// See [`Verb::Revert`].
    Revert {
        /// A revision that is staged there.
        revision: RevisionNumber,
    },
    /// See [`Verb::Remove`].
    Remove {
        /// What becomes of the state directory.
        data: DataFate,
    },
}

/// What becomes of a service's own data when it is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DataFate {
    /// It stays on the host.
    Keep,
    /// It is deleted: the declaration says `purgeData: true`.
    Purge,
}

impl Step {
    /// What it does.
    pub fn verb(&self) -> Verb {
        match self {
            Self::Stage { .. } => Verb::Stage,
            Self::Stop => Verb::Stop,
            Self::Activate { .. } => Verb::Activate,
            Self::Confirm { .. } => Verb::Confirm,
            Self::Revert { .. } => Verb::Revert,
            Self::Remove { .. } => Verb::Remove,
        }
    }

    /// The revision that it is about.
    pub fn revision(&self) -> Option<RevisionNumber> {
        match self {
            Self::Stage { revision, .. }
            | Self::Activate { revision }
            | Self::Confirm { revision, .. }
            | Self::Revert { revision } => Some(*revision),
            Self::Stop | Self::Remove { .. } => None,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.revision() {
            Some(revision) => write!(out, "{} {revision}", self.verb()),
            None => self.verb().fmt(out),
        }
    }
}

/// Why a host cannot be talked to. It says nothing about what runs there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase", tag = "why")]
pub enum ContactError {
    /// No answer in time.
    #[error("no answer within {seconds} s")]
    Timeout {
        /// How long was waited.
        seconds: u64,
    },
    /// Nothing listens there, or the network says that it cannot be reached.
    #[error("cannot connect: {detail}")]
    Refused {
        /// What ssh said.
        detail: String,
    },
    /// The name has no address.
    #[error("its name does not resolve: {detail}")]
    NoAddress {
        /// What the resolver said.
        detail: String,
    },
    /// The host's key is not the pinned or known one.
    #[error("its host key is not the one that is pinned or known: {detail}")]
    HostKey {
        /// What ssh said.
        detail: String,
    },
    /// No key of ours lets us in.
    #[error("login refused: {detail}")]
    Login {
        /// What ssh said.
        detail: String,
    },
    /// The connection broke while it was in use.
    #[error("the connection was lost: {detail}")]
    Lost {
        /// What is known of it.
        detail: String,
    },
    /// The host has not what Windlass needs there.
    #[error("{detail}")]
    Unsuitable {
        /// What is missing, and what to do about it.
        detail: String,
    },
    /// The host answered something that is not the script's.
    #[error("unexpected answer: {detail}")]
    Garbled {
        /// What it was.
        detail: String,
    },
    /// This side is at fault.
    #[error("cannot start a connection: {detail}")]
    Local {
        /// What went wrong here.
        detail: String,
    },
}

/// Why a step was not done, or is not known to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum StepError {
    /// Contact was lost before or in the step: it may have run.
    #[error("{error}; the step may have run")]
    Contact {
        /// What is known.
        error: ContactError,
    },
    /// The host follows a newer sequence: another controller or another rollout has taken over.
    #[error("the host follows sequence {theirs}, newer than {ours}")]
    Superseded {
        /// What was sent.
        ours: Sequence,
        /// What the host has seen.
        theirs: Sequence,
    },
    /// The host belongs to another store.
    #[error("the host belongs to the store {owner}; `windlass host adopt` takes it over")]
    OwnedByAnother {
        /// The other store's id.
        owner: ClusterId,
    },
    /// The lock is held by another step for longer than it may take.
    #[error("another step holds the lock")]
    Locked,
    /// The program took longer than it may; it may still be at it.
    #[error("timed out on the host: {detail}")]
    TimedOut {
        /// Which command.
        detail: String,
    },
    /// No room on the disk.
    #[error("no space left: {detail}; make room there")]
    NoSpace {
        /// Where.
        detail: String,
    },
    /// The file system takes nothing.
    #[error("the file system is read-only: {detail}; mount it for writing, or say another remoteDir")]
    ReadOnly {
        /// Where.
        detail: String,
    },
    /// What arrived is not what was sent.
    #[error("damaged on arrival: {detail}")]
    Damaged {
        /// What differs.
        detail: String,
    },
    /// The release to build on is not there, or is damaged.
    #[error("the base release is not usable: {detail}")]
    Base {
        /// What is wrong with it.
        detail: String,
    },
    /// The revision is not staged there, or its files are not what they should be.
    #[error("revision {revision} cannot be used there: {detail}")]
    NotStaged {
        /// Which revision.
        revision: RevisionNumber,
        /// What is wrong with it.
        detail: String,
    },
    /// A confirmation without a successful activation.
    #[error("revision {revision} was not activated there: {detail}")]
    NotActivated {
        /// Which revision.
        revision: RevisionNumber,
        /// What the record says.
        detail: String,
    },
    /// Nobody confirmed it in time, and the host went back by itself.
    #[error("revision {revision} was not confirmed in time, and the host went back by itself")]
    Voided {
        /// Which revision.
        revision: RevisionNumber,
    },
    /// systemd did not start the unit.
    #[error("systemd did not start it: {detail}")]
    StartFailed {
        /// What systemctl said.
        detail: String,
    },
    /// Anything else that the host answered, or kept it from being asked.
    #[error("{}{detail}", exit_code(*code))]
    Failed {
        /// The script's exit code; negative where it was not run.
        code: i32,
        /// What it wrote.
        detail: String,
    },
}

/// How an error begins that has an exit code.
fn exit_code(code: i32) -> String {
    if code < 0 { String::new() } else { format!("exit code {code}: ") }
}
