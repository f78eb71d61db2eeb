//! Strategies other than canaries: order by zone or label, hosts that may fail, everything at once; aborts.

use insta::assert_snapshot;
use windlass_crds::record::{Evidence, Purpose};
use windlass_crds::service::Strategy;
use windlass_crds::step::{StepError, Verb};
use windlass_planner::record;

use crate::machine::Link;
use crate::picture::{draw, said, story, table};
use crate::world::World;

fn ran(mut world: World) -> String {
    let end = world.settle();
    story(&world, &end)
}

/// Hosts with files A.
fn fleet(names: &str) -> World {
    let mut world = World::empty(names).declare('A');
    world.settle();
    world.log.clear();
    world
}

fn full() -> StepError {
    StepError::NoSpace { detail: "/opt".to_owned() }
}

// Order

#[test]
fn one_group_is_finished_before_the_next_begins() {
    let world = fleet("a b c d e").grouped("a=west b=east c=west d=east").max_unavailable("2");
    assert_snapshot!(ran(world.declare('B')), @"
    declared B
    2 Deploy to 2
    stamp a b c d e with 2
    a stage 2
    b stage 2
    c stage 2
    d stage 2
    e stage 2
    b activate 2
    d activate 2
    b healthy
    d healthy
    b confirm 2
    d confirm 2
    a activate 2
    c activate 2
    a healthy
    c healthy
    a confirm 2
    c confirm 2
    e activate 2
    e healthy
    e confirm 2
    2 Succeeded
    => to v2; keep
      a: v2 Ready
      b: v2 Ready
      c: v2 Ready
      d: v2 Ready
      e: v2 Ready
      Ready=True Converged: revision 2 runs on 5 of 5 hosts
    ");
}

#[test]
fn a_first_deploy_goes_group_by_group_too() {
    let world = World::empty("a b c").grouped("a=west b=east c=east").declare('A');
    assert_snapshot!(ran(world), @"
    declared A
    1 Deploy to 1
    stamp a b c with 1
    a stage 1
    b stage 1
    c stage 1
    b activate 1
    c activate 1
    b healthy
    c healthy
    b confirm 1
    c confirm 1
    a activate 1
    a healthy
    a confirm 1
    1 Succeeded
    => to v1; keep
      a: v1 Ready
      b: v1 Ready
      c: v1 Ready
      Ready=True Converged: revision 1 runs on 3 of 3 hosts
    ");
}

#[test]
fn a_canary_takes_its_hosts_in_the_order_of_the_groups() {
    let world = fleet("a b c").grouped("c=east a=west b=west").canary("1 100%").approved();
    assert_snapshot!(ran(world.declare('B')), @"
    declared B
    2 Deploy to 2
    stamp a b c with 2
    c stage 2
    c activate 2
    c healthy
    c confirm 2
    step 1 is well
    => to v2; keep
      a: v1 Pending (its step of the canary has not come)
      b: v1 Pending (its step of the canary has not come)
      c: v2 Ready
      Ready=False WaitingForApproval: revision 2 runs on 1 of 3 hosts; step 1 of 2 is well, and has been waiting since 2026-01-01T00:00:01.4Z: `windlass rollout approve service/web --revision 2` lets the next one begin
      Reconciling=True WaitingForApproval: revision 2 runs on 1 of 3 hosts; step 1 of 2 is well, and has been waiting since 2026-01-01T00:00:01.4Z: `windlass rollout approve service/web --revision 2` lets the next one begin
    ");
}

#[test]
fn what_a_group_that_is_not_finished_holds_up() {
    let circumstances = |world: World| {
        let world = world.grouped("a=1 b=1 c=2").declare('B').good([1]).max_unavailable("3");
        world.rolling(Purpose::Deploy, 2).touched("a b")
    };
    assert_snapshot!(table(circumstances, [
        ("both done", "a=v2+s1 b=v2+s1 c=v1+s2"),
        ("one has yet to be switched", "a=v2+s1 b=v1+s2 c=v1+s2"),
        ("one is judged", "a=v2+s1 b=v2?g1 c=v1+s2"),
        ("one was switched and is lost", "a=v2+s1 b=v2?g1~ c=v1+s2"),
        ("one has not been looked at", "a=v2+s1 b=v1+0 c=v1+s2"),
        ("staging goes on everywhere", "a=v2+s1 b=v1+s2 c=v1+"),
    ]), @r"
    both done: a=v2+s1 b=v2+s1 c=v1+s2
      to v2; keep; touch c
      a: v2 Ready
      b: v2 Ready
      c: v1 Pending (next: activate 2) -> activate 2, judge, confirm 2
      Ready=False RollingOut: revision 2 runs on 2 of 3 hosts
      Reconciling=True RollingOut: revision 2 runs on 2 of 3 hosts
    one has yet to be switched: a=v2+s1 b=v1+s2 c=v1+s2
      to v2; keep
      a: v2 Ready
      b: v1 Pending (next: activate 2) -> activate 2, judge, confirm 2
      c: v1 Pending (next: activate 2)
      Ready=False RollingOut: revision 2 runs on 1 of 3 hosts
      Reconciling=True RollingOut: revision 2 runs on 1 of 3 hosts
    one is judged: a=v2+s1 b=v2?g1 c=v1+s2
      to v2; keep
      a: v2 Ready
      b: v2 Starting (next: verdict on 2) -> judge, confirm 2
      c: v1 Pending (next: activate 2)
      Ready=False RollingOut: revision 2 runs on 1 of 3 hosts
      Reconciling=True RollingOut: revision 2 runs on 1 of 3 hosts
    one was switched and is lost: a=v2+s1 b=v2?g1~ c=v1+s2
      to v2; keep
      a: v2 Ready
      b: - Unreachable (no answer within 10 s)
      c: v1 Pending (next: activate 2)
      Ready=False RollingOut: revision 2 runs on 1 of 3 hosts
      Reconciling=True RollingOut: revision 2 runs on 1 of 3 hosts
      Degraded=True HostUnreachable: b: no answer within 10 s
    one has not been looked at: a=v2+s1 b=v1+0 c=v1+s2
      to v2; keep
      a: v2 Ready
      b: - Pending
      c: v1 Pending (next: activate 2)
      Ready=False RollingOut: revision 2 runs on 1 of 3 hosts
      Reconciling=True RollingOut: revision 2 runs on 1 of 3 hosts
    staging goes on everywhere: a=v2+s1 b=v1+s2 c=v1+
      to v2; keep
      a: v2 Ready
      b: v1 Pending (next: activate 2) -> activate 2, judge, confirm 2
      c: v1 Pending (next: stage 2) -> stage 2
      Ready=False RollingOut: revision 2 runs on 1 of 3 hosts
      Reconciling=True RollingOut: revision 2 runs on 1 of 3 hosts
    ");
}

#[test]
fn a_host_out_of_reach_before_its_turn_holds_no_group_up() {
    let circumstances = |world: World| {
        let world = world.grouped("a=1 b=1 c=2").declare('B').good([1]);
        world.rolling(Purpose::Deploy, 2).touched("a")
    };
    assert_snapshot!(table(circumstances, [("b was away", "a=v2+s1 b=v1+~ c=v1+s2")]), @r"
    b was away: a=v2+s1 b=v1+~ c=v1+s2
      to v2; keep; touch c
      a: v2 Ready
      b: - Unreachable (no answer within 10 s)
      c: v1 Pending (next: activate 2) -> activate 2, judge, confirm 2
      Ready=False RollingOut: revision 2 runs on 1 of 3 hosts
      Reconciling=True RollingOut: revision 2 runs on 1 of 3 hosts
      Degraded=True HostUnreachable: b: no answer within 10 s
    ");
}

#[test]
fn going_back_waits_for_no_group() {
    let mut world = fleet("a b c").grouped("a=1 b=2 c=2").max_unavailable("2").declare('B').bad("c", 'B');
    world.until_logged("c unhealthy");
    world.host("a").link = Link::Cut;
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
    c activate 2
    b healthy
    c unhealthy
    2 Unhealthy
    b confirm 2
    3 Rollback to 1, a in doubt, c in doubt
    stamp b c with 3
    c revert 1
    c healthy
    c confirm 1
    b revert 1
    b healthy
    b confirm 1
    3 Halted
    => back to v1 from v2; keep
      a: - Unreachable (no answer within 10 s)
      b: v1 Ready
      c: v1 Ready
      Ready=False RolledBack: revision 2 was unhealthy on c: it answers 500; went back to revision 1, which runs on 2 of 3 hosts; declare something else or `windlass rollout retry`
      Stalled=True RolledBack: revision 2 was unhealthy on c: it answers 500; went back to revision 1, which runs on 2 of 3 hosts; declare something else or `windlass rollout retry`
      Degraded=True HostUnreachable: a: no answer within 10 s
    ");
}

// Hosts that may fail

/// The records are those of an older store, in which nothing was good yet.
#[test]
fn a_host_that_cannot_go_back_is_not_followed_by_others_that_serve() {
    let mut world = fleet("a b c").max_failures(2).bad("*", 'B');
    world.owned.good.clear();
    world.revisions.clear();
    world.set_files('B');
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @"
    declared B
    2 Deploy to 2
    stamp a b c with 2
    a stage 2
    b stage 2
    c stage 2
    a activate 2
    a unhealthy
    2 Active
    2 Unhealthy
    a has fallen: it answers 500
    3 Rollback, a in doubt
    stamp a b c with 3
    a stop
    3 Succeeded
    => stop v2; keep
      a: v2 Stopped (there is nothing good to go back to)
      b: v1 Ready
      c: v1 Ready
      Ready=False FirstDeployUnhealthy: revision 2 was unhealthy on a: it answers 500; there is nothing good to go back to, so it is stopped where it was not healthy
      Stalled=True FirstDeployUnhealthy: revision 2 was unhealthy on a: it answers 500; there is nothing good to go back to, so it is stopped where it was not healthy
    ");
}

#[test]
fn a_host_that_fails_within_the_allowance_goes_back_alone() {
    let mut world = fleet("a b c d").max_failures(1).declare('B').bad("b", 'B');
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @"
    declared B
    2 Deploy to 2
    stamp a b c d with 2
    a stage 2
    b stage 2
    c stage 2
    d stage 2
    a activate 2
    a healthy
    a confirm 2
    b activate 2
    b unhealthy
    2 Active
    b revert 1
    b healthy
    b confirm 1
    c activate 2
    c healthy
    c confirm 2
    d activate 2
    d healthy
    d confirm 2
    2 Succeeded
    => to v2; keep
      a: v2 Ready
      b: v1 HeldBack (revision 2 was unhealthy here: it answers 500)
      c: v2 Ready
      d: v2 Ready
      Ready=False HeldBack: b: revision 2 was unhealthy here: it answers 500; it was taken back there alone, within maxFailures: `windlass rollout retry` tries it again
      Stalled=True HeldBack: b: revision 2 was unhealthy here: it answers 500; it was taken back there alone, within maxFailures: `windlass rollout retry` tries it again
      Degraded=True HeldBack: b: revision 2 was unhealthy here: it answers 500; it was taken back there alone, within maxFailures: `windlass rollout retry` tries it again
    ");
    // What is declared next is brought to all.
    world.log.clear();
    assert_snapshot!(ran(world.declare('C')), @"
    declared C
    3 Deploy to 3
    stamp a b c d with 3
    a stage 3
    b stage 3
    c stage 3
    d stage 3
    a activate 3
    a healthy
    a confirm 3
    b activate 3
    b healthy
    b confirm 3
    c activate 3
    c healthy
    c confirm 3
    d activate 3
    d healthy
    d confirm 3
    3 Succeeded
    => to v3; keep
      a: v3 Ready
      b: v3 Ready
      c: v3 Ready
      d: v3 Ready
      Ready=True Converged: revision 3 runs on 4 of 4 hosts
    ");
}

#[test]
fn one_more_than_may_fail_sends_all_back() {
    let world = fleet("a b c d").max_failures(1).declare('B').bad("b", 'B').bad("c", 'B');
    assert_snapshot!(ran(world), @"
    declared B
    2 Deploy to 2
    stamp a b c d with 2
    a stage 2
    b stage 2
    c stage 2
    d stage 2
    a activate 2
    a healthy
    a confirm 2
    b activate 2
    b unhealthy
    2 Active
    b revert 1
    b healthy
    b confirm 1
    c activate 2
    c unhealthy
    2 Unhealthy
    3 Rollback to 1, c in doubt
    stamp a b c d with 3
    c revert 1
    c healthy
    c confirm 1
    a revert 1
    a healthy
    a confirm 1
    3 Succeeded
    => back to v1 from v2; keep
      a: v1 Ready
      b: v1 Ready
      c: v1 Ready
      d: v1 Ready
      Ready=False RolledBack: revision 2 was unhealthy on c: it answers 500; went back to revision 1, which runs on 4 of 4 hosts; declare something else or `windlass rollout retry`
      Stalled=True RolledBack: revision 2 was unhealthy on c: it answers 500; went back to revision 1, which runs on 4 of 4 hosts; declare something else or `windlass rollout retry`
    ");
}

#[test]
fn none_may_fail_unless_told() {
    let world = fleet("a b").max_failures(0).declare('B').bad("b", 'B');
    assert!(ran(world).contains("RolledBack"));
}

#[test]
fn who_retries_tries_the_host_that_was_held_back() {
    let mut world = fleet("a b").max_failures(1).declare('B').bad("b", 'B');
    world.settle();
    world.bad.clear();
    world.log.clear();
    world.retry();
    assert_snapshot!(ran(world), @"
    retry
    3 Repair to 2
    stamp a b with 3
    b activate 2
    b healthy
    b confirm 2
    3 Succeeded
    => to v2; keep
      a: v2 Ready
      b: v2 Ready
      Ready=True Converged: revision 2 runs on 2 of 2 hosts
    ");
}

/// Back from C is to B, and B is what `b` does not run.
#[test]
fn what_is_gone_back_to_is_not_brought_where_it_was_bad() {
    let mut world = fleet("a b c").max_failures(1).declare('B').bad("b", 'B');
    world.settle();
    world.log.clear();
    world.spec.rollout.max_failures = 0;
    assert_snapshot!(ran(world.declare('C').bad("c", 'C')), @"
    declared C
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
    c unhealthy
    3 Unhealthy
    4 Rollback to 2, c in doubt
    stamp a b c with 4
    c revert 2
    c healthy
    c confirm 2
    a revert 2
    a healthy
    a confirm 2
    b revert 1
    b healthy
    b confirm 1
    4 Succeeded
    => back to v2 from v3; keep
      a: v2 Ready
      b: v1 HeldBack (revision 2 was unhealthy here: it answers 500)
      c: v2 Ready
      Ready=False RolledBack: revision 3 was unhealthy on c: it answers 500; went back to revision 2, which runs on 2 of 3 hosts; declare something else or `windlass rollout retry`
      Stalled=True RolledBack: revision 3 was unhealthy on c: it answers 500; went back to revision 2, which runs on 2 of 3 hosts; declare something else or `windlass rollout retry`
      Degraded=True HeldBack: b: revision 2 was unhealthy here: it answers 500; it was taken back there alone, within maxFailures: `windlass rollout retry` tries it again
    ");
}

#[test]
fn a_first_deploy_that_fails_on_one_host_stops_it_there() {
    let world = World::empty("a b c").max_failures(1).declare('A').bad("b", 'A');
    assert_snapshot!(ran(world), @"
    declared A
    1 Deploy to 1
    stamp a b c with 1
    a stage 1
    b stage 1
    c stage 1
    a activate 1
    b activate 1
    c activate 1
    a healthy
    b unhealthy
    1 Active
    c healthy
    a confirm 1
    b stop
    c confirm 1
    1 Succeeded
    => to v1; keep
      a: v1 Ready
      b: v1 Stopped (revision 1 was unhealthy here: it answers 500)
      c: v1 Ready
      Ready=False HeldBack: b: revision 1 was unhealthy here: it answers 500; it was taken back there alone, within maxFailures: `windlass rollout retry` tries it again
      Stalled=True HeldBack: b: revision 1 was unhealthy here: it answers 500; it was taken back there alone, within maxFailures: `windlass rollout retry` tries it again
      Degraded=True HeldBack: b: revision 1 was unhealthy here: it answers 500; it was taken back there alone, within maxFailures: `windlass rollout retry` tries it again
    ");
}

#[test]
fn another_controller_knows_who_has_failed() {
    let mut world = fleet("a b c").max_failures(1).declare('B').bad("a", 'B').bad("c", 'B');
    world.until_logged("a unhealthy");
    world.take_over();
    assert_snapshot!(ran(world), @"
    declared B
    2 Deploy to 2
    stamp a b c with 2
    a stage 2
    b stage 2
    c stage 2
    a activate 2
    a unhealthy
    2 Active
    term 2
    2 Superseded
    3 Deploy to 2, a in doubt
    stamp a b c with 3
    a revert 1
    a healthy
    a confirm 1
    b activate 2
    b healthy
    b confirm 2
    c activate 2
    c unhealthy
    3 Unhealthy
    4 Rollback to 1, c in doubt
    stamp a b c with 4
    c revert 1
    c healthy
    c confirm 1
    b revert 1
    b healthy
    b confirm 1
    4 Succeeded
    => back to v1 from v2; keep
      a: v1 Ready
      b: v1 Ready
      c: v1 Ready
      Ready=False RolledBack: revision 2 was unhealthy on c: it answers 500; went back to revision 1, which runs on 3 of 3 hosts; declare something else or `windlass rollout retry`
      Stalled=True RolledBack: revision 2 was unhealthy on c: it answers 500; went back to revision 1, which runs on 3 of 3 hosts; declare something else or `windlass rollout retry`
    ");
}

#[test]
fn a_host_that_does_not_come_back_either_is_no_reason_to_block_what_it_had() {
    let mut world = fleet("a b c").max_failures(1).declare('B').bad("a", 'B');
    world.until_logged("a unhealthy");
    world.bad.insert(("a".to_owned(), 'A'));
    world.until_logged("Halted");
    world.bad.clear();
    assert_snapshot!(ran(world), @"
    declared B
    2 Deploy to 2
    stamp a b c with 2
    a stage 2
    b stage 2
    c stage 2
    a activate 2
    a unhealthy
    2 Active
    a revert 1
    a unhealthy
    2 Halted
    3 Deploy to 2, a in doubt
    stamp a b c with 3
    a healthy
    a confirm 1
    b activate 2
    b healthy
    b confirm 2
    c activate 2
    c healthy
    c confirm 2
    3 Succeeded
    => to v2; keep
      a: v1 HeldBack (revision 2 was unhealthy here: it answers 500)
      b: v2 Ready
      c: v2 Ready
      Ready=False HeldBack: a: revision 2 was unhealthy here: it answers 500; it was taken back there alone, within maxFailures: `windlass rollout retry` tries it again
      Stalled=True HeldBack: a: revision 2 was unhealthy here: it answers 500; it was taken back there alone, within maxFailures: `windlass rollout retry` tries it again
      Degraded=True HeldBack: a: revision 2 was unhealthy here: it answers 500; it was taken back there alone, within maxFailures: `windlass rollout retry` tries it again
    ");
}

#[test]
fn a_step_that_fails_within_the_allowance_holds_nobody_else_up() {
    let mut world = fleet("a b c").max_failures(1).declare('B');
    world.failing.insert(("a".to_owned(), Verb::Stage), full());
    assert_snapshot!(ran(world), @"
    declared B
    2 Deploy to 2
    stamp a b c with 2
    a stage 2: no space left: /opt; make room there
    b stage 2
    c stage 2
    b activate 2
    b healthy
    b confirm 2
    c activate 2
    c healthy
    c confirm 2
    2 Halted
    3 Deploy to 2
    stamp a b c with 3
    a stage 2
    a activate 2
    a healthy
    a confirm 2
    3 Succeeded
    => to v2; keep
      a: v2 Ready
      b: v2 Ready
      c: v2 Ready
      Ready=True Converged: revision 2 runs on 3 of 3 hosts
    ");
}

#[test]
fn failed_steps_and_bad_verdicts_count_together() {
    let mut world = fleet("a b c d").max_failures(1).declare('B').bad("b", 'B');
    world.failing.insert(("a".to_owned(), Verb::Stage), full());
    world.until_logged("b unhealthy");
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @"
    declared B
    2 Deploy to 2
    stamp a b c d with 2
    a stage 2: no space left: /opt; make room there
    b stage 2
    c stage 2
    d stage 2
    b activate 2
    b unhealthy
    2 Unhealthy
    3 Rollback to 1, b in doubt
    stamp a b c d with 3
    b revert 1
    b healthy
    b confirm 1
    3 Succeeded
    => back to v1 from v2; keep
      a: v1 Ready
      b: v1 Ready
      c: v1 Ready
      d: v1 Ready
      Ready=False RolledBack: revision 2 was unhealthy on b: it answers 500; went back to revision 1, which runs on 4 of 4 hosts; declare something else or `windlass rollout retry`
      Stalled=True RolledBack: revision 2 was unhealthy on b: it answers 500; went back to revision 1, which runs on 4 of 4 hosts; declare something else or `windlass rollout retry`
    ");
}

// All at once

#[test]
fn everything_at_once_and_back_at_once() {
    let mut world = fleet("a b c");
    world.spec.rollout.strategy = Strategy::AllAtOnce;
    world.watched = false;
    assert_snapshot!(ran(world.declare('B').bad("c", 'B')), @"
    declared B
    2 Deploy to 2
    stamp a b c with 2
    a stage 2
    b stage 2
    c stage 2
    a activate 2
    b activate 2
    c activate 2
    a healthy
    b healthy
    c unhealthy
    2 Unhealthy
    a confirm 2
    b confirm 2
    3 Rollback to 1, c in doubt
    stamp a b c with 3
    a revert 1
    b revert 1
    c revert 1
    a healthy
    b healthy
    c healthy
    a confirm 1
    b confirm 1
    c confirm 1
    3 Succeeded
    => back to v1 from v2; keep
      a: v1 Ready
      b: v1 Ready
      c: v1 Ready
      Ready=False RolledBack: revision 2 was unhealthy on c: it answers 500; went back to revision 1, which runs on 3 of 3 hosts; declare something else or `windlass rollout retry`
      Stalled=True RolledBack: revision 2 was unhealthy on c: it answers 500; went back to revision 1, which runs on 3 of 3 hosts; declare something else or `windlass rollout retry`
    ");
}

// Aborts

#[test]
fn who_aborts_goes_back_and_it_stays_away() {
    let mut world = fleet("a b c").declare('B');
    world.until_logged("a confirm 2");
    world.abort();
    let end = world.settle();
    world.abort();
    assert_snapshot!(story(&world, &end), @"
    declared B
    2 Deploy to 2
    stamp a b c with 2
    a stage 2
    b stage 2
    c stage 2
    a activate 2
    a healthy
    a confirm 2
    aborted
    3 Rollback to 1
    stamp a b c with 3
    a revert 1
    a healthy
    a confirm 1
    3 Succeeded
    abort refused: what is declared is blocked already; `windlass rollout retry` deploys it once more
    => back to v1 from v2; keep
      a: v1 Ready
      b: v1 Ready
      c: v1 Ready
      Ready=False Aborted: revision 2 was aborted by a person at 2026-01-01T00:00:01.4Z; went back to revision 1, which runs on 3 of 3 hosts; declare something else or `windlass rollout retry`
      Stalled=True Aborted: revision 2 was aborted by a person at 2026-01-01T00:00:01.4Z; went back to revision 1, which runs on 3 of 3 hosts; declare something else or `windlass rollout retry`
    ");
    world.log.clear();
    world.retry();
    assert_snapshot!(ran(world), @"
    retry
    4 Deploy to 2
    stamp a b c with 4
    a activate 2
    a healthy
    a confirm 2
    b activate 2
    b healthy
    b confirm 2
    c activate 2
    c healthy
    c confirm 2
    4 Succeeded
    => to v2; keep
      a: v2 Ready
      b: v2 Ready
      c: v2 Ready
      Ready=True Converged: revision 2 runs on 3 of 3 hosts
    ");
}

#[test]
fn something_else_lifts_what_was_aborted() {
    let mut world = fleet("a b").declare('B');
    world.until_logged("a confirm 2");
    world.abort();
    world.settle();
    world.log.clear();
    world.set_files('C');
    world.settle();
    assert_snapshot!(ran(world.declare('B')), @"
    declared C
    4 Deploy to 3
    stamp a b with 4
    a stage 3
    b stage 3
    a activate 3
    a healthy
    a confirm 3
    b activate 3
    b healthy
    b confirm 3
    4 Succeeded
    declared B
    5 Deploy to 2
    stamp a b with 5
    a activate 2
    a healthy
    a confirm 2
    b activate 2
    b healthy
    b confirm 2
    5 Succeeded
    => to v2; keep
      a: v2 Ready
      b: v2 Ready
      Ready=True Converged: revision 2 runs on 2 of 2 hosts
    ");
}

#[test]
fn a_canary_that_waits_can_be_aborted() {
    let mut world = fleet("a b c").canary("1 100%").approved().declare('B');
    world.settle();
    world.log.clear();
    world.abort();
    assert_snapshot!(ran(world), @"
    aborted
    3 Rollback to 1
    stamp a b c with 3
    a revert 1
    a healthy
    a confirm 1
    3 Succeeded
    => back to v1 from v2; keep
      a: v1 Ready
      b: v1 Ready
      c: v1 Ready
      Ready=False Aborted: revision 2 was aborted by a person at 2026-01-01T00:00:01.6Z; went back to revision 1, which runs on 3 of 3 hosts; declare something else or `windlass rollout retry`
      Stalled=True Aborted: revision 2 was aborted by a person at 2026-01-01T00:00:01.6Z; went back to revision 1, which runs on 3 of 3 hosts; declare something else or `windlass rollout retry`
    ");
}

#[test]
fn a_verdict_after_an_abort_changes_nothing() {
    let mut world = fleet("a b").declare('B').bad("a", 'B');
    world.until_logged("a activate 2");
    let late = world.host("a").errand.clone();
    world.abort();
    world.host("a").errand = late;
    assert_snapshot!(ran(world), @"
    declared B
    2 Deploy to 2
    stamp a b with 2
    a stage 2
    b stage 2
    a activate 2
    aborted
    a unhealthy
    2 Aborted
    3 Rollback to 1, a in doubt
    stamp a b with 3
    a revert 1
    a healthy
    a confirm 1
    3 Succeeded
    => back to v1 from v2; keep
      a: v1 Ready
      b: v1 Ready
      Ready=False Aborted: revision 2 was aborted by a person at 2026-01-01T00:00:01.2Z; went back to revision 1, which runs on 2 of 2 hosts; declare something else or `windlass rollout retry`
      Stalled=True Aborted: revision 2 was aborted by a person at 2026-01-01T00:00:01.2Z; went back to revision 1, which runs on 2 of 2 hosts; declare something else or `windlass rollout retry`
    ");
}

#[test]
fn a_paused_rollout_goes_back_when_it_is_aborted() {
    let mut world = fleet("a b c").declare('B');
    world.until_logged("a confirm 2");
    world.pause();
    world.settle();
    world.log.clear();
    world.abort();
    assert_snapshot!(ran(world), @"
    aborted
    3 Rollback to 1
    stamp a b c with 3
    a revert 1
    a healthy
    a confirm 1
    3 Succeeded
    => back to v1 from v2; keep
      a: v1 Ready
      b: v1 Ready
      c: v1 Ready
      Ready=False Aborted: revision 2 was aborted by a person at 2026-01-01T00:00:01.6Z; went back to revision 1, which runs on 3 of 3 hosts; declare something else or `windlass rollout retry`
      Reconciling=True Paused: paused since 2026-01-01T00:00:01.4Z: nothing is begun on any host until `windlass rollout resume`
      Stalled=True Aborted: revision 2 was aborted by a person at 2026-01-01T00:00:01.6Z; went back to revision 1, which runs on 3 of 3 hosts; declare something else or `windlass rollout retry`
    ");
}

#[test]
fn a_first_deploy_that_is_aborted_is_stopped_where_nobody_confirmed_it() {
    let mut world = World::empty("a b").declare('A');
    world.until_logged("a activate 1");
    world.abort();
    assert_snapshot!(ran(world), @"
    declared A
    1 Deploy to 1
    stamp a b with 1
    a stage 1
    b stage 1
    a activate 1
    b activate 1
    aborted
    2 Rollback, a in doubt, b in doubt
    stamp a b with 2
    a stop
    b stop
    2 Succeeded
    => stop v1; keep
      a: v1 Stopped (there is nothing good to go back to)
      b: v1 Stopped (there is nothing good to go back to)
      Ready=False Aborted: revision 1 was aborted by a person at 2026-01-01T00:00:00.4Z; there is nothing good to go back to, so it is stopped where it was not healthy
      Stalled=True Aborted: revision 1 was aborted by a person at 2026-01-01T00:00:00.4Z; there is nothing good to go back to, so it is stopped where it was not healthy
      Available=False HostUnhealthy: 0 of 2 hosts serve
    ");
}

#[test]
fn an_aborted_restart_leaves_the_rest_alone() {
    let mut world = fleet("a b c");
    world.restart();
    world.until_logged("a activate 1");
    world.abort();
    let end = world.settle();
    assert_eq!(end.owned.restart, None);
    assert_snapshot!(story(&world, &end), @"
    restart
    2 Restart to 1
    stamp a b c with 2
    a activate 1
    aborted
    a healthy
    a confirm 1
    2 Succeeded
    => to v1; keep
      a: v1 Ready
      b: v1 Ready
      c: v1 Ready
      Ready=True Converged: revision 1 runs on 3 of 3 hosts
    ");
}

#[test]
fn there_is_nothing_to_abort_where_all_is_done_or_goes_back() {
    let mut world = fleet("a b");
    world.abort();
    world.set_files('B');
    world.bad.insert(("a".to_owned(), 'B'));
    world.settle();
    world.abort();
    world.delete();
    world.abort();
    let refused: Vec<&String> = world.log.iter().filter(|line| line.starts_with("abort")).collect();
    assert_snapshot!(format!("{refused:#?}"), @r#"
    [
        "abort refused: no rollout is under way",
        "abort refused: what is declared is blocked already; `windlass rollout retry` deploys it once more",
        "abort refused: it is being taken down",
    ]
    "#);
}

#[test]
fn another_controller_goes_back_from_what_was_aborted() {
    let mut world = fleet("a b").declare('B');
    world.until_logged("a confirm 2");
    world.abort();
    world.take_over();
    assert_snapshot!(ran(world), @"
    declared B
    2 Deploy to 2
    stamp a b with 2
    a stage 2
    b stage 2
    a activate 2
    a healthy
    a confirm 2
    aborted
    term 2
    3 Rollback to 1
    stamp a b with 3
    a revert 1
    a healthy
    a confirm 1
    3 Succeeded
    => back to v1 from v2; keep
      a: v1 Ready
      b: v1 Ready
      Ready=False Aborted: revision 2 was aborted by a person at 2026-01-01T00:00:01.4Z; went back to revision 1, which runs on 2 of 2 hosts; declare something else or `windlass rollout retry`
      Stalled=True Aborted: revision 2 was aborted by a person at 2026-01-01T00:00:01.4Z; went back to revision 1, which runs on 2 of 2 hosts; declare something else or `windlass rollout retry`
    ");
}

// Superseding

#[test]
fn back_to_the_old_version_restarts_nothing_that_never_left_it() {
    let mut world = fleet("a b c").declare('B');
    world.until_logged("a activate 2");
    world.set_files('A');
    assert_snapshot!(ran(world), @"
    declared B
    2 Deploy to 2
    stamp a b c with 2
    a stage 2
    b stage 2
    c stage 2
    a activate 2
    declared A
    a healthy
    a confirm 2
    2 Superseded
    3 Repair to 1
    stamp a b c with 3
    a activate 1
    a healthy
    a confirm 1
    3 Succeeded
    => to v1; keep
      a: v1 Ready
      b: v1 Ready
      c: v1 Ready
      Ready=True Converged: revision 1 runs on 3 of 3 hosts
    ");
}

#[test]
fn back_to_the_old_version_before_anything_was_switched() {
    let mut world = fleet("a b").declare('B');
    world.until_logged("a stage 2");
    world.set_files('A');
    assert_snapshot!(ran(world), @"
    declared B
    2 Deploy to 2
    stamp a b with 2
    a stage 2
    b stage 2
    declared A
    2 Superseded
    => to v1; keep
      a: v1 Ready
      b: v1 Ready
      Ready=True Converged: revision 1 runs on 2 of 2 hosts
    ");
}

// The deadline

#[test]
fn a_rollout_that_stands_still_is_told_when_its_time_is_over() {
    let mut world = fleet("a b").declare('B');
    world.until_logged("a activate 2");
    world.host("a").link = Link::Cut;
    world.turns(5);
    let progressed = world.rollout.as_ref().expect("a rollout").progressed;
    world.now = progressed + jiff::SignedDuration::from_secs(600);
    let before = said(&world.plan());
    world.now += jiff::SignedDuration::from_millis(1);
    assert_snapshot!(format!("{before}--\n{}", said(&world.plan())), @"
      Ready=False RollingOut: revision 2 runs on 0 of 2 hosts
      Reconciling=True RollingOut: revision 2 runs on 0 of 2 hosts
      Degraded=True HostUnreachable: a: no answer within 10 s
    --
      Ready=False RollingOut: revision 2 runs on 0 of 2 hosts
      Reconciling=True RollingOut: revision 2 runs on 0 of 2 hosts
      Stalled=True ProgressDeadlineExceeded: no progress for 10m; it goes on trying
      Degraded=True HostUnreachable: a: no answer within 10 s
    ");
    // What moves again is not stalled.
    world.host("a").link = Link::Up;
    world.until_logged("b activate 2");
    assert!(!said(&world.plan()).contains("Stalled"), "{}", draw(&world.plan()));
}

/// Waiting for time or for a person is no delay; being out of sight after that is.
#[test]
fn a_canary_that_waits_is_not_late() {
    let mut world = fleet("a b").canary("1 100%").approved().declare('B');
    world.settle();
    world.now += jiff::SignedDuration::from_hours(100);
    assert!(!said(&world.plan()).contains("Stalled"));
    world.approve(2, None);
    world.host("a").link = Link::Cut;
    assert!(said(&world.plan()).contains("ProgressDeadlineExceeded"), "{}", draw(&world.plan()));
}

/// `a` is down by an earlier rollout, and the group before it may take nobody down meanwhile.
#[test]
fn what_is_down_in_a_later_group_is_brought_up_first() {
    let circumstances = |world: World| {
        let world = world.grouped("a=2 b=1").declare('B').good([1]);
        world.rolling(Purpose::Deploy, 2).touched("a")
    };
    assert_snapshot!(table(circumstances, [("a is half way", "a=v3?g1s2 b=v1+s2")]), @r"
    a is half way: a=v3?g1s2 b=v1+s2
      to v2; keep
      a: v3 Pending (next: activate 2) -> activate 2, judge, confirm 2
      b: v1 Pending (next: activate 2)
      Ready=False RollingOut: revision 2 runs on 0 of 2 hosts
      Reconciling=True RollingOut: revision 2 runs on 0 of 2 hosts
    ");
}

/// It was never good, and something else came: whoever declares it again wants it tried everywhere.
#[test]
fn what_was_superseded_before_it_was_good_is_tried_everywhere_again() {
    let mut world = fleet("a b").max_failures(1).declare('B').bad("a", 'B');
    world.until_logged("a confirm 1");
    world.bad.clear();
    world.bad.insert(("*".to_owned(), 'C'));
    world.set_files('C');
    world.settle();
    world.log.clear();
    assert_snapshot!(ran(world.declare('B')), @"
    declared B
    5 Deploy to 2
    stamp a b with 5
    a activate 2
    a healthy
    a confirm 2
    b activate 2
    b healthy
    b confirm 2
    5 Succeeded
    => to v2; keep
      a: v2 Ready
      b: v2 Ready
      Ready=True Converged: revision 2 runs on 2 of 2 hosts
    ");
}

/// What is recorded has to fit into one write, however many hosts may fail.
#[test]
fn the_logs_of_few_hosts_are_kept() {
    let world = fleet("a").max_failures(30).rolling(Purpose::Deploy, 1);
    let (mut owned, mut rollout) = (world.owned.clone(), world.rollout.clone().expect("a rollout"));
    let known = world.revisions.values().next().expect("a revision");
    for number in 0..30 {
        let evidence = Evidence { summary: "it exited".to_owned(), answer: None, logs: vec!["a line".to_owned()] };
        let host = format!("h{number}").parse().expect("a host");
        record::unhealthy(&mut owned, &mut rollout, &host, known, &world.spec, evidence, world.now);
    }
    let told = owned.held_back.values().flat_map(|held| held.values());
    let with_logs = told.clone().filter(|evidence| !evidence.logs.is_empty()).count();
    assert_eq!((told.count(), with_logs), (30, 10));
}

/// While a third host has yet to be brought anything, so that no revision was ever confirmed by all of them.
#[test]
fn a_host_goes_back_alone_to_what_it_has_confirmed_itself() {
    let mut world = World::empty("a b c").max_failures(1).declare('A');
    world.host("c").link = Link::Cut;
    while !world.hosts["a"].confirmed {
        world.failing.insert(("b".to_owned(), Verb::Stage), full());
        world.turns(1);
    }
    assert!(world.owned.good.is_empty(), "{:?}", world.owned.good);
    world.failing.clear();
    world.log.clear();
    let mut world = world.declare('B').bad("a", 'B');
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @"
    declared B
    1 Superseded
    2 Deploy to 2
    stamp a b with 2
    a stage 2
    b stage 2
    a activate 2
    b activate 2
    a unhealthy
    2 Active
    b healthy
    a revert 1
    b confirm 2
    a healthy
    a confirm 1
    2 Succeeded
    => to v2; keep
      a: v1 HeldBack (revision 2 was unhealthy here: it answers 500)
      b: v2 Ready
      c: - Unreachable (no answer within 10 s)
      Ready=False HeldBack: a: revision 2 was unhealthy here: it answers 500; it was taken back there alone, within maxFailures: `windlass rollout retry` tries it again
      Stalled=True HeldBack: a: revision 2 was unhealthy here: it answers 500; it was taken back there alone, within maxFailures: `windlass rollout retry` tries it again
      Degraded=True HostUnreachable: c: no answer within 10 s
    ");
}

#[test]
fn what_was_confirmed_before_it_was_unhealthy_elsewhere_is_left_as_it_is() {
    let mut world = World::empty("a b c d").declare('A').bad("d", 'A');
    world.settle();
    crate::notation::drift(world.host("b"), 's');
    crate::notation::drift(world.host("c"), 'a');
    world.log.clear();
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @"

    => stop v1; keep
      a: v1 Ready
      b: v1 Stopped (left as it is, since it was unhealthy elsewhere)
      c: - Drifted (the unit file is gone; left as it is, since it was unhealthy elsewhere)
      d: v1 Stopped (there is nothing good to go back to)
      Ready=False FirstDeployUnhealthy: revision 1 was unhealthy on d: it answers 500; there is nothing good to go back to, so it is stopped where it was not healthy
      Stalled=True FirstDeployUnhealthy: revision 1 was unhealthy on d: it answers 500; there is nothing good to go back to, so it is stopped where it was not healthy
      Drifted=True DriftFound: c: the unit file is gone; left as it is, since it was unhealthy elsewhere
    ");
}
