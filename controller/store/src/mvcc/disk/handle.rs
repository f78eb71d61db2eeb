//! redb's handle of the file, and another one in its place where it is of no use any more.

use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread;
use std::time::{Duration, Instant};

use redb::{Database, ReadTransaction, ReadableDatabase as _};

use super::file::Medium;
use super::opening::database;
use super::overlay::{Overlay, Through};
use crate::mvcc::backend::BackendError;

/// How long a write waits at most before it tries a disk again that has failed, so that reads have their time too:
/// opening a file anew reads it whole, some hundred megabytes a second.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// After an error of the disk redb refuses everything, and the file has to be opened anew.
#[derive(Debug)]
pub(super) struct Handle {
    file: Arc<dyn Medium>,
    opened: RwLock<Opened>,
    /// When the file was last opened anew, and how long that took.
    pause: Mutex<Option<(Instant, Duration)>>,
}

#[derive(Debug)]
struct Opened {
    /// Nothing where it could not even be read.
    database: Option<Database>,
    /// Whether it is written through to the file; where not, it is only read.
    writable: bool,
    /// How many there were before.
    number: u64,
}

impl Handle {
    pub(super) fn new(file: Arc<dyn Medium>, database: Database) -> Self {
        let opened = RwLock::new(Opened { database: Some(database), writable: true, number: 0 });
        Self { file, opened, pause: Mutex::new(None) }
    }

    /// Runs with what is in the file. Where that fails of the disk, once more with the file opened anew.
    pub(super) fn read<T>(&self, run: impl Fn(&ReadTransaction) -> Result<T, BackendError>) -> Result<T, BackendError> {
        let number = {
            let opened = self.shared();
            match with(&opened, |database| run(&database.begin_read()?)) {
                Err(BackendError::Io(_) | BackendError::NoSpace(_)) => opened.number,
                done => return done,
            }
        };
        let mut opened = self.alone();
        // Somebody else may have done it.
        if opened.number == number {
            let _ = self.reopen(&mut opened, false);
        }
        drop(opened);
        self.with(|database| run(&database.begin_read()?))
    }

    /// Runs beside others.
    pub(super) fn with<T>(&self, run: impl FnOnce(&Database) -> Result<T, BackendError>) -> Result<T, BackendError> {
        with(&self.shared(), run)
    }

    /// Runs while nobody else does.
    pub(super) fn with_alone<T>(
        &self,
        run: impl FnOnce(&mut Database) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        self.alone().database.as_mut().map_or_else(|| Err(closed()), run)
    }

    /// A write has failed: what is in the file is only read, until the next one.
    pub(super) fn open_to_read(&self) {
        let _ = self.reopen(&mut self.alone(), false);
    }

    /// Makes sure that it can be written to, as far as can be told.
    pub(super) fn open_to_write(&self) -> Result<(), BackendError> {
        if self.shared().writable {
            return Ok(());
        }
        let paused = *self.pause.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((since, took)) = paused {
            thread::sleep(took.min(LONGEST_PAUSE).saturating_sub(since.elapsed()));
        }
        let mut opened = self.alone();
        let reopened = self.reopen(&mut opened, true);
        if reopened.is_err() {
            let _ = self.reopen(&mut opened, false);
        }
        reopened
    }

    fn reopen(&self, opened: &mut Opened, writable: bool) -> Result<(), BackendError> {
        let begun = Instant::now();
        // The one before is closed first.
        *opened = Opened { database: None, writable: false, number: opened.number + 1 };
        let file = Arc::clone(&self.file);
        let again = match writable {
            true => database(Through(file)),
            false => Overlay::new(file).map_err(BackendError::from).and_then(database),
        };
        *self.pause.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), begun.elapsed()));
        let again =
            again.inspect_err(|error| tracing::warn!(%error, writable, "the store's file cannot be opened anew"))?;
        *opened = Opened { database: Some(again), writable, number: opened.number };
        Ok(())
    }

    fn shared(&self) -> RwLockReadGuard<'_, Opened> {
        self.opened.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn alone(&self) -> RwLockWriteGuard<'_, Opened> {
        self.opened.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn with<T>(opened: &Opened, run: impl FnOnce(&Database) -> Result<T, BackendError>) -> Result<T, BackendError> {
    opened.database.as_ref().map_or_else(|| Err(closed()), run)
}

fn closed() -> BackendError {
    BackendError::Io("the file cannot be read".to_owned())
}
