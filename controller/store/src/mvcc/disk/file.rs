//! The file: who may open it, how it comes to be, and what is done where its disk has not kept what it was given.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use redb::StorageBackend;
use rustix::fs::{Advice, fadvise, fstatvfs};

/// Why a store's file could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{} is in use by {}", path.display(), holder(*process, path))]
    InUse {
        /// The file.
        path: PathBuf,
        /// The process that has it, where it has said so.
        process: Option<u32>,
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

fn holder(process: Option<u32>, path: &Path) -> String {
    match process {
        Some(process) => format!("process {process}; hint: stop it, or name another --data-dir"),
        None => format!("another process; hint: `fuser {}` names it", path.display()),
    }
}

/// What a store's file is kept on.
pub trait Medium: StorageBackend {
    /// How many bytes more there is room for, where that can be told.
    ///
    /// # Errors
    /// When that cannot be found out.
    fn free(&self) -> io::Result<Option<u64>>;
}

/// A store's file, open and locked.
#[derive(Debug)]
pub(super) struct StoreFile {
    file: File,
    /// Held as long as the file is open.
    _lock: File,
    /// Let go of last, for whoever waits for that.
    _open: Sender<Infallible>,
}

/// Tells when a store's file is closed, and can be opened by somebody else.
#[derive(Debug)]
pub struct Closed(Receiver<Infallible>);

impl Closed {
    /// Waits for that so long at most; whether it is.
    pub fn wait(self, most: Duration) -> bool {
        self.0.recv_timeout(most) == Err(RecvTimeoutError::Disconnected)
    }
}

impl StoreFile {
    fn new(file: File, lock: File) -> (Self, Closed) {
        let (open, closed) = mpsc::channel();
        (Self { file, _lock: lock, _open: open }, Closed(closed))
    }

    /// Opens the file; where there is none, `fill` makes it, and it has its name only once it is whole.
    pub(super) fn open(
        path: &Path,
        fill: impl FnOnce(StoreFile) -> Result<(), OpenError>,
    ) -> Result<(StoreFile, Closed), OpenError> {
        let fails = |error| OpenError::Io { path: path.to_owned(), error };
        let lock = lock(path)?;
        if !path.try_exists().map_err(fails)? {
            make(path, lock.try_clone().map_err(fails)?, fill)?;
        }
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(fails)?;
        // A copy that somebody has put there may be readable by all; what is in it is not for all.
        file.set_permissions(Permissions::from_mode(0o600)).map_err(fails)?;
        // Should somebody have taken the lock's file away.
        match file.try_lock() {
            Ok(()) => Ok(StoreFile::new(file, lock)),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: path.to_owned(), process: None }),
            Err(TryLockError::Error(error)) => Err(fails(error)),
        }
    }

    /// Makes the file where there is none; whether that was so. Where `fill` fails nothing is left.
    pub(super) fn create<Made, Failed: From<OpenError>>(
        path: &Path,
        fill: impl FnOnce(StoreFile) -> Result<Made, Failed>,
    ) -> Result<Option<Made>, Failed> {
        let lock = lock(path)?;
        if path.try_exists().map_err(|error| OpenError::Io { path: path.to_owned(), error })? {
            return Ok(None);
        }
        make(path, lock, fill).map(Some)
    }
}

fn make<Made, Failed: From<OpenError>>(
    path: &Path,
    lock: File,
    fill: impl FnOnce(StoreFile) -> Result<Made, Failed>,
) -> Result<Made, Failed> {
    let fails = |error| OpenError::Io { path: path.to_owned(), error };
    let unfinished = beside(path, ".new");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&unfinished);
    let (file, _) = StoreFile::new(file.map_err(fails)?, lock);
    let made = fill(file).inspect_err(|_| {
        // What cannot be removed now is overwritten the next time.
        let _ = fs::remove_file(&unfinished);
    })?;
    fs::rename(&unfinished, path).and_then(|()| File::open(folder_of(path))?.sync_all()).map_err(fails)?;
    Ok(made)
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// A folder for the owner only, where there is none.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

/// Makes sure that nobody else opens or makes the file, as long as the answer lives. The kernel's lock decides; the number that
/// is in it only informs.
fn lock(path: &Path) -> Result<File, OpenError> {
    let name = beside(path, ".lock");
    let fails = |error| OpenError::Io { path: name.clone(), error };
    make_folder(folder_of(path)).map_err(fails)?;
    let lock = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&name);
    let mut lock = lock.map_err(fails)?;
    match lock.try_lock() {
        Ok(()) => {
            lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(fails)?;
            Ok(lock)
        }
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let process = lock.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            Err(OpenError::InUse { path: path.to_owned(), process })
        }
        Err(TryLockError::Error(error)) => Err(fails(error)),
    }
}

impl Medium for StoreFile {
    fn free(&self) -> io::Result<Option<u64>> {
        let disk = fstatvfs(&self.file)?;
        Ok(Some(disk.f_bavail.saturating_mul(disk.f_frsize)))
    }
}

impl StorageBackend for StoreFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data().inspect_err(|_| {
            // What the kernel could not write it takes for written from then on (fsync(2)), and a later flush says
            // nothing of it. So its copy is let go of, and who reads next reads what the disk has.
            let _ = fadvise(&self.file, 0, None, Advice::DontNeed);
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }
}
