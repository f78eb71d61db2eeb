//! An etcd of three members that are killed, restarted and compacted in the middle of rollouts.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use windlass_e2e::{World, eventually, holds};
use windlass_testbed::{Etcd, EtcdVersion};

use crate::{PORT, Running};

#[test]
fn an_etcd_of_three_is_hit_in_mid_rollout() -> Result<()> {
    let world = World::around(Etcd::cluster(EtcdVersion::V3_4)?, 3)?;
    // A second more on each host, so that there is a middle to hit.
    let slow = |web: windlass_e2e::Declaration| web.with("/spec/rollout/minHealthyTime", "1s");
    let Running { world, mut controller, program, .. } = Running::changed(world, slow)?;
    let prober = world.probe(PORT);
    let in_the_middle = |version: &str| {
        program.good(version)?;
        eventually(format_args!("the first host has {version}"), || {
            world.expect_version([&world.hosts[0]], PORT, version)
        })?;
        ensure!(world.version_on(&world.hosts[2], PORT)? != version, "{version} is everywhere already");
        anyhow::Ok(())
    };

    in_the_middle("v2")?;
    let lost = world.etcd.kill_leader()?;
    world.wait_version("web", PORT, "v2").with_context(|| format!("without etcd's leader, {lost}"))?;
    world.etcd.start_missing()?;

    // Every watch is broken, and cannot go on where it was.
    in_the_middle("v3")?;
    world.etcd.compact()?;
    world.etcd.restart()?;
    world.wait_version("web", PORT, "v3").context("compacted and restarted")?;

    // Two of three are a store that nobody can use: what runs goes on, and the rest comes when it is back.
    in_the_middle("v4")?;
    world.etcd.kill_leader()?;
    eventually("another one leads, and is killed", || world.etcd.kill_leader())?;
    let all_answer = || world.hosts.iter().try_for_each(|host| world.version_on(host, PORT).map(drop));
    // What was recorded just before is begun, and one host switched; nothing more is, since nothing can be recorded.
    eventually("what runs goes on", || holds(Duration::from_secs(5), "what was begun is up", all_answer))?;
    ensure!(world.version_on(&world.hosts[2], PORT)? == "v3", "more was begun than was recorded");
    controller.check_alive()?;
    world.etcd.start_missing()?;
    world.wait_version("web", PORT, "v4").context("without a quorum for a while")?;

    let answers = prober.finish();
    ensure!(answers.most_down_at_once() <= 1, "{}", answers.summary());
    for version in ["v2", "v3", "v4"] {
        let starts = world.starts("web", version)?;
        ensure!(starts == [1, 1, 1], "{version} was started {starts:?} times");
    }
    controller.check_alive()?;
    world.passed()
}
