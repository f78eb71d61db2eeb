//! The pure planner: what is declared, recorded and observed goes in, a plan comes out.
//!
//! **Invariant:** nothing here is async, does I/O, reads a clock or draws a random number; the same inputs always
//! give the same plan, and planning again on a converged fleet gives nothing to do.

pub mod abort;
pub mod brake;
pub mod canary;
pub mod claim;
pub mod configrepo;
pub mod flap;
pub mod gate;
pub mod hold;
pub mod input;
mod order;
mod pause;
pub mod plan;
pub mod planted;
pub mod position;
pub mod record;
pub mod restart;
mod standing;
pub mod status;
pub mod target;
mod twins;
pub mod verdict;
