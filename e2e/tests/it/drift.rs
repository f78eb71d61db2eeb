//! What somebody changes on a host behind Windlass's back is told, then put right.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use windlass_e2e::{eventually, holds};
use windlass_testbed::Host;

use crate::{PORT, Running};

const UNIT: &str = "windlass-default.web.service";
const UNIT_FILE: &str = "/etc/systemd/system/windlass-default.web.service";

/// What is changed, the script that does it as root, and a script that succeeds once it is put right.
const CHANGES: [(&str, &str, &str); 6] = [
    (
        "a file was edited",
        "echo '# edited' | tee -a /opt/windlass/default.web/releases/*/server.py",
        "! grep -q edited /opt/windlass/default.web/releases/*/server.py",
    ),
    (
        "a file was added",
        "echo hello >$(echo /opt/windlass/default.web/releases/*/)added.py",
        "! ls /opt/windlass/default.web/releases/*/added.py",
    ),
    (
        "a file was removed",
        "rm /opt/windlass/default.web/releases/*/server.py",
        "ls /opt/windlass/default.web/releases/*/server.py",
    ),
    (
        "the unit was stopped",
        "systemctl stop windlass-default.web.service",
        "systemctl is-active --quiet windlass-default.web.service",
    ),
    (
        "the unit file was changed",
        "sed -i '/^.Service.$/a Environment=EDITED=1' /etc/systemd/system/windlass-default.web.service\n\
         systemctl daemon-reload",
        "! grep -q EDITED /etc/systemd/system/windlass-default.web.service",
    ),
    (
        "it does not start at boot any more",
        "systemctl disable --quiet windlass-default.web.service",
        "systemctl is-enabled --quiet windlass-default.web.service",
    ),
];

fn main_pid(host: &Host) -> Result<String> {
    host.run(&["systemctl", "show", "--property=MainPID", "--value", UNIT])
}

#[test]
fn what_was_changed_on_a_host_is_told_and_put_right() -> Result<()> {
    let Running { world, controller: _controller, .. } = Running::on(2)?;
    let (web1, web2) = (&world.hosts[0], &world.hosts[1]);
    let unit_file = web1.read_file(UNIT_FILE)?;
    let untouched = main_pid(web2)?;
    for (what, change, put_right) in CHANGES {
        world.wait_ready("web", 0)?;
        let before = world.etcd.revision()?;
        web1.run(&["sh", "-euc", change])?;
        eventually(format_args!("{what}: it is put right"), || {
            let done = web1.exec(&["sh", "-c", put_right])?;
            ensure!(done.success(), "it is not: {}{}", done.stdout, done.stderr);
            world.service("web")?.expect("Ready", "True", None)?;
            world.expect_version([web1], PORT, "v1")
        })?;
        let told = world.statuses_since("web", before)?;
        let drifted = told.iter().find(|status| status.is("Drifted"));
        let drifted = drifted.with_context(|| format!("{what}: no status since {before} said Drifted: {told:?}"))?;
        drifted.expect("Drifted", "True", "DriftFound")?;
        ensure!(drifted.host("web1")?.state == "drifted", "{what}: {:?}", drifted.host("web1")?);
        ensure!(!world.service("web")?.is("Drifted"), "{what}: it still says Drifted");
    }
    ensure!(web1.read_file(UNIT_FILE)? == unit_file, "the unit file differs from what it was");
    ensure!(main_pid(web2)? == untouched, "the other host's program was restarted");
    world.passed()
}

/// What a person adds by `systemctl edit` is told. Whether it is taken away or left, nothing is restarted again and
/// again for it.
#[test]
fn a_drop_in_is_told_and_restarts_nothing_for_ever() -> Result<()> {
    const FOLDER: &str = "/etc/systemd/system/windlass-default.web.service.d";
    let Running { world, controller: _controller, .. } = Running::on(1)?;
    let web1 = &world.hosts[0];
    let before = world.etcd.revision()?;
    let starts = world.starts("web", "v1")?[0];
    web1.write_file(&format!("{FOLDER}/a.conf"), "[Service]\nEnvironment=EDITED=1\n")?;
    web1.run(&["systemctl", "daemon-reload"])?;
    eventually("it is told", || {
        let told = world.statuses_since("web", before)?;
        ensure!(told.iter().any(|status| status.is("Drifted")), "no status said Drifted");
        Ok(())
    })?;
    holds(Duration::from_secs(8), "it is repaired once at most", || {
        let now = world.starts("web", "v1")?[0];
        ensure!(now <= starts + 1, "started {} times for one drop-in", now - starts);
        Ok(())
    })?;
    web1.run(&["rm", "-rf", FOLDER])?;
    web1.run(&["systemctl", "daemon-reload"])?;
    world.windlass(&["reconcile", "service/web", "--wait", "--timeout", "60s"])?;
    world.wait_ready("web", 0)?;
    ensure!(!world.service("web")?.is("Drifted"), "it still says Drifted");
    world.passed()
}
