//! What is recorded when something was found out: pure changes of the records.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use windlass_crds::id::{HostId, RevisionNumber};
use windlass_crds::record::{
    BlockCause, Blocked, Evidence, FoundUnhealthy, HoldCause, Owned, Purpose, Revision, Rollout, RolloutState,
    StepFailure, Verdict,
};
use windlass_crds::service::ServiceSpec;
use windlass_crds::step::StepError;

/// The logs of so many hosts that were held back are kept: a store takes 1.5 MB at once (etcd's `--max-request-bytes`),
/// 20 lines may be some 10 KB, and who looks for what is wrong needs only a few.
const HELD_LOGS: usize = 10;

/// So many blocked revisions are remembered: as many as revisions are, by default.
const BLOCKED: usize = 10;

/// Takes in that `revision` was unhealthy on `host`.
///
/// What was deployed is blocked, unless no more hosts have failed than may: then this one alone goes back. What was
/// only repaired or gone back to is not blocked: it has been good before, so the reason is more likely around it than
/// in it, and it is tried again later. So it is with what was only started anew, and no other host is restarted then.
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
    if rollout.state == RolloutState::Aborted {
        // A person was quicker, and it goes back already.
        return;
    }
    if rollout.purpose != Purpose::Deploy || rollout.revision != Some(revision.number) {
        rollout.state = RolloutState::Halted;
        if rollout.revision == Some(revision.number) {
            let found = FoundUnhealthy { revision: revision.number, under: rollout.sequence };
            owned.found_unhealthy.insert(host.clone(), found);
        }
        return;
    }
    let failed = failed_hosts(owned, rollout).filter(|other| *other != host).count();
    if rollout.state == RolloutState::Active && failed < declared.rollout.max_failures as usize {
        let told =
            Evidence { logs: if owned.held_back.len() < HELD_LOGS { evidence.logs } else { Vec::new() }, ..evidence };
        owned.held_back.entry(host.clone()).or_default().insert(revision.number, told);
        return;
    }
    rollout.state = RolloutState::Unhealthy;
    let cause = BlockCause::Unhealthy { host: host.clone(), evidence };
    block_revision(owned, revision, declared, cause);
}

/// The hosts on which a rollout has failed: where its revision was unhealthy, and where a step did not succeed.
pub fn failed_hosts<'a>(owned: &'a Owned, rollout: &'a Rollout) -> impl Iterator<Item = &'a HostId> {
    let held = move |revisions: &BTreeMap<RevisionNumber, Evidence>| {
        rollout.revision.is_some_and(|revision| revisions.contains_key(&revision))
    };
    let held_back = owned.held_back.iter().filter(move |(_, revisions)| held(revisions)).map(|(host, _)| host);
    let hosts: BTreeSet<&HostId> = held_back.chain(rollout.failures.keys()).collect();
    hosts.into_iter()
}

/// Remembers that a revision may not be deployed by itself. Something else may be declared by now, and that is not what
/// is blocked.
pub fn block_revision(owned: &mut Owned, revision: &Revision, declared: &ServiceSpec, cause: BlockCause) {
    let same = declared.workload(&revision.release) == revision.workload;
    let spec = if same { declared.digest() } else { revision.spec.digest() };
    block(owned, Blocked { spec, release: revision.release, revision: revision.number, cause });
    // Every host leaves it now.
    owned.held_back.values_mut().for_each(|revisions| drop(revisions.remove(&revision.number)));
    owned.held_back.retain(|_, revisions| !revisions.is_empty());
}

/// Remembers what may not be deployed by itself.
pub fn block(owned: &mut Owned, blocked: Blocked) {
    owned.blocked.retain(|old| (old.spec, old.release) != (blocked.spec, blocked.release));
    owned.blocked.push(blocked);
    let surplus = owned.blocked.len().saturating_sub(BLOCKED);
    owned.blocked.drain(..surplus);
}

/// Lets everything that was blocked be deployed again, everywhere.
pub fn retry(owned: &mut Owned, now: Timestamp) {
    owned.blocked.clear();
    owned.held_back.clear();
    resume(owned, now);
}

/// Lets everything go on that a person, or what happened there, has held up.
pub fn resume(owned: &mut Owned, now: Timestamp) {
    decided(owned, now);
    owned.hold = None;
    owned.contest = None;
    owned.went_back.clear();
    owned.repairs.clear();
}

/// Takes in that a person has seen which hosts turned unhealthy, or who fights about the declaration, and has said what
/// comes next.
pub fn decided(owned: &mut Owned, now: Timestamp) {
    match owned.hold.as_ref().map(|hold| &hold.cause) {
        Some(HoldCause::MassUnhealthy { .. }) => owned.resumed = Some(now),
        Some(HoldCause::Contested { .. }) => owned.contest = None,
        Some(HoldCause::Unconfirmed { .. }) | None => return,
    }
    owned.hold = None;
}

/// Takes in that hosts are about to be switched, or may have been.
pub fn doubt(owned: &mut Owned, touched: &BTreeSet<HostId>) {
    for (id, host) in &mut owned.hosts {
        host.in_doubt |= touched.contains(id);
    }
}

/// Takes in what a host is about to be switched to.
pub fn carries(owned: &mut Owned, host: &HostId, revision: RevisionNumber) {
    if let Some(host) = owned.hosts.get_mut(host) {
        host.carries = Some(revision);
    }
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

/// Takes in that every host within reach has confirmed `revision`, but for those that are held back.
pub fn good(owned: &mut Owned, revision: RevisionNumber, limit: usize) {
    // What comes now is not gone back beyond.
    owned.held_back.values_mut().for_each(|revisions| revisions.retain(|held, _| *held == revision));
    owned.held_back.retain(|_, revisions| !revisions.is_empty());
    owned.good.retain(|old| *old != revision);
    owned.good.push(revision);
    let surplus = owned.good.len().saturating_sub(limit.max(2));
    owned.good.drain(..surplus);
}
