//! `windlass audit head`: the last anchor of the trail, to be kept elsewhere.

use clap::Args;
use windlass_crds::audit::{Chain, ExportedHead};
use windlass_store::{Scope, Store};

use crate::commands::ClientArgs;
use crate::exit::Exit;
use crate::failure::hinted;
use crate::output;

/// Print the head of the audit trail: the last anchor, as it is signed
///
/// Kept elsewhere, it shows later that the trail was cut back, or that an older copy of the store was put in its place:
/// `windlass audit verify --head FILE`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass audit head >head.json")]
pub(crate) struct HeadArgs {}

pub(super) async fn run(client: &ClientArgs) -> anyhow::Result<Exit> {
    let store = client.connection.connect().await?;
    let Some(head) = last(&store).await? else {
        let error = anyhow::anyhow!("the audit trail has no anchor yet");
        return Err(hinted(error, "the controller writes one with what it tells first"));
    };
    output::line(String::from_utf8_lossy(&head.stored))?;
    Ok(Exit::Done)
}

/// The last anchor that there is; nothing where there is none.
async fn last(store: &Store) -> anyhow::Result<Option<ExportedHead>> {
    let Some(last) = store.last(&Scope::chain(&Chain::Anchors), 1).await?.pop() else { return Ok(None) };
    let entry = store.get(&last).await?;
    Ok(entry.map(|entry| ExportedHead::of(&entry.value)).transpose()?)
}
