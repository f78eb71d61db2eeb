//! Releases that cut their own host off, on real hosts: each host takes them back by itself, and no other gets them.

use std::time::Duration;

use anyhow::{Result, ensure};
use windlass_e2e::{Program, World, eventually, service, within};
use windlass_testbed::Host;

use crate::PORT;

/// Where the service that drops the network listens.
const NET_PORT: u16 = 8081;

/// The unit by which a release cuts its host off.
const CUT: &str = "e2e-cut.service";

/// A host waits 69 s for its confirmation, of which 45 s are for a takeover; and a busy machine is slow.
const TAKEN_BACK: Duration = Duration::from_secs(150);

/// Two hosts, and a service on them whose next version cuts its host off.
struct Victims<'world> {
    name: &'static str,
    port: u16,
    hosts: &'world [Host],
    program: Program,
}

/// Lays a unit on a host that has cut it off once it is started, for as long as the program runs that has started it.
///
/// A change that outlives its release cannot be undone by stopping that: so this one is undone when the program ends,
/// and by nothing else. The program itself has no right to do such things, but root may start units.
fn lay_cut(host: &Host, service: &str, cut: &str, mend: &str) -> Result<()> {
    let wait = format!(
        "pid=$$(systemctl show --property=MainPID --value windlass-default.{service}.service); \
         while [ -e /proc/$$pid ]; do sleep 0.1; done; {mend}"
    );
    let unit = format!("[Service]\nType=exec\nExecStartPre={cut}\nExecStart=sh -c '{wait}'\n");
    host.write_file(&format!("/etc/systemd/system/{CUT}"), unit)?;
    host.run(&["systemctl", "daemon-reload"]).map(drop)
}

impl<'world> Victims<'world> {
    /// Declares a service that runs as root, and need not be waited for long.
    fn new(world: &'world World, name: &'static str, port: u16, hosts: &'world [Host]) -> Result<Self> {
        let program = world.program(name, "v1")?;
        let names: Vec<&str> = hosts.iter().map(Host::name).collect();
        let declaration = service(name, port, program.dir(), &names)
            .with("/spec/runtime/user", "root")
            .with("/spec/lifecycle/forceAfter", "1s");
        world.put(&declaration)?;
        Ok(Self { name, port, hosts, program })
    }

    /// Only the first host has tried, twice; both serve the old version and can be logged in to, and the status says so.
    fn expect_held_up(&self, world: &World) -> Result<()> {
        let Self { name, port, hosts, .. } = self;
        let first = hosts[0].name();
        let status = world.service(name)?;
        let message = status.expect("Stalled", "True", "Unconfirmed")?;
        let told = format!("{first} took revision 2 back by itself twice");
        ensure!(message.contains(&told) && message.contains("windlass rollout undo"), "{message}");
        status.expect("Ready", "False", "Unconfirmed")?;
        world.expect_version(*hosts, *port, "v1")?;
        for host in *hosts {
            let login = host.ssh("deploy", "true")?;
            ensure!(login.success(), "{} cannot be logged in to: {login:?}", host.name());
        }
        Ok(())
    }

    /// Waits until the first host, which got v2 at least so many times, has taken it back by itself.
    fn wait_taken_back(&self, world: &World, times: usize) -> Result<()> {
        let Self { name, port, hosts, .. } = self;
        let first = &hosts[0];
        eventually(format_args!("{name} is tried, {times}"), || {
            let starts = world.starts_on(first, name, "v2")?;
            ensure!(starts >= times, "v2 was started {starts} times");
            Ok(())
        })?;
        within(TAKEN_BACK, format_args!("{} takes {name} back, {times}", first.name()), || {
            world.expect_version([first], *port, "v1")?;
            let login = first.ssh("deploy", "true")?;
            ensure!(login.success(), "it cannot be logged in to: {login:?}");
            Ok(())
        })?;
        // By itself the controller looks there again when its own wait after failures is over, a minute by then.
        world.windlass(&["reconcile", &format!("service/{name}")])?.expect(0).map(drop)
    }

    fn starts(&self, world: &World, version: &str) -> Result<Vec<usize>> {
        self.hosts.iter().map(|host| world.starts_on(host, self.name, version)).collect()
    }
}

/// The dead man's switch: a release that kills sshd, and one that drops the network.
#[test]
fn a_release_that_cuts_its_host_off_is_taken_back_by_the_host() -> Result<()> {
    let world = World::new(4)?;
    world.declare_hosts()?;
    let (ssh, net) = world.hosts.split_at(2);
    let ssh = Victims::new(&world, "web", PORT, ssh)?;
    let net = Victims::new(&world, "net", NET_PORT, net)?;
    let victims = [&ssh, &net];
    for host in ssh.hosts {
        // Open connections live on: only who comes anew is refused.
        lay_cut(host, ssh.name, "systemctl stop ssh.socket ssh.service", "systemctl start ssh.service")?;
    }
    for host in net.hosts {
        lay_cut(host, net.name, "ip link set host0 down", "ip link set host0 up")?;
    }
    let mut controller = world.serve()?;
    for Victims { name, hosts, port, .. } in victims {
        world.wait_ready(name, 0)?;
        world.expect_version(*hosts, *port, "v1")?;
    }
    let probers = victims.map(|Victims { hosts, port, .. }| world.probe_on(*hosts, *port));
    for Victims { program, .. } in victims {
        program.starting("v2", CUT)?;
    }
    eventually("sshd is gone", || {
        ensure!(!ssh.hosts[0].ssh("deploy", "true")?.success(), "{} lets people in", ssh.hosts[0].name());
        world.expect_version([&ssh.hosts[0]], PORT, "v2")
    })?;
    eventually("the network is gone", || {
        let link = net.hosts[0].run(&["ip", "link", "show", "host0"])?;
        ensure!(link.contains("state DOWN"), "{link}");
        Ok(())
    })?;
    for times in [1, 2] {
        victims.into_iter().try_for_each(|victims| victims.wait_taken_back(&world, times))?;
    }
    for victims in victims {
        eventually(format_args!("{} is held up", victims.name), || victims.expect_held_up(&world))?;
    }
    for (Victims { name, hosts, .. }, prober) in victims.into_iter().zip(probers) {
        let answers = prober.finish();
        let other = hosts[1].name();
        ensure!(answers.most_down_at_once() <= 1, "{name}: {}", answers.summary());
        ensure!(answers.failures(other) == 0, "{name}: {other} was down:\n{}", answers.summary());
        ensure!(!answers.versions(other).contains("v2"), "{name}: {other} got it:\n{}", answers.summary());
    }
    for victims in victims {
        let starts = victims.starts(&world, "v2")?;
        ensure!(starts == [2, 0], "{}: v2 was started {starts:?} times", victims.name);
    }

    // A person goes back, or declares something else.
    world.windlass(&["rollout", "undo", "service/web"])?.expect(0)?;
    net.program.good("v3")?;
    eventually("web is undone", || {
        let status = world.service(ssh.name)?;
        status.expect("Ready", "False", "Undone")?;
        ensure!(!status.is("Reconciling"), "it is still at it: {}", status.0);
        world.expect_version(ssh.hosts, PORT, "v1")
    })?;
    eventually("net runs what was declared next", || world.expect_version(net.hosts, NET_PORT, "v3"))?;
    world.wait_ready(net.name, 0)?;
    for victims in victims {
        let starts = victims.starts(&world, "v2")?;
        ensure!(starts == [2, 0], "{}: v2 was started {starts:?} times", victims.name);
    }
    controller.check_alive()?;
    world.passed()
}
