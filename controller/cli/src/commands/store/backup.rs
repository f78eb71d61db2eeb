//! `windlass store backup`: a copy of the embedded store while it runs.

use std::path::PathBuf;

use clap::Args;
use windlass_store::Backup;

use crate::commands::ClientArgs;
use crate::exit::Exit;
use crate::output;

/// Copy the embedded store into a file, while it runs
///
/// The copy is of one moment, has a checksum, and holds all that is declared and recorded. It never overwrites a file.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass store backup windlass-$(date +%F).backup")]
pub(crate) struct BackupArgs {
    /// The file, which must not be there
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) async fn run(args: &BackupArgs, client: &ClientArgs) -> anyhow::Result<Exit> {
    let store = client.connection.connect().await?;
    let Backup { revision, bytes } = store.backup(&args.file).await?;
    output::line(format_args!("{}: revision {revision}, {bytes} bytes", args.file.display()))?;
    Ok(Exit::Done)
}
