//! `windlass host`: the machines themselves.

use clap::{Args, Subcommand};

use super::ClientArgs;
use crate::exit::Exit;

/// Add machines, check them, and take them over from another store
#[derive(Debug, Args)]
pub(crate) struct HostArgs {
    #[command(subcommand)]
    command: HostCommand,
}

#[derive(Debug, Subcommand)]
enum HostCommand {}

pub(super) async fn run(args: &HostArgs, _client: &ClientArgs) -> anyhow::Result<Exit> {
    match args.command {}
}
