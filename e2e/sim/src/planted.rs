//! Planted bugs: each has to be found, or the oracle is blind there.

use windlass_planner::planted::{Bug, plant};

use crate::run;

/// A bug that no seed of so many finds is not found.
const SEEDS: u64 = 200;

/// How a bug was found.
#[derive(Debug, Clone)]
pub struct Find {
    /// Which.
    pub bug: Bug,
    /// By the first seed that found it, and what was violated; `None` where none did.
    pub by: Option<(u64, String)>,
}

/// Plants one bug after the other, and plays seeds until it is found.
///
/// # Errors
/// When the simulation itself fails.
pub fn find_all(base: u64) -> anyhow::Result<Vec<Find>> {
    Bug::ALL.into_iter().map(|bug| find(bug, base)).collect()
}

/// Plants one bug, and plays seeds until it is found.
///
/// # Errors
/// When the simulation itself fails.
pub fn find(bug: Bug, base: u64) -> anyhow::Result<Find> {
    plant(Some(bug));
    let mut by = None;
    for seed in base..base + SEEDS {
        let outcome = run::seed(seed)?;
        if let Some(violation) = outcome.violations.into_iter().next() {
            by = Some((seed, violation));
            break;
        }
    }
    plant(None);
    Ok(Find { bug, by })
}
