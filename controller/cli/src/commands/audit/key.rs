//! `windlass audit key`: the public half of the key that signs the trail here.

use clap::Args;
use windlass_engine::audit::SigningKey;

use crate::commands::ClientArgs;
use crate::exit::Exit;
use crate::failure::hinted;
use crate::output;

/// Print the public key that the controller of this machine signs the audit trail with
///
/// Kept elsewhere, it tells records that this controller wrote from those that somebody made up who can write the store:
/// `windlass audit verify --trust FILE`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass audit key >audit.pub")]
pub(crate) struct KeyArgs {}

pub(super) fn run(client: &ClientArgs) -> anyhow::Result<Exit> {
    let data_dir = client.connection.data_dir()?;
    match SigningKey::found(&data_dir)? {
        Some(key) => output::line(key.public())?,
        None => {
            let error = anyhow::anyhow!("there is no key in {}", data_dir.display());
            return Err(hinted(
                error,
                "`windlass serve` makes one; run this where the controller runs, as who runs it",
            ));
        }
    }
    Ok(Exit::Done)
}
