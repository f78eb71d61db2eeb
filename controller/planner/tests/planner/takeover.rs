//! Another controller takes over, and records that are older than what hosts have seen.

use insta::assert_snapshot;

use crate::machine::Link;
use crate::picture::story;
use crate::world::World;

fn first() -> World {
    let mut world = World::empty("a b c").declare('A');
    world.settle();
    world.log.clear();
    world
}

#[test]
fn in_mid_rollout_a_new_leader_draws_a_number_and_stamps_every_host_before_it_acts() {
    let mut world = first().declare('B');
    world.until_logged("b activate 2");
    world.take_over();
    let end = world.settle();
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
    b activate 2
    term 2
    2 Superseded
    3 Deploy to 2, b in doubt
    stamp a b c with 3
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
fn what_the_predecessor_left_down_and_out_of_reach_holds_the_others_for_more_than_a_minute() {
    let mut world = first().declare('B');
    world.until_logged("b activate 2");
    world.host("b").link = Link::Cut;
    world.take_over();
    world.fresh_term = true;
    world.turns(10);
    world.fresh_term = false;
    world.turns(10);
    assert!(!world.hosts["c"].taken_down && world.hosts["c"].seen.good.is_some_and(|good| good.0 == 1));
    world.host("b").link = Link::Up;
    let end = world.settle();
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
    b activate 2
    term 2
    2 Superseded
    3 Deploy to 2, b in doubt
    stamp a b c with 3
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
fn for_a_minute_a_host_out_of_reach_counts_as_down() {
    let mut world = first().declare('B');
    world.host("c").link = Link::Cut;
    world.take_over();
    world.fresh_term = true;
    world.turns(10);
    assert!(!world.log.iter().any(|line| line.contains("activate 2")), "{:?}", world.log);
    world.fresh_term = false;
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @r"
    declared B
    term 2
    2 Deploy to 2
    stamp a b with 2
    a stage 2
    b stage 2
    a activate 2
    a healthy
    a confirm 2
    b activate 2
    b healthy
    b confirm 2
    2 Succeeded
    => to v2; keep
      a: v2 Ready
      b: v2 Ready
      c: - Unreachable (no answer within 10 s)
      Ready=Unknown HostUnreachable: c: no answer within 10 s
      Degraded=True HostUnreachable: c: no answer within 10 s
    ");
}

#[test]
fn a_new_leader_goes_on_with_a_rollback() {
    let mut world = first().declare('B').bad("b", 'B');
    world.until_logged("b revert 1");
    world.take_over();
    let end = world.settle();
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
    b activate 2
    b unhealthy
    2 Unhealthy
    3 Rollback to 1, b in doubt
    stamp a b c with 3
    b revert 1
    term 2
    3 Superseded
    4 Rollback to 1, b in doubt
    stamp a b c with 4
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

#[test]
fn a_host_that_has_seen_a_higher_number_raises_the_store() {
    let mut world = first().declare('B');
    world.host("b").seen.sequence = windlass_crds::id::Sequence(40);
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @r"
    declared B
    41 Deploy to 2
    stamp a b c with 41
    a stage 2
    b stage 2
    c stage 2
    a activate 2
    a healthy
    a confirm 2
    b activate 2
    b healthy
    b confirm 2
    c activate 2
    c healthy
    c confirm 2
    41 Succeeded
    => to v2; keep
      a: v2 Ready
      b: v2 Ready
      c: v2 Ready
      Ready=True Converged: revision 2 runs on 3 of 3 hosts
    ");
}

#[test]
fn a_higher_number_that_turns_up_in_mid_rollout_ends_it() {
    let mut world = first().declare('B');
    world.until_logged("a confirm 2");
    world.host("c").seen.sequence = windlass_crds::id::Sequence(40);
    let end = world.settle();
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
    2 Superseded
    41 Deploy to 2
    stamp a b c with 41
    b activate 2
    b healthy
    b confirm 2
    c activate 2
    c healthy
    c confirm 2
    41 Succeeded
    => to v2; keep
      a: v2 Ready
      b: v2 Ready
      c: v2 Ready
      Ready=True Converged: revision 2 runs on 3 of 3 hosts
    ");
}
