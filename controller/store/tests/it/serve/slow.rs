//! A watcher that takes nothing: it costs little, holds up nobody, and is told where it can go on no more.

use anyhow::{Context, Result, ensure};
use etcd_client::{Client, WatchStream};
use tokio::time::timeout;

use crate::PATIENCE;
use crate::subject::{Embedded, Keeping};

/// Far more than may wait for one client, in values of a quarter of a megabyte.
const PUTS: usize = 100;

async fn watch(endpoint: &str) -> Result<(Client, WatchStream)> {
    // Of its own: on one connection one stream that is not read holds up the others, on the client's side.
    let mut client = Client::connect([endpoint], None).await?;
    let stream = client.watch("a", None).await?;
    Ok((client, stream))
}

#[tokio::test]
async fn a_slow_watcher_is_cancelled_and_others_are_not_held_up() -> Result<()> {
    for keeping in [Keeping::Memory, Keeping::Disk] {
        let served = Embedded::start(keeping)?;
        let (mut writer, _) = watch(&served.endpoint()).await?;
        let (_slow_client, mut slow) = watch(&served.endpoint()).await?;
        let (_quick_client, mut quick) = watch(&served.endpoint()).await?;
        let mut revision = 0;
        for _ in 0..PUTS {
            let put = writer.put("a", vec![b'x'; 256 << 10], None).await?;
            revision = put.header().context("an answer without a header")?.revision();
        }
        let mut seen = 0;
        while seen < PUTS {
            let told = timeout(PATIENCE, quick.message()).await.context("the quick one is held up")??;
            seen += told.context("its stream ended")?.events().len();
        }
        writer.compact(revision, None).await?;
        let mut seen = 0;
        loop {
            let told = timeout(PATIENCE, slow.message()).await.context("the slow one is told nothing")??;
            let told = told.context("its stream ended")?;
            seen += told.events().len();
            if told.canceled() {
                ensure!(told.compact_revision() == revision, "{keeping:?}: cancelled for another reason: {told:?}");
                break;
            }
        }
        ensure!(seen < PUTS / 2, "{keeping:?}: {seen} of {PUTS} waited for it");
    }
    Ok(())
}
