//! Moves everything that an embedded store holds below its prefix into an etcd cluster.
//!
//! The steps, each of which may be the last one before the machine stops; the same command goes on:
//!
//! 1. The target's layout says that a move is under way: nobody uses it now. Nothing else may be there.
//! 2. The embedded store is sealed: nobody serves it any more.
//! 3. Declarations are written, which gives each its new generation; then the rest, with those generations in it.
//! 4. Everything is read back and compared.
//! 5. In one transaction the target gets its layout, and says what was moved there.
//! 6. The seal says that it is done.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use etcd_client::{Compare, CompareOp, DeleteOptions, GetOptions, SortOrder, SortTarget, Txn, TxnOp};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use windlass_crds::id::ResourceKey;

use super::place::Place;
use super::{EmbeddedError, Seal};
use crate::call::{CallError, Repeat};
use crate::connect::{ConnectError, ConnectOptions, Store};
use crate::identity::MOVING;
use crate::key::{Control, Key, Prefix};
use crate::machine::since_boot;
use crate::mvcc::{Disk, Engine, KeyRange, KeyValue, LeaseNumber, Range};
use crate::report::Call;

/// What is written at once at most: well below etcd's limits of 128 operations and 1.5 MiB.
const OPERATIONS: usize = 64;
const BYTES: usize = 512 * 1024;

/// Keys that are read back at once.
const PAGE: i64 = 500;

/// What was moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migrated {
    /// How many keys.
    pub keys: usize,
    /// Whether an earlier run had done all but the last step.
    pub before: bool,
}

/// Why a store was not moved, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The embedded store cannot be used.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    /// The target cannot be reached.
    #[error("cannot reach the store to move to")]
    Connect(#[from] ConnectError),
    /// The target did not take something.
    #[error("the store to move to did not take it all\nhint: the same command goes on")]
    Call(#[from] CallError),
    /// Something is there already.
    #[error(
        "{endpoint} holds {keys} keys below {prefix}\nhint: move to a cluster, or to a --to-prefix, where there is nothing"
    )]
    Holds {
        /// Where.
        endpoint: String,
        /// How many.
        keys: i64,
        /// Below what.
        prefix: Prefix,
    },
    /// Somebody else writes there.
    #[error("somebody else writes to {0} meanwhile\nhint: see who, and run the same command again")]
    Disturbed(String),
    /// What was read back is not what was written.
    #[error("{key} is not in the new store as it was written\nhint: run the same command again")]
    Differs {
        /// Which key.
        key: String,
    },
    /// The embedded store holds nothing.
    #[error("there is nothing to move: the store holds no keys below {0}")]
    Empty(Prefix),
}

/// Moves the store of a data directory, which nobody serves meanwhile.
///
/// # Errors
/// [`MigrateError`]. The embedded store has all that it had, and is sealed once the target holds some of it.
pub async fn migrate(data_dir: &Path, prefix: &Prefix, to: &ConnectOptions) -> Result<Migrated, MigrateError> {
    let place = Place::of(data_dir);
    if !place.data().is_file() {
        return Err(EmbeddedError::Absent(data_dir.to_owned()).into());
    }
    let identity = format!("{:016x}", place.identity()?.cluster);
    let endpoint = to.endpoints.join(",");
    let target = Target { store: Store::open(to).await?, mark: format!("{MOVING}{identity}"), identity, endpoint };
    let source = Source::read(&place.data(), prefix)?;
    let before = target.begin().await? == Begun::DoneBefore;
    if !before {
        place.seal(&Seal::Moving(target.endpoint.clone()))?;
        let expected = target.fill(&source).await?;
        target.verify(&expected).await?;
        target.finish(&source).await?;
    }
    place.seal(&Seal::Moved(target.endpoint.clone()))?;
    Ok(Migrated { keys: source.pairs.len(), before })
}

/// What is moved.
struct Source {
    engine: Engine,
    /// By their paths below the prefix, without what is made anew.
    pairs: BTreeMap<Vec<u8>, KeyValue>,
    layout: Bytes,
}

impl Source {
    fn read(data: &Path, prefix: &Prefix) -> Result<Self, MigrateError> {
        let disk = Disk::open(data).map_err(EmbeddedError::from)?;
        let engine = Engine::open(Box::new(disk), since_boot()).map_err(EmbeddedError::from)?;
        let begin = format!("{prefix}/");
        let range = KeyRange::new(begin.clone().into(), format!("{prefix}0").into());
        let found =
            engine.range(&Range::of(range)).map_err(|refusal| EmbeddedError::Unreadable(refusal.to_string()))?;
        let mut pairs: BTreeMap<Vec<u8>, KeyValue> =
            found.1.pairs.into_iter().map(|pair| (pair.key[begin.len()..].to_vec(), pair)).collect();
        // Who leads is held by a lease that nobody keeps any more.
        pairs.remove(&Key::Control(Control::Leader).relative());
        let layout = pairs.remove(&Key::Control(Control::LayoutVersion).relative());
        let layout = layout.ok_or_else(|| MigrateError::Empty(prefix.clone()))?.value;
        Ok(Self { engine, pairs, layout })
    }

    fn generation(&self, resource: &ResourceKey) -> Option<i64> {
        self.pairs.get(&Key::Declared(resource.clone()).relative()).map(|pair| pair.modified)
    }
}

/// How a move begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begun {
    Now,
    DoneBefore,
}

/// Where it is moved to.
struct Target {
    store: Store,
    endpoint: String,
    identity: String,
    /// What the layout says as long as it goes on.
    mark: String,
}

impl Target {
    fn key(&self, relative: &[u8]) -> Vec<u8> {
        [self.store.prefix().to_string().as_bytes(), b"/", relative].concat()
    }

    fn layout(&self) -> Vec<u8> {
        self.key(&Key::Control(Control::LayoutVersion).relative())
    }

    /// Says who was moved here. Kept, so that the last step of a move is found to be done.
    fn moved_from(&self) -> Vec<u8> {
        self.key(b"control/records/moved-from")
    }

    async fn txn(&self, txn: &Txn) -> Result<etcd_client::TxnResponse, CallError> {
        self.store.call(Call::Txn, Repeat::Freely, async |mut client| client.txn(txn.clone()).await).await
    }

    async fn get(&self, key: Vec<u8>, options: GetOptions) -> Result<etcd_client::GetResponse, CallError> {
        let get = async |mut client: etcd_client::Client| client.get(key.clone(), Some(options.clone())).await;
        self.store.call(Call::Range, Repeat::Freely, get).await
    }

    /// Marks the target, where nothing is there or where we began before, and takes off what we have left.
    async fn begin(&self) -> Result<Begun, MigrateError> {
        let all = self.key(b"");
        let end = format!("{}0", self.store.prefix()).into_bytes();
        let value = async |key| {
            let answer = self.get(key, GetOptions::new()).await?;
            Ok::<_, CallError>(answer.kvs().first().map(|pair| pair.value().to_vec()))
        };
        if value(self.moved_from()).await?.is_some_and(|from| from == self.identity.as_bytes()) {
            return Ok(Begun::DoneBefore);
        }
        let ours = value(self.layout()).await?.is_some_and(|layout| layout == self.mark.as_bytes());
        if !ours {
            let count = GetOptions::new().with_range(end.clone()).with_count_only();
            let keys = self.get(all.clone(), count).await?.count();
            if keys > 0 {
                let (endpoint, prefix) = (self.endpoint.clone(), self.store.prefix().clone());
                return Err(MigrateError::Holds { endpoint, keys, prefix });
            }
            let absent = Compare::create_revision(self.layout(), CompareOp::Equal, 0);
            let mark = TxnOp::put(self.layout(), self.mark.clone(), None);
            let marked = self.txn(&Txn::new().when([absent]).and_then([mark])).await?;
            if !marked.succeeded() {
                return Err(MigrateError::Disturbed(self.endpoint.clone()));
            }
        }
        // Everything before the mark and everything behind it.
        let behind = [self.layout(), vec![0]].concat();
        let delete = |from: Vec<u8>, to: Vec<u8>| TxnOp::delete(from, Some(DeleteOptions::new().with_range(to)));
        self.marked(vec![delete(all, self.layout()), delete(behind, end)]).await?;
        Ok(Begun::Now)
    }

    /// Does something while the mark is there, and returns at which revision.
    async fn marked(&self, operations: Vec<TxnOp>) -> Result<i64, MigrateError> {
        let marked = Compare::value(self.layout(), CompareOp::Equal, self.mark.clone());
        let done = self.txn(&Txn::new().when([marked]).and_then(operations)).await?;
        if !done.succeeded() {
            return Err(MigrateError::Disturbed(self.endpoint.clone()));
        }
        Ok(done.header().map_or(0, etcd_client::ResponseHeader::revision))
    }

    /// Writes everything, and returns what was written.
    async fn fill(&self, source: &Source) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, MigrateError> {
        let mut written = BTreeMap::new();
        let mut generations = BTreeMap::new();
        let mut leases = BTreeMap::new();
        for declared in [true, false] {
            let mut batch: Vec<(Vec<u8>, Vec<u8>, i64)> = Vec::new();
            let chosen = source.pairs.iter().filter(|(path, _)| path.starts_with(b"declared/") == declared);
            let mut chosen = chosen.peekable();
            while let Some((path, pair)) = chosen.next() {
                let lease = self.lease(source, pair.lease, &mut leases).await?;
                batch.push((path.clone(), rewritten(path, &pair.value, source, &generations), lease));
                let bytes: usize = batch.iter().map(|(_, value, _)| value.len()).sum();
                if batch.len() < OPERATIONS && bytes < BYTES && chosen.peek().is_some() {
                    continue;
                }
                let put = |(path, value, lease): &(Vec<u8>, Vec<u8>, i64)| {
                    let options = (*lease != 0).then(|| etcd_client::PutOptions::new().with_lease(*lease));
                    TxnOp::put(self.key(path), value.clone(), options)
                };
                let at = self.marked(batch.iter().map(put).collect()).await?;
                for (path, value, _) in batch.drain(..) {
                    generations.insert(path.clone(), at);
                    written.insert(path, value);
                }
            }
        }
        Ok(written)
    }

    /// A lease that ends when the old one would.
    async fn lease(&self, source: &Source, old: LeaseNumber, known: &mut BTreeMap<i64, i64>) -> Result<i64, CallError> {
        if old == LeaseNumber::NONE {
            return Ok(0);
        }
        if let Some(lease) = known.get(&old.0) {
            return Ok(*lease);
        }
        let left = source.engine.lease(old, since_boot()).map_or(1, |lease| lease.remaining.as_secs().max(1));
        let seconds = i64::try_from(left).unwrap_or(i64::MAX);
        let grant = async |mut client: etcd_client::Client| client.lease_grant(seconds, None).await;
        let lease = self.store.call(Call::LeaseGrant, Repeat::Freely, grant).await?.id();
        known.insert(old.0, lease);
        Ok(lease)
    }

    /// Reads everything back. What was leased may have ended.
    async fn verify(&self, expected: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<(), MigrateError> {
        let end = format!("{}0", self.store.prefix()).into_bytes();
        let mut found = BTreeMap::new();
        let mut from = self.key(b"");
        let begin = from.len();
        loop {
            let options = GetOptions::new().with_range(end.clone()).with_limit(PAGE);
            let options = options.with_sort(SortTarget::Key, SortOrder::Ascend);
            let page = self.get(from, options).await?;
            for pair in page.kvs() {
                found.insert(pair.key()[begin..].to_vec(), Sha256::digest(pair.value()));
            }
            let Some(last) = page.kvs().last().filter(|_| page.more()) else { break };
            from = [last.key(), &[0]].concat();
        }
        found.remove(&Key::Control(Control::LayoutVersion).relative());
        let name = |path: &[u8]| String::from_utf8_lossy(&self.key(path)).into_owned();
        for (path, value) in expected {
            let leased = path.starts_with(b"events/") || path.starts_with(b"requests/");
            match found.remove(path) {
                Some(digest) if digest == Sha256::digest(value) => {}
                None if leased => {}
                Some(_) | None => return Err(MigrateError::Differs { key: name(path) }),
            }
        }
        match found.keys().next() {
            Some(path) => Err(MigrateError::Differs { key: name(path) }),
            None => Ok(()),
        }
    }

    /// Opens the target to everybody.
    async fn finish(&self, source: &Source) -> Result<(), MigrateError> {
        let from = TxnOp::put(self.moved_from(), self.identity.clone(), None);
        let layout = TxnOp::put(self.layout(), source.layout.to_vec(), None);
        match self.marked(vec![from, layout]).await {
            // Done twice, the second finds no mark any more.
            Err(MigrateError::Disturbed(_)) if self.begin().await? == Begun::DoneBefore => Ok(()),
            done => done.map(drop),
        }
    }
}

/// Changes what a document says of generations, each by the function.
type Change = fn(&mut Value, &dyn Fn(&mut Value));

/// A value as it is in the new store: generations are the new ones of what is declared there, and no rollout is of the
/// term of a controller there.
fn rewritten(path: &[u8], value: &[u8], source: &Source, generations: &BTreeMap<Vec<u8>, i64>) -> Vec<u8> {
    let (resource, change): (ResourceKey, Change) = match Key::from_relative(path) {
        Key::Status(resource) => (resource, in_status),
        Key::Owned(service) => (ResourceKey::Service(service), in_owned),
        Key::Rollout(service, _) => (ResourceKey::Service(service), in_rollout),
        _ => return value.to_vec(),
    };
    let old = source.generation(&resource);
    let new = generations.get(&Key::Declared(resource).relative()).copied();
    let anew = |generation: &mut Value| {
        // One that is not what is declared stays older than that.
        let current = old.is_some() && generation.as_i64() == old;
        *generation = new.filter(|_| current).unwrap_or_default().into();
    };
    let Ok(mut document) = serde_json::from_slice::<Value>(value) else { return value.to_vec() };
    change(&mut document, &anew);
    serde_json::to_vec(&document).unwrap_or_else(|_| value.to_vec())
}

fn in_status(status: &mut Value, anew: &dyn Fn(&mut Value)) {
    status.get_mut("observedGeneration").into_iter().for_each(anew);
    let conditions = status.get_mut("conditions").and_then(Value::as_array_mut);
    conditions.into_iter().flatten().filter_map(|one| one.get_mut("observedGeneration")).for_each(anew);
}

fn in_owned(owned: &mut Value, anew: &dyn Fn(&mut Value)) {
    owned.pointer_mut("/accepted/generation").into_iter().for_each(anew);
}

fn in_rollout(rollout: &mut Value, _: &dyn Fn(&mut Value)) {
    if let Some(term) = rollout.get_mut("term") {
        *term = 0.into();
    }
}
