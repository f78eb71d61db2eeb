//! What holds a Service up on all of its hosts until a person resumes, and when it is put on.

use std::collections::BTreeSet;

use windlass_crds::id::HostId;
use windlass_crds::record::{Hold, HoldCause, Owned, WentBack};

use crate::input::{HostInput, HostView, Inputs, Placement};
use crate::planted::{Bug, planted};
use crate::position::{unproven, went_back};
use crate::target::Aim;

/// How often a host may take one revision back by itself before it is not brought there again by itself: the first time
/// may have been the controller's own absence.
const TRIES: usize = 2;

/// Takes in which hosts have taken the wanted revision back by themselves, and which have confirmed it since. What one
/// of them takes back again is not tried a third time, there or elsewhere.
pub(crate) fn unconfirmed(inputs: &Inputs<'_>, aim: &Aim, owned: &mut Owned) {
    let wanted = aim.revision();
    let placed = |id: &HostId| inputs.hosts.get(id).is_some_and(|host| host.placement == Placement::Placed);
    owned.went_back.retain(|id, went| placed(id) && wanted == Some(went.revision));
    if let Some(Hold { cause: HoldCause::Unconfirmed { revision, .. }, .. }) = &owned.hold
        && wanted != Some(*revision)
    {
        owned.hold = None;
    }
    let Some(wanted) = wanted else { return };
    for (id, host) in inputs.hosts {
        let HostInput { placement: Placement::Placed, view: HostView::Seen(seen), .. } = host else { continue };
        match went_back(&seen.service).filter(|(_, revision)| *revision == wanted) {
            Some((sequence, _)) => {
                let fresh = WentBack { revision: wanted, sequences: BTreeSet::new() };
                owned.went_back.entry(id.clone()).or_insert(fresh).sequences.insert(sequence);
            }
            None if seen.service.good == Some(wanted) && !unproven(&seen.service) => {
                owned.went_back.remove(id);
            }
            None => {}
        }
    }
    let again = owned.went_back.iter().find(|(_, went)| went.sequences.len() >= TRIES);
    if planted(Bug::TriesForEver) {
        return;
    }
    if let (None, Some((host, _))) = (&owned.hold, again) {
        let cause = HoldCause::Unconfirmed { host: host.clone(), revision: wanted };
        owned.hold = Some(Hold { since: inputs.now, cause });
    }
}
