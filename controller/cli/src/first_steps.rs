//! First steps: what to type next where there is nothing yet.

use windlass_crds::id::{Kind, ResourceKey};
use windlass_store::Store;

use crate::connection::warn_without_controller;
use crate::failure::hinted;
use crate::inventory::Inventory;
use crate::output::{self, Label};
use crate::resources::Selection;

/// From an empty store to a service that runs, for `windlass --help`.
pub(crate) const FIRST_STEPS: &str = "\
First steps:
  windlass serve                            Run the controller; leave it running
  windlass apply -f office.yaml             Declare a network, if it may carry plain http
  windlass host add web1 --address deploy@192.0.2.11
                                            Declare a machine, once its key is confirmed
  windlass apply -f web.yaml --wait         Declare a service, and wait until it runs
  windlass get                              See all of it, and how it stands";

/// The command that comes next; nothing where services are declared already.
fn next_command(inventory: &Inventory) -> Option<&'static str> {
    let declares = |kind| inventory.all().any(|resource| resource.key.kind() == kind && resource.declared.is_some());
    match (declares(Kind::Service), declares(Kind::Host)) {
        (true, _) => None,
        (false, true) => Some("no service is declared: `windlass apply -f FILE` declares one"),
        (false, false) => Some(
            "no machine and no service is declared: `windlass host add NAME --address USER@ADDRESS` declares a machine, \
             `windlass apply -f FILE` a service",
        ),
    }
}

/// Whether there was anything to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    NextCommand,
    Nothing,
}

/// Says on stderr what to type next, where the store holds no service, and how to start a controller where there is
/// none. `inventory` holds every kind.
pub(crate) async fn tell(store: &Store, inventory: &Inventory) -> Told {
    let Some(next) = next_command(inventory) else { return Told::Nothing };
    output::labelled(Label::Hint, next);
    warn_without_controller(store).await;
    Told::NextCommand
}

/// The same, for a command that has not read everything.
///
/// # Errors
/// When the store does not answer.
pub(crate) async fn tell_if_empty(store: &Store) -> anyhow::Result<()> {
    tell(store, &everything(store).await?).await;
    Ok(())
}

/// An error about something that is not there, with what to type next where there is no service at all, or else with
/// how to see what there is.
pub(crate) async fn not_there(store: &Store, error: anyhow::Error) -> anyhow::Error {
    match everything(store).await {
        Ok(inventory) => hinted(error, next_command(&inventory).unwrap_or("`windlass get` shows what there is")),
        // What is wrong is known all the same.
        Err(_) => error,
    }
}

/// The keys of a selection by name, all of which must be there.
///
/// # Errors
/// When one is not: with what to type next.
pub(crate) async fn require<'keys>(
    store: &Store,
    inventory: &Inventory,
    selection: &'keys Selection,
) -> anyhow::Result<&'keys [ResourceKey]> {
    match inventory.require(selection) {
        Ok(keys) => Ok(keys),
        Err(error) => Err(not_there(store, error).await),
    }
}

async fn everything(store: &Store) -> anyhow::Result<Inventory> {
    Ok(Inventory::read(store, &Selection::Kinds(Kind::ALL.to_vec())).await?)
}
