//! What is recorded when something was found out: pure changes of the records.

use std::collections::BTreeSet;

use jiff::Timestamp;
use windlass_crds::id::{HostId, RevisionNumber};
use windlass_crds::record::{
    BlockCause, Blocked, Evidence, Owned, Purpose, Revision, Rollout, RolloutState, StepFailure, Verdict,
};
use windlass_crds::service::ServiceSpec;
use windlass_crds::step::StepError;

/// So many blocked revisions are remembered: as many as revisions are, by default.
const BLOCKED: usize = 10;

/// Takes in that `revision` was unhealthy on `host`.
///
/// What was deployed is blocked. What was only repaired or gone back to is not: it has been good before, so the
/// reason is more likely around it than in it, and it is tried again later. So it is with what was only started
/// anew, and no other host is restarted then.
pub fn unhealthy(
    owned: &mut Owned,
    rollout: &mut Rollout,
    host: &HostId,
    revision: &Revision,
    declared: &ServiceSpec,
    evidence: Evidence,
    now: Timestamp,
) {
    rollout.verdicts.insert(host.clone(), Verdict::Unhealthy { evidence: evidence.clone() });
    rollout.progressed = now;
    // What does not come up again on one host is not taken down on the next: the restart ends here.
    owned.restart = None;
    if rollout.purpose == Purpose::Deploy {
        rollout.state = RolloutState::Unhealthy;
        let cause = BlockCause::Unhealthy { host: host.clone(), evidence };
        // Something else may be declared by now, and that is not what was unhealthy.
        let same = declared.workload(&revision.release) == revision.workload;
        let spec = if same { declared.digest() } else { revision.spec.digest() };
        block(owned, Blocked { spec, release: revision.release, revision: revision.number, cause });
    } else {
        rollout.state = RolloutState::Halted;
    }
}

/// Remembers what may not be deployed by itself.
pub fn block(owned: &mut Owned, blocked: Blocked) {
    owned.blocked.retain(|old| (old.spec, old.release) != (blocked.spec, blocked.release));
    owned.blocked.push(blocked);
    let surplus = owned.blocked.len().saturating_sub(BLOCKED);
    owned.blocked.drain(..surplus);
}

/// Takes in that a step failed on `host` for another reason than health.
pub fn failed(rollout: &mut Rollout, host: &HostId, failure: StepFailure) {
    rollout.failures.insert(host.clone(), failure);
}

/// The hosts on which a rollout found the files of its revision damaged: the next one brings them again.
pub fn damaged(rollout: &Rollout) -> BTreeSet<HostId> {
    let found = rollout.failures.iter().filter(|(_, failure)| matches!(failure.error, StepError::NotStaged { .. }));
    found.map(|(host, _)| host.clone()).collect()
}

/// Takes in that every host within reach has confirmed `revision`.
pub fn good(owned: &mut Owned, revision: RevisionNumber, limit: usize) {
    owned.good.retain(|old| *old != revision);
    owned.good.push(revision);
    let surplus = owned.good.len().saturating_sub(limit.max(2));
    owned.good.drain(..surplus);
}
