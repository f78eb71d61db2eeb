//! A directory becomes a release: walk, settle, read what is not known, write the manifest.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use windlass_crds::digest::{FileDigest, ReleaseDigest};
use windlass_crds::manifest::{Entry, MAX_PATHS, Manifest, ReleasePath};
use windlass_crds::service::RepoTree;

use crate::SourceTree;
use crate::contents::{Contents, ContentsError, Sweep};
use crate::error::SourceError;
use crate::git::{GitError, Repos};
use crate::hashes::{HashCache, Hashes};
use crate::ingest::Ingest;
use crate::links::check_links;
use crate::memory::MemoryTrees;
use crate::scan::{Found, Root, Scan, Stamp, walk};
use crate::selection::Selection;

/// How far apart two scans of a tree must be, and equal, for it to count as settled.
pub(crate) const SETTLE_PAUSE: Duration = Duration::from_secs(1);

/// How many pauses a tree gets to settle before the caller is told to come back later: enough for an editor's save or
/// a small checkout, few enough that a tree which never settles keeps a worker for 3 s only.
pub(crate) const SETTLE_PAUSES: usize = 3;

/// Where the age of files is told from: `SystemTime::now`, but in tests.
pub type Clock = fn() -> SystemTime;

/// Why a source is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanMode {
    /// A person asked, and has finished editing: one scan.
    Ask,
    /// The interval is over: what changed may be half done, so it must settle first.
    Interval,
}

/// What a scan did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScanStats {
    /// Files in the release.
    pub files: usize,
    /// How often a file was opened to be read. An unchanged tree has 0; a file younger than 2 s counts twice, and so does
    /// one that holds something else than before and is as long.
    pub hashed: usize,
    /// How much was read, in bytes.
    pub bytes_hashed: u64,
}

/// What a source holds. Its manifest and all that it names are in the store of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// The release's name.
    pub digest: ReleaseDigest,
    /// What is in it.
    pub manifest: Arc<Manifest>,
    /// What it cost to find out.
    pub stats: ScanStats,
}

/// Turns sources into releases, and keeps their files. Cheap to clone; clones share everything.
#[derive(Debug, Clone)]
pub struct Sources {
    kept: Kept,
}

/// Where trees and the files of releases are.
#[derive(Debug, Clone)]
enum Kept {
    Disk(Arc<Inner>),
    Memory(MemoryTrees),
}

#[derive(Debug)]
struct Inner {
    contents: Arc<Contents>,
    repos: Repos,
    hashes: HashCache,
    clock: Clock,
}

impl Sources {
    /// Opens the store of files below the controller's data directory: `<data_directory>/contents`.
    ///
    /// # Errors
    /// When a directory cannot be made there.
    pub fn open(data_directory: &Path) -> Result<Self, ContentsError> {
        Self::open_with_clock(data_directory, SystemTime::now)
    }

    /// [`Sources::open`] with another clock, by which tests let files age.
    ///
    /// # Errors
    /// When a directory cannot be made there.
    pub fn open_with_clock(data_directory: &Path, clock: Clock) -> Result<Self, ContentsError> {
        let directory = data_directory.join("contents");
        let contents = Arc::new(Contents::open(&directory)?);
        let repos = Repos::new(data_directory);
        let hashes = HashCache::open(&directory)?;
        Ok(Self { kept: Kept::Disk(Arc::new(Inner { contents, repos, hashes, clock })) })
    }

    /// Trees in memory, and the files of releases too.
    pub fn in_memory(trees: MemoryTrees) -> Self {
        Self { kept: Kept::Memory(trees) }
    }

    /// The repositories that are followed.
    ///
    /// # Errors
    /// [`GitError::Nowhere`], where all is in memory.
    pub fn repos(&self) -> Result<&Repos, GitError> {
        match &self.kept {
            Kept::Disk(inner) => Ok(&inner.repos),
            Kept::Memory(_) => Err(GitError::Nowhere),
        }
    }

    /// Reads a directory of a commit that a ConfigRepo follows. What it holds is in its name, so it never has to settle.
    ///
    /// # Errors
    /// As for any source; [`SourceError::Repo`] where the copy of the repository has not got it, or no longer.
    pub async fn repo_release(
        &self,
        tree: &RepoTree,
        include: &[String],
        exclude: &[String],
    ) -> Result<Release, SourceError> {
        match &self.kept {
            Kept::Disk(inner) => inner.repos.release(&inner.contents, tree, include, exclude).await,
            Kept::Memory(_) => {
                let root = PathBuf::from(tree.to_string());
                Err(SourceError::Repo { root, error: GitError::Nowhere })
            }
        }
    }

    /// The store of files; none where all is in memory.
    pub fn contents(&self) -> Option<&Contents> {
        match &self.kept {
            Kept::Disk(inner) => Some(&inner.contents),
            Kept::Memory(_) => None,
        }
    }

    /// Where the contents of a file with this digest lie, or would. Nowhere, where all is in memory.
    pub fn content_path(&self, digest: &FileDigest) -> PathBuf {
        match &self.kept {
            Kept::Disk(inner) => inner.contents.path(digest),
            Kept::Memory(_) => PathBuf::from(digest.to_string()),
        }
    }

    /// The manifest of a release, where it is here.
    ///
    /// # Errors
    /// [`ContentsError::Store`].
    pub async fn manifest(&self, digest: &ReleaseDigest) -> Result<Option<Manifest>, ContentsError> {
        match &self.kept {
            Kept::Disk(inner) => {
                let (inner, wanted) = (Arc::clone(inner), *digest);
                blocking(move || inner.contents.manifest(&wanted)).await.unwrap_or(Ok(None))
            }
            Kept::Memory(trees) => Ok(trees.manifest(digest)),
        }
    }

    /// Whether all files that a manifest names are here.
    pub async fn is_whole(&self, manifest: &Arc<Manifest>) -> bool {
        match &self.kept {
            Kept::Disk(inner) => {
                let (inner, manifest) = (Arc::clone(inner), Arc::clone(manifest));
                blocking(move || inner.contents.missing(&manifest).is_empty()).await.unwrap_or(false)
            }
            Kept::Memory(trees) => trees.has(manifest),
        }
    }

    /// Reads all files that a manifest names, as far as they are here, and removes those that are damaged. How many are not
    /// here then.
    ///
    /// # Errors
    /// [`ContentsError::Store`].
    pub async fn verify(&self, manifest: &Arc<Manifest>) -> Result<usize, ContentsError> {
        match &self.kept {
            Kept::Disk(inner) => {
                let (inner, manifest) = (Arc::clone(inner), Arc::clone(manifest));
                let missing = blocking(move || inner.contents.verify(&manifest)).await;
                missing.map_or(Ok(0), |missing| missing.map(|missing| missing.len()))
            }
            Kept::Memory(_) => Ok(0),
        }
    }

    /// Removes what no release in `keep` needs, once it is older than an hour; see [`Contents::retain`].
    ///
    /// # Errors
    /// [`ContentsError::Store`]. What was removed until then stays removed.
    pub async fn clear_away(&self, keep: BTreeSet<ReleaseDigest>) -> Result<Sweep, ContentsError> {
        match &self.kept {
            Kept::Disk(inner) => {
                let inner = Arc::clone(inner);
                let swept = blocking(move || inner.contents.retain(&keep, (inner.clock)())).await;
                swept.unwrap_or(Ok(Sweep::Busy))
            }
            Kept::Memory(trees) => Ok(trees.retain(&keep)),
        }
    }

    /// Looks at a source and returns what it holds now; `last` is the release that was accepted last.
    ///
    /// Only what is not known by its stamp, or is missing from the store, is read. Found changed by interval, the tree
    /// must settle first: two equal scans a second apart, and a third after reading. Blocking work runs on tokio's
    /// blocking threads, to its end even when the future is dropped.
    ///
    /// # Errors
    /// [`SourceError`]. After [`SourceError::Unsettled`], try again later, and later still when it comes again.
    pub async fn release(
        &self,
        tree: &SourceTree,
        mode: ScanMode,
        last: Option<&ReleaseDigest>,
    ) -> Result<Release, SourceError> {
        let inner = match &self.kept {
            Kept::Disk(inner) => Arc::clone(inner),
            Kept::Memory(trees) => return trees.release(&tree.root, mode, last).await,
        };
        let look = Look { inner, tree: tree.clone(), selection: Arc::new(Selection::new(tree)?) };
        if mode == ScanMode::Ask {
            return look
                .blocking(|look| {
                    let (root, scan) = look.scan()?;
                    look.take_in(&root, &scan)
                })
                .await;
        }
        let (scan, recalled) = look
            .blocking(|look| {
                let (_, scan) = look.scan()?;
                let recalled = look.recall(&scan)?;
                Ok((scan, recalled))
            })
            .await?;
        match recalled {
            Some(release) if last == Some(&release.digest) => Ok(release),
            _ => look.settle(scan).await,
        }
    }
}

/// Does some work on a thread that may block; `None` where the runtime is being shut down.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Some(done),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => None,
    }
}

/// One look at one source.
#[derive(Debug, Clone)]
struct Look {
    inner: Arc<Inner>,
    tree: SourceTree,
    selection: Arc<Selection>,
}

impl Look {
    /// Runs `work` where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, SourceError> + Send + 'static,
    ) -> Result<T, SourceError> {
        let look = self.clone();
        blocking(move || work(&look)).await.unwrap_or(Err(SourceError::Stopping))
    }

    /// Waits until two scans a second apart are equal, and takes in what they show.
    async fn settle(&self, first: Scan) -> Result<Release, SourceError> {
        let mut earlier = Arc::new(first);
        let mut changed = None;
        for _ in 0..SETTLE_PAUSES {
            tokio::time::sleep(SETTLE_PAUSE).await;
            let before = Arc::clone(&earlier);
            let looked = self.blocking(move |look| look.settle_once(&before)).await?;
            match looked {
                Settling::Settled(release) => return Ok(release),
                Settling::Changed { path, later } => {
                    changed = Some(path);
                    earlier = Arc::new(later);
                }
            }
        }
        let path = changed.expect("SETTLE_PAUSES is not 0");
        Err(SourceError::Unsettled { root: self.tree.root.clone(), path })
    }

    fn settle_once(&self, earlier: &Scan) -> Result<Settling, SourceError> {
        let (root, later) = self.scan()?;
        if let Some(path) = later.first_difference(earlier) {
            return Ok(Settling::Changed { path: path.to_string(), later });
        }
        let release = self.take_in(&root, &later)?;
        if release.stats.hashed > 0 {
            // Each file stayed the same while it was read; that all of them did until the last was read shows here.
            let (_, afterwards) = self.scan()?;
            if let Some(path) = afterwards.first_difference(&later) {
                return Err(root.unsettled(path.as_str().as_bytes()));
            }
        }
        Ok(Settling::Settled(release))
    }

    /// Walks the tree.
    fn scan(&self) -> Result<(Root, Scan), SourceError> {
        let root = Root::open(&self.tree.root)?;
        let scan = walk(&root, &self.selection, MAX_PATHS)?;
        Ok((root, scan))
    }

    /// Whether a scan can be a release at all, as far as that needs no reading.
    fn check(&self, scan: &Scan) -> Result<(), SourceError> {
        if scan.entries.is_empty() {
            return Err(SourceError::Empty { root: self.tree.root.clone() });
        }
        check_links(scan)
    }

    /// The release that a scan shows, if nothing of it needs to be read, and nothing is wrong with it: that may pass
    /// while the tree settles.
    fn recall(&self, scan: &Scan) -> Result<Option<Release>, SourceError> {
        if self.check(scan).is_err() {
            return Ok(None);
        }
        let _hold = self.inner.contents.hold();
        let hashes = self.inner.hashes.get(&self.tree);
        let mut entries = Vec::with_capacity(scan.entries.len());
        for (path, found) in &scan.entries {
            let Some(entry) = self.known(&hashes, path, found) else { return Ok(None) };
            entries.push((path.clone(), entry));
        }
        self.finish(entries, ScanStats::default()).map(Some)
    }

    /// The release that a scan shows; reads what is not known.
    fn take_in(&self, root: &Root, scan: &Scan) -> Result<Release, SourceError> {
        self.check(scan)?;
        let _hold = self.inner.contents.hold();
        let (contents, clock) = (&self.inner.contents, self.inner.clock);
        let hashes = self.inner.hashes.get(&self.tree);
        let mut ingest = Ingest { root, contents, clock, stats: ScanStats::default() };
        let mut learned = Hashes::new();
        let entries = self.entries(scan, &hashes, &mut ingest, &mut learned);
        self.remember(scan, &hashes, learned, entries.is_ok());
        self.finish(entries?, ingest.stats)
    }

    /// Keeps the digests of what was read. After a failure that spares the next attempt from reading it again; after a
    /// success, what is gone from the tree is forgotten.
    fn remember(&self, scan: &Scan, hashes: &Hashes, learned: Hashes, complete: bool) {
        let files = scan.entries.iter().filter(|(_, found)| matches!(found, Found::File { .. })).count();
        // With nothing learned from a complete scan all of its files were known, so that their number tells enough.
        if learned.is_empty() && (!complete || hashes.len() == files) {
            return;
        }
        let stays = |path: &ReleasePath| !complete || scan.get(path.as_str()).is_some();
        let mut known = hashes.clone();
        known.retain(|path, _| stays(path));
        known.extend(learned);
        self.inner.hashes.put(&self.tree, known);
    }

    fn entries(
        &self,
        scan: &Scan,
        hashes: &Hashes,
        ingest: &mut Ingest<'_>,
        learned: &mut Hashes,
    ) -> Result<Vec<(ReleasePath, Entry)>, SourceError> {
        let mut entries = Vec::with_capacity(scan.entries.len());
        for (path, found) in &scan.entries {
            let entry = match self.known(hashes, path, found) {
                Some(entry) => entry,
                None => {
                    let reading = ingest.read(path, self.likely(hashes, path, found))?;
                    // What is too young to stand for its contents only says what is likely there.
                    let stamp = if reading.settled { reading.stamp } else { Stamp::OF_NOTHING };
                    learned.insert(path.clone(), (stamp, reading.digest));
                    Entry::File { digest: reading.digest, size: reading.stamp.size, executable: reading.executable }
                }
            };
            entries.push((path.clone(), entry));
        }
        Ok(entries)
    }

    /// What a file held when it was read last, where the store has it and it is as long.
    fn likely(&self, hashes: &Hashes, path: &ReleasePath, found: &Found) -> Option<FileDigest> {
        let Found::File { stamp, .. } = found else { return None };
        let digest = hashes.get(path).map(|(_, digest)| *digest)?;
        self.inner.contents.has_sized(&digest, stamp.size).then_some(digest)
    }

    /// What is at a path, if that can be told without reading it and the store has it.
    fn known(&self, hashes: &Hashes, path: &ReleasePath, found: &Found) -> Option<Entry> {
        match found {
            Found::Link { target } => Some(Entry::Link { target: target.clone() }),
            Found::File { stamp, executable } => {
                let digest = known_digest(hashes, path, stamp)?;
                let stored = self.inner.contents.has_sized(&digest, stamp.size);
                stored.then_some(Entry::File { digest, size: stamp.size, executable: *executable })
            }
        }
    }

    /// Stores the manifest, all of whose files are stored.
    fn finish(&self, entries: Vec<(ReleasePath, Entry)>, stats: ScanStats) -> Result<Release, SourceError> {
        let contents = &self.inner.contents;
        let files = entries.iter().filter(|(_, entry)| matches!(entry, Entry::File { .. })).count();
        let manifest = Manifest { entries: entries.into_iter().collect() };
        let mut digest = manifest.digest();
        if !contents.is_fresh(&digest, SystemTime::now()) {
            let stored = contents.put_manifest(&manifest);
            digest = stored.map_err(|error| SourceError::Contents { root: self.tree.root.clone(), error })?;
        }
        Ok(Release { digest, manifest: Arc::new(manifest), stats: ScanStats { files, ..stats } })
    }
}

/// What came of waiting once.
#[derive(Debug)]
enum Settling {
    Settled(Release),
    Changed { path: String, later: Scan },
}

/// The digest of a file whose stamp is the one that it was read with.
fn known_digest(hashes: &Hashes, path: &ReleasePath, stamp: &Stamp) -> Option<FileDigest> {
    hashes.get(path).filter(|(known, _)| known == stamp).map(|(_, digest)| *digest)
}
