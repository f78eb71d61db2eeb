//! A story: what people do and what goes wrong, drawn from a seed.

use std::time::Duration;

use tokio::time::sleep;
use windlass_crds::id::RevisionNumber;
use windlass_crds::request::Request;
use windlass_hosts::memory::{Behaviour, Caller, Edit, FileChange, HostChange, Link, Mishap};

use crate::chance::Chance;
use crate::extras::{Edition, Extras};
use crate::twists::Twists;
use crate::way::{Death, Side};
use crate::world::{Model, Quality, World, host_name};

/// A controller stands still for no longer than this: a host that only it reaches counts as down for a minute after a
/// takeover, as the design says, and a takeover takes 20 s.
const LONGEST_FREEZE: u64 = 45_000;

/// So many in a hundred of the steps that a controller dies before are on their way by then.
const LATE: u64 = 40;

/// What watches did not tell is found out by then, as the follower of the store promises.
const TOLD_BY: Duration = Duration::from_secs(90);

/// Plays a story to its end, and settles.
///
/// # Errors
/// When the simulation itself fails.
pub async fn play(chance: &Chance, edition: Edition) -> anyhow::Result<World> {
    let plot = chance.fork("plot");
    let strategies = chance.fork("strategies");
    let (hosts, services) = (plot.within(2..6) as usize, plot.within(1..4) as usize);
    let (extras, twists) = (Extras::of(edition, chance), Twists::of(edition, chance));
    let mut world = World::new(chance, edition, hosts, services).await?;
    let paces = chance.fork("paces");
    world.ground.fleet.set_pace(move |_, _| match paces.within(0..50) {
        0 => paces.time(50..2000),
        _ => paces.time(1..12),
    });
    for _ in 0..plot.within(1..3) {
        world.start(None);
    }
    for service in 0..services {
        world.services[service].max_unavailable = plot.within(1..3) as usize;
        choose_strategy(&mut world.services[service], &strategies);
        if let Some(extras) = &extras {
            extras.choose_rules(&mut world, service);
        }
        choose_hosts(&mut world, service, &plot);
        let quality = quality(&world, &plot, extras.as_ref());
        world.edit_source(service, quality);
        world.declare(service).await?;
    }
    for _ in 0..plot.within(5..40) {
        sleep(pause(&plot)).await;
        let service = plot.within(0..services as u64) as usize;
        if plot.percent(40) {
            somebody(&mut world, service, &plot, extras.as_ref()).await?;
        } else {
            fate(&mut world, service, &plot).await?;
        }
        if let Some(extras) = &extras {
            extras.happen(&mut world, service).await?;
        }
        if let Some(twists) = &twists {
            twists.happen(&mut world, service).await?;
        }
    }
    finish(&mut world, &plot, edition, extras.as_ref()).await?;
    Ok(world)
}

/// Everything is declared anew, by which it has to come to an end whatever was before.
async fn finish(world: &mut World, plot: &Chance, edition: Edition, extras: Option<&Extras>) -> anyhow::Result<()> {
    world.heal()?;
    if edition >= Edition::Fourth {
        // Who was not told of a pause would hear of it after the word to go on, and keep to it.
        sleep(TOLD_BY).await;
    }
    if extras.is_some() {
        for index in 0..world.hosts.len() {
            world.declare_host(index, "").await?;
        }
    }
    for service in 0..world.services.len() {
        if plot.percent(15) {
            world.delete(service).await?;
            world.ask(service, &Request::ConfirmRemoval { hosts: Default::default() }).await?;
            continue;
        }
        let quality = if plot.percent(70) { Quality::Good } else { *plot.pick(&Quality::BAD) };
        let quality = extras.map_or(quality, |extras| extras.quality(world, quality));
        choose_hosts(world, service, plot);
        world.edit_source(service, quality);
        world.declare(service).await?;
        world.ask(service, &Request::Resume).await?;
        world.ask(service, &Request::ConfirmRemoval { hosts: Default::default() }).await?;
    }
    world.settles().await?;
    let service = plot.within(0..world.services.len() as u64) as usize;
    // What is held up is not put right either.
    let held = world.services[service].quality == Quality::Severing;
    if plot.percent(50) && !held && world.ground.history.violations().is_empty() {
        let address = plot.pick(&world.hosts).clone();
        drift(world, service, &address, plot);
        world.settles().await?;
    }
    Ok(())
}

/// Somebody changes something where all is well; it has to be put back.
fn drift(world: &mut World, service: usize, address: &str, plot: &Chance) {
    let file = Edit::File { path: "server.py".to_owned(), how: FileChange::Replaced };
    let edit = plot.pick(&[Edit::Stop, Edit::Disable, Edit::Unit, Edit::NoUnit, Edit::Revision, file]).clone();
    let key = world.services[service].key.clone();
    world.tell(format_args!("{address}: somebody: {edit:?} of {key}, though all was well"));
    world.ground.fleet.edit(address, &key, edit);
}

fn pause(plot: &Chance) -> Duration {
    match plot.within(0..10) {
        0..5 => plot.time(0..1500),
        5..9 => plot.time(1000..8000),
        _ => plot.time(8000..70_000),
    }
}

fn choose_strategy(model: &mut Model, plot: &Chance) {
    let strategy = match plot.within(0..6) {
        0 | 1 => ", strategy: canary, canary: {steps: [1, 50%], bake: 4s}",
        2 => ", strategy: allAtOnce",
        3 => ", order: zone",
        _ => "",
    };
    strategy.clone_into(&mut model.rollout);
    if strategy.contains("allAtOnce") {
        // However many there are.
        model.max_unavailable = 99;
    }
}

fn quality(world: &World, plot: &Chance, extras: Option<&Extras>) -> Quality {
    let quality = if plot.percent(65) { Quality::Good } else { *plot.pick(&Quality::BAD) };
    extras.map_or(quality, |extras| extras.quality(world, quality))
}

fn choose_hosts(world: &mut World, service: usize, plot: &Chance) {
    let count = world.hosts.len();
    let mut hosts: std::collections::BTreeSet<String> =
        (0..count).filter(|_| plot.percent(75)).map(host_name).collect();
    if hosts.is_empty() {
        hosts.insert(host_name(0));
    }
    world.services[service].hosts = hosts;
}

/// Somebody does something.
async fn somebody(world: &mut World, service: usize, plot: &Chance, extras: Option<&Extras>) -> anyhow::Result<()> {
    let declared = world.services[service].declared;
    match plot.within(0..21) {
        0..7 => {
            let quality = quality(world, plot, extras);
            world.edit_source(service, quality);
            if declared && plot.percent(50) {
                world.ask(service, &Request::Reconcile).await?;
            }
        }
        7..10 => {
            let quality = quality(world, plot, extras);
            world.edit_source(service, quality);
            world.declare(service).await?;
        }
        10 | 11 => {
            choose_hosts(world, service, plot);
            world.declare(service).await?;
        }
        12 => {
            world.delete(service).await?;
            if plot.percent(50) {
                sleep(pause(plot)).await;
                world.declare(service).await?;
            }
        }
        13 => world.declare(service).await?,
        14 => {
            let from = seen(world, service).await?;
            world.ask(service, &Request::Undo { revision: None, from }).await?;
        }
        15 => world.ask(service, &Request::Retry).await?,
        16 => world.ask(service, &Request::Restart).await?,
        17 => world.ask(service, &Request::Pause).await?,
        18 => world.ask(service, &Request::Resume).await?,
        19 => {
            let from = seen(world, service).await?;
            world.ask(service, &Request::Abort { from }).await?;
        }
        _ => world.ask(service, &Request::ConfirmRemoval { hosts: Default::default() }).await?,
    }
    Ok(())
}

/// The revision from which somebody goes back, as the commands do: what they see.
async fn seen(world: &World, service: usize) -> anyhow::Result<Option<RevisionNumber>> {
    let status = world.status(&world.services[service].key).await?;
    Ok(status.and_then(|status| status.revision))
}

/// Does something after a time.
pub(crate) fn later(time: Duration, act: impl FnOnce() + Send + 'static) {
    tokio::spawn(async move {
        sleep(time).await;
        act();
    });
}

/// Something goes wrong.
async fn fate(world: &mut World, service: usize, plot: &Chance) -> anyhow::Result<()> {
    match plot.within(0..3) {
        0 => controllers(world, plot),
        1 => store(world, plot).await?,
        _ => hosts(world, service, plot),
    }
    Ok(())
}

fn controllers(world: &mut World, plot: &Chance) {
    let ways = world.ways();
    let way = plot.pick(&ways).clone();
    match plot.within(0..8) {
        0 => {
            world.tell(format_args!("{} is killed", way.name()));
            way.kill();
        }
        1..=3 => {
            let side = if plot.percent(50) { Side::Before } else { Side::After };
            let deed = way.deeds() + plot.within(0..12);
            // Another stream, so that the plot draws what it drew.
            let late = side == Side::Before && world.ground.chance.fork(&format!("late {deed}")).percent(LATE);
            way.dies_at(Death { deed, side: if late { Side::Late } else { side } });
        }
        4 | 5 => {
            let (clock, time) = (plot.percent(40), plot.time(1000..LONGEST_FREEZE));
            world.tell(format_args!("{} is frozen for {} ms, its clock too: {clock}", way.name(), time.as_millis()));
            way.freeze(clock);
            later(time, move || way.thaw());
        }
        6 => {
            let off = i64::try_from(plot.within(0..7_200_000)).unwrap_or(0) - 3_600_000;
            world.tell(format_args!("{}: its time of day is off by {off} ms", way.name()));
            way.set_off(off);
        }
        _ => {
            world.tell(format_args!("{} loses answers", way.name()));
            way.lose_answers(plot.within(1..4) as u32);
        }
    }
}

async fn store(world: &mut World, plot: &Chance) -> anyhow::Result<()> {
    let ways = world.ways();
    let way = plot.pick(&ways).clone();
    match plot.within(0..9) {
        0 | 1 => {
            let time = plot.time(500..40_000);
            world.tell(format_args!("{} cannot reach the store for {} ms", way.name(), time.as_millis()));
            way.cut();
            later(time, move || way.mend());
        }
        2 => {
            let time = plot.time(500..20_000);
            world.tell(format_args!("the store is away for {} ms", time.as_millis()));
            for way in ways {
                way.cut();
                later(time, move || way.mend());
            }
        }
        3 => {
            let time = plot.time(10_000..60_000);
            world.tell(format_args!("{} hears nothing for {} ms", way.name(), time.as_millis()));
            way.hush();
            later(time, move || way.mend());
        }
        4 => {
            world.tell(format_args!("streams of {} break", way.name()));
            way.break_streams();
        }
        5 => {
            world.tell("the store is compacted");
            // Where nothing was written since, it says so.
            let _ = world.ground.store.compact();
        }
        6 => {
            world.tell(format_args!("streams of {} break, and the store is compacted", way.name()));
            way.break_streams();
            let _ = world.ground.store.compact();
        }
        7 => {
            world.tell("a copy is made of the store");
            world.copies.push(world.ground.store.copy()?);
        }
        _ => turn_back(world, plot).await?,
    }
    Ok(())
}

/// A copy is put in the place of the store: what was declared since is not declared.
async fn turn_back(world: &mut World, plot: &Chance) -> anyhow::Result<()> {
    if world.copies.is_empty() || !plot.percent(50) {
        return Ok(());
    }
    let copy = plot.pick(&world.copies).clone();
    world.tell("an older copy is put in the place of the store");
    world.ground.store.turn_back(&copy, plot.within(2..1 << 40))?;
    world.place_as_declared().await?;
    world.ground.oracle.restored().await;
    Ok(())
}

fn hosts(world: &mut World, service: usize, plot: &Chance) {
    let address = plot.pick(&world.hosts).clone();
    let fleet = world.ground.fleet.clone();
    match plot.within(0..10) {
        0 => {
            let time = plot.time(1000..60_000);
            world.tell(format_args!("{address} is out of reach for {} ms", time.as_millis()));
            let link = if plot.percent(50) { Link::partitioned() } else { Link::refused() };
            fleet.set_link(&address, link);
            later(time, move || fleet.set_link(&address, Link::Up));
        }
        1 => {
            let number = plot.within(0..world.seats.len() as u64) as u32;
            let time = plot.time(1000..LONGEST_FREEZE);
            world.tell(format_args!("c{number} cannot reach {address} for {} ms", time.as_millis()));
            let fleet = fleet.seen_by(Caller(number));
            fleet.set_own_link(&address, Link::partitioned());
            later(time, move || fleet.set_own_link(&address, Link::Up));
        }
        2 => {
            let dark = plot.time(500..30_000);
            world.tell(format_args!("{address} reboots, {} ms", dark.as_millis()));
            fleet.reboot(&address, dark);
        }
        3..6 => {
            let mishap = mishap(plot);
            world.tell(format_args!("{address}: next {mishap:?}"));
            fleet.fail_next(&address, None, mishap);
        }
        6 => {
            world.tell(format_args!("{address}: its disk is full"));
            fleet.change(&address, HostChange::DiskFull);
            let time = plot.time(1000..60_000);
            later(time, move || fleet.change(&address, HostChange::DiskFree));
        }
        _ => edit(world, service, &address, plot),
    }
}

fn mishap(plot: &Chance) -> Mishap {
    match plot.within(0..7) {
        0 => Mishap::LostBefore,
        1 => Mishap::LostReply,
        2 => Mishap::HalfUpload { bytes: plot.within(0..300_000) },
        3 => Mishap::TimesOut,
        _ => Mishap::PowerCut { effects: plot.within(0..6) as usize, dark: plot.time(500..20_000) },
    }
}

/// A hand other than ours.
fn edit(world: &mut World, service: usize, address: &str, plot: &Chance) {
    let file = |how| Edit::File { path: "server.py".to_owned(), how };
    let (edit, takes) = match plot.within(0..12) {
        0 => (Edit::Stop, false),
        1 => (Edit::Kill, false),
        2 => (Edit::Disable, false),
        3 => (Edit::Unit, false),
        4 => (Edit::NoUnit, false),
        5 => (Edit::ForeignUnit, false),
        6 => (Edit::Revision, false),
        7 => (file(FileChange::Replaced), false),
        8 => (file(FileChange::WrittenThrough), false),
        9 => (Edit::Behave(Behaviour::unhealthy(500)), false),
        10 => (Edit::LoseFence, true),
        _ => (Edit::Behave(Behaviour::crashes_after(Duration::from_secs(2))), false),
    };
    let key = world.services[service].key.clone();
    if world.ground.fleet.is_severed(address) {
        // Nor does anybody else get there.
        return;
    }
    world.tell(format_args!("{address}: somebody: {edit:?} of {key}"));
    if matches!(edit, Edit::Behave(_)) {
        let found = world.ground.fleet.peek(address, &key).service;
        let runs = found.unit.revision().and_then(|revision| found.revisions.get(&revision));
        if runs.is_some_and(|release| world.ground.oracle.knows_as_bad(release, address)) {
            // What does not work would work for a moment.
            return;
        }
        world.ill.insert((address.to_owned(), key.clone()));
        world.ground.oracle.is_ill(address, &key);
    }
    if edit == Edit::Kill {
        // systemd starts it again, at a moment that no look can foresee.
        world.ground.oracle.is_ill(address, &key);
    }
    if takes {
        world.ground.oracle.forget(address, &key);
    }
    world.ground.fleet.edit(address, &key, edit);
}
