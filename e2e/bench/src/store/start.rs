//! How soon a store answers after its process was started, with 10,000 keys and 100,000 revisions of history.

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use super::report::{Report, Values};
use super::server::{self, Server};

/// What it holds.
const KEYS: usize = 10_000;
const REVISIONS: usize = 100_000;

/// Who fills it.
const CLIENTS: usize = 64;

/// What values have, in bytes.
const VALUES: [usize; 2] = [256, 2048];

/// Measures both after an orderly stop and after a kill while they write.
///
/// # Errors
/// When something cannot be measured.
#[expect(clippy::print_stderr, reason = "it takes minutes, and says how far it is")]
pub(crate) async fn measure(plain: bool, rounds: u32, report: &mut Report) -> Result<()> {
    for bytes in VALUES {
        let folder = server::folder()?;
        let mut servers = server::pair(folder.path(), plain).await?;
        for server in &servers {
            eprintln!("start: filling {} with values of {bytes} bytes", server.kind());
            fill(server, bytes, REVISIONS).await.with_context(|| format!("filling {}", server.kind()))?;
        }
        for killed in [false, true] {
            let mut values = [Values::default(), Values::default()];
            for round in 0..rounds {
                eprintln!("start: values of {bytes} bytes, killed: {killed}, round {} of {rounds}", round + 1);
                for (server, values) in servers.iter_mut().zip(&mut values) {
                    if killed {
                        // So that there is something that the disk has and no orderly end.
                        fill(server, bytes, CLIENTS).await?;
                        server.kill()?;
                    } else {
                        server.stop()?;
                    }
                    values.push(server.start().await?.as_secs_f64() * 1000.0);
                }
            }
            report.start(bytes, killed, &values);
        }
    }
    Ok(())
}

/// So many revisions, over all keys.
async fn fill(server: &Server, bytes: usize, revisions: usize) -> Result<()> {
    let mut running = JoinSet::new();
    for number in 0..CLIENTS {
        let mut client = server.client().await?;
        running.spawn(async move {
            for turn in (number..revisions).step_by(CLIENTS) {
                client.put(format!("/bench/history/{:06}", turn % KEYS), vec![b'h'; bytes], None).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.context("a client panicked")??;
    }
    Ok(())
}
