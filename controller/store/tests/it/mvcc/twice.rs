//! Transactions that would write a key twice: as etcd's own, slower, way of finding them says.

use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use windlass_store::mvcc::{Delete, KeyRange, Operation, Order, Refusal, Request, Txn};

use super::{delete, in_memory, one, order, put};

/// What a branch writes, as etcd's `checkIntervals` collects it (server/etcdserver/api/v3rpc/key.go).
type Writes = (BTreeSet<Bytes>, Vec<KeyRange>);

fn intervals(branch: &[Operation]) -> Option<Writes> {
    let (mut puts, mut deletions) = (BTreeSet::<Bytes>::new(), Vec::new());
    for operation in branch {
        if let Operation::Delete(delete) = operation {
            deletions.push(delete.keys.clone());
        }
    }
    let deleted = |deletions: &[KeyRange], key: &[u8]| deletions.iter().any(|range| range.contains(key));
    for operation in branch {
        let Operation::Txn(txn) = operation else { continue };
        let ((then, then_deletions), (otherwise, other_deletions)) =
            (intervals(&txn.success)?, intervals(&txn.failure)?);
        for key in &then {
            if puts.contains(key) || deleted(&deletions, key) {
                return None;
            }
            puts.insert(key.clone());
        }
        for key in &otherwise {
            if (puts.contains(key) && !then.contains(key)) || deleted(&deletions, key) {
                return None;
            }
            puts.insert(key.clone());
        }
        deletions.extend(then_deletions);
        deletions.extend(other_deletions);
    }
    for operation in branch {
        if let Operation::Put(put) = operation
            && (deleted(&deletions, &put.key) || !puts.insert(put.key.clone()))
        {
            return None;
        }
    }
    Some((puts, deletions))
}

fn operation() -> impl Strategy<Value = Operation> {
    let key = || vec(prop_oneof![Just(0_u8), Just(b'a'), Just(b'b'), any::<u8>()], 1..4).prop_map(Bytes::from);
    let keys = prop_oneof![
        3 => key().prop_map(KeyRange::One),
        3 => (key(), key()).prop_map(|(begin, end)| KeyRange::Until(begin, end)),
        1 => key().prop_map(KeyRange::From),
    ];
    let leaf = prop_oneof![
        3 => key().prop_map(|key| Operation::Put(windlass_store::mvcc::Put { key, ..put("", "") })),
        1 => keys.prop_map(|keys| Operation::Delete(Delete { keys, tell_previous: false })),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        (vec(inner.clone(), 0..4), vec(inner, 0..4))
            .prop_map(|(success, failure)| Operation::Txn(Txn { compare: Vec::new(), success, failure }))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_key_that_could_be_written_twice_is_refused(success in vec(operation(), 1..6)) {
        let expected = intervals(&success).is_some();
        let answer = one(&in_memory(), Request::Txn(Txn { success, ..Txn::default() }));
        match answer {
            Ok(_) => prop_assert!(expected),
            Err(refusal) => {
                prop_assert_eq!(refusal, Refusal::DuplicateKey);
                prop_assert!(!expected);
            }
        }
    }
}

/// A request of the largest size, made of as many writes as fit. Each put against each deletion would be 400 million
/// comparisons.
#[test]
fn many_writes_in_one_transaction_take_no_time() {
    let many = |make: &dyn Fn(usize) -> Operation| {
        let inner = |outer: usize| {
            let success = (0..127).map(|inner| make(outer * 127 + inner)).collect();
            Operation::Txn(Txn { success, ..Txn::default() })
        };
        let success = (0..127).map(inner).collect();
        Operation::Txn(Txn { success, ..Txn::default() })
    };
    let puts = many(&|number| Operation::Put(put(&format!("p{number:05}"), "")));
    let deletions = many(&|number| Operation::Delete(delete(KeyRange::One(format!("d{number:05}").into()))));
    let request = order(Request::Txn(Txn { success: vec![deletions.clone(), puts.clone()], ..Txn::default() }));
    assert!(request.bytes() > 127 * 127 * 2 * 6);
    let engine = in_memory();
    assert!(engine.write(&[request], super::NOW)[0].is_ok());
    assert_eq!(engine.size(), (127 * 127, 127 * 127));
    let twice = Txn { success: vec![puts.clone(), deletions, puts], ..Txn::default() };
    assert_eq!(one(&engine, Request::Txn(twice)), Err(Refusal::DuplicateKey));
}

#[test]
fn what_a_request_holds_is_counted() {
    let bytes = |request| Order { request, author: None }.bytes();
    let long = "x".repeat(5000);
    let small = bytes(Request::Put(put("a", "1")));
    assert!(small < 1000, "{small}");
    assert_eq!(bytes(Request::Put(put("a", &long))), small + 4999);
    let nested = |value: &str| {
        let inner = Txn { success: vec![Operation::Put(put("a", value))], ..Txn::default() };
        bytes(Request::Txn(Txn { failure: vec![Operation::Txn(inner)], ..Txn::default() }))
    };
    assert_eq!(nested(&long), nested("1") + 4999);
}
