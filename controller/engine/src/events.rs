//! Events: what happened, in keys that vanish after an hour.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{MutexGuard, PoisonError};
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

/// What was told so long ago may be gone from the store: should it happen again, it is told anew.
const COUNTED: Duration = Duration::from_secs(KEPT.as_secs() - SHARED.as_secs());

/// So many different things are counted, some hundred bytes each. Beyond that counting begins anew.
const MOST_COUNTED: usize = 10_000;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// When; of what happened again and again, the last time.
    pub time: Timestamp,
    /// How often it has happened, each less than an hour after the time before.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub count: u32,
    /// When it happened first, where it has happened again since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<Timestamp>,
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

fn once() -> u32 {
    1
}

fn is_once(count: &u32) -> bool {
    *count == 1
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

/// What is the same where it happens again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Subject {
    regarding: ResourceKey,
    reason: Reason,
    message: String,
}

/// What was told of it.
#[derive(Debug, Clone)]
struct Told {
    id: EventId,
    first: Timestamp,
    last: Timestamp,
    count: u32,
}

/// Writes events. What happens again overwrites the event that told of it, and is counted; answers to requests are not
/// counted, since each is waited for by somebody else.
#[derive(Debug, Default)]
pub struct Events {
    lease: Mutex<Option<(LeaseId, Instant)>>,
    number: AtomicU32,
    told: std::sync::Mutex<HashMap<Subject, Told>>,
}

/// What is worth an event in how the conditions of a resource changed: another reason why it is ready or not, a
/// drift or a standstill that was not there.
pub fn transitions(before: &[Condition], after: &[Condition]) -> Vec<News> {
    let find = |conditions: &[Condition], kind| conditions.iter().find(|condition| condition.kind == kind).cloned();
    let told = [ConditionType::Ready, ConditionType::Stalled, ConditionType::Drifted, ConditionType::Degraded];
    let news = told.into_iter().filter_map(|kind| {
        let (old, new) = (find(before, kind), find(after, kind)?);
        let silent = match kind {
            ConditionType::Ready => false,
            // Every other standstill is why it is not ready, too, if not in the same commit.
            ConditionType::Stalled => {
                new.status != ConditionStatus::True || new.reason != Reason::ProgressDeadlineExceeded
            }
            _ => new.status != ConditionStatus::True,
        };
        let same = old.is_some_and(|old| old.reason == new.reason && old.status == new.status);
        (!silent && !same).then_some(News::new(new.reason, new.message))
    });
    // Readiness and degradation may have one reason, with a drift between them.
    each_once(news)
}

/// The same news without what is in it twice.
fn each_once(news: impl IntoIterator<Item = News>) -> Vec<News> {
    let mut told = Vec::new();
    for one in news {
        if !told.contains(&one) {
            told.push(one);
        }
    }
    told
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
            let Told { id, first, last: time, count } = match &request {
                Some(_) => self.anew(now)?,
                None => self.tell(Subject { regarding: key.clone(), reason, message: message.clone() }, now)?,
            };
            let first = (count > 1).then_some(first);
            let event = Event { time, count, first, regarding: key.to_string(), reason, message, request };
            let value = serde_json::to_vec(&event).ok()?;
            Some(Write::put_leased(Key::Event { id }, value, lease))
        };
        // What is told again has the key that it had, and a commit holds each key once.
        Ok(each_once(news).into_iter().filter_map(write).collect())
    }

    fn told(&self) -> MutexGuard<'_, HashMap<Subject, Told>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has not happened before.
    fn anew(&self, now: Timestamp) -> Option<Told> {
        let number = self.number.fetch_add(1, Ordering::Relaxed) % 10_000;
        let id = format!("{:014}-{number:04}", now.as_millisecond()).parse().ok()?;
        Some(Told { id, first: now, last: now, count: 1 })
    }

    /// Counts what has happened.
    fn tell(&self, subject: Subject, now: Timestamp) -> Option<Told> {
        let mut told = self.told();
        let recent = |before: &Told| now.duration_since(before.last).unsigned_abs() < COUNTED;
        if let Some(before) = told.get_mut(&subject).filter(|before| recent(before)) {
            *before = Told { last: now, count: before.count.saturating_add(1), ..before.clone() };
            return Some(before.clone());
        }
        if told.len() >= MOST_COUNTED {
            told.retain(|_, before| recent(before));
        }
        if told.len() >= MOST_COUNTED {
            told.clear();
        }
        let new = self.anew(now)?;
        told.insert(subject, new.clone());
        Some(new)
    }

    /// These were not written, so what they tell of does not count. What was told before is told anew then.
    pub fn not_written(&self, writes: &[Write]) {
        let ids: Vec<&EventId> = writes
            .iter()
            .filter_map(|write| match &write.key {
                Key::Event { id } => Some(id),
                _ => None,
            })
            .collect();
        if !ids.is_empty() {
            self.told().retain(|_, told| !ids.contains(&&told.id));
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).expect("a time")
    }

    fn subject(message: &str) -> Subject {
        let regarding = ResourceKey::Service("default/web".parse().expect("two labels"));
        Subject { regarding, reason: Reason::HostUnreachable, message: message.to_owned() }
    }

    #[test]
    fn what_happens_again_is_counted_under_its_first_name() {
        let events = Events::default();
        let first = events.tell(subject("web1 is away"), at(0)).expect("told");
        let other = events.tell(subject("web2 is away"), at(1)).expect("told");
        let again = events.tell(subject("web1 is away"), at(60)).expect("told");
        assert_ne!(first.id, other.id);
        assert_eq!((&again.id, again.count, again.first, again.last), (&first.id, 2, at(0), at(60)));
        // A clock that was set back a little makes no second one of it.
        assert_eq!(events.tell(subject("web1 is away"), at(50)).expect("told").count, 3);
        let late = events.tell(subject("web1 is away"), at(50 + COUNTED.as_secs() as i64)).expect("told");
        assert_eq!(late.count, 1, "the store may not have the first any more");
        assert_ne!(late.id, first.id);
    }

    #[test]
    fn what_two_conditions_say_is_told_once() {
        let condition = |kind, reason, message: &str| Condition {
            kind,
            status: if kind == ConditionType::Ready { ConditionStatus::False } else { ConditionStatus::True },
            reason,
            message: message.to_owned(),
            observed_generation: windlass_crds::id::Generation(1),
            last_transition_time: at(0),
        };
        let after = [
            condition(ConditionType::Ready, Reason::HostUnhealthy, "web2 is ill"),
            condition(ConditionType::Drifted, Reason::DriftFound, "web1"),
            condition(ConditionType::Degraded, Reason::HostUnhealthy, "web2 is ill"),
        ];
        let told: Vec<_> = transitions(&[], &after).into_iter().map(|news| news.reason).collect();
        assert_eq!(told, [Reason::HostUnhealthy, Reason::DriftFound]);
    }

    #[test]
    fn what_was_not_written_does_not_count() {
        let events = Events::default();
        let lost = events.tell(subject("web1 is away"), at(0)).expect("told");
        let kept = events.tell(subject("web2 is away"), at(0)).expect("told");
        events.not_written(&[Write::delete(Key::Event { id: lost.id })]);
        assert_eq!(events.tell(subject("web1 is away"), at(1)).expect("told").count, 1);
        let again = events.tell(subject("web2 is away"), at(1)).expect("told");
        assert_eq!((again.id, again.count), (kept.id, 2));
    }

    #[test]
    fn what_is_counted_is_bounded() {
        let events = Events::default();
        for number in 0..=MOST_COUNTED {
            events.tell(subject(&number.to_string()), at(0)).expect("told");
        }
        assert_eq!(events.told().len(), 1);
    }
}
