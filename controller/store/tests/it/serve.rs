//! The embedded store's server: driven by `etcdctl` of both versions, and by our own client.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use windlass_store::mvcc::{Engine, Memory};
use windlass_store::serve::{Door, Identity, Server};
use windlass_store::{ConnectOptions, Prefix, Store};
use windlass_testbed::EtcdVersion;

use crate::{host, report};

/// A server on a port of its own, until it is dropped.
struct Served {
    endpoint: String,
    stop: CancellationToken,
}

impl Served {
    async fn start() -> Result<Self> {
        let engine = Engine::open(Box::new(Memory::default()), Duration::ZERO)?;
        let server = Server::new(Arc::new(engine), Identity { cluster: 7, member: 8 }, Prefix::default())?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        // Without a scheme: `etcdctl endpoint status` makes the whole of it its `:authority`, which h2 refuses.
        let endpoint = listener.local_addr()?.to_string();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move { server.serve(listener, Door::Open, stopped).await });
        Ok(Self { endpoint, stop })
    }

    /// What `etcdctl` says.
    async fn etcdctl(&self, version: EtcdVersion, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(version.etcdctl());
        command.env("ETCDCTL_API", "3").arg("--endpoints").arg(&self.endpoint).args(arguments);
        let ran = tokio::task::spawn_blocking(move || command.output()).await?;
        let output = ran.context("cannot run etcdctl")?;
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "etcdctl {arguments:?}: {said}");
        Ok(said)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_drives_it() -> Result<()> {
    for version in EtcdVersion::ALL {
        let served = Served::start().await?;
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
            let said = served.etcdctl(version, arguments).await?;
            ensure!(said.contains(expected), "{version:?} {arguments:?}: {said:?} lacks {expected:?}");
        }
        let gone = served.etcdctl(version, &["get", "a/1", "--rev", "3"]).await.expect_err("compacted");
        ensure!(report(gone).contains("required revision has been compacted"), "{version:?}");
        let granted = served.etcdctl(version, &["lease", "grant", "60"]).await?;
        let lease = granted.split_whitespace().nth(1).context("a lease's number")?;
        served.etcdctl(version, &["put", "leased", "x", "--lease", lease]).await?;
        ensure!(served.etcdctl(version, &["lease", "timetolive", lease, "--keys"]).await?.contains("leased"));
        served.etcdctl(version, &["lease", "revoke", lease]).await?;
        ensure!(served.etcdctl(version, &["get", "leased"]).await?.is_empty(), "it goes with its lease");
        let status = served.etcdctl(version, &["endpoint", "status"]).await?;
        ensure!(status.contains("3.5.0"), "{status}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_client_leads_and_follows_in_it() -> Result<()> {
    let served = Served::start().await?;
    let store = Store::connect(&ConnectOptions::new(vec![format!("http://{}", served.endpoint)])).await?;
    let leadership = store.campaign("tester", Duration::from_secs(15)).await?;
    let revision = store.declare(&host("web1"), b"{}".to_vec()).await?;
    ensure!(revision.0 > 1 && leadership.is_valid(), "{revision:?}");
    Ok(())
}
