//! Planted bugs: each has to be found, or the oracle is blind there.

use std::collections::BTreeMap;

use windlass_planner::planted::{Bug, plant};

use crate::crew;
use crate::run::{self, Outcome};
use crate::tales::Tale;

/// A bug that no seed of so many finds is not found.
const SEEDS: u64 = 200;

/// How a bug was found.
#[derive(Debug, Clone)]
pub struct Find {
    /// Which.
    pub bug: Bug,
    /// By which tale, or by which seed where none did, and by which violation; `None` where nothing did.
    pub by: Option<(String, String)>,
}

/// By what a bug has to be found: by the invariant that it breaks, and by no other one that happens to suffer from it.
const fn breaks(bug: Bug) -> &'static str {
    match bug {
        Bug::AllHostsAtOnce | Bug::TouchForgotten => "hosts down, and has",
        Bug::RecallUnheard => "which is blocked",
        Bug::NobodyJudges => "for good, which is bad",
        Bug::NothingIsBlocked | Bug::VerdictForgotten | Bug::EndUnsaid => "it is under way",
        Bug::NothingIsRepaired => "Ready is DriftFound",
        Bug::RowsLie => "its row says that it is ready",
        Bug::ListsAddOnly => "something is recorded of it",
        Bug::NeverDone | Bug::StatusTells => "no rest",
        Bug::HostsUnclaimed | Bug::OwnedForgotten => "which does not own it",
        Bug::TriesForEver => "what cuts its host off was tried",
        Bug::OthersGoOn => "which another host took back",
        Bug::BrakeUnasked => "it never came to a standstill",
        Bug::RepairsUncounted => "what is stopped again and again was started",
        Bug::HostsUnasked => "it never came to what is declared then",
        Bug::SequenceReused => "it never came to being left",
        Bug::StepsUnapproved => "canaries, and",
        Bug::DataPurged => "which nobody has asked for",
        Bug::NonsenseRemoves => "which is declared there",
        Bug::OldOrdersTaken => "has gone back from sequence",
        Bug::LastAloneKept => "has lost the files of its good revision",
        Bug::HashesUnread => "a damaged file is not found",
        Bug::VerdictsCutShort => "ended the wait for a verdict",
        Bug::PastAwaited => "goes round and round",
    }
}

/// Plants one bug after the other, as many at once as there are processors, and plays tales and seeds until each is found;
/// each is told at once.
///
/// # Errors
/// When the simulation itself fails.
pub fn find_all(base: u64, mut told: impl FnMut(&Find) + Send) -> anyhow::Result<Vec<Find>> {
    let mut found = BTreeMap::new();
    crew::each(
        Bug::ALL,
        |bug| find(bug, base),
        |find| {
            told(&find);
            found.insert(find.bug, find);
            Ok(())
        },
    )?;
    Ok(found.into_values().collect())
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

/// Plants one bug, and plays tales, and then seeds, until it is found.
///
/// # Errors
/// When the simulation itself fails.
pub fn find(bug: Bug, base: u64) -> anyhow::Result<Find> {
    plant(Some(bug));
    let by = told(bug, base);
    plant(None);
    Ok(Find { bug, by: by? })
}

/// What finds the bug that is planted.
fn told(bug: Bug, base: u64) -> anyhow::Result<Option<(String, String)>> {
    for tale in Tale::ALL {
        if let Some(violation) = broken(bug, tale.play()?) {
            return Ok(Some((format!("{tale:?}"), violation)));
        }
    }
    for seed in last_found_by(bug).into_iter().chain(base..base + SEEDS) {
        if let Some(violation) = broken(bug, run::seed(seed)?) {
            return Ok(Some((format!("seed {seed}"), violation)));
        }
    }
    Ok(None)
}

/// The seed by which it was found last, where that took many: it is tried first.
const fn last_found_by(bug: Bug) -> Option<u64> {
    match bug {
        Bug::ListsAddOnly => Some(334),
        Bug::OldOrdersTaken => Some(48),
        Bug::RecallUnheard => Some(41),
        Bug::HashesUnread => Some(129),
        Bug::PastAwaited => Some(2705),
        _ => None,
    }
}

/// The violation that this bug is found by.
fn broken(bug: Bug, outcome: Outcome) -> Option<String> {
    outcome.violations.into_iter().find(|violation| violation.contains(breaks(bug)))
}
