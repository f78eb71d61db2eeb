//! `windlass host check`: whether hosts have what Windlass needs, and what to do where they have not.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use futures::StreamExt as _;
use serde_json::{Value, json};
use windlass_crds::document::Declaration;
use windlass_crds::host::Target;
use windlass_crds::id::{Destination, HostId, HostName, Kind, ResourceKey};
use windlass_hosts::SshFleet;
use windlass_hosts::check::{Around, Row, Survey, Verdict, rows};
use windlass_store::Store;

use super::super::ClientArgs;
use super::surroundings::{Surroundings, read_surroundings};
use crate::connection::tell_where_the_controller_is;
use crate::exit::Exit;
use crate::failure::UsageError;
use crate::first_steps;
use crate::output::{self, Label};
use crate::resources::{self, Selection};
use crate::table::Columns;

/// So many hosts are looked at side by side: each is an ssh process here. The fleet bounds those that still connect.
const AT_ONCE: usize = 32;

/// Check whether hosts have what Windlass needs
///
/// Looks from this machine, with the ssh of the user who types this, and changes nothing on the hosts. Each line is one
/// aspect of one host, with what to do about it where it is a warning or a failure.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass host check                           Every host that is declared
  windlass host check web1 web2
  windlass host check host/web1 -o json
  windlass host check --address deploy@198.18.0.11 --key-file ~/.ssh/id_ed25519

Exit code 1 says that something failed; warnings alone are 0.")]
pub(crate) struct CheckArgs {
    /// Which: web1, or host/web1; all that are declared unless told
    #[arg(value_name = "HOST", conflicts_with = "address")]
    hosts: Vec<String>,
    /// A machine that is not declared; its key has to be in known_hosts
    #[arg(long, value_name = "USER@ADDRESS")]
    address: Option<Destination>,
    /// A private key to log in with, for --address
    #[arg(long, value_name = "FILE", requires = "address")]
    key_file: Option<PathBuf>,
    /// How to print it
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<CheckFormat>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CheckFormat {
    /// One JSON document when all are done
    Json,
}

/// A host that was looked at.
struct Checked {
    target: Target,
    survey: Survey,
}

pub(super) async fn run(args: &CheckArgs, client: &ClientArgs) -> anyhow::Result<Exit> {
    let (Declared { targets, broken }, around) = match &args.address {
        Some(destination) => {
            (Declared { targets: vec![undeclared(destination, args)?], broken: 0 }, Surroundings::default())
        }
        None => {
            let store = client.connection.connect().await?;
            let declared = declared(&store, args, client).await?;
            tell_where_the_controller_is(&store).await;
            (declared, read_surroundings(&store).await?)
        }
    };
    if targets.is_empty() && broken == 0 && args.output.is_none() {
        output::note("no hosts are declared");
        output::labelled(Label::Hint, "declare one: `windlass host add NAME --address USER@ADDRESS`");
        return Ok(Exit::Done);
    }
    let fleet = Arc::new(SshFleet::new().context("cannot make a folder for ssh's sockets")?);
    let failed = match args.output {
        None => follow(&fleet, targets, around).await,
        Some(CheckFormat::Json) => collect(&fleet, targets, around).await,
    };
    fleet.close().await;
    let Failed { failed, of } = failed?;
    let (failed, of) = (failed + broken, of + broken);
    if failed == 0 {
        return Ok(Exit::Done);
    }
    anyhow::bail!("{failed} of {of} hosts cannot be used as {}", if failed == 1 { "it is" } else { "they are" });
}

/// How many hosts failed.
struct Failed {
    failed: usize,
    of: usize,
}

/// A machine that is only named here.
fn undeclared(destination: &Destination, args: &CheckArgs) -> anyhow::Result<Target> {
    let mut target = Target::inline(&HostId::Inline(destination.clone())).expect("a destination is inline");
    if let Some(file) = &args.key_file {
        let file = std::path::absolute(file).context("the key file has no absolute path")?;
        target.key_file = Some(file.to_str().context("the key file's path is not UTF-8")?.to_owned());
    }
    Ok(target)
}

/// Hosts to look at.
struct Declared {
    targets: Vec<Target>,
    /// How many declarations tell no way to a host.
    broken: usize,
}

/// The declared hosts that were asked for.
async fn declared(store: &Store, args: &CheckArgs, client: &ClientArgs) -> anyhow::Result<Declared> {
    let all = args.hosts.is_empty();
    let selection = if all {
        Selection::Kinds(vec![Kind::Host])
    } else {
        Selection::Named(names(&args.hosts, client)?.into_iter().map(ResourceKey::Host).collect())
    };
    let inventory = crate::inventory::Inventory::read(store, &selection).await?;
    first_steps::require(store, &inventory, &selection).await?;
    let (mut targets, mut broken) = (Vec::new(), 0);
    for resource in inventory.all().filter(|resource| resource.key.kind() == Kind::Host) {
        let ResourceKey::Host(name) = &resource.key else { continue };
        match resource.declaration() {
            Some(Ok(Declaration::Host(host))) => {
                targets.push(Target::declared(HostId::Named(name.clone()), &host.spec));
            }
            // What waits to be removed has no way to it any more.
            None => {}
            // One that makes no sense does not hide the others.
            Some(_) => {
                output::labelled(Label::Error, format_args!("what is declared of {} cannot be used", resource.key));
                output::labelled(Label::Hint, format_args!("`windlass get {} -o yaml` says why", resource.key));
                broken += 1;
            }
        }
    }
    Ok(Declared { targets, broken })
}

/// Names of Hosts, each with or without its kind.
fn names(words: &[String], client: &ClientArgs) -> Result<Vec<HostName>, UsageError> {
    let words: Vec<String> =
        words.iter().map(|word| if word.contains('/') { word.clone() } else { format!("host/{word}") }).collect();
    let keys = resources::keys(&words, &client.namespace)?;
    let name = |key| match key {
        ResourceKey::Host(name) => Ok(name),
        other => Err(UsageError(format!("{other} is a {}; this command is for Hosts", other.kind()))),
    };
    keys.into_iter().map(name).collect()
}

/// Looks at hosts side by side, and hands each out when it is done.
fn survey(fleet: &Arc<SshFleet>, targets: Vec<Target>) -> impl futures::Stream<Item = Checked> + use<> {
    let fleet = Arc::clone(fleet);
    let look = move |target: Target| {
        let fleet = Arc::clone(&fleet);
        async move { Checked { survey: fleet.survey(&target).await, target } }
    };
    futures::stream::iter(targets).map(look).buffer_unordered(AT_ONCE)
}

/// Prints each host as soon as it is done, so that a dead one holds nobody up.
async fn follow(fleet: &Arc<SshFleet>, targets: Vec<Target>, mut around: Surroundings) -> anyhow::Result<Failed> {
    let of = targets.len();
    let mut columns = Columns::default();
    let widest = targets.iter().map(|target| target.id.to_string()).max_by_key(String::len).unwrap_or_default();
    // The widest cells that there can be, so that what comes later lines up.
    columns.render(&[vec![widest, "forwarding".to_owned(), "warning".to_owned(), String::new()]]);
    let mut lines = vec![["HOST", "CHECK", "RESULT", "DETAIL"].map(str::to_owned).to_vec()];
    let mut checked = std::pin::pin!(survey(fleet, targets));
    let mut failed = 0;
    while let Some(checked) = checked.next().await {
        around.learn(&checked.target.id, &checked.survey);
        let found = judge(&checked, &around);
        failed += usize::from(has_failed(&found));
        lines.extend(cells(&checked.target.id, &found));
        output::data(&columns.render(&std::mem::take(&mut lines)))?;
    }
    Ok(Failed { failed, of })
}

/// Prints all hosts at once, by name.
async fn collect(fleet: &Arc<SshFleet>, targets: Vec<Target>, mut around: Surroundings) -> anyhow::Result<Failed> {
    let of = targets.len();
    let mut all: Vec<Checked> = survey(fleet, targets).collect().await;
    all.sort_by(|left, right| left.target.id.cmp(&right.target.id));
    all.iter().for_each(|checked| around.learn(&checked.target.id, &checked.survey));
    let found: Vec<(&Checked, Vec<Row>)> = all.iter().map(|checked| (checked, judge(checked, &around))).collect();
    let documents: Vec<Value> = found.iter().map(|(checked, rows)| document(&checked.target, rows)).collect();
    output::line(format_args!("{:#}", json!({"hosts": documents})))?;
    Ok(Failed { failed: found.iter().filter(|(_, rows)| has_failed(rows)).count(), of })
}

fn judge(checked: &Checked, around: &Surroundings) -> Vec<Row> {
    let twins = around.twins(&checked.target.id, &checked.survey);
    rows(&checked.target, &checked.survey, &Around { cluster: around.cluster.as_ref(), twins })
}

/// Whether anything keeps a host from being used.
pub(super) fn has_failed(rows: &[Row]) -> bool {
    rows.iter().any(|row| row.verdict == Verdict::Failed)
}

fn document(target: &Target, rows: &[Row]) -> Value {
    let check = |row: &Row| {
        let mut check = json!({"check": row.aspect.to_string(), "result": row.verdict.to_string()});
        if !row.message.is_empty() {
            check["message"] = row.message.clone().into();
        }
        if let Some(remedy) = &row.remedy {
            check["remedy"] = remedy.clone().into();
        }
        check
    };
    json!({
        "host": target.id.to_string(),
        "address": target.address,
        "usable": !has_failed(rows),
        "checks": rows.iter().map(check).collect::<Vec<_>>(),
    })
}

/// A line for each row that says something.
fn cells(id: &HostId, rows: &[Row]) -> Vec<Vec<String>> {
    let line = |aspect: &str, verdict: Verdict, told: &String| {
        vec![id.to_string(), aspect.to_owned(), verdict.to_string(), crate::table::cell(told)]
    };
    let known = rows.iter().filter(|row| row.verdict != Verdict::Unknown);
    let mut lines: Vec<_> = known.map(|row| line(&row.aspect.to_string(), row.verdict, &told(row))).collect();
    if lines.len() < rows.len() {
        lines.push(line("the rest", Verdict::Unknown, &"not looked at".to_owned()));
    }
    lines
}

/// What a row says, and what to do.
pub(super) fn told(row: &Row) -> String {
    match &row.remedy {
        Some(remedy) => format!("{} -> {remedy}", row.message),
        None => row.message.clone(),
    }
}
