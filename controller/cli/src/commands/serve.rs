//! `windlass serve`: runs the controller.

use std::fs::{DirBuilder, File};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use windlass_engine::checkpoint::Checkpoint;
use windlass_engine::{ServeOptions, serve};
use windlass_hosts::SshFleet;

use crate::connection::ConnectionArgs;
use crate::exit::Exit;
use crate::failure::{UsageError, hinted};
use crate::output;
use crate::telemetry::{LogFormat, Telemetry};

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
    /// Print the named steps at which a test may end the controller, and exit
    #[arg(long, hide = true)]
    list_checkpoints: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StoreKind {
    /// An etcd cluster, at --endpoints
    Etcd,
    /// One of its own; not in this version
    Embedded,
}

pub(super) fn run(args: &ServeArgs, connection: &ConnectionArgs) -> anyhow::Result<Exit> {
    if args.store == StoreKind::Embedded {
        let error = UsageError("--store embedded is not supported by this version".into());
        return Err(hinted(error, "run an etcd and say where it is with --endpoints"));
    }
    if args.list_checkpoints {
        for checkpoint in Checkpoint::ALL {
            output::line(checkpoint)?;
        }
        return Ok(Exit::Done);
    }
    let store = connection.options()?;
    let data_dir = data_dir(connection.data_dir.clone())?;
    let _lock = claim(&data_dir)?;
    let options = ServeOptions { store, data_dir, listen: args.listen, identity: identity() };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let telemetry = Telemetry::begin(args.log_format, &options.identity)?;
        let fleet = Arc::new(SshFleet::new().context("cannot make a private folder for connections")?);
        let shutdown = CancellationToken::new();
        tokio::spawn(stop_on_signal(shutdown.clone())?);
        let served = serve(options, Arc::clone(&fleet), shutdown).await;
        fleet.close().await;
        telemetry.end().await;
        served?;
        Ok(Exit::Done)
    })
}

/// What this controller calls itself: another one for each start.
fn identity() -> String {
    let name = rustix::system::uname();
    format!("{}-{}", name.nodename().to_string_lossy(), std::process::id())
}

/// Ends the controller gracefully at the first signal, at once at the second.
fn stop_on_signal(shutdown: CancellationToken) -> anyhow::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        let mut signals = 0;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            signals += 1;
            if signals > 1 {
                std::process::exit(130);
            }
            tracing::info!("stopping; once more to stop at once");
            shutdown.cancel();
        }
    })
}

/// Makes the data directory, for its owner only, and keeps other controllers out of it.
fn claim(directory: &Path) -> anyhow::Result<File> {
    let what = || format!("cannot use the data directory {}", directory.display());
    DirBuilder::new().recursive(true).mode(0o700).create(directory).with_context(what)?;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700)).with_context(what)?;
    let file = File::create(directory.join("lock")).with_context(what)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(hinted(
            anyhow!("another controller uses the data directory {}", directory.display()),
            "give this one its own with --data-dir; on one store it then stands by",
        )),
        Err(std::fs::TryLockError::Error(error)) => Err(error).with_context(what),
    }
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
