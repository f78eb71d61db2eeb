//! Waiting: by watching, never by asking again, and never for ever.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::anyhow;
use clap::Args;
use tokio::time::{Instant, timeout_at};
use windlass_crds::id::ResourceKey;
use windlass_crds::span::Span;
use windlass_store::{Follower, RequestId, Scope, Store, StoreRevision, Update};

use crate::asking::Asked;
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

impl WaitArgs {
    /// Begins to watch, where that was asked for.
    ///
    /// # Errors
    /// When the store says nothing.
    pub(crate) async fn begin(&self, store: &Store) -> anyhow::Result<Option<Watch>> {
        Ok(if self.wait { Some(Watch::begin(store, self.timeout).await?) } else { None })
    }
}

/// A resource and what is waited for.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    key: ResourceKey,
    goal: Goal,
    /// What the store held before this says nothing about the goal.
    since: StoreRevision,
    requests: BTreeSet<RequestId>,
}

impl Target {
    /// Waits for `goal`.
    pub(crate) fn new(key: ResourceKey, goal: Goal) -> Self {
        Self { key, goal, since: StoreRevision::default(), requests: BTreeSet::new() }
    }

    /// Waits until what is declared runs, and well.
    pub(crate) fn declared(key: ResourceKey) -> Self {
        Self::new(key, Goal::Settled(Ending::Declared))
    }

    /// Believes no status that is older than what was written at this revision.
    pub(crate) fn since(mut self, revision: StoreRevision) -> Self {
        self.since = self.since.max(revision);
        self
    }

    /// Believes no status that is older than this request's end.
    pub(crate) fn after(mut self, asked: Asked) -> Self {
        self.requests.insert(asked.id);
        self.since(asked.at)
    }

    /// What is wanted, now that the store holds `resource`: what it was asked before counts too.
    fn wanted(&self, resource: Option<&Resource>) -> Wanted {
        let mut requests = self.requests.clone();
        requests.extend(resource.into_iter().flat_map(|resource| resource.requests.iter().cloned()));
        let generation = resource.and_then(Resource::generation).unwrap_or_default();
        Wanted { key: self.key.clone(), goal: self.goal, generation, requests }
    }
}

/// Whether something was so when watching began, or has become so since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sight {
    First,
    Later,
}

/// What is told while waiting.
pub(crate) trait Listener {
    /// How a resource is.
    ///
    /// # Errors
    /// When nobody listens any more.
    fn seen(&mut self, resource: &Resource, sight: Sight) -> anyhow::Result<()>;

    /// What was waited for has come.
    ///
    /// # Errors
    /// When nobody listens any more.
    fn met(&mut self, key: &ResourceKey, resource: Option<&Resource>) -> anyhow::Result<()>;
}

/// A watch that has begun. Whoever writes something and then waits begins it before writing, and misses nothing.
pub(crate) struct Watch {
    store: Store,
    follower: Follower,
    inventory: Inventory,
    /// Everything up to here is in the inventory.
    reached: StoreRevision,
    timeout: Span,
    deadline: Instant,
}

impl Watch {
    /// Begins to watch, for `timeout` in all.
    ///
    /// # Errors
    /// When the store says nothing in that time.
    pub(crate) async fn begin(store: &Store, timeout: Span) -> anyhow::Result<Self> {
        let mut watch = Self {
            store: store.clone(),
            follower: store.follow(Scope::sections(&SECTIONS)),
            inventory: Inventory::default(),
            reached: StoreRevision::default(),
            timeout,
            deadline: Instant::now() + timeout.duration(),
        };
        while watch.reached == StoreRevision::default() {
            match watch.next().await {
                Some(update) => drop(watch.take(update)),
                None => return Err(TimedOut(format!("timed out after {timeout}; the store said nothing")).into()),
            }
        }
        Ok(watch)
    }

    /// Waits until every target is met, and tells each as it is.
    ///
    /// # Errors
    /// When one cannot be met any more, with the reason and what is known about it; when the time is over; when
    /// nobody reads what is told.
    pub(crate) async fn until(mut self, targets: &[Target], listener: &mut impl Listener) -> anyhow::Result<()> {
        let concerns = |key: &ResourceKey| targets.iter().any(|target| target.key == *key);
        for target in targets {
            if let Some(resource) = self.inventory.get(&target.key) {
                listener.seen(resource, Sight::First)?;
            }
        }
        let since = targets.iter().map(|target| target.since).max().unwrap_or_default();
        let mut open: Option<Vec<Wanted>> = None;
        loop {
            if self.reached >= since {
                let wanted = open.take().unwrap_or_else(|| {
                    targets.iter().map(|target| target.wanted(self.inventory.get(&target.key))).collect()
                });
                let still = self.unmet(wanted, listener)?;
                if still.is_empty() {
                    return Ok(());
                }
                open = Some(still);
            }
            let Some(update) = self.next().await else {
                return Err(self.out_of_time(open.as_deref().unwrap_or_default()).await);
            };
            // One change after the other, so that nothing is passed over which lasted for a moment only.
            for step in steps(update) {
                for key in self.take(step).iter().filter(|key| concerns(key)) {
                    if let Some(resource) = self.inventory.get(key) {
                        listener.seen(resource, Sight::Later)?;
                    }
                }
            }
        }
    }

    /// Those of `wanted` that may still come.
    fn unmet(&self, wanted: Vec<Wanted>, listener: &mut impl Listener) -> anyhow::Result<Vec<Wanted>> {
        let mut still = Vec::new();
        for one in wanted {
            let resource = self.inventory.get(&one.key);
            match settling::judge(&one, resource) {
                Progress::Met => listener.met(&one.key, resource)?,
                Progress::Waiting(_) => still.push(one),
                Progress::Never(why) => return Err(never(&one, &why, resource)),
            }
        }
        Ok(still)
    }

    /// The next thing that the store tells; nothing when the time is over.
    async fn next(&mut self) -> Option<Update> {
        loop {
            match timeout_at(self.deadline, self.follower.next()).await {
                Err(_) => return None,
                Ok(Update::Interrupted { error }) => {
                    output::labelled(Label::Warning, format_args!("{error}; waiting for the store"));
                }
                Ok(update) => return Some(update),
            }
        }
    }

    /// Takes in what the store tells, and names the resources that it concerns.
    fn take(&mut self, update: Update) -> BTreeSet<ResourceKey> {
        if let Update::Snapshot { revision, .. } | Update::Changes { revision, .. } | Update::Progress { revision } =
            &update
        {
            self.reached = *revision;
        }
        self.inventory.take(update)
    }

    /// That the time is over, and how it stood then.
    async fn out_of_time(&self, open: &[Wanted]) -> anyhow::Error {
        let mut text = format!("timed out after {}", self.timeout);
        for one in open {
            let resource = self.inventory.get(&one.key);
            if let Progress::Waiting(why) = settling::judge(one, resource) {
                text += &format!("\n{} is not {}: {why}{}", one.key, one.goal, details(resource));
            }
        }
        let error = anyhow::Error::new(TimedOut(text));
        match connection::controller(&self.store).await {
            Some(_) => error,
            None => hinted(error, "no controller seems to run on this store: `windlass serve` starts one"),
        }
    }
}

/// An update as one update for each change.
fn steps(update: Update) -> Vec<Update> {
    match update {
        Update::Changes { changes, revision } => {
            changes.into_iter().map(|change| Update::Changes { changes: vec![change], revision }).collect()
        }
        whole => vec![whole],
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
    fn seen(&mut self, resource: &Resource, sight: Sight) -> anyhow::Result<()> {
        let news = self.narrators.entry(resource.key.clone()).or_default().news(resource);
        // How it was before is no answer to what was asked.
        if sight == Sight::Later {
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
