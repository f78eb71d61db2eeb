//! A canary on real hosts: a person lets it go on or ends it, and what is bad never gets further.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use windlass_e2e::{World, eventually, holds};

use crate::{PORT, Running, host};

/// Waits until only the canary has a version, and a person is wanted.
fn wait_for_a_person(world: &World, new: &str, old: &str) -> Result<()> {
    eventually(format_args!("{new} waits for a person"), || {
        let message = world.service("web")?.expect("Reconciling", "True", "WaitingForApproval")?;
        let typed = "`windlass rollout approve service/web --revision ";
        ensure!(message.contains(typed), "it does not say what to type: {message}");
        world.expect_version([host(world, "web1")?], PORT, new)?;
        world.expect_version([host(world, "web2")?, host(world, "web3")?], PORT, old)
    })
}

#[test]
fn a_canary_is_approved_aborted_and_taken_back() -> Result<()> {
    const FILE: &str = "/etc/windlass-e2e";
    let canary = json!({"steps": [1, "100%"], "bake": "1s", "promotion": "approved"});
    let Running { world, controller, program, .. } = Running::changed(World::new(3)?, |web| {
        web.with("/spec/rollout/strategy", "canary").with("/spec/rollout/canary", canary)
    })?;

    // One host first. The next controller waits for the same person.
    program.good("v2")?;
    wait_for_a_person(&world, "v2", "v1")?;
    let shown = world.windlass(&["rollout", "approve", "service/web", "--revision", "1"])?;
    ensure!(shown.code == 1 && shown.stderr.contains("it is revision 2 of service/web that waits"), "{shown}");
    drop(controller);
    world.expire_leader()?;
    let _controller = world.serve()?;
    wait_for_a_person(&world, "v2", "v1")?;
    let probes = world.probe(PORT);
    world.windlass(&["rollout", "approve", "service/web", "--wait"])?.expect(0)?;
    world.wait_version("web", PORT, "v2")?;
    ensure!(world.starts("web", "v2")? == [1, 1, 1], "started more than once: {:?}", world.starts("web", "v2")?);
    drop(probes);

    // A person ends it: only the canary had it, and only the canary goes back.
    program.good("v3")?;
    wait_for_a_person(&world, "v3", "v2")?;
    world.windlass(&["rollout", "abort", "service/web", "--wait"])?.expect(0)?;
    world.service("web")?.expect("Ready", "False", "Aborted")?;
    world.expect_version(&world.hosts, PORT, "v2")?;
    ensure!(world.starts("web", "v2")? == [2, 1, 1], "{:?}", world.starts("web", "v2")?);

    // What is not well goes no further than the canary.
    program.bad("v4")?;
    world.wait_not_ready("web", "RolledBack")?;
    world.expect_version(&world.hosts, PORT, "v2")?;
    ensure!(world.starts("web", "v2")? == [3, 1, 1], "{:?}", world.starts("web", "v2")?);

    // And so does what turns bad while a person is waited for.
    host(&world, "web1")?.write_file(FILE, "here")?;
    program.good_with("v5", FILE)?;
    wait_for_a_person(&world, "v5", "v2")?;
    host(&world, "web1")?.run(&["rm", FILE])?;
    let message = eventually("v5 is taken back", || world.service("web")?.expect("Ready", "False", "RolledBack"))?;
    ensure!(message.contains("on web1") && message.contains("after it was found healthy"), "{message}");
    world.expect_version(&world.hosts, PORT, "v2")?;
    for version in ["v3", "v4", "v5"] {
        ensure!(world.starts("web", version)? == [1, 0, 0], "{version}: {:?}", world.starts("web", version)?);
    }
    world.passed()
}

/// What a rollout has not come to falls ill on most hosts: nobody knows why, so nothing is switched, forward or back.
#[test]
fn hosts_that_fall_ill_together_stop_a_rollout() -> Result<()> {
    const FILE: &str = "/etc/windlass-e2e";
    let canary = json!({"steps": [1, "100%"], "bake": "1s", "promotion": "approved"});
    let Running { world, controller: _controller, program, .. } = Running::changed(World::new(4)?, |web| {
        web.with("/spec/rollout/strategy", "canary")
            .with("/spec/rollout/canary", canary)
            .with("/spec/health/interval", "1s")
    })?;
    for host in &world.hosts {
        host.write_file(FILE, "here")?;
    }
    program.good_with("v2", FILE)?;
    wait_for_a_person(&world, "v2", "v1")?;
    world.windlass(&["rollout", "approve", "service/web", "--wait"])?.expect(0)?;
    world.wait_version("web", PORT, "v2")?;
    program.good("v3")?;
    wait_for_a_person(&world, "v3", "v2")?;

    for name in ["web2", "web3", "web4"] {
        host(&world, name)?.run(&["rm", FILE])?;
    }
    let still = || {
        world.service("web")?.expect("Stalled", "True", "MassUnhealthy")?;
        ensure!(world.starts("web", "v3")? == [1, 0, 0, 0], "{:?}", world.starts("web", "v3")?);
        ensure!(world.starts("web", "v2")? == [1, 1, 1, 1], "{:?}", world.starts("web", "v2")?);
        Ok(())
    };
    eventually("it stands still", still)?;
    // Nor can a person let the next step begin: it is something else that is waited for.
    let shown = world.windlass(&["rollout", "approve", "service/web", "--revision", "3"])?;
    ensure!(shown.code == 1 && shown.stderr.contains("nothing of service/web waits for approval"), "{shown}");
    holds(Duration::from_secs(10), "nothing is switched", still)?;

    for host in &world.hosts {
        host.write_file(FILE, "here")?;
    }
    holds(Duration::from_secs(3), "nor when they are well again", still)?;
    world.windlass(&["rollout", "resume", "service/web"])?.expect(0)?;
    eventually("it goes on", || {
        world.windlass(&["rollout", "approve", "service/web", "--revision", "3"])?;
        world.expect_version(&world.hosts, PORT, "v3")
    })?;
    world.wait_version("web", PORT, "v3")?;
    ensure!(world.starts("web", "v3")? == [1, 1, 1, 1], "{:?}", world.starts("web", "v3")?);
    world.passed()
}
