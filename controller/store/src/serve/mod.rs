//! The embedded store's server: etcd's API over an [`Engine`].
//!
//! Range, Put, DeleteRange, Txn, Compact, Watch, leases, the member list and maintenance are served. What is not (users
//! and roles, changes of the membership) is answered with Unimplemented and a sentence that says what to do.

mod check;
mod convert;
mod door;
mod hands;
mod kv;
mod large;
mod lease;
mod maintenance;
mod members;
mod peer;
mod protocol;
mod refusal;
mod room;
mod validity;
mod watch;
mod watcher;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use self::door::Places;
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
use crate::mvcc::{Engine, MOST_BYTES, Retainer, Retention};

/// Bytes of a message beside the request that it carries: etcd's.
const OVERHEAD: usize = 512 * 1024;

/// How often a client is asked whether it is still there, and how long it may take to say so: what vanished keeps its
/// place no longer than that. As long as etcd's own clients wait.
const ALIVE_EVERY: Duration = Duration::from_secs(30);
const ALIVE_WITHIN: Duration = Duration::from_secs(20);

/// What a client may ask at once on a connection; etcd's own clients, and ours, wait for their turn then. gRPC sets no
/// bound, and each may send a request of two megabytes.
const MOST_STREAMS: u32 = 256;

/// Leases that end together, and are taken away in one flush: what is written at once.
const ENDED_AT_ONCE: usize = 256;

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
    copies_of_others: Arc<Semaphore>,
    /// Large answers that are being read or are on their way.
    large: Arc<large::Places>,
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
            copies_of_others: Arc::new(Semaphore::new(maintenance::COPIES_OF_OTHERS)),
            large: Arc::default(),
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
            .max_concurrent_streams(Some(MOST_STREAMS))
            .add_routes(self.routes())
            .serve_with_incoming_shutdown(door.connections(listener, Places::default()), async move {
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
            for ended in ended.chunks(ENDED_AT_ONCE) {
                if let Err(error) = self.writer.expire(ended.to_vec()).await {
                    let leases = ended.len();
                    tracing::warn!(leases, %error, "leases that have ended could not be revoked; it is tried again");
                }
            }
            tokio::time::sleep(LEASES_EVERY).await;
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;
    use crate::mvcc::{
        Backend, BackendError, Batch, Change, DefragmentError, LeaseNumber, Memory, Meta, Order, Request, Revision,
        Size, State, View,
    };

    /// Counts how often it is flushed.
    #[derive(Debug, Default)]
    struct Counting(Memory, Arc<AtomicUsize>);

    impl Backend for Counting {
        fn load(&self, each: &mut dyn FnMut(Revision, Meta)) -> Result<State, BackendError> {
            self.0.load(each)
        }

        fn commit(&self, batch: &Batch) -> Result<(), BackendError> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.commit(batch)
        }

        fn values(&self, at: &[Revision]) -> Result<Vec<Bytes>, BackendError> {
            self.0.values(at)
        }

        fn changes(&self, from: i64, most: usize, bytes: usize) -> Result<Vec<Change>, BackendError> {
            self.0.changes(from, most, bytes)
        }

        fn view(&self) -> Result<Box<dyn View>, BackendError> {
            self.0.view()
        }

        fn size(&self) -> Result<Size, BackendError> {
            self.0.size()
        }

        fn defragment(&self) -> Result<(), DefragmentError> {
            self.0.defragment()
        }
    }

    fn server(backend: Box<dyn Backend>) -> Server {
        let engine = Engine::open(backend, Duration::ZERO).expect("an empty store");
        Server::new(Arc::new(engine), Identity { cluster: 7, member: 8 }, Prefix::default()).expect("a thread")
    }

    #[tokio::test]
    async fn leases_that_end_together_are_taken_away_together() {
        let flushes = Arc::new(AtomicUsize::new(0));
        let server = server(Box::new(Counting(Memory::default(), Arc::clone(&flushes))));
        let leases = 1000;
        let grant = |number| Order { request: Request::Grant(LeaseNumber(number), 2), author: None };
        // They have ended by now: this clock begins with the machine's start.
        server.engine.write(&(1..=leases).map(grant).collect::<Vec<_>>(), Duration::ZERO);
        flushes.store(0, Ordering::Relaxed);
        let ending = server.clone();
        let task = tokio::spawn(async move { ending.end_leases().await });
        while server.engine.lease_count() > 0 {
            tokio::task::yield_now().await;
        }
        task.abort();
        let flushes = flushes.load(Ordering::Relaxed);
        assert!(flushes < 20, "{flushes} flushes for {leases} leases");
    }

    /// A client that has said hello by HTTP/2, and the first frame that it was sent, the server's settings.
    async fn hello(server: &Server) -> (TcpStream, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let serving = server.clone();
        tokio::spawn(async move { serving.serve(listener, Door::Open, CancellationToken::new()).await });
        let mut stream = TcpStream::connect(address).await.expect("somebody listens");
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        stream.write_all(&[&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings].concat()).await.expect("sent");
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.expect("a frame");
        assert_eq!(head[3], 4, "settings come first (RFC 9113, 3.4)");
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut frame = vec![0; length];
        stream.read_exact(&mut frame).await.expect("a frame");
        (stream, frame)
    }

    #[tokio::test]
    async fn a_client_is_told_how_much_it_may_ask_at_once() {
        let (_stream, settings) = hello(&server(Box::new(Memory::default()))).await;
        // SETTINGS_MAX_CONCURRENT_STREAMS (RFC 9113, 6.5.2).
        let told = settings.chunks(6).find(|setting| setting[..2] == [0, 3]).expect("a bound of streams");
        assert_eq!(told[2..], MOST_STREAMS.to_be_bytes());
    }

    #[tokio::test]
    async fn a_client_that_has_vanished_does_not_keep_its_place() {
        let (mut stream, _) = hello(&server(Box::new(Memory::default()))).await;
        let begun = tokio::time::Instant::now();
        tokio::time::pause();
        // It answers nothing, as one whose machine is off.
        let ended = tokio::time::timeout(Duration::from_secs(3600), async {
            while let Ok(1..) = stream.read(&mut [0; 1024]).await {}
        });
        ended.await.expect("it is hung up on");
        assert!(begun.elapsed() >= ALIVE_EVERY, "not before it was asked");
    }
}
