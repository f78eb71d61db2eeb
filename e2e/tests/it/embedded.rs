//! The core scenarios once more, on the store that the controller carries itself.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use windlass_e2e::{Controller, PATIENCE, Serve, World, eventually, service, within};

use crate::{PORT, Running, wait_gone};

/// A store that was killed keeps its leader's lease as long again, and somebody leads a little later.
const TAKEOVER: Duration = Duration::from_secs(25);

/// The steps at which a controller is killed with its store: before and behind the switch.
const STEPS: [&str; 2] = ["rollout-opened", "after-activate"];

/// As [`Running::on`]; here the store is there only once the controller is.
fn running(hosts: u8) -> Result<Running> {
    let world = World::embedded(hosts)?;
    let controller = world.serve()?;
    let program = world.program("web", "v1")?;
    world.declare_hosts()?;
    let web = service("web", PORT, program.dir(), &world.host_names());
    let generation = world.put(&web)?;
    world.wait_ready("web", generation)?;
    world.expect_version(&world.hosts, PORT, "v1")?;
    Ok(Running { world, controller, program, web })
}

/// Starts the next controller on the same store, and does not wait until the dead one's lease has ended.
fn start_again(world: &World) -> Result<Controller> {
    let mut controller = world.start(&Serve { name: "serve", ..Serve::default() })?;
    controller.wait_until_up()?;
    world.expire_leader()?;
    controller.wait_until_leading(PATIENCE)?;
    Ok(controller)
}

#[test]
fn raw_puts_a_bad_version_kills_and_a_raw_delete() -> Result<()> {
    let Running { world, controller, program, web } = running(2)?;

    program.bad("bad")?;
    eventually("it went back", || {
        world.service("web")?.expect("Ready", "False", "RolledBack")?;
        world.expect_version(&world.hosts, PORT, "v1")
    })?;
    controller.stop(Duration::from_secs(30))?;

    for step in STEPS {
        let version = format!("v-{step}");
        let marker = world.dir().join(format!("died-{step}"));
        let checkpoint = Some((step.to_owned(), marker.clone()));
        let mut dying = world.start(&Serve { name: "serve", checkpoint, ..Serve::default() })?;
        dying.wait_until_up()?;
        let prober = world.probe(PORT);
        program.good(&version)?;
        dying.wait_until_killed(PATIENCE)?;
        let wrote = std::fs::read_to_string(&marker).context("it was killed, and not by itself at that step")?;
        ensure!(wrote == step, "it died at {wrote}");
        let controller = start_again(&world)?;
        world.wait_version("web", PORT, &version).with_context(|| format!("after dying at {step}"))?;
        let answers = prober.finish();
        ensure!(answers.most_down_at_once() <= 1, "{step}:\n{}", answers.summary());
        controller.stop(Duration::from_secs(30))?;
    }

    let _controller = world.serve()?;
    world.delete_key(&format!("declared/{}", web.path))?;
    wait_gone(&world, "web", &world.hosts)?;
    world.passed()
}

/// A standby on another machine has certificates, and no store of its own. While the store is away nobody leads, and
/// what runs goes on; once it is back one of the two leads.
#[test]
fn a_standby_by_certificates_and_a_store_that_is_killed() -> Result<()> {
    let Running { world, controller, program, .. } = running(2)?;
    let tls = world.dir().join("serve/store/tls");
    let endpoint = std::fs::read_to_string(world.dir().join("serve/store/endpoint")).context("where the store is")?;
    let address = endpoint.trim().split("://").nth(1).context("an address")?.to_owned();
    let file = |name: &str| tls.join(name).display().to_string();
    let arguments =
        ["--endpoints", endpoint.trim(), "--cacert", &file("ca.pem"), "--cert", &file("local.pem"), "--key"];
    let mut arguments: Vec<String> = arguments.map(str::to_owned).into();
    arguments.push(file("local-key.pem"));
    let mut standby = world.start(&Serve { name: "standby", arguments, ..Serve::default() })?;
    standby.wait_until_up()?;
    eventually("it says that it is a standby", || {
        let answer = standby.get("/readyz")?;
        ensure!(answer.body.to_lowercase().contains("standby"), "/readyz says {answer:?}");
        Ok(())
    })?;

    let prober = world.probe(PORT);
    program.good("v2")?;
    eventually("the first host is switched", || world.expect_version([&world.hosts[0]], PORT, "v2"))?;
    controller.kill9()?;
    // Where it was: that is what the standby knows of it.
    let environment = vec![("WINDLASS_ETCD_LISTEN".to_owned(), address)];
    let mut again = world.start(&Serve { name: "serve", environment, ..Serve::default() })?;
    again.wait_until_up()?;
    within(TAKEOVER, "one of them leads", || {
        let leads = |controller: &mut Controller| controller.wait_until_leading(Duration::ZERO).is_ok();
        let leading = [leads(&mut again), leads(&mut standby)];
        ensure!(leading.iter().filter(|leads| **leads).count() == 1, "leading: {leading:?}");
        Ok(())
    })?;
    world.wait_version("web", PORT, "v2")?;
    let answers = prober.finish();
    ensure!(answers.most_down_at_once() <= 1, "{}", answers.summary());
    standby.check_alive()?;
    again.check_alive()?;
    world.passed()
}
