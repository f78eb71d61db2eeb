//! Idle: a leader, a standby and their followers write nothing.

use std::time::Duration;

use anyhow::ensure;
use windlass_store::{LEADERSHIP_TTL, Scope};

use crate::mirror::Mirror;
use crate::{check, connect, lead};

#[test]
fn idle_the_revision_does_not_move() {
    check(async |etcd| {
        let (store, leadership) = lead(&etcd).await?;
        let mut mirror = Mirror::of(store.follow(Scope::state())).await?;
        let standby = connect(&etcd).await?;
        let waiting = tokio::spawn(async move { standby.campaign("standby", LEADERSHIP_TTL).await });
        let revision = etcd.revision()?;
        let outcome = tokio::time::timeout(
            Duration::from_secs(25),
            mirror.until("a change that nobody makes", |mirror| mirror.changes > 0),
        )
        .await;
        ensure!(outcome.is_err() && mirror.interruptions == 0 && mirror.snapshots == 1);
        // One is asked for every 10 s.
        ensure!(mirror.signs == 2, "{} signs of life", mirror.signs);
        ensure!(etcd.revision()? == revision && leadership.is_valid() && !waiting.is_finished());
        Ok(())
    });
}
