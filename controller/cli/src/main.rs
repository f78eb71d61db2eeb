//! The `windlass` binary: wires the commands, one file each.

mod asking;
mod board;
mod commands;
mod comparison;
mod connection;
mod declarations;
mod description;
mod evidence;
mod exit;
mod failure;
mod first_steps;
mod happenings;
mod inventory;
mod live;
mod narration;
mod outlook;
mod output;
mod ownership;
mod resources;
mod settling;
mod steps;
mod summary;
mod table;
mod telemetry;
mod telling;
mod text;
mod waiting;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let windlass = commands::Windlass::parse();
    match windlass.run() {
        Ok(exit) => exit.into(),
        Err(error) => failure::report(&error).into(),
    }
}
