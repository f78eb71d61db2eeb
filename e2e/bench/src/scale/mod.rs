//! Ten thousand Services on a thousand simulated hosts: the engine that `windlass serve` runs, over a real etcd and
//! over its own store.

mod alone;
mod controller;
mod crowd;
mod ground;
mod report;
mod run;
mod statuses;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;

pub(crate) use self::controller::{ControllerArguments, run as controller};
use self::crowd::Crowd;
use self::ground::Kind;
use self::report::Report;
use self::run::Course;

/// How much is measured.
#[derive(Debug, Args)]
pub(crate) struct ScaleArguments {
    /// Over which stores
    #[arg(long, value_enum, default_values_t = [Kind::Etcd, Kind::Embedded], value_delimiter = ',')]
    stores: Vec<Kind>,
    /// How many hosts
    #[arg(long, default_value_t = 1000)]
    hosts: usize,
    /// How many Services, one of which runs on every host
    #[arg(long, default_value_t = 10_000)]
    services: usize,
    /// Changes a second
    #[arg(long, default_value_t = 20)]
    rate: u32,
    /// For how many seconds
    #[arg(long, default_value_t = 60)]
    changing: u64,
    /// For how many seconds it is watched at rest
    #[arg(long, default_value_t = 60)]
    resting: u64,
}

/// Runs over each store in turn.
///
/// # Errors
/// When something cannot be measured.
#[expect(clippy::print_stderr, reason = "it takes minutes, and says how far it is")]
pub(crate) fn run(arguments: &ScaleArguments, doc: Option<&Path>) -> Result<Report> {
    let began = Instant::now();
    let crowd = Crowd { hosts: arguments.hosts, services: arguments.services };
    let course = Course {
        rate: arguments.rate,
        changing: Duration::from_secs(arguments.changing),
        resting: Duration::from_secs(arguments.resting),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("making a runtime")?;
    let report = runtime.block_on(async {
        eprintln!("the hosts alone");
        let mut report = Report::new(alone::time(crowd).await?)?;
        for kind in &arguments.stores {
            let found = run::run(*kind, crowd, course).await;
            report.runs.push(found.with_context(|| format!("over {kind}"))?);
        }
        report.took = began.elapsed();
        anyhow::Ok(report)
    })?;
    if let Some(file) = doc {
        std::fs::write(file, report.markdown()).with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(report)
}
