//! Answers have a bound, and so has what a transaction reads while everybody who writes waits.

use windlass_store::mvcc::{
    Detail, Engine, KeyRange, LeaseNumber, MOST_ANSWER, MOST_LEASES, Operation, Range, Refusal, Request, Txn,
};

use super::{delete, everything, in_memory, one, order, put};

/// A store of so many megabytes, in values of one.
fn store(megabytes: usize) -> Engine {
    let engine = in_memory();
    let value = "v".repeat(1 << 20);
    for number in 0..megabytes {
        one(&engine, Request::Put(put(&format!("k{number:03}"), &value))).expect("put");
    }
    engine
}

fn all() -> Range {
    Range::of(everything())
}

#[test]
fn a_range_that_is_too_large_says_how_to_ask() {
    let most = MOST_ANSWER >> 20;
    let engine = store(most + 1);
    let refused = engine.range(&all()).expect_err("too much");
    assert!(refused == Refusal::AnswerTooLarge && refused.to_string().contains("`--limit`"), "{refused}");
    let (_, few) = engine.range(&Range { limit: 10, ..all() }).expect("fits");
    assert_eq!((few.pairs.len(), few.more), (10, true));
    for detail in [Detail::Keys, Detail::Count] {
        let (_, found) = engine.range(&Range { detail, ..all() }).expect("fits");
        assert_eq!(found.count, most as i64 + 1);
    }
}

/// 64 transactions of 64 ranges each.
fn nested(range: &Range) -> Txn {
    let inner = Txn { success: vec![Operation::Range(range.clone()); 64], ..Txn::default() };
    Txn { success: vec![Operation::Txn(inner); 64], ..Txn::default() }
}

#[test]
fn what_a_transaction_reads_has_a_bound() {
    let engine = store(1);
    let now = engine.revision();
    let mut txn = nested(&all());
    txn.success.insert(0, Operation::Put(put("a", "1")));
    assert_eq!(one(&engine, Request::Txn(txn)), Err(Refusal::AnswerTooLarge));
    assert_eq!(engine.revision(), now, "it has changed nothing");
    // What is only looked at costs time too.
    for number in 0..1000 {
        one(&engine, Request::Put(put(&format!("n{number:04}"), ""))).expect("put");
    }
    let count = Range { detail: Detail::Count, ..all() };
    assert_eq!(one(&engine, Request::Txn(nested(&count))), Err(Refusal::AnswerTooLarge));
    let few = Range { limit: 1, ..Range::of(KeyRange::One("n0001".into())) };
    one(&engine, Request::Txn(nested(&few))).expect("4,096 small reads fit");
    // And the next one has all of the room again.
    one(&engine, Request::Txn(nested(&few))).expect("fits");
}

#[test]
fn what_was_deleted_is_told_as_far_as_it_fits() {
    let engine = store((MOST_ANSWER >> 20) + 1);
    let (now, mut told) = (engine.revision(), delete(KeyRange::Until("k".into(), "l".into())));
    told.tell_previous = true;
    assert_eq!(one(&engine, Request::Delete(told.clone())), Err(Refusal::AnswerTooLarge));
    assert_eq!(engine.revision(), now, "nothing is deleted that could not be told");
    told.tell_previous = false;
    one(&engine, Request::Delete(told)).expect("without being told it can be deleted");
}

#[test]
fn there_is_a_bound_of_leases() {
    let engine = in_memory();
    let grant = |number| order(Request::Grant(LeaseNumber(number), 60));
    let most = MOST_LEASES as i64;
    for from in (1..=most).step_by(250) {
        let granted = engine.write(&(from..from + 250).map(grant).collect::<Vec<_>>(), super::NOW);
        assert!(granted.iter().all(Result::is_ok), "{:?}", granted.iter().find(|granted| granted.is_err()));
    }
    assert_eq!(one(&engine, Request::Grant(LeaseNumber(most + 1), 60)), Err(Refusal::TooManyLeases(MOST_LEASES)));
    one(&engine, Request::Revoke(LeaseNumber(1))).expect("revoked");
    one(&engine, Request::Grant(LeaseNumber(most + 1), 60)).expect("there is room again");
}
