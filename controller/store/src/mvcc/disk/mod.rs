//! The history on a disk: one file of redb.
//!
//! ```text
//! changes   revision -> checksum, created, version, lease, author, key, value where it is small
//! values    revision -> checksum, value where it is large
//! leases    number   -> seconds
//! state     name     -> number
//! ```
//! Large values lie apart from the rest, so that a start reads little; small ones do not, so that a put writes few pages.
//! Each commit is one flush. redb checks its pages only
//! when a file is opened; so each record carries a checksum of its own, and damage is told wherever it is read.
//!
//! A commit that failed may be in the file all the same: all of it, or nothing. Until the next one nobody sees it, for
//! who reads knows the last revision that was acknowledged; and the next one begins with taking it out.

mod error;
mod file;
mod handle;
mod opening;
mod overlay;
mod record;
mod view;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use redb::{Database, ReadableDatabase as _, TableDefinition, WriteTransaction};

use self::file::StoreFile;
pub use self::file::{Closed, Medium, OpenError};
use self::handle::Handle;
use self::opening::{LAYOUT, Opened};
use self::record::{decode, encode, is_apart, place, revision, seal, unseal};
use self::view::Reading;
use super::backend::{Backend, BackendError, Batch, DefragmentError, Meta, Size, State, View};
use super::model::{Change, Revision};
use super::snapshot::{RestoreError, Restored, restore};

const CHANGES: TableDefinition<'_, [u8; 16], &[u8]> = TableDefinition::new("changes");
const VALUES: TableDefinition<'_, [u8; 16], &[u8]> = TableDefinition::new("values");
const LEASES: TableDefinition<'_, i64, i64> = TableDefinition::new("leases");
const STATE: TableDefinition<'_, &str, i64> = TableDefinition::new("state");

/// Bytes on the disk that no put may take, so that there is a way out where it is full: redb writes anew what it
/// changes, also where that is less than before. The largest deletion, of everything in a store of 10,000 keys, needs a
/// tenth of that.
const KEPT_FREE: u64 = 16 << 20;

/// Keeps the history in a file.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    file: Arc<dyn Medium>,
    handle: Handle,
    acknowledged: Mutex<Acknowledged>,
}

/// What was acknowledged, whatever the file has.
#[derive(Debug)]
struct Acknowledged {
    /// The last change's revision.
    last: i64,
    state: State,
    /// Whether the file may have something beside it.
    in_doubt: bool,
    /// Whether the file has the layout that is written.
    is_latest: bool,
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
        self.is_latest = true;
    }
}

impl Disk {
    /// Opens the file, and makes it where there is none (readable by its owner only, its folder too).
    ///
    /// # Errors
    /// [`OpenError`]. What is there stays as it is.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::open_and_tell(path).map(|(disk, _)| disk)
    }

    /// As [`Disk::open`], and with it what tells when the file is closed again: once this, and whatever reads it, is
    /// dropped.
    ///
    /// # Errors
    /// [`OpenError`]. What is there stays as it is.
    pub fn open_and_tell(path: &Path) -> Result<(Self, Closed), OpenError> {
        let (file, closed) = StoreFile::open(path, |file| opening::fill(Arc::new(file), path))?;
        Ok((Self::of(Arc::new(file), path)?, closed))
    }

    /// As [`Disk::open`], on anything that is like a file; an empty one is a new store. `name` is what errors call it.
    /// Nobody else may have it.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn on(file: Arc<dyn Medium>, name: &Path) -> Result<Self, OpenError> {
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

    fn of(file: Arc<dyn Medium>, path: &Path) -> Result<Self, OpenError> {
        let Opened { database, last, state, is_latest } = opening::open_store(&file, path)?;
        let handle = Handle::new(Arc::clone(&file), database);
        let acknowledged = Mutex::new(Acknowledged { last, state, in_doubt: false, is_latest });
        Ok(Self { path: path.to_owned(), file, handle, acknowledged })
    }

    fn acknowledged(&self) -> MutexGuard<'_, Acknowledged> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses what would take room that is kept.
    fn check_room(&self, batch: &Batch) -> Result<(), BackendError> {
        let deletes_only = batch.changes.values().all(|(meta, _)| meta.version == 0);
        match self.file.free()? {
            Some(free) if free < KEPT_FREE && !deletes_only => Err(BackendError::NoSpace(format!(
                "{free} bytes are free on its disk, of which {KEPT_FREE} are kept for deleting and for forgetting history"
            ))),
            _ => Ok(()),
        }
    }
}

impl Backend for Disk {
    fn load(&self, each: &mut dyn FnMut(Revision, Meta)) -> Result<State, BackendError> {
        let acknowledged = self.acknowledged();
        let end = place(Revision { main: acknowledged.last + 1, sub: 0 });
        self.handle.with(|database| {
            for entry in database.begin_read()?.open_table(CHANGES)?.range(..end)? {
                let (at, sealed) = entry?;
                let at = revision(at.value());
                each(at, decode(at, sealed.value())?.meta()?);
            }
            Ok(())
        })?;
        Ok(acknowledged.state.clone())
    }

    fn commit(&self, batch: &Batch) -> Result<(), BackendError> {
        let mut acknowledged = self.acknowledged();
        let written = self.check_room(batch).and_then(|()| {
            self.handle.open_to_write()?;
            let written = self.handle.with(|database| write(database, batch, &acknowledged));
            if written.is_err() {
                acknowledged.in_doubt = true;
                self.handle.open_to_read();
            }
            written
        });
        match written {
            Ok(()) => {
                acknowledged.take(batch);
                Ok(())
            }
            Err(error) => Err(error.of(&self.path)),
        }
    }

    fn values(&self, at: &[Revision]) -> Result<Vec<Bytes>, BackendError> {
        self.handle.read(|read| {
            let (changes, values) = (read.open_table(CHANGES)?, read.open_table(VALUES)?);
            let value = |at: &Revision| -> Result<Bytes, BackendError> {
                let sealed = changes.get(place(*at))?.ok_or(BackendError::Gone(*at))?;
                if let Some(value) = decode(*at, sealed.value())?.value {
                    return Ok(Bytes::copy_from_slice(value));
                }
                let sealed = values.get(place(*at))?.ok_or(BackendError::Gone(*at))?;
                Ok(Bytes::copy_from_slice(unseal(*at, sealed.value())?))
            };
            // In the order in which they lie there: so no page is read twice, however few of them are kept in memory.
            let mut order: Vec<usize> = (0..at.len()).collect();
            order.sort_unstable_by_key(|index| at[*index]);
            let mut found = vec![Bytes::new(); at.len()];
            for index in order {
                found[index] = value(&at[index])?;
            }
            Ok(found)
        })
    }

    fn changes(&self, from: i64, most: usize, bytes: usize) -> Result<Vec<Change>, BackendError> {
        self.handle.read(|read| view::changes(read, from, most, bytes))
    }

    fn view(&self) -> Result<Box<dyn View>, BackendError> {
        // Taken first: so nothing is written between the two.
        let acknowledged = self.acknowledged();
        let read = self.handle.with(|database| Ok(database.begin_read()?))?;
        Ok(Box::new(Reading { read, state: acknowledged.state.clone() }))
    }

    fn size(&self) -> Result<Size, BackendError> {
        Ok(Size { file: self.file_bytes()?, used: self.handle.read(view::used)? })
    }

    fn file_bytes(&self) -> Result<u64, BackendError> {
        Ok(self.file.len()?)
    }

    fn defragment(&self) -> Result<(), DefragmentError> {
        let mut acknowledged = self.acknowledged();
        self.handle.open_to_write()?;
        match self.handle.with_alone(|database| Ok(database.compact())) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(redb::CompactionError::Storage(error))) => {
                acknowledged.in_doubt = true;
                self.handle.open_to_read();
                Err(DefragmentError::Failed(BackendError::from(error).of(&self.path)))
            }
            Ok(Err(_)) => Err(DefragmentError::InUse),
            Err(error) => Err(error.into()),
        }
    }
}

fn write(database: &Database, batch: &Batch, acknowledged: &Acknowledged) -> Result<(), BackendError> {
    let write = database.begin_write()?;
    if acknowledged.in_doubt {
        settle(&write, acknowledged)?;
    }
    {
        let mut changes = write.open_table(CHANGES)?;
        for (at, (meta, value)) in &batch.changes {
            changes.insert(place(*at), &encode(*at, meta, value)[..])?;
        }
        for at in &batch.forgotten {
            changes.remove(place(*at))?;
        }
    }
    write_values(&write, batch)?;
    if !acknowledged.is_latest {
        write.open_table(STATE)?.insert("layout", LAYOUT)?;
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

/// Writes the values that lie apart, and takes out those that are forgotten.
fn write_values(write: &WriteTransaction, batch: &Batch) -> Result<(), BackendError> {
    let mut apart = batch.changes.iter().filter(|(_, (meta, value))| is_apart(meta, value)).peekable();
    if apart.peek().is_none() && batch.forgotten.is_empty() {
        return Ok(());
    }
    let mut values = write.open_table(VALUES)?;
    for (at, (_, value)) in apart {
        values.insert(place(*at), &seal(*at, value)[..])?;
    }
    for at in &batch.forgotten {
        values.remove(place(*at))?;
    }
    Ok(())
}

/// Takes out what a commit that failed has left.
fn settle(write: &WriteTransaction, acknowledged: &Acknowledged) -> Result<(), BackendError> {
    let Acknowledged { last, state: State { revision, compacted, leases }, in_doubt: _, is_latest: _ } = acknowledged;
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
