//! `windlass rollout`: how a service gets to its hosts, and back.

mod abort;
mod approve;
mod history;
mod pause;
mod restart;
mod resume;
mod retry;
mod status;
mod undo;

use clap::{Args, Subcommand};
use windlass_crds::id::{ResourceKey, ServiceKey};
use windlass_crds::request::Request;
use windlass_store::Store;

use super::ClientArgs;
use crate::asking::ask;
use crate::connection::warn_without_controller;
use crate::exit::Exit;
use crate::inventory::scope_of_request;
use crate::inventory::{Inventory, Resource};
use crate::output;
use crate::settling::{Ending, Goal};
use crate::telling::{Running, Shown};
use crate::waiting::{Target, WaitArgs};

/// Follow rollouts, hold or approve them, restart programs, and go back to earlier revisions
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass rollout status service/web
  windlass rollout restart service/web --wait
  windlass rollout undo service/web")]
pub(crate) struct RolloutArgs {
    #[command(subcommand)]
    command: RolloutCommand,
}

#[derive(Debug, Subcommand)]
enum RolloutCommand {
    Status(status::StatusArgs),
    History(history::HistoryArgs),
    Undo(undo::UndoArgs),
    Retry(retry::RetryArgs),
    Restart(restart::RestartArgs),
    Pause(pause::PauseArgs),
    Resume(resume::ResumeArgs),
    Approve(approve::ApproveArgs),
    Abort(abort::AbortArgs),
}

pub(super) async fn run(args: &RolloutArgs, client: &ClientArgs) -> anyhow::Result<Exit> {
    match &args.command {
        RolloutCommand::Status(args) => status::run(args, client).await,
        RolloutCommand::History(args) => history::run(args, client).await,
        RolloutCommand::Undo(args) => undo::run(args, client).await,
        RolloutCommand::Retry(args) => retry::run(args, client).await,
        RolloutCommand::Restart(args) => restart::run(args, client).await,
        RolloutCommand::Pause(args) => pause::run(args, client).await,
        RolloutCommand::Resume(args) => resume::run(args, client).await,
        RolloutCommand::Approve(args) => approve::run(args, client).await,
        RolloutCommand::Abort(args) => abort::run(args, client).await,
    }
}

/// Whether a Service is held up until somebody resumes, by a person or by what happened to it, as far as the records
/// say.
fn is_held(inventory: &Inventory, key: &ResourceKey) -> bool {
    let owned = inventory.get(key).and_then(Resource::owned_record);
    owned.is_some_and(|owned| owned.paused.is_some() || owned.hold.is_some() || !owned.went_back.is_empty())
}

/// Whether a Service is paused, as far as the records say.
fn is_paused(inventory: &Inventory, key: &ResourceKey) -> bool {
    let owned = inventory.get(key).and_then(Resource::owned_record);
    owned.is_some_and(|owned| owned.paused.is_some())
}

/// Asks the controller for something, and waits for it where that was asked for.
async fn ask_and_wait(
    store: &Store,
    service: &ServiceKey,
    request: &Request,
    ending: Ending,
    wait: &WaitArgs,
) -> anyhow::Result<Exit> {
    let key = ResourceKey::Service(service.clone());
    let watch = wait.begin(store, scope_of_request(&key)).await?;
    let asked = ask(store, &key, request).await?;
    if watch.is_none() {
        output::line(format_args!("{key} {} asked for", request.name()))?;
    }
    warn_without_controller(store).await;
    if let Some(watch) = watch {
        let target = Target::new(key, Goal::Settled(ending)).after(asked);
        watch.until(&[target], &mut Shown::new(Running::default())).await?;
    }
    Ok(Exit::Done)
}
