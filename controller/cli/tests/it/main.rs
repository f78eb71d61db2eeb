//! The real binary against a real etcd: what each command prints, where, and how it exits.
//!
//! No controller runs here. What one would write, the tests put into the store themselves.

mod adopt;
mod apply;
mod audit;
mod connection;
mod describe;
mod diff;
mod each;
mod edges;
mod embedded;
mod get;
mod host;
mod plan;
mod removal;
mod roles;
mod rollout;
mod serve;
mod shown;
mod terminal;
mod told;
mod wait;
mod words;
mod world;
