//! A process that writes is killed at any moment: what it was told is written is there, and no half of anything else.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use windlass_store::mvcc::{Engine, Operation, Order, Range, Request, Txn};

use super::{NOW, everything, on_disk, order, put};

/// Which store the process that is killed writes to.
const STORE: &str = "WINDLASS_TEST_KILLED_STORE";

/// How often to kill, where it is to be more often than is usual.
const KILLS: &str = "WINDLASS_TEST_KILLS";

/// Enough for each kind of moment; `make test-kill-store` has 200.
const USUAL_KILLS: usize = 5;

/// Keys that each transaction writes, all with the same value.
const KEYS: usize = 5;

/// Transactions that are written at once, at most.
const AT_ONCE: usize = 4;

/// Until somebody kills it. It tells each revision that is acknowledged, with its value.
#[test]
#[ignore = "the process that `a_killed_process_has_lost_nothing` kills"]
fn a_process_that_writes() {
    let Some(path) = std::env::var_os(STORE) else { return };
    let engine = on_disk(Path::new(&path));
    let mut told = std::io::stderr();
    for round in 0_usize.. {
        let values: Vec<String> = (0..=round % AT_ONCE).map(|number| format!("{round}.{number}")).collect();
        let orders: Vec<Order> = values.iter().map(|value| transaction(value)).collect();
        for (answer, value) in engine.write(&orders, NOW).into_iter().zip(values) {
            let revision = answer.expect("written").revision;
            told.write_all(format!("{revision} {value}\n").as_bytes()).expect("somebody listens");
        }
        if round % 8 == 7 {
            engine.compact(engine.revision() - 10).expect("compacted");
            engine.forget_some().expect("forgotten");
        }
        if round % 32 == 31 {
            engine.defragment().expect("defragmented");
        }
    }
}

fn transaction(value: &str) -> Order {
    let success = (0..KEYS).map(|key| Operation::Put(put(&format!("k{key}"), value))).collect();
    order(Request::Txn(Txn { success, ..Txn::default() }))
}

/// A moment between now and so many milliseconds from now.
fn moment(most: u64) -> Duration {
    let random = RandomState::new().hash_one(most);
    Duration::from_micros(random % (most * 1000))
}

/// Runs the process, kills it, and adds what it has told.
fn kill_one(path: &Path, while_it_starts: bool, acknowledged: &mut BTreeMap<i64, String>) -> Result<()> {
    let mut writer: Child = Command::new(std::env::current_exe()?)
        .args(["--exact", "mvcc::killed::a_process_that_writes", "--ignored", "--nocapture"])
        .env(STORE, path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut told = BufReader::new(writer.stderr.take().context("piped")?);
    let mut first = String::new();
    if while_it_starts {
        thread::sleep(moment(60));
    } else {
        told.read_line(&mut first)?;
        thread::sleep(moment(40));
    }
    writer.kill()?;
    writer.wait()?;
    for line in std::iter::once(Ok(first)).chain(told.lines()) {
        let line = line?;
        // What it was saying when it was killed may be cut off.
        let Some((revision, value)) = line.trim().split_once(' ') else { continue };
        let revision = revision.parse().with_context(|| format!("it says {line:?}"))?;
        let (round, number) = value.split_once('.').unwrap_or_default();
        if !round.is_empty() && !number.is_empty() {
            acknowledged.insert(revision, value.to_owned());
        }
    }
    Ok(())
}

/// Every revision has one value only, and that which was acknowledged.
fn look(path: &Path, acknowledged: &BTreeMap<i64, String>) -> Result<i64> {
    let engine: Engine = on_disk(path);
    let (now, last) = (engine.revision(), acknowledged.keys().next_back().copied().unwrap_or(1));
    ensure!(now >= last, "it has revision {now}, and {last} was acknowledged");
    for revision in engine.compacted().max(2)..=now {
        let (_, found) = engine.range(&Range { revision, ..Range::of(everything()) })?;
        let values: Vec<_> = found.pairs.iter().map(|pair| &pair.value[..]).collect();
        ensure!(values.len() == KEYS && values.iter().all(|value| *value == values[0]), "{revision}: {values:?}");
        if let Some(expected) = acknowledged.get(&revision) {
            ensure!(values[0] == expected.as_bytes(), "{revision}: {values:?}, and {expected} was acknowledged");
        }
    }
    let history = engine.history(engine.compacted().max(1), usize::MAX, usize::MAX)?;
    let expected = (now - engine.compacted().max(1) + 1) * KEYS as i64;
    let first = if engine.compacted() > 1 { 0 } else { KEYS as i64 };
    ensure!(history.changes.len() as i64 == expected - first, "{} changes", history.changes.len());
    Ok(now)
}

#[test]
fn a_killed_process_has_lost_nothing() -> Result<()> {
    let kills = match std::env::var(KILLS) {
        Ok(kills) => kills.parse()?,
        Err(_) => USUAL_KILLS,
    };
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("store.redb");
    let mut acknowledged = BTreeMap::new();
    for kill in 0..kills {
        let before = acknowledged.keys().next_back().copied().unwrap_or(1);
        kill_one(&path, kill % 3 == 2, &mut acknowledged).with_context(|| format!("kill {kill}"))?;
        let now = look(&path, &acknowledged).with_context(|| format!("after kill {kill}"))?;
        let last = acknowledged.keys().next_back().copied().unwrap_or(1).max(before);
        ensure!(now - last <= AT_ONCE as i64, "{now}, and only {last} was told");
        // What was written and not told is the next one's beginning.
        acknowledged.retain(|revision, _| *revision <= now);
        acknowledged.entry(now).or_insert_with(|| value_at(&path));
    }
    ensure!(acknowledged.len() > kills, "it wrote hardly anything: {acknowledged:?}");
    Ok(())
}

fn value_at(path: &Path) -> String {
    let (_, found) = on_disk(path).range(&Range::of(everything())).expect("readable");
    found.pairs.first().map(|pair| String::from_utf8_lossy(&pair.value).into_owned()).unwrap_or_default()
}
