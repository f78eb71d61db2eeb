//! Aborts: a person ends the rollout that is under way.

use std::fmt;

use jiff::Timestamp;
use windlass_crds::id::RevisionNumber;
use windlass_crds::record::{BlockCause, Owned, Revision, Rollout, RolloutState};
use windlass_crds::service::ServiceSpec;

use crate::input::Inputs;
use crate::record::block_revision;
use crate::target::{Aim, choose};

/// What an abort ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abort {
    /// The way of this revision to the hosts: it is blocked, and hosts that have it go back.
    Deploy(RevisionNumber),
    /// A restart: hosts that have not been restarted are left alone.
    Restart,
}

/// Why there is nothing to abort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unaborted {
    /// What is declared runs, as far as hosts can be reached.
    Nothing,
    /// It is on its way back already.
    GoesBack,
    /// Nothing was ever deployed.
    NeverDeployed,
    /// It is being taken down.
    Removed,
}

impl fmt::Display for Unaborted {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Nothing => "no rollout is under way",
            Self::GoesBack => "what is declared is blocked already; `windlass rollout retry` deploys it once more",
            Self::NeverDeployed => "nothing was ever deployed",
            Self::Removed => "it is being taken down",
        })
    }
}

/// What an abort would end.
///
/// # Errors
/// When there is nothing to end. A repair brings what is good already, so it is no rollout to go back from.
pub fn abort(inputs: &Inputs<'_>) -> Result<Abort, Unaborted> {
    let good = inputs.owned.good.last();
    match choose(inputs).aim {
        Aim::Declared(revision) if good != Some(&revision) => match inputs.revisions.contains_key(&revision) {
            true => Ok(Abort::Deploy(revision)),
            // It has not begun.
            false => Err(Unaborted::Nothing),
        },
        Aim::Declared(_) | Aim::Back { .. } | Aim::Undone { .. } if inputs.owned.restart.is_some() => {
            Ok(Abort::Restart)
        }
        Aim::Declared(_) => Err(Unaborted::Nothing),
        Aim::Back { .. } | Aim::Undone { .. } | Aim::Nothing { .. } | Aim::Stay { .. } => Err(Unaborted::GoesBack),
        Aim::Unknown => Err(Unaborted::NeverDeployed),
        Aim::Removed => Err(Unaborted::Removed),
    }
}

/// Takes in that a person has ended the way of a revision to the hosts.
pub fn record(
    owned: &mut Owned,
    rollout: Option<&mut Rollout>,
    revision: &Revision,
    declared: &ServiceSpec,
    now: Timestamp,
) {
    block_revision(owned, revision, declared, BlockCause::Aborted { at: now });
    owned.restart = None;
    let under_way = |rollout: &&mut Rollout| {
        rollout.revision == Some(revision.number)
            && matches!(rollout.state, RolloutState::Active | RolloutState::Halted)
    };
    if let Some(rollout) = rollout.filter(under_way) {
        rollout.state = RolloutState::Aborted;
        rollout.progressed = now;
    }
}
