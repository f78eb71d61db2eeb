//! Requests: what a person asks to be done once. The controller acts, records the outcome and deletes the key.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::PlanDigest;
use crate::id::{ClusterId, HostId, RevisionNumber};

/// What is asked, as it stands in `requests/<kind>/…/<id>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "request", deny_unknown_fields)]
pub enum Request {
    /// Look at the source and the hosts now, and bring them where the declaration says.
    Reconcile,
    /// Go back to an older revision until something else is declared.
    Undo {
        /// To which; the last good one before what runs where none is named.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        revision: Option<RevisionNumber>,
        /// From which: refused where another one is declared by then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<RevisionNumber>,
    },
    /// Deploy again what was unhealthy.
    Retry,
    /// Go on with the removals that wait.
    ConfirmRemoval {
        /// From these hosts only; from every one that the Service shall leave where none is named.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        hosts: BTreeSet<HostId>,
    },
    /// Start the program anew on every host, one after the other, and judge it there.
    Restart,
    /// Begin nothing more on any host until somebody resumes.
    Pause,
    /// Go on after a pause.
    Resume,
    /// End the rollout that is under way, and go back.
    Abort {
        /// From which: refused where another one is declared by then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<RevisionNumber>,
    },
    /// Let the next step of a canary begin; or let what was declared come into force, where it has to be approved: then
    /// the plan is named.
    Approve {
        /// Of this revision, and of no other that may have come meanwhile.
        revision: RevisionNumber,
        /// After this step, and after no later one; after whichever is waiting where none is named.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<u32>,
        /// All that is approved: refused where it has come to be another.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        plan: Option<PlanDigest>,
        /// Why, on one line.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// When it was signed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<Timestamp>,
        /// Who asks, as their own command says: nothing stands behind it.
        #[serde(rename = "as", default, skip_serializing_if = "Option::is_none")]
        says: Option<String>,
        /// What `ssh-keygen -Y sign -n windlass-approval` made of the text that says all that (`approval::Subject`).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signature: Option<String>,
    },
    /// Take a Host over from the store that owns it.
    Adopt {
        /// Whose it was when the person who asks looked: where it is another's by now, nothing is taken.
        owner: ClusterId,
    },
}

impl Request {
    /// Lets the next step of a canary begin.
    pub fn next_step(revision: RevisionNumber, step: Option<u32>) -> Self {
        Self::Approve { revision, step, plan: None, reason: None, at: None, says: None, signature: None }
    }

    /// Its name as people type it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Reconcile => "reconcile",
            Self::Undo { .. } => "undo",
            Self::Retry => "retry",
            Self::ConfirmRemoval { .. } => "confirm-removal",
            Self::Restart => "restart",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Abort { .. } => "abort",
            Self::Approve { .. } => "approve",
            Self::Adopt { .. } => "adopt",
        }
    }
}
