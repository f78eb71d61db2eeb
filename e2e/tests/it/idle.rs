//! An idle controller writes nothing but its lease.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::{PORT, Running};

/// Looks at etcd's revision for a while, with every interval at a second: many turns of everything that turns.
fn stays_idle(during: Duration) -> Result<()> {
    let Running { world, mut controller, .. } = Running::on(3)?;
    // The Hosts and the last events have their say first.
    for host in world.host_names() {
        windlass_e2e::eventually(host, || world.status(&format!("hosts/{host}"))?.expect("Ready", "True", None))?;
    }
    std::thread::sleep(Duration::from_secs(2));
    let keys = world.keys("")?;
    let before = world.etcd.revision()?;
    let starts = world.starts("web", "v1")?;
    let end = Instant::now() + during;
    while Instant::now() < end {
        controller.check_alive()?;
        let now = world.etcd.revision()?;
        let written = || world.etcd.etcdctl(&["get", "--prefix", "/windlass", "--write-out=fields"]);
        ensure!(now == before, "etcd went from revision {before} to {now}; keys {keys:?}; all of it: {}", written()?);
        std::thread::sleep(Duration::from_secs(1));
    }
    ensure!(world.starts("web", "v1")? == starts, "something was restarted");
    world.expect_version(&world.hosts, PORT, "v1")?;
    world.passed()
}

/// Over a minute, so that what is done once a minute is done at least once.
#[test]
fn nothing_is_written_while_nothing_happens() -> Result<()> {
    stays_idle(Duration::from_secs(80))
}

#[test]
#[ignore = "takes five minutes: make soak"]
fn nothing_is_written_for_five_minutes() -> Result<()> {
    stays_idle(Duration::from_secs(300))
}
