//! The planner's tests: tables of fleets and what is planned for them, and stories driven to their end.

mod brake;
mod drift;
mod faults;
mod machine;
mod notation;
mod picture;
mod plans;
mod property;
mod removal;
mod rollouts;
mod sources;
mod takeover;
mod verdict;
mod world;
