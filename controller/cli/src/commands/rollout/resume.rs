//! `windlass rollout resume`: lets a service go on.

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
use crate::output;
use crate::resources::{self, Selection};

/// Go on after `windlass rollout pause`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass rollout resume service/web
  windlass rollout status service/web       Follow what was waiting")]
pub(crate) struct ResumeArgs {
    /// Which: service/web, or service web
    #[arg(value_name = "RESOURCE", required = true)]
    resource: Vec<String>,
}

pub(super) async fn run(args: &ResumeArgs, client: &ClientArgs) -> anyhow::Result<Exit> {
    let key = ResourceKey::Service(resources::service(&args.resource, &client.namespace)?);
    let store = client.connection.connect().await?;
    let selection = Selection::Named(vec![key.clone()]);
    let inventory = Inventory::read(&store, &selection).await?;
    first_steps::require(&store, &inventory, &selection).await?;
    if !is_paused(&inventory, &key) {
        output::line(format_args!("{key} is not paused"))?;
        return Ok(Exit::Done);
    }
    ask(&store, &key, &Request::Resume).await?;
    output::line(format_args!("{key} asked to resume"))?;
    warn_without_controller(&store).await;
    Ok(Exit::Done)
}
