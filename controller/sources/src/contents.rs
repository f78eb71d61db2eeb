//! The controller's store of files: every file once, by its digest, and the manifests that name them.
//!
//! ```text
//! files/<aa>/<sha256>     contents; <aa> is the digest's first two digits
//! manifests/<digest>      the canonical text of a release's manifest
//! incoming/               what is being written
//! ```
//! Nothing is flushed to the disk on purpose: that can take seconds on a busy machine, and a deploy would wait for it.
//! What a power cut leaves behind has the wrong size or the wrong digest, is found by it, and is fetched again from
//! its source or from a host.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::{self, Read, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, TryLockError};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, FileType};
use sha2::{Digest as _, Sha256};
use windlass_crds::digest::{FileDigest, ReleaseDigest};
use windlass_crds::manifest::{Entry, Manifest};

/// For how long what nobody names stays: from the end of a scan until its revision is recorded, and from a failed
/// attempt until the next one, which then need not read it again. Both take minutes at most.
const GRACE: Duration = Duration::from_secs(60 * 60);

/// Bytes read at once. Beyond 128 KiB nothing gets faster; below, system calls begin to show.
pub(crate) const BUFFER: usize = 256 * 1024;

/// Why the store of files could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ContentsError {
    /// What was to be stored could not be read to its end.
    #[error("cannot read what was to be stored")]
    Read(#[source] io::Error),
    /// What was to be stored is not what it was announced as; nothing was stored.
    #[error("expected contents with the digest {expected}, got {found}")]
    Different {
        /// As announced.
        expected: FileDigest,
        /// Of what came.
        found: FileDigest,
    },
    /// The data directory does not work.
    #[error("cannot use {} in the controller's data directory; hint: check its space and permissions", path.display())]
    Store {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        error: io::Error,
    },
}

/// What was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// SHA-256 of the contents.
    pub digest: FileDigest,
    /// Bytes.
    pub size: u64,
}

/// What [`Contents::retain`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sweep {
    /// Nothing, because files are being taken in right now. Ask again later.
    Busy,
    /// It looked at everything.
    Done {
        /// Files, manifests and leftovers that were removed.
        removed: usize,
        /// Their size, in bytes.
        bytes: u64,
    },
}

/// The store of files below one directory, which belongs to one process.
///
/// All of its functions block.
#[derive(Debug)]
pub struct Contents {
    directory: PathBuf,
    /// `files`, opened.
    files: File,
    /// Held for reading while files are looked up and taken in for a manifest, for writing while they are swept, so
    /// that none is removed between being found and being named.
    sweep: RwLock<()>,
}

impl Contents {
    /// Opens the store below `directory`, and makes what is missing there (readable by its owner only).
    ///
    /// # Errors
    /// [`ContentsError::Store`].
    pub fn open(directory: &Path) -> Result<Self, ContentsError> {
        for name in ["files", "manifests", "incoming"] {
            make_directory(&directory.join(name))?;
        }
        let path = directory.join("files");
        let files = File::open(&path).map_err(|error| ContentsError::Store { path, error })?;
        Ok(Self { directory: directory.to_owned(), files, sweep: RwLock::new(()) })
    }

    /// Where the contents with this digest are, or would be.
    pub fn path(&self, digest: &FileDigest) -> PathBuf {
        let mut path = self.directory.join("files");
        path.push(OsStr::from_bytes(&stored_name(digest)));
        path
    }

    /// Whether there is a file for this digest. Its contents are not looked at: see [`Contents::verify`].
    pub fn has(&self, digest: &FileDigest) -> bool {
        self.path(digest).is_file()
    }

    /// Whether there is a file for this digest, of this size.
    pub(crate) fn has_sized(&self, digest: &FileDigest, size: u64) -> bool {
        // From the open directory and without an allocation: this is asked for every file of every scan.
        let name = stored_name(digest);
        rustix::fs::statat(&self.files, &name[..], AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
            FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && u64::try_from(stat.st_size) == Ok(size)
        })
    }

    /// Stores what `reader` gives, and replaces what was stored under the same digest: it may be damaged.
    ///
    /// # Errors
    /// When reading or storing fails, and when the digest is not the expected one; nothing is stored then.
    pub fn insert(&self, mut reader: impl Read, expected: Option<&FileDigest>) -> Result<Stored, ContentsError> {
        let mut incoming = Incoming::create(&self.directory)?;
        let mut hasher = Sha256::new();
        let mut size = 0;
        for_each_chunk(&mut reader, ContentsError::Read, |chunk| {
            hasher.update(chunk);
            size += chunk.len() as u64;
            incoming.write(chunk)
        })?;
        let digest = FileDigest::finish(hasher);
        if let Some(expected) = expected.filter(|expected| **expected != digest) {
            return Err(ContentsError::Different { expected: *expected, found: digest });
        }
        let path = self.path(&digest);
        if let Some(parent) = path.parent().filter(|parent| !parent.is_dir()) {
            make_directory(parent)?;
        }
        incoming.rename(&path)?;
        Ok(Stored { digest, size })
    }

    /// Which contents that the manifest names are missing here, or have another size: each once, in order.
    pub fn missing(&self, manifest: &Manifest) -> Vec<FileDigest> {
        named(manifest)
            .into_iter()
            .filter(|(digest, size)| !self.has_sized(digest, *size))
            .map(|(digest, _)| digest)
            .collect()
    }

    /// Reads all that the manifest names, removes what is damaged, and returns what is missing then.
    ///
    /// # Errors
    /// [`ContentsError::Store`], when a damaged file cannot be removed.
    pub fn verify(&self, manifest: &Manifest) -> Result<Vec<FileDigest>, ContentsError> {
        let mut missing = Vec::new();
        for digest in named(manifest).into_keys() {
            let path = self.path(&digest);
            let found = File::open(&path).and_then(|mut file| digest_of(&mut file));
            if found.is_ok_and(|found| found == digest) {
                continue;
            }
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(ContentsError::Store { path, error });
            }
            missing.push(digest);
        }
        Ok(missing)
    }

    /// The manifest of a release; `None` when it is missing. A damaged one is removed.
    ///
    /// # Errors
    /// [`ContentsError::Store`].
    pub fn manifest(&self, digest: &ReleaseDigest) -> Result<Option<Manifest>, ContentsError> {
        let path = self.manifest_path(digest);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(ContentsError::Store { path, error }),
        };
        if ReleaseDigest::of(&text) != *digest {
            tracing::warn!(path = %path.display(), "removing a damaged manifest");
            // Otherwise it would be taken for fresh, and not be put again.
            let _ = fs::remove_file(&path);
            return Ok(None);
        }
        Ok(String::from_utf8(text).ok().and_then(|text| Manifest::from_text(&text).ok()))
    }

    /// Stores a manifest, and thereby protects what it names from [`Contents::retain`] for an hour.
    ///
    /// # Errors
    /// [`ContentsError::Store`].
    pub fn put_manifest(&self, manifest: &Manifest) -> Result<ReleaseDigest, ContentsError> {
        let text = manifest.to_text();
        let digest = ReleaseDigest::of(text.as_bytes());
        let mut incoming = Incoming::create(&self.directory)?;
        incoming.write(text.as_bytes())?;
        incoming.rename(&self.manifest_path(&digest))?;
        Ok(digest)
    }

    /// Whether the manifest is here, and protected for a good while yet, so that it need not be put again.
    pub(crate) fn is_fresh(&self, digest: &ReleaseDigest, now: SystemTime) -> bool {
        fs::symlink_metadata(self.manifest_path(digest)).is_ok_and(|metadata| {
            let age = metadata.modified().ok().and_then(|modified| now.duration_since(modified).ok());
            age.unwrap_or_default() < GRACE / 2
        })
    }

    /// Removes the manifests that are not in `keep`, the files that no remaining manifest names, and what interrupted
    /// writes left; but nothing that is younger than an hour at `now`.
    ///
    /// Never removes what a call of [`crate::Sources::release`] at the same time has found here; it rather does nothing.
    ///
    /// # Errors
    /// [`ContentsError::Store`]. What was removed until then stays removed.
    pub fn retain(&self, keep: &BTreeSet<ReleaseDigest>, now: SystemTime) -> Result<Sweep, ContentsError> {
        let _alone = match self.sweep.try_write() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(Sweep::Busy),
        };
        let mut garbage = Garbage { now, removed: 0, bytes: 0 };
        let mut kept = HashSet::new();
        for path in list(&self.directory.join("manifests"))? {
            let Some(digest) = file_name(&path).and_then(|name| name.parse::<ReleaseDigest>().ok()) else { continue };
            if keep.contains(&digest) || !garbage.remove_old(&path)? {
                kept.extend(self.manifest(&digest)?.iter().flat_map(named).map(|(digest, _)| digest));
            }
        }
        for folder in list(&self.directory.join("files"))? {
            for path in list(&folder)? {
                let digest = file_name(&path).and_then(|name| name.parse::<FileDigest>().ok());
                if digest.is_some_and(|digest| !kept.contains(&digest)) {
                    garbage.remove_old(&path)?;
                }
            }
        }
        for path in list(&self.directory.join("incoming"))? {
            garbage.remove_old(&path)?;
        }
        Ok(Sweep::Done { removed: garbage.removed, bytes: garbage.bytes })
    }

    /// Keeps [`Contents::retain`] away for as long as the guard lives.
    pub(crate) fn hold(&self) -> RwLockReadGuard<'_, ()> {
        self.sweep.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn manifest_path(&self, digest: &ReleaseDigest) -> PathBuf {
        self.directory.join("manifests").join(digest.to_string())
    }
}

/// Where contents are, below `files`: `<aa>/<sha256>`.
fn stored_name(digest: &FileDigest) -> [u8; 67] {
    let mut name = [b'/'; 67];
    name[3..].copy_from_slice(&digest.digits());
    name.copy_within(3..5, 0);
    name
}

/// The digest of all that `reader` gives.
///
/// # Errors
/// When reading fails.
pub(crate) fn digest_of(reader: &mut impl Read) -> io::Result<FileDigest> {
    let mut hasher = Sha256::new();
    for_each_chunk(
        reader,
        |error| error,
        |chunk| {
            hasher.update(chunk);
            Ok(())
        },
    )?;
    Ok(FileDigest::finish(hasher))
}

/// Reads to the end, in large pieces.
fn for_each_chunk<E>(
    reader: &mut impl Read,
    wrap: impl Fn(io::Error) -> E,
    mut each: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => each(&buffer[..length])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(wrap(error)),
        }
    }
}

/// The contents that a manifest names, with their sizes.
fn named(manifest: &Manifest) -> BTreeMap<FileDigest, u64> {
    let sizes = manifest.entries.values().filter_map(|entry| match entry {
        Entry::File { digest, size, executable: _ } => Some((*digest, *size)),
        Entry::Link { target: _ } => None,
    });
    sizes.collect()
}

/// Makes a directory that only its owner can read, and its parents.
pub(crate) fn make_directory(path: &Path) -> Result<(), ContentsError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| ContentsError::Store { path: path.to_owned(), error })
}

/// The paths in a directory.
fn list(directory: &Path) -> Result<Vec<PathBuf>, ContentsError> {
    let paths = fs::read_dir(directory).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    paths.map_err(|error| ContentsError::Store { path: directory.to_owned(), error })
}

fn file_name(path: &Path) -> Option<&str> {
    path.file_name().and_then(|name| name.to_str())
}

/// What a sweep removes, and has removed.
#[derive(Debug)]
struct Garbage {
    now: SystemTime,
    removed: usize,
    bytes: u64,
}

impl Garbage {
    /// Removes a file unless it is young; whether it did, or somebody else had.
    fn remove_old(&mut self, path: &Path) -> Result<bool, ContentsError> {
        let metadata = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(ContentsError::Store { path: path.to_owned(), error }),
        };
        let age = metadata.modified().ok().and_then(|modified| self.now.duration_since(modified).ok());
        if age.is_none_or(|age| age < GRACE) {
            return Ok(false);
        }
        match fs::remove_file(path) {
            Ok(()) => {
                self.removed += 1;
                self.bytes += metadata.len();
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(ContentsError::Store { path: path.to_owned(), error }),
        }
        Ok(true)
    }
}

/// A file that is being written; removed again unless it is renamed to where it belongs.
#[derive(Debug)]
pub(crate) struct Incoming {
    path: PathBuf,
    file: File,
    renamed: bool,
}

/// How many names for an incoming file are tried. They are random, 64 bits long: one is enough.
const NAMES: usize = 3;

impl Incoming {
    /// Begins a file in `incoming/` below `directory`.
    pub(crate) fn create(directory: &Path) -> Result<Self, ContentsError> {
        let mut tries = 0;
        loop {
            let path = directory.join("incoming").join(format!("{:016x}", RandomState::new().build_hasher().finish()));
            match OpenOptions::new().write(true).create_new(true).mode(0o400).open(&path) {
                Ok(file) => return Ok(Self { path, file, renamed: false }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tries < NAMES => tries += 1,
                Err(error) => return Err(ContentsError::Store { path, error }),
            }
        }
    }

    /// Appends.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), ContentsError> {
        self.file.write_all(bytes).map_err(|error| ContentsError::Store { path: self.path.clone(), error })
    }

    /// Ends the file, and puts it where it belongs, in the place of what is there.
    pub(crate) fn rename(mut self, path: &Path) -> Result<(), ContentsError> {
        fs::rename(&self.path, path).map_err(|error| ContentsError::Store { path: path.to_owned(), error })?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.renamed {
            // What stays behind all the same is swept later.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> (tempfile::TempDir, Contents) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let contents = Contents::open(directory.path()).expect("a store");
        (directory, contents)
    }

    fn manifest_of(contents: &[&str]) -> Manifest {
        let entries = contents.iter().map(|text| {
            let digest = FileDigest::of(text.as_bytes());
            let entry = Entry::File { digest, size: text.len() as u64, executable: false };
            (format!("file-{text}").parse().expect("a path"), entry)
        });
        Manifest { entries: entries.collect() }
    }

    fn put(contents: &Contents, texts: &[&str]) -> ReleaseDigest {
        for text in texts {
            contents.insert(text.as_bytes(), None).expect("stored");
        }
        contents.put_manifest(&manifest_of(texts)).expect("a stored manifest")
    }

    fn leftovers(directory: &tempfile::TempDir) -> usize {
        list(&directory.path().join("incoming")).expect("a directory").len()
    }

    /// Fails after giving something.
    struct Broken(usize);

    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 += 1;
            if self.0 > 2 { Err(io::Error::other("the disk is gone")) } else { Ok(buffer.len()) }
        }
    }

    #[test]
    fn what_is_stored_is_found() {
        let (directory, contents) = open();
        let stored = contents.insert(&b"abc"[..], None).expect("stored");
        assert_eq!(stored, Stored { digest: FileDigest::of(b"abc"), size: 3 });
        assert!(contents.has(&stored.digest));
        assert_eq!(fs::read(contents.path(&stored.digest)).expect("readable"), b"abc");
        assert!(contents.path(&stored.digest).starts_with(directory.path().join("files/ba")));

        let large = vec![7; 3 * BUFFER + 1];
        let stored = contents.insert(&large[..], Some(&FileDigest::of(&large))).expect("stored");
        assert_eq!(stored.size, large.len() as u64);
        assert_eq!(leftovers(&directory), 0);
    }

    #[test]
    fn what_fails_leaves_nothing() {
        let (directory, contents) = open();
        let other = FileDigest::of(b"other");
        let different = contents.insert(&b"abc"[..], Some(&other));
        assert!(
            matches!(different, Err(ContentsError::Different { expected, .. }) if expected == other),
            "{different:?}"
        );
        let broken = contents.insert(Broken(0), None);
        assert!(matches!(broken, Err(ContentsError::Read(_))), "{broken:?}");
        assert!(!contents.has(&FileDigest::of(b"abc")) && !contents.has(&other));
        assert_eq!(leftovers(&directory), 0);
    }

    #[test]
    fn manifests_are_verified() {
        let (directory, contents) = open();
        let manifest = manifest_of(&["a", "b"]);
        assert_eq!(contents.manifest(&manifest.digest()).expect("readable"), None);
        assert_eq!(contents.put_manifest(&manifest).expect("stored"), manifest.digest());
        assert_eq!(contents.manifest(&manifest.digest()).expect("readable"), Some(manifest.clone()));
        let path = directory.path().join("manifests").join(manifest.digest().to_string());
        for damage in ["", "555 1 1"] {
            let _ = fs::remove_file(&path);
            fs::write(&path, damage).expect("written");
            assert_eq!(contents.manifest(&manifest.digest()).expect("readable"), None, "{damage:?}");
        }
        contents.put_manifest(&manifest).expect("stored");
        assert_eq!(contents.manifest(&manifest.digest()).expect("readable"), Some(manifest));
    }

    #[test]
    fn damage_is_found() {
        let damage = |text: &str, seen: &[&str], verified: &[&str]| {
            let (_directory, contents) = open();
            put(&contents, &["whole", "broken"]);
            let path = contents.path(&FileDigest::of(b"broken"));
            fs::remove_file(&path).expect("removed");
            if text != "gone" {
                fs::write(&path, text).expect("written");
            }
            let manifest = manifest_of(&["whole", "broken"]);
            let digests = |names: &[&str]| names.iter().map(|name| FileDigest::of(name.as_bytes())).collect::<Vec<_>>();
            assert_eq!(contents.missing(&manifest), digests(seen), "{text:?}");
            assert_eq!(contents.verify(&manifest).expect("verified"), digests(verified), "{text:?}");
            // From then on it is missing, however closely one looks, until it is stored again.
            assert_eq!(contents.missing(&manifest), digests(verified), "{text:?}");
            contents.insert(&b"broken"[..], None).expect("stored");
            assert_eq!(contents.verify(&manifest).expect("verified"), [], "{text:?}");
        };
        damage("gone", &["broken"], &["broken"]);
        damage("", &["broken"], &["broken"]);
        damage("bro", &["broken"], &["broken"]);
        damage("brokeN", &[], &["broken"]);
        damage("broken", &[], &[]);
    }

    #[test]
    fn a_sweep_removes_what_nobody_names() {
        let (directory, contents) = open();
        let kept = put(&contents, &["shared", "kept"]);
        let dropped = put(&contents, &["shared", "dropped"]);
        contents.insert(&b"loose"[..], None).expect("stored");
        fs::write(directory.path().join("incoming/leftover"), "12345").expect("written");
        let keep = BTreeSet::from([kept]);
        let has = |text: &str| contents.has(&FileDigest::of(text.as_bytes()));

        let young = contents.retain(&keep, SystemTime::now() + GRACE / 2).expect("swept");
        assert_eq!(young, Sweep::Done { removed: 0, bytes: 0 });
        assert!(has("shared") && has("kept") && has("dropped") && has("loose"));

        let size =
            manifest_of(&["shared", "dropped"]).to_text().len() + "dropped".len() + "loose".len() + "12345".len();
        let later = SystemTime::now() + GRACE * 2;
        assert_eq!(contents.retain(&keep, later).expect("swept"), Sweep::Done { removed: 4, bytes: size as u64 });
        assert!(has("shared") && has("kept") && !has("dropped") && !has("loose"));
        assert!(contents.manifest(&kept).expect("readable").is_some());
        assert!(contents.manifest(&dropped).expect("readable").is_none());
        assert_eq!(leftovers(&directory), 0);
        assert_eq!(contents.retain(&keep, later).expect("swept"), Sweep::Done { removed: 0, bytes: 0 });
    }

    #[test]
    fn a_sweep_spares_what_a_young_manifest_names() {
        let (_directory, contents) = open();
        contents.insert(&b"old"[..], None).expect("stored");
        let path = contents.path(&FileDigest::of(b"old"));
        let long_ago = SystemTime::now() - GRACE * 2;
        File::open(&path).and_then(|file| file.set_modified(long_ago)).expect("an old file");
        contents.put_manifest(&manifest_of(&["old"])).expect("stored");
        assert_eq!(
            contents.retain(&BTreeSet::new(), SystemTime::now()).expect("swept"),
            Sweep::Done { removed: 0, bytes: 0 }
        );
        assert!(contents.has(&FileDigest::of(b"old")));
    }

    #[test]
    fn a_sweep_waits_for_what_is_taken_in() {
        let (_directory, contents) = open();
        contents.insert(&b"loose"[..], None).expect("stored");
        let later = SystemTime::now() + GRACE * 2;
        let hold = contents.hold();
        assert_eq!(contents.retain(&BTreeSet::new(), later).expect("answered"), Sweep::Busy);
        assert!(contents.has(&FileDigest::of(b"loose")));
        drop(hold);
        assert_eq!(contents.retain(&BTreeSet::new(), later).expect("swept"), Sweep::Done { removed: 1, bytes: 5 });
    }
}
