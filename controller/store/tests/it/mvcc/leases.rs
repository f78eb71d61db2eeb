//! Leases: they end, keys go with them, and nobody sees of them what is not written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use windlass_store::mvcc::{
    Backend, BackendError, Batch, Change, DefragmentError, Engine, Field, KeyRange, LeaseNumber, LeaseState, Memory,
    Meta, Put, Refusal, Reply, Request, Revision, Size, State, View,
};

use super::particular::Shared;
use super::{NOW, delete, in_memory, name, one, order, put};

#[test]
fn leases_end() {
    let engine = in_memory();
    let at = |seconds| NOW + Duration::from_secs(seconds);
    let granted = one(&engine, Request::Grant(LeaseNumber(1), 1)).expect("granted").reply;
    assert_eq!(granted, Reply::Granted(2), "none is shorter than two seconds");
    one(&engine, Request::Grant(LeaseNumber(2), 10)).expect("granted");
    assert_eq!(engine.ended_leases(at(1)), (vec![], Some(at(2))));
    assert_eq!(engine.keep_alive(LeaseNumber(1), at(1)), Ok(2));
    assert_eq!(engine.ended_leases(at(3)), (vec![LeaseNumber(1)], Some(at(10))));
    assert_eq!(
        engine.keep_alive(LeaseNumber(1), at(3)),
        Err(Refusal::LeaseNotFound),
        "what has ended does not come back"
    );
    assert_eq!(engine.lease(LeaseNumber(2), at(4)).expect("there").remaining, Duration::from_secs(6));
    assert_eq!(engine.leases(), [LeaseNumber(1), LeaseNumber(2)]);
}

#[test]
fn only_what_nobody_has_kept_expires() {
    let engine = in_memory();
    let expire = |seconds| {
        let order = order(Request::Expire(LeaseNumber(1)));
        engine.write(&[order], NOW + Duration::from_secs(seconds)).pop().expect("an answer").map(|done| done.reply)
    };
    one(&engine, Request::Grant(LeaseNumber(1), 10)).expect("granted");
    one(&engine, Request::Put(leased("a", 1))).expect("put");
    assert_eq!(expire(9), Err(Refusal::LeaseNotFound), "it has a second yet");
    assert_eq!(expire(10), Ok(Reply::Revoked));
    assert_eq!(engine.size(), (2, 0));
    // Granted anew after it was seen to have ended, and before it was revoked for that.
    engine.write(&[order(Request::Grant(LeaseNumber(1), 10))], NOW + Duration::from_secs(11));
    assert_eq!(expire(12), Err(Refusal::LeaseNotFound));
    assert_eq!(engine.leases(), [LeaseNumber(1)]);
}

fn leased(key: &str, lease: i64) -> Put {
    Put { lease: Field::New(LeaseNumber(lease)), ..put(key, "") }
}

/// All that can be known of leases.
type Known = (Vec<LeaseNumber>, Vec<Result<LeaseState, Refusal>>, Vec<LeaseNumber>);

fn known(engine: &Engine) -> Known {
    let leases = (1..4).map(|number| engine.lease(LeaseNumber(number), NOW)).collect();
    (engine.leases(), leases, engine.ended_leases(NOW + Duration::from_secs(99)).0)
}

/// A backend that looks at the engine while the engine waits for it.
#[derive(Debug, Clone, Default)]
struct Peeping {
    memory: Arc<Memory>,
    engine: Arc<OnceLock<Arc<Engine>>>,
    seen: Arc<Mutex<Vec<Known>>>,
}

impl Backend for Peeping {
    fn load(&self, each: &mut dyn FnMut(Revision, Meta)) -> Result<State, BackendError> {
        self.memory.load(each)
    }
    fn commit(&self, batch: &Batch) -> Result<(), BackendError> {
        if let Some(engine) = self.engine.get() {
            self.seen.lock().expect("no panic").push(known(engine));
        }
        self.memory.commit(batch)
    }
    fn values(&self, at: &[Revision]) -> Result<Vec<Bytes>, BackendError> {
        self.memory.values(at)
    }
    fn changes(&self, from: i64, most: usize, bytes: usize) -> Result<Vec<Change>, BackendError> {
        self.memory.changes(from, most, bytes)
    }
    fn view(&self) -> Result<Box<dyn View>, BackendError> {
        self.memory.view()
    }
    fn size(&self) -> Result<Size, BackendError> {
        self.memory.size()
    }
    fn defragment(&self) -> Result<(), DefragmentError> {
        self.memory.defragment()
    }
}

#[test]
fn what_is_being_written_is_not_seen() {
    let backend = Peeping::default();
    let engine = Arc::new(Engine::open(Box::new(backend.clone()), NOW).expect("an empty store"));
    backend.engine.set(Arc::clone(&engine)).expect("set once");
    one(&engine, Request::Grant(LeaseNumber(1), 60)).expect("granted");
    one(&engine, Request::Put(leased("a", 1))).expect("put");
    let before = known(&engine);
    let batch = [
        Request::Grant(LeaseNumber(2), 60),
        Request::Put(leased("b", 2)),
        Request::Put(leased("c", 1)),
        Request::Revoke(LeaseNumber(1)),
    ];
    assert!(engine.write(&batch.map(order), NOW).iter().all(Result::is_ok));
    assert_eq!(backend.seen.lock().expect("no panic").last(), Some(&before));
    let (leases, states, _) = known(&engine);
    assert_eq!(leases, [LeaseNumber(2)]);
    assert_eq!(states[1].as_ref().expect("there").keys, ["b"]);
}

#[derive(Debug, Clone)]
enum Act {
    Grant(i64),
    Revoke(i64),
    Put(u8, i64),
    Delete(u8, u8),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => (1..4_i64).prop_map(Act::Grant),
        2 => (1..4_i64).prop_map(Act::Revoke),
        5 => (0..6_u8, 0..4_i64).prop_map(|(key, lease)| Act::Put(key, lease)),
        1 => (0..6_u8, 0..7_u8).prop_map(|(begin, end)| Act::Delete(begin, end)),
    ]
}

/// Leases and the lease of each key; whether the act is refused.
fn apply(act: &Act, leases: &mut BTreeSet<i64>, keys: &mut BTreeMap<Bytes, i64>) -> bool {
    match act {
        Act::Grant(lease) => leases.insert(*lease),
        Act::Revoke(lease) => {
            keys.retain(|_, of| of != lease);
            leases.remove(lease)
        }
        Act::Put(key, lease) => {
            let known = *lease == 0 || leases.contains(lease);
            if known {
                keys.insert(name(*key), *lease);
            }
            known
        }
        Act::Delete(begin, end) => {
            keys.retain(|key, _| *key < name(*begin) || *key >= name(*end));
            true
        }
    }
}

fn request(act: &Act) -> Request {
    match act {
        Act::Grant(lease) => Request::Grant(LeaseNumber(*lease), 60),
        Act::Revoke(lease) => Request::Revoke(LeaseNumber(*lease)),
        Act::Put(key, lease) => Request::Put(Put { key: name(*key), ..leased("", *lease) }),
        Act::Delete(begin, end) => Request::Delete(delete(KeyRange::Until(name(*begin), name(*end)))),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn keys_go_with_their_leases_in_batches_too(batches in vec((vec(act(), 1..12), prop::bool::weighted(0.2)), 1..8)) {
        let backend = Shared::default();
        let engine = Engine::open(Box::new(backend.clone()), NOW).expect("an empty store");
        let (mut leases, mut keys) = (BTreeSet::new(), BTreeMap::new());
        for (acts, fails) in batches {
            backend.0.fail(fails.then(|| BackendError::Io("it fails".to_owned())));
            let orders: Vec<_> = acts.iter().map(|act| order(request(act))).collect();
            let answers = engine.write(&orders, NOW);
            let (mut new_leases, mut new_keys) = (leases.clone(), keys.clone());
            let done: Vec<bool> = acts.iter().map(|act| apply(act, &mut new_leases, &mut new_keys)).collect();
            let written = !answers.iter().any(|answer| matches!(answer, Err(Refusal::Broken(_))));
            if written {
                prop_assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), done);
                (leases, keys) = (new_leases, new_keys);
            }
            let found: Vec<i64> = engine.leases().into_iter().map(|lease| lease.0).collect();
            prop_assert_eq!(&found, &leases.iter().copied().collect::<Vec<_>>());
            for lease in found {
                let of: Vec<Bytes> = keys.iter().filter(|(_, of)| **of == lease).map(|(key, _)| key.clone()).collect();
                prop_assert_eq!(engine.lease(LeaseNumber(lease), NOW).expect("there").keys, of);
            }
        }
    }
}
