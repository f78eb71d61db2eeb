//! What hosts cost in connections: numbers for whoever keeps count.

use std::collections::BTreeMap;
use std::fmt;

use windlass_crds::step::ContactError;

/// How an attempt to log in to a host ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Login {
    /// We are in.
    Ok,
    /// Nobody answered in time.
    Timeout,
    /// Nothing listens there, or its name has no address.
    Unreachable,
    /// The host's key is not the one that is pinned or known.
    HostKey,
    /// No key of ours lets us in.
    Denied,
    /// This side, or something that nobody foresaw, is at fault.
    Failed,
}

impl Login {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Ok, Self::Timeout, Self::Unreachable, Self::HostKey, Self::Denied, Self::Failed];

    /// What a failure to connect counts as.
    pub fn failed(error: &ContactError) -> Self {
        match error {
            ContactError::Timeout { .. } => Self::Timeout,
            ContactError::Refused { .. } | ContactError::NoAddress { .. } => Self::Unreachable,
            ContactError::HostKey { .. } => Self::HostKey,
            ContactError::Login { .. } => Self::Denied,
            ContactError::Lost { .. }
            | ContactError::Unsuitable { .. }
            | ContactError::Garbled { .. }
            | ContactError::Local { .. } => Self::Failed,
        }
    }

    /// As metrics call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::HostKey => "host_key",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for Login {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

/// The connections of a fleet at one moment, and what was tried since it began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Connections that are open: an ssh process each.
    pub connections: u64,
    /// Session channels that are open on them: a shell on a host each.
    pub sessions: u64,
    /// Attempts to log in, by how they ended; what never happened is missing.
    pub logins: BTreeMap<Login, u64>,
}
