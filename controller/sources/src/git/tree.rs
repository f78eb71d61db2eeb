//! What a commit holds, read out of git's store of objects: paths, kinds and sizes first, contents afterwards.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;
use windlass_crds::configrepo::{BlobId, TreeId};
use windlass_crds::manifest::MAX_PATHS;

use super::command::{Git, Group};
use super::{GitError, READ};

/// What lies at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    /// A file: what it holds, how much, and whether it may be executed.
    File { blob: BlobId, size: u64, executable: bool },
    /// A symbolic link; the blob holds where it leads.
    Link { blob: BlobId, size: u64 },
    /// A directory.
    Directory(TreeId),
    /// Another repository, of which this one knows nothing but a name.
    Submodule,
}

/// Everything in a tree, by its path from there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Listing {
    pub(super) nodes: BTreeMap<String, Node>,
    /// The tree itself, where it was listed by a commit.
    pub(super) root: Option<TreeId>,
}

impl Listing {
    /// Lists a commit or a tree.
    ///
    /// # Errors
    /// When our copy has not all of it, or it is more than a release may hold.
    pub(super) async fn of(copy: &Path, object: &str) -> Result<Self, GitError> {
        let git = Git::reading(copy);
        let name = git.run(&["rev-parse", "--verify", "--quiet", &format!("{object}^{{tree}}")], READ).await?.text()?;
        let root = name.trim().parse().map_err(|_| damaged("a tree without a name"))?;
        let arguments = ["ls-tree", "-r", "-t", "-z", "-l", "--full-tree", object];
        let bytes = git.run(&arguments, READ).await?.bytes();
        Ok(Self { root: Some(root), ..Self::parse(&bytes)? })
    }

    /// Reads `<mode> SP <type> SP <object> SP+ <size> TAB <path> NUL` (git-ls-tree(1)).
    fn parse(bytes: &[u8]) -> Result<Self, GitError> {
        let mut nodes = BTreeMap::new();
        for line in bytes.split(|byte| *byte == 0).filter(|line| !line.is_empty()) {
            let line = String::from_utf8_lossy(line);
            let (head, path) = line.split_once('\t').ok_or_else(|| damaged(&line))?;
            let words: Vec<&str> = head.split_ascii_whitespace().collect();
            let [mode, kind, object, size] = words[..] else { return Err(damaged(&line)) };
            let blob = || object.parse::<BlobId>().map_err(|_| damaged(&line));
            let size = || size.parse::<u64>().map_err(|_| damaged(&line));
            let node = match (kind, mode) {
                ("tree", _) => Node::Directory(object.parse().map_err(|_| damaged(&line))?),
                ("commit", _) => Node::Submodule,
                ("blob", "120000") => Node::Link { blob: blob()?, size: size()? },
                ("blob", mode) => Node::File { blob: blob()?, size: size()?, executable: mode == "100755" },
                _ => return Err(damaged(&line)),
            };
            nodes.insert(path.to_owned(), node);
            if nodes.len() > MAX_PATHS {
                return Err(GitError::TooLarge { what: "the number of paths".to_owned(), most: MAX_PATHS as u64 });
            }
        }
        Ok(Self { nodes, root: None })
    }

    /// The directory at a path; the empty one is the root.
    pub(super) fn directory(&self, path: &str) -> Option<&TreeId> {
        if path.is_empty() {
            return self.root.as_ref();
        }
        match self.nodes.get(path) {
            Some(Node::Directory(tree)) => Some(tree),
            _ => None,
        }
    }
}

fn damaged(line: &str) -> GitError {
    GitError::Damaged { detail: format!("{:?} is no line of a listing", line.chars().take(200).collect::<String>()) }
}

/// A file, and what is in it; nothing where that was not asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blob {
    pub(super) path: String,
    pub(super) contents: Result<Vec<u8>, Unread>,
}

/// Why a file is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    /// It is a symbolic link.
    Link,
    /// It is too large, with so many bytes.
    TooLarge(u64),
    /// Its path is none that a file can have.
    Path,
}

/// A file that is to be read, or why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) path: String,
    pub(super) blob: Result<(BlobId, u64), Unread>,
}

/// Reads files, in one process for all of them.
///
/// # Errors
/// When our copy has not all of them.
pub(super) async fn blobs(copy: &Path, files: &[Candidate]) -> Result<Vec<Blob>, GitError> {
    let wanted: Vec<BlobId> = files.iter().filter_map(|file| Some(file.blob.as_ref().ok()?.0.clone())).collect();
    let mut read = tokio::time::timeout(READ.time, batch(copy, wanted))
        .await
        .map_err(|_| GitError::Slow { what: "git cat-file".to_owned(), seconds: READ.time.as_secs() })??;
    read.reverse();
    let mut contents = |blob: &Result<(BlobId, u64), Unread>| match blob {
        Ok(_) => Ok(read.pop().expect("one for each that was asked for")),
        Err(why) => Err(*why),
    };
    Ok(files.iter().map(|file| Blob { path: file.path.clone(), contents: contents(&file.blob) }).collect())
}

async fn batch(copy: &Path, wanted: Vec<BlobId>) -> Result<Vec<Vec<u8>>, GitError> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let mut command = Command::from(Git::reading(copy).command(&["cat-file", "--batch"]));
    command.process_group(0).kill_on_drop(true).stdin(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(GitError::Missing)?;
    let group = Group::of(child.id());
    let (mut stdin, stdout) = child.stdin.take().zip(child.stdout.take()).expect("both are piped");
    let names: String = wanted.iter().map(|blob| format!("{blob}\n")).collect();
    let write = async move {
        // Where it does not take them, it does not give the contents either.
        let _ = stdin.write_all(names.as_bytes()).await;
    };
    let read = async {
        let mut stdout = BufReader::new(stdout);
        let mut read = Vec::with_capacity(wanted.len());
        for blob in &wanted {
            let gone = |_| GitError::Damaged { detail: format!("{blob} cannot be read") };
            let mut head = String::new();
            stdout.read_line(&mut head).await.map_err(gone)?;
            let size =
                head.trim_end().strip_prefix(&format!("{blob} blob ")).and_then(|size| size.parse::<usize>().ok());
            let Some(size) = size else {
                return Err(GitError::Damaged { detail: format!("{blob} is missing from the copy") });
            };
            let mut contents = vec![0; size + 1];
            stdout.read_exact(&mut contents).await.map_err(gone)?;
            contents.truncate(size);
            read.push(contents);
        }
        Ok(read)
    };
    let (read, ()) = tokio::join!(read, write);
    let read = read?;
    let _ = child.wait().await;
    group.over();
    Ok(read)
}
