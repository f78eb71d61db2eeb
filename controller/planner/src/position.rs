//! Where a host stands on its way to a revision.

use windlass_crds::digest::ReleaseDigest;
use windlass_crds::id::{RevisionNumber, Sequence};
use windlass_crds::observation::{ActiveState, Drift, ServiceObservation, StepRecord, StepState, UnitFile};
use windlass_crds::record::Rollout;
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

/// The last switch that the host has a record of, whichever way, since the service was last taken off it.
fn last_record(seen: &ServiceObservation) -> Option<&StepRecord> {
    let removed = seen.steps.get(&Verb::Remove).filter(|record| record.state == StepState::Ok);
    let records = [Verb::Activate, Verb::Revert].into_iter().filter_map(|verb| seen.steps.get(&verb));
    let since = records.filter(|record| removed.is_none_or(|removed| record.sequence > removed.sequence));
    since.max_by_key(|record| record.sequence)
}

/// The last switch of the host, whichever way: its sequence, where to, and how it ended. One that the host has taken
/// back by itself was one to what had been confirmed before.
fn last_switch(seen: &ServiceObservation) -> Option<(Sequence, RevisionNumber, StepState)> {
    let StepRecord { sequence, revision, state } = last_record(seen)?;
    match (state, seen.good) {
        (StepState::Voided, Some(good)) => Some((*sequence, good, StepState::Ok)),
        _ => Some((*sequence, *revision, *state)),
    }
}

/// The switch that the host has taken back by itself since nobody had confirmed it in time, where it was the last one.
pub fn went_back(seen: &ServiceObservation) -> Option<(Sequence, RevisionNumber)> {
    let record = last_record(seen).filter(|record| record.state == StepState::Voided)?;
    Some((record.sequence, record.revision))
}

/// Whether the last switch of the host, one that it has taken back included, may be this rollout's: it is under its number
/// or a later one, or to its revision. Where the fence was lost, nobody knows.
pub fn switched_by(seen: &ServiceObservation, rollout: &Rollout) -> bool {
    last_record(seen).is_none_or(|last| {
        last.sequence >= rollout.sequence || Some(last.revision) == rollout.revision || last.state == StepState::Voided
    })
}

/// Whether we stopped the unit after we last switched it.
fn stopped_by_us(seen: &ServiceObservation) -> bool {
    let switched = last_switch(seen).map_or(Sequence::default(), |(sequence, ..)| sequence);
    seen.steps.get(&Verb::Stop).is_some_and(|stop| stop.sequence > switched)
}

/// Whether we switched the unit, and nobody has confirmed since that it is well.
pub fn unproven(seen: &ServiceObservation) -> bool {
    if went_back(seen).is_some() {
        // Where that did not succeed, nobody knows what runs.
        return seen.unit.revision().is_some() && seen.good != seen.unit.revision();
    }
    match last_switch(seen) {
        // The fence was lost: what is known is the unit and the last confirmed revision.
        None => seen.unit.revision().is_some() && seen.good != seen.unit.revision(),
        Some((switched, to, _)) => {
            let confirmed = seen.steps.get(&Verb::Confirm).filter(|record| record.revision == to);
            !confirmed.is_some_and(|record| record.state == StepState::Ok && record.sequence >= switched)
        }
    }
}

/// The sequence under which the unit was last switched.
pub fn switched_under(seen: &ServiceObservation) -> Option<Sequence> {
    last_switch(seen).map(|(sequence, ..)| sequence)
}

/// The revision that the unit was last switched to, whether or not that came to an end.
pub fn switched_to(seen: &ServiceObservation) -> Option<RevisionNumber> {
    last_switch(seen).map(|(_, to, _)| to)
}

/// Where a host stands on its way to `revision`, whose files are `release`.
pub fn position(seen: &ServiceObservation, revision: RevisionNumber, release: &ReleaseDigest) -> Position {
    let there = seen.revisions.get(&revision) == Some(release) && seen.releases.contains(release);
    let staged = if there { Staged::Yes } else { Staged::No };
    let files = if there { Damage::None } else { Damage::Files };
    let switch = last_switch(seen);
    let switched_here = switch.is_some_and(|(_, to, state)| to == revision && state == StepState::Ok);
    if seen.unit.revision() != Some(revision) {
        // We brought it there and it was confirmed: whatever the unit is now, somebody else did that.
        let was_here = switched_here && seen.good == Some(revision) && !unproven(seen) && !stopped_by_us(seen);
        return if was_here { Position::Drifted { files } } else { Position::Elsewhere { staged } };
    }
    let damaged = seen.drift.iter().any(|drift| matches!(drift, Drift::FilesChanged { .. } | Drift::RevisionChanged));
    if damaged || !there {
        return Position::Drifted { files: Damage::Files };
    }
    // The unit names it, and yet it was not, or only half, switched to it by us, or stopped since: a confirmation
    // demands an activation's `ok`.
    let unfinished = if switch.is_some() { !switched_here } else { seen.good != Some(revision) };
    if unfinished || stopped_by_us(seen) {
        return Position::Elsewhere { staged };
    }
    // What has ended before anybody judged it was not stopped by somebody else: it is for the judge to say.
    let unjudged = seen.good != Some(revision) || unproven(seen);
    // A drop-in is somebody's own file, which we neither wrote nor take away: it is told, and switching would not
    // change it.
    let passed_over = |drift: &Drift| match drift {
        Drift::DropIn { .. } => true,
        Drift::Stopped => unjudged,
        _ => false,
    };
    let drifted = seen.drift.iter().any(|drift| !passed_over(drift));
    if drifted || matches!(seen.unit, UnitFile::Changed(_)) || seen.run.needs_reload {
        return Position::Drifted { files };
    }
    if unjudged { Position::Unjudged } else { Position::Settled }
}

/// Whether the Service serves on a host, as far as systemd knows.
pub fn running(seen: &ServiceObservation) -> bool {
    matches!(seen.run.active, ActiveState::Active | ActiveState::Reloading)
}

/// Whether systemd neither runs the unit nor will start it: one that waits to be started again is not at rest.
pub fn at_rest(seen: &ServiceObservation) -> bool {
    matches!(seen.run.active, ActiveState::Inactive | ActiveState::Failed) && seen.run.pid.is_none()
}

/// Whether the program ended at least once since it was started by us.
pub fn has_exited(seen: &ServiceObservation) -> bool {
    at_rest(seen) || seen.run.restarts > 0 || seen.run.sub == "auto-restart"
}
