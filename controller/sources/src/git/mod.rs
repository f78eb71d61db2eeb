//! Git repositories that are followed: asked for what is new, fetched, verified and read, without a checkout.
//!
//! Each has a bare repository below the data directory, and `git` itself does the work (`command.rs`). What a tree holds
//! is read out of git's store of objects: no path of a repository ever becomes a path on this machine's disk.

mod command;
mod declarations;
mod error;
mod release;
mod remote;
mod tree;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;
use windlass_crds::configrepo::{CommitId, TreeId};
use windlass_crds::id::RepoName;
use windlass_crds::manifest::ReleasePath;

use self::command::{Access, Git, Limits};
pub use self::declarations::{Commit, Wanted};
pub use self::error::GitError;
use self::remote::choose;
pub use self::remote::{Remote, Tip};
use self::tree::Listing;
use crate::contents::make_directory;

/// So many repositories are asked and fetched at once: each takes a process, a connection and some room on the disk, and
/// a controller follows a handful.
const AT_ONCE: usize = 4;

/// What a question to a server may take: a login and one answer.
const ASK: Limits = Limits { time: Duration::from_secs(30), output: 32 << 20 };

/// What a fetch may take: a large repository over a slow line.
const FETCH: Limits = Limits { time: Duration::from_secs(600), output: 1 << 20 };

/// What reading from our own copy may take. A listing of a hundred thousand paths has about 15 MB.
const READ: Limits = Limits { time: Duration::from_secs(60), output: 64 << 20 };

/// The most bytes that one fetch may bring: far beyond what anybody declares or deploys, and small beside a disk.
const FETCH_BYTES: u64 = 2 << 30;

/// The longest name of an author that is told, in characters.
const LONGEST_AUTHOR: usize = 200;

/// Between two looks at what a fetch has brought so far.
const FETCH_LOOK: Duration = Duration::from_millis(200);

/// So far back it is looked for the commit before, where more than one came at once.
const HISTORY: u32 = 32;

/// After so many fetches what is no longer named is cleared away: each leaves a small pack.
const TIDY_EVERY: usize = 64;

/// Who has signed a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// What the list of signers calls them.
    pub name: String,
    /// The fingerprint of their key: `SHA256:…`.
    pub key: String,
}

/// How one commit of a repository stands to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Succession {
    /// It comes after it, or is it.
    Follows,
    /// It does not, as far back as was looked.
    Unrelated,
}

/// Our copies of the repositories that are followed.
#[derive(Debug)]
pub struct Repos {
    directory: PathBuf,
    room: Semaphore,
    /// A copy has one process at a time that changes it.
    locks: Mutex<BTreeMap<RepoName, Arc<tokio::sync::Mutex<usize>>>>,
}

impl Repos {
    /// Keeps copies below `<data_directory>/repos`.
    pub(crate) fn new(data_directory: &Path) -> Self {
        Self { directory: data_directory.join("repos"), room: Semaphore::new(AT_ONCE), locks: Mutex::default() }
    }

    /// Where our copy of a repository is.
    fn copy_of(&self, name: &RepoName) -> PathBuf {
        self.directory.join(format!("{name}.git"))
    }

    fn lock(&self, name: &RepoName) -> Arc<tokio::sync::Mutex<usize>> {
        let mut locks = self.locks.lock().expect("no panic happens under this lock");
        Arc::clone(locks.entry(name.clone()).or_default())
    }

    /// Asks the server which commit is wanted: one process, one connection, nothing is fetched.
    ///
    /// # Errors
    /// When it cannot be reached, or has nothing of that name.
    pub async fn ask(&self, remote: &Remote) -> Result<Tip, GitError> {
        let _permit = self.room.acquire().await.expect("the semaphore is never closed");
        make_directory(&self.directory).map_err(GitError::Data)?;
        let access = Access::of(remote, &self.directory)?;
        let wanted = remote.wanted();
        let mut arguments = vec!["ls-remote".to_owned(), "--quiet".to_owned(), "--".to_owned(), remote.url.to_string()];
        arguments.extend(wanted.patterns());
        let answer = Git::reaching(&access, None).run(&arguments, ASK).await?;
        choose(&wanted, &answer.text()?)
    }

    /// Whether a commit and all of it is in our copy.
    pub async fn has(&self, name: &RepoName, commit: &CommitId) -> bool {
        let copy = self.copy_of(name);
        copy.is_dir() && Git::reading(&copy).run(&["cat-file", "-e", &format!("{commit}^{{tree}}")], READ).await.is_ok()
    }

    /// Fetches a commit, and as little as possible beside it. Tells how it stands to `before`, an earlier one.
    ///
    /// A copy that turns out to be damaged is thrown away and made anew.
    ///
    /// # Errors
    /// When it cannot be fetched. What was there before stays usable.
    pub async fn fetch(&self, remote: &Remote, tip: &Tip, before: Option<&CommitId>) -> Result<Succession, GitError> {
        let _permit = self.room.acquire().await.expect("the semaphore is never closed");
        let lock = self.lock(&remote.name);
        let mut fetches = lock.lock().await;
        let copy = self.copy_of(&remote.name);
        self.prepare(&copy).await?;
        *fetches += 1;
        if *fetches % TIDY_EVERY == 0 {
            self.tidy(&copy).await;
        }
        let fetched = self.fetch_to_depth(remote, tip, 1).await;
        // What was cut short or spoiled by a dying machine is not worth mending.
        if let Err(GitError::Damaged { .. }) = &fetched {
            self.throw_away(&copy).await;
            self.prepare(&copy).await?;
            self.fetch_to_depth(remote, tip, 1).await?;
        } else {
            fetched?;
        }
        let git = Git::reading(&copy);
        let found = git.run(&["rev-parse", "--verify", "--quiet", &format!("{}^{{commit}}", tip.object)], READ).await;
        match found.and_then(|output| output.text()) {
            Ok(text) if text.trim() == tip.commit.as_str() => {}
            Ok(_) | Err(_) => {
                let detail = format!("{} came without its commit", tip.reference);
                return Err(GitError::Damaged { detail });
            }
        }
        let Some(before) = before.filter(|before| **before != tip.commit) else { return Ok(Succession::Follows) };
        self.succession(remote, tip, before).await
    }

    /// How a commit stands to the one before. A single push is told by the commit itself; for more, some history.
    async fn succession(&self, remote: &Remote, tip: &Tip, before: &CommitId) -> Result<Succession, GitError> {
        let copy = self.copy_of(&remote.name);
        let git = Git::reading(&copy);
        let text = git.run(&["cat-file", "commit", tip.commit.as_str()], READ).await?.text_lossy();
        let parents = text.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.strip_prefix("parent "));
        if parents.into_iter().any(|parent| parent == before.as_str()) {
            return Ok(Succession::Follows);
        }
        self.fetch_to_depth(remote, tip, HISTORY).await?;
        let history = git.run(&["rev-list", "--max-count=1000", tip.commit.as_str()], READ).await?.text_lossy();
        let follows = history.lines().any(|commit| commit == before.as_str());
        Ok(if follows { Succession::Follows } else { Succession::Unrelated })
    }

    async fn fetch_to_depth(&self, remote: &Remote, tip: &Tip, depth: u32) -> Result<(), GitError> {
        let copy = self.copy_of(&remote.name);
        let access = Access::of(remote, &self.directory)?;
        let git = Git::reaching(&access, Some(&copy));
        let depth = format!("--depth={depth}");
        let refspec = format!("+{}:refs/windlass/fetched", tip.object);
        let url = remote.url.to_string();
        let arguments = [
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-recurse-submodules",
            "--no-auto-maintenance",
            &depth,
            "--",
            &url,
            &refspec,
        ];
        let fetch = git.run(&arguments, FETCH);
        tokio::pin!(fetch);
        loop {
            tokio::select! {
                done = &mut fetch => return done.map(drop),
                () = tokio::time::sleep(FETCH_LOOK) => {}
            }
            if incoming_bytes(&copy) > FETCH_BYTES {
                // Dropping the fetch ends it.
                return Err(GitError::TooLarge { what: "what the server sends".to_owned(), most: FETCH_BYTES });
            }
        }
    }

    /// Makes our copy where there is none, and removes what a fetch that was killed has left.
    async fn prepare(&self, copy: &Path) -> Result<(), GitError> {
        make_directory(&self.directory).map_err(GitError::Data)?;
        if copy.join("HEAD").is_file() && copy.join("objects").is_dir() {
            for left in ["shallow.lock", "packed-refs.lock", "refs/windlass/fetched.lock", "refs/windlass/applied.lock"]
            {
                // We hold the lock, so nobody is at it.
                let _ = std::fs::remove_file(copy.join(left));
            }
            for left in files_in(&copy.join("objects/pack")).filter(|path| is_temporary(path)) {
                let _ = std::fs::remove_file(left);
            }
            return Ok(());
        }
        self.throw_away(copy).await;
        let copy = copy.to_string_lossy().into_owned();
        Git::alone().run(&["init", "--quiet", "--bare", "--template=", "--", &copy], READ).await.map(drop)
    }

    async fn throw_away(&self, copy: &Path) {
        let copy = copy.to_owned();
        let _ = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(copy)).await;
    }

    /// Puts many small packs together, and drops what nothing names any more.
    async fn tidy(&self, copy: &Path) {
        let git = Git::reading(copy);
        for arguments in [&["repack", "-a", "-d", "-q"][..], &["prune", "--expire=1.hour.ago"]] {
            if let Err(error) = git.run(arguments, FETCH).await {
                tracing::debug!(error = &error as &dyn std::error::Error, "a copy was not tidied up");
            }
        }
    }

    /// Remembers that a commit is in force, so that it stays when others are fetched.
    ///
    /// # Errors
    /// When our copy does not take it.
    pub async fn keep(&self, name: &RepoName, commit: &CommitId) -> Result<(), GitError> {
        let copy = self.copy_of(name);
        let lock = self.lock(name);
        let _alone = lock.lock().await;
        let arguments = ["update-ref", "refs/windlass/applied", commit.as_str()];
        Git::reading(&copy).run(&arguments, READ).await.map(drop)
    }

    /// Who has signed a commit, of those who may, and with which key (its fingerprint).
    ///
    /// # Errors
    /// When it is not signed, or by nobody who may.
    pub async fn verify(&self, name: &RepoName, commit: &CommitId, allowed: &str) -> Result<Signer, GitError> {
        let copy = self.copy_of(name);
        let allowed = command::at_home(allowed)?;
        if let Err(error) = std::fs::metadata(&allowed) {
            return Err(GitError::Credentials { what: format!("{}: {error}", allowed.display()) });
        }
        let git = Git::reading(&copy).with("gpg.format", "ssh").with_path("gpg.ssh.allowedSignersFile", &allowed);
        let format = "--format=%G?%x00%GS%x00%GF";
        let shown = git.run(&["show", "--no-patch", "--no-notes", format, commit.as_str()], READ).await?.text_lossy();
        let mut parts = shown.trim_end().split('\0');
        let (state, signer) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let key = parts.next().unwrap_or_default();
        let commit = commit.clone();
        match state {
            "G" if !signer.is_empty() && !key.is_empty() => Ok(Signer { name: signer.to_owned(), key: key.to_owned() }),
            "N" | "" => Err(GitError::Unsigned { commit }),
            "B" => Err(GitError::Signer { commit, why: "the signature does not fit the commit".to_owned() }),
            _ if key.is_empty() => Err(GitError::Signer { commit, why: "the signature cannot be checked".to_owned() }),
            _ => Err(GitError::Signer { commit, why: format!("nobody who may sign has the key {key}") }),
        }
    }

    /// Who has made a commit, and when, as it says itself.
    async fn author(&self, name: &RepoName, commit: &CommitId) -> Result<(String, i64), GitError> {
        let copy = self.copy_of(name);
        let git = Git::reading(&copy);
        let format = "--format=%ct %an <%ae>";
        let shown = git.run(&["show", "--no-patch", "--no-notes", format, commit.as_str()], READ).await?.text_lossy();
        let (at, author) = shown.trim().split_once(' ').unwrap_or_default();
        let plain = author.trim().chars().filter(|c| !c.is_control()).take(LONGEST_AUTHOR).collect();
        // A time that makes no sense is younger than none.
        Ok((plain, at.parse().unwrap_or(i64::MIN)))
    }

    /// Reads what a commit declares below a directory.
    ///
    /// # Errors
    /// When there is no such directory, it holds more than is looked at, or our copy cannot be read.
    pub async fn declarations(
        &self,
        name: &RepoName,
        commit: &CommitId,
        path: Option<&ReleasePath>,
    ) -> Result<Commit, GitError> {
        let copy = self.copy_of(name);
        let listing = Listing::of(&copy, commit.as_str()).await?;
        let files = declarations::candidates(&listing, path)?;
        let blobs = tree::blobs(&copy, &files).await?;
        let (author, at) = self.author(name, commit).await?;
        Ok(Commit { author, at, ..declarations::read(name, commit, &listing, blobs) })
    }

    /// Our copy, for reading a release.
    pub(crate) fn copy_for(&self, name: &RepoName, tree: &TreeId) -> (PathBuf, String) {
        (self.copy_of(name), tree.to_string())
    }
}

fn files_in(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path()))
}

fn is_temporary(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("tmp_"))
}

/// How much of what is being fetched lies in a copy.
fn incoming_bytes(copy: &Path) -> u64 {
    let packs = copy.join("objects/pack");
    let sizes = files_in(&packs).filter(|path| is_temporary(path));
    sizes.filter_map(|path| Some(path.metadata().ok()?.len())).sum()
}

#[cfg(test)]
mod tests;
