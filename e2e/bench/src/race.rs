//! The race: both deploy the same trees to the same hosts, in turn, several times.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use crate::contestant::{Contestant, Job, Row, Took};
use crate::ground::Ground;
use crate::machine;
use crate::rsync::Style;
use crate::samples::{Samples, milliseconds};

/// Where services of Windlass listen; those of the others listen above.
const PORT: u16 = 8080;

/// Where services listen that are deployed for the first time.
const COLD_PORT: u16 = 8090;

/// What of a race is wanted.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// Which rows.
    pub(crate) rows: Vec<Row>,
    /// Whether each lap is told when it ends.
    pub(crate) laps: bool,
}

/// What one race found.
#[derive(Debug, Clone)]
pub(crate) struct Race {
    /// With how many hosts.
    pub(crate) hosts: u8,
    /// Times of Windlass and of rsync, step by step and in one script, without the confirmations.
    pub(crate) rows: BTreeMap<Row, [Samples; 3]>,
    /// Times of Windlass with them.
    pub(crate) confirmed: BTreeMap<Row, Samples>,
}

/// Runs these rows `rounds` times, all in turn.
///
/// # Errors
/// When one of them fails, or does not do what it says.
#[expect(clippy::print_stderr, reason = "a race takes minutes, and says how far it is")]
pub(crate) fn run(ground: &Ground, hosts: u8, rounds: u32, wanted: &Wanted) -> Result<Race> {
    let (windlass, steps, fused) = (ground.windlass()?, ground.rsync(Style::Steps), ground.rsync(Style::Fused));
    let contestants: [(&str, &dyn Contestant); 3] = [("windlass", &windlass), ("rsync", &steps), ("fused", &fused)];
    let hosts_used = ground.hosts(hosts);
    let mut rows: BTreeMap<Row, [Samples; 3]> = BTreeMap::new();
    let mut confirmed: BTreeMap<Row, Samples> = BTreeMap::new();
    // Before the first round, so that no tree is so young that it would be read twice.
    let mut fresh = Vec::new();
    for round in 0..rounds {
        let seed = u64::from(hosts) << 32 | u64::from(round);
        fresh.push(ground.tree(&format!("fresh-{hosts}-{round}"), seed, "fresh")?);
    }
    let names = ["w", "r", "f"].map(|name| format!("{name}{hosts}"));
    let trees = names.iter().map(|name| ground.tree(name, 1 << 40, "0")).collect::<Result<Vec<_>>>()?;
    let job = |index: usize| {
        let (tree, port) = (&trees[index], PORT + index as u16);
        Job { name: &names[index], port, tree, hosts: hosts_used }
    };
    for (index, (name, contestant)) in contestants.iter().enumerate() {
        contestant.first(&job(index)).with_context(|| format!("the first deploy of {name}"))?;
    }
    for round in 1..=rounds {
        eprintln!("{hosts} hosts: round {round} of {rounds}");
        for row in Row::ALL.into_iter().filter(|row| wanted.rows.contains(row)) {
            for turn in 0..contestants.len() {
                // Each comes first as often as the others: what a row leaves to be done is met by whoever does.
                let index = (turn + round as usize) % contestants.len();
                let (name, contestant) = contestants[index];
                let known = job(index);
                let cold = format!("{}-cold", names[index]);
                let new =
                    Job { name: &cold, port: COLD_PORT + index as u16, tree: &fresh[round as usize - 1], ..known };
                let job = if row == Row::Cold { new } else { known };
                contestant.warm(&job)?;
                let before = machine::busy()?;
                let took = lap(ground, contestant, &job, row, round)
                    .with_context(|| format!("{name}, {hosts} hosts, {row}, round {round}"))?;
                if wanted.laps {
                    let busy = machine::busy()?.saturating_sub(before);
                    let [served, whole, busy] = [took.served, took.whole, busy].map(milliseconds);
                    eprintln!("{hosts} hosts, {row}: {name} {served}, to its end {whole}, processors {busy}");
                }
                rows.entry(row).or_default()[index].push(took.served);
                if index == 0 {
                    confirmed.entry(row).or_default().push(took.whole);
                }
            }
        }
    }
    for (index, (_, contestant)) in contestants.iter().enumerate() {
        contestant.remove(&job(index))?;
    }
    Ok(Race { hosts, rows, confirmed })
}

/// One of them does one row once, and is checked from outside.
fn lap(ground: &Ground, contestant: &dyn Contestant, job: &Job<'_>, row: Row, round: u32) -> Result<Took> {
    let version = round.to_string();
    match row {
        Row::Cold => {
            ground.expect_nothing_of(job.hosts, job.name)?;
            let took = contestant.first(job)?;
            ground.expect(job.hosts, job.port, "fresh")?;
            contestant.remove(job)?;
            Ok(took)
        }
        Row::OneFile => {
            job.tree.say(&version)?;
            let took = contestant.again(job)?;
            ground.expect(job.hosts, job.port, &version)?;
            Ok(took)
        }
        Row::Nothing => {
            let took = contestant.again(job)?;
            ground.expect(job.hosts, job.port, &version)?;
            Ok(took)
        }
        Row::Rollback => {
            let took = contestant.back(job)?;
            let older = ground.answer(&job.hosts[0], job.port).context("no answer after a rollback")?;
            ensure!(older != version, "it answers {version} after a rollback");
            ground.expect(job.hosts, job.port, &older)?;
            Ok(took)
        }
    }
}
