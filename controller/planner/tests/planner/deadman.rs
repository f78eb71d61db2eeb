//! Hosts that take back by themselves what nobody has confirmed in time.

use insta::assert_snapshot;
use windlass_crds::step::{StepError, Verb};
use windlass_planner::input::Placement;

use crate::machine::Link;
use crate::picture::story;
use crate::world::World;

fn first() -> World {
    let mut world = World::empty("a b").declare('A');
    world.settle();
    world.log.clear();
    world
}

fn ran(world: &mut World) -> String {
    let end = world.settle();
    let told = story(world, &end);
    world.log.clear();
    told
}

/// `a` is switched, out of reach until it has gone back, and answers again.
fn lost_until_it_went_back(world: &mut World) {
    world.until_logged("a activate 2");
    world.host("a").link = Link::Cut;
    world.turns(3);
    world.go_back("a");
    world.host("a").link = Link::Up;
}

#[test]
fn what_nobody_could_confirm_is_tried_once_more() {
    let mut world = first().declare('B');
    lost_until_it_went_back(&mut world);
    assert_snapshot!(ran(&mut world), @"
    declared B
    2 Deploy to 2
    stamp a b with 2
    a stage 2
    b stage 2
    a activate 2
    a lost
    a goes back by itself
    2 Superseded
    3 Deploy to 2
    stamp a b with 3
    a activate 2
    a healthy
    a confirm 2
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

#[test]
fn what_goes_back_again_holds_everything_up() {
    let mut world = first().declare('B');
    lost_until_it_went_back(&mut world);
    lost_until_it_went_back(&mut world);
    assert_snapshot!(ran(&mut world), @r"
    declared B
    2 Deploy to 2
    stamp a b with 2
    a stage 2
    b stage 2
    a activate 2
    a lost
    a goes back by itself
    2 Superseded
    3 Deploy to 2
    stamp a b with 3
    a activate 2
    a lost
    a goes back by itself
    3 Halted
    => to v2; keep
      a: v1 Pending (it went back by itself: revision 2 was not confirmed in time)
      b: v1 Pending (next: activate 2)
      Ready=False Unconfirmed: a took revision 2 back by itself twice, since nobody could log in and confirm it in time; nothing is begun on any host since 2026-01-01T00:00:02.1Z: declare something else, `windlass rollout resume service/web` tries it again, `windlass rollout undo service/web` goes back everywhere
      Stalled=True Unconfirmed: a took revision 2 back by itself twice, since nobody could log in and confirm it in time; nothing is begun on any host since 2026-01-01T00:00:02.1Z: declare something else, `windlass rollout resume service/web` tries it again, `windlass rollout undo service/web` goes back everywhere
    ");
    let mut resumed = world.clone();
    resumed.resume();
    assert_snapshot!(ran(&mut resumed), @"
    resume
    4 Deploy to 2
    stamp a b with 4
    a activate 2
    a healthy
    a confirm 2
    b activate 2
    b healthy
    b confirm 2
    4 Succeeded
    => to v2; keep
      a: v2 Ready
      b: v2 Ready
      Ready=True Converged: revision 2 runs on 2 of 2 hosts
    ");
    let mut undone = world.clone();
    undone.undo(1);
    assert_snapshot!(ran(&mut undone), @"
    undo to 1
    => undone to v1; keep
      a: v1 Ready
      b: v1 Ready
      Ready=False Undone: a person went back to revision 1; declare something else or `windlass rollout retry` to leave it
      Stalled=True Undone: a person went back to revision 1; declare something else or `windlass rollout retry` to leave it
    ");
    world.set_files('C');
    assert_snapshot!(ran(&mut world), @"
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
    => to v3; keep
      a: v3 Ready
      b: v3 Ready
      Ready=True Converged: revision 3 runs on 2 of 2 hosts
    ");
}

#[test]
fn what_is_unhealthy_when_it_is_tried_again_keeps_no_other_host_waiting() {
    let mut world = first().max_failures(1).declare('B').bad("a", 'B');
    lost_until_it_went_back(&mut world);
    assert_snapshot!(ran(&mut world), @"
    declared B
    2 Deploy to 2
    stamp a b with 2
    a stage 2
    b stage 2
    a activate 2
    a lost
    a goes back by itself
    2 Superseded
    3 Deploy to 2
    stamp a b with 3
    a activate 2
    a unhealthy
    3 Active
    a revert 1
    a healthy
    a confirm 1
    b activate 2
    b healthy
    b confirm 2
    3 Succeeded
    => to v2; keep
      a: v1 HeldBack (revision 2 was unhealthy here: it answers 500)
      b: v2 Ready
      Ready=False HeldBack: a: revision 2 was unhealthy here: it answers 500; it was taken back there alone, within maxFailures: `windlass rollout retry` tries it again
      Stalled=True HeldBack: a: revision 2 was unhealthy here: it answers 500; it was taken back there alone, within maxFailures: `windlass rollout retry` tries it again
      Degraded=True HeldBack: a: revision 2 was unhealthy here: it answers 500; it was taken back there alone, within maxFailures: `windlass rollout retry` tries it again
    ");
}

/// It was good elsewhere, so that it is not blocked, and each try ends with a verdict. The other one, of a later group, was
/// out of reach when the first was tried.
#[test]
fn what_was_unhealthy_on_one_host_alone_is_not_what_nobody_could_confirm() {
    let mut world = World::empty("a b c").grouped("a=one b=one c=two").declare('A');
    world.host("b").placement = Placement::Unplaced;
    world.host("c").placement = Placement::Unplaced;
    world.settle();
    world.host("b").placement = Placement::Placed;
    world.host("c").placement = Placement::Placed;
    world = world.bad("b", 'A');
    world.host("c").link = Link::Cut;
    world.until_logged("b unhealthy");
    world.go_back("b");
    world.host("c").link = Link::Up;
    world.until_logged("b unhealthy");
    world.go_back("b");
    world.turns(10);
    assert_eq!(world.owned.hold, None, "{}", world.log.join("\n"));
    assert!(world.log.iter().any(|line| line == "c confirm 1"), "{}", world.log.join("\n"));
}

/// The first one in the order takes the only place, is found unhealthy, and goes back by itself.
#[test]
fn what_was_unhealthy_on_one_host_is_tried_elsewhere_before_it_is_tried_there_again() {
    let mut world = first().declare('B');
    world.settle();
    world.undo(1);
    world = world.bad("a", 'A');
    world.log.clear();
    world.until_logged("a unhealthy");
    world.go_back("a");
    world.turns(20);
    let first = |end: &str| world.log.iter().position(|line| line == end).expect(end);
    let again = world.log.iter().rposition(|line| line == "a revert 1").expect("it is tried again");
    assert!(first("a revert 1") < first("b confirm 1"), "{}", world.log.join("\n"));
    assert!(first("b confirm 1") < again, "{}", world.log.join("\n"));
    assert!(world.log[again..].iter().any(|line| line == "a unhealthy"), "{}", world.log.join("\n"));
}

/// It waits for the other one, which waits for its place.
#[test]
fn what_has_it_already_is_started_again_before_another_host_is_tried_again() {
    let mut world = first().max_unavailable("2").declare('B');
    world.until_logged("b activate 2");
    world.take_over();
    world.go_back("a");
    world.restart();
    world = world.max_unavailable("1");
    assert_snapshot!(ran(&mut world), @"
    declared B
    2 Deploy to 2
    stamp a b with 2
    a stage 2
    b stage 2
    a activate 2
    b activate 2
    term 2
    a goes back by itself
    restart
    2 Superseded
    3 Deploy to 2, b in doubt
    stamp a b with 3
    b activate 2
    b healthy
    b confirm 2
    a activate 2
    a healthy
    a confirm 2
    3 Succeeded
    => to v2; keep
      a: v2 Ready
      b: v2 Ready
      Ready=True Converged: revision 2 runs on 2 of 2 hosts
    ");
}

/// It was to be switched, and was lost before: the other one does not wait for its place.
#[test]
fn what_crashed_before_it_was_switched_takes_no_place() {
    let mut world = first().max_unavailable("2").declare('B');
    world.host("a").crash();
    world.until_logged("b stage 2");
    world.turn();
    world.turn();
    world.host("a").link = Link::Cut;
    world.act("a");
    world.act("b");
    world.go_back("b");
    world.act("b");
    world.host("a").link = Link::Up;
    world = world.max_unavailable("1");
    assert_snapshot!(ran(&mut world), @"
    declared B
    2 Deploy to 2
    stamp a b with 2
    a stage 2
    b stage 2
    a lost before activate 2
    b activate 2
    b goes back by itself
    b has gone back
    2 Halted
    3 Deploy to 2
    stamp a b with 3
    b activate 2
    b healthy
    b confirm 2
    a activate 2
    a healthy
    a confirm 2
    3 Succeeded
    => to v2; keep
      a: v2 Ready
      b: v2 Ready
      Ready=True Converged: revision 2 runs on 2 of 2 hosts
    ");
}

/// It was started again by a controller that is gone, and counts as down until it is confirmed.
#[test]
fn what_nobody_has_confirmed_beside_a_host_that_is_tried_again_is_confirmed() {
    let mut world = first();
    world.restart();
    world.until_logged("a activate 1");
    world.take_over();
    world.host("b").crash();
    world.set_files('B');
    world.until_logged("b stage 2");
    world.turn();
    world.host("a").link = Link::Cut;
    world.until_logged("b activate 2");
    world.go_back("b");
    world.until_logged("b has gone back");
    world.host("a").link = Link::Up;
    assert_snapshot!(ran(&mut world), @"
    restart
    2 Restart to 1
    stamp a b with 2
    a activate 1
    term 2
    declared B
    2 Superseded
    3 Deploy to 2, a in doubt
    stamp a b with 3
    a stage 2
    b stage 2
    a lost before activate 2
    b activate 2
    b goes back by itself
    b has gone back
    3 Halted
    4 Deploy to 2, a in doubt
    stamp a b with 4
    a healthy
    a confirm 1
    b activate 2
    b healthy
    b confirm 2
    a activate 2
    a healthy
    a confirm 2
    4 Succeeded
    => to v2; keep
      a: v2 Ready
      b: v2 Ready
      Ready=True Converged: revision 2 runs on 2 of 2 hosts
    ");
}

/// It came first since the host of the earlier group was out of reach; that one is back, and waits for it.
#[test]
fn what_is_tried_once_more_waits_for_no_earlier_group() {
    let mut world = first().grouped("a=one b=two").declare('B');
    world.host("a").link = Link::Cut;
    world.until_logged("b activate 2");
    world.host("b").link = Link::Cut;
    world.turns(3);
    world.go_back("b");
    world.host("a").link = Link::Up;
    world.host("b").link = Link::Up;
    assert_snapshot!(ran(&mut world), @"
    declared B
    2 Deploy to 2
    stamp b with 2
    b stage 2
    b activate 2
    b lost
    2 Halted
    b goes back by itself
    3 Deploy to 2
    stamp a b with 3
    a stage 2
    b activate 2
    b healthy
    b confirm 2
    a activate 2
    a healthy
    a confirm 2
    3 Succeeded
    => to v2; keep
      a: v2 Ready
      b: v2 Ready
      Ready=True Converged: revision 2 runs on 2 of 2 hosts
    ");
}

/// The other host was out of reach when the first one was begun.
#[test]
fn a_canary_that_is_retried_begins_where_it_was_taken_back() {
    let mut world = first().canary("1 2").declare('B');
    world.host("a").link = Link::Cut;
    world.until_logged("b activate 2");
    world.go_back("b");
    world.abort();
    world.retry();
    world.host("a").link = Link::Up;
    world.resume();
    world.settle();
    assert!(
        ["a", "b"].iter().all(|name| world.host(name).seen.good.is_some_and(|good| good.0 == 2)),
        "{:#?}",
        world.log
    );
    let at = |end: &str| world.log.iter().rposition(|line| line.ends_with(end)).expect(end);
    assert!(at("b confirm 2") < at("a activate 2"), "{:#?}", world.log);
}

#[test]
fn declaring_what_it_went_back_to_restarts_nothing() {
    let mut world = first().declare('B');
    lost_until_it_went_back(&mut world);
    world.set_files('A');
    assert_snapshot!(ran(&mut world), @"
    declared B
    2 Deploy to 2
    stamp a b with 2
    a stage 2
    b stage 2
    a activate 2
    a lost
    a goes back by itself
    declared A
    2 Superseded
    => to v1; keep
      a: v1 Ready
      b: v1 Ready
      Ready=True Converged: revision 1 runs on 2 of 2 hosts
    ");
}

#[test]
fn another_leader_takes_it_as_unknown() {
    let mut world = first().declare('B');
    world.until_logged("a activate 2");
    world.take_over();
    world.go_back("a");
    assert_snapshot!(ran(&mut world), @"
    declared B
    2 Deploy to 2
    stamp a b with 2
    a stage 2
    b stage 2
    a activate 2
    term 2
    a goes back by itself
    2 Superseded
    3 Deploy to 2
    stamp a b with 3
    a activate 2
    a healthy
    a confirm 2
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

#[test]
fn a_verdict_comes_too_late() {
    let mut world = first().declare('B');
    world.until_logged("a activate 2");
    world.go_back("a");
    assert_snapshot!(ran(&mut world), @"
    declared B
    2 Deploy to 2
    stamp a b with 2
    a stage 2
    b stage 2
    a activate 2
    a goes back by itself
    a has gone back
    2 Halted
    3 Deploy to 2
    stamp a b with 3
    a activate 2
    a healthy
    a confirm 2
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

#[test]
fn a_first_deploy_that_goes_back_again_is_held_up_too() {
    let mut world = World::empty("a b").declare('A');
    for _ in 0..2 {
        world.until_logged("a activate 1");
        world.take_over();
        world.go_back("a");
    }
    assert_snapshot!(ran(&mut world), @"
    declared A
    1 Deploy to 1
    stamp a b with 1
    a stage 1
    b stage 1
    a activate 1
    b activate 1
    term 2
    a goes back by itself
    1 Superseded
    2 Deploy to 1, a in doubt, b in doubt
    stamp a b with 2
    a activate 1
    b healthy
    term 3
    a goes back by itself
    2 Superseded
    3 Deploy to 1, a in doubt, b in doubt
    stamp a b with 3
    b healthy
    b confirm 1
    3 Halted
    => to v1; keep
      a: v1 Pending (it went back by itself: revision 1 was not confirmed in time)
      b: v1 Ready
      Ready=False Unconfirmed: a took revision 1 back by itself twice, since nobody could log in and confirm it in time; nothing is begun on any host since 2026-01-01T00:00:00.7Z: declare something else, `windlass rollout resume service/web` tries it again, `windlass rollout undo service/web` goes back everywhere
      Stalled=True Unconfirmed: a took revision 1 back by itself twice, since nobody could log in and confirm it in time; nothing is begun on any host since 2026-01-01T00:00:00.7Z: declare something else, `windlass rollout resume service/web` tries it again, `windlass rollout undo service/web` goes back everywhere
    ");
}

#[test]
fn a_first_deploy_is_tried_once_more_too() {
    let mut world = World::empty("a b").declare('A');
    world.until_logged("a activate 1");
    world.take_over();
    world.go_back("a");
    assert_snapshot!(ran(&mut world), @"
    declared A
    1 Deploy to 1
    stamp a b with 1
    a stage 1
    b stage 1
    a activate 1
    b activate 1
    term 2
    a goes back by itself
    1 Superseded
    2 Deploy to 1, a in doubt, b in doubt
    stamp a b with 2
    a activate 1
    b healthy
    a healthy
    b confirm 1
    a confirm 1
    2 Succeeded
    => to v1; keep
      a: v1 Ready
      b: v1 Ready
      Ready=True Converged: revision 1 runs on 2 of 2 hosts
    ");
}

/// While a third one has yet to be brought anything, so that no revision was ever confirmed by all of them.
#[test]
fn what_two_of_three_had_confirmed_is_not_lost_sight_of() {
    let mut world = World::empty("a b c").declare('A');
    let full = |world: &mut World| {
        let no_room = StepError::NoSpace { detail: "/opt".to_owned() };
        world.failing.insert(("b".to_owned(), Verb::Stage), no_room);
        world.turns(1);
    };
    while !(world.hosts["a"].confirmed && world.hosts["c"].confirmed) {
        full(&mut world);
    }
    world.set_files('B');
    while !world.log.iter().any(|line| line == "a activate 2") {
        full(&mut world);
    }
    world.host("a").link = Link::Cut;
    for _ in 0..30 {
        full(&mut world);
    }
    assert!(world.owned.good.is_empty(), "{:?}", world.owned.good);
    assert!(world.log.iter().any(|line| line == "c stage 2"), "{}", world.log.join("\n"));
    assert!(!world.log.iter().any(|line| line == "c activate 2"), "{}", world.log.join("\n"));
}
