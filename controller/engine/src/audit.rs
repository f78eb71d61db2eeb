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
use windlass_store::{CommitError, Draw, Key, StoreRevision, Write};

pub(crate) use self::decided::{Decided, decided, waits};
pub(crate) use self::declared::{ServiceDeclaration, asked};
pub use self::key::{KeyError, SigningKey, holds};
pub use self::trail::Trail;
use self::trail::{Occasion, Page};
use crate::controller::Controller;
use crate::goal::chain as reasons;
use crate::metrics::Untold;
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
    /// A rollout ends with it: where no other one is under way, nothing more may be told for long.
    pub(crate) ends: bool,
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
    /// Where somebody has written where an anchor comes, or where it is too large, it is made again with less of the trail,
    /// and in the end with nothing, as where the end of the chain is not found: whoever can damage the trail must not
    /// thereby keep a Service from being reconciled. What is not told then is in the log, and is counted.
    ///
    /// # Errors
    /// When the store does not take it, or does not say how far the trail has come.
    pub(crate) async fn commit_telling(
        &self,
        mut draw: Option<Draw<'_>>,
        mut writes: Vec<Write>,
        telling: Telling,
    ) -> Result<StoreRevision, ReconcileError> {
        let Telling { resource, entries, declared, ends } = telling;
        if entries.is_empty() {
            return Ok(self.commit_drawing(draw.as_mut(), &writes).await?);
        }
        let (chain, own) = (Chain::Resource(resource), writes.len());
        let room = windlass_store::MOST_WRITES.saturating_sub(own + usize::from(draw.is_some()));
        let quiet = ends && !self.moving.any();
        let _turn = self.audit.turn(quiet).await;
        let occasion = Occasion { now: self.now(), room, quiet };
        let page = self.audit.page(&self.store, &chain, &entries, declared, occasion).await;
        let mut page = page.map_err(ReconcileError::Audit)?;
        loop {
            writes.truncate(own);
            writes.extend(page.iter().flat_map(Page::writes).cloned());
            let committed = self.try_to_commit(draw.as_mut(), &writes).await;
            page = match (page, &committed) {
                (Some(page), Err(error)) if is_of_the_trail(error) => {
                    tracing::warn!(%chain, error = reasons(error), "made again with less of the audit trail");
                    page.less()
                }
                (page, _) => {
                    match page {
                        Some(page) => page.close(&committed),
                        None if committed.is_ok() => self.untold(&chain, &entries),
                        None => {}
                    }
                    if committed.is_err() {
                        self.events.not_written(&writes);
                    }
                    return Ok(committed?);
                }
            };
        }
    }

    /// Tells by other ways what the trail cannot tell.
    fn untold(&self, chain: &Chain, entries: &[Entry]) {
        self.metrics.untold(Untold::Record);
        for Entry { who, what } in entries {
            let (who, what) = (who.to_string(), what.to_string());
            tracing::error!(%chain, who, what, "this is not in the audit trail, which cannot be written here");
        }
    }
}

/// Whether a commit may be made with less of the trail. One whose own record is there already may not: the answer to the
/// one before may have been lost, and come late, and what was decided is decided anew then.
fn is_of_the_trail(error: &CommitError) -> bool {
    match error {
        CommitError::Conflict { key, .. } => matches!(**key, Key::Audit(Chain::Anchors | Chain::Leader, _)),
        CommitError::TooLarge { .. } | CommitError::TooMany { .. } => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use windlass_crds::id::RecordNumber;

    use super::*;

    #[test]
    fn a_commit_is_made_with_less_of_the_trail_only_where_nothing_else_is_wrong() {
        let conflict = |key| CommitError::Conflict { key: Box::new(key), found: None };
        let record = |path| Key::Audit(Chain::from_path(path).expect(path), RecordNumber(7));
        for (error, expected) in [
            (conflict(record("anchors")), true),
            (conflict(record("leader")), true),
            (conflict(record("services/default/web")), false),
            (conflict(Key::Owned("default/web".parse().expect("two labels"))), false),
            (CommitError::TooLarge { bytes: 2_000_000 }, true),
            (CommitError::LeadershipLost, false),
        ] {
            assert_eq!(is_of_the_trail(&error), expected, "{error}");
        }
    }
}
