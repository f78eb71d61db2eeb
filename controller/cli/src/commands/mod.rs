//! The commands: how they are typed, and which function each one is.

mod apply;
mod audit;
mod completion;
mod confirm_removal;
mod delete;
mod describe;
mod diff;
mod env;
mod events;
mod get;
mod host;
mod plan;
mod reconcile;
mod rollout;
mod serve;
mod store;
mod wait;

use clap::{Args, Parser, Subcommand};

use crate::connection::{ConnectionArgs, NamespaceArgs};
use crate::exit::Exit;
use crate::first_steps::FIRST_STEPS;

/// Drives services on machines that you reach by SSH to where their declarations say, and keeps them there.
#[derive(Debug, Parser)]
#[command(name = "windlass", version, max_term_width = 100, after_help = format!("{FIRST_STEPS}\n\n{EXAMPLES}"))]
pub(crate) struct Windlass {
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  windlass serve                            Run the controller
  windlass apply -f web.yaml --wait         Declare a service, and wait until it runs
  windlass get services -w                  Watch what becomes of it
  windlass rollout undo service/web         Go back to the last good revision
  windlass delete service/web               Take it down

Exit codes:
  0 done   1 failed   2 typed wrongly   3 diff or plan found differences   4 timed out waiting
  130 Ctrl-C while it waited";

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct ClientArgs {
    // First, since the other's heading goes for what follows it.
    #[command(flatten)]
    pub(crate) namespace: NamespaceArgs,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
    Apply(apply::ApplyArgs),
    Diff(diff::DiffArgs),
    Plan(plan::PlanArgs),
    Get(get::GetArgs),
    Describe(describe::DescribeArgs),
    Events(events::EventsArgs),
    Audit(audit::AuditArgs),
    Wait(wait::WaitForArgs),
    Reconcile(reconcile::ReconcileArgs),
    Delete(delete::DeleteArgs),
    ConfirmRemoval(confirm_removal::ConfirmRemovalArgs),
    Rollout(rollout::RolloutArgs),
    Host(host::HostArgs),
    Store(store::StoreArgs),
    Env(env::EnvArgs),
    Completion(completion::CompletionArgs),
}

impl Windlass {
    /// Does what was typed.
    ///
    /// # Errors
    /// When it cannot be done.
    pub(crate) fn run(&self) -> anyhow::Result<Exit> {
        let client = &self.client;
        match &self.command {
            Command::Serve(args) => serve::run(args, &client.connection),
            Command::Apply(args) => on_one_thread(apply::run(args, client)),
            Command::Diff(args) => on_one_thread(diff::run(args, client)),
            Command::Plan(args) => on_one_thread(plan::run(args, client)),
            Command::Describe(args) => on_one_thread(describe::run(args, client)),
            Command::Events(args) => on_one_thread(events::run(args, client)),
            Command::Audit(args) => audit::run(args, client),
            Command::Completion(args) => completion::run(args),
            Command::Get(args) => on_one_thread(get::run(args, client)),
            Command::Wait(args) => on_one_thread(wait::run(args, client)),
            Command::Reconcile(args) => on_one_thread(reconcile::run(args, client)),
            Command::Delete(args) => on_one_thread(delete::run(args, client)),
            Command::ConfirmRemoval(args) => on_one_thread(confirm_removal::run(args, client)),
            Command::Rollout(args) => on_one_thread(rollout::run(args, client)),
            Command::Host(args) => on_one_thread(host::run(args, client)),
            Command::Store(args) => store::run(args, client),
            Command::Env(args) => env::run(args, client),
        }
    }
}

/// Runs a command that only talks to the store: threads would cost more than they do.
fn on_one_thread(command: impl Future<Output = anyhow::Result<Exit>>) -> anyhow::Result<Exit> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}
