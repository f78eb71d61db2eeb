//! `windlass diff`: what would change.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use serde_json::json;
use windlass_crds::document;
use windlass_crds::fields::{self, FieldChange};
use windlass_crds::id::ResourceKey;
use windlass_engine::{Preview, Question, manifests};
use windlass_hosts::SshFleet;
use windlass_store::{Key, Store};

use super::ClientArgs;
use super::plan::{look, require, within};
use crate::comparison::{Comparison, compare};
use crate::declarations::{self, FileArgs, Intent, Loaded};
use crate::exit::Exit;
use crate::failure::UsageError;
use crate::output;
use crate::resources;
use crate::waiting::TimeoutArgs;

/// Show what would change
///
/// Either what hosts run against what is declared: revisions, files, settings, and what was changed by hand. Or files
/// against what is declared, field by field; comments and defaults that are spelled out make no difference.
///
/// Exits with 0 when there is no difference, with 3 when there is, and with 1 when it cannot be told.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass diff service/web
  windlass diff -f web.yaml
  windlass diff -f production/ -R -o json")]
pub(crate) struct DiffArgs {
    /// Which Services, against their hosts: service/web, or service web api
    #[arg(value_name = "RESOURCE", conflicts_with = "files")]
    resources: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
    /// How to print it
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<DiffFormat>,
    #[command(flatten)]
    timeout: TimeoutArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DiffFormat {
    /// The differences as data
    Json,
}

pub(super) async fn run(args: &DiffArgs, client: &ClientArgs) -> anyhow::Result<Exit> {
    match (args.resources.is_empty(), args.files.files.is_empty()) {
        (true, true) => Err(UsageError("say what: service/NAME, or -f FILE".into()).into()),
        (true, false) => with_files(args, client).await,
        (false, _) => with_hosts(args, client).await,
    }
}

async fn with_hosts(args: &DiffArgs, client: &ClientArgs) -> anyhow::Result<Exit> {
    let services = resources::services(&args.resources, &client.namespace)?;
    let store = client.connection.connect().await?;
    require(&store, &services).await?;
    let fleet = Arc::new(SshFleet::new().context("cannot make a private folder for connections")?);
    let question = Question { services: services.into_iter().collect(), supposed: Vec::new() };
    let looking = async {
        let mut found = Vec::new();
        for Preview { service, foreseen } in look(&store, &fleet, question).await? {
            let key = ResourceKey::Service(service.clone());
            let foreseen = foreseen.with_context(|| format!("{key}: nothing is declared that makes sense"))?;
            let manifests = manifests(fleet.as_ref(), &service, &foreseen).await;
            found.push(compare(&service, &foreseen, &manifests));
        }
        Ok(found)
    };
    let found = within(args.timeout.timeout, looking).await?;
    fleet.close().await;
    match args.output {
        Some(DiffFormat::Json) => output::line(serde_json::to_string_pretty(&found)?)?,
        None => output::data(&found.iter().map(Comparison::to_text).collect::<String>())?,
    }
    if found.iter().any(Comparison::differs) {
        return Ok(Exit::Differences);
    }
    match found.iter().find_map(Comparison::unknown) {
        Some(unknown) => bail!("nothing is known of {unknown}, so it cannot be told whether anything would change"),
        None => Ok(Exit::Done),
    }
}

/// What a document says beside what is declared.
#[derive(Debug)]
enum Against {
    /// Nothing of that name is declared.
    New,
    /// What is declared cannot be read, so that all of it would be replaced.
    Unreadable,
    /// These fields differ.
    Fields(Vec<FieldChange>),
}

async fn with_files(args: &DiffArgs, client: &ClientArgs) -> anyhow::Result<Exit> {
    let documents = declarations::load(&args.files, client.namespace.namespace.as_ref(), Intent::Compare)?;
    let store = client.connection.connect().await?;
    let mut found = Vec::new();
    for document in &documents {
        found.push((document.key(), against_stored(&store, document).await?));
    }
    match args.output {
        Some(DiffFormat::Json) => {
            let all: serde_json::Value = found.iter().map(|(key, against)| as_json(key, against)).collect();
            output::line(serde_json::to_string_pretty(&all)?)?;
        }
        None => output::data(&found.iter().map(|(key, against)| as_text(key, against)).collect::<String>())?,
    }
    let same = found.iter().all(|(_, against)| matches!(against, Against::Fields(fields) if fields.is_empty()));
    Ok(if same { Exit::Done } else { Exit::Differences })
}

async fn against_stored(store: &Store, document: &Loaded) -> anyhow::Result<Against> {
    let key = document.key();
    let Some(stored) = store.get(&Key::Declared(key.clone())).await? else { return Ok(Against::New) };
    Ok(match document::parse_at(&key, &stored.value) {
        Ok(stored) => Against::Fields(fields::changes(&stored.to_json(), &document.declaration.to_json())),
        Err(_) => Against::Unreadable,
    })
}

fn as_text(key: &ResourceKey, against: &Against) -> String {
    match against {
        Against::New => format!("{key}: new\n"),
        Against::Unreadable => format!("{key}: what is declared makes no sense, and would be replaced\n"),
        Against::Fields(fields) if fields.is_empty() => format!("{key}: unchanged\n"),
        Against::Fields(fields) => {
            let lines: String = fields.iter().map(|field| format!("  {field}\n")).collect();
            format!("{key}: changed\n{lines}")
        }
    }
}

fn as_json(key: &ResourceKey, against: &Against) -> serde_json::Value {
    let (difference, fields): (&str, &[FieldChange]) = match against {
        Against::New => ("new", &[]),
        Against::Unreadable => ("unreadable", &[]),
        Against::Fields(fields) if fields.is_empty() => ("unchanged", fields),
        Against::Fields(fields) => ("changed", fields),
    };
    json!({ "resource": key.to_string(), "difference": difference, "fields": fields })
}
