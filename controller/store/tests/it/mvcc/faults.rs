//! Disks that fail: what was acknowledged is there, nothing else is seen, reads go on, and so does the next write.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use proptest::collection::vec;
use proptest::prelude::*;
use redb::StorageBackend;
use windlass_store::mvcc::{
    BackendError, Disk, Done, Engine, Field, KeyRange, LeaseNumber, Medium, Memory, OpenError, Operation, Put, Range,
    Refusal, Request, Snapshot, Txn, restore,
};

use super::naive::{Naive, Write};
use super::{NOW, compare, delete, everything, name, one, put};

/// A file as a kernel keeps it: what was written is read at once, and is on the disk after a flush.
#[derive(Debug, Default)]
struct Faulty(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    disk: Vec<u8>,
    seen: Vec<u8>,
    unflushed: Vec<Piece>,
    fault: Option<Fault>,
    /// Nothing can be read.
    unreadable: bool,
    /// Bytes that are free, where that is told.
    free: Option<u64>,
    /// The machine has no power.
    dead: bool,
}

#[derive(Debug, Clone)]
enum Piece {
    Length(u64),
    Write(u64, Vec<u8>),
}

/// What goes wrong, and when.
#[derive(Debug, Clone, Copy)]
struct Fault {
    kind: Kind,
    /// So many operations of that kind go well yet.
    after: u8,
    /// Which of what was to be written gets to the disk all the same, a bit each.
    through: u64,
    /// Whether it goes on until somebody repairs it.
    lasts: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// There is no room for a write.
    Full,
    /// A write fails.
    Write,
    /// A flush fails.
    Flush,
}

fn apply(piece: &Piece, to: &mut Vec<u8>) {
    match piece {
        Piece::Length(length) => to.resize(*length as usize, 0),
        Piece::Write(offset, data) => {
            let (from, until) = (*offset as usize, *offset as usize + data.len());
            // A file that was not made longer in time has the write behind its end.
            if to.len() < until {
                to.resize(until, 0);
            }
            to[from..until].copy_from_slice(data);
        }
    }
}

impl Kept {
    /// Some of what was not flushed gets to the disk; the rest is lost.
    fn lose(&mut self, through: u64) {
        for (number, piece) in self.unflushed.drain(..).enumerate() {
            if through >> (number % 64) & 1 == 1 {
                apply(&piece, &mut self.disk);
            }
        }
        self.seen.clone_from(&self.disk);
    }

    /// Whether it is time for an operation to fail.
    fn due(&mut self, flush: bool) -> Option<Fault> {
        let fault = self.fault.as_mut().filter(|fault| (fault.kind == Kind::Flush) == flush)?;
        if let Some(less) = fault.after.checked_sub(1) {
            fault.after = less;
            return None;
        }
        let due = *fault;
        if !due.lasts {
            self.fault = None;
        }
        Some(due)
    }

    fn write(&mut self, piece: Piece) -> io::Result<()> {
        if self.dead {
            return Err(io::Error::other("no power"));
        }
        match self.due(false) {
            Some(Fault { kind: Kind::Full, .. }) => return Err(io::ErrorKind::StorageFull.into()),
            Some(Fault { through, .. }) if through & 1 == 0 => return Err(io::Error::other("it was not written")),
            Some(_) => {
                self.seen_too(piece);
                return Err(io::Error::other("it was written, but is said not to be"));
            }
            None => self.seen_too(piece),
        }
        Ok(())
    }

    fn seen_too(&mut self, piece: Piece) {
        apply(&piece, &mut self.seen);
        self.unflushed.push(piece);
    }
}

impl Faulty {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().expect("no test panics in it")
    }

    /// The power goes, and comes back.
    fn cut(&self, through: u64) -> Self {
        let mut kept = self.kept();
        kept.dead = true;
        kept.lose(through);
        let disk = kept.disk.clone();
        Self(Mutex::new(Kept { seen: disk.clone(), disk, ..Kept::default() }))
    }
}

impl Medium for Faulty {
    fn free(&self) -> io::Result<Option<u64>> {
        Ok(self.kept().free)
    }
}

impl StorageBackend for Faulty {
    fn len(&self) -> io::Result<u64> {
        Ok(self.kept().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let kept = self.kept();
        if kept.unreadable {
            return Err(io::Error::other("it cannot be read"));
        }
        let from = offset as usize;
        let found = kept.seen.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.kept().write(Piece::Length(length))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut kept = self.kept();
        if kept.dead {
            return Err(io::Error::other("no power"));
        }
        if let Some(fault) = kept.due(true) {
            kept.lose(fault.through);
            return Err(io::Error::other("it was not flushed"));
        }
        kept.lose(u64::MAX);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.kept().write(Piece::Write(offset, data.to_vec()))
    }
}

#[derive(Debug, Clone)]
enum Act {
    /// Three pairs at once, the first with a lease.
    Put([u8; 3], u8, i64),
    Grant(i64),
    Revoke(i64),
    Compact(i64),
    Forget,
    Defragment,
    /// Begins to take a copy.
    Copy,
    Fail(Fault),
    Repair,
    /// The power goes, and so much of what was not flushed is there afterwards.
    Cut(u64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let lease = 1..4_i64;
    let through = || prop_oneof![Just(0), Just(u64::MAX), any::<u64>()];
    let kind = prop_oneof![1 => Just(Kind::Full), 1 => Just(Kind::Write), 3 => Just(Kind::Flush)];
    let fault = (kind, 0..12_u8, through(), any::<bool>()).prop_map(|(kind, after, through, lasts)| Fault {
        kind,
        after: after / 3,
        through,
        lasts,
    });
    let act = prop_oneof![
        8 => ([0..8_u8, 0..8, 0..8], any::<u8>(), 0..4_i64).prop_map(|(keys, value, lease)| Act::Put(keys, value, lease)),
        2 => lease.clone().prop_map(Act::Grant),
        1 => lease.prop_map(Act::Revoke),
        1 => (0..4_i64).prop_map(Act::Compact),
        1 => Just(Act::Forget),
        1 => Just(Act::Defragment),
        2 => Just(Act::Copy),
        5 => fault.prop_map(Act::Fail),
        1 => Just(Act::Repair),
        1 => through().prop_map(Act::Cut),
    ];
    vec(act, 1..40)
}

/// What is asked of the engine, and the store after that; nothing where it would be refused in any case.
fn work(act: &Act, engine: &Engine, naive: &Naive) -> Option<(Naive, Result<Done, Refusal>)> {
    let mut next = naive.clone();
    let answer = match act {
        Act::Put(keys, value, lease) => {
            let mut keys: Vec<_> = keys.iter().map(|key| name(*key)).collect();
            keys.sort();
            keys.dedup();
            let lease = Some(LeaseNumber(*lease)).filter(|lease| naive.leases.contains(lease)).unwrap_or_default();
            let leases = std::iter::once(lease).chain(std::iter::repeat(LeaseNumber::NONE));
            let writes = keys.into_iter().zip(leases).map(|(key, lease)| Write::Put(key, vec![*value].into(), lease));
            let writes: Vec<Write> = writes.collect();
            next.transact(&writes);
            let put = |write| match write {
                Write::Put(key, value, lease) => Operation::Put(Put {
                    key,
                    value: Field::New(value),
                    lease: Field::New(lease),
                    tell_previous: false,
                }),
                Write::Delete(_) => unreachable!("only puts were made"),
            };
            let success = writes.into_iter().map(put).collect();
            one(engine, Request::Txn(Txn { success, ..Txn::default() }))
        }
        Act::Grant(lease) => {
            if !next.leases.insert(LeaseNumber(*lease)) {
                return None;
            }
            one(engine, Request::Grant(LeaseNumber(*lease), 60))
        }
        Act::Revoke(lease) => {
            if !next.leases.contains(&LeaseNumber(*lease)) {
                return None;
            }
            next.revoke(LeaseNumber(*lease));
            one(engine, Request::Revoke(LeaseNumber(*lease)))
        }
        Act::Compact(back) => {
            next.compacted = next.revision() - back;
            if next.compacted <= naive.compacted {
                return None;
            }
            engine.compact(next.compacted)
        }
        Act::Forget | Act::Defragment | Act::Copy | Act::Fail(_) | Act::Repair | Act::Cut(_) => return None,
    };
    Some((next, answer))
}

fn same(engine: &Engine, naive: &Naive) -> Result<(), TestCaseError> {
    compare(engine, naive)?;
    prop_assert_eq!(engine.compacted(), naive.compacted);
    prop_assert_eq!(engine.leases(), naive.leases.iter().copied().collect::<Vec<_>>());
    Ok(())
}

fn open(file: &Arc<Faulty>) -> Result<Engine, OpenError> {
    let disk = Disk::on(Arc::clone(file) as Arc<dyn Medium>, Path::new("faulty"))?;
    Ok(Engine::open(Box::new(disk), NOW).expect("a whole store"))
}

/// After a start the store is as it was acknowledged; or with one more of those that were not, since, and that whole.
fn found(engine: &Engine, naive: Naive, doubtful: &[Naive]) -> Result<Naive, TestCaseError> {
    let there = doubtful.iter().find(|doubtful| same(engine, doubtful).is_ok()).cloned().unwrap_or(naive);
    same(engine, &there)?;
    Ok(there)
}

/// A copy that could be taken is as the store was when it was begun, whatever the disk has done since.
fn check_copy(snapshot: Snapshot, then: &Naive) -> Result<(), TestCaseError> {
    let pieces: Result<Vec<_>, BackendError> = snapshot.collect();
    if let Ok(pieces) = pieces {
        let memory = Memory::default();
        restore(&mut &*pieces.concat(), &memory).expect("a whole copy");
        same(&Engine::open(Box::new(memory), NOW).expect("a whole store"), then)?;
    }
    Ok(())
}

fn check(acts: &[Act]) -> Result<(), TestCaseError> {
    let mut file = Arc::new(Faulty::default());
    let (mut engine, mut naive) = (open(&file).expect("nothing fails yet"), Naive::new());
    // What failed since the last that did not.
    let mut doubtful = Vec::new();
    // A copy that is being taken, and the store when that was begun.
    let mut copying = None;
    for (number, act) in acts.iter().enumerate() {
        if number % 3 == 0
            && let Some((snapshot, then)) = copying.take()
        {
            check_copy(snapshot, &then)?;
        }
        match act {
            Act::Copy => copying = engine.snapshot().ok().map(|snapshot| (snapshot, naive.clone())),
            Act::Fail(fault) => file.kept().fault = Some(*fault),
            Act::Repair => file.kept().fault = None,
            Act::Forget => drop(engine.forget_some()),
            Act::Defragment => drop(engine.defragment()),
            Act::Cut(through) => {
                file = Arc::new(file.cut(*through));
                drop(engine);
                engine = open(&file).expect("it is whole");
                naive = found(&engine, naive, &doubtful)?;
                doubtful.clear();
            }
            _ => {}
        }
        let Some((next, answer)) = work(act, &engine, &naive) else { continue };
        match answer {
            Ok(done) => {
                naive = next;
                prop_assert_eq!(done.revision, naive.revision());
                doubtful.clear();
            }
            Err(Refusal::NoSpace(_) | Refusal::Broken(_)) => doubtful.push(next),
            Err(other) => prop_assert!(false, "{:?}", other),
        }
        same(&engine, &naive)?;
    }
    file.kept().fault = None;
    let last = Act::Put([1, 2, 3], 0, 0);
    let (naive, answer) = work(&last, &engine, &naive).expect("a put");
    prop_assert!(answer.is_ok(), "the disk is well again: {:?}", answer);
    same(&engine, &naive)?;
    drop(engine);
    same(&open(&file).expect("it is whole"), &naive)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_disk_that_fails_keeps_what_was_acknowledged_and_shows_nothing_else(acts in acts()) {
        check(&acts)?;
    }
}

#[test]
fn a_full_disk_takes_no_puts_and_has_a_way_out() {
    let file = Arc::new(Faulty::default());
    let engine = open(&file).expect("nothing fails");
    one(&engine, Request::Put(put("a", "1"))).expect("put");
    one(&engine, Request::Put(put("b", "1"))).expect("put");
    file.kept().free = Some(1_000_000);
    let told = one(&engine, Request::Put(put("a", "2"))).expect_err("refused").to_string();
    assert_eq!(
        told,
        "etcdserver: mvcc: database space exceeded: faulty: 1000000 bytes are free on its disk, of which 16777216 are \
         kept for deleting and for forgetting history; reads go on; hint: make room on the store's disk, or forget \
         history (`etcdctl compaction`) and give its space back (`etcdctl defrag`)"
    );
    let (revision, found) = engine.range(&Range::of(everything())).expect("reads go on");
    assert_eq!((revision, found.count), (3, 2));
    one(&engine, Request::Delete(delete(KeyRange::One("a".into())))).expect("deleted");
    engine.compact(4).expect("compacted");
    assert!(!engine.forget_some().expect("forgotten"));
    engine.defragment().expect("defragmented");
    file.kept().free = Some(20_000_000);
    one(&engine, Request::Put(put("a", "3"))).expect("there is room again");
}

#[test]
fn a_disk_that_cannot_even_be_read_is_read_once_it_can() {
    let file = Arc::new(Faulty::default());
    let engine = open(&file).expect("nothing fails");
    one(&engine, Request::Put(put("a", "1"))).expect("put");
    let fault = Fault { kind: Kind::Flush, after: 0, through: u64::MAX, lasts: true };
    (file.kept().fault, file.kept().unreadable) = (Some(fault), true);
    let write = || one(&engine, Request::Put(put("a", "2")));
    let read = || engine.range(&Range::of(everything()));
    for _ in 0..2 {
        assert!(matches!(write(), Err(Refusal::Broken(_))), "{:?}", write());
        assert!(matches!(read(), Err(Refusal::Broken(_))), "{:?}", read());
    }
    file.kept().unreadable = false;
    let (revision, found) = read().expect("it can be read again");
    assert_eq!((revision, &found.pairs[0].value[..]), (2, &b"1"[..]));
    assert!(matches!(write(), Err(Refusal::Broken(_))), "{:?}", write());
    read().expect("reads go on");
    file.kept().fault = None;
    assert_eq!(write().expect("written").revision, 3);
}
