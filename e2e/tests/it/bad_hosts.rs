//! Hosts that lack something, each with the reason and the words that people get, and with what goes on beside it.
//!
//! `docs/bad-input.md` lists them.

use anyhow::{Result, ensure};
use windlass_e2e::{Declaration, World, eventually, service};
use windlass_testbed::{Host, Spare};

use crate::PORT;

/// Somebody else's store.
const OTHER_STORE: &str = "00112233445566778899aabbccddeeff";

/// A host, what is wrong with it, and what is said of it.
struct Fault {
    host: &'static str,
    /// What the status of the Service, and of the Host where it can be seen there, must say.
    reason: &'static str,
    /// What is said, and what to do.
    words: [&'static str; 2],
    /// Whether the Host says it too; a full disk is no matter before something has to be written.
    told_by_host: bool,
}

/// A shell text on a host, as root.
fn sh(host: &Host, text: &str) -> Result<()> {
    host.run(&["sh", "-c", text]).map(drop)
}

/// The service `on-web1` on the host `web1` alone.
fn alone(world: &World, host: &str) -> Result<Declaration> {
    let name = format!("on-{host}");
    let program = world.program(&name, "v1")?;
    Ok(service(&name, PORT, program.dir(), &[host]))
}

/// Waits until a Service says why nothing comes of it, and what to do.
fn wait_told(world: &World, fault: &Fault) -> Result<()> {
    let Fault { host, reason, words, told_by_host } = fault;
    eventually(format_args!("{host}: {reason}"), || {
        let message = world.service(&format!("on-{host}"))?.expect("Ready", "False", *reason)?;
        for words in words {
            ensure!(message.contains(words), "{words:?} is not in {message:?}");
        }
        ensure!(message.contains(host), "{message:?} does not name {host}");
        Ok(())
    })?;
    if *told_by_host {
        eventually(format_args!("host/{host}: {reason}"), || {
            let message = world.status(&format!("hosts/{host}"))?.expect("Ready", "False", *reason)?;
            ensure!(message.contains(words[0]), "{:?} is not in {message:?}", words[0]);
            Ok(())
        })?;
    }
    Ok(())
}

/// Five hosts that cannot be used, one that can with less, and one with two names: in one world, so that each also
/// shows that it holds no other up. Then each is put right, and gets its service without anybody asking.
#[test]
fn hosts_that_lack_something_say_what_and_are_caught_up_when_they_have_it() -> Result<()> {
    const FAULTS: [Fault; 5] = [
        Fault {
            host: "web1",
            reason: "HostUnsuitable",
            words: ["systemd does not run here", "Windlass needs it"],
            told_by_host: true,
        },
        Fault {
            host: "web2",
            reason: "HostUnsuitable",
            words: ["No space left on device", "make room there"],
            told_by_host: true,
        },
        Fault {
            host: "web3",
            reason: "HostUnsuitable",
            words: ["Read-only file system", "mount it for writing"],
            told_by_host: true,
        },
        Fault {
            host: "web4",
            reason: "HostUnsuitable",
            words: ["lingering is off for nolinger", "loginctl enable-linger nolinger"],
            told_by_host: true,
        },
        Fault {
            host: "web5",
            reason: "OwnedByAnother",
            words: [OTHER_STORE, "windlass host adopt"],
            told_by_host: true,
        },
    ];
    let world = World::new(6)?;
    let [web1, web2, web3, web4, web5, web6] = &world.hosts[..] else { unreachable!("six were asked for") };
    sh(web1, "mount -t tmpfs tmpfs /run/systemd")?;
    web2.fill_disk(Spare::default())?;
    sh(
        web3,
        "mkdir -p /opt/windlass && mount --bind /opt/windlass /opt/windlass && mount -o remount,bind,ro /opt/windlass",
    )?;
    sh(web5, &format!("mkdir -p /opt/windlass && echo {OTHER_STORE} >/opt/windlass/cluster"))?;
    web6.set_sshd_option("MaxSessions 1")?;

    world.declare_hosts()?;
    let nolinger = windlass_e2e::host(web4)?.with("/spec/user", "nolinger");
    world.put(&nolinger)?;
    for host in &world.hosts {
        world.put(&alone(&world, host.name())?)?;
    }
    let mut controller = world.serve()?;
    // One session at a time is slow, and enough.
    eventually("web6 is served", || world.expect_version([web6], PORT, "v1"))?;
    world.wait_ready("on-web6", 0)?;
    for fault in &FAULTS {
        wait_told(&world, fault)?;
    }
    one_machine_with_two_names(&world, web6)?;

    sh(web1, "umount /run/systemd")?;
    web2.unfill_disk()?;
    sh(web3, "umount /opt/windlass")?;
    sh(web4, "loginctl enable-linger nolinger")?;
    sh(web5, "rm /opt/windlass/cluster")?;
    for fault in &FAULTS {
        world.windlass(&["reconcile", &format!("service/on-{}", fault.host)])?.expect(0)?;
        world.wait_ready(&format!("on-{}", fault.host), 0)?;
    }
    world.expect_version(&world.hosts, PORT, "v1")?;
    controller.check_alive()?;
    world.passed()
}

/// The second name stops everything that would happen there, and nothing that does.
fn one_machine_with_two_names(world: &World, web6: &Host) -> Result<()> {
    let mut again = windlass_e2e::host(web6)?.with("/metadata/name", "web6-again");
    again.path = "hosts/web6-again".to_owned();
    world.put(&again)?;
    let both = alone(world, "web6")?.with("/spec/placement/hosts", vec!["web6", "web6-again"]);
    world.put(&both)?;
    eventually("two names are told", || {
        let status = world.service("on-web6")?;
        let message = status.expect("Ready", "False", "DuplicateHost")?;
        status.expect("Stalled", "True", "DuplicateHost")?;
        ensure!(message.contains("web6 and web6-again are one machine"), "{message}");
        ensure!(message.contains("remove one of the names"), "{message}");
        world.expect_version([web6], PORT, "v1")
    })?;
    ensure!(world.starts_on(web6, "on-web6", "v1")? == 1, "it was restarted");
    world.put(&alone(world, "web6")?)?;
    world.delete_key("declared/hosts/web6-again")?;
    world.wait_ready("on-web6", 0)?;
    ensure!(world.starts_on(web6, "on-web6", "v1")? == 1, "it was restarted");
    Ok(())
}

/// The same to hosts on which something runs: it goes on, the new version waits, and comes when it can.
#[test]
fn what_runs_goes_on_while_its_host_cannot_take_the_next_version() -> Result<()> {
    const FAULTS: [Fault; 2] = [
        Fault {
            host: "web1",
            reason: "StepFailed",
            words: ["No space left on device", "make room there"],
            told_by_host: false,
        },
        Fault {
            host: "web2",
            reason: "StepFailed",
            words: ["Read-only file system", "mount it for writing"],
            told_by_host: false,
        },
    ];
    let world = World::new(3)?;
    let [web1, web2, web3] = &world.hosts[..] else { unreachable!("three were asked for") };
    world.declare_hosts()?;
    for host in &world.hosts {
        world.put(&alone(&world, host.name())?)?;
    }
    let _controller = world.serve()?;
    for host in &world.hosts {
        world.wait_ready(&format!("on-{}", host.name()), 0)?;
    }
    web1.fill_disk(Spare::default())?;
    sh(web2, "mount --bind /opt/windlass /opt/windlass && mount -o remount,bind,ro /opt/windlass")?;
    web3.set_sshd_option("AllowTcpForwarding no")?;
    // What is open goes on as it was; after this it has to be opened anew.
    sh(web3, "pkill -f '^sshd: deploy'")?;
    for host in &world.hosts {
        world.program(&format!("on-{}", host.name()), "v2")?;
    }
    for fault in &FAULTS {
        wait_told(&world, fault)?;
        world.expect_version([crate::host(&world, fault.host)?], PORT, "v1")?;
    }
    // Health that nobody can ask for is no verdict: the version is neither confirmed nor called unhealthy.
    wait_told(
        &world,
        &Fault {
            host: "web3",
            reason: "StepFailed",
            words: ["the health endpoint cannot be asked", "AllowTcpForwarding"],
            told_by_host: false,
        },
    )?;
    world.version_on(web3, PORT)?;

    web1.unfill_disk()?;
    sh(web2, "umount /opt/windlass")?;
    web3.clear_sshd_options()?;
    sh(web3, "pkill -f '^sshd: deploy'")?;
    for host in &world.hosts {
        let name = format!("on-{}", host.name());
        world.windlass(&["reconcile", &format!("service/{name}")])?.expect(0)?;
        eventually(format_args!("{name} answers v2"), || world.expect_version([host], PORT, "v2"))?;
        world.wait_ready(&name, 0)?;
    }
    world.passed()
}
