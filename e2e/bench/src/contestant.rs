//! Who is measured: something that brings a directory to hosts.

use std::fmt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use windlass_testbed::Host;

use crate::tree::Tree;

/// A service on some hosts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job<'a> {
    /// What it is called.
    pub(crate) name: &'a str,
    /// Where it listens.
    pub(crate) port: u16,
    /// What it is made of.
    pub(crate) tree: &'a Tree,
    /// Where it runs.
    pub(crate) hosts: &'a [Host],
}

/// A row of the race.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Row {
    /// Nothing of it is on the hosts.
    Cold,
    /// One small file changed.
    OneFile,
    /// Nothing changed.
    Nothing,
    /// Back to the version before.
    Rollback,
}

impl Row {
    /// All of them, in the order in which they run.
    pub(crate) const ALL: [Self; 4] = [Self::Cold, Self::OneFile, Self::Nothing, Self::Rollback];

    /// The most that Windlass may take, as a part of what rsync takes; none where nothing was promised.
    pub(crate) fn target(self) -> Option<f64> {
        match self {
            Self::Cold => Some(1.0),
            Self::OneFile => Some(0.8),
            Self::Nothing => Some(0.5),
            Self::Rollback => None,
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Cold => "cold",
            Self::OneFile => "one changed file",
            Self::Nothing => "nothing changed",
            Self::Rollback => "rollback",
        })
    }
}

/// How long a command took, from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Took {
    /// Until the command ended, but for the time from the last host's verdict to its confirmation.
    pub(crate) served: Duration,
    /// Until the command ended.
    pub(crate) whole: Duration,
}

impl From<Duration> for Took {
    /// For those that end when they have found it well.
    fn from(whole: Duration) -> Self {
        Self { served: whole, whole }
    }
}

/// Something that deploys. Each of these returns when the service answers on every host, with the time that its
/// command took.
pub(crate) trait Contestant {
    /// Makes sure that connections to the hosts are open. Not timed.
    fn warm(&self, job: &Job<'_>) -> Result<()>;

    /// The first deploy of a service.
    fn first(&self, job: &Job<'_>) -> Result<Took>;

    /// A later one, whatever may have changed.
    fn again(&self, job: &Job<'_>) -> Result<Took>;

    /// Back to the version before.
    fn back(&self, job: &Job<'_>) -> Result<Took>;

    /// Takes the service off the hosts. Not timed.
    fn remove(&self, job: &Job<'_>) -> Result<()>;
}

/// Runs a command to its end, and says how long that took.
///
/// # Errors
/// When it cannot be started, or fails; with all that it said.
pub(crate) fn timed(mut command: Command) -> Result<Duration> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let began = Instant::now();
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    let took = began.elapsed();
    ensure!(
        output.status.success(),
        "{command:?} ended with {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(took)
}
