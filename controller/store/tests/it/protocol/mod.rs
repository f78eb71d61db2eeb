//! etcd's protocol as scripts: what is asked, how it is asked, and what is answered.
//!
//! A script is lines of [`Operation`]s. Its revisions are told from the one at which it began, and its leases by small
//! numbers, so that the same script reads alike on every server and at every time.

mod answer;
mod operation;
mod parse;
mod request;
mod session;
mod told;
mod watching;

pub(crate) use answer::{Answer, End, Event, EventKind, Pair, Revision, Watched};
pub(crate) use operation::{
    At, Compare, CompareTarget, Delete, Get, KeyRange, Lease, Operation, Put, Relation, Txn, Watch, WatchName,
};
pub(crate) use parse::parse;
pub(crate) use session::Session;
