//! What is kept in memory of what was asked: copies, and not the messages that it came in.

use bytes::Bytes;
use windlass_store::mvcc::{Delete, Field, KeyRange, LeaseNumber, Put, Request};

use super::{on_disk, one};

/// A request's parts are slices of all that came with it; what is kept of one keeps the whole of it.
#[test]
fn nothing_of_a_request_is_kept_but_copies() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = on_disk(&folder.path().join("store.redb"));
    one(&engine, Request::Grant(LeaseNumber(1), 60)).expect("granted");
    for round in 0..2 {
        for lease in [LeaseNumber::NONE, LeaseNumber(1)] {
            let message = Bytes::from(vec![b'm'; 8192]);
            let (value, lease) = (Field::New(message.slice(100..200)), Field::New(lease));
            let put = Put { key: message.slice(..4 + round), value, lease, tell_previous: true };
            one(&engine, Request::Put(put)).expect("put");
            assert!(message.is_unique(), "a part of it is kept, and so all of it");
        }
    }
    let message = Bytes::from(vec![b'm'; 8192]);
    let keys = KeyRange::new(message.slice(..4), Bytes::new());
    one(&engine, Request::Delete(Delete { keys, tell_previous: false })).expect("deleted");
    assert!(message.is_unique(), "a part of it is kept, and so all of it");
}
