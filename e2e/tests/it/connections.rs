//! Connections that break at each step of an activation: the step goes on or is done again, and the rollout ends as it
//! was declared.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use windlass_e2e::{Connection, PATIENCE, World};
use windlass_testbed::Host;

use crate::{PORT, Running};

/// A confirmation's own login takes a tenth of a second: looked for often enough to be met.
const POLL: Duration = Duration::from_millis(5);

/// When a connection breaks.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// While files arrive.
    Stage,
    /// After the switch, while the old program is being stopped.
    Activate,
    /// While the new program is judged.
    Verdict,
    /// While the confirmation logs in, or is said.
    Confirm,
}

/// Breaks a host's connections once it is at a step, and says how many there were.
fn cut(world: &World, host: &Host, step: Step, version: &str) -> Result<usize> {
    let is_there = || -> Result<bool> {
        Ok(match step {
            Step::Stage => {
                let arriving = "find /opt/windlass/default.web/incoming -size +1000k 2>/dev/null";
                !host.exec(&["sh", "-c", arriving])?.stdout.is_empty()
            }
            Step::Activate => {
                host.run(&["systemctl", "list-units", "--state=deactivating", "windlass-*"])?.contains("default.web")
            }
            Step::Verdict => world.version_on(host, PORT).is_ok_and(|found| found == version),
            // There is one of its own for nothing else.
            Step::Confirm => true,
        })
    };
    let which = if matches!(step, Step::Confirm) { Connection::OfItsOwn } else { Connection::Shared };
    let deadline = Instant::now() + PATIENCE;
    loop {
        if is_there()? {
            let broken = world.break_connections(host, which)?;
            if broken > 0 {
                return Ok(broken);
            }
        }
        ensure!(Instant::now() < deadline, "there was no connection to break");
        sleep(POLL);
    }
}

/// Four hosts at once, each of which loses its connection at another step; with a version that is good, and with one
/// that is not.
#[test]
fn connections_that_break_at_any_step_change_nothing() -> Result<()> {
    const STEPS: [Step; 4] = [Step::Stage, Step::Activate, Step::Verdict, Step::Confirm];
    let change = |web: windlass_e2e::Declaration| {
        web.with("/spec/rollout/maxUnavailable", 4)
            .with("/spec/rollout/minHealthyTime", "2s")
            .with("/spec/lifecycle/forceAfter", "3s")
    };
    let Running { world, mut controller, program, .. } = Running::changed(World::new(4)?, change)?;
    // It does not stop when it is asked to, so that a switch from it takes its time.
    program.deaf("v2")?;
    world.wait_version("web", PORT, "v2")?;

    std::thread::scope(|scope| {
        let cut = |(host, step)| cut(&world, host, step, "v3").with_context(|| format!("at {step:?}"));
        let cuts: Vec<_> = world.hosts.iter().zip(STEPS).map(|at| scope.spawn(move || cut(at))).collect();
        program.put("large", &"0123456789abcdef".repeat(3 << 19))?;
        program.good("v3")?;
        cuts.into_iter().try_for_each(|cut| cut.join().expect("cutting does not panic").map(drop))
    })?;
    world.wait_version("web", PORT, "v3")?;
    let starts = world.starts("web", "v3")?;
    ensure!(starts == [1, 1, 1, 1], "v3 was started {starts:?} times");
    let plan = world.windlass(&["diff", "service/web"])?;
    ensure!(plan.code == 0, "{plan}");
    controller.check_alive()?;
    world.passed()
}
