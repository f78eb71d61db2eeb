//! A TCP proxy between a store and etcd, for faults of the network: cut, stalled, or leading to another etcd.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tokio::io::copy_bidirectional;
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
    task: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn to(endpoint: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (mode, modes) = watch::channel(Mode::Pass(address_of(endpoint)?));
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, modes.clone()));
            }
        });
        Ok(Self { address, mode, task })
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

async fn serve(mut client: TcpStream, mut modes: watch::Receiver<Mode>) {
    let mode = modes.borrow_and_update().clone();
    match mode {
        Mode::Cut => {}
        Mode::Stall => {
            let _ = modes.wait_for(|mode| *mode != Mode::Stall).await;
        }
        Mode::Pass(address) => {
            let Ok(mut server) = TcpStream::connect(address).await else { return };
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
