//! A simulation of fleets: the real planner, engine and store, with hosts and a store in memory, in one thread and in
//! virtual time, with everything that can go wrong drawn from a seed.

pub mod chance;
pub mod crashes;
pub mod crew;
pub mod extras;
pub mod history;
pub mod kept;
pub mod oracle;
#[cfg(feature = "planted")]
pub mod planted;
pub mod run;
pub mod seat;
pub mod settle;
pub mod sight;
pub mod story;
pub mod tales;
mod trail;
pub mod twists;
pub mod way;
pub mod world;
