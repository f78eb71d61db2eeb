//! How much history is kept.

use std::time::Duration;

use windlass_store::mvcc::{KeyRange, Range, Refusal, Request, Retainer, Retention};

use super::{delete, everything, in_memory, on_disk, one, put};

fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

/// Each row is a minute, the revision then, and up to where history is forgotten.
#[test]
fn an_hour_is_kept_and_so_many_revisions() {
    let check = |what: &str, rows: &[(u64, i64, Option<i64>)]| {
        let mut retainer = Retainer::new(Retention { time: minutes(60), revisions: 100, unused: 0 });
        let mut compacted = 0;
        for (minute, revision, expected) in rows {
            let told = retainer.forgettable(minutes(*minute), *revision, compacted);
            assert_eq!(told, *expected, "{what}: minute {minute}");
            compacted = told.unwrap_or(compacted);
        }
    };
    check("many writes", &[(1000, 500, None), (1030, 900, None), (1059, 950, None), (1060, 1000, Some(500))]);
    check("few writes", &[(1000, 500, None), (1060, 550, Some(450)), (1120, 550, None), (1180, 551, Some(451))]);
    check("no writes", &[(1000, 500, None), (1060, 500, Some(400)), (1120, 500, None)]);
    check("a start", &[(0, 500, None), (30, 900, None), (59, 950, None), (61, 1000, Some(500))]);
    check("a sample at the time", &[(0, 500, None), (30, 700, None), (90, 900, Some(700)), (91, 900, None)]);
    check("a sleep", &[(0, 500, None), (30, 700, None), (900, 900, Some(700)), (960, 999, Some(899))]);
    check("too few", &[(0, 5, None), (60, 50, None), (120, 104, Some(4))]);
}

/// Asked all the time, it forgets neither too much nor much too little, and holds little itself.
#[test]
fn asked_every_second_it_keeps_an_hour() {
    let retention = Retention { time: minutes(60), revisions: 10, unused: 0 };
    let (mut retainer, mut compacted, mut asked) = (Retainer::new(retention), 0, 0);
    for second in 0..6 * 3600 {
        // One revision a second.
        if let Some(until) = retainer.forgettable(Duration::from_secs(second), second as i64, compacted) {
            compacted = until;
            asked += 1;
        }
        let kept = second as i64 - compacted;
        assert!(kept >= 3600 || compacted == 0, "{kept} at {second}");
        assert!(kept <= 3600 + 2 * 60, "{kept} at {second}");
    }
    assert!((290..=300).contains(&asked), "once a minute, not {asked} times");
}

#[test]
fn a_store_that_is_tended_forgets_by_itself() {
    let engine = in_memory();
    let mut retainer = Retainer::new(Retention { time: minutes(60), revisions: 3, unused: 0 });
    let tend = |retainer: &mut Retainer, minute| engine.tend(retainer, minutes(minute)).expect("tended");
    for value in 0..5000 {
        one(&engine, Request::Put(put("a", &value.to_string()))).expect("put");
    }
    assert!(!tend(&mut retainer, 100), "there is nothing to forget yet");
    assert!(tend(&mut retainer, 160), "it is taken off the disk by and by");
    assert_eq!(engine.compacted(), 4998);
    let mut rounds = 1;
    while tend(&mut retainer, 160) {
        rounds += 1;
    }
    assert!((2..=4).contains(&rounds), "{rounds}");
    assert_eq!(engine.size(), (4, 1));
    let then = |revision| engine.range(&Range { revision, ..Range::of(everything()) }).map(|(_, found)| found.count);
    assert_eq!((then(4997), then(4998)), (Err(Refusal::Compacted), Ok(1)));
    // Somebody was quicker.
    engine.compact(5001).expect("compacted");
    assert!(!tend(&mut retainer, 300));
}

#[test]
fn room_is_given_back_where_that_is_worth_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = on_disk(&folder.path().join("store.redb"));
    let mut retainer = Retainer::new(Retention { time: minutes(60), revisions: 1, unused: 4_000_000 });
    let mut tend = |minute| {
        while engine.tend(&mut retainer, minutes(minute)).expect("tended") {}
        engine.room().expect("readable").file
    };
    let value = "v".repeat(100_000);
    for key in 0..100 {
        one(&engine, Request::Put(put(&format!("k{key}"), &value))).expect("put");
    }
    let full = tend(0);
    assert!(full > 10_000_000);
    one(&engine, Request::Delete(delete(KeyRange::Until("k1".into(), "k4".into())))).expect("deleted");
    one(&engine, Request::Put(put("a", "1"))).expect("put");
    tend(60);
    let (still, less) = (tend(120), engine.room().expect("readable"));
    assert_eq!(still, full, "half of it is no reason");
    assert!(less.file - less.used > less.used, "{less:?}");
    one(&engine, Request::Delete(delete(everything()))).expect("deleted");
    one(&engine, Request::Put(put("a", "1"))).expect("put");
    assert_eq!(tend(121), still, "it can still be asked for");
    let copy = engine.snapshot().expect("readable");
    assert_eq!(tend(181), still, "somebody reads it yet");
    drop(copy);
    for _ in 0..2 {
        one(&engine, Request::Put(put("a", "1"))).expect("put");
    }
    tend(182);
    assert!(tend(242) < 2_000_000, "{:?}", engine.room());
}
