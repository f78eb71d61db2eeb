//! Requests that cannot be done: whoever asked finds the answer no later than that the request is gone.

use windlass_crds::condition::Reason;
use windlass_crds::id::{ClusterId, RevisionNumber};
use windlass_crds::request::Request;
use windlass_engine::events::Event;
use windlass_store::{Entry, Key, RequestId, Scope, Section};

use crate::world::{World, resource};

/// Declares something that makes no sense.
async fn break_it(world: &World, path: &str) -> anyhow::Result<()> {
    world.store.declare(&resource(path), b"apiVersion: windlass/v1\nspecs: {}\n".to_vec()).await?;
    Ok(())
}

async fn ask(world: &World, path: &str, id: &RequestId, request: Vec<u8>) -> anyhow::Result<Key> {
    let target = resource(path);
    world.store.request(&target, id, request).await?;
    Ok(Key::Request { target, id: id.clone() })
}

/// What a request is answered, read once it is gone: nothing where it is done.
async fn answer(world: &World, key: &Key, id: &RequestId) -> anyhow::Result<Option<(Entry, String)>> {
    world.until("the request to be dealt with", async || matches!(world.store.get(key).await, Ok(None))).await?;
    for entry in world.store.list(&Scope::section(Section::Events)).await?.entries {
        let event: Event = serde_json::from_slice(&entry.value)?;
        if event.request.as_ref() == Some(id) {
            assert_eq!(event.reason, Reason::RequestRefused);
            return Ok(Some((entry, event.message)));
        }
    }
    Ok(None)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_cannot_be_done_is_answered() -> anyhow::Result<()> {
    let world = World::start(&["web1"]).await?;
    world.write("server.py", "print(1)");
    world.apply("web", "").await?;
    world.settles("web", Reason::Converged).await?;
    for path in ["services/default/broken", "hosts/broken"] {
        break_it(&world, path).await?;
    }
    let undo = serde_json::to_vec(&Request::Undo { revision: None, from: None })?;
    let other = serde_json::to_vec(&Request::Undo { revision: None, from: Some(RevisionNumber(7)) })?;
    let adopt = serde_json::to_vec(&Request::Adopt { owner: "feedfacefeedface".parse::<ClusterId>()? })?;
    let look = serde_json::to_vec(&Request::Reconcile)?;
    let pause = serde_json::to_vec(&Request::Pause)?;
    let confirm = serde_json::to_vec(&Request::ConfirmRemoval { hosts: Default::default() })?;
    let rows = [
        ("services/default/web", &undo, Some("undo: there is no earlier revision that was good")),
        (
            "services/default/web",
            &other,
            Some("undo: revision 7 is not what is declared any more: revision 1 is; ask again to go back from that"),
        ),
        ("services/default/web", &adopt, Some("adopt: only a Host can be asked this")),
        ("services/default/web", &look, None),
        (
            "services/default/broken",
            &undo,
            Some("undo: what is declared of service/broken makes no sense (InvalidDeclaration)"),
        ),
        ("services/default/broken", &adopt, Some("adopt: only a Host can be asked this")),
        ("services/default/broken", &look, None),
        ("services/default/ghost", &undo, Some("undo: service/ghost is not declared")),
        ("services/default/ghost", &look, Some("reconcile: service/ghost is not declared")),
        ("services/default/ghost", &confirm, None),
        ("hosts/broken", &adopt, Some("adopt: what is declared of host/broken makes no sense (InvalidDeclaration)")),
        ("hosts/ghost", &adopt, Some("adopt: host/ghost is not declared")),
        ("hosts/web1", &pause, Some("pause: only a Service can be asked this")),
        ("hosts/web1", &look, None),
        ("networkzones/test", &adopt, Some("adopt: only a Host can be asked this")),
        ("networkzones/ghost", &look, Some("reconcile: networkzone/ghost is not declared")),
    ];
    for (number, (path, request, expected)) in rows.into_iter().enumerate() {
        let id: RequestId = format!("{number}-mine").parse()?;
        let key = ask(&world, path, &id, request.clone()).await?;
        let told = answer(&world, &key, &id).await?.map(|(_, message)| message);
        assert_eq!(told.as_deref(), expected, "{path}: {}", String::from_utf8_lossy(request));
    }
    for path in ["services/default/web", "services/default/ghost", "hosts/web1", "hosts/ghost"] {
        let id: RequestId = format!("{}-garbage", path.replace('/', "-")).parse()?;
        let key = ask(&world, path, &id, b"{".to_vec()).await?;
        let (_, told) = answer(&world, &key, &id).await?.expect("an answer");
        assert!(told.starts_with(&format!("{id}: ")), "{told}");
    }
    world.stop().await
}

/// A Service that is gone in the very turn that takes the request in.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_of_a_service_that_goes_away_is_answered() -> anyhow::Result<()> {
    let mut world = World::start(&["web1"]).await?;
    world.forget_zone().await?;
    world.write("server.py", "print(1)");
    world.apply("web", "").await?;
    world.settles("web", Reason::PlaintextRefused).await?;
    world.halt().await?;
    world.delete("web").await?;
    let id: RequestId = "1-mine".parse()?;
    let undo = serde_json::to_vec(&Request::Undo { revision: None, from: None })?;
    let key = ask(&world, "services/default/web", &id, undo).await?;
    world.go_on()?;
    let told = answer(&world, &key, &id).await?.map(|(_, message)| message);
    assert_eq!(told.as_deref(), Some("undo: there is no revision to go back from"));
    world.vanishes("web").await?;
    world.stop().await
}

/// Who asked to go back before something else was declared did not mean that.
#[tokio::test(flavor = "multi_thread")]
async fn an_undo_that_was_overtaken_is_refused() -> anyhow::Result<()> {
    let mut world = World::start(&["web1"]).await?;
    world.write("server.py", "print(1)");
    world.apply("web", "").await?;
    world.settles_at("web", Reason::Converged, 1).await?;
    world.write("server.py", "print(2)");
    world.settles_at("web", Reason::Converged, 2).await?;
    world.halt().await?;
    let id: RequestId = "1-mine".parse()?;
    let undo = serde_json::to_vec(&Request::Undo { revision: None, from: None })?;
    let key = ask(&world, "services/default/web", &id, undo).await?;
    world.apply("web", "  purgeData: true\n").await?;
    world.go_on()?;
    let told = answer(&world, &key, &id).await?.map(|(_, message)| message);
    assert_eq!(told.as_deref(), Some("1-mine: undo: something else was declared since it was asked"));
    world.settles_at("web", Reason::Converged, 2).await?;
    world.stop().await
}

/// An answer vanishes with its lease, so none may be put under one that has ended.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_whose_lease_has_ended_is_given_again() -> anyhow::Result<()> {
    let world = World::start(&["web1"]).await?;
    let undo = serde_json::to_vec(&Request::Undo { revision: None, from: None })?;
    let mut leases = Vec::new();
    for name in ["first", "second"] {
        let id: RequestId = name.parse()?;
        let key = ask(&world, "services/default/ghost", &id, undo.clone()).await?;
        let (entry, _) = answer(&world, &key, &id).await?.expect("an answer");
        let lease = entry.lease.expect("events are leased");
        world.store.revoke_lease(lease).await?;
        leases.push(lease);
    }
    assert_ne!(leases[0], leases[1]);
    world.stop().await
}
