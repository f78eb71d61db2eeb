//! What the controller tells of itself while it works.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use windlass_crds::condition::Reason;
use windlass_engine::{ServeOptions, serve};
use windlass_hosts::memory::{Behaviour, Link, MemoryFleet};
use windlass_store::{Authors, ConnectOptions};

use crate::world::{World, free_address};

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_and_a_rollback_are_counted() -> anyhow::Result<()> {
    let world = World::start(&["web1", "web2"]).await?;
    world.write("server.py", "print(1)");
    world.apply("web", "").await?;
    world.settles("web", Reason::Converged).await?;
    for (name, expected) in [
        ("windlass_leader", 1.0),
        ("windlass_store_up", 1.0),
        ("windlass_steps_total{verb=\"stage\",outcome=\"done\"}", 2.0),
        ("windlass_steps_total{verb=\"activate\",outcome=\"done\"}", 2.0),
        ("windlass_steps_total{verb=\"confirm\",outcome=\"done\"}", 2.0),
        ("windlass_steps_total{verb=\"revert\",outcome=\"done\"}", 0.0),
        ("windlass_step_duration_seconds_count{verb=\"stage\"}", 2.0),
        ("windlass_verdicts_total{verdict=\"healthy\"}", 2.0),
        ("windlass_verdict_duration_seconds_count", 2.0),
        ("windlass_rollouts_total{purpose=\"deploy\",outcome=\"succeeded\"}", 1.0),
        ("windlass_rollouts_active", 0.0),
        ("windlass_services{state=\"ready\"}", 1.0),
        ("windlass_hosts{state=\"ready\"}", 2.0),
        ("windlass_hosts{state=\"unreachable\"}", 0.0),
    ] {
        assert_eq!(world.metric(name).await?, expected, "{name}");
    }
    for name in [
        "windlass_store_request_duration_seconds_count{call=\"txn\"}",
        "windlass_queue_wait_seconds_count",
        "windlass_reconcile_duration_seconds_count{kind=\"service\",outcome=\"done\"}",
    ] {
        assert!(world.metric(name).await? >= 1.0, "{name}");
    }

    world.fleet.choose_behaviours(|program| match program.revision.0 {
        2 => Behaviour::unhealthy(500),
        _ => Behaviour::default(),
    });
    world.write("server.py", "print('bad')");
    world.settles("web", Reason::RolledBack).await?;
    for (name, expected) in [
        ("windlass_verdicts_total{verdict=\"unhealthy\"}", 1.0),
        ("windlass_rollouts_total{purpose=\"deploy\",outcome=\"unhealthy\"}", 1.0),
        ("windlass_rollouts_total{purpose=\"rollback\",outcome=\"succeeded\"}", 1.0),
        ("windlass_steps_total{verb=\"revert\",outcome=\"done\"}", 1.0),
        ("windlass_services{state=\"ready\"}", 0.0),
    ] {
        assert_eq!(world.metric(name).await?, expected, "{name}");
    }

    world.fleet.set_link("web2", Link::refused());
    let lost = async || world.metric("windlass_hosts{state=\"unreachable\"}").await.is_ok_and(|count| count == 1.0);
    // Nothing looks at a Host oftener than once a minute; a request does.
    world.ask_to_look("hosts/web2").await?;
    world.until("the lost host to be counted", lost).await?;
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_readiness_tell_the_truth() -> anyhow::Result<()> {
    let world = World::start(&[]).await?;
    world
        .until("the controller to lead", async || world.get("/readyz").await.is_ok_and(|(_, body)| body == "leader\n"))
        .await?;
    assert_eq!(world.get("/healthz").await?, (200, "ok\n".to_owned()));

    // A store that is away makes it unready, says since when, and is nothing that a restart would mend.
    world.etcd.kill9();
    let away = async || world.get("/readyz").await.is_ok_and(|(status, _)| status == 503);
    world.until("the store to be missed", away).await?;
    let (_, why) = world.get("/readyz").await?;
    assert!(why.starts_with("not ready: the store is away since 20"), "{why}");
    assert_eq!(world.metric("windlass_store_up").await?, 0.0);
    assert_eq!(world.get("/healthz").await?.0, 200);
    world.etcd.restart()?;
    world
        .until("the store to be back", async || world.get("/readyz").await.is_ok_and(|(status, _)| status == 200))
        .await?;
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_question_is_refused() -> anyhow::Result<()> {
    let world = World::start(&[]).await?;
    world.until("it to answer", async || world.get("/healthz").await.is_ok()).await?;
    assert_eq!(world.get("/").await?.0, 404);
    let post = world.exchange("POST /metrics HTTP/1.1\r\nhost: windlass\r\ncontent-length: 0\r\n\r\n").await?;
    assert!(post.starts_with("HTTP/1.1 405 ") && post.contains("allow: GET, HEAD\r\n"), "{post}");
    let head = world.exchange("HEAD /healthz HTTP/1.1\r\nhost: windlass\r\n\r\n").await?;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    let long = format!("GET /healthz HTTP/1.1\r\nhost: windlass\r\nx-long: {}\r\n\r\n", "x".repeat(20_000));
    let long = world.exchange(&long).await;
    assert!(long.as_ref().map_or(true, |answer| answer.starts_with("HTTP/1.1 431 ")), "{long:?}");
    // Who never ends a request does not keep the connection.
    let began = Instant::now();
    let slow = world.exchange("GET /healthz HTTP/1.1\r\nhost:").await;
    assert!(slow.is_err() || slow.is_ok_and(|answer| !answer.contains(" 200 ")));
    assert!(began.elapsed() < Duration::from_secs(20));
    world.stop().await
}

/// On one thread, so that nothing of it can have gone on beside this test.
#[tokio::test]
async fn a_controller_that_has_ended_has_given_up_its_port() -> anyhow::Result<()> {
    let data = tempfile::tempdir()?;
    let listen = free_address()?;
    let shutdown = CancellationToken::new();
    // Nobody is there; the port is answered all the same.
    let options = ServeOptions {
        store: ConnectOptions::new([format!("http://{}", free_address()?)]),
        authors: Authors::default(),
        data_dir: data.path().to_owned(),
        audit_retention: windlass_engine::audit::RETENTION,
        listen,
        identity: "test".to_owned(),
    };
    let serving = serve(options, Arc::new(MemoryFleet::new()), shutdown.clone());
    let stopping = async {
        while TcpStream::connect(listen).await.is_err() {
            tokio::task::yield_now().await;
        }
        shutdown.cancel();
    };
    let (ended, ()) = tokio::join!(serving, stopping);
    // No await in between: what was only told to end would still be there.
    let again = std::net::TcpListener::bind(listen);
    ended?;
    again?;
    Ok(())
}
