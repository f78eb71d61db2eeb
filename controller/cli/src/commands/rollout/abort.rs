//! `windlass rollout abort`: ends the rollout that is under way.

use clap::Args;
use windlass_crds::id::ResourceKey;
use windlass_crds::request::Request;

use super::super::ClientArgs;
use super::{ask_and_wait, undo};
use crate::exit::Exit;
use crate::first_steps;
use crate::inventory::Inventory;
use crate::resources::{self, Selection};
use crate::settling::Ending;
use crate::waiting::WaitArgs;

/// End the rollout that is under way, and go back
///
/// Hosts that have the new revision go back to their last good one; the others never leave it. The revision is not
/// deployed again until something else is declared, the source changes, or `windlass rollout retry`. Of a restart, the
/// hosts that have not been restarted are left alone.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass rollout abort service/web
  windlass rollout abort service/web --wait     Until every host is back")]
pub(crate) struct AbortArgs {
    /// Which: service/web, or service web
    #[arg(value_name = "RESOURCE", required = true)]
    resource: Vec<String>,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(super) async fn run(args: &AbortArgs, client: &ClientArgs) -> anyhow::Result<Exit> {
    let service = resources::service(&args.resource, &client.namespace)?;
    let store = client.connection.connect().await?;
    let key = ResourceKey::Service(service.clone());
    let selection = Selection::Named(vec![key.clone()]);
    first_steps::require(&store, &Inventory::read(&store, &selection).await?, &selection).await?;
    let abort = Request::Abort { from: undo::seen(&store, &key).await? };
    ask_and_wait(&store, &service, &abort, Ending::Aborted, &args.wait).await
}
