//! Reads: ranges, and the history that watches follow.

use std::cmp::Reverse;

use bytes::Bytes;

use super::backend::BackendError;
use super::engine::Engine;
use super::index::{Entry, Index};
use super::model::{Change, KeyValue, Revision};
use super::request::{Detail, Found, MOST_ANSWER, Range, Refusal, SortBy, SortOrder};

/// How often a range begins anew because what it was about to read was compacted meanwhile. Compactions are minutes
/// apart.
const TRIES: usize = 3;

/// Values that are read between two looks at how much it is.
const AT_ONCE: usize = 256;

/// Bytes that a pair takes in an answer beside its key and value, about.
const PAIR: usize = 64;

/// How many bytes may be answered yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room(usize);

impl Room {
    /// As much as one answer may have.
    pub(super) fn whole() -> Self {
        Self(MOST_ANSWER)
    }

    /// Takes some of it.
    ///
    /// # Errors
    /// [`Refusal::AnswerTooLarge`], where there is not so much.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.0 = self.0.checked_sub(bytes).ok_or(Refusal::AnswerTooLarge)?;
        Ok(())
    }

    /// Takes what a pair needs.
    ///
    /// # Errors
    /// As [`Room::take`].
    pub(super) fn take_pair(&mut self, pair: &KeyValue) -> Result<(), Refusal> {
        self.take(PAIR + pair.key.len() + pair.value.len())
    }

    /// Takes what it costs to look at so many keys.
    ///
    /// # Errors
    /// As [`Room::take`].
    pub(super) fn take_look(&mut self, keys: usize) -> Result<(), Refusal> {
        self.take(keys.saturating_mul(PAIR))
    }

    /// Reads values, as many as there is room for.
    ///
    /// # Errors
    /// As [`Room::take`], before more is read than a few too many; and when they cannot be read.
    pub(super) fn read(
        &mut self,
        at: &[Revision],
        values: impl Fn(&[Revision]) -> Result<Vec<Bytes>, BackendError>,
    ) -> Result<Vec<Bytes>, Unread> {
        let mut read = Vec::with_capacity(at.len());
        for at in at.chunks(AT_ONCE) {
            let some = values(at).map_err(Unread::Backend)?;
            self.take(some.iter().map(Bytes::len).sum()).map_err(Unread::Refused)?;
            read.extend(some);
        }
        Ok(read)
    }
}

/// Why values were not read.
#[derive(Debug)]
pub(super) enum Unread {
    Backend(BackendError),
    Refused(Refusal),
}

impl From<Unread> for Refusal {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Backend(error) => error.into(),
            Unread::Refused(refusal) => refusal,
        }
    }
}

/// A piece of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// The changes, oldest first; each transaction is whole.
    pub changes: Vec<Change>,
    /// From where to go on: everything before is in what was read.
    pub next: i64,
}

/// Which pairs a range is about, before their values are read.
pub(super) struct Selection {
    keys: Vec<(Bytes, Entry)>,
    count: i64,
}

impl Selection {
    /// How many keys were looked at.
    pub(super) fn looked_at(&self) -> usize {
        usize::try_from(self.count).unwrap_or(usize::MAX)
    }
}

/// Finds what a range asks for, in a store whose last revision is `now`.
pub(super) fn select(index: &Index, range: &Range, now: i64, compacted: i64) -> Result<Selection, Refusal> {
    if range.revision > now {
        return Err(Refusal::FutureRevision);
    }
    let revision = if range.revision <= 0 { now } else { range.revision };
    if revision < compacted {
        return Err(Refusal::Compacted);
    }
    // What is sorted or picked out has to be seen whole first. One more than the limit tells whether there are more.
    let whole = range.order != SortOrder::None || range.modified.is_bounded() || range.created.is_bounded();
    let most = match usize::try_from(range.limit) {
        Ok(limit) if limit > 0 && !whole => limit.saturating_add(1),
        _ => usize::MAX,
    };
    let mut keys = Vec::new();
    let mut count = 0;
    for (key, entry) in index.range(&range.keys, revision) {
        count += 1;
        if range.detail != Detail::Count && keys.len() < most {
            keys.push((key.clone(), *entry));
        }
    }
    keys.retain(|(_, entry)| range.modified.admits(entry.at.main) && range.created.admits(entry.created));
    Ok(Selection { keys, count })
}

/// Brings the values, sorts and cuts.
pub(super) fn complete(
    range: &Range,
    selection: Selection,
    room: &mut Room,
    values: impl Fn(&[Revision]) -> Result<Vec<Bytes>, BackendError>,
) -> Result<Found, Unread> {
    let Selection { mut keys, count } = selection;
    let limit = usize::try_from(range.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let order = match range.order {
        // etcd sorts by anything but the key even where no order is asked for.
        SortOrder::None if range.sort_by != SortBy::Key => SortOrder::Ascending,
        order => order,
    };
    let by_value = order != SortOrder::None && range.sort_by == SortBy::Value;
    let more = keys.len() > limit;
    if !by_value {
        sort(&mut keys, order, |(key, entry)| match range.sort_by {
            SortBy::Version => (entry.version, Bytes::new()),
            SortBy::Created => (entry.created, Bytes::new()),
            SortBy::Modified => (entry.at.main, Bytes::new()),
            SortBy::Key | SortBy::Value => (0, key.clone()),
        });
        // Values that nobody gets are not read.
        keys.truncate(limit);
    }
    room.take(keys.iter().map(|(key, _)| PAIR + key.len()).sum()).map_err(Unread::Refused)?;
    let read = match (range.detail, by_value) {
        (Detail::Pairs, _) | (_, true) => {
            room.read(&keys.iter().map(|(_, entry)| entry.at).collect::<Vec<_>>(), values)?
        }
        _ => vec![Bytes::new(); keys.len()],
    };
    let mut pairs: Vec<KeyValue> =
        keys.into_iter().zip(read).map(|((key, entry), value)| pair(key, entry, value)).collect();
    if by_value {
        sort(&mut pairs, order, |pair| pair.value.clone());
        pairs.truncate(limit);
        if range.detail == Detail::Keys {
            pairs.iter_mut().for_each(|pair| pair.value.clear());
        }
    }
    Ok(Found { pairs, more, count })
}

fn sort<T, K: Ord>(items: &mut [T], order: SortOrder, key: impl Fn(&T) -> K) {
    match order {
        SortOrder::None => {}
        SortOrder::Ascending => items.sort_by_key(key),
        SortOrder::Descending => items.sort_by_key(|item| Reverse(key(item))),
    }
}

pub(super) fn pair(key: Bytes, entry: Entry, value: Bytes) -> KeyValue {
    let Entry { at, created, version, lease } = entry;
    KeyValue { key, value, created, modified: at.main, version, lease }
}

impl Engine {
    /// Reads pairs; the store's revision then.
    ///
    /// # Errors
    /// [`Refusal::EmptyKey`], [`Refusal::Compacted`], [`Refusal::FutureRevision`], [`Refusal::AnswerTooLarge`],
    /// [`Refusal::Broken`].
    pub fn range(&self, range: &Range) -> Result<(i64, Found), Refusal> {
        if range.keys.begin().is_empty() {
            return Err(Refusal::EmptyKey);
        }
        let mut gone = None;
        for _ in 0..TRIES {
            let (now, selection) = {
                let inner = self.inner();
                (inner.committed, select(&inner.index, range, inner.committed, inner.compacted)?)
            };
            match complete(range, selection, &mut Room::whole(), |at| self.backend().values(at)) {
                Ok(found) => return Ok((now, found)),
                Err(Unread::Backend(BackendError::Gone(at))) => gone = Some(at),
                Err(error) => return Err(error.into()),
            }
        }
        Err(BackendError::Damaged(format!("no value of {:?}", gone.unwrap_or_default())).into())
    }

    /// The changes from a revision on, oldest first: at most so many, or the first few that have so many bytes, and
    /// each transaction whole. Nothing where there is none yet.
    ///
    /// # Errors
    /// [`Refusal::Compacted`], where some of them are forgotten; [`Refusal::Broken`].
    pub fn history(&self, from: i64, most: usize, bytes: usize) -> Result<History, Refusal> {
        let (committed, recent) = {
            let inner = self.inner();
            (inner.committed, inner.recent.since(from, most.max(1), bytes))
        };
        let mut changes = match recent {
            Some(changes) => changes,
            None => self.backend().changes(from, most.max(1), bytes)?,
        };
        let compacted = self.compacted();
        if from < compacted {
            return Err(Refusal::Compacted);
        }
        // What is on the disk already may not have been said to be there.
        changes.retain(|change| change.at.main <= committed);
        let next = changes.last().map_or((committed + 1).max(from), |last| last.at.main + 1);
        // A deletion that is forgotten may not have left the disk yet.
        changes.retain(|change| !change.deleted || change.at.main > compacted);
        Ok(History { changes, next })
    }

    /// Whether the changes from a revision on are at hand, so that telling them reads nothing from the disk.
    pub fn is_recent(&self, from: i64) -> bool {
        self.inner().recent.has(from)
    }

    /// A pair as it was before a change; nothing where it was not there, or where that is forgotten.
    ///
    /// # Errors
    /// [`Refusal::Broken`].
    pub fn before(&self, change: &Change) -> Result<Option<KeyValue>, Refusal> {
        let revision = change.at.main - 1;
        let entry = {
            let inner = self.inner();
            if revision < inner.compacted {
                return Ok(None);
            }
            inner.index.at(&change.pair.key, revision).copied()
        };
        let Some(entry) = entry else { return Ok(None) };
        match self.backend().values(&[entry.at]) {
            Ok(mut values) => Ok(values.pop().map(|value| pair(change.pair.key.clone(), entry, value))),
            Err(BackendError::Gone(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
