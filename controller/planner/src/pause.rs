//! Pauses: what may still be done on a host while a person, or what happened there, holds a Service.

use std::collections::BTreeMap;

use windlass_crds::id::HostId;
use windlass_crds::step::Step;

use crate::input::{HostInput, HostView, Placement};
use crate::plan::Act;
use crate::position::{switched_to, unproven, went_back};
use crate::standing::{Context, Need, Standing};
use crate::target::Aim;

impl Context<'_> {
    /// Whether a person, or what happened on hosts, holds it.
    pub(crate) fn is_held(&self) -> bool {
        self.inputs.owned.paused.is_some() || self.hold.is_some()
    }

    /// Whether what a host needs waits until a person resumes.
    ///
    /// What was begun on a host is brought to its end, and what was found unhealthy is taken back where it runs; but
    /// where many hosts turned unhealthy together nothing is switched either way. A removal by a deleted declaration is a
    /// person's own act, and goes on.
    pub(crate) fn waits(&self, id: &HostId, standing: &Standing) -> bool {
        if !self.is_held() || standing.need == Need::Nothing || *self.aim == Aim::Removed {
            return false;
        }
        let Some(HostInput { placement: Placement::Placed, view: HostView::Seen(seen), .. }) =
            self.inputs.hosts.get(id)
        else {
            return true;
        };
        if self.stands_still() {
            let found_out = |act: &Act| matches!(act, Act::Judge { .. } | Act::Step(Step::Confirm { .. }));
            let acts = standing.need.acts();
            return acts.is_empty() || !acts.iter().all(found_out);
        }
        let seen = &seen.service;
        let begun = match self.aim {
            Aim::Back { blocked, .. } | Aim::Nothing { blocked } => {
                unproven(seen) || seen.unit.revision() == Some(blocked.revision)
            }
            // What the host has taken back is not begun any more.
            _ => went_back(seen).is_none() && unproven(seen) && switched_to(seen) == self.aim.revision(),
        };
        !begun
    }

    /// Whether something is left to be done, and a person has to resume before any of it is.
    pub(crate) fn held(&self, standings: &BTreeMap<HostId, Standing>) -> bool {
        let mut needs = standings.iter().filter(|(_, standing)| standing.need != Need::Nothing).peekable();
        needs.peek().is_some() && needs.all(|(id, standing)| self.waits(id, standing))
    }
}
