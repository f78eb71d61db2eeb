//! Waiting: by watching, never by asking again, and never for ever.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::anyhow;
use clap::Args;
use tokio::time::{Instant, timeout_at};
use windlass_crds::id::{Generation, ResourceKey};
use windlass_crds::span::Span;
use windlass_store::{RequestId, Scope, Store, Update};

use crate::connection;
use crate::failure::{TimedOut, hinted};
use crate::inventory::{Inventory, Resource, SECTIONS};
use crate::narration::Narrator;
use crate::output::{self, Label};
use crate::settling::{self, Ending, Goal, Progress, Wanted, Why};

/// How long to wait unless told otherwise: the default `progressDeadline`, after which a rollout counts as stuck.
pub(crate) const PATIENCE: &str = "10m";

/// How long to wait.
#[derive(Debug, Clone, Args)]
pub(crate) struct TimeoutArgs {
    /// How long to wait at most, such as 30s or 5m; exits with 4 then
    #[arg(long, value_name = "DURATION", default_value = PATIENCE)]
    pub(crate) timeout: Span,
}

/// Whether to wait, and how long.
#[derive(Debug, Clone, Args)]
pub(crate) struct WaitArgs {
    /// Wait until it is done, and well; exits with 1 when it does not get there
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait at most, such as 30s or 5m; exits with 4 then
    #[arg(long, value_name = "DURATION", default_value = PATIENCE, requires = "wait")]
    pub(crate) timeout: Span,
}

/// A resource and what is waited for. What the store holds when waiting begins counts as asked before it.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    key: ResourceKey,
    goal: Goal,
    generation: Generation,
    requests: BTreeSet<RequestId>,
}

impl Target {
    /// Waits for `goal`.
    pub(crate) fn new(key: ResourceKey, goal: Goal) -> Self {
        Self { key, goal, generation: Generation::default(), requests: BTreeSet::new() }
    }

    /// Waits until what is declared runs, and well.
    pub(crate) fn declared(key: ResourceKey) -> Self {
        Self::new(key, Goal::Settled(Ending::Declared))
    }

    /// Believes no status that is older than this request's end.
    pub(crate) fn after(mut self, request: RequestId) -> Self {
        self.requests.insert(request);
        self
    }

    /// Believes no status of an older generation.
    pub(crate) fn since(mut self, generation: Generation) -> Self {
        self.generation = generation;
        self
    }

    /// What is wanted, as of the moment at which the store held `resource`.
    fn wanted(&self, resource: Option<&Resource>) -> Wanted {
        let mut requests = self.requests.clone();
        requests.extend(resource.into_iter().flat_map(|resource| resource.requests.iter().cloned()));
        let declared = resource.and_then(Resource::generation).unwrap_or_default();
        Wanted { key: self.key.clone(), goal: self.goal, generation: self.generation.max(declared), requests }
    }
}

/// What is told while waiting.
pub(crate) trait Listener {
    /// Something about a resource changed.
    ///
    /// # Errors
    /// When nobody listens any more.
    fn changed(&mut self, resource: &Resource) -> anyhow::Result<()>;

    /// What was waited for has come.
    ///
    /// # Errors
    /// When nobody listens any more.
    fn met(&mut self, key: &ResourceKey, resource: Option<&Resource>) -> anyhow::Result<()>;
}

/// Waits until every target is met, and tells each as it is.
///
/// # Errors
/// When one cannot be met any more, with the reason and what is known about it; when the time is over; when nobody
/// reads what is told.
pub(crate) async fn wait(
    store: &Store,
    targets: &[Target],
    timeout: Span,
    listener: &mut impl Listener,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + timeout.duration();
    let mut follower = store.follow(Scope::sections(&SECTIONS));
    let mut inventory = Inventory::default();
    let mut open: Option<Vec<Wanted>> = None;
    loop {
        let Ok(update) = timeout_at(deadline, follower.next()).await else {
            return Err(out_of_time(store, timeout, open.as_deref(), &inventory, targets).await);
        };
        if let Update::Interrupted { error } = &update {
            output::labelled(Label::Warning, format_args!("{error}; waiting for the store"));
            continue;
        }
        let changed = inventory.take(update);
        let wanted = open
            .get_or_insert_with(|| targets.iter().map(|target| target.wanted(inventory.get(&target.key))).collect());
        for resource in wanted.iter().filter(|one| changed.contains(&one.key)).filter_map(|one| inventory.get(&one.key))
        {
            listener.changed(resource)?;
        }
        let mut still = Vec::new();
        for one in wanted.drain(..) {
            let resource = inventory.get(&one.key);
            match settling::judge(&one, resource) {
                Progress::Met => listener.met(&one.key, resource)?,
                Progress::Waiting(_) => still.push(one),
                Progress::Never(why) => return Err(never(&one, &why, resource)),
            }
        }
        if still.is_empty() {
            return Ok(());
        }
        *wanted = still;
    }
}

/// Why it cannot be met any more, with what is known about it.
fn never(wanted: &Wanted, why: &Why, resource: Option<&Resource>) -> anyhow::Error {
    let error = match why {
        Why::NotDeclared => anyhow!("{} is not declared", wanted.key),
        _ => anyhow!("{} is not {}: {why}{}", wanted.key, wanted.goal, details(resource)),
    };
    match why.hint(&wanted.key) {
        Some(hint) => hinted(error, hint),
        None => error,
    }
}

/// That the time is over, and how it stood then.
async fn out_of_time(
    store: &Store,
    timeout: Span,
    open: Option<&[Wanted]>,
    inventory: &Inventory,
    targets: &[Target],
) -> anyhow::Error {
    let mut text = format!("timed out after {timeout}");
    for one in open.unwrap_or_default() {
        let resource = inventory.get(&one.key);
        if let Progress::Waiting(why) = settling::judge(one, resource) {
            text += &format!("\n{} is not {}: {why}{}", one.key, one.goal, details(resource));
        }
    }
    if open.is_none() {
        let keys: Vec<String> = targets.iter().map(|target| target.key.to_string()).collect();
        text += &format!("; the store said nothing about {}", keys.join(", "));
    }
    let error = anyhow::Error::new(TimedOut(text));
    match connection::controller(store).await {
        Some(_) => error,
        None => hinted(error, "no controller seems to run on this store: `windlass serve` starts one"),
    }
}

fn details(resource: Option<&Resource>) -> String {
    let Some(resource @ Resource { key: ResourceKey::Service(_), .. }) = resource else { return String::new() };
    settling::evidence(&resource.service_status()).iter().map(|line| format!("\n  {line}")).collect()
}

/// Tells on stderr what happens to each host, and on stdout what is done.
#[derive(Debug, Default)]
pub(crate) struct Running {
    narrators: BTreeMap<ResourceKey, Narrator>,
    quiet: bool,
}

impl Running {
    /// Nothing on stdout: `-o name` has said all that programs want.
    pub(crate) fn quiet() -> Self {
        Self { quiet: true, ..Self::default() }
    }
}

impl Listener for Running {
    fn changed(&mut self, resource: &Resource) -> anyhow::Result<()> {
        if matches!(resource.key, ResourceKey::Service(_)) && resource.is_observed() {
            let news = self.narrators.entry(resource.key.clone()).or_default().news(resource);
            news.into_iter().for_each(output::note);
        }
        Ok(())
    }

    fn met(&mut self, key: &ResourceKey, resource: Option<&Resource>) -> anyhow::Result<()> {
        let text = match resource {
            Some(resource) if resource.declared.is_some() => format!("{key} {}", ending(resource)),
            _ => format!("{key} gone"),
        };
        if self.quiet {
            output::note(text);
            return Ok(());
        }
        Ok(output::line(text)?)
    }
}

/// `ready: revision 3 runs on 3 of 3 hosts`.
pub(crate) fn ending(resource: &Resource) -> String {
    use windlass_crds::condition::ConditionType::Ready;
    let told = resource.any_status();
    match windlass_crds::status::condition(&told.conditions, Ready) {
        Some(ready) if ready.reason == windlass_crds::condition::Reason::Undone => format!("undone: {}", ready.message),
        Some(ready) if ready.message.is_empty() => "ready".to_owned(),
        Some(ready) => format!("ready: {}", ready.message),
        None => "ready".to_owned(),
    }
}
