//! What clients do: puts by one and by many, ranges, and a watch while somebody puts.

use std::sync::Arc;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use etcd_client::{Client, GetOptions, Txn, TxnOp, WatchOptions};
use tokio::task::JoinSet;

use super::server::Server;

/// Bytes of a value.
pub(crate) const VALUE: usize = 256;

/// Puts in one transaction while a store is filled: what a transaction may have.
const AT_ONCE: usize = 100;

/// How often somebody puts while a watch is timed, and how many times: few enough that nobody queues.
const EVERY: Duration = Duration::from_millis(4);
const DELIVERIES: usize = 1000;

/// How long what was put may take to arrive.
const LIMIT: Duration = Duration::from_secs(30);

fn key(number: usize) -> String {
    format!("/bench/keys/{number:06}")
}

/// Writes every key once.
pub(crate) async fn fill(client: &mut Client, keys: usize) -> Result<()> {
    let value = vec![b'v'; VALUE];
    for from in (0..keys).step_by(AT_ONCE) {
        let puts = (from..keys.min(from + AT_ONCE)).map(|number| TxnOp::put(key(number), value.clone(), None));
        client.txn(Txn::new().and_then(puts.collect::<Vec<_>>())).await?;
    }
    Ok(())
}

/// Puts by so many clients at once, each waiting for its answer; how many a second.
pub(crate) async fn puts(server: &Server, clients: usize, puts: usize, round: u32) -> Result<f64> {
    let mut connected = Vec::new();
    for _ in 0..clients {
        connected.push(server.client().await?);
    }
    let mut running = JoinSet::new();
    let began = Instant::now();
    for (number, mut client) in connected.into_iter().enumerate() {
        running.spawn(async move {
            for turn in 0..puts / clients {
                // Over all keys, in no order.
                let key = key((turn * clients + number + round as usize) * 7919 % 10_000);
                client.put(key, vec![b'p'; VALUE], None).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.context("a client panicked")??;
    }
    Ok((puts / clients * clients) as f64 / began.elapsed().as_secs_f64())
}

/// The time of a range of all keys, in milliseconds: the one in the middle of so many.
pub(crate) async fn ranges(server: &Server, keys: usize, times: usize) -> Result<f64> {
    let mut client = server.client().await?;
    let mut took = Vec::new();
    for _ in 0..times {
        let began = Instant::now();
        let found = client.get("/bench/keys/", Some(GetOptions::new().with_prefix())).await?;
        took.push(began.elapsed().as_secs_f64() * 1000.0);
        ensure!(found.kvs().len() == keys, "{} keys instead of {keys}", found.kvs().len());
    }
    took.sort_unstable_by(f64::total_cmp);
    Ok(took[took.len() / 2])
}

/// From sending a put to its event at another client, in milliseconds: of a hundred the slowest but one.
pub(crate) async fn delivery(server: &Server) -> Result<f64> {
    let (mut watcher, mut writer) = (server.client().await?, server.client().await?);
    let mut stream = watcher.watch("/bench/watched/", Some(WatchOptions::new().with_prefix())).await?;
    let created = stream.message().await?.context("the watch ended")?;
    ensure!(created.created(), "no watch was made");
    let sent: Arc<Vec<OnceLock<Instant>>> = Arc::new((0..DELIVERIES).map(|_| OnceLock::new()).collect());
    let begins = Arc::clone(&sent);
    let putting = tokio::spawn(async move {
        let mut clock = tokio::time::interval(EVERY);
        for (number, begin) in begins.iter().enumerate() {
            clock.tick().await;
            let _ = begin.set(Instant::now());
            writer.put(format!("/bench/watched/{}", number % 100), number.to_string(), None).await?;
        }
        anyhow::Ok(())
    });
    let mut took = Vec::new();
    while took.len() < DELIVERIES {
        let told = tokio::time::timeout(LIMIT, stream.message()).await.context("an event does not come")??;
        let now = Instant::now();
        for event in told.context("the watch ended")?.events() {
            let number: usize = event.kv().context("an event without a pair")?.value_str()?.parse()?;
            let begin = sent.get(number).and_then(OnceLock::get).context("an event of what was not put")?;
            took.push(now.duration_since(*begin).as_secs_f64() * 1000.0);
        }
    }
    putting.await.context("the writer panicked")??;
    took.sort_unstable_by(f64::total_cmp);
    Ok(took[took.len() * 99 / 100])
}
