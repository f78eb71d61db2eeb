//! Hosts: they boot, they are told apart, they break as told, and nothing is left of them.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use windlass_testbed::{Host, Spare, Testbed};

/// Boots one host for a test that needs no more.
fn one_host() -> Result<(Testbed, Host)> {
    let testbed = Testbed::new()?;
    let host = testbed.host("web1")?;
    Ok((testbed, host))
}

/// Whether a new SSH connection works, within the ten seconds that it may take to connect.
fn reachable(host: &Host) -> Result<bool> {
    Ok(host.ssh("root", "true")?.success())
}

#[test]
fn three_hosts_boot_and_are_told_apart() -> Result<()> {
    let testbed = Testbed::new()?;
    let hosts = testbed.hosts(3)?;
    let mut machine_ids = BTreeSet::new();
    let mut host_keys = BTreeSet::new();
    for (host, name) in hosts.iter().zip(["web1", "web2", "web3"]) {
        assert_eq!(host.name(), name);
        assert_eq!(host.ssh("root", "hostname")?.stdout.trim(), name);
        assert_eq!(host.ssh("root", "cat /etc/machine-id")?.stdout.trim(), host.machine_id()?);
        machine_ids.insert(host.machine_id()?);
        host_keys.insert(host.host_key_line()?);
    }
    assert_eq!((machine_ids.len(), host_keys.len()), (3, 3));
    Ok(())
}

#[test]
fn logins_may_what_they_should() -> Result<()> {
    let (_testbed, host) = one_host()?;
    let says = |user: &str, line: &str| -> Result<String> { Ok(host.ssh(user, line)?.stdout.trim().to_owned()) };
    assert_eq!(says("deploy", "sudo --non-interactive id -un")?, "root");
    assert_eq!(says("app", "sudo --non-interactive id -un")?, "");
    assert_eq!(says("app", "loginctl show-user app -p Linger")?, "Linger=yes");
    assert_eq!(says("app", "systemd-run --user --quiet --wait --pipe id -un")?, "app");
    assert_eq!(says("nolinger", "sudo --non-interactive id -un")?, "");
    assert_eq!(says("nolinger", "loginctl show-user nolinger -p Linger")?, "Linger=no");

    let refused = host.ssh_with_key(host.stranger_key_file(), "root", "true")?;
    assert_eq!(refused.code, 255, "{refused:?}");
    assert!(refused.stderr.contains("Permission denied"), "{refused:?}");
    Ok(())
}

#[test]
fn systemd_is_whole() -> Result<()> {
    let (_testbed, host) = one_host()?;
    assert_eq!(host.run(&["systemctl", "is-system-running"])?, "running\n");
    let script = r#"id -u; echo "$STATE_DIRECTORY"; touch "$STATE_DIRECTORY"/a; touch /opt/a"#;
    let sandbox = ["-pDynamicUser=yes", "-pStateDirectory=windlass/x.y", "-pProtectSystem=strict"];
    let run = ["systemd-run", "--quiet", "--wait", "--pipe"];
    let finished = host.exec(&[&run[..], &sandbox[..], &["sh", "-c", script]].concat())?;
    let (id, state) = finished.stdout.split_once('\n').context("two lines")?;
    assert!((61184..=65519).contains(&id.parse::<u32>()?), "{finished:?}");
    assert_eq!(state, "/var/lib/windlass/x.y\n");
    assert!(finished.stderr.contains("Read-only file system"), "{finished:?}");
    Ok(())
}

/// They once shared a cgroup, and stopping a unit on one waited for the other's of that name.
#[test]
fn units_of_one_name_on_two_hosts_do_not_meet() -> Result<()> {
    let testbed = Testbed::new()?;
    let hosts = testbed.hosts(2)?;
    for host in &hosts {
        host.run(&["systemd-run", "--quiet", "--unit=same", "sleep", "1000"])?;
    }
    let pids = |host: &Host| -> Result<Vec<String>> {
        let show = host.run(&["systemctl", "show", "--value", "-p", "ControlGroup", "same"])?;
        let trees = host.run(&["find", "/sys/fs/cgroup", "-name", "cgroup.procs"])?;
        let procs = format!("{}/cgroup.procs", show.trim());
        let file = trees.lines().find(|file| file.ends_with(&procs)).context("no cgroup")?;
        Ok(host.read_file(file)?.lines().map(str::to_owned).collect())
    };
    for host in &hosts {
        let main = host.run(&["systemctl", "show", "--value", "-p", "MainPID", "same"])?;
        assert_eq!(pids(host)?, [main.trim()]);
    }
    hosts[0].run(&["systemctl", "stop", "same"])?;
    assert_eq!(hosts[1].run(&["systemctl", "is-active", "same"])?, "active\n");
    Ok(())
}

#[test]
fn a_partition_cuts_and_mends() -> Result<()> {
    let testbed = Testbed::new()?;
    let hosts = testbed.hosts(2)?;
    hosts[0].partition()?;
    assert_eq!((reachable(&hosts[0])?, reachable(&hosts[1])?), (false, true));
    hosts[0].mend()?;
    hosts[0].mend()?;
    assert!(reachable(&hosts[0])?);
    Ok(())
}

#[test]
fn swallowed_packets_are_counted_and_not_answered() -> Result<()> {
    let (_testbed, host) = one_host()?;
    assert_eq!((host.connection_attempts()?, host.accepted_logins()?), (0, 0));
    assert!(reachable(&host)?);
    assert_eq!((host.connection_attempts()?, host.accepted_logins()?), (1, 1));
    host.swallow()?;
    host.swallow()?;
    let started = Instant::now();
    assert!(!reachable(&host)?);
    assert!(started.elapsed() > Duration::from_secs(9), "refused instead of swallowed");
    assert!(host.connection_attempts()? > 1);
    host.unswallow()?;
    host.unswallow()?;
    host.reset_connection_count()?;
    assert!(reachable(&host)?);
    assert_eq!((host.connection_attempts()?, host.accepted_logins()?), (1, 2));
    Ok(())
}

#[test]
fn a_host_boots_again_from_its_disk() -> Result<()> {
    let (_testbed, host) = one_host()?;
    let boot_id = || host.read_file("/proc/sys/kernel/random/boot_id");
    let uptime = || host.run(&["systemctl", "show", "--value", "-p", "UserspaceTimestampMonotonic"]);
    let first = uptime()?;
    assert!(!boot_id()?.is_empty());
    host.write_file("/opt/kept/file", "kept")?;
    host.write_file("/run/lost", "lost")?;
    let machine_id = host.machine_id()?;

    host.power_cut()?;
    host.power_cut()?;
    assert!(!host.is_running());
    assert!(!reachable(&host)?);
    assert!(host.exec(&["true"]).is_err());
    assert_eq!(std::fs::read_to_string(host.root().join("opt/kept/file"))?, "kept");
    host.boot()?;
    host.boot()?;
    let second = uptime()?;
    assert_ne!(first, second);
    assert_eq!(host.read_file("/opt/kept/file")?, "kept");
    assert!(host.read_file("/run/lost").is_err());
    assert!(reachable(&host)?);

    host.reboot()?;
    assert_ne!(second, uptime()?);
    assert_eq!((host.read_file("/opt/kept/file")?.as_str(), host.machine_id()?), ("kept", machine_id));
    assert!(reachable(&host)?);
    Ok(())
}

/// A reboot that somebody asks for by SSH brings the host back without the testbed's help.
#[test]
fn a_host_that_reboots_itself_comes_back() -> Result<()> {
    let (_testbed, host) = one_host()?;
    host.write_file("/run/lost", "lost")?;
    host.ssh("deploy", "sudo systemctl reboot")?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while !host.exec(&["test", "!", "-e", "/run/lost"]).is_ok_and(|test| test.success()) {
        assert!(Instant::now() < deadline, "it does not come back:\n{}", host.console());
        std::thread::sleep(Duration::from_millis(50));
    }
    host.boot()?;
    assert!(reachable(&host)?);
    Ok(())
}

/// A shutdown stops every process of the host before it kills them; what the testbed runs there on
/// behalf of a test is no exception, and nobody outside may wait for it to go on.
#[test]
fn what_runs_there_for_a_test_does_not_hold_a_reboot_up() -> Result<()> {
    let (_testbed, host) = one_host()?;
    std::thread::scope(|scope| {
        let asleep: Vec<_> = (0..8).map(|_| scope.spawn(|| host.exec(&["sleep", "100"]))).collect();
        while host.run(&["pgrep", "--count", "sleep"])?.trim_end() != "8" {
            std::thread::sleep(Duration::from_millis(20));
        }
        host.reboot()?;
        for thread in asleep {
            let ended = thread.join().expect("no panic")?;
            assert!(matches!(ended.code, 137 | 143), "killed with its host: {ended:?}");
        }
        anyhow::Ok(())
    })
}

#[test]
fn a_partitioned_host_boots_all_the_same() -> Result<()> {
    let (_testbed, host) = one_host()?;
    host.power_cut()?;
    host.partition()?;
    host.boot()?;
    assert!(!reachable(&host)?);
    host.mend()?;
    assert!(reachable(&host)?);
    Ok(())
}

#[test]
fn a_full_disk_is_full_and_keeps_what_it_has() -> Result<()> {
    let (_testbed, host) = one_host()?;
    host.write_file("/opt/kept", "kept")?;
    host.fill_disk(Spare::default())?;
    for path in ["/opt/new", "/etc/new", "/var/lib/new", "/root/new"] {
        let error = host.write_file(path, "new").expect_err("the disk is full");
        assert!(error.to_string().contains("No space left"), "{error}");
    }
    assert_eq!(host.read_file("/opt/kept")?, "kept");
    host.run(&["dd", "if=/dev/zero", "of=/opt/kept", "conv=notrunc", "bs=1", "count=2"])?;
    assert!(reachable(&host)?, "logins need no disk");
    host.reboot()?;
    host.fill_disk(Spare { bytes: 1 << 20, inodes: 10 })?;
    host.run(&["dd", "if=/dev/zero", "of=/opt/new", "bs=64k", "count=8"])?;
    assert!(!host.exec(&["dd", "if=/dev/zero", "of=/opt/more", "bs=64k", "count=32"])?.success());
    host.unfill_disk()?;
    host.write_file("/opt/new", "new")?;
    Ok(())
}

#[test]
fn a_small_disk_over_a_folder() -> Result<()> {
    let (_testbed, host) = one_host()?;
    host.write_file("/opt/windlass/a", "a")?;
    host.small_disk("/opt/windlass", 64 << 10)?;
    assert_eq!(host.read_file("/opt/windlass/a")?, "a");
    assert!(host.write_file("/opt/windlass/big", vec![0; 128 << 10]).is_err());
    host.write_file("/opt/elsewhere", vec![0; 128 << 10])?;
    host.run(&["rm", "/opt/windlass/big"])?;
    host.write_file("/opt/windlass/b", "b")?;
    host.remove_small_disk("/opt/windlass")?;
    assert_eq!(host.run(&["ls", "/opt/windlass"])?, "a\nb\n");
    host.write_file("/opt/windlass/big", vec![0; 128 << 10])?;
    Ok(())
}

#[test]
fn sshd_is_changed_and_changed_back() -> Result<()> {
    let (_testbed, host) = one_host()?;
    let setting = || host.run(&["sh", "-c", "sshd -T | grep allowtcpforwarding"]);
    host.set_sshd_option("AllowTcpForwarding no")?;
    assert_eq!(setting()?, "allowtcpforwarding no\n");
    assert!(reachable(&host)?);
    assert!(host.set_sshd_option("NoSuchOption yes").is_err());
    host.clear_sshd_options()?;
    assert_eq!(setting()?, "allowtcpforwarding yes\n");

    let old = host.known_hosts_line()?;
    host.new_host_key()?;
    assert_ne!(host.known_hosts_line()?, old);
    assert!(reachable(&host)?);
    Ok(())
}

#[test]
fn two_testbeds_live_side_by_side() -> Result<()> {
    let (one, two) = (Testbed::new()?, Testbed::new()?);
    assert_ne!(one.cidr(), two.cidr());
    let (first, second) = (one.host("web1")?, two.host("web1")?);
    assert_ne!(first.address(), second.address());
    drop((one, first));
    assert!(reachable(&second)?);
    Ok(())
}

/// The process that the test below kills: it boots a host, tells, and waits to be killed.
#[test]
fn victim() -> Result<()> {
    let Some(note) = std::env::var_os("WINDLASS_TESTBED_VICTIM") else { return Ok(()) };
    let (_testbed, host) = one_host()?;
    std::fs::write(&note, host.root().as_os_str().as_encoded_bytes())?;
    std::thread::sleep(Duration::from_secs(120));
    Ok(())
}

#[test]
fn what_a_killed_process_left_is_taken_down() -> Result<()> {
    let notes = tempfile::tempdir()?;
    let note = notes.path().join("root");
    let mut victim = Command::new(std::env::current_exe()?)
        .args(["--exact", "hosts::victim", "--nocapture"])
        .env("WINDLASS_TESTBED_VICTIM", &note)
        .stdout(Stdio::null())
        .spawn()?;
    let deadline = Instant::now() + Duration::from_secs(180);
    while !note.exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(Duration::from_millis(50));
    victim.kill()?;
    victim.wait()?;
    let root = std::fs::read_to_string(&note)?;
    assert!(Path::new(&root).join("etc/machine-id").exists());

    // Another test's may have been first.
    windlass_testbed::gc()?;
    assert!(!Path::new(&root).exists());
    let id = root.trim_end_matches("/root").replace("/run/windlass-testbed/", "wlt").replace('/', "");
    for there in ["/run/netns", "/sys/class/net"] {
        assert!(!Path::new(there).join(&id).exists(), "{there}/{id} is left");
    }
    windlass_testbed::gc()?;
    Ok(())
}
