//! `windlass events`: what happened lately.

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde_json::json;
use windlass_crds::document::API_VERSION;
use windlass_engine::events::Event;
use windlass_store::{Change, Scope, Section, Store, Update};

use super::ClientArgs;
use crate::exit::Exit;
use crate::first_steps;
use crate::happenings::{self, Pick};
use crate::output::{self, Label};
use crate::resources;
use crate::summary::age;
use crate::table::{Columns, cell};
use crate::text::printable;

/// Show what happened lately, the newest last
///
/// The store keeps an event for an hour after it happened last; what happens again is counted, and is one line. In the default namespace unless -n or -A says another; hosts and zones have
/// none, and are always among them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass events
  windlass events service/web -w
  windlass events hosts -o json")]
pub(crate) struct EventsArgs {
    /// About which: service/web; service web api; hosts. All of them unless told
    #[arg(value_name = "RESOURCE")]
    resources: Vec<String>,
    /// In every namespace
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Then follow, and print each one that comes, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
    /// How to print them
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<EventsFormat>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EventsFormat {
    /// JSON; with -w one object a line
    Json,
}

pub(super) async fn run(args: &EventsArgs, client: &ClientArgs) -> anyhow::Result<Exit> {
    let selection = match args.resources.as_slice() {
        [] => None,
        words => Some(resources::selection(words, &client.namespace)?),
    };
    let pick = Pick { selection, namespace: (!args.all_namespaces).then(|| client.namespace.or_default()) };
    let store = client.connection.connect().await?;
    if args.watch {
        return tokio::select! {
            ended = watch(&store, &pick, args.output) => ended,
            // The ordinary end of a watch.
            signal = tokio::signal::ctrl_c() => Ok(signal.map(|()| Exit::Done)?),
        };
    }
    let events: Vec<Event> = happenings::read(&store).await?.into_iter().filter(|event| pick.takes(event)).collect();
    match args.output {
        Some(EventsFormat::Json) => {
            output::line(format_args!(
                "{:#}",
                json!({"apiVersion": API_VERSION, "kind": "EventList", "items": events})
            ))?;
        }
        None if events.is_empty() => {
            output::note("nothing happened within the hour for which events are kept");
            output::labelled(Label::Hint, "`windlass describe` tells how a resource stands now");
            first_steps::tell_if_empty(&store).await?;
        }
        None => output::data(&table(&mut Columns::default(), &events, true))?,
    }
    Ok(Exit::Done)
}

fn headings() -> Vec<String> {
    ["AGE", "REASON", "RESOURCE", "MESSAGE"].map(str::to_owned).to_vec()
}

/// Events as rows, below headings where those are wanted.
fn table(columns: &mut Columns, events: &[Event], headed: bool) -> String {
    let mut rows = if headed { vec![headings()] } else { Vec::new() };
    rows.extend(events.iter().map(|event| row(event, Timestamp::now())));
    columns.render(&rows)
}

/// When it happened last, and how often since when.
fn when(event: &Event, now: Timestamp) -> String {
    let last = age(event.time, now);
    match event.first {
        Some(first) => format!("{last} (x{} over {})", event.count, age(first, now)),
        None => last,
    }
}

fn row(event: &Event, now: Timestamp) -> Vec<String> {
    vec![
        when(event, now),
        event.reason.to_string(),
        cell(&event.regarding),
        cell(&printable(&event.message.replace('\n', "; "))),
    ]
}

/// Prints what there is, then what comes, until nobody reads on.
async fn watch(store: &Store, pick: &Pick, format: Option<EventsFormat>) -> anyhow::Result<Exit> {
    let mut follower = store.follow(Scope::section(Section::Events));
    let mut columns = Columns::default();
    let mut newest = None;
    let mut headed = true;
    loop {
        let mut events = match follower.next().await {
            // After a gap, what was printed before is in it again.
            Update::Snapshot { entries, .. } => {
                let mut events = happenings::in_order(&entries);
                events.retain(|event| newest.is_none_or(|newest| event.time > newest));
                events
            }
            Update::Changes { changes, .. } => {
                let puts = changes.into_iter().filter_map(|change| match change {
                    Change::Put(entry) => Some(entry),
                    Change::Deleted { .. } => None,
                });
                happenings::in_order(&puts.collect::<Vec<_>>())
            }
            Update::Progress { .. } => continue,
            Update::Interrupted { error } => {
                output::labelled(Label::Warning, format_args!("{error}; waiting for the store"));
                continue;
            }
        };
        newest = events.last().map(|event| event.time).max(newest);
        events.retain(|event| pick.takes(event));
        if events.is_empty() {
            continue;
        }
        match format {
            Some(EventsFormat::Json) => {
                for event in &events {
                    output::line(serde_json::to_string(event)?)?;
                }
            }
            None => output::data(&table(&mut columns, &events, headed))?,
        }
        headed = false;
    }
}
