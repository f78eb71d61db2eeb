//! A tree on the disk, and a data directory beside it.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use windlass_crds::digest::ReleaseDigest;
use windlass_sources::{Clock, Contents, Release, ScanMode, SourceError, SourceTree, Sources};

/// A clock by which every file that a test writes is old.
pub(crate) fn later() -> SystemTime {
    SystemTime::now() + Duration::from_secs(10)
}

/// A tree and a data directory, both removed at the end.
pub(crate) struct Fixture {
    directory: tempfile::TempDir,
    clock: Clock,
    pub(crate) sources: Sources,
    pub(crate) tree: SourceTree,
}

impl Fixture {
    /// A tree by words: `path` is a file that holds its own name, `path=text` one that holds the text, `path>target` a
    /// link, `path/` a directory.
    pub(crate) fn new(words: &str) -> Self {
        Self::with_clock(words, later)
    }

    pub(crate) fn with_clock(words: &str, clock: Clock) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = directory.path().join("tree");
        fs::create_dir(&root).expect("a directory");
        let sources = Sources::open_with_clock(&directory.path().join("data"), clock).expect("a store");
        let tree = SourceTree { root, include: vec![], exclude: vec![] };
        let fixture = Self { directory, clock, sources, tree };
        for word in words.split_whitespace() {
            if let Some(path) = word.strip_suffix('/') {
                fs::create_dir_all(fixture.path(path)).expect("a directory");
            } else if let Some((path, target)) = word.split_once('>') {
                fixture.parent_of(path);
                symlink(target, fixture.path(path)).expect("a link");
            } else {
                let (path, text) = word.split_once('=').unwrap_or((word, word));
                fixture.write(path, text);
            }
        }
        fixture
    }

    pub(crate) fn globs(mut self, include: &[&str], exclude: &[&str]) -> Self {
        let own = |globs: &[&str]| globs.iter().map(|glob| (*glob).to_owned()).collect();
        self.tree.include = own(include);
        self.tree.exclude = own(exclude);
        self
    }

    /// The store of files.
    pub(crate) fn contents(&self) -> &Contents {
        self.sources.contents().expect("it is on a disk")
    }

    /// As after a restart of the controller.
    pub(crate) fn restart(&mut self) {
        self.sources = Sources::open_with_clock(&self.data(), self.clock).expect("a store");
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.tree.root.join(path)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn parent_of(&self, path: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        self.parent_of(path);
        fs::write(self.path(path), text).expect("a file");
    }

    pub(crate) fn set_mode(&self, path: &str, mode: u32) {
        fs::set_permissions(self.path(path), Permissions::from_mode(mode)).expect("a mode");
    }

    pub(crate) fn set_modified(&self, path: &str, time: SystemTime) {
        File::open(self.path(path)).and_then(|file| file.set_modified(time)).expect("a time");
    }

    pub(crate) async fn look(&self, mode: ScanMode, last: Option<&ReleaseDigest>) -> Result<Release, SourceError> {
        self.sources.release(&self.tree, mode, last).await
    }

    /// Looks as if a person had asked.
    pub(crate) async fn ask(&self) -> Release {
        self.look(ScanMode::Ask, None).await.expect("a release")
    }

    /// The paths of a release, as the words that make it.
    pub(crate) async fn words(&self) -> String {
        let release = self.ask().await;
        let words = release.manifest.entries.iter().map(|(path, entry)| match entry {
            windlass_crds::manifest::Entry::Link { target } => format!("{path}>{target}"),
            windlass_crds::manifest::Entry::File { .. } => path.to_string(),
        });
        words.collect::<Vec<_>>().join(" ")
    }
}
