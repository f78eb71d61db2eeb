//! `windlass wait`: until a resource is as it is wanted.

use clap::Args;
use windlass_crds::id::ResourceKey;

use super::ClientArgs;
use crate::exit::Exit;
use crate::inventory::{Resource, scope_of};
use crate::output;
use crate::resources;
use crate::settling::Goal;
use crate::telling::Shown;
use crate::waiting::{Listener, Sight, Target, TimeoutArgs, Watch};

/// Wait until resources are as they are wanted
///
/// It watches, and believes only a status that speaks of what is declared now and comes after every request that
/// was open when it began. What cannot come true any more is told at once, with what is known about it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass wait service/web --for=condition=Ready --timeout 2m
  windlass wait service web api --for=condition=Available
  windlass wait service/web --for=delete
  windlass wait host/web1 --for=generation      Until the controller has read what is declared")]
pub(crate) struct WaitForArgs {
    /// Which: service/web, or service web api
    #[arg(value_name = "RESOURCE", required = true)]
    resources: Vec<String>,
    /// What to wait for: condition=TYPE[=True|False|Unknown], delete or generation
    #[arg(long = "for", value_name = "WHAT", default_value = "condition=Ready")]
    goal: Goal,
    #[command(flatten)]
    timeout: TimeoutArgs,
}

pub(super) async fn run(args: &WaitForArgs, client: &ClientArgs) -> anyhow::Result<Exit> {
    let keys = resources::keys(&args.resources, &client.namespace)?;
    let store = client.connection.connect().await?;
    let scope = scope_of(&keys);
    let targets: Vec<Target> = keys.into_iter().map(|key| Target::new(key, args.goal)).collect();
    let watch = Watch::begin(&store, args.timeout.timeout, scope).await?;
    watch.warning_without_controller().until(&targets, &mut Shown::new(Quiet(args.goal))).await?;
    Ok(Exit::Done)
}

/// Says nothing but that it is done.
pub(super) struct Quiet(pub(super) Goal);

impl Listener for Quiet {
    fn seen(&mut self, _: &Resource, _: Sight) -> anyhow::Result<()> {
        Ok(())
    }

    fn met(&mut self, key: &ResourceKey, _: Option<&Resource>) -> anyhow::Result<()> {
        let what = match self.0 {
            Goal::Gone => "deleted",
            Goal::Observed => "seen",
            Goal::Paused => "paused",
            Goal::Condition(..) | Goal::Settled(_) => "condition met",
        };
        Ok(output::line(format_args!("{key} {what}"))?)
    }
}
