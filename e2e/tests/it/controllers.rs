//! Controllers that die, sleep, stop and take over from each other.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use windlass_e2e::{Serve, World, eventually, holds, within};

use crate::{PORT, Running};

/// A standby leads so long after the leader's death (the lease, and a margin for a busy machine).
const TAKEOVER: Duration = Duration::from_secs(20);

#[test]
fn a_standby_takes_over_within_twenty_seconds() -> Result<()> {
    let Running { world, mut controller, program, .. } = Running::on(3)?;
    let mut standby = world.start(&Serve { name: "standby", ..Serve::default() })?;
    standby.wait_until_up()?;
    within(Duration::from_secs(10), "it says that it is a standby", || {
        let answer = standby.get("/readyz")?;
        ensure!(answer.body.to_lowercase().contains("standby"), "/readyz says {answer:?}");
        Ok(())
    })?;
    ensure!(standby.get("/healthz")?.status == 200, "a standby is not healthy");
    controller.wait_until_leading(Duration::from_secs(1))?;

    // In the middle of a rollout.
    let prober = world.probe(PORT);
    program.good("v2")?;
    eventually("the first host is switched", || world.expect_version([&world.hosts[0]], PORT, "v2"))?;
    let killed = Instant::now();
    controller.kill9()?;
    standby.wait_until_leading(TAKEOVER)?;
    let takeover = killed.elapsed();
    ensure!(takeover < TAKEOVER, "it took {takeover:?}");
    world.wait_version("web", PORT, "v2")?;
    let answers = prober.finish();
    ensure!(answers.most_down_at_once() <= 1, "{}", answers.summary());

    // A leader that sleeps (SIGSTOP) wakes up as nobody: what it was about to do, it does not.
    let mut third = world.start(&Serve { name: "third", ..Serve::default() })?;
    third.wait_until_up()?;
    standby.freeze()?;
    third.wait_until_leading(TAKEOVER)?;
    program.good("v3")?;
    world.wait_version("web", PORT, "v3")?;
    let starts = world.starts("web", "v2")?;
    standby.thaw()?;
    holds(Duration::from_secs(5), "the ex-leader does nothing", || {
        ensure!(world.starts("web", "v2")? == starts, "it deployed the old version");
        world.expect_version(&world.hosts, PORT, "v3")?;
        third.wait_until_leading(Duration::from_secs(1))
    })?;
    standby.check_alive()?;
    ensure!(standby.get("/readyz")?.body.to_lowercase().contains("standby"), "{:?}", standby.get("/readyz")?);
    world.passed()
}

#[test]
fn a_controller_stops_when_it_is_asked() -> Result<()> {
    let slow = |web: windlass_e2e::Declaration| web.with("/spec/rollout/minHealthyTime", "2s");
    let Running { world, controller, program, .. } = Running::changed(World::new(3)?, slow)?;
    controller.stop(Duration::from_secs(5))?;
    world.expect_version(&world.hosts, PORT, "v1")?;

    // Its place is free at once.
    let begun = Instant::now();
    let controller = world.serve()?;
    ensure!(begun.elapsed() < Duration::from_secs(10), "the next one waited {:?}", begun.elapsed());

    // In the middle of a rollout it finishes what it has begun on a host, and begins nothing.
    let prober = world.probe(PORT);
    program.good("v2")?;
    eventually("the first host is switched", || world.expect_version([&world.hosts[0]], PORT, "v2"))?;
    controller.stop(Duration::from_secs(30))?;
    ensure!(world.version_on(&world.hosts[2], PORT)? == "v1", "it went on with the rollout");
    let _controller = world.serve()?;
    world.wait_version("web", PORT, "v2")?;
    let answers = prober.finish();
    ensure!(answers.most_down_at_once() <= 1, "{}", answers.summary());
    world.passed()
}
