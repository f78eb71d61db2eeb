//! `windlass reconcile`: looks now instead of at the next interval.

use clap::Args;
use windlass_crds::id::ResourceKey;
use windlass_crds::request::Request;

use super::ClientArgs;
use crate::asking::ask;
use crate::connection::warn_without_controller;
use crate::exit::Exit;
use crate::inventory::Inventory;
use crate::output;
use crate::resources::{self, Selection};
use crate::waiting::{self, Running, Target, WaitArgs};

/// Look at sources and hosts now, and bring services where their declarations say
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass reconcile service/web
  windlass reconcile service/web service/api --wait --timeout 5m")]
pub(crate) struct ReconcileArgs {
    /// Which: service/web, or service web api
    #[arg(value_name = "RESOURCE", required = true)]
    resources: Vec<String>,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(super) async fn run(args: &ReconcileArgs, client: &ClientArgs) -> anyhow::Result<Exit> {
    let keys = resources::services(&args.resources, &client.namespace)?.into_iter().map(ResourceKey::Service);
    let selection = Selection::Named(keys.collect());
    let store = client.connection.connect().await?;
    let inventory = Inventory::read(&store, &selection).await?;
    let keys = inventory.require(&selection)?;
    let mut targets = Vec::new();
    for key in keys {
        let request = ask(&store, key, &Request::Reconcile).await?;
        targets.push(Target::declared(key.clone()).after(request));
        if !args.wait.wait {
            output::line(format_args!("{key} asked to reconcile"))?;
        }
    }
    warn_without_controller(&store).await;
    if args.wait.wait {
        waiting::wait(&store, &targets, args.wait.timeout, &mut Running::default()).await?;
    }
    Ok(Exit::Done)
}
