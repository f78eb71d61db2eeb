//! Exit codes: all there are.

use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// What was asked is done.
    Done = 0,
    /// It is not.
    Failed = 1,
    /// It makes no sense as it was typed. clap exits with the same.
    Usage = 2,
    /// `plan` or `diff` found differences.
    Differences = 3,
    /// It was not done within `--timeout`.
    TimedOut = 4,
    /// Somebody typed Ctrl-C while it waited: 128 and the signal's number, as shells have it.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
