//! `windlass serve`: runs the controller.

use std::fs::{DirBuilder, File};
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::{Args, ValueEnum};
use rustix::fs::OFlags;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use windlass_crds::span::Span;
use windlass_engine::checkpoint::Checkpoint;
use windlass_engine::{ServeOptions, serve};
use windlass_hosts::{KEPT, SshFleet};
use windlass_store::embedded::{DESCRIPTORS, Embedded, EmbeddedOptions, Protection, raise_descriptors};
use windlass_store::{Authors, ConnectOptions};

use crate::connection::ConnectionArgs;
use crate::exit::Exit;
use crate::failure::{UsageError, hinted};
use crate::output;
use crate::telemetry::{LogFormat, Telemetry};

/// Run the controller
///
/// It compares what is declared with what runs on the hosts, and drives them to agree. What is declared is kept in a
/// store of its own, which answers etcd's API to those who have a certificate of it, or in an etcd cluster: several
/// controllers may run on one, of which one acts and the others stand by.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass serve
  windlass serve --etcd-listen 0.0.0.0:2379 --etcd-name windlass.example.org
  windlass serve --store etcd --endpoints https://etcd1:2379,https://etcd2:2379 --cacert ca.pem --cert me.pem --key me-key.pem

Directories:
  --data-dir keeps the files of releases, and the store with its certificates. Unless told: /var/lib/windlass/controller for root, else
  $XDG_STATE_HOME/windlass/controller (~/.local/state/windlass/controller).")]
pub(crate) struct ServeArgs {
    /// Where what is declared is kept; unless told, embedded, or etcd where --endpoints says where that is
    #[arg(long, env = "WINDLASS_STORE", value_name = "STORE", hide_env_values = true)]
    store: Option<StoreKind>,
    /// Where the embedded store answers etcd's API
    #[arg(
        long,
        env = "WINDLASS_ETCD_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:2379",
        hide_env_values = true
    )]
    etcd_listen: SocketAddr,
    /// A name or address of this machine for the embedded store's certificate, beside its own; may be repeated
    #[arg(long, value_name = "NAME", value_parser = server_name)]
    etcd_name: Vec<String>,
    /// Let everybody on this machine use the embedded store, without a certificate: for tests
    #[arg(long)]
    insecure_loopback: bool,
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
    /// How many connections to hosts stay open while nobody uses them; each is an ssh process here
    #[arg(
        long,
        env = "WINDLASS_KEPT_CONNECTIONS",
        value_name = "COUNT",
        default_value_t = KEPT,
        value_parser = kept,
        hide_env_values = true
    )]
    kept_connections: usize,
    /// How long the audit trail is kept
    #[arg(
        long,
        env = "WINDLASS_AUDIT_RETENTION",
        value_name = "TIME",
        default_value = "90d",
        value_parser = retention,
        hide_env_values = true
    )]
    audit_retention: Duration,
    /// Print the named steps at which a test may end the controller, and exit
    #[arg(long, hide = true)]
    list_checkpoints: bool,
}

/// The most connections that are kept: more ssh processes than that are a mistake.
const MOST_KEPT: usize = 10_000;

/// The least time for which the audit trail is kept: who looks for what happened overnight finds it.
const SHORTEST_RETENTION: Duration = Duration::from_secs(24 * 3600);

fn retention(text: &str) -> Result<Duration, String> {
    let span = text.parse::<Span>().map_err(|error| error.to_string())?.duration();
    if span < SHORTEST_RETENTION { Err("one day is the least".to_owned()) } else { Ok(span) }
}

/// Descriptors of a connection to a host: three for each shell that is open on it, of which there are two at most times,
/// and its forwards.
const DESCRIPTORS_EACH: u64 = 8;

fn kept(text: &str) -> Result<usize, String> {
    let count = text.parse::<usize>().ok().filter(|count| *count <= MOST_KEPT);
    count.ok_or_else(|| format!("a number from 0 to {MOST_KEPT}"))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StoreKind {
    /// A store of its own, in the data directory
    Embedded,
    /// An etcd cluster, at --endpoints
    Etcd,
}

/// What tells glibc to have one heap for all threads. Where each has one of its own, what it has freed is of no use to
/// the others, and a store of 10,000 declarations takes 35 MB more.
const ONE_HEAP: (&str, &str) = ("MALLOC_ARENA_MAX", "1");

/// Begins this program anew, as the same process, with one heap: glibc asks for that only when a program begins.
fn have_one_heap() {
    let (name, value) = ONE_HEAP;
    if std::env::var_os(name).is_some() {
        return;
    }
    let mut arguments = std::env::args_os();
    if let (Ok(program), Some(called)) = (std::env::current_exe(), arguments.next()) {
        // Where that is not possible it goes on as it is.
        let _ = Command::new(program).arg0(called).args(arguments).env(name, value).exec();
    }
}

pub(super) fn run(args: &ServeArgs, connection: &ConnectionArgs) -> anyhow::Result<Exit> {
    if args.list_checkpoints {
        for checkpoint in Checkpoint::ALL {
            output::line(checkpoint)?;
        }
        return Ok(Exit::Done);
    }
    have_one_heap();
    let store = args.store(connection)?;
    let data_dir = connection.data_dir()?;
    let _lock = claim(&data_dir)?;
    let identity = identity();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let telemetry = Telemetry::begin(args.log_format, &identity)?;
        let (store, authors, embedded) = match store {
            Chosen::Etcd(options) => (options, Authors::default(), None),
            Chosen::Embedded(options) => {
                let embedded = Embedded::start(EmbeddedOptions { data_dir: data_dir.clone(), ..options }).await?;
                (embedded.options().clone(), embedded.authors(), Some(embedded))
            }
        };
        let options = ServeOptions {
            store,
            authors,
            data_dir,
            audit_retention: args.audit_retention,
            listen: args.listen,
            identity,
        };
        raise_descriptors(DESCRIPTORS + DESCRIPTORS_EACH * args.kept_connections as u64);
        let fleet =
            Arc::new(SshFleet::keeping(args.kept_connections).context("cannot make a private folder for connections")?);
        let shutdown = CancellationToken::new();
        tokio::spawn(stop_on_signal(shutdown.clone())?);
        let served = serve(options, Arc::clone(&fleet), shutdown).await;
        fleet.close().await;
        if let Some(embedded) = embedded {
            embedded.stop().await?;
        }
        telemetry.end().await;
        served?;
        Ok(Exit::Done)
    })
}

/// The store that was chosen.
enum Chosen {
    Embedded(EmbeddedOptions),
    Etcd(ConnectOptions),
}

impl ServeArgs {
    /// What was chosen; what does not go together is refused.
    fn store(&self, connection: &ConnectionArgs) -> anyhow::Result<Chosen> {
        let named = connection.names_etcd();
        // `eval "$(windlass env)"` says how our own store is reached, which is no other.
        let own = named && connection.names_own_store();
        let kind = self.store.unwrap_or(if named && !own { StoreKind::Etcd } else { StoreKind::Embedded });
        match kind {
            StoreKind::Etcd if self.insecure_loopback || !self.etcd_name.is_empty() => {
                let error = UsageError("--insecure-loopback and --etcd-name are for the embedded store".into());
                Err(hinted(error, "leave them out, or leave out --endpoints and --store etcd"))
            }
            StoreKind::Etcd => Ok(Chosen::Etcd(connection.etcd()?)),
            StoreKind::Embedded if named && !own => {
                let error = UsageError(
                    "--store embedded needs no --endpoints, --user nor certificates: it makes its own".into(),
                );
                Err(hinted(
                    error,
                    "leave out what says how an etcd is reached, and look for WINDLASS_… variables that do",
                ))
            }
            StoreKind::Embedded => Ok(Chosen::Embedded(EmbeddedOptions {
                // Made once it is locked.
                data_dir: PathBuf::new(),
                listen: self.etcd_listen,
                names: self.etcd_name.clone(),
                protection: match self.insecure_loopback {
                    true => Protection::InsecureLoopback,
                    false => Protection::Certificates,
                },
                prefix: connection.prefix().clone(),
            })),
        }
    }
}

/// A name or an address that a certificate can say.
fn server_name(text: &str) -> Result<String, String> {
    match rustls::pki_types::ServerName::try_from(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
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

/// Refuses a data directory that is somebody else's, or that others may look into: it holds keys, and what it holds is
/// believed. One that is empty is taken as it was made.
fn check_ours(directory: &Path) -> anyhow::Result<()> {
    let what = || format!("cannot use the data directory {}", directory.display());
    let metadata = std::fs::metadata(directory).with_context(what)?;
    let us = rustix::process::geteuid();
    if metadata.uid() != us.as_raw() {
        let error = anyhow!(
            "the data directory {} is user {}'s, and this is user {}",
            directory.display(),
            metadata.uid(),
            us.as_raw()
        );
        return Err(hinted(error, "name one of your own with --data-dir"));
    }
    if metadata.mode() & 0o077 == 0 {
        return Ok(());
    }
    if std::fs::read_dir(directory).with_context(what)?.next().is_none() {
        return std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700)).with_context(what);
    }
    let error = anyhow!("others may look into the data directory {}", directory.display());
    Err(hinted(error, "if it is a controller's alone: chmod 0700; else name another with --data-dir"))
}

/// Makes the data directory, for its owner only, and keeps other controllers out of it.
pub(super) fn claim(directory: &Path) -> anyhow::Result<File> {
    let what = || format!("cannot use the data directory {}", directory.display());
    if let Some(above) = directory.parent() {
        std::fs::create_dir_all(above).with_context(what)?;
    }
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => check_ours(directory)?,
        made => made.with_context(what)?,
    }
    let path = directory.join("lock");
    let mut options = File::options();
    // Not through a link: whoever could put one here would have us write elsewhere.
    options.read(true).write(true).create(true).mode(0o600).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    let mut file = options.open(path).with_context(what)?;
    match file.try_lock() {
        Ok(()) => {
            // For whoever is kept out. The lock itself is the kernel's.
            file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).with_context(what)?;
            Ok(file)
        }
        Err(std::fs::TryLockError::WouldBlock) => {
            let mut process = String::new();
            let said = file.take(20).read_to_string(&mut process).is_ok_and(|_| !process.trim().is_empty());
            let who = if said { format!("process {}", process.trim()) } else { "another controller".to_owned() };
            Err(hinted(
                anyhow!("{who} uses the data directory {}", directory.display()),
                "one controller has its own, with the store in it: stop that one, or give this one another with --data-dir",
            ))
        }
        Err(std::fs::TryLockError::Error(error)) => Err(error).with_context(what),
    }
}
