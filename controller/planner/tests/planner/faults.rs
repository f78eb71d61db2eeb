//! Faults on the way: steps that fail, hosts that are lost, hosts that are not what they were said to be.

use insta::assert_snapshot;
use windlass_crds::record::RolloutState;
use windlass_crds::step::{StepError, Verb};

use crate::machine::Link;
use crate::picture::{draw, story};
use crate::world::World;

fn first() -> World {
    let mut world = World::empty("a b c").declare('A');
    world.settle();
    world.log.clear();
    world
}

fn no_space() -> StepError {
    StepError::NoSpace { detail: "/opt/windlass".to_owned() }
}

#[test]
fn a_step_that_fails_halts_the_rollout_and_a_new_one_tries_again() {
    let mut world = first().declare('B');
    world.failing.insert(("b".to_owned(), Verb::Stage), no_space());
    world.until_logged("Halted");
    assert_snapshot!(draw(&world.plan()), @r"
    to v2; open Deploy to v2 above 2
    a: v1 Pending (next: activate 2)
    b: v1 Failed (stage 2: no space left: /opt/windlass; make room there)
    c: v1 Pending (next: activate 2)
    Ready=False StepFailed: stage 2 on b: no space left: /opt/windlass; make room there; it is tried again
    Reconciling=True RollingOut: revision 2 runs on 0 of 3 hosts
    Degraded=True StepFailed: b: stage 2: no space left: /opt/windlass; make room there
    ");
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @r"
    declared B
    2 Deploy to 2
    stamp a b c with 2
    a stage 2
    b stage 2: no space left: /opt/windlass; make room there
    c stage 2
    2 Halted
    3 Deploy to 2
    stamp a b c with 3
    a activate 2
    b stage 2
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
fn a_switch_that_fails_rolls_nothing_back() {
    let mut world = first().declare('B');
    let late = StepError::TimedOut { detail: "systemctl restart".to_owned() };
    world.failing.insert(("b".to_owned(), Verb::Activate), late);
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
    b activate 2: timed out on the host: systemctl restart
    2 Halted
    3 Deploy to 2
    stamp a b c with 3
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
fn a_host_out_of_reach_before_its_turn_holds_nobody_up_and_is_caught_up_later() {
    let mut world = first().declare('B');
    world.host("b").link = Link::Cut;
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @r"
    declared B
    2 Deploy to 2
    stamp a c with 2
    a stage 2
    c stage 2
    a activate 2
    a healthy
    a confirm 2
    c activate 2
    c healthy
    c confirm 2
    2 Succeeded
    => to v2; keep
      a: v2 Ready
      b: - Unreachable (no answer within 10 s)
      c: v2 Ready
      Ready=Unknown HostUnreachable: b: no answer within 10 s
      Degraded=True HostUnreachable: b: no answer within 10 s
    ");
    world.log.clear();
    world.host("b").link = Link::Up;
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @r"
    3 Repair to 2
    stamp a b c with 3
    b stage 2
    b activate 2
    b healthy
    b confirm 2
    3 Succeeded
    => to v2; keep
      a: v2 Ready
      b: v2 Ready
      c: v2 Ready
      Ready=True Converged: revision 2 runs on 3 of 3 hosts
    ");
}

#[test]
fn a_host_lost_after_it_was_touched_holds_the_others() {
    let mut world = first().declare('B');
    world.losing.insert("a".to_owned(), Verb::Activate);
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @r"
    declared B
    2 Deploy to 2
    stamp a b c with 2
    a stage 2
    b stage 2
    c stage 2
    a activate 2
    a lost
    => to v2; keep
      a: - Unreachable (no answer within 10 s)
      b: v1 Pending (next: activate 2)
      c: v1 Pending (next: activate 2)
      Ready=False RollingOut: revision 2 runs on 0 of 3 hosts
      Reconciling=True RollingOut: revision 2 runs on 0 of 3 hosts
      Degraded=True HostUnreachable: a: no answer within 10 s
    ");
    world.log.clear();
    world.host("a").link = Link::Up;
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @r"
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

/// As the engine does after some losses in a row: the rollout halts, and the next one knows nothing by itself.
#[test]
fn a_host_lost_in_a_rollout_that_halted_holds_the_others_in_the_next_one() {
    let mut world = first().declare('B');
    world.losing.insert("a".to_owned(), Verb::Activate);
    world.until(|world| world.hosts["a"].link == Link::Cut);
    let lost = windlass_crds::step::ContactError::Lost { detail: "reset".to_owned() };
    let failure =
        windlass_crds::record::StepFailure { step: "contact".to_owned(), error: StepError::Contact { error: lost } };
    let rollout = world.rollout.as_mut().expect("a rollout");
    windlass_planner::record::failed(rollout, &"a".parse().expect("a name"), failure);
    world.turns(20);
    assert_eq!(world.rollout.as_ref().map(|rollout| rollout.state), Some(RolloutState::Halted));
    // Something else to bring does not change it.
    world.set_files('C');
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @r"
    declared B
    2 Deploy to 2
    stamp a b c with 2
    a stage 2
    b stage 2
    c stage 2
    a activate 2
    a lost
    2 Halted
    declared C
    3 Deploy to 3, a in doubt
    stamp b c with 3
    b stage 3
    c stage 3
    => to v3; keep
      a: - Unreachable (no answer within 10 s)
      b: v1 Pending (next: activate 3)
      c: v1 Pending (next: activate 3)
      Ready=False RollingOut: revision 3 runs on 0 of 3 hosts
      Reconciling=True RollingOut: revision 3 runs on 0 of 3 hosts
      Degraded=True HostUnreachable: a: no answer within 10 s
    ");
}

#[test]
fn with_two_unavailable_a_lost_one_holds_one_of_them() {
    let mut world = first().declare('B').max_unavailable("2");
    world.losing.insert("a".to_owned(), Verb::Activate);
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @r"
    declared B
    2 Deploy to 2
    stamp a b c with 2
    a stage 2
    b stage 2
    c stage 2
    a activate 2
    a lost
    b activate 2
    b healthy
    b confirm 2
    c activate 2
    c healthy
    c confirm 2
    2 Halted
    => to v2; keep
      a: - Unreachable (no answer within 10 s)
      b: v2 Ready
      c: v2 Ready
      Ready=Unknown HostUnreachable: a: no answer within 10 s
      Degraded=True HostUnreachable: a: no answer within 10 s
    ");
    // A host that comes back well ends what was halted; one that does not counts in the next rollout too.
    let mut mended = world.clone();
    mended.host("a").link = Link::Up;
    let end = mended.settle();
    assert_eq!(mended.rollout.as_ref().map(|rollout| rollout.state), Some(RolloutState::Succeeded), "{}", draw(&end));
    world.log.clear();
    world.set_files('C');
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @r"
    declared C
    3 Deploy to 3, a in doubt
    stamp b c with 3
    b stage 3
    c stage 3
    b activate 3
    b healthy
    b confirm 3
    c activate 3
    c healthy
    c confirm 3
    3 Halted
    => to v3; keep
      a: - Unreachable (no answer within 10 s)
      b: v3 Ready
      c: v3 Ready
      Ready=Unknown HostUnreachable: a: no answer within 10 s
      Degraded=True HostUnreachable: a: no answer within 10 s
    ");
}

#[test]
fn a_store_of_another_owner_and_a_refused_host_get_nothing_and_the_others_go_on() {
    let mut world = first().declare('B');
    world.host("a").link = Link::Foreign;
    let reason = windlass_crds::condition::Reason::PlaintextRefused;
    let message = "http is plaintext, and 192.0.2.1 is remote".to_owned();
    world.host("b").link = Link::Dark;
    world.host("b").placement =
        windlass_planner::input::Placement::Refused(windlass_planner::input::Complaint { reason, message });
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @r"
    declared B
    2 Deploy to 2
    stamp c with 2
    c stage 2
    c activate 2
    c healthy
    c confirm 2
    2 Succeeded
    => to v2; keep
      a: - Failed (the host belongs to the store feedfeedfeed; `windlass host adopt` takes it over)
      b: - Failed (http is plaintext, and 192.0.2.1 is remote)
      c: v2 Ready
      Ready=False OwnedByAnother: a: the host belongs to the store feedfeedfeed; `windlass host adopt` takes it over
      Stalled=True OwnedByAnother: a: the host belongs to the store feedfeedfeed; `windlass host adopt` takes it over
      Degraded=True OwnedByAnother: a: the host belongs to the store feedfeedfeed; `windlass host adopt` takes it over
    ");
}

#[test]
fn two_names_of_one_machine_stall_and_others_go_on() {
    let mut world = first().declare('B');
    let (id, boot) = (world.hosts["a"].id.clone(), world.hosts["a"].boot.clone());
    let twin = world.host("b");
    (twin.id, twin.boot) = (id, boot);
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @r"
    declared B
    2 Deploy to 2
    stamp a b c with 2
    c stage 2
    c activate 2
    c healthy
    c confirm 2
    2 Succeeded
    => to v2; keep
      a: v1 Failed (it is the same machine as b; nothing is done on either)
      b: v1 Failed (it is the same machine as a; nothing is done on either)
      c: v2 Ready
      Ready=False DuplicateHost: a and b are one machine; remove one of the names
      Stalled=True DuplicateHost: a and b are one machine; remove one of the names
      Degraded=True DuplicateHost: a and b are one machine; remove one of the names
    ");
}
