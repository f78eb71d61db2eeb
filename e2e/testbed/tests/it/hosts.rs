//! Hosts: they boot, they are told apart, they break as told, and nothing is left of them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Result;
use windlass_testbed::{Spare, Testbed};

#[test]
fn three_hosts_boot_and_answer() -> Result<()> {
    let started = Instant::now();
    let testbed = Testbed::new()?;
    let hosts = testbed.hosts(3)?;
    eprintln!("3 hosts in {:?}", started.elapsed());
    let mut machine_ids = BTreeSet::new();
    let mut host_keys = BTreeSet::new();
    for (host, name) in hosts.iter().zip(["web1", "web2", "web3"]) {
        assert_eq!(host.ssh("root", "hostname")?.stdout.trim(), name);
        machine_ids.insert(host.ssh("root", "cat /etc/machine-id")?.stdout);
        host_keys.insert(host.host_key_line()?);
    }
    assert_eq!((machine_ids.len(), host_keys.len()), (3, 3));
    Ok(())
}
