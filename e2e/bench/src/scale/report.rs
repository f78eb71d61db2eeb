//! What was found at scale, as people read it.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::crowd::AT_ONCE;
use super::run::Found;
use crate::machine::Machine;
use crate::report::{aligned, piped, verdict};
use crate::samples::milliseconds;
use crate::store::ETCD;

/// From a put to a status that speaks of it, of a hundred the slowest but one.
const OBSERVED: Duration = Duration::from_secs(1);

/// From the start to a full cache.
const CACHED: Duration = Duration::from_secs(5);

/// Reconciles that come to nothing, a second.
const RECONCILES: f64 = 1000.0;

/// Megabytes.
const MEMORY: f64 = 500.0;

/// Transactions a change.
const TRANSACTIONS: f64 = 4.0;

/// By how much a rollout may take longer than its hosts.
const OVERHEAD: f64 = 0.10;

/// All of it.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    machine: Machine,
    /// How long the hosts take with nobody who decides.
    alone: Duration,
    /// How long it took in all.
    pub(crate) took: Duration,
    /// A run over each store.
    pub(crate) runs: Vec<Found>,
}

/// One thing that was measured over each store.
struct Row {
    what: String,
    found: Vec<String>,
    target: &'static str,
    met: Option<bool>,
}

impl Report {
    /// Nothing yet.
    ///
    /// # Errors
    /// When the machine does not tell what it is.
    pub(crate) fn new(alone: Duration) -> Result<Self> {
        let machine = Machine::here(&[(Path::new(ETCD), "--version")])?;
        Ok(Self { machine, alone, took: Duration::ZERO, runs: Vec::new() })
    }

    /// For a terminal.
    pub(crate) fn text(&self) -> String {
        format!("{}\n{}", self.conditions(), self.table(aligned))
    }

    /// For the documentation.
    pub(crate) fn markdown(&self) -> String {
        let introduction = include_str!("introduction.md");
        format!("{introduction}\n## The last run\n\n{}\n{}", self.conditions(), self.table(piped))
    }

    fn conditions(&self) -> String {
        let version = env!("CARGO_PKG_VERSION");
        format!("{}; windlass {version}; {} s in all.\n", self.machine.told(), self.took.as_secs())
    }

    fn table(&self, draw: impl Fn(&[[String; 5]]) -> String) -> String {
        let name = |index: usize| self.runs.get(index).map(|run| format!("over {}", run.kind)).unwrap_or_default();
        let mut table = vec![["what".to_owned(), name(0), name(1), "target".to_owned(), String::new()]];
        for Row { what, mut found, target, met } in self.rows() {
            found.resize(2, String::new());
            let [one, other] = [std::mem::take(&mut found[0]), std::mem::take(&mut found[1])];
            table.push([what, one, other, target.to_owned(), verdict(met)]);
        }
        draw(&table)
    }

    /// A row: what each run found, and whether every one kept what was promised.
    fn row<T: Copy>(
        &self,
        what: impl Into<String>,
        find: impl Fn(&Found) -> T,
        told: impl Fn(T) -> String,
        target: &'static str,
        keeps: impl Fn(T) -> bool,
    ) -> Row {
        let found = self.runs.iter().map(|run| told(find(run))).collect();
        let met = (!target.is_empty()).then(|| self.runs.iter().all(|run| keeps(find(run))));
        Row { what: what.into(), found, target, met }
    }

    fn rows(&self) -> Vec<Row> {
        let Some(run) = self.runs.first() else { return Vec::new() };
        let (services, hosts, rate) = (run.crowd.services, run.crowd.hosts, run.course.rate);
        let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
        let count = |count: u64| count.to_string();
        let load = |part: f64| format!("{:.0} % of a core", part * 100.0);
        let megabytes = |[rest, most]: [f64; 2]| format!("{rest:.0} MB at rest, {most:.0} MB at most");
        let per_change = |run: &Found| (run.transactions, run.changes);
        let each = |(transactions, changes): (u64, u32)| transactions as f64 / f64::from(changes);
        let alone = self.alone;
        let overhead = |run: &Found| run.rollout.as_secs_f64() / alone.as_secs_f64() - 1.0;
        let percent = |part: f64| format!("{:+.1} %", part * 100.0);
        let any = |_: f64| true;
        let always = |_: Duration| true;
        vec![
            self.row(
                format!("put to observedGeneration, p99, {rate} changes a second"),
                |run| run.observed.of_a_hundred(99),
                milliseconds,
                "at most 1 s",
                |time| time <= OBSERVED,
            ),
            self.row("the same, median", |run| run.observed.median(), milliseconds, "", always),
            self.row("put to ready again, median", |run| run.ready.median(), milliseconds, "", always),
            self.row(
                format!("start to a full cache that leads, {services} Services"),
                |run| run.cached,
                seconds,
                "at most 5 s",
                |time| time <= CACHED,
            ),
            self.row("from there until everything was looked at", |run| run.looked, seconds, "", always),
            self.row(
                "reconciles that come to nothing",
                |run| run.reconciles,
                |rate| format!("{rate:.0} a second"),
                "at least 1000 a second",
                |rate| rate >= RECONCILES,
            ),
            self.row("written by them", |run| run.reconciles_wrote, count, "nothing", |wrote| wrote == 0),
            self.row(
                "resident memory, the hosts' included",
                |run| run.memory,
                megabytes,
                "at most 500 MB",
                |memory| memory.iter().all(|memory| *memory <= MEMORY),
            ),
            self.row(
                "transactions a change, the put included",
                per_change,
                |found| format!("{:.2} ({} for {})", each(found), found.0, found.1),
                "at most 4",
                |found| each(found) <= TRANSACTIONS,
            ),
            self.row(
                format!("transactions in {} s at rest", run.course.resting.as_secs()),
                |run| run.resting_transactions,
                count,
                "none",
                |transactions| transactions == 0,
            ),
            self.row(
                format!("a rollout over {hosts} hosts, {AT_ONCE} at a time; the hosts alone: {}", seconds(alone)),
                |run| run.rollout,
                seconds,
                "",
                always,
            ),
            self.row("that is longer than the hosts alone by", overhead, percent, "at most 10 %", |part| {
                part <= OVERHEAD
            }),
            self.row("processor at rest", |run| run.resting_load, load, "", any),
            self.row(format!("processor at {rate} changes a second"), |run| run.changing_load, load, "", any),
            self.row("the first deploy of everything", |run| run.deployed, seconds, "", always),
        ]
    }
}
