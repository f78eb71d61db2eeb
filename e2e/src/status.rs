//! What a status says, read as users read it: as JSON.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// A status from the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Status(pub Value);

/// One condition of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// For programs.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// What a Service's status says of one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRow {
    /// `ready`, `pending`, `unreachable`, …
    pub state: String,
    /// The revision that its unit names.
    pub revision: Option<u64>,
    /// More about it.
    pub message: String,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Status {
    /// The generation that it speaks of.
    pub fn generation(&self) -> u64 {
        self.0["observedGeneration"].as_u64().unwrap_or_default()
    }

    /// The revision of what is declared.
    pub fn revision(&self) -> Option<u64> {
        self.0["revision"].as_u64()
    }

    /// The revision that hosts are brought to.
    pub fn target(&self) -> Option<u64> {
        self.0["target"].as_u64()
    }

    /// One of its conditions; nothing where it has none of that kind.
    pub fn condition(&self, kind: &str) -> Option<Condition> {
        let found = self.0["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)?;
        Some(Condition {
            status: text(&found["status"]),
            reason: text(&found["reason"]),
            message: text(&found["message"]),
        })
    }

    /// Whether a condition is `True`.
    pub fn is(&self, kind: &str) -> bool {
        self.condition(kind).is_some_and(|condition| condition.status == "True")
    }

    /// Makes sure of a condition's status, and of its reason where one is given, and hands out its message.
    ///
    /// # Errors
    /// With the whole status where it says anything else.
    pub fn expect(&self, kind: &str, status: &str, reason: impl Into<Option<&'static str>>) -> Result<String> {
        let reason = reason.into();
        let found = self.condition(kind).with_context(|| format!("no condition {kind} in {}", self.0))?;
        ensure!(
            found.status == status && reason.is_none_or(|reason| found.reason == reason),
            "expected {kind}={status} {}, and it says {}={} {}: {}; whole status: {}",
            reason.unwrap_or_default(),
            kind,
            found.status,
            found.reason,
            found.message,
            self.0
        );
        Ok(found.message)
    }

    /// What it says of one host.
    ///
    /// # Errors
    /// When it says nothing of it.
    pub fn host(&self, name: &str) -> Result<HostRow> {
        let row = self.0["hosts"].get(name).with_context(|| format!("nothing of {name} in {}", self.0))?;
        Ok(HostRow { state: text(&row["state"]), revision: row["revision"].as_u64(), message: text(&row["message"]) })
    }
}
