//! Measures Windlass beside rsync over ssh, on throwaway hosts, its store beside etcd, and its engine over a thousand
//! simulated hosts, and says whether it is as quick as it promises to be.
//!
//! A figure that is missed is told, and is no failure: timings are never a test. What cannot be measured is one.

mod connections;
mod contestant;
mod counted;
mod figures;
mod footprint;
mod gitops;
mod ground;
mod machine;
mod race;
mod report;
mod rollback;
mod rsync;
mod samples;
mod scale;
mod store;
mod tree;
mod windlass;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};

use crate::connections::ConnectionsArguments;
use crate::contestant::Row;
use crate::gitops::GitopsArguments;
use crate::ground::Ground;
use crate::race::Wanted;
use crate::report::Report;
use crate::scale::{ControllerArguments, ScaleArguments};
use crate::store::StoreArguments;

/// More rounds than this would not end within the minutes that anybody waits.
const MOST_ROUNDS: u32 = 20;

/// How many hosts the figures that are no race are measured with, as they were promised.
const FEW_HOSTS: u8 = 3;

/// What to measure.
#[derive(Debug, Parser)]
#[command(about = "Measure Windlass beside rsync over ssh, its store beside etcd, and its engine at scale")]
struct Arguments {
    /// How often each of them runs each row
    #[arg(long, env = "BENCH_ROUNDS", default_value_t = 5)]
    rounds: u32,
    /// With how many hosts, divided by commas; none measures only what is no race
    #[arg(long, env = "BENCH_HOSTS", default_value = "3,10", value_delimiter = ',')]
    hosts: Vec<String>,
    /// Which rows of the race
    #[arg(long, value_enum, default_values_t = Row::ALL, value_delimiter = ',')]
    rows: Vec<Row>,
    /// Tell each lap when it ends, with what all processors did meanwhile, the check of the lap included
    #[arg(long)]
    laps: bool,
    /// Leave out what is no race
    #[arg(long)]
    only_race: bool,
    /// Write the tables to this file too, as Markdown
    #[arg(long, value_name = "FILE")]
    doc: Option<PathBuf>,
    #[command(subcommand)]
    other: Option<Other>,
}

/// What else can be measured.
#[derive(Debug, Subcommand)]
enum Other {
    /// The embedded store beside etcd
    Store(StoreArguments),
    /// What a connection to a host costs while nobody uses it
    Connections(ConnectionsArguments),
    /// What following a Git repository costs
    Gitops(GitopsArguments),
    /// Ten thousand Services on a thousand simulated hosts
    Scale(ScaleArguments),
    /// The controller that `scale` measures
    #[command(hide = true)]
    Controller(ControllerArguments),
}

#[expect(clippy::print_stdout, reason = "the tables are what this program is for")]
fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!((1..=MOST_ROUNDS).contains(&arguments.rounds), "1 to {MOST_ROUNDS} rounds");
    let doc = arguments.doc.as_deref();
    match &arguments.other {
        Some(Other::Store(store)) => println!("{}", store::run(store, arguments.rounds, doc)?.text()),
        Some(Other::Scale(scale)) => println!("{}", scale::run(scale, doc)?.text()),
        Some(Other::Controller(controller)) => scale::controller(controller)?,
        Some(Other::Gitops(gitops)) => println!("{}", gitops::run(gitops, doc)?),
        Some(Other::Connections(connections)) => println!("{}", connections::run(connections, doc)?),
        None => hosts(arguments)?,
    }
    Ok(())
}

/// Measures it on throwaway hosts.
#[expect(clippy::print_stdout, reason = "the tables are what this program is for")]
fn hosts(arguments: Arguments) -> Result<()> {
    let parse = |count: &String| count.trim().parse::<u8>().with_context(|| format!("{count} is no number of hosts"));
    let sizes: Vec<u8> =
        arguments.hosts.iter().filter(|count| !count.trim().is_empty()).map(parse).collect::<Result<_>>()?;
    let began = Instant::now();
    let mut report = Report::new(arguments.rounds)?;
    // Each has as many hosts as it is about, so that none of them only takes up room.
    if !arguments.only_race {
        let ground = Ground::new(FEW_HOSTS)?;
        figures::measure(&ground, FEW_HOSTS, &mut report)?;
        ground.clean()?;
    }
    let wanted = Wanted { rows: arguments.rows, laps: arguments.laps };
    for size in sizes {
        let ground = Ground::new(size)?;
        report.races.push(race::run(&ground, size, arguments.rounds, &wanted)?);
        ground.clean()?;
    }
    report.took = began.elapsed();
    println!("{}", report.text());
    if let Some(file) = &arguments.doc {
        std::fs::write(file, report.markdown()).with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(())
}
