//! Reading one file of a source into the store, and noticing when it changes meanwhile.

use std::fs::File;
use std::io::{self, Read};

use rustix::fs::OFlags;
use rustix::io::Errno;
use windlass_crds::digest::FileDigest;
use windlass_crds::manifest::ReleasePath;

use crate::contents::{Contents, ContentsError, digest_of};
use crate::error::SourceError;
use crate::release::{Clock, ScanStats};
use crate::scan::{Root, Stamp, regular};

/// What one file turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reading {
    /// SHA-256 of its contents, which are in the store now.
    pub(crate) digest: FileDigest,
    /// As it was before, during and after.
    pub(crate) stamp: Stamp,
    /// Whether its owner may execute it.
    pub(crate) executable: bool,
    /// Whether the stamp stands for the contents from now on.
    pub(crate) settled: bool,
}

/// Reads the files of one source into the store.
#[derive(Debug)]
pub(crate) struct Ingest<'a> {
    /// The source.
    pub(crate) root: &'a Root,
    /// The store.
    pub(crate) contents: &'a Contents,
    /// Tells how old a file is.
    pub(crate) clock: Clock,
    /// Every file that is opened is counted here.
    pub(crate) stats: ScanStats,
}

impl Ingest<'_> {
    /// Reads the file at `path` into the store.
    ///
    /// Its stamp must be the same before and after, under the same name. A file so young that a write could hide from
    /// its stamp is read a second time, with the same result.
    ///
    /// What is `likely` in it is in the store, and not written again: to read a file is much less than to make one, and
    /// after a fresh checkout all of them are to be read.
    ///
    /// # Errors
    /// [`SourceError::Unsettled`] when it changed, [`SourceError::Unreadable`], [`SourceError::Contents`].
    pub(crate) fn read(&mut self, path: &ReleasePath, likely: Option<FileDigest>) -> Result<Reading, SourceError> {
        if let Some(likely) = likely
            && let Some(reading) = self.compare(path, likely)?
        {
            return Ok(reading);
        }
        self.read_with(path, |_| ())
    }

    /// Reads the file, without storing it; nothing where it is not what is likely.
    fn compare(&mut self, path: &ReleasePath, likely: FileDigest) -> Result<Option<Reading>, SourceError> {
        let started = (self.clock)();
        let (file, stamp, executable) = self.open(path)?;
        if self.digest(path, &file, stamp, &mut |_| ())? != likely {
            return Ok(None);
        }
        let settled = stamp.is_settled(started);
        if !settled && self.read_again(path, stamp, &mut |_| ())? != likely {
            return Err(self.unsettled(path));
        }
        Ok(Some(Reading { digest: likely, stamp, executable, settled }))
    }

    /// [`Ingest::read`], which calls `during` with the number of bytes each time that it has read some.
    fn read_with(&mut self, path: &ReleasePath, mut during: impl FnMut(u64)) -> Result<Reading, SourceError> {
        let started = (self.clock)();
        let (file, stamp, executable) = self.open(path)?;
        let mut source = Watched { reader: (&file).take(stamp.size + 1), seen: 0, during: &mut during };
        let stored = self.contents.insert(&mut source, None).map_err(|error| match error {
            ContentsError::Read(error) => self.root.unreadable(path.as_str().as_bytes(), error),
            error => SourceError::Contents { root: self.root.path.clone(), error },
        })?;
        self.stats.bytes_hashed += stored.size;
        self.check_unchanged(path, stored.size, stamp)?;
        let settled = stamp.is_settled(started);
        if !settled && self.read_again(path, stamp, &mut during)? != stored.digest {
            return Err(self.unsettled(path));
        }
        Ok(Reading { digest: stored.digest, stamp, executable, settled })
    }

    /// The digest of a file that was read before, when it had this stamp.
    fn read_again(
        &mut self,
        path: &ReleasePath,
        stamp: Stamp,
        during: &mut dyn FnMut(u64),
    ) -> Result<FileDigest, SourceError> {
        let (file, _, _) = self.open(path)?;
        self.digest(path, &file, stamp, during)
    }

    /// The digest of an open file, which had this stamp, and has it afterwards.
    fn digest(
        &mut self,
        path: &ReleasePath,
        file: &File,
        stamp: Stamp,
        during: &mut dyn FnMut(u64),
    ) -> Result<FileDigest, SourceError> {
        let mut source = Watched { reader: file.take(stamp.size + 1), seen: 0, during };
        let digest = digest_of(&mut source).map_err(|error| self.root.unreadable(path.as_str().as_bytes(), error))?;
        self.stats.bytes_hashed += source.seen;
        self.check_unchanged(path, source.seen, stamp)?;
        Ok(digest)
    }

    /// The only place where files of a source are opened.
    fn open(&mut self, path: &ReleasePath) -> Result<(File, Stamp, bool), SourceError> {
        let bytes = path.as_str().as_bytes();
        // What was a file when it was looked at may be a pipe by now: opening it must not wait for a writer.
        let file = match self.root.open_below(bytes, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::NXIO) => return Err(self.unsettled(path)),
            Err(error) => return Err(self.root.unreadable(bytes, error)),
        };
        self.stats.hashed += 1;
        let stat = rustix::fs::fstat(&file).map_err(|error| self.root.unreadable(bytes, error))?;
        let (stamp, executable) = regular(&stat).ok_or_else(|| self.unsettled(path))?;
        Ok((file, stamp, executable))
    }

    /// Checks that the file under this name still has the stamp, and that `read` bytes are all of it.
    ///
    /// Asked by name, not of the open file, so that a replaced directory on the way shows too. Files of `/proc` and
    /// `/sys` have another length than they say, and so never pass.
    fn check_unchanged(&self, path: &ReleasePath, read: u64, stamp: Stamp) -> Result<(), SourceError> {
        let named = self.root.open_below(path.as_str().as_bytes(), OFlags::PATH).and_then(rustix::fs::fstat);
        match named.map(|stat| regular(&stat)) {
            Ok(Some((now, _))) if now == stamp && read == stamp.size => Ok(()),
            _ => Err(self.unsettled(path)),
        }
    }

    fn unsettled(&self, path: &ReleasePath) -> SourceError {
        self.root.unsettled(path.as_str().as_bytes())
    }
}

/// A reader that tells what has gone through it.
struct Watched<'a, R> {
    reader: R,
    seen: u64,
    during: &'a mut dyn FnMut(u64),
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        self.seen += length as u64;
        if length > 0 {
            (self.during)(self.seen);
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::contents::BUFFER;

    /// A clock by which every file of a test is old.
    fn later() -> SystemTime {
        SystemTime::now() + Duration::from_secs(10)
    }

    struct Outcome {
        result: Result<Reading, SourceError>,
        stats: ScanStats,
    }

    /// Reads a file of two and a half buffers, and calls `edit` with its path after the piece with this number.
    fn read_while(clock: Clock, after_piece: usize, edit: impl Fn(&Path)) -> Outcome {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let contents = Contents::open(&directory.path().join("contents")).expect("a store");
        let tree = directory.path().join("tree");
        fs::create_dir_all(tree.join("d")).expect("a directory");
        let file = tree.join("d/data.bin");
        fs::write(&file, vec![b'a'; BUFFER * 5 / 2]).expect("a file");
        // So that a write shows even within one tick of the kernel's clock.
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        File::open(&file).and_then(|file| file.set_modified(long_ago)).expect("an old file");
        let root = Root::open(&tree).expect("a root");
        let mut ingest = Ingest { root: &root, contents: &contents, clock, stats: ScanStats::default() };
        let mut pieces = 0;
        let result = ingest.read_with(&"d/data.bin".parse().expect("a path"), |_| {
            pieces += 1;
            if pieces == after_piece {
                edit(&file);
            }
        });
        Outcome { result, stats: ingest.stats }
    }

    fn overwrite(path: &Path, at: u64, text: &[u8]) {
        use std::os::unix::fs::FileExt as _;
        let file = fs::OpenOptions::new().write(true).open(path).expect("writable");
        file.write_all_at(text, at).expect("written");
    }

    #[test]
    fn an_edit_during_the_read_is_noticed() {
        let check = |what: &str, clock: Clock, after_piece: usize, edit: &dyn Fn(&Path)| {
            let outcome = read_while(clock, after_piece, edit);
            match outcome.result {
                Err(SourceError::Unsettled { path, .. }) => assert_eq!(path, "d/data.bin", "{what}"),
                other => panic!("{what}: {other:?}"),
            }
        };
        // Pieces 1 to 3 are those of the first read; 4 to 6 of the second, where the file is young.
        let appended = |path: &Path| {
            let mut file = fs::OpenOptions::new().append(true).open(path).expect("writable");
            file.write_all(b"more").expect("written");
        };
        check("appended", later, 1, &appended);
        check("appended at the end", later, 3, &appended);
        check("truncated", later, 1, &|path| {
            fs::OpenOptions::new().write(true).truncate(true).open(path).expect("truncated");
        });
        check("overwritten behind", later, 2, &|path| overwrite(path, 0, b"xyz"));
        check("overwritten ahead", later, 1, &|path| overwrite(path, (BUFFER * 2) as u64, b"xyz"));
        check("removed", later, 1, &|path| fs::remove_file(path).expect("removed"));
        check("replaced", later, 1, &|path| {
            let twin = path.with_extension("twin");
            fs::copy(path, &twin).and_then(|_| fs::rename(&twin, path)).expect("replaced");
        });
        check("replaced by a link", later, 1, &|path| {
            fs::remove_file(path).and_then(|()| std::os::unix::fs::symlink("/etc/passwd", path)).expect("replaced");
        });
        check("its directory replaced", later, 1, &|path| {
            let parent = path.parent().expect("a directory");
            fs::rename(parent, parent.with_extension("old")).expect("renamed");
            fs::create_dir(parent).and_then(|()| fs::write(path, "new")).expect("replaced");
        });
        check("overwritten in the second read", SystemTime::now, 5, &|path| overwrite(path, 0, b"xyz"));
        check("removed before the second read", SystemTime::now, 3, &|path| fs::remove_file(path).expect("removed"));
    }

    #[test]
    fn a_young_file_is_read_twice_and_not_trusted() {
        for (clock, opened, settled) in [(later as Clock, 1, true), (SystemTime::now as Clock, 2, false)] {
            let outcome = read_while(clock, 0, |_| ());
            let reading = outcome.result.expect("a reading");
            assert_eq!((outcome.stats.hashed, reading.settled), (opened, settled));
            assert_eq!(outcome.stats.bytes_hashed, (opened * BUFFER * 5 / 2) as u64);
            assert_eq!(reading.digest, FileDigest::of(&vec![b'a'; BUFFER * 5 / 2]));
        }
    }

    #[test]
    fn what_took_a_files_place_is_not_followed() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let contents = Contents::open(&directory.path().join("contents")).expect("a store");
        let tree = directory.path().join("tree");
        fs::create_dir_all(tree.join("real")).expect("a directory");
        fs::write(tree.join("real/secret"), "secret").expect("a file");
        std::os::unix::fs::symlink("real", tree.join("swapped")).expect("a link");
        let root = Root::open(&tree).expect("a root");
        let mut ingest = Ingest { root: &root, contents: &contents, clock: later, stats: ScanStats::default() };
        let through = ingest.read(&"swapped/secret".parse().expect("a path"), None);
        assert!(
            matches!(&through, Err(SourceError::Unsettled { path, .. }) if path == "swapped/secret"),
            "{through:?}"
        );
        assert_eq!(ingest.stats, ScanStats::default());

        // Nor is a pipe that took a file's place waited for.
        let made = std::process::Command::new("mkfifo").arg(tree.join("pipe")).status().expect("mkfifo");
        assert!(made.success());
        let pipe = ingest.read(&"pipe".parse().expect("a path"), None);
        assert!(matches!(&pipe, Err(SourceError::Unsettled { path, .. }) if path == "pipe"), "{pipe:?}");
        ingest.read(&"real/secret".parse().expect("a path"), None).expect("a reading");
    }
}
