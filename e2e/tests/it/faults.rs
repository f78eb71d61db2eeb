//! Hosts and stores that go away: they hold nobody up, nothing that runs is changed for it, and they are caught up.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use windlass_e2e::{World, eventually, service, within};

use crate::{PORT, Running};

/// A host that swallows packets is noticed within this.
const NOTICED: Duration = Duration::from_secs(10);

#[test]
fn a_host_that_swallows_packets_holds_nobody_up() -> Result<()> {
    let world = World::new(3)?;
    let program = world.program("web", "v1")?;
    let web2 = &world.hosts[1];
    let others = || [&world.hosts[0], &world.hosts[2]];
    web2.swallow()?;
    world.declare_hosts()?;
    let _controller = world.serve()?;
    let put = Instant::now();
    world.put(&service("web", PORT, program.dir(), &world.host_names()))?;
    within(NOTICED, "the status names web2", || {
        let status = world.service("web")?;
        ensure!(status.host("web2")?.state == "unreachable", "web2: {:?}", status.host("web2")?);
        status.expect("Degraded", "True", "HostUnreachable")
    })?;
    eventually("the others are served", || {
        world.expect_version(others(), PORT, "v1")?;
        let status = world.service("web")?;
        for name in ["web1", "web3"] {
            ensure!(status.host(name)?.state == "ready", "{name}: {:?}", status.host(name)?);
        }
        Ok(())
    })?;
    let served = put.elapsed();
    ensure!(served < Duration::from_secs(30), "the others waited {served:?} for a host that was lost before its turn");

    // Heard again, it is caught up by itself.
    web2.unswallow()?;
    world.wait_version("web", PORT, "v1")?;

    // The same with connections that were open.
    web2.swallow()?;
    program.good("v2")?;
    eventually("the others get the new version", || world.expect_version(others(), PORT, "v2"))?;
    eventually("web2 is named, as unknown and not as failed", || {
        let status = world.service("web")?;
        ensure!(status.host("web2")?.state == "unreachable", "web2: {:?}", status.host("web2")?);
        ensure!(!status.is("Ready"), "it says that it is ready");
        Ok(())
    })?;
    web2.unswallow()?;
    world.wait_version("web", PORT, "v2")?;
    world.passed()
}

#[test]
fn a_host_that_reboots_comes_back_as_it_was() -> Result<()> {
    let Running { world, mut controller, program, .. } = Running::on(2)?;
    let web1 = &world.hosts[0];
    web1.reboot()?;
    eventually("it runs again", || world.expect_version([web1], PORT, "v1"))?;
    world.wait_ready("web", 0)?;

    // Off while something changes, and on again: it runs the old version by itself, then the new one.
    web1.power_cut()?;
    program.good("v2")?;
    eventually("the other gets the new version", || world.expect_version([&world.hosts[1]], PORT, "v2"))?;
    eventually("the one that is off is named", || {
        let status = world.service("web")?;
        ensure!(status.host("web1")?.state == "unreachable", "web1: {:?}", status.host("web1")?);
        Ok(())
    })?;
    web1.boot()?;
    world.wait_version("web", PORT, "v2")?;
    controller.check_alive()?;
    world.passed()
}

/// Fail static: etcd and the controller going away change nothing that runs.
#[test]
fn what_runs_goes_on_without_etcd() -> Result<()> {
    let Running { world, mut controller, program, .. } = Running::on(2)?;
    let prober = world.probe(PORT);
    world.etcd.kill9();
    program.good("v2")?;
    // Longer than the controller's time as leader.
    let away = Instant::now() + Duration::from_secs(20);
    while Instant::now() < away {
        controller.check_alive()?;
        world.expect_version(&world.hosts, PORT, "v1")?;
        std::thread::sleep(Duration::from_millis(200));
    }
    let log = controller.log();
    ensure!(
        log.contains("the store is away") && log.contains(&world.etcd.endpoint()),
        "nothing is told of etcd: {log}"
    );
    let answers = prober.finish();
    for name in world.host_names() {
        ensure!(answers.failures(name) == 0, "{name} was down:\n{}", answers.summary());
    }
    world.etcd.restart()?;
    world.wait_version("web", PORT, "v2")?;
    controller.check_alive()?;
    world.passed()
}

/// When the power goes in the middle of a rollout.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// While files arrive.
    Upload,
    /// After the switch, while the old program is being stopped.
    Stop,
    /// While the new program is judged.
    Verdict,
}

/// Waits until the host is there.
fn wait_for(world: &World, cut: Cut, version: &str) -> Result<()> {
    let web1 = &world.hosts[0];
    eventually(format_args!("the time of {cut:?}"), || {
        let found = match cut {
            Cut::Upload => web1.run(&["find", "/opt/windlass/default.web/incoming", "-size", "+1000k"])?,
            Cut::Stop => web1.run(&["systemctl", "list-units", "--state=deactivating", "windlass-*"])?,
            Cut::Verdict => {
                world.version_on(web1, PORT).map(|found| if found == version { found } else { String::new() })?
            }
        };
        ensure!(found.contains("default.web") || found == version, "{found:?}");
        Ok(())
    })
}

/// Power goes at the worst times; whatever it leaves, the host ends at what is declared, and the program is whole.
#[test]
fn a_power_cut_in_a_rollout_ends_at_what_is_declared() -> Result<()> {
    let change = |web: windlass_e2e::Declaration| {
        web.with("/spec/lifecycle/forceAfter", "5s").with("/spec/rollout/minHealthyTime", "3s")
    };
    let Running { world, mut controller, program, .. } = Running::changed(World::new(1)?, change)?;
    let web1 = &world.hosts[0];
    for (cut, version) in [(Cut::Upload, "v2"), (Cut::Stop, "v3"), (Cut::Verdict, "v4")] {
        if matches!(cut, Cut::Upload) {
            program.put("large", &"0123456789abcdef".repeat(6 << 20))?;
        }
        program.deaf(version)?;
        wait_for(&world, cut, version)?;
        web1.power_cut()?;
        ensure!(!world.service("web")?.is("Ready"), "{cut:?}: it was done before");
        web1.boot()?;
        world.wait_version("web", PORT, version).with_context(|| format!("after a power cut: {cut:?}"))?;
        // Nothing but the empty room for the next stage, and the name of a shell that is there.
        let room = "find . -mindepth 1 ! -name ready ! -path './ready/room' ! -path './ready/revision' ! '(' -name 'small.*' -empty ')'";
        let left = web1.run(&["sh", "-c", &format!("cd /opt/windlass/default.web/incoming && {room}")])?;
        ensure!(left.is_empty(), "{cut:?} left {left}");
        let plan = world.windlass(&["diff", "service/web"])?;
        ensure!(plan.code == 0, "{cut:?}: {plan}");
    }
    controller.check_alive()?;
    world.passed()
}
