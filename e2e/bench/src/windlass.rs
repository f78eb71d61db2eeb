//! Windlass, as a person uses it: its commands, while a controller runs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use windlass_e2e::{Declaration, binary};

use crate::contestant::{Contestant, Job, timed};

/// Windlass.
#[derive(Debug)]
pub(crate) struct Windlass {
    program: PathBuf,
    dir: PathBuf,
    endpoint: String,
}

impl Windlass {
    pub(crate) fn new(dir: &Path, endpoint: &str) -> Result<Self> {
        Ok(Self { program: binary("windlass")?, dir: dir.to_owned(), endpoint: endpoint.to_owned() })
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

    fn first(&self, job: &Job<'_>) -> Result<Duration> {
        let file = self.dir.join(format!("{}.json", job.name));
        std::fs::write(&file, Self::declaration(job).text()).context("writing a declaration")?;
        timed(self.command(&["apply", "-f", &file.to_string_lossy(), "--wait"]))
    }

    fn again(&self, job: &Job<'_>) -> Result<Duration> {
        timed(self.command(&["reconcile", &Self::service(job), "--wait"]))
    }

    fn back(&self, job: &Job<'_>) -> Result<Duration> {
        timed(self.command(&["rollout", "undo", &Self::service(job), "--wait"]))
    }

    fn remove(&self, job: &Job<'_>) -> Result<()> {
        timed(self.command(&["delete", &Self::service(job), "--wait"])).map(drop)
    }
}
