//! The planner's tests: tables of fleets and what is planned for them, and stories driven to their end.

mod brake;
mod canary;
mod configrepo;
mod deadman;
mod drift;
mod faults;
mod hold;
mod machine;
mod moved;
mod notation;
mod pause;
mod picture;
mod plans;
mod property;
mod removal;
mod restart;
mod rollouts;
mod sources;
mod strategies;
mod takeover;
mod verdict;
mod world;
