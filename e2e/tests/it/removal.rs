//! Taking services down: in the middle of a rollout, and not too many at once by a slip.

use std::time::Duration;

use anyhow::{Result, ensure};
use windlass_e2e::{World, eventually, holds, service};

use crate::{PORT, Running, wait_gone};

#[test]
fn a_service_deleted_in_the_middle_of_a_rollout_is_gone() -> Result<()> {
    let slow = |web: windlass_e2e::Declaration| web.with("/spec/rollout/minHealthyTime", "4s");
    let Running { world, mut controller, program, web } = Running::changed(World::new(3)?, slow)?;
    program.good("v2")?;
    eventually("the first host is switched", || world.expect_version([&world.hosts[0]], PORT, "v2"))?;
    world.delete_key(&format!("declared/{}", web.path))?;
    ensure!(world.version_on(&world.hosts[2], PORT)? == "v1", "the rollout was over already");
    wait_gone(&world, "web", &world.hosts)?;
    controller.check_alive()?;

    // And from the first deploy, of which a host may have nothing yet.
    let generation = world.put(&web)?;
    eventually("the first host is switched", || world.expect_version([&world.hosts[0]], PORT, "v2"))?;
    world.delete_key(&format!("declared/{}", web.path))?;
    wait_gone(&world, "web", &world.hosts)?;

    // Declared again, it comes again.
    ensure!(world.put(&web.with("/spec/rollout/minHealthyTime", "0s"))? > generation, "etcd counts backwards");
    world.wait_version("web", PORT, "v2")?;
    world.passed()
}

/// `deletionPolicy: keep`: it runs on without us, and whoever declares it again finds it.
#[test]
fn what_is_kept_runs_on_and_is_nobodys() -> Result<()> {
    let kept = |web: windlass_e2e::Declaration| web.with("/spec/deletionPolicy", "keep");
    let Running { world, mut controller, web, .. } = Running::changed(World::new(2)?, kept)?;
    world.delete_key(&format!("declared/{}", web.path))?;
    eventually("nothing is said of it any more", || {
        for path in ["owned/default/web", "status/services/default/web"] {
            ensure!(world.value(path)?.is_none(), "{path} is still there");
        }
        Ok(())
    })?;
    let runs_on = || {
        world.expect_version(&world.hosts, PORT, "v1")?;
        ensure!(world.starts("web", "v1")? == [1, 1], "{:?}", world.starts("web", "v1")?);
        Ok(())
    };
    holds(Duration::from_secs(3), "it runs on", runs_on)?;
    let generation = world.put(&web)?;
    world.wait_ready("web", generation)?;
    world.expect_version(&world.hosts, PORT, "v1")?;
    controller.check_alive()?;
    world.passed()
}

#[test]
fn three_services_deleted_at_once_wait_for_a_person() -> Result<()> {
    let world = World::new(2)?;
    world.declare_hosts()?;
    let names = ["slip-a", "slip-b", "slip-c", "other"];
    let ports = || names.into_iter().zip(8081..);
    let mut declarations = Vec::new();
    for (name, port) in ports() {
        let program = world.program(name, "v1")?;
        let declaration = service(name, port, program.dir(), &world.host_names());
        world.put(&declaration)?;
        declarations.push(declaration);
    }
    let controller = world.serve()?;
    for (name, port) in ports() {
        world.wait_version(name, port, "v1")?;
    }

    // One key at a time would be three deletions; this is the slip.
    world.etcd.etcdctl(&["del", "--prefix", "/windlass/declared/services/default/slip-"])?;
    let slips = &names[..3];
    let all_wait = || {
        for (name, port) in ports().take(3) {
            let status = world.service(name)?;
            status.expect("Ready", "False", "RemovalNeedsConfirmation")?;
            world.expect_version(&world.hosts, port, "v1")?;
        }
        Ok(())
    };
    eventually("all three wait", all_wait)?;
    holds(Duration::from_secs(4), "they go on running", all_wait)?;

    // Over a restart too.
    controller.stop(Duration::from_secs(30))?;
    let _controller = world.serve()?;
    holds(Duration::from_secs(4), "they go on running", all_wait)?;

    // One is put back, one is confirmed; the third alone is below the brake only once nobody else waits.
    world.put(&declarations[0])?;
    eventually("what is declared again is ready", || world.service(slips[0])?.expect("Ready", "True", None))?;
    world.windlass(&["confirm-removal", "service/slip-b"])?.expect(0)?;
    wait_gone(&world, "slip-b", &world.hosts)?;
    wait_gone(&world, "slip-c", &world.hosts)?;
    world.expect_version(&world.hosts, 8081, "v1")?;
    world.expect_version(&world.hosts, 8084, "v1")?;

    // `windlass delete` confirms what it names.
    world.windlass(&["delete", "service/slip-a", "service/other", "--wait", "--timeout", "60s"])?.expect(0)?;
    for name in ["slip-a", "other"] {
        wait_gone(&world, name, &world.hosts)?;
    }
    world.passed()
}
