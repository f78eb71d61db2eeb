//! End-to-end tests: the real binary, a real etcd and throwaway hosts.
//!
//! A test makes a [`World`], starts one or more controllers in it, declares things as users do, and
//! looks at what hosts answer and what the store says. Everything here blocks. A test that passes
//! ends with [`World::passed`]; one that does not gets told what the controllers logged and what
//! the store held.

mod collector;
mod command;
mod connections;
mod controller;
mod declare;
mod etcd_fields;
mod gate;
mod git_server;
mod http;
mod prober;
mod program;
mod repository;
mod status;
mod wait;
mod world;

pub use collector::{Collector, Span};
pub use command::{Ran, USER_OF_HOME, binary};
pub use connections::Connection;
pub use controller::{Controller, Serve};
pub use declare::{Broken, Declaration, broken_values, host, service, zone};
pub use gate::Gate;
pub use git_server::GitServer;
pub use http::{Answer, get, post};
pub use prober::{Answers, Prober};
pub use program::Program;
pub use repository::{Repository, config_repo};
pub use status::{Condition, HostRow, Status};
pub use wait::{PATIENCE, eventually, holds, within};
pub use world::{World, WorldOptions};
