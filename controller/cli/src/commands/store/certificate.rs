//! `windlass store certificate`: lets another person or machine use the embedded store.

use std::path::PathBuf;

use clap::Args;
use windlass_store::embedded;
use windlass_store::serve::PeerName;
use windlass_store::{ConnectOptions, Tls};

use crate::commands::ClientArgs;
use crate::commands::env::variables;
use crate::exit::Exit;
use crate::output::{self, Label};

/// Make a certificate for another person or machine
///
/// Whoever has it and its key may declare, ask and read, but not write what the controller keeps; what they write
/// carries their name. It is good for a year. Run this where the controller runs, as who runs it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass store certificate ana --out ana
  scp -r ana ana@laptop:.config/windlass")]
pub(crate) struct CertificateArgs {
    /// Whose it is, as history will call them
    #[arg(value_name = "NAME")]
    name: PeerName,
    /// The folder that the certificate, its key and the store's authority are put into
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
}

pub(super) fn run(args: &CertificateArgs, client: &ClientArgs) -> anyhow::Result<Exit> {
    let connection = &client.connection;
    let data_dir = connection.data_dir()?;
    let tls = embedded::give_certificate(&data_dir, &args.name, &args.out)?;
    let local = embedded::local(&data_dir, connection.prefix().clone())?;
    let endpoints = local.map(|local| local.endpoints).unwrap_or_default();
    let Tls { ca_file, cert_file, key_file } = &tls;
    for file in [Some(ca_file), cert_file.as_ref(), key_file.as_ref()].into_iter().flatten() {
        output::note(format_args!("wrote {}", file.display()));
    }
    output::labelled(
        Label::Hint,
        "whoever has the key is let in as that name: hand it over in private, and keep no copy",
    );
    let prefix = connection.prefix().clone();
    output::bytes(&variables(&ConnectOptions { endpoints, tls: Some(tls), user: None, prefix }))?;
    Ok(Exit::Done)
}
