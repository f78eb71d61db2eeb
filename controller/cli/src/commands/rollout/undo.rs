//! `windlass rollout undo`: back to an older revision.

use anyhow::bail;
use clap::Args;
use windlass_crds::id::{ResourceKey, RevisionNumber};
use windlass_crds::request::Request;
use windlass_crds::status::ServiceStatus;
use windlass_store::{Key, Store};

use super::super::ClientArgs;
use super::{ask_and_wait, history};
use crate::exit::Exit;
use crate::first_steps;
use crate::inventory::Inventory;
use crate::resources::{self, Selection};
use crate::settling::Ending;
use crate::waiting::WaitArgs;

/// Go back to an older revision, until something else is declared
///
/// A revision is files and settings together. The declaration stays as it is; `windlass rollout retry` goes forward
/// to it again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass rollout undo service/web --wait
  windlass rollout undo service/web --to-revision 4")]
pub(crate) struct UndoArgs {
    /// Which: service/web, or service web
    #[arg(value_name = "RESOURCE", required = true)]
    resource: Vec<String>,
    /// To which revision; the last good one before the present one unless told
    #[arg(long, value_name = "NUMBER")]
    to_revision: Option<RevisionNumber>,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(super) async fn run(args: &UndoArgs, client: &ClientArgs) -> anyhow::Result<Exit> {
    let service = resources::service(&args.resource, &client.namespace)?;
    let store = client.connection.connect().await?;
    let key = ResourceKey::Service(service.clone());
    let selection = Selection::Named(vec![key.clone()]);
    first_steps::require(&store, &Inventory::read(&store, &selection).await?, &selection).await?;
    if let Some(wanted) = args.to_revision {
        let kept: Vec<RevisionNumber> =
            history::revisions(&store, &service).await?.iter().map(|revision| revision.number).collect();
        if !kept.contains(&wanted) {
            let kept: Vec<String> = kept.iter().map(ToString::to_string).collect();
            let kept = if kept.is_empty() { "none".to_owned() } else { kept.join(", ") };
            bail!(
                "there is no revision {wanted} of {key}; kept: {kept}\nhint: `windlass rollout history` shows what each is"
            );
        }
    }
    let undo = Request::Undo { revision: args.to_revision, from: seen(&store, &key).await? };
    ask_and_wait(&store, &service, &undo, Ending::Undone, &args.wait).await
}

/// The revision that is declared as far as anybody can see now: it is this that is gone back from, and no later one.
pub(super) async fn seen(store: &Store, key: &ResourceKey) -> anyhow::Result<Option<RevisionNumber>> {
    let entry = store.get(&Key::Status(key.clone())).await?;
    let status = entry.and_then(|entry| serde_json::from_slice::<ServiceStatus>(&entry.value).ok());
    Ok(status.and_then(|status| status.revision))
}
