//! `windlass rollout history`: the revisions that can be gone back to.

use anyhow::{Context as _, anyhow};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use windlass_crds::document::API_VERSION;
use windlass_crds::id::{ResourceKey, RevisionNumber, ServiceKey};
use windlass_crds::record::{BlockCause, Owned, Revision};
use windlass_crds::status::ServiceStatus;
use windlass_store::{Scope, Store};

use super::super::ClientArgs;
use crate::connection::warn_without_controller;
use crate::exit::Exit;
use crate::first_steps;
use crate::inventory::{Inventory, Resource};
use crate::output;
use crate::resources::{self, Selection};
use crate::table::{Columns, cell};

/// Show the revisions of a service
///
/// `current` is the one that hosts are brought to, `declared` the one that the declaration and its source make,
/// `good` those that a rollback may go back to, `blocked` those that are not deployed again by themselves.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass rollout history service/web
  windlass rollout history service/web -o json")]
pub(crate) struct HistoryArgs {
    /// Which: service/web, or service web
    #[arg(value_name = "RESOURCE", required = true)]
    resource: Vec<String>,
    /// How to print it
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<HistoryFormat>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum HistoryFormat {
    /// JSON, with each revision's whole spec
    Json,
}

pub(super) async fn run(args: &HistoryArgs, client: &ClientArgs) -> anyhow::Result<Exit> {
    let service = resources::service(&args.resource, &client.namespace)?;
    let store = client.connection.connect().await?;
    let key = ResourceKey::Service(service.clone());
    let revisions = revisions(&store, &service).await?;
    let inventory = Inventory::read(&store, &Selection::Named(vec![key.clone()])).await?;
    let resource = match inventory.get(&key) {
        Some(resource) => resource.clone(),
        None if revisions.is_empty() => {
            return Err(first_steps::not_there(&store, anyhow!("not found: {key}")).await);
        }
        None => Resource::new(key.clone()),
    };
    let (owned, told) = (resource.owned_record().unwrap_or_default(), resource.service_status());
    let marked: Vec<(&Revision, Marks)> =
        revisions.iter().map(|revision| (revision, Marks::of(revision.number, &owned, &told))).collect();
    match args.output {
        Some(HistoryFormat::Json) => {
            let items: Vec<Value> = marked.iter().map(|(revision, marks)| marks.document(revision)).collect();
            output::line(format_args!(
                "{:#}",
                json!({"apiVersion": API_VERSION, "kind": "RevisionList", "items": items})
            ))?;
        }
        None if marked.is_empty() => {
            output::note(format_args!("{key} has no revision yet"));
            warn_without_controller(&store).await;
        }
        None => {
            let headings = ["REVISION", "CREATED", "RELEASE", "STATE", "SOURCE"].map(str::to_owned).to_vec();
            let rows = marked.iter().map(|(revision, marks)| marks.row(revision));
            let rows: Vec<Vec<String>> = std::iter::once(headings).chain(rows).collect();
            output::data(&Columns::default().render(&rows))?;
        }
    }
    Ok(Exit::Done)
}

/// Every revision of a service that is kept, the oldest first.
pub(super) async fn revisions(store: &Store, service: &ServiceKey) -> anyhow::Result<Vec<Revision>> {
    let listing = store.list(&Scope::revisions(service)).await?;
    let mut revisions = Vec::new();
    for entry in listing.entries {
        let revision = serde_json::from_slice(&entry.value);
        revisions
            .push(revision.with_context(|| format!("{} is not a revision that this version can read", entry.key))?);
    }
    // Keys sort as texts do, 10 before 2.
    revisions.sort_by_key(|revision: &Revision| revision.number);
    Ok(revisions)
}

/// What is to be said of a revision, beside itself.
struct Marks {
    current: bool,
    declared: bool,
    good: bool,
    blocked: Option<BlockCause>,
}

impl Marks {
    fn of(number: RevisionNumber, owned: &Owned, told: &ServiceStatus) -> Self {
        let blocked = owned.blocked.iter().find(|blocked| blocked.revision == number);
        Self {
            current: told.target == Some(number),
            declared: told.revision == Some(number),
            good: owned.good.contains(&number),
            blocked: blocked.map(|blocked| blocked.cause.clone()),
        }
    }

    fn words(&self) -> String {
        let blocked = self.blocked.as_ref().map(|cause| match cause {
            BlockCause::Unhealthy { host, .. } => format!("blocked (unhealthy on {host})"),
            BlockCause::Undone { to } => format!("blocked (undone to {to})"),
            BlockCause::Aborted { .. } => "blocked (aborted)".to_owned(),
        });
        let words = [
            self.current.then(|| "current".to_owned()),
            self.declared.then(|| "declared".to_owned()),
            self.good.then(|| "good".to_owned()),
            blocked,
        ];
        words.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    fn row(&self, revision: &Revision) -> Vec<String> {
        // Seconds are enough to tell revisions apart by.
        let created = revision.created.strftime("%Y-%m-%dT%H:%M:%SZ");
        vec![
            revision.number.to_string(),
            created.to_string(),
            revision.release.short(),
            cell(&self.words()),
            cell(&revision.source.path),
        ]
    }

    fn document(&self, revision: &Revision) -> Value {
        let mut document = json!(revision);
        document["current"] = self.current.into();
        document["declared"] = self.declared.into();
        document["good"] = self.good.into();
        if let Some(cause) = &self.blocked {
            document["blocked"] = json!(cause);
        }
        document
    }
}
