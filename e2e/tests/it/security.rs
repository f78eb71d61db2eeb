//! Who is talked to at all: plaintext, wrong host keys, refused logins.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use windlass_e2e::{Serve, USER_OF_HOME, World, eventually, holds, host, service, zone};

use crate::{PORT, check_clean, wait_gone};

#[test]
fn plaintext_to_a_remote_host_is_refused_before_any_connection() -> Result<()> {
    let world = World::new(1)?;
    let web1 = &world.hosts[0];
    let program = world.program("web", "v1")?;
    let _controller = world.serve()?;

    // Named in place, so that nothing else has a reason to connect; and in the open by a zone that may not allow it.
    let destination = format!("deploy@{}", web1.address());
    let inline = service("web", PORT, program.dir(), &[&destination]);
    let lax = zone(&world.testbed.cidr()).with("/spec/location", "remote");
    let put = world.put(&lax)?;
    world.put(&inline)?;
    let status = world.wait_not_ready("web", "PlaintextRefused")?;
    status.expect("Stalled", "True", "PlaintextRefused")?;
    eventually("the zone is refused", || {
        let status = world.status("networkzones/internal")?;
        ensure!(status.generation() >= put, "it speaks of {}", status.generation());
        status.expect("Ready", "False", "InvalidDeclaration")
    })?;
    world.delete_key("declared/networkzones/internal")?;
    for transport in ["tcp", "http"] {
        let mut declaration = inline.clone().with("/spec/network/transport", transport);
        // A plain connection is all that `tcp` can be asked.
        declaration.document["spec"]["health"] = serde_json::json!({});
        let generation = world.put(&declaration)?;
        eventually(format_args!("{transport} is refused"), || {
            let status = world.service("web")?;
            ensure!(status.generation() >= generation, "it speaks of {}", status.generation());
            status.expect("Ready", "False", "PlaintextRefused")
        })?;
    }
    world.windlass(&["reconcile", "service/web", "--wait", "--timeout", "20s"])?;
    holds(Duration::from_secs(3), "nobody connects", || {
        let attempts = web1.connection_attempts()?;
        ensure!(attempts == 0, "{attempts} connections were tried");
        Ok(())
    })?;
    world.delete_key("declared/services/default/web")?;
    wait_gone(&world, "web", &[])?;
    ensure!(web1.connection_attempts()? == 0, "its removal connected");

    // By the name of a Host it is the same; looking at the Host itself is no plaintext.
    world.put(&host(web1)?)?;
    world.put(&service("web", PORT, program.dir(), &["web1"]))?;
    world.wait_not_ready("web", "PlaintextRefused")?;
    check_clean(web1, "web")?;

    // Somebody says that this network is fine.
    let generation = world.put(&zone(&world.testbed.cidr()))?;
    eventually("the zone is in force", || {
        let status = world.status("networkzones/internal")?;
        ensure!(status.generation() >= generation, "it speaks of {}", status.generation());
        status.expect("Ready", "True", None)
    })?;
    world.wait_version("web", PORT, "v1")?;
    world.passed()
}

/// One host answers with another key than the pinned one, one refuses the login: both are told, neither is worked
/// around, and the third gets its service.
#[test]
fn a_wrong_host_key_and_a_refused_login_are_told() -> Result<()> {
    let world = World::new(3)?;
    let (web1, web2, web3) = (&world.hosts[0], &world.hosts[1], &world.hosts[2]);
    let program = world.program("web", "v1")?;
    world.declare_hosts()?;
    web1.new_host_key()?;
    let stranger = host(web2)?.with("/spec/identity/keyFile", web2.stranger_key_file().display().to_string());
    world.put(&stranger)?;
    world.put(&service("web", PORT, program.dir(), &world.host_names()))?;
    let _controller = world.serve()?;

    for (path, reason) in [("hosts/web1", "HostKeyRejected"), ("hosts/web2", "LoginRefused")] {
        eventually(format_args!("{path} says {reason}"), || {
            let status = world.status(path)?;
            status.expect("Stalled", "True", reason)?;
            status.expect("Ready", "False", reason)
        })?;
    }
    eventually("web3 is served, and the others are named", || {
        world.expect_version([web3], PORT, "v1")?;
        let status = world.service("web")?;
        status.expect("Ready", "False", None)?;
        ensure!(status.host("web3")?.state == "ready", "web3: {:?}", status.host("web3")?);
        let told = status.host("web1")?.message;
        ensure!(told.contains("host key") && told.contains("sent by the remote host is SHA256:"), "web1: {told}");
        let told = status.host("web2")?.message;
        ensure!(told.contains("login refused") && told.contains("~/.ssh/authorized_keys"), "web2: {told}");
        Ok(())
    })?;
    ensure!(web1.accepted_logins()? == 0, "somebody logged in to a host with the wrong key");
    check_clean(web1, "web")?;
    check_clean(web2, "web")?;

    // The key is really its new one, and the login gets a key that is let in.
    world.put(&host(web1)?)?;
    world.put(&host(web2)?)?;
    world.wait_version("web", PORT, "v1")?;
    world.passed()
}

/// An ssh-agent of its own. Dropping it ends it.
struct Agent {
    process: Child,
    socket: PathBuf,
}

impl Agent {
    fn start(dir: &Path) -> Result<Self> {
        let socket = dir.join("agent");
        let process = Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn();
        let agent = Self { process: process.context("starting ssh-agent")?, socket };
        eventually("the agent listens", || {
            ensure!(agent.socket.exists(), "it has no socket yet");
            Ok(())
        })?;
        Ok(agent)
    }

    fn add(&self, key: &Path) -> Result<()> {
        let mut add = Command::new("ssh-add");
        let done = add.arg("-q").arg(key).env("SSH_AUTH_SOCK", &self.socket).output().context("starting ssh-add")?;
        ensure!(done.status.success(), "ssh-add: {}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The controller's user has an agent. Its keys count where a Host says so, and no file has to be on the disk.
#[test]
fn keys_of_an_agent_let_in() -> Result<()> {
    let world = World::new(2)?;
    let (web1, web2) = (&world.hosts[0], &world.hosts[1]);
    let agent = Agent::start(world.dir())?;
    let environment = vec![("SSH_AUTH_SOCK".to_owned(), agent.socket.display().to_string())];
    let mut controller = world.start(&Serve { name: "serve", environment, ..Serve::default() })?;
    controller.wait_until_up()?;
    let program = world.program("web", "v1")?;
    world.put(&zone(&world.testbed.cidr()))?;
    let key = |path: &Path| path.display().to_string();
    world.put(&host(web1)?.with("/spec/identity", json!({"agent": true})))?;
    // A key file is the only one that is tried, whatever the agent has.
    world.put(&host(web2)?.with("/spec/identity", json!({"keyFile": key(web2.stranger_key_file())})))?;
    world.put(&service("web", PORT, program.dir(), &["web1"]))?;
    for path in ["hosts/web1", "hosts/web2"] {
        eventually(format_args!("{path}: its login is refused"), || {
            world.status(path)?.expect("Ready", "False", "LoginRefused").map(drop)
        })?;
    }
    agent.add(web1.key_file())?;
    agent.add(web2.key_file())?;
    // A refused login is tried again ever later, unless somebody asks.
    for resource in ["host/web2", "service/web"] {
        world.windlass(&["reconcile", resource])?.expect(0)?;
    }
    eventually("it is deployed", || {
        world.expect_version([web1], PORT, "v1")?;
        world.service("web")?.expect("Ready", "True", None).map(drop)
    })?;
    world.status("hosts/web1")?.expect("Ready", "True", None)?;
    world.status("hosts/web2")?.expect("Ready", "False", "LoginRefused")?;
    world.passed()
}

/// Where no key is pinned, what the controller's user knows of the host counts, and nothing is learnt by connecting.
#[test]
fn a_key_in_known_hosts_is_as_good_as_a_pinned_one() -> Result<()> {
    let world = World::new(1)?;
    let web1 = &world.hosts[0];
    let ssh = world.dir().join("home/.ssh");
    fs::create_dir_all(&ssh)?;
    fs::copy(web1.key_file(), ssh.join("id_ed25519"))?;
    let known_hosts = ssh.join("known_hosts");
    let other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIECbeTt7MaivvwPRiStQ28iE+cqpkpYOTB5dQVSHigMW";
    let home = vec![("HOME".to_owned(), world.dir().join("home").display().to_string())];
    let serve = Serve { name: "serve", environment: home, wrapper: USER_OF_HOME, ..Serve::default() };
    let mut controller = world.start(&serve)?;
    controller.wait_until_up()?;

    // By nothing but its address, as ssh would log in to it.
    let program = world.program("web", "v1")?;
    let destination = format!("deploy@{}", web1.address());
    world.put(&zone(&world.testbed.cidr()))?;
    world.put(&service("web", PORT, program.dir(), &[&destination]))?;
    let refused = |words: &'static str| {
        eventually(format_args!("its key is refused: {words}"), || {
            let status = world.service("web")?;
            status.expect("Ready", "False", "HostKeyRejected")?;
            let row = status.host(&destination)?;
            ensure!(row.message.contains(words), "{row:?}");
            Ok(())
        })
    };
    refused("No ED25519 host key is known")?;
    refused("`windlass host add` shows its key")?;
    ensure!(!known_hosts.exists() || fs::read_to_string(&known_hosts)?.is_empty(), "it was learnt by connecting");
    fs::write(&known_hosts, format!("{} {other}\n", web1.address()))?;
    refused("Offending ED25519 key in")?;
    refused("ssh-keygen -lf")?;
    ensure!(web1.accepted_logins()? == 0, "somebody logged in to a host that is not known");
    fs::write(&known_hosts, format!("{}\n", web1.known_hosts_line()?))?;
    world.wait_version("web", PORT, "v1")?;
    world.passed()
}
