//! Failures: how an error becomes lines on stderr and an exit code.

use std::error::Error;
use std::fmt;

use windlass_store::{CallError, Problem};

use crate::exit::Exit;
use crate::output::{self, Label, OutputError};

/// What was typed makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

/// It was not done in time.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct TimedOut(pub(crate) String);

/// Somebody typed Ctrl-C.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Interrupted(pub(crate) String);

/// An error with a sentence about what to do.
#[derive(Debug)]
struct Hinted {
    error: anyhow::Error,
    hint: String,
}

impl fmt::Display for Hinted {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}\nhint: {}", self.error, self.hint)
    }
}

impl Error for Hinted {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

/// Adds to an error what the person may do next.
pub(crate) fn hinted(error: impl Into<anyhow::Error>, hint: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Hinted { error: error.into(), hint: hint.into() })
}

/// Says on stderr what went wrong, with its sources, and last what to do.
pub(crate) fn report(error: &anyhow::Error) -> Exit {
    if find::<OutputError>(error).is_some_and(OutputError::is_broken_pipe) {
        return Exit::Done;
    }
    let (lines, hints) = lines(error);
    let interrupted = find::<Interrupted>(error).is_some();
    for (index, line) in lines.iter().enumerate() {
        match index {
            0 if !interrupted => output::labelled(Label::Error, line),
            _ => output::note(line),
        }
    }
    for hint in hints {
        output::labelled(Label::Hint, hint);
    }
    if let Some(hint) = find::<CallError>(error).and_then(|error| permission(error.problem)) {
        output::labelled(Label::Hint, hint);
    }
    if find::<UsageError>(error).is_some() {
        Exit::Usage
    } else if find::<TimedOut>(error).is_some() {
        Exit::TimedOut
    } else if interrupted {
        Exit::Interrupted
    } else {
        Exit::Failed
    }
}

/// What to do where etcd does not let us.
fn permission(problem: Problem) -> Option<&'static str> {
    match problem {
        Problem::Denied => Some(
            "who keeps etcd gives roles: people read everything, and write below declared/ and requests/; see docs/security.md",
        ),
        Problem::Unauthenticated => {
            Some("--user or WINDLASS_USER says who you are, WINDLASS_PASSWORD or --password-file proves it")
        }
        _ => None,
    }
}

/// The error of one type in a chain.
fn find<Wanted: Error + Send + Sync + 'static>(error: &anyhow::Error) -> Option<&Wanted> {
    error.chain().find_map(|error| match error.downcast_ref::<Hinted>() {
        Some(hinted) => find(&hinted.error),
        None => error.downcast_ref(),
    })
}

/// What the chain says, and the hints in it, which errors end with.
fn lines(error: &anyhow::Error) -> (Vec<String>, Vec<String>) {
    let (mut lines, mut hints) = (Vec::new(), Vec::new());
    for (depth, error) in error.chain().enumerate() {
        let text = error.to_string();
        let mut first = true;
        for line in text.lines() {
            if let Some(hint) = line.strip_prefix("hint: ") {
                hints.push(hint.to_owned());
            } else if depth > 0 && first {
                lines.push(format!("  cause: {line}"));
                first = false;
            } else {
                lines.push(line.to_owned());
            }
        }
    }
    (lines, hints)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_stand_last_and_sources_below() {
        let inner = anyhow::anyhow!("refused\nhint: is it running?");
        let error = hinted(inner.context("no connection"), "start it");
        let (lines, hints) = lines(&error);
        assert_eq!(lines, ["no connection", "  cause: refused"]);
        assert_eq!(hints, ["start it", "is it running?"]);
    }

    #[test]
    fn what_an_error_is_shows_through_its_hints() {
        let error = hinted(hinted(UsageError("no".to_owned()), "a"), "b");
        assert!(find::<UsageError>(&error).is_some());
        assert!(find::<TimedOut>(&error).is_none());
    }
}
