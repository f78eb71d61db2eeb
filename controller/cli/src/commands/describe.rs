//! `windlass describe`: everything about a resource, on one screen.

use anyhow::Context as _;
use clap::Args;
use jiff::Timestamp;
use windlass_crds::id::{ResourceKey, ServiceKey};
use windlass_crds::record::Rollout;
use windlass_store::{Scope, Store};

use super::ClientArgs;
use crate::description::{Subject, describe};
use crate::exit::Exit;
use crate::first_steps;
use crate::happenings::{self, Pick};
use crate::inventory::{Inventory, Resource};
use crate::output;
use crate::resources::{self, Selection};

/// Show everything about resources: what is declared, how it stands, what failed and what comes next
///
/// For people: what is shown and where may change. `windlass get -o json` is for programs.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass describe service/web
  windlass describe host/web1 host/web2
  windlass describe networkzone/office")]
pub(crate) struct DescribeArgs {
    /// Which: service/web, or service web api
    #[arg(value_name = "RESOURCE", required = true)]
    resources: Vec<String>,
}

pub(super) async fn run(args: &DescribeArgs, client: &ClientArgs) -> anyhow::Result<Exit> {
    let selection = Selection::Named(resources::keys(&args.resources, &client.namespace)?);
    let store = client.connection.connect().await?;
    let inventory = Inventory::read(&store, &selection).await?;
    let keys = first_steps::require(&store, &inventory, &selection).await?;
    let events = happenings::read(&store).await?;
    // A Host's screen names the Services that it carries.
    let everything = if keys.iter().any(|key| matches!(key, ResourceKey::Host(_))) {
        Inventory::read(&store, &Selection::Kinds(Vec::new())).await?
    } else {
        Inventory::default()
    };
    let others: Vec<&Resource> = everything.all().collect();
    let mut texts = Vec::new();
    for resource in keys.iter().filter_map(|key| inventory.get(key)) {
        let pick = Pick::about(&resource.key);
        let rollouts = match &resource.key {
            ResourceKey::Service(service) => rollouts(&store, service).await?,
            _ => Vec::new(),
        };
        texts.push(describe(&Subject {
            resource,
            rollouts: &rollouts,
            events: &events.iter().filter(|event| pick.takes(event)).cloned().collect::<Vec<_>>(),
            others: &others,
            now: Timestamp::now(),
        }));
    }
    output::data(&texts.join("\n"))?;
    Ok(Exit::Done)
}

/// The rollouts of a Service that are kept, the oldest first.
async fn rollouts(store: &Store, service: &ServiceKey) -> anyhow::Result<Vec<Rollout>> {
    let listing = store.list(&Scope::rollouts(service)).await?;
    let mut rollouts = Vec::new();
    for entry in listing.entries {
        let rollout = serde_json::from_slice(&entry.value);
        rollouts.push(rollout.with_context(|| format!("{} is not a rollout that this version can read", entry.key))?);
    }
    // Keys sort as texts do, 10 before 2.
    rollouts.sort_by_key(|rollout: &Rollout| rollout.sequence);
    Ok(rollouts)
}
