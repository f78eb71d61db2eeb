//! Machines that go by more than one name.

use std::collections::BTreeMap;

use windlass_crds::id::{BootId, HostId, MachineId};

use crate::input::{HostInput, HostView, Inputs, Placement};

/// What is to be done about a host that is known by another name too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Twin {
    /// The Service shall run on both: nothing is done on either until one of the names goes.
    Stalled(HostId),
    /// The Service shall run there under the other name: nothing is taken off it.
    Renamed(HostId),
    /// The Service leaves under the other name first.
    After(HostId),
}

/// Hosts that are one machine under two names, and what that means for each.
pub(crate) fn twins(inputs: &Inputs<'_>) -> BTreeMap<HostId, Twin> {
    let mut by_machine: BTreeMap<MachineId, Vec<&HostId>> = BTreeMap::new();
    for (id, host) in inputs.hosts {
        let machine = match &host.view {
            HostView::Seen(seen) => Some(seen.facts.machine.clone()),
            _ => inputs.owned.hosts.get(id).and_then(|owned| owned.machine.clone()),
        };
        if let Some(machine) = machine {
            by_machine.entry(machine).or_default().push(id);
        }
    }
    let mut twins = BTreeMap::new();
    for names in by_machine.values().filter(|names| names.len() > 1) {
        let placed = |id: &&&HostId| inputs.hosts[**id].placement != Placement::Unplaced;
        let kept: Vec<&HostId> = names.iter().filter(placed).copied().collect();
        match kept[..] {
            [] => {
                let seen = |id: &&&HostId| matches!(inputs.hosts[**id].view, HostView::Seen(_) | HostView::Busy(_));
                let first = *names.iter().find(seen).unwrap_or(&names[0]);
                twins.extend(
                    names.iter().filter(|id| **id != first).map(|id| ((*id).clone(), Twin::After(first.clone()))),
                );
            }
            [kept] => {
                let others = names.iter().filter(|id| **id != kept);
                twins.extend(others.map(|id| ((*id).clone(), Twin::Renamed(kept.clone()))));
            }
            _ => {
                let other = |index: usize| names[usize::from(index == 0)].clone();
                twins.extend(names.iter().enumerate().map(|(index, id)| ((*id).clone(), Twin::Stalled(other(index)))));
            }
        }
    }
    twins
}

/// Whether both were seen and share a boot: cloned machines share a machine id, and never that.
pub(crate) fn surely_one(left: &HostInput, right: &HostInput) -> bool {
    boot(left).is_some() && boot(left) == boot(right)
}

fn boot(host: &HostInput) -> Option<&BootId> {
    match &host.view {
        HostView::Seen(seen) => Some(&seen.facts.boot),
        _ => None,
    }
}
