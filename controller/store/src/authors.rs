//! Who wrote what, as the embedded store remembers it: the name in the certificate that somebody showed.

use std::fmt;
use std::sync::Arc;

use crate::entry::StoreRevision;
use crate::key::{Key, Prefix};
use crate::mvcc::Engine;
use crate::serve::PeerName;

/// So many changes are in one transaction at most: the author of one is found among them.
const AT_ONE_REVISION: usize = 1;

/// No more bytes are read than the first few changes have; a transaction comes whole all the same.
const ENOUGH: usize = 1;

/// Tells who wrote what. etcd does not record it, so only the embedded store can.
#[derive(Clone, Default)]
pub struct Authors(Option<Arc<Engine>>);

impl Authors {
    /// Those of a store of our own.
    pub(crate) fn of(engine: Arc<Engine>) -> Self {
        Self(Some(engine))
    }

    /// Whose certificate stood behind the change of a key at a revision; `None` where nobody knows: in an etcd, where
    /// the store asks nobody who they are, and where that change is compacted away.
    pub fn author(&self, prefix: &Prefix, key: &Key, at: StoreRevision) -> Option<PeerName> {
        let revision = i64::try_from(at.0).ok()?;
        let history = self.0.as_ref()?.history(revision, AT_ONE_REVISION, ENOUGH).ok()?;
        let path = key.path(prefix);
        let changes = history.changes.into_iter().take_while(|change| change.at.main == revision);
        // Within a transaction a key may change more than once: the last change is what was left.
        let last = changes.filter(|change| change.pair.key == path).last()?;
        last.author?.parse().ok()
    }
}

impl fmt::Debug for Authors {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(if self.0.is_some() { "Authors(known)" } else { "Authors(unknown)" })
    }
}
