//! A Host that leads to another machine than before.

use std::sync::Arc;

use insta::assert_snapshot;
use windlass_crds::id::HostId;
use windlass_planner::input::Placement;

use crate::machine::Machine;
use crate::picture::story;
use crate::world::World;

fn first() -> World {
    let mut world = World::empty("a b").declare('A');
    world.settle();
    world.log.clear();
    world
}

fn id(name: &str) -> HostId {
    name.parse().expect(name)
}

/// Another machine answers under this name, with nothing on it.
fn replace(world: &mut World, name: &str) -> String {
    let old = std::mem::replace(world.host(name), Machine::new("new"));
    old.id
}

/// What is said of machines when it is found out.
fn told(world: &World) -> String {
    let lines: Vec<String> = world.plan().left_behind.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

#[test]
fn a_machine_that_is_replaced_is_named_and_stays_named() {
    let mut world = first();
    replace(&mut world, "a");
    assert_snapshot!(told(&world), @"a is machine 000000000000000000000000006e6577 now, and was 00000000000000000000000000000061 when the service was put there; what 00000000000000000000000000000061 still runs, wherever it is, was left behind");
    let end = world.settle();
    assert!(end.left_behind.is_empty(), "it is news once");
    assert_snapshot!(story(&world, &end), @"
    2 Repair to 1
    stamp a b with 2
    a stage 1
    a activate 1
    a healthy
    a confirm 1
    2 Succeeded
    => to v1; keep
      a: v1 Ready (another machine was here before, and what it runs was left behind: 00000000000000000000000000000061)
      b: v1 Ready
      Ready=True Converged: revision 1 runs on 2 of 2 hosts
    ");
    // The next one, and then the first one again: it is where it was put.
    let first = world.owned.hosts[&id("a")].former[0].clone();
    *world.host("a") = Machine::new("other");
    world.settle();
    assert_eq!(world.owned.hosts[&id("a")].former.len(), 2);
    world.host("b").id = first.to_string();
    world.settle();
    assert!(!world.owned.hosts[&id("a")].former.contains(&first), "it is in sight again");
}

#[test]
fn where_the_host_has_another_address_it_is_taken_off_the_old_one() {
    let mut world = first();
    let old = replace(&mut world, "a");
    let target = Arc::make_mut(&mut world.owned.hosts.get_mut(&id("a")).expect("it is owned").target);
    (target.address, target.remote_dir) = ("old.example".to_owned(), Some("/srv/windlass".to_owned()));
    assert_snapshot!(told(&world), @"a is machine 000000000000000000000000006e6577 now, and was 00000000000000000000000000000061 when the service was put there; it is taken off 00000000000000000000000000000061 at old.example:22");
    world.settle();
    let left = &world.owned.hosts[&id("old.example:22")];
    assert_eq!(left.machine.as_ref().map(ToString::to_string), Some(old));
    assert_eq!(left.target.remote_dir.as_deref(), Some("/srv/windlass"), "it is reached as before");
    assert!(world.owned.hosts[&id("a")].former.is_empty());
}

#[test]
fn two_that_change_places_are_where_they_were_put() {
    let mut world = first();
    let a = world.host("a").clone();
    *world.host("a") = world.hosts["b"].clone();
    *world.host("b") = a;
    assert_eq!(told(&world), "");
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @"
    => to v1; keep
      a: v1 Ready
      b: v1 Ready
      Ready=True Converged: revision 1 runs on 2 of 2 hosts
    ");
}

#[test]
fn nothing_is_taken_off_a_machine_that_it_was_not_put_on() {
    let mut world = first();
    replace(&mut world, "a");
    world.host("a").hold(1, crate::world::release('A'));
    world.delete();
    assert_snapshot!(told(&world), @"a is machine 000000000000000000000000006e6577 now, and was 00000000000000000000000000000061 when the service was put there; what 00000000000000000000000000000061 still runs, wherever it is, was left behind");
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @"
    deleted
    2 Removal
    stamp b with 2
    b remove
    2 Succeeded
    => off the hosts; close as Succeeded; gone
      Ready=False Removing: the declaration is gone; the service is being taken down
      Available=False Removing: 0 of 0 hosts serve
    ");
    assert!(world.hosts["a"].seen.present, "it is somebody else's");
}

/// As where a Host gets another address: the old place is left only once the new one serves, and keeps its data.
#[test]
fn what_moves_serves_where_it_was_until_it_serves_where_it_shall_be() {
    let mut world = World::empty("a b");
    world.host("b").placement = Placement::Unplaced;
    world.set_files('A');
    world.settle();
    world.log.clear();
    world.spec.purge_data = true;
    world.host("a").placement = Placement::Unplaced;
    world.host("b").placement = Placement::Placed;
    let end = world.settle();
    let told = story(&world, &end);
    let at = |line: &str| told.find(line).unwrap_or_else(|| panic!("no {line} in {told}"));
    assert!(at("b confirm 1") < at("a remove"), "{told}");
    assert!(!world.hosts["a"].seen.present, "{told}");
    assert!(!world.hosts["a"].data_purged, "the service is not removed, it has moved");
}

#[test]
fn who_serves_what_was_good_before_since_the_next_one_failed_there_serves() {
    let mut world = World::empty("a b").max_failures(1).declare('A').bad("b", 'B');
    world.host("b").placement = Placement::Unplaced;
    world.settle();
    world.set_files('B');
    world.host("a").placement = Placement::Unplaced;
    world.host("b").placement = Placement::Placed;
    world.log.clear();
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @"
    2 Deploy to 2
    stamp a b with 2
    b stage 2
    b activate 2
    b unhealthy
    2 Active
    b stage 1
    b revert 1
    b healthy
    b confirm 1
    a remove
    2 Halted
    => to v2; keep
      b: v1 HeldBack (revision 2 was unhealthy here: it answers 500)
      Ready=False HeldBack: b: revision 2 was unhealthy here: it answers 500; it was taken back there alone, within maxFailures: `windlass rollout retry` tries it again
      Stalled=True HeldBack: b: revision 2 was unhealthy here: it answers 500; it was taken back there alone, within maxFailures: `windlass rollout retry` tries it again
      Degraded=True HeldBack: b: revision 2 was unhealthy here: it answers 500; it was taken back there alone, within maxFailures: `windlass rollout retry` tries it again
    ");
}
