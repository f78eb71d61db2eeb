//! The store's identity: its id, which hosts remember, and the version of its layout.

use etcd_client::{Compare, CompareOp, Txn, TxnOp};
use windlass_crds::id::{ClusterId, IdError};

use crate::call::{CallError, Repeat};
use crate::connect::Store;
use crate::key::{Control, Key};
use crate::report::Call;

/// The version of the layout that this program reads and writes.
pub const LAYOUT_VERSION: u32 = 1;

/// Begins what the layout says as long as keys are moved here: programs that know nothing of it take it for a layout
/// that they do not know either.
pub(crate) const MOVING: &str = "moving from ";

/// Why the store's identity is not known.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The store did not answer, or refused.
    #[error("cannot read or write the store's id")]
    Call(#[source] CallError),
    /// The id is not one. It is not replaced, since hosts know the store by it.
    #[error("{key} does not hold an id")]
    Damaged {
        /// Where it lies.
        key: Box<Key>,
        /// What is wrong with it.
        #[source]
        error: IdError,
    },
    /// A later Windlass wrote what is there.
    #[error("the store has layout {found:?}, and this program knows {LAYOUT_VERSION}\nhint: use the later version")]
    Layout {
        /// What the store says.
        found: String,
    },
    /// Somebody moves another store here, or was kept from ending it.
    #[error(
        "keys are being moved to this store, or that was cut off\nhint: `windlass store migrate` ends it, where the old store is"
    )]
    Moving,
    /// The kernel gave no random numbers.
    #[error("no random numbers")]
    Random(#[source] std::io::Error),
}

/// Whether this program may use a store with that layout; none is a store that nobody has used.
pub(crate) fn check_layout(value: Option<&[u8]>) -> Result<(), IdentityError> {
    let Some(value) = value else { return Ok(()) };
    let found = String::from_utf8_lossy(value).trim().to_owned();
    if found.starts_with(MOVING) {
        return Err(IdentityError::Moving);
    }
    match found.parse::<u32>() {
        Ok(version) if version <= LAYOUT_VERSION => Ok(()),
        _ => Err(IdentityError::Layout { found: found.chars().take(40).collect() }),
    }
}

/// What becomes of an id that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Absent {
    Made,
    Supposed,
}

impl Store {
    /// The id of this store, made when it has none, together with the version of the layout. One round trip.
    ///
    /// # Errors
    /// When the store does not answer or refuses, holds no valid id, or was written by a later Windlass.
    pub async fn cluster_id(&self) -> Result<ClusterId, IdentityError> {
        self.identify(Absent::Made).await
    }

    /// The id of this store, or one such as its first controller will give it. Nothing is written, so whoever may
    /// only read may ask this.
    ///
    /// # Errors
    /// As [`Store::cluster_id`].
    pub async fn supposed_cluster_id(&self) -> Result<ClusterId, IdentityError> {
        self.identify(Absent::Supposed).await
    }

    async fn identify(&self, absent: Absent) -> Result<ClusterId, IdentityError> {
        let key = Key::Control(Control::ClusterId);
        let fresh = random_id().map_err(IdentityError::Random)?;
        let (id, layout) = (self.path(&key), self.path(&Key::Control(Control::LayoutVersion)));
        let made = match absent {
            Absent::Made => vec![
                TxnOp::put(id.clone(), fresh.clone(), None),
                TxnOp::put(layout.clone(), LAYOUT_VERSION.to_string(), None),
            ],
            Absent::Supposed => Vec::new(),
        };
        let answer = self
            // Done twice, the second finds what the first made.
            .call(Call::Txn, Repeat::Freely, |mut client| {
                let txn = Txn::new()
                    .when([Compare::create_revision(id.clone(), CompareOp::Equal, 0)])
                    .and_then(made.clone())
                    .or_else([TxnOp::get(id.clone(), None), TxnOp::get(layout.clone(), None)]);
                async move { client.txn(txn).await }
            })
            .await
            .map_err(IdentityError::Call)?;
        let text = if answer.succeeded() {
            fresh
        } else {
            let mut found = crate::commit::found(&answer).into_iter();
            let (id, layout) = (found.next().flatten(), found.next().flatten());
            check_layout(layout.as_ref().map(etcd_client::KeyValue::value))?;
            id.map(|pair| String::from_utf8_lossy(pair.value()).trim().to_owned()).unwrap_or_default()
        };
        text.parse().map_err(|error| IdentityError::Damaged { key: Box::new(key), error })
    }
}

/// So many bytes from the kernel, at most 256.
pub(crate) fn random_bytes<const LENGTH: usize>() -> Result<[u8; LENGTH], std::io::Error> {
    let mut bytes = [0; LENGTH];
    // So few always come whole (getrandom(2)).
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(bytes)
}

/// 32 hexadecimal digits from the kernel.
fn random_id() -> Result<String, std::io::Error> {
    Ok(random_bytes::<16>()?.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_layout_is_refused() {
        for (value, good) in
            [(None, true), (Some(&b"1"[..]), true), (Some(b"1\n"), true), (Some(b"2"), false), (Some(b"?"), false)]
        {
            assert_eq!(check_layout(value).is_ok(), good, "{value:?}");
        }
    }

    #[test]
    fn fresh_ids_are_ids_and_differ() {
        let (one, other) = (random_id().expect("random"), random_id().expect("random"));
        assert!(one.parse::<ClusterId>().is_ok());
        assert_ne!(one, other);
    }
}
