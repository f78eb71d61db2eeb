//! `windlass rollout status`: a rollout as it goes.

use clap::Args;
use windlass_crds::id::ResourceKey;

use super::super::ClientArgs;
use crate::exit::Exit;
use crate::inventory::{Resource, scope_of};
use crate::narration::Narrator;
use crate::output;
use crate::resources;
use crate::telling::{self, Shown};
use crate::waiting::{Listener, Sight, Target, TimeoutArgs, Watch};

/// Follow a rollout until it is over
///
/// A line for each host that changes. Exits with 0 only when what is declared runs everywhere; with 1 when it was
/// rolled back or is stuck, and says why. It looks on: ended early, the rollout goes on.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass rollout status service/web
  windlass rollout status service/web --timeout 2m")]
pub(crate) struct StatusArgs {
    /// Which: service/web, or service web
    #[arg(value_name = "RESOURCE", required = true)]
    resource: Vec<String>,
    #[command(flatten)]
    timeout: TimeoutArgs,
}

pub(super) async fn run(args: &StatusArgs, client: &ClientArgs) -> anyhow::Result<Exit> {
    let key = ResourceKey::Service(resources::service(&args.resource, &client.namespace)?);
    let store = client.connection.connect().await?;
    let watch = Watch::begin(&store, args.timeout.timeout, scope_of(std::slice::from_ref(&key))).await?;
    watch
        .warning_without_controller()
        .until(&[Target::declared(key)], &mut Shown::unless_piped(Aloud::default()))
        .await?;
    Ok(Exit::Done)
}

/// Tells everything on stdout: here it is what was asked for.
#[derive(Default)]
struct Aloud(Narrator);

impl Listener for Aloud {
    fn seen(&mut self, resource: &Resource, _: Sight) -> anyhow::Result<()> {
        if resource.is_observed() {
            for line in self.0.news(resource) {
                output::line(line)?;
            }
        }
        Ok(())
    }

    fn met(&mut self, key: &ResourceKey, resource: Option<&Resource>) -> anyhow::Result<()> {
        let how = resource.map_or_else(String::new, telling::ending);
        Ok(output::line(format_args!("{key}: {how}"))?)
    }
}
