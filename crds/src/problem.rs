//! What is wrong with a declaration: a reason, the field, and a sentence that says what to do.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::condition::Reason;

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
    pub fn new(reason: Reason, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason, field: field.into(), message: message.into() }
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
