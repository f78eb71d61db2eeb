//! A controller killed at each named step of a rollout, and started again: it converges, and no more hosts are down
//! at once than may be.
//!
//! The steps are the program's own list, so that a new one is not forgotten: who adds one has to say here what
//! leads there.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use windlass_e2e::{Controller, PATIENCE, Serve, World, eventually};

use crate::{PORT, Running, wait_gone};

/// What leads to a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// A good version.
    Deploy,
    /// A bad one.
    Rollback,
    /// The declaration is deleted.
    Removal,
    /// A commit of a repository; shown in `gitops.rs`.
    Commit,
}

fn way(checkpoint: &str) -> Result<Way> {
    Ok(match checkpoint {
        "planned" | "rollout-opened" | "stamped" | "before-stage" | "after-stage" | "before-activate"
        | "after-activate" | "judged" | "before-confirm" | "after-confirm" | "before-close" | "after-close" => {
            Way::Deploy
        }
        "block-recorded" | "before-revert" | "after-revert" => Way::Rollback,
        "before-remove" | "after-remove" => Way::Removal,
        "commit-fetched" | "declarations-written" => Way::Commit,
        other => bail!("{other} is a new step: say here what leads to it"),
    })
}

/// The program's own list, as far as one way leads there.
fn checkpoints(world: &World, wanted: Way) -> Result<Vec<String>> {
    let list = world.windlass(&["serve", "--list-checkpoints"])?.expect(0)?;
    let mut found = Vec::new();
    for name in list.lines() {
        if way(name)? == wanted {
            found.push(name.to_owned());
        }
    }
    ensure!(!found.is_empty(), "no step for {wanted:?} in {list}");
    Ok(found)
}

/// Starts a controller that dies at a step, lets `change` lead there, makes sure that it died there, and
/// starts another one.
fn die_at(world: &World, checkpoint: &str, change: impl FnOnce() -> Result<()>) -> Result<Controller> {
    let marker = world.dir().join(format!("died-{checkpoint}"));
    let _ = std::fs::remove_file(&marker);
    let serve = Serve { name: "serve", checkpoint: Some((checkpoint.to_owned(), marker.clone())), ..Serve::default() };
    let mut dying = world.start(&serve)?;
    dying.wait_until_up()?;
    change()?;
    dying.wait_until_killed(PATIENCE)?;
    let wrote = std::fs::read_to_string(&marker).context("it was killed, and not by itself at that step")?;
    ensure!(wrote == checkpoint, "it died at {wrote}");
    world.expire_leader()?;
    world.serve()
}

/// The steps of a deploy are split over two tests, which run side by side.
fn killed_in_a_deploy(half: impl Fn(usize) -> bool) -> Result<()> {
    let Running { world, controller, program, .. } = Running::on(3)?;
    controller.stop(Duration::from_secs(30))?;
    let all = checkpoints(&world, Way::Deploy)?;
    for (_, checkpoint) in all.iter().enumerate().filter(|(index, _)| half(*index)) {
        let version = format!("v-{checkpoint}");
        let prober = world.probe(PORT);
        let controller =
            die_at(&world, checkpoint, || program.good(&version)).with_context(|| format!("dying at {checkpoint}"))?;
        world.wait_version("web", PORT, &version).with_context(|| format!("after dying at {checkpoint}"))?;
        let answers = prober.finish();
        let most = answers.most_down_at_once();
        ensure!(most <= 1, "{checkpoint}: {most} hosts were down at once:\n{}", answers.summary());
        let starts = world.starts("web", &version)?;
        ensure!(starts.iter().all(|starts| *starts <= 2), "{checkpoint}: started {starts:?} times");
        controller.stop(Duration::from_secs(30))?;
    }
    world.passed()
}

#[test]
fn killed_in_a_deploy_and_started_again_a() -> Result<()> {
    killed_in_a_deploy(|index| index % 2 == 0)
}

#[test]
fn killed_in_a_deploy_and_started_again_b() -> Result<()> {
    killed_in_a_deploy(|index| index % 2 == 1)
}

#[test]
fn killed_in_a_rollback_and_started_again() -> Result<()> {
    let Running { world, controller, program, .. } = Running::on(3)?;
    controller.stop(Duration::from_secs(30))?;
    for checkpoint in checkpoints(&world, Way::Rollback)? {
        let version = format!("bad-{checkpoint}");
        let prober = world.probe(PORT);
        let controller =
            die_at(&world, &checkpoint, || program.bad(&version)).with_context(|| format!("dying at {checkpoint}"))?;
        eventually(format_args!("{checkpoint}: it went back"), || {
            world.service("web")?.expect("Ready", "False", "RolledBack")?;
            world.expect_version(&world.hosts, PORT, "v1")
        })?;
        let answers = prober.finish();
        ensure!(answers.most_down_at_once() <= 1, "{checkpoint}:\n{}", answers.summary());
        let starts = world.starts("web", &version)?;
        ensure!(starts[1..] == [0, 0], "{checkpoint}: the bad version got to a second host: {starts:?}");
        controller.stop(Duration::from_secs(30))?;
    }
    world.passed()
}

#[test]
fn killed_in_a_removal_and_started_again() -> Result<()> {
    let Running { world, controller, web, .. } = Running::on(2)?;
    controller.stop(Duration::from_secs(30))?;
    for checkpoint in checkpoints(&world, Way::Removal)? {
        let controller = die_at(&world, &checkpoint, || world.delete_key(&format!("declared/{}", web.path)))
            .with_context(|| format!("dying at {checkpoint}"))?;
        wait_gone(&world, "web", &world.hosts).with_context(|| format!("after dying at {checkpoint}"))?;
        world.put(&web)?;
        world.wait_version("web", PORT, "v1")?;
        controller.stop(Duration::from_secs(30))?;
    }
    world.passed()
}
