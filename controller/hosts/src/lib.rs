//! The only crate that names SSH: observes a host, runs a step there, and keeps the in-memory fleet.

pub mod check;
pub mod fleet;
pub mod keys;
pub mod memory;
pub mod signature;
mod ssh;
pub mod traffic;

pub use ssh::{KEPT, SshFleet};
