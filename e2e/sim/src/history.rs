//! History: what happened in a run, a line each, with the time.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// A run says no more than this: some hundred times what a long one does.
const MOST_LINES: usize = 200_000;

/// Everything that was told. Clones tell the same.
#[derive(Debug, Clone)]
pub struct History {
    began: Instant,
    told: Arc<Mutex<Told>>,
}

#[derive(Debug, Default)]
struct Told {
    lines: Vec<String>,
    violations: Vec<String>,
}

impl Default for History {
    fn default() -> Self {
        Self { began: Instant::now(), told: Arc::default() }
    }
}

impl History {
    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells something.
    pub fn tell(&self, what: impl std::fmt::Display) {
        let mut line = String::new();
        let _ = write!(line, "{:>9.3} {what}", self.began.elapsed().as_secs_f64());
        let mut told = self.lock();
        if told.lines.len() < MOST_LINES {
            told.lines.push(line);
        }
    }

    /// Tells that an invariant does not hold.
    pub fn violated(&self, what: impl std::fmt::Display) {
        self.tell(format_args!("VIOLATED: {what}"));
        self.lock().violations.push(what.to_string());
    }

    /// What was violated.
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// Every line.
    pub fn lines(&self) -> Vec<String> {
        self.lock().lines.clone()
    }

    /// A number that differs where any line does.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.lock().lines.hash(&mut hasher);
        hasher.finish()
    }
}
