//! The connection to the store: its arguments, which every command takes, and what to type when there is none.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use windlass_crds::id::Namespace;
use windlass_store::embedded;
use windlass_store::{
    ConnectError, ConnectOptions, EndpointError, LeaderRecord, Password, Prefix, Problem, Store, Tls, User,
};

use crate::failure::{UsageError, hinted};
use crate::output::{self, Label};

/// Where the password is looked for first.
const PASSWORD_VARIABLE: &str = "WINDLASS_PASSWORD";

/// Where the store is, and how to reach it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Store")]
pub(crate) struct ConnectionArgs {
    /// The members of an etcd cluster, divided by commas; unless told, the store of the controller on this machine, or
    /// http://127.0.0.1:2379 where there is none
    #[arg(
        long,
        env = "WINDLASS_ENDPOINTS",
        value_name = "URL",
        value_delimiter = ',',
        hide_env_values = true,
        global = true
    )]
    endpoints: Option<Vec<String>>,
    /// The certificates, PEM, one of which must have signed etcd's
    #[arg(long, env = "WINDLASS_CACERT", value_name = "FILE", hide_env_values = true, global = true)]
    cacert: Option<PathBuf>,
    /// Our certificate, PEM, where etcd asks for one
    #[arg(long, env = "WINDLASS_CERT", value_name = "FILE", hide_env_values = true, global = true)]
    cert: Option<PathBuf>,
    /// The key of our certificate, PEM
    #[arg(long, env = "WINDLASS_KEY", value_name = "FILE", hide_env_values = true, global = true)]
    key: Option<PathBuf>,
    /// The user's name in etcd; the password comes from WINDLASS_PASSWORD or --password-file
    #[arg(long, env = "WINDLASS_USER", value_name = "NAME", hide_env_values = true, global = true)]
    user: Option<String>,
    /// A file that holds the password
    #[arg(long, env = "WINDLASS_PASSWORD_FILE", value_name = "FILE", hide_env_values = true, global = true)]
    password_file: Option<PathBuf>,
    /// What every key in the store begins with
    #[arg(
        long,
        env = "WINDLASS_PREFIX",
        value_name = "PATH",
        default_value = "/windlass",
        hide_env_values = true,
        global = true
    )]
    prefix: Prefix,
    /// The controller's own directory; see `windlass serve --help`
    #[arg(long, env = "WINDLASS_DATA_DIR", value_name = "DIR", hide_env_values = true, global = true)]
    data_dir: Option<PathBuf>,
}

/// Where an etcd answers that nobody configured.
const USUAL_ENDPOINT: &str = "http://127.0.0.1:2379";

/// In which namespace names are looked for.
#[derive(Debug, Clone, Args)]
pub(crate) struct NamespaceArgs {
    /// The namespace of Services that are named without one [default: default]
    #[arg(short, long, env = "WINDLASS_NAMESPACE", hide_env_values = true, global = true)]
    pub(crate) namespace: Option<Namespace>,
}

impl NamespaceArgs {
    /// The namespace that was asked for, or the default one.
    pub(crate) fn or_default(&self) -> Namespace {
        self.namespace.clone().unwrap_or_default()
    }
}

impl ConnectionArgs {
    /// What the store's client wants: what was typed, or else the embedded store of the data directory.
    ///
    /// # Errors
    /// When the arguments contradict each other, or a file cannot be read.
    pub(crate) fn options(&self) -> anyhow::Result<ConnectOptions> {
        if !self.names_etcd()
            && let Some(options) = embedded::local(&self.data_dir()?, self.prefix.clone())?
        {
            return Ok(options);
        }
        self.etcd()
    }

    /// What the client of an etcd wants.
    ///
    /// # Errors
    /// When the arguments contradict each other, or the password's file cannot be read.
    pub(crate) fn etcd(&self) -> anyhow::Result<ConnectOptions> {
        let usual = || vec![USUAL_ENDPOINT.to_owned()];
        let endpoints = self.endpoints.as_ref();
        Ok(ConnectOptions {
            endpoints: endpoints.map_or_else(usual, |typed| typed.iter().map(|one| one.trim().to_owned()).collect()),
            tls: self.tls()?,
            user: self.user()?,
            prefix: self.prefix.clone(),
        })
    }

    /// Whether something was typed that only an etcd has.
    pub(crate) fn names_etcd(&self) -> bool {
        let files = [&self.cacert, &self.cert, &self.key, &self.password_file];
        self.endpoints.is_some() || self.user.is_some() || files.iter().any(|file| file.is_some())
    }

    /// Whether what was typed is how the embedded store of the data directory is reached. One that was moved, or that
    /// cannot be looked at, is not what somebody means who names another.
    pub(crate) fn names_own_store(&self) -> bool {
        let own =
            self.data_dir().ok().and_then(|data_dir| embedded::local(&data_dir, self.prefix.clone()).ok().flatten());
        own.is_some_and(|own| self.user.is_none() && self.endpoints.as_ref() == Some(&own.endpoints))
    }

    /// Whether there is an embedded store in the data directory.
    ///
    /// # Errors
    /// When it cannot be told.
    pub(crate) fn finds_embedded(&self) -> anyhow::Result<bool> {
        Ok(embedded::local(&self.data_dir()?, self.prefix.clone())?.is_some())
    }

    /// What every key begins with.
    pub(crate) fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    /// The controller's directory: the one that was asked for, or that of the user who runs this.
    ///
    /// # Errors
    /// When nobody knows where that would be.
    pub(crate) fn data_dir(&self) -> anyhow::Result<PathBuf> {
        if let Some(asked) = &self.data_dir {
            return Ok(asked.clone());
        }
        if rustix::process::geteuid().is_root() {
            return Ok("/var/lib/windlass/controller".into());
        }
        // The XDG Base Directory Specification: a relative value is to be ignored.
        let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|state| state.is_absolute());
        let home = || std::env::home_dir().map(|home| home.join(".local/state"));
        let state = state.or_else(home).context("there is no home directory\nhint: give --data-dir")?;
        Ok(state.join("windlass/controller"))
    }

    /// Whether `--user` was given and nothing that goes with it, as by somebody who means another user.
    pub(crate) fn names_user_without_password(&self) -> bool {
        self.user.is_some() && self.password_file.is_none() && std::env::var_os(PASSWORD_VARIABLE).is_none()
    }

    fn tls(&self) -> Result<Option<Tls>, UsageError> {
        let Some(ca_file) = &self.cacert else {
            return match (&self.cert, &self.key) {
                (None, None) => Ok(None),
                _ => Err(UsageError(
                    "--cert and --key need --cacert: what etcd's own certificate is checked with".into(),
                )),
            };
        };
        if self.cert.is_some() != self.key.is_some() {
            return Err(UsageError("--cert and --key go together".into()));
        }
        Ok(Some(Tls { ca_file: ca_file.clone(), cert_file: self.cert.clone(), key_file: self.key.clone() }))
    }

    fn user(&self) -> anyhow::Result<Option<User>> {
        let Some(name) = &self.user else { return Ok(None) };
        if name.contains(':') {
            // etcdctl takes `name:password` here, for everybody on the machine to read in `ps`.
            let error = UsageError("--user is a name only: everybody on this machine can read the arguments".into());
            return Err(hinted(error, format!("put the password into {PASSWORD_VARIABLE} or --password-file")));
        }
        let password = match (&self.password_file, std::env::var(PASSWORD_VARIABLE)) {
            (Some(file), _) => {
                let text = std::fs::read_to_string(file);
                let text = text.with_context(|| format!("cannot read the password from {}", file.display()))?;
                text.trim_end_matches(['\r', '\n']).to_owned()
            }
            (None, Ok(password)) => password,
            (None, Err(_)) => {
                let error = UsageError(format!("--user {name} needs a password"));
                return Err(hinted(error, format!("put it into {PASSWORD_VARIABLE} or --password-file")));
            }
        };
        Ok(Some(User { name: name.clone(), password: Password::from(password) }))
    }

    /// Connects, and shows that it works.
    ///
    /// # Errors
    /// When there is no connection: with what to type next.
    pub(crate) async fn connect(&self) -> anyhow::Result<Store> {
        Store::connect(&self.options()?).await.map_err(|error| {
            if is_nobody_there(&error) {
                hinted(error, "`windlass serve` runs the controller, and a store with it; where an etcd is the store, --endpoints or WINDLASS_ENDPOINTS say where it is")
            } else {
                error.into()
            }
        })
    }
}

/// Whether nothing answers, which is what somebody sees who has not started anything yet.
fn is_nobody_there(error: &ConnectError) -> bool {
    let unreachable = |error: &EndpointError| match error {
        EndpointError::Call(call) => call.problem == Problem::Unreachable,
        _ => false,
    };
    match error {
        ConnectError::NoneUsable(errors) => errors.iter().all(unreachable),
        _ => false,
    }
}

/// The controller that acts at present; nothing when there is none, or when we may not know.
pub(crate) async fn controller(store: &Store) -> Option<LeaderRecord> {
    store.leader().await.ok().flatten()
}

/// Whether a controller runs on this machine. Two machines may have one name, so its process must be here too.
pub(crate) fn is_here(leader: &LeaderRecord) -> bool {
    let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let process = i32::try_from(leader.pid).ok().and_then(rustix::process::Pid::from_raw);
    let lives = process.is_some_and(|process| {
        // Somebody else's process must not be signalled, and is there all the same.
        !matches!(rustix::process::test_kill_process(process), Err(rustix::io::Errno::SRCH))
    });
    hostname == leader.hostname && lives
}

/// Says so when the controller reaches hosts from another machine, where keys and routes may differ from ours.
pub(crate) async fn tell_where_the_controller_is(store: &Store) {
    if let Some(leader) = controller(store).await.filter(|leader| !is_here(leader)) {
        let hostname = leader.hostname;
        output::note(format_args!(
            "looked from here; the controller runs on {hostname}, with keys and routes of its own"
        ));
    }
}

/// Says so when what was written has nobody to act on it.
pub(crate) async fn warn_without_controller(store: &Store) {
    if let Ok(None) = store.leader().await {
        output::labelled(Label::Warning, "no controller runs on this store, so nothing happens yet");
        output::labelled(Label::Hint, "start one: `windlass serve`");
    }
}
