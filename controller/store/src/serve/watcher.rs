//! One watcher: what it wants, and what it is sent of a piece of the history.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::convert;
use super::protocol::etcdserverpb as rpc;
use super::protocol::mvccpb;
use crate::mvcc::{Change, Engine, KeyRange, KeyValue, MOST_BYTES, Refusal};

/// Changes that are read from the history at once.
const CHANGES: usize = 1000;

/// Bytes that an event takes beside keys and values, about: several watchers share those, and each has its own event.
const EVENT: usize = 256;

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

/// Which watchers of a stream read on. So those who want what is new are not held up by one who wants what was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Those who have seen everything up to a revision, from there on.
    Front(i64),
    /// Those who have not, up to there.
    Behind(i64),
}

impl Part {
    fn concerns(self, watcher: &Watcher) -> bool {
        match self {
            Self::Front(front) => watcher.next > front,
            Self::Behind(front) => watcher.next <= front,
        }
    }

    /// Where to read from, where there is anybody who reads.
    fn begin(self, watchers: &BTreeMap<i64, Watcher>) -> Option<i64> {
        let first = watchers.values().filter(|watcher| self.concerns(watcher)).map(Watcher::next).min()?;
        Some(match self {
            // Who begins with what is yet to be reads it when it is.
            Self::Front(front) => front + 1,
            Self::Behind(_) => first,
        })
    }
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
}

/// Reads on in the history, and hands to each watcher of a part what is for it: as much as fits an answer, and each
/// transaction whole. Nothing where nobody reads. This reads the disk.
///
/// # Errors
/// [`Refusal::Compacted`], where some of it is forgotten; [`Refusal::Broken`].
pub(super) fn read(
    engine: &Engine,
    watchers: &mut BTreeMap<i64, Watcher>,
    part: Part,
) -> Result<Option<Piece>, Refusal> {
    let Some(from) = part.begin(watchers) else { return Ok(None) };
    let history = engine.history(from, CHANGES, MOST_BYTES)?;
    let mut until = history.next - 1;
    if let Part::Behind(front) = part {
        until = until.min(front);
    }
    let mut events: BTreeMap<i64, Vec<mvccpb::Event>> = BTreeMap::new();
    let mut bytes = 0;
    let mut last = from;
    for change in history.changes.iter().take_while(|change| change.at.main <= until) {
        if bytes >= MOST_BYTES && change.at.main != last {
            until = last;
            break;
        }
        last = change.at.main;
        bytes += tell(engine, watchers, part, change, &mut events)?;
    }
    for (id, watcher) in watchers.iter_mut().filter(|(_, watcher)| part.concerns(watcher)) {
        watcher.next = watcher.next.max(until + 1);
        if events.contains_key(id) {
            watcher.told = Instant::now();
        }
    }
    let told = events.into_iter().map(|(id, events)| {
        let fragments = watchers.get(&id).is_some_and(|watcher| watcher.fragments);
        Told { id, events, fragments }
    });
    Ok(Some(Piece { until, told: told.collect() }))
}

/// Whether what a part reads next is told without reading the disk.
pub(super) fn is_at_hand(engine: &Engine, watchers: &BTreeMap<i64, Watcher>, part: Part) -> bool {
    let previous = watchers.values().any(|watcher| watcher.previous);
    !previous && part.begin(watchers).is_none_or(|from| engine.is_recent(from))
}

/// Tells a change to those of a part who want it; how many bytes that takes, what was before it included.
fn tell(
    engine: &Engine,
    watchers: &BTreeMap<i64, Watcher>,
    part: Part,
    change: &Change,
    events: &mut BTreeMap<i64, Vec<mvccpb::Event>>,
) -> Result<usize, Refusal> {
    let wanting = || watchers.iter().filter(|(_, watcher)| part.concerns(watcher) && watcher.wants(change));
    let length = |pair: &KeyValue| pair.key.len() + pair.value.len();
    // Read once for all of them.
    let before = match wanting().any(|(_, watcher)| watcher.previous) {
        true => engine.before(change)?,
        false => None,
    };
    let mut bytes = 0;
    for (id, watcher) in wanting() {
        let before = before.clone().filter(|_| watcher.previous);
        events.entry(*id).or_default().push(convert::event(change.clone(), before));
        bytes += EVENT;
    }
    if bytes > 0 {
        bytes += length(&change.pair) + before.as_ref().map_or(0, length);
    }
    Ok(bytes)
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
            read(&engine, &mut BTreeMap::from([(0, Watcher::new(request, 3))]), Part::Behind(3))
        };
        let piece = told(false).expect("the history can be read").expect("somebody reads");
        assert_eq!(piece.told[0].events.len(), 2);
        assert!(matches!(told(true), Err(Refusal::Broken(_))));
    }

    fn put(engine: &Engine, key: String, value: Vec<u8>) {
        let (value, lease) = (Field::New(value.into()), Field::New(LeaseNumber::NONE));
        let put = Request::Put(Put { key: key.into(), value, lease, tell_previous: false });
        let done = engine.write(&[Order { request: put, author: None }], Duration::ZERO);
        assert!(done.iter().all(Result::is_ok));
    }

    #[test]
    fn what_was_before_counts_for_how_much_is_read_at_once() {
        let engine = Engine::open(Box::new(Memory::default()), Duration::ZERO).expect("an empty store");
        let keys = 20;
        for value in [vec![b'x'; 1 << 20], vec![b'y']] {
            (0..keys).for_each(|key| put(&engine, format!("k{key:02}"), value.clone()));
        }
        let now = engine.revision();
        let (from, all) = (now - keys + 1, WatchAll { prev_kv: true });
        let mut watchers = BTreeMap::from([(0, all.from(from, now))]);
        let mut seen = 0;
        while seen < keys {
            let piece = read(&engine, &mut watchers, Part::Behind(now)).expect("readable").expect("somebody reads");
            let events = &piece.told[0].events;
            let bytes: usize = events.iter().map(prost::Message::encoded_len).sum();
            assert!(bytes < MOST_BYTES + (2 << 20), "{bytes} bytes at once");
            assert!(events.iter().all(|event| event.prev_kv.is_some()), "each has what was before it");
            seen += events.len() as i64;
        }
        assert_eq!((seen, watchers[&0].next()), (keys, now + 1));
    }

    #[test]
    fn many_watchers_of_one_key_count_for_how_much_is_read_at_once() {
        let engine = Engine::open(Box::new(Memory::default()), Duration::ZERO).expect("an empty store");
        (0..1000).for_each(|_| put(&engine, "a".to_owned(), Vec::new()));
        let now = engine.revision();
        let all = WatchAll { prev_kv: false };
        let mut watchers: BTreeMap<_, _> = (0..100).map(|id| (id, all.from(2, now))).collect();
        let piece = read(&engine, &mut watchers, Part::Behind(now)).expect("readable").expect("somebody reads");
        let events: usize = piece.told.iter().map(|told| told.events.len()).sum();
        assert!(events > 0 && events * EVENT < 2 * MOST_BYTES, "{events} events at once");
    }

    /// A watcher of every key.
    struct WatchAll {
        prev_kv: bool,
    }

    impl WatchAll {
        fn from(&self, start_revision: i64, now: i64) -> Watcher {
            let Self { prev_kv } = *self;
            let key = vec![0].into();
            let request = rpc::WatchCreateRequest {
                key,
                range_end: vec![0].into(),
                start_revision,
                prev_kv,
                ..Default::default()
            };
            Watcher::new(request, now)
        }
    }
}
