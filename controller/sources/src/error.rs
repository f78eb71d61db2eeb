//! Why a directory did not become a release.

use std::io;
use std::path::PathBuf;

use windlass_crds::manifest::{MAX_PATHS, PathError, ReleasePath};

use crate::contents::ContentsError;
use crate::git::GitError;

/// What is wrong with a glob.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GlobProblem {
    /// It selects nothing, not even a name.
    #[error("it is empty")]
    Empty,
    /// It begins with `!`, which other tools read as "not".
    #[error(
        "a leading `!` has no meaning here; hint: what is left out stands in `exclude`; a name with `!` is `[!]name`"
    )]
    Negated,
    /// It has an empty component, `.` or `..` in it.
    #[error("it must be a path from the root of the source, without empty components, `.` or `..`")]
    NotBelowRoot,
    /// Its syntax is wrong.
    #[error("{0}")]
    Syntax(globset::ErrorKind),
}

/// Why a directory did not become a release.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A glob that cannot be used.
    #[error("the glob {glob:?} cannot be used: {problem}")]
    Glob {
        /// As it was declared.
        glob: String,
        /// What is wrong with it.
        problem: GlobProblem,
    },
    /// The root is missing, is no directory, or may not be opened.
    #[error("the source {} is not available on the controller's machine", root.display())]
    Unavailable {
        /// The root, as it was declared.
        root: PathBuf,
        /// What the operating system said.
        #[source]
        error: io::Error,
    },
    /// A file or directory below the root may not be read.
    #[error("cannot read {}; hint: let the controller's user read it, or exclude it", path.display())]
    Unreadable {
        /// The file or directory, with the root in front.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        error: io::Error,
    },
    /// A socket, pipe or device.
    #[error("{} is a {kind}, which no release can hold; hint: exclude it", path.display())]
    Special {
        /// The file, with the root in front.
        path: PathBuf,
        /// What it is: `socket`, `pipe` or `device`.
        kind: &'static str,
    },
    /// A name or a link's target that a manifest cannot hold.
    #[error("a name below {} cannot be part of a release; hint: rename or exclude it", root.display())]
    Name {
        /// The root.
        root: PathBuf,
        /// Which name, and why.
        #[source]
        error: PathError,
    },
    /// A link that leads out of the tree.
    #[error(
        "the link {path} points to {target:?}, outside the source; hint: make it relative, copy the file, or exclude the link"
    )]
    LeavesTree {
        /// The link.
        path: ReleasePath,
        /// Where it points to.
        target: String,
    },
    /// A link that would dangle in the release.
    #[error(
        "the link {path} points to {target:?}, which is missing or left out of the release; hint: include the target, or exclude the link"
    )]
    Dangling {
        /// The link.
        path: ReleasePath,
        /// Where it points to.
        target: String,
    },
    /// More paths than a release may hold.
    #[error("{} holds more than {MAX_PATHS} files and links; hint: exclude what the service does not need", root.display())]
    TooManyPaths {
        /// The root.
        root: PathBuf,
    },
    /// No file is left after the globs.
    #[error("nothing in {} is left to release; hint: look at the include and exclude globs", root.display())]
    Empty {
        /// The root.
        root: PathBuf,
    },
    /// The tree changed while it was looked at. Try again later.
    #[error("{path} in {} changed while it was looked at; hint: exclude it when it is written all the time, such as a log", root.display())]
    Unsettled {
        /// The root.
        root: PathBuf,
        /// What changed; the first by name where there are more.
        path: String,
    },
    /// The controller's own store of files does not work.
    #[error("cannot keep the files of {}", root.display())]
    Contents {
        /// The root.
        root: PathBuf,
        /// What went wrong.
        #[source]
        error: ContentsError,
    },
    /// The controller's copy of a repository has not got it, or no longer.
    #[error("cannot read {} out of the controller's copy of the repository", root.display())]
    Repo {
        /// The ConfigRepo and the directory.
        root: PathBuf,
        /// Why not.
        #[source]
        error: GitError,
    },
    /// The runtime is being shut down.
    #[error("the controller is stopping")]
    Stopping,
}
