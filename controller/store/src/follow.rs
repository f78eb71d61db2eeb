//! Following: list, then watch, for as long as somebody listens, whatever becomes of etcd meanwhile.
//!
//! etcd's watches neither resume nor notice silence, and etcd-client adds nothing to that, so it is done here.
//!
//! One watch spans the scope and what is outside is dropped on this side, although a scope may be several ranges:
//! watches of one stream catch up one by one, so that with several there is no revision of which one could say
//! "all up to here has been seen". What is dropped (our own events and audit lines, and the events' expiry) is a
//! handful of keys to a rollout, and it carries the revision on, so that compaction rarely overtakes it.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{EventType, WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use crate::backoff::Backoff;
use crate::call::{CallError, DEADLINE, Problem};
use crate::connect::Store;
use crate::continuity::{Continuity, Deed};
use crate::entry::{Entry, StoreRevision};
use crate::key::Key;
use crate::pool::Endpoint;
use crate::read::{Position, ReadError};
use crate::scope::Scope;

/// How often etcd is asked for a sign of life. Two may be lost before the watch counts as silent.
const ASK_EVERY: Duration = Duration::from_secs(10);

/// How long a watch may say nothing, so that a silent one is noticed within 30 s.
const SILENCE: Duration = Duration::from_secs(25);

/// A watch that lived this long was a good one: its end is not answered with a longer pause.
const GOOD_LIFE: Duration = Duration::from_secs(10);

/// How often watching is tried from one revision before listing instead, in case it is the revision that fails,
/// by an answer too large for instance.
const TRIES_FROM_ONE_REVISION: u32 = 5;

/// The largest answer of a watch that we take. etcd packs up to 1,000 revisions into one when a watch catches up.
const WATCH_BYTES: usize = 128 << 20;

/// Updates that wait for a slow listener. Beyond that etcd keeps them.
const QUEUE: usize = 16;

/// One key that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It was put.
    Put(Entry),
    /// It was deleted, or its lease ended.
    Deleted {
        /// The key.
        key: Key,
        /// When.
        revision: StoreRevision,
    },
}

impl Change {
    /// The key that changed.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Deleted { key, .. } => key,
        }
    }

    /// When it changed.
    pub fn revision(&self) -> StoreRevision {
        match self {
            Self::Put(entry) => entry.mod_revision,
            Self::Deleted { revision, .. } => *revision,
        }
    }
}

/// What a [`Follower`] tells.
#[derive(Debug)]
pub enum Update {
    /// All there is: replace what you have, and treat what is missing as deleted. The first of all, and again
    /// after etcd compacted what we had missed, did not tell of something, or was restored from a backup, when
    /// `revision` may be lower.
    Snapshot {
        /// In the order of the keys' bytes.
        entries: Vec<Entry>,
        /// All up to here has been seen.
        revision: StoreRevision,
    },
    /// What changed, in order; the changes of one revision are never divided.
    Changes {
        /// At least one.
        changes: Vec<Change>,
        /// All up to here has been seen.
        revision: StoreRevision,
    },
    /// The watch lives. About every 10 s, after an interruption ended without changes, and after changes outside
    /// the scope.
    Progress {
        /// All up to here has been seen. It may stay the same while the store moves on elsewhere.
        revision: StoreRevision,
    },
    /// What follows is late until the next of the other kinds comes. Told once to an interruption; nothing to do.
    Interrupted {
        /// What interrupted it.
        error: FollowError,
    },
}

/// Why following was interrupted.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// Listing failed.
    #[error("cannot list what there is")]
    List(#[source] ReadError),
    /// The watch could not be made, or broke.
    #[error("the watch broke")]
    Watch(#[source] CallError),
    /// etcd ended the watch.
    #[error("the store ended the watch: {reason}")]
    Cancelled {
        /// What it said.
        reason: String,
    },
    /// The stream ended without a word.
    #[error("the store closed the watch")]
    Closed,
    /// Nothing was heard for too long.
    #[error("the store said nothing for {} s", .0.as_secs())]
    Silent(Duration),
    /// The member that we asked knows less than we do; it catches up, or was restored.
    #[error("the store is at revision {theirs}, and {ours} was seen before")]
    Behind {
        /// What we have seen.
        ours: StoreRevision,
        /// Where it is.
        theirs: StoreRevision,
    },
}

/// Follows a scope; made by [`Store::follow`]. Dropped, it stops.
#[derive(Debug)]
pub struct Follower {
    updates: mpsc::Receiver<Update>,
    task: JoinHandle<()>,
}

impl Follower {
    /// The next update. Safe to drop while it waits: nothing is lost.
    ///
    /// # Panics
    /// When the task that follows has panicked, or the runtime is shutting down.
    pub async fn next(&mut self) -> Update {
        self.updates.recv().await.expect("the task that follows ends only with its follower")
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Store {
    /// Follows a scope: first a snapshot, then what changes, for as long as the follower lives. Lost connections,
    /// restarts, compaction and restored backups are dealt with; see [`Update`]. So are events that the store does not
    /// tell, while it answers otherwise: before anything is told that came after them, or within 30 s; within 90 s where
    /// something else is written all the time, by others in the same etcd or outside of the ranges of the scope.
    ///
    /// Idle, it costs one small message each way every 10 s. To begin again costs one round trip beside the watch's
    /// own, or a list. Where something else is written, its keys are read a few times a minute.
    pub fn follow(&self, scope: Scope) -> Follower {
        let (sender, updates) = mpsc::channel(QUEUE);
        let watcher = Watcher {
            store: self.clone(),
            scope,
            updates: sender,
            position: None,
            continuity: Continuity::listed_at(StoreRevision(0)),
            interrupted: false,
            futile: 0,
            began: Instant::now(),
        };
        Follower { updates, task: tokio::spawn(watcher.run()) }
    }
}

/// Why one session, a list or a watch, ended.
enum Ended {
    /// Nobody listens any more.
    Unheard,
    /// History before our revision is gone or another's: list.
    Relist,
    /// Something broke: begin again.
    Broken(FollowError),
}

impl From<FollowError> for Ended {
    fn from(error: FollowError) -> Self {
        Self::Broken(error)
    }
}

/// A watch that is open, and where it leads.
struct Watch {
    endpoint: Arc<Endpoint>,
    sender: WatchRequestSender,
    answers: WatchResponseStream,
}

/// The task behind a [`Follower`].
struct Watcher {
    store: Store,
    scope: Scope,
    updates: mpsc::Sender<Update>,
    /// All up to here has been told; nothing before the first list.
    position: Option<Position>,
    /// Whether that is so.
    continuity: Continuity,
    /// Whether the listener has been told of an interruption that goes on.
    interrupted: bool,
    /// Watches from `position` that brought nothing, on a store that answered just before.
    futile: u32,
    /// When the present watch came to life.
    began: Instant,
}

impl Watcher {
    async fn run(mut self) {
        let mut backoff = Backoff::new(self.store.machine());
        loop {
            self.began = Instant::now();
            let error = match self.session().await {
                Ended::Unheard => return,
                Ended::Relist => None,
                Ended::Broken(error) => Some(error),
            };
            if self.began.elapsed() >= GOOD_LIFE {
                backoff.reset();
            }
            if error.is_none() || self.futile >= TRIES_FROM_ONE_REVISION {
                self.position = None;
                self.futile = 0;
            }
            if let Some(error) = error
                && self.interrupt(error).await.is_err()
            {
                return;
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    /// Lists if need be, then watches until the watch ends.
    async fn session(&mut self) -> Ended {
        match self.try_session().await {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    async fn try_session(&mut self) -> Result<std::convert::Infallible, Ended> {
        let position = match self.position {
            Some(position) => self.check_history(position).await?,
            None => self.list().await?,
        };
        self.futile += 1;
        let mut watch = self.open(position).await?;
        self.continuity.resumes(position.revision);
        // Now that it is there: what was compacted while it was being made it would not tell of.
        self.check_history(position).await?;
        self.began = Instant::now();
        if self.interrupted {
            self.tell(Update::Progress { revision: position.revision }).await?;
        }
        let error = self.listen(&mut watch).await?;
        self.store.pool().leave(&watch.endpoint);
        Err(error.into())
    }

    async fn list(&mut self) -> Result<Position, Ended> {
        let (entries, position) = self.store.list_at(&self.scope).await.map_err(FollowError::List)?;
        self.position = Some(position);
        self.continuity.relisted(position.revision);
        self.tell(Update::Snapshot { entries, revision: position.revision }).await?;
        Ok(position)
    }

    /// Makes sure that the store still has the history that we have seen. A watch from a revision that a restored
    /// store has not reached yet would be silent, and skip what happens until then. The read also renews an expired
    /// token, which a watch would only be refused for.
    ///
    /// It is asked for what was there at our revision, which is refused once the store was compacted beyond it. A watch
    /// is not refused where that was at the very next revision, and a deletion in that is gone without a word
    /// (etcd-io/etcd#18089, #19179).
    async fn check_history(&self, seen: Position) -> Result<Position, Ended> {
        match self.store.position_at(&self.scope, Some(seen.revision)).await {
            Ok(now) if now.continues(&seen) => Ok(seen),
            // Refused is a revision that the store has not come to: it was restored.
            Ok(_) => Err(Ended::Relist),
            Err(error) if matches!(error.problem, Problem::Compacted | Problem::Refused) => Err(Ended::Relist),
            Err(error) => Err(FollowError::Watch(error).into()),
        }
    }

    /// Makes the watch and waits until etcd says that it is there.
    async fn open(&self, position: Position) -> Result<Watch, Ended> {
        let endpoint = self.store.pool().current();
        let range = self.scope.hull(self.store.prefix());
        let options = WatchOptions::new()
            .with_range(range.end)
            .with_start_revision(position.revision.as_etcd().saturating_add(1))
            .with_progress_notify();
        let opening = async {
            let client = endpoint.client().await?;
            let mut client = client.watch_client().max_decoding_message_size(WATCH_BYTES);
            let (sender, mut answers) = client.watch(range.start, Some(options)).await?.split();
            let first = answers.message().await?;
            Ok((sender, answers, first))
        };
        let error = match tokio::time::timeout(DEADLINE, opening).await {
            Ok(Ok((sender, answers, Some(first)))) => {
                return check_created(&first, position).map(|()| Watch { endpoint, sender, answers });
            }
            Ok(Ok((_, _, None))) => FollowError::Closed,
            Ok(Err(error)) => FollowError::Watch(CallError::new(endpoint.url(), &error)),
            Err(_) => FollowError::Watch(CallError::deadline(endpoint.url(), DEADLINE)),
        };
        self.store.pool().leave(&endpoint);
        Err(error.into())
    }

    /// Passes on what the watch says, and asks for a sign of life now and then, until it breaks.
    async fn listen(&mut self, watch: &mut Watch) -> Result<FollowError, Ended> {
        let Watch { endpoint, sender, answers } = watch;
        let mut ask = tokio::time::interval_at(Instant::now() + ASK_EVERY, ASK_EVERY);
        ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                answer = tokio::time::timeout_at(heard + SILENCE, answers.message()) => match answer {
                    Ok(Ok(Some(answer))) => {
                        self.take(&answer).await?;
                        // Only now: the listener's slowness is not etcd's.
                        heard = Instant::now();
                    }
                    Ok(Ok(None)) => return Ok(FollowError::Closed),
                    Ok(Err(error)) => return Ok(FollowError::Watch(CallError::new(endpoint.url(), &error))),
                    Err(_) => return Ok(FollowError::Silent(SILENCE)),
                },
                _ = ask.tick() => {
                    // A sender that is full or closed shows as silence or as the stream's end.
                    let _ = tokio::time::timeout(DEADLINE, sender.request_progress()).await;
                    self.may_look_for_gaps().await?;
                }
            }
        }
    }

    /// Deals with one answer of the watch.
    async fn take(&mut self, answer: &WatchResponse) -> Result<(), Ended> {
        check_cancelled(answer)?;
        let Some(seen) = self.position else { return Err(Ended::Relist) };
        let was_whole = self.continuity.is_whole();
        let mut revision = seen.revision;
        let mut changes = Vec::new();
        for event in answer.events() {
            let Some(pair) = event.kv() else { continue };
            let at = StoreRevision::from_etcd(pair.mod_revision());
            if self.continuity.is_past(at) {
                continue;
            }
            // Not the header's: of a watch that catches up, that is the store's, ahead of what was sent.
            revision = revision.max(at);
            let Some(path) = self.store.prefix().strip(pair.key()).filter(|path| self.scope.contains(path)) else {
                self.continuity.passes(at);
                continue;
            };
            self.continuity.tells(at, pair.key(), deed(event.event_type(), pair));
            changes.extend(match event.event_type() {
                EventType::Put => Entry::new(self.store.prefix(), pair).map(Change::Put),
                EventType::Delete => Some(Change::Deleted { key: Key::from_relative(path), revision: at }),
            });
        }
        if answer.events().is_empty() {
            revision = revision.max(reached(answer));
            self.continuity.reaches(revision);
            self.continuity.stands(stands(answer), Instant::now());
        }
        if self.continuity.is_whole() {
            // Nearly always.
        } else if was_whole && self.scope.spans_all(self.store.prefix()) {
            // Before anything of it is believed, where nobody writes what is not watched.
            self.look_for_gaps().await?;
        } else if self.continuity.is_full() {
            self.may_look_for_gaps().await?;
        }
        let revision = revision.max(self.continuity.told());
        self.position = Some(Position { revision, ..seen });
        self.futile = 0;
        self.tell(if changes.is_empty() {
            Update::Progress { revision }
        } else {
            Update::Changes { changes, revision }
        })
        .await
    }

    /// Asks the store, where it may not have told everything, and lists anew where it has not.
    async fn look_for_gaps(&mut self) -> Result<(), Ended> {
        let Some(gap) = self.continuity.ask(Instant::now()) else { return Ok(()) };
        let lost = |why: &str| {
            let (since, until) = (gap.since.0, gap.until.0);
            tracing::warn!(
                since,
                until,
                why,
                "the store may not have told of all that changed; all of it is read again"
            );
            Ended::Relist
        };
        match self.continuity.close(&self.store, &self.scope, gap).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(lost("something is missing")),
            // A watch that was overtaken by compaction and lives on tells what comes after that.
            Err(error) if error.problem == Problem::Compacted => Err(lost("it is compacted")),
            Err(error) if matches!(error.problem, Problem::Refused | Problem::AnswerTooLarge) => {
                Err(lost("it cannot be asked"))
            }
            Err(error) => Err(FollowError::Watch(error).into()),
        }
    }

    /// The same; a store that does not answer is asked the next time.
    async fn may_look_for_gaps(&mut self) -> Result<(), Ended> {
        match self.look_for_gaps().await {
            Err(Ended::Broken(_)) => Ok(()),
            outcome => outcome,
        }
    }

    /// Tells the listener that things are late, once.
    async fn interrupt(&mut self, error: FollowError) -> Result<(), Ended> {
        if self.interrupted {
            tracing::debug!(error = &error as &dyn std::error::Error, "still interrupted");
            return Ok(());
        }
        self.tell(Update::Interrupted { error }).await?;
        self.interrupted = true;
        Ok(())
    }

    async fn tell(&mut self, update: Update) -> Result<(), Ended> {
        self.interrupted = false;
        self.updates.send(update).await.map_err(|_| Ended::Unheard)
    }
}

/// The revision up to which a message without events says that nothing is missing; 0 when it says nothing.
///
/// Only one that belongs to our watch says so. The answer to [`WatchRequestSender::request_progress`] belongs to
/// none (watch id -1), and until etcd 3.4.25 and 3.5.8 it can overtake events on their way
/// (etcd-io/etcd#15220), so it is a sign of life and nothing more.
fn reached(answer: &WatchResponse) -> StoreRevision {
    if answer.watch_id() < 0 { StoreRevision(0) } else { stands(answer) }
}

/// The revision that the store had when it sent a message.
fn stands(answer: &WatchResponse) -> StoreRevision {
    StoreRevision::from_etcd(answer.header().map_or(0, etcd_client::ResponseHeader::revision))
}

/// What an event says of its key.
fn deed(event: EventType, pair: &etcd_client::KeyValue) -> Deed {
    match event {
        EventType::Delete => Deed::Deleted,
        EventType::Put => Deed::Put { created: StoreRevision::from_etcd(pair.create_revision()) },
    }
}

/// Whether the first answer says that the watch is there, on a store that has come as far as we have.
fn check_created(first: &WatchResponse, position: Position) -> Result<(), Ended> {
    check_cancelled(first)?;
    let theirs = stands(first);
    if theirs < position.revision {
        return Err(FollowError::Behind { ours: position.revision, theirs }.into());
    }
    Ok(())
}

fn check_cancelled(answer: &WatchResponse) -> Result<(), Ended> {
    if !answer.canceled() {
        return Ok(());
    }
    // What we were to be told first has been compacted; the reason is empty then.
    if answer.compact_revision() > 0 {
        return Err(Ended::Relist);
    }
    let reason = answer.cancel_reason();
    let reason = if reason.is_empty() { "no reason given" } else { reason };
    Err(FollowError::Cancelled { reason: reason.to_owned() }.into())
}
