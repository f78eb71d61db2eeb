//! Where a host stands on its way to a revision.

use windlass_crds::digest::ReleaseDigest;
use windlass_crds::id::{RevisionNumber, Sequence};
use windlass_crds::observation::{ActiveState, Drift, ServiceObservation, StepState, UnitFile};
use windlass_crds::step::Verb;

/// Where a host stands on its way to a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// It runs the revision, and has confirmed it.
    Settled,
    /// It was switched to the revision, and no verdict is confirmed.
    Unjudged,
    /// It runs the revision, and was changed behind our back.
    Drifted {
        /// Whether the release itself has to be brought again.
        files: Damage,
    },
    /// It has not been switched, or only half.
    Elsewhere {
        /// Whether the revision is there already.
        staged: Staged,
    },
}

/// Whether a release was damaged on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// Its files are as they were brought.
    None,
    /// They are not.
    Files,
}

/// Whether a revision is on the host, whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Staged {
    /// It is.
    Yes,
    /// It has to be brought.
    No,
}

/// The sequence under which the unit was last switched, whichever way.
fn last_switch(seen: &ServiceObservation) -> Option<(Sequence, RevisionNumber, StepState)> {
    let records = [Verb::Activate, Verb::Revert].into_iter().filter_map(|verb| seen.steps.get(&verb));
    records.map(|record| (record.sequence, record.revision, record.state)).max_by_key(|(sequence, ..)| *sequence)
}

/// Where a host stands on its way to `revision`, whose files are `release`.
pub fn position(seen: &ServiceObservation, revision: RevisionNumber, release: &ReleaseDigest) -> Position {
    let there = seen.revisions.get(&revision) == Some(release) && seen.releases.contains(release);
    let staged = if there { Staged::Yes } else { Staged::No };
    if seen.unit.revision() != Some(revision) {
        return Position::Elsewhere { staged };
    }
    let damaged = seen.drift.iter().any(|drift| matches!(drift, Drift::FilesChanged { .. } | Drift::RevisionChanged));
    if damaged || !there {
        return Position::Drifted { files: Damage::Files };
    }
    if !seen.drift.is_empty() || matches!(seen.unit, UnitFile::Changed(_)) {
        return Position::Drifted { files: Damage::None };
    }
    let switch = last_switch(seen);
    let half = switch.is_some_and(|(_, to, state)| to == revision && state != StepState::Ok);
    if half || seen.run.needs_reload {
        return Position::Elsewhere { staged };
    }
    let confirmed = seen.steps.get(&Verb::Confirm).filter(|record| record.revision == revision);
    let confirmed_since = match (switch, confirmed) {
        // No record of a switch: the fence was lost, and what is known is the link.
        (None, _) => true,
        (Some((switched, ..)), Some(record)) => record.state == StepState::Ok && record.sequence >= switched,
        (Some(_), None) => false,
    };
    if confirmed_since && seen.good == Some(revision) { Position::Settled } else { Position::Unjudged }
}

/// Whether the Service serves on a host, as far as systemd knows.
pub fn running(seen: &ServiceObservation) -> bool {
    matches!(seen.run.active, ActiveState::Active | ActiveState::Reloading)
}
