//! Controllers that start where they cannot work yet, or not at all. `docs/bad-input.md` lists them.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Result, ensure};
use windlass_e2e::{Serve, World, eventually, holds, service};

use crate::PORT;

/// Before etcd is there the controller waits for it, and says so; what was declared is acted on as soon as it is.
#[test]
fn a_controller_waits_for_etcd_and_then_works() -> Result<()> {
    let world = World::new(1)?;
    let program = world.program("web", "v1")?;
    world.declare_hosts()?;
    world.put(&service("web", PORT, program.dir(), &["web1"]))?;
    world.etcd.kill9();
    let mut controller = world.start(&Serve { name: "serve", ..Serve::default() })?;
    controller.wait_until_up()?;
    eventually("it says what it waits for", || {
        let log = controller.log();
        ensure!(log.contains("the store is away; waiting for it") && log.contains(&world.etcd.endpoint()), "{log}");
        Ok(())
    })?;
    holds(Duration::from_secs(5), "it waits", || {
        controller.check_alive()?;
        let (alive, ready) = (controller.get("/healthz")?, controller.get("/readyz")?);
        ensure!(alive.status == 200, "/healthz: {alive:?}");
        ensure!(ready.status == 503, "/readyz: {ready:?}");
        Ok(())
    })?;
    // A person who asks meanwhile is told the same, and what to do.
    let asked = world.windlass(&["get", "services"])?;
    ensure!(asked.code == 1 && asked.stderr.contains("hint: nothing listens there; does the store run"), "{asked}");

    world.etcd.restart()?;
    world.wait_version("web", PORT, "v1")?;
    world.passed()
}

#[test]
fn a_controller_whose_port_is_taken_says_so_and_ends() -> Result<()> {
    let world = World::new(0)?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let listen = taken.local_addr()?.to_string();
    let data = world.dir().join("data").display().to_string();
    let ended = world.windlass(&["serve", "--listen", &listen, "--data-dir", &data])?;
    ensure!(ended.code == 1, "{ended}");
    for words in [
        format!("error: cannot listen on {listen}"),
        "Address already in use".to_owned(),
        "hint: --listen takes another address".to_owned(),
    ] {
        ensure!(ended.stderr.contains(&words), "{words:?} is not in\n{ended}");
    }
    ensure!(world.keys("control/leader")?.is_empty(), "it led all the same");
    world.passed()
}
