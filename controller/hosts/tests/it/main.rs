//! Hosts over SSH, held to what the engine expects of them, and to what only a real machine can do to them.

mod check;
mod contract;
mod cut_switches;
mod deadman;
mod faults;
mod governor;
mod memory;
mod real;
mod release;
mod sessions;
mod spoiled;
mod tls;
