//! Twists: what people and programs do that no plot before had. They are drawn from a stream of their own, so that the
//! seeds of the editions before still draw what they drew.

use std::time::Duration;

use tokio::time::sleep;
use windlass_hosts::memory::Behaviour;

use crate::chance::Chance;
use crate::extras::Edition;
use crate::world::World;

/// What people put by mistake.
const NONSENSE: [&str; 4] = [
    "{",
    "apiVersion: windlass/v1\nkind: Service\nmetadata: {name: s1}\nspec: {placemnt: {hosts: [h1]}}\n",
    "apiVersion: windlass/v1\nkind: Host\nmetadata: {name: s1}\nspec: {address: 198.18.0.1}\n",
    "\u{0}\u{0}",
];

/// A watch does not tell of so many messages, one after the other, at most.
const MOST_UNTOLD: u64 = 3;

/// Twists of a run.
pub struct Twists {
    plot: Chance,
    /// What watches do not tell, where the edition has that.
    untold: Option<Chance>,
}

impl Twists {
    /// Those of an edition, where it has any.
    pub fn of(edition: Edition, chance: &Chance) -> Option<Self> {
        let untold = (edition >= Edition::Fourth).then(|| chance.fork("untold"));
        (edition >= Edition::Third).then(|| Self { plot: chance.fork("twists"), untold })
    }

    /// Now and then something happens.
    ///
    /// # Errors
    /// When the store does not take it.
    pub async fn happen(&self, world: &mut World, service: usize) -> anyhow::Result<()> {
        let Self { plot, untold } = self;
        if let Some(untold) = untold.as_ref().filter(|untold| untold.percent(25)) {
            let ways = world.ways();
            let (way, count) = (untold.pick(&ways), untold.within(1..MOST_UNTOLD + 1));
            world.tell(format_args!("{} is not told of the next {count} messages of its watches", way.name()));
            way.loses_told(u32::try_from(count)?);
        }
        if !plot.percent(30) {
            return Ok(());
        }
        match plot.within(0..8) {
            0..3 => bring_back(world, service, plot).await?,
            3 | 4 => mistype(world, service, plot).await?,
            5 | 6 => change_environment(world, service, plot).await?,
            _ => flap(world, service, plot),
        }
        Ok(())
    }
}

/// Somebody goes back to files that were there before, good ones or bad.
async fn bring_back(world: &mut World, service: usize, plot: &Chance) -> anyhow::Result<()> {
    let versions = world.services[service].version;
    if versions > 1 {
        world.bring_back(service, 1 + plot.within(0..versions - 1));
        if world.services[service].declared && plot.percent(40) {
            world.declare(service).await?;
        }
    }
    Ok(())
}

/// Somebody declares what makes no sense, and mostly puts it right.
async fn mistype(world: &mut World, service: usize, plot: &Chance) -> anyhow::Result<()> {
    if !world.services[service].declared {
        return Ok(());
    }
    let text: &&str = plot.pick(&NONSENSE);
    world.mistype(service, text).await?;
    if plot.percent(70) {
        sleep(plot.time(0..20_000)).await;
        world.declare(service).await?;
    }
    Ok(())
}

/// The same files with other settings, or with those from before.
async fn change_environment(world: &mut World, service: usize, plot: &Chance) -> anyhow::Result<()> {
    world.services[service].environment = plot.within(0..3);
    if world.services[service].declared {
        world.declare(service).await?;
    }
    Ok(())
}

/// What runs on a host is well and unwell by turns.
fn flap(world: &mut World, service: usize, plot: &Chance) {
    let address = plot.pick(&world.hosts).clone();
    let key = world.services[service].key.clone();
    if !world.is_well(&address, &key) || world.ground.fleet.is_severed(&address) {
        return;
    }
    let (good, bad): (Duration, Duration) = (plot.time(500..20_000), plot.time(500..20_000));
    world.tell(format_args!("{address}: {key} is well for {} ms and unwell for {}", good.as_millis(), bad.as_millis()));
    world.fall_ill(&address, &key, Behaviour::flapping(good, bad));
}
