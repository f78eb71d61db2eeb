//! Leadership: a key under a lease, kept alive while it can be, known to be lost as soon as it may be.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use etcd_client::{Compare, CompareOp, KeyValue, LeaseKeepAliveStream, LeaseKeeper};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::call::{CallError, Problem};
use crate::connect::Store;
use crate::entry::{Entry, LeaseId, StoreRevision};
use crate::follow::{Change, Update};
use crate::key::{Control, Key};
use crate::machine::Machine;
use crate::pool::Endpoint;
use crate::read::ReadError;
use crate::report::{Call, CallReport};
use crate::scope::Scope;
use crate::sequence::Counter;
use crate::write::WriteError;

/// The part of the TTL that we do not use at its end: for a request on its way when the lease ends, and for clocks
/// that do not run at the same speed. A fifth of 15 s is 3 s.
const MARGIN: u32 = 5;

/// Keep-alives in one TTL, so that two in a row may be lost.
const KEEP_ALIVES: u32 = 3;

/// The part of the TTL that an answer to a keep-alive may take: so short that another endpoint can be asked, twice,
/// before it is too late.
const ANSWER: u32 = 5;

/// The pause after a keep-alive that failed. Short beside the TTL, since it is now that it counts.
const RETRY: Duration = Duration::from_millis(500);

/// How often somebody who waits for the loss looks at the clock that runs while the machine sleeps.
const GLANCE: Duration = Duration::from_secs(1);

/// What the leader's key says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaderRecord {
    /// What the controller calls itself; another one for each start.
    pub identity: String,
    /// The machine that it runs on.
    pub hostname: String,
    /// Its process there.
    pub pid: u32,
    /// When it began to lead, RFC 3339.
    pub since: String,
}

/// Why a leadership has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// No keep-alive came through in time; another may lead by now.
    #[error("the lease was not kept alive in time")]
    Expired,
    /// etcd no longer knows the lease.
    #[error("the store has ended the lease")]
    Revoked,
    /// The leader's key was deleted, or is another's.
    #[error("the leader's key is gone or another's")]
    Replaced,
    /// We gave it up.
    #[error("resigned")]
    Resigned,
}

/// Being the one controller that acts, from [`Store::campaign`] until it is lost or resigned.
///
/// Dropped without resigning, it is no longer kept alive, and another leads after the TTL.
#[derive(Debug)]
pub struct Leadership {
    state: Arc<State>,
    store: Store,
    keeper: JoinHandle<()>,
    counter: Mutex<Option<Counter>>,
}

/// What the task that keeps it alive and those who ask share.
#[derive(Debug)]
struct State {
    lease: LeaseId,
    /// Of the leader's key: unique in the life of a store.
    created: StoreRevision,
    /// As etcd granted it, which may be longer than asked.
    ttl: Duration,
    /// Until when it is valid, in milliseconds since boot.
    until: AtomicU64,
    lost: watch::Sender<Option<Loss>>,
    /// Whose clock that is.
    machine: Machine,
}

impl State {
    fn usable(ttl: Duration) -> Duration {
        ttl - ttl / MARGIN
    }

    fn is_valid(&self) -> bool {
        self.lost.borrow().is_none() && self.remaining() > Duration::ZERO
    }

    fn remaining(&self) -> Duration {
        Duration::from_millis(self.until.load(Ordering::Acquire)).saturating_sub(self.machine.since_boot())
    }

    /// A keep-alive that was sent at `sent` (since boot) was answered. Once expired it stays so, for somebody may
    /// have been told.
    fn extend(&self, sent: Duration) -> Result<(), Loss> {
        if !self.is_valid() {
            return Err(Loss::Expired);
        }
        self.until.store(deadline(sent, self.ttl), Ordering::Release);
        Ok(())
    }

    fn lose(&self, loss: Loss) {
        self.lost.send_if_modified(|lost| {
            let first = lost.is_none();
            lost.get_or_insert(loss);
            first
        });
    }

    fn is_ours(&self, created: StoreRevision, lease: Option<LeaseId>) -> bool {
        created == self.created && lease == Some(self.lease)
    }
}

fn deadline(sent: Duration, ttl: Duration) -> u64 {
    u64::try_from((sent + State::usable(ttl)).as_millis()).unwrap_or(u64::MAX)
}

impl Leadership {
    /// `granted` is when the request for the lease was sent, since boot.
    pub(crate) fn begin(
        store: &Store,
        lease: LeaseId,
        created: StoreRevision,
        ttl: Duration,
        granted: Duration,
    ) -> Self {
        let state = Arc::new(State {
            lease,
            created,
            ttl,
            until: AtomicU64::new(deadline(granted, ttl)),
            lost: watch::Sender::new(None),
            machine: store.machine().clone(),
        });
        let keeper = tokio::spawn(keep(store.clone(), state.clone()));
        Self { state, store: store.clone(), keeper, counter: Mutex::new(None) }
    }

    /// Whether we surely lead: false once the TTL, less a fifth, has passed since the last answered keep-alive was
    /// sent, on a clock that runs while the machine sleeps. Asks nobody and costs nothing.
    pub fn is_valid(&self) -> bool {
        self.state.is_valid()
    }

    /// The id of this term: the revision at which it began. No two terms have the same.
    pub fn term(&self) -> StoreRevision {
        self.state.created
    }

    /// Waits until it is lost, and tells why. A deleted key is noticed at once, an expiry within a second of
    /// [`Leadership::is_valid`] saying so, also after the machine has slept.
    pub async fn lost(&self) -> Loss {
        let mut lost = self.state.lost.subscribe();
        loop {
            if let Some(loss) = *lost.borrow_and_update() {
                return loss;
            }
            let remaining = self.state.remaining();
            if remaining.is_zero() {
                self.state.lose(Loss::Expired);
                continue;
            }
            // The sender is ours, so it lives; a timeout is only a glance at the clock.
            let _ = tokio::time::timeout(remaining.min(GLANCE), lost.changed()).await;
        }
    }

    /// Gives it up, so that another may lead at once. From here on it is not valid, whether or not the store could
    /// be told; if it could not, the lease ends by itself.
    ///
    /// # Errors
    /// When the store does not answer within about 5 s, or refuses.
    pub async fn resign(&self) -> Result<(), WriteError> {
        self.keeper.abort();
        self.state.lose(Loss::Resigned);
        self.store.revoke_lease(self.state.lease).await
    }

    /// The comparisons that hold only while we lead.
    pub(crate) fn guards(&self, leader: &[u8]) -> Vec<Compare> {
        vec![
            Compare::create_revision(leader, CompareOp::Equal, self.state.created.as_etcd()),
            Compare::lease(leader, CompareOp::Equal, self.state.lease.0),
        ]
    }

    /// Whether the leader's key, as it was read, is ours.
    pub(crate) fn holds(&self, pair: Option<&KeyValue>) -> bool {
        pair.is_some_and(|pair| {
            self.state.is_ours(StoreRevision::from_etcd(pair.create_revision()), Some(LeaseId(pair.lease())))
        })
    }

    pub(crate) fn lose(&self, loss: Loss) {
        self.state.lose(loss);
    }

    /// The sequence counter as we left it, locked, since two who draw would only hinder each other.
    pub(crate) async fn counter(&self) -> MutexGuard<'_, Option<Counter>> {
        self.counter.lock().await
    }
}

impl Drop for Leadership {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Store {
    /// Who leads, or nobody; also nothing when the key holds what no controller wrote. One round trip.
    ///
    /// # Errors
    /// When the store does not answer within about 5 s, or refuses.
    pub async fn leader(&self) -> Result<Option<LeaderRecord>, ReadError> {
        let entry = self.get(&Key::Control(Control::Leader)).await?;
        Ok(entry.and_then(|entry| serde_json::from_slice(&entry.value).ok()))
    }
}

/// Keeps a leadership until it is lost.
async fn keep(store: Store, state: Arc<State>) {
    let loss = tokio::select! {
        loss = renew_until_lost(&store, &state) => loss,
        loss = watch_until_lost(&store, &state) => loss,
    };
    tracing::warn!(%loss, "leadership lost");
    state.lose(loss);
}

/// Sends keep-alives until one comes too late or the lease is gone.
async fn renew_until_lost(store: &Store, state: &State) -> Loss {
    let every = state.ttl / KEEP_ALIVES;
    let mut line: Option<Line> = None;
    let mut next = Instant::now() + every;
    loop {
        tokio::time::sleep_until(next).await;
        let begun = Instant::now();
        let sent = state.machine.since_boot();
        let endpoint = line.as_ref().map_or_else(|| store.pool().current(), |line| line.endpoint.clone());
        let renewing = renew(&endpoint, state.lease, &mut line);
        let outcome = match tokio::time::timeout(state.ttl / ANSWER, renewing).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Renewal::Silent),
        };
        let problem = match &outcome {
            Ok(()) => None,
            Err(Renewal::Gone) => Some(Problem::LeaseGone),
            Err(Renewal::Silent) => Some(Problem::Deadline),
            Err(Renewal::Failed(error)) => Some(error.problem),
        };
        store.report(&CallReport { call: Call::LeaseKeepAlive, took: begun.elapsed(), problem });
        match outcome.map(|()| state.extend(sent)) {
            Ok(Ok(())) => next = begun + every,
            Ok(Err(loss)) => return loss,
            Err(Renewal::Gone) => return Loss::Revoked,
            Err(failure) if state.is_valid() => {
                tracing::debug!(?failure, "the lease was not kept alive, trying again");
                line = None;
                store.pool().leave(&endpoint);
                next = Instant::now() + RETRY;
            }
            Err(_) => return Loss::Expired,
        }
    }
}

/// The stream that keep-alives go through, and where it leads.
struct Line {
    endpoint: Arc<Endpoint>,
    keeper: LeaseKeeper,
    answers: LeaseKeepAliveStream,
}

/// Why a keep-alive was not answered well.
#[derive(Debug)]
enum Renewal {
    Gone,
    Silent,
    Failed(CallError),
}

/// Sends one keep-alive and waits for its answer, through the open line or a new one to `endpoint`.
async fn renew(endpoint: &Arc<Endpoint>, lease: LeaseId, line: &mut Option<Line>) -> Result<(), Renewal> {
    let failed = |error: etcd_client::Error| match error {
        // The only such error of etcd-client's that is not about the connection: a TTL of 0.
        etcd_client::Error::LeaseKeepAliveError(text) if text.contains("not found") => Renewal::Gone,
        error => Renewal::Failed(CallError::new(endpoint.url(), &error)),
    };
    let Some(open) = line else {
        let mut client = endpoint.client().await.map_err(failed)?;
        // Opening it sends the first keep-alive and waits for its answer.
        let (keeper, answers) = client.lease_keep_alive(lease.0).await.map_err(failed)?;
        *line = Some(Line { endpoint: endpoint.clone(), keeper, answers });
        return Ok(());
    };
    open.keeper.keep_alive().await.map_err(failed)?;
    match open.answers.message().await.map_err(failed)? {
        Some(answer) if answer.ttl() > 0 => Ok(()),
        Some(_) => Err(Renewal::Gone),
        None => Err(Renewal::Silent),
    }
}

/// Follows the leader's key until it is not ours. Interruptions do not matter: the lease decides then.
async fn watch_until_lost(store: &Store, state: &State) -> Loss {
    let ours = |entry: &Entry| state.is_ours(entry.create_revision, entry.lease);
    let mut follower = store.follow(Scope::key(&Key::Control(Control::Leader)));
    loop {
        let held = match follower.next().await {
            Update::Snapshot { entries, .. } => entries.first().is_some_and(ours),
            Update::Changes { changes, .. } => changes.iter().all(|change| match change {
                Change::Put(entry) => ours(entry),
                Change::Deleted { .. } => false,
            }),
            Update::Progress { .. } | Update::Interrupted { .. } => true,
        };
        if !held {
            return Loss::Replaced;
        }
    }
}
