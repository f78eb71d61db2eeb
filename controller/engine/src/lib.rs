//! The loop that ties store, hosts, sources and planner together: cache, queue, workers, leadership, reconcilers.
//!
//! **Invariants:** decisions are the planner's, and are recorded before they are acted on; every write to the store
//! holds only while this controller leads; an idle controller writes nothing but its lease.

pub mod audit;
pub mod backoff;
pub mod cache;
pub mod census;
pub mod checkpoint;
pub mod commit;
pub mod complaints;
pub mod configrepo;
pub mod contacts;
pub mod controller;
pub mod events;
pub mod execute;
pub mod goal;
pub mod health;
pub mod host;
pub mod http;
pub mod judge;
pub mod look;
pub mod metrics;
pub mod moving;
pub mod narrate;
pub mod preview;
pub mod queue;
pub mod removals;
pub mod repos;
pub mod requests;
pub mod serve;
pub mod service;
pub mod starts;
pub mod wave;
pub mod webhook;

pub use preview::{Preview, PreviewError, Question, Supposed, manifests, preview};
pub use serve::{ServeError, ServeOptions, Tenant, serve, serve_within};
pub use service::Foreseen;
