//! `windlass rollout pause`: holds a service as it is.

use clap::Args;
use windlass_crds::id::ResourceKey;
use windlass_crds::request::Request;

use super::super::ClientArgs;
use super::super::wait::Quiet;
use super::is_paused;
use crate::asking::ask;
use crate::connection::warn_without_controller;
use crate::exit::Exit;
use crate::first_steps;
use crate::inventory::{Inventory, scope_of_request};
use crate::output::{self, Label};
use crate::resources::{self, Selection};
use crate::settling::Goal;
use crate::telling::Shown;
use crate::waiting::{Target, WaitArgs};

/// Begin nothing more on any host, until `windlass rollout resume`
///
/// What was begun on a host is finished there, and what turns out unhealthy is taken back where it runs. What is
/// declared meanwhile waits, and so do repairs and restarts; deleting the declaration still takes the service down.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass rollout pause service/web
  windlass rollout pause service/web --wait     Until nothing more is begun")]
pub(crate) struct PauseArgs {
    /// Which: service/web, or service web
    #[arg(value_name = "RESOURCE", required = true)]
    resource: Vec<String>,
    #[command(flatten)]
    wait: WaitArgs,
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
    let watch = args.wait.begin(&store, scope_of_request(&key)).await?;
    let asked = ask(&store, &key, &Request::Pause).await?;
    if watch.is_none() {
        output::line(format_args!("{key} asked to pause"))?;
    }
    warn_without_controller(&store).await;
    let hint = format!("`windlass rollout resume {key}` lets it go on");
    if let Some(watch) = watch {
        let goal = Goal::Paused;
        watch.until(&[Target::new(key, goal).after(asked)], &mut Shown::new(Quiet(goal))).await?;
    }
    output::labelled(Label::Hint, hint);
    Ok(Exit::Done)
}
