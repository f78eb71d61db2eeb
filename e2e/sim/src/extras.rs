//! Extras: what goes wrong beside the first plots. They are drawn from streams of their own, so that the seeds of the
//! first edition still draw what they drew.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use windlass_crds::id::RevisionNumber;
use windlass_crds::request::Request;
use windlass_hosts::memory::{Behaviour, Caller, Edit, FileChange, Link};
use windlass_planner::position::at_rest;
use windlass_store::{Control, Key};

use crate::chance::Chance;
use crate::story::later;
use crate::way::Way;
use crate::world::{Model, Quality, World, host_name};

/// Which draws a story is made of: seeds that once found something are played as they were then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Edition {
    /// The first plots.
    First,
    /// And extras.
    Second,
    /// And twists.
    Third,
    /// And what a watch does not tell.
    Fourth,
}

impl Edition {
    /// The newest.
    pub const LAST: Self = Self::Fourth;
}

/// A leader stands still for so long at most, in milliseconds, beside a host that only it reaches: twice as long as any
/// dead man's switch waits.
const LONG_FREEZE: u64 = 300_000;

/// How one in so many of what is bad is bad on one host alone, of a hundred.
const PICKY: u64 = 30;

/// Extras of a run.
pub struct Extras(Chance);

impl Extras {
    /// Those of an edition, where it has any.
    pub fn of(edition: Edition, chance: &Chance) -> Option<Self> {
        (edition >= Edition::Second).then(|| Self(chance.fork("extras")))
    }

    /// What a service has beside its strategy.
    pub fn choose_rules(&self, world: &mut World, service: usize) {
        let Self(plot) = self;
        let model = &mut world.services[service];
        let canary = model.rollout.contains("canary");
        if canary && plot.percent(50) {
            model.rollout = model.rollout.replace("bake: 4s", "bake: 4s, promotion: approved");
            let rules = serde_json::json!({"steps": [1, "50%"], "bake": "4s", "promotion": "approved"});
            let rules = serde_json::from_value(rules).expect("it is a canary");
            world.ground.oracle.lets_begin(&model.key, rules);
        } else if !canary && plot.percent(30) {
            model.max_failures = if plot.percent(50) { 1 } else { 2 };
        }
        if model.rollout.is_empty() && plot.percent(50) {
            ", order: label:rack".clone_into(&mut model.rollout);
        }
    }

    /// What is bad may be bad on one host alone.
    pub fn quality(&self, world: &World, quality: Quality) -> Quality {
        let Self(plot) = self;
        if quality == Quality::Good || !plot.percent(PICKY) {
            return quality;
        }
        Quality::Picky(u8::try_from(plot.within(0..world.hosts.len() as u64)).expect("there are few"))
    }

    /// Now and then something more happens.
    ///
    /// # Errors
    /// When the store does not take it.
    pub async fn happen(&self, world: &mut World, service: usize) -> anyhow::Result<()> {
        let Self(plot) = self;
        if !plot.percent(35) {
            return Ok(());
        }
        match plot.within(0..12) {
            0 | 1 => revoke(world, plot).await?,
            2 | 3 => replace_unseen(world, service, plot).await?,
            4 | 5 => hide(world, service, plot),
            6 | 7 => edit_hosts(world, plot).await?,
            8 | 9 => approve(world, service, plot).await?,
            10 => strand(world, plot).await?,
            _ => fall_ill(world, service, plot),
        }
        Ok(())
    }
}

/// The way of the controller that leads.
async fn leader(world: &World) -> anyhow::Result<Option<Way>> {
    let leader = world.truth.leader().await?;
    Ok(leader.and_then(|leader| world.ways().into_iter().find(|way| way.name() == leader.identity)))
}

/// The lease of who leads is revoked in the midst of what it does.
async fn revoke(world: &World, plot: &Chance) -> anyhow::Result<()> {
    let Some(way) = leader(world).await? else { return Ok(()) };
    let (truth, history) = (world.truth.clone(), world.ground.history.clone());
    let deed = way.deeds() + plot.within(0..12);
    tokio::spawn(async move {
        way.comes_to(deed).await;
        let entry = truth.get(&Key::Control(Control::Leader)).await.ok().flatten();
        if let Some(lease) = entry.and_then(|entry| entry.lease) {
            history.tell(format_args!("the leader's lease is revoked, while {} is at work", way.name()));
            let _ = truth.revoke_lease(lease).await;
        }
    });
    Ok(())
}

/// A service is deleted and declared again while a controller hears nothing.
async fn replace_unseen(world: &mut World, service: usize, plot: &Chance) -> anyhow::Result<()> {
    if !world.services[service].declared {
        return Ok(());
    }
    let ways = world.ways();
    let way = plot.pick(&ways).clone();
    let time = plot.time(50..30_000);
    let (cut, compacted) = (plot.percent(50), plot.percent(30));
    world.tell(format_args!("{} hears nothing for {} ms, cut off: {cut}", way.name(), time.as_millis()));
    if cut {
        way.cut();
    } else {
        way.hush();
    }
    world.delete(service).await?;
    if plot.percent(50) {
        sleep(plot.time(0..100)).await;
    }
    if plot.percent(30) {
        let quality = if plot.percent(60) { Quality::Good } else { *plot.pick(&Quality::BAD) };
        world.edit_source(service, quality);
    }
    world.declare(service).await?;
    if compacted {
        world.tell("the store is compacted");
        let _ = world.ground.store.compact();
    }
    later(time, move || way.mend());
    Ok(())
}

/// A file of what runs is changed so that only its hash tells.
fn hide(world: &World, service: usize, plot: &Chance) {
    let address = plot.pick(&world.hosts).clone();
    if world.ground.fleet.is_severed(&address) {
        return;
    }
    let key = world.services[service].key.clone();
    let path = plot.pick(&["server.py", "lib/a.py"]).to_string();
    world.tell(format_args!("{address}: somebody: {path} of {key} is changed, with its size and time put back"));
    world.ground.fleet.edit(&address, &key, Edit::File { path, how: FileChange::Hidden });
}

/// Somebody edits Hosts and zones.
async fn edit_hosts(world: &World, plot: &Chance) -> anyhow::Result<()> {
    let index = usize::try_from(plot.within(0..world.hosts.len() as u64))?;
    match plot.within(0..3) {
        0 => {
            let rack = plot.pick(&["", "rack: one", "rack: two"]);
            world.tell(format_args!("{} has the labels {{{rack}}}", host_name(index)));
            world.declare_host(index, rack).await?;
        }
        1 => {
            world.tell(format_args!("{} is not declared any more", host_name(index)));
            world.delete_host(index).await?;
            sleep(plot.time(0..8000)).await;
            if plot.percent(70) {
                world.tell(format_args!("{} is declared again", host_name(index)));
                world.declare_host(index, "").await?;
            }
        }
        _ => {
            let there = plot.percent(60);
            world.tell(format_args!("some hosts have a zone of their own: {there}"));
            world.zone(there).await?;
        }
    }
    Ok(())
}

/// A person lets the next step of a canary begin, or what they take for it.
async fn approve(world: &World, service: usize, plot: &Chance) -> anyhow::Result<()> {
    let status = world.status(&world.services[service].key).await?;
    let Some(revision) = status.and_then(|status| status.revision) else { return Ok(()) };
    let revision = if plot.percent(85) { revision } else { RevisionNumber(revision.0.saturating_sub(1)) };
    world.ask(service, &Request::next_step(revision, None)).await
}

/// Who leads is frozen for long, beside a host that nobody else reaches.
async fn strand(world: &World, plot: &Chance) -> anyhow::Result<()> {
    let Some(way) = leader(world).await?.filter(|_| world.seats.len() > 1) else { return Ok(()) };
    let address = plot.pick(&world.hosts).clone();
    let (clock, time) = (plot.percent(40), plot.time(20_000..LONG_FREEZE));
    let cut = time + plot.time(0..60_000);
    let ms = time.as_millis();
    world.tell(format_args!("{} is frozen for {ms} ms, its clock too: {clock}; only it reaches {address}", way.name()));
    world.ground.oracle.expect_strays();
    for (number, other) in world.ways().iter().enumerate() {
        if other.name() != way.name() {
            let fleet = world.ground.fleet.seen_by(Caller(u32::try_from(number)?));
            fleet.set_own_link(&address, Link::partitioned());
            let address = address.clone();
            later(cut, move || fleet.set_own_link(&address, Link::Up));
        }
    }
    way.freeze(clock);
    later(time, move || way.thaw());
    Ok(())
}

/// The programs of a service fall ill on all hosts but some, together.
fn fall_ill(world: &mut World, service: usize, plot: &Chance) {
    let key = world.services[service].key.clone();
    world.tell(format_args!("{key} falls ill, on many hosts together"));
    for address in world.hosts.clone() {
        if world.is_well(&address, &key) && plot.percent(80) && !world.ground.fleet.is_severed(&address) {
            world.fall_ill(&address, &key, Behaviour::unhealthy(500));
        }
    }
}

/// Every file of what a host runs is looked at once an hour.
const HOURLY: Duration = Duration::from_secs(3700);

impl World {
    /// Where a file differs of what shall run, and only its hash tells.
    async fn hidden_damage(&self, model: &Model) -> anyhow::Result<Option<String>> {
        let target = self.status(&model.key).await?.and_then(|status| status.target);
        let hosts = self.hosts.iter().filter(|host| model.hosts.iter().any(|name| self.address(name) == **host));
        Ok(hosts.into_iter().find_map(|host| {
            let found = self.ground.fleet.peek(host, &model.key).service;
            let revision = found.unit.revision().filter(|revision| Some(*revision) == target)?;
            let bad = |release| self.ground.oracle.knows_as_bad(release, host);
            if at_rest(&found) && found.revisions.get(&revision).is_some_and(bad) {
                // It was stopped, since it does not work there, and is not to run: only a person has it tried again.
                return None;
            }
            let changed = |drift: &windlass_crds::observation::Drift| {
                matches!(drift, windlass_crds::observation::Drift::FilesChanged { .. })
            };
            found.drift.iter().find(|drift| changed(drift)).map(|drift| format!("{host}: {drift}"))
        }))
    }

    /// The services of which a file is damaged, but for those that are held up: what is held up is not put right either.
    async fn damaged(&self) -> anyhow::Result<Vec<String>> {
        let mut damaged = Vec::new();
        for model in self.services.iter().filter(|model| model.declared && model.quality != Quality::Severing) {
            damaged.extend(self.hidden_damage(model).await?.map(|place| format!("{}: {place}", model.key)));
        }
        Ok(damaged)
    }

    /// Waits until every host was looked at closely, where that has something to find; says whether it found it.
    ///
    /// # Errors
    /// When the store does not answer.
    pub(crate) async fn looks_closely(&self) -> anyhow::Result<bool> {
        if self.restless.load(Ordering::Relaxed) {
            // What serves is not taken down for it while another host is down.
            return Ok(true);
        }
        let until = Instant::now() + HOURLY;
        let mut damaged = self.damaged().await?;
        if !damaged.is_empty() {
            self.tell("what only hashes tell is found within the hour");
        }
        while !damaged.is_empty() && Instant::now() < until {
            sleep(Duration::from_secs(60)).await;
            damaged = self.damaged().await?;
        }
        for place in &damaged {
            self.ground.history.violated(format_args!("a damaged file is not found: {place}"));
        }
        Ok(damaged.is_empty())
    }
}
