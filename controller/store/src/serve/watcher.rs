//! One watcher: what it wants, and what it is sent of a piece of the history.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::convert;
use super::protocol::etcdserverpb as rpc;
use super::protocol::mvccpb;
use crate::mvcc::{Change, Engine, KeyRange, MOST_BYTES, Refusal};

/// Changes that are read from the history at once.
const CHANGES: usize = 1000;

/// What one watcher wants, and how far it is.
#[derive(Debug)]
pub(super) struct Watcher {
    keys: KeyRange,
    /// The first revision that it has not seen.
    next: i64,
    puts: bool,
    deletions: bool,
    previous: bool,
    fragments: bool,
    progress: bool,
    told: Instant,
}

/// What the watchers of a stream are sent of a piece of the history.
#[derive(Debug)]
pub(super) struct Piece {
    /// The last revision in the piece.
    pub(super) until: i64,
    pub(super) told: Vec<Told>,
}

/// What one of them is sent.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) id: i64,
    pub(super) events: Vec<mvccpb::Event>,
    /// Whether they may come in several answers.
    pub(super) fragments: bool,
}

impl Watcher {
    /// One that was asked for when the store's revision was `now`.
    pub(super) fn new(request: rpc::WatchCreateRequest, now: i64) -> Self {
        use rpc::watch_create_request::FilterType;
        let hides = |filter: FilterType| request.filters.contains(&i32::from(filter));
        let (puts, deletions) = (!hides(FilterType::Noput), !hides(FilterType::Nodelete));
        // No key is the first there may be; etcd does not take "" for one.
        let key = if request.key.is_empty() { vec![0].into() } else { request.key };
        Self {
            keys: KeyRange::new(key, request.range_end),
            next: if request.start_revision == 0 { now + 1 } else { request.start_revision },
            puts,
            deletions,
            previous: request.prev_kv,
            fragments: request.fragment,
            progress: request.progress_notify,
            told: Instant::now(),
        }
    }

    pub(super) fn next(&self) -> i64 {
        self.next
    }

    /// Whether no key can be in what it watches.
    pub(super) fn is_empty(&self) -> bool {
        matches!(&self.keys, KeyRange::Until(begin, end) if begin >= end)
    }

    /// Whether it is to be told how far the store is, which it has been then.
    pub(super) fn takes_progress(&mut self, every: Duration, now: Instant) -> bool {
        let due = self.progress && now.duration_since(self.told) >= every;
        if due {
            self.told = now;
        }
        due
    }

    fn wants(&self, change: &Change) -> bool {
        let kind = if change.deleted { self.deletions } else { self.puts };
        kind && change.at.main >= self.next && self.keys.contains(&change.pair.key)
    }

    /// Takes what is for it out of a piece of the history that goes up to a revision.
    fn take(&mut self, engine: &Engine, changes: &[Change], until: i64) -> Result<Vec<mvccpb::Event>, Refusal> {
        let mut events = Vec::new();
        for change in changes.iter().filter(|change| self.wants(change)) {
            let before = if self.previous { engine.before(change)? } else { None };
            events.push(convert::event(change.clone(), before));
        }
        self.next = self.next.max(until + 1);
        if !events.is_empty() {
            self.told = Instant::now();
        }
        Ok(events)
    }
}

/// Reads the history from a revision on, and hands to each watcher what is for it. This reads the disk.
///
/// # Errors
/// [`Refusal::Compacted`], where some of it is forgotten; [`Refusal::Broken`].
pub(super) fn read(engine: &Engine, watchers: &mut BTreeMap<i64, Watcher>, from: i64) -> Result<Piece, Refusal> {
    let history = engine.history(from, CHANGES, MOST_BYTES)?;
    let until = history.next - 1;
    let mut told = Vec::new();
    for (id, watcher) in watchers {
        let events = watcher.take(engine, &history.changes, until)?;
        if !events.is_empty() {
            told.push(Told { id: *id, events, fragments: watcher.fragments });
        }
    }
    Ok(Piece { until, told })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::mvcc::{
        Backend, BackendError, Batch, DefragmentError, Field, LeaseNumber, Memory, Meta, Order, Put, Request, Revision,
        Size, State, View,
    };

    /// A disk of which values cannot be read by themselves.
    #[derive(Debug, Default)]
    struct Unreadable(Memory);

    impl Backend for Unreadable {
        fn load(&self, each: &mut dyn FnMut(Revision, Meta)) -> Result<State, BackendError> {
            self.0.load(each)
        }

        fn commit(&self, batch: &Batch) -> Result<(), BackendError> {
            self.0.commit(batch)
        }

        fn values(&self, _: &[Revision]) -> Result<Vec<Bytes>, BackendError> {
            Err(BackendError::Damaged("a value".to_owned()))
        }

        fn changes(&self, from: i64, most: usize, bytes: usize) -> Result<Vec<Change>, BackendError> {
            self.0.changes(from, most, bytes)
        }

        fn view(&self) -> Result<Box<dyn View>, BackendError> {
            self.0.view()
        }

        fn size(&self) -> Result<Size, BackendError> {
            self.0.size()
        }

        fn defragment(&self) -> Result<(), DefragmentError> {
            self.0.defragment()
        }
    }

    #[test]
    fn what_was_before_is_told_or_why_it_cannot_be() {
        let engine = Engine::open(Box::new(Unreadable::default()), Duration::ZERO).expect("an empty store");
        for value in ["1", "2"] {
            let (value, lease) = (Field::New(value.into()), Field::New(LeaseNumber::NONE));
            let put = Request::Put(Put { key: "a".into(), value, lease, tell_previous: false });
            let done = engine.write(&[Order { request: put, author: None }], Duration::ZERO);
            assert!(done.iter().all(Result::is_ok));
        }
        let told = |prev_kv: bool| {
            let request = rpc::WatchCreateRequest { key: "a".into(), start_revision: 2, prev_kv, ..Default::default() };
            read(&engine, &mut BTreeMap::from([(0, Watcher::new(request, 3))]), 2)
        };
        assert_eq!(told(false).expect("the history can be read").told[0].events.len(), 2);
        assert!(matches!(told(true), Err(Refusal::Broken(_))));
    }
}
