//! Crashes, all of them: a controller dies before and after each single thing that it changes in the store or on a host.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::sleep;
use windlass_crds::request::Request;

use crate::chance::Chance;
use crate::crew;
use crate::extras::Edition;
use crate::run::{self, Outcome};
use crate::way::{Death, Side};
use crate::world::{Quality, World, host_name};

/// The seed of all these runs, so that they differ in the crash alone.
const SEED: u64 = 1;

/// A life of a service, in the course of which its controller dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Host by host, under one controller, which comes back: deployed, changed, broken and gone back, restarted, drifted
    /// and repaired, moved, undone, removed.
    HostByHost,
    /// A canary of which a person lets each step begin, and then all at once, with a standby that takes over: deployed,
    /// approved, broken and gone back, aborted, tried again, paused, removed.
    InSteps,
}

impl Life {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::HostByHost, Self::InSteps];

    async fn play(self, chance: &Chance, death: Option<Death>) -> anyhow::Result<World> {
        match self {
            Self::HostByHost => host_by_host(chance, death).await,
            Self::InSteps => in_steps(chance, death).await,
        }
    }

    /// Lets a controller die at every point of it, or at each so-manieth; as many at once as there are processors.
    ///
    /// # Errors
    /// When the simulation itself fails, or nothing dies.
    pub fn everywhere(self, every: u64) -> anyhow::Result<Covered> {
        let (mut deeds, mut sent) = (0, BTreeSet::new());
        let whole = run::within(SEED, async |chance: Chance| {
            let world = self.play(&chance, None).await?;
            let way = world.seats[0].way();
            deeds = way.deeds();
            sent.extend(way.sent());
            Ok(world)
        })?;
        anyhow::ensure!(whole.violations.is_empty(), "{self:?} without a crash: {}", whole.violations.join("; "));
        let mut covered = Covered { life: self, deeds, runs: 0, kinds: BTreeMap::new(), failed: Vec::new() };
        let sides = |deed| [Side::Before, Side::Late, Side::After].map(|side| Death { deed, side });
        let deaths = (0..deeds).step_by(usize::try_from(every)?).flat_map(sides);
        let deaths = deaths.filter(|death| death.side != Side::Late || sent.contains(&death.deed));
        let play = |death| Ok((death, self.replay(death)?));
        crew::each(deaths, play, |(death, outcome)| covered.take_in(death, outcome))?;
        Ok(covered)
    }

    /// Replays one of them.
    ///
    /// # Errors
    /// When the simulation itself fails.
    pub fn replay(self, death: Death) -> anyhow::Result<Outcome> {
        run::within(SEED, async |chance: Chance| self.play(&chance, Some(death)).await)
    }
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Covered {
    /// In which life.
    pub life: Life,
    /// So many things a controller changes in the course of it.
    pub deeds: u64,
    /// So many runs were made of it.
    pub runs: u64,
    /// Kinds of things at which it died, and how often.
    pub kinds: BTreeMap<String, u64>,
    /// Runs that violated something.
    pub failed: Vec<(Death, Outcome)>,
}

impl Covered {
    fn take_in(&mut self, death: Death, outcome: Outcome) -> anyhow::Result<()> {
        self.runs += 1;
        let lines = outcome.history.lines();
        let died = lines.iter().find_map(|line| line.split_once(" dies ").map(|(_, what)| what.to_owned()));
        let kind = died.map(|died| died.split(" on ").next().unwrap_or_default().to_owned());
        let life = self.life;
        let kind =
            kind.ok_or_else(|| anyhow::anyhow!("nothing died at {death:?} of {life:?}: it is no crash that is tried"))?;
        let kind = kind.trim_end_matches(|last: char| last.is_ascii_digit()).trim().to_owned();
        *self.kinds.entry(kind).or_default() += 1;
        if !outcome.violations.is_empty() {
            self.failed.push((death, outcome));
        }
        Ok(())
    }
}

async fn host_by_host(chance: &Chance, death: Option<Death>) -> anyhow::Result<World> {
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

async fn in_steps(chance: &Chance, death: Option<Death>) -> anyhow::Result<World> {
    let mut world = World::new(chance, Edition::First, 4, 1).await?;
    world.start(death);
    // The first one leads.
    sleep(Duration::from_secs(2)).await;
    world.start(None);
    world.services[0].hosts = (0..4).map(host_name).collect();
    let rules = serde_json::json!({"steps": [1, "50%"], "bake": "4s", "promotion": "approved"});
    world.ground.oracle.lets_begin(&world.services[0].key, serde_json::from_value(rules)?);
    let canary = ", strategy: canary, canary: {steps: [1, 50%], bake: 4s, promotion: approved}";
    canary.clone_into(&mut world.services[0].rollout);
    world.edit_source(0, Quality::Good);
    world.declare(0).await?;
    rest().await;
    world.edit_source(0, Quality::Good);
    world.ask(0, &Request::Reconcile).await?;
    rest().await;
    for _step in 0..2 {
        approve(&world).await?;
        rest().await;
    }
    world.edit_source(0, Quality::Unwell);
    world.declare(0).await?;
    rest().await;
    world.edit_source(0, Quality::Good);
    world.declare(0).await?;
    rest().await;
    world.ask(0, &Request::Abort { from: None }).await?;
    rest().await;
    world.ask(0, &Request::Retry).await?;
    rest().await;
    approve(&world).await?;
    world.ask(0, &Request::Pause).await?;
    rest().await;
    world.ask(0, &Request::Resume).await?;
    rest().await;
    world.ground.oracle.lets_all_begin(&world.services[0].key);
    ", strategy: allAtOnce".clone_into(&mut world.services[0].rollout);
    world.services[0].max_unavailable = world.hosts.len();
    world.edit_source(0, Quality::Good);
    world.declare(0).await?;
    rest().await;
    world.edit_source(0, Quality::Exits);
    world.declare(0).await?;
    rest().await;
    world.delete(0).await?;
    world.settles().await?;
    Ok(world)
}

/// A person lets the next step of what is being rolled out begin.
async fn approve(world: &World) -> anyhow::Result<()> {
    let status = world.status(&world.services[0].key).await?;
    let Some(revision) = status.and_then(|status| status.revision) else { return Ok(()) };
    world.ask(0, &Request::next_step(revision, None)).await
}

/// As long as each of these takes, a crash and a restart in it included.
async fn rest() {
    sleep(Duration::from_secs(75)).await;
}
