//! What people ask for once: undo, retry, reconcile.

use std::time::Duration;

use anyhow::{Result, ensure};
use windlass_e2e::{PATIENCE, Serve, eventually, holds};

use crate::{PORT, Running, masked};

#[test]
fn a_person_goes_back_and_forth() -> Result<()> {
    const FILE: &str = "/etc/windlass-e2e";
    let Running { world, controller: _controller, program, .. } = Running::on(2)?;
    program.good("v2")?;
    world.wait_version("web", PORT, "v2")?;

    world.windlass(&["rollout", "undo", "service/web"])?.expect(0)?;
    eventually("the old version runs", || {
        world.expect_version(&world.hosts, PORT, "v1")?;
        world.service("web")?.expect("Ready", "False", "Undone")
    })?;
    holds(Duration::from_secs(4), "it stays undone", || world.expect_version(&world.hosts, PORT, "v1"))?;
    world.windlass(&["rollout", "status", "service/web", "--timeout", "20s"])?.expect(1)?;
    world.windlass(&["rollout", "retry", "service/web"])?.expect(0)?;
    world.wait_version("web", PORT, "v2")?;

    // Undone, and then something new: that is what runs.
    world.windlass(&["rollout", "undo", "service/web", "--to-revision", "1"])?.expect(0)?;
    eventually("the old version runs", || world.expect_version(&world.hosts, PORT, "v1"))?;
    program.good("v3")?;
    world.wait_version("web", PORT, "v3")?;

    // What was bad for want of something is tried again once somebody says so.
    program.good_with("v4", FILE)?;
    world.wait_not_ready("web", "RolledBack")?;
    world.expect_version(&world.hosts, PORT, "v3")?;
    for host in &world.hosts {
        host.write_file(FILE, "here")?;
    }
    world.windlass(&["rollout", "retry", "service/web"])?.expect(0)?;
    world.wait_version("web", PORT, "v4")?;

    let history = world.windlass(&["rollout", "history", "service/web"])?.expect(0)?;
    ensure!(history.lines().count() >= 4, "the history is short:\n{history}");
    eventually("no request is left", || {
        let left = world.keys("requests/")?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })?;

    // What is not there is said so, and what takes too long too.
    world.windlass(&["rollout", "undo", "service/nothing"])?.expect(1)?;
    world.windlass(&["wait", "service/web", "--for=condition=Stalled", "--timeout", "1s"])?.expect(4)?;
    world.windlass(&["rollout", "sideways"])?.expect(2)?;
    world.passed()
}

#[test]
fn a_restart_is_finished_by_the_next_controller_and_a_pause_holds() -> Result<()> {
    let Running { world, controller, program, .. } = Running::on(3)?;
    drop(controller);
    world.expire_leader()?;
    let marker = world.dir().join("activated");
    let checkpoint = Some(("after-activate".to_owned(), marker.clone()));
    let mut dying = world.start(&Serve { name: "serve", checkpoint, ..Serve::default() })?;
    dying.wait_until_up()?;
    dying.wait_until_leading(PATIENCE)?;
    world.windlass(&["rollout", "restart", "service/web"])?.expect(0)?;
    eventually("the controller kills itself in the middle", || {
        ensure!(marker.exists(), "not yet");
        Ok(())
    })?;
    world.expire_leader()?;
    let _controller = world.serve()?;
    eventually("every host was restarted, and once", || {
        let starts = world.starts("web", "v1")?;
        ensure!(starts == [2, 2, 2], "{starts:?}");
        world.wait_ready("web", 0)
    })?;
    holds(Duration::from_secs(3), "nobody is restarted again", || {
        ensure!(world.starts("web", "v1")? == [2, 2, 2], "once more");
        Ok(())
    })?;

    world.windlass(&["rollout", "pause", "service/web"])?.expect(0)?;
    eventually("it is paused", || world.service("web")?.expect("Reconciling", "True", "Paused"))?;
    program.good("v2")?;
    world.wait_not_ready("web", "Paused")?;
    holds(Duration::from_secs(4), "nothing is deployed", || world.expect_version(&world.hosts, PORT, "v1"))?;
    insta::assert_snapshot!(masked(&world.windlass(&["diff", "service/web"])?), @r"
    exit code 3
    service/web: revision 2 is declared
    web1: revision 1 -> revision 2
    web2: revision 1 -> revision 2
    web3: revision 1 -> revision 2
    revision 1 -> revision 2:
    server.py: HASH -> HASH
    settings: the same
    Paused: paused since TIME nothing is begun on any host until `windlass rollout resume`
    --- stderr
    ");
    let data = world.windlass(&["diff", "service/web", "-o", "json"])?.expect(3)?;
    let data: serde_json::Value = serde_json::from_str(&data)?;
    let hash = data[0]["changes"][0]["files"][0]["new"].as_str().unwrap_or_default();
    let before = data[0]["changes"][0]["files"][0]["old"].as_str().unwrap_or_default();
    ensure!(hash.len() == 64 && before.len() == 64 && hash != before, "no whole hashes that differ: {data}");
    let told = world.windlass(&["wait", "service/web"])?;
    ensure!(told.code == 1 && told.stderr.contains("windlass rollout resume service/web"), "{told}");
    world.windlass(&["rollout", "resume", "service/web"])?.expect(0)?;
    world.wait_version("web", PORT, "v2")?;
    insta::assert_snapshot!(masked(&world.windlass(&["diff", "service/web"])?), @r"
    exit code 0
    service/web: revision 2 is declared
    web1: revision 2
    web2: revision 2
    web3: revision 2
    no difference
    --- stderr
    ");
    world.passed()
}
