//! What is declared cannot be had: what runs goes on, and what was blocked stays blocked.

use insta::assert_snapshot;
use windlass_crds::condition::Reason;
use windlass_crds::id::RevisionNumber;
use windlass_crds::record::Owned;
use windlass_planner::input::Complaint;

use crate::notation::drift;
use crate::picture::{draw, story};
use crate::world::World;

fn away(world: &mut World) {
    world.files = None;
    let message = "/srv/web: No such file or directory".to_owned();
    world.complaint = Some(Complaint { reason: Reason::SourceUnavailable, message });
    world.log.push("source away".to_owned());
}

fn back(world: &mut World, files: char) {
    world.complaint = None;
    world.set_files(files);
}

fn first() -> World {
    let mut world = World::empty("a b").declare('A');
    world.settle();
    world.log.clear();
    world
}

#[test]
fn what_runs_goes_on_and_is_repaired() {
    let mut world = first();
    away(&mut world);
    drift(world.host("a"), 'f');
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @r"
    source away
    2 Repair to 1
    stamp a b with 2
    a stage 1
    a activate 1
    a healthy
    a confirm 1
    2 Succeeded
    => to v1; keep
      a: v1 Ready
      b: v1 Ready
      Ready=False SourceUnavailable: /srv/web: No such file or directory
      Stalled=True SourceUnavailable: /srv/web: No such file or directory
    ");
}

#[test]
fn a_source_that_goes_away_in_mid_rollout_stops_nothing() {
    let mut world = first().declare('B');
    world.until_logged("a confirm 2");
    away(&mut world);
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @r"
    declared B
    2 Deploy to 2
    stamp a b with 2
    a stage 2
    b stage 2
    a activate 2
    a healthy
    a confirm 2
    source away
    b activate 2
    b healthy
    b confirm 2
    2 Succeeded
    => to v2; keep
      a: v2 Ready
      b: v2 Ready
      Ready=False SourceUnavailable: /srv/web: No such file or directory
      Stalled=True SourceUnavailable: /srv/web: No such file or directory
    ");
}

#[test]
fn what_is_blocked_stays_blocked_over_a_source_that_goes_away_and_comes_back() {
    let mut world = first().declare('B').bad("a", 'B');
    world.settle();
    world.log.clear();
    away(&mut world);
    world.settle();
    back(&mut world, 'B');
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @r"
    source away
    declared B
    => back to v1 from v2; keep
      a: v1 Ready
      b: v1 Ready
      Ready=False RolledBack: revision 2 was unhealthy on a: it answers 500; went back to revision 1, which runs on 2 of 2 hosts; declare something else or `windlass rollout retry`
      Stalled=True RolledBack: revision 2 was unhealthy on a: it answers 500; went back to revision 1, which runs on 2 of 2 hosts; declare something else or `windlass rollout retry`
    ");
}

/// The block was for another health check; the files are the same, so is the revision.
#[test]
fn what_was_blocked_and_is_well_by_now_is_not_taken_back_when_the_source_goes_away() {
    let mut world = first().declare('B').bad("a", 'B');
    world.settle();
    world.bad.clear();
    world.spec.health.as_mut().expect("a health section").endpoint = Some("/healthz".to_owned());
    world.settle();
    world.log.clear();
    away(&mut world);
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @r"
    source away
    => to v2; keep
      a: v2 Ready
      b: v2 Ready
      Ready=False SourceUnavailable: /srv/web: No such file or directory
      Stalled=True SourceUnavailable: /srv/web: No such file or directory
    ");
}

#[test]
fn nothing_was_ever_read() {
    let mut world = World::empty("a b");
    away(&mut world);
    let plan = world.settle();
    assert_snapshot!(draw(&plan), @r"
    nowhere yet; keep
    a: - Pending
    b: - Pending
    Ready=False SourceUnavailable: /srv/web: No such file or directory
    Stalled=True SourceUnavailable: /srv/web: No such file or directory
    Available=False HostUnhealthy: 0 of 2 hosts serve
    ");
}

/// Only the environment is other by the time that the verdict on the old one comes in.
#[test]
fn a_verdict_on_what_was_declared_before_does_not_block_what_is_declared_now() {
    let mut world = first().declare('B').bad("a", 'B');
    world.until_logged("a activate 2");
    world.spec.runtime.env.insert("MODE".to_owned(), "careful".to_owned());
    world.until_logged("Unhealthy");
    world.bad.clear();
    let end = world.settle();
    assert_snapshot!(story(&world, &end), @r"
    declared B
    2 Deploy to 2
    stamp a b with 2
    a stage 2
    b stage 2
    a activate 2
    a unhealthy
    2 Unhealthy
    3 Deploy to 3, a in doubt
    stamp a b with 3
    a stage 3
    b stage 3
    a activate 3
    a healthy
    a confirm 3
    b activate 3
    b healthy
    b confirm 3
    3 Succeeded
    => to v3; keep
      a: v3 Ready
      b: v3 Ready
      Ready=True Converged: revision 3 runs on 2 of 2 hosts
    ");
}

/// Whoever has left it there, nothing could be recorded under its number.
#[test]
fn what_is_recorded_and_not_owned_keeps_its_number() {
    let mut world = World::of("a=- b=-").declare('E');
    world.owned = Owned::default();
    assert_eq!(world.plan().new_revision.map(|new| new.number), Some(RevisionNumber(5)));
    world.revisions.clear();
    assert_eq!(world.plan().new_revision.map(|new| new.number), Some(RevisionNumber(1)));
}
