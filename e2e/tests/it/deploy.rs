//! Deploying: by command, by raw put, by a change of the source; and what is no declaration at all.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use windlass_e2e::{Broken, World, WorldOptions, broken_values, eventually, holds, service};
use windlass_testbed::EtcdVersion;

use crate::{PORT, Running, wait_gone};

/// What a person does: files, `apply`, `rollout status`, `get`, `wait`, `delete`.
#[test]
fn three_hosts_by_commands() -> Result<()> {
    by_commands(World::with(WorldOptions { hosts: 3, etcd: EtcdVersion::V3_5 })?)
}

/// The same with nothing but the controller, which carries its store.
#[test]
fn three_hosts_by_commands_on_the_embedded_store() -> Result<()> {
    by_commands(World::embedded(3)?)
}

fn by_commands(world: World) -> Result<()> {
    let _controller = world.serve()?;
    let program = world.program("web", "v1")?;
    let declared = world.dir().join("declared");
    fs::create_dir(&declared)?;
    fs::write(declared.join("zone.yaml"), windlass_e2e::zone(&world.testbed.cidr()).text())?;
    let mut hosts = String::new();
    for host in &world.hosts {
        let (name, address, key) = (host.name(), host.address(), host.host_key_line()?);
        let file = host.key_file().display();
        hosts += &format!(
            "---\napiVersion: windlass/v1\nkind: Host\nmetadata:\n  name: {name}\n  labels: {{role: web}}\nspec:\n  \
             address: {address}\n  user: deploy\n  identity: {{keyFile: {file}}}\n  hostKeys: [{key}]\n"
        );
    }
    fs::write(declared.join("hosts.yaml"), hosts)?;
    fs::write(declared.join("web.yaml"), service("web", PORT, program.dir(), &world.host_names()).text())?;

    let folder = declared.display().to_string();
    // With Hosts and a zone that only the files declare, it is told what applying them would do.
    let planned = world.windlass(&["plan", "-f", &folder])?.expect(3)?;
    ensure!(planned.contains("begin: deploy to revision 1 (new"), "plan -f says:\n{planned}");
    for host in &world.hosts {
        ensure!(planned.contains(&format!("{}: stage 1\n", host.name())), "plan -f says:\n{planned}");
    }
    world.windlass(&["get", "service/web"])?.expect(1)?;
    let applied = world.windlass(&["apply", "-f", &folder])?.expect(0)?;
    for name in ["networkzone/internal", "host/web1", "host/web3", "service/web"] {
        ensure!(applied.contains(name), "apply says nothing of {name}:\n{applied}");
    }
    world.windlass(&["rollout", "status", "service/web", "--timeout", "90s"])?.expect(0)?;
    world.expect_version(&world.hosts, PORT, "v1")?;
    world.windlass(&["wait", "service/web", "--for=condition=Ready", "--timeout", "10s"])?.expect(0)?;

    let table = world.windlass(&["get", "services"])?.expect(0)?;
    ensure!(table.contains("web") && table.contains("3/3"), "get services says:\n{table}");
    let table = world.windlass(&["get", "hosts"])?.expect(0)?;
    ensure!(["web1", "web2", "web3"].iter().all(|name| table.contains(name)), "get hosts says:\n{table}");
    let json = world.windlass(&["get", "service/web", "-o", "json"])?.expect(0)?;
    let _: serde_json::Value = serde_json::from_str(&json)?;
    world.windlass(&["plan", "service/web"])?.expect(0)?;
    world.windlass(&["rollout", "history", "service/web"])?.expect(0)?;

    // Edit, apply, wait: never waits for the old code, however long the source's interval is.
    program.good("v2")?;
    world.windlass(&["apply", "-f", &folder])?.expect(0)?;
    world.windlass(&["rollout", "status", "service/web", "--timeout", "90s"])?.expect(0)?;
    world.expect_version(&world.hosts, PORT, "v2")?;

    world.windlass(&["delete", "service/web", "--wait", "--timeout", "60s"])?.expect(0)?;
    wait_gone(&world, "web", &world.hosts)?;
    world.passed()
}

/// What anybody does who has etcdctl, and mistakes in it; on etcd 3.4.
#[test]
fn three_hosts_by_raw_put_and_del() -> Result<()> {
    raw_put_and_del(EtcdVersion::V3_4)
}

/// The same on etcd 3.5.
#[test]
fn three_hosts_by_raw_put_and_del_on_etcd_3_5() -> Result<()> {
    raw_put_and_del(EtcdVersion::V3_5)
}

fn raw_put_and_del(etcd: EtcdVersion) -> Result<()> {
    let running = Running::in_world(World::with(WorldOptions { hosts: 3, etcd })?)?;
    let Running { world, web, .. } = &running;
    let fingerprint = |host: &windlass_testbed::Host| {
        host.run(&["systemctl", "show", "--property=MainPID", "windlass-default.web.service"])
    };
    let before = world.hosts.iter().map(fingerprint).collect::<Result<Vec<_>>>()?;

    for Broken { what, value, reason, words } in broken_values(web) {
        let put = world.put_bytes(&format!("declared/{}", web.path), &value)?;
        eventually(format_args!("{what}: the status says {reason}"), || {
            let status = world.service("web")?;
            ensure!(status.generation() >= put, "it speaks of {}, not {put}", status.generation());
            status.expect("Stalled", "True", reason)?;
            let message = status.expect("Ready", "False", reason)?;
            for words in words {
                ensure!(message.contains(words), "{words:?} is not in {message:?}");
            }
            ensure!(message.len() < 4096 && !message.contains('\0'), "{message:?}");
            Ok(())
        })?;
        world.expect_version(&world.hosts, PORT, "v1")?;
    }
    // What was told in a burst is anchored once it is quiet.
    eventually("all of the trail is anchored", || {
        let said = world.windlass(&["audit", "verify"])?;
        ensure!(said.code == 0 && !format!("{said:?}").contains("not anchored yet"), "{said:?}");
        Ok(())
    })?;
    // Nothing spins on it either: what is wrong is said once.
    let revision = world.etcd.revision()?;
    holds(Duration::from_secs(3), "a declaration that makes no sense is written about once", || {
        let now = world.etcd.revision()?;
        let written = || world.etcd.etcdctl(&["get", "--prefix", "/windlass", "--write-out=fields"]);
        ensure!(now == revision, "etcd went from revision {revision} to {now}; all of it: {}", written()?);
        Ok(())
    })?;

    let generation = world.put(web)?;
    world.wait_ready("web", generation)?;
    let after = world.hosts.iter().map(fingerprint).collect::<Result<Vec<_>>>()?;
    ensure!(before == after, "what ran was restarted: {before:?}, {after:?}");

    // More than once, since hosts that end at the same time end in another order each time.
    for _ in 0..4 {
        world.delete_key(&format!("declared/{}", web.path))?;
        wait_gone(world, "web", &world.hosts)?;
        let generation = world.put(web)?;
        world.wait_ready("web", generation)?;
    }
    world.delete_key(&format!("declared/{}", web.path))?;
    wait_gone(world, "web", &world.hosts)?;
    running.world.passed()
}

#[test]
fn a_source_change_rolls_out_by_itself() -> Result<()> {
    let Running { world, mut controller, program, web } = Running::on(3)?;
    let prober = world.probe(PORT);
    program.good("v2")?;
    world.wait_version("web", PORT, "v2")?;
    program.good("v3")?;
    program.put("notes/more.txt", "a file more")?;
    world.wait_version("web", PORT, "v3")?;
    let answers = prober.finish();
    let most = answers.most_down_at_once();
    ensure!(most <= 1, "{most} hosts were down at once, and maxUnavailable is 1:\n{}", answers.summary());

    // The same words again deploy nothing.
    let starts = world.starts("web", "v3")?;
    let generation = world.put(&web)?;
    world.wait_ready("web", generation)?;
    ensure!(world.starts("web", "v3")? == starts, "an unchanged declaration restarted it");

    // Other settings with the same files do.
    let generation = world.put(&web.clone().with("/spec/runtime/env", serde_json::json!({"GREETING": "hello"})))?;
    world.wait_ready("web", generation)?;
    for host in &world.hosts {
        let pid = host.run(&["systemctl", "show", "--property=MainPID", "--value", "windlass-default.web.service"])?;
        let environment = host.run(&["cat", &format!("/proc/{}/environ", pid.trim())])?;
        ensure!(environment.split('\0').any(|line| line == "GREETING=hello"), "{}: {environment}", host.name());
    }

    // Keys that nobody knows what to do with are left alone.
    for path in ["declared/services/default/Upper", "declared/pods/default/x", "declared/x", "requests/x", "nonsense"] {
        world.put_text(path, "hello")?;
    }
    world.put_text("requests/services/default/web/typo", "{\"request\": \"explode\"}")?;
    program.good("v4")?;
    world.wait_version("web", PORT, "v4")?;
    controller.check_alive()?;
    world.passed()
}
