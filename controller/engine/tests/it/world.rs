//! A controller on a real etcd, with hosts in memory and a source directory.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use windlass_crds::condition::{ConditionStatus, ConditionType, Reason};
use windlass_crds::id::{ResourceKey, ServiceKey};
use windlass_crds::record::Owned;
use windlass_crds::request::Request;
use windlass_crds::status::{ServiceStatus, condition};
use windlass_engine::audit::RETENTION;
use windlass_engine::events::Event;
use windlass_engine::goal::chain;
use windlass_engine::{ServeError, ServeOptions, serve};
use windlass_hosts::memory::MemoryFleet;
use windlass_store::{Authors, ConnectOptions, Entry, Key, RequestId, Scope, Section, Store};
use windlass_testbed::{Etcd, EtcdVersion};

/// Longer than anything here takes on a slow machine: it only bounds a test that hangs.
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct World {
    pub(crate) etcd: Etcd,
    pub(crate) fleet: MemoryFleet,
    pub(crate) store: Store,
    hosts: Vec<String>,
    source: tempfile::TempDir,
    data: tempfile::TempDir,
    listen: SocketAddr,
    shutdown: CancellationToken,
    controller: JoinHandle<Result<(), ServeError>>,
    /// Why the controller ended, once it has.
    ended: Arc<OnceLock<String>>,
}

impl World {
    pub(crate) async fn start(hosts: &[&str]) -> anyhow::Result<Self> {
        Self::keeping(hosts, RETENTION).await
    }

    /// The same with a controller that keeps the audit trail for so long.
    pub(crate) async fn keeping(hosts: &[&str], retention: Duration) -> anyhow::Result<Self> {
        let etcd = Etcd::start(EtcdVersion::V3_4)?;
        let fleet = MemoryFleet::new();
        let options = ConnectOptions::new(etcd.endpoints());
        let store = Store::connect(&options).await?;
        let zone = "apiVersion: windlass/v1\nkind: NetworkZone\nmetadata: {name: test}\nspec: {location: vpn, cidrs: [198.18.0.0/15]}\n";
        store.declare(&resource("networkzones/test"), zone.into()).await?;
        for (index, host) in hosts.iter().enumerate() {
            let address = format!("198.18.0.{}", index + 1);
            fleet.add(&address, windlass_hosts::memory::HostSettings::default());
            fleet.add_alias(host, &address);
            let text = format!(
                "apiVersion: windlass/v1\nkind: Host\nmetadata: {{name: {host}, labels: {{role: web}}}}\nspec: {{address: {address}}}\n"
            );
            store.declare(&resource(&format!("hosts/{host}")), text.into()).await?;
        }
        let data = tempfile::tempdir()?;
        let listen = free_address()?;
        let shutdown = CancellationToken::new();
        let serving = ServeOptions {
            store: options,
            authors: Authors::default(),
            data_dir: data.path().to_owned(),
            audit_retention: retention,
            listen,
            identity: "test".to_owned(),
        };
        let ended = Arc::default();
        let controller = run(serving, &fleet, &shutdown, &ended);
        let source = tempfile::tempdir()?;
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        Ok(Self { etcd, fleet, store, hosts, source, data, listen, shutdown, controller, ended })
    }

    /// Ends the controller and starts another on the same store and data.
    pub(crate) async fn restart(mut self) -> anyhow::Result<Self> {
        self.halt().await?;
        self.go_on()?;
        Ok(self)
    }

    /// Ends the controller.
    pub(crate) async fn halt(&mut self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        Ok(tokio::time::timeout(DEADLINE, &mut self.controller).await???)
    }

    /// Starts another one on the same store and data.
    pub(crate) fn go_on(&mut self) -> anyhow::Result<()> {
        self.shutdown = CancellationToken::new();
        let options = ServeOptions {
            store: ConnectOptions::new(self.etcd.endpoints()),
            authors: Authors::default(),
            data_dir: self.data.path().to_owned(),
            audit_retention: RETENTION,
            listen: self.listen,
            identity: "again".to_owned(),
        };
        self.ended = Arc::default();
        self.controller = run(options, &self.fleet, &self.shutdown, &self.ended);
        Ok(())
    }

    /// Asks for something, and waits until the controller has dealt with it.
    pub(crate) async fn ask(&self, path: &str, request: &Request) -> anyhow::Result<()> {
        let target = resource(path);
        let id: RequestId = "1-test".parse()?;
        self.store.request(&target, &id, serde_json::to_vec(request)?).await?;
        let key = Key::Request { target, id };
        self.until("the request to be dealt with", async || matches!(self.store.get(&key).await, Ok(None))).await
    }

    /// Every event's reason and message.
    pub(crate) async fn events(&self) -> anyhow::Result<Vec<(Reason, String)>> {
        let listing = self.store.list(&Scope::sections(&[Section::Events])).await?;
        let event = |entry: &Entry| serde_json::from_slice::<Event>(&entry.value).ok();
        Ok(listing.entries.iter().filter_map(event).map(|event| (event.reason, event.message)).collect())
    }

    /// What is recorded of a Service.
    pub(crate) async fn owned(&self, name: &str) -> anyhow::Result<Owned> {
        let entry = self.store.get(&Key::Owned(Self::key(name))).await?.context("nothing is owned")?;
        Ok(serde_json::from_slice(&entry.value)?)
    }

    /// Asks the controller to look at something now.
    pub(crate) async fn ask_to_look(&self, path: &str) -> anyhow::Result<()> {
        let request = serde_json::to_vec(&Request::Reconcile)?;
        self.store.request(&resource(path), &"look".parse()?, request).await?;
        Ok(())
    }

    /// Sends bytes to the controller's own port, and reads the whole answer.
    pub(crate) async fn exchange(&self, request: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(self.listen).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    /// The status and the body of a GET.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let answer = self.exchange(&format!("GET {path} HTTP/1.1\r\nhost: windlass\r\n\r\n")).await?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an answer has a head")?;
        let status = head.split(' ').nth(1).context("a status")?.parse()?;
        Ok((status, body.to_owned()))
    }

    /// One number of `/metrics`, by the line that it stands in.
    pub(crate) async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let (status, body) = self.get("/metrics").await?;
        ensure!(status == 200, "/metrics answers {status}");
        let line = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.with_context(|| format!("no {name} in {body}"))?.parse()?)
    }

    pub(crate) fn key(name: &str) -> ServiceKey {
        format!("default/{name}").parse().expect("two labels")
    }

    /// Writes a file of the source.
    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.source.path().join(name), text).expect("the source is ours");
    }

    /// Declares a Service on all hosts; `more` is put below `spec`.
    pub(crate) async fn apply(&self, name: &str, more: &str) -> anyhow::Result<()> {
        self.apply_speaking("{port: 8080, transport: http}", name, more).await
    }

    /// The same with another `network`.
    pub(crate) async fn apply_speaking(&self, network: &str, name: &str, more: &str) -> anyhow::Result<()> {
        let text = self.text(network, name, more);
        self.store.declare(&resource(&format!("services/default/{name}")), text.into()).await?;
        Ok(())
    }

    fn text(&self, network: &str, name: &str, more: &str) -> String {
        format!(
            "apiVersion: windlass/v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  placement: {{hosts: [{hosts}]}}\n  source: {{path: {source}, changeDetection: {{interval: 1s}}}}\n  runtime: {{target: python, entryPoint: server.py}}\n  network: {network}\n  health: {{endpoint: /health, interval: 1s, healthyThreshold: 1, unhealthyThreshold: 2, startPeriod: 5s}}\n  rollout: {{minHealthyTime: 0s}}\n{more}",
            hosts = self.hosts.join(", "),
            source = self.source.path().display(),
        )
    }

    /// The same with more below `rollout`, instead of what all have there.
    pub(crate) async fn apply_with_rollout(&self, name: &str, rollout: &str) -> anyhow::Result<()> {
        let text = self.text("{port: 8080, transport: http}", name, "");
        let text = text.replace("rollout: {minHealthyTime: 0s}\n", &format!("rollout:\n{rollout}"));
        self.store.declare(&resource(&format!("services/default/{name}")), text.into()).await?;
        Ok(())
    }

    /// What is declared of a Service.
    pub(crate) async fn declared(&self, name: &str) -> anyhow::Result<String> {
        let key = Key::Declared(resource(&format!("services/default/{name}")));
        let entry = self.store.get(&key).await?.context("nothing is declared")?;
        Ok(String::from_utf8(entry.value)?)
    }

    /// Where the controller keeps what is its own.
    pub(crate) fn data(&self) -> &std::path::Path {
        self.data.path()
    }

    /// Where the source is.
    pub(crate) fn source(&self) -> &std::path::Path {
        self.source.path()
    }

    /// Declares `web` with another `network`, whose certificate is for web.example.com.
    pub(crate) async fn named(&self, network: &str) -> anyhow::Result<()> {
        let text = self.text(network, "web", "").replace("health: {", "health: {tls: {serverName: web.example.com}, ");
        self.store.declare(&resource("services/default/web"), text.into()).await?;
        Ok(())
    }

    /// Takes away the zone in which plaintext is fine: every host is remote then.
    pub(crate) async fn forget_zone(&self) -> anyhow::Result<()> {
        self.store.delete_declaration(&resource("networkzones/test")).await?;
        Ok(())
    }

    pub(crate) async fn delete(&self, name: &str) -> anyhow::Result<()> {
        self.store.delete_declaration(&resource(&format!("services/default/{name}"))).await?;
        Ok(())
    }

    pub(crate) async fn status(&self, name: &str) -> anyhow::Result<Option<ServiceStatus>> {
        let entry = self.store.get(&Key::Status(resource(&format!("services/default/{name}")))).await?;
        Ok(entry.map(|entry| serde_json::from_slice(&entry.value)).transpose()?)
    }

    /// The revision that runs on each host, 0 where none does.
    pub(crate) fn revisions(&self, name: &str) -> Vec<u64> {
        let unit = |host: &String| self.fleet.peek(host, &Self::key(name)).service.unit.revision();
        self.hosts.iter().map(|host| unit(host).map_or(0, |revision| revision.0)).collect()
    }

    pub(crate) async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + DEADLINE;
        while !holds().await {
            if self.controller.is_finished() {
                bail!("the controller ended while waiting for {what}: {:?}", self.ended.get());
            }
            ensure!(Instant::now() < deadline, "waited {DEADLINE:?} for {what}; {:#?}", self.fleet.changes());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Waits until Ready has this reason, and nothing is under way.
    pub(crate) async fn settles(&self, name: &str, reason: Reason) -> anyhow::Result<()> {
        self.settled(name, reason, None).await
    }

    pub(crate) async fn settles_at(&self, name: &str, reason: Reason, revision: u64) -> anyhow::Result<()> {
        self.settled(name, reason, Some(revision)).await
    }

    async fn settled(&self, name: &str, reason: Reason, revision: Option<u64>) -> anyhow::Result<()> {
        let holds = async || {
            let Ok(Some(status)) = self.status(name).await else { return false };
            let ready = condition(&status.conditions, ConditionType::Ready).is_some_and(|ready| ready.reason == reason);
            let busy = condition(&status.conditions, ConditionType::Reconciling)
                .is_some_and(|reconciling| reconciling.status == ConditionStatus::True);
            ready && !busy && revision.is_none_or(|revision| status.target.is_some_and(|target| target.0 == revision))
        };
        let result = self.until(&format!("{name} to be {reason}"), holds).await;
        if result.is_err() {
            let status = self.status(name).await;
            return result.with_context(|| format!("{status:#?}"));
        }
        result
    }

    /// Waits until nothing is said or owned of a Service.
    pub(crate) async fn vanishes(&self, name: &str) -> anyhow::Result<()> {
        let key = Self::key(name);
        let holds = async || {
            let owned = self.store.get(&Key::Owned(key.clone())).await;
            matches!((owned, self.status(name).await), (Ok(None), Ok(None)))
        };
        self.until(&format!("{name} to vanish"), holds).await
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        tokio::time::timeout(DEADLINE, self.controller).await???;
        Ok(())
    }
}

/// Runs a controller, and keeps why it ended.
fn run(
    options: ServeOptions,
    fleet: &MemoryFleet,
    shutdown: &CancellationToken,
    ended: &Arc<OnceLock<String>>,
) -> JoinHandle<Result<(), ServeError>> {
    let serving = serve(options, Arc::new(fleet.clone()), shutdown.clone());
    let ended = Arc::clone(ended);
    tokio::spawn(async move {
        let result = serving.await;
        ended.get_or_init(|| result.as_ref().map_or_else(|error| chain(error), |()| "it was stopped".to_owned()));
        result
    })
}

/// An address of this machine that nobody uses. Other processes have other addresses, so that none takes the port
/// while nobody listens there.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    Ok(TcpListener::bind((Ipv4Addr::new(127, 128 + high % 64, middle, low), 0))?.local_addr()?)
}

pub(crate) fn resource(path: &str) -> ResourceKey {
    ResourceKey::from_path(path).expect(path)
}
