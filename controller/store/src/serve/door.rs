//! The door: takes connections in, and finds out who is at the other end.

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
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::peer::{Caller, Peer};

/// Connections at once: a thousand people and machines, and room beside them. Each that does nothing costs some
/// kilobytes. Whoever comes then waits to be taken in.
const MOST_CONNECTIONS: usize = 2048;

/// How long somebody may take to say who they are: as long as the slowest of our own clients waits.
const GREETING: Duration = Duration::from_secs(10);

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
    pub(super) fn connections(self, listener: TcpListener) -> ReceiverStream<io::Result<Connection>> {
        let (taken, connections) = mpsc::channel(1);
        tokio::spawn(self.take_in(listener, taken));
        ReceiverStream::new(connections)
    }

    async fn take_in(self, listener: TcpListener, taken: mpsc::Sender<io::Result<Connection>>) {
        let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        loop {
            let place = Arc::clone(&places).acquire_owned().await.expect("it is never closed");
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
            let (door, taken) = (self.clone(), taken.clone());
            // Beside the others: a greeting takes as long as the other end likes.
            tokio::spawn(async move {
                match tokio::time::timeout(GREETING, door.greet(stream, place)).await {
                    // Nobody takes it only where the server has ended.
                    Ok(Ok(connection)) => drop(taken.send(Ok(connection)).await),
                    Ok(Err(error)) => tracing::debug!(%error, "a connection to the store was not let in"),
                    Err(_) => tracing::debug!("a connection to the store never said who it was"),
                }
            });
        }
    }

    async fn greet(&self, stream: TcpStream, place: OwnedSemaphorePermit) -> io::Result<Connection> {
        stream.set_nodelay(true)?;
        match self {
            Self::Open => Ok(Connection { io: Io::Plain(stream), caller: Caller::Anybody, _place: place }),
            Self::Locked(lock) => {
                let stream = TlsAcceptor::from(Arc::clone(&lock.config)).accept(stream).await?;
                let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
                let nobody = || io::Error::other("the certificate names nobody who may use the store");
                let peer = shown.and_then(Peer::of).ok_or_else(nobody)?;
                Ok(Connection { io: Io::Tls(Box::new(stream)), caller: Caller::Known(Arc::new(peer)), _place: place })
            }
        }
    }
}

/// A connection, and who is at its other end.
pub(super) struct Connection {
    io: Io,
    caller: Caller,
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
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
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
