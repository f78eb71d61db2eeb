//! Requests: what a person asks to be done once. The controller acts, records the outcome and deletes the key.

use serde::{Deserialize, Serialize};

use crate::id::RevisionNumber;

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
    },
    /// Deploy again what was unhealthy.
    Retry,
    /// Go on with the removals that wait.
    ConfirmRemoval,
}

impl Request {
    /// Its name as people type it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Reconcile => "reconcile",
            Self::Undo { .. } => "undo",
            Self::Retry => "retry",
            Self::ConfirmRemoval => "confirm-removal",
        }
    }
}
