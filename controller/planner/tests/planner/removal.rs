//! Removals: of a declaration, of a host, held by the brake or gone on with.

use insta::assert_snapshot;
use windlass_crds::service::DeletionPolicy;
use windlass_planner::input::{Placement, RemovalGate};

use crate::machine::Link;
use crate::picture::{draw, story};
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

fn deleted(mut world: World) -> World {
    world.delete();
    world
}

#[test]
fn a_deleted_declaration_is_taken_off_all_hosts() {
    assert_snapshot!(ran(deleted(first())), @r"
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
fn data_goes_only_where_the_declaration_says_so() {
    let mut world = deleted(first());
    world.settle();
    assert!(!world.hosts["a"].data_purged);
    let mut world = first();
    world.spec.purge_data = true;
    world.delete();
    world.settle();
    assert!(world.hosts.values().all(|machine| machine.data_purged));
}

#[test]
fn a_host_out_of_reach_is_remembered_until_it_is_rid_of_it() {
    let mut world = first();
    world.host("b").link = Link::Cut;
    world.delete();
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @r"
    deleted
    2 Removal
    stamp a c with 2
    a remove
    c remove
    2 Succeeded
    => off the hosts; keep
      b: - Unreachable (no answer within 10 s)
      Ready=False Removing: the declaration is gone; the service is being taken down
      Available=Unknown HostUnreachable: 0 of 0 hosts serve
      Degraded=True HostUnreachable: b: no answer within 10 s
    ");
    world.log.clear();
    world.host("b").link = Link::Up;
    assert_snapshot!(ran(world), @r"
    3 Removal
    stamp b with 3
    b remove
    3 Succeeded
    => off the hosts; close as Succeeded; gone
      Ready=False Removing: the declaration is gone; the service is being taken down
      Available=False Removing: 0 of 0 hosts serve
    ");
}

#[test]
fn kept_means_disowned_and_left_running() {
    let mut world = first();
    world.spec.deletion_policy = DeletionPolicy::Keep;
    world.delete();
    assert_snapshot!(ran(world.clone()), @r"
    deleted
    => off the hosts; keep; gone
      Ready=False Removing: the declaration is gone; the service is being taken down
    ");
    // Of a service that is still declared, a host that is not chosen any more is cleared in any case.
    let mut world = first();
    world.spec.deletion_policy = DeletionPolicy::Keep;
    world.host("c").placement = Placement::Unplaced;
    assert_snapshot!(ran(world), @r"
    2 Repair to 1
    stamp a b c with 2
    c remove
    2 Succeeded
    => to v1; keep
      a: v1 Ready
      b: v1 Ready
      Ready=True Converged: revision 1 runs on 2 of 2 hosts
    ");
}

#[test]
fn deleted_in_mid_rollout() {
    let mut world = first().declare('B');
    world.until_logged("a activate 2");
    world.delete();
    assert_snapshot!(ran(world), @r"
    declared B
    2 Deploy to 2
    stamp a b c with 2
    a stage 2
    b stage 2
    c stage 2
    a activate 2
    deleted
    a healthy
    a confirm 2
    2 Superseded
    3 Removal
    stamp a b c with 3
    a remove
    b remove
    c remove
    3 Succeeded
    => off the hosts; close as Succeeded; gone
      Ready=False Removing: the declaration is gone; the service is being taken down
      Available=False Removing: 0 of 0 hosts serve
    ");
}

#[test]
fn deleted_while_a_first_deploy_is_being_stopped() {
    let mut world = World::empty("a b").declare('A').bad("a", 'A');
    world.until_logged("Rollback, a in doubt");
    world.delete();
    assert_snapshot!(ran(world), @r"
    declared A
    1 Deploy to 1
    stamp a b with 1
    a stage 1
    b stage 1
    a activate 1
    b activate 1
    a unhealthy
    1 Unhealthy
    b healthy
    b confirm 1
    2 Rollback, a in doubt
    deleted
    2 Superseded
    3 Removal, a in doubt
    stamp a b with 3
    a remove
    b remove
    3 Succeeded
    => off the hosts; close as Succeeded; gone
      Ready=False Removing: the declaration is gone; the service is being taken down
      Available=False Removing: 0 of 0 hosts serve
    ");
}

#[test]
fn declared_again_in_mid_removal() {
    let mut world = deleted(first());
    world.until_logged("a remove");
    world.declared = true;
    for machine in world.hosts.values_mut() {
        machine.placement = Placement::Placed;
    }
    assert_snapshot!(ran(world), @r"
    deleted
    2 Removal
    stamp a b c with 2
    a remove
    b remove
    c remove
    2 Superseded
    3 Repair to 1
    stamp a b c with 3
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
    3 Succeeded
    => to v1; keep
      a: v1 Ready
      b: v1 Ready
      c: v1 Ready
      Ready=True Converged: revision 1 runs on 3 of 3 hosts
    ");
}

#[test]
fn the_brake_holds_until_a_person_agrees() {
    let mut world = deleted(first());
    world.removals = RemovalGate::Held;
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @r"
    deleted
    => off the hosts; keep
      a: v1 Removing (waits for `windlass confirm-removal`)
      b: v1 Removing (waits for `windlass confirm-removal`)
      c: v1 Removing (waits for `windlass confirm-removal`)
      Ready=False RemovalNeedsConfirmation: removal from a, b, c waits for `windlass confirm-removal`: it may be a slip, since so much else would go too or the selector matches nothing any more
      Stalled=True RemovalNeedsConfirmation: removal from a, b, c waits for `windlass confirm-removal`: it may be a slip, since so much else would go too or the selector matches nothing any more
    ");
    world.log.clear();
    world.owned.confirmed_removals.insert("b".parse().expect("a name"));
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @r"
    2 Removal
    stamp a b c with 2
    b remove
    2 Succeeded
    => off the hosts; keep
      a: v1 Removing (waits for `windlass confirm-removal`)
      c: v1 Removing (waits for `windlass confirm-removal`)
      Ready=False RemovalNeedsConfirmation: removal from a, c waits for `windlass confirm-removal`: it may be a slip, since so much else would go too or the selector matches nothing any more
      Stalled=True RemovalNeedsConfirmation: removal from a, c waits for `windlass confirm-removal`: it may be a slip, since so much else would go too or the selector matches nothing any more
    ");
    // What was agreed is forgotten once it is done.
    assert!(world.owned.confirmed_removals.is_empty());
}

#[test]
fn a_selector_that_matches_nothing_any_more_waits_and_says_so() {
    let mut world = first();
    for machine in world.hosts.values_mut() {
        machine.placement = Placement::Unplaced;
    }
    world.removals = RemovalGate::Held;
    let end = world.settle();
    assert_snapshot!(draw(&end), @r"
    to v1; keep
    a: v1 Removing (waits for `windlass confirm-removal`)
    b: v1 Removing (waits for `windlass confirm-removal`)
    c: v1 Removing (waits for `windlass confirm-removal`)
    Ready=False RemovalNeedsConfirmation: removal from a, b, c waits for `windlass confirm-removal`: it may be a slip, since so much else would go too or the selector matches nothing any more
    Stalled=True RemovalNeedsConfirmation: removal from a, b, c waits for `windlass confirm-removal`: it may be a slip, since so much else would go too or the selector matches nothing any more
    ");
    world.log.clear();
    let names = ["a", "b", "c"].map(|name| name.parse().expect("a name"));
    world.owned.confirmed_removals.extend(names);
    assert_snapshot!(ran(world), @r"
    2 Repair to 1
    stamp a b c with 2
    a remove
    b remove
    c remove
    2 Succeeded
    => to v1; keep
      Ready=False NoHosts: it is placed on no host
      Available=False NoHosts: 0 of 0 hosts serve
    ");
}

#[test]
fn a_host_that_is_not_chosen_any_more_is_cleared_while_the_others_are_switched() {
    let mut world = first().declare('B');
    world.host("a").placement = Placement::Unplaced;
    let end = world.settle();
    assert!(!world.owned.hosts.contains_key(&"a".parse().expect("a name")));
    assert_snapshot!(story(&world, &end), @r"
    declared B
    2 Deploy to 2
    stamp a b c with 2
    b stage 2
    c stage 2
    b activate 2
    b healthy
    b confirm 2
    a remove
    c activate 2
    c healthy
    c confirm 2
    2 Succeeded
    => to v2; keep
      b: v2 Ready
      c: v2 Ready
      Ready=True Converged: revision 2 runs on 2 of 2 hosts
    ");
}

#[test]
fn a_dead_host_that_is_not_chosen_any_more_keeps_nobody_from_being_ready() {
    let mut world = first();
    world.host("a").placement = Placement::Unplaced;
    world.host("a").link = Link::Cut;
    assert_snapshot!(draw(&world.settle()), @r"
    to v1; keep
    a: - Unreachable (no answer within 10 s)
    b: v1 Ready
    c: v1 Ready
    Ready=True Converged: revision 1 runs on 2 of 2 hosts
    Degraded=True HostUnreachable: a: no answer within 10 s
    ");
}

#[test]
fn a_host_that_was_never_reached_leaves_nothing_to_remove() {
    let mut world = World::empty("a typo").declare('A');
    world.host("typo").link = Link::Cut;
    world.settle();
    world.host("typo").placement = Placement::Unplaced;
    assert_snapshot!(draw(&world.settle()), @r"
    to v1; keep
    a: v1 Ready
    Ready=True Converged: revision 1 runs on 1 of 1 hosts
    ");
}

fn renamed() -> World {
    let mut world = first();
    let mut twin = world.hosts["a"].clone();
    twin.placement = Placement::Placed;
    world.hosts.insert("z".to_owned(), twin);
    world.host("a").placement = Placement::Unplaced;
    world
}

#[test]
fn a_host_that_gets_another_name_keeps_what_runs() {
    let mut world = renamed();
    let end = world.settle();
    assert!(world.log.is_empty(), "{:?}", world.log);
    assert_snapshot!(draw(&end), @r"
    to v1; keep
    b: v1 Ready
    c: v1 Ready
    z: v1 Ready
    Ready=True Converged: revision 1 runs on 3 of 3 hosts
    ");
    // Cloned machines share a machine id, and are two.
    let mut world = renamed();
    world.host("a").boot = "ffffffff".to_owned();
    assert_snapshot!(draw(&world.settle()), @r"
    to v1; keep
    a: v1 Removing (it goes by the name of z now)
    b: v1 Ready
    c: v1 Ready
    z: v1 Ready
    Ready=True Converged: revision 1 runs on 3 of 3 hosts
    ");
}

#[test]
fn a_machine_with_two_names_is_cleared_once() {
    let mut world = first();
    let (id, boot) = (world.hosts["a"].id.clone(), world.hosts["a"].boot.clone());
    let twin = world.host("b");
    (twin.id, twin.boot) = (id, boot);
    let [a, b] = ["a", "b"].map(|name| name.parse().expect(name));
    let machine = world.owned.hosts[&a].machine.clone();
    world.owned.hosts.get_mut(&b).expect("it is owned").machine = machine;
    world.delete();
    world.until_logged("a remove");
    // One machine: what is gone under one name is gone under the other.
    world.host("b").seen = world.hosts["a"].seen.clone();
    assert_snapshot!(ran(world), @r"
    deleted
    2 Removal
    stamp a b c with 2
    a remove
    c remove
    2 Succeeded
    => off the hosts; keep; gone
      Ready=False Removing: the declaration is gone; the service is being taken down
      Available=False Removing: 0 of 0 hosts serve
    ");
}

#[test]
fn what_was_disowned_is_no_revision_of_what_is_declared_anew() {
    let mut world = first();
    world.spec.deletion_policy = DeletionPolicy::Keep;
    world.delete();
    assert!(world.settle().gone);
    world.owned = windlass_crds::record::Owned::default();
    world.revisions.clear();
    world.rollout = None;
    // The same files, and other settings: a host that only goes by the number would run what was kept.
    world.spec.runtime.args.push("--other".to_owned());
    world.declared = true;
    for machine in world.hosts.values_mut() {
        machine.placement = Placement::Placed;
    }
    let end = world.settle();
    assert_eq!(end.declared, Some(windlass_crds::id::RevisionNumber(2)));
    let rows: Vec<_> = end.report.hosts.values().map(|row| row.revision).collect();
    assert_eq!(rows, [end.declared; 3]);
}

#[test]
fn a_host_that_another_store_has_taken_keeps_no_removal_open() {
    let mut world = deleted(first());
    world.host("b").link = crate::machine::Link::Foreign;
    assert!(world.settle().gone, "{:?}", world.log);
}
