//! The memory of the whole program with 10,000 declarations, beside etcd with the same keys.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use etcd_client::{Client, GetOptions, KeyValue, Txn, TxnOp};
use serde_json::json;

use super::report::Report;
use super::server::{self, Server};

/// Declarations.
const DECLARED: usize = 10_000;

/// How long the controller may take to write a status for each.
const SETTLES: Duration = Duration::from_secs(300);

/// How long nothing is written by somebody who has nothing to do any more, but for what a lease costs.
const QUIET: Duration = Duration::from_secs(10);

/// Pairs of a page, or of a transaction.
const PAGE: usize = 100;

/// Declares services whose source is not there: each has its status and its events, and no host is reached. Then gives
/// etcd what lies in the store.
///
/// # Errors
/// When something cannot be measured.
#[expect(clippy::print_stderr, reason = "it takes a minute, and says how far it is")]
pub(crate) async fn measure(plain: bool, report: &mut Report) -> Result<()> {
    let folder = server::folder()?;
    let [windlass, etcd] = server::pair(folder.path(), plain).await?;
    eprintln!("memory: {DECLARED} declarations");
    let mut client = windlass.client().await?;
    for from in (0..DECLARED).step_by(PAGE) {
        let puts = (from..from + PAGE).map(|number| {
            let name = format!("service-{number:05}");
            TxnOp::put(format!("/windlass/declared/services/default/{name}"), declaration(&name), None)
        });
        client.txn(Txn::new().and_then(puts.collect::<Vec<_>>())).await?;
    }
    eprintln!("memory: waiting for their statuses");
    let begun = std::time::Instant::now();
    let mut last = (0, 0);
    loop {
        let statuses = count(&mut client, "/windlass/status/services/").await?;
        let all = count(&mut client, "/windlass/").await?;
        if statuses == DECLARED && last == (statuses, all) {
            break;
        }
        last = (statuses, all);
        ensure!(begun.elapsed() < SETTLES, "after {SETTLES:?} {statuses} of {DECLARED} have a status");
        tokio::time::sleep(QUIET).await;
    }
    let copied = copy(&mut client, &mut etcd.client().await?).await?;
    eprintln!("memory: {copied} keys");
    tokio::time::sleep(QUIET).await;
    report.memory(DECLARED, copied, [resident(&windlass)?, resident(&etcd)?]);
    Ok(())
}

fn declaration(name: &str) -> String {
    json!({
        "apiVersion": "windlass/v1", "kind": "Service",
        "metadata": {"name": name, "labels": {"team": "storefront", "tier": "web"}},
        "spec": {
            "placement": {"hosts": ["198.18.7.7"]},
            "source": {"path": "/srv/src/storefront", "changeDetection": {"method": "contentHash", "interval": "1h"}},
            "runtime": {"target": "python", "entryPoint": "server.py", "env": {"LOG_LEVEL": "info", "WORKERS": "4"}},
            "network": {"port": 8080, "transport": "http"},
            "health": {"endpoint": "/health", "interval": "5s", "timeout": "2s"},
            "rollout": {"maxUnavailable": 1},
        },
    })
    .to_string()
}

async fn count(client: &mut Client, prefix: &str) -> Result<usize> {
    let found = client.get(prefix, Some(GetOptions::new().with_prefix().with_count_only())).await?;
    usize::try_from(found.count()).context("a count")
}

/// Writes to one what lies in the other.
async fn copy(from: &mut Client, to: &mut Client) -> Result<usize> {
    let mut copied = 0;
    let mut begin = b"\0".to_vec();
    loop {
        let options = GetOptions::new().with_from_key().with_limit(PAGE as i64);
        let page = from.get(begin, Some(options)).await?;
        let put = |pair: &KeyValue| TxnOp::put(pair.key(), pair.value(), None);
        to.txn(Txn::new().and_then(page.kvs().iter().map(put).collect::<Vec<_>>())).await?;
        copied += page.kvs().len();
        let Some(last) = page.kvs().last().filter(|_| page.more()) else { return Ok(copied) };
        begin = [last.key(), &[0]].concat();
    }
}

/// Resident memory, in megabytes.
fn resident(server: &Server) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id()?)).context("asking for its memory")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").trim().parse().context("VmRSS")?;
    Ok(kilobytes * 1024.0 / 1e6)
}
