//! What is wrong with a declaration: a reason, the field, and a sentence that says what to do.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::condition::Reason;

/// The most problems of a document that are told: who has mended so many looks again.
const MOST: usize = 20;

/// No path of ours is longer; a name that somebody chose may be.
const LONGEST_FIELD: usize = 200;

/// A sentence with an excerpt of five lines has less.
const LONGEST_MESSAGE: usize = 2000;

/// The beginning of a long text, and how much of it is not there.
fn cut(mut text: String, longest: usize) -> String {
    if text.len() > longest {
        let rest = text.len() - longest;
        text.truncate(text.floor_char_boundary(longest));
        text.push_str(&format!("… ({rest} bytes more)"));
    }
    text
}

/// The first of many problems, and how many more there are.
pub(crate) fn at_most(mut problems: Vec<Problem>) -> Vec<Problem> {
    if problems.len() > MOST {
        let rest = problems.len() - MOST;
        problems.truncate(MOST);
        problems.push(Problem::invalid("", format!("and {rest} more problems")));
    }
    problems
}

/// One thing that is wrong with a declaration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// Why it is refused.
    pub reason: Reason,
    /// Which field, as a path: `spec.network.port`; empty where it is the document.
    pub field: String,
    /// What is wrong and what to do, without the field.
    pub message: String,
}

impl Problem {
    /// Something that is wrong with one field.
    ///
    /// What is very long is cut: it may quote a value, and a status has to fit into the store.
    pub fn new(reason: Reason, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason, field: cut(field.into(), LONGEST_FIELD), message: cut(message.into(), LONGEST_MESSAGE) }
    }

    /// A value that makes no sense.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Reason::InvalidDeclaration, field, message)
    }

    /// A field that parses but that this version cannot honour.
    pub fn not_supported(field: impl Into<String>) -> Self {
        Self::new(Reason::NotSupported, field, "this version of Windlass does not support it yet; leave it out")
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            out.write_str(&self.message)
        } else {
            write!(out, "{}: {}", self.field, self.message)
        }
    }
}
