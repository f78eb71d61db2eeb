//! `windlass host add`: declares a machine, once a person knows its key and it is seen to be usable.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::num::NonZeroU16;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use windlass_crds::document::{self, Declaration};
use windlass_crds::host::{HostKey, Target};
use windlass_crds::id::{Destination, HostId, HostName, ResourceKey};
use windlass_hosts::SshFleet;
use windlass_hosts::check::{Around, Row, Verdict, rows};
use windlass_hosts::keys::{self, Known, ShownKey};
use windlass_store::{Expectation, Key, Store};

use super::super::ClientArgs;
use super::check::{has_failed, told};
use super::draft::{Draft, differences};
use super::surroundings::read_surroundings;
use crate::connection::{tell_where_the_controller_is, warn_without_controller};
use crate::exit::Exit;
use crate::failure::{UsageError, hinted};
use crate::output::{self, Label};
use crate::table::Columns;

/// Declare a machine, once you know its key and it is seen to be usable
///
/// Shows the fingerprint of the key that answers and asks whether it is the machine's own, then logs in once, looks at
/// everything that `windlass host check` looks at, and declares the Host with that key pinned.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass host add web1 --address deploy@198.18.0.11
  windlass host add web1 --address deploy@198.18.0.11 --label role=web --fingerprint SHA256:LqH…
  windlass host add web1 --address deploy@198.18.0.11 --print >web1.yaml")]
pub(crate) struct AddArgs {
    /// What to call it: a DNS label
    #[arg(value_name = "NAME")]
    host: HostName,
    /// The login, and a name or an IP address as the controller's machine reaches it; :PORT where it is not 22
    #[arg(long, value_name = "USER@ADDRESS")]
    address: Destination,
    /// The port of sshd
    #[arg(long, value_name = "PORT")]
    port: Option<NonZeroU16>,
    /// A private key on the controller's machine; the agent's keys unless told
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// A label for selectors; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
    /// Where Windlass keeps its files there
    #[arg(long, value_name = "DIR")]
    remote_dir: Option<String>,
    /// What the login may do; found out unless told
    #[arg(long, value_name = "PRIVILEGE")]
    privilege: Option<PrivilegeWord>,
    /// The fingerprint that the machine's key must have, instead of a question: SHA256:…
    #[arg(long, value_name = "FINGERPRINT")]
    fingerprint: Option<String>,
    /// Declare it anew where a Host of this name says something else
    #[arg(long)]
    replace: bool,
    /// Print the declaration, and write nothing
    #[arg(long)]
    print: bool,
    /// The same as --print
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<AddFormat>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AddFormat {
    Yaml,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PrivilegeWord {
    /// It is root
    Root,
    /// It may run anything with sudo, without a password
    Sudo,
    /// It is nobody special
    User,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a label is KEY=VALUE".to_owned()),
    }
}

pub(super) async fn run(args: &AddArgs, client: &ClientArgs) -> anyhow::Result<Exit> {
    if client.connection.names_user_without_password() {
        let error = UsageError("--user is the user's name in etcd".into());
        return Err(hinted(error, "the login goes before the address: --address USER@ADDRESS"));
    }
    may_ask(args)?;
    let draft = draft(args)?;
    // What makes no sense is told before anybody is asked anything.
    let target = target(&args.host, &draft.declaration()?.1);
    let prints = args.print || args.output.is_some();
    let store = if prints { None } else { Some(client.connection.connect().await?) };
    let shown = keys::show(&target.address, target.port)
        .await
        .with_context(|| format!("{} port {} does not show its key", target.address, target.port))?;
    let known = known_key(&target, &shown).await?;
    // One that is known already is the one to pin: of another that stands beside it nothing is known.
    let key = match &known {
        Some((_, known)) => shown.iter().find(|one| one.key == *known),
        None => shown.first(),
    };
    let key = key.context("a host without a key")?;
    introduce(&target, key);
    if let Some((file, _)) = &known {
        output::note(format_args!("It is the one in {}.", file.display()));
    }
    confirm(args, key)?;

    let (text, declaration) = draft.pinning(&key.key).declaration()?;
    let target = self::target(&args.host, &declaration);
    let found = look(&target, store.as_ref()).await?;
    if prints {
        if has_failed(&found) {
            output::labelled(Label::Warning, format_args!("{} cannot be used as it is", args.host));
        }
        output::data(&text)?;
        return Ok(Exit::Done);
    }
    if has_failed(&found) {
        let error = anyhow::anyhow!("{} cannot be used as it is; nothing was written", args.host);
        let hint = "put it right and type this again; or declare it all the same: --print gives what `windlass apply -f -` takes";
        return Err(hinted(error, hint));
    }
    let store = store.context("a store is there unless the declaration is only printed")?;
    declare(&store, args, &text, &declaration).await
}

/// Without a terminal nobody can be asked, so the fingerprint must have been given.
fn may_ask(args: &AddArgs) -> anyhow::Result<()> {
    match &args.fingerprint {
        Some(fingerprint) if !fingerprint.starts_with("SHA256:") => {
            let error = UsageError(format!("{fingerprint:?} is not a fingerprint such as SHA256:LqH…"));
            Err(hinted(error, "on the machine itself: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub"))
        }
        None if !std::io::stdin().is_terminal() => {
            let error = UsageError("nobody can be asked whether the key is right: there is no terminal".into());
            let hint =
                "say --fingerprint SHA256:…; on the machine itself: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub";
            Err(hinted(error, hint))
        }
        _ => Ok(()),
    }
}

fn draft(args: &AddArgs) -> anyhow::Result<Draft> {
    let key_file = match &args.key_file {
        None => None,
        Some(file) if file.starts_with("~") => Some(file.clone()),
        Some(file) => Some(std::path::absolute(file).context("the key file has no absolute path")?),
    };
    Ok(Draft {
        name: args.host.clone(),
        labels: args.label.iter().cloned().collect::<BTreeMap<_, _>>(),
        address: args.address.address.clone(),
        port: args.port.or(args.address.port),
        user: args.address.user.clone(),
        key_file,
        remote_dir: args.remote_dir.clone(),
        privilege: args.privilege.map(|privilege| match privilege {
            PrivilegeWord::Root => "root",
            PrivilegeWord::Sudo => "sudo",
            PrivilegeWord::User => "user",
        }),
        host_key: None,
    })
}

fn target(name: &HostName, declaration: &Declaration) -> Target {
    match declaration {
        Declaration::Host(host) => Target::declared(HostId::Named(name.clone()), &host.spec),
        other => unreachable!("a draft declares a Host, not {}", other.key()),
    }
}

/// Shows the key, and how to compare it.
fn introduce(target: &Target, key: &ShownKey) {
    output::note(format_args!("{} port {} shows this key:", target.address, target.port));
    output::note(format_args!("  {} {}", key.kind, key.fingerprint));
    output::note("To compare, on the machine itself (its console, or a connection that you trust):");
    output::note(format_args!("  ssh-keygen -lf {}", key.file()));
}

/// The key that ssh knows already, and where it is written. Where ssh knows another, none is to be trusted by a word.
async fn known_key(target: &Target, shown: &[ShownKey]) -> anyhow::Result<Option<(PathBuf, HostKey)>> {
    match keys::known(&target.address, target.port, shown).await? {
        Known::No => Ok(None),
        Known::Same { file, key } => Ok(Some((file, key))),
        Known::Another { file } => {
            let error = anyhow::anyhow!(
                "ANOTHER KEY of {} is in {}: this is another machine, or somebody is in between; nothing was written",
                target.address,
                file.display()
            );
            let name = match target.port.get() {
                22 => target.address.clone(),
                port => format!("[{}]:{port}", target.address),
            };
            Err(hinted(
                error,
                format!("where the machine was really set up anew: ssh-keygen -f {} -R '{name}'", file.display()),
            ))
        }
    }
}

/// Whether it is the machine's key, by the fingerprint that was given or by what a person says.
fn confirm(args: &AddArgs, key: &ShownKey) -> anyhow::Result<()> {
    if let Some(expected) = &args.fingerprint {
        if *expected == key.fingerprint {
            return Ok(());
        }
        let error = anyhow::anyhow!("the key is not the one with the fingerprint {expected}; nothing was written");
        return Err(hinted(error, format!("on the machine itself: ssh-keygen -lf {}", key.file())));
    }
    output::prompt("Is it the machine's key? Type yes, or its fingerprint: ");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).context("cannot read an answer")?;
    let answer = line.trim();
    if answer == "yes" || answer == key.fingerprint {
        return Ok(());
    }
    bail!("not confirmed; nothing was written")
}

/// Logs in once, and tells what is not as it should be.
async fn look(target: &Target, store: Option<&Store>) -> anyhow::Result<Vec<Row>> {
    let fleet = SshFleet::new().context("cannot make a folder for ssh's sockets")?;
    let survey = fleet.survey(target).await;
    fleet.close().await;
    let around = match store {
        Some(store) => read_surroundings(store).await?,
        None => super::surroundings::Surroundings::default(),
    };
    let twins = around.twins(&target.id, &survey);
    let found = rows(target, &survey, &Around { cluster: around.cluster.as_ref(), twins });
    let line = |row: &Row| vec![format!("  {}", row.aspect), row.verdict.to_string(), crate::table::cell(&told(row))];
    let known = found.iter().filter(|row| row.verdict != Verdict::Unknown);
    let shown: Vec<Vec<String>> = known.map(line).collect();
    let well = found.iter().all(|row| row.verdict == Verdict::Ok);
    output::note(if well { "Looked at it from here:" } else { "Looked at it from here; -> says what to do:" });
    output::note(Columns::default().render(&shown).trim_end());
    Ok(found)
}

/// Writes what is new, and says what becomes different.
async fn declare(store: &Store, args: &AddArgs, text: &str, declaration: &Declaration) -> anyhow::Result<Exit> {
    let key = ResourceKey::Host(args.host.clone());
    let stored = store.get(&Key::Declared(key.clone())).await?;
    let expect = stored.as_ref().map_or(Expectation::Absent, |stored| Expectation::At(stored.mod_revision));
    let word = match stored.map(|stored| document::parse_at(&key, &stored.value)) {
        None => "created",
        Some(Ok(before)) if before == *declaration => {
            output::line(format_args!("{key} unchanged"))?;
            return Ok(Exit::Done);
        }
        Some(before) => {
            let before = before.ok().map(|before| before.to_json());
            output::note(format_args!("{key} is declared, and would become different:"));
            for difference in differences(before.as_ref(), &declaration.to_json()) {
                output::note(format_args!("  {difference}"));
            }
            if !args.replace {
                let error = anyhow::anyhow!("{key} is declared already; nothing was written");
                return Err(hinted(error, "--replace declares it anew"));
            }
            "replaced"
        }
    };
    let written = store.declare_expecting(&key, text.as_bytes().to_vec(), expect).await;
    written.with_context(|| format!("cannot declare {key}"))?;
    output::line(format_args!("{key} {word}"))?;
    tell_where_the_controller_is(store).await;
    warn_without_controller(store).await;
    let placement = match args.label.first() {
        Some((key, value)) => format!("placement: {{selector: {{{key}: {value}}}}}"),
        None => format!("placement: {{hosts: [{}]}}", args.host),
    };
    output::labelled(
        Label::Hint,
        format_args!("a Service runs there with `{placement}`; `windlass get hosts` tells how it stands"),
    );
    Ok(Exit::Done)
}
