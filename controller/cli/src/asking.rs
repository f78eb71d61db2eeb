//! Asking: requests to the controller, each under an id of its own.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use windlass_crds::id::ResourceKey;
use windlass_crds::request::Request;
use windlass_store::{RequestId, Store, StoreRevision};

/// A request that was written. The controller deletes it when it is done.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Which.
    pub(crate) id: RequestId,
    /// When.
    pub(crate) at: StoreRevision,
}

/// Writes a request.
///
/// # Errors
/// When the store does not answer or refuses.
pub(crate) async fn ask(store: &Store, target: &ResourceKey, request: &Request) -> anyhow::Result<Asked> {
    let id = fresh_id(request);
    let value = serde_json::to_vec(request).expect("a request of texts and numbers is JSON");
    let written = store.request(target, &id, value).await;
    let at = written.with_context(|| format!("cannot ask the controller to {} {target}", request.name()))?;
    Ok(Asked { id, at })
}

/// An id that no other request has: of two at one nanosecond, the processes differ. Sorts by time.
fn fresh_id(request: &Request) -> RequestId {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let text = format!("{now:020}-{}-{}", std::process::id(), request.name());
    text.parse().expect("digits, hyphens and lower-case letters")
}
