//! Follows one ConfigRepo: asks for what is new, reads it, writes what it declares, and says how that went.
//!
//! Level-triggered: what is written follows from the commit, what is stored and what was said before, so a controller
//! that dies anywhere resumes from there. What is remembered between two turns only spares asking and reading again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use windlass_crds::actor::Actor;
use windlass_crds::condition::{ConditionStatus, ConditionType, Reason};
use windlass_crds::configrepo::{CommitId, ConfigRepoSpec};
use windlass_crds::document::Declaration;
use windlass_crds::id::{Generation, RepoName, ResourceKey};
use windlass_crds::request::Request;
use windlass_crds::status::{ConfigRepoStatus, FileError, Finding, Furthest, conditions};
use windlass_hosts::fleet::Fleet;
use windlass_planner::configrepo::{Cause, Inputs, MOST_DELETES, Plan, Stored, Wanted, plan};
use windlass_sources::git::{Commit, GitError, Remote, Signer, Succession, Tip};
use windlass_store::{CommitError, Expectation, Key, MOST_WRITES, StoreRevision, Write};

use crate::audit;
use crate::backoff;
use crate::cache::{Read, ResourceView};
use crate::checkpoint::{Checkpoint, reached};
use crate::commit::json;
use crate::controller::Controller;
use crate::events::{self, News};
use crate::goal::{chain, complaint};
use crate::host::erase;
use crate::queue::Next;
use crate::requests::{self, Refused, Standing};
use crate::service::{ReconcileError, stalled};

/// So many file errors are in a status; who has mended those looks again.
const MOST_ERRORS: usize = 50;

/// So many declarations are written in one commit of the store, beside what is told of them.
const AT_ONCE: usize = MOST_WRITES - 26;

/// So many bytes of declarations are written at once, of the 1.5 MiB that the store takes.
const BYTES_AT_ONCE: usize = 1 << 20;

/// So many changes behind our back are told one by one in a turn.
const MOST_TOLD: usize = 20;

/// However often its webhook is called, a repository is asked no more often than this.
const HOOK_PAUSE: Duration = Duration::from_secs(1);

/// What is remembered of a ConfigRepo between two turns.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// What was declared of it when that was found out.
    spec: Option<ConfigRepoSpec>,
    /// When its server was last asked.
    asked: Option<Instant>,
    /// When it is to be asked again.
    due: Option<Instant>,
    /// What its server last had.
    tip: Option<Tip>,
    /// What is to be in force.
    taken: Option<Taken>,
    /// Why the last look came to nothing, and how often in a row.
    trouble: Option<(Trouble, u32)>,
}

/// A commit that may be put in force.
#[derive(Debug, Clone)]
struct Taken {
    commit: Arc<Commit>,
    signer: Option<Signer>,
    /// What led to it.
    reference: Option<String>,
    /// It does not come after the one before.
    rewritten: bool,
    /// The newest commit that was in force, this one among them.
    furthest: Furthest,
}

impl Memory {
    /// The commit that is in force.
    pub fn commit(&self) -> Option<&CommitId> {
        self.taken.as_ref().map(|taken| &taken.commit.id)
    }

    /// Who has declared something, where the commit says just that.
    pub fn author(&self, repo: &RepoName, declared: &Declaration) -> Option<Actor> {
        let taken = self.taken.as_ref()?;
        let wanted = taken.commit.declarations.get(&declared.key());
        wanted.filter(|wanted| wanted.declaration == *declared).map(|_| taken.actor(repo))
    }
}

impl Taken {
    /// Whose it is.
    fn actor(&self, repo: &RepoName) -> Actor {
        let Self { commit, signer, .. } = self;
        // Whoever leads a branch back to an older commit, or on from there, is not who has signed that.
        let signer = signer.clone().filter(|_| self.furthest.commit == commit.id);
        let (signer, key) = signer.map(|Signer { name, key }| (name, key)).unzip();
        Actor::Git { repo: repo.clone(), commit: commit.id.clone(), author: commit.author.clone(), signer, key }
    }
}

/// Why a look came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Trouble {
    reason: Reason,
    message: String,
    /// Which commit it is about.
    commit: Option<CommitId>,
    /// It may pass by itself.
    passes: bool,
    errors: Vec<FileError>,
}

impl Trouble {
    /// Whether another one says the same, but for numbers in it.
    fn is_but_for_numbers(&self, other: &Self) -> bool {
        let letters = |text: &str| text.chars().filter(|letter| !letter.is_ascii_digit()).collect::<String>();
        let message = letters(&self.message) == letters(&other.message);
        message && Self { message: String::new(), ..self.clone() } == Self { message: String::new(), ..other.clone() }
    }

    fn of(error: &GitError, commit: Option<&CommitId>) -> Self {
        let (reason, passes) = match error {
            GitError::Missing(_) | GitError::Away { .. } | GitError::Slow { .. } => (Reason::RepoUnavailable, true),
            GitError::Data(_) | GitError::Nowhere | GitError::Damaged { .. } => (Reason::RepoInvalid, true),
            // Whoever mends it mends it elsewhere, and does not tell us.
            GitError::Credentials { .. } => (Reason::RepoUnavailable, true),
            GitError::NoRef { .. } => (Reason::RefNotFound, true),
            GitError::TooLarge { .. } => (Reason::RepoTooLarge, false),
            GitError::NoDirectory { .. } => (Reason::EmptyTree, false),
            GitError::Unsigned { .. } => (Reason::UnsignedCommit, false),
            GitError::Signer { .. } => (Reason::SignerNotAllowed, false),
        };
        Self { reason, message: chain(error), commit: commit.cloned(), passes, errors: Vec::new() }
    }
}

/// Moves one ConfigRepo one step closer to its repository.
///
/// # Errors
/// When the store does not take what is written.
pub async fn reconcile<F: Fleet>(controller: &Arc<Controller<F>>, name: &RepoName) -> Result<Next, ReconcileError> {
    let key = ResourceKey::ConfigRepo(name.clone());
    let mut view = controller.cache.resource(&key);
    requests::bound(&mut view.requests);
    let Some(Read { parsed, at, .. }) = view.declared.clone() else {
        controller.repos.forget(name);
        return erase(controller, &key).await;
    };
    let mut turn = Turn { controller, name, key, view, generation: Generation(at.0) };
    match parsed.as_deref() {
        Ok(Declaration::ConfigRepo(repo)) if repo.spec.suspend => turn.suspended().await,
        Ok(Declaration::ConfigRepo(repo)) => turn.follow(&repo.spec).await,
        Ok(_) => Ok(Next::Never),
        Err(problems) => {
            let complaint = complaint(problems);
            let standing = Standing::Nonsense(complaint.reason);
            let before = turn.before();
            turn.say(Said { findings: stalled(&complaint), standing, ..Said::keeping(before) }).await?;
            Ok(Next::Never)
        }
    }
}

/// One look at one ConfigRepo.
struct Turn<'a, F> {
    controller: &'a Arc<Controller<F>>,
    name: &'a RepoName,
    key: ResourceKey,
    view: ResourceView,
    generation: Generation,
}

/// What is to be said.
struct Said {
    findings: Vec<Finding>,
    standing: Standing,
    /// Everything but what `findings` say.
    status: ConfigRepoStatus,
    news: Vec<News>,
}

impl Said {
    /// Nothing new but conditions.
    fn keeping(status: ConfigRepoStatus) -> Self {
        Self { findings: Vec::new(), standing: Standing::Sound, status, news: Vec::new() }
    }
}

fn finding(kind: ConditionType, status: ConditionStatus, reason: Reason, message: &str) -> Finding {
    Finding { kind, status, reason, message: message.to_owned() }
}

/// The conditions of something that is as it should be, or waits, or needs a person.
fn findings(ready: ConditionStatus, reason: Reason, message: &str, stuck: bool) -> Vec<Finding> {
    let yes = |holds| if holds { ConditionStatus::True } else { ConditionStatus::False };
    let waits = ready != ConditionStatus::True && !stuck;
    let told = |holds: bool| if holds { (reason, message) } else { (Reason::AsExpected, "") };
    let (waiting, stalled) = (told(waits), told(stuck));
    vec![
        finding(ConditionType::Ready, ready, reason, message),
        finding(ConditionType::Reconciling, yes(waits), waiting.0, waiting.1),
        finding(ConditionType::Stalled, yes(stuck), stalled.0, stalled.1),
    ]
}

impl<F: Fleet> Turn<'_, F> {
    /// What was said of it before.
    fn before(&self) -> ConfigRepoStatus {
        let stored = self.view.status.as_ref();
        stored.and_then(|stored| serde_json::from_slice(&stored.value).ok()).unwrap_or_default()
    }

    /// Leaves everything as it is.
    async fn suspended(&mut self) -> Result<Next, ReconcileError> {
        let message = "suspended: nothing is taken from it, and nothing is put back";
        let findings = findings(ConditionStatus::True, Reason::Suspended, message, false);
        self.controller.repos.forget(self.name);
        let before = self.before();
        self.say(Said { findings, ..Said::keeping(before) }).await?;
        Ok(Next::Never)
    }

    /// Asks for what is new where that is due, and writes what is wanted.
    async fn follow(&mut self, spec: &ConfigRepoSpec) -> Result<Next, ReconcileError> {
        let controller = self.controller;
        let mut memory = controller.repos.recall(self.name);
        if memory.spec.as_ref() != Some(spec) {
            memory = Memory { spec: Some(spec.clone()), ..Memory::default() };
        }
        let asked = self.view.requests.values().any(|request| matches!(request, Ok(Request::Reconcile)));
        let hook = controller.hooks.is_rung(self.name);
        let early = memory.asked.and_then(|asked| HOOK_PAUSE.checked_sub(asked.elapsed())).filter(|_| hook && !asked);
        let due = memory.due.is_none_or(|due| due <= Instant::now()) || asked || (hook && early.is_none());
        // What was changed behind our back waits for no server.
        let mut done = self.put_in_force(&memory, spec).await?;
        if due {
            controller.hooks.take(self.name);
            self.look(&mut memory, spec).await;
            // Services that see what is written ask which commit it is of.
            controller.repos.remember(self.name, memory.clone());
            done = self.put_in_force(&memory, spec).await?.or(done);
        }
        self.report(&memory, done).await?;
        let now = Instant::now();
        let wait = memory.due.map_or(Duration::ZERO, |due| due.saturating_duration_since(now));
        Ok(Next::After(early.map_or(wait, |early| early.min(wait))))
    }

    /// Asks the server, and takes what it has where that is new.
    async fn look(&self, memory: &mut Memory, spec: &ConfigRepoSpec) {
        memory.asked = Some(Instant::now());
        let found = self.find(memory, spec).await;
        let interval = spec.interval.duration();
        let jitter = self.controller.repos.jitter.next();
        let wait = match found {
            Ok(()) => {
                memory.trouble = None;
                backoff::spread(interval, jitter)
            }
            Err(trouble) => {
                let times = memory.trouble.as_ref().filter(|(before, _)| before.reason == trouble.reason);
                let times = times.map_or(1, |(_, times)| times + 1);
                let passes = trouble.passes;
                // How many milliseconds it took to fail is no news, and nothing is written for it.
                let before = memory.trouble.take().map(|(before, _)| before);
                let same = before.filter(|before| before.is_but_for_numbers(&trouble));
                memory.trouble = Some((same.unwrap_or(*trouble), times));
                if passes { backoff::wait_at_most(interval, times, jitter) } else { interval }
            }
        };
        memory.due = Some(Instant::now() + wait);
    }

    async fn find(&self, memory: &mut Memory, spec: &ConfigRepoSpec) -> Result<(), Box<Trouble>> {
        let wrong = |commit: Option<&CommitId>| {
            let commit = commit.cloned();
            move |error: GitError| Box::new(Trouble::of(&error, commit.as_ref()))
        };
        let repos = self.controller.sources.repos().map_err(wrong(None))?;
        let remote = Remote::of(self.name, spec);
        let before = self.before();
        let tip = match repos.ask(&remote).await {
            Ok(tip) => tip,
            Err(error) => {
                self.recover(memory, spec, &before).await;
                return Err(wrong(None)(error));
            }
        };
        let known = memory.commit() == Some(&tip.commit);
        let same = memory.tip.as_ref() == Some(&tip);
        memory.tip = Some(tip.clone());
        if known {
            return self.still_signed(memory, spec, &tip.commit).await;
        }
        // What was refused is refused again, without reading all of it; but a list of signers may have grown.
        let stays = |trouble: &Trouble| {
            !trouble.passes && !matches!(trouble.reason, Reason::UnsignedCommit | Reason::SignerNotAllowed)
        };
        if same && let Some((trouble, _)) = memory.trouble.as_ref().filter(|(trouble, _)| stays(trouble)) {
            return Err(Box::new(trouble.clone()));
        }
        let taken = self.take(&remote, spec, &tip, &before).await;
        if taken.is_err() {
            self.recover(memory, spec, &before).await;
        }
        memory.taken = Some(taken?);
        self.wake_services(memory);
        Ok(())
    }

    /// Whether those who signed what is in force may still do so: somebody may have been taken off the list. Then nothing
    /// of it is put back any more; what is stored stays.
    async fn still_signed(
        &self,
        memory: &mut Memory,
        spec: &ConfigRepoSpec,
        id: &CommitId,
    ) -> Result<(), Box<Trouble>> {
        let wrong = |error: GitError| Box::new(Trouble::of(&error, Some(id)));
        let Some(verify) = &spec.verify else { return Ok(()) };
        let repos = self.controller.sources.repos().map_err(wrong)?;
        let signed = repos.verify(self.name, id, &verify.allowed_signers).await;
        signed.map(drop).inspect_err(|_| memory.taken = None).map_err(wrong)
    }

    /// Fetches, verifies and reads a commit.
    async fn take(
        &self,
        remote: &Remote,
        spec: &ConfigRepoSpec,
        tip: &Tip,
        before: &ConfigRepoStatus,
    ) -> Result<Taken, Box<Trouble>> {
        let wrong = |error: GitError| Box::new(Trouble::of(&error, Some(&tip.commit)));
        let repos = self.controller.sources.repos().map_err(wrong)?;
        let mut rewritten = false;
        let applied = before.applied.as_ref();
        if applied != Some(&tip.commit) || !repos.has(self.name, &tip.commit).await {
            rewritten = repos.fetch(remote, tip, applied).await.map_err(wrong)? == Succession::Unrelated;
        }
        reached(Checkpoint::CommitFetched);
        let (commit, signer) = self.read(spec, &tip.commit).await.map_err(wrong)?;
        let refused = |reason, message: String, errors: Vec<FileError>| {
            let commit = Some(tip.commit.clone());
            Err(Box::new(Trouble { reason, message, commit, passes: false, errors }))
        };
        if spec.atomic
            && let Some(first) = commit.errors.first()
        {
            let message = format!("nothing of {} is taken, since not all of it is good: {first}", tip.commit.short());
            return refused(first.reason, message, commit.errors.clone());
        }
        if commit.declarations.is_empty() && commit.errors.is_empty() {
            let place = spec.path.as_ref().map(|path| format!(" below {path}")).unwrap_or_default();
            let message = format!("nothing is declared in {}{place}; what is in force stays", tip.commit.short());
            return refused(Reason::EmptyTree, message, Vec::new());
        }
        let mut furthest = furthest(&commit, before);
        if furthest.commit != commit.id {
            // Clocks differ: what comes after it may be older by its own.
            let follows = match applied == Some(&furthest.commit) {
                true => !rewritten,
                false => repos.fetch(remote, tip, Some(&furthest.commit)).await.map_err(wrong)? == Succession::Follows,
            };
            if follows {
                furthest = Furthest { commit: commit.id.clone(), at: commit.at };
            }
        }
        Ok(Taken { commit: Arc::new(commit), signer, reference: Some(tip.reference.clone()), rewritten, furthest })
    }

    async fn read(&self, spec: &ConfigRepoSpec, id: &CommitId) -> Result<(Commit, Option<Signer>), GitError> {
        let repos = self.controller.sources.repos()?;
        let signer = match &spec.verify {
            Some(verify) => Some(repos.verify(self.name, id, &verify.allowed_signers).await?),
            None => None,
        };
        Ok((repos.declarations(self.name, id, spec.path.as_ref()).await?, signer))
    }

    /// After a start, what is in force is read out of our copy where there is nothing better.
    async fn recover(&self, memory: &mut Memory, spec: &ConfigRepoSpec, before: &ConfigRepoStatus) {
        // What another server, or another directory, declared is not declared here.
        let same = before.source == Some(source_of(spec));
        let Some(applied) = before.applied.as_ref().filter(|_| memory.taken.is_none() && same) else { return };
        match self.read(spec, applied).await {
            Ok((commit, signer)) => {
                let (furthest, reference) = (furthest(&commit, before), before.reference.clone());
                let commit = Arc::new(commit);
                memory.taken = Some(Taken { commit, signer, reference, rewritten: false, furthest });
            }
            Err(error) => {
                let error = chain(&error);
                tracing::debug!(repo = %self.name, error, "what is in force cannot be read out of the copy");
            }
        }
    }

    /// Services whose files could not be read before may have them now.
    fn wake_services(&self, memory: &Memory) {
        let declared = memory.taken.iter().flat_map(|taken| taken.commit.declarations.keys());
        for key in declared {
            if let ResourceKey::Service(service) = key
                && self.controller.recall(service).scan.is_some_and(|scan| scan.trouble.is_some())
            {
                self.controller.queue.push(key.clone());
            }
        }
    }

    /// Writes what the commit declares; nothing where that is so already.
    async fn put_in_force(&self, memory: &Memory, spec: &ConfigRepoSpec) -> Result<Option<Done>, ReconcileError> {
        let Some(taken) = &memory.taken else { return Ok(None) };
        let controller = self.controller;
        let commit = &taken.commit;
        let around = controller.cache.around_repo(self.name, commit.declarations.keys());
        let before = self.before();
        let inputs = Inputs {
            repo: self.name,
            commit: &commit.id,
            wanted: commit
                .declarations
                .iter()
                .map(|(key, one)| (key, Wanted { declaration: &one.declaration, file: &one.file, adopts: one.adopts }))
                .collect(),
            broken: &commit.broken,
            contested: &commit.contested,
            stored: around
                .declared
                .iter()
                .map(|(key, read)| (key, read.parsed.as_deref().map_or(Stored::Nonsense, Stored::Sound)))
                .collect(),
            others: around.others.iter().map(|(name, said)| (name, said.as_ref())).collect(),
            before: &before,
            prune: spec.prune,
        };
        let plan = plan(&inputs);
        if !self.announce(&plan, &before).await? || !self.write(&plan, taken, &around.declared).await? {
            return Ok(None);
        }
        if before.applied.as_ref() != Some(&commit.id)
            && let Ok(repos) = controller.sources.repos()
            && let Err(error) = repos.keep(self.name, &commit.id).await
        {
            tracing::debug!(repo = %self.name, error = chain(&error), "the commit in force is not marked in the copy");
        }
        Ok(Some(Done { plan, taken: taken.clone() }))
    }

    /// Whether what is acted on is what is declared still: fetching may take minutes, and whoever suspends a repository
    /// meanwhile, or deletes it, wants nothing more of it.
    fn is_wanted(&self) -> bool {
        let declared = self.controller.cache.resource(&self.key).declared;
        declared.is_some_and(|read| read.at.0 == self.generation.0)
    }

    /// Commits only while that is so, by the store's word; nothing where it is not. Who declares the repository in
    /// itself writes that key in the same commit, which says what it expects there.
    async fn commit_while_wanted(&self, mut writes: Vec<Write>) -> Result<Option<StoreRevision>, CommitError> {
        let own = Key::Declared(self.key.clone());
        if !writes.iter().any(|write| write.key == own) {
            writes.push(Write::keep(own.clone(), StoreRevision(self.generation.0)));
        }
        match self.controller.commit(&writes).await {
            Err(CommitError::Conflict { key, .. }) if *key == own => Ok(None),
            committed => committed.map(Some),
        }
    }

    /// What is declared, while it is.
    fn spec(&self) -> Option<&ConfigRepoSpec> {
        match self.view.declared.as_ref()?.parsed.as_deref() {
            Ok(Declaration::ConfigRepo(repo)) => Some(&repo.spec),
            _ => None,
        }
    }

    /// Records what is about to be owned before it is: whoever goes on after us would not know it for this one's.
    async fn announce(&self, plan: &Plan, before: &ConfigRepoStatus) -> Result<bool, ReconcileError> {
        if !self.is_wanted() {
            return Ok(false);
        }
        let owned: BTreeSet<&ResourceKey> = before.owns().collect();
        let new = plan.inventory.iter().flat_map(|(file, keys)| keys.iter().map(move |key| (file, key)));
        let new: Vec<_> = new.filter(|(_, key)| !owned.contains(key)).collect();
        if new.is_empty() {
            return Ok(true);
        }
        let mut status = before.clone();
        for (file, key) in new {
            status.inventory.entry(file.clone()).or_default().insert(key.clone());
        }
        let announced = vec![Write::put(Key::Status(self.key.clone()), json(&status))];
        let Some(revision) = self.commit_while_wanted(announced).await? else { return Ok(false) };
        self.controller.reach(revision).await;
        Ok(true)
    }

    /// Writes it all; whether it was wanted to the end.
    async fn write(
        &self,
        plan: &Plan,
        taken: &Taken,
        stored: &BTreeMap<ResourceKey, Read>,
    ) -> Result<bool, ReconcileError> {
        let commit = &taken.commit;
        let expected = |key: &ResourceKey| stored.get(key).map_or(Expectation::Absent, |read| Expectation::At(read.at));
        let mut told = 0;
        let mut batch: Vec<Write> = Vec::new();
        let mut bytes = 0;
        let deletes = plan.deletes.iter().map(|key| Write::delete(Key::Declared(key.clone())).expecting(expected(key)));
        let puts = plan.puts.iter().map(|(key, cause)| {
            let value = json(&commit.declarations[key].declaration.to_json());
            let news = (*cause == Cause::PutBack && told < MOST_TOLD).then(|| {
                told += 1;
                let message = format!(
                    "somebody else changed what {} declares in {}; that was put back. `windlass apply --adopt` takes it over",
                    self.key, commit.declarations[key].file
                );
                (key.clone(), News::new(Reason::Conflict, message))
            });
            (Write::put(Key::Declared(key.clone()), value).expecting(expected(key)), news)
        });
        let mut happened = Vec::new();
        for (write, news) in puts {
            let size = match &write.act {
                windlass_store::Act::Put { value, .. } => value.len(),
                windlass_store::Act::Delete | windlass_store::Act::Keep => 0,
            };
            if batch.len() >= AT_ONCE || bytes + size > BYTES_AT_ONCE {
                if !self.flush(&mut batch, &mut happened, taken).await? {
                    return Ok(false);
                }
                bytes = 0;
            }
            bytes += size + 512;
            batch.push(write);
            happened.extend(news);
        }
        if !plan.is_settled() {
            tracing::info!(
                repo = %self.name, commit = %commit.id.short(), put = plan.puts.len(), deleted = plan.deletes.len(),
                "what is declared in git was written"
            );
        }
        if !self.flush(&mut batch, &mut happened, taken).await? {
            return Ok(false);
        }
        // All of them at one moment, so that the brake sees how many they are.
        batch.extend(deletes);
        self.flush(&mut batch, &mut happened, taken).await
    }

    async fn flush(
        &self,
        batch: &mut Vec<Write>,
        happened: &mut Vec<(ResourceKey, News)>,
        taken: &Taken,
    ) -> Result<bool, ReconcileError> {
        if batch.is_empty() {
            return Ok(true);
        }
        if !self.is_wanted() {
            return Ok(false);
        }
        let controller = self.controller;
        let mut writes = std::mem::take(batch);
        for (key, news) in std::mem::take(happened) {
            writes.extend(controller.events.writes(&controller.store, &key, controller.now(), vec![news]).await?);
        }
        let deletes = writes.iter().filter_map(|write| match (&write.key, &write.act) {
            (Key::Declared(key), windlass_store::Act::Delete) => Some(key.clone()),
            _ => None,
        });
        let deletes: Vec<ResourceKey> = deletes.collect();
        controller.repos.note_deleting(&deletes, &taken.actor(self.name));
        let committed = self.commit_while_wanted(writes).await;
        controller.repos.note_deleted(&deletes, committed.as_ref().ok().copied().flatten());
        let Some(revision) = committed? else { return Ok(false) };
        controller.reach(revision).await;
        reached(Checkpoint::DeclarationsWritten);
        Ok(true)
    }

    /// Says how it stands.
    async fn report(&mut self, memory: &Memory, done: Option<Done>) -> Result<(), ReconcileError> {
        let before = self.before();
        let trouble = memory.trouble.as_ref().map(|(trouble, _)| trouble);
        let mut status = before.clone();
        let mut news = Vec::new();
        let mut errors = Vec::new();
        if let Some(Done { plan, taken }) = done {
            let commit = &taken.commit;
            errors.extend(commit.errors.iter().cloned());
            errors.extend(plan.conflicts.iter().map(|(key, (file, holder))| FileError {
                file: file.clone(),
                line: commit.declarations.get(key).map(|one| one.line),
                column: None,
                reason: Reason::Conflict,
                message: format!("{key} {holder}"),
            }));
            if plan.too_many > 0 {
                let message = format!(
                    "{} resources are declared by no file any more, and more than {MOST_DELETES} are not deleted at once; `windlass delete` deletes what it names",
                    plan.too_many
                );
                let (file, reason) = (source_path(self.spec()), Reason::RemovalNeedsConfirmation);
                errors.push(FileError { file, line: None, column: None, reason, message });
            }
            if taken.rewritten && before.applied.as_ref() != Some(&commit.id) {
                let from = before.applied.as_ref().map(CommitId::short).unwrap_or_default();
                let message = format!(
                    "{} does not come after {from}: the branch was rewritten, or more than 32 commits came at once",
                    commit.id.short()
                );
                news.push(News::new(Reason::HistoryRewritten, message));
            }
            status.applied = Some(commit.id.clone());
            status.attempted = Some(commit.id.clone());
            status.source = self.spec().map(source_of);
            status.reference = taken.reference.clone();
            status.signer = taken.signer.as_ref().map(|signer| signer.name.clone());
            status.furthest = Some(taken.furthest.clone());
            status.inventory = plan.inventory;
            status.left = plan.left;
        }
        if let Some(trouble) = trouble {
            status.attempted = trouble.commit.clone().or(status.attempted);
            errors.extend(trouble.errors.iter().cloned());
        }
        errors.sort();
        errors.dedup();
        let findings = self.judge(trouble, &errors, &status);
        status.more_errors = errors.len().saturating_sub(MOST_ERRORS);
        errors.truncate(MOST_ERRORS);
        status.errors = errors;
        self.say(Said { findings, standing: Standing::Sound, status, news }).await
    }

    fn judge(&self, trouble: Option<&Trouble>, errors: &[FileError], status: &ConfigRepoStatus) -> Vec<Finding> {
        if let Some(trouble) = trouble {
            return findings(ConditionStatus::False, trouble.reason, &trouble.message, !trouble.passes);
        }
        let Some(applied) = &status.applied else {
            return findings(ConditionStatus::Unknown, Reason::NotObserved, "it has not been looked at yet", false);
        };
        if let Some(first) = errors.first() {
            let more = if errors.len() > 1 { format!(", and {} more", errors.len() - 1) } else { String::new() };
            let message = format!("{first}{more}; the rest of {} is in force", applied.short());
            return findings(ConditionStatus::False, first.reason, &message, true);
        }
        let count: usize = status.inventory.values().map(std::collections::BTreeSet::len).sum();
        let left = match status.left.len() {
            0 => String::new(),
            left => format!("; {left} more are declared by no file any more, and stay since `prune` is off"),
        };
        let message = format!("{} is in force: {count} declarations{left}", applied.short());
        findings(ConditionStatus::True, Reason::Applied, &message, false)
    }

    /// Writes a status where it is news, and ends the requests.
    async fn say(&mut self, said: Said) -> Result<(), ReconcileError> {
        let Said { findings, standing, mut status, news } = said;
        let controller = self.controller;
        let now = controller.now();
        let before = self.before();
        status.observed_generation = self.generation;
        status.conditions = conditions(findings, self.generation, &before.conditions, now);
        let refused: Vec<Refused> = requests::refusals(&self.key, standing, &self.view.requests);
        let told = audit::asked(
            &self.view.requests,
            refused.iter(),
            &controller.askers(&self.key, self.view.requests.keys(), &self.view.asked_at),
        );
        let mut happened: Vec<News> = refused.into_iter().map(News::from).chain(news).collect();
        let mut writes = Vec::new();
        let bytes = json(&status);
        if self.view.status.as_ref().is_none_or(|stored| stored.value != bytes) {
            happened.extend(events::transitions(&before.conditions, &status.conditions));
            if status.applied != before.applied
                && let Some(applied) = &status.applied
            {
                let by = status.signer.as_ref().map(|signer| format!(", signed by {signer}")).unwrap_or_default();
                let message = format!("{applied} is in force{by}");
                happened.push(News::new(Reason::Applied, message));
            }
            writes.push(Write::put(Key::Status(self.key.clone()), bytes));
        }
        writes.extend(requests::ended(&self.key, &self.view.requests));
        if writes.is_empty() {
            return Ok(());
        }
        writes.extend(controller.events.writes(&controller.store, &self.key, now, happened).await?);
        let mut telling = controller.tell_plain(&self.key, self.view.declared.as_ref()).await?;
        telling.entries.extend(told);
        let revision = controller.commit_telling(None, writes, telling).await?;
        controller.reach(revision).await;
        Ok(())
    }
}

/// The newest commit that was in force, by what the commits say: it has come further where it is younger. A signature
/// covers its time, so that whoever only moves the branch can make none younger.
fn furthest(commit: &Commit, before: &ConfigRepoStatus) -> Furthest {
    let ours = Furthest { commit: commit.id.clone(), at: commit.at };
    before.furthest.clone().filter(|before| before.at >= ours.at).unwrap_or(ours)
}

/// Where a ConfigRepo is taken from, in words that are the same while it is the same place.
fn source_of(spec: &ConfigRepoSpec) -> String {
    match &spec.path {
        Some(path) => format!("{} {path}", spec.url),
        None => spec.url.to_string(),
    }
}

/// The directory that is read.
fn source_path(spec: Option<&ConfigRepoSpec>) -> String {
    spec.and_then(|spec| spec.path.as_ref()).map_or_else(|| ".".to_owned(), ToString::to_string)
}

/// What was put in force.
struct Done {
    plan: Plan,
    taken: Taken,
}
