//! The audit trail, as the controller writes it: in the commits that happen anyway, and only while it leads.
//!
//! What is told is found out where it is decided (`declared.rs`, `decided.rs`), who did it by `who.rs`; `trail.rs` makes
//! records and anchors of it, and knows how far each chain has come.

mod decided;
mod declared;
mod key;
mod trail;
mod who;

use std::time::Duration;

use windlass_crds::audit::{Chain, Entry, Standing, What};
use windlass_crds::id::ResourceKey;
use windlass_hosts::fleet::Fleet;
use windlass_store::{Draw, StoreRevision, Write};

pub(crate) use self::decided::{Decided, decided, waits};
pub(crate) use self::declared::{ServiceDeclaration, asked};
pub use self::key::{KeyError, SigningKey, holds};
pub use self::trail::Trail;
use crate::controller::Controller;
use crate::service::ReconcileError;

/// Records are kept for so long unless told otherwise.
pub const RETENTION: Duration = Duration::from_secs(90 * 24 * 3600);

/// How the trail is written.
#[derive(Debug, Clone)]
pub struct AuditOptions {
    /// What signs it.
    pub key: SigningKey,
    /// How long records are kept.
    pub retention: Duration,
}

/// What a commit tells of one resource. It is told with the commit, or not at all.
#[derive(Debug)]
pub(crate) struct Telling {
    /// Of which resource.
    pub(crate) resource: ResourceKey,
    /// What happened.
    pub(crate) entries: Vec<Entry>,
    /// How it stands with its declaration from now on.
    pub(crate) declared: Option<Standing>,
}

impl Telling {
    /// What is declared is not in force before people have approved it.
    pub(crate) fn waits(&mut self) {
        for entry in &mut self.entries {
            if let What::Declared { waits, .. } = &mut entry.what {
                *waits = true;
            }
        }
    }
}

impl<F: Fleet> Controller<F> {
    /// Reads how far the trail of a resource has come, where that is not known yet.
    ///
    /// # Errors
    /// When the store does not answer.
    pub(crate) async fn know(&self, resource: &ResourceKey) -> Result<(), ReconcileError> {
        let chain = Chain::Resource(resource.clone());
        self.audit.known(&self.store, &chain).await.map(drop).map_err(ReconcileError::Audit)
    }

    /// As [`Controller::commit_drawing`], and tells the trail what happened, in the same transaction. A commit of which
    /// there is nothing to tell is one as any other.
    ///
    /// # Errors
    /// When the store does not take it, or does not say how far the trail has come.
    pub(crate) async fn commit_telling(
        &self,
        draw: Option<Draw<'_>>,
        mut writes: Vec<Write>,
        telling: Telling,
    ) -> Result<StoreRevision, ReconcileError> {
        let Telling { resource, entries, declared } = telling;
        if entries.is_empty() {
            return Ok(self.commit_drawing(draw, &writes).await?);
        }
        let chain = Chain::Resource(resource);
        let room = windlass_store::MOST_WRITES.saturating_sub(writes.len() + usize::from(draw.is_some()));
        let page = self.audit.page(&self.store, &chain, entries, declared, self.now(), room).await;
        let page = page.map_err(ReconcileError::Audit)?;
        writes.extend(page.writes().cloned());
        let committed = self.commit_drawing(draw, &writes).await;
        page.close(&committed);
        Ok(committed?)
    }
}
