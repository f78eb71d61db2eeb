//! The trail of one term: how far each chain has come, which of that no anchor knows yet, and what a commit adds.
//!
//! Each resource has a chain, and one worker at a time, so that nobody waits for anybody. Anchors are one chain for all:
//! whoever finds nobody at it adds one to the commit that it is about to make; who finds somebody goes without.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use windlass_crds::audit::{Anchor, Chain, Entry, Head, Link, MOST_NUMBER, Record, Sealed, Standing, What};
use windlass_crds::digest::RecordDigest;
use windlass_crds::id::{ClusterId, RecordNumber};
use windlass_hosts::fleet::Fleet;
use windlass_store::{CommitError, Key, Problem, ReadError, Scope, Store, StoreRevision, Write};

use super::{AuditOptions, SigningKey, holds};
use crate::controller::Controller;
use crate::goal::chain as reasons;
use crate::metrics::{Metrics, Untold};

/// So many chains are known at once, some two hundred bytes each; beyond that they are read again.
const MOST_KNOWN: usize = 20_000;

/// So many heads are in one anchor that moved since the last one, and as many that old ones hand on.
///
/// What the trail adds to a commit at most: a record of 48 KiB (`bounds::MOST_BYTES`), that this controller leads, 1 KiB,
/// an anchor of a thousand heads of 250 bytes, and 64 deletions of 600: 340 KiB. Both stores take 1.5 MiB at once, so
/// that 1.2 MiB are left for what it tells of, of which a spec of 256 KiB is the most that anybody writes at once.
const MOST_HEADS: usize = 500;

/// So many of its own an anchor has room for, however many old ones hand on: it must come further.
const LEAST_HEADS: usize = 2;

/// So many anchors may come at once, so that what follows a change is anchored with it.
const BURST: u32 = 8;

/// In a stream of changes one comes so often; and with each commit that ends a rollout while no other one is under way, so
/// that the last one of the stream needs none after it.
const ANCHOR_EVERY: Duration = Duration::from_secs(1);

/// What no anchor knows is anchored by a commit of its own once nothing more was told for so long.
const QUIET: Duration = Duration::from_secs(1);

/// While a rollout is under way, more is told soon, so that it takes so much longer.
const QUIET_IN_ROLLOUTS: Duration = Duration::from_secs(15);

/// How many records are too many is looked at every so many records of a chain.
const LOOK_EVERY: u64 = 16;

/// So many are read, and at most deleted, in one such look: as many again as come until the next.
const MOST_PRUNED: u32 = 32;

/// How many records a chain has at most. An index of the embedded store keeps a hundred bytes for each in memory: fifty
/// kilobytes for five hundred. Whoever asks often shall not push out by that what he did an hour ago, so that of the last
/// day there are ten times as many: half a megabyte for a resource of which something is told every 17 seconds all day.
const MOST_RECORDS: Most = Most { of_old: 500, at_all: 5_000 };

/// How many anchors there are at most: what an old one knows later ones know better, or it hands that on.
const MOST_ANCHORS: Most = Most { of_old: 1000, at_all: 1000 };

/// What is younger, or younger than the retention, does not go because there are many.
const YOUNG: Duration = Duration::from_secs(24 * 3600);

/// A chain whose end is not found is looked through again after so long, and so once for a commit, which asks twice or
/// more: that is up to a hundred round trips, some of them while a sequence is drawn, for which every Service waits.
const LOOKED_FOR_AGAIN: Duration = Duration::from_secs(1);

/// Where the last key of a chain is none of ours, the last record is looked for among so many before it, and then again.
const AMONG: u32 = 100;

/// So often: two thousand keys in twenty answers, a few milliseconds each.
const LOOKS: u32 = 20;

/// Where the first keys of a chain are none of ours, what is old is looked for so often behind them.
const LOOKS_BEHIND: u32 = 8;

/// So long a commit waits for others that are under way, so that its anchor knows of them: each takes milliseconds. Where
/// the store hangs, it goes without.
const LONGEST_TURN: Duration = Duration::from_secs(1);

/// How many records there are at most.
#[derive(Debug, Clone, Copy)]
struct Most {
    /// Those that are not young among them.
    of_old: u64,
    /// However young they are.
    at_all: u64,
}

/// What is known of a chain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    /// Its last record; none where it has none.
    head: Option<Head>,
    /// The number of the next one.
    next: RecordNumber,
    /// What it last told of the declaration.
    pub(crate) declared: Option<Standing>,
}

impl Known {
    /// A chain that has nothing.
    const EMPTY: Self = Self { head: None, next: RecordNumber(1), declared: None };

    /// Passes over the numbers that somebody else has taken.
    fn behind(self, taken: &BTreeSet<RecordNumber>) -> Self {
        let mut next = self.next;
        while taken.contains(&next) {
            next = next.next();
        }
        Self { next, ..self }
    }

    /// Whether a record may follow: none has a number from [`MOST_NUMBER`] on.
    fn may_go_on(&self) -> bool {
        self.next.0 < MOST_NUMBER
    }
}

/// The trail, for one term.
#[derive(Debug)]
pub struct Trail {
    key: SigningKey,
    retention: Duration,
    name: String,
    cluster: ClusterId,
    term: u64,
    chains: Mutex<BTreeMap<Chain, Known>>,
    /// Chains whose end was looked for and not found, and when.
    unfound: Mutex<BTreeMap<Chain, Instant>>,
    loose: Mutex<Loose>,
    anchors: tokio::sync::Mutex<Anchors>,
    /// Commits that are under way: many, or one that comes when it is quiet.
    commits: tokio::sync::RwLock<()>,
    told: Notify,
    metrics: Arc<Metrics>,
}

/// Held while a commit is made.
pub(crate) enum CommitTurn<'a> {
    /// Others are made beside it.
    Beside { _held: tokio::sync::RwLockReadGuard<'a, ()> },
    /// None is: its anchor is the last one that is needed.
    Alone { _held: tokio::sync::RwLockWriteGuard<'a, ()> },
}

/// What no anchor knows yet.
#[derive(Debug, Default)]
struct Loose {
    heads: BTreeMap<Chain, Head>,
    /// Chains that may have come further: the answer to a commit was lost.
    doubtful: BTreeSet<Chain>,
    /// When something was last told.
    since: Option<Instant>,
    /// Chains of which it was said that they cannot be written.
    lost: BTreeSet<Chain>,
}

impl Loose {
    fn is_empty(&self) -> bool {
        self.heads.is_empty() && self.doubtful.is_empty()
    }
}

/// The chain of anchors.
#[derive(Debug)]
struct Anchors {
    /// Nothing where it has to be read.
    known: Option<Known>,
    /// So many may come at once.
    allowed: u32,
    counted: Instant,
    /// It was told that this controller leads.
    led: bool,
    /// There are more old ones.
    more: bool,
}

impl Anchors {
    /// Whether another one may come, which then has come. While it is quiet it always may.
    fn take(&mut self, quiet: bool) -> bool {
        let passed = self.counted.elapsed().as_secs() / ANCHOR_EVERY.as_secs();
        if passed > 0 {
            self.counted += ANCHOR_EVERY * u32::try_from(passed).unwrap_or(u32::MAX);
            self.allowed = self.allowed.saturating_add(u32::try_from(passed).unwrap_or(u32::MAX)).min(BURST);
        }
        let may = self.allowed > 0 || quiet;
        self.allowed = self.allowed.saturating_sub(1);
        may
    }
}

/// What a record says beside its links.
#[derive(Debug, Default)]
struct Text {
    entries: Vec<Entry>,
    declared: Option<Standing>,
    anchor: Option<Anchor>,
    pruned: Option<Head>,
}

/// When a commit is made that tells something.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Occasion {
    /// The time.
    pub(crate) now: Timestamp,
    /// So many writes there is room for.
    pub(crate) room: usize,
    /// The last rollout ends with it, so that no other commit may come for long.
    pub(crate) quiet: bool,
}

/// What a commit adds to the trail. Nothing of it counts before the commit is made.
pub(crate) struct Page<'a> {
    trail: &'a Trail,
    writes: Vec<Write>,
    /// So many of them are of the chain that is told.
    own: usize,
    heads: Vec<(Chain, Known)>,
    /// Held while the commit is made that adds one.
    anchors: Option<(tokio::sync::MutexGuard<'a, Anchors>, Anchored)>,
}

/// An anchor that is about to be added.
struct Anchored {
    /// The anchor itself.
    known: Known,
    /// What it holds.
    heads: BTreeMap<Chain, Head>,
    more: bool,
}

/// Records that are too old or too many.
struct Outdated {
    keys: Vec<Key>,
    last: Head,
    /// What the anchors among them knew.
    heads: BTreeMap<Chain, Head>,
    more: bool,
}

impl Trail {
    /// The trail of a term.
    pub fn new(options: AuditOptions, name: String, cluster: ClusterId, term: u64, metrics: Arc<Metrics>) -> Self {
        let AuditOptions { key, retention } = options;
        let anchors = Anchors { known: None, allowed: BURST, counted: Instant::now(), led: false, more: false };
        Self {
            key,
            retention,
            name,
            cluster,
            term,
            chains: Mutex::default(),
            unfound: Mutex::default(),
            loose: Mutex::default(),
            anchors: tokio::sync::Mutex::new(anchors),
            commits: tokio::sync::RwLock::default(),
            told: Notify::new(),
            metrics,
        }
    }

    fn chains(&self) -> MutexGuard<'_, BTreeMap<Chain, Known>> {
        self.chains.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unfound(&self) -> MutexGuard<'_, BTreeMap<Chain, Instant>> {
        self.unfound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn loose(&self) -> MutexGuard<'_, Loose> {
        self.loose.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a chain, where its end can be found. Two round trips the first time in a term, and after a commit
    /// that failed.
    pub(crate) async fn known(&self, store: &Store, chain: &Chain) -> Result<Option<Known>, ReadError> {
        let known = self.chains().get(chain).copied();
        if let Some(known) = known {
            return Ok(Some(known).filter(Known::may_go_on));
        }
        if self.unfound().get(chain).is_some_and(|since| since.elapsed() < LOOKED_FOR_AGAIN) {
            return Ok(None);
        }
        let Some(known) = read_end(store, chain).await? else {
            let mut unfound = self.unfound();
            unfound.retain(|_, since| since.elapsed() < LOOKED_FOR_AGAIN);
            unfound.insert(chain.clone(), Instant::now());
            return Ok(None);
        };
        let mut chains = self.chains();
        if chains.len() >= MOST_KNOWN {
            chains.clear();
        }
        // Whoever has told something meanwhile knows better.
        Ok(Some(*chains.entry(chain.clone()).or_insert(known)))
    }

    /// Waits until it is the turn of a commit that tells something. Of those that end the last rollouts, none shall end
    /// after another one has anchored what it knew.
    pub(crate) async fn turn(&self, quiet: bool) -> Option<CommitTurn<'_>> {
        let turn = async {
            match quiet {
                true => CommitTurn::Alone { _held: self.commits.write().await },
                false => CommitTurn::Beside { _held: self.commits.read().await },
            }
        };
        tokio::time::timeout(LONGEST_TURN, turn).await.ok()
    }

    /// Says once that a chain of the trail's own cannot be written.
    fn lost(&self, chain: &Chain) {
        self.metrics.untold(Untold::Anchor);
        if self.loose().lost.insert(chain.clone()) {
            tracing::error!(%chain, "the end of this chain of the audit trail is not found: too much that is no record lies there; `windlass audit verify` says what");
        }
    }

    /// Whether an anchor of this term surely knows a later record of a chain than this one.
    fn has_anchored_later(&self, chain: &Chain, head: Head) -> bool {
        let known = self.chains().get(chain).and_then(|known| known.head);
        known.is_some_and(|known| known.number > head.number) && !self.loose().heads.contains_key(chain)
    }

    /// What a commit adds that tells `entries`; nothing where the chain's end cannot be found.
    pub(crate) async fn page(
        &self,
        store: &Store,
        chain: &Chain,
        entries: &[Entry],
        declared: Option<Standing>,
        occasion: Occasion,
    ) -> Result<Option<Page<'_>>, ReadError> {
        let Occasion { now, room, quiet } = occasion;
        let Some(known) = self.known(store, chain).await? else { return Ok(None) };
        // Whoever is stopped in the middle of the commit leaves nothing behind that may be out of date.
        self.chains().remove(chain);
        let mut page = Page { trail: self, writes: Vec::new(), own: 0, heads: Vec::new(), anchors: None };
        let mut room = room.saturating_sub(ALWAYS);
        let told = known.declared.and_then(|standing| standing.told);
        let tells = entries.iter().any(|entry| matches!(entry.what, What::Declared { whole: Some(_), .. }));
        let told = if tells { Some(known.next) } else { told };
        let declared = declared.or(known.declared).map(|standing| Standing { told, ..standing });
        let mut pruned = None;
        if known.next.0.is_multiple_of(LOOK_EVERY) {
            let outdated = self.outdated(store, chain, known, MOST_RECORDS, now, room).await;
            pruned = outdated.map(|outdated| {
                room = room.saturating_sub(outdated.keys.len());
                page.writes.extend(outdated.keys.into_iter().map(Write::delete));
                outdated.last
            });
        }
        page.add(chain, known, Text { entries: entries.to_vec(), declared, pruned, anchor: None }, now);
        page.own = page.writes.len();
        if let Ok(anchors) = self.anchors.try_lock() {
            page.anchor(anchors, store, Occasion { now, room, quiet }).await;
        }
        Ok(Some(page))
    }

    /// What a commit adds that anchors what no anchor knows yet; nothing where all is anchored.
    async fn last_page(&self, store: &Store, now: Timestamp) -> Result<Option<Page<'_>>, ReadError> {
        let doubtful = std::mem::take(&mut self.loose().doubtful);
        for chain in doubtful {
            match self.known(store, &chain).await {
                Ok(known) => {
                    if let Some(head) = known.and_then(|known| known.head) {
                        self.loose().heads.entry(chain).or_insert(head);
                    }
                }
                Err(error) => {
                    self.loose().doubtful.insert(chain);
                    return Err(error);
                }
            }
        }
        let mut page = Page { trail: self, writes: Vec::new(), own: 0, heads: Vec::new(), anchors: None };
        let anchors = self.anchors.lock().await;
        if self.loose().heads.is_empty() {
            return Ok(None);
        }
        page.anchor(anchors, store, Occasion { now, room: MOST_PRUNED as usize, quiet: true }).await;
        Ok(Some(page).filter(|page| page.anchors.is_some()))
    }

    /// A record as it is written.
    fn seal(&self, chain: &Chain, known: Known, text: Text, now: Timestamp) -> (Write, Known) {
        let Text { entries, declared, anchor, pruned } = text;
        let number = known.next;
        let previous = known.head.map(|head| head.digest);
        let link = Link { chain: chain.clone(), number, previous, pruned, at: now, anchor };
        let text = Record { link, term: self.term, entries, left_out: 0, declared }.into_text();
        let stored = self.key.seal(&text);
        let head = Head { number, digest: RecordDigest::of(&stored) };
        let write = Write::put(Key::Audit(chain.clone(), number), stored);
        (
            write.expecting(windlass_store::Expectation::Absent),
            Known { head: Some(head), next: number.next(), declared },
        )
    }

    /// The oldest records of a chain that are older than they need to be, or too many. What cannot be read as ours stays,
    /// and holds nothing up: whoever looks finds it. So does the record by which the next change is told, unless there
    /// are too many.
    async fn outdated(
        &self,
        store: &Store,
        chain: &Chain,
        known: Known,
        most: Most,
        now: Timestamp,
        room: usize,
    ) -> Option<Outdated> {
        let count = MOST_PRUNED.min(u32::try_from(room).unwrap_or(u32::MAX));
        if count == 0 {
            return None;
        }
        let limits = Limits::new(now, self.retention, most, known)?;
        let mut scope = Scope::records(chain);
        let mut oldest = Oldest::default();
        for _ in 0..LOOKS_BEHIND {
            let first = match store.first(&scope, count).await {
                Ok(first) => first,
                Err(error) => {
                    tracing::debug!(%chain, error = reasons(&error), "old records are left for now");
                    return None;
                }
            };
            let last = first.last().filter(|_| first.len() == count as usize).map(|last| last.key.clone());
            let goes_on = limits.add_oldest(chain, first, count as usize, &mut oldest);
            match last.filter(|_| goes_on) {
                Some(last) => scope = scope.behind(&last),
                None => return oldest.into_outdated(),
            }
        }
        if oldest.keys.is_empty() {
            tracing::warn!(%chain, "old records of the audit trail stay: too much that is no record lies before them");
        }
        oldest.into_outdated()
    }
}

/// Which records may go.
struct Limits {
    /// Those from before go for their age.
    retained: Timestamp,
    /// Those from before go for their number.
    young: Timestamp,
    most: Most,
    end: RecordNumber,
    /// By which the next change is told.
    told: Option<RecordNumber>,
}

/// The oldest of some records.
#[derive(Default)]
struct Oldest {
    keys: Vec<Key>,
    last: Option<Head>,
    heads: BTreeMap<Chain, Head>,
    /// The next one stays for now.
    ended: bool,
}

impl Oldest {
    fn into_outdated(self) -> Option<Outdated> {
        let Self { keys, last, heads, ended } = self;
        last.map(|last| Outdated { keys, last, heads, more: !ended })
    }
}

impl Limits {
    fn new(now: Timestamp, retention: Duration, most: Most, known: Known) -> Option<Self> {
        let ago = |age: Duration| now.checked_sub(jiff::SignedDuration::try_from(age).ok()?).ok();
        let told = known.declared.and_then(|standing| standing.told);
        let (retained, young) = (ago(retention)?, ago(retention.min(YOUNG))?);
        Some(Self { retained, young, most, end: known.head?.number, told })
    }

    /// Whether a record of this time may go.
    fn let_go(&self, number: RecordNumber, at: Timestamp) -> bool {
        let behind = self.end.0.saturating_sub(number.0);
        let many = behind >= self.most.at_all || behind >= self.most.of_old && at < self.young;
        let old = at < self.retained && self.told.is_none_or(|told| number < told);
        number < self.end && (many || old)
    }

    /// Adds those of `entries` that may go, up to so many in all; says whether there may be more behind them.
    fn add_oldest(&self, chain: &Chain, entries: Vec<windlass_store::Entry>, most: usize, oldest: &mut Oldest) -> bool {
        for entry in entries {
            let Some(link) = ours(chain, &entry) else { continue };
            let handed_on = link.anchor.map(|anchor| anchor.heads).unwrap_or_default();
            if !self.let_go(link.number, link.at) {
                oldest.ended = true;
                return false;
            }
            let full = oldest.keys.len() >= most || oldest.heads.len() + handed_on.len() > MOST_HEADS;
            if full && !oldest.keys.is_empty() {
                return false;
            }
            for (chain, head) in handed_on {
                let known = oldest.heads.entry(chain).or_insert(head);
                *known = if head.number > known.number { head } else { *known };
            }
            oldest.last = Some(Head { number: link.number, digest: RecordDigest::of(&entry.value) });
            oldest.keys.push(entry.key);
        }
        oldest.keys.len() < most
    }
}

/// Writes that a page may always make: a record, that this controller leads, and an anchor.
const ALWAYS: usize = 3;

/// A record where it belongs, and whose key has signed it. Which keys are a controller's nobody knows here.
fn ours(chain: &Chain, entry: &windlass_store::Entry) -> Option<Link> {
    let Key::Audit(_, number) = &entry.key else { return None };
    let sealed = Sealed::of(&entry.value).ok()?;
    let link = sealed.link().ok().filter(|link| link.chain == *chain && link.number == *number)?;
    holds(&sealed.key, &Sealed::signed(sealed.text), &sealed.signature).then_some(link)
}

/// The end of a chain, as the store has it; nothing where somebody has put so much there that it is not found.
async fn read_end(store: &Store, chain: &Chain) -> Result<Option<Known>, ReadError> {
    match find_end(store, chain).await {
        // A few keys are that long: nobody's records.
        Err(ReadError::Call(error)) if error.problem == Problem::AnswerTooLarge => Ok(None),
        found => found.map(|found| found.filter(Known::may_go_on)),
    }
}

async fn find_end(store: &Store, chain: &Chain) -> Result<Option<Known>, ReadError> {
    let mut scope = Scope::records(chain);
    // Numbers under which something else lies.
    let mut taken = BTreeSet::new();
    let mut keys = store.last(&scope, 1).await?;
    for _ in 0..LOOKS {
        let Some(last) = keys.last().cloned() else { return Ok(Some(Known::EMPTY.behind(&taken))) };
        for key in keys {
            let Key::Audit(_, number) = key else { continue };
            let Some(entry) = store.get(&key).await? else { continue };
            if ours(chain, &entry).is_some() {
                let head = Head { number, digest: RecordDigest::of(&entry.value) };
                let record = Sealed::of(&entry.value).and_then(|sealed| sealed.record()).ok();
                let declared = record.and_then(|record| record.declared);
                return Ok(Some(Known { head: Some(head), next: number.next(), declared }.behind(&taken)));
            }
            taken.insert(number);
            if taken.len() >= AMONG as usize {
                return Ok(None);
            }
        }
        scope = scope.before(&last);
        keys = store.last(&scope, AMONG).await?;
    }
    Ok(None)
}

impl<'a> Page<'a> {
    /// What the commit has to write.
    pub(crate) fn writes(&self) -> impl Iterator<Item = &Write> {
        self.writes.iter()
    }

    /// The same without an anchor, as it was signed; nothing where it has none.
    pub(crate) fn less(mut self) -> Option<Self> {
        drop(self.anchors.take()?);
        self.writes.truncate(self.own);
        self.heads.truncate(1);
        Some(self)
    }

    fn add(&mut self, chain: &Chain, known: Known, text: Text, now: Timestamp) {
        let (write, known) = self.trail.seal(chain, known, text, now);
        self.writes.push(write);
        self.heads.push((chain.clone(), known));
    }

    /// Adds an anchor where one may come; and the first time in a term, that this controller leads. Where that cannot be
    /// read which it needs, it goes without: the next commit has one.
    async fn anchor(&mut self, mut anchors: tokio::sync::MutexGuard<'a, Anchors>, store: &Store, occasion: Occasion) {
        let Occasion { now, room, quiet } = occasion;
        if !anchors.take(quiet) {
            return;
        }
        let trail = self.trail;
        let known = match anchors.known.take() {
            Some(known) => Ok(Some(known).filter(Known::may_go_on)),
            None => read_end(store, &Chain::Anchors).await,
        };
        let leads = if anchors.led { Ok(None) } else { trail.known(store, &Chain::Leader).await.map(Some) };
        let (known, leads) = match (known, leads) {
            (Ok(Some(known)), Ok(leads)) => (known, leads),
            (Ok(None), Ok(_)) => return trail.lost(&Chain::Anchors),
            (Err(error), _) | (_, Err(error)) => {
                tracing::debug!(error = reasons(&error), "no anchor for now");
                return;
            }
        };
        match leads {
            Some(Some(leads)) => {
                trail.chains().remove(&Chain::Leader);
                let led = What::Led { name: trail.name.clone(), key: trail.key.public() };
                let text = Text { entries: vec![Entry::of_controller(led)], ..Text::default() };
                self.add(&Chain::Leader, leads, text, now);
            }
            Some(None) => trail.lost(&Chain::Leader),
            None => {}
        }
        let (mut handed_on, mut pruned, mut more) = (BTreeMap::new(), None, false);
        if (anchors.more || known.next.0.is_multiple_of(LOOK_EVERY))
            && let Some(outdated) = trail.outdated(store, &Chain::Anchors, known, MOST_ANCHORS, now, room).await
        {
            self.writes.extend(outdated.keys.into_iter().map(Write::delete));
            handed_on = outdated.heads;
            handed_on.retain(|chain, head| !trail.has_anchored_later(chain, *head));
            (pruned, more) = (Some(outdated.last), outdated.more);
        }
        let heads = self.own_heads(handed_on.len());
        let told = handed_on.into_iter().chain(heads.clone()).collect();
        let anchor = Some(Anchor { cluster: trail.cluster.clone(), heads: told });
        let text = Text { anchor, pruned, ..Text::default() };
        let (write, known) = trail.seal(&Chain::Anchors, known, text, now);
        self.writes.push(write);
        self.anchors = Some((anchors, Anchored { known, heads, more }));
    }

    /// What an anchor holds of what no other knows, what this commit tells before all.
    fn own_heads(&self, handed_on: usize) -> BTreeMap<Chain, Head> {
        let room = (2 * MOST_HEADS).saturating_sub(handed_on).clamp(LEAST_HEADS, MOST_HEADS);
        let ours = self.heads.iter().filter_map(|(chain, known)| Some((chain.clone(), known.head?)));
        let mut heads: BTreeMap<Chain, Head> = ours.collect();
        for (chain, head) in &self.trail.loose().heads {
            if heads.len() >= room {
                break;
            }
            heads.entry(chain.clone()).or_insert(*head);
        }
        heads
    }

    /// Takes in what became of the commit.
    pub(crate) fn close(self, committed: &Result<StoreRevision, CommitError>) {
        let Self { trail, writes: _, own: _, heads, anchors } = self;
        let mut loose = trail.loose();
        match committed {
            Ok(_) => {
                let mut chains = trail.chains();
                for (chain, known) in heads {
                    chains.insert(chain.clone(), known);
                    loose.doubtful.remove(&chain);
                    if let Some(head) = known.head {
                        loose.heads.insert(chain, head);
                    }
                }
                if let Some((mut anchors, Anchored { known, heads, more })) = anchors {
                    anchors.known = Some(known);
                    (anchors.led, anchors.more) = (true, more);
                    loose.heads.retain(|chain, head| heads.get(chain) != Some(head));
                }
                loose.since = Some(Instant::now());
                if !loose.is_empty() {
                    trail.told.notify_one();
                }
            }
            // How far they have come is read anew.
            Err(CommitError::Unknown(_)) => {
                loose.doubtful.extend(heads.into_iter().map(|(chain, _)| chain));
                loose.since = Some(Instant::now());
                trail.told.notify_one();
            }
            Err(_) => {}
        }
    }
}

impl<F: Fleet> Controller<F> {
    /// Anchors what no anchor knows yet, by a commit of its own; nothing where there is nothing.
    pub(crate) async fn anchor_the_rest(&self) {
        // An anchor holds so many heads at most.
        while !self.audit.loose().is_empty() {
            let page = match self.audit.last_page(&self.store, self.now()).await {
                Ok(Some(page)) => page,
                Ok(None) => return,
                Err(error) => return tracing::debug!(error = reasons(&error), "the trail is not anchored for now"),
            };
            let writes: Vec<Write> = page.writes().cloned().collect();
            let committed = self.commit(&writes).await;
            page.close(&committed);
            if let Err(error) = committed {
                return tracing::debug!(error = reasons(&error), "the trail is not anchored for now");
            }
        }
    }

    /// Anchors, once it is quiet, what was told in commits that had no anchor.
    pub(crate) async fn keep_anchored(&self, stop: &CancellationToken) {
        loop {
            tokio::select! {
                () = self.audit.told.notified() => {}
                () = stop.cancelled() => return,
            }
            loop {
                let (since, rests) = {
                    let loose = self.audit.loose();
                    (loose.since, loose.is_empty())
                };
                if rests {
                    break;
                }
                let enough = if self.moving.any() { QUIET_IN_ROLLOUTS } else { QUIET };
                let quiet = since.map_or(enough, |since| since.elapsed());
                if quiet >= enough {
                    self.anchor_the_rest().await;
                }
                // Where that failed, the store is away; it is tried again as often. And rollouts may end meanwhile.
                let wait = enough.checked_sub(quiet).filter(|wait| !wait.is_zero()).unwrap_or(QUIET);
                tokio::select! {
                    () = tokio::time::sleep(wait.min(QUIET)) => {}
                    () = stop.cancelled() => return,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many are behind it, and how many hours old it is.
    #[test]
    fn what_is_young_goes_only_where_there_are_very_many() {
        let now: Timestamp = "2026-12-01T00:00:00Z".parse().expect("a time");
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let goes = |behind: u64, age: u64, retention: u64| {
            let number = RecordNumber(7);
            let head = Head { number: RecordNumber(number.0 + behind), digest: RecordDigest::of(b"") };
            let known = Known { head: Some(head), next: head.number.next(), declared: None };
            let limits = Limits::new(now, hours(retention), MOST_RECORDS, known).expect("times");
            limits.let_go(number, now - jiff::SignedDuration::try_from(hours(age)).expect("a time"))
        };
        for (behind, age, retention, expected) in [
            (499, 25, 90 * 24, false),
            (500, 25, 90 * 24, true),
            (500, 23, 90 * 24, false),
            (4999, 23, 90 * 24, false),
            (5000, 0, 90 * 24, true),
            (1, 91 * 24, 90 * 24, true),
            (0, 91 * 24, 90 * 24, false),
            (500, 2, 1, true),
            (500, 0, 1, false),
        ] {
            assert_eq!(goes(behind, age, retention), expected, "{behind} behind it, {age} hours, kept for {retention}");
        }
    }

    /// However much old anchors hand on, one has room for some of its own, and never for more than the store takes.
    #[test]
    fn an_anchor_holds_so_many_heads() {
        let options = AuditOptions { key: SigningKey::from_seed([1; 32]), retention: YOUNG };
        let cluster = "0123456789abcdef".parse().expect("an id");
        let trail = Trail::new(options, "test".to_owned(), cluster, 1, Arc::default());
        let head = Head { number: RecordNumber(1), digest: RecordDigest::of(b"") };
        let chain = |number| Chain::from_path(&format!("hosts/h{number}")).expect("a label");
        trail.loose().heads.extend((0..2000).map(|number| (chain(number), head)));
        let page = Page { trail: &trail, writes: Vec::new(), own: 0, heads: Vec::new(), anchors: None };
        let own = [0, 500, 700, 1000, 3000].map(|handed_on| page.own_heads(handed_on).len());
        assert_eq!(own, [500, 500, 300, 2, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_anchors_may_come_at_once_and_then_one_a_second() {
        let mut anchors = Anchors { known: None, allowed: BURST, counted: Instant::now(), led: false, more: false };
        let mut come = || (0..20).filter(|_| anchors.take(false)).count();
        assert_eq!(come(), BURST as usize);
        tokio::time::advance(Duration::from_millis(2500)).await;
        assert_eq!(come(), 2);
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(come(), 1, "half seconds are not lost");
        tokio::time::advance(Duration::from_secs(1_000_000)).await;
        assert_eq!(come(), BURST as usize);
        assert!(anchors.take(true), "nothing else is under way");
    }
}
