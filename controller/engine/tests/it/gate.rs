//! Gates: what was declared waits until people have approved just that, and what is in force goes on.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use windlass_crds::approval::{SIGNED_FOR, Subject};
use windlass_crds::condition::{ConditionType, Reason};
use windlass_crds::digest::PlanDigest;
use windlass_crds::id::RevisionNumber;
use windlass_crds::request::Request;
use windlass_crds::status::{ApprovalStatus, condition};
use windlass_hosts::memory::{Behaviour, Link};
use windlass_hosts::signature;

use crate::world::{World, resource};

const WEB: &str = "services/default/web";

const REQUIRED: &str = "    minHealthyTime: 0s\n    maxUnavailable: 100%\n    approval: required\n";
const OPEN: &str = "    minHealthyTime: 0s\n    maxUnavailable: 100%\n";

async fn waiting(world: &World) -> Option<ApprovalStatus> {
    world.status("web").await.ok().flatten()?.approval
}

/// Waits until a revision waits for approval, and so many are missing.
async fn waits(world: &World, revision: u64, missing: u32) -> anyhow::Result<ApprovalStatus> {
    let fits = |one: &ApprovalStatus| one.revision.0 == revision && one.missing == missing;
    let held = async || waiting(world).await.as_ref().is_some_and(fits);
    let result = world.until(&format!("revision {revision} to wait for {missing}"), held).await;
    result.with_context(|| "it does not wait")?;
    waiting(world).await.context("it waits no more")
}

fn approve(waiting: &ApprovalStatus) -> Request {
    Request::Approve {
        revision: waiting.revision,
        step: None,
        plan: Some(waiting.plan),
        reason: Some("CHG-1".to_owned()),
        at: None,
        says: None,
        signature: None,
    }
}

/// What the requests that could not be done were answered, the last one's.
async fn refusal(world: &World, request: &Request) -> anyhow::Result<String> {
    let refused = async || -> anyhow::Result<Vec<String>> {
        let events = world.events().await?.into_iter();
        Ok(events.filter(|(reason, _)| *reason == Reason::RequestRefused).map(|(_, why)| why).collect())
    };
    let before = refused().await?;
    world.ask(WEB, request).await?;
    refused().await?.into_iter().find(|why| !before.contains(why)).context("it was not refused")
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_comes_into_force_before_it_is_approved_and_what_is_in_force_stays() -> anyhow::Result<()> {
    let world = World::start(&["web1", "web2"]).await?;
    world.write("server.py", "print(1)");
    world.apply_with_rollout("web", REQUIRED).await?;
    let first = waits(&world, 1, 1).await?;
    assert_eq!(world.revisions("web"), [0, 0]);
    // What was told at once, by several, may have to be anchored by itself.
    crate::audit::is_whole(&world).await?;
    let before = world.etcd.revision()?;
    let looks = world.fleet.calls().len();
    world.until("four more looks", async || world.fleet.calls().len() > looks + 4).await?;
    assert_eq!((world.etcd.revision()?, world.fleet.changes()), (before, vec![]), "it waits, and nothing else");
    for (request, why) in [
        (Request::next_step(first.revision, None), "has to name the plan"),
        (approve(&ApprovalStatus { revision: RevisionNumber(2), ..first.clone() }), "it is revision 1 that waits"),
        (approve(&ApprovalStatus { plan: PlanDigest::of(b"x"), ..first.clone() }), "come to be another"),
    ] {
        let told = refusal(&world, &request).await?;
        assert!(told.contains(why), "{told} lacks {why}");
    }
    world.ask(WEB, &approve(&first)).await?;
    world.settles_at("web", Reason::Converged, 1).await?;

    // Other files: another revision, and another plan with each of them.
    world.write("server.py", "print(2)");
    let second = waits(&world, 2, 1).await?;
    world.write("server.py", "print(3)");
    let third = waits(&world, 3, 1).await?;
    assert_ne!(second.plan, third.plan);
    let told = refusal(&world, &approve(&second)).await?;
    assert!(told.contains("it is revision 3 that waits"), "{told}");
    assert_eq!(world.revisions("web"), [1, 1]);
    // What was never in force is not brought by going back either.
    let undo = Request::Undo { revision: Some(RevisionNumber(2)), from: None };
    let told = refusal(&world, &undo).await?;
    assert!(told.contains("has to be approved"), "{told}");
    // Who would switch it off needs an approval for that.
    world.apply_with_rollout("web", OPEN).await?;
    // It is another revision, though hosts would get the same: nobody has let in what the one before says.
    let fourth = waits(&world, 4, 1).await?;
    assert_eq!(
        (fourth.asked_by.as_slice(), fourth.from),
        (&["spec.rollout.approval".to_owned()][..], Some(first.revision))
    );
    assert_eq!(fourth.fields, ["spec.rollout.approval"]);
    world.ask(WEB, &approve(&fourth)).await?;
    world.settles_at("web", Reason::Converged, 4).await?;
    let approved = world.events().await?.into_iter().filter(|(reason, _)| *reason == Reason::Approved);
    let approved: Vec<String> = approved.map(|(_, why)| why).collect();
    assert!(approved.iter().any(|why| why.contains("revision 4") && why.contains("CHG-1")), "{approved:?}");
    world.write("server.py", "print(5)");
    world.settles_at("web", Reason::Converged, 5).await?;
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn another_controller_waits_for_the_same_and_what_is_taken_back_is_approved_anew() -> anyhow::Result<()> {
    let mut world = World::start(&["web1", "web2"]).await?;
    world.write("server.py", "print(1)");
    world.apply_with_rollout("web", OPEN).await?;
    world.settles_at("web", Reason::Converged, 1).await?;
    world.store.declare(&resource("policies/all"), policy("1", "").into()).await?;
    // What is in force is not touched by that.
    world.write("server.py", "print(2)");
    let first = waits(&world, 2, 1).await?;
    assert_eq!((first.asked_by.as_slice(), world.revisions("web")), (&["policy/all".to_owned()][..], vec![1, 1]));
    world.write("server.py", "print(1)");
    world.settles_at("web", Reason::Converged, 1).await?;
    assert_eq!(waiting(&world).await, None);
    world.write("server.py", "print(2)");
    let again = waits(&world, 2, 1).await?;
    assert_ne!(first.plan, again.plan, "what was approved before it was taken back is not approved now");
    world.halt().await?;
    // It is asked while nobody leads.
    world.store.request(&resource(WEB), &"1-approve".parse()?, serde_json::to_vec(&approve(&again))?).await?;
    world.go_on()?;
    world.settles_at("web", Reason::Converged, 2).await?;
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_moves_only_once_that_is_approved() -> anyhow::Result<()> {
    let world = World::start(&["web1", "web2"]).await?;
    world.write("server.py", "print(1)");
    world.apply_with_rollout("web", OPEN).await?;
    world.settles_at("web", Reason::Converged, 1).await?;
    world.store.declare(&resource("policies/all"), policy("1", "").into()).await?;
    let moved = world.declared("web").await?.replace("hosts: [web1, web2]", "hosts: [web2]");
    world.store.declare(&resource(WEB), moved.into()).await?;
    let waiting = waits(&world, 1, 1).await?;
    let status = world.status("web").await?.context("a status")?;
    assert_eq!((status.desired, world.revisions("web")), (2, vec![1, 1]));
    let ready = condition(&status.conditions, ConditionType::Ready).context("a condition")?;
    assert!(ready.message.contains("waits for 1 person to approve it (policy/all)"), "{}", ready.message);
    world.ask(WEB, &approve(&waiting)).await?;
    world.until("it to leave web1", async || world.revisions("web") == [0, 1]).await?;
    world.settles_at("web", Reason::Converged, 1).await?;
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_makes_no_sense_leaves_what_was_in_force_before() -> anyhow::Result<()> {
    let world = World::start(&["web1"]).await?;
    world.write("server.py", "print(1)");
    world.store.declare(&resource("policies/all"), policy("1", "").into()).await?;
    world
        .until("the Policy to be in force", async || {
            matches!(world.store.get(&windlass_store::Key::Status(resource("policies/all"))).await, Ok(Some(_)))
        })
        .await?;
    world.store.declare(&resource("policies/all"), policy("3", "").into()).await?;
    world.apply_with_rollout("web", OPEN).await?;
    waits(&world, 1, 1).await?;
    assert_eq!(world.revisions("web"), [0]);
    // Nobody asks for it any more.
    world.store.delete_declaration(&resource("policies/all")).await?;
    world.settles_at("web", Reason::Converged, 1).await?;
    world.stop().await
}

/// Nobody knows what a Policy that never made sense asks for, nor of whom: everything new waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_never_made_sense_lets_nothing_in() -> anyhow::Result<()> {
    let world = World::start(&["web1"]).await?;
    world.write("server.py", "print(1)");
    world.store.declare(&resource("policies/all"), policy("3", "").into()).await?;
    world.apply_with_rollout("web", OPEN).await?;
    let waiting = waits(&world, 1, 1).await?;
    let told = refusal(&world, &approve(&waiting)).await?;
    assert!(told.contains("policy/all") && told.contains("makes no sense"), "{told}");
    assert_eq!(world.revisions("web"), [0]);
    world.store.delete_declaration(&resource("policies/all")).await?;
    world.settles_at("web", Reason::Converged, 1).await?;
    world.stop().await
}

/// Half of an approval is not kept for ever: it ends by itself, and is no use for anything after that.
#[tokio::test(flavor = "multi_thread")]
async fn an_approval_that_nobody_completes_expires() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (ana, ana_is) = member(folder.path(), "Ana")?;
    let (_, bo_is) = member(folder.path(), "Bo")?;
    let world = World::start(&["web1"]).await?;
    let declared = format!("{}  expiry: 1m\n", policy("2", &format!("{ana_is}, {bo_is}")));
    world.store.declare(&resource("policies/all"), declared.into()).await?;
    world.write("server.py", "print(1)");
    world.apply_with_rollout("web", OPEN).await?;
    let first = waits(&world, 1, 2).await?;
    let request = signed(&world, &first, &ana).await?;
    world.ask(WEB, &request).await?;
    let half = waits(&world, 1, 1).await?;
    assert_eq!(half.plan, first.plan);
    // A minute, and what a busy machine takes.
    let again = async {
        loop {
            match waiting(&world).await {
                Some(waiting) if waiting.missing == 2 => return waiting,
                _ => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
            }
        }
    };
    let again = tokio::time::timeout(std::time::Duration::from_secs(120), again).await?;
    assert_eq!((again.revision, again.approvals.len(), world.revisions("web")), (first.revision, 0, vec![0]));
    assert_ne!(again.plan, first.plan, "what was signed is of the plan before");
    let told = refusal(&world, &request).await?;
    assert!(told.contains("plan"), "{told}");
    world.stop().await
}

fn policy(people: &str, members: &str) -> String {
    format!(
        "apiVersion: windlass/v1\nkind: Policy\nmetadata: {{name: all}}\nspec:\n  namespaces: ['*']\n  people: {people}\n  members: [{members}]\n"
    )
}

/// What was approved and turned out bad is what a retry is about, whatever waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_and_an_undo_are_of_what_is_in_force() -> anyhow::Result<()> {
    let world = World::start(&["web1"]).await?;
    world.write("server.py", "print(1)");
    world.apply_with_rollout("web", REQUIRED).await?;
    world.ask(WEB, &approve(&waits(&world, 1, 1).await?)).await?;
    world.settles_at("web", Reason::Converged, 1).await?;
    world.fleet.choose_behaviours(|program| match program.revision.0 {
        2 => Behaviour::exits_at_once(),
        _ => Behaviour::default(),
    });
    world.write("server.py", "print(2)");
    world.ask(WEB, &approve(&waits(&world, 2, 1).await?)).await?;
    world.settles("web", Reason::RolledBack).await?;
    world.write("server.py", "print(3)");
    waits(&world, 3, 1).await?;
    assert_eq!(world.status("web").await?.and_then(|status| status.revision), Some(RevisionNumber(2)));
    world.fleet.choose_behaviours(|_| Behaviour::default());
    world.ask(WEB, &Request::Retry).await?;
    world.until("what was approved to run", async || world.revisions("web") == [2]).await?;
    let from = world.status("web").await?.and_then(|status| status.revision);
    world.ask(WEB, &Request::Undo { revision: None, from }).await?;
    world.until("what was before to run", async || world.revisions("web") == [1]).await?;
    assert_eq!(waiting(&world).await.map(|waiting| waiting.revision.0), Some(3));
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_is_not_put_back_while_something_else_waits() -> anyhow::Result<()> {
    let world = World::start(&["web1", "web2"]).await?;
    world.write("server.py", "print(1)");
    world.apply_with_rollout("web", REQUIRED).await?;
    world.ask(WEB, &approve(&waits(&world, 1, 1).await?)).await?;
    world.settles_at("web", Reason::Converged, 1).await?;
    world.fleet.set_link("web2", Link::refused());
    world.delete("web").await?;
    world.until("it to leave web1", async || world.revisions("web")[0] == 0).await?;
    world.write("server.py", "print(2)");
    world.apply_with_rollout("web", REQUIRED).await?;
    world
        .until("it to be looked at", async || {
            let status = world.status("web").await.ok().flatten();
            let declared = world.store.get(&windlass_store::Key::Declared(resource(WEB))).await.ok().flatten();
            status
                .zip(declared)
                .is_some_and(|(status, declared)| status.observed_generation.0 == declared.mod_revision.0)
        })
        .await?;
    assert_eq!(world.revisions("web"), [0, 1]);
    world.fleet.set_link("web2", Link::Up);
    // Taken off there as well, and only then does what was declared since wait for itself.
    world.until("it to leave web2", async || world.revisions("web") == [0, 0]).await?;
    let anew = waits(&world, 1, 1).await?;
    assert_eq!(world.revisions("web"), [0, 0]);
    world.ask(WEB, &approve(&anew)).await?;
    world.settles_at("web", Reason::Converged, 1).await?;
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_came_into_force_leaves_nothing() -> anyhow::Result<()> {
    let world = World::start(&["web1"]).await?;
    world.write("server.py", "print(1)");
    world.apply_with_rollout("web", REQUIRED).await?;
    let first = waits(&world, 1, 1).await?;
    world.delete("web").await?;
    world.vanishes("web").await?;
    world.apply_with_rollout("web", REQUIRED).await?;
    let again = waits(&world, 1, 1).await?;
    assert_ne!(first.plan, again.plan);
    let told = refusal(&world, &approve(&first)).await?;
    assert!(told.contains("come to be another"), "{told}");
    // What is too long for a record is answered, and ends.
    let Request::Approve { revision, step, plan, reason, at, signature, .. } = approve(&again) else { unreachable!() };
    for (length, why) in [(200, "`as` has to be a name"), (100_000, "a request may have at most")] {
        let (says, reason, signature) = (Some("x".repeat(length)), reason.clone(), signature.clone());
        let told = refusal(&world, &Request::Approve { revision, step, plan, reason, at, says, signature }).await?;
        assert!(told.contains(why), "{told} lacks {why}");
    }
    world.stop().await
}

/// A key pair, and a member who is known by it.
fn member(folder: &Path, name: &str) -> anyhow::Result<(PathBuf, String)> {
    let file = folder.join(name);
    let made =
        std::process::Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&file).status()?;
    anyhow::ensure!(made.success(), "no key");
    let public = std::fs::read_to_string(file.with_extension("pub"))?;
    Ok((file, format!("{{name: {name}, sshKeys: ['{}']}}", public.trim())))
}

async fn signed(world: &World, waiting: &ApprovalStatus, key: &Path) -> anyhow::Result<Request> {
    let (cluster, service) = (world.store.cluster_id().await?, World::key("web"));
    let ApprovalStatus { revision, plan, .. } = waiting;
    let at = jiff::Timestamp::now();
    let text = Subject { cluster: &cluster, service: &service, revision: *revision, plan, reason: "CHG-1", at }.text();
    let Request::Approve { revision, step, plan, reason, says, .. } = approve(waiting) else { unreachable!() };
    let signature = Some(signature::sign(&text, SIGNED_FOR, key).await?);
    Ok(Request::Approve { revision, step, plan, reason, at: Some(at), says, signature })
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_are_two_keys_where_the_store_knows_nobody() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (ana, ana_is) = member(folder.path(), "Ana")?;
    let (bo, bo_is) = member(folder.path(), "Bo")?;
    let (eve, _) = member(folder.path(), "Eve")?;
    let world = World::start(&["web1"]).await?;
    world.store.declare(&resource("policies/all"), policy("2", &format!("{ana_is}, {bo_is}")).into()).await?;
    world.write("server.py", "print(1)");
    world.apply_with_rollout("web", OPEN).await?;
    let waiting = waits(&world, 1, 2).await?;
    assert!(!waiting.author.is_verified());
    let Request::Approve { revision, step, plan, at, says, signature, .. } = signed(&world, &waiting, &ana).await?
    else {
        unreachable!()
    };
    let other = Some("CHG-2".to_owned());
    let forged = Request::Approve { revision, step, plan, at, says, signature, reason: other };
    for (request, why) in [
        (approve(&waiting), "nobody knows who asks"),
        (signed(&world, &waiting, &eve).await?, "signed with none of the keys"),
        (forged, "the signature is not of what is asked"),
    ] {
        let told = refusal(&world, &request).await?;
        assert!(told.contains(why), "{told} lacks {why}");
    }
    world.ask(WEB, &signed(&world, &waiting, &ana).await?).await?;
    let half = waits(&world, 1, 1).await?;
    assert_eq!((half.plan, half.approvals.len(), world.revisions("web")), (waiting.plan, 1, vec![0]));
    let told = refusal(&world, &signed(&world, &waiting, &ana).await?).await?;
    assert!(told.contains("Ana has approved it already"), "{told}");
    world.ask(WEB, &signed(&world, &waiting, &bo).await?).await?;
    world.settles_at("web", Reason::Converged, 1).await?;
    world.stop().await
}
