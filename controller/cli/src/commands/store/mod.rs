//! `windlass store`: the embedded store, and who may use it.

mod backup;
mod certificate;
mod migrate;
mod restore;
mod status;

use clap::{Args, Subcommand};

use super::{ClientArgs, on_one_thread};
use crate::exit::Exit;

/// Look after the embedded store
#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Status(status::StatusArgs),
    Backup(backup::BackupArgs),
    Restore(restore::RestoreArgs),
    Migrate(migrate::MigrateArgs),
    Certificate(certificate::CertificateArgs),
}

pub(super) fn run(args: &StoreArgs, client: &ClientArgs) -> anyhow::Result<Exit> {
    match &args.command {
        Command::Status(_) => on_one_thread(status::run(client)),
        Command::Backup(args) => on_one_thread(backup::run(args, client)),
        Command::Restore(args) => restore::run(args, client),
        Command::Migrate(args) => on_one_thread(migrate::run(args, client)),
        Command::Certificate(args) => certificate::run(args, client),
    }
}
