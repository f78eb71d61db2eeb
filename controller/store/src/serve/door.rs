//! The door: takes connections in, and finds out who is at the other end.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::peer::{Caller, Peer, Rights};

/// How long somebody may take to say who they are, and to be given a place: as long as the slowest of our own clients
/// waits.
const GREETING: Duration = Duration::from_secs(10);

/// How many are let in at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Places {
    /// Whoever it is. Who comes then waits for a while.
    all: usize,
    /// Beside those, of those who may do everything: whatever others do, the controller and its owner come in.
    ours: usize,
    /// Those who have not said yet who they are. Where there are more, the one is hung up on who has taken the longest:
    /// so those who say nothing keep nobody out.
    greeting: usize,
}

impl Default for Places {
    /// A thousand people and machines, and room beside them; a connection that does nothing costs some kilobytes. A
    /// controller has a handful. A greeting takes some milliseconds, so of 512 only those who do not greet are hung up
    /// on.
    fn default() -> Self {
        Self { all: 2048, ours: 64, greeting: 512 }
    }
}

/// What is waited where no connection can be taken in, as where there are no more descriptors.
const BREATH: Duration = Duration::from_millis(100);

/// How connections are let in.
#[derive(Debug, Clone)]
pub enum Door {
    /// Everybody who can connect, and may do everything.
    Open,
    /// Those who show a certificate.
    Locked(Lock),
}

/// What connections are checked with, and what we show.
#[derive(Debug, Clone)]
pub struct Lock {
    shown: Arc<Shown>,
    config: Arc<ServerConfig>,
}

/// The certificate that we show; another one once it is made anew.
#[derive(Debug)]
struct Shown(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().expect("no panic happens under this lock")))
    }
}

/// Why a lock cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// A file does not hold what it should.
    #[error("not in PEM form")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// The certificate is not one that can be shown.
    #[error("not a certificate and its key")]
    Pair(#[from] rustls::Error),
    /// The authority is not one that can be checked with.
    #[error("not an authority")]
    Authority(#[from] rustls::server::VerifierBuilderError),
}

impl Lock {
    /// Lets in whom `authority` has signed, and shows a certificate: both PEM.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn new(authority: &CertificateDer<'static>, certificate: &[u8], key: &[u8]) -> Result<Self, LockError> {
        crate::tls::restrict_ciphers();
        let shown = Arc::new(Shown(RwLock::new(pair(certificate, key)?)));
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone())?;
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build()?;
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<Shown>::clone(&shown);
        let mut config = ServerConfig::builder().with_client_cert_verifier(verifier).with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { shown, config: Arc::new(config) })
    }

    /// Shows another certificate from now on.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn show(&self, certificate: &[u8], key: &[u8]) -> Result<(), LockError> {
        *self.shown.0.write().expect("no panic happens under this lock") = pair(certificate, key)?;
        Ok(())
    }
}

fn pair(certificate: &[u8], key: &[u8]) -> Result<Arc<CertifiedKey>, LockError> {
    let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(key)?;
    let provider = rustls::crypto::CryptoProvider::get_default().expect("it is chosen before");
    Ok(Arc::new(CertifiedKey::from_der(chain, key, provider)?))
}

impl Door {
    /// Connections, as they come, until nobody takes them any more.
    pub(super) fn connections(self, listener: TcpListener, places: Places) -> ReceiverStream<io::Result<Connection>> {
        let (taken, connections) = mpsc::channel(1);
        tokio::spawn(self.take_in(listener, places, taken));
        ReceiverStream::new(connections)
    }

    async fn take_in(self, listener: TcpListener, places: Places, taken: mpsc::Sender<io::Result<Connection>>) {
        let Places { all, ours, greeting: most } = places;
        let free = Free { all: Arc::new(Semaphore::new(all)), ours: Arc::new(Semaphore::new(ours)) };
        let mut greetings = VecDeque::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = taken.closed() => return,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the store cannot take a connection in");
                    tokio::time::sleep(BREATH).await;
                    continue;
                }
            };
            let (door, free, taken) = (self.clone(), free.clone(), taken.clone());
            // Beside the others: a greeting takes as long as the other end likes.
            let greeting = tokio::spawn(async move {
                match tokio::time::timeout(GREETING, door.greet(stream, free)).await {
                    // Nobody takes it only where the server has ended.
                    Ok(Ok(connection)) => drop(taken.send(Ok(connection)).await),
                    Ok(Err(error)) => tracing::debug!(%error, "a connection to the store was not let in"),
                    Err(_) => tracing::debug!("a connection to the store never said who it was, or there was no place"),
                }
            });
            greetings.push_back(greeting.abort_handle());
            make_room(&mut greetings, most);
        }
    }

    async fn greet(&self, stream: TcpStream, free: Free) -> io::Result<Connection> {
        stream.set_nodelay(true)?;
        match self {
            Self::Open => {
                let place = free.place(Rights::Declare).await;
                Ok(Connection { io: Io::Plain(stream), caller: Caller::Anybody, ends: None, _place: place })
            }
            Self::Locked(lock) => {
                let stream = TlsAcceptor::from(Arc::clone(&lock.config)).accept(stream).await?;
                let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
                let nobody = || io::Error::other("the certificate names nobody who may use the store");
                let peer = shown.and_then(Peer::of).ok_or_else(nobody)?;
                let ends = match peer.rights {
                    // Made anew in time, and shown by the next connection.
                    Rights::All => None,
                    Rights::Declare => shown.and_then(Peer::left).map(|left| Box::pin(tokio::time::sleep(left))),
                };
                let place = free.place(peer.rights).await;
                let caller = Caller::Known(Arc::new(peer));
                Ok(Connection { io: Io::Tls(Box::new(stream)), caller, ends, _place: place })
            }
        }
    }
}

/// Hangs up on whoever has greeted the longest, where more than so many do.
fn make_room(greetings: &mut VecDeque<AbortHandle>, most: usize) {
    if greetings.len() <= most {
        return;
    }
    greetings.retain(|greeting| !greeting.is_finished());
    while greetings.len() > most
        && let Some(oldest) = greetings.pop_front()
    {
        oldest.abort();
    }
}

/// Places that nobody has.
#[derive(Debug, Clone)]
struct Free {
    all: Arc<Semaphore>,
    ours: Arc<Semaphore>,
}

impl Free {
    async fn place(&self, rights: Rights) -> OwnedSemaphorePermit {
        let taken = match (Arc::clone(&self.all).try_acquire_owned(), rights) {
            (Ok(place), _) => return place,
            (Err(_), Rights::Declare) => &self.all,
            (Err(_), Rights::All) => &self.ours,
        };
        Arc::clone(taken).acquire_owned().await.expect("it is never closed")
    }
}

/// A connection, and who is at its other end.
pub(super) struct Connection {
    io: Io,
    caller: Caller,
    /// When its certificate does.
    ends: Option<Pin<Box<Sleep>>>,
    /// Given back when it ends.
    _place: OwnedSemaphorePermit,
}

enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

/// Calls the same of either kind.
macro_rules! either {
    ($self:expr, $io:ident => $call:expr) => {
        match &mut $self.get_mut().io {
            Io::Plain(stream) => {
                let $io = Pin::new(stream);
                $call
            }
            Io::Tls(stream) => {
                let $io = Pin::new(stream.as_mut());
                $call
            }
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(ends) = &mut self.ends
            && ends.as_mut().poll(context).is_ready()
        {
            // Its end may be told again.
            self.ends = Some(Box::pin(tokio::time::sleep(Duration::ZERO)));
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "its certificate has ended")));
        }
        either!(self, io => io.poll_read(context, buffer))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, io => io.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, io => io.poll_write_vectored(context, buffers))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(stream) => stream.is_write_vectored(),
            Io::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, io => io.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, io => io.poll_shutdown(context))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::SystemTime;

    use futures::StreamExt as _;
    use rcgen::{CertificateParams, Issuer, KeyPair, SanType, string::Ia5String};
    use rustls::ClientConfig;
    use rustls::pki_types::ServerName;
    use tokio::io::AsyncReadExt as _;
    use tokio_rustls::TlsConnector;

    use super::*;

    type Greeted = tokio_rustls::client::TlsStream<TcpStream>;

    /// An authority, and a door that is locked with it.
    struct House {
        issuer: Issuer<'static, KeyPair>,
        authority: CertificateDer<'static>,
        address: SocketAddr,
        connections: ReceiverStream<io::Result<Connection>>,
    }

    impl House {
        async fn with(places: Places) -> Self {
            let (mut params, key) = (CertificateParams::default(), KeyPair::generate().expect("a key"));
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            let authority = params.self_signed(&key).expect("an authority").der().clone();
            let issuer = Issuer::new(params, key);
            let key = KeyPair::generate().expect("a key");
            let server = CertificateParams::new(["localhost".to_owned()]).expect("a name");
            let server = server.signed_by(&key, &issuer).expect("a certificate");
            let lock = Lock::new(&authority, server.pem().as_bytes(), key.serialize_pem().as_bytes()).expect("a lock");
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            let connections = Door::Locked(lock).connections(listener, places);
            Self { issuer, authority, address, connections }
        }

        /// Somebody who says who they are, with a certificate for so many seconds more.
        async fn comes(&self, rights: Rights, name: &str, seconds: u64) -> Greeted {
            let key = KeyPair::generate().expect("a key");
            let mut params = CertificateParams::default();
            let uri = Peer { name: name.parse().expect("a name"), rights }.uri();
            params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(uri).expect("ASCII"))];
            params.not_after = (SystemTime::now() + Duration::from_secs(seconds)).into();
            let made = params.signed_by(&key, &self.issuer).expect("a certificate");
            let mut roots = RootCertStore::empty();
            roots.add(self.authority.clone()).expect("an authority");
            let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("a key");
            let config = ClientConfig::builder().with_root_certificates(roots);
            let config = config.with_client_auth_cert(vec![made.der().clone()], key).expect("a certificate");
            let stream = TcpStream::connect(self.address).await.expect("somebody listens");
            let server = ServerName::try_from("localhost").expect("a name");
            TlsConnector::from(Arc::new(config)).connect(server, stream).await.expect("the store is known")
        }

        /// The next who is let in.
        async fn lets_in(&mut self) -> (String, Connection) {
            let connection = tokio::time::timeout(Duration::from_secs(60), self.connections.next()).await;
            let connection = connection.expect("somebody is let in").expect("it goes on").expect("no error");
            let Caller::Known(peer) = &connection.caller else { panic!("somebody unknown is let in") };
            (peer.name.to_string(), connection)
        }
    }

    const HOUR: u64 = 3600;

    fn is_open(stream: &TcpStream) -> bool {
        matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    #[tokio::test]
    async fn those_who_do_not_greet_keep_nobody_out() {
        let mut house = House::with(Places { all: 100, ours: 1, greeting: 3 }).await;
        let mut silent = Vec::new();
        for _ in 0..20 {
            silent.push(TcpStream::connect(house.address).await.expect("somebody listens"));
        }
        let _ana = house.comes(Rights::Declare, "ana", HOUR).await;
        assert_eq!(house.lets_in().await.0, "ana");
        // Those who came last still may; it was not waited until they had to be given up.
        assert!(silent[18..].iter().all(is_open), "she was let in only once they were gone");
        for mut first in silent.drain(..17) {
            let told = first.read(&mut [0]).await;
            assert!(matches!(told, Ok(0) | Err(_)), "it is not hung up on");
        }
    }

    #[tokio::test]
    async fn there_are_places_for_who_runs_the_store_when_others_have_taken_all() {
        let mut house = House::with(Places { all: 2, ours: 1, greeting: 100 }).await;
        let mut guests = Vec::new();
        for name in ["ana", "ben", "cyd"] {
            guests.push(house.comes(Rights::Declare, name, HOUR).await);
        }
        let (first, connection) = house.lets_in().await;
        let (second, _kept) = house.lets_in().await;
        let mut in_all = vec![first, second];
        // The third waits, and is not before the controller, who came later.
        let _controller = house.comes(Rights::All, "controller", HOUR).await;
        assert_eq!(house.lets_in().await.0, "controller");
        drop(connection);
        in_all.push(house.lets_in().await.0);
        in_all.sort();
        assert_eq!(in_all, ["ana", "ben", "cyd"]);
    }

    #[tokio::test]
    async fn a_guests_connection_ends_with_its_certificate() {
        let mut house = House::with(Places::default()).await;
        let _ana = house.comes(Rights::Declare, "ana", HOUR).await;
        let (_, mut connection) = house.lets_in().await;
        let begun = tokio::time::Instant::now();
        tokio::time::pause();
        let ended = connection.read(&mut [0]).await.expect_err("it ends");
        assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
        let lasted = begun.elapsed().as_secs();
        assert!((HOUR - 120..=HOUR).contains(&lasted), "{lasted} s");
        assert!(connection.read(&mut [0]).await.is_err(), "and stays ended");
    }
}
