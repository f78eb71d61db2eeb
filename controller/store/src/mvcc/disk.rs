//! The history on a disk: one file of redb.
//!
//! ```text
//! changes   revision -> checksum, created, version, lease, author, key
//! values    revision -> checksum, value
//! leases    number   -> seconds
//! state     name     -> number
//! ```
//! Values lie apart from the rest, so that a start reads little. Each commit is one flush. redb checks its pages only
//! after a crash; so each record carries a checksum of its own, and damage is told wherever it is read.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use redb::backends::FileBackend;
use redb::{Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageError, TableDefinition};

use super::backend::{Backend, BackendError, Batch, Meta, Piece, State};
use super::model::{Change, LeaseNumber, Revision};

const CHANGES: TableDefinition<'_, [u8; 16], &[u8]> = TableDefinition::new("changes");
const VALUES: TableDefinition<'_, [u8; 16], &[u8]> = TableDefinition::new("values");
const LEASES: TableDefinition<'_, i64, i64> = TableDefinition::new("leases");
const STATE: TableDefinition<'_, &str, i64> = TableDefinition::new("state");

/// What the file's layout is called; another one is refused.
const LAYOUT: i64 = 1;

/// Bytes of the file that are kept in memory. The hot part of a store of 10,000 declarations is a tenth of that; the
/// kernel keeps the rest at hand.
const CACHE: usize = 16 << 20;

/// Why a store's file could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{} is in use by another process; hint: `fuser {}` names it", path.display(), path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It is not a store, of another version, or damaged.
    #[error("{}: {what}; nothing was changed; hint: restore a backup, or name another --data-dir", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How that shows.
        what: String,
    },
    /// It cannot be opened.
    #[error("cannot open {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        error: io::Error,
    },
}

/// Keeps the history in a file.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    /// Nothing while it could not be opened again after it had failed.
    database: RwLock<Option<Database>>,
}

impl Disk {
    /// Opens the file, and makes it where there is none (readable by its owner only).
    ///
    /// # Errors
    /// [`OpenError`]. What is there stays as it is.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let database = open(path)?;
        Ok(Self { path: path.to_owned(), database: RwLock::new(Some(database)) })
    }

    /// Runs with the open file. After an error of the disk redb refuses everything until the file is opened anew.
    fn with<T>(&self, run: impl Fn(&Database) -> Result<T, redb::Error>) -> Result<T, BackendError> {
        let failed = {
            let database = self.database();
            match database.as_ref().map(&run) {
                Some(Ok(done)) => return Ok(done),
                Some(Err(error)) => Some(error),
                None => None,
            }
        };
        let again = self.reopen();
        match (failed, again) {
            (Some(error), _) => Err(backend_error(error)),
            (None, Err(error)) => Err(BackendError::Io(error.to_string())),
            (None, Ok(())) => match self.database().as_ref().map(run) {
                Some(done) => done.map_err(backend_error),
                None => Err(BackendError::Io(format!("{} is closed", self.path.display()))),
            },
        }
    }

    fn database(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn reopen(&self) -> Result<(), OpenError> {
        let mut held = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // Closed first: it has one opener only, ourselves included.
        *held = None;
        *held = Some(open(&self.path)?);
        Ok(())
    }
}

fn open(path: &Path) -> Result<Database, OpenError> {
    let fails = |error| OpenError::Io { path: path.to_owned(), error };
    let damaged = |what: String| OpenError::Damaged { path: path.to_owned(), what };
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.map_err(fails)?;
    let opened =
        FileBackend::new(file).and_then(|file| Database::builder().set_cache_size(CACHE).create_with_backend(file));
    let database = opened.map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path: path.to_owned() },
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() != io::ErrorKind::InvalidData => fails(error),
        other => damaged(other.to_string()),
    })?;
    match prepare(&database) {
        Ok(LAYOUT) => Ok(database),
        Ok(other) => Err(damaged(format!("its layout is {other}, and this program knows {LAYOUT}"))),
        Err(error) => match backend_error(error) {
            BackendError::Damaged(what) => Err(damaged(what)),
            other => Err(fails(io::Error::other(other))),
        },
    }
}

/// Makes what a new file has; its layout.
fn prepare(database: &Database) -> Result<i64, redb::Error> {
    let known = database.begin_read()?;
    if let Ok(state) = known.open_table(STATE)
        && let Some(layout) = state.get("layout")?
    {
        return Ok(layout.value());
    }
    let write = database.begin_write()?;
    write.open_table(CHANGES)?;
    write.open_table(VALUES)?;
    write.open_table(LEASES)?;
    write.open_table(STATE)?.insert("layout", LAYOUT)?;
    write.commit()?;
    Ok(LAYOUT)
}

impl Backend for Disk {
    fn load(&self, each: &mut dyn FnMut(Revision, Meta)) -> Result<State, BackendError> {
        let state = self.with(|database| {
            let read = database.begin_read()?;
            let state = read.open_table(STATE)?;
            let number = |name: &str| Ok::<_, redb::Error>(state.get(name)?.map_or(0, |number| number.value()));
            let mut found =
                State { revision: number("revision")?, compacted: number("compacted")?, ..State::default() };
            for entry in read.open_table(LEASES)?.iter()? {
                let (number, seconds) = entry?;
                found.leases.insert(LeaseNumber(number.value()), seconds.value());
            }
            Ok(found)
        })?;
        let changes = self.with(|database| Ok(database.begin_read()?.open_table(CHANGES)?))?;
        for entry in changes.iter().map_err(storage_error)? {
            let (at, meta) = entry.map_err(storage_error)?;
            let at = revision(at.value());
            each(at, decode(at, meta.value())?);
        }
        Ok(state)
    }

    fn commit(&self, batch: &Batch) -> Result<(), BackendError> {
        self.with(|database| {
            let write = database.begin_write()?;
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
            write.commit()?;
            Ok(())
        })
    }

    fn values(&self, at: &[Revision]) -> Result<Vec<Bytes>, BackendError> {
        let table = self.with(|database| Ok(database.begin_read()?.open_table(VALUES)?))?;
        let mut values = Vec::with_capacity(at.len());
        for at in at {
            let sealed = table.get(place(*at)).map_err(storage_error)?;
            let sealed = sealed.ok_or(BackendError::Gone(*at))?;
            values.push(Bytes::copy_from_slice(unseal(*at, sealed.value())?));
        }
        Ok(values)
    }

    fn changes(&self, from: i64, most: usize, bytes: usize) -> Result<Vec<Change>, BackendError> {
        let read = self.with(|database| Ok(database.begin_read()?))?;
        let (changes, values) = (
            read.open_table(CHANGES).map_err(|error| backend_error(error.into()))?,
            read.open_table(VALUES).map_err(|error| backend_error(error.into()))?,
        );
        let mut piece = Piece::new(most, bytes);
        for entry in changes.range(place(Revision { main: from, sub: 0 })..).map_err(storage_error)? {
            let (at, meta) = entry.map_err(storage_error)?;
            let at = revision(at.value());
            if piece.ends_before(at) {
                break;
            }
            let meta = decode(at, meta.value())?;
            let value = match values.get(place(at)).map_err(storage_error)? {
                Some(sealed) => Bytes::copy_from_slice(unseal(at, sealed.value())?),
                None => Bytes::new(),
            };
            piece.push(meta.into_change(at, value));
        }
        Ok(piece.changes)
    }
}

/// A revision as a key: in order.
fn place(at: Revision) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&at.main.to_be_bytes());
    key[8..].copy_from_slice(&at.sub.to_be_bytes());
    key
}

fn revision(key: [u8; 16]) -> Revision {
    let (main, sub) = key.split_at(8);
    let number = |bytes: &[u8]| i64::from_be_bytes(bytes.try_into().expect("eight bytes"));
    Revision { main: number(main), sub: number(sub) }
}

/// The checksum of a record, its place included.
fn checksum(at: Revision, record: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&place(at));
    hasher.update(record);
    hasher.finalize().to_le_bytes()
}

fn seal(at: Revision, record: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(record.len() + 4);
    sealed.extend_from_slice(&checksum(at, record));
    sealed.extend_from_slice(record);
    sealed
}

fn unseal(at: Revision, sealed: &[u8]) -> Result<&[u8], BackendError> {
    match sealed.split_first_chunk::<4>() {
        Some((sum, record)) if *sum == checksum(at, record) => Ok(record),
        _ => Err(damaged(at, "has another checksum than was written")),
    }
}

fn encode(at: Revision, meta: &Meta) -> Vec<u8> {
    let author = meta.author.as_deref().unwrap_or_default().as_bytes();
    let mut record = Vec::with_capacity(26 + author.len() + meta.key.len());
    for number in [meta.created, meta.version, meta.lease.0] {
        record.extend_from_slice(&number.to_le_bytes());
    }
    // A certificate's name has 64 characters at most (RFC 5280, ub-common-name).
    let length = u16::try_from(author.len()).unwrap_or(0);
    record.extend_from_slice(&length.to_le_bytes());
    record.extend_from_slice(&author[..usize::from(length)]);
    record.extend_from_slice(&meta.key);
    seal(at, &record)
}

fn decode(at: Revision, sealed: &[u8]) -> Result<Meta, BackendError> {
    let record = unseal(at, sealed)?;
    let short = || damaged(at, "is too short");
    let (numbers, rest) = record.split_first_chunk::<24>().ok_or_else(short)?;
    let (length, rest) = rest.split_first_chunk::<2>().ok_or_else(short)?;
    let (author, key) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length))).ok_or_else(short)?;
    let number = |at: usize| i64::from_le_bytes(numbers[at..at + 8].try_into().expect("eight bytes"));
    let author = std::str::from_utf8(author).map_err(|_| damaged(at, "names nobody"))?;
    Ok(Meta {
        key: Bytes::copy_from_slice(key),
        created: number(0),
        version: number(8),
        lease: LeaseNumber(number(16)),
        author: (!author.is_empty()).then(|| author.into()),
    })
}

fn damaged(at: Revision, how: &str) -> BackendError {
    BackendError::Damaged(format!("revision {}.{} {how}", at.main, at.sub))
}

fn storage_error(error: StorageError) -> BackendError {
    backend_error(error.into())
}

fn backend_error(error: redb::Error) -> BackendError {
    match error {
        redb::Error::Corrupted(what) => BackendError::Damaged(what),
        redb::Error::Io(error) if is_full(&error) => BackendError::NoSpace(error.to_string()),
        other => BackendError::Io(other.to_string()),
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}
