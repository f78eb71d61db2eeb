//! The only crate that names etcd: typed reads, watch, compare-and-swap and leases.
//!
//! A [`Store`] is a connection to an etcd cluster and a prefix in it. What lies there is named by [`Key`], read as
//! [`Entry`], followed by a [`Follower`], and written by users one key at a time, and by the controller in
//! transactions that hold only while its [`Leadership`] does.
//!
//! **Invariant:** no type of etcd or of gRPC stands in this crate's interface.

mod authors;
mod backoff;
mod backup;
mod call;
mod campaign;
mod commit;
mod connect;
mod continuity;
pub mod embedded;
mod entry;
mod follow;
mod identity;
mod in_process;
mod key;
mod leadership;
mod machine;
pub mod mvcc;
mod pool;
mod read;
mod report;
mod scope;
mod sequence;
pub mod serve;
mod tls;
mod write;

pub use authors::Authors;
pub use backup::{Backup, BackupError, StoreState};
pub use call::{CallError, Cause, Problem};
pub use campaign::{CampaignError, LEADERSHIP_TTL};
pub use commit::{Act, CommitError, Expectation, MOST_WRITES, REQUEST_BYTES, Write};
pub use connect::{ConnectError, ConnectOptions, EndpointError, Password, Store, Tls, User};
pub use entry::{Entry, LeaseId, Listing, StoreRevision};
pub use follow::{Change, FollowError, Follower, Update};
pub use identity::{IdentityError, LAYOUT_VERSION};
pub use in_process::{Cut, Gate, InProcess, InProcessError, Passage};
pub use key::{Control, EventId, Key, KeyError, Prefix, RecordName, RequestId, UnknownPath};
pub use leadership::{LeaderRecord, Leadership, Loss};
pub use machine::Machine;
pub use read::ReadError;
pub use report::{Call, CallListener, CallReport};
pub use scope::{Scope, Section};
pub use sequence::{Draw, SequenceError};
pub use tls::restrict_ciphers;
pub use write::{DECLARATION_BYTES, WriteError};
