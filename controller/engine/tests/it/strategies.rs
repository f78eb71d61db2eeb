//! Strategies: canaries and who lets them go on, aborts, hosts that may fail, the order of zones.

use std::time::Duration;

use windlass_crds::condition::{ConditionType, Reason};
use windlass_crds::id::RevisionNumber;
use windlass_crds::record::{RolloutState, Verdict};
use windlass_crds::request::Request;
use windlass_crds::status::condition;
use windlass_hosts::memory::{Behaviour, Edit};
use windlass_store::{Key, Scope, Section};

use crate::world::{World, resource};

const WEB: &str = "services/default/web";

const APPROVED: &str =
    "    minHealthyTime: 0s\n    strategy: canary\n    canary: {steps: [1, 100%], promotion: approved}\n";

/// Version 1 runs on three hosts, and what comes next comes in this manner.
async fn running(rollout: &str) -> anyhow::Result<World> {
    let world = World::start(&["web1", "web2", "web3"]).await?;
    world.write("server.py", "print(1)");
    world.apply_with_rollout("web", rollout).await?;
    world.settles_at("web", Reason::Converged, 1).await?;
    Ok(world)
}

/// Why it is not ready yet.
async fn reason(world: &World) -> Option<Reason> {
    let status = world.status("web").await.ok().flatten()?;
    condition(&status.conditions, ConditionType::Reconciling).map(|condition| condition.reason)
}

async fn waits(world: &World, why: Reason) -> anyhow::Result<()> {
    world.until(&format!("{why}"), async || reason(world).await == Some(why)).await
}

/// There is a version 2, and the verdict on it takes until somebody lets it come.
async fn changes_and_is_slow(world: &World) -> anyhow::Result<()> {
    let text = world.declared("web").await?.replace("startPeriod: 5s", "startPeriod: 3600s");
    world.store.declare(&resource(WEB), text.into()).await?;
    world.fleet.choose_behaviours(|program| match program.revision.0 {
        2 => Behaviour::healthy_after(Duration::from_secs(3600)),
        _ => Behaviour::default(),
    });
    world.write("server.py", "print(2)");
    Ok(())
}

fn approve(revision: u64, step: Option<u32>) -> Request {
    Request::next_step(RevisionNumber(revision), step)
}

/// What the requests that could not be done were answered.
async fn refusals(world: &World) -> anyhow::Result<Vec<String>> {
    let events = world.events().await?;
    Ok(events.into_iter().filter(|(reason, _)| *reason == Reason::RequestRefused).map(|(_, why)| why).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_waits_for_a_person_and_writes_nothing_meanwhile() -> anyhow::Result<()> {
    let world = running(APPROVED).await?;
    world.write("server.py", "print(2)");
    waits(&world, Reason::WaitingForApproval).await?;
    assert_eq!(world.revisions("web"), [2, 1, 1]);
    // What was told at once, by several, may have to be anchored by itself.
    crate::audit::is_whole(&world).await?;
    let before = world.etcd.revision()?;
    let looks = world.fleet.calls().len();
    world.until("eight more looks", async || world.fleet.calls().len() > looks + 8).await?;
    assert_eq!((world.etcd.revision()?, world.revisions("web")), (before, vec![2, 1, 1]));
    let status = world.status("web").await?.expect("a status");
    let canary = status.rollout.and_then(|rollout| rollout.canary).expect("a canary");
    assert_eq!((canary.step, canary.steps, canary.waiting_since.is_some()), (1, 2, true));

    // Another revision, or another step, is not what waits.
    world.ask(WEB, &approve(1, None)).await?;
    world.ask(WEB, &approve(2, Some(2))).await?;
    assert_eq!((world.revisions("web"), reason(&world).await), (vec![2, 1, 1], Some(Reason::WaitingForApproval)));
    world.ask(WEB, &approve(2, Some(1))).await?;
    world.settles_at("web", Reason::Converged, 2).await?;
    world.ask(WEB, &approve(2, None)).await?;
    assert_eq!(
        refusals(&world).await?,
        [
            "approve: it is revision 2 that is on its way to the hosts",
            "approve: it is step 1 that is under way",
            "approve: no canary is under way, so nothing waits for approval",
        ]
    );
    assert_eq!(world.fleet.max_down(&World::key("web")), 1);
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn another_controller_waits_for_the_same_person() -> anyhow::Result<()> {
    let mut world = running(APPROVED).await?;
    world.write("server.py", "print(2)");
    waits(&world, Reason::WaitingForApproval).await?;
    world.halt().await?;
    // It is asked while nobody leads.
    world.store.request(&resource(WEB), &"1-approve".parse()?, serde_json::to_vec(&approve(2, Some(1)))?).await?;
    world.go_on()?;
    world.settles_at("web", Reason::Converged, 2).await?;
    let switches = |host: &str| {
        let begins = format!("{host} activate 2 ");
        world.fleet.changes().iter().filter(|line| line.starts_with(&begins)).count()
    };
    assert_eq!(["web1", "web2", "web3"].map(switches), [1, 1, 1], "{:#?}", world.fleet.changes());
    assert!(refusals(&world).await?.is_empty());
    world.stop().await
}

/// It is healthy long enough for the verdict, and not for the bake.
#[tokio::test(flavor = "multi_thread")]
async fn what_turns_bad_while_it_bakes_goes_back() -> anyhow::Result<()> {
    let world = running(
        "    minHealthyTime: 0s\n    strategy: canary\n    canary: {steps: [1, 100%], bake: 60s, promotion: automatic}\n",
    )
    .await?;
    world.fleet.choose_behaviours(|program| match program.revision.0 {
        2 => Behaviour::flapping(Duration::from_secs(2), Duration::from_secs(600)).saying(["out of memory"]),
        _ => Behaviour::default(),
    });
    world.write("server.py", "print(2)");
    waits(&world, Reason::Baking).await?;
    world.settles("web", Reason::RolledBack).await?;
    assert_eq!(world.revisions("web"), [1, 1, 1]);
    let left = |line: &String| line.contains("activate 2") && !line.starts_with("web1");
    assert!(!world.fleet.changes().iter().any(left), "{:#?}", world.fleet.changes());
    let failure = world.status("web").await?.and_then(|status| status.failure).expect("a failure");
    assert_eq!((failure.revision.0, failure.host.to_string().as_str()), (2, "web1"));
    assert!(failure.evidence.summary.contains("answers 503"), "{failure:?}");
    assert!(failure.evidence.logs.iter().any(|line| line == "out of memory"), "{failure:?}");
    // The rollout itself says so too.
    let view = world.store.list(&Scope::sections(&[Section::Rollouts])).await?;
    let rollouts = view.entries.iter().filter_map(|entry| serde_json::from_slice(&entry.value).ok());
    let rollouts: Vec<windlass_crds::record::Rollout> = rollouts.collect();
    let fallen = |rollout: &&windlass_crds::record::Rollout| rollout.state == RolloutState::Unhealthy;
    let fallen = rollouts.iter().find(fallen).expect("a rollout that was unhealthy");
    assert!(matches!(fallen.verdicts.values().next(), Some(Verdict::Unhealthy { .. })), "{fallen:?}");
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bake_ends_by_itself_at_its_time() -> anyhow::Result<()> {
    let world = running("    minHealthyTime: 0s\n    strategy: canary\n    canary: {steps: [1], bake: 2s}\n").await?;
    world.write("server.py", "print(2)");
    waits(&world, Reason::Baking).await?;
    let status = world.status("web").await?.expect("a status");
    let until = status.rollout.and_then(|rollout| rollout.canary).and_then(|canary| canary.baking_until);
    let until = until.expect("a time");
    assert_eq!(world.revisions("web"), [2, 1, 1]);
    world.until("the next step", async || world.revisions("web") == [2, 2, 2]).await?;
    assert!(jiff::Timestamp::now() >= until, "not before {until}");
    world.settles_at("web", Reason::Converged, 2).await?;
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_canary_goes_back_where_it_was() -> anyhow::Result<()> {
    let world = running(APPROVED).await?;
    world.write("server.py", "print(2)");
    waits(&world, Reason::WaitingForApproval).await?;
    // Who asked for it before the source was changed did not mean what is under way now.
    world.ask(WEB, &Request::Abort { from: Some(RevisionNumber(1)) }).await?;
    let refused = "abort: revision 1 is not what is declared any more: revision 2 is; ask again to go back from that";
    assert_eq!(refusals(&world).await?, [refused]);
    assert_eq!(world.revisions("web"), [2, 1, 1]);
    world.ask(WEB, &Request::Abort { from: Some(RevisionNumber(2)) }).await?;
    world.settles_at("web", Reason::Aborted, 1).await?;
    assert_eq!(world.revisions("web"), [1, 1, 1]);
    let touched = |host: &str| {
        let begins = [format!("{host} activate 2 "), format!("{host} revert 1 ")];
        let switched = |line: &&String| begins.iter().any(|begins| line.starts_with(begins));
        world.fleet.changes().iter().filter(switched).count()
    };
    assert_eq!(["web1", "web2", "web3"].map(touched), [2, 0, 0], "{:#?}", world.fleet.changes());
    // It is not deployed again by itself, and an abort of nothing is answered.
    world.ask(WEB, &Request::Abort { from: None }).await?;
    assert_eq!(
        refusals(&world).await?,
        [refused, "abort: what is declared is blocked already; `windlass rollout retry` deploys it once more"]
    );
    world.ask(WEB, &Request::Retry).await?;
    waits(&world, Reason::WaitingForApproval).await?;
    assert_eq!(world.revisions("web"), [2, 1, 1]);
    // Another change lifts it too.
    world.ask(WEB, &Request::Abort { from: None }).await?;
    world.settles_at("web", Reason::Aborted, 1).await?;
    world.write("server.py", "print(3)");
    waits(&world, Reason::WaitingForApproval).await?;
    assert_eq!(world.revisions("web"), [3, 1, 1]);
    world.stop().await
}

/// A verdict may take minutes: whoever aborts does not wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn an_abort_ends_waiting_for_a_verdict() -> anyhow::Result<()> {
    let world = running("    minHealthyTime: 0s\n").await?;
    world.fleet.choose_behaviours(|program| match program.revision.0 {
        2 => Behaviour::healthy_after(Duration::from_secs(3600)),
        _ => Behaviour::default(),
    });
    let text = world.declared("web").await?.replace("startPeriod: 5s", "startPeriod: 3600s");
    world.store.declare(&resource(WEB), text.into()).await?;
    world.write("server.py", "print(2)");
    world.until("the first host to be switched", async || world.revisions("web") == [2, 1, 1]).await?;
    world.ask(WEB, &Request::Abort { from: None }).await?;
    world.settles_at("web", Reason::Aborted, 1).await?;
    assert_eq!(world.revisions("web"), [1, 1, 1]);
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_may_fail_goes_back_alone() -> anyhow::Result<()> {
    let world = running("    minHealthyTime: 0s\n    maxFailures: 1\n").await?;
    world.fleet.choose_behaviours(|program| match program.revision.0 {
        // web2
        2 if program.address == "198.18.0.2" => Behaviour::unhealthy(500),
        _ => Behaviour::default(),
    });
    world.write("server.py", "print(2)");
    world.settles_at("web", Reason::HeldBack, 2).await?;
    assert_eq!(world.revisions("web"), [2, 1, 2]);
    assert_eq!(world.fleet.max_down(&World::key("web")), 1);
    assert!(world.fleet.serves("web2", &World::key("web")));
    let told = async || {
        let events = world.events().await.unwrap_or_default();
        events.iter().any(|(reason, text)| *reason == Reason::HeldBack && text.contains("web2"))
    };
    world.until("an event that tells", told).await?;
    // It stays so until somebody wants it tried again.
    world.fleet.choose_behaviours(|_| Behaviour::default());
    world.ask(WEB, &Request::Retry).await?;
    world.settles_at("web", Reason::Converged, 2).await?;
    assert_eq!(world.revisions("web"), [2, 2, 2]);
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_at_once() -> anyhow::Result<()> {
    let world = running("    minHealthyTime: 0s\n    strategy: allAtOnce\n").await?;
    world.fleet.reset_max_down(&World::key("web"));
    world.fleet.choose_behaviours(|_| Behaviour::healthy_after(Duration::from_secs(1)));
    world.write("server.py", "print(2)");
    world.settles_at("web", Reason::Converged, 2).await?;
    assert_eq!(world.fleet.max_down(&World::key("web")), 3);
    world.stop().await
}

/// Hosts that nothing was done on are asked how they are while others are worked on.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_stands_still_when_many_others_fall_ill() -> anyhow::Result<()> {
    let world = World::start(&["web1", "web2", "web3", "web4", "web5"]).await?;
    world.write("server.py", "print(1)");
    world.apply("web", "").await?;
    world.settles_at("web", Reason::Converged, 1).await?;
    changes_and_is_slow(&world).await?;
    world.until("the first host to be switched", async || world.revisions("web") == [2, 1, 1, 1, 1]).await?;
    let behave = |host: &str, behaviour| world.fleet.edit(host, &World::key("web"), Edit::Behave(behaviour));
    for host in ["web3", "web4", "web5"] {
        behave(host, Behaviour::unhealthy(500));
    }
    let held = async || matches!(world.owned("web").await, Ok(owned) if owned.hold.is_some());
    world.until("it to stand still", held).await?;
    // What was begun there is found out, and no other host is begun.
    behave("web1", Behaviour::default());
    world.settles("web", Reason::MassUnhealthy).await?;
    assert_eq!(world.revisions("web"), [2, 1, 1, 1, 1]);
    assert_eq!(world.owned("web").await?.good, [RevisionNumber(1)]);
    world.fleet.choose_behaviours(|_| Behaviour::default());
    world.ask(WEB, &Request::Resume).await?;
    world.settles_at("web", Reason::Converged, 2).await?;
    world.stop().await
}

/// A verdict that takes longer than the rollout may stand still: told, and tried again until it is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_that_stands_still_is_told_and_goes_on() -> anyhow::Result<()> {
    let world = running("    minHealthyTime: 0s\n    progressDeadline: 2s\n").await?;
    changes_and_is_slow(&world).await?;
    let stalled = async || {
        let conditions = world.status("web").await.ok().flatten().map(|status| status.conditions).unwrap_or_default();
        condition(&conditions, ConditionType::Stalled).map(|stalled| (stalled.reason, stalled.message.clone()))
    };
    let told = (Reason::ProgressDeadlineExceeded, "no progress for 2s; it goes on trying".to_owned());
    world.until("it to be told", async || stalled().await.as_ref() == Some(&told)).await?;
    assert_eq!(world.revisions("web"), [2, 1, 1], "nothing is taken back, and nothing begun");
    // Those that come later are quick.
    world.fleet.choose_behaviours(|_| Behaviour::default());
    world.fleet.edit("web1", &World::key("web"), Edit::Behave(Behaviour::default()));
    world.settles_at("web", Reason::Converged, 2).await?;
    assert_ne!(stalled().await.map(|(reason, _)| reason), Some(Reason::ProgressDeadlineExceeded));
    let told = world.events().await?;
    assert!(told.iter().any(|(reason, _)| *reason == Reason::ProgressDeadlineExceeded), "{told:?}");
    world.stop().await
}

/// The order in which hosts are switched to a revision.
fn order(world: &World, revision: u64) -> Vec<String> {
    let word = format!(" activate {revision} ");
    let switched = world.fleet.changes().into_iter().filter(|line| line.contains(&word));
    switched.filter_map(|line| line.split(' ').next().map(str::to_owned)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_come_in_the_order_of_their_zones_or_labels() -> anyhow::Result<()> {
    let world = running("    minHealthyTime: 0s\n    order: zone\n").await?;
    let zone = |name: &str, cidr: &str| {
        format!(
            "apiVersion: windlass/v1\nkind: NetworkZone\nmetadata: {{name: {name}}}\nspec: {{location: vpn, cidrs: [{cidr}]}}\n"
        )
    };
    // The first host is in the last zone, the third in the first.
    for (name, cidr) in [("z-last", "198.18.0.1/32"), ("a-first", "198.18.0.3/32")] {
        world.store.declare(&resource(&format!("networkzones/{name}")), zone(name, cidr).into()).await?;
    }
    world.write("server.py", "print(2)");
    world.settles_at("web", Reason::Converged, 2).await?;
    assert_eq!(order(&world, 2), ["web3", "web2", "web1"], "{:#?}", world.fleet.changes());

    let host = |name: &str, address: &str, rack: &str| {
        format!(
            "apiVersion: windlass/v1\nkind: Host\nmetadata: {{name: {name}, labels: {{{rack}}}}}\nspec: {{address: {address}}}\n"
        )
    };
    for (name, address, rack) in
        [("web1", "198.18.0.1", ""), ("web2", "198.18.0.2", "rack: b"), ("web3", "198.18.0.3", "rack: a")]
    {
        world.store.declare(&resource(&format!("hosts/{name}")), host(name, address, rack).into()).await?;
    }
    world.apply_with_rollout("web", "    minHealthyTime: 0s\n    order: label:rack\n").await?;
    world.write("server.py", "print(3)");
    world.settles_at("web", Reason::Converged, 3).await?;
    assert_eq!(order(&world, 3), ["web3", "web2", "web1"], "{:#?}", world.fleet.changes());
    assert!(world.store.get(&Key::Owned(World::key("web"))).await?.is_some());
    world.stop().await
}
