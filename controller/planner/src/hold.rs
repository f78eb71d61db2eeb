//! What holds a Service up on all of its hosts until a person resumes, and when it is put on.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use windlass_crds::id::{HostId, RevisionNumber, Sequence};
use windlass_crds::record::{Hold, HoldCause, Owned, Purpose, WentBack};

use crate::input::{HostInput, HostView, Inputs, Placement};
use crate::planted::{Bug, planted};
use crate::position::{unproven, went_back};
use crate::standing::{Context, Need, Standing, ailment};
use crate::target::Aim;

/// How often a host may take one revision back by itself before it is not brought there again by itself: the first time
/// may have been the controller's own absence.
const TRIES: usize = 2;

/// Hosts that turn unhealthy within so long do so together: what ails them is not the rollout alone.
const TOGETHER: SignedDuration = SignedDuration::from_secs(60);

/// So few hosts are never many.
const FEW: usize = 3;

/// More than one host in so many is many.
const ONE_IN: usize = 5;

/// Takes in which hosts have taken the wanted revision back by themselves, and which have confirmed it since. What one
/// of them takes back again is not tried a third time, there or elsewhere; but for what was found unhealthy there, which
/// somebody could look at.
pub(crate) fn unconfirmed(inputs: &Inputs<'_>, aim: &Aim, owned: &mut Owned) {
    let wanted = aim.revision();
    let open = |id: &HostId, revision: RevisionNumber| {
        let host = inputs.hosts.get(id).filter(|host| host.placement == Placement::Placed);
        wanted == Some(revision) && host.is_some_and(|host| !confirms(host, revision))
    };
    let Owned { went_back: tries, found_unhealthy, held_back, hold, .. } = owned;
    found_unhealthy.retain(|id, found| open(id, found.revision));
    // Where a verdict has come after all, nobody waits for another try, whether it is held back there or tried again.
    let judged = |id: &HostId, revision: RevisionNumber, switched: Sequence| {
        let found = found_unhealthy.get(id).filter(|found| found.revision == revision);
        let held = held_back.get(id).is_some_and(|held| held.contains_key(&revision));
        held || found.is_some_and(|found| found.under >= switched)
    };
    let last = |went: &WentBack| went.sequences.last().copied().unwrap_or_default();
    tries.retain(|id, went| open(id, went.revision) && !judged(id, went.revision, last(went)));
    if let Some(Hold { cause: HoldCause::Unconfirmed { revision, .. }, .. }) = hold
        && wanted != Some(*revision)
    {
        *hold = None;
    }
    let Some(wanted) = wanted else { return };
    for (id, host) in inputs.hosts.iter().filter(|(id, _)| open(id, wanted)) {
        let HostView::Seen(seen) = &host.view else { continue };
        let voided = went_back(&seen.service).filter(|(_, revision)| *revision == wanted);
        if let Some((sequence, _)) = voided.filter(|(sequence, _)| !judged(id, wanted, *sequence)) {
            let fresh = WentBack { revision: wanted, sequences: BTreeSet::new() };
            tries.entry(id.clone()).or_insert(fresh).sequences.insert(sequence);
        }
    }
    let again = tries.iter().find(|(_, went)| went.sequences.len() >= TRIES);
    if planted(Bug::TriesForEver) {
        return;
    }
    if let (None, Some((host, _))) = (&*hold, again) {
        let cause = HoldCause::Unconfirmed { host: host.clone(), revision: wanted };
        *hold = Some(Hold { since: inputs.now, cause });
    }
}

/// Whether a host is seen to have confirmed a revision, and to run nothing else since.
fn confirms(host: &HostInput, revision: RevisionNumber) -> bool {
    let HostView::Seen(seen) = &host.view else { return false };
    seen.service.good == Some(revision) && !unproven(&seen.service)
}

/// Whether a host ails, as a look or its answers tell; nothing where what runs there is not confirmed, or is not seen.
pub fn ails(host: &HostInput) -> Option<bool> {
    let HostView::Seen(seen) = &host.view else { return None };
    let seen = &seen.service;
    let confirmed = seen.good.is_some() && seen.good == seen.unit.revision() && !unproven(seen);
    confirmed.then(|| ailment(host, seen).is_some())
}

impl Context<'_> {
    /// Whether nothing may be switched in either direction.
    pub(crate) fn stands_still(&self) -> bool {
        self.hold.as_ref().is_some_and(|hold| matches!(hold.cause, HoldCause::MassUnhealthy { .. }))
    }

    /// What holds everything up when many hosts turned unhealthy together, and nothing had been done there, while
    /// something is under way.
    pub(crate) fn mass_unhealthy(&self, standings: &BTreeMap<HostId, Standing>) -> Option<Hold> {
        let since = self.ill_after().filter(|_| *self.aim != Aim::Removed && self.is_moving(standings))?;
        let placed = |host: &&HostInput| host.placement == Placement::Placed;
        let of = self.inputs.hosts.values().filter(placed).count();
        let ill = |(id, host): &(&HostId, &HostInput)| placed(host) && self.fell_ill_untouched(id, host, since);
        let hosts: BTreeSet<HostId> = self.inputs.hosts.iter().filter(ill).map(|(id, _)| id.clone()).collect();
        let many = hosts.len() >= FEW && hosts.len() * ONE_IN > of && !planted(Bug::BrakeUnasked);
        many.then_some(Hold { since: self.inputs.now, cause: HoldCause::MassUnhealthy { hosts, of } })
    }

    /// Whether more is done, or left to be done, than to start or mend what ails.
    fn is_moving(&self, standings: &BTreeMap<HostId, Standing>) -> bool {
        let well = |id: &HostId| self.inputs.hosts.get(id).is_some_and(|host| ails(host) != Some(true));
        let needs = |(id, standing): (&HostId, &Standing)| standing.need != Need::Nothing && well(id);
        self.active.is_some_and(|active| active.purpose != Purpose::Repair) || standings.iter().any(needs)
    }

    /// Hosts count that turned unhealthy after this: within the last minute, and since somebody last said what is
    /// wanted. Nothing where what is wanted has not been begun: whoever declares a mended version is not stopped by what
    /// it shall mend.
    fn ill_after(&self) -> Option<Timestamp> {
        let minute = self.inputs.now - TOGETHER;
        let begun = match (self.inputs.rollout, self.aim) {
            (Some(rollout), _) if rollout.revision == self.aim.revision() && rollout.purpose != Purpose::Rollback => {
                rollout.started
            }
            (_, Aim::Back { .. } | Aim::Nothing { .. }) => minute,
            _ => return None,
        };
        let said = self.inputs.owned.resumed.unwrap_or(minute);
        Some(minute.max(begun).max(said))
    }

    /// Whether a host runs what was good everywhere, was not touched lately, and turned unhealthy after this.
    fn fell_ill_untouched(&self, id: &HostId, host: &HostInput, after: Timestamp) -> bool {
        let HostView::Seen(seen) = &host.view else { return false };
        let owned = self.inputs.owned;
        let ours = |revision| {
            owned.good.contains(&revision) && !owned.blocked.iter().any(|blocked| blocked.revision == revision)
        };
        ails(host) == Some(true)
            && seen.service.good.is_some_and(ours)
            && !self.touched(id)
            && host.ill_since.is_some_and(|since| since > after)
    }
}
