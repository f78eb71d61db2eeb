//! Controllers that die, sleep, stop and take over from each other.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use windlass_e2e::{Serve, World, eventually, holds, within};
use windlass_testbed::Host;

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

/// The number that a host's fence lets nothing below through.
fn fence(host: &Host) -> Result<u64> {
    let text = host.read_file("/opt/windlass/fence/default.web/seq")?;
    text.trim().parse().with_context(|| format!("a fence that says {text:?}"))
}

/// A leader is put to sleep between its decision to switch a host and the call that does it. A standby takes over and goes
/// back; then the other wakes up in the middle of that call. It must not get through: neither on the host that was taken
/// back, nor on the one that its successor had nothing to do on but to stamp it.
#[test]
fn a_leader_that_wakes_up_in_mid_step_is_refused() -> Result<()> {
    let canary = json!({"steps": [1, "100%"], "bake": "1s", "promotion": "approved"});
    let change = |web: windlass_e2e::Declaration| {
        web.with("/spec/rollout/strategy", "canary").with("/spec/rollout/canary", canary)
    };
    let Running { world, controller, program, .. } = Running::changed(World::new(3)?, change)?;
    let prober = world.probe(PORT);
    let [web1, web2, web3] = world.hosts.as_slice() else { anyhow::bail!("three hosts") };
    program.good("v2")?;
    eventually("the canary waits for a person", || {
        world.service("web")?.expect("Reconciling", "True", "WaitingForApproval")?;
        world.expect_version([web1], PORT, "v2")
    })?;
    controller.stop(Duration::from_secs(30))?;

    let marker = world.dir().join("held");
    let checkpoint = Some(("hold@before-activate".to_owned(), marker.clone()));
    let mut sleeper = world.start(&Serve { name: "sleeper", checkpoint, ..Serve::default() })?;
    sleeper.wait_until_up()?;
    sleeper.wait_until_leading(TAKEOVER)?;
    let mut standby = world.start(&Serve { name: "standby", ..Serve::default() })?;
    standby.wait_until_up()?;
    world.windlass(&["rollout", "approve", "service/web", "--revision", "2"])?.expect(0)?;
    eventually("it is about to switch the second host", || {
        ensure!(marker.exists(), "not yet");
        Ok(())
    })?;
    sleeper.freeze()?;
    let frozen = Instant::now();
    // As if it had fallen asleep just there.
    std::fs::remove_file(&marker)?;
    let before = [fence(web1)?, fence(web2)?, fence(web3)?];
    world.windlass(&["rollout", "abort", "service/web"])?.expect(0)?;
    standby.wait_until_leading(TAKEOVER)?;
    let gone_back = || {
        world.service("web")?.expect("Ready", "False", "Aborted")?;
        world.expect_version(&world.hosts, PORT, "v1")
    };
    eventually("everything is back", gone_back)?;
    for (host, before) in [web1, web2, web3].into_iter().zip(before) {
        let now = fence(host)?;
        ensure!(now > before, "{} was not stamped: {before}, then {now}", host.name());
    }

    // A whole minute, four times as long as a lease lasts, in which nothing else comes of it either.
    holds(Duration::from_secs(60).saturating_sub(frozen.elapsed()), "it stays as it is", gone_back)?;
    sleeper.thaw()?;
    eventually("it says that it leads no longer", || {
        let answer = sleeper.get("/readyz")?;
        ensure!(answer.body.to_lowercase().contains("standby"), "/readyz says {answer:?}");
        Ok(())
    })?;
    holds(Duration::from_secs(5), "nothing comes of what it was about to do", gone_back)?;
    ensure!(world.starts("web", "v2")? == [1, 0, 0], "{:?}", world.starts("web", "v2")?);
    let answers = prober.finish();
    ensure!(answers.most_down_at_once() <= 1, "{}", answers.summary());
    sleeper.check_alive()?;
    standby.check_alive()?;
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
