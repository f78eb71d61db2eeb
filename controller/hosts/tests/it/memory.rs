//! The contract on hosts in memory, so that they are no kinder than real ones.

use std::num::NonZeroU16;

use windlass_crds::host::Target;
use windlass_crds::id::ServiceKey;
use windlass_hosts::memory::{Edit, FileChange, HostSettings, MemoryFleet};

use crate::contract::{Hand, Stand, an_adopted_host_changes_its_store, hold};

/// Where the only host is.
const ADDRESS: &str = "web1";

struct InMemory {
    fleet: MemoryFleet,
}

impl Stand for InMemory {
    type Fleet = MemoryFleet;

    fn fleet(&self) -> &MemoryFleet {
        &self.fleet
    }

    fn target(&self) -> Target {
        self.fleet.target(ADDRESS)
    }

    fn namespace(&self) -> &str {
        "memory"
    }

    fn port(&self) -> NonZeroU16 {
        NonZeroU16::new(8101).expect("a port")
    }

    fn lay(&self, hand: Hand, service: &ServiceKey) {
        let edit = match hand {
            Hand::EditsFile => Edit::File { path: "version.txt".to_owned(), how: FileChange::WrittenThrough },
            Hand::EditsUnit => Edit::Unit,
            Hand::StopsUnit => Edit::Stop,
            Hand::AddsDropIn => Edit::DropIn { path: format!("/etc/systemd/system/{}.d/nice.conf", service.unit()) },
            Hand::Disables => Edit::Disable,
        };
        self.fleet.edit(ADDRESS, service, edit);
    }

    fn has_data(&self, service: &ServiceKey) -> bool {
        self.fleet.has_data(ADDRESS, service)
    }
}

#[tokio::test(start_paused = true)]
async fn hosts_in_memory_keep_the_contract() {
    let fleet = MemoryFleet::new();
    fleet.add(ADDRESS, HostSettings::default());
    let stand = InMemory { fleet };
    hold(&stand).await;
    an_adopted_host_changes_its_store(&stand).await;
}
