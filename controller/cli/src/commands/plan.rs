//! `windlass plan`: what the controller would do next.

use anyhow::bail;
use clap::{Args, ValueEnum};

use super::ClientArgs;
use crate::declarations::{self, FileArgs, Loaded};
use crate::exit::Exit;
use crate::failure::UsageError;
use crate::resources;
use crate::waiting::TimeoutArgs;

/// Show what the controller would do next, without doing it
///
/// Exits with 0 when there is nothing to do, and with 3 when there is.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass plan service/web
  windlass plan -f web.yaml                 As if it had been applied")]
pub(crate) struct PlanArgs {
    /// Which: service/web, or service web api
    #[arg(value_name = "RESOURCE", conflicts_with = "files")]
    resources: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
    /// How to print it
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<PlanFormat>,
    #[command(flatten)]
    timeout: TimeoutArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PlanFormat {
    /// The plan as data
    Json,
}

pub(super) async fn run(args: &PlanArgs, client: &ClientArgs) -> anyhow::Result<Exit> {
    let keys = match (args.resources.as_slice(), args.files.files.as_slice()) {
        ([], []) => return Err(UsageError("say what: service/NAME, or -f FILE".into()).into()),
        ([], _) => {
            let documents = declarations::load(&args.files, client.namespace.namespace.as_ref())?;
            documents.iter().map(Loaded::key).collect()
        }
        (words, _) => resources::keys(words, &client.namespace)?,
    };
    client.connection.connect().await?;
    let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
    let format = args.output.map_or("text", |PlanFormat::Json| "JSON");
    let timeout = args.timeout.timeout;
    bail!("the planner is not wired yet: it would plan {} within {timeout}, as {format}", keys.join(", "))
}
