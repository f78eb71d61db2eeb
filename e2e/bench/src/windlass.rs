//! Windlass, as a person uses it: its commands, while a controller runs.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde_json::json;
use windlass_e2e::{Declaration, binary};

use crate::contestant::{Contestant, Job, Took, timed};

/// Windlass.
#[derive(Debug)]
pub(crate) struct Windlass {
    program: PathBuf,
    dir: PathBuf,
    endpoint: String,
    /// Where its controller logs.
    log: PathBuf,
}

impl Windlass {
    pub(crate) fn new(dir: &Path, endpoint: &str, log: &Path) -> Result<Self> {
        let (dir, endpoint, log) = (dir.to_owned(), endpoint.to_owned(), log.to_owned());
        Ok(Self { program: binary("windlass")?, dir, endpoint, log })
    }

    /// Runs a command that deploys a job. When the service was well on the last host, and when the last host had heard
    /// by a login of its own that it may keep what it was brought, is what the controller has logged of it.
    fn deploys(&self, job: &Job<'_>, arguments: &[&str]) -> Result<Took> {
        let known = fs::metadata(&self.log).context("the controller's log")?.len();
        let whole = timed(self.command(arguments))?;
        let mut told = String::new();
        let mut log = fs::File::open(&self.log).context("the controller's log")?;
        log.seek(SeekFrom::Start(known)).context("the controller's log")?;
        log.read_to_string(&mut told).context("the controller's log")?;
        let last = |what: &str, more: &str| {
            let (what, service) = (format!(" {what} "), format!(" service=default/{} ", job.name));
            let lines =
                told.lines().filter(|line| [what.as_str(), &service, more].iter().all(|part| line.contains(*part)));
            lines.filter_map(|line| line.split_whitespace().next()?.parse::<Timestamp>().ok()).max()
        };
        // Where nothing was switched, nothing was judged and nothing confirmed.
        let confirming = match (last("healthy", ""), last("step done", " step=\"confirm ")) {
            (Some(well), Some(confirmed)) => confirmed.duration_since(well).unsigned_abs(),
            _ => Duration::ZERO,
        };
        Ok(Took { served: whole.saturating_sub(confirming), whole })
    }

    /// A command of it.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("WINDLASS_ENDPOINTS", &self.endpoint).env("NO_COLOR", "1");
        command
    }

    /// What is declared for a job: nothing waits but for health itself, and all hosts change at once.
    pub(crate) fn declaration(job: &Job<'_>) -> Declaration {
        let hosts: Vec<&str> = job.hosts.iter().map(windlass_testbed::Host::name).collect();
        let document = json!({
            "apiVersion": "windlass/v1", "kind": "Service", "metadata": {"name": job.name},
            "spec": {
                "placement": {"hosts": hosts},
                // Nobody but a person looks at the source.
                "source": {"path": job.tree.dir(), "changeDetection": {"method": "contentHash", "interval": "1h"}},
                "runtime": {"target": "python", "entryPoint": "server.py"},
                "network": {"port": job.port, "transport": "http"},
                "health": {
                    "endpoint": "/health", "healthyThreshold": 1, "unhealthyThreshold": 2, "startPeriod": "10s",
                },
                "rollout": {"maxUnavailable": "100%", "minHealthyTime": "0s"},
            },
        });
        Declaration { path: format!("services/default/{}", job.name), document }
    }

    fn service(job: &Job<'_>) -> String {
        format!("service/{}", job.name)
    }
}

impl Contestant for Windlass {
    fn warm(&self, job: &Job<'_>) -> Result<()> {
        let mut arguments = vec!["wait".to_owned(), "--for=condition=Ready".to_owned()];
        arguments.extend(job.hosts.iter().map(|host| format!("host/{}", host.name())));
        timed(self.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>())).map(drop)
    }

    fn first(&self, job: &Job<'_>) -> Result<Took> {
        let file = self.dir.join(format!("{}.json", job.name));
        fs::write(&file, Self::declaration(job).text()).context("writing a declaration")?;
        self.deploys(job, &["apply", "-f", &file.to_string_lossy(), "--wait"])
    }

    fn again(&self, job: &Job<'_>) -> Result<Took> {
        self.deploys(job, &["reconcile", &Self::service(job), "--wait"])
    }

    fn back(&self, job: &Job<'_>) -> Result<Took> {
        self.deploys(job, &["rollout", "undo", &Self::service(job), "--wait"])
    }

    fn remove(&self, job: &Job<'_>) -> Result<()> {
        timed(self.command(&["delete", &Self::service(job), "--wait"])).map(drop)
    }
}
