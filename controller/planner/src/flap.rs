//! What is changed on a host again as often as it is put right, and a declaration that is changed back as often as it is
//! changed: who fights with somebody else's program tells it, and does not go on for ever.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use windlass_crds::id::{HostId, RevisionNumber};
use windlass_crds::observation::ServiceObservation;
use windlass_crds::record::{Accepted, Contest, Hold, HoldCause, Owned, Purpose, Repairs};
use windlass_crds::step::Verb;

use crate::input::HostView;
use crate::order::switches_to;
use crate::plan::Act;
use crate::planted::{Bug, planted};
use crate::position::{Position, position};
use crate::standing::{Context, drift_message};

/// So often the same is put right on a host by itself.
const REPAIRS: usize = 4;

/// So often a declaration may be changed back to what it was before: a person who tries something out does so less often.
const CHANGES_BACK: usize = 4;

/// Within so long.
const LATELY: SignedDuration = SignedDuration::from_hours(1);

/// What has been put right on a host so often that it is left as it is now.
pub(crate) fn flaps(
    owned: &Owned,
    id: &HostId,
    seen: &ServiceObservation,
    revision: RevisionNumber,
    now: Timestamp,
) -> Option<String> {
    let what = drift_message(seen);
    let repairs = owned.repairs.get(id).filter(|repairs| repairs.revision == revision && repairs.what == what)?;
    let done = repairs.times.len().saturating_sub(usize::from(!is_done(repairs, seen)));
    let lately = repairs.times.iter().take(done).filter(|at| is_late(**at, now)).count();
    (lately >= REPAIRS).then_some(what)
}

/// Whether the last repair has come to its end: one that failed has put nothing right.
fn is_done(repairs: &Repairs, seen: &ServiceObservation) -> bool {
    seen.steps.get(&Verb::Confirm).is_some_and(|record| record.sequence >= repairs.under)
}

fn is_late(at: Timestamp, now: Timestamp) -> bool {
    now.duration_since(at) < LATELY
}

/// Takes in a declaration that makes sense: it is in force from now on.
pub fn accept(owned: &mut Owned, accepted: &Accepted, now: Timestamp) {
    let old = owned.accepted.replace(accepted.clone());
    let Some(old) = old.filter(|old| old.generation != accepted.generation && old.spec != accepted.spec) else {
        return;
    };
    let mut contest = owned.contest.take().unwrap_or(Contest { before: old.spec.whole(), times: Vec::new() });
    if contest.before == accepted.spec.whole() {
        contest.times.push(now);
        contest.times.retain(|at| is_late(*at, now));
        let surplus = contest.times.len().saturating_sub(CHANGES_BACK);
        contest.times.drain(..surplus);
    }
    if contest.times.len() >= CHANGES_BACK && owned.hold.is_none() {
        let cause = HoldCause::Contested { fields: old.spec.differing(&accepted.spec) };
        owned.hold = Some(Hold { since: now, cause });
    }
    contest.before = old.spec.whole();
    owned.contest = Some(contest);
}

impl Context<'_> {
    /// Takes in what is about to be put right.
    pub(crate) fn note_repairs(
        &self,
        owned: &mut Owned,
        actions: &BTreeMap<HostId, Vec<Act>>,
        touch: &BTreeSet<HostId>,
    ) {
        let (now, Some(target)) = (self.inputs.now, self.target) else { return };
        let Some(active) = self.active.filter(|active| active.purpose == Purpose::Repair) else { return };
        let switched = |(id, acts): &(&HostId, &Vec<Act>)| touch.contains(*id) && switches_to(acts, target.number);
        for (id, _) in actions.iter().filter(switched) {
            let Some(HostView::Seen(seen)) = self.inputs.hosts.get(id).map(|host| &host.view) else { continue };
            let found = position(&seen.service, target.number, &target.release);
            if !matches!(found, Position::Drifted { .. }) || planted(Bug::RepairsUncounted) {
                continue;
            }
            let what = drift_message(&seen.service);
            let fresh = Repairs { revision: target.number, what, under: active.sequence, times: Vec::new() };
            let repairs = owned.repairs.entry(id.clone()).or_insert_with(|| fresh.clone());
            if (repairs.revision, &repairs.what) != (fresh.revision, &fresh.what) {
                *repairs = fresh;
            }
            if !is_done(repairs, &seen.service) {
                repairs.times.pop();
            }
            repairs.under = active.sequence;
            repairs.times.push(now);
            let surplus = repairs.times.len().saturating_sub(REPAIRS);
            repairs.times.drain(..surplus);
            owned.repairs.retain(|_, repairs| repairs.times.iter().any(|at| is_late(*at, now)));
        }
    }
}

/// Forgets what was put right where another revision is wanted, or the host is not one of ours.
pub(crate) fn forget(owned: &mut Owned, wanted: Option<RevisionNumber>, placed: impl Fn(&HostId) -> bool) {
    owned.repairs.retain(|id, repairs| wanted == Some(repairs.revision) && placed(id));
}
