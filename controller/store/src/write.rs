//! Writes of users: declarations and requests, one key at a time, guarded by etcd's access control alone.

use std::time::Duration;

use etcd_client::{Compare, CompareOp, Txn, TxnOp};
use windlass_crds::id::ResourceKey;

use crate::call::{CallError, Problem, Repeat};
use crate::commit::Expectation;
use crate::connect::Store;
use crate::entry::{LeaseId, StoreRevision};
use crate::key::{Key, RequestId};
use crate::report::Call;

/// The largest declaration that the controller acts on.
pub const DECLARATION_BYTES: usize = windlass_crds::document::MAX_BYTES;

/// Why something could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// More than the controller would act on.
    #[error("{key} would be {bytes} bytes, and {DECLARATION_BYTES} are the most")]
    TooLarge {
        /// Where it would go.
        key: Key,
        /// How long it is.
        bytes: usize,
    },
    /// A request of that id is there, and says something else.
    #[error("{key} is there already, and another")]
    Exists {
        /// Which one.
        key: Key,
    },
    /// Somebody else was quicker, so that what the write stood on is no longer so.
    #[error(
        "Conflict: {key} was changed by somebody else at the same time; nothing was written\nhint: see what it says now, and type this again"
    )]
    Conflict {
        /// Which one.
        key: Key,
    },
    /// The store refused, or could not be asked.
    #[error("nothing was written to the store")]
    NotApplied(#[source] CallError),
    /// The answer was lost.
    #[error("the store may or may not have taken it")]
    Unknown(#[source] CallError),
}

impl From<CallError> for WriteError {
    fn from(error: CallError) -> Self {
        if error.may_have_applied() { Self::Unknown(error) } else { Self::NotApplied(error) }
    }
}

impl Store {
    /// Declares a resource, whatever was declared before. The revision is the generation that
    /// `status.observedGeneration` reaches. One round trip.
    ///
    /// # Errors
    /// When it is over 256 KiB, or the store does not answer or refuses.
    pub async fn declare(&self, resource: &ResourceKey, value: Vec<u8>) -> Result<StoreRevision, WriteError> {
        let key = Key::Declared(resource.clone());
        check_size(&key, &value)?;
        let path = self.path(&key);
        // Put twice, it is still declared once: only the revision is a later one, which is the one returned.
        let answer = self
            .call(Call::Put, Repeat::Freely, |mut client| {
                let (path, value) = (path.clone(), value.clone());
                async move { client.put(path, value, None).await }
            })
            .await?;
        Ok(revision(answer.header()))
    }

    /// Declares a resource, only where `expect` holds of what is declared. One round trip.
    ///
    /// # Errors
    /// When it does not hold, or the declaration is over 256 KiB, or the store does not answer or refuses.
    pub async fn declare_expecting(
        &self,
        resource: &ResourceKey,
        value: Vec<u8>,
        expect: Expectation,
    ) -> Result<StoreRevision, WriteError> {
        let key = Key::Declared(resource.clone());
        check_size(&key, &value)?;
        let path = self.path(&key);
        // One that was taken would not be expected any more at a second try.
        let answer = self
            .call(Call::Txn, Repeat::WhenNotApplied, |mut client| {
                let held: Vec<Compare> = expect.compare(&path).into_iter().collect();
                let txn = Txn::new().when(held).and_then([TxnOp::put(path.clone(), value.clone(), None)]);
                async move { client.txn(txn).await }
            })
            .await?;
        if answer.succeeded() { Ok(revision(answer.header())) } else { Err(WriteError::Conflict { key }) }
    }

    /// Deletes a declaration; nothing when there was none. One round trip.
    ///
    /// # Errors
    /// When the store does not answer or refuses.
    pub async fn delete_declaration(&self, resource: &ResourceKey) -> Result<Option<StoreRevision>, WriteError> {
        let path = self.path(&Key::Declared(resource.clone()));
        let answer = self
            .call(Call::Delete, Repeat::WhenNotApplied, |mut client| {
                let path = path.clone();
                async move { client.delete(path, None).await }
            })
            .await?;
        Ok((answer.deleted() > 0).then(|| revision(answer.header())))
    }

    /// Asks the controller to do something once. Asking again with the same id and value is the same request. One
    /// round trip.
    ///
    /// # Errors
    /// When another request has that id, or it is over 256 KiB, or the store does not answer or refuses.
    pub async fn request(
        &self,
        target: &ResourceKey,
        id: &RequestId,
        value: Vec<u8>,
    ) -> Result<StoreRevision, WriteError> {
        let key = Key::Request { target: target.clone(), id: id.clone() };
        check_size(&key, &value)?;
        let path = self.path(&key);
        // A request that was taken may be done and deleted before a second try, which would ask for it again.
        let answer = self
            .call(Call::Txn, Repeat::WhenNotApplied, |mut client| {
                let txn = Txn::new()
                    .when([Compare::create_revision(path.clone(), CompareOp::Equal, 0)])
                    .and_then([TxnOp::put(path.clone(), value.clone(), None)])
                    .or_else([TxnOp::get(path.clone(), None)]);
                async move { client.txn(txn).await }
            })
            .await?;
        if answer.succeeded() {
            return Ok(revision(answer.header()));
        }
        let there = crate::commit::found(&answer).into_iter().next().flatten();
        match there {
            Some(pair) if pair.value() == value => Ok(StoreRevision::from_etcd(pair.mod_revision())),
            _ => Err(WriteError::Exists { key }),
        }
    }

    /// Grants a lease, for keys that shall vanish after `ttl` (whole seconds, rounded up). Nothing keeps it alive.
    /// One lease serves any number of keys. One round trip; the store's revision does not move.
    ///
    /// # Errors
    /// When the store does not answer or refuses.
    pub async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, WriteError> {
        let seconds = whole_seconds(ttl);
        // A lease whose answer was lost ends by itself.
        let answer = self
            .call(Call::LeaseGrant, Repeat::Freely, |mut client| async move { client.lease_grant(seconds, None).await })
            .await?;
        Ok(LeaseId(answer.id()))
    }

    /// Ends a lease and deletes all its keys. A lease that has ended already is no error. One round trip.
    ///
    /// # Errors
    /// When the store does not answer or refuses.
    pub async fn revoke_lease(&self, lease: LeaseId) -> Result<(), WriteError> {
        let outcome = self
            .call(Call::LeaseRevoke, Repeat::Freely, |mut client| async move { client.lease_revoke(lease.0).await })
            .await;
        match outcome {
            Err(error) if error.problem != Problem::LeaseGone => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Whole seconds, rounded up: what etcd counts leases in.
pub(crate) fn whole_seconds(ttl: Duration) -> i64 {
    let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

fn check_size(key: &Key, value: &[u8]) -> Result<(), WriteError> {
    if value.len() > DECLARATION_BYTES {
        return Err(WriteError::TooLarge { key: key.clone(), bytes: value.len() });
    }
    Ok(())
}

pub(crate) fn revision(header: Option<&etcd_client::ResponseHeader>) -> StoreRevision {
    StoreRevision::from_etcd(header.map_or(0, etcd_client::ResponseHeader::revision))
}
