//! The only crate that reads trees and Git: a directory becomes a release, whose files are kept for as long as needed,
//! and a commit becomes declarations.
//!
//! [`Sources::release`] walks a [`SourceTree`], reads what it has not read before, and keeps it in [`Contents`].
//!
//! **Invariants:** no symbolic link is ever followed inside a tree; a file is opened only when its stamp (device,
//! inode, size, times) is not known, so looking at an unchanged tree again opens no file; nothing is written into
//! a source.

mod contents;
mod error;
pub mod git;
mod hashes;
mod ingest;
mod links;
mod memory;
mod release;
mod scan;
mod selection;

pub use contents::{Contents, ContentsError, Stored, Sweep};
pub use error::{GlobProblem, SourceError};
pub use memory::MemoryTrees;
pub use release::{Clock, Release, ScanMode, ScanStats, Sources};

use std::path::PathBuf;

/// What a Service says about its source: a directory, and which part of it is the release.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceTree {
    /// An absolute path on the controller's machine; it may be a symbolic link to the directory.
    pub root: PathBuf,
    /// Globs of what is taken, from the root; nothing here means everything.
    pub include: Vec<String>,
    /// Globs of what is left out of that; a glob without `/` holds at any depth.
    pub exclude: Vec<String>,
}
