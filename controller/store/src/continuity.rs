//! Continuity: whether a watch has told everything.
//!
//! etcd promises that between two events none is missing, and has broken that on streams that lived on
//! (etcd-io/etcd#17529). Whoever listens can tell: each write to the store is a revision, so where every key is watched
//! that anybody writes, a revision of which nothing was told is one that was missed. The store is asked then, for keys
//! alone, what has changed since. Where others write elsewhere in the same etcd, or we do so ourselves outside of what is
//! watched, there are such gaps all the time, so it is asked a few times a minute at most.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use etcd_client::GetOptions;
use tokio::time::Instant;

use crate::call::CallError;
use crate::connect::Store;
use crate::entry::StoreRevision;
use crate::scope::{KeyRange, Scope};

/// The store is asked so often at most in [`WINDOW`]: beside writes of others there is always a gap, and an etcd reads
/// through the whole scope for the answer.
const ASKS: u32 = 5;

/// The time of [`ASKS`].
const WINDOW: Duration = Duration::from_secs(60);

/// So many keys may have changed before it is asked all the same, so that not many more need be remembered.
const MOST_KEYS: usize = 4096;

/// And so long after it was asked last: it may not answer.
const FULL_AGAIN: Duration = Duration::from_secs(10);

/// So many keys are asked for one by one; where there are more, all keys are read.
const MOST_SINGLE: usize = 64;

/// A message that may overtake events is believed once nothing else has come for so long.
const OVERTAKES: Duration = Duration::from_secs(5);

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    /// It was put; it is there since then.
    Put {
        /// When it was put where there was none.
        created: StoreRevision,
    },
    /// It is gone.
    Deleted,
}

/// How a key was left by what was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// It is there, put at that revision.
    There(StoreRevision),
    Gone,
}

/// What was told of a scope since a revision.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    keys: BTreeMap<Vec<u8>, Left>,
    /// By how many there are more keys than before.
    grown: i64,
    /// Keys that were deleted, of which nothing was told before that: they have to have been there at that revision, or
    /// their creation was missed.
    taken: BTreeSet<Vec<u8>>,
    /// Something can only have become so by what was not told.
    lacks: bool,
}

impl Told {
    fn take(&mut self, whole: StoreRevision, revision: StoreRevision, key: &[u8], deed: Deed) {
        let before = self.keys.get(key).copied();
        let there = matches!(before, Some(Left::There(_)));
        let left = match deed {
            Deed::Put { created } if created == revision => {
                self.lacks |= there;
                self.grown += 1;
                Left::There(revision)
            }
            Deed::Put { created } => {
                // Of what was created since, that was to be told first.
                self.lacks |= created > whole && !there;
                Left::There(revision)
            }
            Deed::Deleted => {
                self.lacks |= before == Some(Left::Gone);
                if before.is_none() {
                    self.taken.insert(key.to_owned());
                }
                self.grown -= 1;
                Left::Gone
            }
        };
        match self.keys.get_mut(key) {
            Some(known) => *known = left,
            None => drop(self.keys.insert(key.to_owned(), left)),
        }
    }

    /// Whether the keys that are there are just these.
    fn is(&self, put: &BTreeMap<Vec<u8>, StoreRevision>) -> bool {
        let there = self.keys.iter().filter_map(|(key, left)| match left {
            Left::There(revision) => Some((key, revision)),
            Left::Gone => None,
        });
        there.eq(put)
    }
}

/// Between which two revisions something may have been missed: after the first, and no later than the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) since: StoreRevision,
    pub(crate) until: StoreRevision,
}

/// What the store says of a gap.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changed {
    /// The keys that were put in it and are there, and when last.
    put: BTreeMap<Vec<u8>, StoreRevision>,
    /// By how many there are more keys than before.
    grown: i64,
}

/// The last sign of life by which the store was further than what was told.
#[derive(Debug, Clone, Copy)]
struct Ahead {
    store: StoreRevision,
    told: StoreRevision,
    heard: Instant,
}

/// How often the store was asked since when, and when last.
#[derive(Debug, Clone, Copy)]
struct Asked {
    begun: Instant,
    times: u32,
    last: Instant,
}

/// How much of what a watch has told is known to be all there was to tell.
#[derive(Debug)]
pub(crate) struct Continuity {
    /// Nothing up to here was missed.
    whole: StoreRevision,
    /// All up to here was told, if the watch is to be believed.
    told: StoreRevision,
    /// What was told since `whole`; only where there is a gap.
    since: Option<Told>,
    ahead: Option<Ahead>,
    asked: Option<Asked>,
    /// Up to here nothing was missed when it was asked last.
    closed: StoreRevision,
}

impl Continuity {
    /// After a list at a revision.
    pub(crate) fn listed_at(listed: StoreRevision) -> Self {
        Self { whole: listed, told: listed, since: None, ahead: None, asked: None, closed: listed }
    }

    /// Everything was listed anew.
    pub(crate) fn relisted(&mut self, listed: StoreRevision) {
        // A store that lists and does not answer otherwise is not asked more often for it.
        *self = Self { asked: self.asked, ..Self::listed_at(listed) };
    }

    /// Whether the store was asked beyond a revision already: what comes of it now is late, and was gone again by then.
    pub(crate) fn is_past(&self, revision: StoreRevision) -> bool {
        revision <= self.closed
    }

    /// Another watch goes on from a revision; what was told after that, and not believed, it tells again.
    pub(crate) fn resumes(&mut self, from: StoreRevision) {
        self.ahead = None;
        if from < self.told || from == self.whole {
            (self.whole, self.told, self.since) = (from, from, None);
        }
    }

    /// Whether everything that was told is known to be all there was to tell.
    pub(crate) fn is_whole(&self) -> bool {
        self.since.is_none()
    }

    /// Whether there is so much that is not known to be whole that the store is to be asked now.
    pub(crate) fn is_full(&self) -> bool {
        self.since.as_ref().is_some_and(|told| told.keys.len() > MOST_KEYS)
    }

    /// The watch tells of a key outside of the scope.
    pub(crate) fn passes(&mut self, revision: StoreRevision) {
        self.comes_to(revision, revision.0.saturating_sub(1));
    }

    /// The watch tells of a key in the scope.
    pub(crate) fn tells(&mut self, revision: StoreRevision, key: &[u8], deed: Deed) {
        self.passes(revision);
        if let Some(told) = &mut self.since {
            told.take(self.whole, revision, key, deed);
        }
    }

    /// The watch says that there is nothing more up to a revision.
    pub(crate) fn reaches(&mut self, revision: StoreRevision) {
        self.comes_to(revision, revision.0);
    }

    /// The store says how far it is, by a message that may overtake what the watch has to tell.
    pub(crate) fn stands(&mut self, store: StoreRevision, now: Instant) {
        let still = self.ahead.filter(|ahead| ahead.told == self.told);
        if still.is_some_and(|ahead| now.duration_since(ahead.heard) >= OVERTAKES) {
            self.since.get_or_insert_default();
        }
        let first = Ahead { store, told: self.told, heard: now };
        self.ahead = (store > self.told).then(|| still.unwrap_or(first));
    }

    fn comes_to(&mut self, revision: StoreRevision, silent: u64) {
        if silent > self.told.0 {
            self.since.get_or_insert_default();
        }
        self.told = self.told.max(revision);
        if self.since.is_none() {
            self.whole = self.told;
        }
    }

    /// What is to be asked now, if anything. It counts as asked.
    pub(crate) fn ask(&mut self, now: Instant) -> Option<Gap> {
        self.since.as_ref()?;
        let none = Asked { begun: now, times: 0, last: now };
        let asked = self.asked.filter(|asked| now.duration_since(asked.begun) < WINDOW).unwrap_or(none);
        let again = self.is_full() && now.duration_since(asked.last) >= FULL_AGAIN;
        if asked.times >= ASKS && !again {
            return None;
        }
        self.asked = Some(Asked { times: asked.times + 1, last: now, ..asked });
        let behind = |ahead: &Ahead| ahead.told == self.told && now.duration_since(ahead.heard) >= OVERTAKES;
        let until = self.ahead.filter(behind).map_or(self.told, |ahead| ahead.store);
        Some(Gap { since: self.whole, until })
    }

    /// Keys that were there before the gap, if nothing was missed; `None` where something was for sure.
    fn taken(&self) -> Option<&BTreeSet<Vec<u8>>> {
        self.since.as_ref().filter(|told| !told.lacks).map(|told| &told.taken)
    }

    /// The store has said what changed in a gap: whether all of it was told.
    fn closes(&mut self, gap: Gap, changed: &Changed) -> bool {
        let told = self.since.take().unwrap_or_default();
        self.ahead = None;
        (self.whole, self.closed) = (gap.until, gap.until);
        self.told = self.told.max(gap.until);
        !told.lacks && told.is(&changed.put) && told.grown == changed.grown
    }

    /// All up to here was told.
    pub(crate) fn told(&self) -> StoreRevision {
        self.told
    }

    /// Asks the store what changed in a gap, and whether all of it was told. Two round trips for each range of the scope
    /// and one for each key that is gone, up to a number; values are not sent.
    pub(crate) async fn close(&mut self, store: &Store, scope: &Scope, gap: Gap) -> Result<bool, CallError> {
        let ranges = scope.ranges(store.prefix());
        let Some(taken) = self.taken() else { return Ok(false) };
        if !store.had(taken, &ranges, gap.since).await? {
            return Ok(false);
        }
        let mut changed = Changed::default();
        for range in &ranges {
            let before = store.count(range, gap.since).await?;
            let newer = gap.since.as_etcd().saturating_add(1);
            let options = options(range, gap.until).with_keys_only().with_min_mod_revision(newer);
            // The count is of all keys, however few of them are newer.
            let after = store.get_raw(&range.start, &options).await?;
            changed.grown += after.count() - before;
            let pairs = after.kvs().iter();
            changed
                .put
                .extend(pairs.map(|pair| (pair.key().to_owned(), StoreRevision::from_etcd(pair.mod_revision()))));
        }
        Ok(self.closes(gap, &changed))
    }
}

impl Store {
    /// Whether all of these keys, which are in these ranges, were there.
    async fn had(&self, keys: &BTreeSet<Vec<u8>>, ranges: &[KeyRange], at: StoreRevision) -> Result<bool, CallError> {
        if keys.len() <= MOST_SINGLE {
            for key in keys {
                if self.count(&KeyRange::single(key), at).await? == 0 {
                    return Ok(false);
                }
            }
            return Ok(true);
        }
        let mut found = 0;
        for range in ranges {
            let answer = self.get_raw(&range.start, &options(range, at).with_keys_only()).await?;
            found += answer.kvs().iter().filter(|pair| keys.contains(pair.key())).count();
        }
        Ok(found == keys.len())
    }

    /// How many keys there were in a range.
    async fn count(&self, range: &KeyRange, at: StoreRevision) -> Result<i64, CallError> {
        Ok(self.get_raw(&range.start, &options(range, at).with_count_only()).await?.count())
    }
}

fn options(range: &KeyRange, at: StoreRevision) -> GetOptions {
    GetOptions::new().with_range(range.end.clone()).with_revision(at.as_etcd())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(revision: u64) -> StoreRevision {
        StoreRevision(revision)
    }

    fn changed<const N: usize>(put: [(&str, u64); N], grown: i64) -> Changed {
        Changed { put: put.map(|(key, revision)| (key.into(), at(revision))).into(), grown }
    }

    /// One of which all up to 10 was told.
    fn continuity() -> Continuity {
        Continuity::listed_at(at(10))
    }

    fn create(continuity: &mut Continuity, revision: u64, key: &str) {
        continuity.tells(at(revision), key.as_bytes(), Deed::Put { created: at(revision) });
    }

    fn change(continuity: &mut Continuity, revision: u64, key: &str, created: u64) {
        continuity.tells(at(revision), key.as_bytes(), Deed::Put { created: at(created) });
    }

    fn delete(continuity: &mut Continuity, revision: u64, key: &str) {
        continuity.tells(at(revision), key.as_bytes(), Deed::Deleted);
    }

    #[test]
    fn revision_by_revision_nothing_is_asked() {
        let (mut continuity, now) = (continuity(), Instant::now());
        for revision in 11..20 {
            change(&mut continuity, revision, "a", 3);
            // Of one revision there may be several.
            change(&mut continuity, revision, "b", 4);
            continuity.passes(at(revision));
            continuity.stands(at(revision), now);
        }
        continuity.reaches(at(19));
        assert!(continuity.is_whole() && continuity.ask(now).is_none());
        assert!(continuity.is_past(at(10)) && !continuity.is_past(at(11)));
    }

    #[test]
    fn what_was_told_on_both_sides_of_a_gap_is_compared() {
        for (found, whole) in [
            (changed([("b", 13), ("c", 15)], 1), true),
            // Something else was put in the gap, or one of these was.
            (changed([("a", 12), ("b", 13), ("c", 15)], 1), false),
            (changed([("b", 13), ("c", 14)], 1), false),
            // Something was deleted there.
            (changed([("b", 13), ("c", 15)], 0), false),
            (changed([("b", 13)], 0), false),
        ] {
            let mut continuity = continuity();
            create(&mut continuity, 11, "a");
            create(&mut continuity, 13, "b");
            create(&mut continuity, 14, "d");
            delete(&mut continuity, 15, "d");
            change(&mut continuity, 15, "c", 2);
            let gap = continuity.ask(Instant::now()).expect("12 is missing");
            assert_eq!(gap, Gap { since: at(11), until: at(15) });
            assert!(continuity.taken().is_some_and(BTreeSet::is_empty));
            assert_eq!(continuity.closes(gap, &found), whole, "{found:?}");
            assert!(continuity.is_past(at(15)));
        }
    }

    /// By numbers alone a lost creation would make up for a lost deletion.
    #[test]
    fn what_was_lost_twice_does_not_cancel_out() {
        // Of 12 nothing was told: x was created, and y deleted.
        let mut lost = continuity();
        change(&mut lost, 13, "x", 12);
        assert!(lost.ask(Instant::now()).is_some());
        assert_eq!(lost.taken(), None);

        // What was deleted at 13 has to have been there at 10, and was not.
        let mut lost = continuity();
        delete(&mut lost, 13, "x");
        assert!(lost.ask(Instant::now()).is_some());
        assert_eq!(lost.taken(), Some(&[b"x".to_vec()].into()));

        for first in [true, false] {
            let mut lost = continuity();
            if first {
                change(&mut lost, 12, "x", 2);
            }
            delete(&mut lost, 13, "x");
            assert!(lost.taken().is_some());
            delete(&mut lost, 16, "x");
            assert_eq!(lost.taken(), None, "it was created between");
        }
    }

    #[test]
    fn beside_writes_of_others_it_is_asked_now_and_then() {
        let (mut continuity, begun) = (continuity(), Instant::now());
        change(&mut continuity, 12, "a", 2);
        let gap = continuity.ask(begun).expect("the first gap is looked into at once");
        assert!(continuity.closes(gap, &changed([("a", 12)], 0)));
        for revision in [14, 16, 18, 20] {
            continuity.reaches(at(revision));
            let gap = continuity.ask(begun + WINDOW / 3).expect("and so are a few more");
            assert!(continuity.closes(gap, &changed([], 0)));
        }
        continuity.reaches(at(22));
        assert_eq!(continuity.ask(begun + WINDOW / 2), None);
        assert_eq!(continuity.ask(begun + WINDOW), Some(Gap { since: at(20), until: at(22) }));
        for number in 0..=MOST_KEYS {
            create(&mut continuity, 23, &number.to_string());
        }
        assert!(continuity.is_full());
        let asks = (0..30).filter(|seconds| continuity.ask(begun + WINDOW + Duration::from_secs(*seconds)).is_some());
        // Four more were left of that minute.
        assert_eq!(asks.count(), 4 + 2, "no more than so many keys are kept, and a store that is silent is left alone");
    }

    #[test]
    fn what_was_not_believed_is_told_again() {
        let mut continuity = continuity();
        create(&mut continuity, 12, "a");
        assert!(!continuity.is_whole());
        continuity.resumes(at(10));
        assert!(continuity.is_whole());
        create(&mut continuity, 11, "b");
        create(&mut continuity, 12, "a");
        assert_eq!(continuity.ask(Instant::now()), None);
        let now = Instant::now();
        continuity.stands(at(14), now);
        continuity.stands(at(14), now + OVERTAKES);
        assert!(!continuity.is_whole());
        continuity.resumes(at(12));
        assert!(continuity.is_whole(), "what comes after 12 is told again");
    }

    #[test]
    fn a_store_that_is_ahead_for_a_while_has_not_told_everything() {
        let (now, later) = (Instant::now(), Instant::now() + 2 * OVERTAKES);
        let mut lost = continuity();
        lost.stands(at(13), now);
        lost.stands(at(13), now);
        assert_eq!(lost.ask(now), None, "it may be on its way");
        change(&mut lost, 11, "a", 2);
        lost.stands(at(13), later);
        assert_eq!(lost.ask(later), None, "some of it came");
        lost.stands(at(14), later + OVERTAKES);
        let gap = lost.ask(later + OVERTAKES).expect("nothing came since");
        assert_eq!(gap, Gap { since: at(11), until: at(13) });
        assert!(!lost.closes(gap, &changed([("b", 12)], 0)));

        let mut others = continuity();
        others.stands(at(13), now);
        others.stands(at(13), later);
        let gap = others.ask(later).expect("nothing came since");
        assert!(others.closes(gap, &changed([], 0)));
        assert_eq!(others.told(), at(13));
        others.stands(at(13), later);
        assert!(others.is_whole());
    }
}
