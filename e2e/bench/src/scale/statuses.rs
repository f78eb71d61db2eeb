//! What is said of Services, as a client hears it from the store.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use etcd_client::{Client, EventType, WatchOptions, WatchStream};
use windlass_crds::condition::{ConditionStatus, ConditionType};
use windlass_crds::status::{ServiceStatus, condition};

const PREFIX: &str = "/windlass/status/services/default/";

/// What was said of a Service last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Said {
    /// Of which generation.
    pub(crate) generation: u64,
    /// Since when that generation was spoken of.
    pub(crate) observed: Instant,
    /// When anything was said of it last.
    pub(crate) told: Instant,
    /// Whether it is ready.
    pub(crate) ready: bool,
}

/// What was said last of each.
pub(crate) type Known = BTreeMap<String, Said>;

/// Hears what is said of Services.
pub(crate) struct Statuses {
    stream: WatchStream,
    said: Known,
}

impl Statuses {
    /// Hears everything from now on.
    ///
    /// # Errors
    /// When the store does not tell.
    pub(crate) async fn hear(client: &mut Client) -> Result<Self> {
        let mut stream = client.watch(PREFIX, Some(WatchOptions::new().with_prefix())).await.context("watching")?;
        stream.message().await?.context("the watch ended")?;
        Ok(Self { stream, said: Known::new() })
    }

    /// What was said of one.
    pub(crate) fn of(&self, name: &str) -> Option<Said> {
        self.said.get(name).copied()
    }

    /// Takes in what is said, until it is enough.
    ///
    /// # Errors
    /// When that takes too long; `what` is what was waited for.
    pub(crate) async fn until(&mut self, what: &str, limit: Duration, enough: impl Fn(&Known) -> bool) -> Result<()> {
        let deadline = tokio::time::Instant::now() + limit;
        while !enough(&self.said) {
            let Ok(()) = tokio::time::timeout_at(deadline, self.take()).await.unwrap_or(Ok(())) else {
                bail!("the watch ended");
            };
            if tokio::time::Instant::now() > deadline {
                let ready = self.said.values().filter(|said| said.ready).count();
                bail!(
                    "{what}: not after {limit:?}; of {} that something is said of, {ready} are ready",
                    self.said.len()
                );
            }
        }
        Ok(())
    }

    /// Takes in what is said until a moment.
    ///
    /// # Errors
    /// When the watch ends.
    pub(crate) async fn until_then(&mut self, then: Instant) -> Result<()> {
        while let Ok(taken) = tokio::time::timeout_at(then.into(), self.take()).await {
            taken?;
        }
        Ok(())
    }

    /// Takes in an answer of the watch.
    async fn take(&mut self) -> Result<()> {
        let answer = self.stream.message().await?.context("the watch ended")?;
        let now = Instant::now();
        for event in answer.events().iter().filter(|event| event.event_type() == EventType::Put) {
            let pair = event.kv().context("an event without a pair")?;
            let name = pair.key_str()?.trim_start_matches(PREFIX).to_owned();
            let status: ServiceStatus = serde_json::from_slice(pair.value()).context("a status")?;
            let generation = status.observed_generation.0;
            let ready = condition(&status.conditions, ConditionType::Ready);
            let ready = ready.is_some_and(|ready| ready.status == ConditionStatus::True);
            let before = self.said.get(&name).filter(|before| before.generation == generation);
            let observed = before.map_or(now, |before| before.observed);
            self.said.insert(name, Said { generation, observed, told: now, ready });
        }
        Ok(())
    }
}
