//! `windlass rollout approve`: lets the next step of a canary begin.

use anyhow::{anyhow, bail};
use clap::Args;
use windlass_crds::id::{ResourceKey, RevisionNumber};
use windlass_crds::request::Request;
use windlass_crds::status::ServiceStatus;

use super::super::ClientArgs;
use super::ask_and_wait;
use crate::exit::Exit;
use crate::failure::hinted;
use crate::first_steps;
use crate::inventory::{Inventory, Resource};
use crate::resources::{self, Selection};
use crate::settling::Ending;
use crate::waiting::WaitArgs;

/// Let the next step of a canary begin
///
/// One step of one revision: of the one that waits now, or of `--revision`. Where it does not wait any more, because
/// something else was declared, or somebody else was quicker, nothing happens.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass rollout approve service/web
  windlass rollout approve service/web --revision 4
  windlass rollout approve service/web --wait   Until the step after it waits, or all is done")]
pub(crate) struct ApproveArgs {
    /// Which: service/web, or service web
    #[arg(value_name = "RESOURCE", required = true)]
    resource: Vec<String>,
    /// Of which revision; of the one that waits unless told
    #[arg(long, value_name = "NUMBER")]
    revision: Option<RevisionNumber>,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(super) async fn run(args: &ApproveArgs, client: &ClientArgs) -> anyhow::Result<Exit> {
    let service = resources::service(&args.resource, &client.namespace)?;
    let key = ResourceKey::Service(service.clone());
    let store = client.connection.connect().await?;
    let selection = Selection::Named(vec![key.clone()]);
    let inventory = Inventory::read(&store, &selection).await?;
    first_steps::require(&store, &inventory, &selection).await?;
    let told = inventory.get(&key).map(Resource::service_status).unwrap_or_default();
    let Some(Waiting { revision, step }) = waiting(&told) else {
        let error = anyhow!("nothing of {key} waits for approval");
        return Err(hinted(error, format!("`windlass rollout status {key}` follows what is under way")));
    };
    if let Some(wanted) = args.revision.filter(|wanted| *wanted != revision) {
        bail!("it is revision {revision} of {key} that waits for approval, and not {wanted}");
    }
    let request = Request::Approve { revision, step: Some(step) };
    ask_and_wait(&store, &service, &request, Ending::Approved, &args.wait).await
}

/// What waits for a person.
struct Waiting {
    revision: RevisionNumber,
    step: u32,
}

fn waiting(told: &ServiceStatus) -> Option<Waiting> {
    let canary = told.rollout.as_ref()?.canary.as_ref()?;
    canary.waiting_since?;
    Some(Waiting { revision: told.target?, step: canary.step })
}
