//! Tales: stories with names, for what a seed would need much luck for. Each is played the same way every time.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use windlass_crds::condition::{ConditionType, Reason};
use windlass_crds::id::RevisionNumber;
use windlass_crds::record::Purpose;
use windlass_crds::request::Request;
use windlass_crds::status::condition;
use windlass_hosts::memory::{Behaviour, Edit, FileChange, Link};

use crate::chance::Chance;
use crate::extras::Edition;
use crate::run::{self, Outcome};
use crate::world::{Quality, World, host_name};

/// The seed of all tales.
const SEED: u64 = 1;

/// What is waited for comes within this: as long as a rollout over six hosts takes, a takeover in it included.
const SOON: Duration = Duration::from_secs(120);

/// A story with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tale {
    /// Hosts that a rollout has not come to fall ill together: it stands still until a person resumes.
    ManyFallIll,
    /// Somebody stops a program again and again: it is started again four times, and then left.
    StoppedAgainAndAgain,
    /// The leader dies beside a host that it has just taken down, and nobody reaches it since: no other host is taken
    /// down, however long that takes.
    LostWithItsLeader,
    /// A version cuts its host off: it is tried once more there, nowhere else, and then held up.
    CutOff,
    /// A host cannot be repaired, and fails again and again; meanwhile another one is judged.
    OneFailsBesideAnother,
    /// What only hashes tell is found, and nothing moves for some seconds before it can be put right.
    FoundAndForgotten,
    /// The store is an older one, and hosts have seen many numbers since.
    NumbersOfAnOlderStore,
    /// A version that is good elsewhere is unhealthy on one host, which goes back by itself: another one, out of reach
    /// until then, does not wait for it.
    UnhealthyOnOneAlone,
}

impl Tale {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::ManyFallIll,
        Self::StoppedAgainAndAgain,
        Self::LostWithItsLeader,
        Self::CutOff,
        Self::OneFailsBesideAnother,
        Self::FoundAndForgotten,
        Self::NumbersOfAnOlderStore,
        Self::UnhealthyOnOneAlone,
    ];

    /// Plays it.
    ///
    /// # Errors
    /// When the simulation itself fails.
    pub fn play(self) -> anyhow::Result<Outcome> {
        run::within(SEED, async |chance: Chance| match self {
            Self::ManyFallIll => many_fall_ill(&chance).await,
            Self::StoppedAgainAndAgain => stopped_again_and_again(&chance).await,
            Self::LostWithItsLeader => lost_with_its_leader(&chance).await,
            Self::CutOff => cut_off(&chance).await,
            Self::OneFailsBesideAnother => one_fails_beside_another(&chance).await,
            Self::FoundAndForgotten => found_and_forgotten(&chance).await,
            Self::NumbersOfAnOlderStore => numbers_of_an_older_store(&chance).await,
            Self::UnhealthyOnOneAlone => unhealthy_on_one_alone(&chance).await,
        })
    }
}

/// A fleet that runs a first version on so many hosts.
async fn fleet(chance: &Chance, hosts: usize, controllers: usize, rollout: &str) -> anyhow::Result<World> {
    let mut world = World::new(chance, Edition::LAST, hosts, 1).await?;
    for _ in 0..controllers {
        world.start(None);
    }
    world.services[0].hosts = (0..hosts).map(host_name).collect();
    rollout.clone_into(&mut world.services[0].rollout);
    world.edit_source(0, Quality::Good);
    world.declare(0).await?;
    comes_to(&world, "a first version everywhere", async |world| says(world, Reason::Converged).await).await?;
    Ok(world)
}

/// What is said of the service.
async fn said(world: &World) -> anyhow::Result<Option<Reason>> {
    let status = world.status(&world.services[0].key).await?;
    Ok(status.and_then(|status| condition(&status.conditions, ConditionType::Ready).map(|ready| ready.reason)))
}

async fn says(world: &World, reason: Reason) -> anyhow::Result<bool> {
    Ok(said(world).await? == Some(reason))
}

/// Waits for something that has to come.
async fn comes_to(
    world: &World,
    what: &str,
    holds: impl AsyncFn(&World) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + SOON;
    while !holds(world).await? {
        if Instant::now() >= deadline {
            world.ground.history.violated(format_args!("it never came to {what}"));
            return Ok(());
        }
        sleep(Duration::from_millis(20)).await;
    }
    world.tell(format_args!("it has come to {what}"));
    Ok(())
}

/// How a tale ends. One that has gone wrong is not waited for.
async fn ends_well(world: &World) -> anyhow::Result<()> {
    if world.ground.history.violations().is_empty() {
        world.settles().await?;
    }
    Ok(())
}

/// How often something was switched on hosts.
fn switches(world: &World) -> usize {
    let changes = world.ground.fleet.changes();
    changes.iter().filter(|call| call.contains("activate") || call.contains("revert")).count()
}

/// The revision that a host runs.
fn runs(world: &World, index: usize) -> Option<RevisionNumber> {
    world.ground.fleet.peek(&world.hosts[index], &world.services[0].key).service.unit.revision()
}

async fn many_fall_ill(chance: &Chance) -> anyhow::Result<World> {
    let mut world = fleet(chance, 6, 1, ", strategy: canary, canary: {steps: [1], bake: 60s}").await?;
    // Each has been seen well by then.
    sleep(Duration::from_secs(30)).await;
    world.edit_source(0, Quality::Good);
    world.declare(0).await?;
    comes_to(&world, "a canary", async |world| Ok(runs(world, 0) == Some(RevisionNumber(2)))).await?;
    let key = world.services[0].key.clone();
    let World { hosts, ill, ground, .. } = &mut world;
    for address in &hosts[2..] {
        ground.history.tell(format_args!("{address} falls ill"));
        ill.insert((address.clone(), key.clone()));
        ground.oracle.is_ill(address, &key);
        ground.fleet.edit(address, &key, Edit::Behave(Behaviour::unhealthy(500)));
    }
    comes_to(&world, "a standstill", async |world| says(world, Reason::MassUnhealthy).await).await?;
    let before = switches(&world);
    sleep(Duration::from_secs(300)).await;
    if switches(&world) > before {
        world.ground.history.violated("something was switched while many hosts were ill");
    }
    world.ask(0, &Request::Resume).await?;
    ends_well(&world).await?;
    Ok(world)
}

async fn stopped_again_and_again(chance: &Chance) -> anyhow::Result<World> {
    let world = fleet(chance, 2, 1, "").await?;
    let key = world.services[0].key.clone();
    let before = switches(&world);
    for _ in 0..10 {
        world.ground.fleet.edit(&world.hosts[0], &key, Edit::Stop);
        // Hosts are looked at once a minute.
        sleep(Duration::from_secs(90)).await;
    }
    let repairs = switches(&world) - before;
    if repairs != 4 {
        world.ground.history.violated(format_args!("what is stopped again and again was started {repairs} times"));
    }
    comes_to(&world, "being left", async |world| says(world, Reason::Flapping).await).await?;
    world.ask(0, &Request::Resume).await?;
    ends_well(&world).await?;
    Ok(world)
}

async fn lost_with_its_leader(chance: &Chance) -> anyhow::Result<World> {
    let mut world = fleet(chance, 3, 2, "").await?;
    world.edit_source(0, Quality::Deaf);
    world.declare(0).await?;
    comes_to(&world, "a switch", async |world| Ok(runs(world, 0) == Some(RevisionNumber(2)))).await?;
    let leader = world.truth.leader().await?.map(|leader| leader.identity);
    world.tell(format_args!("{leader:?} dies, and {} is out of reach", world.hosts[0]));
    world.ways().iter().filter(|way| Some(way.name()) == leader.as_deref()).for_each(crate::way::Way::kill);
    world.ground.fleet.set_link(&world.hosts[0], Link::partitioned());
    // Longer than a new leader takes a host for down that it has never seen.
    sleep(Duration::from_secs(300)).await;
    if runs(&world, 1) == Some(RevisionNumber(2)) || runs(&world, 2) == Some(RevisionNumber(2)) {
        world.ground.history.violated("another host was switched while one was lost in mid-switch");
    }
    world.heal()?;
    ends_well(&world).await?;
    Ok(world)
}

async fn cut_off(chance: &Chance) -> anyhow::Result<World> {
    let mut world = fleet(chance, 3, 1, "").await?;
    world.edit_source(0, Quality::Severing);
    world.declare(0).await?;
    ends_well(&world).await?;
    let tried = switches(&world) - world.hosts.len();
    if tried != 2 {
        world.ground.history.violated(format_args!("what cuts its host off was tried {tried} times"));
    }
    Ok(world)
}

async fn one_fails_beside_another(chance: &Chance) -> anyhow::Result<World> {
    let rollout = ", strategy: canary, canary: {steps: [1], bake: 4s}";
    let mut world = fleet(chance, 3, 1, rollout).await?;
    let (key, release) = (world.services[0].key.clone(), world.services[0].release);
    // Whatever it needs is not there any more.
    world.ground.fleet.set_behaviour(release, Behaviour::exits_at_once());
    world.ground.fleet.edit(&world.hosts[2], &key, Edit::Stop);
    // The one that fails is down, and another one may be.
    world.services[0].max_unavailable = 2;
    world.edit_source(0, Quality::Good);
    world.declare(0).await?;
    let two = Some(RevisionNumber(2));
    comes_to(&world, "a canary", async |world| Ok(runs(world, 0) == two)).await?;
    let canary = |world: &World| world.ground.fleet.peek(&world.hosts[0], &world.services[0].key).service;
    let switched = canary(&world).sequence;
    comes_to(&world, "a canary that is confirmed", async |world| Ok(canary(world).good == two)).await?;
    // Another number is another try: the wait for the first one's verdict was ended.
    if canary(&world).sequence != switched {
        world.ground.history.violated("what fails on one host ended the wait for a verdict on another");
    }
    ends_well(&world).await?;
    Ok(world)
}

async fn found_and_forgotten(chance: &Chance) -> anyhow::Result<World> {
    let world = fleet(chance, 1, 1, "").await?;
    let key = world.services[0].key.clone();
    let how = FileChange::Hidden;
    world.ground.fleet.edit(&world.hosts[0], &key, Edit::File { path: "server.py".to_owned(), how });
    // Every file is read once an hour.
    sleep(Duration::from_secs(3560)).await;
    comes_to(&world, "its being found", async |world| {
        let status = world.status(&world.services[0].key).await?;
        Ok(status.and_then(|status| status.rollout).is_some_and(|rollout| rollout.purpose == Purpose::Repair))
    })
    .await?;
    for way in world.ways() {
        way.freeze(false);
        sleep(Duration::from_secs(5)).await;
        way.thaw();
    }
    comes_to(&world, "its being put right", async |world| {
        let found = world.ground.fleet.peek(&world.hosts[0], &world.services[0].key).service;
        Ok(found.drift.is_empty())
    })
    .await?;
    ends_well(&world).await?;
    Ok(world)
}

async fn numbers_of_an_older_store(chance: &Chance) -> anyhow::Result<World> {
    let mut world = fleet(chance, 2, 1, "").await?;
    let copy = world.ground.store.copy()?;
    for _ in 0..12 {
        world.ask(0, &Request::Restart).await?;
        sleep(Duration::from_secs(15)).await;
    }
    world.tell("an older copy is put in the place of the store");
    world.ground.store.turn_back(&copy, 2)?;
    world.ground.oracle.restored().await;
    sleep(Duration::from_secs(30)).await;
    world.edit_source(0, Quality::Good);
    world.declare(0).await?;
    let (key, release) = (world.services[0].key.clone(), world.services[0].release);
    comes_to(&world, "what is declared then", async |world| {
        let status = world.status(&key).await?;
        Ok(says(world, Reason::Converged).await? && status.is_some_and(|status| status.release == Some(release)))
    })
    .await?;
    ends_well(&world).await?;
    Ok(world)
}

async fn unhealthy_on_one_alone(chance: &Chance) -> anyhow::Result<World> {
    let mut world = World::new(chance, Edition::LAST, 3, 1).await?;
    world.start(None);
    world.services[0].hosts = [host_name(0)].into();
    world.edit_source(0, Quality::Picky(1));
    world.declare(0).await?;
    comes_to(&world, "a first version on one host", async |world| says(world, Reason::Converged).await).await?;
    world.tell(format_args!("{} is out of reach", world.hosts[2]));
    world.ground.fleet.set_link(&world.hosts[2], Link::partitioned());
    world.services[0].hosts = (0..3).map(host_name).collect();
    world.declare(0).await?;
    comes_to(&world, "a switch", async |world| Ok(runs(world, 1).is_some())).await?;
    // Longer than it waits until it goes back.
    sleep(Duration::from_secs(180)).await;
    world.tell(format_args!("{} is in reach", world.hosts[2]));
    world.ground.fleet.set_link(&world.hosts[2], Link::Up);
    // The longest that what has failed waits for its next try.
    sleep(Duration::from_secs(310)).await;
    let found = world.ground.fleet.peek(&world.hosts[2], &world.services[0].key).service;
    if found.good != Some(RevisionNumber(1)) {
        world.ground.history.violated("a host waits for another one on which it is unhealthy");
    }
    // It is tried again and again meanwhile, and each time it goes back.
    sleep(Duration::from_secs(900)).await;
    if says(&world, Reason::Unconfirmed).await? {
        world.ground.history.violated("what was found unhealthy is called unconfirmed");
    }
    ends_well(&world).await?;
    Ok(world)
}
