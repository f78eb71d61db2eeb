//! Declarations, identifiers, records and their validation: data that every crate of Windlass speaks.
//!
//! **Invariant:** nothing here is async, does I/O, reads a clock or draws a random number.

pub mod actor;
pub mod approval;
pub mod audit;
pub mod condition;
pub mod configrepo;
pub mod digest;
pub mod document;
pub mod fields;
pub mod host;
pub mod id;
pub mod manifest;
pub mod observation;
pub mod policy;
pub mod problem;
pub mod record;
pub mod request;
#[cfg(test)]
mod schema;
pub mod security;
pub mod service;
pub mod span;
pub mod status;
pub mod step;
pub mod zone;
