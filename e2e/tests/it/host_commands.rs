//! `windlass host add` and `host check` on real hosts.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use windlass_e2e::{Ran, World, eventually, host};
use windlass_testbed::Host;

use crate::masked;

/// A host that does not answer is told within this, from the command's start.
const TOLD: Duration = Duration::from_secs(10);

/// The fingerprint of a host's key, as the host itself tells it.
fn fingerprint(host: &Host) -> Result<String> {
    let line = host.run(&["ssh-keygen", "-lf", "/etc/ssh/ssh_host_ed25519_key.pub"])?;
    line.split(' ').nth(1).map(str::to_owned).with_context(|| format!("no fingerprint in {line}"))
}

/// Makes sure that a command ended so, and said all of this, on whichever output.
fn expect(ran: &Ran, code: i32, words: &[&str]) -> Result<()> {
    ensure!(ran.code == code, "expected exit code {code}: {ran}");
    for words in words {
        ensure!(ran.stdout.contains(words) || ran.stderr.contains(words), "{words:?} is not in: {ran}");
    }
    Ok(())
}

#[test]
fn a_machine_is_added_once_its_key_is_known() -> Result<()> {
    let world = World::new(1)?;
    let web1 = &world.hosts[0];
    let home = world.dir().join("home");
    fs::create_dir_all(home.join(".ssh"))?;
    let (address, key_file) = (format!("deploy@{}", web1.address()), web1.key_file().display().to_string());
    let fingerprint = fingerprint(web1)?;
    let base = ["host", "add", "web1", "--address", &address, "--key-file", &key_file];
    let with = |more: &[&str]| -> Result<Ran> { world.windlass_at_home(&home, &[&base[..], more].concat()) };
    let nothing = || -> Result<()> {
        ensure!(world.keys("declared/")?.is_empty(), "something was written");
        Ok(())
    };

    // Another fingerprint, and a person who is not sure.
    let wrong = with(&["--fingerprint", "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"])?;
    expect(
        &wrong,
        1,
        &["the key is not the one with the fingerprint SHA256:AAAA", &fingerprint, "nothing was written"],
    )?;
    nothing()?;
    let unsure = world.windlass_on_terminal(&home, &base, "no\n")?;
    expect(
        &unsure,
        1,
        &[&format!("ED25519 {fingerprint}"), "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub", "not confirmed"],
    )?;
    nothing()?;

    // Another key where ssh has learnt one before.
    let known_hosts = home.join(".ssh/known_hosts");
    let other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIECbeTt7MaivvwPRiStQ28iE+cqpkpYOTB5dQVSHigMW";
    fs::write(&known_hosts, format!("{} {other}\n", web1.address()))?;
    let changed = with(&["--fingerprint", &fingerprint])?;
    expect(&changed, 1, &["ANOTHER KEY", "nothing was written", "ssh-keygen -f", "-R"])?;
    nothing()?;
    fs::write(&known_hosts, format!("{}\n", web1.known_hosts_line()?))?;

    // A login that will not do.
    let lacking = format!("nolinger@{}", web1.address());
    let refused = world.windlass_at_home(
        &home,
        &["host", "add", "web1", "--address", &lacking, "--key-file", &key_file, "--fingerprint", &fingerprint],
    )?;
    expect(&refused, 1, &["It is the one in", "loginctl enable-linger nolinger", "cannot be used as it is"])?;
    nothing()?;

    // On paper first, then for real.
    let printed = with(&["--fingerprint", &fingerprint, "--label", "role=web", "--print"])?.expect(0)?;
    nothing()?;
    let dry = world.windlass_with_input(&["apply", "--dry-run", "-f", "-"], &printed)?;
    expect(&dry, 0, &["host/web1 created (dry run)"])?;
    let added = world.windlass_on_terminal(&home, &base, "yes\n")?;
    expect(&added, 0, &["It is the one in", "host/web1 created", "placement: {hosts: [web1]}"])?;
    let _controller = world.serve()?;
    eventually("web1 is ready", || world.status("hosts/web1")?.expect("Ready", "True", "Reachable").map(drop))?;

    // The same again is nothing; something else wants to be said.
    expect(&with(&["--fingerprint", &fingerprint])?, 0, &["host/web1 unchanged"])?;
    let before = world.value("declared/hosts/web1")?;
    let labelled = ["--fingerprint", &fingerprint, "--label", "role=web"];
    let refused = with(&labelled)?;
    expect(&refused, 1, &["metadata.labels.role: nothing -> \"web\"", "host/web1 is declared already", "--replace"])?;
    ensure!(world.value("declared/hosts/web1")? == before, "it was written all the same");
    let replaced = with(&[&labelled[..], &["--replace"]].concat())?;
    expect(&replaced, 0, &["host/web1 replaced", "placement: {selector: {role: web}}"])?;
    world.passed()
}

#[test]
fn hosts_are_checked_side_by_side() -> Result<()> {
    let world = World::new(3)?;
    let [web1, web2, web3] = &world.hosts[..] else { unreachable!("three were asked for") };
    world.declare_hosts()?;
    let program = world.program("web", "v1")?;
    world.put(&windlass_e2e::service("web", crate::PORT, program.dir(), &["web1"]))?;
    let _controller = world.serve()?;
    world.wait_ready("web", 0)?;

    let well = world.windlass(&["host", "check", "web1", "host/web3"])?;
    // Whoever answers first is told first.
    expect(&well, 0, &["web1   connection   ok", "web3   owner        ok        none yet"])?;
    ensure!(well.stdout.lines().count() == 1 + 2 * 13, "a line for each aspect: {well}");
    insta::assert_snapshot!(masked(&world.windlass(&["host", "check", "web1"])?), @r"
    exit code 0
    HOST CHECK RESULT DETAIL
    web1 connection ok N.N.N.N port N answers
    web1 host-key ok it is the pinned one
    web1 login ok as deploy
    web1 forwarding ok health endpoints can be asked
    web1 sessions ok N at once
    web1 privilege ok deploy may sudo: units are the machine's
    web1 lingering ok not needed
    web1 systemd ok version N, running
    web1 tools ok all there
    web1 disk ok N GiB and N files free for /opt/windlass
    web1 clock ok as here
    web1 owner ok this store
    web1 machine ok HASH
    --- stderr
    ");

    web2.swallow()?;
    web3.set_sshd_option("AllowTcpForwarding no")?;
    let mut twin = host(web1)?.with("/metadata/name", "twin");
    twin.path = "hosts/twin".to_owned();
    world.put(&twin)?;
    eventually("the controller has seen the twin", || {
        world.status("hosts/twin")?.expect("Ready", "True", "Reachable").map(drop)
    })?;
    let began = Instant::now();
    let all = world.windlass(&["host", "check"])?;
    let took = began.elapsed();
    expect(&all, 1, &["error: 4 of 4 hosts cannot be used as they are"])?;
    ensure!(took < TOLD, "it took {took:?} with a host that swallows packets");
    for (start, words) in [
        ("web2   connection   failed", "no answer within 8 s"),
        ("web3   forwarding   failed", "AllowTcpForwarding local"),
        ("twin   machine      failed", "which web1 is too"),
        ("web1   machine      failed", "which twin is too"),
    ] {
        let line = all.stdout.lines().find(|line| line.starts_with(start));
        ensure!(line.is_some_and(|line| line.contains(words)), "no line {start:?} with {words:?}: {all}");
    }
    // Whoever answers is told before whoever does not.
    let last = all.stdout.lines().last().unwrap_or_default();
    ensure!(last.starts_with("web2   the rest     unknown"), "the dead one held others up: {all}");

    let json = world.windlass(&["host", "check", "-o", "json"])?;
    ensure!(json.code == 1, "{json}");
    let document: Value = serde_json::from_str(&json.stdout)?;
    let names: Vec<&str> =
        document["hosts"].as_array().into_iter().flatten().filter_map(|host| host["host"].as_str()).collect();
    ensure!(names == ["twin", "web1", "web2", "web3"], "{names:?}");

    // What nobody has declared can be looked at too, where ssh knows it.
    let home = world.dir().join("home");
    fs::create_dir_all(home.join(".ssh"))?;
    let destination = format!("app@{}", web1.address());
    let undeclared = ["host", "check", "--address", &destination, "--key-file", &web1.key_file().display().to_string()];
    expect(&world.windlass_at_home(&home, &undeclared)?, 1, &["windlass host add"])?;
    fs::write(home.join(".ssh/known_hosts"), format!("{}\n", web1.known_hosts_line()?))?;
    expect(&world.windlass_at_home(&home, &undeclared)?, 0, &["it is in known_hosts", "it is on for app"])?;
    world.passed()
}
