//! The engine on a real etcd and on hosts in memory.

mod apart;
mod audit;
mod contact;
mod documents;
mod gate;
mod observe;
mod people;
mod refusals;
mod stopping;
mod strategies;
mod transport;
mod world;

use windlass_crds::condition::Reason;
use windlass_hosts::memory::{Behaviour, Edit, FileChange, Link};
use world::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_service_gets_to_three_hosts_and_back_when_it_is_not_well() -> anyhow::Result<()> {
    let world = World::start(&["web1", "web2", "web3"]).await?;
    world.write("server.py", "print(1)");
    world.apply("web", "").await?;
    world.settles("web", Reason::Converged).await?;
    assert_eq!(world.revisions("web"), [1, 1, 1]);

    // A source change rolls out by itself, one host at a time.
    world.write("server.py", "print(2)");
    world.settles_at("web", Reason::Converged, 2).await?;
    assert_eq!(world.fleet.max_down(&World::key("web")), 1);

    // A bad version goes back, and stays away.
    world.fleet.choose_behaviours(|program| {
        let bad = program.revision.0 == 3;
        if bad { Behaviour::unhealthy(500) } else { Behaviour::default() }
    });
    world.write("server.py", "print('bad')");
    world.settles("web", Reason::RolledBack).await?;
    assert_eq!(world.revisions("web"), [2, 2, 2]);
    assert_eq!(world.fleet.max_down(&World::key("web")), 1);
    let status = world.status("web").await?.expect("a status");
    assert_eq!(status.failure.expect("a failure").revision.0, 3);

    // Another change lifts the block.
    world.write("server.py", "print(4)");
    world.settles_at("web", Reason::Converged, 4).await?;
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_deploy_that_is_not_well_is_stopped() -> anyhow::Result<()> {
    let world = World::start(&["web1"]).await?;
    world.fleet.choose_behaviours(|_| Behaviour::exits_at_once());
    world.write("server.py", "exit(1)");
    world.apply("web", "").await?;
    world.settles("web", Reason::FirstDeployUnhealthy).await?;
    assert!(!world.fleet.serves("web1", &World::key("web")));
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_out_of_reach_holds_nobody_up() -> anyhow::Result<()> {
    let world = World::start(&["web1", "web2"]).await?;
    world.fleet.set_link("web1", Link::partitioned());
    world.write("server.py", "print(1)");
    world.apply("web", "").await?;
    world.settles("web", Reason::HostUnreachable).await?;
    assert!(world.fleet.serves("web2", &World::key("web")));
    world.fleet.set_link("web1", Link::Up);
    world.settles("web", Reason::Converged).await?;
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_is_taken_down_and_forgotten() -> anyhow::Result<()> {
    let world = World::start(&["web1", "web2"]).await?;
    world.write("server.py", "print(1)");
    world.apply("web", "").await?;
    world.settles("web", Reason::Converged).await?;
    world.delete("web").await?;
    world.vanishes("web").await?;
    assert!(!world.fleet.peek("web1", &World::key("web")).service.present);
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_controller_writes_nothing() -> anyhow::Result<()> {
    let world = World::start(&["web1", "web2"]).await?;
    world.write("server.py", "print(1)");
    world.apply("web", "").await?;
    world.settles("web", Reason::Converged).await?;
    // What was told at once, by several, may have to be anchored by itself.
    audit::is_whole(&world).await?;
    let before = world.etcd.revision()?;
    // Several looks at the source and at health go by.
    let looks = world.fleet.calls().len();
    world.until("eight more looks", async || world.fleet.calls().len() > looks + 8).await?;
    assert_eq!(world.etcd.revision()?, before);
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_systemd_cannot_start_goes_back_too() -> anyhow::Result<()> {
    let world = World::start(&["web1", "web2"]).await?;
    world.write("server.py", "print(1)");
    world.apply("web", "").await?;
    world.settles("web", Reason::Converged).await?;
    world.fleet.choose_behaviours(|program| match program.revision.0 {
        2 => Behaviour::start_fails(),
        _ => Behaviour::default(),
    });
    world.write("server.py", "print('cannot start')");
    world.settles("web", Reason::RolledBack).await?;
    assert_eq!(world.revisions("web"), [1, 1]);
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn another_term_says_nothing_before_it_has_looked() -> anyhow::Result<()> {
    let world = World::start(&["web1", "web2"]).await?;
    world.write("server.py", "print(1)");
    world.apply("web", "").await?;
    world.settles("web", Reason::Converged).await?;
    let before = world.status("web").await?;
    let calls = world.fleet.calls().len();
    let world = world.restart().await?;
    world.until("both hosts to be looked at", async || world.fleet.calls().len() > calls + 4).await?;
    assert_eq!(world.status("web").await?, before);
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_way_back_is_brought_again() -> anyhow::Result<()> {
    let world = World::start(&["web1", "web2"]).await?;
    world.write("server.py", "print(1)");
    world.apply("web", "").await?;
    world.settles("web", Reason::Converged).await?;
    // Size and time are put back, so that only the hashes tell, and those are read before going back.
    let edit = Edit::File { path: "server.py".to_owned(), how: FileChange::Hidden };
    world.fleet.edit("web1", &World::key("web"), edit);
    world.fleet.choose_behaviours(|program| match program.revision.0 {
        2 => Behaviour::unhealthy(500),
        _ => Behaviour::default(),
    });
    world.write("server.py", "print('bad')");
    world.settles("web", Reason::RolledBack).await?;
    assert_eq!(world.revisions("web"), [1, 1]);
    let again = |line: &String| line.starts_with("web1 stage 1 under ") && !line.contains("under 1:");
    assert!(world.fleet.changes().iter().any(again), "{:#?}", world.fleet.changes());
    world.stop().await
}
