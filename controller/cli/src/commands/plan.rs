//! `windlass plan`: what the controller would do next.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use windlass_crds::condition::ConditionType;
use windlass_crds::id::{ResourceKey, ServiceKey};
use windlass_crds::span::Span;
use windlass_engine::{Preview, Question, Supposed, preview};
use windlass_hosts::SshFleet;
use windlass_planner::input::HostView;
use windlass_planner::plan::{Plan, RolloutChange, in_words, next};
use windlass_store::Store;

use super::ClientArgs;
use super::apply::check_paths;
use crate::declarations::{self, FileArgs, Intent, Loaded};
use crate::exit::Exit;
use crate::failure::{TimedOut, UsageError};
use crate::first_steps;
use crate::inventory::Inventory;
use crate::output;
use crate::resources::{self, Selection};
use crate::waiting::TimeoutArgs;

/// Show what the controller would do next, without doing it
///
/// Of files it shows what would be done once they were applied: with their Services, and with every other Service that
/// their Hosts and NetworkZones concern. Nothing is written.
///
/// Exits with 0 when there is nothing to do, with 3 when there is, and with 1 when hosts do not let it be told.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass plan service/web
  windlass plan service/web service/api -o json
  windlass plan -f web.yaml")]
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
    let (store, question) = match (args.resources.is_empty(), args.files.files.is_empty()) {
        (true, true) => return Err(UsageError("say what: service/NAME, or -f FILE".into()).into()),
        (true, false) => of_files(args, client).await?,
        (false, _) => of_services(args, client).await?,
    };
    let fleet = Arc::new(SshFleet::new().context("cannot make a private folder for connections")?);
    let previews = within(args.timeout.timeout, look(&store, &fleet, question)).await?;
    fleet.close().await;
    if previews.is_empty() && args.output.is_none() {
        output::note("no service is concerned, so there is nothing to do");
    }
    match args.output {
        Some(PlanFormat::Json) => output::line(serde_json::to_string_pretty(&as_json(&previews))?)?,
        None => output::data(&previews.iter().map(as_text).collect::<String>())?,
    }
    if !previews.iter().all(|preview| preview.plan().is_none_or(Plan::is_idle)) {
        return Ok(Exit::Differences);
    }
    let unseen: BTreeSet<String> = previews.iter().flat_map(unseen).collect();
    match unseen.is_empty() {
        true => Ok(Exit::Done),
        false => bail!(
            "nothing is known of {}, so it cannot be told whether anything would be done there",
            unseen.into_iter().collect::<Vec<_>>().join(", ")
        ),
    }
}

/// The hosts that could not be looked at.
fn unseen(preview: &Preview) -> Vec<String> {
    let hosts = preview.foreseen.iter().flat_map(|foreseen| &foreseen.hosts);
    let unseen = hosts.filter(|(_, host)| matches!(host.view, HostView::Unreachable(_) | HostView::Refusing(_)));
    unseen.map(|(id, _)| id.to_string()).collect()
}

/// Waits for what looks at hosts and sources, for so long at most.
///
/// # Errors
/// When it fails, or takes longer.
pub(super) async fn within<T>(timeout: Span, looking: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let in_time = tokio::time::timeout(timeout.duration(), looking).await;
    in_time
        .unwrap_or_else(|_| Err(TimedOut(format!("timed out after {timeout} of looking at hosts and sources")).into()))
}

/// That each of these Services is declared, or still carried by hosts.
///
/// # Errors
/// When one is not: with what to type next.
pub(super) async fn require(store: &Store, services: &[ServiceKey]) -> anyhow::Result<()> {
    let selection = Selection::Named(services.iter().cloned().map(ResourceKey::Service).collect());
    first_steps::require(store, &Inventory::read(store, &selection).await?, &selection).await?;
    Ok(())
}

/// Looks at Services from here, as the controller does from where it runs.
///
/// # Errors
/// When the store, or this machine's own files, cannot be used.
pub(super) async fn look(store: &Store, fleet: &Arc<SshFleet>, question: Question) -> anyhow::Result<Vec<Preview>> {
    // What is read of sources is of no use to anybody else.
    let files = tempfile::tempdir().context("cannot make a folder for the files of sources")?;
    let machine = std::fs::read_to_string("/etc/machine-id").context("cannot read /etc/machine-id")?;
    let machine = machine.trim().parse().context("/etc/machine-id")?;
    Ok(preview(store, Arc::clone(fleet), files.path(), machine, question).await?)
}

/// What would be done with Services as they are declared.
async fn of_services(args: &PlanArgs, client: &ClientArgs) -> anyhow::Result<(Store, Question)> {
    let services = resources::services(&args.resources, &client.namespace)?;
    let store = client.connection.connect().await?;
    require(&store, &services).await?;
    Ok((store, Question { services: services.into_iter().collect(), supposed: Vec::new() }))
}

/// What would be done once files were applied; what `apply` would refuse is refused here too.
async fn of_files(args: &PlanArgs, client: &ClientArgs) -> anyhow::Result<(Store, Question)> {
    let documents = declarations::load(&args.files, client.namespace.namespace.as_ref(), Intent::Plan)?;
    let store = client.connection.connect().await?;
    check_paths(&store, &documents, Intent::Plan).await?;
    let supposed = |document: Loaded| Supposed { key: document.key(), text: document.text.into_bytes() };
    Ok((store, Question { services: BTreeSet::new(), supposed: documents.into_iter().map(supposed).collect() }))
}

fn change(plan: &Plan) -> Option<String> {
    match &plan.rollout {
        RolloutChange::Keep => None,
        RolloutChange::Open { purpose, revision, .. } => {
            let to = revision.map(|revision| format!(" to revision {revision}")).unwrap_or_default();
            let new = plan.new_revision.as_ref().map(|new| format!(" (new, release {})", new.release.short()));
            Some(format!("begin: {}{to}{}", format!("{purpose:?}").to_lowercase(), new.unwrap_or_default()))
        }
        RolloutChange::Close(state) => Some(format!("end the rollout: {}", format!("{state:?}").to_lowercase())),
    }
}

fn as_text(preview: &Preview) -> String {
    let mut text = format!("{}\n", ResourceKey::Service(preview.service.clone()));
    let Some(plan) = preview.plan() else { return text + "  nothing is declared that makes sense\n" };
    if let Some(line) = change(plan) {
        text += &format!("  {line}\n");
    }
    for (host, row) in &plan.report.hosts {
        let todo = plan.actions.get(host);
        // What is done is told once.
        let told = todo.is_some_and(|todo| row.message == next(todo));
        let why = if row.message.is_empty() || told { String::new() } else { format!(" ({})", row.message) };
        let state = format!("{:?}", row.state).to_lowercase();
        let todo = todo.map_or_else(|| format!("nothing now; {state}"), |todo| in_words(todo));
        text += &format!("  {host}: {todo}{why}\n");
    }
    for finding in plan.report.findings.iter().filter(|finding| finding.kind == ConditionType::Ready) {
        text += &format!("  {} {}: {}\n", finding.kind, finding.reason, finding.message);
    }
    if plan.is_idle() {
        text += "  nothing to do\n";
    }
    text
}

fn as_json(previews: &[Preview]) -> serde_json::Value {
    let one = |preview: &Preview| {
        let plan = preview.plan();
        serde_json::json!({
            "service": preview.service.to_string(),
            "rollout": plan.and_then(change),
            "actions": plan.map(|plan| &plan.actions),
            "hosts": plan.map(|plan| &plan.report.hosts),
        })
    };
    previews.iter().map(one).collect()
}
