//! Waiting: by watching, never by asking again, and never for ever.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, timeout_at};
use windlass_crds::id::ResourceKey;
use windlass_crds::span::Span;
use windlass_store::{FollowError, Follower, RequestId, Scope, Store, StoreRevision, Update};

use crate::asking::Asked;
use crate::connection;
use crate::evidence::evidence;
use crate::failure::{Interrupted, TimedOut, hinted};
use crate::first_steps;
use crate::inventory::{Inventory, Resource};
use crate::outlook;
use crate::output::{self, Label};
use crate::settling::{self, Ending, Goal, Progress, Wanted, Why};

/// How long to wait unless told otherwise: the default `progressDeadline`, after which a rollout counts as stuck.
pub(crate) const PATIENCE: &str = "10m";

/// How often time is told: what is shown counts seconds.
const TICK: Duration = Duration::from_secs(1);

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
    pub(crate) async fn begin(&self, store: &Store, scope: Scope) -> anyhow::Result<Option<Watch>> {
        Ok(if self.wait { Some(Watch::begin(store, self.timeout, scope).await?) } else { None })
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
        Wanted { key: self.key.clone(), goal: self.goal, generation, requests, own: self.requests.clone() }
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

    /// Time goes by, about every second.
    fn tick(&mut self) {}

    /// The store does not answer at present.
    fn interrupted(&mut self, error: &FollowError) {
        output::labelled(Label::Warning, format_args!("{error}; waiting for the store"));
    }
}

/// Nobody is told anything but that the store does not answer.
struct Silent;

impl Listener for Silent {
    fn seen(&mut self, _: &Resource, _: Sight) -> anyhow::Result<()> {
        Ok(())
    }

    fn met(&mut self, _: &ResourceKey, _: Option<&Resource>) -> anyhow::Result<()> {
        Ok(())
    }
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
    /// Whether it has still to be said that no controller runs, where none does.
    warns: bool,
}

impl Watch {
    /// Begins to watch `scope`, for `timeout` in all.
    ///
    /// # Errors
    /// When the store says nothing in that time.
    pub(crate) async fn begin(store: &Store, timeout: Span, scope: Scope) -> anyhow::Result<Self> {
        let mut watch = Self {
            store: store.clone(),
            follower: store.follow(scope),
            inventory: Inventory::default(),
            reached: StoreRevision::default(),
            timeout,
            deadline: Instant::now() + timeout.duration(),
            warns: false,
        };
        while watch.reached == StoreRevision::default() {
            match watch.next(&mut Silent).await {
                Some(update) => drop(watch.take(update)),
                None => return Err(TimedOut(format!("timed out after {timeout}; the store said nothing")).into()),
            }
        }
        Ok(watch)
    }

    /// Says so when there is something to wait for and no controller runs. Whoever wrote something first, and then
    /// waits, has said it already.
    pub(crate) fn warning_without_controller(mut self) -> Self {
        self.warns = true;
        self
    }

    /// Waits until every target is met, and tells each as it is.
    ///
    /// # Errors
    /// When one cannot be met any more, with the reason and what is known about it; when the time is over; when
    /// nobody reads what is told; at Ctrl-C.
    pub(crate) async fn until(self, targets: &[Target], listener: &mut impl Listener) -> anyhow::Result<()> {
        // Before anything is shown: whoever sees it may type Ctrl-C at once.
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            ended = self.follow(targets, listener) => ended,
            _ = interrupt.recv() => Err(interrupted(targets)),
        }
    }

    async fn follow(mut self, targets: &[Target], listener: &mut impl Listener) -> anyhow::Result<()> {
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
                let still = self.unmet(wanted, listener).await?;
                if still.is_empty() {
                    return Ok(());
                }
                if std::mem::take(&mut self.warns) {
                    connection::warn_without_controller(&self.store).await;
                }
                open = Some(still);
            }
            let Some(update) = self.next(listener).await else {
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
    async fn unmet(&self, wanted: Vec<Wanted>, listener: &mut impl Listener) -> anyhow::Result<Vec<Wanted>> {
        let mut still = Vec::new();
        for one in wanted {
            let resource = self.inventory.get(&one.key);
            if let Some(why) = one.own.iter().find_map(|request| self.inventory.refusal(request)) {
                return Err(never(&one, &Why::Refused(why.to_owned()), resource));
            }
            match settling::judge(&one, resource) {
                Progress::Met => listener.met(&one.key, resource)?,
                Progress::Waiting(_) => still.push(one),
                Progress::Never(Why::NotDeclared) => {
                    return Err(first_steps::not_there(&self.store, anyhow!("{} is not declared", one.key)).await);
                }
                Progress::Never(why) => return Err(never(&one, &why, resource)),
            }
        }
        Ok(still)
    }

    /// The next thing that the store tells; nothing when the time is over.
    async fn next(&mut self, listener: &mut impl Listener) -> Option<Update> {
        loop {
            let soon = self.deadline.min(Instant::now() + TICK);
            match timeout_at(soon, self.follower.next()).await {
                Err(_) if soon == self.deadline => return None,
                Err(_) => listener.tick(),
                Ok(Update::Interrupted { error }) => listener.interrupted(&error),
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
                text += &format!("\n{} is not {}: {why}{}", one.key, one.goal, details(&why, resource));
            }
        }
        let error = anyhow::Error::new(TimedOut(text));
        match connection::controller(&self.store).await {
            Some(_) => error,
            None => hinted(error, "no controller seems to run on this store: `windlass serve` starts one"),
        }
    }
}

/// That somebody typed Ctrl-C: what they looked at goes on.
fn interrupted(targets: &[Target]) -> anyhow::Error {
    let names: Vec<String> = targets.iter().map(|target| target.key.to_string()).collect();
    let again = match targets {
        [Target { key: key @ ResourceKey::Service(_), .. }] => {
            format!("`windlass rollout status {key}` follows it again")
        }
        _ => format!("`windlass wait {}` waits again", names.join(" ")),
    };
    let text = format!("interrupted: only the waiting ended; the controller goes on with {}", names.join(", "));
    hinted(Interrupted(text), again)
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
        Why::Refused(_) => anyhow!("{}: {why}", wanted.key),
        _ => anyhow!("{} is not {}: {why}{}", wanted.key, wanted.goal, details(why, resource)),
    };
    match why.hint(&wanted.key) {
        Some(hint) => hinted(error, hint),
        None => error,
    }
}

/// What is known of a Service, and what Windlass does next where that is what the status tells.
fn details(why: &Why, resource: Option<&Resource>) -> String {
    let Some(resource @ Resource { key: ResourceKey::Service(_), .. }) = resource else { return String::new() };
    let told = resource.service_status();
    let next = outlook::of_service(&told).filter(|_| matches!(why, Why::Told { .. }));
    let next = next.map(|next| format!("next: {next}"));
    evidence(&told).into_iter().chain(next).map(|line| format!("\n  {line}")).collect()
}
