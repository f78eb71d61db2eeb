//! One walk over a tree: what is there, by its metadata alone.

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use windlass_crds::manifest::{Entry, PathError, ReleasePath};

use crate::error::SourceError;
use crate::selection::{PathKind, Selection};

/// The bit of a mode that a release keeps: that the owner may execute the file, as in Git.
const EXECUTABLE: u32 = 0o100;

/// Below this age a file's times prove nothing: a write in the same tick of the clock leaves them as they are. Kernels
/// tick every 1 to 10 ms, FAT every 2 s.
pub(crate) const SETTLED_AGE: Duration = Duration::from_secs(2);

/// What identifies the contents of a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The device that it lies on.
    pub(crate) device: u64,
    /// Its number there.
    pub(crate) inode: u64,
    /// Bytes.
    pub(crate) size: u64,
    /// When its contents changed, in ns since 1970. Programs may set it.
    pub(crate) modified: i128,
    /// When anything of it changed, in ns since 1970. Only the kernel sets it.
    pub(crate) changed: i128,
}

impl Stamp {
    fn of(stat: &Stat) -> Self {
        let nanoseconds = |seconds: i64, rest: u64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
            changed: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
        }
    }

    /// No file has it.
    pub(crate) const OF_NOTHING: Self = Self { device: 0, inode: 0, size: 0, modified: 0, changed: 0 };

    /// Whether the file is old enough at `now` for its stamp to stand for its contents.
    ///
    /// A modification time far in the future is one that somebody set, and says nothing; a change time in the future
    /// means that the clock was put back, so it is not trusted.
    pub(crate) fn is_settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos().cast_signed();
        let age = SETTLED_AGE.as_nanos().cast_signed();
        now - self.changed >= age && (now - self.modified).abs() >= age
    }
}

/// What a walk found at one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// A regular file.
    File {
        /// What identifies its contents.
        stamp: Stamp,
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A symbolic link whose target a manifest can hold.
    Link {
        /// As `readlink` prints it.
        target: String,
    },
}

/// A source's root, opened: what is below it is reached only through this descriptor.
#[derive(Debug)]
pub(crate) struct Root {
    /// As it was declared.
    pub(crate) path: PathBuf,
    descriptor: OwnedFd,
}

impl Root {
    /// Opens the directory at `path`, through symbolic links.
    ///
    /// # Errors
    /// [`SourceError::Unavailable`].
    pub(crate) fn open(path: &Path) -> Result<Self, SourceError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(descriptor) => Ok(Self { path: path.to_owned(), descriptor }),
            Err(error) => Err(SourceError::Unavailable { root: path.to_owned(), error: error.into() }),
        }
    }

    /// Opens `path` below the root without following a symbolic link anywhere, not even one put there just now.
    pub(crate) fn open_below(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let mut parts = path.split(|byte| *byte == b'/').peekable();
        let mut parent: Option<OwnedFd> = None;
        while let Some(part) = parts.next() {
            let flags = match parts.peek() {
                Some(_) => OFlags::PATH | OFlags::DIRECTORY,
                None => flags,
            };
            let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let below = parent.as_ref().unwrap_or(&self.descriptor);
            parent = Some(rustix::fs::openat(below, OsStr::from_bytes(part), flags, Mode::empty())?);
        }
        parent.ok_or(Errno::NOENT)
    }

    /// The path with the root in front, for people.
    pub(crate) fn join(&self, path: &[u8]) -> PathBuf {
        self.path.join(OsStr::from_bytes(path))
    }

    /// [`SourceError::Unreadable`] for a path below the root.
    pub(crate) fn unreadable(&self, path: &[u8], error: impl Into<io::Error>) -> SourceError {
        SourceError::Unreadable { path: self.join(path), error: error.into() }
    }

    /// [`SourceError::Unsettled`] for a path below the root.
    pub(crate) fn unsettled(&self, path: &[u8]) -> SourceError {
        SourceError::Unsettled { root: self.path.clone(), path: String::from_utf8_lossy(path).into_owned() }
    }
}

/// What a file that is open, or a name in an open directory, is: its stamp, and whether it may be executed.
/// `None` for anything but a regular file.
pub(crate) fn regular(stat: &Stat) -> Option<(Stamp, bool)> {
    let mode = stat.st_mode;
    (FileType::from_raw_mode(mode) == FileType::RegularFile).then(|| (Stamp::of(stat), mode & EXECUTABLE != 0))
}

/// All that a source selects, sorted by the bytes of the path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Scan {
    /// Sorted; each path once.
    pub(crate) entries: Vec<(ReleasePath, Found)>,
}

impl Scan {
    /// What is at `path`.
    pub(crate) fn get(&self, path: &str) -> Option<&Found> {
        let at = self.entries.binary_search_by(|(other, _)| other.as_str().cmp(path)).ok()?;
        Some(&self.entries[at].1)
    }

    /// Whether anything lies below `path`; everything lies below the empty path.
    pub(crate) fn is_directory(&self, path: &str) -> bool {
        if path.is_empty() {
            return !self.entries.is_empty();
        }
        let prefix = format!("{path}/");
        let first = self.entries.partition_point(|(other, _)| other.as_str() < prefix.as_str());
        self.entries.get(first).is_some_and(|(other, _)| other.as_str().starts_with(&prefix))
    }

    /// The first path, by name, that is not the same in both scans.
    pub(crate) fn first_difference<'a>(&'a self, other: &'a Self) -> Option<&'a ReleasePath> {
        let differing = self.entries.iter().zip(&other.entries).find(|(one, two)| one != two);
        if let Some(((one, _), (two, _))) = differing {
            return Some(one.min(two));
        }
        let common = self.entries.len().min(other.entries.len());
        self.entries.get(common).or_else(|| other.entries.get(common)).map(|(path, _)| path)
    }
}

/// Walks the tree below `root`, opening directories only; `most` is how many paths it may select.
///
/// # Errors
/// Those of [`SourceError`] that concern reading directories, names, kinds of files and their number.
pub(crate) fn walk(root: &Root, selection: &Selection, most: usize) -> Result<Scan, SourceError> {
    let mut walk = Walk {
        root,
        selection,
        most,
        pending: vec![Pending { path: Vec::new(), included: false }],
        entries: Vec::new(),
    };
    // By hand instead of by recursion, so that a deep tree needs neither stack nor a descriptor a level.
    while let Some(directory) = walk.pending.pop() {
        walk.directory(&directory)?;
    }
    let mut entries = walk.entries;
    entries.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    Ok(Scan { entries })
}

/// A directory that is still to be read.
#[derive(Debug)]
struct Pending {
    /// From the root; empty for the root itself.
    path: Vec<u8>,
    /// Whether the globs include it as a whole.
    included: bool,
}

#[derive(Debug)]
struct Walk<'a> {
    root: &'a Root,
    selection: &'a Selection,
    most: usize,
    pending: Vec<Pending>,
    entries: Vec<(ReleasePath, Found)>,
}

impl Walk<'_> {
    fn directory(&mut self, directory: &Pending) -> Result<(), SourceError> {
        let opened = match &*directory.path {
            [] => Ok(None),
            path => self.root.open_below(path, OFlags::RDONLY | OFlags::DIRECTORY).map(Some),
        };
        let opened = match opened {
            Ok(opened) => opened,
            // It went away since its parent was read, and everything in it.
            Err(Errno::NOENT) => return Ok(()),
            Err(Errno::LOOP | Errno::NOTDIR) => return Err(self.root.unsettled(&directory.path)),
            Err(error) => return Err(self.root.unreadable(&directory.path, error)),
        };
        let descriptor = opened.as_ref().unwrap_or(&self.root.descriptor);
        let unreadable = |error| self.root.unreadable(&directory.path, error);
        let mut path = directory.path.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        let parent_length = path.len();
        for entry in Dir::read_from(descriptor).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            path.truncate(parent_length);
            path.extend_from_slice(name.to_bytes());
            self.entry(descriptor, name, &path, entry.file_type(), directory.included)?;
        }
        Ok(())
    }

    /// Looks at one name in an open directory: `path` is from the root, `hint` what the directory says it is.
    fn entry(
        &mut self,
        directory: &OwnedFd,
        name: &CStr,
        path: &[u8],
        hint: FileType,
        inside: bool,
    ) -> Result<(), SourceError> {
        let mut stat = None;
        let mut kind = hint;
        if !matches!(hint, FileType::Directory | FileType::Symlink) {
            // Files need it anyway, and some file systems give no hint.
            match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(found) => {
                    kind = FileType::from_raw_mode(found.st_mode);
                    stat = Some(found);
                }
                Err(Errno::NOENT) => return Ok(()),
                Err(error) => return Err(self.root.unreadable(path, error)),
            }
        }
        let path_kind = if kind == FileType::Directory { PathKind::Directory } else { PathKind::Leaf };
        if self.selection.excludes(path, name.to_bytes(), path_kind) {
            return Ok(());
        }
        let included = inside || self.selection.includes(path, path_kind);
        if path_kind == PathKind::Directory {
            if included || self.selection.may_hold_included(path) {
                self.pending.push(Pending { path: path.to_owned(), included });
            }
            return Ok(());
        }
        if !included {
            return Ok(());
        }
        let release_path =
            self.text(path).and_then(|text| ReleasePath::try_from(text).map_err(|error| self.name(error)))?;
        let found = match (kind, stat.as_ref().and_then(regular)) {
            (_, Some((stamp, executable))) => Found::File { stamp, executable },
            (FileType::Symlink, _) => match self.link(directory, name, path, &release_path)? {
                Some(found) => found,
                None => return Ok(()),
            },
            (other, _) => return Err(SourceError::Special { path: self.root.join(path), kind: kind_name(other) }),
        };
        if self.entries.len() == self.most {
            return Err(SourceError::TooManyPaths { root: self.root.path.clone() });
        }
        self.entries.push((release_path, found));
        Ok(())
    }

    /// Reads a link; `None` when it is gone.
    fn link(
        &self,
        directory: &OwnedFd,
        name: &CStr,
        path: &[u8],
        release_path: &ReleasePath,
    ) -> Result<Option<Found>, SourceError> {
        let target = match rustix::fs::readlinkat(directory.as_fd(), name, Vec::new()) {
            Ok(target) => self.text(target.as_bytes())?,
            Err(Errno::NOENT) => return Ok(None),
            // It is no link any more.
            Err(Errno::INVAL) => return Err(self.root.unsettled(path)),
            Err(error) => return Err(self.root.unreadable(path, error)),
        };
        match Entry::link(release_path, &target) {
            Ok(Entry::Link { target }) => Ok(Some(Found::Link { target })),
            Err(PathError::LeavesTree { path, target }) => Err(SourceError::LeavesTree { path, target }),
            Err(error) => Err(self.name(error)),
            Ok(Entry::File { .. }) => unreachable!("Entry::link builds links"),
        }
    }

    fn text(&self, bytes: &[u8]) -> Result<String, SourceError> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(self.name(PathError::Unprintable(String::from_utf8_lossy(bytes).into_owned()))),
        }
    }

    fn name(&self, error: PathError) -> SourceError {
        SourceError::Name { root: self.root.path.clone(), error }
    }
}

/// What people call a file that is neither regular, directory nor link.
fn kind_name(kind: FileType) -> &'static str {
    match kind {
        FileType::Socket => "socket",
        FileType::Fifo => "pipe",
        _ => "device",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(text: &str) -> Scan {
        let entries = text.split_whitespace().map(|word| {
            let (path, target) = word.split_once('=').expect("path=target");
            (path.parse().expect(path), Found::Link { target: target.to_owned() })
        });
        Scan { entries: entries.collect() }
    }

    #[test]
    fn the_first_difference_is_named() {
        for (one, other, expected) in [
            ("", "", None),
            ("a=1 b=1", "a=1 b=1", None),
            ("a=1 b=1", "a=1 b=2", Some("b")),
            ("a=1 b=1", "a=1 b=1 c=1", Some("c")),
            ("a=1 c=1", "a=1 b=1 c=1", Some("b")),
            ("a=1", "", Some("a")),
        ] {
            let (one, other) = (scan(one), scan(other));
            assert_eq!(one.first_difference(&other).map(ReleasePath::as_str), expected, "{one:?} {other:?}");
            assert_eq!(other.first_difference(&one).map(ReleasePath::as_str), expected, "{other:?} {one:?}");
        }
    }

    #[test]
    fn directories_are_what_something_lies_below() {
        let scan = scan("a-b=1 a/b/c=1 a0=1");
        for (path, expected) in [("", true), ("a", true), ("a/b", true), ("a-b", false), ("a/b/c", false), ("b", false)]
        {
            assert_eq!(scan.is_directory(path), expected, "{path}");
        }
        assert!(!Scan::default().is_directory(""));
    }

    #[test]
    fn a_walk_is_bounded() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for name in ["a", "b", "left-out"] {
            std::fs::write(directory.path().join(name), "").expect("a file");
        }
        let root = Root::open(directory.path()).expect("a root");
        let exclude = vec!["left-out".to_owned()];
        let tree = crate::SourceTree { root: directory.path().to_owned(), include: vec![], exclude };
        let selection = Selection::new(&tree).expect("good globs");
        assert_eq!(walk(&root, &selection, 2).expect("a scan").entries.len(), 2);
        let error = walk(&root, &selection, 1).expect_err("too many");
        assert!(matches!(error, SourceError::TooManyPaths { .. }), "{error}");
    }

    #[test]
    fn young_files_are_not_settled() {
        let second = 1_000_000_000;
        let now = 1_000 * second;
        for (modified, changed, expected) in [
            (now - 2 * second, now - 2 * second, true),
            (now - 2 * second + 1, now - 2 * second, false),
            (now - 9 * second, now - second, false),
            (now - 9 * second, now + 9 * second, false),
            (now + 9 * second, now - 9 * second, true),
            (now + second, now - 9 * second, false),
        ] {
            let stamp = Stamp { device: 1, inode: 1, size: 0, modified, changed };
            assert_eq!(stamp.is_settled(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000)), expected, "{stamp:?}");
        }
    }
}
