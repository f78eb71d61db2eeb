//! What files are known to hold without being read: their digests, by path and stamp, kept over a restart.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use windlass_crds::digest::FileDigest;
use windlass_crds::manifest::ReleasePath;

use crate::SourceTree;
use crate::contents::{ContentsError, Incoming, make_directory};
use crate::scan::Stamp;

/// The digests of one source's files. A file's digest holds for as long as its stamp stays.
pub(crate) type Hashes = HashMap<ReleasePath, (Stamp, FileDigest)>;

/// How many sources are kept in memory: a controller's usual number of services, at 150 bytes a file. The others
/// are read from the disk again.
const SOURCES_IN_MEMORY: usize = 256;

/// After how long without a change a source's digests are forgotten on the disk. Too early costs one read of it.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The digests of all sources, in memory and in one file a source.
///
/// A cache: what cannot be read or written costs time, and nothing else.
#[derive(Debug)]
pub(crate) struct HashCache {
    /// Where the files are.
    directory: PathBuf,
    /// Below this stands the `incoming` directory that files are written in.
    contents: PathBuf,
    sources: Mutex<HashMap<SourceTree, Arc<Hashes>>>,
}

impl HashCache {
    /// Opens the cache in the directory of the store of files.
    pub(crate) fn open(contents: &Path) -> Result<Self, ContentsError> {
        let directory = contents.join("hashes");
        make_directory(&directory)?;
        forget_old(&directory, SystemTime::now());
        Ok(Self { directory, contents: contents.to_owned(), sources: Mutex::default() })
    }

    /// What is known of a source.
    pub(crate) fn get(&self, tree: &SourceTree) -> Arc<Hashes> {
        if let Some(hashes) = self.lock().get(tree) {
            return Arc::clone(hashes);
        }
        let path = self.path(tree);
        let hashes = match fs::read_to_string(&path).ok() {
            None => Hashes::new(),
            Some(text) => from_text(&text).unwrap_or_else(|| {
                tracing::warn!(path = %path.display(), "ignoring a damaged cache of digests; the source is read again");
                Hashes::new()
            }),
        };
        let hashes = Arc::new(hashes);
        self.keep(tree, &hashes);
        hashes
    }

    /// Replaces what is known of a source, on the disk too when it is something else.
    pub(crate) fn put(&self, tree: &SourceTree, hashes: Hashes) {
        if *self.get(tree) == hashes {
            return;
        }
        let path = self.path(tree);
        let written = Incoming::create(&self.contents).and_then(|mut file| {
            file.write(to_text(&hashes).as_bytes())?;
            file.rename(&path)
        });
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "cannot keep digests; the source is read again after a restart");
        }
        self.keep(tree, &Arc::new(hashes));
    }

    fn keep(&self, tree: &SourceTree, hashes: &Arc<Hashes>) {
        let mut sources = self.lock();
        if sources.len() >= SOURCES_IN_MEMORY && !sources.contains_key(tree) {
            // Any one will do: all of them are on the disk, and looked at equally often.
            let one = sources.keys().next().cloned();
            one.and_then(|one| sources.remove(&one));
        }
        sources.insert(tree.clone(), Arc::clone(hashes));
    }

    fn path(&self, tree: &SourceTree) -> PathBuf {
        let mut key = tree.root.as_os_str().as_bytes().to_vec();
        for (mark, globs) in [(b'+', &tree.include), (b'-', &tree.exclude)] {
            for glob in globs {
                key.extend_from_slice(&[0, mark]);
                key.extend_from_slice(glob.as_bytes());
            }
        }
        self.directory.join(FileDigest::of(&key).to_string())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SourceTree, Arc<Hashes>>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes the files of sources that have not changed for long, or are not asked for any more.
fn forget_old(directory: &Path, now: SystemTime) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        if modified.is_ok_and(|modified| now.duration_since(modified).is_ok_and(|age| age > FORGOTTEN_AFTER)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A line with the digest of the rest; then a line a file: device, inode, size, times, digest, path.
fn to_text(hashes: &Hashes) -> String {
    let mut body = String::with_capacity(hashes.len() * 200);
    for (path, (stamp, digest)) in hashes {
        let Stamp { device, inode, size, modified, changed } = stamp;
        writeln!(body, "{device} {inode} {size} {modified} {changed} {digest} {path}")
            .expect("strings take everything");
    }
    format!("{}\n{body}", FileDigest::of(body.as_bytes()))
}

/// Reads what [`to_text`] wrote; `None` where it is something else.
fn from_text(text: &str) -> Option<Hashes> {
    let (checksum, body) = text.split_once('\n')?;
    if checksum.parse() != Ok(FileDigest::of(body.as_bytes())) {
        return None;
    }
    body.lines().map(from_line).collect()
}

fn from_line(line: &str) -> Option<(ReleasePath, (Stamp, FileDigest))> {
    let mut words = line.splitn(7, ' ');
    let stamp = Stamp {
        device: words.next()?.parse().ok()?,
        inode: words.next()?.parse().ok()?,
        size: words.next()?.parse().ok()?,
        modified: words.next()?.parse().ok()?,
        changed: words.next()?.parse().ok()?,
    };
    let digest = words.next()?.parse().ok()?;
    Some((words.next()?.parse().ok()?, (stamp, digest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Hashes {
        let file = |path: &str, inode| {
            let stamp = Stamp { device: 2049, inode, size: 3, modified: -1, changed: 1_800_000_000_123_456_789 };
            (path.parse().expect("a path"), (stamp, FileDigest::of(path.as_bytes())))
        };
        Hashes::from([file("a", 1), file("dir/with space", u64::MAX), file("ü", 3)])
    }

    #[test]
    fn a_cache_reads_what_it_writes_and_nothing_else() {
        let text = to_text(&sample());
        assert_eq!(from_text(&text), Some(sample()));
        assert_eq!(from_text(&to_text(&Hashes::new())), Some(Hashes::new()));
        for damaged in
            ["", "\n", "x", &text[1..], &text[..text.len() - 1], &text.replace("2049", "2050"), &format!("{text}\n")]
        {
            assert_eq!(from_text(damaged), None, "{damaged:?}");
        }
    }

    #[test]
    fn a_cache_outlives_its_process_and_its_memory() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        make_directory(&directory.path().join("incoming")).expect("a directory");
        let tree = |number: usize| SourceTree { root: format!("/{number}").into(), include: vec![], exclude: vec![] };
        let cache = HashCache::open(directory.path()).expect("a cache");
        cache.put(&tree(0), sample());
        for number in 1..SOURCES_IN_MEMORY * 2 {
            cache.get(&tree(number));
        }
        assert!(cache.lock().len() <= SOURCES_IN_MEMORY);
        assert_eq!(*cache.get(&tree(0)), sample());
        let cache = HashCache::open(directory.path()).expect("a cache");
        assert_eq!(*cache.get(&tree(0)), sample());
        assert_eq!(*cache.get(&tree(1)), Hashes::new());

        forget_old(&cache.directory, SystemTime::now() + FORGOTTEN_AFTER * 2);
        let cache = HashCache::open(directory.path()).expect("a cache");
        assert_eq!(*cache.get(&tree(0)), Hashes::new());
    }

    #[test]
    fn sources_do_not_share_a_file() {
        let cache = HashCache { directory: PathBuf::new(), contents: PathBuf::new(), sources: Mutex::default() };
        let tree = |root: &str, include: &[&str], exclude: &[&str]| {
            let own = |globs: &[&str]| globs.iter().map(|glob| (*glob).to_owned()).collect();
            cache.path(&SourceTree { root: root.into(), include: own(include), exclude: own(exclude) })
        };
        let paths = [
            tree("/a", &[], &[]),
            tree("/b", &[], &[]),
            tree("/a", &["x"], &[]),
            tree("/a", &[], &["x"]),
            tree("/a", &["x", "y"], &[]),
            tree("/a", &["x+y"], &[]),
        ];
        let different: std::collections::BTreeSet<_> = paths.iter().collect();
        assert_eq!(different.len(), paths.len());
    }
}
