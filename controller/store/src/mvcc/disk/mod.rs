//! The history on a disk: one file of redb.
//!
//! ```text
//! changes   revision -> checksum, created, version, lease, author, key
//! values    revision -> checksum, value
//! leases    number   -> seconds
//! state     name     -> number
//! ```
//! Values lie apart from the rest, so that a start reads little. Each commit is one flush. redb checks its pages only
//! when a file is opened; so each record carries a checksum of its own, and damage is told wherever it is read.
//!
//! A commit that failed may be in the file all the same: all of it, or nothing. Until the next one nobody sees it, for
//! who reads knows the last revision that was acknowledged; and the next one begins with taking it out.

mod file;
mod opening;
mod overlay;
mod record;
mod view;

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use redb::{Database, ReadTransaction, ReadableDatabase as _, StorageBackend, TableDefinition, WriteTransaction};

pub use self::file::OpenError;
use self::file::StoreFile;
use self::overlay::{Overlay, Through};
use self::record::{decode, encode, place, revision, seal, unseal};
use self::view::Reading;
use super::backend::{Backend, BackendError, Batch, DefragmentError, Meta, Size, State, View};
use super::model::{Change, Revision};
use super::snapshot::{RestoreError, Restored, restore};

const CHANGES: TableDefinition<'_, [u8; 16], &[u8]> = TableDefinition::new("changes");
const VALUES: TableDefinition<'_, [u8; 16], &[u8]> = TableDefinition::new("values");
const LEASES: TableDefinition<'_, i64, i64> = TableDefinition::new("leases");
const STATE: TableDefinition<'_, &str, i64> = TableDefinition::new("state");

/// Keeps the history in a file.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    file: Arc<dyn StorageBackend>,
    opened: RwLock<Opened>,
    acknowledged: Mutex<Acknowledged>,
}

/// redb's handle of the file. After an error of the disk it refuses everything, and another one is made.
#[derive(Debug, Default)]
struct Opened {
    /// Nothing where it could not even be read.
    database: Option<Database>,
    /// Whether it is written through to the file; where not, it is only read.
    writable: bool,
    /// How many there were before.
    number: u64,
}

/// What was acknowledged, whatever the file has.
#[derive(Debug)]
struct Acknowledged {
    /// The last change's revision.
    last: i64,
    state: State,
    /// Whether the file may have something beside it.
    in_doubt: bool,
}

impl Acknowledged {
    fn take(&mut self, batch: &Batch) {
        if let Some((last, _)) = batch.changes.last_key_value() {
            self.last = last.main;
        }
        for (number, seconds) in &batch.leases {
            match seconds {
                Some(seconds) => self.state.leases.insert(*number, *seconds),
                None => self.state.leases.remove(number),
            };
        }
        if let Some((compacted, revision)) = batch.compacted {
            (self.state.compacted, self.state.revision) = (compacted, revision);
        }
        self.in_doubt = false;
    }
}

impl Disk {
    /// Opens the file, and makes it where there is none (readable by its owner only, its folder too).
    ///
    /// # Errors
    /// [`OpenError`]. What is there stays as it is.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let file = StoreFile::open(path, |file| opening::fill(Arc::new(file), path))?;
        Self::of(Arc::new(file), path)
    }

    /// As [`Disk::open`], on anything that is like a file; an empty one is a new store. `name` is what errors call it.
    /// Nobody else may have it.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn on(file: Arc<dyn StorageBackend>, name: &Path) -> Result<Self, OpenError> {
        if file.len().map_err(|error| OpenError::Io { path: name.to_owned(), error })? == 0 {
            opening::fill(Arc::clone(&file), name)?;
        }
        Self::of(file, name)
    }

    /// Makes a store of a copy, where there is none. It has its name only once it is known to be whole.
    ///
    /// # Errors
    /// [`RestoreError`]. Nothing is left of it then.
    pub fn restore(path: &Path, from: &mut dyn Read) -> Result<Restored, RestoreError> {
        let restored = StoreFile::create(path, |file| restore(from, &Self::on(Arc::new(file), path)?))?;
        restored.ok_or_else(|| RestoreError::Exists(path.to_owned()))
    }

    fn of(file: Arc<dyn StorageBackend>, path: &Path) -> Result<Self, OpenError> {
        let (database, last, state) = opening::open_store(&file, path)?;
        let opened = RwLock::new(Opened { database: Some(database), writable: true, number: 0 });
        let acknowledged = Mutex::new(Acknowledged { last, state, in_doubt: false });
        Ok(Self { path: path.to_owned(), file, opened, acknowledged })
    }

    /// Runs with what is in the file. Where that fails of the disk, once more with the file opened anew.
    fn read<T>(&self, run: impl Fn(&ReadTransaction) -> Result<T, BackendError>) -> Result<T, BackendError> {
        let number = {
            let opened = self.opened();
            match self.with(&opened, |database| run(&database.begin_read()?)) {
                Err(BackendError::Io(_) | BackendError::NoSpace(_)) => opened.number,
                done => return done,
            }
        };
        self.reopen_to_read(number);
        self.with(&self.opened(), |database| run(&database.begin_read()?))
    }

    fn with<T>(
        &self,
        opened: &Opened,
        run: impl FnOnce(&Database) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        match &opened.database {
            Some(database) => run(database),
            None => Err(BackendError::Io(format!("{} cannot be read", self.path.display()))),
        }
    }

    fn opened(&self) -> RwLockReadGuard<'_, Opened> {
        self.opened.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn acknowledged(&self) -> MutexGuard<'_, Acknowledged> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts another handle in the place of one that is of no use any more, unless that has been done.
    fn reopen_to_read(&self, number: u64) {
        let mut opened = self.opened.write().unwrap_or_else(PoisonError::into_inner);
        if opened.number == number {
            self.reopen(&mut opened, false);
        }
    }

    fn reopen_to_write(&self) -> Result<(), BackendError> {
        let mut opened = self.opened.write().unwrap_or_else(PoisonError::into_inner);
        if opened.writable {
            return Ok(());
        }
        let failed = self.reopen(&mut opened, true);
        if failed.is_some() {
            self.reopen(&mut opened, false);
        }
        failed.map_or(Ok(()), Err)
    }

    fn reopen(&self, opened: &mut Opened, writable: bool) -> Option<BackendError> {
        // The one before is closed first.
        *opened = Opened { database: None, writable, number: opened.number + 1 };
        let file = Arc::clone(&self.file);
        let database = match writable {
            true => opening::database(Through(file)),
            false => Overlay::new(file).map_err(BackendError::from).and_then(opening::database),
        };
        match database {
            Ok(database) => {
                opened.database = Some(database);
                None
            }
            Err(error) => {
                tracing::warn!(file = %self.path.display(), %error, "the store's file could not be opened anew");
                opened.writable = false;
                Some(error)
            }
        }
    }
}

impl Backend for Disk {
    fn load(&self, each: &mut dyn FnMut(Revision, Meta)) -> Result<State, BackendError> {
        let acknowledged = self.acknowledged();
        let end = place(Revision { main: acknowledged.last + 1, sub: 0 });
        self.with(&self.opened(), |database| {
            for entry in database.begin_read()?.open_table(CHANGES)?.range(..end)? {
                let (at, meta) = entry?;
                let at = revision(at.value());
                each(at, decode(at, meta.value())?);
            }
            Ok(())
        })?;
        Ok(acknowledged.state.clone())
    }

    fn commit(&self, batch: &Batch) -> Result<(), BackendError> {
        let mut acknowledged = self.acknowledged();
        self.reopen_to_write()?;
        let (number, written) = {
            let opened = self.opened();
            (opened.number, self.with(&opened, |database| write(database, batch, &acknowledged)))
        };
        match written {
            Ok(()) => {
                acknowledged.take(batch);
                Ok(())
            }
            Err(error) => {
                acknowledged.in_doubt = true;
                self.reopen_to_read(number);
                Err(error)
            }
        }
    }

    fn values(&self, at: &[Revision]) -> Result<Vec<Bytes>, BackendError> {
        self.read(|read| {
            let table = read.open_table(VALUES)?;
            let value = |at: &Revision| {
                let sealed = table.get(place(*at))?.ok_or(BackendError::Gone(*at))?;
                Ok(Bytes::copy_from_slice(unseal(*at, sealed.value())?))
            };
            at.iter().map(value).collect()
        })
    }

    fn changes(&self, from: i64, most: usize, bytes: usize) -> Result<Vec<Change>, BackendError> {
        self.read(|read| view::changes(read, from, most, bytes))
    }

    fn view(&self) -> Result<Box<dyn View>, BackendError> {
        // Taken first: so nothing is written between the two.
        let acknowledged = self.acknowledged();
        let read = self.with(&self.opened(), |database| Ok(database.begin_read()?))?;
        Ok(Box::new(Reading { read, state: acknowledged.state.clone() }))
    }

    fn size(&self) -> Result<Size, BackendError> {
        Ok(Size { file: self.file.len()?, used: self.read(view::used)? })
    }

    fn defragment(&self) -> Result<(), DefragmentError> {
        let mut acknowledged = self.acknowledged();
        self.reopen_to_write()?;
        let compacted = {
            let mut opened = self.opened.write().unwrap_or_else(PoisonError::into_inner);
            opened.database.as_mut().map_or(Ok(false), Database::compact)
        };
        match compacted {
            Ok(_) => Ok(()),
            Err(redb::CompactionError::Storage(error)) => {
                acknowledged.in_doubt = true;
                self.reopen_to_read(self.opened().number);
                Err(DefragmentError::Failed(error.into()))
            }
            Err(_) => Err(DefragmentError::InUse),
        }
    }
}

fn write(database: &Database, batch: &Batch, acknowledged: &Acknowledged) -> Result<(), BackendError> {
    let write = database.begin_write()?;
    if acknowledged.in_doubt {
        settle(&write, acknowledged)?;
    }
    {
        let (mut changes, mut values) = (write.open_table(CHANGES)?, write.open_table(VALUES)?);
        for (at, (meta, value)) in &batch.changes {
            changes.insert(place(*at), &encode(*at, meta)[..])?;
            if meta.version > 0 {
                values.insert(place(*at), &seal(*at, value)[..])?;
            }
        }
        for at in &batch.forgotten {
            changes.remove(place(*at))?;
            values.remove(place(*at))?;
        }
    }
    if !batch.leases.is_empty() {
        let mut leases = write.open_table(LEASES)?;
        for (number, seconds) in &batch.leases {
            match seconds {
                Some(seconds) => leases.insert(number.0, seconds)?,
                None => leases.remove(number.0)?,
            };
        }
    }
    if let Some((compacted, revision)) = batch.compacted {
        let mut state = write.open_table(STATE)?;
        state.insert("compacted", compacted)?;
        state.insert("revision", revision)?;
    }
    Ok(write.commit()?)
}

/// Takes out what a commit that failed has left.
fn settle(write: &WriteTransaction, acknowledged: &Acknowledged) -> Result<(), BackendError> {
    let Acknowledged { last, state: State { revision, compacted, leases }, in_doubt: _ } = acknowledged;
    let begin = place(Revision { main: last + 1, sub: 0 });
    write.open_table(CHANGES)?.retain_in(begin.., |_, _| false)?;
    write.open_table(VALUES)?.retain_in(begin.., |_, _| false)?;
    let mut kept = write.open_table(LEASES)?;
    kept.retain(|_, _| false)?;
    for (number, seconds) in leases {
        kept.insert(number.0, seconds)?;
    }
    let mut state = write.open_table(STATE)?;
    state.insert("compacted", compacted)?;
    state.insert("revision", revision)?;
    Ok(())
}

impl From<redb::Error> for BackendError {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Corrupted(what) => Self::Damaged(what),
            redb::Error::Io(error) => error.into(),
            // No version of ours has written another one.
            redb::Error::UpgradeRequired(_) => Self::Damaged(error.to_string()),
            other => Self::Io(other.to_string()),
        }
    }
}

impl From<io::Error> for BackendError {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{FileTooLarge, InvalidData, QuotaExceeded, StorageFull, UnexpectedEof};
        match error.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => Self::NoSpace(error.to_string()),
            InvalidData | UnexpectedEof => Self::Damaged(error.to_string()),
            _ => Self::Io(error.to_string()),
        }
    }
}

impl From<redb::StorageError> for BackendError {
    fn from(error: redb::StorageError) -> Self {
        redb::Error::from(error).into()
    }
}

impl From<redb::TableError> for BackendError {
    fn from(error: redb::TableError) -> Self {
        match error {
            redb::TableError::Storage(error) => error.into(),
            // Another table than ours, or none.
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl From<redb::TransactionError> for BackendError {
    fn from(error: redb::TransactionError) -> Self {
        redb::Error::from(error).into()
    }
}

impl From<redb::CommitError> for BackendError {
    fn from(error: redb::CommitError) -> Self {
        redb::Error::from(error).into()
    }
}

impl From<redb::DatabaseError> for BackendError {
    fn from(error: redb::DatabaseError) -> Self {
        redb::Error::from(error).into()
    }
}
