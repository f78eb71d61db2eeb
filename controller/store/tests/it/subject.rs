//! The servers that are held to etcd's protocol.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime;
use tokio_util::sync::CancellationToken;
use windlass_store::Prefix;
use windlass_store::mvcc::{Backend, Disk, Engine, Memory};
use windlass_store::serve;
use windlass_testbed::{Etcd, EtcdVersion};

/// A kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    Etcd(EtcdVersion),
    Embedded(Keeping),
}

/// Where an embedded store keeps what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeping {
    Memory,
    Disk,
}

/// A running server, empty at first. Dropping it ends it.
pub(crate) enum Server {
    Etcd(Box<Etcd>),
    Embedded(Embedded),
}

/// A running embedded store, on threads of its own, so that it goes on whatever a test's runtime does.
pub(crate) struct Embedded {
    address: String,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
    _folder: TempDir,
}

impl Subject {
    /// All of them; the first is what the others are compared with.
    pub(crate) const ALL: [Self; 4] = [
        Self::Etcd(EtcdVersion::V3_5),
        Self::Etcd(EtcdVersion::V3_4),
        Self::Embedded(Keeping::Memory),
        Self::Embedded(Keeping::Disk),
    ];

    /// Those that answer as etcd 3.5 does, itself first.
    pub(crate) const LIKE_3_5: [Self; 3] =
        [Self::Etcd(EtcdVersion::V3_5), Self::Embedded(Keeping::Memory), Self::Embedded(Keeping::Disk)];

    pub(crate) fn start(self) -> Result<Server> {
        match self {
            Self::Etcd(version) => Ok(Server::Etcd(Box::new(Etcd::start(version)?))),
            Self::Embedded(keeping) => Ok(Server::Embedded(Embedded::start(keeping)?)),
        }
    }
}

impl Server {
    /// The URL that clients connect to.
    pub(crate) fn endpoint(&self) -> String {
        match self {
            Self::Etcd(etcd) => etcd.endpoint(),
            Self::Embedded(embedded) => embedded.endpoint(),
        }
    }
}

impl Embedded {
    pub(crate) fn start(keeping: Keeping) -> Result<Self> {
        let folder = TempDir::new()?;
        let backend: Box<dyn Backend> = match keeping {
            Keeping::Memory => Box::new(Memory::default()),
            Keeping::Disk => Box::new(Disk::open(&folder.path().join("store"))?),
        };
        let engine = Arc::new(Engine::open(backend, Duration::ZERO)?);
        let server = serve::Server::new(engine, serve::Identity { cluster: 7, member: 8 }, Prefix::default())?;
        let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        // Whoever starts it may be in a runtime of their own, and cannot wait for another.
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr().context("a listener has an address")?.to_string();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            // Only the drop ends it: a stop that is asked for waits for whoever is still connected.
            let serving = async {
                let listener = TcpListener::from_std(listener).expect("a listener that does not block");
                server.serve(listener, serve::Door::Open, CancellationToken::new()).await
            };
            let ended = runtime.block_on(stopped.run_until_cancelled(serving));
            assert!(ended.is_none(), "the server ended by itself: {ended:?}");
        });
        Ok(Self { address, stop, thread: Some(thread), _folder: folder })
    }

    /// Where it listens, without a scheme: `etcdctl endpoint status` of 3.4 makes the whole of it its `:authority`,
    /// which h2 refuses.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The URL that clients connect to.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // What it panicked of stands in the test's output.
            let _ = thread.join();
        }
    }
}
