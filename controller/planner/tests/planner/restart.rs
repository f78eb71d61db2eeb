//! A person wants the program started anew on every host.

use insta::assert_snapshot;
use windlass_crds::step::Verb;

use crate::machine::Link;
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
fn hosts_are_restarted_one_after_the_other_and_once() {
    let mut world = first();
    world.restart();
    assert_snapshot!(ran(world), @"
    restart
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
fn another_leader_goes_on_and_restarts_nobody_twice() {
    let mut world = first();
    world.restart();
    world.until_logged("b activate 1");
    world.take_over();
    assert_snapshot!(ran(world), @"
    restart
    2 Restart to 1
    stamp a b c with 2
    a activate 1
    a healthy
    a confirm 1
    b activate 1
    term 2
    2 Superseded
    3 Restart to 1, b in doubt
    stamp a b c with 3
    b healthy
    b confirm 1
    c activate 1
    c healthy
    c confirm 1
    3 Succeeded
    => to v1; keep
      a: v1 Ready
      b: v1 Ready
      c: v1 Ready
      Ready=True Converged: revision 1 runs on 3 of 3 hosts
    ");
}

#[test]
fn an_answer_that_is_lost_restarts_nobody_twice() {
    let mut world = first();
    world.losing.insert("b".to_owned(), Verb::Activate);
    world.restart();
    world.until_logged("b lost");
    world.turns(10);
    world.host("b").link = Link::Up;
    assert_snapshot!(ran(world), @"
    restart
    2 Restart to 1
    stamp a b c with 2
    a activate 1
    a healthy
    a confirm 1
    b activate 1
    b lost
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
fn a_host_that_does_not_come_up_ends_it_and_the_others_are_left() {
    let mut world = first().bad("b", 'A');
    world.restart();
    world.until_logged("2 Halted");
    let end = world.plan();
    assert!(world.owned.blocked.is_empty(), "it was good before");
    assert_snapshot!(story(&world, &end), @"
    restart
    2 Restart to 1
    stamp a b c with 2
    a activate 1
    a healthy
    a confirm 1
    b activate 1
    b unhealthy
    2 Halted
    => to v1; open Repair to v1 above 2; touch b
      a: v1 Ready
      b: v1 Unhealthy (it answers 500)
      c: v1 Ready
      Ready=False Unhealthy: b was not well after its restart: it answers 500; no other host is restarted, and b is tried again
      Reconciling=True RollingOut: revision 1 runs on 2 of 3 hosts
      Stalled=True Unhealthy: b was not well after its restart: it answers 500; no other host is restarted, and b is tried again
      Degraded=True HostUnhealthy: b: it answers 500
    ");
    // It is tried again; once it answers, all is well, and nobody else was touched.
    world.until_logged("3 Halted");
    world.bad.clear();
    world.log.clear();
    assert_snapshot!(ran(world), @"
    4 Repair to 1, b in doubt
    stamp a b c with 4
    b healthy
    b confirm 1
    4 Succeeded
    => to v1; keep
      a: v1 Ready
      b: v1 Ready
      c: v1 Ready
      Ready=True Converged: revision 1 runs on 3 of 3 hosts
    ");
}

#[test]
fn a_host_out_of_reach_is_caught_up_later() {
    let mut world = first();
    world.host("b").link = Link::Cut;
    world.restart();
    world.settle();
    assert!(world.owned.restart.is_some(), "b has yet to be restarted");
    world.host("b").link = Link::Up;
    assert_snapshot!(ran(world), @"
    restart
    2 Restart to 1
    stamp a c with 2
    a activate 1
    a healthy
    a confirm 1
    c activate 1
    c healthy
    c confirm 1
    2 Succeeded
    3 Restart to 1
    stamp a b c with 3
    b activate 1
    b healthy
    b confirm 1
    3 Succeeded
    => to v1; keep
      a: v1 Ready
      b: v1 Ready
      c: v1 Ready
      Ready=True Converged: revision 1 runs on 3 of 3 hosts
    ");
}

#[test]
fn asked_for_in_the_middle_of_a_rollout_it_is_one_with_the_rest_of_it() {
    let mut world = first().declare('B');
    world.until_logged("a confirm 2");
    world.restart();
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
    restart
    2 Superseded
    3 Deploy to 2
    stamp a b c with 3
    a activate 2
    a healthy
    a confirm 2
    b activate 2
    b healthy
    b confirm 2
    c activate 2
    c healthy
    c confirm 2
    3 Succeeded
    => to v2; keep
      a: v2 Ready
      b: v2 Ready
      c: v2 Ready
      Ready=True Converged: revision 2 runs on 3 of 3 hosts
    ");
}

#[test]
fn asked_for_again_it_begins_again() {
    let mut world = first();
    world.restart();
    world.until_logged("a confirm 1");
    world.restart();
    assert_snapshot!(ran(world), @"
    restart
    2 Restart to 1
    stamp a b c with 2
    a activate 1
    a healthy
    a confirm 1
    restart
    2 Superseded
    3 Restart to 1
    stamp a b c with 3
    a activate 1
    a healthy
    a confirm 1
    b activate 1
    b healthy
    b confirm 1
    c activate 1
    c healthy
    c confirm 1
    3 Succeeded
    => to v1; keep
      a: v1 Ready
      b: v1 Ready
      c: v1 Ready
      Ready=True Converged: revision 1 runs on 3 of 3 hosts
    ");
}

#[test]
fn a_rollout_that_goes_back_restarts_nobody() {
    let mut world = first().declare('B').bad("b", 'B');
    world.until_logged("a confirm 2");
    world.restart();
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
    restart
    2 Superseded
    3 Deploy to 2
    stamp a b c with 3
    a activate 2
    a healthy
    a confirm 2
    b activate 2
    b unhealthy
    3 Unhealthy
    4 Rollback to 1, b in doubt
    stamp a b c with 4
    b revert 1
    b healthy
    b confirm 1
    a revert 1
    a healthy
    a confirm 1
    4 Succeeded
    => back to v1 from v2; keep
      a: v1 Ready
      b: v1 Ready
      c: v1 Ready
      Ready=False RolledBack: revision 2 was unhealthy on b: it answers 500; went back to revision 1, which runs on 3 of 3 hosts; declare something else or `windlass rollout retry`
      Stalled=True RolledBack: revision 2 was unhealthy on b: it answers 500; went back to revision 1, which runs on 3 of 3 hosts; declare something else or `windlass rollout retry`
    ");
}
