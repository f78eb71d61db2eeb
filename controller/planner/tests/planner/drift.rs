//! What somebody changed on a host: told, then put right under a number of its own.

use insta::assert_snapshot;
use jiff::SignedDuration;
use windlass_crds::id::Generation;
use windlass_crds::record::{Accepted, Purpose, RolloutState};
use windlass_crds::step::{StepError, Verb};
use windlass_planner::flap;

use crate::notation::drift;
use crate::picture::{draw, story, table};
use crate::world::World;

fn settled(world: World) -> World {
    world.good([1]).rolling(Purpose::Deploy, 1).ended(RolloutState::Succeeded)
}

#[test]
fn each_kind_of_drift_is_told_before_it_is_repaired() {
    let rows = [
        ("unit changed", "a=v1+%u b=v1+"),
        ("a drop-in", "a=v1+%d b=v1+"),
        ("files changed", "a=v1+%f b=v1+"),
        ("the revision's own files changed", "a=v1+%r b=v1+"),
        ("not enabled any more", "a=v1+%e b=v1+"),
        ("unit stopped", "a=v1+%s b=v1+"),
        ("another file in place of the unit", "a=v1+%w b=v1+"),
        ("no unit file any more", "a=v1+%a b=v1+"),
        ("needs a reload", "a=v1+%l b=v1+"),
        ("the release is gone", "a=v1+u b=v1+"),
        ("everything is gone", "a=- b=v1+"),
    ];
    assert_snapshot!(table(settled, rows), @r"
    unit changed: a=v1+%u b=v1+
      to v1; open Repair to v1 above 5
      a: v1 Drifted (the unit file was changed)
      b: v1 Ready
      Ready=False Repairing: revision 1 runs on 1 of 2 hosts
      Reconciling=True Repairing: revision 1 runs on 1 of 2 hosts
      Drifted=True DriftFound: a: the unit file was changed
    a drop-in: a=v1+%d b=v1+
      to v1; keep
      a: v1 Drifted (drop-ins change the unit: /etc/systemd/system/x.d/a.conf)
      b: v1 Ready
      Ready=False DriftFound: a: drop-ins change the unit: /etc/systemd/system/x.d/a.conf
      Drifted=True DriftFound: a: drop-ins change the unit: /etc/systemd/system/x.d/a.conf
    files changed: a=v1+%f b=v1+
      to v1; open Repair to v1 above 5
      a: v1 Drifted (files were changed: server.py)
      b: v1 Ready
      Ready=False Repairing: revision 1 runs on 1 of 2 hosts
      Reconciling=True Repairing: revision 1 runs on 1 of 2 hosts
      Drifted=True DriftFound: a: files were changed: server.py
    the revision's own files changed: a=v1+%r b=v1+
      to v1; open Repair to v1 above 5
      a: v1 Drifted (the revision's unit or environment was changed)
      b: v1 Ready
      Ready=False Repairing: revision 1 runs on 1 of 2 hosts
      Reconciling=True Repairing: revision 1 runs on 1 of 2 hosts
      Drifted=True DriftFound: a: the revision's unit or environment was changed
    not enabled any more: a=v1+%e b=v1+
      to v1; open Repair to v1 above 5
      a: v1 Drifted (the unit does not start at boot any more)
      b: v1 Ready
      Ready=False Repairing: revision 1 runs on 1 of 2 hosts
      Reconciling=True Repairing: revision 1 runs on 1 of 2 hosts
      Drifted=True DriftFound: a: the unit does not start at boot any more
    unit stopped: a=v1+%s b=v1+
      to v1; open Repair to v1 above 5
      a: v1 Drifted (the unit was stopped)
      b: v1 Ready
      Ready=False Repairing: revision 1 runs on 1 of 2 hosts
      Reconciling=True Repairing: revision 1 runs on 1 of 2 hosts
      Drifted=True DriftFound: a: the unit was stopped
    another file in place of the unit: a=v1+%w b=v1+
      to v1; open Repair to v1 above 5
      a: - Drifted (the unit file was changed)
      b: v1 Ready
      Ready=False Repairing: revision 1 runs on 1 of 2 hosts
      Reconciling=True Repairing: revision 1 runs on 1 of 2 hosts
      Drifted=True DriftFound: a: the unit file was changed
    no unit file any more: a=v1+%a b=v1+
      to v1; open Repair to v1 above 5
      a: - Drifted (the unit file is gone)
      b: v1 Ready
      Ready=False Repairing: revision 1 runs on 1 of 2 hosts
      Reconciling=True Repairing: revision 1 runs on 1 of 2 hosts
      Drifted=True DriftFound: a: the unit file is gone
    needs a reload: a=v1+%l b=v1+
      to v1; open Repair to v1 above 5
      a: v1 Drifted (systemd has not read the unit file that is there)
      b: v1 Ready
      Ready=False Repairing: revision 1 runs on 1 of 2 hosts
      Reconciling=True Repairing: revision 1 runs on 1 of 2 hosts
      Drifted=True DriftFound: a: systemd has not read the unit file that is there
    the release is gone: a=v1+u b=v1+
      to v1; open Repair to v1 above 5
      a: v1 Drifted (what it runs from is gone)
      b: v1 Ready
      Ready=False Repairing: revision 1 runs on 1 of 2 hosts
      Reconciling=True Repairing: revision 1 runs on 1 of 2 hosts
      Drifted=True DriftFound: a: what it runs from is gone
    everything is gone: a=- b=v1+
      to v1; open Repair to v1 above 5
      a: - Pending (next: stage 1)
      b: v1 Ready
      Ready=False RollingOut: revision 1 runs on 1 of 2 hosts
      Reconciling=True RollingOut: revision 1 runs on 1 of 2 hosts
    ");
}

#[test]
fn a_repair_brings_files_again_only_where_files_are_damaged() {
    // The switch was under 4, and the repair's number is 5.
    let repair = |world| settled(world).rolling(Purpose::Repair, 1);
    let rows = [
        ("unit changed", "a=v1+@4%u^5"),
        ("files changed", "a=v1+@4%f^5"),
        ("two drifted, one at a time", "a=v1+@4%u^5 b=v1+@4%u^5"),
        ("two stopped, both at once: nothing is lost by it", "a=v1+@4%s^5 b=v1+@4%s^5"),
    ];
    assert_snapshot!(table(repair, rows), @r"
    unit changed: a=v1+@4%u^5
      to v1; keep; touch a
      a: v1 Drifted (the unit file was changed) -> activate 1, judge, confirm 1
      Ready=False Repairing: revision 1 runs on 0 of 1 hosts
      Reconciling=True Repairing: revision 1 runs on 0 of 1 hosts
      Drifted=True DriftFound: a: the unit file was changed
    files changed: a=v1+@4%f^5
      to v1; keep; touch a
      a: v1 Drifted (files were changed: server.py) -> stage 1, activate 1, judge, confirm 1
      Ready=False Repairing: revision 1 runs on 0 of 1 hosts
      Reconciling=True Repairing: revision 1 runs on 0 of 1 hosts
      Drifted=True DriftFound: a: files were changed: server.py
    two drifted, one at a time: a=v1+@4%u^5 b=v1+@4%u^5
      to v1; keep; touch a
      a: v1 Drifted (the unit file was changed) -> activate 1, judge, confirm 1
      b: v1 Drifted (the unit file was changed)
      Ready=False Repairing: revision 1 runs on 0 of 2 hosts
      Reconciling=True Repairing: revision 1 runs on 0 of 2 hosts
      Drifted=True DriftFound: a, b: the unit file was changed
    two stopped, both at once: nothing is lost by it: a=v1+@4%s^5 b=v1+@4%s^5
      to v1; keep; touch a b
      a: v1 Drifted (the unit was stopped) -> activate 1, judge, confirm 1
      b: v1 Drifted (the unit was stopped) -> activate 1, judge, confirm 1
      Ready=False Repairing: revision 1 runs on 0 of 2 hosts
      Reconciling=True Repairing: revision 1 runs on 0 of 2 hosts
      Available=False HostUnhealthy: 0 of 2 hosts serve
      Drifted=True DriftFound: a, b: the unit was stopped
    ");
}

#[test]
fn a_drop_in_is_told_and_left_to_whoever_made_it() {
    let mut world = settled(World::of("a=v1+ b=v1+ c=v1+"));
    drift(world.host("b"), 'd');
    let end = world.settle();
    let text = story(&world, &end);
    assert!(!text.contains("Repair"), "{text}");
    assert!(text.contains("Ready=False DriftFound: b: drop-ins change the unit"), "{text}");
}

#[test]
fn drift_is_repaired_and_then_all_is_said_to_be_well() {
    for sign in ['u', 'f', 'r', 'e', 's', 'w', 'a', 'l'] {
        let mut world = settled(World::of("a=v1+ b=v1+ c=v1+"));
        drift(world.host("b"), sign);
        let end = world.settle();
        let text = story(&world, &end);
        assert!(text.contains("6 Repair to 1\n") && text.ends_with("runs on 3 of 3 hosts\n"), "%{sign}: {text}");
    }
    let mut world = settled(World::of("a=v1+ b=v1+ c=v1+"));
    drift(world.host("b"), 'f');
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @r"
    6 Repair to 1
    stamp a b c with 6
    b stage 1
    b activate 1
    b healthy
    b confirm 1
    6 Succeeded
    => to v1; keep
      a: v1 Ready
      b: v1 Ready
      c: v1 Ready
      Ready=True Converged: revision 1 runs on 3 of 3 hosts
    ");
}

/// Under the rollout's own number the host would answer from its record, do nothing, and the judge would find a
/// stopped unit: the new revision would be blocked for what somebody else did.
#[test]
fn a_unit_that_is_stopped_in_mid_rollout_is_started_again_and_blames_nobody() {
    let mut world = World::of("a=v1+ b=v1+ c=v1+").good([1]).declare('B');
    world.until_logged("a confirm 2");
    drift(world.host("a"), 's');
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @r"
    declared B
    6 Deploy to 2
    stamp a b c with 6
    a stage 2
    b stage 2
    c stage 2
    a activate 2
    a healthy
    a confirm 2
    6 Superseded
    7 Deploy to 2
    stamp a b c with 7
    a activate 2
    b activate 2
    a healthy
    b healthy
    a confirm 2
    b confirm 2
    c activate 2
    c healthy
    c confirm 2
    7 Succeeded
    => to v2; keep
      a: v2 Ready
      b: v2 Ready
      c: v2 Ready
      Ready=True Converged: revision 2 runs on 3 of 3 hosts
    ");
}

#[test]
fn a_repair_that_is_unhealthy_blocks_nothing_and_is_tried_again() {
    let mut world = settled(World::of("a=v1+ b=v1+")).bad("a", 'A');
    drift(world.host("a"), 'u');
    world.until_logged("Halted");
    world.host("a").crash_again_and_again();
    let plan = world.plan();
    assert_snapshot!(draw(&plan), @r"
    to v1; open Repair to v1 above 6; touch a
    a: v1 Unhealthy (it answers 500)
    b: v1 Ready
    Ready=False HostUnhealthy: a: it answers 500; it is tried again
    Reconciling=True RollingOut: revision 1 runs on 1 of 2 hosts
    Degraded=True HostUnhealthy: a: it answers 500
    ");
    assert!(world.owned.blocked.is_empty(), "what was good before is not to blame");
    world.bad.clear();
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @r"
    6 Repair to 1
    stamp a b with 6
    a activate 1
    a unhealthy
    6 Halted
    7 Repair to 1, a in doubt
    stamp a b with 7
    a activate 1
    a healthy
    a confirm 1
    7 Succeeded
    => to v1; keep
      a: v1 Ready
      b: v1 Ready
      Ready=True Converged: revision 1 runs on 2 of 2 hosts
    ");
}

#[test]
fn a_host_whose_fence_was_lost_is_believed_where_it_runs_what_is_good() {
    let mut world = settled(World::of("a=v1+ b=v1+"));
    world.host("a").seen.steps.clear();
    world.host("a").seen.sequence = windlass_crds::id::Sequence(0);
    let plan = world.plan();
    assert!(plan.is_idle(), "{}", draw(&plan));
    // It runs what nobody confirmed: a confirmation would be refused, so it is switched to once more.
    world.host("a").seen.good = None;
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @r"
    6 Repair to 1
    stamp a b with 6
    a activate 1
    a healthy
    a confirm 1
    6 Succeeded
    => to v1; keep
      a: v1 Ready
      b: v1 Ready
      Ready=True Converged: revision 1 runs on 2 of 2 hosts
    ");
}

/// Revision 1 runs on `a` and `b`, and somebody has changed the same file on `a` again, five minutes after each repair.
fn flapping() -> World {
    let mut world = World::empty("a b").declare('A');
    world.settle();
    for _ in 0..4 {
        drift(world.host("a"), 'f');
        world.settle();
        world.now += SignedDuration::from_mins(5);
    }
    assert!(world.hosts["a"].observed().drift.is_empty(), "{}", world.log.join("\n"));
    drift(world.host("a"), 'f');
    world.log.clear();
    world
}

#[test]
fn what_is_changed_again_and_again_is_told_and_left() {
    let mut world = flapping();
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @"
    => to v1; keep
      a: v1 Drifted (files were changed: server.py; it flaps)
      b: v1 Ready
      Ready=False Flapping: a was repaired 4 times within an hour, and is changed again: files were changed: server.py; it is left so meanwhile: find out what changes it there, `windlass rollout resume service/web` repairs it once more
      Stalled=True Flapping: a was repaired 4 times within an hour, and is changed again: files were changed: server.py; it is left so meanwhile: find out what changes it there, `windlass rollout resume service/web` repairs it once more
      Drifted=True DriftFound: a: files were changed: server.py; it flaps
    ");
    // What is changed elsewhere is put right, and so is something else there.
    drift(world.host("b"), 'f');
    world.settle();
    assert!(world.hosts["b"].observed().drift.is_empty(), "{}", world.log.join("\n"));
    assert_eq!(world.hosts["a"].observed().drift.len(), 1);
    drift(world.host("a"), 'e');
    world.settle();
    assert!(world.hosts["a"].observed().drift.is_empty(), "{}", world.log.join("\n"));
}

/// What is done about what flaps, by its name.
type Case = (&'static str, fn(&mut World));

#[test]
fn what_flaps_is_put_right_once_somebody_says_so_or_time_has_passed() {
    let cases: [Case; 5] = [
        ("resume", World::resume),
        ("retry", World::retry),
        ("restart", World::restart),
        ("another revision", |world| world.set_files('B')),
        ("an hour after the first", |world| world.now += SignedDuration::from_mins(41)),
    ];
    for (title, change) in cases {
        let mut world = flapping();
        world.settle();
        assert_eq!(world.hosts["a"].observed().drift.len(), 1, "{title}");
        change(&mut world);
        world.settle();
        assert!(world.hosts["a"].observed().drift.is_empty(), "{title}\n{}", world.log.join("\n"));
    }
    // Nothing is kept of what was put right on the way to another revision.
    let mut world = flapping().declare('B');
    world.settle();
    assert!(world.owned.repairs.is_empty());
    // What was put right before an hour ago counts no more.
    let mut world = flapping();
    world.now += SignedDuration::from_mins(41);
    world.settle();
    drift(world.host("a"), 'f');
    world.settle();
    assert_eq!(world.owned.repairs.values().map(|repairs| repairs.times.len()).collect::<Vec<_>>(), [4]);
}

/// Nothing was put right by it.
#[test]
fn a_repair_that_fails_does_not_count() {
    let mut world = World::empty("a b").declare('A');
    world.settle();
    drift(world.host("a"), 'f');
    for _ in 0..6 {
        let full = StepError::NoSpace { detail: "/opt".to_owned() };
        world.failing.insert(("a".to_owned(), Verb::Stage), full);
        world.until_logged("Halted");
    }
    world.settle();
    assert!(world.hosts["a"].observed().drift.is_empty(), "{}", world.log.join("\n"));
    assert_eq!(world.owned.repairs.values().map(|repairs| repairs.times.len()).collect::<Vec<_>>(), [1]);
}

/// Declares something else a minute later, as a writer of its own would.
fn declares(world: &mut World, args: &str) {
    world.now += SignedDuration::from_mins(1);
    world.spec.runtime.args = vec![args.to_owned()];
    let last = world.owned.accepted.as_ref().map_or(1, |accepted| accepted.generation.0);
    let accepted = Accepted { generation: Generation(last + 1), spec: world.spec.clone() };
    flap::accept(&mut world.owned, &accepted, world.now);
}

/// Two writers have the declaration, and each has put its own back twice.
fn contested() -> World {
    let mut world = World::empty("a b").declare('A');
    for args in ["x", "y", "x", "y", "x", "y"] {
        assert_eq!(world.owned.hold, None);
        declares(&mut world, args);
        world.settle();
    }
    world.log.clear();
    world
}

#[test]
fn two_writers_of_one_declaration_are_told_and_not_obeyed_for_ever() {
    let mut world = contested();
    let before: Vec<_> = world.hosts.values().map(|machine| machine.observed().good).collect();
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @r"
    => to v2; keep
      a: v1 Pending (next: activate 2)
      b: v1 Pending (next: activate 2)
      Ready=False Flapping: the declaration was changed back and forth 4 times within an hour: spec.runtime.args; nothing is begun on any host since 2026-01-01T00:06:04.9Z: find out who else writes it, then `windlass rollout resume service/web`, or `windlass rollout undo service/web`
      Stalled=True Flapping: the declaration was changed back and forth 4 times within an hour: spec.runtime.args; nothing is begun on any host since 2026-01-01T00:06:04.9Z: find out who else writes it, then `windlass rollout resume service/web`, or `windlass rollout undo service/web`
    ");
    // Whichever of them comes next is not deployed, and nothing else.
    for args in ["x", "y", "z"] {
        declares(&mut world, args);
        world.settle();
    }
    let after: Vec<_> = world.hosts.values().map(|machine| machine.observed().good).collect();
    assert_eq!(before, after);
}

#[test]
fn what_two_writers_disagree_about_goes_on_once_somebody_decides() {
    let cases: [(Case, &str); 2] =
        [(("resume", World::resume), "Ready=True"), (("undo", |world| world.undo(1)), "Stalled=True Undone")];
    for ((title, decide), outcome) in cases {
        let mut world = contested();
        decide(&mut world);
        let end = world.settle();
        let told = story(&world, &end);
        assert!(world.owned.hold.is_none() && told.contains(outcome), "{title}\n{told}");
        // It is counted from the beginning.
        let now = world.spec.runtime.args[0].clone();
        declares(&mut world, "w");
        declares(&mut world, &now);
        assert_eq!(world.owned.hold, None, "{title}");
    }
    // One of them may have something new each time.
    let mut world = World::empty("a").declare('A');
    for args in ["x", "1", "x", "2", "x", "3", "x", "4", "x"] {
        declares(&mut world, args);
    }
    assert!(world.owned.hold.is_some());
    // What is changed back now and then is a person's.
    let mut world = World::empty("a").declare('A');
    for _ in 0..10 {
        for args in ["x", "y"] {
            world.now += SignedDuration::from_mins(20);
            declares(&mut world, args);
            world.settle();
        }
    }
    assert_eq!(world.owned.hold, None);
}
