//! What etcd-client gives, as an [`Answer`].

use etcd_client::{
    DeleteResponse, EventType, GetResponse, KeyValue, PutResponse, ResponseHeader, TxnOpResponse, TxnResponse,
};

use super::answer::{Answer, Event, EventKind, Pair, Revision};
use super::operation::Lease;

/// Where a script's lease numbers begin on the wire; zero would let the server choose.
const FIRST_LEASE: i64 = 7_000;

/// From where a script counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin(pub(super) i64);

pub(super) fn lease_id(lease: Lease) -> i64 {
    FIRST_LEASE + lease.0
}

pub(super) fn lease(id: i64) -> Lease {
    Lease(id - FIRST_LEASE)
}

impl Origin {
    pub(super) fn revision(self, absolute: i64) -> Revision {
        Revision((absolute != 0).then(|| absolute - self.0))
    }

    pub(super) fn header(self, header: Option<&ResponseHeader>) -> Revision {
        self.revision(header.map_or(0, ResponseHeader::revision))
    }

    pub(super) fn pair(self, told: &KeyValue) -> Pair {
        Pair {
            key: told.key().to_vec(),
            value: told.value().to_vec(),
            created: self.revision(told.create_revision()),
            modified: self.revision(told.mod_revision()),
            version: told.version(),
            lease: (told.lease() != 0).then(|| lease(told.lease())),
        }
    }

    fn pairs(self, told: &[KeyValue]) -> Vec<Pair> {
        told.iter().map(|pair| self.pair(pair)).collect()
    }

    pub(super) fn event(self, told: &etcd_client::Event) -> Option<Event> {
        let kind = match told.event_type() {
            EventType::Put => EventKind::Put,
            EventType::Delete => EventKind::Delete,
        };
        let previous = told.prev_kv().map(|pair| self.pair(pair));
        Some(Event { kind, pair: self.pair(told.kv()?), previous })
    }

    pub(super) fn put(self, told: &PutResponse) -> Answer {
        let previous = told.prev_key().map(|pair| self.pair(pair));
        Answer::Put { revision: self.header(told.header()), previous }
    }

    pub(super) fn get(self, told: &GetResponse) -> Answer {
        Answer::Get {
            revision: self.header(told.header()),
            pairs: self.pairs(told.kvs()),
            more: told.more(),
            count: told.count(),
        }
    }

    pub(super) fn delete(self, told: &DeleteResponse) -> Answer {
        Answer::Delete {
            revision: self.header(told.header()),
            deleted: told.deleted(),
            previous: self.pairs(told.prev_kvs()),
        }
    }

    pub(super) fn txn(self, told: &TxnResponse) -> Answer {
        let answer = |told: &TxnOpResponse| match told {
            TxnOpResponse::Put(told) => self.put(told),
            TxnOpResponse::Get(told) => self.get(told),
            TxnOpResponse::Delete(told) => self.delete(told),
            TxnOpResponse::Txn(told) => self.txn(told),
        };
        Answer::Txn {
            revision: self.header(told.header()),
            succeeded: told.succeeded(),
            answers: told.op_responses().iter().map(answer).collect(),
        }
    }
}
