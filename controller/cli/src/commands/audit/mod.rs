//! `windlass audit`: who declared and asked what, what came of it, and whether anybody has tampered with that.

mod head;
mod key;
mod list;
mod verify;

use clap::{Args, Subcommand};
use windlass_crds::audit::verify::Place;
use windlass_store::{Entry, Key};

use super::{ClientArgs, on_one_thread};
use crate::exit::Exit;

/// Show who declared and asked what, and what came of it; check that nobody has tampered with that
///
/// Without a command, as `windlass audit list`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  windlass audit --service web --since 2h
  windlass audit list -o jsonl >trail.jsonl
  windlass audit verify"
)]
pub(crate) struct AuditArgs {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: list::Pick,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(list::ListArgs),
    Verify(verify::VerifyArgs),
    Head(head::HeadArgs),
    Key(key::KeyArgs),
}

pub(super) fn run(args: &AuditArgs, client: &ClientArgs) -> anyhow::Result<Exit> {
    match &args.command {
        None => on_one_thread(list::run(&args.list, client)),
        Some(Command::List(args)) => on_one_thread(list::run(&args.pick, client)),
        Some(Command::Verify(args)) => on_one_thread(verify::run(args, client)),
        Some(Command::Head(_)) => on_one_thread(head::run(client)),
        Some(Command::Key(_)) => key::run(client),
    }
}

/// Where an entry of the trail lies.
fn place(entry: &Entry) -> Place {
    match &entry.key {
        Key::Audit(chain, number) => Place::Key(chain.clone(), *number),
        other => Place::Stray(other.to_string().trim_start_matches("audit/").to_owned()),
    }
}
