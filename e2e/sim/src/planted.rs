//! Planted bugs: each has to be found, or the oracle is blind there.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use windlass_planner::planted::{Bug, plant};

use crate::run;
use crate::tales::Tale;

/// A bug that no seed of so many finds is not found.
const SEEDS: u64 = 200;

/// How a bug was found.
#[derive(Debug, Clone)]
pub struct Find {
    /// Which.
    pub bug: Bug,
    /// By which tales, or by the first seed where none did, and what was violated first; `None` where nothing did.
    pub by: Option<(String, String)>,
}

/// Plants one bug after the other, as many at once as there are processors, and plays tales and seeds until each is found;
/// each is told at once.
///
/// # Errors
/// When the simulation itself fails.
pub fn find_all(base: u64, told: impl Fn(&Find) + Sync) -> anyhow::Result<Vec<Find>> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let workers = std::thread::available_parallelism()?.get();
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(bug) = Bug::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // A bug is planted in one thread alone.
                    let find = find(*bug, base).inspect(&told);
                    found.lock().unwrap_or_else(PoisonError::into_inner).insert(*bug, find);
                }
            });
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
}

/// Plants a bug by its name, in this thread.
///
/// # Errors
/// Where there is none of this name.
pub fn plant_named(name: &str) -> anyhow::Result<()> {
    let bug = Bug::ALL.into_iter().find(|bug| format!("{bug:?}") == name);
    plant(Some(bug.ok_or_else(|| anyhow::anyhow!("{name} is none of {:?}", Bug::ALL))?));
    Ok(())
}

/// Plants one bug, and plays every tale, and then seeds until it is found, where none did.
///
/// # Errors
/// When the simulation itself fails.
pub fn find(bug: Bug, base: u64) -> anyhow::Result<Find> {
    plant(Some(bug));
    let by = told(base);
    plant(None);
    Ok(Find { bug, by: by? })
}

/// What finds the bug that is planted.
fn told(base: u64) -> anyhow::Result<Option<(String, String)>> {
    let mut by: Option<(String, String)> = None;
    for tale in Tale::ALL {
        let Some(violation) = tale.play()?.violations.into_iter().next() else { continue };
        by = Some(match by {
            Some((tales, first)) => (format!("{tales}, {tale:?}"), first),
            None => (format!("{tale:?}"), violation),
        });
    }
    let mut seeds = base..base + SEEDS;
    while let (None, Some(seed)) = (&by, seeds.next()) {
        by = run::seed(seed)?.violations.into_iter().next().map(|violation| (format!("seed {seed}"), violation));
    }
    Ok(by)
}
