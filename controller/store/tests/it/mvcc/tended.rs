//! A store that is served tends itself, also when nobody asks for anything.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use windlass_store::Prefix;
use windlass_store::mvcc::{Backend as _, Engine, Request};
use windlass_store::serve::{Door, Identity, Server};

use super::particular::Shared;
use super::{NOW, one, put};
use crate::PATIENCE;

#[tokio::test]
async fn what_is_forgotten_leaves_the_disk_while_nobody_asks() -> Result<()> {
    let backend = Shared::default();
    let engine = Engine::open(Box::new(backend.clone()), NOW)?;
    // More than goes at once.
    for value in 0..5000 {
        one(&engine, Request::Put(put("a", &value.to_string())))?;
    }
    engine.compact(engine.revision())?;
    let server = Server::new(Arc::new(engine), Identity { cluster: 7, member: 8 }, Prefix::default())?;
    let (listener, stop) = (TcpListener::bind("127.0.0.1:0").await?, CancellationToken::new());
    let stopped = stop.clone();
    let served = tokio::spawn(async move { server.serve(listener, Door::Open, stopped).await });
    let (begun, left) = (Instant::now(), || backend.changes(0, usize::MAX, usize::MAX).map(|changes| changes.len()));
    while left()? > 1 {
        ensure!(begun.elapsed() < PATIENCE, "{} are still there", left()?);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.cancel();
    served.await??;
    Ok(())
}
