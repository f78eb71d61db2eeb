//! What the store knows about hosts that one host alone cannot tell: whose it is, and who else has its machine id.

use std::collections::BTreeMap;

use windlass_crds::id::{ClusterId, HostId, Kind, MachineId, ResourceKey};
use windlass_hosts::check::Survey;
use windlass_store::{Control, Key, Store};

use crate::inventory::Inventory;
use crate::resources::Selection;

/// What is known about all hosts.
#[derive(Debug, Clone, Default)]
pub(super) struct Surroundings {
    /// The id of the store; nothing before its first controller.
    pub(super) cluster: Option<ClusterId>,
    machines: BTreeMap<HostId, MachineId>,
}

/// Reads it.
///
/// # Errors
/// When the store does not answer.
pub(super) async fn read_surroundings(store: &Store) -> anyhow::Result<Surroundings> {
    // Reading only: the first controller makes the id.
    let cluster = store.get(&Key::Control(Control::ClusterId)).await?;
    let cluster = cluster.and_then(|entry| String::from_utf8_lossy(&entry.value).trim().parse().ok());
    let inventory = Inventory::read(store, &Selection::Kinds(vec![Kind::Host])).await?;
    let machines = inventory.all().filter_map(|resource| match &resource.key {
        // Of one that is not declared any more nothing follows.
        ResourceKey::Host(name) if resource.declared.is_some() => {
            Some((HostId::Named(name.clone()), resource.host_status().machine?))
        }
        _ => None,
    });
    Ok(Surroundings { cluster, machines: machines.collect() })
}

impl Surroundings {
    /// Takes in which machine a host is: newer than what the controller has written.
    pub(super) fn learn(&mut self, id: &HostId, survey: &Survey) {
        if let Some(machine) = machine(survey) {
            self.machines.insert(id.clone(), machine.clone());
        }
    }

    /// The other names of the machine that was looked at.
    pub(super) fn twins(&self, id: &HostId, survey: &Survey) -> Vec<HostId> {
        let Some(machine) = machine(survey) else { return Vec::new() };
        let others = self.machines.iter().filter(|(other, theirs)| *other != id && *theirs == machine);
        others.map(|(other, _)| other.clone()).collect()
    }
}

fn machine(survey: &Survey) -> Option<&MachineId> {
    survey.contact.as_ref().ok()?.inside.as_ref().ok()?.machine.as_ref()
}
