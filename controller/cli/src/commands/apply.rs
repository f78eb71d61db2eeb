//! `windlass apply`: declares what files say.

use std::collections::BTreeMap;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use windlass_crds::document::{self, Declaration};
use windlass_crds::id::{Kind, ResourceKey};
use windlass_crds::request::Request;
use windlass_crds::service::Strategy;
use windlass_store::{Entry, Expectation, Key, Store, WriteError};

use super::ClientArgs;
use crate::asking::ask;
use crate::connection::{is_here, warn_without_controller};
use crate::declarations::{self, FileArgs, Intent, Loaded};
use crate::exit::Exit;
use crate::failure::hinted;
use crate::inventory::scope_of;
use crate::output::{self, Label};
use crate::ownership::{self, Ownership};
use crate::telling::{Running, Shown};
use crate::waiting::{Target, WaitArgs};

/// Declare what files say
///
/// Every document is checked before anything is written: one that is wrong stops all of them. What is declared
/// already and says the same is left alone; every Service is looked at again all the same, so that a changed source
/// is deployed now. What `get -o yaml` adds, the status and the generation, is left out.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass apply -f web.yaml
  windlass apply -f production/ -R --wait
  windlass get service/web -o yaml | sed s/v1/v2/ | windlass apply -f -")]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    files: FileArgs,
    /// Check, and say what would be written, without writing it
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
    /// Take over what a ConfigRepo declares: from then on it leaves that alone
    #[arg(long)]
    adopt: bool,
    /// What to print: only the names
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<ApplyFormat>,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ApplyFormat {
    Name,
}

/// What becomes of a declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Created,
    Configured,
    Unchanged,
}

impl Verb {
    fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
        }
    }
}

pub(super) async fn run(args: &ApplyArgs, client: &ClientArgs) -> anyhow::Result<Exit> {
    args.files.require()?;
    let mut documents = declarations::load(&args.files, client.namespace.namespace.as_ref(), Intent::Apply)?;
    let store = client.connection.connect().await?;
    check_paths(&store, &documents, Intent::Apply).await?;
    let mut stored = Vec::new();
    for document in &mut documents {
        let found = store.get(&Key::Declared(document.key())).await?;
        match ownership::of(&store, &document.key(), found.as_ref()).await? {
            Ownership::Repo(repo) if !args.adopt => return Err(repo.conflict(&document.place, Intent::Apply)),
            // What people have taken over stays theirs.
            Ownership::Repo(_) | Ownership::People => document.adopt()?,
            Ownership::Nobody => {}
        }
        stored.push((document.key(), found));
    }
    let mut stored: BTreeMap<ResourceKey, Option<Entry>> = stored.into_iter().collect();
    // What others refer to comes first.
    documents.sort_by_key(|document| Kind::ALL.iter().position(|kind| *kind == document.key().kind()));
    let keys: Vec<ResourceKey> = documents.iter().map(Loaded::key).collect();
    let watch = args.wait.begin(&store, scope_of(&keys)).await?;
    let mut targets = Vec::new();
    for document in &documents {
        warn_of_what_does_not_count(document);
        let key = document.key();
        let (verb, target) = put(&store, document, stored.remove(&key).flatten(), args.dry_run)
            .await
            .with_context(|| format!("cannot apply {key}"))?;
        targets.push(target);
        match (args.output, args.dry_run) {
            (Some(ApplyFormat::Name), _) => output::line(&key)?,
            (None, false) => output::line(format_args!("{key} {}", verb.word()))?,
            (None, true) => output::line(format_args!("{key} {} (dry run)", verb.word()))?,
        }
    }
    if args.dry_run {
        return Ok(Exit::Done);
    }
    warn_without_controller(&store).await;
    if let Some(watch) = watch {
        let running = if args.output.is_some() { Running::quiet() } else { Running::default() };
        watch.until(&targets, &mut Shown::new(running)).await?;
    }
    Ok(Exit::Done)
}

/// Steps of a canary that nobody takes are no mistake, and not what somebody expects who has written them.
fn warn_of_what_does_not_count(document: &Loaded) {
    let Declaration::Service(service) = &document.declaration else { return };
    let rollout = &service.spec.rollout;
    if rollout.canary.is_some() && rollout.strategy != Strategy::Canary {
        let place = &document.place;
        let message = format!("{place}: spec.rollout.canary does not count without `strategy: canary`");
        output::labelled(Label::Warning, message);
    }
}

/// Writes one declaration where it says something new, and asks for a look at its source and hosts.
///
/// What was printed of it would be wrong, had somebody else declared something since `stored` was read.
async fn put(store: &Store, document: &Loaded, stored: Option<Entry>, dry_run: bool) -> anyhow::Result<(Verb, Target)> {
    let key = document.key();
    let same = |stored: &Entry| document::parse_at(&key, &stored.value).as_ref() == Ok(&document.declaration);
    let mut verb = match (&stored, stored.as_ref().is_some_and(same)) {
        (None, _) => Verb::Created,
        (Some(_), true) => Verb::Unchanged,
        (Some(_), false) => Verb::Configured,
    };
    let mut target = Target::declared(key.clone());
    if dry_run {
        return Ok((verb, target));
    }
    if verb != Verb::Unchanged {
        let expect = stored.map_or(Expectation::Absent, |stored| Expectation::At(stored.mod_revision));
        match store.declare_expecting(&key, document.text.clone().into_bytes(), expect).await {
            Ok(revision) => target = target.since(revision),
            // Two that declare the very same have no quarrel.
            Err(WriteError::Conflict { .. })
                if let Some(stored) = store.get(&Key::Declared(key.clone())).await?.filter(same) =>
            {
                verb = Verb::Unchanged;
                target = target.since(stored.mod_revision);
            }
            Err(error) => return Err(error.into()),
        }
    }
    if matches!(key, ResourceKey::Service(_)) {
        target = target.after(ask(store, &key, &Request::Reconcile).await?);
    }
    Ok((verb, target))
}

/// A relative path means a directory of this machine, so the controller must be on it.
///
/// # Errors
/// When it is not, or the store does not answer.
pub(super) async fn check_paths(store: &Store, documents: &[Loaded], intent: Intent) -> anyhow::Result<()> {
    let Some((document, path)) = documents.iter().find_map(|one| Some((one, one.made_absolute.as_ref()?))) else {
        return Ok(());
    };
    let place = &document.place;
    let why = match store.leader().await? {
        Some(leader) if is_here(&leader) => {
            for (document, path) in documents.iter().filter_map(|one| Some((one, one.made_absolute.as_ref()?))) {
                if !path.is_dir() {
                    output::labelled(
                        Label::Warning,
                        format_args!("{}: {} is no directory", document.place, path.display()),
                    );
                }
            }
            return Ok(());
        }
        Some(leader) => format!("the controller runs on {}, as process {}, and not here", leader.hostname, leader.pid),
        None => "no controller runs on this store, so it is not known on which machine it will".to_owned(),
    };
    let error = anyhow::anyhow!("{place}: spec.source.path is relative, and {why}; {}", intent.undone());
    Err(hinted(error, format!("write the directory as the controller sees it; here it is {}", path.display())))
}
