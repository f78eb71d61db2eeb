//! The queue: deduplicated keys, never two workers on one key, each with a backoff of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};
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
    /// The same, and after so long at most: what it failed on may be over by then.
    RetryWithin(Duration),
    /// Not unless something happens.
    Never,
}

impl Next {
    /// Whether it failed.
    pub fn has_failed(self) -> bool {
        matches!(self, Self::Retry | Self::RetryWithin(_))
    }
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

/// Every key, and which of them wait.
#[derive(Debug, Default)]
struct Slots {
    by_key: BTreeMap<ResourceKey, Slot>,
    /// What waits, the first to be due first: there may be ten thousand, and each that is taken is the first.
    agenda: BTreeSet<(Instant, ResourceKey)>,
    running: usize,
}

impl Slots {
    /// Has a key wait until it is due. One that waits already waits for this instead.
    fn wait(&mut self, key: ResourceKey, due: Instant) {
        let slot = self.by_key.entry(key.clone()).or_default();
        if let Some(before) = slot.due.replace(due) {
            self.agenda.remove(&(before, key.clone()));
        }
        self.agenda.insert((due, key));
    }

    /// Takes the first key, where it is due.
    fn take(&mut self, now: Instant) -> Option<Taken> {
        let (due, _) = self.agenda.first().filter(|(due, _)| *due <= now)?;
        let late = now - *due;
        let (_, key) = self.agenda.pop_first()?;
        let slot = self.by_key.get_mut(&key).expect("what waits has a slot");
        (slot.running, slot.due) = (true, None);
        self.running += 1;
        Some(Taken { key, late })
    }
}

/// Keys that wait to be reconciled.
#[derive(Debug, Default)]
pub struct Queue {
    slots: Mutex<Slots>,
    changed: Notify,
    jitter: Jitter,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().expect("no panic happens under this lock")
    }

    /// Something happened: reconcile `key` now, or once more when it is being reconciled. Ends its backoff.
    pub fn push(&self, key: ResourceKey) {
        let mut slots = self.lock();
        let slot = slots.by_key.entry(key.clone()).or_default();
        slot.failures = 0;
        if slot.running {
            slot.again = true;
        } else {
            slots.wait(key, Instant::now());
        }
        drop(slots);
        self.changed.notify_one();
    }

    /// Forgets everything that waits: another controller leads.
    pub fn clear(&self) {
        *self.lock() = Slots::default();
    }

    /// What waits at this moment.
    pub fn backlog(&self) -> Backlog {
        let now = Instant::now();
        let slots = self.lock();
        let due = slots.agenda.iter().take_while(|(due, _)| *due <= now).count();
        let oldest = slots.agenda.first().filter(|(due, _)| *due <= now).map(|(due, _)| now - *due);
        Backlog { due, running: slots.running, oldest }
    }

    /// Waits for a key that is due, and takes it. Give it back with [`Queue::done`].
    pub async fn take(&self) -> Taken {
        loop {
            let changed = self.changed.notified();
            let next = {
                let mut slots = self.lock();
                if let Some(taken) = slots.take(Instant::now()) {
                    // Another worker may find the next.
                    self.changed.notify_one();
                    return taken;
                }
                slots.agenda.first().map(|(due, _)| *due)
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
        let Some(slot) = slots.by_key.get_mut(key).filter(|slot| slot.running) else { return };
        slot.running = false;
        if !next.has_failed() {
            slot.failures = 0;
        }
        let due = if std::mem::take(&mut slot.again) {
            Some(Instant::now())
        } else {
            match next {
                Next::After(wait) => Some(Instant::now() + wait),
                Next::Retry | Next::RetryWithin(_) => {
                    slot.failures += 1;
                    let wait = backoff::wait(slot.failures, self.jitter.next());
                    let most = if let Next::RetryWithin(most) = next { most } else { wait };
                    Some(Instant::now() + wait.min(most))
                }
                Next::Never => None,
            }
        };
        slots.running -= 1;
        match due {
            Some(due) => slots.wait(key.clone(), due),
            None => drop(slots.by_key.remove(key)),
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
    async fn what_is_due_first_comes_first_and_news_overtake_what_waits() {
        let queue = Queue::default();
        for (name, seconds) in [("a", 30), ("b", 10), ("c", 20)] {
            queue.push(key(name));
            assert_eq!(queue.take().await.key, key(name));
            queue.done(&key(name), Next::After(Duration::from_secs(seconds)));
        }
        // What waited for later waits for now, and for nothing else.
        queue.push(key("a"));
        let mut order = Vec::new();
        for _ in 0..3 {
            let taken = queue.take().await.key;
            queue.done(&taken, Next::Never);
            order.push(taken);
        }
        assert_eq!(order, [key("a"), key("b"), key("c")]);
        assert!(tokio::time::timeout(Duration::from_secs(3600), queue.take()).await.is_err());
        assert_eq!(queue.backlog(), Backlog::default());
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
    async fn a_failure_that_ends_at_a_known_time_waits_no_longer_than_that() {
        let queue = Queue::default();
        queue.push(key("bad"));
        let mut waits = Vec::new();
        for most in [5, 5, 5, 5, 60] {
            let start = Instant::now();
            queue.take().await;
            waits.push(start.elapsed().as_secs_f64().round());
            queue.done(&key("bad"), Next::RetryWithin(Duration::from_secs(most)));
        }
        assert_eq!(waits, [0.0, 1.0, 2.0, 4.0, 5.0]);
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
