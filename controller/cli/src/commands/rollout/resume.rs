//! `windlass rollout resume`: lets a service go on.

use clap::Args;
use windlass_crds::id::ResourceKey;
use windlass_crds::request::Request;

use super::super::ClientArgs;
use super::{ask_and_wait, is_held};
use crate::exit::Exit;
use crate::first_steps;
use crate::inventory::Inventory;
use crate::output;
use crate::resources::{self, Selection};
use crate::settling::Ending;
use crate::waiting::WaitArgs;

/// Go on after `windlass rollout pause`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass rollout resume service/web
  windlass rollout resume service/web --wait    Until what was waiting runs
  windlass rollout status service/web           Follow what was waiting")]
pub(crate) struct ResumeArgs {
    /// Which: service/web, or service web
    #[arg(value_name = "RESOURCE", required = true)]
    resource: Vec<String>,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(super) async fn run(args: &ResumeArgs, client: &ClientArgs) -> anyhow::Result<Exit> {
    let service = resources::service(&args.resource, &client.namespace)?;
    let key = ResourceKey::Service(service.clone());
    let store = client.connection.connect().await?;
    let selection = Selection::Named(vec![key.clone()]);
    let inventory = Inventory::read(&store, &selection).await?;
    first_steps::require(&store, &inventory, &selection).await?;
    if !is_held(&inventory, &key) {
        output::line(format_args!("{key} is not paused"))?;
        return Ok(Exit::Done);
    }
    // Where a person went back, the older revision is what goes on.
    ask_and_wait(&store, &service, &Request::Resume, Ending::Restarted, &args.wait).await
}
