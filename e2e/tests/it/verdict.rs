//! Health gates: what is bad goes back, and is not tried again by itself.

use std::time::Duration;

use anyhow::{Result, ensure};
use windlass_e2e::{Declaration, World, eventually, holds, service};

use crate::{PORT, Running, host};

/// How often a version was started, over all hosts.
fn starts(world: &World, version: &str) -> Result<usize> {
    Ok(world.starts("web", version)?.iter().sum())
}

/// Makes sure that a version is not started again: through many looks at its source and its hosts, and
/// through reconciles that people ask for.
fn stays_blocked(world: &World, version: &str, during: Duration) -> Result<()> {
    let before = starts(world, version)?;
    world.windlass(&["reconcile", "service/web", "--wait", "--timeout", "60s"])?;
    holds(during, format_args!("{version} is not deployed again"), || {
        let now = starts(world, version)?;
        ensure!(now == before, "started {before} times, and now {now} times");
        world.expect_version(&world.hosts, PORT, "v1")
    })
}

#[test]
fn a_bad_version_goes_back_and_stays_back_until_its_source_changes() -> Result<()> {
    let Running { world, controller, program, .. } = Running::on(3)?;
    let prober = world.probe(PORT);
    program.bad("v2")?;
    let status = world.wait_not_ready("web", "RolledBack")?;
    let answers = prober.finish();

    // Told with the host and what it answered.
    let message = status.expect("Ready", "False", "RolledBack")?;
    ensure!(message.contains("web1"), "it does not name the host: {message}");
    let evidence = &status.0["failure"]["evidence"];
    ensure!(evidence.to_string().contains("503"), "it does not show what was answered: {}", status.0);
    ensure!(evidence.to_string().contains("started v2"), "it does not show what was logged: {}", status.0);
    let told = world.windlass(&["rollout", "status", "service/web", "--timeout", "30s"])?.expect(1)?;
    ensure!(!told.is_empty(), "rollout status says nothing");
    world.windlass(&["wait", "service/web", "--for=condition=Ready", "--timeout", "1s"])?;

    // Tried on one host only; the others answered with the old one all the while.
    ensure!(world.starts("web", "v2")? == [1, 0, 0], "started {:?} times", world.starts("web", "v2")?);
    world.expect_version(&world.hosts, PORT, "v1")?;
    for name in ["web2", "web3"] {
        ensure!(answers.failures(name) == 0, "{name} was down:\n{}", answers.summary());
        ensure!(answers.versions(name).into_iter().eq(["v1"]), "{name}:\n{}", answers.summary());
    }
    ensure!(answers.most_down_at_once() <= 1, "{}", answers.summary());
    stays_blocked(&world, "v2", Duration::from_secs(8))?;

    // A second bad one in a row ends on the good one too.
    program.bad("v3")?;
    eventually("v3 was tried and taken back", || {
        ensure!(starts(&world, "v3")? == 1, "v3 was not tried");
        world.service("web")?.expect("Ready", "False", "RolledBack")?;
        world.expect_version(&world.hosts, PORT, "v1")
    })?;
    stays_blocked(&world, "v3", Duration::from_secs(4))?;

    // And one that does not even stay up.
    program.crashing("v4")?;
    eventually("v4 was tried and taken back", || {
        ensure!(starts(&world, "v4")? >= 1, "v4 was not tried");
        world.service("web")?.expect("Ready", "False", "RolledBack")?;
        world.expect_version(&world.hosts, PORT, "v1")
    })?;

    // Another controller knows it too.
    controller.stop(Duration::from_secs(30))?;
    let _controller = world.serve()?;
    stays_blocked(&world, "v4", Duration::from_secs(4))?;
    world.service("web")?.expect("Ready", "False", "RolledBack")?;

    // A version that was bad comes again only as something else.
    program.good("v5")?;
    world.wait_version("web", PORT, "v5")?;
    ensure!((starts(&world, "v2")?, starts(&world, "v3")?) == (1, 1), "an old one was deployed again");
    world.windlass(&["rollout", "status", "service/web", "--timeout", "30s"])?.expect(0)?;
    world.passed()
}

#[test]
fn a_first_deploy_that_is_unhealthy_is_stopped() -> Result<()> {
    let world = World::new(2)?;
    let program = world.program("web", "v1")?;
    program.bad("v1")?;
    world.declare_hosts()?;
    world.put(&service("web", PORT, program.dir(), &world.host_names()))?;
    let _controller = world.serve()?;
    world.wait_not_ready("web", "FirstDeployUnhealthy")?;
    eventually("it is stopped", || {
        for host in &world.hosts {
            let state = host.exec(&["systemctl", "is-active", "windlass-default.web.service"])?;
            ensure!(!state.success(), "it runs on {}", host.name());
        }
        Ok(())
    })?;
    // Where nothing ran before, nothing is lost by trying every host at once; but each of them once.
    let tried = world.starts("web", "v1")?;
    ensure!(tried.iter().all(|starts| *starts <= 1), "it was started {tried:?} times");
    holds(Duration::from_secs(4), "it is not tried again", || {
        let now = world.starts("web", "v1")?;
        ensure!(now == tried, "it was started {tried:?} times, and now {now:?}");
        Ok(())
    })?;
    world.windlass(&["rollout", "status", "service/web", "--timeout", "30s"])?.expect(1)?;

    program.good("v2")?;
    world.wait_version("web", PORT, "v2")?;
    world.passed()
}

/// Two hosts have what the new version needs and one has not: what is already switched goes back too.
#[test]
fn one_bad_host_of_three_takes_all_back() -> Result<()> {
    const FILE: &str = "/etc/windlass-e2e";
    let Running { world, controller: _controller, program, .. } = Running::on(3)?;
    for name in ["web1", "web2"] {
        host(&world, name)?.write_file(FILE, "here")?;
    }
    let prober = world.probe(PORT);
    program.good_with("v2", FILE)?;
    let status = world.wait_not_ready("web", "RolledBack")?;
    ensure!(status.expect("Ready", "False", None)?.contains("web3"), "it does not name web3: {}", status.0);
    world.expect_version(&world.hosts, PORT, "v1")?;
    let answers = prober.finish();
    ensure!(answers.most_down_at_once() <= 1, "{}", answers.summary());
    ensure!(world.starts("web", "v2")? == [1, 1, 1], "started {:?} times", world.starts("web", "v2")?);

    // Another program has the port on one host: the one that answers there is not ours.
    let squatter = ["systemd-run", "--quiet", "--unit=squatter", "python3", "-m", "http.server", "8081"];
    host(&world, "web2")?.run(&squatter)?;
    let other = world.program("other", "w1")?;
    world.put(&service("other", 8081, other.dir(), &world.host_names()))?;
    let status = world.wait_not_ready("other", "FirstDeployUnhealthy")?;
    ensure!(status.expect("Ready", "False", None)?.contains("web2"), "it does not name web2: {}", status.0);

    // With the file there, a person may try the blocked one again.
    host(&world, "web3")?.write_file(FILE, "here")?;
    world.windlass(&["rollout", "retry", "service/web"])?.expect(0)?;
    world.wait_version("web", PORT, "v2")?;
    world.passed()
}

/// Without a path to ask for, a port that the program itself has opened is health enough; one that stays closed is none.
#[test]
fn a_service_that_only_has_a_port_is_well_while_it_is_open() -> Result<()> {
    let plain = |mut web: Declaration| {
        web.document["spec"]["health"].as_object_mut().expect("health").remove("endpoint");
        web.with("/spec/network/transport", "tcp")
    };
    let Running { world, mut controller, program, .. } = Running::changed(World::new(2)?, plain)?;
    // It runs, and opens nothing.
    program.put("server.py", "import time\n\ntime.sleep(600)\n")?;
    eventually("it has gone back", || {
        world.service("web")?.expect("Ready", "False", "RolledBack")?;
        world.expect_version(&world.hosts, PORT, "v1")
    })?;
    program.good("v3")?;
    world.wait_version("web", PORT, "v3")?;
    controller.check_alive()?;
    world.passed()
}
