//! `windlass reconcile`: looks now instead of at the next interval.

use clap::Args;
use windlass_crds::request::Request;

use super::ClientArgs;
use crate::asking::ask;
use crate::connection::warn_without_controller;
use crate::exit::Exit;
use crate::first_steps;
use crate::inventory::{Inventory, scope_of};
use crate::output;
use crate::resources::{self, Selection};
use crate::telling::{Running, Shown};
use crate::waiting::{Target, WaitArgs};

/// Look at sources and hosts now, and bring services where their declarations say
///
/// Of a Host it asks whether it can be reached now; of a ConfigRepo, whether its repository has something new.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass reconcile service/web
  windlass reconcile service/web service/api --wait --timeout 5m
  windlass reconcile host/web1 --wait
  windlass reconcile configrepo/fleet --wait")]
pub(crate) struct ReconcileArgs {
    /// Which: service/web, or service web api
    #[arg(value_name = "RESOURCE", required = true)]
    resources: Vec<String>,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(super) async fn run(args: &ReconcileArgs, client: &ClientArgs) -> anyhow::Result<Exit> {
    let selection = Selection::Named(resources::keys(&args.resources, &client.namespace)?);
    let store = client.connection.connect().await?;
    let inventory = Inventory::read(&store, &selection).await?;
    let keys = first_steps::require(&store, &inventory, &selection).await?;
    let watch = args.wait.begin(&store, scope_of(keys)).await?;
    let mut targets = Vec::new();
    for key in keys {
        let asked = ask(&store, key, &Request::Reconcile).await?;
        targets.push(Target::declared(key.clone()).after(asked));
        if watch.is_none() {
            output::line(format_args!("{key} asked to reconcile"))?;
        }
    }
    warn_without_controller(&store).await;
    if let Some(watch) = watch {
        watch.until(&targets, &mut Shown::new(Running::default())).await?;
    }
    Ok(Exit::Done)
}
