//! `windlass store`: the embedded store, and who may use it.

mod certificate;

use clap::{Args, Subcommand};

use super::ClientArgs;
use crate::exit::Exit;

/// Look after the embedded store
#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Certificate(certificate::CertificateArgs),
}

pub(super) fn run(args: &StoreArgs, client: &ClientArgs) -> anyhow::Result<Exit> {
    match &args.command {
        Command::Certificate(args) => certificate::run(args, client),
    }
}
