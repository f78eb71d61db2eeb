//! Random fleets, random outcomes: what must hold of every plan holds, and it comes to rest in the end.

use proptest::prelude::*;
use windlass_crds::record::Purpose;
use windlass_crds::step::{StepError, Verb};
use windlass_planner::input::Placement;

use crate::machine::Link;
use crate::notation::drift;
use crate::world::World;

/// The hosts of a random world.
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// Something that happens while rollouts go on.
#[derive(Debug, Clone)]
enum Event {
    /// Plan, record, send.
    Turn,
    /// One act on a host.
    Act(usize),
    Declare(char),
    /// These files are unhealthy on this host from now on, or everywhere.
    Bad(usize, char),
    Cured,
    Cut(usize),
    /// Nobody has looked at it.
    Dark(usize),
    Mend(usize),
    Drift(usize, char),
    Crash(usize),
    Fail(usize, Verb),
    Retry,
    Undo,
    Restart,
    Pause,
    Resume,
    TakeOver,
    SourceAway,
    Unplace(usize),
    Place(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let host = 0..NAMES.len();
    let letter = prop::sample::select(vec!['A', 'B', 'C']);
    let kind = prop::sample::select(vec!['u', 'f', 'r', 'e', 's', 'w', 'l']);
    let verb = prop::sample::select(vec![Verb::Stage, Verb::Activate, Verb::Confirm, Verb::Revert]);
    prop_oneof![
        30 => Just(Event::Turn),
        40 => host.clone().prop_map(Event::Act),
        3 => letter.clone().prop_map(Event::Declare),
        2 => (0..=NAMES.len(), letter).prop_map(|(host, letter)| Event::Bad(host, letter)),
        1 => Just(Event::Cured),
        2 => host.clone().prop_map(Event::Cut),
        1 => host.clone().prop_map(Event::Dark),
        4 => host.clone().prop_map(Event::Mend),
        2 => (host.clone(), kind).prop_map(|(host, kind)| Event::Drift(host, kind)),
        1 => host.clone().prop_map(Event::Crash),
        2 => (host.clone(), verb).prop_map(|(host, verb)| Event::Fail(host, verb)),
        1 => Just(Event::Retry),
        1 => Just(Event::Undo),
        2 => Just(Event::Restart),
        1 => Just(Event::Pause),
        2 => Just(Event::Resume),
        1 => Just(Event::TakeOver),
        1 => Just(Event::SourceAway),
        1 => host.clone().prop_map(Event::Unplace),
        1 => host.prop_map(Event::Place),
    ]
}

fn happen(world: &mut World, event: &Event) {
    match event {
        Event::Turn => {
            world.turn();
        }
        Event::Act(host) => world.act(NAMES[*host]),
        Event::Declare(files) => world.set_files(*files),
        Event::Bad(host, files) => {
            world.bad.insert(((*NAMES.get(*host).unwrap_or(&"*")).to_owned(), *files));
        }
        Event::Cured => world.bad.clear(),
        Event::Cut(host) => world.host(NAMES[*host]).link = Link::Cut,
        Event::Dark(host) => world.host(NAMES[*host]).link = Link::Dark,
        Event::Mend(host) => world.host(NAMES[*host]).link = Link::Up,
        Event::Drift(host, kind) => {
            let machine = world.host(NAMES[*host]);
            // Only what is confirmed and at rest is changed: else it is not told from a step of ours.
            let at_rest = machine.errand.is_none() && machine.seen.good == machine.seen.unit.revision();
            if at_rest && machine.seen.good.is_some() {
                world.log.push(format!("{} drifts: {kind}", NAMES[*host]));
                drift(world.host(NAMES[*host]), *kind);
            }
        }
        Event::Crash(host) => {
            let machine = world.host(NAMES[*host]);
            if machine.seen.unit.revision().is_some() {
                machine.crash();
                world.log.push(format!("{} crashes", NAMES[*host]));
            }
        }
        Event::Fail(host, verb) => {
            let full = StepError::NoSpace { detail: "/opt".to_owned() };
            world.failing.insert((NAMES[*host].to_owned(), *verb), full);
        }
        Event::Retry => world.retry(),
        Event::Undo => undo(world),
        // As the controller takes it: only what has run is started anew.
        Event::Restart if world.owned.good.is_empty() => {}
        Event::Restart => world.restart(),
        Event::Pause => world.pause(),
        Event::Resume => world.resume(),
        Event::TakeOver => world.take_over(),
        Event::SourceAway => world.files = None,
        Event::Unplace(host) => {
            let placed = world.placed();
            if placed > 2 {
                world.host(NAMES[*host]).placement = Placement::Unplaced;
            }
        }
        Event::Place(host) => {
            let machine = world.host(NAMES[*host]);
            if machine.placement == Placement::Unplaced {
                // It was taken down when nobody wanted it there.
                (machine.placement, machine.taken_down) = (Placement::Placed, false);
            }
        }
    }
}

fn undo(world: &mut World) {
    let Some(files) = world.files else { return };
    let recorded = world.revisions.values().find(|revision| revision.release == crate::world::release(files));
    let Some(declared) = recorded.map(|revision| revision.number) else { return };
    if let Some(to) = world.owned.good.iter().rev().find(|good| **good != declared) {
        world.undo(to.0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens(
        most in prop::sample::select(vec!["1", "2", "50%"]),
        events in prop::collection::vec(event(), 0..120),
    ) {
        let mut world = World::empty("a b c d").declare('A').max_unavailable(most);
        world.settle();
        // Hosts that come and go change what half of them is.
        world.watched = most != "50%";
        for event in &events {
            happen(&mut world, event);
        }
        // Once everything can be had again, it ends on what is declared, or on what is good.
        world.failing.clear();
        world.bad.clear();
        world.resume();
        for name in NAMES {
            world.host(name).link = Link::Up;
        }
        let end = world.settle();
        if let Some(revision) = end.aim.revision() {
            for (name, machine) in &world.hosts {
                if machine.placement == Placement::Placed {
                    prop_assert_eq!(machine.seen.unit.revision(), Some(revision), "{}\n{}", name, world.log.join("\n"));
                    prop_assert_eq!(machine.seen.good, Some(revision), "{}\n{}", name, world.log.join("\n"));
                    prop_assert!(machine.observed().drift.is_empty() && !machine.taken_down, "{}", world.log.join("\n"));
                } else {
                    prop_assert!(!machine.seen.present, "{}\n{}", name, world.log.join("\n"));
                }
            }
            prop_assert_eq!(world.owned.good.last(), Some(&revision));
            prop_assert_eq!(world.owned.restart, None, "{}", world.log.join("\n"));
        }
        if let Some(rollout) = &world.rollout {
            prop_assert!(rollout.purpose != Purpose::Deploy || rollout.state != windlass_crds::record::RolloutState::Active);
        }
    }
}
