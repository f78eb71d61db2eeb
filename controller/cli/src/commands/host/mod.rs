//! `windlass host`: the machines themselves.

mod add;
mod adopt;
mod check;
mod draft;
mod surroundings;

use clap::{Args, Subcommand};

use super::ClientArgs;
use crate::exit::Exit;

/// Add machines, check them, and take them over from another store
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass host add web1 --address deploy@192.0.2.11
  windlass host check web1
  windlass host adopt web1")]
pub(crate) struct HostArgs {
    #[command(subcommand)]
    command: HostCommand,
}

#[derive(Debug, Subcommand)]
enum HostCommand {
    Add(add::AddArgs),
    Check(check::CheckArgs),
    Adopt(adopt::AdoptArgs),
}

pub(super) async fn run(args: &HostArgs, client: &ClientArgs) -> anyhow::Result<Exit> {
    match &args.command {
        HostCommand::Add(args) => add::run(args, client).await,
        HostCommand::Check(args) => check::run(args, client).await,
        HostCommand::Adopt(args) => adopt::run(args, client).await,
    }
}
