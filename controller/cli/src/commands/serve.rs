//! `windlass serve`: runs the controller.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::connection::ConnectionArgs;
use crate::exit::Exit;
use crate::failure::{UsageError, hinted};

/// Run the controller
///
/// It compares what is declared with what runs on the hosts, and drives them to agree. Several may run on one
/// store: one acts, the others stand by.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass serve
  windlass serve --endpoints https://etcd1:2379,https://etcd2:2379 --cacert ca.pem --cert me.pem --key me-key.pem

Directories:
  --data-dir keeps the files of releases. Unless told: /var/lib/windlass/controller for root, else
  $XDG_STATE_HOME/windlass/controller (~/.local/state/windlass/controller).")]
pub(crate) struct ServeArgs {
    /// Where the store is
    #[arg(long, env = "WINDLASS_STORE", value_name = "STORE", default_value = "etcd", hide_env_values = true)]
    store: StoreKind,
    /// Where to answer /healthz, /readyz and /metrics
    #[arg(
        long,
        env = "WINDLASS_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:9700",
        hide_env_values = true
    )]
    listen: SocketAddr,
    /// How to write the log, on stderr; WINDLASS_LOG says how much: info, debug, windlass_store=debug
    #[arg(long, env = "WINDLASS_LOG_FORMAT", value_name = "FORMAT", default_value = "text", hide_env_values = true)]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StoreKind {
    /// An etcd cluster, at --endpoints
    Etcd,
    /// One of its own; not in this version
    Embedded,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// A line for people
    Text,
    /// An object a line
    Json,
}

pub(super) fn run(args: &ServeArgs, connection: &ConnectionArgs) -> anyhow::Result<Exit> {
    if args.store == StoreKind::Embedded {
        let error = UsageError("--store embedded is not supported by this version".into());
        return Err(hinted(error, "run an etcd and say where it is with --endpoints"));
    }
    let options = connection.options()?;
    let data_dir = data_dir(connection.data_dir.clone())?;
    log_to_stderr(args.log_format);
    bail!(
        "the controller is not wired yet: it would serve {} from {} and answer on {}",
        options.endpoints.join(","),
        data_dir.display(),
        args.listen
    )
}

/// The directory that was asked for, or the one of the user who runs this.
fn data_dir(asked: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    if let Some(asked) = asked {
        return Ok(asked);
    }
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/windlass/controller".into());
    }
    // The XDG Base Directory Specification: a relative value is to be ignored.
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|state| state.is_absolute());
    let home = || std::env::home_dir().map(|home| home.join(".local/state"));
    let state = state.or_else(home).context("there is no home directory\nhint: give --data-dir")?;
    Ok(state.join("windlass/controller"))
}

fn log_to_stderr(format: LogFormat) {
    let filter = EnvFilter::builder().with_default_directive(tracing_subscriber::filter::LevelFilter::INFO.into());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter.with_env_var("WINDLASS_LOG").from_env_lossy())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}
