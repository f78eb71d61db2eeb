//! What is planned at one moment: tables of fleets, as [`crate::notation`] writes them.

use insta::assert_snapshot;
use windlass_crds::record::{Purpose, RolloutState};

use crate::picture::table;
use crate::world::World;

fn second(world: World) -> World {
    world.good([1]).declare('B')
}

#[test]
fn before_a_rollout_one_is_opened_and_nothing_is_done() {
    let rows = [
        ("everything runs the old one", "a=v1+ b=v1+ c=v1+"),
        ("one is out of reach", "a=v1+ b=v1+ c=v1+~"),
        ("a host has seen a higher number", "a=v1+ b=v1+^9"),
        ("one is busy with something else", "a=v1+. b=v1+"),
        ("the only one is busy with something else", "a=v1+."),
        ("all are out of reach", "a=v1+~ b=v1+~"),
        ("nobody has looked", "a=v1+0 b=v1+0"),
        ("converged", "a=v2+ b=v2+"),
    ];
    assert_snapshot!(table(second, rows), @r"
    everything runs the old one: a=v1+ b=v1+ c=v1+
      to v2; open Deploy to v2 above 5
      a: v1 Pending (next: stage 2)
      b: v1 Pending (next: stage 2)
      c: v1 Pending (next: stage 2)
      Ready=False RollingOut: revision 2 runs on 0 of 3 hosts
      Reconciling=True RollingOut: revision 2 runs on 0 of 3 hosts
    one is out of reach: a=v1+ b=v1+ c=v1+~
      to v2; open Deploy to v2 above 5
      a: v1 Pending (next: stage 2)
      b: v1 Pending (next: stage 2)
      c: - Unreachable (no answer within 10 s)
      Ready=False RollingOut: revision 2 runs on 0 of 3 hosts
      Reconciling=True RollingOut: revision 2 runs on 0 of 3 hosts
      Degraded=True HostUnreachable: c: no answer within 10 s
    a host has seen a higher number: a=v1+ b=v1+^9
      to v2; open Deploy to v2 above 9
      a: v1 Pending (next: stage 2)
      b: v1 Pending (next: stage 2)
      Ready=False RollingOut: revision 2 runs on 0 of 2 hosts
      Reconciling=True RollingOut: revision 2 runs on 0 of 2 hosts
    one is busy with something else: a=v1+. b=v1+
      to v2; keep
      a: - Working
      b: v1 Pending (next: stage 2)
      Ready=False RollingOut: revision 2 runs on 0 of 2 hosts
      Reconciling=True RollingOut: revision 2 runs on 0 of 2 hosts
    the only one is busy with something else: a=v1+.
      to v2; keep
      a: - Working
      Ready=False RollingOut: revision 2 runs on 0 of 1 hosts
      Reconciling=True RollingOut: revision 2 runs on 0 of 1 hosts
    all are out of reach: a=v1+~ b=v1+~
      to v2; keep
      a: - Unreachable (no answer within 10 s)
      b: - Unreachable (no answer within 10 s)
      Ready=Unknown HostUnreachable: a, b: no answer within 10 s
      Available=Unknown HostUnreachable: 0 of 2 hosts serve
      Degraded=True HostUnreachable: a, b: no answer within 10 s
    nobody has looked: a=v1+0 b=v1+0
      to v2; keep
      a: - Pending
      b: - Pending
      Ready=Unknown NotObserved: revision 2 runs on 0 of 2 hosts
      Available=Unknown NotObserved: 0 of 2 hosts serve
    converged: a=v2+ b=v2+
      to v2; keep
      a: v2 Ready
      b: v2 Ready
      Ready=True Converged: revision 2 runs on 2 of 2 hosts
    ");
}

#[test]
fn the_first_by_name_goes_first_whoever_has_the_files_first() {
    let going = |world| second(world).rolling(Purpose::Deploy, 2);
    let rows = [
        ("the first has to be staged", "a=v1+ b=v1+s2"),
        ("the first is being staged", "a=v1+. b=v1+s2"),
        ("the first is out of reach", "a=v1+~ b=v1+s2"),
        ("the first is new there", "a=- b=v1+s2"),
    ];
    assert_snapshot!(table(going, rows), @r"
    the first has to be staged: a=v1+ b=v1+s2
      to v2; keep
      a: v1 Pending (next: stage 2) -> stage 2
      b: v1 Pending (next: activate 2)
      Ready=False RollingOut: revision 2 runs on 0 of 2 hosts
      Reconciling=True RollingOut: revision 2 runs on 0 of 2 hosts
    the first is being staged: a=v1+. b=v1+s2
      to v2; keep
      a: - Working
      b: v1 Pending (next: activate 2)
      Ready=False RollingOut: revision 2 runs on 0 of 2 hosts
      Reconciling=True RollingOut: revision 2 runs on 0 of 2 hosts
    the first is out of reach: a=v1+~ b=v1+s2
      to v2; keep; touch b
      a: - Unreachable (no answer within 10 s)
      b: v1 Pending (next: activate 2) -> activate 2, judge, confirm 2
      Ready=False RollingOut: revision 2 runs on 0 of 2 hosts
      Reconciling=True RollingOut: revision 2 runs on 0 of 2 hosts
      Degraded=True HostUnreachable: a: no answer within 10 s
    the first is new there: a=- b=v1+s2
      to v2; keep
      a: - Pending (next: stage 2) -> stage 2
      b: v1 Pending (next: activate 2)
      Ready=False RollingOut: revision 2 runs on 0 of 2 hosts
      Reconciling=True RollingOut: revision 2 runs on 0 of 2 hosts
    ");
}

#[test]
fn one_at_a_time_is_switched_and_what_is_down_holds_the_others() {
    let going = |world| second(world).rolling(Purpose::Deploy, 2).touched("a");
    let rows = [
        ("nothing is staged", "a=v1+ b=v1+ c=v1+"),
        ("staged everywhere", "a=v1+s2 b=v1+s2 c=v1+s2"),
        ("one is behind", "a=v1+s2 b=v1+@4s2 c=v1+s2"),
        ("first one being switched", "a=v1+s2* b=v1+s2 c=v1+s2"),
        ("first one being staged", "a=v1+. b=v1+s2 c=v1+s2"),
        ("first one switched", "a=v2?g1 b=v1+s2 c=v1+s2"),
        ("first one half switched", "a=v2hg1 b=v1+s2 c=v1+s2"),
        ("first one crashed", "a=v2!g1 b=v1+s2 c=v1+s2"),
        ("first one lost", "a=v2?g1~ b=v1+s2 c=v1+s2"),
        ("first one refuses us since", "a=v2?g1# b=v1+s2 c=v1+s2"),
        ("first one not looked at", "a=v2?g10 b=v1+s2 c=v1+s2"),
        ("first one done", "a=v2+ b=v1+s2 c=v1+s2"),
        ("first one done, and ill since", "a=v2+i b=v1+s2 c=v1+s2"),
        ("first one done, and failed since", "a=v2x b=v1+s2 c=v1+s2"),
        ("first one done, and crashes since", "a=v2y b=v1+s2 c=v1+s2"),
        ("another one lost before its turn", "a=v2+ b=v1+s2~ c=v1+s2"),
        ("another one failed before its turn", "a=v2+ b=v1xs2 c=v1+s2"),
        ("another one new", "a=v2+ b=-s2 c=v1+s2"),
        ("all done", "a=v2+ b=v2+ c=v2+"),
        ("all done but one that was lost before its turn", "a=v2+ b=v2+ c=v1+s2~"),
        ("all done, and the first one lost since", "a=v2+~ b=v2+ c=v2+"),
        ("all done, and one not looked at yet", "a=v2+ b=v2+ c=v2+0"),
        ("all lost", "a=v2?g1~ b=v1+s2~ c=v1+s2~"),
    ];
    assert_snapshot!(table(going, rows), @r"
    nothing is staged: a=v1+ b=v1+ c=v1+
      to v2; keep
      a: v1 Pending (next: stage 2) -> stage 2
      b: v1 Pending (next: stage 2) -> stage 2
      c: v1 Pending (next: stage 2) -> stage 2
      Ready=False RollingOut: revision 2 runs on 0 of 3 hosts
      Reconciling=True RollingOut: revision 2 runs on 0 of 3 hosts
    staged everywhere: a=v1+s2 b=v1+s2 c=v1+s2
      to v2; keep
      a: v1 Pending (next: activate 2) -> activate 2, judge, confirm 2
      b: v1 Pending (next: activate 2)
      c: v1 Pending (next: activate 2)
      Ready=False RollingOut: revision 2 runs on 0 of 3 hosts
      Reconciling=True RollingOut: revision 2 runs on 0 of 3 hosts
    one is behind: a=v1+s2 b=v1+@4s2 c=v1+s2
      to v2; keep; stamp b
      a: v1 Pending (next: activate 2)
      b: v1 Pending (next: activate 2)
      c: v1 Pending (next: activate 2)
      Ready=False RollingOut: revision 2 runs on 0 of 3 hosts
      Reconciling=True RollingOut: revision 2 runs on 0 of 3 hosts
    first one being switched: a=v1+s2* b=v1+s2 c=v1+s2
      to v2; keep
      a: - Working
      b: v1 Pending (next: activate 2)
      c: v1 Pending (next: activate 2)
      Ready=False RollingOut: revision 2 runs on 0 of 3 hosts
      Reconciling=True RollingOut: revision 2 runs on 0 of 3 hosts
    first one being staged: a=v1+. b=v1+s2 c=v1+s2
      to v2; keep
      a: - Working
      b: v1 Pending (next: activate 2)
      c: v1 Pending (next: activate 2)
      Ready=False RollingOut: revision 2 runs on 0 of 3 hosts
      Reconciling=True RollingOut: revision 2 runs on 0 of 3 hosts
    first one switched: a=v2?g1 b=v1+s2 c=v1+s2
      to v2; keep
      a: v2 Starting (next: verdict on 2) -> judge, confirm 2
      b: v1 Pending (next: activate 2)
      c: v1 Pending (next: activate 2)
      Ready=False RollingOut: revision 2 runs on 0 of 3 hosts
      Reconciling=True RollingOut: revision 2 runs on 0 of 3 hosts
    first one half switched: a=v2hg1 b=v1+s2 c=v1+s2
      to v2; keep
      a: v2 Pending (next: activate 2) -> activate 2, judge, confirm 2
      b: v1 Pending (next: activate 2)
      c: v1 Pending (next: activate 2)
      Ready=False RollingOut: revision 2 runs on 0 of 3 hosts
      Reconciling=True RollingOut: revision 2 runs on 0 of 3 hosts
    first one crashed: a=v2!g1 b=v1+s2 c=v1+s2
      to v2; keep
      a: v2 Starting (next: verdict on 2) -> judge, confirm 2
      b: v1 Pending (next: activate 2)
      c: v1 Pending (next: activate 2)
      Ready=False RollingOut: revision 2 runs on 0 of 3 hosts
      Reconciling=True RollingOut: revision 2 runs on 0 of 3 hosts
    first one lost: a=v2?g1~ b=v1+s2 c=v1+s2
      to v2; keep
      a: - Unreachable (no answer within 10 s)
      b: v1 Pending (next: activate 2)
      c: v1 Pending (next: activate 2)
      Ready=False RollingOut: revision 2 runs on 0 of 3 hosts
      Reconciling=True RollingOut: revision 2 runs on 0 of 3 hosts
      Degraded=True HostUnreachable: a: no answer within 10 s
    first one refuses us since: a=v2?g1# b=v1+s2 c=v1+s2
      to v2; keep
      a: - Failed (the host belongs to the store feedfeedfeed; `windlass host adopt` takes it over)
      b: v1 Pending (next: activate 2)
      c: v1 Pending (next: activate 2)
      Ready=False OwnedByAnother: a: the host belongs to the store feedfeedfeed; `windlass host adopt` takes it over
      Reconciling=True RollingOut: revision 2 runs on 0 of 3 hosts
      Stalled=True OwnedByAnother: a: the host belongs to the store feedfeedfeed; `windlass host adopt` takes it over
      Degraded=True OwnedByAnother: a: the host belongs to the store feedfeedfeed; `windlass host adopt` takes it over
    first one not looked at: a=v2?g10 b=v1+s2 c=v1+s2
      to v2; keep
      a: - Pending
      b: v1 Pending (next: activate 2)
      c: v1 Pending (next: activate 2)
      Ready=False RollingOut: revision 2 runs on 0 of 3 hosts
      Reconciling=True RollingOut: revision 2 runs on 0 of 3 hosts
    first one done: a=v2+ b=v1+s2 c=v1+s2
      to v2; keep; touch b
      a: v2 Ready
      b: v1 Pending (next: activate 2) -> activate 2, judge, confirm 2
      c: v1 Pending (next: activate 2)
      Ready=False RollingOut: revision 2 runs on 1 of 3 hosts
      Reconciling=True RollingOut: revision 2 runs on 1 of 3 hosts
    first one done, and ill since: a=v2+i b=v1+s2 c=v1+s2
      to v2; keep
      a: v2 Unhealthy (the health endpoint answers 500)
      b: v1 Pending (next: activate 2)
      c: v1 Pending (next: activate 2)
      Ready=False RollingOut: revision 2 runs on 0 of 3 hosts
      Reconciling=True RollingOut: revision 2 runs on 0 of 3 hosts
      Degraded=True HostUnhealthy: a: the health endpoint answers 500
    first one done, and failed since: a=v2x b=v1+s2 c=v1+s2
      to v2; open Deploy to v2 above 5
      a: v2 Drifted (the unit was stopped)
      b: v1 Pending (next: activate 2)
      c: v1 Pending (next: activate 2)
      Ready=False Repairing: revision 2 runs on 0 of 3 hosts
      Reconciling=True Repairing: revision 2 runs on 0 of 3 hosts
      Drifted=True DriftFound: a: the unit was stopped
    first one done, and crashes since: a=v2y b=v1+s2 c=v1+s2
      to v2; keep
      a: v2 Unhealthy (the program exited and waits to be started again (exit-code, status 1))
      b: v1 Pending (next: activate 2)
      c: v1 Pending (next: activate 2)
      Ready=False RollingOut: revision 2 runs on 0 of 3 hosts
      Reconciling=True RollingOut: revision 2 runs on 0 of 3 hosts
      Degraded=True HostUnhealthy: a: the program exited and waits to be started again (exit-code, status 1)
    another one lost before its turn: a=v2+ b=v1+s2~ c=v1+s2
      to v2; keep; touch c
      a: v2 Ready
      b: - Unreachable (no answer within 10 s)
      c: v1 Pending (next: activate 2) -> activate 2, judge, confirm 2
      Ready=False RollingOut: revision 2 runs on 1 of 3 hosts
      Reconciling=True RollingOut: revision 2 runs on 1 of 3 hosts
      Degraded=True HostUnreachable: b: no answer within 10 s
    another one failed before its turn: a=v2+ b=v1xs2 c=v1+s2
      to v2; keep; touch b c
      a: v2 Ready
      b: v1 Pending (next: activate 2) -> activate 2, judge, confirm 2
      c: v1 Pending (next: activate 2) -> activate 2, judge, confirm 2
      Ready=False RollingOut: revision 2 runs on 1 of 3 hosts
      Reconciling=True RollingOut: revision 2 runs on 1 of 3 hosts
    another one new: a=v2+ b=-s2 c=v1+s2
      to v2; keep; touch b c
      a: v2 Ready
      b: - Pending (next: activate 2) -> activate 2, judge, confirm 2
      c: v1 Pending (next: activate 2) -> activate 2, judge, confirm 2
      Ready=False RollingOut: revision 2 runs on 1 of 3 hosts
      Reconciling=True RollingOut: revision 2 runs on 1 of 3 hosts
    all done: a=v2+ b=v2+ c=v2+
      to v2; close as Succeeded
      a: v2 Ready
      b: v2 Ready
      c: v2 Ready
      Ready=True Converged: revision 2 runs on 3 of 3 hosts
    all done but one that was lost before its turn: a=v2+ b=v2+ c=v1+s2~
      to v2; close as Succeeded
      a: v2 Ready
      b: v2 Ready
      c: - Unreachable (no answer within 10 s)
      Ready=Unknown HostUnreachable: c: no answer within 10 s
      Degraded=True HostUnreachable: c: no answer within 10 s
    all done, and the first one lost since: a=v2+~ b=v2+ c=v2+
      to v2; close as Halted
      a: - Unreachable (no answer within 10 s)
      b: v2 Ready
      c: v2 Ready
      Ready=Unknown HostUnreachable: a: no answer within 10 s
      Degraded=True HostUnreachable: a: no answer within 10 s
    all done, and one not looked at yet: a=v2+ b=v2+ c=v2+0
      to v2; keep
      a: v2 Ready
      b: v2 Ready
      c: - Pending
      Ready=False RollingOut: revision 2 runs on 2 of 3 hosts
      Reconciling=True RollingOut: revision 2 runs on 2 of 3 hosts
    all lost: a=v2?g1~ b=v1+s2~ c=v1+s2~
      to v2; close as Halted
      a: - Unreachable (no answer within 10 s)
      b: - Unreachable (no answer within 10 s)
      c: - Unreachable (no answer within 10 s)
      Ready=Unknown HostUnreachable: a, b, c: no answer within 10 s
      Available=Unknown HostUnreachable: 0 of 3 hosts serve
      Degraded=True HostUnreachable: a, b, c: no answer within 10 s
    ");
}

#[test]
fn max_unavailable_is_a_number_or_a_share_rounded_down() {
    let hosts = "a=v1+s2 b=v1+s2 c=v1+s2 d=v1+s2 e=v1+s2";
    let going = |most: &'static str| move |world| second(world).rolling(Purpose::Deploy, 2).max_unavailable(most);
    let count = |most: &'static str| {
        let plan = going(most)(World::of(hosts)).plan();
        format!("{most}: {}\n", plan.actions.keys().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    };
    let text: String = ["1", "2", "9", "50%", "1%", "100%"].map(count).join("");
    assert_snapshot!(text, @r"
    1: a
    2: a b
    9: a b c d e
    50%: a b
    1%: a
    100%: a b c d e
    ");
}

/// The records are those of an older store: what has been confirmed since, they do not know.
#[test]
fn a_minute_after_a_takeover_what_the_records_call_unconfirmed_counts_too() {
    let going = |fresh: bool| {
        move |world: World| world.declare('B').rolling(Purpose::Deploy, 2).with(|world| world.fresh_term = fresh)
    };
    let rows = [("out of reach, and not confirmed as far as is known", "a=v1+s2 b=v1?~")];
    assert_snapshot!(table(going(true), rows), @r"
    out of reach, and not confirmed as far as is known: a=v1+s2 b=v1?~
      to v2; keep
      a: v1 Pending (next: activate 2)
      b: - Unreachable (no answer within 10 s)
      Ready=False RollingOut: revision 2 runs on 0 of 2 hosts
      Reconciling=True RollingOut: revision 2 runs on 0 of 2 hosts
      Degraded=True HostUnreachable: b: no answer within 10 s
    ");
    assert_snapshot!(table(going(false), rows), @r"
    out of reach, and not confirmed as far as is known: a=v1+s2 b=v1?~
      to v2; keep; touch a
      a: v1 Pending (next: activate 2) -> activate 2, judge, confirm 2
      b: - Unreachable (no answer within 10 s)
      Ready=False RollingOut: revision 2 runs on 0 of 2 hosts
      Reconciling=True RollingOut: revision 2 runs on 0 of 2 hosts
      Degraded=True HostUnreachable: b: no answer within 10 s
    ");
}

#[test]
fn a_minute_after_a_takeover_what_cannot_be_stamped_counts_as_down() {
    let going =
        |fresh: bool| move |world| second(world).rolling(Purpose::Deploy, 2).with(|world| world.fresh_term = fresh);
    let rows = [
        ("out of reach", "a=v1+s2 b=v1+s2~"),
        ("not looked at yet", "a=v1+s2 b=v1+s20"),
        ("out of reach, and never had anything", "a=v1+s2 b=-~"),
    ];
    assert_snapshot!(table(going(true), rows), @r"
    out of reach: a=v1+s2 b=v1+s2~
      to v2; keep
      a: v1 Pending (next: activate 2)
      b: - Unreachable (no answer within 10 s)
      Ready=False RollingOut: revision 2 runs on 0 of 2 hosts
      Reconciling=True RollingOut: revision 2 runs on 0 of 2 hosts
      Degraded=True HostUnreachable: b: no answer within 10 s
    not looked at yet: a=v1+s2 b=v1+s20
      to v2; keep
      a: v1 Pending (next: activate 2)
      b: - Pending
      Ready=False RollingOut: revision 2 runs on 0 of 2 hosts
      Reconciling=True RollingOut: revision 2 runs on 0 of 2 hosts
    out of reach, and never had anything: a=v1+s2 b=-~
      to v2; keep; touch a
      a: v1 Pending (next: activate 2) -> activate 2, judge, confirm 2
      b: - Unreachable (no answer within 10 s)
      Ready=False RollingOut: revision 2 runs on 0 of 2 hosts
      Reconciling=True RollingOut: revision 2 runs on 0 of 2 hosts
      Degraded=True HostUnreachable: b: no answer within 10 s
    ");
    assert_snapshot!(table(going(false), rows), @r"
    out of reach: a=v1+s2 b=v1+s2~
      to v2; keep; touch a
      a: v1 Pending (next: activate 2) -> activate 2, judge, confirm 2
      b: - Unreachable (no answer within 10 s)
      Ready=False RollingOut: revision 2 runs on 0 of 2 hosts
      Reconciling=True RollingOut: revision 2 runs on 0 of 2 hosts
      Degraded=True HostUnreachable: b: no answer within 10 s
    not looked at yet: a=v1+s2 b=v1+s20
      to v2; keep; touch a
      a: v1 Pending (next: activate 2) -> activate 2, judge, confirm 2
      b: - Pending
      Ready=False RollingOut: revision 2 runs on 0 of 2 hosts
      Reconciling=True RollingOut: revision 2 runs on 0 of 2 hosts
    out of reach, and never had anything: a=v1+s2 b=-~
      to v2; keep; touch a
      a: v1 Pending (next: activate 2) -> activate 2, judge, confirm 2
      b: - Unreachable (no answer within 10 s)
      Ready=False RollingOut: revision 2 runs on 0 of 2 hosts
      Reconciling=True RollingOut: revision 2 runs on 0 of 2 hosts
      Degraded=True HostUnreachable: b: no answer within 10 s
    ");
}

#[test]
fn a_rollback_goes_back_at_once_where_it_is_down_and_one_by_one_where_it_is_not() {
    let back = |world: World| {
        second(world).rolling(Purpose::Rollback, 1).with(|world| {
            let bad = world.clone();
            block(world, &bad);
        })
    };
    let rows = [
        ("one crashed", "a=v2!g1 b=v1+ c=v1+"),
        ("two crashed", "a=v2!g1s1 b=v2!g1 c=v1+"),
        ("one well, one crashed", "a=v2+s1 b=v2!g1 c=v1+"),
        ("one that never had the good one", "a=v2! b=v1+ c=v1+"),
        ("gone back, unjudged", "a=v1?@5 b=v1+ c=v1+"),
        ("done", "a=v1+ b=v1+ c=v1+"),
    ];
    assert_snapshot!(table(back, rows), @r"
    one crashed: a=v2!g1 b=v1+ c=v1+
      back to v1 from v2; keep; touch a
      a: v2 Pending (next: revert 1) -> revert 1, judge, confirm 1
      b: v1 Ready
      c: v1 Ready
      Ready=False RollingBack: revision 2 was unhealthy on a: it answers 500; going back to revision 1, which runs on 2 of 3 hosts; declare something else or `windlass rollout retry`
      Reconciling=True RollingBack: revision 1 runs on 2 of 3 hosts
    two crashed: a=v2!g1s1 b=v2!g1 c=v1+
      back to v1 from v2; keep; touch a b
      a: v2 Pending (next: revert 1) -> revert 1, judge, confirm 1
      b: v2 Pending (next: revert 1) -> revert 1, judge, confirm 1
      c: v1 Ready
      Ready=False RollingBack: revision 2 was unhealthy on a: it answers 500; going back to revision 1, which runs on 1 of 3 hosts; declare something else or `windlass rollout retry`
      Reconciling=True RollingBack: revision 1 runs on 1 of 3 hosts
    one well, one crashed: a=v2+s1 b=v2!g1 c=v1+
      back to v1 from v2; keep; touch b
      a: v2 Pending (next: revert 1)
      b: v2 Pending (next: revert 1) -> revert 1, judge, confirm 1
      c: v1 Ready
      Ready=False RollingBack: revision 2 was unhealthy on a: it answers 500; going back to revision 1, which runs on 1 of 3 hosts; declare something else or `windlass rollout retry`
      Reconciling=True RollingBack: revision 1 runs on 1 of 3 hosts
    one that never had the good one: a=v2! b=v1+ c=v1+
      back to v1 from v2; keep
      a: v2 Pending (next: stage 1) -> stage 1
      b: v1 Ready
      c: v1 Ready
      Ready=False RollingBack: revision 2 was unhealthy on a: it answers 500; going back to revision 1, which runs on 2 of 3 hosts; declare something else or `windlass rollout retry`
      Reconciling=True RollingBack: revision 1 runs on 2 of 3 hosts
    gone back, unjudged: a=v1?@5 b=v1+ c=v1+
      back to v1 from v2; keep
      a: v1 Starting (next: verdict on 1) -> judge, confirm 1
      b: v1 Ready
      c: v1 Ready
      Ready=False RollingBack: revision 2 was unhealthy on a: it answers 500; going back to revision 1, which runs on 2 of 3 hosts; declare something else or `windlass rollout retry`
      Reconciling=True RollingBack: revision 1 runs on 2 of 3 hosts
    done: a=v1+ b=v1+ c=v1+
      back to v1 from v2; close as Succeeded
      a: v1 Ready
      b: v1 Ready
      c: v1 Ready
      Ready=False RolledBack: revision 2 was unhealthy on a: it answers 500; went back to revision 1, which runs on 3 of 3 hosts; declare something else or `windlass rollout retry`
      Stalled=True RolledBack: revision 2 was unhealthy on a: it answers 500; went back to revision 1, which runs on 3 of 3 hosts; declare something else or `windlass rollout retry`
    ");
}

fn block(world: &mut World, like: &World) {
    let evidence =
        windlass_crds::record::Evidence { summary: "it answers 500".to_owned(), answer: None, logs: Vec::new() };
    let cause = windlass_crds::record::BlockCause::Unhealthy { host: "a".parse().expect("a name"), evidence };
    let revision = like.revisions.values().nth(1).expect("revision 2");
    let blocked = windlass_crds::record::Blocked {
        spec: like.spec.digest(),
        release: revision.release,
        revision: revision.number,
        cause,
    };
    windlass_planner::record::block(&mut world.owned, blocked);
}

#[test]
fn nothing_good_to_go_back_to() {
    let stopped = |world: World| {
        world.declare('B').rolling(Purpose::Deploy, 2).ended(RolloutState::Unhealthy).with(|world| {
            let like = world.clone();
            block(world, &like);
        })
    };
    let rows = [("runs", "a=v2? b=-s2"), ("crashes again and again", "a=v2! b=-s2"), ("stopped", "a=v2o b=-s2")];
    assert_snapshot!(table(stopped, rows), @r"
    runs: a=v2? b=-s2
      stop v2; open Rollback above 5
      a: v2 Stopped (there is nothing good to go back to)
      b: - Stopped (there is nothing good to go back to)
      Ready=False FirstDeployUnhealthy: revision 2 was unhealthy on a: it answers 500; there is nothing good to go back to, so it is stopped where it was not healthy
      Reconciling=True RollingBack: 2 hosts
      Available=False HostUnhealthy: 0 of 2 hosts serve
    crashes again and again: a=v2! b=-s2
      stop v2; open Rollback above 5
      a: v2 Stopped (there is nothing good to go back to)
      b: - Stopped (there is nothing good to go back to)
      Ready=False FirstDeployUnhealthy: revision 2 was unhealthy on a: it answers 500; there is nothing good to go back to, so it is stopped where it was not healthy
      Reconciling=True RollingBack: 2 hosts
      Available=False HostUnhealthy: 0 of 2 hosts serve
    stopped: a=v2o b=-s2
      stop v2; keep
      a: v2 Stopped (there is nothing good to go back to)
      b: - Stopped (there is nothing good to go back to)
      Ready=False FirstDeployUnhealthy: revision 2 was unhealthy on a: it answers 500; there is nothing good to go back to, so it is stopped where it was not healthy
      Stalled=True FirstDeployUnhealthy: revision 2 was unhealthy on a: it answers 500; there is nothing good to go back to, so it is stopped where it was not healthy
      Available=False HostUnhealthy: 0 of 2 hosts serve
    ");
}

#[test]
fn without_rollback_each_host_keeps_what_it_has() {
    let stay = |world: World| {
        second(world).rolling(Purpose::Deploy, 2).ended(RolloutState::Unhealthy).with(|world| {
            world.spec.rollout.rollback_on_failure = false;
            let like = world.clone();
            block(world, &like);
        })
    };
    let rows = [("one of three is bad", "a=v2!g1 b=v1+ c=v1+"), ("one is well with it", "a=v2+ b=v2?g1 c=v1+")];
    assert_snapshot!(table(stay, rows), @r"
    one of three is bad: a=v2!g1 b=v1+ c=v1+
      stay, v2 blocked; keep
      a: v2 Unhealthy (left as it is: rollbackOnFailure is off)
      b: v1 Pending (left as it is, since what is declared was unhealthy elsewhere)
      c: v1 Pending (left as it is, since what is declared was unhealthy elsewhere)
      Ready=False Unhealthy: revision 2 was unhealthy on a: it answers 500; it stays, because rollbackOnFailure is off
      Stalled=True Unhealthy: revision 2 was unhealthy on a: it answers 500; it stays, because rollbackOnFailure is off
      Degraded=True HostUnhealthy: a: left as it is: rollbackOnFailure is off
    one is well with it: a=v2+ b=v2?g1 c=v1+
      stay, v2 blocked; keep
      a: v2 Ready
      b: v2 Unhealthy (left as it is: rollbackOnFailure is off)
      c: v1 Pending (left as it is, since what is declared was unhealthy elsewhere)
      Ready=False Unhealthy: revision 2 was unhealthy on a: it answers 500; it stays, because rollbackOnFailure is off
      Stalled=True Unhealthy: revision 2 was unhealthy on a: it answers 500; it stays, because rollbackOnFailure is off
      Degraded=True HostUnhealthy: b: left as it is: rollbackOnFailure is off
    ");
}

#[test]
fn hosts_that_nothing_may_be_done_on_hold_nobody_up() {
    let going = |world| second(world).rolling(Purpose::Deploy, 2);
    let rows = [
        ("refused by the plaintext rule", "a=v1+s2R b=v1+s2"),
        ("another store's", "a=v1+s2# b=v1+s2"),
        ("two names of one machine", "a=v1+s2 b=v1+s2=a c=v1+s2"),
        ("two names of one machine, one out of reach", "a=v1+s2 b=v1+s2~=a c=v1+s2"),
        ("placed on nothing", ""),
    ];
    assert_snapshot!(table(going, rows), @r"
    refused by the plaintext rule: a=v1+s2R b=v1+s2
      to v2; keep; touch b
      a: - Failed (http is plaintext, and 192.0.2.1 is remote)
      b: v1 Pending (next: activate 2) -> activate 2, judge, confirm 2
      Ready=False PlaintextRefused: a: http is plaintext, and 192.0.2.1 is remote
      Reconciling=True RollingOut: revision 2 runs on 0 of 2 hosts
      Stalled=True PlaintextRefused: a: http is plaintext, and 192.0.2.1 is remote
      Degraded=True PlaintextRefused: a: http is plaintext, and 192.0.2.1 is remote
    another store's: a=v1+s2# b=v1+s2
      to v2; keep; touch b
      a: - Failed (the host belongs to the store feedfeedfeed; `windlass host adopt` takes it over)
      b: v1 Pending (next: activate 2) -> activate 2, judge, confirm 2
      Ready=False OwnedByAnother: a: the host belongs to the store feedfeedfeed; `windlass host adopt` takes it over
      Reconciling=True RollingOut: revision 2 runs on 0 of 2 hosts
      Stalled=True OwnedByAnother: a: the host belongs to the store feedfeedfeed; `windlass host adopt` takes it over
      Degraded=True OwnedByAnother: a: the host belongs to the store feedfeedfeed; `windlass host adopt` takes it over
    two names of one machine: a=v1+s2 b=v1+s2=a c=v1+s2
      to v2; keep; touch c
      a: v1 Failed (it is the same machine as b; nothing is done on either)
      b: v1 Failed (it is the same machine as a; nothing is done on either)
      c: v1 Pending (next: activate 2) -> activate 2, judge, confirm 2
      Ready=False DuplicateHost: a and b are one machine; remove one of the names
      Reconciling=True RollingOut: revision 2 runs on 0 of 3 hosts
      Stalled=True DuplicateHost: a and b are one machine; remove one of the names
      Degraded=True DuplicateHost: a and b are one machine; remove one of the names
    two names of one machine, one out of reach: a=v1+s2 b=v1+s2~=a c=v1+s2
      to v2; keep; touch c
      a: v1 Failed (it is the same machine as b; nothing is done on either)
      b: - Failed (it is the same machine as a; nothing is done on either)
      c: v1 Pending (next: activate 2) -> activate 2, judge, confirm 2
      Ready=False DuplicateHost: a and b are one machine; remove one of the names
      Reconciling=True RollingOut: revision 2 runs on 0 of 3 hosts
      Stalled=True DuplicateHost: a and b are one machine; remove one of the names
      Degraded=True DuplicateHost: a and b are one machine; remove one of the names
    placed on nothing: 
      to v2; close as Succeeded
      Ready=False NoHosts: it is placed on no host
      Available=False NoHosts: 0 of 0 hosts serve
    ");
}

#[test]
fn converged_is_what_runs_and_not_what_was_recorded() {
    let done = |world| second(world).rolling(Purpose::Deploy, 2).ended(RolloutState::Succeeded).good([1, 2]);
    let rows = [
        ("all well", "a=v2+ b=v2+"),
        ("one is ill", "a=v2+i b=v2+"),
        ("one has failed for good", "a=v2x b=v2+"),
        ("one crashes again and again", "a=v2y b=v2+"),
        ("one is out of reach", "a=v2+~ b=v2+"),
        ("all are out of reach", "a=v2+~ b=v2+~"),
        ("one was never reached", "a=v2+ b=-~"),
        ("one is new", "a=v2+ b=-"),
        ("one lost its records, and runs what is good", "a=v2+^0 b=v2+"),
    ];
    assert_snapshot!(table(done, rows), @r"
    all well: a=v2+ b=v2+
      to v2; keep
      a: v2 Ready
      b: v2 Ready
      Ready=True Converged: revision 2 runs on 2 of 2 hosts
    one is ill: a=v2+i b=v2+
      to v2; keep
      a: v2 Unhealthy (the health endpoint answers 500)
      b: v2 Ready
      Ready=False HostUnhealthy: a: the health endpoint answers 500
      Degraded=True HostUnhealthy: a: the health endpoint answers 500
    one has failed for good: a=v2x b=v2+
      to v2; open Repair to v2 above 5
      a: v2 Drifted (the unit was stopped)
      b: v2 Ready
      Ready=False Repairing: revision 2 runs on 1 of 2 hosts
      Reconciling=True Repairing: revision 2 runs on 1 of 2 hosts
      Drifted=True DriftFound: a: the unit was stopped
    one crashes again and again: a=v2y b=v2+
      to v2; keep
      a: v2 Unhealthy (the program exited and waits to be started again (exit-code, status 1))
      b: v2 Ready
      Ready=False HostUnhealthy: a: the program exited and waits to be started again (exit-code, status 1)
      Degraded=True HostUnhealthy: a: the program exited and waits to be started again (exit-code, status 1)
    one is out of reach: a=v2+~ b=v2+
      to v2; keep
      a: - Unreachable (no answer within 10 s)
      b: v2 Ready
      Ready=Unknown HostUnreachable: a: no answer within 10 s
      Degraded=True HostUnreachable: a: no answer within 10 s
    all are out of reach: a=v2+~ b=v2+~
      to v2; keep
      a: - Unreachable (no answer within 10 s)
      b: - Unreachable (no answer within 10 s)
      Ready=Unknown HostUnreachable: a, b: no answer within 10 s
      Available=Unknown HostUnreachable: 0 of 2 hosts serve
      Degraded=True HostUnreachable: a, b: no answer within 10 s
    one was never reached: a=v2+ b=-~
      to v2; keep
      a: v2 Ready
      b: - Unreachable (no answer within 10 s)
      Ready=Unknown HostUnreachable: b: no answer within 10 s
      Degraded=True HostUnreachable: b: no answer within 10 s
    one is new: a=v2+ b=-
      to v2; open Repair to v2 above 5
      a: v2 Ready
      b: - Pending (next: stage 2)
      Ready=False RollingOut: revision 2 runs on 1 of 2 hosts
      Reconciling=True RollingOut: revision 2 runs on 1 of 2 hosts
    one lost its records, and runs what is good: a=v2+^0 b=v2+
      to v2; keep
      a: v2 Ready
      b: v2 Ready
      Ready=True Converged: revision 2 runs on 2 of 2 hosts
    ");
}
