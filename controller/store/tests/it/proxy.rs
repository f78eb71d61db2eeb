//! A TCP proxy between a store and etcd, for faults of the network: cut, stalled, or leading to another etcd.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the proxy does with connections.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Mode {
    /// Passes bytes to this address.
    Pass(SocketAddr),
    /// Keeps connections open and passes nothing.
    Stall,
    /// Closes connections, new ones too.
    Cut,
}

pub(crate) struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    loses: Losing,
    task: JoinHandle<()>,
}

/// The next message of etcd's that holds these bytes is lost on its way. `None` where nothing ever is, so that the bytes
/// need not be HTTP/2.
type Losing = Option<Arc<Mutex<Vec<u8>>>>;

impl Proxy {
    pub(crate) async fn to(endpoint: &str) -> Result<Self> {
        Self::start(endpoint, None).await
    }

    /// One that can lose single messages of etcd's, see [`Proxy::lose`]; connections through it can be neither cut nor
    /// stalled.
    pub(crate) async fn with_losses(endpoint: &str) -> Result<Self> {
        Self::start(endpoint, Some(Arc::default())).await
    }

    async fn start(endpoint: &str, loses: Losing) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (mode, modes) = watch::channel(Mode::Pass(address_of(endpoint)?));
        let lost = loses.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, modes.clone(), lost.clone()));
            }
        });
        Ok(Self { address, mode, loses, task })
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn stall(&self) {
        self.mode.send_replace(Mode::Stall);
    }

    pub(crate) fn cut(&self) {
        self.mode.send_replace(Mode::Cut);
    }

    /// Loses the next message of etcd's that holds these bytes; the connection lives on.
    pub(crate) fn lose(&self, bytes: &str) {
        *self.losing().lock().expect("a lock") = bytes.into();
    }

    /// Whether it was lost by now.
    pub(crate) fn has_lost(&self) -> bool {
        self.losing().lock().expect("a lock").is_empty()
    }

    fn losing(&self) -> &Mutex<Vec<u8>> {
        self.loses.as_ref().expect("a proxy with losses")
    }

    /// Passes bytes again; connections that were stalled or led elsewhere are closed.
    pub(crate) fn pass(&self, endpoint: &str) -> Result<()> {
        self.mode.send_replace(Mode::Pass(address_of(endpoint)?));
        Ok(())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn address_of(endpoint: &str) -> Result<SocketAddr> {
    let address = endpoint.split("://").nth(1).context("a URL")?;
    Ok(address.parse()?)
}

async fn serve(mut client: TcpStream, mut modes: watch::Receiver<Mode>, loses: Losing) {
    let mode = modes.borrow_and_update().clone();
    match mode {
        Mode::Cut => {}
        Mode::Stall => {
            let _ = modes.wait_for(|mode| *mode != Mode::Stall).await;
        }
        Mode::Pass(address) => {
            let Ok(mut server) = TcpStream::connect(address).await else { return };
            if let Some(loses) = loses {
                let _ = pass_with_losses(client, server, &loses).await;
                return;
            }
            tokio::select! {
                _ = copy_bidirectional(&mut client, &mut server) => {}
                _ = modes.changed() => {
                    // Both ends stay open, as behind a firewall that has forgotten them.
                    let _ = modes.wait_for(|mode| *mode != Mode::Stall).await;
                }
            }
        }
    }
}

/// Passes frames of HTTP/2 from the server, but for the one that is to be lost.
async fn pass_with_losses(client: TcpStream, server: TcpStream, loses: &Mutex<Vec<u8>>) -> Result<()> {
    const DATA: u8 = 0;
    let (mut asks, mut hears) = client.into_split();
    let (mut answers, mut asked) = server.into_split();
    let passes = async {
        loop {
            let mut frame = vec![0; 9];
            answers.read_exact(&mut frame).await?;
            let length = u32::from_be_bytes([0, frame[0], frame[1], frame[2]]);
            frame.resize(9 + usize::try_from(length)?, 0);
            answers.read_exact(&mut frame[9..]).await?;
            let lost = {
                let mut bytes = loses.lock().expect("a lock");
                let lost =
                    frame[3] == DATA && !bytes.is_empty() && frame.windows(bytes.len()).any(|part| part == *bytes);
                if lost {
                    bytes.clear();
                }
                lost
            };
            if !lost {
                hears.write_all(&frame).await?;
            }
        }
    };
    tokio::select! {
        passed = passes => passed,
        _ = copy(&mut asks, &mut asked) => Ok(()),
    }
}
