//! The embedded store beside Debian's etcd: the same clients, certificates and disk, in turn.

mod client;
mod load;
mod memory;
mod report;
mod server;
mod start;

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;

use self::report::{Report, Row, Values};
use self::server::Server;

pub(crate) use self::client::connect;
pub(crate) use self::server::{Credentials, ETCD, folder, free_address};

/// What is measured beside etcd.
#[derive(Debug, Args)]
pub(crate) struct StoreArguments {
    /// In the clear instead of by TLS, on both sides
    #[arg(long)]
    plain: bool,
    /// Only rows whose name has this in it
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

/// Puts of one client in a round: about a second of them.
const PUTS_OF_ONE: usize = 2000;

/// Clients at once, each with a connection of its own, and what they put together in a round.
const MANY: usize = 64;
const PUTS_OF_MANY: usize = 20_000;

/// Keys that a range gives, and ranges in a round.
const KEYS: usize = 10_000;
const RANGES: usize = 20;

/// Runs all rows, each contestant in turn.
///
/// # Errors
/// When something cannot be measured.
pub(crate) fn run(arguments: &StoreArguments, rounds: u32, doc: Option<&Path>) -> Result<Report> {
    let began = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("making a runtime")?;
    let mut report = Report::new(rounds, !arguments.plain)?;
    let wants = |name: &str| arguments.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    runtime.block_on(async {
        if wants("load") {
            loads(arguments, rounds, &mut report).await?;
        }
        if wants("memory") {
            memory::measure(arguments.plain, &mut report).await?;
        }
        if wants("start") {
            start::measure(arguments.plain, rounds, &mut report).await?;
        }
        anyhow::Ok(())
    })?;
    report.took = began.elapsed();
    if let Some(file) = doc {
        std::fs::write(file, report.markdown()).with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(report)
}

/// A round of one row with one of the two, and its figure.
async fn lap(row: Row, server: &Server, round: u32) -> Result<f64> {
    match row {
        Row::OnePuts => load::puts(server, 1, PUTS_OF_ONE, round).await,
        Row::ManyPuts => load::puts(server, MANY, PUTS_OF_MANY, round).await,
        Row::Range => load::ranges(server, KEYS, RANGES).await,
        Row::Delivery => load::delivery(server).await,
    }
}

/// What is asked of servers that run already.
#[expect(clippy::print_stderr, reason = "it takes a minute, and says how far it is")]
async fn loads(arguments: &StoreArguments, rounds: u32, report: &mut Report) -> Result<()> {
    let folder = server::folder()?;
    let servers = server::pair(folder.path(), arguments.plain).await?;
    for server in &servers {
        load::fill(&mut server.client().await?, KEYS).await.with_context(|| format!("filling {}", server.kind()))?;
    }
    for row in Row::ALL {
        let mut values = [Values::default(), Values::default()];
        for round in 0..rounds {
            eprintln!("{row}: round {} of {rounds}", round + 1);
            // Each comes first as often as the other.
            for turn in 0..servers.len() {
                let index = (turn + round as usize) % servers.len();
                let found = lap(row, &servers[index], round).await;
                values[index].push(found.with_context(|| format!("{row}, {}", servers[index].kind()))?);
            }
        }
        report.compare(row, &values);
    }
    Ok(())
}
