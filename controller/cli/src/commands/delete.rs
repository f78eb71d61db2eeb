//! `windlass delete`: takes declarations back, and confirms what that removes.

use std::collections::BTreeSet;

use anyhow::anyhow;
use clap::Args;
use windlass_crds::document::Declaration;
use windlass_crds::id::{HostId, HostName, Kind, ResourceKey};
use windlass_crds::request::Request;
use windlass_store::{Key, Store};

use super::ClientArgs;
use crate::asking::ask;
use crate::connection::warn_without_controller;
use crate::declarations::{self, FileArgs, Intent};
use crate::exit::Exit;
use crate::failure::UsageError;
use crate::first_steps;
use crate::inventory::{Inventory, scope_of};
use crate::output::{self, Label};
use crate::ownership::{self, Ownership};
use crate::resources::{self, Selection};
use crate::settling::Goal;
use crate::telling::{Running, Shown};
use crate::waiting::{Target, WaitArgs};

/// Take declarations back, and confirm what that removes
///
/// The controller then takes a deleted Service off its hosts, and off a deleted Host what labels had put there. Naming
/// it here is the confirmation that a raw delete of many keys would have to wait for.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass delete service/web --wait
  windlass delete -f web.yaml
  windlass delete service web api --ignore-not-found")]
pub(crate) struct DeleteArgs {
    /// Which: service/web, or service web api
    #[arg(value_name = "RESOURCE", conflicts_with = "files")]
    resources: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
    /// What is not there is no failure
    #[arg(long)]
    ignore_not_found: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(super) async fn run(args: &DeleteArgs, client: &ClientArgs) -> anyhow::Result<Exit> {
    let keys = named(args, client)?;
    let store = client.connection.connect().await?;
    // What a Host takes with it stands with the Services.
    let hosts = keys.iter().any(|key| matches!(key, ResourceKey::Host(_)));
    let selection = if hosts { Selection::Kinds(vec![Kind::Service]) } else { Selection::Named(keys.clone()) };
    let inventory = Inventory::read(&store, &selection).await?;
    let watch = args.wait.begin(&store, scope_of(&keys)).await?;
    let (mut targets, mut missing) = (Vec::new(), Vec::new());
    for key in &keys {
        let stored = store.get(&Key::Declared(key.clone())).await?;
        if let Ownership::Repo(repo) = ownership::of(&store, key, stored.as_ref()).await? {
            return Err(repo.conflict("", Intent::Delete));
        }
    }
    for key in keys {
        let Some(resource) = inventory.get(&key).filter(|resource| resource.exists()) else {
            missing.push(key);
            continue;
        };
        let deleted = store.delete_declaration(&key).await?;
        // What nobody declares and nothing is left of on hosts has only a status that is about to go.
        let confirmed = matches!(key, ResourceKey::Service(_)) && (deleted.is_some() || resource.owned.is_some());
        let mut target = Target::new(key.clone(), Goal::Gone).since(deleted.unwrap_or_default());
        if confirmed {
            target = target.after(ask(&store, &key, &Request::ConfirmRemoval { hosts: BTreeSet::new() }).await?);
        }
        targets.push(target);
        let verb = if deleted.is_some() { "deleted" } else { "is being removed already" };
        output::line(format_args!("{key} {verb}"))?;
        if let ResourceKey::Host(name) = &key {
            leave(&store, &inventory, name).await?;
        }
    }
    if !targets.is_empty() {
        warn_without_controller(&store).await;
    }
    if let Some(watch) = watch {
        watch.until(&targets, &mut Shown::new(Running::default())).await?;
    }
    if !missing.is_empty() && !args.ignore_not_found {
        let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
        return Err(first_steps::not_there(&store, anyhow!("not found: {}", missing.join(", "))).await);
    }
    Ok(Exit::Done)
}

/// Says which Services leave a Host that is gone, and confirms that.
async fn leave(store: &Store, inventory: &Inventory, host: &HostName) -> anyhow::Result<()> {
    let id = HostId::Named(host.clone());
    for resource in inventory.all() {
        let carried = resource.owned_record().is_some_and(|owned| owned.hosts.contains_key(&id));
        let Some(Ok(Declaration::Service(service))) = resource.declaration().filter(|_| carried) else { continue };
        let key = &resource.key;
        if service.spec.placement.hosts.contains(&id) {
            output::labelled(
                Label::Warning,
                format_args!(
                    "{key} names {host} in spec.placement.hosts: it runs on there, and nobody looks after it until you take {host} out of there"
                ),
            );
            continue;
        }
        ask(store, key, &Request::ConfirmRemoval { hosts: BTreeSet::from([id.clone()]) }).await?;
        output::line(format_args!("{key} removal from {host} confirmed"))?;
    }
    Ok(())
}

fn named(args: &DeleteArgs, client: &ClientArgs) -> anyhow::Result<Vec<ResourceKey>> {
    if !args.resources.is_empty() {
        return Ok(resources::keys(&args.resources, &client.namespace)?);
    }
    if args.files.files.is_empty() {
        return Err(UsageError("say what: service/NAME, or -f FILE".into()).into());
    }
    let documents = declarations::load(&args.files, client.namespace.namespace.as_ref(), Intent::Delete)?;
    Ok(documents.iter().map(declarations::Loaded::key).collect())
}
