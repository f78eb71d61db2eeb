//! `windlass store migrate`: moves the embedded store into an etcd cluster.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use windlass_store::embedded::{self, Migrated};
use windlass_store::{ConnectOptions, Password, Prefix, Tls, User};

use crate::commands::ClientArgs;
use crate::commands::serve::claim;
use crate::exit::Exit;
use crate::failure::{UsageError, hinted};
use crate::output::{self, Label};

/// Where the password of the other store's user is looked for first.
const PASSWORD_VARIABLE: &str = "WINDLASS_TO_PASSWORD";

/// Move the embedded store into an etcd cluster
///
/// The controller must not run. All keys are copied, leases included, read back and compared; the hosts keep their owner,
/// and what runs on them is not touched. The embedded store is sealed: nothing uses it any more. A move that was cut off
/// goes on by the same command, and until it is done nothing uses the cluster either.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass store migrate --to https://etcd1:2379,https://etcd2:2379 --to-cacert ca.pem --to-cert me.pem --to-key me-key.pem")]
pub(crate) struct MigrateArgs {
    /// The members of the etcd cluster, divided by commas
    #[arg(long, value_name = "URL", value_delimiter = ',', required = true)]
    to: Vec<String>,
    /// The certificates, PEM, one of which must have signed the cluster's
    #[arg(long, value_name = "FILE")]
    to_cacert: Option<PathBuf>,
    /// Our certificate, PEM, where the cluster asks for one
    #[arg(long, value_name = "FILE", requires = "to_key", requires = "to_cacert")]
    to_cert: Option<PathBuf>,
    /// The key of our certificate, PEM
    #[arg(long, value_name = "FILE", requires = "to_cert")]
    to_key: Option<PathBuf>,
    /// The user's name there; the password comes from WINDLASS_TO_PASSWORD or --to-password-file
    #[arg(long, value_name = "NAME")]
    to_user: Option<String>,
    /// A file that holds the password
    #[arg(long, value_name = "FILE", requires = "to_user")]
    to_password_file: Option<PathBuf>,
    /// What every key there begins with; unless told, as here
    #[arg(long, value_name = "PATH")]
    to_prefix: Option<Prefix>,
}

impl MigrateArgs {
    fn options(&self, prefix: &Prefix) -> anyhow::Result<ConnectOptions> {
        let tls = self.to_cacert.as_ref().map(|ca_file| Tls {
            ca_file: ca_file.clone(),
            cert_file: self.to_cert.clone(),
            key_file: self.to_key.clone(),
        });
        Ok(ConnectOptions {
            endpoints: self.to.iter().map(|endpoint| endpoint.trim().to_owned()).collect(),
            tls,
            user: self.user()?,
            prefix: self.to_prefix.clone().unwrap_or_else(|| prefix.clone()),
        })
    }

    fn user(&self) -> anyhow::Result<Option<User>> {
        let Some(name) = self.to_user.clone() else { return Ok(None) };
        let password = match (&self.to_password_file, std::env::var(PASSWORD_VARIABLE)) {
            (Some(file), _) => {
                let text = std::fs::read_to_string(file);
                let text = text.with_context(|| format!("cannot read the password from {}", file.display()))?;
                text.trim_end_matches(['\r', '\n']).to_owned()
            }
            (None, Ok(password)) => password,
            (None, Err(_)) => {
                let error = UsageError(format!("--to-user {name} needs a password"));
                return Err(hinted(error, format!("put it into {PASSWORD_VARIABLE} or --to-password-file")));
            }
        };
        Ok(Some(User { name, password: Password::from(password) }))
    }
}

pub(super) async fn run(args: &MigrateArgs, client: &ClientArgs) -> anyhow::Result<Exit> {
    let connection = &client.connection;
    let to = args.options(connection.prefix())?;
    let data_dir = connection.data_dir()?;
    if !data_dir.is_dir() {
        return Err(embedded::EmbeddedError::Absent(data_dir).into());
    }
    let _lock = claim(&data_dir)?;
    let Migrated { keys, before } = embedded::migrate(&data_dir, connection.prefix(), &to).await?;
    let done = if before { "were moved before" } else { "moved, read back and compared" };
    output::line(format_args!("{keys} keys {done}; the embedded store is sealed"))?;
    let endpoints = to.endpoints.join(",");
    output::labelled(
        Label::Hint,
        format_args!(
            "`windlass serve --endpoints {endpoints}` goes on there; certificates of the embedded store are of no use any more"
        ),
    );
    Ok(Exit::Done)
}
