//! What concerns one Host, Service or source, and leaves the others alone; and what a long rollout sees of the rest.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use windlass_crds::condition::Reason;
use windlass_crds::id::{HostId, Sequence};
use windlass_crds::observation::UnitFile;
use windlass_crds::request::Request;
use windlass_crds::status::HostState;
use windlass_crds::step::Step;
use windlass_hosts::fleet::{Fleet as _, Order, Stamp};
use windlass_hosts::memory::{Call, Called, HostSettings, Link};
use windlass_store::{Key, StoreRevision};

use crate::world::{World, resource};

const WEB: &str = "services/default/web";

/// Where a Host leads to after its address was edited.
const OTHER: &str = "198.18.0.99";

/// Version 1 runs on these hosts.
async fn running(hosts: &[&str], more: &str) -> anyhow::Result<World> {
    let world = World::start(hosts).await?;
    world.write("server.py", "print(1)");
    world.apply("web", more).await?;
    world.settles("web", Reason::Converged).await?;
    Ok(world)
}

/// When a status was last written.
async fn written(world: &World, path: &str) -> anyhow::Result<Option<StoreRevision>> {
    Ok(world.store.get(&Key::Status(resource(path))).await?.map(|entry| entry.mod_revision))
}

/// Gives web1 the address of another machine.
async fn lead_elsewhere(world: &World) -> anyhow::Result<()> {
    let text = format!(
        "apiVersion: windlass/v1\nkind: Host\nmetadata: {{name: web1, labels: {{role: web}}}}\nspec: {{address: {OTHER}}}\n"
    );
    world.store.declare(&resource("hosts/web1"), text.into()).await?;
    Ok(())
}

/// Waits until web1's old machine is rid of the service and the other one serves, and looks at what is recorded.
async fn has_moved(world: &World) -> anyhow::Result<()> {
    let unit = |address: &str| world.fleet.peek(address, &World::key("web")).service.unit;
    let moved = async || unit(OTHER) != UnitFile::Absent && unit("198.18.0.1") == UnitFile::Absent;
    if let Err(error) = world.until("the service to be on the new machine alone", moved).await {
        anyhow::bail!("{error:#}\nowned: {:#?}\nstatus: {:#?}", world.owned("web").await?, world.status("web").await?);
    }
    world.settles("web", Reason::Converged).await?;
    assert!(world.fleet.serves(OTHER, &World::key("web")));
    assert!(world.fleet.serves("web2", &World::key("web")));
    let owned = world.owned("web").await?;
    let web1: HostId = "web1".parse()?;
    assert_eq!(owned.hosts[&web1].target.address, OTHER, "{owned:?}");
    assert_eq!(owned.hosts.len(), 2, "{owned:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_another_address_is_another_machine_and_the_old_one_is_cleared() -> anyhow::Result<()> {
    let world = running(&["web1", "web2"], "").await?;
    world.fleet.add(OTHER, HostSettings::default());
    lead_elsewhere(&world).await?;
    has_moved(&world).await?;
    world.stop().await
}

/// What is seen of a machine is never taken for what its Host leads to since: the way to the old one would be lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_that_is_under_way_while_the_address_changes_is_of_the_old_machine() -> anyhow::Result<()> {
    let world = running(&["web1", "web2"], "").await?;
    world.fleet.add(OTHER, HostSettings::default());
    // Longer than a look is waited for before the rest goes on.
    world.fleet.set_pace(|address, call| match (address, call) {
        ("198.18.0.1", Call::Observe) => Duration::from_secs(2),
        _ => Duration::ZERO,
    });
    world.fleet.clear_calls();
    world.ask(WEB, &Request::Reconcile).await?;
    let of_old = |called: &Called| called.address == "198.18.0.1" && called.call == Call::Observe;
    let under_way = async || world.fleet.calls().iter().any(|called| of_old(called) && called.ended.is_none());
    world.until("a look at the old machine to be under way", under_way).await?;
    lead_elsewhere(&world).await?;
    has_moved(&world).await?;
    world.stop().await
}

/// Of a host that is well nothing is written because a Service of another host changes.
#[tokio::test(flavor = "multi_thread")]
async fn what_happens_on_one_host_writes_nothing_of_another() -> anyhow::Result<()> {
    let world = running(&["web1", "web2"], "").await?;
    let api = |argument: &str| {
        format!(
            "apiVersion: windlass/v1\nkind: Service\nmetadata: {{name: api}}\nspec:\n  placement: {{hosts: [web2]}}\n  source: {{path: {}}}\n  runtime: {{target: python, entryPoint: server.py, args: [\"{argument}\"]}}\n  network: {{port: 8081, transport: http}}\n  health: {{endpoint: /health, interval: 1s, healthyThreshold: 1}}\n  rollout: {{minHealthyTime: 0s}}\n",
            world.source().display()
        )
    };
    world.store.declare(&resource("services/default/api"), api("a").into()).await?;
    world.settles_at("api", Reason::Converged, 1).await?;
    let reached = async || matches!(written(&world, "hosts/web1").await, Ok(Some(_)));
    world.until("web1 to have a status", reached).await?;
    let paths = ["hosts/web1", "hosts/web2", WEB];
    let mut before = Vec::new();
    for path in paths {
        before.push(written(&world, path).await?);
    }
    let owned = world.store.get(&Key::Owned(World::key("web"))).await?.map(|entry| entry.mod_revision);
    for (revision, argument) in [(2, "b"), (3, "c")] {
        world.store.declare(&resource("services/default/api"), api(argument).into()).await?;
        world.settles_at("api", Reason::Converged, revision).await?;
    }
    for (path, before) in paths.into_iter().zip(before) {
        assert_eq!(written(&world, path).await?, before, "{path}");
    }
    let after = world.store.get(&Key::Owned(World::key("web"))).await?.map(|entry| entry.mod_revision);
    assert_eq!(after, owned, "what web owns");
    world.stop().await
}

/// A host that waits for its turn is looked at again meanwhile: that it went away is told long before.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_goes_away_in_a_long_rollout_is_told_before_its_turn() -> anyhow::Result<()> {
    let slow = "    minHealthyTime: 40s\n";
    let world = World::start(&["web1", "web2"]).await?;
    world.write("server.py", "print(1)");
    world.apply("web", "").await?;
    world.settles("web", Reason::Converged).await?;
    world.apply_with_rollout("web", slow).await?;
    world.write("server.py", "print(2)");
    world.until("web1 to be switched", async || world.revisions("web")[0] == 2).await?;
    world.fleet.set_link("web2", Link::refused());
    let since = Instant::now();
    let told = async || {
        let status = world.status("web").await.ok().flatten().unwrap_or_default();
        status.hosts.iter().any(|(host, row)| host.to_string() == "web2" && row.state == HostState::Unreachable)
    };
    world.until("web2 to be told as out of reach", told).await?;
    // Looked at every 10 s.
    assert!(since.elapsed() < Duration::from_secs(20), "only after {:?}", since.elapsed());
    assert_eq!(world.fleet.peek("web1", &World::key("web")).service.good.map(|good| good.0), Some(1));
    world.stop().await
}

/// A source is looked at at its interval, and at once when somebody asks.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_looked_at_when_it_is_due_or_asked_for() -> anyhow::Result<()> {
    let world = running(&["web1"], "").await?;
    world.write("server.py", "print(2)");
    world.settles_at("web", Reason::Converged, 2).await?;
    let text = world.declared("web").await?.replace("{interval: 1s}", "{interval: 1h}");
    world.store.declare(&resource(WEB), text.into()).await?;
    world.ask(WEB, &Request::Reconcile).await?;
    world.write("server.py", "print(3)");
    // Several looks at the interval that it had.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(world.revisions("web"), [2], "an hour is not over");
    world.ask(WEB, &Request::Reconcile).await?;
    world.settles_at("web", Reason::Converged, 3).await?;
    world.stop().await
}

/// The one who led before may still have been at a host between our look and our stamp: its records tell, and it is
/// looked at again.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_between_look_and_stamp_is_looked_at() -> anyhow::Result<()> {
    let world = running(&["web1"], "").await?;
    let stamps = |sequence: u64| {
        let line = format!("web1 stamp under {sequence}: ok");
        world.fleet.changes().iter().filter(|change| **change == line).count()
    };
    world.write("server.py", "print(2)");
    world.settles_at("web", Reason::Converged, 2).await?;
    assert_eq!(stamps(2), 1, "nobody else was there");

    // The third rollout's stamp is on its way for as long as the one before needs to get there first.
    let slow = |call| if call == Call::Stamp { Duration::from_secs(4) } else { Duration::ZERO };
    world.fleet.set_pace(move |_, call| slow(call));
    world.write("server.py", "print(3)");
    world.ask_to_look(WEB).await?;
    let on_its_way = async || {
        let stamp = |called: &Called| called.call == Call::Stamp && called.sequence == Some(Sequence(3));
        world.fleet.calls().iter().any(stamp)
    };
    world.until("the stamp to be on its way", on_its_way).await?;
    world.fleet.set_pace(|_, _| Duration::ZERO);
    let stamp = Stamp { sequence: Sequence(2), cluster: world.store.cluster_id().await? };
    let order = Order {
        service: World::key("web"),
        stamp,
        step: Step::Stop,
        force_after: Duration::from_secs(1),
        confirm_within: Duration::from_secs(60),
    };
    world.fleet.act(&world.fleet.target("web1"), &order).await.context("the one before is still heard")?;
    world.settles_at("web", Reason::Converged, 3).await?;
    let changes = world.fleet.changes();
    assert_eq!(stamps(3), 2, "{changes:#?}");
    world.stop().await
}
