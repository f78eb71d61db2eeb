//! The embedded store's engine: etcd's data model in one process, with neither clock, network nor tasks of its own.
//!
//! [`Engine`] takes what etcd's API asks: ranges at any revision that is not compacted, puts, deletions, transactions,
//! leases, and the history of changes that watches read. It answers as etcd 3.5 does, its refusals included. The history
//! is kept by a [`Backend`]: a [`Disk`], or [`Memory`].
//!
//! Who calls it is to write from one thread, to [`Engine::tend`] it once a second, and to expire the leases that
//! [`Engine::ended_leases`] names. [`Engine::snapshot`] and [`restore`] are a backup of it.
//!
//! **Invariants:** readers see a transaction whole or not at all, and only once it would outlive a power cut. What could
//! not be written is taken back, whole, before anybody has seen it.

mod backend;
mod check;
mod compaction;
mod contents;
mod disk;
mod engine;
mod hash;
mod index;
mod lease;
mod memory;
mod model;
mod read;
mod recent;
mod request;
mod retention;
mod snapshot;
mod txn;

pub use backend::{Backend, BackendError, Batch, DefragmentError, Meta, Size, State, View};
pub use disk::{Closed, Disk, Medium, OpenError};
pub use engine::{Done, Engine, Order, Reply, Request};
pub use hash::Hash;
pub use lease::LeaseState;
pub use memory::Memory;
pub use model::{Change, KeyRange, KeyValue, LeaseNumber, Revision};
pub use read::History;
pub use request::{
    Answer, Compare, Delete, Detail, Field, Found, LONGEST_LEASE, MOST_ANSWER, MOST_BYTES, MOST_LEASES,
    MOST_OPERATIONS, Operand, Operation, Outcome, Put, Range, Refusal, Relation, SortBy, SortOrder, Txn, Within,
};
pub use retention::{Retainer, Retention};
pub use snapshot::{BEGINNING as SNAPSHOT_BEGINNING, RestoreError, Restored, Snapshot, restore};
