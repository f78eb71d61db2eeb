//! `windlass store status`: which store the commands use, and how it is.

use clap::Args;
use windlass_store::{Store, StoreState};

use crate::commands::ClientArgs;
use crate::connection::controller;
use crate::exit::Exit;
use crate::output;
use crate::table::Columns;

/// Show which store is used, and how it is
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass store status")]
pub(crate) struct StatusArgs {}

pub(super) async fn run(client: &ClientArgs) -> anyhow::Result<Exit> {
    let connection = &client.connection;
    let options = connection.options()?;
    let embedded = !connection.names_etcd() && connection.finds_embedded()?;
    let store: Store = connection.connect().await?;
    let StoreState { endpoint, version, revision, bytes } = store.state().await?;
    let access = match (&options.tls, &options.user) {
        (Some(tls), _) if tls.cert_file.is_some() => "by certificate",
        (_, Some(_)) => "by password",
        (Some(_), None) => "encrypted, and open to everybody",
        (None, None) if embedded => "INSECURE: open to everybody on this machine",
        (None, None) => "plain, and open to everybody",
    };
    let leader = match controller(&store).await {
        Some(leader) => format!("process {} on {}", leader.pid, leader.hostname),
        None => "none".to_owned(),
    };
    let kind = if embedded { "embedded".to_owned() } else { format!("etcd {version}") };
    let rows = [
        ("store", kind),
        ("endpoint", endpoint),
        ("access", access.to_owned()),
        ("prefix", options.prefix.to_string()),
        ("revision", revision.0.to_string()),
        ("size", format!("{:.1} MB", bytes as f64 / 1e6)),
        ("controller", leader),
    ];
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    output::data(&Columns::default().render(&rows))?;
    Ok(Exit::Done)
}
