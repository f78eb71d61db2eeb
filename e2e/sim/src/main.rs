//! `make sim`: plays many seeds, or one with its history.

use std::process::ExitCode;
use std::time::Instant;

use windlass_sim::crashes::Life;
use windlass_sim::crew;
use windlass_sim::extras::Edition;
use windlass_sim::kept::{KEPT, Kept};
#[cfg(feature = "planted")]
use windlass_sim::planted::{self, Find};
use windlass_sim::run::{self, Outcome};
use windlass_sim::tales::Tale;
use windlass_sim::way::{Death, Side};

fn number(name: &str) -> anyhow::Result<Option<u64>> {
    let Ok(text) = std::env::var(name) else { return Ok(None) };
    Ok(Some(text.parse().map_err(|_| anyhow::anyhow!("{name}={text} is no number"))?))
}

fn main() -> anyhow::Result<ExitCode> {
    if std::env::var_os("WINDLASS_LOG").is_some() {
        tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::DEBUG).init();
    }
    let base = number("SEED_BASE")?.unwrap_or(0);
    #[cfg(feature = "planted")]
    if let Ok(name) = std::env::var("BUG") {
        // In this thread: in what is replayed.
        planted::plant_named(&name)?;
    }
    match std::env::args().nth(1).as_deref() {
        None | Some("seeds") => match number("SEED")? {
            Some(seed) => one(&run::seed_of(edition()?, seed)?),
            None => many(edition()?, base, number("SEEDS")?.unwrap_or(300)),
        },
        Some("crashes") => match number("DEED")? {
            Some(deed) => one(&life()?.replay(Death { deed, side: side()? })?),
            None => every_crash(),
        },
        Some("tales") => match std::env::var("TALE") {
            Ok(name) => {
                let tale = Tale::ALL.into_iter().find(|tale| format!("{tale:?}") == name);
                one(&tale.ok_or_else(|| anyhow::anyhow!("{name} is none of {:?}", Tale::ALL))?.play()?)
            }
            Err(_) => every_tale(),
        },
        #[cfg(feature = "planted")]
        Some("planted") => every_bug(base),
        Some(other) => anyhow::bail!("{other} is not one of seeds, crashes, tales, planted"),
    }
}

/// Each of these is played twice, and must come to the same history, to the line: or no seed could be replayed.
const TWICE: [u64; 4] = [3, 17, 46, 208];

fn edition() -> anyhow::Result<Edition> {
    match std::env::var("EDITION").as_deref() {
        Err(_) => Ok(Edition::LAST),
        Ok("1") => Ok(Edition::First),
        Ok("2") => Ok(Edition::Second),
        Ok("3") => Ok(Edition::Third),
        Ok("4") => Ok(Edition::Fourth),
        Ok(other) => anyhow::bail!("EDITION={other} is none of 1, 2, 3, 4"),
    }
}

/// Tales, and the seeds that are kept.
#[expect(clippy::print_stdout, reason = "it is a program that people run")]
fn every_tale() -> anyhow::Result<ExitCode> {
    let mut failed = 0;
    let tales = Tale::ALL.into_iter().map(|tale| (format!("TALE={tale:?}"), tale.play()));
    let seeds = KEPT.into_iter().map(|Kept { edition, seed, found }| {
        (format!("EDITION={} SEED={seed} ({found})", edition as u8 + 1), run::seed_of(edition, seed))
    });
    for (name, outcome) in tales.chain(seeds) {
        let violations = outcome?.violations;
        if !violations.is_empty() {
            failed += 1;
            println!("{name}: {}", violations.join("; "));
        }
    }
    println!("{} tales and {} seeds that are kept: {failed} failed", Tale::ALL.len(), KEPT.len());
    for seed in TWICE {
        let [one, two] = [run::seed(seed)?, run::seed(seed)?].map(|outcome| outcome.history.fingerprint());
        if one != two {
            failed += 1;
            println!("SEED={seed}: played twice it is {one:016x} and {two:016x}");
        }
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn life() -> anyhow::Result<Life> {
    let name = std::env::var("LIFE").unwrap_or_else(|_| format!("{:?}", Life::HostByHost));
    let life = Life::ALL.into_iter().find(|life| format!("{life:?}") == name);
    life.ok_or_else(|| anyhow::anyhow!("LIFE={name} is none of {:?}", Life::ALL))
}

fn side() -> anyhow::Result<Side> {
    match std::env::var("SIDE").as_deref() {
        Ok("before" | "Before") => Ok(Side::Before),
        Ok("late" | "Late") => Ok(Side::Late),
        Ok("after" | "After") => Ok(Side::After),
        _ => anyhow::bail!("SIDE is before, late or after"),
    }
}

#[expect(clippy::print_stdout, reason = "it is a program that people run")]
fn every_crash() -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for life in Life::ALL {
        // The longer life has its crashes at each point where all are asked for.
        let every = if life == Life::HostByHost { 1 } else { number("EVERY")?.unwrap_or(5) };
        let covered = life.everywhere(every.max(1))?;
        for (kind, times) in &covered.kinds {
            println!("{times:>4} {kind}");
        }
        for (death, outcome) in &covered.failed {
            println!("LIFE={life:?} DEED={} SIDE={:?}: {}", death.deed, death.side, outcome.violations.join("; "));
            code = ExitCode::FAILURE;
        }
        println!(
            "{life:?}: {} things that a controller changes, a crash before, in and after {}: {} runs, {} failed",
            covered.deeds,
            if every == 1 { "each".to_owned() } else { format!("one of {every}") },
            covered.runs,
            covered.failed.len()
        );
    }
    Ok(code)
}

/// Tells how a bug was found.
#[cfg(feature = "planted")]
#[expect(clippy::print_stdout, reason = "it is a program that people run")]
fn tell(find: &Find) {
    match &find.by {
        Some((name, violation)) => println!("{:?}: found by {name}: {violation}", find.bug),
        None => println!("{:?}: NOT FOUND", find.bug),
    }
}

#[cfg(feature = "planted")]
#[expect(clippy::print_stdout, reason = "it is a program that people run")]
fn every_bug(base: u64) -> anyhow::Result<ExitCode> {
    let found = planted::find_all(base, tell)?;
    let missed = found.iter().filter(|find| find.by.is_none()).count();
    println!("{} planted bugs, {missed} not found", found.len());
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[expect(clippy::print_stdout, reason = "its history is what it is for")]
fn one(outcome: &Outcome) -> anyhow::Result<ExitCode> {
    let Outcome { seed, violations, history } = outcome;
    for line in history.lines() {
        println!("{line}");
    }
    println!("seed {seed}: {} violations, fingerprint {:016x}", violations.len(), history.fingerprint());
    Ok(if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// After so many seeds it says how far it is, so that a run that is cut off still tells what it has played.
const TOLD_EVERY: u64 = 1000;

#[expect(clippy::print_stdout, reason = "it is a program that people run")]
fn many(edition: Edition, base: u64, count: u64) -> anyhow::Result<ExitCode> {
    let (mut played, mut failed, begun) = (0_u64, 0_u64, Instant::now());
    let play = |seed| Ok((seed, run::seed_of(edition, seed)));
    crew::each(base..base + count, play, |(seed, outcome)| {
        let violated = match outcome {
            Ok(outcome) => outcome.violations.join("; "),
            Err(error) => format!("{error:#}"),
        };
        if !violated.is_empty() {
            failed += 1;
            println!("seed {seed}: {violated}");
        }
        played += 1;
        if played.is_multiple_of(TOLD_EVERY) && played < count {
            println!("{played} of {count} seeds: {failed} failed, {:.0} s", begun.elapsed().as_secs_f64());
        }
        Ok(())
    })?;
    println!("{played} seeds from {base}: {failed} failed, {:.1} s; SEED=n replays one", begun.elapsed().as_secs_f64());
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
