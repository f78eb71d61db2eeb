//! The contestants: `windlass serve` with its own store, and Debian's etcd as it comes, on one disk.

use std::fmt;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use windlass_e2e::binary;

use super::client::{Client, connect};

/// How long a server may take to answer; etcd elects itself first, which takes it a second.
const START: Duration = Duration::from_secs(60);

/// Between two questions whether it answers, so that a start is known to a hundredth of what it may take.
const POLL: Duration = Duration::from_millis(5);

/// Debian's.
pub(crate) const ETCD: &str = "/usr/bin/etcd";

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The whole program, its controller included.
    Windlass,
    /// etcd.
    Etcd,
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Windlass => "Windlass",
            Self::Etcd => "etcd",
        })
    }
}

/// PEM files by which clients and servers know each other.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    pub(crate) authority: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    server: PathBuf,
    server_key: PathBuf,
}

impl Credentials {
    /// Those that an embedded store makes itself in this folder.
    pub(crate) fn below(tls: &Path) -> Self {
        let file = |name: &str| tls.join(name);
        Self {
            authority: file("ca.pem"),
            certificate: file("local.pem"),
            key: file("local-key.pem"),
            server: file("server.pem"),
            server_key: file("server-key.pem"),
        }
    }
}

/// One of them, with a folder of its own. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Server {
    kind: Kind,
    folder: PathBuf,
    address: SocketAddr,
    credentials: Option<Credentials>,
    child: Option<Child>,
}

/// A folder on a disk: what is in memory needs no flush, and would say nothing.
pub(crate) fn folder() -> Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("windlass-bench-").tempdir_in("/var/tmp");
    let folder = folder.context("making a folder below /var/tmp")?;
    let kind = Command::new("stat").args(["--file-system", "--format=%T"]).arg(folder.path()).output();
    let kind = kind.context("asking which file system there is")?.stdout;
    ensure!(kind.trim_ascii() != b"tmpfs", "/var/tmp is in memory; there is no disk to measure");
    Ok(folder)
}

/// Both, started, with the same certificates: those that Windlass has made itself.
pub(crate) async fn pair(folder: &Path, plain: bool) -> Result<[Server; 2]> {
    let mut windlass = Server::new(Kind::Windlass, folder.join("windlass"), plain, None)?;
    windlass.start().await?;
    let mut etcd = Server::new(Kind::Etcd, folder.join("etcd"), plain, windlass.credentials.clone())?;
    etcd.start().await?;
    Ok([windlass, etcd])
}

impl Server {
    fn new(kind: Kind, folder: PathBuf, plain: bool, credentials: Option<Credentials>) -> Result<Self> {
        fs::create_dir(&folder).context("making a folder")?;
        let address = free_address()?;
        let own = || Credentials::below(&folder.join("data/store/tls"));
        let credentials = (!plain).then(|| credentials.unwrap_or_else(own));
        Ok(Self { kind, folder, address, credentials, child: None })
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Its process.
    pub(crate) fn id(&self) -> Result<u32> {
        Ok(self.child.as_ref().with_context(|| format!("{} does not run", self.kind))?.id())
    }

    fn endpoint(&self) -> String {
        let scheme = if self.credentials.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// A client with a connection of its own.
    pub(crate) async fn client(&self) -> Result<Client> {
        connect(&self.endpoint(), self.credentials.as_ref()).await
    }

    /// Starts it, and returns how long it took until it answered a read.
    pub(crate) async fn start(&mut self) -> Result<Duration> {
        let log = self.folder.join("log");
        let output = File::options().create(true).append(true).open(&log).context("opening a log")?;
        let mut command = self.command()?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let began = Instant::now();
        self.child = Some(command.spawn().with_context(|| format!("starting {}", self.kind))?);
        loop {
            if self.answers().await {
                return Ok(began.elapsed());
            }
            let ended = self.child.as_mut().context("it was started")?.try_wait()?;
            if ended.is_some() || began.elapsed() > START {
                let text = fs::read_to_string(&log).unwrap_or_default();
                bail!("{} does not answer ({ended:?}):\n{text}", self.kind);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn answers(&self) -> bool {
        if tokio::net::TcpStream::connect(self.address).await.is_err() {
            return false;
        }
        let asked = async { self.client().await?.get("x", None).await.context("asking") };
        matches!(tokio::time::timeout(START, asked).await, Ok(Ok(_)))
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let ask = Command::new("kill").arg(self.id()?.to_string()).status().context("asking it to end")?;
        ensure!(ask.success(), "it could not be asked to end");
        let ended = self.child.take().context("it runs")?.wait().context("waiting for its end")?;
        // etcd ends by the signal itself.
        ensure!(self.kind == Kind::Etcd || ended.success(), "{} ended with {ended}", self.kind);
        Ok(())
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("it runs")?;
        child.kill().context("killing it")?;
        child.wait().context("waiting for its end").map(drop)
    }

    /// Either as it comes: nothing is tuned.
    fn command(&self) -> Result<Command> {
        // Should this process be killed, so is what it has started.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        let data = self.folder.join("data");
        match self.kind {
            Kind::Windlass => {
                command.arg(binary("windlass")?).arg("serve").arg("--data-dir").arg(data);
                command.arg("--etcd-listen").arg(self.address.to_string());
                command.arg("--listen").arg(free_address()?.to_string());
                if self.credentials.is_none() {
                    command.arg("--insecure-loopback");
                }
                command.env("NO_COLOR", "1").env("TMPDIR", &self.folder).env_remove("SSH_AUTH_SOCK");
            }
            Kind::Etcd => {
                let (client, peer) = (self.endpoint(), format!("http://{}", free_address()?));
                command.arg(ETCD).args(["--logger=zap", "--log-level=warn"]).arg("--data-dir").arg(data);
                command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
                command.args(["--listen-peer-urls", &peer]);
                if let Some(Credentials { authority, server, server_key, .. }) = &self.credentials {
                    command.arg("--cert-file").arg(server).arg("--key-file").arg(server_key);
                    command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(authority);
                }
            }
        }
        let settings = std::env::vars_os().map(|(name, _)| name);
        for name in settings.filter(|name| ["ETCD", "WINDLASS"].iter().any(|ours| begins(name, ours))) {
            command.env_remove(name);
        }
        Ok(command)
    }
}

fn begins(name: &std::ffi::OsStr, with: &str) -> bool {
    name.to_string_lossy().starts_with(with)
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.is_some().then(|| self.kill());
    }
}

/// An address on which nobody listens.
pub(crate) fn free_address() -> Result<SocketAddr> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("looking for a free port")?;
    listener.local_addr().context("a listener has an address")
}
