//! An etcd that asks for a certificate and knows its users: whatever it does with them, what runs goes on.

use std::fs;

use anyhow::{Context, Result, ensure};
use windlass_e2e::{Serve, World, eventually, service};
use windlass_testbed::{Etcd, EtcdOptions, EtcdVersion, Transport};

use crate::PORT;

/// The password of the controller's user. It must not turn up anywhere else.
const PASSWORD: &str = "sentinel-5Yq9vJ";

/// Makes a user with a role of the same name, who may do this below these prefixes.
fn make_user(etcd: &Etcd, user: &str, password: &str, grants: &[(&str, &str)]) -> Result<()> {
    etcd.etcdctl(&["role", "add", user])?;
    for (right, prefix) in grants {
        etcd.etcdctl(&["role", "grant-permission", user, "--prefix=true", right, prefix])?;
    }
    etcd.etcdctl(&["user", "add", &format!("{user}:{password}")])?;
    etcd.etcdctl(&["user", "grant-role", user, user]).map(drop)
}

/// A world whose etcd trusts nobody: the controller is `control`, by a password, and people are `windlass`, by the
/// name in their certificate.
fn guarded() -> Result<World> {
    let etcd = Etcd::start(EtcdOptions { version: EtcdVersion::V3_4, transport: Transport::MutualTls })?;
    make_user(&etcd, "control", PASSWORD, &[("readwrite", "/windlass/")])?;
    let people = [("read", "/windlass/"), ("readwrite", "/windlass/declared/"), ("readwrite", "/windlass/requests/")];
    make_user(&etcd, "windlass", "nobody types this", &people)?;
    etcd.enable_auth("hunter2")?;
    World::around(etcd, 1)
}

/// Waits until the controller's log says this after its first `seen` bytes.
fn wait_logged(controller: &windlass_e2e::Controller, seen: usize, words: &[&str]) -> Result<()> {
    eventually(format_args!("the log says {words:?}"), || {
        let log = controller.log();
        let line = log[seen..].lines().find(|line| words.iter().all(|word| line.contains(word)));
        line.map(drop).with_context(|| log[seen..].to_owned())
    })
}

#[test]
fn an_etcd_with_certificates_and_passwords_serves_a_fleet() -> Result<()> {
    let world = guarded()?;
    let file = world.dir().join("password");
    fs::write(&file, format!("{PASSWORD}\n"))?;
    let login = [("WINDLASS_USER", "control".to_owned()), ("WINDLASS_PASSWORD_FILE", file.display().to_string())];
    let environment = login.map(|(name, value)| (name.to_owned(), value)).to_vec();
    let mut controller = world.start(&Serve { name: "serve", environment, ..Serve::default() })?;
    controller.wait_until_up()?;
    let program = world.program("web", "v1")?;
    world.declare_hosts()?;
    let web = service("web", PORT, program.dir(), &["web1"]);
    world.windlass_with_input(&["apply", "-f", "-", "--wait", "--timeout", "60s"], &web.text())?.expect(0)?;
    world.expect_version(&world.hosts, PORT, "v1")?;

    // A restart of etcd makes every token void; a new one is asked for.
    world.etcd.restart()?;
    program.good("v2")?;
    world.windlass(&["reconcile", "service/web", "--wait", "--timeout", "60s"])?.expect(0)?;
    world.expect_version(&world.hosts, PORT, "v2")?;

    // Somebody takes its role away: told by name, and what runs goes on; given back, it goes on by itself.
    let seen = controller.log().len();
    world.etcd.etcdctl(&["user", "revoke-role", "control", "control"])?;
    program.good("v3")?;
    wait_logged(&controller, seen, &["permission"])?;
    world.expect_version(&world.hosts, PORT, "v2")?;
    world.etcd.etcdctl(&["user", "grant-role", "control", "control"])?;
    world.wait_version("web", PORT, "v3")?;

    controller.check_alive()?;
    let stored = world.etcd.etcdctl(&["get", "--prefix", "/"])?;
    let arguments = fs::read(format!("/proc/{}/cmdline", controller.id()))?;
    let shown = [controller.log(), stored, String::from_utf8_lossy(&arguments).into_owned()];
    ensure!(shown.iter().all(|text| !text.is_empty() && !text.contains(PASSWORD)), "the password is in {shown:#?}");
    world.passed()
}
