//! What people ask for: restarts, pauses, adoption; and what hosts do meanwhile that nobody asked for.

use std::time::Duration;

use windlass_crds::condition::{ConditionType, Reason};
use windlass_crds::id::{ClusterId, Sequence};
use windlass_crds::record::{Purpose, Rollout, RolloutState};
use windlass_crds::request::Request;
use windlass_crds::status::{HostStatus, condition};
use windlass_crds::step::ContactError;
use windlass_hosts::fleet::{Fleet as _, Look, Scrutiny, Stamp};
use windlass_hosts::memory::{Behaviour, Edit, FileChange, HostChange, Link};
use windlass_store::{Key, Scope, Section};

use crate::world::{World, resource};

const WEB: &str = "services/default/web";

/// Version 1 runs on these hosts.
async fn running(hosts: &[&str]) -> anyhow::Result<World> {
    let world = World::start(hosts).await?;
    world.write("server.py", "print(1)");
    world.apply("web", "").await?;
    world.settles("web", Reason::Converged).await?;
    Ok(world)
}

/// How often a host was switched to a revision.
fn switches(world: &World, host: &str) -> usize {
    let begins = format!("{host} activate ");
    world.fleet.changes().iter().filter(|line| line.starts_with(&begins)).count()
}

/// When the status of a resource was last written.
async fn written(world: &World, path: &str) -> anyhow::Result<u64> {
    let entry = world.store.get(&Key::Status(resource(path))).await?;
    Ok(entry.map_or(0, |entry| entry.mod_revision.0))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_round_once_under_a_sequence_of_its_own() -> anyhow::Result<()> {
    let world = running(&["web1", "web2", "web3"]).await?;
    world.fleet.reset_max_down(&World::key("web"));
    world.ask(WEB, &Request::Restart).await?;
    world.settles("web", Reason::Converged).await?;
    for host in ["web1", "web2", "web3"] {
        assert_eq!(switches(&world, host), 2, "{:#?}", world.fleet.changes());
    }
    assert_eq!((world.revisions("web"), world.fleet.max_down(&World::key("web"))), (vec![1, 1, 1], 1));
    let rollout = world.status("web").await?.and_then(|status| status.rollout).expect("a rollout");
    assert_eq!((rollout.purpose, rollout.state), (Purpose::Restart, RolloutState::Succeeded));
    assert_eq!(world.owned("web").await?.restart, None);
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_that_goes_wrong_ends_on_the_first_host() -> anyhow::Result<()> {
    let world = running(&["web1", "web2"]).await?;
    world.fleet.choose_behaviours(|_| Behaviour::unhealthy(500));
    world.ask(WEB, &Request::Restart).await?;
    let told = async || {
        let events = world.events().await.unwrap_or_default();
        events.iter().any(|(reason, text)| *reason == Reason::Unhealthy && text.contains("web1 was not well"))
    };
    world.until("an event that tells", told).await?;
    let owned = world.owned("web").await?;
    assert!(owned.blocked.is_empty() && owned.restart.is_none(), "{owned:?}");
    assert_eq!(switches(&world, "web2"), 1, "{:#?}", world.fleet.changes());
    // The cause is mended, and somebody asks again.
    world.fleet.choose_behaviours(|_| Behaviour::default());
    world.ask(WEB, &Request::Restart).await?;
    world.settles("web", Reason::Converged).await?;
    assert_eq!(switches(&world, "web2"), 2);
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_holds_over_controllers_and_repairs_nothing() -> anyhow::Result<()> {
    let world = running(&["web1", "web2"]).await?;
    world.ask(WEB, &Request::Pause).await?;
    let since = world.owned("web").await?.paused;
    world.ask(WEB, &Request::Pause).await?;
    assert_eq!(world.owned("web").await?.paused, since, "it is paused already");
    let ready = async |reason: Reason| {
        let status = world.status("web").await.ok().flatten().unwrap_or_default();
        condition(&status.conditions, ConditionType::Ready).is_some_and(|ready| ready.reason == reason)
    };
    assert!(ready(Reason::Converged).await, "nothing is to be done");

    let edit = Edit::File { path: "server.py".to_owned(), how: FileChange::Replaced };
    world.fleet.edit("web2", &World::key("web"), edit);
    world.ask(WEB, &Request::Reconcile).await?;
    world.until("the drift to be told", async || ready(Reason::DriftFound).await).await?;
    world.write("server.py", "print(2)");
    let seen = async || {
        world
            .status("web")
            .await
            .is_ok_and(|status| status.is_some_and(|it| it.revision.is_some_and(|number| number.0 == 2)))
    };
    world.until("the next revision to be accepted", seen).await?;
    let changes = world.fleet.changes().len();
    let world = world.restart().await?;
    world.ask(WEB, &Request::Reconcile).await?;
    assert_eq!((world.revisions("web"), world.fleet.changes().len()), (vec![1, 1], changes));

    world.ask(WEB, &Request::Resume).await?;
    world.ask(WEB, &Request::Resume).await?;
    world.settles_at("web", Reason::Converged, 2).await?;
    assert_eq!(world.owned("web").await?.paused, None);
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_of_another_store_is_adopted_by_whoever_saw_whose_it_is() -> anyhow::Result<()> {
    let world = World::start(&["web1"]).await?;
    let other: ClusterId = "feedfacefeedface".parse()?;
    let third: ClusterId = "0123456701234567".parse()?;
    // The other store's controller has come far.
    let stamp = Some(Stamp { sequence: Sequence(5000), cluster: other.clone() });
    let look = Look { service: World::key("web"), stamp, scrutiny: Scrutiny::Quick };
    world.fleet.observe(&world.fleet.target("web1"), &look).await?;
    world.write("server.py", "print(1)");
    world.apply("web", "").await?;
    world.settles("web", Reason::OwnedByAnother).await?;
    world.ask("hosts/web1", &Request::Reconcile).await?;
    let entry = world.store.get(&Key::Status(resource("hosts/web1"))).await?.expect("a status");
    let told: HostStatus = serde_json::from_slice(&entry.value)?;
    assert_eq!(told.owner.as_ref(), Some(&other));

    world.ask("hosts/web1", &Request::Adopt { owner: third }).await?;
    let refused = |(reason, text): &(Reason, String)| *reason == Reason::RequestRefused && text.contains("adopt");
    assert!(world.events().await?.iter().any(refused), "{:?}", world.events().await?);
    assert_eq!(world.fleet.peek("web1", &World::key("web")).facts.cluster.as_ref(), Some(&other));

    world.ask("hosts/web1", &Request::Adopt { owner: other }).await?;
    world.settles("web", Reason::Converged).await?;
    let rollout = world.status("web").await?.and_then(|status| status.rollout).expect("a rollout");
    assert!(rollout.sequence > Sequence(5000), "the host raises the store: {rollout:?}");
    // A Service cannot be adopted.
    world.ask(WEB, &Request::Adopt { owner: "feedfacefeedface".parse()? }).await?;
    assert!(world.events().await?.iter().any(|(_, text)| text.contains("only a Host")));
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_does_not_change_with_the_words_for_one_trouble() -> anyhow::Result<()> {
    let world = running(&["web1", "web2"]).await?;
    let refused = |detail: &str| ContactError::Refused { detail: detail.to_owned() };
    let cut = |detail: &str| {
        let link = Link::Down { error: refused(detail), after: Duration::ZERO };
        world.fleet.set_link("web1", link);
    };
    let look = async || {
        world.ask("hosts/web1", &Request::Reconcile).await?;
        world.ask(WEB, &Request::Reconcile).await
    };
    cut("Connection refused");
    world.settles("web", Reason::HostUnreachable).await?;
    look().await?;
    let before = (written(&world, WEB).await?, written(&world, "hosts/web1").await?);
    for detail in ["No route to host", "Connection refused", "No route to host"] {
        cut(detail);
        look().await?;
        assert_eq!((written(&world, WEB).await?, written(&world, "hosts/web1").await?), before, "{detail}");
    }
    // Another trouble is news.
    world.fleet.set_link("web1", Link::login_refused());
    look().await?;
    assert!(written(&world, "hosts/web1").await? > before.1);
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_was_replaced_is_an_event_and_a_row() -> anyhow::Result<()> {
    let world = running(&["web1"]).await?;
    let old = world.fleet.peek("web1", &World::key("web")).facts.machine;
    world.fleet.add("198.18.0.1", windlass_hosts::memory::HostSettings::default());
    world.fleet.change("web1", HostChange::Machine("abcdefabcdefabcdefabcdefabcdefab".parse()?));
    world.ask(WEB, &Request::Reconcile).await?;
    world.settles("web", Reason::Converged).await?;
    assert_eq!(world.revisions("web"), [1]);
    let told = |(reason, text): &(Reason, String)| *reason == Reason::HostReplaced && text.contains(old.as_str());
    assert!(world.events().await?.iter().any(told), "{:?}", world.events().await?);
    let message = async || {
        world
            .status("web")
            .await
            .map(|told| told.unwrap_or_default().hosts[&"web1".parse().expect("a name")].message.clone())
    };
    assert!(message().await?.contains(old.as_str()), "{}", message().await?);
    // Whoever declares it again has read that.
    world.apply("web", "").await?;
    world.until("it to be forgotten", async || message().await.is_ok_and(|text| text.is_empty())).await?;
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn more_is_asked_than_one_commit_can_end() -> anyhow::Result<()> {
    let mut world = running(&["web1"]).await?;
    world.halt().await?;
    for path in [WEB, "hosts/web1", "networkzones/test", "services/default/nothing"] {
        for number in 0..150 {
            let id = format!("{number:03}-many").parse()?;
            world.store.request(&resource(path), &id, br#"{"request":"reconcile"}"#.to_vec()).await?;
        }
    }
    world.go_on()?;
    let requests = Scope::sections(&[Section::Requests]);
    let none = async || world.store.list(&requests).await.is_ok_and(|listing| listing.entries.is_empty());
    world.until("every request to be done", none).await?;
    world.settles("web", Reason::Converged).await?;
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn more_is_left_of_a_service_than_one_commit_can_delete() -> anyhow::Result<()> {
    let mut world = running(&["web1"]).await?;
    world.halt().await?;
    let rollouts = Scope::sections(&[Section::Rollouts]);
    let entry = world.store.list(&rollouts).await?.entries.pop().expect("a rollout");
    let rollout: Rollout = serde_json::from_slice(&entry.value)?;
    // Behind the controller's back, as an older version may have left them.
    for number in 1000..1250 {
        let old = Rollout { sequence: Sequence(number), ..rollout.clone() };
        let key = format!("/windlass/rollouts/default/web/{number}");
        world.etcd.etcdctl_with_input(&["put", &key], Some(serde_json::to_string(&old)?.as_bytes()))?;
    }
    // The next one is above them.
    let stamp = Some(Stamp { sequence: Sequence(5000), cluster: world.store.cluster_id().await? });
    let look = Look { service: World::key("web"), stamp, scrutiny: Scrutiny::Quick };
    world.fleet.observe(&world.fleet.target("web1"), &look).await?;
    world.go_on()?;
    world.write("server.py", "print(2)");
    world.settles_at("web", Reason::Converged, 2).await?;
    world.delete("web").await?;
    world.vanishes("web").await?;
    assert_eq!(world.store.list(&rollouts).await?.entries.len(), 0);
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_spoken_in_plaintext_while_a_zone_makes_no_sense() -> anyhow::Result<()> {
    let world = World::start(&["web1"]).await?;
    let zone = resource("networkzones/another");
    let garbage = b"apiVersion: windlass/v1\nkind: NetworkZone\nmetadata: {name: another}\nspec: {cidrs: 7}\n";
    world.store.declare(&zone, garbage.to_vec()).await?;
    world.write("server.py", "print(1)");
    world.apply("web", "").await?;
    world.settles("web", Reason::PlaintextRefused).await?;
    assert_eq!(world.fleet.changes(), [""; 0], "nothing is deployed through it");
    assert!(!world.fleet.calls().iter().any(|call| call.service == Some(World::key("web"))), "nor is it connected to");
    world.store.delete_declaration(&zone).await?;
    world.settles("web", Reason::Converged).await?;
    world.stop().await
}
