//! Which transport a program is asked by, and whose fault it is when that does not work.

use windlass_crds::condition::Reason;
use windlass_hosts::memory::Behaviour;

use crate::world::World;

/// A remote host speaks https where nobody says otherwise, so a program that speaks plaintext is not well there.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_place_speaks_by_default_is_what_is_asked() -> anyhow::Result<()> {
    let world = World::start(&["web1"]).await?;
    world.write("server.py", "print(1)");
    world.apply_speaking("{port: 8080}", "web", "").await?;
    world.settles("web", Reason::Converged).await?;

    // The same program, and nothing says any more that it may be asked in plaintext.
    world.forget_zone().await?;
    world.settles("web", Reason::HostUnhealthy).await?;

    // Another one shows a certificate for its host's address, and the next for somebody else's.
    world.fleet.choose_behaviours(|program| match program.revision.0 {
        2 => Behaviour::default().over_tls(&program.address),
        _ => Behaviour::default().over_tls("198.18.9.9"),
    });
    world.write("server.py", "print(2)");
    world.settles_at("web", Reason::Converged, 2).await?;
    world.write("server.py", "print(3)");
    world.settles("web", Reason::RolledBack).await?;
    let status = world.status("web").await?.expect("a status");
    let failure = status.failure.expect("a failure");
    assert!(format!("{failure:?}").contains("its certificate is not for 198.18.0.1"), "{failure:?}");
    assert_eq!(world.revisions("web"), [2]);
    world.stop().await
}

/// `health.tls` has a meaning only with https, and whether it is https may depend on the zone.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_not_asked_for_in_plaintext() -> anyhow::Result<()> {
    let world = World::start(&["web1"]).await?;
    world.write("server.py", "print(1)");
    world.fleet.choose_behaviours(|_| Behaviour::default().over_tls("web.example.com"));
    world.named("{port: 8080}").await?;
    world.settles("web", Reason::InvalidDeclaration).await?;
    world.named("{port: 8080, transport: https}").await?;
    world.settles("web", Reason::Converged).await?;
    world.stop().await
}
