//! An idle controller writes nothing but its lease.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use windlass_e2e::{Repository, config_repo, zone};

use crate::gitops::wait_applied;
use crate::{PORT, Running};

/// Looks at etcd's revision for a while, with every interval at a second: many turns of everything that turns.
fn stays_idle(during: Duration) -> Result<()> {
    let Running { world, mut controller, .. } = Running::on(3)?;
    // The Hosts and the last events have their say first.
    for host in world.host_names() {
        windlass_e2e::eventually(host, || world.status(&format!("hosts/{host}"))?.expect("Ready", "True", None))?;
    }
    // A repository that has nothing new, and one that is not there.
    let repository = Repository::create(world.dir(), "fleet")?;
    repository.declare("production/other.yaml", &zone("198.19.0.0/24").with("/metadata/name", "other"))?;
    let commit = repository.publish("one")?;
    world.put(&config_repo("fleet", &repository.url()))?;
    world.put(&config_repo("gone", &format!("{}-gone", repository.url())))?;
    wait_applied(&world, "fleet", &commit)?;
    windlass_e2e::eventually("gone", || {
        world.status("configrepos/gone")?.expect("Ready", "False", "RepoUnavailable").map(drop)
    })?;
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
