//! Canaries: some hosts first, watched for a while, and the rest when time or a person lets them follow.

use insta::assert_snapshot;
use windlass_planner::input::{Health, Placement};

use crate::machine::Link;
use crate::picture::{said, story};
use crate::world::World;

fn ran(mut world: World) -> String {
    let end = world.settle();
    story(&world, &end)
}

/// Four hosts that run files A, and a canary of one host, then half of them, then all.
fn four() -> World {
    let mut world = World::empty("a b c d").declare('A').canary("1 50% 100%");
    world.settle();
    world.log.clear();
    world
}

#[test]
fn a_first_deploy_has_nothing_to_save() {
    assert_snapshot!(ran(World::empty("a b").declare('A').canary("1").baking(60).approved()), @"
    declared A
    1 Deploy to 1
    stamp a b with 1
    a stage 1
    b stage 1
    a activate 1
    b activate 1
    a healthy
    b healthy
    a confirm 1
    b confirm 1
    1 Succeeded
    => to v1; keep
      a: v1 Ready
      b: v1 Ready
      Ready=True Converged: revision 1 runs on 2 of 2 hosts
    ");
}

#[test]
fn step_by_step_with_time_between() {
    assert_snapshot!(ran(four().baking(60).declare('B')), @"
    declared B
    2 Deploy to 2
    stamp a b c d with 2
    a stage 2
    a activate 2
    a healthy
    a confirm 2
    step 1 is well
    1m pass
    step 2
    b stage 2
    b activate 2
    b healthy
    b confirm 2
    step 2 is well
    1m pass
    step 3
    c stage 2
    d stage 2
    c activate 2
    c healthy
    c confirm 2
    d activate 2
    d healthy
    d confirm 2
    step 3 is well
    1m pass
    2 Succeeded
    => to v2; keep
      a: v2 Ready
      b: v2 Ready
      c: v2 Ready
      d: v2 Ready
      Ready=True Converged: revision 2 runs on 4 of 4 hosts
    ");
}

#[test]
fn without_time_or_a_person_a_step_follows_the_verdicts() {
    assert_snapshot!(ran(four().declare('B')), @"
    declared B
    2 Deploy to 2
    stamp a b c d with 2
    a stage 2
    a activate 2
    a healthy
    a confirm 2
    step 2
    b stage 2
    b activate 2
    b healthy
    b confirm 2
    step 3
    c stage 2
    d stage 2
    c activate 2
    c healthy
    c confirm 2
    d activate 2
    d healthy
    d confirm 2
    2 Succeeded
    => to v2; keep
      a: v2 Ready
      b: v2 Ready
      c: v2 Ready
      d: v2 Ready
      Ready=True Converged: revision 2 runs on 4 of 4 hosts
    ");
}

#[test]
fn max_unavailable_holds_within_a_step() {
    let mut world = four().canary("1 100%").max_unavailable("2");
    world.set_files('B');
    assert_snapshot!(ran(world), @"
    declared B
    2 Deploy to 2
    stamp a b c d with 2
    a stage 2
    a activate 2
    a healthy
    a confirm 2
    step 2
    b stage 2
    c stage 2
    d stage 2
    b activate 2
    c activate 2
    b healthy
    c healthy
    b confirm 2
    c confirm 2
    d activate 2
    d healthy
    d confirm 2
    2 Succeeded
    => to v2; keep
      a: v2 Ready
      b: v2 Ready
      c: v2 Ready
      d: v2 Ready
      Ready=True Converged: revision 2 runs on 4 of 4 hosts
    ");
}

#[test]
fn a_person_lets_each_step_begin_and_only_one() {
    let mut world = four().approved().declare('B');
    world.settle();
    // What is not what waits is refused.
    world.approve(3, None);
    world.approve(2, Some(2));
    world.approve(2, Some(1));
    world.approve(2, Some(1));
    world.settle();
    world.approve(2, Some(1));
    world.approve(2, None);
    let end = world.settle();
    world.approve(2, None);
    assert_snapshot!(story(&world, &end), @"
    declared B
    2 Deploy to 2
    stamp a b c d with 2
    a stage 2
    a activate 2
    a healthy
    a confirm 2
    step 1 is well
    approval refused: it is revision 2 that is on its way to the hosts
    approval refused: it is step 1 that is under way
    approved
    approval refused: the next step is approved already
    step 2
    b stage 2
    b activate 2
    b healthy
    b confirm 2
    step 2 is well
    approval refused: it is step 2 that is under way
    approved
    step 3
    c stage 2
    d stage 2
    c activate 2
    c healthy
    c confirm 2
    d activate 2
    d healthy
    d confirm 2
    2 Succeeded
    approval refused: no canary is under way, so nothing waits for approval
    => to v2; keep
      a: v2 Ready
      b: v2 Ready
      c: v2 Ready
      d: v2 Ready
      Ready=True Converged: revision 2 runs on 4 of 4 hosts
    ");
}

#[test]
fn nothing_is_approved_ahead_of_time() {
    let mut world = four().baking(60).approved().declare('B');
    world.until_logged("a stage 2");
    world.approve(2, None);
    world.until_logged("step 1 is well");
    world.approve(2, None);
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @"
    declared B
    2 Deploy to 2
    stamp a b c d with 2
    a stage 2
    approval refused: step 1 is still under way; it can be approved when it is well
    a activate 2
    a healthy
    a confirm 2
    step 1 is well
    approval refused: step 1 has to stay healthy until 2026-01-01T00:01:01.4Z; it can be approved then
    1m pass
    => to v2; keep
      a: v2 Ready
      b: v1 Pending (its step of the canary has not come)
      c: v1 Pending (its step of the canary has not come)
      d: v1 Pending (its step of the canary has not come)
      Ready=False WaitingForApproval: revision 2 runs on 1 of 4 hosts; step 1 of 3 is well, and has been waiting since 2026-01-01T00:01:01.4Z: `windlass rollout approve service/web --revision 2` lets the next one begin
      Reconciling=True WaitingForApproval: revision 2 runs on 1 of 4 hosts; step 1 of 3 is well, and has been waiting since 2026-01-01T00:01:01.4Z: `windlass rollout approve service/web --revision 2` lets the next one begin
    ");
}

#[test]
fn a_step_that_waits_says_what_for() {
    let mut world = four().baking(60).approved().declare('B');
    world.until_logged("step 1 is well");
    let baking = world.plan();
    world.settle();
    let waiting = world.plan();
    world.approve(2, None);
    world.until_logged("b activate 2");
    assert_snapshot!(format!("{}--\n{}--\n{}", said(&baking), said(&waiting), said(&world.plan())), @"
      Ready=False Baking: revision 2 runs on 1 of 4 hosts; step 1 of 3 has to stay healthy until 2026-01-01T00:01:01.4Z
      Reconciling=True Baking: revision 2 runs on 1 of 4 hosts; step 1 of 3 has to stay healthy until 2026-01-01T00:01:01.4Z
    --
      Ready=False WaitingForApproval: revision 2 runs on 1 of 4 hosts; step 1 of 3 is well, and has been waiting since 2026-01-01T00:01:01.4Z: `windlass rollout approve service/web --revision 2` lets the next one begin
      Reconciling=True WaitingForApproval: revision 2 runs on 1 of 4 hosts; step 1 of 3 is well, and has been waiting since 2026-01-01T00:01:01.4Z: `windlass rollout approve service/web --revision 2` lets the next one begin
    --
      Ready=False RollingOut: revision 2 runs on 1 of 4 hosts; step 2 of 3
      Reconciling=True RollingOut: revision 2 runs on 1 of 4 hosts; step 2 of 3
    ");
}

#[test]
fn a_bad_canary_goes_back_and_the_others_never_leave() {
    assert_snapshot!(ran(four().baking(60).declare('B').bad("a", 'B')), @"
    declared B
    2 Deploy to 2
    stamp a b c d with 2
    a stage 2
    a activate 2
    a unhealthy
    2 Unhealthy
    3 Rollback to 1, a in doubt
    stamp a b c d with 3
    a revert 1
    a healthy
    a confirm 1
    3 Succeeded
    => back to v1 from v2; keep
      a: v1 Ready
      b: v1 Ready
      c: v1 Ready
      d: v1 Ready
      Ready=False RolledBack: revision 2 was unhealthy on a: it answers 500; went back to revision 1, which runs on 4 of 4 hosts; declare something else or `windlass rollout retry`
      Stalled=True RolledBack: revision 2 was unhealthy on a: it answers 500; went back to revision 1, which runs on 4 of 4 hosts; declare something else or `windlass rollout retry`
    ");
}

#[test]
fn what_falls_while_it_bakes_goes_back() {
    let mut world = four().baking(60).declare('B');
    world.until_logged("step 2 is well");
    world.host("b").health = Health::Ill("the health endpoint answers 500".to_owned());
    assert_snapshot!(ran(world), @"
    declared B
    2 Deploy to 2
    stamp a b c d with 2
    a stage 2
    a activate 2
    a healthy
    a confirm 2
    step 1 is well
    1m pass
    step 2
    b stage 2
    b activate 2
    b healthy
    b confirm 2
    step 2 is well
    2 Unhealthy
    b has fallen: the health endpoint answers 500, after it was found healthy
    3 Rollback to 1
    stamp a b c d with 3
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
      d: v1 Ready
      Ready=False RolledBack: revision 2 was unhealthy on b: the health endpoint answers 500, after it was found healthy; went back to revision 1, which runs on 4 of 4 hosts; declare something else or `windlass rollout retry`
      Stalled=True RolledBack: revision 2 was unhealthy on b: the health endpoint answers 500, after it was found healthy; went back to revision 1, which runs on 4 of 4 hosts; declare something else or `windlass rollout retry`
    ");
}

#[test]
fn what_falls_while_a_person_is_waited_for_goes_back() {
    let mut world = four().approved().declare('B');
    world.settle();
    world.host("a").crash_again_and_again();
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @"
    declared B
    2 Deploy to 2
    stamp a b c d with 2
    a stage 2
    a activate 2
    a healthy
    a confirm 2
    step 1 is well
    2 Unhealthy
    a has fallen: the program exited and waits to be started again (exit-code, status 1), after it was found healthy
    3 Rollback to 1
    stamp a b c d with 3
    a revert 1
    a healthy
    a confirm 1
    3 Succeeded
    => back to v1 from v2; keep
      a: v1 Ready
      b: v1 Ready
      c: v1 Ready
      d: v1 Ready
      Ready=False RolledBack: revision 2 was unhealthy on a: the program exited and waits to be started again (exit-code, status 1), after it was found healthy; went back to revision 1, which runs on 4 of 4 hosts; declare something else or `windlass rollout retry`
      Stalled=True RolledBack: revision 2 was unhealthy on a: the program exited and waits to be started again (exit-code, status 1), after it was found healthy; went back to revision 1, which runs on 4 of 4 hosts; declare something else or `windlass rollout retry`
    ");
    // And once a person wants it again, it begins with the first step.
    world.log.clear();
    world.retry();
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @"
    retry
    4 Deploy to 2
    stamp a b c d with 4
    a activate 2
    a healthy
    a confirm 2
    step 1 is well
    => to v2; keep
      a: v2 Ready
      b: v1 Pending (its step of the canary has not come)
      c: v1 Pending (its step of the canary has not come)
      d: v1 Pending (its step of the canary has not come)
      Ready=False WaitingForApproval: revision 2 runs on 1 of 4 hosts; step 1 of 3 is well, and has been waiting since 2026-01-01T00:00:02.9Z: `windlass rollout approve service/web --revision 2` lets the next one begin
      Reconciling=True WaitingForApproval: revision 2 runs on 1 of 4 hosts; step 1 of 3 is well, and has been waiting since 2026-01-01T00:00:02.9Z: `windlass rollout approve service/web --revision 2` lets the next one begin
    ");
}

/// A reboot, or a person: whoever stops it in good order is not held against the revision.
#[test]
fn what_was_stopped_in_good_order_is_started_again_and_watched_anew() {
    let mut world = four().baking(60).declare('B');
    world.until_logged("step 1 is well");
    world.host("a").stop();
    assert_snapshot!(ran(world), @"
    declared B
    2 Deploy to 2
    stamp a b c d with 2
    a stage 2
    a activate 2
    a healthy
    a confirm 2
    step 1 is well
    2 Superseded
    3 Deploy to 2
    stamp a b c d with 3
    a activate 2
    a healthy
    a confirm 2
    step 1 is well
    1m pass
    step 2
    b stage 2
    b activate 2
    b healthy
    b confirm 2
    step 2 is well
    1m pass
    step 3
    c stage 2
    d stage 2
    c activate 2
    c healthy
    c confirm 2
    d activate 2
    d healthy
    d confirm 2
    step 3 is well
    1m pass
    3 Succeeded
    => to v2; keep
      a: v2 Ready
      b: v2 Ready
      c: v2 Ready
      d: v2 Ready
      Ready=True Converged: revision 2 runs on 4 of 4 hosts
    ");
}

/// Unknown is neither well nor ill: the clock goes on, and the step does not end before it is seen.
#[test]
fn what_is_lost_while_it_bakes_is_waited_for() {
    let mut world = four().baking(60).declare('B');
    world.until_logged("step 1 is well");
    world.host("a").link = Link::Cut;
    let lost = world.settle();
    let before = story(&world, &lost);
    world.log.clear();
    world.host("a").link = Link::Up;
    let end = world.settle();
    assert_snapshot!(format!("{before}--\n{}", story(&world, &end)), @"
    declared B
    2 Deploy to 2
    stamp a b c d with 2
    a stage 2
    a activate 2
    a healthy
    a confirm 2
    step 1 is well
    1m pass
    => to v2; keep
      a: - Unreachable (no answer within 10 s)
      b: v1 Pending (its step of the canary has not come)
      c: v1 Pending (its step of the canary has not come)
      d: v1 Pending (its step of the canary has not come)
      Ready=False RollingOut: revision 2 runs on 0 of 4 hosts; step 1 of 3 ends once these are seen to be well: a
      Reconciling=True RollingOut: revision 2 runs on 0 of 4 hosts; step 1 of 3 ends once these are seen to be well: a
      Degraded=True HostUnreachable: a: no answer within 10 s
    --
    step 2
    b stage 2
    b activate 2
    b healthy
    b confirm 2
    step 2 is well
    1m pass
    step 3
    c stage 2
    d stage 2
    c activate 2
    c healthy
    c confirm 2
    d activate 2
    d healthy
    d confirm 2
    step 3 is well
    1m pass
    2 Succeeded
    => to v2; keep
      a: v2 Ready
      b: v2 Ready
      c: v2 Ready
      d: v2 Ready
      Ready=True Converged: revision 2 runs on 4 of 4 hosts
    ");
}

/// One bad answer is not enough to go back, and too much to go on.
#[test]
fn what_answers_badly_at_the_end_is_watched_on() {
    let mut world = four().baking(60).declare('B');
    world.until_logged("step 1 is well");
    world.now += jiff::SignedDuration::from_secs(100);
    world.host("a").health = Health::Unknown;
    let plan = world.plan();
    assert!(plan.is_idle());
    assert_snapshot!(said(&plan), @"
    Ready=False RollingOut: revision 2 runs on 1 of 4 hosts; step 1 of 3 ends once these are seen to be well: a
    Reconciling=True RollingOut: revision 2 runs on 1 of 4 hosts; step 1 of 3 ends once these are seen to be well: a
    ");
}

#[test]
fn the_next_host_comes_first_where_one_is_out_of_reach() {
    let mut world = four().approved().declare('B');
    world.host("a").link = Link::Cut;
    world.settle();
    world.host("a").link = Link::Up;
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @"
    declared B
    2 Deploy to 2
    stamp b c d with 2
    b stage 2
    b activate 2
    b healthy
    b confirm 2
    step 1 is well
    => to v2; keep
      a: v1 Pending (its step of the canary has not come)
      b: v2 Ready
      c: v1 Pending (its step of the canary has not come)
      d: v1 Pending (its step of the canary has not come)
      Ready=False WaitingForApproval: revision 2 runs on 1 of 4 hosts; step 1 of 3 is well, and has been waiting since 2026-01-01T00:00:01.4Z: `windlass rollout approve service/web --revision 2` lets the next one begin
      Reconciling=True WaitingForApproval: revision 2 runs on 1 of 4 hosts; step 1 of 3 is well, and has been waiting since 2026-01-01T00:00:01.4Z: `windlass rollout approve service/web --revision 2` lets the next one begin
    ");
}

/// What has been switched and is lost is still a canary: no other host takes its place.
#[test]
fn a_canary_that_is_lost_is_not_replaced() {
    let mut world = four().declare('B');
    world.until_logged("a activate 2");
    world.host("a").link = Link::Cut;
    world.turns(20);
    let lost = world.plan();
    assert_eq!(world.hosts["b"].seen.unit, world.hosts["c"].seen.unit);
    assert_snapshot!(story(&world, &lost), @"
    declared B
    2 Deploy to 2
    stamp a b c d with 2
    a stage 2
    a activate 2
    a lost
    => to v2; keep
      a: - Unreachable (no answer within 10 s)
      b: v1 Pending (its step of the canary has not come)
      c: v1 Pending (its step of the canary has not come)
      d: v1 Pending (its step of the canary has not come)
      Ready=False RollingOut: revision 2 runs on 0 of 4 hosts; step 1 of 3
      Reconciling=True RollingOut: revision 2 runs on 0 of 4 hosts; step 1 of 3
      Degraded=True HostUnreachable: a: no answer within 10 s
    ");
}

/// The rollout to which it belonged is over, and it may run what it was brought all the same.
#[test]
fn a_canary_that_is_lost_is_not_replaced_when_its_service_is_deleted_and_comes_back() {
    let mut world = four().approved().max_unavailable("2").declare('B');
    world.settle();
    world.log.clear();
    world.host("a").link = Link::Cut;
    world.delete();
    world.until_logged("b remove");
    world.declared = true;
    for machine in world.hosts.values_mut() {
        machine.placement = Placement::Placed;
    }
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @"
    deleted
    2 Superseded
    3 Removal, a in doubt
    stamp b c d with 3
    b remove
    c remove
    d remove
    3 Superseded
    4 Deploy to 2, a in doubt
    stamp b c d with 4
    b stage 1
    c stage 1
    d stage 1
    b revert 1
    c revert 1
    d revert 1
    b healthy
    c healthy
    d healthy
    b confirm 1
    c confirm 1
    d confirm 1
    => to v2; keep
      a: - Unreachable (no answer within 10 s)
      b: v1 Pending (its step of the canary has not come)
      c: v1 Pending (its step of the canary has not come)
      d: v1 Pending (its step of the canary has not come)
      Ready=False RollingOut: revision 2 runs on 0 of 4 hosts; step 1 of 3
      Reconciling=True RollingOut: revision 2 runs on 0 of 4 hosts; step 1 of 3
      Degraded=True HostUnreachable: a: no answer within 10 s
    ");
}

#[test]
fn a_canary_that_is_lost_is_not_replaced_when_its_version_is_declared_again_after_another() {
    let mut world = four().approved().max_unavailable("2").declare('B');
    world.settle();
    world.log.clear();
    world.host("a").link = Link::Cut;
    world.set_files('C');
    world.settle();
    world.set_files('B');
    world.settle();
    let waiting = world.plan();
    assert_snapshot!(story(&world, &waiting), @"
    declared C
    2 Superseded
    3 Deploy to 3, a in doubt
    stamp b c d with 3
    b stage 3
    b activate 3
    b healthy
    b confirm 3
    step 1 is well
    declared B
    3 Superseded
    4 Deploy to 2, a in doubt
    stamp b c d with 4
    b revert 1
    b healthy
    b confirm 1
    => to v2; keep
      a: - Unreachable (no answer within 10 s)
      b: v1 Pending (its step of the canary has not come)
      c: v1 Pending (its step of the canary has not come)
      d: v1 Pending (its step of the canary has not come)
      Ready=False RollingOut: revision 2 runs on 0 of 4 hosts; step 1 of 3
      Reconciling=True RollingOut: revision 2 runs on 0 of 4 hosts; step 1 of 3
      Degraded=True HostUnreachable: a: no answer within 10 s
    ");
    world.log.clear();
    // What it was brought runs there still.
    world.host("a").link = Link::Up;
    assert_snapshot!(ran(world), @"
    step 1 is well
    => to v2; keep
      a: v2 Ready
      b: v1 Pending (its step of the canary has not come)
      c: v1 Pending (its step of the canary has not come)
      d: v1 Pending (its step of the canary has not come)
      Ready=False WaitingForApproval: revision 2 runs on 1 of 4 hosts; step 1 of 3 is well, and has been waiting since 2026-01-01T00:00:03.1Z: `windlass rollout approve service/web --revision 2` lets the next one begin
      Reconciling=True WaitingForApproval: revision 2 runs on 1 of 4 hosts; step 1 of 3 is well, and has been waiting since 2026-01-01T00:00:03.1Z: `windlass rollout approve service/web --revision 2` lets the next one begin
    ");
}

#[test]
fn another_controller_goes_on_where_the_first_one_was() {
    let mut world = four().baking(60).approved().declare('B');
    world.settle();
    world.approve(2, None);
    world.until_logged("step 2 is well");
    world.take_over();
    world.settle();
    world.take_over();
    world.approve(2, Some(2));
    world.take_over();
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @"
    declared B
    2 Deploy to 2
    stamp a b c d with 2
    a stage 2
    a activate 2
    a healthy
    a confirm 2
    step 1 is well
    1m pass
    approved
    step 2
    b stage 2
    b activate 2
    b healthy
    b confirm 2
    step 2 is well
    term 2
    2 Superseded
    3 Deploy to 2
    1m pass
    term 3
    approved
    term 4
    3 Superseded
    4 Deploy to 2
    stamp a b c d with 4
    c stage 2
    d stage 2
    c activate 2
    c healthy
    c confirm 2
    d activate 2
    d healthy
    d confirm 2
    step 3 is well
    1m pass
    4 Succeeded
    => to v2; keep
      a: v2 Ready
      b: v2 Ready
      c: v2 Ready
      d: v2 Ready
      Ready=True Converged: revision 2 runs on 4 of 4 hosts
    ");
}

#[test]
fn a_step_that_failed_on_a_host_is_tried_again_and_the_canary_goes_on() {
    let mut world = four().approved().declare('B');
    let full = windlass_crds::step::StepError::NoSpace { detail: "/opt".to_owned() };
    world.failing.insert(("a".to_owned(), windlass_crds::step::Verb::Confirm), full);
    world.settle();
    world.approve(2, Some(1));
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @"
    declared B
    2 Deploy to 2
    stamp a b c d with 2
    a stage 2
    a activate 2
    a healthy
    a confirm 2: no space left: /opt; make room there
    2 Halted
    3 Deploy to 2, a in doubt
    stamp a b c d with 3
    a healthy
    a confirm 2
    step 1 is well
    approved
    step 2
    b stage 2
    b activate 2
    b healthy
    b confirm 2
    step 2 is well
    => to v2; keep
      a: v2 Ready
      b: v2 Ready
      c: v1 Pending (its step of the canary has not come)
      d: v1 Pending (its step of the canary has not come)
      Ready=False WaitingForApproval: revision 2 runs on 2 of 4 hosts; step 2 of 3 is well, and has been waiting since 2026-01-01T00:00:02.6Z: `windlass rollout approve service/web --revision 2` lets the next one begin
      Reconciling=True WaitingForApproval: revision 2 runs on 2 of 4 hosts; step 2 of 3 is well, and has been waiting since 2026-01-01T00:00:02.6Z: `windlass rollout approve service/web --revision 2` lets the next one begin
    ");
}

/// The third version is a canary of its own; what has the second goes back until its turn comes.
#[test]
fn another_version_supersedes_a_canary() {
    let mut world = four().approved().declare('B');
    world.settle();
    world.approve(2, None);
    world.settle();
    world.log.clear();
    let end = {
        world.set_files('C');
        world.settle()
    };
    assert_snapshot!(story(&world, &end), @"
    declared C
    2 Superseded
    3 Deploy to 3
    stamp a b c d with 3
    a stage 3
    a activate 3
    a healthy
    a confirm 3
    step 1 is well
    b revert 1
    b healthy
    b confirm 1
    => to v3; keep
      a: v3 Ready
      b: v1 Pending (its step of the canary has not come)
      c: v1 Pending (its step of the canary has not come)
      d: v1 Pending (its step of the canary has not come)
      Ready=False WaitingForApproval: revision 3 runs on 1 of 4 hosts; step 1 of 3 is well, and has been waiting since 2026-01-01T00:00:02.9Z: `windlass rollout approve service/web --revision 3` lets the next one begin
      Reconciling=True WaitingForApproval: revision 3 runs on 1 of 4 hosts; step 1 of 3 is well, and has been waiting since 2026-01-01T00:00:02.9Z: `windlass rollout approve service/web --revision 3` lets the next one begin
    ");
}

#[test]
fn the_old_version_supersedes_a_canary_where_it_was() {
    let mut world = four().approved().declare('B');
    world.settle();
    world.set_files('A');
    world.log.clear();
    assert_snapshot!(ran(world), @"
    2 Superseded
    3 Repair to 1
    stamp a b c d with 3
    a activate 1
    a healthy
    a confirm 1
    3 Succeeded
    => to v1; keep
      a: v1 Ready
      b: v1 Ready
      c: v1 Ready
      d: v1 Ready
      Ready=True Converged: revision 1 runs on 4 of 4 hosts
    ");
}

#[test]
fn what_drifts_while_a_person_is_waited_for_is_repaired() {
    let mut world = four().approved().declare('B');
    world.settle();
    world.log.clear();
    crate::notation::drift(world.host("c"), 's');
    crate::notation::drift(world.host("a"), 'u');
    assert_snapshot!(ran(world), @"
    step 1 is not well any more
    c revert 1
    c healthy
    c confirm 1
    2 Superseded
    3 Deploy to 2
    stamp a b c d with 3
    a activate 2
    a healthy
    a confirm 2
    step 1 is well
    => to v2; keep
      a: v2 Ready
      b: v1 Pending (its step of the canary has not come)
      c: v1 Pending (its step of the canary has not come)
      d: v1 Pending (its step of the canary has not come)
      Ready=False WaitingForApproval: revision 2 runs on 1 of 4 hosts; step 1 of 3 is well, and has been waiting since 2026-01-01T00:00:02.4Z: `windlass rollout approve service/web --revision 2` lets the next one begin
      Reconciling=True WaitingForApproval: revision 2 runs on 1 of 4 hosts; step 1 of 3 is well, and has been waiting since 2026-01-01T00:00:02.4Z: `windlass rollout approve service/web --revision 2` lets the next one begin
    ");
}

/// Of two switches under one number a host cannot tell which was the last.
#[test]
fn what_was_repaired_before_its_turn_takes_another_number() {
    let mut world = four().approved().declare('B');
    world.settle();
    crate::notation::drift(world.host("b"), 's');
    world.settle();
    world.approve(2, None);
    world.log.clear();
    assert_snapshot!(ran(world), @"
    step 2
    b stage 2
    2 Superseded
    3 Deploy to 2
    stamp a b c d with 3
    b activate 2
    b healthy
    b confirm 2
    step 2 is well
    => to v2; keep
      a: v2 Ready
      b: v2 Ready
      c: v1 Pending (its step of the canary has not come)
      d: v1 Pending (its step of the canary has not come)
      Ready=False WaitingForApproval: revision 2 runs on 2 of 4 hosts; step 2 of 3 is well, and has been waiting since 2026-01-01T00:00:02.8Z: `windlass rollout approve service/web --revision 2` lets the next one begin
      Reconciling=True WaitingForApproval: revision 2 runs on 2 of 4 hosts; step 2 of 3 is well, and has been waiting since 2026-01-01T00:00:02.8Z: `windlass rollout approve service/web --revision 2` lets the next one begin
    ");
}

#[test]
fn a_host_that_comes_later_runs_the_good_version_until_its_turn() {
    let mut world = four().approved().declare('B');
    world.host("d").placement = Placement::Unplaced;
    world.settle();
    world.log.clear();
    world.host("d").placement = Placement::Placed;
    assert_snapshot!(ran(world), @"
    d stage 1
    d revert 1
    d healthy
    d confirm 1
    => to v2; keep
      a: v2 Ready
      b: v1 Pending (its step of the canary has not come)
      c: v1 Pending (its step of the canary has not come)
      d: v1 Pending (its step of the canary has not come)
      Ready=False WaitingForApproval: revision 2 runs on 1 of 4 hosts; step 1 of 3 is well, and has been waiting since 2026-01-01T00:00:01.4Z: `windlass rollout approve service/web --revision 2` lets the next one begin
      Reconciling=True WaitingForApproval: revision 2 runs on 1 of 4 hosts; step 1 of 3 is well, and has been waiting since 2026-01-01T00:00:01.4Z: `windlass rollout approve service/web --revision 2` lets the next one begin
    ");
}

#[test]
fn nothing_is_begun_in_a_pause_and_what_is_approved_waits_for_its_end() {
    let mut world = four().approved().declare('B');
    world.settle();
    world.pause();
    world.approve(2, None);
    let held = world.settle();
    let before = story(&world, &held);
    world.log.clear();
    world.resume();
    let end = world.settle();
    assert_snapshot!(format!("{before}--\n{}", story(&world, &end)), @"
    declared B
    2 Deploy to 2
    stamp a b c d with 2
    a stage 2
    a activate 2
    a healthy
    a confirm 2
    step 1 is well
    pause
    approved
    => to v2; keep
      a: v2 Ready
      b: v1 Pending (its step of the canary has not come)
      c: v1 Pending (its step of the canary has not come)
      d: v1 Pending (its step of the canary has not come)
      Ready=False Paused: paused since 2026-01-01T00:00:01.6Z: nothing is begun on any host until `windlass rollout resume`
      Reconciling=True Paused: paused since 2026-01-01T00:00:01.6Z: nothing is begun on any host until `windlass rollout resume`
    --
    resume
    step 2
    b stage 2
    b activate 2
    b healthy
    b confirm 2
    step 2 is well
    => to v2; keep
      a: v2 Ready
      b: v2 Ready
      c: v1 Pending (its step of the canary has not come)
      d: v1 Pending (its step of the canary has not come)
      Ready=False WaitingForApproval: revision 2 runs on 2 of 4 hosts; step 2 of 3 is well, and has been waiting since 2026-01-01T00:00:02.2Z: `windlass rollout approve service/web --revision 2` lets the next one begin
      Reconciling=True WaitingForApproval: revision 2 runs on 2 of 4 hosts; step 2 of 3 is well, and has been waiting since 2026-01-01T00:00:02.2Z: `windlass rollout approve service/web --revision 2` lets the next one begin
    ");
}

#[test]
fn a_restart_restarts_both_versions() {
    let mut world = four().approved().declare('B');
    world.settle();
    world.log.clear();
    world.restart();
    assert_snapshot!(ran(world), @"
    restart
    2 Superseded
    3 Deploy to 2
    stamp a b c d with 3
    a activate 2
    a healthy
    a confirm 2
    step 1 is well
    b revert 1
    b healthy
    b confirm 1
    c revert 1
    c healthy
    c confirm 1
    d revert 1
    d healthy
    d confirm 1
    => to v2; keep
      a: v2 Ready
      b: v1 Pending (its step of the canary has not come)
      c: v1 Pending (its step of the canary has not come)
      d: v1 Pending (its step of the canary has not come)
      Ready=False WaitingForApproval: revision 2 runs on 1 of 4 hosts; step 1 of 3 is well, and has been waiting since 2026-01-01T00:00:02.1Z: `windlass rollout approve service/web --revision 2` lets the next one begin
      Reconciling=True WaitingForApproval: revision 2 runs on 1 of 4 hosts; step 1 of 3 is well, and has been waiting since 2026-01-01T00:00:02.1Z: `windlass rollout approve service/web --revision 2` lets the next one begin
    ");
}

#[test]
fn a_person_who_goes_back_needs_no_canary() {
    let mut world = four().approved().declare('B');
    world.settle();
    world.log.clear();
    world.undo(1);
    assert_snapshot!(ran(world), @"
    undo to 1
    2 Superseded
    3 Undo to 1
    stamp a b c d with 3
    a revert 1
    a healthy
    a confirm 1
    3 Succeeded
    => undone to v1; keep
      a: v1 Ready
      b: v1 Ready
      c: v1 Ready
      d: v1 Ready
      Ready=False Undone: a person went back to revision 1; declare something else or `windlass rollout retry` to leave it
      Stalled=True Undone: a person went back to revision 1; declare something else or `windlass rollout retry` to leave it
    ");
}

#[test]
fn going_back_from_the_last_step_keeps_max_unavailable_and_no_steps() {
    let mut world = four().baking(60).declare('B');
    world.until_logged("step 3 is well");
    world.log.clear();
    world.host("d").health = Health::Ill("the health endpoint answers 500".to_owned());
    assert_snapshot!(ran(world), @"
    2 Unhealthy
    d has fallen: the health endpoint answers 500, after it was found healthy
    3 Rollback to 1
    stamp a b c d with 3
    d revert 1
    d healthy
    d confirm 1
    a revert 1
    a healthy
    a confirm 1
    b revert 1
    b healthy
    b confirm 1
    c revert 1
    c healthy
    c confirm 1
    3 Succeeded
    => back to v1 from v2; keep
      a: v1 Ready
      b: v1 Ready
      c: v1 Ready
      d: v1 Ready
      Ready=False RolledBack: revision 2 was unhealthy on d: the health endpoint answers 500, after it was found healthy; went back to revision 1, which runs on 4 of 4 hosts; declare something else or `windlass rollout retry`
      Stalled=True RolledBack: revision 2 was unhealthy on d: the health endpoint answers 500, after it was found healthy; went back to revision 1, which runs on 4 of 4 hosts; declare something else or `windlass rollout retry`
    ");
}

#[test]
fn who_turns_the_canary_off_lets_the_rest_follow() {
    let mut world = four().approved().declare('B');
    world.settle();
    world.log.clear();
    world.spec.rollout.strategy = windlass_crds::service::Strategy::Rolling;
    assert_snapshot!(ran(world), @"
    b stage 2
    c stage 2
    d stage 2
    b activate 2
    b healthy
    b confirm 2
    c activate 2
    c healthy
    c confirm 2
    d activate 2
    d healthy
    d confirm 2
    2 Succeeded
    => to v2; keep
      a: v2 Ready
      b: v2 Ready
      c: v2 Ready
      d: v2 Ready
      Ready=True Converged: revision 2 runs on 4 of 4 hosts
    ");
}

#[test]
fn a_share_is_rounded_up() {
    let mut world = four().canary("26%").approved();
    world.set_files('B');
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @"
    declared B
    2 Deploy to 2
    stamp a b c d with 2
    a stage 2
    b stage 2
    a activate 2
    a healthy
    a confirm 2
    b activate 2
    b healthy
    b confirm 2
    step 1 is well
    => to v2; keep
      a: v2 Ready
      b: v2 Ready
      c: v1 Pending (its step of the canary has not come)
      d: v1 Pending (its step of the canary has not come)
      Ready=False WaitingForApproval: revision 2 runs on 2 of 4 hosts; step 1 of 2 is well, and has been waiting since 2026-01-01T00:00:01.7Z: `windlass rollout approve service/web --revision 2` lets the next one begin
      Reconciling=True WaitingForApproval: revision 2 runs on 2 of 4 hosts; step 1 of 2 is well, and has been waiting since 2026-01-01T00:00:01.7Z: `windlass rollout approve service/web --revision 2` lets the next one begin
    ");
}

#[test]
fn what_falls_stays_where_nothing_shall_be_rolled_back() {
    let mut world = four().approved().declare('B');
    world.spec.rollout.rollback_on_failure = false;
    world.settle();
    world.log.clear();
    world.host("a").health = Health::Ill("the health endpoint answers 500".to_owned());
    assert_snapshot!(ran(world), @"
    2 Unhealthy
    a has fallen: the health endpoint answers 500, after it was found healthy
    => stay, v2 blocked; keep
      a: v2 Unhealthy (left as it is: rollbackOnFailure is off)
      b: v1 Pending (left as it is, since what is declared was unhealthy elsewhere)
      c: v1 Pending (left as it is, since what is declared was unhealthy elsewhere)
      d: v1 Pending (left as it is, since what is declared was unhealthy elsewhere)
      Ready=False Unhealthy: revision 2 was unhealthy on a: the health endpoint answers 500, after it was found healthy; it stays, because rollbackOnFailure is off
      Stalled=True Unhealthy: revision 2 was unhealthy on a: the health endpoint answers 500, after it was found healthy; it stays, because rollbackOnFailure is off
      Degraded=True HostUnhealthy: a: left as it is: rollbackOnFailure is off
    ");
}

#[test]
fn another_host_becomes_the_canary_where_the_first_one_goes() {
    let mut world = four().approved().declare('B');
    world.settle();
    world.log.clear();
    world.host("a").placement = Placement::Unplaced;
    assert_snapshot!(ran(world), @"
    step 1 is not well any more
    b stage 2
    b activate 2
    b healthy
    b confirm 2
    step 1 is well
    a remove
    => to v2; keep
      b: v2 Ready
      c: v1 Pending (its step of the canary has not come)
      d: v1 Pending (its step of the canary has not come)
      Ready=False WaitingForApproval: revision 2 runs on 1 of 3 hosts; step 1 of 3 is well, and has been waiting since 2026-01-01T00:00:02Z: `windlass rollout approve service/web --revision 2` lets the next one begin
      Reconciling=True WaitingForApproval: revision 2 runs on 1 of 3 hosts; step 1 of 3 is well, and has been waiting since 2026-01-01T00:00:02Z: `windlass rollout approve service/web --revision 2` lets the next one begin
    ");
}

#[test]
fn a_canary_whose_host_is_not_declared_any_more_is_not_replaced() {
    let mut world = four().approved().declare('B');
    world.settle();
    world.log.clear();
    let (reason, message) = (windlass_crds::condition::Reason::HostNotFound, "no Host a is declared".to_owned());
    let complaint = windlass_planner::input::Complaint { reason, message };
    world.host("a").placement = Placement::Refused(complaint);
    assert_snapshot!(ran(world), @"
    step 1 is not well any more
    => to v2; keep
      a: - Failed (no Host a is declared)
      b: v1 Pending (its step of the canary has not come)
      c: v1 Pending (its step of the canary has not come)
      d: v1 Pending (its step of the canary has not come)
      Ready=False HostNotFound: a: no Host a is declared
      Reconciling=True RollingOut: revision 2 runs on 0 of 4 hosts; step 1 of 3
      Stalled=True HostNotFound: a: no Host a is declared
      Degraded=True HostNotFound: a: no Host a is declared
    ");
}

#[test]
fn a_bake_that_ends_in_a_pause_goes_on_when_it_is_over() {
    let mut world = four().baking(60).declare('B');
    world.until_logged("step 1 is well");
    world.pause();
    world.settle();
    let held = world.settle();
    let before = story(&world, &held);
    world.log.clear();
    world.resume();
    world.until_logged("b activate 2");
    assert_snapshot!(format!("{before}--\n{}", world.log.join("\n")), @"
    declared B
    2 Deploy to 2
    stamp a b c d with 2
    a stage 2
    a activate 2
    a healthy
    a confirm 2
    step 1 is well
    pause
    1m pass
    => to v2; keep
      a: v2 Ready
      b: v1 Pending (its step of the canary has not come)
      c: v1 Pending (its step of the canary has not come)
      d: v1 Pending (its step of the canary has not come)
      Ready=False Paused: paused since 2026-01-01T00:00:01.5Z: nothing is begun on any host until `windlass rollout resume`
      Reconciling=True Paused: paused since 2026-01-01T00:00:01.5Z: nothing is begun on any host until `windlass rollout resume`
    --
    resume
    step 2
    b stage 2
    b activate 2
    ");
}

/// What was watched was not well, so nothing of it counts.
#[test]
fn who_is_quick_to_retry_begins_with_the_first_step_all_the_same() {
    let mut world = four().baking(60).approved().declare('B');
    world.settle();
    world.approve(2, None);
    world.until_logged("step 2 is well");
    world.host("b").health = Health::Ill("the health endpoint answers 500".to_owned());
    world.until_logged("after it was found healthy");
    world.log.clear();
    world.host("b").health = Health::Unknown;
    world.retry();
    assert_snapshot!(ran(world), @"
    retry
    3 Deploy to 2
    1m pass
    => to v2; keep
      a: v2 Ready
      b: v2 Ready
      c: v1 Pending (its step of the canary has not come)
      d: v1 Pending (its step of the canary has not come)
      Ready=False WaitingForApproval: revision 2 runs on 2 of 4 hosts; step 1 of 3 is well, and has been waiting since 2026-01-01T00:02:02.2Z: `windlass rollout approve service/web --revision 2` lets the next one begin
      Reconciling=True WaitingForApproval: revision 2 runs on 2 of 4 hosts; step 1 of 3 is well, and has been waiting since 2026-01-01T00:02:02.2Z: `windlass rollout approve service/web --revision 2` lets the next one begin
    ");
}

#[test]
fn one_restart_by_systemd_is_one_too_many_while_it_is_watched() {
    let mut world = four().baking(60).declare('B');
    world.until_logged("step 1 is well");
    world.host("a").seen.run.restarts = 1;
    world.until_logged("after it was found healthy");
    assert_snapshot!(world.log.last().expect("a line"), @"
    a has fallen: the program exited, and systemd started it again, after it was found healthy
    ");
}

/// It was out of reach when the others went back to A, and has run B for a long time.
#[test]
fn what_was_started_again_before_the_canary_is_not_held_against_it() {
    let mut world = four().declare('B');
    world.settle();
    world.host("d").link = Link::Cut;
    world.set_files('A');
    world.settle();
    world.host("d").seen.run.restarts = 7;
    world.host("d").link = Link::Up;
    world.set_files('B');
    world.log.clear();
    assert_snapshot!(ran(world.baking(60)), @"
    4 Deploy to 2
    1m pass
    step 2
    stamp a b c d with 4
    a activate 2
    a healthy
    a confirm 2
    step 2 is well
    1m pass
    step 3
    b activate 2
    b healthy
    b confirm 2
    c activate 2
    c healthy
    c confirm 2
    step 3 is well
    1m pass
    4 Succeeded
    => to v2; keep
      a: v2 Ready
      b: v2 Ready
      c: v2 Ready
      d: v2 Ready
      Ready=True Converged: revision 2 runs on 4 of 4 hosts
    ");
}

/// A first deploy has no canary, and may have left the version on several hosts.
#[test]
fn where_a_first_deploy_came_to_nothing_the_canary_is_one_of_its_hosts_and_the_others_get_what_is_good() {
    let world = World::of("a=v1+ b=v2o c=v2o d=v1+").good([1]).declare('B').canary("1 50% 100%").approved();
    assert_snapshot!(ran(world), @"
    declared B
    7 Deploy to 2
    stamp a b c d with 7
    b activate 2
    c stage 1
    b healthy
    c revert 1
    b confirm 2
    c healthy
    step 1 is well
    c confirm 1
    => to v2; keep
      a: v1 Pending (its step of the canary has not come)
      b: v2 Ready
      c: v1 Pending (its step of the canary has not come)
      d: v1 Pending (its step of the canary has not come)
      Ready=False WaitingForApproval: revision 2 runs on 1 of 4 hosts; step 1 of 3 is well, and has been waiting since 2026-01-01T00:00:00.5Z: `windlass rollout approve service/web --revision 2` lets the next one begin
      Reconciling=True WaitingForApproval: revision 2 runs on 1 of 4 hosts; step 1 of 3 is well, and has been waiting since 2026-01-01T00:00:00.5Z: `windlass rollout approve service/web --revision 2` lets the next one begin
    ");
}

/// While one was not looked at, nobody knows whose turn it is.
#[test]
fn what_a_first_deploy_has_left_stays_until_everybody_was_looked_at() {
    let mut world = World::of("a=v1+ b=v2o c=v2o d=v1+0").good([1]).declare('B').canary("1 50% 100%").approved();
    for _turn in 0..3 {
        let plan = world.turn();
        assert!(plan.actions.is_empty(), "{plan:?}");
    }
    world.host("d").link = Link::Up;
    world.log.clear();
    world.until_logged("b activate 2");
    assert!(!world.log.iter().any(|line| line == "a activate 2"));
}
