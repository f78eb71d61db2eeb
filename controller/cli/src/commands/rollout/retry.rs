//! `windlass rollout retry`: what is declared, once more.

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

/// Deploy again what was unhealthy or undone
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass rollout retry service/web --wait")]
pub(crate) struct RetryArgs {
    /// Which: service/web, or service web
    #[arg(value_name = "RESOURCE", required = true)]
    resource: Vec<String>,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(super) async fn run(args: &RetryArgs, client: &ClientArgs) -> anyhow::Result<Exit> {
    let service = resources::service(&args.resource, &client.namespace)?;
    let store = client.connection.connect().await?;
    let selection = Selection::Named(vec![ResourceKey::Service(service.clone())]);
    first_steps::require(&store, &Inventory::read(&store, &selection).await?, &selection).await?;
    ask_and_wait(&store, &service, &Request::Retry, Ending::Declared, &args.wait).await
}
