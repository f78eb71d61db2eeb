//! etcd: both versions start, answer, die and come back, with and without TLS and passwords.

use std::net::{Ipv4Addr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use windlass_testbed::{Etcd, EtcdOptions, EtcdVersion, Login, Transport};

fn check(test: impl Fn(EtcdVersion) -> Result<()>) -> Result<()> {
    EtcdVersion::ALL.into_iter().try_for_each(|version| test(version).with_context(|| format!("{version:?}")))
}

/// What reading a key says, on standard output or as an error.
fn get(mut etcdctl: Command) -> Result<Result<String, String>> {
    let output = etcdctl.args(["--command-timeout=1s", "get", "key"]).output()?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ok(if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) })
}

#[test]
fn what_was_acknowledged_survives_a_kill() -> Result<()> {
    check(|version| {
        let etcd = Etcd::start(version)?;
        let endpoint = etcd.endpoint();
        etcd.etcdctl(&["put", "key", "value"])?;
        let revision = etcd.revision()?;
        etcd.kill9();
        assert!(!etcd.try_etcdctl(&["--command-timeout=300ms", "get", "key"], None)?.success());
        etcd.restart()?;
        assert_eq!(etcd.endpoint(), endpoint);
        assert_eq!(etcd.etcdctl(&["get", "key", "--print-value-only"])?, "value\n");
        assert_eq!(etcd.revision()?, revision);
        Ok(())
    })
}

#[test]
fn it_is_the_version_that_was_asked_for() -> Result<()> {
    check(|version| {
        let etcd = Etcd::start(version)?;
        let expected = match version {
            EtcdVersion::V3_4 => "3.4.",
            EtcdVersion::V3_5 => "3.5.",
        };
        let status = etcd.etcdctl(&["endpoint", "status"])?;
        assert!(status.contains(expected), "{status}");
        Ok(())
    })
}

#[test]
fn a_frozen_etcd_accepts_connections_and_answers_once_thawed() -> Result<()> {
    check(|version| {
        let etcd = Etcd::start(version)?;
        etcd.freeze()?;
        let asked = etcd.try_etcdctl(&["--command-timeout=300ms", "get", "key"], None)?;
        assert!(!asked.success());
        etcd.thaw()?;
        etcd.etcdctl(&["put", "key", "value"])?;
        Ok(())
    })
}

#[test]
fn tls_is_demanded_and_checked() -> Result<()> {
    check(|version| {
        for transport in [Transport::Tls, Transport::MutualTls] {
            let etcd = Etcd::start(EtcdOptions { version, transport })?;
            etcd.etcdctl(&["put", "key", "value"])?;
            let tls = etcd.certificates().context("no certificates")?;
            let mut wary = etcd.etcdctl_command();
            wary.env("ETCDCTL_CACERT", &tls.stranger_authority);
            // 3.4 gives no better reason than that it ran out of time.
            assert!(get(wary)?.is_err());
            let mut nobody = etcd.etcdctl_command();
            nobody.env_remove("ETCDCTL_CERT").env_remove("ETCDCTL_KEY");
            assert_eq!(get(nobody)?.is_ok(), transport == Transport::Tls);
        }
        Ok(())
    })
}

#[test]
fn passwords_are_demanded_and_roles_kept() -> Result<()> {
    check(|version| {
        let etcd = Etcd::start(version)?;
        etcd.enable_auth("secret")?;
        etcd.add_user(&Login { user: "ann".into(), password: "pass".into() }, "/a/")?;
        etcd.etcdctl(&["put", "key", "value"])?;
        let login = |login: &str| {
            let mut command = etcd.etcdctl_command();
            command.env("ETCDCTL_USER", login);
            command
        };
        assert!(get(login("root:secret"))?.is_ok());
        let error = get(login("root:wrong"))?.expect_err("a wrong password is refused");
        assert!(error.contains("authentication failed"), "{error}");
        let error = get(login("ann:pass"))?.expect_err("another prefix is refused");
        assert!(error.contains("permission denied"), "{error}");
        assert!(login("ann:pass").args(["put", "/a/key", "value"]).output()?.status.success());
        Ok(())
    })
}

#[test]
fn many_run_side_by_side() -> Result<()> {
    std::thread::scope(|scope| {
        let starts: Vec<_> = (0..6).map(|_| scope.spawn(|| Etcd::start(EtcdVersion::V3_5))).collect();
        let etcds: Result<Vec<_>> =
            starts.into_iter().map(|start| start.join().expect("starting does not panic")).collect();
        for etcd in etcds? {
            etcd.etcdctl(&["put", "key", "value"])?;
            assert_eq!(etcd.revision()?, 2);
        }
        Ok(())
    })
}

#[test]
fn an_etcd_without_listener_refuses_at_once() -> Result<()> {
    let etcd = Etcd::start(EtcdVersion::V3_4)?;
    etcd.kill9();
    let address = etcd.endpoint().trim_start_matches("http://").to_owned();
    let address: std::net::SocketAddr = address.parse()?;
    assert!(address.ip().is_loopback() && address.ip() != Ipv4Addr::LOCALHOST);
    assert!(TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err());
    Ok(())
}

#[test]
fn a_cluster_of_three_outlives_its_leader() -> Result<()> {
    check(|version| {
        let etcd = Etcd::cluster(version)?;
        assert_eq!(etcd.endpoints().len(), 3);
        etcd.etcdctl(&["put", "key", "value"])?;
        let lost = etcd.kill_leader()?;
        assert!(etcd.endpoints().contains(&lost), "{lost}");
        let others: Vec<String> = etcd.endpoints().into_iter().filter(|endpoint| *endpoint != lost).collect();
        let deadline = Instant::now() + Duration::from_secs(30);
        let put = || etcd.try_etcdctl(&["put", "key", "another"], None);
        while !put()?.success() {
            assert!(Instant::now() < deadline, "no other one leads");
        }
        // By those that are left, and by the lost one once it has come back.
        for endpoint in others.iter().chain([&lost]) {
            if *endpoint == lost {
                etcd.start_missing()?;
            }
            let mut etcdctl = etcd.etcdctl_command();
            etcdctl.env("ETCDCTL_ENDPOINTS", endpoint);
            assert_eq!(get(etcdctl)?, Ok("key\nanother\n".to_owned()), "{endpoint}");
        }
        Ok(())
    })
}

/// The process that the test below kills: it starts an etcd, tells, and waits to be killed.
#[test]
fn victim() -> Result<()> {
    let Some(note) = std::env::var_os("WINDLASS_TESTBED_VICTIM") else { return Ok(()) };
    let etcd = Etcd::start(EtcdVersion::V3_4)?;
    std::fs::write(&note, etcd.endpoint())?;
    std::thread::sleep(Duration::from_secs(120));
    Ok(())
}

#[test]
fn etcd_goes_with_a_killed_process() -> Result<()> {
    let notes = tempfile::tempdir()?;
    let note = notes.path().join("endpoint");
    let mut victim = Command::new(std::env::current_exe()?)
        .args(["--exact", "etcd::victim", "--nocapture"])
        .env("WINDLASS_TESTBED_VICTIM", &note)
        .stdout(Stdio::null())
        .spawn()?;
    let eventually = |what: &str, done: &dyn Fn() -> bool| {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !done() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let endpoint = || std::fs::read_to_string(&note).unwrap_or_default();
    let listens = || TcpStream::connect(endpoint().trim_start_matches("http://")).is_ok();
    eventually("etcd starts", &listens);
    victim.kill()?;
    victim.wait()?;
    eventually("etcd ends", &|| !listens());
    Ok(())
}
