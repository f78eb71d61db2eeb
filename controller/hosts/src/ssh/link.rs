//! A host as seen from here: its connection, opened when it is needed, and the few shells kept open on it.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore, mpsc};
use windlass_crds::host::{Privilege, Target};
use windlass_crds::step::ContactError;

use super::governor::{self, Governor, Place, Purpose, Turns};
use super::health::Forward;
use super::master::{Master, NotIn, agrees_quickly};
use super::shell::{Answer, Hello, OpenError, Request, Shell, Start, Way};
use super::tally::{Opened, Tally};
use crate::traffic::Login;

/// Shells on one host: an upload, a long step, a health look and one more. sshd allows 10 sessions unless told.
const MOST_SHELLS: usize = 4;

/// How long a login of its own may take until the script answers: as long as a connection and a look at a host that is
/// just starting something.
const LOGIN_DEADLINE: Duration = Duration::from_secs(20);

/// How long a new shell may take: the script travels, and `sudo` may ask a directory server.
const OPEN_DEADLINE: Duration = Duration::from_secs(20);

/// What all hosts share.
pub(crate) struct Shared {
    /// For sockets.
    pub(crate) directory: PathBuf,
    /// How many logins may be under way, and which connections are kept.
    pub(crate) governor: Governor,
    /// Numbers connections.
    pub(crate) connections: AtomicU64,
    /// Whether ssh here takes what makes a login quick by which nothing secret goes, once that was asked.
    pub(crate) agrees_quickly: OnceCell<bool>,
    /// The shell that runs everything on hosts.
    pub(crate) shell: String,
    /// What is open, and what was tried.
    pub(crate) tally: Tally,
}

/// One host.
pub(crate) struct Link {
    target: Target,
    shared: Arc<Shared>,
    state: Arc<tokio::sync::Mutex<State>>,
    /// Its turns to log in.
    turns: Turns,
    /// Services whose last switch here waits for a confirmation by a login of its own.
    armed: Mutex<HashSet<String>>,
}

/// What is known of the way to one host.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) connection: Option<Arc<Connection>>,
    /// The last failure, for those who waited while it happened.
    failed: Option<(Instant, ContactError)>,
}

/// A connection and what is open on it.
pub(crate) struct Connection {
    pub(crate) master: Master,
    _open: Opened,
    /// Whether it is kept while nobody uses it, and when it was used last.
    pub(crate) place: Place,
    hello: OnceCell<Hello>,
    /// Where interpreters are, by name.
    programs: Mutex<HashMap<&'static str, String>>,
    idle: Mutex<Vec<Shell>>,
    places: Arc<Semaphore>,
    /// Places that this host's sshd does not grant.
    refused_places: AtomicUsize,
    broken: AtomicBool,
    /// Sockets that lead to ports of the host.
    pub(crate) forwards: tokio::sync::Mutex<HashMap<NonZeroU16, Forward>>,
}

impl Link {
    pub(crate) fn new(target: Target, shared: Arc<Shared>) -> Self {
        Self { target, shared, state: Arc::default(), turns: Turns::default(), armed: Mutex::default() }
    }

    /// The connection, opened if there is none. Those who come while it is being opened wait for the same one,
    /// and hear of the same failure.
    pub(crate) async fn connection(&self) -> Result<Arc<Connection>, ContactError> {
        let came = Instant::now();
        let mut state = self.state.lock().await;
        if let Some(connection) = &state.connection {
            if !connection.broken.load(Ordering::Relaxed) {
                connection.place.used();
                return Ok(Arc::clone(connection));
            }
            retire(state.connection.take());
        }
        if let Some((when, error)) = &state.failed
            && *when > came
        {
            return Err(error.clone());
        }
        let purpose = if state.failed.is_some() { Purpose::Retrying } else { Purpose::Connecting };
        match self.connect(purpose).await {
            Ok(connection) => {
                state.failed = None;
                state.connection = Some(Arc::clone(&connection));
                governor::end_when_idle(&self.state, &connection);
                Ok(connection)
            }
            Err(error) => {
                state.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    async fn connect(&self, purpose: Purpose) -> Result<Arc<Connection>, ContactError> {
        let master = self.log_in(purpose, |number| self.connect_as(number).boxed()).await?;
        tracing::debug!(host = %self.target.id, "connected");
        Ok(Arc::new(Connection {
            master,
            _open: self.shared.tally.connections.one(),
            place: self.shared.governor.place(),
            hello: OnceCell::new(),
            programs: Mutex::default(),
            idle: Mutex::default(),
            places: Arc::new(Semaphore::new(MOST_SHELLS)),
            refused_places: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
            forwards: tokio::sync::Mutex::default(),
        }))
    }

    async fn connect_as(&self, number: u64) -> Result<Master, NotIn> {
        Master::connect(&self.target, self.shared.directory.join(number.to_string())).await
    }

    /// Logs in when that may be done, and again where sshd turned that away.
    async fn log_in<'a, T>(
        &'a self,
        purpose: Purpose,
        login: impl Fn(u64) -> BoxFuture<'a, Result<T, NotIn>>,
    ) -> Result<T, ContactError> {
        let mut tries = 0;
        loop {
            let turn = self.turns.take(&self.shared.governor, purpose, tries).await?;
            let result = login(self.shared.connections.fetch_add(1, Ordering::Relaxed)).await;
            drop(turn);
            match result {
                Err(NotIn::TurnedAway(error)) if tries < governor::MORE_TRIES => {
                    tracing::debug!(host = %self.target.id, %error, tries, "turned away");
                    tries += 1;
                }
                other => {
                    let other = other.map_err(NotIn::error);
                    self.shared.tally.login(other.as_ref().err().map_or(Login::Ok, Login::failed));
                    return other;
                }
            }
        }
    }

    /// What the host says of itself.
    pub(crate) async fn hello(&self) -> Result<Hello, ContactError> {
        let connection = self.connection().await?;
        self.hello_on(&connection).await.cloned()
    }

    /// Where an interpreter was found on this connection.
    pub(crate) async fn program(&self, name: &str) -> Result<Option<String>, ContactError> {
        let connection = self.connection().await?;
        Ok(connection.programs.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned())
    }

    /// Keeps in mind where an interpreter is.
    pub(crate) async fn learn_program(&self, name: &'static str, path: &str) -> Result<(), ContactError> {
        let connection = self.connection().await?;
        connection.programs.lock().unwrap_or_else(PoisonError::into_inner).insert(name, path.to_owned());
        Ok(())
    }

    async fn hello_on<'a>(&self, connection: &'a Connection) -> Result<&'a Hello, ContactError> {
        let first = async {
            let (shell, hello) = self.open_alone(connection).await.map_err(|error| match error {
                OpenError::Refused(detail) => ContactError::Refused {
                    detail: format!("no session; see MaxSessions in its sshd_config: {detail}"),
                },
                OpenError::Contact(error) => error,
            })?;
            connection.put_back(shell);
            Ok(hello)
        };
        connection.hello.get_or_try_init(|| first).await
    }

    /// Asks one of the host's shells. A lost connection is never taken for an answer.
    ///
    /// After [`ContactError::Timeout`] and [`ContactError::Lost`] the verb may have run.
    pub(crate) async fn call(
        &self,
        request: &Request,
        payload: Option<mpsc::Receiver<Bytes>>,
        deadline: Duration,
    ) -> Result<Answer, ContactError> {
        let started = Instant::now();
        let connection = self.connection().await?;
        let call = async {
            self.hello_on(&connection).await?;
            let (mut shell, permit) = self.lease(&connection).await?;
            let answer = shell.call(request, payload).await;
            match &answer {
                // After a stage that failed, nobody knows what is still on the line: the host ends that shell too.
                Ok(answer) if request.verb != "stage" || answer.code == 0 => connection.put_back(shell),
                _ => drop(shell),
            }
            drop(permit);
            answer
        };
        let result = match tokio::time::timeout(deadline, call).await {
            Ok(result) => result,
            Err(_) => Err(ContactError::Timeout { seconds: deadline.as_secs() }),
        };
        tracing::trace!(host = %self.target.id, verb = request.verb, took = ?started.elapsed(), ok = result.is_ok());
        match result {
            Err(ContactError::Lost { detail }) => Err(self.judge(&connection, detail).await),
            Err(error @ ContactError::Timeout { .. }) => {
                self.judge(&connection, String::new()).await;
                Err(error)
            }
            other => other,
        }
    }

    /// Asks over a login that is made for that, and ended then.
    ///
    /// # Errors
    /// As for [`Link::call`].
    pub(crate) async fn call_by_login(&self, request: &Request, deadline: Duration) -> Result<Answer, ContactError> {
        let connection = self.connection().await?;
        let hello = self.hello_on(&connection).await?;
        let ask = async {
            let open = |number| self.open_by_login(&connection, hello, number).boxed();
            self.log_in(Purpose::Confirming, open).await?.call(request, None).await
        };
        match tokio::time::timeout(deadline, ask).await {
            Ok(answer) => answer,
            Err(_) => Err(ContactError::Timeout { seconds: deadline.as_secs() }),
        }
    }

    async fn open_by_login(&self, connection: &Connection, hello: &Hello, number: u64) -> Result<Shell, NotIn> {
        let log = connection.master.directory().join(format!("login{number}"));
        let start = self.start();
        let quickly = self.shared.agrees_quickly.get_or_try_init(agrees_quickly).await.is_ok_and(|quickly| *quickly);
        let ssh = connection.master.login(&log, quickly);
        let login = Shell::log_in(ssh, Way::Once(&start, hello), &self.shared.tally.sessions);
        let opened = match tokio::time::timeout(LOGIN_DEADLINE, login).await {
            Ok(Ok((shell, _))) => Ok(shell),
            Ok(Err(ContactError::Lost { .. })) => Err(NotIn::by(&std::fs::read_to_string(&log).unwrap_or_default())),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(ContactError::Timeout { seconds: LOGIN_DEADLINE.as_secs() }.into()),
        };
        let _ = std::fs::remove_file(&log);
        opened
    }

    /// Whether a switch of a service has armed the host's dead man's switch, as far as this side knows.
    pub(crate) fn is_armed(&self, folder: &str) -> bool {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner).contains(folder)
    }

    /// Keeps in mind whether it has.
    pub(crate) fn note_armed(&self, folder: &str, armed: bool) {
        let mut known = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        if armed {
            known.insert(folder.to_owned());
        } else {
            known.remove(folder);
        }
    }

    /// Whether a broken shell means a broken connection; what the master says of it is the better reason.
    async fn judge(&self, connection: &Connection, detail: String) -> ContactError {
        if connection.master.lives().await {
            return ContactError::Lost { detail };
        }
        connection.broken.store(true, Ordering::Relaxed);
        ContactError::Lost { detail: connection.master.last_words() }
    }

    /// A shell that nobody uses, or a new one. Where sshd allows no more sessions, one that is in use is waited for.
    async fn lease(&self, connection: &Connection) -> Result<(Shell, OwnedSemaphorePermit), ContactError> {
        loop {
            let places = Arc::clone(&connection.places);
            let permit =
                places.acquire_owned().await.map_err(|_| ContactError::Lost { detail: "closed".to_owned() })?;
            if let Some(shell) = connection.take_idle() {
                return Ok((shell, permit));
            }
            match self.open(connection).await {
                Ok((shell, _)) => return Ok((shell, permit)),
                Err(OpenError::Contact(error)) => return Err(error),
                // This place is one too many for this host; while others are in use, wait for them.
                Err(OpenError::Refused(_)) if connection.in_use() > 1 && connection.master.lives().await => {
                    permit.forget();
                    connection.refused_places.fetch_add(1, Ordering::Relaxed);
                }
                Err(OpenError::Refused(_)) => match self.open_alone(connection).await {
                    Ok((shell, _)) => return Ok((shell, permit)),
                    Err(OpenError::Contact(error)) => return Err(error),
                    Err(OpenError::Refused(detail)) => return Err(ContactError::Lost { detail }),
                },
            }
        }
    }

    /// Opens a shell where none of ours is in use: a refusal then is about one that sshd has not cleared away yet.
    async fn open_alone(&self, connection: &Connection) -> Result<(Shell, Hello), OpenError> {
        let mut tries = 0;
        loop {
            match self.open(connection).await {
                Err(OpenError::Refused(_)) if tries < REFUSALS && connection.master.lives().await => tries += 1,
                opened => return opened,
            }
            tokio::time::sleep(REFUSAL_PAUSE).await;
        }
    }

    /// How to become the script there.
    fn start(&self) -> Start {
        Start {
            privilege: match self.target.privilege {
                None => "auto",
                Some(Privilege::Root) => "root",
                Some(Privilege::Sudo) => "sudo",
                Some(Privilege::User) => "user",
            },
            remote_dir: self.target.remote_dir.clone().unwrap_or_else(|| "-".to_owned()),
            shell: self.shared.shell.clone(),
        }
    }

    async fn open(&self, connection: &Connection) -> Result<(Shell, Hello), OpenError> {
        let start = self.start();
        let (session, sessions) = (connection.master.session(), &self.shared.tally.sessions);
        let open = async {
            // The first one has brought the script there.
            if let Some(hello) = connection.hello.get() {
                match Shell::open(Arc::clone(session), Way::Again(&start, hello), sessions).await {
                    Err(OpenError::Contact(error)) => tracing::debug!(%error, "the script is gone"),
                    opened => return opened,
                }
            }
            Shell::open(Arc::clone(session), Way::First(&start), sessions).await
        };
        match tokio::time::timeout(OPEN_DEADLINE, open).await {
            Ok(opened) => opened,
            Err(_) => Err(ContactError::Timeout { seconds: OPEN_DEADLINE.as_secs() }.into()),
        }
    }

    /// Ends the connection, if there is one.
    pub(crate) async fn close(&self) {
        let connection = self.state.lock().await.connection.take();
        if let Some(connection) = connection {
            connection.master.close().await;
        }
    }
}

/// So often a session is asked for again that sshd refuses while none of ours is open: a second in all, which is long
/// for a busy sshd to reap a shell that ended.
const REFUSALS: u32 = 10;

/// Between two of them.
const REFUSAL_PAUSE: Duration = Duration::from_millis(100);

impl Connection {
    fn take_idle(&self) -> Option<Shell> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn put_back(&self, shell: Shell) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(shell);
    }

    /// How many places are taken, the caller's own among them.
    pub(crate) fn in_use(&self) -> usize {
        let refused = self.refused_places.load(Ordering::Relaxed);
        MOST_SHELLS.saturating_sub(refused).saturating_sub(self.places.available_permits())
    }
}

/// Ends a broken connection's master in the background.
pub(crate) fn retire(connection: Option<Arc<Connection>>) {
    if let Some(connection) = connection {
        tokio::spawn(async move { connection.master.close().await });
    }
}
