//! The controller that is measured: the engine of `windlass serve`, in a process of its own, over hosts in memory.
//!
//! It is this program, started once more. It does what it is told on standard input, a word a line: `start` and `stop`
//! a controller, with its embedded store where it has one. The hosts outlive a controller, as real ones do.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail};
use clap::Args;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use windlass_engine::audit::RETENTION;
use windlass_engine::{ServeError, ServeOptions, serve};
use windlass_hosts::memory::MemoryFleet;
use windlass_store::embedded::{Embedded, EmbeddedOptions, Protection};
use windlass_store::{Authors, ConnectOptions, Prefix};

use super::crowd::Crowd;

/// What the controller is started with.
#[derive(Debug, Clone, Args)]
pub(crate) struct ControllerArguments {
    /// How many hosts there are
    #[arg(long)]
    pub(crate) hosts: usize,
    /// How many Services there will be
    #[arg(long)]
    pub(crate) services: usize,
    /// Where an etcd is; without, it carries its own store
    #[arg(long)]
    pub(crate) endpoint: Option<String>,
    /// Where its own store answers
    #[arg(long)]
    pub(crate) etcd_listen: SocketAddr,
    /// Where it says how it is
    #[arg(long)]
    pub(crate) listen: SocketAddr,
    /// Where it keeps files
    #[arg(long)]
    pub(crate) data_dir: PathBuf,
    /// Where it logs
    #[arg(long)]
    pub(crate) log: PathBuf,
}

/// One that runs.
struct Running {
    stop: CancellationToken,
    served: JoinHandle<Result<(), ServeError>>,
    embedded: Option<Embedded>,
}

/// Does what it is told until nobody tells it anything any more.
///
/// # Errors
/// When a controller cannot be started, or ends by itself.
pub(crate) fn run(arguments: &ControllerArguments) -> Result<()> {
    let log = File::create(&arguments.log).context("opening a log")?;
    // As `windlass serve --log-format json` logs, and at that cost.
    tracing_subscriber::fmt().json().with_writer(Mutex::new(log)).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("making a runtime")?;
    runtime.block_on(obey(arguments))
}

#[expect(clippy::print_stdout, reason = "whoever started it waits for the answer")]
async fn obey(arguments: &ControllerArguments) -> Result<()> {
    let fleet = Arc::new(Crowd { hosts: arguments.hosts, services: arguments.services }.fleet());
    let mut running = None;
    while let Some(word) = tokio::task::spawn_blocking(|| std::io::stdin().lines().next()).await? {
        let word = word.context("being told what to do")?;
        match (word.as_str(), running.take()) {
            ("start", None) => running = Some(start(arguments, &fleet).await?),
            ("stop", Some(controller)) => stop(controller).await?,
            (word, _) => bail!("{word} makes no sense now"),
        }
        println!("{word}");
    }
    match running {
        Some(controller) => stop(controller).await,
        None => Ok(()),
    }
}

async fn start(arguments: &ControllerArguments, fleet: &Arc<MemoryFleet>) -> Result<Running> {
    let data_dir = arguments.data_dir.clone();
    let (store, authors, embedded) = match &arguments.endpoint {
        Some(endpoint) => (ConnectOptions::new([endpoint]), Authors::default(), None),
        None => {
            let options = EmbeddedOptions {
                data_dir: data_dir.clone(),
                listen: arguments.etcd_listen,
                names: Vec::new(),
                protection: Protection::Certificates,
                prefix: Prefix::default(),
            };
            let embedded = Embedded::start(options).await?;
            (embedded.options().clone(), embedded.authors(), Some(embedded))
        }
    };
    let options = ServeOptions {
        store,
        authors,
        data_dir,
        audit_retention: RETENTION,
        listen: arguments.listen,
        identity: "bench".to_owned(),
    };
    let stop = CancellationToken::new();
    let served = tokio::spawn(serve(options, Arc::clone(fleet), stop.clone()));
    Ok(Running { stop, served, embedded })
}

async fn stop(controller: Running) -> Result<()> {
    let Running { stop, served, embedded } = controller;
    stop.cancel();
    served.await.context("the controller panicked")??;
    if let Some(embedded) = embedded {
        embedded.stop().await?;
    }
    Ok(())
}
