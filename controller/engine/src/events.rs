//! Events: what happened, in keys that vanish after an hour.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::Instant;
use windlass_crds::condition::{Condition, ConditionStatus, ConditionType, Reason};
use windlass_crds::id::ResourceKey;
use windlass_store::{EventId, Key, LeaseId, RequestId, Store, Write, WriteError};

/// How long an event is kept.
const KEPT: Duration = Duration::from_secs(3600);

/// Events share a lease that is no older than this, so that a busy controller does not make one for each.
const SHARED: Duration = Duration::from_secs(300);

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// When.
    pub time: Timestamp,
    /// To which resource, as people type it.
    pub regarding: String,
    /// Why, for programs.
    pub reason: Reason,
    /// What, for people.
    pub message: String,
    /// Which request it answers: the one that was refused, whose reason is then `RequestRefused` and whose message
    /// says why. It is written in the commit that deletes the request, so whoever sees that the request is gone, and
    /// reads events after that, finds the answer there for an hour; one that is done has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestId>,
}

/// What an event shall tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// Why, for programs.
    pub reason: Reason,
    /// What, for people.
    pub message: String,
    /// Which request it answers.
    pub request: Option<RequestId>,
}

impl News {
    /// That something happened which answers no request.
    pub fn new(reason: Reason, message: String) -> Self {
        Self { reason, message, request: None }
    }
}

/// Writes events.
#[derive(Debug, Default)]
pub struct Events {
    lease: Mutex<Option<(LeaseId, Instant)>>,
    count: AtomicU32,
}

/// What is worth an event in how the conditions of a resource changed: another reason why it is ready or not, a
/// drift that was not there.
pub fn transitions(before: &[Condition], after: &[Condition]) -> Vec<News> {
    let find = |conditions: &[Condition], kind| conditions.iter().find(|condition| condition.kind == kind).cloned();
    let told = [ConditionType::Ready, ConditionType::Drifted, ConditionType::Degraded];
    let news = told.into_iter().filter_map(|kind| {
        let (old, new) = (find(before, kind), find(after, kind)?);
        let silent = kind != ConditionType::Ready && new.status != ConditionStatus::True;
        let same = old.is_some_and(|old| old.reason == new.reason && old.status == new.status);
        (!silent && !same).then_some(News::new(new.reason, new.message))
    });
    let mut news: Vec<_> = news.collect();
    news.dedup();
    news
}

impl Events {
    /// The writes that tell of `news`. Where no lease is to be had there are none, for an event is worth no failure;
    /// but an answer is: somebody waits for it.
    ///
    /// # Errors
    /// When there is an answer among the news, and no lease.
    pub async fn writes(
        &self,
        store: &Store,
        key: &ResourceKey,
        now: Timestamp,
        news: Vec<News>,
    ) -> Result<Vec<Write>, WriteError> {
        if news.is_empty() {
            return Ok(Vec::new());
        }
        let lease = match self.lease(store).await {
            Ok(lease) => lease,
            Err(error) if news.iter().any(|news| news.request.is_some()) => return Err(error),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "no lease for events");
                return Ok(Vec::new());
            }
        };
        let write = |News { reason, message, request }: News| {
            tracing::info!(resource = %key, %reason, message, "event");
            let count = self.count.fetch_add(1, Ordering::Relaxed) % 10_000;
            let id: EventId = format!("{:014}-{:04}", now.as_millisecond(), count).parse().ok()?;
            let event = Event { time: now, regarding: key.to_string(), reason, message, request };
            let value = serde_json::to_vec(&event).ok()?;
            Some(Write::put_leased(Key::Event { id }, value, lease))
        };
        Ok(news.into_iter().filter_map(write).collect())
    }

    /// The lease has ended before its time: the next event gets another.
    pub async fn forget_lease(&self) {
        *self.lease.lock().await = None;
    }

    async fn lease(&self, store: &Store) -> Result<LeaseId, WriteError> {
        let mut lease = self.lease.lock().await;
        if let Some((lease, since)) = *lease
            && since.elapsed() < SHARED
        {
            return Ok(lease);
        }
        let fresh = store.grant_lease(KEPT).await?;
        *lease = Some((fresh, Instant::now()));
        Ok(fresh)
    }
}
