//! `windlass confirm-removal`: lets removals go on that wait for a person.

use std::collections::BTreeSet;

use anyhow::bail;
use clap::Args;
use windlass_crds::condition::Reason;
use windlass_crds::id::{Kind, ResourceKey};
use windlass_crds::request::Request;
use windlass_crds::status::HostState;

use super::ClientArgs;
use crate::asking::ask;
use crate::connection::warn_without_controller;
use crate::exit::Exit;
use crate::first_steps;
use crate::inventory::{Inventory, Resource};
use crate::output::{self, Label};
use crate::resources::{self, Selection};

/// Let removals go on that wait for a person
///
/// Without a name it shows which wait: it confirms nothing. They are looked for in every namespace unless -n says
/// one.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass confirm-removal                  Show what waits
  windlass confirm-removal service/web
  windlass confirm-removal --all")]
pub(crate) struct ConfirmRemovalArgs {
    /// Which: service/web, or service web api
    #[arg(value_name = "RESOURCE", conflicts_with = "all")]
    resources: Vec<String>,
    /// Every removal that waits
    #[arg(long)]
    all: bool,
}

pub(super) async fn run(args: &ConfirmRemovalArgs, client: &ClientArgs) -> anyhow::Result<Exit> {
    let named = match args.resources.as_slice() {
        [] => None,
        words => Some(resources::services(words, &client.namespace)?),
    };
    let store = client.connection.connect().await?;
    let inventory = Inventory::read(&store, &Selection::Kinds(vec![Kind::Service])).await?;
    let waiting: Vec<&Resource> = match &named {
        Some(keys) => {
            let mut found = Vec::new();
            for key in keys.iter().map(|key| ResourceKey::Service(key.clone())) {
                match inventory.get(&key).filter(|resource| waits(resource)) {
                    Some(resource) => found.push(resource),
                    None => bail!("no removal of {key} waits for confirmation; nothing was confirmed"),
                }
            }
            found
        }
        None => {
            let asked = client.namespace.namespace.as_ref();
            let inside = |resource: &&Resource| match (&resource.key, asked) {
                (ResourceKey::Service(key), Some(asked)) => key.namespace == *asked,
                _ => true,
            };
            inventory.all().filter(|resource| waits(resource)).filter(inside).collect()
        }
    };
    if waiting.is_empty() {
        output::note("no removal waits for confirmation");
        first_steps::tell_if_empty(&store).await?;
        return Ok(Exit::Done);
    }
    let confirming = args.all || named.is_some();
    for resource in &waiting {
        let hosts = hosts(resource);
        // A status that is late, or from another version, does not name them.
        let from = if hosts.is_empty() { "its hosts".to_owned() } else { hosts.join(", ") };
        if confirming {
            ask(&store, &resource.key, &Request::ConfirmRemoval { hosts: BTreeSet::new() }).await?;
            output::line(format_args!("{} removal from {from} confirmed", resource.key))?;
        } else {
            output::line(format_args!("{} waits to be removed from {from}", resource.key))?;
        }
    }
    if confirming {
        warn_without_controller(&store).await;
    } else {
        output::labelled(Label::Hint, "name them, or say --all, to let them go on");
    }
    Ok(Exit::Done)
}

/// Whether a removal of it waits for a person.
fn waits(resource: &Resource) -> bool {
    resource.any_status().conditions.iter().any(|condition| condition.reason == Reason::RemovalNeedsConfirmation)
}

/// The hosts that it would be removed from.
fn hosts(resource: &Resource) -> Vec<String> {
    let told = resource.service_status();
    let owned = resource.owned_record().unwrap_or_default();
    let leaving = told.hosts.iter().filter(|(_, row)| row.state == HostState::Removing).map(|(host, _)| host);
    // A status that is late does not name them; of what nobody declares, all hosts are left.
    let leaving: Vec<_> = match resource.declared {
        None if told.hosts.is_empty() => owned.hosts.keys().collect(),
        _ => leaving.collect(),
    };
    let unconfirmed = leaving.into_iter().filter(|host| !owned.confirmed_removals.contains(*host));
    unconfirmed.map(ToString::to_string).collect()
}
