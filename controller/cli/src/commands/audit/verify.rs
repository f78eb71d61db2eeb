//! `windlass audit verify`: whether the trail is what the controller wrote.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use windlass_crds::audit::verify::{Against, Place, Report, Verifier};
use windlass_crds::audit::{ExportedHead, PublicKey};
use windlass_crds::id::ClusterId;
use windlass_engine::audit::{KeyError, SigningKey, holds};
use windlass_store::{Control, Key, Scope, Section, Store};

use super::place;
use crate::commands::ClientArgs;
use crate::exit::Exit;
use crate::failure::UsageError;
use crate::output::{self, Label};
use crate::text::printable;

/// No record is longer than what the store takes at once.
const LONGEST_LINE: u64 = windlass_store::REQUEST_BYTES as u64;

/// Check that nobody has removed, changed or added anything in the audit trail
///
/// Every record has to be signed by the controller, and to follow the one before it; no chain may end before what an
/// anchor knows of it. Exits with 1 and tells each finding where something is not as it was written. Which keys are the
/// controllers' is told by --trust, or by the data directory on the controller's machine.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass audit verify
  windlass audit verify --trust audit.pub --head head.json
  windlass audit verify --file trail.jsonl --trust audit.pub")]
pub(crate) struct VerifyArgs {
    /// Check an export, `windlass audit list -o jsonl`, instead of the store
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// A file with the public key of a controller, as `windlass audit key` prints it, one a line; may be repeated
    #[arg(long = "trust", value_name = "FILE")]
    keys: Vec<PathBuf>,
    /// A head that was exported before, with `windlass audit head`: the trail has to reach it
    #[arg(long, value_name = "FILE")]
    head: Option<PathBuf>,
    /// The file is a part of the trail, picked from it: check what is in it, and nothing beyond
    #[arg(long, requires = "file")]
    part: bool,
}

pub(super) async fn run(args: &VerifyArgs, client: &ClientArgs) -> anyhow::Result<Exit> {
    let trusted = trusted(args, client)?;
    let head = args.head.as_deref().map(head).transpose()?;
    if trusted.is_empty() {
        output::labelled(
            Label::Warning,
            "no key is trusted, so only this is checked: that the records fit the keys that they name themselves. Whoever can write the whole store could have made all of them",
        );
        output::labelled(
            Label::Hint,
            "`windlass audit key` prints the key where the controller runs; --trust FILE names it",
        );
    }
    let against = Against { trusted: trusted.clone(), cluster: None, head, part: args.part };
    let verifier = match &args.file {
        Some(file) => {
            let mut verifier = Verifier::new(holds, against);
            read_lines(file, &mut verifier)?;
            verifier
        }
        None => {
            let store = client.connection.connect().await?;
            let mut verifier = Verifier::new(holds, Against { cluster: cluster(&store).await, ..against });
            store
                .each_page(&Scope::section(Section::Audit), |entries| {
                    entries.iter().for_each(|entry| verifier.take(place(entry), &entry.value));
                    anyhow::Ok(())
                })
                .await?;
            verifier
        }
    };
    tell(&verifier.end(), &trusted)
}

/// What the store calls itself, where it says so, and to us. A copy of it, and one that it was moved to, say the same.
async fn cluster(store: &Store) -> Option<ClusterId> {
    let entry = store.get(&Key::Control(Control::ClusterId)).await.ok()??;
    std::str::from_utf8(&entry.value).ok()?.trim().parse().ok()
}

/// The keys that were named; or that of this machine's controller, where there is one and we may read it.
fn trusted(args: &VerifyArgs, client: &ClientArgs) -> anyhow::Result<BTreeSet<PublicKey>> {
    let mut trusted = BTreeSet::new();
    for file in &args.keys {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        for line in lines {
            let wrong = |error| UsageError(format!("{}: {error}", file.display()));
            trusted.insert(line.parse::<PublicKey>().map_err(wrong)?);
        }
    }
    if args.keys.is_empty()
        && let Ok(data_dir) = client.connection.data_dir()
    {
        match SigningKey::found(&data_dir) {
            Ok(key) => trusted.extend(key.map(|key| key.public())),
            Err(error @ KeyError::Damaged(_)) => output::labelled(Label::Warning, error),
            // Who may not look into it is told below that no key is known.
            Err(KeyError::File { .. } | KeyError::Making) => {}
        }
    }
    Ok(trusted)
}

fn head(file: &Path) -> anyhow::Result<ExportedHead> {
    let stored = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    ExportedHead::of(&stored).with_context(|| format!("{} is no exported head", file.display()))
}

fn read_lines(file: &Path, verifier: &mut Verifier<'_>) -> anyhow::Result<()> {
    let what = || format!("cannot read {}", file.display());
    let mut reader = BufReader::new(File::open(file).with_context(what)?);
    let mut line = Vec::new();
    for number in 1_usize.. {
        line.clear();
        let read = reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line).with_context(what)?;
        if read == 0 {
            break;
        }
        verifier.take(Place::Line(number), line.strip_suffix(b"\n").unwrap_or(&line));
    }
    Ok(())
}

/// Tells what was found.
fn tell(report: &Report, trusted: &BTreeSet<PublicKey>) -> anyhow::Result<Exit> {
    for finding in &report.findings {
        output::line(printable(&finding.to_string()))?;
    }
    if report.more > 0 {
        output::line(format_args!("and {} findings more", report.more))?;
    }
    if !report.is_whole() {
        anyhow::bail!("the audit trail is not as it was written: {} findings", report.findings.len() + report.more);
    }
    if report.records == 0 {
        output::note("there is no audit trail yet: the controller writes it with what it does");
        return Ok(Exit::Done);
    }
    let last = match report.last {
        Some((number, at)) => format!(", up to anchor {number} of {}", at.strftime("%Y-%m-%dT%H:%M:%SZ")),
        None => String::new(),
    };
    output::line(format_args!("whole: {} records in {} chains{last}", report.records, report.chains))?;
    for (key, count) in &report.keys {
        let trust = if trusted.contains(key) { "" } else { " (not known to be a controller's)" };
        output::note(format_args!("{count} records are signed by the key {}{trust}", key.short()));
    }
    if report.unanchored > 0 {
        output::note(format_args!(
            "{} records are not anchored yet: the controller does so within seconds; until then, their removal would not be seen",
            report.unanchored
        ));
    }
    Ok(Exit::Done)
}
