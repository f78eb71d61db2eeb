//! What each request to the store cost, told to whoever keeps count.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::call::Problem;
use crate::connect::Store;

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Call {
    /// Reading keys.
    Range,
    /// Writing one key, as users do.
    Put,
    /// Deleting one key, as users do.
    Delete,
    /// Comparing and writing at once, as the controller does.
    Txn,
    /// Asking for a lease.
    LeaseGrant,
    /// Giving one back.
    LeaseRevoke,
    /// Keeping the leader's lease alive.
    LeaseKeepAlive,
    /// Asking a store how it is.
    Status,
    /// Copying a store.
    Snapshot,
}

impl Call {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Range,
        Self::Put,
        Self::Delete,
        Self::Txn,
        Self::LeaseGrant,
        Self::LeaseRevoke,
        Self::LeaseKeepAlive,
        Self::Status,
        Self::Snapshot,
    ];

    /// As metrics and logs call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Range => "range",
            Self::Put => "put",
            Self::Delete => "delete",
            Self::Txn => "txn",
            Self::LeaseGrant => "lease_grant",
            Self::LeaseRevoke => "lease_revoke",
            Self::LeaseKeepAlive => "lease_keep_alive",
            Self::Status => "status",
            Self::Snapshot => "snapshot",
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

/// One request that was made. A call that is tried again makes several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallReport {
    /// Of which kind.
    pub call: Call,
    /// From the first thought of it to the answer, connecting included.
    pub took: Duration,
    /// What went wrong, where something did.
    pub problem: Option<Problem>,
}

/// Hears of each request; called where the request was made, so it must not wait.
pub type CallListener = Arc<dyn Fn(&CallReport) + Send + Sync>;

impl Store {
    /// The same connection, whose requests from now on are told to `listener`.
    #[must_use]
    pub fn reporting_to(self, listener: CallListener) -> Self {
        self.with_listener(listener)
    }

    pub(crate) fn report(&self, report: &CallReport) {
        if let Some(listener) = &self.listener {
            listener(report);
        }
    }
}
