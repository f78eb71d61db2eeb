//! Many hosts that turn unhealthy together, while something is under way.

use insta::assert_snapshot;
use jiff::SignedDuration;
use windlass_planner::input::Health;

use crate::notation::drift;
use crate::picture::{said, story};
use crate::world::World;

/// So many hosts that run revision 1, and are well.
fn fleet(count: u8) -> World {
    let names: Vec<String> = (b'a'..b'a' + count).map(|name| char::from(name).to_string()).collect();
    let mut world = World::empty(&names.join(" ")).declare('A').max_unavailable("1");
    world.settle();
    world.log.clear();
    world
}

/// The same, with the first host on its way to revision 2.
fn rolling(count: u8) -> World {
    let mut world = fleet(count).declare('B');
    world.until_logged("a activate 2");
    world
}

fn falls_ill(world: &mut World, name: &str) {
    world.host(name).health = Health::Ill("the health endpoint answers 500".to_owned());
    world.log.push(format!("{name} is ill"));
}

fn recovers(world: &mut World, name: &str) {
    world.host(name).health = Health::Well;
    world.log.push(format!("{name} is well"));
}

fn ran(world: &mut World) -> String {
    let end = world.settle();
    let told = story(world, &end);
    world.log.clear();
    told
}

/// The revision that each host runs.
fn revisions(world: &World) -> String {
    let unit = |name| world.hosts[name].seen.unit.revision().map_or(0, |revision| revision.0).to_string();
    world.hosts.keys().map(|name: &String| unit(name.as_str())).collect()
}

#[test]
fn a_rollout_stands_still_when_many_fall_ill_together() {
    let mut world = rolling(10);
    for name in ["d", "e", "f"] {
        falls_ill(&mut world, name);
    }
    assert_snapshot!(ran(&mut world), @r"
    declared B
    2 Deploy to 2
    stamp a b c d e f g h i j with 2
    a stage 2
    b stage 2
    c stage 2
    d stage 2
    e stage 2
    f stage 2
    g stage 2
    h stage 2
    i stage 2
    j stage 2
    a activate 2
    d is ill
    e is ill
    f is ill
    a healthy
    a confirm 2
    2 Halted
    => to v2; keep
      a: v2 Ready
      b: v1 Pending (next: activate 2)
      c: v1 Pending (next: activate 2)
      d: v1 Pending (next: activate 2)
      e: v1 Pending (next: activate 2)
      f: v1 Pending (next: activate 2)
      g: v1 Pending (next: activate 2)
      h: v1 Pending (next: activate 2)
      i: v1 Pending (next: activate 2)
      j: v1 Pending (next: activate 2)
      Ready=False MassUnhealthy: 3 of 10 hosts turned unhealthy within a minute, and nothing had been done there: d, e, f; nothing is switched on any host since 2026-01-01T00:00:01.2Z, neither on nor back: `windlass rollout resume service/web` lets it go on, `windlass rollout undo service/web` goes back
      Stalled=True MassUnhealthy: 3 of 10 hosts turned unhealthy within a minute, and nothing had been done there: d, e, f; nothing is switched on any host since 2026-01-01T00:00:01.2Z, neither on nor back: `windlass rollout resume service/web` lets it go on, `windlass rollout undo service/web` goes back
    ");
    // What recovers does not let it go on: only a person does.
    for name in ["d", "e", "f"] {
        recovers(&mut world, name);
    }
    let end = world.settle();
    assert_snapshot!(said(&end), @"
    Ready=False MassUnhealthy: 3 of 10 hosts turned unhealthy within a minute, and nothing had been done there: d, e, f; nothing is switched on any host since 2026-01-01T00:00:01.2Z, neither on nor back: `windlass rollout resume service/web` lets it go on, `windlass rollout undo service/web` goes back
    Stalled=True MassUnhealthy: 3 of 10 hosts turned unhealthy within a minute, and nothing had been done there: d, e, f; nothing is switched on any host since 2026-01-01T00:00:01.2Z, neither on nor back: `windlass rollout resume service/web` lets it go on, `windlass rollout undo service/web` goes back
    ");
    world.log.clear();

    // Those that ail are known, and hold nothing up again.
    for name in ["d", "e", "f"] {
        falls_ill(&mut world, name);
    }
    let mut resumed = world.clone();
    resumed.turns(1);
    resumed.resume();
    resumed.settle();
    assert_eq!(revisions(&resumed), "2222222222", "{}", resumed.log.join("\n"));

    let mut undone = world.clone();
    undone.turns(1);
    undone.undo(1);
    undone.settle();
    assert_eq!(revisions(&undone), "1111111111", "{}", undone.log.join("\n"));
}

#[test]
fn few_or_a_small_part_hold_nothing_up() {
    for (count, ill) in [(5, "de"), (10, "de"), (20, "def"), (15, "def")] {
        let mut world = rolling(count);
        for name in ill.chars() {
            falls_ill(&mut world, &name.to_string());
        }
        world.settle();
        assert_eq!(revisions(&world), "2".repeat(count.into()), "{ill} of {count}\n{}", world.log.join("\n"));
    }
    let mut world = rolling(14);
    for name in ["d", "e", "f"] {
        falls_ill(&mut world, name);
    }
    world.settle();
    assert_eq!(revisions(&world), format!("2{}", "1".repeat(13)), "{}", world.log.join("\n"));
}

#[test]
fn one_after_the_other_over_more_than_a_minute_holds_nothing_up() {
    let mut world = fleet(10).declare('B');
    world.until_logged("a activate 2");
    for name in ["h", "i", "j"] {
        falls_ill(&mut world, name);
        world.turn();
        world.now += SignedDuration::from_secs(31);
    }
    world.settle();
    assert_eq!(revisions(&world), "2222222222", "{}", world.log.join("\n"));
}

/// Whoever is switched first is no sign of what ails the others.
#[test]
fn what_the_rollout_touched_does_not_count() {
    let mut world = fleet(4).declare('B');
    world.until_logged("c confirm 2");
    for name in ["a", "b", "d"] {
        falls_ill(&mut world, name);
    }
    world.settle();
    // It waits for them, since they are down by our hand.
    assert_eq!(revisions(&world), "2221", "{}", world.log.join("\n"));
    assert_eq!(world.owned.hold, None);
}

#[test]
fn nor_does_what_was_restarted() {
    let mut world = fleet(4);
    world.restart();
    world.until_logged("b confirm 1");
    for name in ["a", "b", "d"] {
        falls_ill(&mut world, name);
    }
    world.settle();
    assert_eq!(world.owned.hold, None, "{}", world.log.join("\n"));
}

#[test]
fn neither_goes_a_rollback_on() {
    let mut world = fleet(10).bad("b", 'B').declare('B');
    world.until_logged("b unhealthy");
    for name in ["d", "e", "f"] {
        falls_ill(&mut world, name);
    }
    assert_snapshot!(ran(&mut world), @r"
    declared B
    2 Deploy to 2
    stamp a b c d e f g h i j with 2
    a stage 2
    b stage 2
    c stage 2
    d stage 2
    e stage 2
    f stage 2
    g stage 2
    h stage 2
    i stage 2
    j stage 2
    a activate 2
    a healthy
    a confirm 2
    b activate 2
    b unhealthy
    2 Unhealthy
    d is ill
    e is ill
    f is ill
    => back to v1 from v2; keep
      a: v2 Pending (next: revert 1)
      b: v2 Unhealthy (it answers 500)
      c: v1 Ready
      d: v1 Unhealthy (the health endpoint answers 500)
      e: v1 Unhealthy (the health endpoint answers 500)
      f: v1 Unhealthy (the health endpoint answers 500)
      g: v1 Ready
      h: v1 Ready
      i: v1 Ready
      j: v1 Ready
      Ready=False MassUnhealthy: 3 of 10 hosts turned unhealthy within a minute, and nothing had been done there: d, e, f; nothing is switched on any host since 2026-01-01T00:00:01.6Z, neither on nor back: `windlass rollout resume service/web` lets it go on, `windlass rollout undo service/web` goes back
      Stalled=True MassUnhealthy: 3 of 10 hosts turned unhealthy within a minute, and nothing had been done there: d, e, f; nothing is switched on any host since 2026-01-01T00:00:01.6Z, neither on nor back: `windlass rollout resume service/web` lets it go on, `windlass rollout undo service/web` goes back
      Degraded=True HostUnhealthy: b, d, e, f: it answers 500
    ");
    world.resume();
    world.settle();
    assert_eq!(revisions(&world), "1111111111", "{}", world.log.join("\n"));
}

/// A verdict that comes when everything falls ill is taken in, and nothing is gone back to.
#[test]
fn nothing_is_gone_back_to_while_it_stands_still() {
    let mut world = fleet(5).bad("a", 'B').declare('B');
    world.until_logged("a activate 2");
    for name in ["c", "d", "e"] {
        falls_ill(&mut world, name);
    }
    assert_snapshot!(ran(&mut world), @"
    declared B
    2 Deploy to 2
    stamp a b c d e with 2
    a stage 2
    b stage 2
    c stage 2
    d stage 2
    e stage 2
    a activate 2
    c is ill
    d is ill
    e is ill
    a unhealthy
    2 Unhealthy
    => back to v1 from v2; keep
      a: v2 Unhealthy (it answers 500)
      b: v1 Ready
      c: v1 Unhealthy (the health endpoint answers 500)
      d: v1 Unhealthy (the health endpoint answers 500)
      e: v1 Unhealthy (the health endpoint answers 500)
      Ready=False MassUnhealthy: 3 of 5 hosts turned unhealthy within a minute, and nothing had been done there: c, d, e; nothing is switched on any host since 2026-01-01T00:00:01.2Z, neither on nor back: `windlass rollout resume service/web` lets it go on, `windlass rollout undo service/web` goes back
      Stalled=True MassUnhealthy: 3 of 5 hosts turned unhealthy within a minute, and nothing had been done there: c, d, e; nothing is switched on any host since 2026-01-01T00:00:01.2Z, neither on nor back: `windlass rollout resume service/web` lets it go on, `windlass rollout undo service/web` goes back
      Degraded=True HostUnhealthy: a, c, d, e: it answers 500
    ");
}

#[test]
fn a_canary_does_not_take_back_what_fell_ill_with_the_others() {
    let mut world = fleet(5).canary("1 100%").baking(120).declare('B');
    world.until_logged("step 1 is well");
    for name in ["a", "c", "d", "e"] {
        falls_ill(&mut world, name);
    }
    assert_snapshot!(ran(&mut world), @"
    declared B
    2 Deploy to 2
    stamp a b c d e with 2
    a stage 2
    a activate 2
    a healthy
    a confirm 2
    step 1 is well
    a is ill
    c is ill
    d is ill
    e is ill
    2 Halted
    2m pass
    => to v2; keep
      a: v2 Unhealthy (the health endpoint answers 500)
      b: v1 Pending (its step of the canary has not come)
      c: v1 Unhealthy (the health endpoint answers 500)
      d: v1 Unhealthy (the health endpoint answers 500)
      e: v1 Unhealthy (the health endpoint answers 500)
      Ready=False MassUnhealthy: 3 of 5 hosts turned unhealthy within a minute, and nothing had been done there: c, d, e; nothing is switched on any host since 2026-01-01T00:00:01.5Z, neither on nor back: `windlass rollout resume service/web` lets it go on, `windlass rollout undo service/web` goes back
      Stalled=True MassUnhealthy: 3 of 5 hosts turned unhealthy within a minute, and nothing had been done there: c, d, e; nothing is switched on any host since 2026-01-01T00:00:01.5Z, neither on nor back: `windlass rollout resume service/web` lets it go on, `windlass rollout undo service/web` goes back
      Degraded=True HostUnhealthy: a, c, d, e: the health endpoint answers 500
    ");
}

#[test]
fn where_nothing_is_under_way_nothing_is_held_up() {
    let mut world = fleet(5);
    for name in ["c", "d", "e"] {
        falls_ill(&mut world, name);
    }
    world.settle();
    assert_eq!(world.owned.hold, None);
    // Nor is what shall mend it.
    world.set_files('B');
    world.settle();
    assert_eq!(world.owned.hold, None);
    assert_eq!(revisions(&world), "22222", "{}", world.log.join("\n"));
    // What has stopped is started again, though it has stopped everywhere.
    for name in ["c", "d", "e"] {
        drift(world.host(name), 's');
    }
    world.settle();
    assert_eq!(world.owned.hold, None);
    assert!(world.hosts.values().all(crate::machine::Machine::is_up), "{}", world.log.join("\n"));
}

/// Another controller has not seen them well.
#[test]
fn a_takeover_counts_nothing() {
    let mut world = rolling(5);
    for name in ["c", "d", "e"] {
        falls_ill(&mut world, name);
    }
    world.take_over();
    world.hosts.values_mut().for_each(|machine| (machine.was_well, machine.ill_since) = (false, None));
    world.settle();
    assert_eq!(revisions(&world), "22222", "{}", world.log.join("\n"));
}
