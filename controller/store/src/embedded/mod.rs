//! The embedded store: a folder on this machine, and a server that answers etcd's API for it.
//!
//! Below the controller's data directory: `store/data`, everything that is kept; `store/tls`, the authority and the
//! certificates of this machine; `store/identity`, the numbers that answers carry; `store/endpoint`, where it was
//! answered last, for the commands on this machine.
//!
//! **Invariant:** who is not let in by a certificate of the store's own authority gets nothing, but where the whole
//! store was opened for tests, on loopback only.

mod authority;
mod migrate;
mod place;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::authority::Authority;
pub use self::authority::{AuthorityError, Pair};
pub use self::migrate::{MigrateError, Migrated, migrate};
use self::place::Place;
use crate::authors::Authors;
use crate::connect::ConnectOptions;
use crate::key::Prefix;
use crate::machine::since_boot;
pub use crate::mvcc::Restored;
use crate::mvcc::{BackendError, Closed, Disk, Engine, OpenError, RestoreError};
use crate::serve::{Door, Lock, LockError, Peer, PeerName, Rights, ServeError, Server};
use crate::tls::Tls;

/// How often it is looked whether a certificate is to be made anew. Each has weeks left then.
const RENEWED_EVERY: Duration = Duration::from_secs(12 * 3600);

/// Descriptors that this process may have: as many as the store takes connections, and as many again for files, hosts
/// and the rest. systemd, and most shells, give 1,024 unless asked for more.
pub const DESCRIPTORS: u64 = 8192;

/// How long what is under way may take when the store is stopped: a flush of a disk that is busy.
const CLOSING: Duration = Duration::from_secs(5);

/// Whose certificate the controller shows.
pub const OWN_NAME: &str = "controller";

/// Whose certificate the commands on the same machine show.
const LOCAL: &str = "local";

/// Names that nobody else may have: those of our own files, and of those who may do everything.
const TAKEN: [&str; 6] = [OWN_NAME, LOCAL, "ca", "server", "store", "windlass-ca"];

/// How an embedded store is started.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// The controller's data directory; it is the caller's to make.
    pub data_dir: PathBuf,
    /// Where etcd's API is answered; port 0 is one that is free.
    pub listen: SocketAddr,
    /// Other names and addresses by which this machine is reached.
    pub names: Vec<String>,
    /// Whom it lets in.
    pub protection: Protection,
    /// What keys begin with, below which others may write.
    pub prefix: Prefix,
}

/// Whom a store lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// Those who show a certificate of its own.
    Certificates,
    /// Everybody on this machine: for tests.
    InsecureLoopback,
}

/// Why a store could not be started, or found.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// A file of it cannot be used.
    #[error("cannot use {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// What it keeps cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// What it keeps cannot be read.
    #[error("cannot read the store")]
    Read(#[from] BackendError),
    /// The address is taken, or not ours.
    #[error(
        "cannot answer etcd's API on {address}\nhint: --etcd-listen takes another address; where an etcd runs there already, --store etcd uses it"
    )]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// Without certificates it would be open to other machines.
    #[error(
        "{0} can be reached from other machines, and without certificates they could run programs on every host\nhint: leave out --insecure-loopback, or listen on 127.0.0.1"
    )]
    Exposed(SocketAddr),
    /// Its certificates cannot be had.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// Its certificates cannot be used.
    #[error("cannot use the certificates in {}", path.display())]
    Lock {
        /// Where they are.
        path: PathBuf,
        /// Why.
        #[source]
        error: LockError,
    },
    /// It cannot be served.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// Its file is gone: an empty one would be another store, and take down what nobody declares in it.
    #[error("the store's file is gone: {}\nhint: `windlass store restore` makes it of a copy; for an empty store, delete the folder that it was in", .0.display())]
    Gone(PathBuf),
    /// What it keeps cannot be told.
    #[error("cannot read the store: {0}")]
    Unreadable(String),
    /// It was moved.
    #[error("this store was moved to {to}\nhint: --endpoints {to} uses that one")]
    Moved {
        /// Where it is now.
        to: String,
    },
    /// It is being moved.
    #[error("this store is being moved to {to}, or that was cut off\nhint: the same `windlass store migrate` ends it; where {to} is gone for good, delete {}", seal.display())]
    Moving {
        /// Where it shall be.
        to: String,
        /// What says so.
        seal: PathBuf,
    },
    /// A copy cannot be made a store.
    #[error("nothing was restored")]
    Restore(#[from] RestoreError),
    /// There is a store already.
    #[error("there is a store already: {}\nhint: --replace puts the copy in its place, and keeps it beside", .0.display())]
    Holds(PathBuf),
    /// There is none to give certificates for.
    #[error("there is no store in {}\nhint: `windlass serve` makes one; --data-dir says where", .0.display())]
    Absent(PathBuf),
    /// The name means somebody else.
    #[error("{0} is a name of the store's own\nhint: take another")]
    Taken(PeerName),
}

/// A store that is being served.
#[derive(Debug)]
pub struct Embedded {
    options: ConnectOptions,
    authors: Authors,
    stop: CancellationToken,
    served: JoinHandle<Result<(), ServeError>>,
    closed: Closed,
}

impl Embedded {
    /// Opens the store of a data directory, or makes it, and answers for it.
    ///
    /// # Errors
    /// [`EmbeddedError`].
    pub async fn start(options: EmbeddedOptions) -> Result<Self, EmbeddedError> {
        let EmbeddedOptions { data_dir, listen, names, protection, prefix } = options;
        if protection == Protection::InsecureLoopback && !listen.ip().is_loopback() {
            return Err(EmbeddedError::Exposed(listen));
        }
        raise_descriptors(DESCRIPTORS);
        let place = Place::make(&data_dir)?;
        check_seal(&place)?;
        let data = place.data();
        if place.has_lost_data() {
            return Err(EmbeddedError::Gone(data));
        }
        let engine = tokio::task::spawn_blocking(move || -> Result<_, EmbeddedError> {
            let (disk, closed) = Disk::open_and_tell(&data)?;
            Ok((Engine::open(Box::new(disk), since_boot())?, closed))
        });
        let (engine, closed) = engine.await.expect("opening a store does not panic")?;
        let engine = Arc::new(engine);
        let authors = Authors::of(Arc::clone(&engine));
        let server = Server::new(engine, place.identity()?, prefix.clone())?;
        let unusable = |error| EmbeddedError::Listen { address: listen, error };
        let listener = TcpListener::bind(listen).await.map_err(unusable)?;
        let address = listener.local_addr().map_err(unusable)?;
        let stop = CancellationToken::new();
        let (door, tls) = match protection {
            Protection::InsecureLoopback => {
                tracing::warn!(%address, "the store is INSECURE: everybody on this machine may run programs on every host");
                (Door::Open, None)
            }
            Protection::Certificates => {
                let keeper = Keeper { folder: place.tls(), names: names_of(address.ip(), names) };
                let lock = keeper.lock()?;
                tokio::spawn(stop.clone().run_until_cancelled_owned(keeper.clone().renew(lock.clone())));
                (Door::Locked(lock), Some(place.client_tls(OWN_NAME)))
            }
        };
        let scheme = if tls.is_some() { "https" } else { "http" };
        let endpoint = format!("{scheme}://{}", reached_at(address));
        place.say_endpoint(&endpoint)?;
        tracing::info!(%endpoint, data = %place.data().display(), "the store answers etcd's API");
        let stopped = stop.clone();
        let served = tokio::spawn(async move { server.serve(listener, door, stopped).await });
        let options = ConnectOptions { endpoints: vec![endpoint], tls, user: None, prefix };
        Ok(Self { options, authors, stop, served, closed })
    }

    /// How the controller reaches it.
    pub fn options(&self) -> &ConnectOptions {
        &self.options
    }

    /// Who wrote what is in it.
    pub fn authors(&self) -> Authors {
        self.authors.clone()
    }

    /// Ends it, once what is under way is answered, and closes the file, so that it can be opened again.
    ///
    /// # Errors
    /// When it had ended by itself.
    pub async fn stop(self) -> Result<(), ServeError> {
        self.stop.cancel();
        let served = match tokio::time::timeout(CLOSING, self.served).await {
            Ok(served) => served.unwrap_or(Ok(())),
            Err(_) => Ok(()),
        };
        // Who writes is told by the end of its queue, on a thread of its own.
        let closed = self.closed;
        if !matches!(tokio::task::spawn_blocking(move || closed.wait(CLOSING)).await, Ok(true)) {
            tracing::warn!("the store is left open; it is whole all the same");
        }
        served
    }
}

/// Asks for so many descriptors for this process. Where it may not have so many, it goes on with fewer, and says so.
pub fn raise_descriptors(count: u64) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(count, |most| most.min(count));
    if wanted < count {
        tracing::warn!(
            wanted = count,
            most = wanted,
            "fewer descriptors can be had; many connections at once will fail"
        );
    }
    if current.is_some_and(|current| current < wanted)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })
    {
        tracing::warn!(%error, "no more descriptors can be had; many connections at once will not come in");
    }
}

/// How the store of a data directory is reached by the commands of whoever owns that; `None` where there is none.
///
/// # Errors
/// When it cannot be told whether there is one.
pub fn local(data_dir: &Path, prefix: Prefix) -> Result<Option<ConnectOptions>, EmbeddedError> {
    let place = Place::of(data_dir);
    let Some(endpoint) = place.endpoint()? else { return Ok(None) };
    check_seal(&place)?;
    let tls = endpoint.starts_with("https:").then(|| place.client_tls(LOCAL));
    Ok(Some(ConnectOptions { endpoints: vec![endpoint], tls, user: None, prefix }))
}

/// Makes a certificate for somebody else, into a folder: they may declare and ask, and read the rest.
///
/// # Errors
/// [`EmbeddedError`].
pub fn give_certificate(data_dir: &Path, name: &PeerName, out: &Path) -> Result<Tls, EmbeddedError> {
    if TAKEN.contains(&name.as_str()) {
        return Err(EmbeddedError::Taken(name.clone()));
    }
    let place = Place::of(data_dir);
    if !place.has_authority() {
        return Err(EmbeddedError::Absent(data_dir.to_owned()));
    }
    let now = Timestamp::now();
    Ok(Authority::open(&place.tls(), now)?.give(name, out, now)?)
}

/// Makes the store of a data directory anew from a copy. It must not be served meanwhile: the caller has the
/// directory for itself. What there was is only replaced where `replace` says so, and is then kept beside it; returns
/// where.
///
/// Clients take the store for another one then, so none goes on with what it has seen of the old.
///
/// # Errors
/// [`EmbeddedError`]. What there was is as it was.
pub fn restore(
    data_dir: &Path,
    copy: &mut dyn io::Read,
    replace: bool,
) -> Result<(Restored, Option<PathBuf>), EmbeddedError> {
    let place = Place::make(data_dir)?;
    check_seal(&place)?;
    let data = place.data();
    let there = data.exists();
    if there && !replace {
        return Err(EmbeddedError::Holds(data));
    }
    let new = data.with_extension("new");
    let unusable = |path: &Path| {
        let path = path.to_owned();
        move |error| EmbeddedError::File { path, error }
    };
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unusable(&new)(error)),
        // A restore that was cut off leaves one.
        Ok(()) | Err(_) => {}
    }
    let restored = Disk::restore(&new, copy)?;
    let kept = there.then(|| data.with_extension(Timestamp::now().strftime("replaced-%Y%m%dT%H%M%SZ").to_string()));
    if let Some(kept) = &kept {
        // Linked, not renamed: at no moment is there no store, which would begin an empty one.
        std::fs::hard_link(&data, kept).map_err(unusable(kept))?;
    }
    place.forget_identity()?;
    std::fs::rename(&new, &data).map_err(unusable(&new))?;
    let folder = data.parent().unwrap_or(data_dir);
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(unusable(folder))?;
    Ok((restored, kept))
}

/// That a store was moved, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seal {
    Moving(String),
    Moved(String),
}

/// Refuses a store that was moved: what it holds is old, and the hosts obey the new one.
fn check_seal(place: &Place) -> Result<(), EmbeddedError> {
    match place.sealed()? {
        None => Ok(()),
        Some(Seal::Moved(to)) => Err(EmbeddedError::Moved { to }),
        Some(Seal::Moving(to)) => Err(EmbeddedError::Moving { to, seal: place.seal_file() }),
    }
}

/// Keeps the certificates of this machine good.
#[derive(Debug, Clone)]
struct Keeper {
    folder: PathBuf,
    names: Vec<String>,
}

impl Keeper {
    /// Makes what is not there, or will soon end, and returns the store's own.
    fn keep(&self, now: Timestamp) -> Result<(Authority, Pair), AuthorityError> {
        let authority = Authority::open(&self.folder, now)?;
        for name in [OWN_NAME, LOCAL] {
            let name = name.parse().expect("it is a name");
            authority.own(&Peer { name, rights: Rights::All }, now)?;
        }
        let server = authority.server(&self.names, now)?;
        Ok((authority, server))
    }

    fn lock(&self) -> Result<Lock, EmbeddedError> {
        let (authority, server) = self.keep(Timestamp::now())?;
        let (certificate, key) = self.read(&server)?;
        Lock::new(authority.certificate(), &certificate, &key).map_err(|error| self.unusable(error))
    }

    /// Shows a new certificate once there is one. The clients read theirs whenever they connect.
    async fn renew(self, lock: Lock) {
        loop {
            tokio::time::sleep(RENEWED_EVERY).await;
            if !self.folder.join("ca-key.pem").exists() {
                // Another authority would shut out everybody who has a certificate of this one.
                let folder = self.folder.display();
                tracing::error!(%folder, "the store's authority is gone, so no certificate is renewed");
                continue;
            }
            let kept = self.keep(Timestamp::now()).map_err(EmbeddedError::from);
            let shown = kept.and_then(|(_, server)| {
                let (certificate, key) = self.read(&server)?;
                lock.show(&certificate, &key).map_err(|error| self.unusable(error))
            });
            if let Err(error) = shown {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "the store's certificates cannot be renewed; it is tried again");
            }
        }
    }

    fn read(&self, pair: &Pair) -> Result<(Vec<u8>, Vec<u8>), EmbeddedError> {
        let read =
            |path: &Path| std::fs::read(path).map_err(|error| EmbeddedError::File { path: path.to_owned(), error });
        Ok((read(&pair.certificate)?, read(&pair.key)?))
    }

    fn unusable(&self, error: LockError) -> EmbeddedError {
        EmbeddedError::Lock { path: self.folder.clone(), error }
    }
}

/// Every name and address by which the store may be reached.
fn names_of(address: IpAddr, more: Vec<String>) -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if !address.is_unspecified() {
        names.push(address.to_string());
    }
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    // Some are called what no certificate may say.
    if rustls::pki_types::ServerName::try_from(host.as_str()).is_ok() {
        names.push(host);
    }
    names.extend(more);
    names.sort();
    names.dedup();
    names
}

/// Where an address is reached from this machine.
fn reached_at(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(ip) if ip.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
