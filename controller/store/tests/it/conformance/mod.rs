//! What etcd documents, as scripts and their answers: on etcd 3.4 and 3.5, and on the embedded store.

mod check;
mod compact;
mod delete;
mod lease;
mod put;
mod range;
mod txn;
mod watch;

pub(crate) use check::{check, check_on};
