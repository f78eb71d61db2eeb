//! Crashes, all of them: a controller dies before and after each single thing that it changes in the store or on a host.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::sleep;
use windlass_crds::request::Request;

use crate::chance::Chance;
use crate::extras::Edition;
use crate::run::{self, Outcome};
use crate::way::{Death, Side};
use crate::world::{Quality, World, host_name};

/// The seed of all these runs, so that they differ in the crash alone.
const SEED: u64 = 1;

/// What came of it.
#[derive(Debug, Clone)]
pub struct Covered {
    /// So many things a controller changes in the course of it.
    pub deeds: u64,
    /// Kinds of things at which it died, and how often.
    pub kinds: BTreeMap<String, u64>,
    /// Runs that violated something.
    pub failed: Vec<(Death, Outcome)>,
}

/// Lets a controller die at every point of a service's life.
///
/// # Errors
/// When the simulation itself fails.
pub fn everywhere() -> anyhow::Result<Covered> {
    let mut deeds = 0;
    let whole = run::within(SEED, async |chance: Chance| {
        let world = life(&chance, None).await?;
        deeds = world.seats[0].way().deeds();
        Ok(world)
    })?;
    anyhow::ensure!(whole.violations.is_empty(), "without a crash: {}", whole.violations.join("; "));
    let mut covered = Covered { deeds, kinds: BTreeMap::new(), failed: Vec::new() };
    for deed in 0..deeds {
        for side in [Side::Before, Side::After] {
            let death = Death { deed, side };
            let outcome = run::within(SEED, async |chance: Chance| life(&chance, Some(death)).await)?;
            let lines = outcome.history.lines();
            let died = lines.iter().find_map(|line| line.split_once(" dies ").map(|(_, what)| what.to_owned()));
            let kind = died.map(|died| died.split(" on ").next().unwrap_or_default().to_owned());
            let kind =
                kind.ok_or_else(|| anyhow::anyhow!("nothing died at {death:?}: it is no crash that is tried"))?;
            *covered
                .kinds
                .entry(kind.trim_end_matches(|last: char| last.is_ascii_digit()).trim().to_owned())
                .or_default() += 1;
            if !outcome.violations.is_empty() {
                covered.failed.push((death, outcome));
            }
        }
    }
    Ok(covered)
}

/// Replays one of them.
///
/// # Errors
/// When the simulation itself fails.
pub fn one(death: Death) -> anyhow::Result<Outcome> {
    run::within(SEED, async |chance: Chance| life(&chance, Some(death)).await)
}

/// The life of a service: deployed, changed, broken and gone back, restarted, drifted and repaired, moved, removed.
async fn life(chance: &Chance, death: Option<Death>) -> anyhow::Result<World> {
    let mut world = World::new(chance, Edition::First, 3, 1).await?;
    world.start(death);
    world.services[0].hosts = [host_name(0), host_name(1)].into();
    world.edit_source(0, Quality::Good);
    world.declare(0).await?;
    rest().await;
    world.edit_source(0, Quality::Good);
    world.ask(0, &Request::Reconcile).await?;
    rest().await;
    world.edit_source(0, Quality::Unwell);
    world.ask(0, &Request::Reconcile).await?;
    rest().await;
    world.edit_source(0, Quality::Good);
    world.declare(0).await?;
    rest().await;
    world.ask(0, &Request::Restart).await?;
    rest().await;
    let key = world.services[0].key.clone();
    world.ground.fleet.edit(&world.hosts[0].clone(), &key, windlass_hosts::memory::Edit::NoUnit);
    rest().await;
    world.services[0].hosts = [host_name(1), host_name(2)].into();
    world.declare(0).await?;
    rest().await;
    world.ask(0, &Request::Undo { revision: None, from: None }).await?;
    rest().await;
    world.delete(0).await?;
    world.settles().await?;
    Ok(world)
}

/// As long as each of these takes, a crash and a restart in it included.
async fn rest() {
    sleep(Duration::from_secs(75)).await;
}
