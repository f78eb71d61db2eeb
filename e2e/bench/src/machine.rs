//! The machine that a measurement is from.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

/// The unit of `/proc/stat` and `/proc/<id>/stat`: USER_HZ, which is 100 on every machine that Linux runs on by now.
const TICK: Duration = Duration::from_millis(10);

/// What figures depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Machine {
    /// How many cores this process may use.
    cores: usize,
    /// What the processor calls itself.
    processor: String,
    /// The kernel's version.
    kernel: String,
    /// The programs that were measured.
    programs: Vec<String>,
    /// The day.
    date: String,
}

impl Machine {
    /// This one, now, with programs and the argument by which each tells its version.
    ///
    /// # Errors
    /// When it does not tell.
    pub(crate) fn here(programs: &[(&Path, &str)]) -> Result<Self> {
        let processors = std::fs::read_to_string("/proc/cpuinfo").context("reading /proc/cpuinfo")?;
        let model = processors.lines().find(|line| line.starts_with("model name"));
        let model = model.and_then(|line| line.split_once(':')).map_or("unknown", |(_, name)| name.trim());
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").context("reading the kernel's version")?;
        Ok(Self {
            cores: std::thread::available_parallelism().context("counting cores")?.get(),
            processor: model.to_owned(),
            kernel: kernel.trim().to_owned(),
            programs: programs
                .iter()
                .map(|(program, flag)| first_line(Command::new(program).arg(flag)))
                .collect::<Result<_>>()?,
            date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
        })
    }

    /// In a line.
    pub(crate) fn told(&self) -> String {
        let Self { cores, processor, kernel, programs, date } = self;
        format!("{date}; {cores} cores of {processor}, kernel {kernel}; {}", programs.join("; "))
    }
}

/// How long all processors together have been busy since the machine began.
///
/// # Errors
/// When the machine does not tell.
pub(crate) fn busy() -> Result<Duration> {
    let text = std::fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    let line = text.lines().next().and_then(|line| line.strip_prefix("cpu")).context("/proc/stat without a sum")?;
    let ticks =
        line.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>().context("reading /proc/stat")?;
    // user, nice, system, idle, iowait, irq, softirq; what follows is counted in these, or is another machine's.
    let busy = ticks.iter().enumerate().filter(|(place, _)| matches!(place, 0..=2 | 5..=6)).map(|(_, ticks)| ticks);
    Ok(TICK * u32::try_from(busy.sum::<u64>()).context("too many ticks")?)
}

/// The processor time of a process by its `/proc/<id>/stat`: the first `count` of its own time, that in the kernel, and the
/// same two of children that it has waited for.
///
/// # Errors
/// When that is no such text.
pub(crate) fn processor_time(stat: &str, count: usize) -> Result<Duration> {
    // The second field is a name in parentheses; these are the 14th to 17th.
    let (_, fields) = stat.rsplit_once(')').context("a stat without a name")?;
    let ticks = fields.split_whitespace().skip(11).take(count).map(str::parse);
    let ticks: Vec<u32> = ticks.collect::<Result<_, _>>().context("reading stat")?;
    Ok(TICK * ticks.iter().sum())
}

/// What a program says of itself; ssh does on standard error.
fn first_line(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().next().unwrap_or_default();
    Ok(line.split_whitespace().collect::<Vec<_>>().join(" "))
}
