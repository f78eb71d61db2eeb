//! Order: which hosts come first, and which have to be finished before others begin.

use std::collections::BTreeMap;

use windlass_crds::id::{HostId, RevisionNumber};
use windlass_crds::step::Step;

use crate::input::{Health, HostInput, HostView, Placement};
use crate::plan::Act;
use crate::planted::{Bug, planted};
use crate::position::running;
use crate::standing::{Context, Need, Standing};
use crate::target::Aim;

/// A group of hosts by its place in the order: those without come last.
type Group<'a> = (bool, Option<&'a str>);

impl Context<'_> {
    /// Every host, in the order in which they get a revision.
    pub(crate) fn in_order(&self) -> Vec<&HostId> {
        let mut hosts: Vec<&HostId> = self.inputs.hosts.keys().collect();
        hosts.sort_by_key(|id| (self.group(id), *id));
        hosts
    }

    /// The same, and where it goes back, hosts on which it is bad first: they have the most to gain and the least to
    /// lose. Where it was unhealthy, and is tried again, it comes after all others: it may take a place each time.
    pub(crate) fn in_need(&self) -> Vec<&HostId> {
        let mut hosts = self.in_order();
        if let Aim::Back { .. } = self.aim {
            let ill = |id: &HostId| match self.inputs.hosts.get(id) {
                Some(HostInput { health: Health::Ill(_), .. }) => true,
                Some(HostInput { view: HostView::Seen(seen), .. }) => !running(&seen.service),
                _ => false,
            };
            hosts.sort_by_key(|id| !ill(id));
        }
        hosts.sort_by_key(|id| self.was_unhealthy(id));
        hosts
    }

    /// Whether what is wanted was unhealthy on a host, and is tried again there.
    fn was_unhealthy(&self, id: &HostId) -> bool {
        self.inputs.owned.found_unhealthy.get(id).is_some_and(|found| Some(found.revision) == self.aim.revision())
    }

    fn group(&self, id: &HostId) -> Group<'_> {
        let group = self.inputs.hosts.get(id).and_then(|host| host.group.as_deref());
        (group.is_none(), group)
    }

    /// The first group that is not finished: hosts of later ones are not switched yet.
    ///
    /// Going back waits for nobody: a host that is lost in one zone must not keep what is bad running in another.
    pub(crate) fn open_group(&self, standings: &BTreeMap<HostId, Standing>) -> Option<Group<'_>> {
        if !matches!(self.aim, Aim::Declared(_)) {
            return None;
        }
        let unfinished = |id: &&HostId| {
            let (Some(host), Some(standing)) = (self.inputs.hosts.get(*id), standings.get(*id)) else { return false };
            let at_work = matches!(host.view, HostView::Busy(_) | HostView::NotLookedAt)
                || matches!(standing.need, Need::Quiet(_) | Need::Switch { .. })
                    && !self.passed_over(id)
                    && !self.was_unhealthy(id);
            host.placement == Placement::Placed && (at_work || standing.down)
        };
        self.in_order().into_iter().find(unfinished).map(|id| self.group(id))
    }

    /// Whether a host has to be left alone until the hosts of earlier groups are finished. One that is down already is
    /// brought up first: the others may wait for that. So they do for one that has taken the target back by itself.
    pub(crate) fn comes_later(&self, id: &HostId, standing: &Standing, open: Option<Group<'_>>) -> bool {
        let first = standing.down || self.went_back.contains_key(id);
        self.goes_forward(standing) && !first && open.is_some_and(|open| self.group(id) > open)
    }

    /// Whether what a host needs switches it to the target.
    fn goes_forward(&self, standing: &Standing) -> bool {
        self.target.is_some_and(|target| switches_to(standing.need.acts(), target.number))
    }

    /// Whether a switch waits for another host, which has taken the same back by itself: it is tried again there, and
    /// nowhere else before that is confirmed. A host that has it already, and has only to be started again, waits for
    /// nobody: the other one may wait for its place.
    pub(crate) fn awaits_another_try(&self, id: &HostId, standing: &Standing) -> bool {
        let has_it = self.target.is_some_and(|target| self.unit_on(id) == Some(target.number));
        let another = !has_it && !self.went_back.is_empty() && !self.went_back.contains_key(id);
        another && self.goes_forward(standing) && !planted(Bug::OthersGoOn)
    }
}

/// Whether these acts switch a host to a revision.
pub(crate) fn switches_to(acts: &[Act], revision: RevisionNumber) -> bool {
    switched_to(acts) == Some(revision)
}

/// The revision that these acts switch a host to, where they do: nothing is switched twice at once.
pub(crate) fn switched_to(acts: &[Act]) -> Option<RevisionNumber> {
    acts.iter().find_map(|act| match act {
        Act::Step(Step::Activate { revision } | Step::Revert { revision }) => Some(*revision),
        _ => None,
    })
}
