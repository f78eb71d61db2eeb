//! A team that outgrows the embedded store: what runs goes on, and so does what was declared.

use std::time::Duration;

use anyhow::{Result, ensure};
use windlass_e2e::{World, service};

use crate::PORT;

/// As long as a controller may take to stop: it waits for steps that are under way.
const STOPPING: Duration = Duration::from_secs(30);

#[test]
fn hosts_go_on_while_their_store_is_moved() -> Result<()> {
    let world = World::embedded(2)?;
    let controller = world.serve()?;
    world.declare_hosts()?;
    let program = world.program("web", "v1")?;
    let web = service("web", PORT, program.dir(), &world.host_names());
    let generation = world.put(&web)?;
    world.wait_ready("web", generation)?;
    controller.stop(STOPPING)?;
    let to = world.etcd.endpoint();
    let told = world.windlass(&["store", "migrate", "--to", &to])?.expect(0)?;
    ensure!(told.contains("moved, read back and compared"), "{told}");
    let world = world.moved();
    let _controller = world.serve()?;
    // Without a change: what was seen is still seen.
    world.windlass(&["wait", "service/web", "--for=condition=Ready", "--timeout", "30s"])?.expect(0)?;
    world.expect_version(&world.hosts, PORT, "v1")?;
    for starts in world.starts("web", "v1")? {
        ensure!(starts == 1, "v1 was started {starts} times");
    }
    // And it is the hosts' store: they obey it.
    program.good("v2")?;
    world.wait_version("web", PORT, "v2")?;
    world.passed()
}
