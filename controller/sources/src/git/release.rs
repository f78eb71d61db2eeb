//! A directory of a commit becomes a release: the same as the directory itself would, without a checkout.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Stdio};
use std::sync::Arc;

use windlass_crds::configrepo::BlobId;
use windlass_crds::manifest::{Entry, Manifest, PathError, ReleasePath};
use windlass_crds::service::RepoTree;

use super::command::{Git, Group};
use super::tree::{Listing, Node};
use super::{GitError, Repos};
use crate::SourceTree;
use crate::contents::{Contents, ContentsError};
use crate::error::SourceError;
use crate::links::check_links;
use crate::release::{Release, ScanStats};
use crate::scan::{Found, Scan, Stamp};
use crate::selection::Selection;

/// Where a link leads is a short text.
const LINK_BYTES: u64 = 4096;

/// What a file of a commit is taken for while links are checked: it has no stamp.
const NO_STAMP: Stamp = Stamp { device: 0, inode: 0, size: 0, modified: 0, changed: 0 };

impl Repos {
    /// Reads a directory of a commit into the store of files.
    ///
    /// # Errors
    /// As for any source; [`SourceError::Repo`] where our copy has not got it.
    pub(crate) async fn release(
        &self,
        contents: &Arc<Contents>,
        tree: &RepoTree,
        include: &[String],
        exclude: &[String],
    ) -> Result<Release, SourceError> {
        let root = PathBuf::from(tree.to_string());
        let selection = Selection::new(&SourceTree {
            root: root.clone(),
            include: include.to_owned(),
            exclude: exclude.to_owned(),
        })?;
        let (copy, object) = self.copy_for(&tree.name, &tree.tree);
        let listing =
            Listing::of(&copy, &object).await.map_err(|error| SourceError::Repo { root: root.clone(), error })?;
        let contents = Arc::clone(contents);
        let work = move || Export { root: &root, copy: &copy, contents: &contents }.take_in(&listing, &selection);
        crate::release::blocking(work).await.unwrap_or(Err(SourceError::Stopping))
    }
}

/// A directory of a commit on its way into the store of files.
struct Export<'a> {
    root: &'a Path,
    copy: &'a Path,
    contents: &'a Contents,
}

/// What is to be read for a path.
enum Part {
    File { blob: BlobId, executable: bool },
    Link { blob: BlobId },
}

impl Export<'_> {
    fn take_in(&self, listing: &Listing, selection: &Selection) -> Result<Release, SourceError> {
        let parts = self.parts(listing, selection)?;
        if parts.is_empty() {
            return Err(SourceError::Empty { root: self.root.to_owned() });
        }
        let _hold = self.contents.hold();
        let mut blobs = Blobs::open(self.copy).map_err(|error| self.broken(error))?;
        let mut stats = ScanStats::default();
        let mut manifest = Manifest::default();
        let mut scan = Scan::default();
        for (path, part) in parts {
            let (entry, found) = match part {
                Part::File { blob, executable } => {
                    let stored = self.file(&mut blobs, &blob)?;
                    stats.files += 1;
                    stats.hashed += 1;
                    stats.bytes_hashed += stored.size;
                    let entry = Entry::File { digest: stored.digest, size: stored.size, executable };
                    (entry, Found::File { stamp: NO_STAMP, executable })
                }
                Part::Link { blob } => self.link(&mut blobs, &path, &blob)?,
            };
            scan.entries.push((path.clone(), found));
            manifest.entries.insert(path, entry);
        }
        blobs.close();
        check_links(&scan)?;
        let stored = self.contents.put_manifest(&manifest);
        let digest = stored.map_err(|error| SourceError::Contents { root: self.root.to_owned(), error })?;
        Ok(Release { digest, manifest: Arc::new(manifest), stats })
    }

    /// What the globs take, sorted by path.
    fn parts(&self, listing: &Listing, selection: &Selection) -> Result<Vec<(ReleasePath, Part)>, SourceError> {
        let mut parts = Vec::new();
        for (path, node) in listing.nodes.iter().filter(|(path, _)| selection.takes(path)) {
            let part = match node {
                Node::Directory(_) => continue,
                Node::Submodule => {
                    return Err(SourceError::Special { path: self.root.join(path), kind: "submodule" });
                }
                Node::Link { size, .. } if *size > LINK_BYTES => {
                    let error = PathError::Unprintable(format!("the target of {path}"));
                    return Err(SourceError::Name { root: self.root.to_owned(), error });
                }
                Node::Link { blob, .. } => Part::Link { blob: blob.clone() },
                Node::File { blob, executable, .. } => Part::File { blob: blob.clone(), executable: *executable },
            };
            let path = ReleasePath::try_from(path.clone());
            parts.push((path.map_err(|error| SourceError::Name { root: self.root.to_owned(), error })?, part));
        }
        parts.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(parts)
    }

    fn file(&self, blobs: &mut Blobs, blob: &BlobId) -> Result<crate::Stored, SourceError> {
        let size = blobs.next(blob).map_err(|error| self.broken(error))?;
        let stored = self.contents.insert((&mut blobs.stdout).take(size), None).map_err(|error| match error {
            ContentsError::Read(error) => self.broken(GitError::Damaged { detail: format!("{blob}: {error}") }),
            error => SourceError::Contents { root: self.root.to_owned(), error },
        })?;
        if stored.size != size {
            return Err(self.broken(GitError::Damaged { detail: format!("{blob} ends early") }));
        }
        blobs.skip_newline().map_err(|error| self.broken(error))?;
        Ok(stored)
    }

    fn link(&self, blobs: &mut Blobs, path: &ReleasePath, blob: &BlobId) -> Result<(Entry, Found), SourceError> {
        let size = blobs.next(blob).map_err(|error| self.broken(error))?;
        let mut target = Vec::new();
        let damaged = |detail: String| self.broken(GitError::Damaged { detail });
        (&mut blobs.stdout).take(size).read_to_end(&mut target).map_err(|error| damaged(format!("{blob}: {error}")))?;
        blobs.skip_newline().map_err(|error| self.broken(error))?;
        let name = |error| SourceError::Name { root: self.root.to_owned(), error };
        let target = String::from_utf8(target)
            .map_err(|error| name(PathError::Unprintable(String::from_utf8_lossy(error.as_bytes()).into_owned())))?;
        match Entry::link(path, &target) {
            Ok(entry) => Ok((entry, Found::Link { target })),
            Err(PathError::LeavesTree { path, target }) => Err(SourceError::LeavesTree { path, target }),
            Err(error) => Err(name(error)),
        }
    }

    fn broken(&self, error: GitError) -> SourceError {
        SourceError::Repo { root: self.root.to_owned(), error }
    }
}

/// Contents of files, one after the other, from one process.
struct Blobs {
    child: std::process::Child,
    stdout: BufReader<ChildStdout>,
    group: Group,
}

impl Blobs {
    fn open(copy: &Path) -> Result<Self, GitError> {
        use std::os::unix::process::CommandExt as _;
        let mut command = Git::reading(copy).command(&["cat-file", "--batch"]);
        command.stdin(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        let mut child = command.spawn().map_err(GitError::Missing)?;
        let group = Group::of(Some(child.id()));
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        Ok(Self { child, stdout, group })
    }

    /// Asks for the next one; tells how long it is.
    fn next(&mut self, blob: &BlobId) -> Result<u64, GitError> {
        let damaged = |detail: &dyn std::fmt::Display| GitError::Damaged { detail: format!("{blob}: {detail}") };
        let stdin = self.child.stdin.as_mut().expect("it is piped");
        writeln!(stdin, "{blob}").and_then(|()| stdin.flush()).map_err(|error| damaged(&error))?;
        let mut head = String::new();
        self.stdout.read_line(&mut head).map_err(|error| damaged(&error))?;
        let size = head.trim_end().strip_prefix(&format!("{blob} blob ")).and_then(|size| size.parse().ok());
        size.ok_or_else(|| damaged(&"is missing from the copy"))
    }

    fn skip_newline(&mut self) -> Result<(), GitError> {
        let mut newline = [0];
        self.stdout.read_exact(&mut newline).map_err(|error| GitError::Damaged { detail: error.to_string() })
    }

    fn close(self) {
        let Self { mut child, stdout, group } = self;
        drop((child.stdin.take(), stdout));
        if child.wait().is_ok() {
            group.over();
        }
    }
}
