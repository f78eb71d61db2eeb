//! Why something could not be had from a repository.

use std::io;

use windlass_crds::configrepo::CommitId;

use crate::contents::ContentsError;

/// Why something could not be had from a repository.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// `git` cannot be run at all.
    #[error("cannot run git; hint: install it on the controller's machine")]
    Missing(#[source] io::Error),
    /// A key, a password or a list of signers is not where the declaration says.
    #[error("{what}")]
    Credentials {
        /// Which, and why.
        what: String,
    },
    /// The server does not answer, or does not let us in.
    #[error("the repository cannot be reached: {detail}")]
    Away {
        /// What git said.
        detail: String,
    },
    /// It took too long.
    #[error("{what} took longer than {seconds} s")]
    Slow {
        /// What.
        what: String,
        /// How long it may take.
        seconds: u64,
    },
    /// It is more than is looked at.
    #[error("{what} is more than {most}, the most that is looked at")]
    TooLarge {
        /// What.
        what: String,
        /// The bound.
        most: u64,
    },
    /// The repository has nothing of that name.
    #[error("the repository has {wanted}")]
    NoRef {
        /// Which it has not: `no branch or tag main`.
        wanted: String,
    },
    /// The commit has no such directory.
    #[error("the commit has no directory {path}")]
    NoDirectory {
        /// From the root of the repository.
        path: String,
    },
    /// The commit is not signed.
    #[error("the commit {} is not signed", commit.short())]
    Unsigned {
        /// Which.
        commit: CommitId,
    },
    /// The commit is not signed by somebody who may.
    #[error("the commit {} is not signed by anybody who may: {why}", commit.short())]
    Signer {
        /// Which.
        commit: CommitId,
        /// Why not.
        why: String,
    },
    /// Our copy cannot be read.
    #[error("the copy of the repository is damaged, or what was fetched is: {detail}")]
    Damaged {
        /// What git said.
        detail: String,
    },
    /// The data directory does not work.
    #[error("cannot keep a copy of the repository")]
    Data(#[source] ContentsError),
    /// This controller keeps no repositories.
    #[error("no repository can be followed here")]
    Nowhere,
}
