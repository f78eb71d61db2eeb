//! What was found beside etcd, as people read it.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use windlass_e2e::binary;

use crate::machine::Machine;
use crate::report::{aligned, piped, verdict};

/// Megabytes of resident memory that the controller may take beside what etcd needs for the keys.
const CONTROLLER: f64 = 20.0;

/// How long a start may take, in milliseconds.
const START: f64 = 1000.0;

/// What is asked of servers that run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Row {
    OnePuts,
    ManyPuts,
    Range,
    Delivery,
}

impl Row {
    pub(crate) const ALL: [Self; 4] = [Self::OnePuts, Self::ManyPuts, Self::Range, Self::Delivery];

    fn unit(self) -> &'static str {
        match self {
            Self::OnePuts | Self::ManyPuts => "puts/s",
            Self::Range | Self::Delivery => "ms",
        }
    }

    /// Whether a ratio to etcd keeps what was promised: as many puts at least, as long at most.
    fn keeps(self, ratio: f64) -> bool {
        match self {
            Self::OnePuts | Self::ManyPuts => ratio >= 1.0,
            Self::Range | Self::Delivery => ratio <= 1.0,
        }
    }

    fn target(self) -> &'static str {
        match self {
            Self::OnePuts | Self::ManyPuts => "at least 1.0",
            Self::Range | Self::Delivery => "at most 1.0",
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::OnePuts => "durable puts, one client",
            Self::ManyPuts => "durable puts, 64 clients",
            Self::Range => "range of 10,000 keys",
            Self::Delivery => "put to the event at a watcher, p99",
        })
    }
}

/// What was measured more than once.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Values(Vec<f64>);

impl Values {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
        self.0.sort_unstable_by(f64::total_cmp);
    }

    /// The one in the middle; of two in the middle their mean.
    fn median(&self) -> f64 {
        match self.0.len() {
            0 => 0.0,
            count if count % 2 == 1 => self.0[count / 2],
            count => f64::midpoint(self.0[count / 2 - 1], self.0[count / 2]),
        }
    }

    fn told(&self, unit: &str) -> String {
        let number = |value: f64| if value < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") };
        match (self.0.first(), self.0.last()) {
            (Some(least), Some(most)) if self.0.len() > 1 => {
                format!("{} {unit} ({} to {})", number(self.median()), number(*least), number(*most))
            }
            _ => format!("{} {unit}", number(self.median())),
        }
    }
}

/// All of it.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    machine: Machine,
    rounds: u32,
    encrypted: bool,
    pub(crate) took: Duration,
    rows: Vec<[String; 6]>,
}

impl Report {
    /// Nothing yet.
    ///
    /// # Errors
    /// When the machine does not tell what it is.
    pub(crate) fn new(rounds: u32, encrypted: bool) -> Result<Self> {
        let windlass = binary("windlass")?;
        let machine = Machine::here(&[(&windlass, "--version"), (Path::new(super::server::ETCD), "--version")])?;
        let head = ["what", "Windlass: median (spread)", "etcd: median (spread)", "ratio", "target", ""];
        Ok(Self { machine, rounds, encrypted, took: Duration::ZERO, rows: vec![head.map(str::to_owned)] })
    }

    fn push(&mut self, what: String, [ours, etcd]: [&Values; 2], unit: &str, target: String, met: bool) {
        let ratio = format!("{:.2}", ours.median() / etcd.median());
        self.rows.push([what, ours.told(unit), etcd.told(unit), ratio, target, verdict(Some(met))]);
    }

    /// A row with both.
    pub(crate) fn compare(&mut self, row: Row, values: &[Values; 2]) {
        let [ours, etcd] = values;
        let met = row.keeps(ours.median() / etcd.median());
        self.push(row.to_string(), [ours, etcd], row.unit(), row.target().to_owned(), met);
    }

    /// Resident memory of both, in megabytes.
    pub(crate) fn memory(&mut self, declared: usize, keys: usize, [ours, etcd]: [f64; 2]) {
        let met = ours <= etcd + CONTROLLER;
        let what = format!("resident memory of the whole program, {declared} declarations in {keys} keys");
        let values = [ours, etcd].map(|value| Values(vec![value]));
        self.push(what, [&values[0], &values[1]], "MB", format!("at most etcd's and {CONTROLLER} MB"), met);
    }

    /// From the start of the process to its first answer, in milliseconds.
    pub(crate) fn start(&mut self, bytes: usize, killed: bool, values: &[Values; 2]) {
        let [ours, etcd] = values;
        let how = if killed { "after kill -9" } else { "after an orderly end" };
        let what = format!("start {how}, 10,000 keys, 100,000 revisions, values of {bytes} bytes");
        self.push(what, [ours, etcd], "ms", format!("below {START} ms"), ours.median() < START);
    }

    /// For a terminal.
    pub(crate) fn text(&self) -> String {
        format!("{}\n{}", self.conditions(), aligned(&self.rows))
    }

    /// For the documentation.
    pub(crate) fn markdown(&self) -> String {
        let introduction = include_str!("introduction.md");
        format!("{introduction}\n## The last run\n\n{}\n{}", self.conditions(), piped(&self.rows))
    }

    fn conditions(&self) -> String {
        let connections = if self.encrypted { "TLS with client certificates" } else { "in the clear" };
        let machine = self.machine.told();
        format!("{machine}; {connections}; {} rounds; {} s in all.\n", self.rounds, self.took.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_puts_and_less_time_are_better() {
        let rows: Vec<_> = Row::ALL.iter().map(|row| (row.keeps(0.9), row.keeps(1.0), row.keeps(1.1))).collect();
        let (more, less) = ((false, true, true), (true, true, false));
        assert_eq!(rows, [more, more, less, less]);
    }

    #[test]
    fn the_middle_is_told_and_how_far_it_spreads() {
        let mut values = Values::default();
        [250.0, 99.0, 7.25].into_iter().for_each(|value| values.push(value));
        assert_eq!(values.told("ms"), "99.0 ms (7.2 to 250)");
    }
}
