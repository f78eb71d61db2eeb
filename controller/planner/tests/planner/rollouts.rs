//! Rollouts, driven from the declaration to the end.

use insta::assert_snapshot;
use windlass_crds::id::RevisionNumber;

use crate::picture::{draw, story};
use crate::world::World;

fn ran(mut world: World) -> String {
    let end = world.settle();
    story(&world, &end)
}

/// Three hosts with files A.
fn first() -> World {
    let mut world = World::empty("a b c").declare('A');
    world.settle();
    world.log.clear();
    world
}

#[test]
fn a_first_deploy_goes_everywhere_at_once() {
    assert_snapshot!(ran(World::empty("a b c").declare('A')), @r"
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
    b healthy
    c healthy
    a confirm 1
    b confirm 1
    c confirm 1
    1 Succeeded
    => to v1; keep
      a: v1 Ready
      b: v1 Ready
      c: v1 Ready
      Ready=True Converged: revision 1 runs on 3 of 3 hosts
    ");
}

#[test]
fn rolling_one_by_one() {
    assert_snapshot!(ran(first().declare('B')), @r"
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
fn rolling_two_at_a_time() {
    assert_snapshot!(ran(first().max_unavailable("2").declare('B')), @r"
    declared B
    2 Deploy to 2
    stamp a b c with 2
    a stage 2
    b stage 2
    c stage 2
    a activate 2
    b activate 2
    a healthy
    b healthy
    a confirm 2
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
fn rolling_half_at_a_time() {
    let mut world = World::empty("a b c d").declare('A').max_unavailable("50%");
    world.settle();
    world.log.clear();
    assert_snapshot!(ran(world.declare('B')), @r"
    declared B
    2 Deploy to 2
    stamp a b c d with 2
    a stage 2
    b stage 2
    c stage 2
    d stage 2
    a activate 2
    b activate 2
    a healthy
    b healthy
    a confirm 2
    b confirm 2
    c activate 2
    d activate 2
    c healthy
    d healthy
    c confirm 2
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
fn a_version_that_is_bad_on_one_host_is_rolled_back_everywhere_and_not_deployed_again() {
    let mut world = first().declare('B').bad("b", 'B');
    world.settle();
    // Whatever happens on hosts, it is not tried again by itself.
    world.host("c").link = crate::machine::Link::Cut;
    world.settle();
    world.host("c").link = crate::machine::Link::Up;
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
      Stalled=True RolledBack: revision 2 was unhealthy on b: it answers 500; went back to revision 1, which runs on 3 of 3 hosts; declare something else or `windlass rollout retry`
    ");
}

#[test]
fn two_bad_versions_in_a_row_end_on_the_good_one() {
    let mut world = first().declare('B').bad("*", 'B').bad("*", 'C');
    world.settle();
    assert_snapshot!(ran(world.declare('C')), @r"
    declared B
    2 Deploy to 2
    stamp a b c with 2
    a stage 2
    b stage 2
    c stage 2
    a activate 2
    a unhealthy
    2 Unhealthy
    3 Rollback to 1, a in doubt
    stamp a b c with 3
    a revert 1
    a healthy
    a confirm 1
    3 Succeeded
    declared C
    4 Deploy to 3
    stamp a b c with 4
    a stage 3
    b stage 3
    c stage 3
    a activate 3
    a unhealthy
    4 Unhealthy
    5 Rollback to 1, a in doubt
    stamp a b c with 5
    a revert 1
    a healthy
    a confirm 1
    5 Succeeded
    => back to v1 from v3; keep
      a: v1 Ready
      b: v1 Ready
      c: v1 Ready
      Ready=False RolledBack: revision 3 was unhealthy on a: it answers 500; went back to revision 1, which runs on 3 of 3 hosts; declare something else or `windlass rollout retry`
      Stalled=True RolledBack: revision 3 was unhealthy on a: it answers 500; went back to revision 1, which runs on 3 of 3 hosts; declare something else or `windlass rollout retry`
    ");
}

/// The second bad one is declared while the first is still down on `a`, and comes slowly there.
#[test]
fn what_a_bad_version_took_down_is_counted_while_the_next_is_brought() {
    let mut world = first().declare('B').bad("*", 'B');
    world.until_logged("Unhealthy");
    world.set_files('C');
    for _ in 0..40 {
        world.turn();
        ["b", "c"].into_iter().for_each(|name| world.act(name));
    }
    assert!(!world.hosts["b"].taken_down, "{}", world.log.join("\n"));
    assert_snapshot!(ran(world), @r"
    declared B
    2 Deploy to 2
    stamp a b c with 2
    a stage 2
    b stage 2
    c stage 2
    a activate 2
    a unhealthy
    2 Unhealthy
    declared C
    3 Deploy to 3, a in doubt
    stamp a b c with 3
    b stage 3
    c stage 3
    a stage 3
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
fn back_and_forth_reuses_revisions_and_brings_nothing_twice() {
    let mut world = first().declare('B');
    world.settle();
    world.set_files('A');
    world.log.clear();
    let end = world.settle();
    assert_eq!(world.revisions.len(), 2);
    assert_eq!(end.declared, Some(RevisionNumber(1)));
    assert_snapshot!(story(&world, &end), @r"
    3 Deploy to 1
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
fn a_first_deploy_that_is_unhealthy_is_stopped_and_started_again_when_asked() {
    let mut world = World::empty("a b").declare('A').bad("b", 'A');
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @r"
    declared A
    1 Deploy to 1
    stamp a b with 1
    a stage 1
    b stage 1
    a activate 1
    b activate 1
    a healthy
    b unhealthy
    1 Unhealthy
    a confirm 1
    2 Rollback, b in doubt
    stamp a b with 2
    b stop
    2 Succeeded
    => stop v1; keep
      a: v1 Ready
      b: v1 Stopped (there is nothing good to go back to)
      Ready=False FirstDeployUnhealthy: revision 1 was unhealthy on b: it answers 500; there is nothing good to go back to, so it is stopped where it was not healthy
      Stalled=True FirstDeployUnhealthy: revision 1 was unhealthy on b: it answers 500; there is nothing good to go back to, so it is stopped where it was not healthy
    ");
    world.log.clear();
    world.bad.clear();
    world.retry();
    assert_snapshot!(ran(world), @r"
    retry
    3 Deploy to 1, b in doubt
    stamp a b with 3
    b activate 1
    b healthy
    b confirm 1
    3 Succeeded
    => to v1; keep
      a: v1 Ready
      b: v1 Ready
      Ready=True Converged: revision 1 runs on 2 of 2 hosts
    ");
}

/// The same files with another health check are the same revision, and the unit is still stopped.
#[test]
fn a_first_deploy_whose_health_check_was_wrong_is_started_once_that_is_right() {
    let mut world = World::empty("a").declare('A').bad("a", 'A');
    world.settle();
    world.log.clear();
    world.bad.clear();
    world.spec.health.as_mut().expect("a health section").endpoint = Some("/healthz".to_owned());
    assert_snapshot!(ran(world), @r"
    3 Deploy to 1, a in doubt
    stamp a with 3
    a activate 1
    a healthy
    a confirm 1
    3 Succeeded
    => to v1; keep
      a: v1 Ready
      Ready=True Converged: revision 1 runs on 1 of 1 hosts
    ");
}

/// Between two crashes systemd says `activating`, and has no main process.
#[test]
fn what_crashes_all_the_time_is_stopped_too() {
    let mut world = World::empty("a").declare('A').bad("a", 'A');
    world.until_logged("Unhealthy");
    world.host("a").crash_again_and_again();
    world.settle();
    assert!(world.log.contains(&"a stop".to_owned()), "{:?}", world.log);
}

#[test]
fn without_rollback_on_failure_it_stays_until_asked() {
    let mut world = first().declare('B').bad("a", 'B');
    world.spec.rollout.rollback_on_failure = false;
    world.until_logged("Unhealthy");
    world.host("a").crash_again_and_again();
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @r"
    declared B
    2 Deploy to 2
    stamp a b c with 2
    a stage 2
    b stage 2
    c stage 2
    a activate 2
    a unhealthy
    2 Unhealthy
    => stay, v2 blocked; keep
      a: v2 Unhealthy (left as it is: rollbackOnFailure is off)
      b: v1 Pending (left as it is, since what is declared was unhealthy elsewhere)
      c: v1 Pending (left as it is, since what is declared was unhealthy elsewhere)
      Ready=False Unhealthy: revision 2 was unhealthy on a: it answers 500; it stays, because rollbackOnFailure is off
      Stalled=True Unhealthy: revision 2 was unhealthy on a: it answers 500; it stays, because rollbackOnFailure is off
      Degraded=True HostUnhealthy: a: left as it is: rollbackOnFailure is off
    ");
    world.log.clear();
    world.bad.clear();
    world.retry();
    assert_snapshot!(ran(world), @r"
    retry
    3 Deploy to 2, a in doubt
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
fn another_declaration_in_mid_rollout_supersedes_it() {
    let mut world = first().declare('B');
    world.until_logged("a activate 2");
    world.set_files('C');
    assert_snapshot!(ran(world), @r"
    declared B
    2 Deploy to 2
    stamp a b c with 2
    a stage 2
    b stage 2
    c stage 2
    a activate 2
    declared C
    a healthy
    a confirm 2
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
fn undo_goes_back_and_retry_forward() {
    let mut world = first().declare('B');
    world.settle();
    world.log.clear();
    world.undo(1);
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @r"
    undo to 1
    3 Undo to 1
    stamp a b c with 3
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
    => undone to v1; keep
      a: v1 Ready
      b: v1 Ready
      c: v1 Ready
      Ready=False Undone: a person went back to revision 1; declare something else or `windlass rollout retry` to leave it
      Stalled=True Undone: a person went back to revision 1; declare something else or `windlass rollout retry` to leave it
    ");
    world.log.clear();
    world.retry();
    assert_snapshot!(ran(world), @r"
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
fn a_revision_is_good_once_every_host_in_reach_has_it_whatever_failed_on_the_way() {
    let mut world = first().declare('B');
    world.losing.insert("c".to_owned(), windlass_crds::step::Verb::Confirm);
    world.until(|world| world.hosts["c"].link == crate::machine::Link::Cut);
    world.turns(3);
    world.host("c").link = crate::machine::Link::Up;
    let end = world.settle();
    assert_eq!(world.owned.good, [RevisionNumber(1), RevisionNumber(2)], "{}", draw(&end));
}

#[test]
fn a_revision_whose_record_is_gone_is_not_gone_back_to() {
    let mut world = first().declare('B');
    world.settle();
    world.log.clear();
    world.owned.good.insert(1, RevisionNumber(9));
    world.bad.insert(("*".to_owned(), 'C'));
    world.owned.good.push(RevisionNumber(8));
    world.owned.good.push(RevisionNumber(2));
    world.owned.good.push(RevisionNumber(7));
    world.set_files('C');
    let end = world.settle();
    assert_eq!(end.aim.revision(), Some(RevisionNumber(2)), "{}", story(&world, &end));
}
