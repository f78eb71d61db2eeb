//! Copies, hashes and room: a copy is as the store was, damage to it is told, and churn does not make a file grow.

use std::fs;
use std::io::Read;
use std::path::Path;

use proptest::prelude::*;
use windlass_store::mvcc::{
    BackendError, DefragmentError, Disk, Engine, Field, LeaseNumber, Memory, Put, Range, Refusal, Request,
    RestoreError, Restored, restore,
};

use super::{Act, NOW, acts, compare, delete, everything, in_memory, naive::Naive, on_disk, one, play, put};

fn copy(engine: &Engine) -> Vec<u8> {
    let pieces: Result<Vec<_>, BackendError> = engine.snapshot().expect("readable").collect();
    pieces.expect("readable").concat()
}

fn restored(copy: &[u8]) -> Result<Engine, RestoreError> {
    let memory = Memory::default();
    restore(&mut &*copy, &memory)?;
    Ok(Engine::open(Box::new(memory), NOW).expect("a whole store"))
}

fn digest(engine: &Engine) -> u32 {
    engine.hash(0).expect("hashed").hash
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_copy_is_as_the_store_was(acts in acts(), later in acts()) {
        let folder = tempfile::tempdir().expect("a folder");
        let (disk, memory) = (on_disk(&folder.path().join("store.redb")), in_memory());
        let (mut naive, mut other) = (Naive::new(), Naive::new());
        for act in acts.iter().filter(|act| !matches!(act, Act::Reopen)) {
            play(act, &disk, &mut naive)?;
            play(act, &memory, &mut other)?;
        }
        prop_assert_eq!(disk.hash(0), memory.hash(0), "it is of what is kept, not of how");
        let then = (naive.clone(), memory.hash(0));
        // Nothing of what happens while it is taken is in it.
        let mut taking = disk.snapshot().expect("readable");
        let mut taken = taking.next().expect("a beginning").expect("readable").to_vec();
        for act in later.iter().filter(|act| !matches!(act, Act::Reopen)) {
            play(act, &disk, &mut naive)?;
        }
        taking.for_each(|piece| taken.extend(piece.expect("readable")));
        prop_assert_eq!(taken.len() % 512, 32, "`etcdctl snapshot save` looks for a checksum there");
        let copied = restored(&taken).expect("a whole copy");
        compare(&copied, &then.0)?;
        prop_assert_eq!(copied.leases(), then.0.leases.iter().copied().collect::<Vec<_>>());
        prop_assert_eq!(copied.hash(0), then.1.clone());
        if disk.compacted() == copied.compacted() {
            prop_assert_eq!(disk.hash(copied.revision()), then.1, "nor does what is written later change the hash");
        }
        prop_assert_eq!(copy(&copied), copy(&restored(&taken).expect("whole")), "the same store, the same bytes");
    }
}

fn some(engine: &Engine) {
    one(engine, Request::Grant(LeaseNumber(5), 60)).expect("granted");
    for value in ["1", "2", "3"] {
        one(engine, Request::Put(Put { lease: Field::New(LeaseNumber(5)), ..put("a", value) })).expect("put");
        one(engine, Request::Put(put("b", value))).expect("put");
    }
    one(engine, Request::Delete(delete(everything()))).expect("deleted");
}

#[test]
fn every_difference_changes_the_hash() {
    let base = in_memory();
    some(&base);
    let requests = [
        Request::Put(put("c", "1")),
        Request::Put(put("c", "2")),
        Request::Put(put("cc", "")),
        Request::Put(put("c", "c")),
        Request::Put(Put { lease: Field::New(LeaseNumber(5)), ..put("c", "1") }),
    ];
    let mut hashes = vec![digest(&base)];
    for request in requests {
        let engine = in_memory();
        some(&engine);
        one(&engine, request).expect("put");
        hashes.push(digest(&engine));
        assert_eq!(engine.hash(8).expect("hashed").hash, hashes[0], "as it was before");
    }
    base.compact(8).expect("compacted");
    hashes.push(digest(&base));
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 7);
    assert_eq!(base.hash(7), Err(Refusal::Compacted));
    assert_eq!(base.hash(9), Err(Refusal::FutureRevision));
}

#[test]
fn what_is_forgotten_but_still_on_the_disk_is_in_no_copy() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = on_disk(&folder.path().join("store.redb"));
    some(&engine);
    engine.compact(8).expect("compacted");
    let (before, hash) = (copy(&engine), digest(&engine));
    assert!(!engine.forget_some().expect("forgotten"));
    assert_eq!((copy(&engine), digest(&engine)), (before, hash));
}

#[test]
fn a_damaged_copy_is_told() {
    let engine = in_memory();
    some(&engine);
    let whole = copy(&engine);
    let check = |what: &str, bytes: &[u8]| {
        let error = restored(bytes).expect_err(what);
        assert!(matches!(error, RestoreError::Damaged(_) | RestoreError::Foreign), "{what}: {error:?}");
        error
    };
    for length in 0..whole.len() {
        check(&format!("cut to {length}"), &whole[..length]);
    }
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        check(&format!("changed at {at}"), &bytes);
    }
    assert!(matches!(check("longer", &[&whole[..], b"x"].concat()), RestoreError::Damaged(_)));
    assert!(matches!(check("a file of etcd's", &[7; 4096]), RestoreError::Foreign));
}

#[test]
fn a_damaged_copy_makes_no_store() {
    let engine = in_memory();
    some(&engine);
    let mut bytes = copy(&engine);
    *bytes.last_mut().expect("not empty") ^= 1;
    let folder = tempfile::tempdir().expect("a folder");
    let error = Disk::restore(&folder.path().join("store.redb"), &mut &*bytes).expect_err("damaged");
    let left: Vec<_> = fs::read_dir(folder.path()).expect("readable").flatten().map(|file| file.file_name()).collect();
    assert_eq!(left, ["store.redb.lock"], "{error}");
}

#[test]
fn a_copy_is_never_written_over_a_store() {
    let engine = in_memory();
    some(&engine);
    let whole = copy(&engine);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("new/store.redb");
    let made = Disk::restore(&path, &mut &*whole).expect("a whole copy");
    assert_eq!(made, Restored { revision: 8, changes: 8, leases: 1 });
    let disk = on_disk(&path);
    assert_eq!((disk.hash(0), disk.leases()), (engine.hash(0), vec![LeaseNumber(5)]));
    one(&disk, Request::Put(put("a", "later"))).expect("put");
    let mut nothing = Unread;
    assert!(matches!(Disk::restore(&path, &mut nothing), Err(RestoreError::File(_))), "it is in use");
    drop(disk);
    assert!(matches!(Disk::restore(&path, &mut nothing), Err(RestoreError::Exists(_))));
    assert_eq!(on_disk(&path).revision(), 9);
}

/// A copy that must not even be looked at.
struct Unread;

impl Read for Unread {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        panic!("it was read");
    }
}

fn churn(engine: &Engine, rounds: usize) {
    for round in 0..rounds {
        let value = format!("{round:04096}");
        for key in 0..20 {
            one(engine, Request::Put(put(&format!("k{key}"), &value))).expect("put");
        }
        engine.compact(engine.revision()).expect("compacted");
        while engine.forget_some().expect("forgotten") {}
    }
}

#[test]
fn churn_does_not_make_a_file_grow() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.redb");
    let engine = on_disk(&path);
    let length = |path: &Path| fs::metadata(path).expect("there").len();
    churn(&engine, 10);
    let after_some = length(&path);
    churn(&engine, 40);
    assert!(length(&path) <= after_some + (1 << 20), "{} after {after_some}", length(&path));
}

#[test]
fn room_is_given_back_and_reads_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.redb");
    let engine = on_disk(&path);
    let value = "v".repeat(100_000);
    for key in 0..100 {
        one(&engine, Request::Put(put(&format!("k{key}"), &value))).expect("put");
    }
    let full = engine.room().expect("readable");
    assert_eq!(full.file, fs::metadata(&path).expect("there").len());
    assert!(full.used > 10_000_000 && full.used <= full.file, "{full:?}");
    one(&engine, Request::Delete(delete(everything()))).expect("deleted");
    one(&engine, Request::Put(put("a", "1"))).expect("put");
    engine.compact(engine.revision()).expect("compacted");
    while engine.forget_some().expect("forgotten") {}
    let emptied = engine.room().expect("readable");
    assert!(emptied.used < 100_000, "{emptied:?}");
    let copy = engine.snapshot().expect("readable");
    assert!(matches!(engine.defragment(), Err(DefragmentError::InUse)), "somebody reads what would be moved");
    drop(copy);
    let given_back = engine.defragment().expect("defragmented");
    assert!(given_back.file < 2_000_000, "{given_back:?} of {emptied:?}");
    let (_, found) = engine.range(&Range::of(everything())).expect("found");
    assert_eq!(found.pairs.len(), 1);
    one(&engine, Request::Put(put("a", "2"))).expect("put");
    let revision = engine.revision();
    drop(engine);
    assert_eq!(on_disk(&path).revision(), revision);
}
