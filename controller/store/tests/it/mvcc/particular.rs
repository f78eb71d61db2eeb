//! What is particular: refusals, sorting and cutting, batches that fail, what is forgotten.

use std::sync::Arc;

use windlass_store::mvcc::{
    Backend, BackendError, Batch, Change, DefragmentError, Detail, Disk, Engine, Field, KeyRange, LeaseNumber,
    MOST_OPERATIONS, Memory, Meta, Operation, Order, Put, Range, Refusal, Reply, Request, Revision, Size, SortBy,
    SortOrder, State, Txn, View, Within,
};

use super::{NOW, delete, everything, in_memory, on_disk, one, order, put};

#[test]
fn refusals_are_etcds() {
    let engine = in_memory();
    one(&engine, Request::Put(put("a", "1"))).expect("put");
    let keep = |key: &str| Put { value: Field::Keep, ..put(key, "") };
    let leased = |lease| Put { lease: Field::New(LeaseNumber(lease)), ..put("a", "2") };
    let puts = |count: usize| (0..count).map(|number| Operation::Put(put(&number.to_string(), ""))).collect();
    let txn = |success: Vec<Operation>| Request::Txn(Txn { success, ..Txn::default() });
    let both = || vec![Operation::Put(put("a", "")), Operation::Delete(delete(everything()))];
    let later = Operation::Range(Range { revision: 9, ..Range::of(everything()) });
    let rows = [
        (Request::Put(put("", "")), "etcdserver: key is not provided"),
        (Request::Put(keep("b")), "etcdserver: key not found"),
        (Request::Put(leased(7)), "etcdserver: requested lease not found"),
        (Request::Delete(delete(KeyRange::One("".into()))), "etcdserver: key is not provided"),
        (txn(puts(MOST_OPERATIONS + 1)), "etcdserver: too many operations in txn request"),
        (txn(both()), "etcdserver: duplicate key given in txn request"),
        (txn(vec![later]), "etcdserver: mvcc: required revision is a future revision"),
        (Request::Grant(LeaseNumber::NONE, 9), "etcdserver: requested lease not found"),
        (Request::Grant(LeaseNumber(1), 9_000_000_001), "etcdserver: too large lease TTL"),
        (Request::Revoke(LeaseNumber(1)), "etcdserver: requested lease not found"),
    ];
    for (request, expected) in rows {
        let answer = one(&engine, request.clone());
        assert_eq!(answer.expect_err("a refusal").to_string(), expected, "{request:?}");
    }
    assert_eq!(engine.revision(), 2, "what is refused changes nothing");
    assert!(one(&engine, txn(puts(MOST_OPERATIONS))).is_ok());
}

#[test]
fn what_is_kept_is_kept() {
    let engine = in_memory();
    one(&engine, Request::Grant(LeaseNumber(5), 60)).expect("granted");
    one(&engine, Request::Put(Put { lease: Field::New(LeaseNumber(5)), ..put("a", "1") })).expect("put");
    one(&engine, Request::Put(Put { lease: Field::Keep, ..put("a", "2") })).expect("put");
    one(&engine, Request::Put(Put { value: Field::Keep, lease: Field::Keep, ..put("a", "") })).expect("put");
    let (_, found) = engine.range(&Range::of(everything())).expect("found");
    let pair = &found.pairs[0];
    assert_eq!((&pair.value[..], pair.lease, pair.version), (&b"2"[..], LeaseNumber(5), 3));
    assert_eq!(engine.lease(LeaseNumber(5), NOW).expect("there").keys, ["a"]);
    one(&engine, Request::Put(put("a", "3"))).expect("put");
    assert!(engine.lease(LeaseNumber(5), NOW).expect("there").keys.is_empty(), "a put without a lease lets go of it");
}

#[test]
fn ranges_are_sorted_and_cut_as_etcd_does() {
    let engine = in_memory();
    for (key, value) in [("a", "3"), ("b", "1"), ("c", "2"), ("a", "0")] {
        one(&engine, Request::Put(put(key, value))).expect("put");
    }
    let whole = Range::of(everything());
    let rows = [
        ("as they are", whole.clone(), "a b c", false),
        ("cut", Range { limit: 2, ..whole.clone() }, "a b", true),
        ("by value", Range { sort_by: SortBy::Value, order: SortOrder::Descending, ..whole.clone() }, "c b a", false),
        (
            "by value, cut",
            Range { sort_by: SortBy::Value, order: SortOrder::Ascending, limit: 1, ..whole.clone() },
            "a",
            true,
        ),
        (
            "by revision",
            Range { sort_by: SortBy::Modified, order: SortOrder::Descending, ..whole.clone() },
            "a c b",
            false,
        ),
        ("by version, without an order", Range { sort_by: SortBy::Version, ..whole.clone() }, "b c a", false),
        ("changed late", Range { modified: Within { least: 4, most: 0 }, ..whole.clone() }, "a c", false),
        ("made early", Range { created: Within { least: 0, most: 2 }, ..whole.clone() }, "a", false),
        ("counted", Range { detail: Detail::Count, limit: 1, ..whole.clone() }, "", false),
        ("as it was", Range { revision: 3, ..whole }, "a b", false),
    ];
    for (what, range, expected, more) in rows {
        let (_, found) = engine.range(&range).expect("found");
        let keys: Vec<&str> = found.pairs.iter().map(|pair| std::str::from_utf8(&pair.key).expect("text")).collect();
        assert_eq!((keys.join(" "), found.more), (expected.to_owned(), more), "{what}");
        assert_eq!(found.count, if range.revision == 3 { 2 } else { 3 }, "{what}: what is there counts, cut or not");
    }
}

#[test]
fn who_wrote_is_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.redb");
    let engine = on_disk(&path);
    let anna = Order { request: Request::Put(put("a", "1")), author: Some(Arc::from("anna")) };
    let answers = engine.write(&[anna, order(Request::Put(put("b", "1")))], NOW);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    drop(engine);
    let changes = on_disk(&path).history(2, 10, usize::MAX).expect("history").changes;
    let authors: Vec<Option<&str>> = changes.iter().map(|change| change.author.as_deref()).collect();
    assert_eq!(authors, [Some("anna"), None]);
}

/// A backend that a test has a hand on too: its disk is full when the test says so.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shared(pub(crate) Arc<Memory>);

impl Backend for Shared {
    fn load(&self, each: &mut dyn FnMut(Revision, Meta)) -> Result<State, BackendError> {
        self.0.load(each)
    }
    fn commit(&self, batch: &Batch) -> Result<(), BackendError> {
        self.0.commit(batch)
    }
    fn values(&self, at: &[Revision]) -> Result<Vec<bytes::Bytes>, BackendError> {
        self.0.values(at)
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
fn what_was_not_written_has_not_happened() {
    let backend = Shared::default();
    let engine = Engine::open(Box::new(backend.clone()), NOW).expect("empty");
    one(&engine, Request::Grant(LeaseNumber(5), 60)).expect("granted");
    one(&engine, Request::Put(Put { lease: Field::New(LeaseNumber(5)), ..put("a", "1") })).expect("put");
    let before = (engine.range(&Range::of(everything())), engine.leases(), engine.lease(LeaseNumber(5), NOW));
    backend.0.fail(Some(BackendError::NoSpace("the disk is full".to_owned())));
    let batch = [
        Request::Put(put("a", "2")),
        Request::Revoke(LeaseNumber(5)),
        Request::Grant(LeaseNumber(6), 60),
        Request::Put(Put { lease: Field::New(LeaseNumber(6)), ..put("b", "2") }),
        Request::Put(put("", "")),
    ];
    let answers = engine.write(&batch.map(order), NOW);
    let full = Refusal::NoSpace("the disk is full".to_owned());
    for answer in &answers[..4] {
        assert_eq!(answer, &Err(full.clone()));
    }
    assert_eq!(answers[4], Err(Refusal::EmptyKey), "what is wrong anyway is told as that");
    let after = (engine.range(&Range::of(everything())), engine.leases(), engine.lease(LeaseNumber(5), NOW));
    assert_eq!(after, before);
    assert_eq!(engine.compact(2), Err(full));
    backend.0.fail(None);
    let again = one(&engine, Request::Put(put("b", "3"))).expect("put");
    assert_eq!(again.revision, 3, "the revision that was not written is given again");
    assert_eq!(engine.compact(2).expect("compacted").revision, 3);
}

#[test]
fn a_batch_is_done_in_its_order_and_what_is_refused_leaves_nothing() {
    let engine = in_memory();
    let refused = Txn {
        success: vec![
            Operation::Put(put("b", "1")),
            Operation::Put(Put { lease: Field::New(LeaseNumber(9)), ..put("c", "1") }),
        ],
        ..Txn::default()
    };
    let batch = [
        Request::Put(put("a", "1")),
        Request::Txn(refused),
        Request::Put(Put { tell_previous: true, ..put("a", "2") }),
        Request::Delete(delete(everything())),
    ];
    let answers = engine.write(&batch.map(order), NOW);
    let revisions: Vec<Option<i64>> =
        answers.iter().map(|answer| answer.as_ref().ok().map(|done| done.revision)).collect();
    assert_eq!(revisions, [Some(2), None, Some(3), Some(4)]);
    let Ok(Reply::Put(Some(previous))) = answers[2].clone().map(|done| done.reply) else { panic!("{answers:?}") };
    assert_eq!((&previous.value[..], previous.modified), (&b"1"[..], 2), "it sees what was not written yet");
    assert_eq!(engine.size(), (3, 0));
}

#[test]
fn the_pair_before_a_change_is_known_until_it_is_forgotten() {
    let engine = in_memory();
    for value in ["1", "2", "3"] {
        one(&engine, Request::Put(put("a", value))).expect("put");
    }
    let changes = engine.history(2, 10, usize::MAX).expect("history").changes;
    let before = |index: usize| engine.before(&changes[index]).expect("readable").map(|pair| pair.value);
    assert_eq!((before(0), before(1)), (None, Some("1".into())));
    engine.compact(3).expect("compacted");
    assert_eq!((before(1), before(2)), (None, Some("2".into())));
    assert_eq!(engine.history(2, 10, usize::MAX), Err(Refusal::Compacted));
}

#[test]
fn what_is_forgotten_takes_no_room() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.redb");
    let engine = on_disk(&path);
    for _ in 0..3 {
        one(&engine, Request::Put(put("gone", "1"))).expect("put");
        one(&engine, Request::Put(put("there", "1"))).expect("put");
        one(&engine, Request::Delete(delete(KeyRange::One("gone".into())))).expect("deleted");
    }
    assert_eq!(engine.size(), (9, 1));
    engine.compact(engine.revision()).expect("compacted");
    assert_eq!(engine.size(), (1, 1), "nothing is left of what was deleted, its deletion included");
    // A crash may come before the disk is told.
    drop(engine);
    let engine = on_disk(&path);
    assert_eq!(engine.size(), (1, 1));
    while engine.forget_some().expect("forgotten") {}
    drop(engine);
    let mut kept = 0;
    Disk::open(&path).expect("a file").load(&mut |_, _| kept += 1).expect("whole");
    assert_eq!(kept, 1);
}
