//! Connecting: options, the probe that shows whether a store answers, and what to say when it does not.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::Client;
use futures::StreamExt;
use futures::stream::FuturesUnordered;

use crate::authors::Authors;
use crate::call::{CallError, DEADLINE, Problem};
use crate::entry::StoreRevision;
use crate::identity::{IdentityError, check_layout};
use crate::key::{Control, Key, Prefix};
use crate::machine::Machine;
use crate::pool::{Endpoint, Pool};
use crate::report::CallListener;
use crate::serve::PeerName;
pub use crate::tls::Tls;

/// How often the connection is probed while a call or a watch is open. etcd closes connections that ping more
/// often than every 5 s.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(5);

/// How long an answer to that probe may take: a frozen server is noticed within 7 s.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a TCP connection may take, so that an address that swallows packets leaves time for the next endpoint.
const TCP_TIMEOUT: Duration = Duration::from_secs(3);

/// The oldest etcd whose leases, watches and comparisons have been tried.
const OLDEST_ETCD: (u32, u32) = (3, 4);

/// A password; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl From<String> for Password {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Password(…)")
    }
}

/// Who we are to etcd, where it has authentication enabled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// The password.
    pub password: Password,
}

/// Where the store is, and how to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectOptions {
    /// The members of one cluster: `https://host:2379`, `http://…`, or `host:2379`, which is https when there is a
    /// [`Tls`] and http when there is none.
    pub endpoints: Vec<String>,
    /// For endpoints that speak TLS.
    pub tls: Option<Tls>,
    /// For clusters with authentication enabled.
    pub user: Option<User>,
    /// What all keys begin with.
    pub prefix: Prefix,
}

impl ConnectOptions {
    /// Plain endpoints, no user, and the default prefix.
    pub fn new<Endpoint: Into<String>>(endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        let endpoints = endpoints.into_iter().map(Into::into).collect();
        Self { endpoints, tls: None, user: None, prefix: Prefix::default() }
    }
}

/// Why one endpoint cannot be used. What the layers below said is in the text, so that the hint comes last.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// It did not answer, or refused us.
    #[error("{0}: {cause}{hint}", cause = .0.cause, hint = hint(.0))]
    Call(CallError),
    /// It is an etcd that nobody has tried.
    #[error("{endpoint} runs etcd {version}, and {}.{} is the oldest that works", OLDEST_ETCD.0, OLDEST_ETCD.1)]
    TooOld {
        /// Which one.
        endpoint: String,
        /// What it says.
        version: String,
    },
    /// What lies there was written by a later Windlass.
    #[error("the store at {endpoint} is of a later Windlass: {error}")]
    Layout {
        /// Which one.
        endpoint: String,
        /// What it says.
        error: IdentityError,
    },
}

/// What a person may do about it.
fn hint(error: &CallError) -> &'static str {
    let cause = error.cause.to_string();
    let says = |text: &str| cause.contains(text);
    let encrypted = error.endpoint.starts_with("https:");
    match error.problem {
        Problem::Unreachable if says("refused") => {
            "\nhint: nothing listens there; does the store run, and is this its port?"
        }
        Problem::Unreachable if says("dns") || says("lookup") => "\nhint: the name does not resolve",
        Problem::Unreachable if encrypted && (says("handshake") || says("reset")) => SPEAKS_PLAIN,
        Problem::TlsMismatch if says("alert") => {
            "\nhint: it must offer TLS 1.2 or later, with AES-256-GCM or ChaCha20-Poly1305"
        }
        Problem::TlsMismatch => SPEAKS_PLAIN,
        Problem::UntrustedCertificate => {
            "\nhint: --cacert must hold the authority that signed it, and the endpoint must be a name or address in it"
        }
        Problem::CertificateRequired => {
            "\nhint: give one with --cert and --key, signed by an authority that etcd trusts"
        }
        // The alert that says so is often overtaken by the end of the connection.
        Problem::Lost if encrypted => "\nhint: if etcd wants a client certificate, give one with --cert and --key",
        Problem::Lost => "\nhint: if it speaks TLS, the endpoint begins with https://",
        Problem::Deadline => "\nhint: is a firewall in between, or the server frozen?",
        Problem::NoLeader => "\nhint: most members of the cluster must run and reach each other",
        Problem::Unauthenticated if says("not enabled") => {
            "\nhint: authentication is not enabled there; leave out --user"
        }
        Problem::Unauthenticated if says("empty") => {
            "\nhint: authentication is enabled there; give --user and the password"
        }
        Problem::Unauthenticated => "\nhint: check the user's name and password",
        Problem::NoSpace => "\nhint: compact and defragment etcd, then disarm its alarm",
        _ => "",
    }
}

const SPEAKS_PLAIN: &str = "\nhint: does it speak plain http? then the endpoint begins with http://";

/// Why there is no connection to the store.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No endpoint at all.
    #[error("no endpoint was given")]
    NoEndpoint,
    /// Not a URL of etcd.
    #[error("{endpoint:?} is no endpoint: {why}")]
    BadEndpoint {
        /// As it was given.
        endpoint: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file of the [`Tls`] is of no use.
    #[error("TLS to the store is not possible")]
    TlsFiles(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No endpoint can be used, each for a reason of its own.
    #[error("no connection to the store{}", each(.0))]
    NoneUsable(Vec<EndpointError>),
}

fn each(errors: &[EndpointError]) -> String {
    match errors {
        [only] => format!(": {only}"),
        all => all.iter().map(|error| format!("\n- {error}")).collect(),
    }
}

/// A connection to an etcd cluster, and a prefix in it. Clones share the connection.
#[derive(Clone)]
pub struct Store {
    pool: Arc<Pool>,
    prefix: Prefix,
    pub(crate) listener: Option<CallListener>,
    machine: Machine,
    authors: Authors,
}

impl fmt::Debug for Store {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls: Vec<_> = self.pool.all().iter().map(|endpoint| endpoint.url()).collect();
        out.debug_struct("Store").field("endpoints", &urls).field("prefix", &self.prefix).finish()
    }
}

impl Store {
    /// Connects, and shows that it works: authenticates, asks for the version, and reads a key through the quorum.
    /// All endpoints are asked at once and the first good answer wins; takes 5 s at most, a few milliseconds if all
    /// is well.
    ///
    /// # Errors
    /// When no endpoint can be used, or what lies there was written by a later Windlass.
    pub async fn connect(options: &ConnectOptions) -> Result<Self, ConnectError> {
        let store = Self::open(options).await?;
        store.probe_all().await?;
        Ok(store)
    }

    /// As [`Store::connect`], without a look at what is there.
    pub(crate) async fn open(options: &ConnectOptions) -> Result<Self, ConnectError> {
        crate::tls::restrict_ciphers();
        if options.endpoints.is_empty() {
            return Err(ConnectError::NoEndpoint);
        }
        let urls = options
            .endpoints
            .iter()
            .map(|endpoint| normalize(endpoint, options.tls.is_some()))
            .collect::<Result<Vec<_>, _>>()?;
        let pool = Pool::new(urls, &client_options(options).await?);
        let (prefix, machine) = (options.prefix.clone(), Machine::default());
        Ok(Self { pool: Arc::new(pool), prefix, listener: None, machine, authors: Authors::default() })
    }

    pub(crate) fn with_listener(self, listener: CallListener) -> Self {
        Self { listener: Some(listener), ..self }
    }

    /// The same store, of which is known who wrote what.
    pub fn knowing(self, authors: Authors) -> Self {
        Self { authors, ..self }
    }

    /// Whose certificate stood behind the change of a key at a revision, where anybody knows.
    pub fn author(&self, key: &Key, at: StoreRevision) -> Option<PeerName> {
        self.authors.author(&self.prefix, key, at)
    }

    /// What all keys begin with.
    pub fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    /// A store that is reached by one client, on another machine than this.
    pub(crate) fn within(client: Client, prefix: Prefix, machine: Machine) -> Self {
        Self { pool: Arc::new(Pool::of(client)), prefix, listener: None, machine, authors: Authors::default() }
    }

    /// The machine that this runs on.
    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The bytes of a key in etcd.
    pub(crate) fn path(&self, key: &Key) -> Vec<u8> {
        key.path(&self.prefix)
    }

    async fn probe_all(&self) -> Result<(), ConnectError> {
        let mut probes: FuturesUnordered<_> = self
            .pool
            .all()
            .iter()
            .map(|endpoint| async move { (endpoint, self.probe_in_time(endpoint).await) })
            .collect();
        let mut failures = Vec::new();
        while let Some((endpoint, outcome)) = probes.next().await {
            match outcome {
                Ok(()) => {
                    self.pool.prefer(endpoint);
                    return Ok(());
                }
                Err(error) => failures.push(error),
            }
        }
        Err(ConnectError::NoneUsable(failures))
    }

    async fn probe_in_time(&self, endpoint: &Endpoint) -> Result<(), EndpointError> {
        match tokio::time::timeout(DEADLINE, self.probe(endpoint)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(EndpointError::Call(CallError::deadline(endpoint.url(), DEADLINE))),
        }
    }

    async fn probe(&self, endpoint: &Endpoint) -> Result<(), EndpointError> {
        let url = endpoint.url();
        let failed = |error: etcd_client::Error| CallError::new(url, &error);
        let mut client = endpoint.client().await.map_err(failed).map_err(EndpointError::Call)?;
        let status = client.status().await.map_err(failed).map_err(EndpointError::Call)?;
        if !is_recent(status.version()) {
            return Err(EndpointError::TooOld { endpoint: url.to_owned(), version: status.version().to_owned() });
        }
        let layout = self.path(&Key::Control(Control::LayoutVersion));
        match client.get(layout, None).await.map_err(failed) {
            Ok(answer) => check_layout(answer.kvs().first().map(etcd_client::KeyValue::value))
                .map_err(|error| EndpointError::Layout { endpoint: url.to_owned(), error }),
            // Users may be kept to declarations and requests; who they are has been established all the same.
            Err(error) if error.problem == Problem::Denied => Ok(()),
            Err(error) => Err(EndpointError::Call(error)),
        }
    }
}

/// The URL of an endpoint, with its scheme.
fn normalize(endpoint: &str, tls: bool) -> Result<String, ConnectError> {
    let bad = |why| ConnectError::BadEndpoint { endpoint: endpoint.to_owned(), why };
    let (scheme, address) = match endpoint.split_once("://") {
        Some((scheme, address)) => (scheme, address),
        None => (if tls { "https" } else { "http" }, endpoint),
    };
    let address = address.trim_end_matches('/');
    match scheme {
        "https" if !tls => return Err(bad("https needs the authority that signed its certificate (--cacert)")),
        "http" if tls => return Err(bad("it is plain http, and files for TLS were given")),
        "http" | "https" => {}
        _ => return Err(bad("it begins with neither http:// nor https://")),
    }
    let url = format!("{scheme}://{address}");
    let uri: tonic::codegen::http::Uri = url.parse().map_err(|_| bad("it is no URL"))?;
    if uri.host().is_none_or(str::is_empty) || uri.path() != "/" || uri.query().is_some() {
        return Err(bad("it is not <scheme>://<host>:<port>"));
    }
    Ok(if uri.port().is_some() { url } else { format!("{url}:2379") })
}

async fn client_options(options: &ConnectOptions) -> Result<etcd_client::ConnectOptions, ConnectError> {
    let mut client = etcd_client::ConnectOptions::new()
        .with_keep_alive(KEEP_ALIVE_EVERY, KEEP_ALIVE_TIMEOUT)
        // etcd counts pings without a stream as an attack and closes the connection.
        .with_keep_alive_while_idle(false)
        .with_connect_timeout(TCP_TIMEOUT)
        // A member that lost its cluster must say so instead of letting a watch wait for ever.
        .with_require_leader(true)
        .with_auto_token_refresh(true);
    if let Some(User { name, password: Password(password) }) = &options.user {
        client = client.with_user(name, password);
    }
    if let Some(tls) = &options.tls {
        let tls = tls.load().await.map_err(|error| ConnectError::TlsFiles(Box::new(error)))?;
        client = client.with_tls(tls);
    }
    Ok(client)
}

fn is_recent(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor) >= OLDEST_ETCD,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_printed() {
        let user = User { name: "ops".into(), password: Password::from("hunter2".to_owned()) };
        let options = ConnectOptions { endpoints: vec![], tls: None, user: Some(user), prefix: Prefix::default() };
        assert!(!format!("{options:?}").contains("hunter2"));
    }

    #[test]
    fn endpoints_are_normalized() {
        for (endpoint, tls, url) in [
            ("localhost:2379", false, Some("http://localhost:2379")),
            ("localhost", false, Some("http://localhost:2379")),
            ("localhost:2379", true, Some("https://localhost:2379")),
            ("https://[::1]:2379/", true, Some("https://[::1]:2379")),
            ("http://10.0.0.1:1", false, Some("http://10.0.0.1:1")),
            ("https://a:2379", false, None),
            ("http://a:2379", true, None),
            ("unix:///run/etcd", false, None),
            ("http://", false, None),
            ("http://a/b", false, None),
            ("", false, None),
        ] {
            assert_eq!(normalize(endpoint, tls).ok().as_deref(), url, "{endpoint:?}");
        }
    }

    #[test]
    fn old_versions_are_refused() {
        for (version, good) in [("3.4.23", true), ("3.5.1", true), ("4.0.0", true), ("3.3.25", false), ("x", false)] {
            assert_eq!(is_recent(version), good, "{version}");
        }
    }
}
