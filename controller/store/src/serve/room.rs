//! How much room the store takes, told to everybody who connects and found out once a minute.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::mvcc::{BackendError, Engine, Size};

/// Counting what is used reads the whole file, which takes a tenth of a second where that is large.
const FOUND_OUT_EVERY: Duration = Duration::from_secs(60);

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct Room {
    used: Mutex<Option<(u64, Instant)>>,
    counting: AtomicBool,
}

impl Room {
    /// The room that a store takes. What is used is of the last minute, and all of it until it is counted.
    ///
    /// # Errors
    /// When it cannot be told.
    pub(super) fn of(self: &Arc<Self>, engine: &Arc<Engine>) -> Result<Size, BackendError> {
        let file = engine.file_bytes()?;
        let known = *self.used.lock().expect("no panic happens under this lock");
        let old = known.is_none_or(|(_, at)| at.elapsed() >= FOUND_OUT_EVERY);
        if old && !self.counting.swap(true, Ordering::Relaxed) {
            let (room, engine) = (Arc::clone(self), Arc::clone(engine));
            tokio::task::spawn_blocking(move || room.count(&engine));
        }
        Ok(Size { file, used: known.map_or(file, |(used, _)| used.min(file)) })
    }

    fn count(&self, engine: &Engine) {
        match engine.room() {
            Ok(Size { used, .. }) => {
                *self.used.lock().expect("no panic happens under this lock") = Some((used, Instant::now()));
            }
            Err(error) => tracing::warn!(%error, "what the store uses cannot be counted"),
        }
        self.counting.store(false, Ordering::Relaxed);
    }
}
