//! Hosts that go away and come back.

use std::time::{Duration, Instant};

use windlass_crds::condition::{ConditionType, Reason};
use windlass_crds::status::{HostStatus, condition};
use windlass_hosts::memory::Link;
use windlass_store::Key;

use crate::world::{World, resource};

/// Hosts themselves are looked at once a minute; whoever notices before lets the Host know.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_service_notices_is_said_of_the_host_too() -> anyhow::Result<()> {
    let world = World::start(&["web1", "web2"]).await?;
    world.write("server.py", "print(1)");
    world.apply("web", "").await?;
    world.settles("web", Reason::Converged).await?;
    let said = async |reason| {
        let Ok(Some(entry)) = world.store.get(&Key::Status(resource("hosts/web2"))).await else { return false };
        let status: HostStatus = serde_json::from_slice(&entry.value).expect("a status");
        condition(&status.conditions, ConditionType::Ready).is_some_and(|ready| ready.reason == reason)
    };
    for (link, of_service, of_host) in [
        (Link::refused(), Reason::HostUnreachable, Reason::HostUnreachable),
        (Link::Up, Reason::Converged, Reason::Reachable),
    ] {
        world.fleet.set_link("web2", link);
        world.settles("web", of_service).await?;
        let since = Instant::now();
        world.until("the host's own status", async || said(of_host).await).await?;
        assert!(since.elapsed() < Duration::from_secs(5), "{of_host} only {:?} later", since.elapsed());
    }
    world.stop().await
}
