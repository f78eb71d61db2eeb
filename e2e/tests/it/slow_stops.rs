//! Programs that take no notice of being asked to stop.

use anyhow::{Context, Result, ensure};
use windlass_e2e::{World, eventually};
use windlass_testbed::Host;

use crate::{PORT, Running};

const UNIT: &str = "windlass-default.web.service";

/// When the last message of systemd about the unit that holds this word was written, in seconds.
fn told(host: &Host, word: &str) -> Result<f64> {
    host.run(&["journalctl", "--sync"])?;
    let log = host.run(&["journalctl", "--unit", UNIT, "--output=short-unix", "--no-pager"])?;
    let line = log.lines().rev().find(|line| line.contains(word)).with_context(|| format!("no {word:?} in {log}"))?;
    line.split(' ').next().context("a time")?.parse().with_context(|| format!("a time: {line}"))
}

/// A program that is told to stop and does not is killed when `forceAfter` is over, counted from the beginning.
#[test]
fn a_program_that_does_not_stop_is_killed_after_its_time() -> Result<()> {
    const FORCE_AFTER: f64 = 4.0;
    let change = |web: windlass_e2e::Declaration| web.with("/spec/lifecycle/forceAfter", "4s");
    let Running { world, program, controller: _controller, .. } = Running::changed(World::new(1)?, change)?;
    let web1 = &world.hosts[0];
    program.deaf("v2")?;
    world.wait_version("web", PORT, "v2")?;
    program.good("v3")?;
    let during = eventually("the status tells of the switch while the program is being stopped", || {
        let state = web1.run(&["systemctl", "show", "--property=ActiveState", UNIT])?;
        ensure!(state.contains("deactivating"), "{state}");
        world.service("web")
    })?;
    during.expect("Reconciling", "True", "RollingOut")?;
    let row = during.host("web1")?;
    ensure!(row.revision == Some(2), "what its unit named when it was looked at: {row:?}");
    ensure!(
        (row.state.as_str(), row.message.as_str()) == ("working", "activate 3, verdict on 3, confirm 3"),
        "{row:?}"
    );
    world.wait_version("web", PORT, "v3")?;
    let took = told(web1, "with signal SIGKILL")? - told(web1, "Stopping")?;
    ensure!((FORCE_AFTER..FORCE_AFTER + 3.0).contains(&took), "killed after {took} s");
    ensure!(world.starts("web", "v3")? == [1], "{:?}", world.starts("web", "v3")?);
    world.passed()
}

/// Where even that does not end it in time, nobody knows how it ends: told as such, and tried again until it has.
#[test]
fn a_stop_that_does_not_end_is_told_and_tried_again() -> Result<()> {
    let change = |web: windlass_e2e::Declaration| web.with("/spec/lifecycle/forceAfter", "1s");
    let Running { world, program, controller: _controller, .. } = Running::changed(World::new(1)?, change)?;
    let web1 = &world.hosts[0];
    program.deaf("v2")?;
    world.wait_version("web", PORT, "v2")?;
    // Somebody has other ideas about how long it may take.
    web1.write_file(&format!("/etc/systemd/system/{UNIT}.d/patience.conf"), "[Service]\nTimeoutStopSec=600\n")?;
    web1.run(&["systemctl", "daemon-reload"])?;
    program.good("v3")?;
    let status = world.wait_not_ready("web", "StepFailed")?;
    let message = status.expect("Ready", "False", "StepFailed")?;
    for words in ["activate 3 on web1", "systemctl restart did not end within 31 s", "it is tried again"] {
        ensure!(message.contains(words), "no {words:?} in {message}");
    }
    status.expect("Stalled", "False", None)?;
    ensure!(status.host("web1")?.state == "failed", "{:?}", status.host("web1")?);
    let record = web1.read_file("/opt/windlass/fence/default.web/steps/activate")?;
    ensure!(record.contains(" begun "), "{record}");
    ensure!(world.starts("web", "v3")? == [0], "it was started beside the old one");
    web1.run(&["systemctl", "kill", "--signal=SIGKILL", UNIT])?;
    eventually("v3 is served", || world.expect_version([web1], PORT, "v3"))?;
    eventually("a later rollout ended well", || {
        let status = world.service("web")?;
        ensure!(status.0["rollout"]["state"] == "succeeded", "{}", status.0);
        Ok(())
    })?;
    let record = web1.read_file("/opt/windlass/fence/default.web/steps/activate")?;
    ensure!(record.contains(" ok "), "{record}");
    world.passed()
}
