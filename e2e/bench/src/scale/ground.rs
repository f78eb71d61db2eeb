//! The ground of one run: a store, a controller in a process of its own, and what both say of themselves.

use std::fmt;
use std::fs::DirBuilder;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use etcd_client::Client;
use tempfile::TempDir;
use windlass_testbed::{Durability, Etcd, EtcdVersion};

use super::crowd::Crowd;
use crate::machine::processor_time;
use crate::store::{Credentials, connect, folder, free_address};

/// How long whatever is asked may take to answer.
const ANSWERS: Duration = Duration::from_secs(10);

/// Between two questions how the controller is.
const POLL: Duration = Duration::from_millis(10);

/// How long a controller may take until it leads.
const LEADS: Duration = Duration::from_secs(120);

/// Where what is declared is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Debian's etcd, which waits for its disk
    Etcd,
    /// The store that `windlass serve` carries
    Embedded,
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Etcd => "etcd",
            Self::Embedded => "the embedded store",
        })
    }
}

/// A store, and a controller that is not started yet. Dropping it ends both.
pub(crate) struct Ground {
    pub(crate) crowd: Crowd,
    etcd: Option<Etcd>,
    folder: TempDir,
    store: SocketAddr,
    listen: SocketAddr,
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Ground {
    /// Starts a store, where it is none of the controller's own, and the process that a controller will be in.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn new(kind: Kind, crowd: Crowd) -> Result<Self> {
        let folder = folder()?;
        let etcd = match kind {
            Kind::Etcd => Some(Etcd::start_with(EtcdVersion::V3_4, Durability::Synced)?),
            Kind::Embedded => None,
        };
        let sources = folder.path().join("sources");
        crowd.write_sources(&sources)?;
        let data = folder.path().join("data");
        DirBuilder::new().mode(0o700).create(&data).context("making a data directory")?;
        let (store, listen) = (free_address()?, free_address()?);
        // Should this process be killed, so is what it has started.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(std::env::current_exe().context("this program")?);
        command.arg("controller").args(["--hosts", &crowd.hosts.to_string()]);
        command.args(["--services", &crowd.services.to_string()]);
        command.args(["--etcd-listen", &store.to_string(), "--listen", &listen.to_string()]);
        command.arg("--data-dir").arg(data).arg("--log").arg(folder.path().join("log"));
        if let Some(etcd) = &etcd {
            command.args(["--endpoint", &etcd.endpoint()]);
        }
        // As `windlass serve` does it.
        command.env("MALLOC_ARENA_MAX", "1").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("starting a controller's process")?;
        let orders = child.stdin.take().context("it has an input")?;
        let answers = BufReader::new(child.stdout.take().context("it has an output")?);
        Ok(Self { crowd, etcd, folder, store, listen, child, orders, answers })
    }

    /// Where the sources are.
    pub(crate) fn sources(&self) -> PathBuf {
        self.folder.path().join("sources")
    }

    /// Tells the process to do something, and waits until it has.
    ///
    /// # Errors
    /// When it does not.
    fn order(&mut self, word: &str) -> Result<()> {
        writeln!(self.orders, "{word}").with_context(|| format!("telling the controller to {word}"))?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer).context("waiting for the controller's process")?;
        ensure!(answer.trim() == word, "the controller did not {word}; see what it has said above");
        Ok(())
    }

    /// Starts the controller, and says how long it took until it led, its cache full.
    ///
    /// # Errors
    /// When it does not.
    pub(crate) fn start(&mut self) -> Result<Duration> {
        let began = Instant::now();
        self.order("start")?;
        loop {
            if ask(self.listen, "/readyz").is_ok_and(|answer| answer.ends_with("leader\n")) {
                return Ok(began.elapsed());
            }
            ensure!(began.elapsed() < LEADS, "the controller does not lead after {LEADS:?}");
            std::thread::sleep(POLL);
        }
    }

    /// Stops the controller as an operator does; its hosts stay.
    ///
    /// # Errors
    /// When it does not stop.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.order("stop")
    }

    /// A client of the store, with a connection of its own.
    ///
    /// # Errors
    /// When nobody answers.
    pub(crate) async fn client(&self) -> Result<Client> {
        match &self.etcd {
            Some(etcd) => connect(&etcd.endpoint(), None).await,
            None => {
                let credentials = Credentials::below(&self.folder.path().join("data/store/tls"));
                connect(&format!("https://{}", self.store), Some(&credentials)).await
            }
        }
    }

    /// Transactions and puts that the store has been asked for so far, by its own count: etcd counts its calls, those
    /// that came to nothing included; the embedded store's revision counts what changed something.
    ///
    /// # Errors
    /// When it does not tell.
    pub(crate) async fn transactions(&self) -> Result<u64> {
        match &self.etcd {
            Some(etcd) => {
                let address = etcd.endpoint();
                let address = address.trim_start_matches("http://").parse().context("etcd's address")?;
                let text = ask(address, "/metrics")?;
                let calls = ["Txn", "Put", "DeleteRange"].map(|method| {
                    let label = format!("grpc_method=\"{method}\"");
                    sum(&text, "grpc_server_handled_total{", &label)
                });
                Ok(calls.iter().sum::<f64>() as u64)
            }
            None => self.revision().await,
        }
    }

    /// The store's revision.
    ///
    /// # Errors
    /// When it does not tell.
    pub(crate) async fn revision(&self) -> Result<u64> {
        let answer = self.client().await?.get("/none", None).await.context("asking the store")?;
        let header = answer.header().context("an answer without a header")?;
        u64::try_from(header.revision()).context("a revision")
    }

    /// How many reconciles of Services have ended.
    ///
    /// # Errors
    /// When the controller does not tell.
    pub(crate) fn reconciles(&self) -> Result<u64> {
        let text = ask(self.listen, "/metrics")?;
        Ok(sum(&text, "windlass_reconcile_duration_seconds_count{", "kind=\"service\"") as u64)
    }

    /// A line of what the kernel says of the controller's process, in megabytes: `VmRSS`, `VmHWM`.
    ///
    /// # Errors
    /// When it has ended.
    pub(crate) fn memory(&self, line: &str) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).context("its memory")?;
        let line = status.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(':'));
        let kilobytes: f64 = line.context("no such line")?.trim().trim_end_matches(" kB").parse().context("kB")?;
        Ok(kilobytes * 1024.0 / 1e6)
    }

    /// Processor time that the controller's process has used so far.
    ///
    /// # Errors
    /// When it has ended.
    pub(crate) fn processor(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).context("its time")?;
        processor_time(&stat, 2)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks for a page, by HTTP 1.0: so the answer comes whole, and not in pieces.
fn ask(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWERS).context("connecting")?;
    stream.set_read_timeout(Some(ANSWERS))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").context("asking")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).context("reading the answer")?;
    match text.split_once("\r\n\r\n") {
        Some((_, body)) => Ok(body.to_owned()),
        None => bail!("no HTTP answer"),
    }
}

/// The sum of all samples whose line begins so and has this label.
fn sum(text: &str, begins: &str, label: &str) -> f64 {
    let lines = text.lines().filter(|line| line.starts_with(begins) && line.contains(label));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}
