//! Making a store in an empty file, and opening one: only what is whole, and only one of ours.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use redb::{Builder, Database, ReadableDatabase as _, ReadableTable as _, StorageBackend};

use super::file::{Medium, OpenError};
use super::overlay::{Overlay, Through};
use super::record::revision;
use super::{CHANGES, LEASES, STATE, VALUES};
use crate::mvcc::backend::{BackendError, State};
use crate::mvcc::model::LeaseNumber;

/// What the layout is called that is written.
pub(super) const LAYOUT: i64 = 2;

/// The layout before, in which every value lies apart: it is read as it is, and the first write makes it the latest. Any
/// other is refused.
const BEFORE: i64 = 1;

/// A store that was opened.
pub(super) struct Opened {
    pub(super) database: Database,
    /// Its last change's revision.
    pub(super) last: i64,
    /// What there is beside changes.
    pub(super) state: State,
    /// Whether it has the layout that is written.
    pub(super) is_latest: bool,
}

/// Bytes of the file that are kept in memory. The hot part of a store of 10,000 declarations is a fifth of that; the
/// kernel keeps the rest at hand.
const CACHE: usize = 8 << 20;

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE);
    builder
}

/// redb's handle of a file that was opened before.
pub(super) fn database(file: impl StorageBackend) -> Result<Database, BackendError> {
    unless_it_panics(|| Ok(builder().create_with_backend(file)?))
}

/// Makes a store in an empty file.
pub(super) fn fill(file: Arc<dyn Medium>, path: &Path) -> Result<(), OpenError> {
    let made = builder().create_with_backend(Through(file)).map_err(BackendError::from).and_then(|database| {
        let write = database.begin_write()?;
        write.open_table(CHANGES)?;
        write.open_table(VALUES)?;
        write.open_table(LEASES)?;
        write.open_table(STATE)?.insert("layout", LAYOUT)?;
        Ok(write.commit()?)
    });
    made.map_err(|error| told(error, path))
}

/// Opens a store.
///
/// Whether it is whole is found out before anything is written: redb would repair it, and repairs damage by going back
/// to the commit before.
pub(super) fn open_store(file: &Arc<dyn Medium>, path: &Path) -> Result<Opened, OpenError> {
    let opened = (|| {
        if file.len()? == 0 {
            return Err(BackendError::Damaged("it is empty, which a store never is".to_owned()));
        }
        let trial = Overlay::new(Arc::clone(file))?;
        let opened = unless_it_panics(|| {
            let database = builder().set_check_integrity_on_open(true).create_with_backend(trial.clone())?;
            let found = look_at(&database)?;
            Ok((database, found))
        })?;
        match trial.let_through() {
            Ok(()) => Ok(opened),
            // As on a full disk. What redb does without having looked at everything may need less.
            Err(_) => {
                let (trial, found) = opened;
                drop(trial);
                Ok((database(Through(Arc::clone(file)))?, found))
            }
        }
    })();
    let (database, (last, state, is_latest)) = opened.map_err(|error| told(error, path))?;
    Ok(Opened { database, last, state, is_latest })
}

/// redb says that it may panic on a damaged file.
fn unless_it_panics<T>(open: impl FnOnce() -> Result<T, BackendError>) -> Result<T, BackendError> {
    let panicked = |_| Err(BackendError::Damaged("redb cannot make anything of it".to_owned()));
    // Nothing that it has touched is used afterwards.
    catch_unwind(AssertUnwindSafe(open)).unwrap_or_else(panicked)
}

fn look_at(database: &Database) -> Result<(i64, State, bool), BackendError> {
    let read = database.begin_read()?;
    let state = read.open_table(STATE)?;
    let number = |name: &str| Ok::<_, BackendError>(state.get(name)?.map(|number| number.value()));
    let is_latest = match number("layout")? {
        Some(LAYOUT) => true,
        Some(BEFORE) => false,
        Some(other) => {
            return Err(BackendError::Damaged(format!("its layout is {other}, and this program knows {LAYOUT}")));
        }
        None => return Err(BackendError::Damaged("it does not say which layout it has".to_owned())),
    };
    let last = read.open_table(CHANGES)?.last()?.map_or(0, |(at, _)| revision(at.value()).main);
    read.open_table(VALUES)?;
    let mut leases = BTreeMap::new();
    for entry in read.open_table(LEASES)?.iter()? {
        let (number, seconds) = entry?;
        leases.insert(LeaseNumber(number.value()), seconds.value());
    }
    let (revision, compacted) = (number("revision")?.unwrap_or_default(), number("compacted")?.unwrap_or_default());
    Ok((last, State { revision, compacted, leases }, is_latest))
}

fn told(error: BackendError, path: &Path) -> OpenError {
    let path = path.to_owned();
    match error {
        BackendError::Damaged(what) => OpenError::Damaged { path, what },
        other => OpenError::Io { path, error: io::Error::other(other) },
    }
}
