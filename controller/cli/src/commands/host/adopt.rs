//! `windlass host adopt`: takes a machine over from the store that owns it.

use std::io::IsTerminal as _;

use anyhow::{Context as _, bail};
use clap::Args;
use windlass_crds::condition::{ConditionStatus, ConditionType};
use windlass_crds::id::{ClusterId, HostId, HostName, Kind, ResourceKey};
use windlass_crds::request::Request;

use super::super::ClientArgs;
use crate::asking::ask;
use crate::connection::warn_without_controller;
use crate::exit::Exit;
use crate::failure::{UsageError, hinted};
use crate::first_steps;
use crate::inventory::{Inventory, scope_of_request};
use crate::output;
use crate::resources::Selection;
use crate::settling::Goal;
use crate::telling::{Running, Shown};
use crate::waiting::{Target, WaitArgs};

/// Take a machine over from the store that owns it
///
/// A machine belongs to the store whose controller used it first, and refuses every other one. Adopting it makes it
/// this store's: its old controller is refused from then on, and the services that it runs there go on. What this
/// store does not declare is never touched, so take such services down from the old store first, or by hand.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass host adopt web1
  windlass host adopt web1 --yes --wait")]
pub(crate) struct AdoptArgs {
    /// The Host's name
    #[arg(value_name = "NAME", value_parser = host_name)]
    host: HostName,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

/// `web1`, or `host/web1` as other commands take it.
fn host_name(text: &str) -> Result<HostName, windlass_crds::id::IdError> {
    text.strip_prefix("host/").unwrap_or(text).parse()
}

pub(super) async fn run(args: &AdoptArgs, client: &ClientArgs) -> anyhow::Result<Exit> {
    let store = client.connection.connect().await?;
    let key = ResourceKey::Host(args.host.clone());
    let inventory = Inventory::read(&store, &Selection::Kinds(vec![Kind::Host, Kind::Service])).await?;
    first_steps::require(&store, &inventory, &Selection::Named(vec![key.clone()])).await?;
    let Some(owner) = owner(&inventory, &key)? else {
        output::line(format_args!("{key} belongs to this store already"))?;
        return Ok(Exit::Done);
    };
    output::note(format_args!("{key} belongs to the store {owner}, and its controller looks after it."));
    let services = declared_for(&inventory, &args.host);
    let services = if services.is_empty() { "nothing".to_owned() } else { services.join(", ") };
    output::note(format_args!("Of what this store knows, {services} is to run there; nothing else is touched."));
    if !args.yes {
        confirm(&key)?;
    }
    let watch = args.wait.begin(&store, scope_of_request(&key)).await?;
    let asked = ask(&store, &key, &Request::Adopt { owner }).await?;
    if watch.is_none() {
        output::line(format_args!("{key} adoption asked for"))?;
    }
    warn_without_controller(&store).await;
    if let Some(watch) = watch {
        let goal = Goal::Condition(ConditionType::Ready, ConditionStatus::True);
        watch.until(&[Target::new(key, goal).after(asked)], &mut Shown::new(Running::default())).await?;
    }
    Ok(Exit::Done)
}

/// Whose the host is, where the controller has found that it is another store's.
fn owner(inventory: &Inventory, key: &ResourceKey) -> anyhow::Result<Option<ClusterId>> {
    let resource = inventory.get(key).context("it was there a moment ago")?;
    let told = resource.host_status();
    if let Some(owner) = told.owner {
        return Ok(Some(owner));
    }
    let ready = windlass_crds::status::condition(&told.conditions, ConditionType::Ready);
    if ready.is_some_and(|ready| ready.status == ConditionStatus::True) {
        return Ok(None);
    }
    let error = anyhow::anyhow!("whose {key} is has not been seen yet: {}", resource.reason());
    Err(hinted(error, format!("`windlass reconcile {key} --wait` looks now")))
}

/// The Services that this store would run there.
fn declared_for(inventory: &Inventory, host: &HostName) -> Vec<String> {
    let id = HostId::Named(host.clone());
    let there = inventory.all().filter(|resource| resource.service_status().hosts.contains_key(&id));
    there.map(|resource| resource.key.to_string()).collect()
}

/// Asks, where somebody is there to be asked.
fn confirm(key: &ResourceKey) -> anyhow::Result<()> {
    if !std::io::stdin().is_terminal() {
        let error = UsageError("nobody can be asked whether to take it over: there is no terminal".into());
        return Err(hinted(error, "say --yes"));
    }
    output::prompt(format_args!("Take {key} over? Type yes: "));
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).context("cannot read an answer")?;
    if line.trim() == "yes" { Ok(()) } else { bail!("not confirmed; nothing was written") }
}
