//! `windlass rollout pause`: holds a service as it is.

use clap::Args;
use windlass_crds::id::ResourceKey;
use windlass_crds::request::Request;

use super::super::ClientArgs;
use super::is_paused;
use crate::asking::ask;
use crate::connection::warn_without_controller;
use crate::exit::Exit;
use crate::first_steps;
use crate::inventory::Inventory;
use crate::output::{self, Label};
use crate::resources::{self, Selection};

/// Begin nothing more on any host, until `windlass rollout resume`
///
/// What was begun on a host is finished there, and what turns out unhealthy is taken back where it runs. What is
/// declared meanwhile waits, and so do repairs and restarts; deleting the declaration still takes the service down.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass rollout pause service/web")]
pub(crate) struct PauseArgs {
    /// Which: service/web, or service web
    #[arg(value_name = "RESOURCE", required = true)]
    resource: Vec<String>,
}

pub(super) async fn run(args: &PauseArgs, client: &ClientArgs) -> anyhow::Result<Exit> {
    let key = ResourceKey::Service(resources::service(&args.resource, &client.namespace)?);
    let store = client.connection.connect().await?;
    let selection = Selection::Named(vec![key.clone()]);
    let inventory = Inventory::read(&store, &selection).await?;
    first_steps::require(&store, &inventory, &selection).await?;
    if is_paused(&inventory, &key) {
        output::line(format_args!("{key} is paused already"))?;
        return Ok(Exit::Done);
    }
    ask(&store, &key, &Request::Pause).await?;
    output::line(format_args!("{key} asked to pause"))?;
    output::labelled(Label::Hint, format_args!("`windlass rollout resume {key}` lets it go on"));
    warn_without_controller(&store).await;
    Ok(Exit::Done)
}
