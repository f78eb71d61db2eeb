//! `windlass completion`: what a shell needs to complete what is typed.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::Windlass;
use crate::exit::Exit;
use crate::output;

/// Print a script with which a shell completes commands and options
///
/// It completes what is typed, not the names of resources.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass completion bash > /etc/bash_completion.d/windlass
  windlass completion zsh > \"${fpath[1]}/_windlass\"
  windlass completion fish > ~/.config/fish/completions/windlass.fish
  source <(windlass completion bash)        Only for this shell")]
pub(crate) struct CompletionArgs {
    /// Which shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

pub(super) fn run(args: &CompletionArgs) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Windlass::command(), "windlass", &mut script);
    output::data(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
