//! The embedded store's server: etcd's API over an [`Engine`].
//!
//! Range, Put, DeleteRange, Txn, Compact, Watch, leases, the member list and maintenance are served. What is not (users
//! and roles, changes of the membership) is answered with Unimplemented and a sentence that says what to do.

mod check;
mod convert;
mod door;
mod hands;
mod kv;
mod lease;
mod maintenance;
mod members;
mod peer;
mod protocol;
mod refusal;
mod room;
mod watch;
mod watcher;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

pub use self::door::{Door, Lock, LockError};
pub(crate) use self::hands::Hands;
pub(crate) use self::peer::Caller;
pub use self::peer::{NotAName, Peer, PeerName, Rights};
use self::protocol::etcdserverpb as rpc;
use self::refusal::{NoUsers, Worded};
use self::room::Room;
use self::writer::Writer;
use crate::key::Prefix;
use crate::machine::Machine;
use crate::mvcc::{Engine, LeaseNumber, MOST_BYTES, Order, Refusal, Request, Retainer, Retention};

/// Bytes of a message beside the request that it carries: etcd's.
const OVERHEAD: usize = 512 * 1024;

/// How often a client is asked whether it is still there, and how long it may take to say so: what vanished keeps its
/// place no longer than that. As long as etcd's own clients wait.
const ALIVE_EVERY: Duration = Duration::from_secs(30);
const ALIVE_WITHIN: Duration = Duration::from_secs(20);

/// How often leases are looked at that nobody keeps: as often as etcd does.
const LEASES_EVERY: Duration = Duration::from_millis(500);

/// How often the engine is tended, and how soon again where there is more to do: so a compaction of 100,000 changes is
/// through in some seconds, and takes no more than a tenth of the disk's time.
const TENDED_EVERY: Duration = Duration::from_secs(1);
const TENDED_AGAIN: Duration = Duration::from_millis(100);

/// A store that can be served.
#[derive(Debug, Clone)]
pub struct Server {
    engine: Arc<Engine>,
    writer: Writer,
    identity: Identity,
    /// Below which lies what others may write.
    prefix: Prefix,
    /// Ends what would never end by itself.
    closing: CancellationToken,
    room: Arc<Room>,
    copies: Arc<Semaphore>,
    hands: Hands,
    machine: Machine,
}

/// Numbers that etcd's answers carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Of the cluster.
    pub cluster: u64,
    /// Of its only member.
    pub member: u64,
}

/// Why a store could not be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// No thread could be made.
    #[error("cannot begin a thread for the store")]
    Thread(#[source] std::io::Error),
    /// The server ended.
    #[error("the store's server ended")]
    Ended(#[source] tonic::transport::Error),
}

impl Server {
    /// Begins to write for an engine.
    ///
    /// # Errors
    /// [`ServeError::Thread`].
    pub fn new(engine: Arc<Engine>, identity: Identity, prefix: Prefix) -> Result<Self, ServeError> {
        let writer = Writer::begin(Arc::clone(&engine)).map_err(ServeError::Thread)?;
        Ok(Self::with(engine, writer, identity, prefix, (Hands::Threads, Machine::default())))
    }

    /// A server that does everything where it is asked, on a machine that may be another than this.
    pub(crate) fn within(engine: Arc<Engine>, identity: Identity, prefix: Prefix, machine: Machine) -> Self {
        let writer = Writer::here(Arc::clone(&engine), machine.clone());
        Self::with(engine, writer, identity, prefix, (Hands::Here, machine))
    }

    fn with(
        engine: Arc<Engine>,
        writer: Writer,
        identity: Identity,
        prefix: Prefix,
        (hands, machine): (Hands, Machine),
    ) -> Self {
        Self {
            engine,
            writer,
            identity,
            prefix,
            closing: CancellationToken::new(),
            room: Arc::default(),
            copies: Arc::new(Semaphore::new(maintenance::COPIES)),
            hands,
            machine,
        }
    }

    /// Answers on a listener those whom the door lets in, until it is told to stop.
    ///
    /// # Errors
    /// [`ServeError::Ended`].
    pub async fn serve(&self, listener: TcpListener, door: Door, stop: CancellationToken) -> Result<(), ServeError> {
        let closing = self.closing.clone();
        let ending = self.clone();
        let leases = tokio::spawn(stop.clone().run_until_cancelled_owned(async move { ending.end_leases().await }));
        let tending = self.clone();
        let tended = tokio::spawn(stop.clone().run_until_cancelled_owned(async move { tending.tend().await }));
        let served = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(ALIVE_EVERY))
            .http2_keepalive_timeout(Some(ALIVE_WITHIN))
            .add_routes(self.routes())
            .serve_with_incoming_shutdown(door.connections(listener), async move {
                stop.cancelled().await;
                closing.cancel();
            })
            .await;
        leases.abort();
        tended.abort();
        served.map_err(ServeError::Ended)
    }

    /// Ends every stream that is open.
    pub(crate) fn close(&self) {
        self.closing.cancel();
    }

    pub(crate) fn routes(&self) -> Routes {
        let most = MOST_BYTES + OVERHEAD;
        let server = || self.clone();
        let kv = rpc::kv_server::KvServer::new(server()).max_decoding_message_size(most);
        let watch = rpc::watch_server::WatchServer::new(server()).max_decoding_message_size(most);
        let lease = rpc::lease_server::LeaseServer::new(server()).max_decoding_message_size(most);
        let cluster = rpc::cluster_server::ClusterServer::new(server()).max_decoding_message_size(most);
        let maintenance = rpc::maintenance_server::MaintenanceServer::new(server()).max_decoding_message_size(most);
        Routes::new(Worded(kv.max_encoding_message_size(usize::MAX)))
            .add_service(Worded(watch.max_encoding_message_size(usize::MAX)))
            .add_service(Worded(lease.max_encoding_message_size(usize::MAX)))
            .add_service(Worded(cluster))
            .add_service(Worded(maintenance))
            .add_service(NoUsers)
    }

    /// Takes away what nobody keeps.
    pub(crate) async fn end_leases(&self) {
        loop {
            let (ended, _) = self.engine.ended_leases(self.machine.since_boot());
            for lease in ended {
                self.end_lease(lease).await;
            }
            tokio::time::sleep(LEASES_EVERY).await;
        }
    }

    async fn end_lease(&self, lease: LeaseNumber) {
        let order = Order { request: Request::Expire(lease), author: None };
        match self.writer.write(order).await {
            // Somebody was quicker to revoke it, and may have granted it anew.
            Ok(_) | Err(Refusal::LeaseNotFound) => {}
            Err(error) => {
                tracing::warn!(lease = lease.0, %error, "a lease that has ended could not be revoked; it is tried again");
            }
        }
    }

    /// What every answer begins with.
    fn header(&self, revision: i64) -> Option<rpc::ResponseHeader> {
        let Identity { cluster, member } = self.identity;
        // One member has had one leader only.
        Some(rpc::ResponseHeader { cluster_id: cluster, member_id: member, revision, raft_term: 1 })
    }

    fn header_now(&self) -> Option<rpc::ResponseHeader> {
        self.header(self.engine.revision())
    }

    /// Forgets what is older than is kept, whether or not anybody writes.
    async fn tend(&self) {
        let mut retainer = Retainer::new(Retention::default());
        loop {
            let (engine, now) = (Arc::clone(&self.engine), self.machine.since_boot());
            let tended = self.hands.run(move || {
                let more = engine.tend(&mut retainer, now);
                (retainer, more)
            });
            let Some((back, more)) = tended.await else { return };
            retainer = back;
            let more = more.unwrap_or_else(|error| {
                tracing::warn!(%error, "what is older than is kept stays on the disk for now");
                false
            });
            tokio::time::sleep(if more { TENDED_AGAIN } else { TENDED_EVERY }).await;
        }
    }
}
