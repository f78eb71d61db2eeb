//! Restarts: which hosts have yet to start the program anew.
//!
//! Level-triggered, by what the hosts say: whoever was switched since the restart was asked for has had it, under
//! whichever controller, and is not restarted twice.

use windlass_crds::id::Sequence;
use windlass_crds::observation::ServiceObservation;

use crate::input::{HostView, Inputs, Placement};
use crate::position::switched_under;
use crate::standing::Context;

/// The sequence above which a switch counts as the restart that somebody has asked for.
///
/// A rollout that had begun by then is no answer to it: it has switched some hosts before, and others after.
pub fn since(inputs: &Inputs<'_>) -> Sequence {
    let seen = inputs.hosts.values().filter_map(|host| match &host.view {
        HostView::Seen(seen) => Some(seen.service.sequence),
        _ => None,
    });
    seen.chain(inputs.rollout.map(|rollout| rollout.sequence)).max().unwrap_or_default()
}

impl Context<'_> {
    /// Whether a host has yet to start the program anew.
    pub(crate) fn owes_restart(&self, seen: &ServiceObservation) -> bool {
        self.inputs.owned.restart.is_some_and(|since| switched_under(seen).is_none_or(|switched| switched <= since))
    }

    /// Whether a host within reach has.
    pub(crate) fn restarting(&self) -> bool {
        self.inputs.hosts.values().any(|host| match &host.view {
            HostView::Seen(seen) => host.placement == Placement::Placed && self.owes_restart(&seen.service),
            _ => false,
        })
    }

    /// Whether no host is left that has: one that nobody sees, and that may carry the Service, is caught up later.
    pub(crate) fn restarted(&self) -> bool {
        let mut hosts = self.inputs.hosts.iter().filter(|(_, host)| host.placement != Placement::Unplaced);
        let done = hosts.all(|(id, host)| match &host.view {
            HostView::Seen(seen) => !self.owes_restart(&seen.service),
            _ => !self.inputs.owned.hosts.contains_key(id),
        });
        self.target.is_some() && done
    }
}
