//! The embedded store's server: driven by `etcdctl` of both versions, by our own client, and by those who mean no good.

mod etcdctl;
mod limits;
mod slow;
mod watches;

use std::time::Duration;

use anyhow::{Result, ensure};
use windlass_store::{ConnectOptions, Store};

use crate::host;
use crate::subject::{Embedded, Keeping};

#[tokio::test]
async fn our_own_client_leads_and_follows_in_it() -> Result<()> {
    let served = Embedded::start(Keeping::Memory)?;
    let store = Store::connect(&ConnectOptions::new(vec![served.endpoint()])).await?;
    let leadership = store.campaign("tester", Duration::from_secs(15)).await?;
    let revision = store.declare(&host("web1"), b"{}".to_vec()).await?;
    ensure!(revision.0 > 1 && leadership.is_valid(), "{revision:?}");
    Ok(())
}
