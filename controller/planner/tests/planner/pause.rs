//! A person holds a Service, and lets it go on.

use insta::assert_snapshot;
use windlass_crds::record::RolloutState;

use crate::machine::Link;
use crate::notation::drift;
use crate::picture::story;
use crate::world::World;

fn first() -> World {
    let mut world = World::empty("a b c").declare('A');
    world.settle();
    world.log.clear();
    world
}

fn ran(mut world: World) -> String {
    let end = world.settle();
    story(&world, &end)
}

#[test]
fn what_is_begun_on_a_host_is_finished_and_the_others_wait() {
    let mut world = first().declare('B');
    world.until_logged("a activate 2");
    world.pause();
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @r"
    declared B
    2 Deploy to 2
    stamp a b c with 2
    a stage 2
    b stage 2
    c stage 2
    a activate 2
    pause
    a healthy
    a confirm 2
    => to v2; keep
      a: v2 Ready
      b: v1 Pending (next: activate 2)
      c: v1 Pending (next: activate 2)
      Ready=False Paused: paused since 2026-01-01T00:00:01.2Z: nothing is begun on any host until `windlass rollout resume`
      Reconciling=True Paused: paused since 2026-01-01T00:00:01.2Z: nothing is begun on any host until `windlass rollout resume`
    ");
    world.log.clear();
    world.resume();
    assert_snapshot!(ran(world), @"
    resume
    b activate 2
    b healthy
    b confirm 2
    c activate 2
    c healthy
    c confirm 2
    2 Succeeded
    => to v2; keep
      a: v2 Ready
      b: v2 Ready
      c: v2 Ready
      Ready=True Converged: revision 2 runs on 3 of 3 hosts
    ");
}

#[test]
fn another_leader_finishes_it_too_and_begins_nothing() {
    let mut world = first().declare('B');
    world.until_logged("a activate 2");
    world.pause();
    world.take_over();
    assert_snapshot!(ran(world), @r"
    declared B
    2 Deploy to 2
    stamp a b c with 2
    a stage 2
    b stage 2
    c stage 2
    a activate 2
    pause
    term 2
    2 Superseded
    3 Deploy to 2, a in doubt
    stamp a b c with 3
    a healthy
    a confirm 2
    => to v2; keep
      a: v2 Ready
      b: v1 Pending (next: activate 2)
      c: v1 Pending (next: activate 2)
      Ready=False Paused: paused since 2026-01-01T00:00:01.2Z: nothing is begun on any host until `windlass rollout resume`
      Reconciling=True Paused: paused since 2026-01-01T00:00:01.2Z: nothing is begun on any host until `windlass rollout resume`
    ");
}

#[test]
fn what_is_unhealthy_is_taken_back_where_it_runs() {
    let mut world = first().declare('B').bad("b", 'B');
    world.until_logged("b activate 2");
    world.pause();
    assert_snapshot!(ran(world), @"
    declared B
    2 Deploy to 2
    stamp a b c with 2
    a stage 2
    b stage 2
    c stage 2
    a activate 2
    a healthy
    a confirm 2
    b activate 2
    pause
    b unhealthy
    2 Unhealthy
    3 Rollback to 1, b in doubt
    stamp a b c with 3
    b revert 1
    b healthy
    b confirm 1
    a revert 1
    a healthy
    a confirm 1
    3 Succeeded
    => back to v1 from v2; keep
      a: v1 Ready
      b: v1 Ready
      c: v1 Ready
      Ready=False RolledBack: revision 2 was unhealthy on b: it answers 500; went back to revision 1, which runs on 3 of 3 hosts; declare something else or `windlass rollout retry`
      Reconciling=True Paused: paused since 2026-01-01T00:00:01.5Z: nothing is begun on any host until `windlass rollout resume`
      Stalled=True RolledBack: revision 2 was unhealthy on b: it answers 500; went back to revision 1, which runs on 3 of 3 hosts; declare something else or `windlass rollout retry`
    ");
}

#[test]
fn what_was_never_good_is_stopped() {
    let mut world = World::empty("a b").declare('A').bad("*", 'A');
    world.until_logged("b activate 1");
    world.pause();
    assert_snapshot!(ran(world), @"
    declared A
    1 Deploy to 1
    stamp a b with 1
    a stage 1
    b stage 1
    a activate 1
    b activate 1
    pause
    a unhealthy
    1 Unhealthy
    b unhealthy
    1 Unhealthy
    2 Rollback, a in doubt, b in doubt
    stamp a b with 2
    a stop
    b stop
    2 Succeeded
    => stop v1; keep
      a: v1 Stopped (there is nothing good to go back to)
      b: v1 Stopped (there is nothing good to go back to)
      Ready=False FirstDeployUnhealthy: revision 1 was unhealthy on b: it answers 500; there is nothing good to go back to, so it is stopped where it was not healthy
      Reconciling=True Paused: paused since 2026-01-01T00:00:00.4Z: nothing is begun on any host until `windlass rollout resume`
      Stalled=True FirstDeployUnhealthy: revision 1 was unhealthy on b: it answers 500; there is nothing good to go back to, so it is stopped where it was not healthy
      Available=False HostUnhealthy: 0 of 2 hosts serve
    ");
}

#[test]
fn nothing_is_to_be_done_and_it_is_ready() {
    let mut world = first();
    world.pause();
    assert_snapshot!(ran(world), @"
    pause
    => to v1; keep
      a: v1 Ready
      b: v1 Ready
      c: v1 Ready
      Ready=True Converged: revision 1 runs on 3 of 3 hosts
      Reconciling=True Paused: paused since 2026-01-01T00:00:00.8Z: nothing is begun on any host until `windlass rollout resume`
    ");
}

#[test]
fn drift_is_told_and_stays() {
    let mut world = first();
    world.pause();
    drift(world.host("b"), 'u');
    assert_snapshot!(ran(world), @"
    pause
    => to v1; keep
      a: v1 Ready
      b: v1 Drifted (the unit file was changed)
      c: v1 Ready
      Ready=False DriftFound: b: the unit file was changed
      Reconciling=True Paused: paused since 2026-01-01T00:00:00.8Z: nothing is begun on any host until `windlass rollout resume`
      Drifted=True DriftFound: b: the unit file was changed
    ");
}

#[test]
fn what_is_declared_meanwhile_is_accepted_and_waits() {
    let mut world = first().declare('B');
    world.until_logged("a confirm 2");
    world.pause();
    world.set_files('C');
    world.take_over();
    let end = world.settle();
    assert_eq!(world.rollout.as_ref().map(|rollout| rollout.state), Some(RolloutState::Active));
    assert_snapshot!(story(&world, &end), @r"
    declared B
    2 Deploy to 2
    stamp a b c with 2
    a stage 2
    b stage 2
    c stage 2
    a activate 2
    a healthy
    a confirm 2
    pause
    declared C
    term 2
    => to v3; keep
      a: v2 Pending (next: stage 3)
      b: v1 Pending (next: stage 3)
      c: v1 Pending (next: stage 3)
      Ready=False Paused: paused since 2026-01-01T00:00:01.4Z: nothing is begun on any host until `windlass rollout resume`
      Reconciling=True Paused: paused since 2026-01-01T00:00:01.4Z: nothing is begun on any host until `windlass rollout resume`
    ");
    world.log.clear();
    world.resume();
    assert_snapshot!(ran(world), @"
    resume
    2 Superseded
    3 Deploy to 3
    stamp a b c with 3
    a stage 3
    b stage 3
    c stage 3
    a activate 3
    a healthy
    a confirm 3
    b activate 3
    b healthy
    b confirm 3
    c activate 3
    c healthy
    c confirm 3
    3 Succeeded
    => to v3; keep
      a: v3 Ready
      b: v3 Ready
      c: v3 Ready
      Ready=True Converged: revision 3 runs on 3 of 3 hosts
    ");
}

#[test]
fn a_switch_to_what_nobody_wants_any_more_waits_too() {
    let mut world = first().declare('B');
    world.until_logged("a activate 2");
    world.pause();
    world.set_files('C');
    world.take_over();
    assert_snapshot!(ran(world), @r"
    declared B
    2 Deploy to 2
    stamp a b c with 2
    a stage 2
    b stage 2
    c stage 2
    a activate 2
    pause
    declared C
    term 2
    => to v3; keep
      a: v2 Pending (next: stage 3)
      b: v1 Pending (next: stage 3)
      c: v1 Pending (next: stage 3)
      Ready=False Paused: paused since 2026-01-01T00:00:01.2Z: nothing is begun on any host until `windlass rollout resume`
      Reconciling=True Paused: paused since 2026-01-01T00:00:01.2Z: nothing is begun on any host until `windlass rollout resume`
    ");
}

#[test]
fn a_restart_waits() {
    let mut world = first();
    world.pause();
    world.restart();
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @r"
    pause
    restart
    => to v1; keep
      a: v1 Pending (next: activate 1)
      b: v1 Pending (next: activate 1)
      c: v1 Pending (next: activate 1)
      Ready=False Paused: paused since 2026-01-01T00:00:00.8Z: nothing is begun on any host until `windlass rollout resume`
      Reconciling=True Paused: paused since 2026-01-01T00:00:00.8Z: nothing is begun on any host until `windlass rollout resume`
    ");
    world.log.clear();
    world.resume();
    assert_snapshot!(ran(world), @"
    resume
    2 Restart to 1
    stamp a b c with 2
    a activate 1
    a healthy
    a confirm 1
    b activate 1
    b healthy
    b confirm 1
    c activate 1
    c healthy
    c confirm 1
    2 Succeeded
    => to v1; keep
      a: v1 Ready
      b: v1 Ready
      c: v1 Ready
      Ready=True Converged: revision 1 runs on 3 of 3 hosts
    ");
}

#[test]
fn a_deleted_declaration_is_taken_down() {
    let mut world = first();
    world.pause();
    world.delete();
    assert_snapshot!(ran(world), @"
    pause
    deleted
    2 Removal
    stamp a b c with 2
    a remove
    b remove
    c remove
    2 Succeeded
    => off the hosts; close as Succeeded; gone
      Ready=False Removing: the declaration is gone; the service is being taken down
      Available=False Removing: 0 of 0 hosts serve
    ");
}

#[test]
fn a_host_that_comes_back_waits() {
    let mut world = first();
    world.host("b").link = Link::Cut;
    world.set_files('B');
    world.settle();
    world.log.clear();
    world.pause();
    world.host("b").link = Link::Up;
    assert_snapshot!(ran(world), @r"
    pause
    => to v2; keep
      a: v2 Ready
      b: v1 Pending (next: stage 2)
      c: v2 Ready
      Ready=False Paused: paused since 2026-01-01T00:00:01.9Z: nothing is begun on any host until `windlass rollout resume`
      Reconciling=True Paused: paused since 2026-01-01T00:00:01.9Z: nothing is begun on any host until `windlass rollout resume`
    ");
}
