//! `windlass store restore`: makes the embedded store of a copy.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use windlass_store::embedded::{self, Restored};

use crate::commands::ClientArgs;
use crate::commands::serve::claim;
use crate::exit::Exit;
use crate::failure::{UsageError, hinted};
use crate::output::{self, Label};

/// Make the embedded store of a copy
///
/// The controller must not run. The copy is checked first. What the hosts run is not touched: the controller looks at
/// them when it starts, and brings them to what the copy declares.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass store restore windlass-2026-11-23.backup --old-store-is-dead")]
pub(crate) struct RestoreArgs {
    /// The copy, by `windlass store backup`
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// That nobody will ever start the store again that the copy is of: both would drive the same hosts
    #[arg(long)]
    old_store_is_dead: bool,
    /// Put the copy in the place of the store that is there; that one is kept beside it
    #[arg(long)]
    replace: bool,
}

pub(super) fn run(args: &RestoreArgs, client: &ClientArgs) -> anyhow::Result<Exit> {
    if !args.old_store_is_dead {
        let error = UsageError("the hosts obey the store that the copy is of, and would obey both".into());
        return Err(hinted(error, "make sure that nobody can start it again, and say so with --old-store-is-dead"));
    }
    let data_dir = client.connection.data_dir()?;
    let _lock = claim(&data_dir)?;
    let file = File::open(&args.file).with_context(|| format!("cannot read {}", args.file.display()))?;
    let (restored, kept) = embedded::restore(&data_dir, &mut BufReader::new(file), args.replace)?;
    let Restored { revision, changes, leases } = restored;
    output::line(format_args!("restored: revision {revision}, {changes} changes, {leases} leases"))?;
    if let Some(kept) = kept {
        output::note(format_args!("the store that was there is {} now", kept.display()));
    }
    output::labelled(
        Label::Hint,
        "`windlass serve` starts it; `windlass plan` shows what it would do, as soon as it runs",
    );
    Ok(Exit::Done)
}
