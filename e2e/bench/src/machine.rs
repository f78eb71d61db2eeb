//! The machine that a measurement is from.

use std::process::Command;

use anyhow::{Context, Result};

/// What figures depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Machine {
    /// How many cores this process may use.
    pub(crate) cores: usize,
    /// What the processor calls itself.
    pub(crate) processor: String,
    /// The kernel's version.
    pub(crate) kernel: String,
    /// The programs that were measured.
    pub(crate) programs: Vec<String>,
    /// The day.
    pub(crate) date: String,
}

impl Machine {
    /// This one, now.
    ///
    /// # Errors
    /// When it does not tell.
    pub(crate) fn here(windlass: &std::path::Path) -> Result<Self> {
        let processors = std::fs::read_to_string("/proc/cpuinfo").context("reading /proc/cpuinfo")?;
        let model = processors.lines().find(|line| line.starts_with("model name"));
        let model = model.and_then(|line| line.split_once(':')).map_or("unknown", |(_, name)| name.trim());
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").context("reading the kernel's version")?;
        Ok(Self {
            cores: std::thread::available_parallelism().context("counting cores")?.get(),
            processor: model.to_owned(),
            kernel: kernel.trim().to_owned(),
            programs: vec![
                first_line(Command::new(windlass).arg("--version"))?,
                first_line(Command::new("rsync").arg("--version"))?,
                first_line(Command::new("ssh").arg("-V"))?,
            ],
            date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
        })
    }
}

/// What a program says of itself; ssh does on standard error.
fn first_line(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().next().unwrap_or_default();
    Ok(line.split_whitespace().collect::<Vec<_>>().join(" "))
}
