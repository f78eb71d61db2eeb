//! rsync over multiplexed ssh, by the script that a careful operator writes: `e2e/bench/rsync-deploy`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use windlass_testbed::Host;

use crate::contestant::{Contestant, Job, Took, timed};

/// How the script goes about a deploy; see there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Sync, unit, restart, wait: a command each.
    Steps,
    /// The sync, and one remote script for the rest.
    Fused,
}

/// rsync over ssh.
#[derive(Debug)]
pub(crate) struct Rsync {
    ssh_config: PathBuf,
    style: Style,
}

impl Rsync {
    pub(crate) fn new(ssh_config: PathBuf, style: Style) -> Self {
        Self { ssh_config, style }
    }

    /// Ends the open connections. One that is left ends by itself within a minute.
    pub(crate) fn close(&self, hosts: &[Host]) {
        for host in hosts {
            let mut ssh = self.ssh(host);
            let _ = ssh.args(["-O", "exit", host.name()]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }

    fn ssh(&self, _host: &Host) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.arg("-F").arg(&self.ssh_config).stdin(Stdio::null());
        ssh
    }

    fn script(&self, arguments: &[&str], hosts: &[Host]) -> Command {
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("rsync-deploy"));
        command.args(arguments).args(hosts.iter().map(Host::name)).env("SSH_CONFIG", &self.ssh_config);
        command.env(
            "STYLE",
            match self.style {
                Style::Steps => "steps",
                Style::Fused => "fused",
            },
        );
        command
    }

    fn deploy(&self, job: &Job<'_>) -> Result<Duration> {
        let source = job.tree.dir().to_str().context("a path that is not UTF-8")?;
        timed(self.script(&["deploy", job.name, source, &job.port.to_string()], job.hosts))
    }
}

impl Contestant for Rsync {
    fn warm(&self, job: &Job<'_>) -> Result<()> {
        for host in job.hosts {
            let status = self.ssh(host).args([host.name(), "true"]).stderr(Stdio::null()).status();
            anyhow::ensure!(status.context("starting ssh")?.success(), "cannot connect to {}", host.name());
        }
        Ok(())
    }

    fn first(&self, job: &Job<'_>) -> Result<Took> {
        self.deploy(job).map(Took::from)
    }

    fn again(&self, job: &Job<'_>) -> Result<Took> {
        self.deploy(job).map(Took::from)
    }

    fn back(&self, job: &Job<'_>) -> Result<Took> {
        timed(self.script(&["rollback", job.name, &job.port.to_string()], job.hosts)).map(Took::from)
    }

    fn remove(&self, job: &Job<'_>) -> Result<()> {
        timed(self.script(&["remove", job.name], job.hosts)).map(drop)
    }
}
