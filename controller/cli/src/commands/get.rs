//! `windlass get`: what is declared, and how it stands.

use std::collections::{BTreeMap, BTreeSet};

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde_json::{Value, json};
use windlass_crds::document::API_VERSION;
use windlass_crds::id::{Kind, ResourceKey};
use windlass_store::{Scope, Store, Update};

use super::ClientArgs;
use crate::connection::warn_without_controller;
use crate::exit::Exit;
use crate::failure::UsageError;
use crate::first_steps::{self, Told};
use crate::inventory::{Inventory, Resource, SECTIONS, scope_of};
use crate::output::{self, Label, OutputError};
use crate::resources::{self, Selection};
use crate::summary::{self, Detail};
use crate::table::Columns;

/// Show what is declared, and how it stands
///
/// What is declared and cannot be used is shown too, with the reason; so is what is still being removed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass get                              Everything, in every namespace
  windlass get services
  windlass get svc,hosts -A -o wide
  windlass get service/web -o yaml
  windlass get all -w")]
pub(crate) struct GetArgs {
    /// Which: services; services,hosts; all; service/web; service web api. Everything unless told
    #[arg(value_name = "RESOURCE")]
    resources: Vec<String>,
    /// How to print them
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
    /// In every namespace
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Then follow, and print each one that changes, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table with more columns
    Wide,
    /// JSON; with -w one object a line
    Json,
    /// YAML, one document for each
    Yaml,
    /// Only the names
    Name,
}

pub(super) async fn run(args: &GetArgs, client: &ClientArgs) -> anyhow::Result<Exit> {
    let query = query(args, client)?;
    let store = client.connection.connect().await?;
    if args.watch {
        return tokio::select! {
            ended = watch(&store, query) => ended,
            // The ordinary end of a watch.
            signal = tokio::signal::ctrl_c() => Ok(signal.map(|()| Exit::Done)?),
        };
    }
    let inventory = Inventory::read(&store, &query.selection).await?;
    if query.is_for_people() {
        first_steps::require(&store, &inventory, &query.selection).await?;
    } else {
        inventory.require(&query.selection)?;
    }
    let found: Vec<&Resource> = inventory.all().filter(|resource| query.matches(&resource.key)).collect();
    query.print(&found)?;
    if query.is_for_people() {
        query.say_what_is_missing(&store, &inventory, &found).await;
    }
    query.warn_of_strays(&inventory);
    Ok(Exit::Done)
}

/// What was asked for. Whoever names nothing means everything, wherever it is.
fn query(args: &GetArgs, client: &ClientArgs) -> Result<Query, UsageError> {
    let everything = args.resources.is_empty();
    let words = if everything { &["all".to_owned()] } else { args.resources.as_slice() };
    let anywhere = args.all_namespaces || (everything && client.namespace.namespace.is_none());
    Ok(Query {
        selection: resources::selection(words, &client.namespace)?,
        namespace: (!anywhere).then(|| client.namespace.or_default()),
        format: args.output,
    })
}

/// What is asked for, and how it is shown.
struct Query {
    selection: Selection,
    /// Nothing for all of them.
    namespace: Option<windlass_crds::id::Namespace>,
    format: Option<Format>,
}

impl Query {
    fn matches(&self, key: &ResourceKey) -> bool {
        match &self.selection {
            Selection::Named(keys) => keys.contains(key),
            Selection::Kinds(kinds) => {
                let inside = match (key, &self.namespace) {
                    (ResourceKey::Service(key), Some(namespace)) => key.namespace == *namespace,
                    _ => true,
                };
                kinds.contains(&key.kind()) && inside
            }
        }
    }

    fn detail(&self) -> Detail {
        Detail { wide: self.format == Some(Format::Wide), namespace: self.namespace.is_none(), kind: self.kinds() > 1 }
    }

    fn print(&self, found: &[&Resource]) -> anyhow::Result<()> {
        let one = matches!(&self.selection, Selection::Named(keys) if keys.len() == 1);
        match self.format {
            None | Some(Format::Wide) => Ok(self.print_tables(found)?),
            Some(Format::Name) => {
                Ok(output::data(&found.iter().map(|one| format!("{}\n", one.key)).collect::<String>())?)
            }
            Some(Format::Json) => {
                let mut documents: Vec<Value> = found.iter().map(|one| summary::document(one)).collect();
                let whole = match documents.pop() {
                    Some(only) if one => only,
                    last => {
                        documents.extend(last);
                        json!({"apiVersion": API_VERSION, "kind": "List", "items": documents})
                    }
                };
                Ok(output::line(format_args!("{whole:#}"))?)
            }
            Some(Format::Yaml) => {
                // Documents rather than a List: `apply -f -` takes them back.
                let documents: Result<Vec<String>, _> = found.iter().map(|one| yaml(one)).collect();
                Ok(output::data(&documents?.join("---\n"))?)
            }
        }
    }

    /// How many kinds were asked for.
    fn kinds(&self) -> usize {
        match &self.selection {
            Selection::Kinds(kinds) => kinds.len(),
            Selection::Named(keys) => keys.iter().map(ResourceKey::kind).collect::<BTreeSet<_>>().len(),
        }
    }

    /// A table for each kind, in the order in which the kinds were asked for; below its name, where there are several.
    fn print_tables(&self, found: &[&Resource]) -> Result<(), OutputError> {
        let mut kinds: Vec<Kind> = match &self.selection {
            Selection::Kinds(kinds) => kinds.clone(),
            Selection::Named(keys) => keys.iter().map(ResourceKey::kind).collect(),
        };
        let mut seen = Vec::new();
        kinds.retain(|kind| {
            let fresh = !seen.contains(kind) && found.iter().any(|one| one.key.kind() == *kind);
            seen.push(*kind);
            fresh
        });
        let (detail, now) = (self.detail(), Timestamp::now());
        let tables = kinds.into_iter().map(|kind| {
            let mut rows = vec![summary::headings(kind, detail)];
            let of_kind = found.iter().filter(|one| one.key.kind() == kind);
            rows.extend(of_kind.map(|one| summary::row(one, detail, now)));
            let title = if detail.kind { format!("{kind}s\n") } else { String::new() };
            title + &Columns::default().render(&rows)
        });
        output::data(&tables.collect::<Vec<_>>().join("\n"))
    }

    /// Whether people read it, who may be told what to type next.
    fn is_for_people(&self) -> bool {
        !matches!(self.format, Some(Format::Json | Format::Yaml))
    }

    /// Says what there is nothing of, and what to type next; and where nobody acts on what there is.
    async fn say_what_is_missing(&self, store: &Store, inventory: &Inventory, found: &[&Resource]) {
        match &self.selection {
            Selection::Kinds(kinds) if found.is_empty() => {
                self.say_nothing_found(kinds);
                self.say_what_comes_next(kinds, store, inventory).await;
            }
            _ if found.iter().any(|resource| !resource.is_observed()) => warn_without_controller(store).await,
            _ => {}
        }
    }

    fn say_nothing_found(&self, kinds: &[Kind]) {
        let place = match &self.namespace {
            Some(namespace) if kinds.contains(&Kind::Service) => format!(" in namespace {namespace}"),
            _ => String::new(),
        };
        if kinds.len() == Kind::ALL.len() {
            return output::note(format_args!("nothing found{place}"));
        }
        let names: Vec<&str> = kinds.iter().map(|kind| kind.plural()).collect();
        output::note(format_args!("no {} found{place}", names.join(", ")));
    }

    async fn say_what_comes_next(&self, kinds: &[Kind], store: &Store, inventory: &Inventory) {
        if inventory.all().any(|resource| kinds.contains(&resource.key.kind())) {
            output::labelled(Label::Hint, "-A looks in every namespace");
        } else if first_steps::tell(store, inventory).await == Told::Nothing {
            let command = match kinds {
                [Kind::Host] => "windlass host add NAME --address USER@ADDRESS",
                _ => "windlass apply -f FILE",
            };
            output::labelled(Label::Hint, format_args!("declare one: `{command}`"));
        }
    }

    fn warn_of_strays(&self, inventory: &Inventory) {
        if !matches!(self.selection, Selection::Kinds(_)) {
            return;
        }
        for stray in inventory.strays() {
            output::labelled(Label::Warning, format_args!("{stray} names no resource, so nothing is done with it"));
        }
        if inventory.strays().next().is_some() {
            output::labelled(
                Label::Hint,
                "keys are declared/services/<namespace>/<name>, declared/hosts/<name> and declared/networkzones/<name>",
            );
        }
    }
}

fn yaml(resource: &Resource) -> anyhow::Result<String> {
    let text = serde_saphyr::to_string(&summary::document(resource))?;
    Ok(if text.ends_with('\n') { text } else { text + "\n" })
}

/// Prints what there is, then each resource that changes, until nobody reads on.
async fn watch(store: &Store, query: Query) -> anyhow::Result<Exit> {
    let scope = match &query.selection {
        Selection::Named(keys) => scope_of(keys),
        Selection::Kinds(_) => Scope::sections(&SECTIONS),
    };
    let mut follower = store.follow(scope);
    let mut fresh = true;
    let mut inventory = Inventory::default();
    let mut printed = Printed::default();
    loop {
        let update = follower.next().await;
        if let Update::Interrupted { error } = &update {
            output::labelled(Label::Warning, format_args!("{error}; waiting for the store"));
            continue;
        }
        let first = matches!(update, Update::Snapshot { .. }) && std::mem::take(&mut fresh);
        let changed = inventory.take(update);
        let keys: Vec<&ResourceKey> = changed.iter().filter(|key| query.matches(key)).collect();
        if first && keys.is_empty() && query.is_for_people() {
            query.say_what_is_missing(store, &inventory, &[]).await;
        }
        for key in keys {
            printed.show(&query, key, inventory.get(key).filter(|resource| resource.exists()))?;
        }
    }
}

/// What a watch has printed.
#[derive(Default)]
struct Printed {
    columns: BTreeMap<Kind, Columns>,
    last: BTreeMap<ResourceKey, String>,
}

impl Printed {
    /// Prints a resource unless it would look as it did; one that is gone a last time.
    fn show(&mut self, query: &Query, key: &ResourceKey, resource: Option<&Resource>) -> anyhow::Result<()> {
        let Some(resource) = resource else {
            if self.last.remove(key).is_some() {
                self.say_deleted(query, key)?;
            }
            return Ok(());
        };
        // What only time changes is no news.
        let looks = match query.format {
            None | Some(Format::Wide) => {
                format!("{:?}", summary::row(resource, query.detail(), Timestamp::UNIX_EPOCH))
            }
            Some(Format::Name) => String::new(),
            Some(Format::Json | Format::Yaml) => summary::document(resource).to_string(),
        };
        if self.last.insert(key.clone(), looks.clone()).as_ref() == Some(&looks) {
            return Ok(());
        }
        match query.format {
            None | Some(Format::Wide) => {
                self.print_row(query, key.kind(), |detail, now| summary::row(resource, detail, now))
            }
            Some(Format::Name) => Ok(output::line(key)?),
            Some(Format::Json) => Ok(output::line(summary::document(resource))?),
            Some(Format::Yaml) => Ok(output::data(&format!("---\n{}", yaml(resource)?))?),
        }
    }

    fn say_deleted(&mut self, query: &Query, key: &ResourceKey) -> anyhow::Result<()> {
        match query.format {
            None | Some(Format::Wide) => self.print_row(query, key.kind(), |detail, _| {
                let headings = summary::headings(key.kind(), detail);
                let mut row = summary::row(&Resource::new(key.clone()), detail, Timestamp::UNIX_EPOCH);
                for (heading, cell) in headings.iter().zip(&mut row) {
                    match heading.as_str() {
                        "STATUS" => "Deleted".clone_into(cell),
                        "READY" => "-".clone_into(cell),
                        _ => {}
                    }
                }
                row
            }),
            // A consumer of documents learns it from the last one's status.
            Some(_) => Ok(()),
        }
    }

    fn print_row(
        &mut self,
        query: &Query,
        kind: Kind,
        row: impl FnOnce(Detail, Timestamp) -> Vec<String>,
    ) -> anyhow::Result<()> {
        let detail = query.detail();
        let mut rows = Vec::new();
        let columns = self.columns.entry(kind).or_insert_with(|| {
            rows.push(summary::headings(kind, detail));
            Columns::default()
        });
        rows.push(row(detail, Timestamp::now()));
        Ok(output::data(&columns.render(&rows))?)
    }
}
