//! `windlass rollout restart`: the program anew, host by host.

use clap::Args;
use windlass_crds::id::ResourceKey;
use windlass_crds::request::Request;

use super::super::ClientArgs;
use super::ask_and_wait;
use crate::exit::Exit;
use crate::first_steps;
use crate::inventory::Inventory;
use crate::resources::{self, Selection};
use crate::settling::Ending;
use crate::waiting::WaitArgs;

/// Start the program anew on every host, one after the other
///
/// It is a rollout of its own: as many hosts at once as maxUnavailable says, each judged before the next. A host that
/// does not come up again ends it there; nothing is gone back to, and the others run on. A host out of reach is
/// restarted when it is back.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass rollout restart service/web
  windlass rollout restart service/web --wait --timeout 5m")]
pub(crate) struct RestartArgs {
    /// Which: service/web, or service web
    #[arg(value_name = "RESOURCE", required = true)]
    resource: Vec<String>,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(super) async fn run(args: &RestartArgs, client: &ClientArgs) -> anyhow::Result<Exit> {
    let service = resources::service(&args.resource, &client.namespace)?;
    let store = client.connection.connect().await?;
    let selection = Selection::Named(vec![ResourceKey::Service(service.clone())]);
    first_steps::require(&store, &Inventory::read(&store, &selection).await?, &selection).await?;
    // Where a person went back, the older revision is what is restarted.
    ask_and_wait(&store, &service, &Request::Restart, Ending::Restarted, &args.wait).await
}
