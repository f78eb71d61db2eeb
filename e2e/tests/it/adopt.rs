//! A host whose store was lost, or is another one now.

use anyhow::{Result, ensure};
use windlass_e2e::{Controller, Declaration, Ran, Serve, World, eventually, host, service, zone};

use crate::{PORT, Running, wait_gone};

/// Another store on the same etcd, whose commands say so.
const OTHER: [&str; 2] = ["--prefix", "/other"];

/// Runs a command for the other store.
fn typed(world: &World, arguments: &[&str]) -> Result<Ran> {
    world.windlass(&[&OTHER[..], arguments].concat())
}

/// A controller of the other store, in which all of this is declared.
fn other_store(world: &World, declarations: &[Declaration]) -> Result<Controller> {
    let arguments = OTHER.map(str::to_owned).to_vec();
    let mut controller = world.start(&Serve { name: "other", arguments, ..Serve::default() })?;
    controller.wait_until_up()?;
    for declaration in declarations {
        let apply = [&OTHER[..], &["apply", "-f", "-"]].concat();
        world.windlass_with_input(&apply, &declaration.text())?.expect(0)?;
    }
    Ok(controller)
}

/// What Windlass keeps on a host, to the time of its last change: who is refused changes none of it.
fn kept(world: &World) -> Result<String> {
    world.hosts[0].run(&["find", "/opt/windlass", "/etc/systemd/system", "-printf", "%p %T@ %s\n"])
}

#[test]
fn an_adopted_host_follows_its_new_store_and_refuses_the_old_one() -> Result<()> {
    let Running { world, controller, .. } = Running::on(1)?;
    // The old store is gone, and somebody declares the same Service anew, with what it has become meanwhile.
    controller.kill9()?;
    let before = kept(&world)?;
    let program = world.program("next", "v2")?;
    let web = service("web", PORT, program.dir(), &world.host_names());
    let _other = other_store(&world, &[zone(&world.testbed.cidr()), host(&world.hosts[0])?, web])?;
    let owner = world.value("control/cluster")?.unwrap_or_default();
    let owner = owner.trim().trim_matches('"');
    eventually("the other store's controller is refused, by the owner's name", || {
        for resource in ["host/web1", "service/web"] {
            let said = typed(&world, &["get", resource, "-o", "json"])?.expect(0)?;
            for word in ["OwnedByAnother", "windlass host adopt", owner] {
                ensure!(said.contains(word), "no {word:?} in {said}");
            }
        }
        Ok(())
    })?;
    typed(&world, &["wait", "service/web", "--timeout", "60s"])?.expect(1)?;
    let opened = world.etcd.etcdctl(&["get", "--prefix", "--keys-only", "/other/rollouts/"])?;
    ensure!(opened.trim().is_empty(), "a rollout was opened for it: {opened}");
    ensure!(kept(&world)? == before, "something was changed there:\n{before}\n{}", kept(&world)?);

    // Nobody adopts by mistake, and whoever does is served.
    typed(&world, &["host", "adopt", "web1"])?.expect(2)?;
    typed(&world, &["host", "adopt", "web1", "--yes", "--wait"])?.expect(0)?;
    // Its refusal was told before; this waits for what becomes of the Service now.
    typed(&world, &["reconcile", "service/web", "--wait", "--timeout", "60s"])?.expect(0)?;
    ensure!(world.version_on(&world.hosts[0], PORT)? == "v2", "the new store's version does not run");

    // Found again, the old store says whose the host is now, and does nothing there whatever it is asked.
    let mut controller = world.serve()?;
    world.windlass(&["rollout", "restart", "service/web"])?.expect(0)?;
    world.wait_not_ready("web", "OwnedByAnother")?;
    // A removal is none of its business either: what it deletes, it forgets.
    world.delete_key("declared/services/default/web")?;
    wait_gone(&world, "web", &[])?;
    controller.check_alive()?;
    ensure!(world.starts("web", "v1")? == [1] && world.starts("web", "v2")? == [1], "the old store started something");
    ensure!(world.version_on(&world.hosts[0], PORT)? == "v2", "the old store took it down");
    world.passed()
}
