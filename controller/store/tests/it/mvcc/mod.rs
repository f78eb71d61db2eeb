//! The engine: against a naive store, and row by row where etcd's answers are particular.

mod answers;
mod copies;
mod faults;
mod files;
mod kept;
mod killed;
mod leases;
mod naive;
mod opened;
mod particular;
mod retention;
mod tended;
mod twice;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use windlass_store::mvcc::{
    Answer, Compare, Delete, Disk, Done, Engine, Field, KeyRange, LeaseNumber, Memory, Operand, Operation, Order, Put,
    Range, Refusal, Relation, Reply, Request, Txn,
};

use self::naive::{Naive, Write};

const NOW: Duration = Duration::from_secs(100);

pub(crate) fn in_memory() -> Engine {
    Engine::open(Box::new(Memory::default()), NOW).expect("an empty store")
}

pub(crate) fn on_disk(path: &Path) -> Engine {
    Engine::open(Box::new(Disk::open(path).expect("a file")), NOW).expect("a whole store")
}

pub(crate) fn order(request: Request) -> Order {
    Order { request, author: None }
}

/// One request by itself.
pub(crate) fn one(engine: &Engine, request: Request) -> Result<Done, Refusal> {
    engine.write(&[order(request)], NOW).pop().expect("an answer each")
}

pub(crate) fn put(key: &str, value: &str) -> Put {
    Put {
        key: key.to_owned().into(),
        value: Field::New(value.to_owned().into()),
        lease: Field::New(LeaseNumber::NONE),
        tell_previous: false,
    }
}

pub(crate) fn delete(keys: KeyRange) -> Delete {
    Delete { keys, tell_previous: true }
}

pub(crate) fn everything() -> KeyRange {
    KeyRange::From(Bytes::from_static(&[0]))
}

/// What happens to both stores.
#[derive(Debug, Clone)]
enum Act {
    Put(u8, u8, i64),
    Delete(u8, u8),
    /// A put where a key has this version, else a deletion; and a put in any case.
    Txn(u8, i64, u8, u8),
    Grant(i64),
    Revoke(i64),
    /// So many revisions before now.
    Compact(i64),
    /// Closes it and opens it again.
    Reopen,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let key = 0..8_u8;
    let act = prop_oneof![
        6 => (key.clone(), any::<u8>(), 0..4_i64).prop_map(|(key, value, lease)| Act::Put(key, value, lease)),
        3 => (key.clone(), 0..9_u8).prop_map(|(begin, end)| Act::Delete(begin, end)),
        3 => (key.clone(), 0..4_i64, key.clone(), key).prop_map(|(a, version, b, c)| Act::Txn(a, version, b, c)),
        1 => (1..4_i64).prop_map(Act::Grant),
        1 => (1..4_i64).prop_map(Act::Revoke),
        1 => (0..12_i64).prop_map(Act::Compact),
        1 => Just(Act::Reopen),
    ];
    vec(act, 1..60)
}

fn name(key: u8) -> Bytes {
    format!("k{key}").into()
}

fn span(begin: u8, end: u8) -> KeyRange {
    KeyRange::Until(name(begin), name(end))
}

/// Plays an act on both, and says whether they answered alike.
fn play(act: &Act, engine: &Engine, naive: &mut Naive) -> Result<(), TestCaseError> {
    match act {
        Act::Put(key, value, lease) => {
            let (key, value, lease) = (name(*key), Bytes::from(vec![*value]), LeaseNumber(*lease));
            let request = Put {
                key: key.clone(),
                value: Field::New(value.clone()),
                lease: Field::New(lease),
                tell_previous: true,
            };
            let known = lease == LeaseNumber::NONE || naive.leases.contains(&lease);
            let answer = one(engine, Request::Put(request));
            if !known {
                prop_assert_eq!(answer, Err(Refusal::LeaseNotFound));
                return Ok(());
            }
            let before = naive.now().get(&key).cloned();
            let revision = naive.transact(&[Write::Put(key, value, lease)]);
            prop_assert_eq!(answer, Ok(Done { revision, reply: Reply::Put(before) }));
        }
        Act::Delete(begin, end) => {
            let keys = span(*begin, *end);
            let gone = naive.range(&keys, naive.revision());
            let answer = one(engine, Request::Delete(delete(keys.clone())));
            let revision = naive.transact(&[Write::Delete(keys)]);
            prop_assert_eq!(answer, Ok(Done { revision, reply: Reply::Delete(gone.len() as i64, gone) }));
        }
        Act::Txn(key, version, other, third) => play_txn((*key, *version), *other, *third, engine, naive)?,
        Act::Grant(lease) => {
            let lease = LeaseNumber(*lease);
            let answer = one(engine, Request::Grant(lease, 60));
            prop_assert_eq!(answer.is_ok(), naive.leases.insert(lease));
        }
        Act::Revoke(lease) => {
            let lease = LeaseNumber(*lease);
            let answer = one(engine, Request::Revoke(lease)).map(|done| done.revision);
            if !naive.leases.contains(&lease) {
                prop_assert_eq!(answer, Err(Refusal::LeaseNotFound));
                return Ok(());
            }
            naive.revoke(lease);
            prop_assert_eq!(answer, Ok(naive.revision()));
        }
        Act::Compact(back) => {
            let revision = naive.revision() - back;
            let answer = engine.compact(revision).map(|done| done.revision);
            if revision <= naive.compacted {
                prop_assert_eq!(answer, Err(Refusal::Compacted));
                return Ok(());
            }
            naive.compacted = revision;
            prop_assert_eq!(answer, Ok(naive.revision()));
            while engine.forget_some().expect("forgotten") {}
        }
        Act::Reopen => {}
    }
    Ok(())
}

fn play_txn(
    (key, version): (u8, i64),
    other: u8,
    third: u8,
    engine: &Engine,
    naive: &mut Naive,
) -> Result<(), TestCaseError> {
    let compare =
        Compare { keys: KeyRange::One(name(key)), relation: Relation::Equal, operand: Operand::Version(version) };
    let nested = Txn {
        compare: vec![compare],
        success: vec![Operation::Put(put(&format!("k{other}"), "nested"))],
        failure: vec![Operation::Delete(delete(KeyRange::One(name(other))))],
    };
    let read = Operation::Range(Range::of(everything()));
    let last = Operation::Put(put(&format!("k{third}"), "last"));
    let request = Txn { success: vec![Operation::Txn(nested), last, read], ..Txn::default() };
    let answer = one(engine, Request::Txn(request));
    if other == third {
        prop_assert_eq!(answer, Err(Refusal::DuplicateKey));
        return Ok(());
    }
    let holds = naive.now().get(&name(key)).map_or(0, |pair| pair.version) == version;
    let first = match holds {
        true => Write::Put(name(other), "nested".into(), LeaseNumber::NONE),
        false => Write::Delete(KeyRange::One(name(other))),
    };
    let revision = naive.transact(&[first, Write::Put(name(third), "last".into(), LeaseNumber::NONE)]);
    let done = answer.expect("nothing to refuse");
    prop_assert_eq!(done.revision, revision);
    let Reply::Txn(outcome) = done.reply else { panic!("{done:?}") };
    let Some(Answer::Range(at, found)) = outcome.answers.last() else { panic!("{outcome:?}") };
    prop_assert_eq!((*at, &found.pairs), (revision, &naive.range(&everything(), revision)));
    Ok(())
}

/// Whether every revision that there may be, and the history of changes, are the same.
fn compare(engine: &Engine, naive: &Naive) -> Result<(), TestCaseError> {
    prop_assert_eq!(engine.revision(), naive.revision());
    for revision in 1..=naive.revision() {
        let range = Range { revision, ..Range::of(span(1, 7)) };
        match engine.range(&range) {
            Ok((_, found)) => {
                let expected = naive.range(&range.keys, revision);
                prop_assert_eq!(found.count, expected.len() as i64);
                prop_assert_eq!(found.pairs, expected, "at {}", revision);
                prop_assert!(revision >= naive.compacted);
            }
            Err(refusal) => {
                prop_assert_eq!(refusal, Refusal::Compacted);
                prop_assert!(revision < naive.compacted, "{} of {}", revision, naive.compacted);
            }
        }
    }
    let from = naive.compacted + 1;
    let mut changes = Vec::new();
    let mut next = from;
    // Two at a time, so that it goes on where it stopped.
    while next <= naive.revision() {
        let history = engine.history(next, 2, usize::MAX).expect("not compacted");
        changes.extend(history.changes);
        next = history.next;
    }
    let expected: Vec<_> = naive.changes.iter().filter(|change| change.at.main >= from).cloned().collect();
    prop_assert_eq!(changes, expected);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_is_as_a_store_that_keeps_everything(acts in acts()) {
        let (engine, mut naive) = (in_memory(), Naive::new());
        for act in &acts {
            play(act, &engine, &mut naive)?;
        }
        compare(&engine, &naive)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_disk_is_as_a_store_that_keeps_everything(acts in acts()) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("store.redb");
        let (mut engine, mut naive) = (on_disk(&path), Naive::new());
        for act in &acts {
            if matches!(act, Act::Reopen) {
                drop(engine);
                engine = on_disk(&path);
            }
            play(act, &engine, &mut naive)?;
        }
        compare(&engine, &naive)?;
        drop(engine);
        compare(&on_disk(&path), &naive)?;
    }
}
