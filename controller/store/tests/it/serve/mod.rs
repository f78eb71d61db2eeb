//! The embedded store's server: driven by `etcdctl` of both versions, and by our own client.

mod limits;
mod slow;

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use windlass_store::{ConnectOptions, Store};
use windlass_testbed::EtcdVersion;

use crate::subject::{Embedded, Keeping};
use crate::{host, report};

/// What `etcdctl` says to an embedded store.
fn etcdctl(served: &Embedded, version: EtcdVersion, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(version.etcdctl());
    command.env("ETCDCTL_API", "3").arg("--endpoints").arg(served.address()).args(arguments);
    let output = command.output().context("cannot run etcdctl")?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "etcdctl {arguments:?}: {said}");
    Ok(said)
}

#[test]
fn etcdctl_drives_it() -> Result<()> {
    for version in EtcdVersion::ALL {
        let served = Embedded::start(Keeping::Memory)?;
        let rows: [(&[&str], &str); 11] = [
            (&["put", "a/1", "one"], "OK\n"),
            (&["put", "a/2", "two"], "OK\n"),
            (&["put", "b", "three", "--prev-kv"], "OK\n"),
            (&["get", "--prefix", "a/"], "a/1\none\na/2\ntwo\n"),
            (&["put", "a/1", "uno"], "OK\n"),
            (&["get", "a/1", "--rev", "3"], "a/1\none\n"),
            (
                &["get", "", "--from-key", "--keys-only", "--sort-by", "MODIFY", "--order", "DESCEND"],
                "a/1\n\nb\n\na/2\n\n",
            ),
            (&["del", "a/", "--prefix"], "2\n"),
            (&["compaction", "5"], "compacted revision 5\n"),
            (&["lease", "list"], "found 0 leases\n"),
            (&["member", "list"], "8, started, windlass, , "),
        ];
        for (arguments, expected) in rows {
            let said = etcdctl(&served, version, arguments)?;
            ensure!(said.contains(expected), "{version:?} {arguments:?}: {said:?} lacks {expected:?}");
        }
        let gone = etcdctl(&served, version, &["get", "a/1", "--rev", "3"]).expect_err("compacted");
        ensure!(report(gone).contains("required revision has been compacted"), "{version:?}");
        let granted = etcdctl(&served, version, &["lease", "grant", "60"])?;
        let lease = granted.split_whitespace().nth(1).context("a lease's number")?;
        etcdctl(&served, version, &["put", "leased", "x", "--lease", lease])?;
        ensure!(etcdctl(&served, version, &["lease", "timetolive", lease, "--keys"])?.contains("leased"));
        etcdctl(&served, version, &["lease", "revoke", lease])?;
        ensure!(etcdctl(&served, version, &["get", "leased"])?.is_empty(), "it goes with its lease");
        let status = etcdctl(&served, version, &["endpoint", "status"])?;
        ensure!(status.contains("3.5.0"), "{status}");
    }
    Ok(())
}

#[tokio::test]
async fn our_own_client_leads_and_follows_in_it() -> Result<()> {
    let served = Embedded::start(Keeping::Memory)?;
    let store = Store::connect(&ConnectOptions::new(vec![served.endpoint()])).await?;
    let leadership = store.campaign("tester", Duration::from_secs(15)).await?;
    let revision = store.declare(&host("web1"), b"{}".to_vec()).await?;
    ensure!(revision.0 > 1 && leadership.is_valid(), "{revision:?}");
    Ok(())
}
