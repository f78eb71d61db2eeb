//! The controller's own health: whether it hears the store, whether it leads, and whether its work moves.

use std::fmt;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::queue::Backlog;

/// A key that is due, and that nobody takes although workers are free, means that the loop stands still. Taking one
/// costs microseconds, so this only leaves room for a machine that swaps or sleeps.
const STUCK: Duration = Duration::from_secs(60);

/// The watch says something every 10 s and is given up after 25 s of silence; when not even that has been told for
/// so long, whoever follows the store stands still.
const DEAF: Duration = Duration::from_secs(90);

/// The controller's own health, written by the loop and read by whoever asks.
#[derive(Debug)]
pub struct Health(Mutex<State>);

#[derive(Debug)]
struct State {
    synced: bool,
    leads: bool,
    /// When the store was last heard of.
    heard: Instant,
    away: Option<Away>,
}

/// An interruption that goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Away {
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub why: String,
}

impl fmt::Display for Away {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "since {:.0}: {}", self.since, self.why)
    }
}

/// Whether the controller does what it is there for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It acts.
    Leader,
    /// Another one acts; this one would at once.
    Standby,
    /// The store has not been read yet.
    Starting(Option<Away>),
    /// The store cannot be heard: what runs goes on, and nothing new is seen.
    Away(Away),
}

impl fmt::Display for Readiness {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leader => out.write_str("leader"),
            Self::Standby => out.write_str("standby"),
            Self::Starting(None) => out.write_str("not ready: the store has not been read yet"),
            Self::Starting(Some(away)) => write!(out, "not ready: the store has not answered yet, {away}"),
            Self::Away(away) => write!(out, "not ready: the store is away {away}"),
        }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self(Mutex::new(State { synced: false, leads: false, heard: Instant::now(), away: None }))
    }
}

impl Health {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic happens under this lock")
    }

    /// The store was heard, and the cache is up to date; returns the interruption that this ends.
    pub fn heard(&self) -> Option<Away> {
        let mut state = self.lock();
        state.synced = true;
        state.heard = Instant::now();
        state.away.take()
    }

    /// The store cannot be heard.
    pub fn interrupted(&self, why: String) {
        let mut state = self.lock();
        if state.away.is_none() {
            state.away = Some(Away { since: Timestamp::now(), why });
        }
    }

    /// Whether this controller leads, from now on.
    pub fn set_leads(&self, leads: bool) {
        self.lock().leads = leads;
    }

    /// Whether this controller leads.
    pub fn leads(&self) -> bool {
        self.lock().leads
    }

    /// Whether the store is known to be away.
    pub fn store_is_away(&self) -> bool {
        self.lock().away.is_some()
    }

    /// How long ago the store was last heard; nothing before the first time.
    pub fn silence(&self) -> Option<Duration> {
        let state = self.lock();
        state.synced.then(|| state.heard.elapsed())
    }

    /// Whether the controller does what it is there for.
    pub fn readiness(&self) -> Readiness {
        let state = self.lock();
        match (&state.away, state.synced, state.leads) {
            (away, false, _) => Readiness::Starting(away.clone()),
            (Some(away), true, _) => Readiness::Away(away.clone()),
            (None, true, true) => Readiness::Leader,
            (None, true, false) => Readiness::Standby,
        }
    }

    /// Why only a restart would help, if so. A store that is away is no reason, nor are hosts that are.
    pub fn ailment(&self, backlog: &Backlog, workers: usize) -> Option<String> {
        let state = self.lock();
        let waited = backlog.oldest.unwrap_or_default();
        if state.leads && backlog.running < workers && waited > STUCK {
            let seconds = waited.as_secs();
            return Some(format!("work has been due for {seconds} s and nobody takes it"));
        }
        let silence = state.heard.elapsed();
        if state.synced && state.away.is_none() && silence > DEAF {
            let seconds = silence.as_secs();
            return Some(format!("nothing was heard of the store for {seconds} s, not even that it is away"));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Backlog = Backlog { due: 0, running: 0, oldest: None };

    fn waiting(seconds: u64, running: usize) -> Backlog {
        Backlog { due: 1, running, oldest: Some(Duration::from_secs(seconds)) }
    }

    #[tokio::test(start_paused = true)]
    async fn readiness_says_why_not() {
        let health = Health::default();
        assert_eq!(health.readiness(), Readiness::Starting(None));
        health.interrupted("no connection".to_owned());
        let text = health.readiness().to_string();
        assert!(text.starts_with("not ready: the store has not answered yet, since 20"), "{text}");
        assert!(text.ends_with(": no connection"), "{text}");
        assert_eq!(health.heard().map(|away| away.why), Some("no connection".to_owned()));
        assert_eq!(health.readiness().to_string(), "standby");
        health.set_leads(true);
        assert_eq!(health.readiness().to_string(), "leader");
        // The first reason is the one that counts.
        health.interrupted("the watch broke".to_owned());
        health.interrupted("again".to_owned());
        let text = health.readiness().to_string();
        assert!(text.starts_with("not ready: the store is away since") && text.ends_with("the watch broke"), "{text}");
        assert!(health.heard().is_some());
        assert!(health.heard().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_a_restart_would_mend_is_an_ailment() {
        let health = Health::default();
        health.heard();
        assert_eq!(health.ailment(&waiting(61, 0), 4), None, "a standby works off nothing");
        health.set_leads(true);
        assert_eq!(health.ailment(&IDLE, 4), None);
        assert_eq!(health.ailment(&waiting(59, 3), 4), None);
        assert_eq!(health.ailment(&waiting(600, 4), 4), None, "every worker has something to do");
        assert!(health.ailment(&waiting(61, 3), 4).is_some());
        // A store that is away is told by readiness; silence without a reason is a fault of ours.
        tokio::time::advance(Duration::from_secs(91)).await;
        assert!(health.ailment(&IDLE, 4).is_some());
        health.interrupted("no connection".to_owned());
        assert_eq!(health.ailment(&IDLE, 4), None);
    }
}
