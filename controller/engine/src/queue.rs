//! The queue: deduplicated keys, never two workers on one key, each with a backoff of its own.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use windlass_crds::id::ResourceKey;

use crate::backoff::{self, Jitter};

/// What a reconcile says about the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// After so long, unless something happens before.
    After(Duration),
    /// It failed: after a wait that grows.
    Retry,
    /// Not unless something happens.
    Never,
}

#[derive(Debug, Default)]
struct Slot {
    due: Option<Instant>,
    /// A worker is on it; what comes meanwhile is remembered.
    running: bool,
    again: bool,
    failures: u32,
}

/// A key that a worker has taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Which.
    pub key: ResourceKey,
    /// How long ago it was due.
    pub late: Duration,
}

/// What waits, and what is being worked on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Keys that are due and that nobody has taken yet.
    pub due: usize,
    /// Keys that are being reconciled.
    pub running: usize,
    /// How long the first of those that are due has waited.
    pub oldest: Option<Duration>,
}

/// Keys that wait to be reconciled.
#[derive(Debug, Default)]
pub struct Queue {
    slots: Mutex<BTreeMap<ResourceKey, Slot>>,
    changed: Notify,
    jitter: Jitter,
}

impl Queue {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ResourceKey, Slot>> {
        self.slots.lock().expect("no panic happens under this lock")
    }

    /// Something happened: reconcile `key` now, or once more when it is being reconciled. Ends its backoff.
    pub fn push(&self, key: ResourceKey) {
        let mut slots = self.lock();
        let slot = slots.entry(key).or_default();
        slot.failures = 0;
        if slot.running {
            slot.again = true;
        } else {
            slot.due = Some(Instant::now());
        }
        drop(slots);
        self.changed.notify_one();
    }

    /// Forgets everything that waits: another controller leads.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// What waits at this moment.
    pub fn backlog(&self) -> Backlog {
        let now = Instant::now();
        let mut backlog = Backlog::default();
        for slot in self.lock().values() {
            if slot.running {
                backlog.running += 1;
            } else if let Some(due) = slot.due.filter(|due| *due <= now) {
                backlog.due += 1;
                backlog.oldest = backlog.oldest.max(Some(now - due));
            }
        }
        backlog
    }

    /// Waits for a key that is due, and takes it. Give it back with [`Queue::done`].
    pub async fn take(&self) -> Taken {
        loop {
            let changed = self.changed.notified();
            let next = {
                let mut slots = self.lock();
                let now = Instant::now();
                let waiting = slots.iter_mut().filter(|(_, slot)| !slot.running);
                let earliest = waiting.filter_map(|(key, slot)| slot.due.map(|due| (due, key.clone()))).min();
                match earliest {
                    Some((due, key)) if due <= now => {
                        let slot = slots.get_mut(&key).expect("it was found just now");
                        slot.running = true;
                        slot.due = None;
                        // Another worker may find the next.
                        self.changed.notify_one();
                        return Taken { key, late: now - due };
                    }
                    Some((due, _)) => Some(due),
                    None => None,
                }
            };
            match next {
                Some(due) => {
                    let _ = tokio::time::timeout_at(due, changed).await;
                }
                None => changed.await,
            }
        }
    }

    /// Gives a key back.
    pub fn done(&self, key: &ResourceKey, next: Next) {
        let mut slots = self.lock();
        let Some(slot) = slots.get_mut(key) else { return };
        slot.running = false;
        if next != Next::Retry {
            slot.failures = 0;
        }
        slot.due = if std::mem::take(&mut slot.again) {
            Some(Instant::now())
        } else {
            match next {
                Next::After(wait) => Some(Instant::now() + wait),
                Next::Retry => {
                    slot.failures += 1;
                    Some(Instant::now() + backoff::wait(slot.failures, self.jitter.next()))
                }
                Next::Never => None,
            }
        };
        if slot.due.is_none() {
            slots.remove(key);
        }
        drop(slots);
        self.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn key(name: &str) -> ResourceKey {
        ResourceKey::from_path(&format!("hosts/{name}")).expect(name)
    }

    #[tokio::test(start_paused = true)]
    async fn one_worker_a_key_and_nothing_is_lost() {
        let queue = Queue::default();
        queue.push(key("a"));
        queue.push(key("a"));
        assert_eq!(queue.take().await.key, key("a"));
        queue.push(key("a"));
        assert!(tokio::time::timeout(Duration::from_secs(60), queue.take()).await.is_err(), "a is being worked on");
        queue.done(&key("a"), Next::Never);
        assert_eq!(queue.take().await.key, key("a"));
        queue.done(&key("a"), Next::Never);
        assert!(tokio::time::timeout(Duration::from_secs(3600), queue.take()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn the_backlog_tells_what_waits_and_for_how_long() {
        let queue = Queue::default();
        assert_eq!(queue.backlog(), Backlog::default());
        queue.push(key("a"));
        tokio::time::advance(Duration::from_secs(3)).await;
        queue.push(key("b"));
        let oldest = Some(Duration::from_secs(3));
        assert_eq!(queue.backlog(), Backlog { due: 2, running: 0, oldest });
        assert_eq!(queue.take().await, Taken { key: key("a"), late: Duration::from_secs(3) });
        assert_eq!(queue.backlog(), Backlog { due: 1, running: 1, oldest: Some(Duration::ZERO) });
        // What is due later does not wait yet.
        queue.done(&key("a"), Next::After(Duration::from_secs(60)));
        assert_eq!(queue.backlog(), Backlog { due: 1, running: 0, oldest: Some(Duration::ZERO) });
    }

    #[tokio::test(start_paused = true)]
    async fn failures_wait_longer_each_time_and_delay_nobody_else() {
        let queue = Arc::new(Queue::default());
        queue.push(key("bad"));
        let mut waits = Vec::new();
        for _ in 0..4 {
            let start = Instant::now();
            assert_eq!(queue.take().await.key, key("bad"));
            waits.push(start.elapsed().as_secs_f64().round());
            queue.done(&key("bad"), Next::Retry);
        }
        assert_eq!(waits, [0.0, 1.0, 2.0, 4.0]);
        queue.push(key("good"));
        let start = Instant::now();
        assert_eq!(queue.take().await.key, key("good"));
        assert!(start.elapsed() < Duration::from_millis(1));
        // Something happened: the backoff is over.
        queue.push(key("bad"));
        assert_eq!(queue.take().await.key, key("bad"));
        assert!(start.elapsed() < Duration::from_millis(1));
    }
}
