//! Where in the history each key was put and deleted. Values are not here: they are read where they are asked for.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use super::model::{Bounds, KeyRange, LeaseNumber, Revision};

/// One change of a key. A key's changes since it came to be, up to its deletion, are one generation of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// When.
    pub(super) at: Revision,
    /// When its generation began.
    pub(super) created: i64,
    /// The how-manieth put of its generation; 0 is its deletion.
    pub(super) version: i64,
    /// The lease that it goes with.
    pub(super) lease: LeaseNumber,
}

impl Entry {
    pub(super) fn is_deletion(&self) -> bool {
        self.version == 0
    }
}

/// All keys that the history knows, with their changes, oldest first.
#[derive(Debug, Default)]
pub(super) struct Index {
    keys: BTreeMap<Bytes, Vec<Entry>>,
}

impl Index {
    /// A key as it was at a revision; nothing where it was not there.
    pub(super) fn at(&self, key: &[u8], revision: i64) -> Option<&Entry> {
        entry_at(self.keys.get(key)?, revision)
    }

    /// The keys of a range that were there at a revision, in order.
    pub(super) fn range<'a>(
        &'a self,
        keys: &'a KeyRange,
        revision: i64,
    ) -> impl Iterator<Item = (&'a Bytes, &'a Entry)> + 'a {
        let bounds = keys.bounds();
        let range = bounds.map(|bounds| self.keys.range::<[u8], Bounds<'_>>(bounds));
        let there = move |(key, entries): (&'a Bytes, &'a Vec<Entry>)| Some((key, entry_at(entries, revision)?));
        range.into_iter().flatten().filter_map(there)
    }

    /// Adds a change; the key as it is kept, and the lease of the pair before, for whom it is to be let go of.
    ///
    /// A key that is new is copied: what a request brings is a part of all that came with it, which would be kept too.
    pub(super) fn push(&mut self, key: &[u8], entry: Entry) -> (Bytes, LeaseNumber) {
        let one: Bounds<'_> = (Bound::Included(key), Bound::Included(key));
        if let Some((key, entries)) = self.keys.range_mut::<[u8], _>(one).next() {
            let before = entries.last().map_or(LeaseNumber::NONE, |last| last.lease);
            entries.push(entry);
            return (key.clone(), before);
        }
        let key = Bytes::copy_from_slice(key);
        self.keys.insert(key.clone(), vec![entry]);
        (key, LeaseNumber::NONE)
    }

    /// Takes a key's changes from a transaction on back.
    pub(super) fn undo(&mut self, key: &[u8], main: i64) {
        let Some(entries) = self.keys.get_mut(key) else { return };
        entries.retain(|entry| entry.at.main < main);
        if entries.is_empty() {
            self.keys.remove(key);
        }
    }

    /// Forgets what nobody can see at `revision` or later, and tells what that was.
    pub(super) fn compact(&mut self, revision: i64) -> Vec<Revision> {
        let mut gone = Vec::new();
        self.keys.retain(|_, entries| {
            // The last change up to there is what is seen there, unless it is a deletion.
            let seen = entries.partition_point(|entry| entry.at.main <= revision);
            let keep_from = match seen.checked_sub(1) {
                Some(last) if entries[last].is_deletion() => seen,
                Some(last) => last,
                None => 0,
            };
            gone.extend(entries.drain(..keep_from).map(|entry| entry.at));
            !entries.is_empty()
        });
        gone.sort_unstable();
        gone
    }

    /// Each key that is there now, with its last change.
    pub(super) fn living(&self) -> impl Iterator<Item = (&Bytes, &Entry)> {
        self.keys.iter().filter_map(|(key, entries)| Some((key, entry_at(entries, i64::MAX)?)))
    }

    /// How many changes it holds.
    pub(super) fn len(&self) -> usize {
        self.keys.values().map(Vec::len).sum()
    }
}

/// The last change up to a revision, unless it is a deletion.
fn entry_at(entries: &[Entry], revision: i64) -> Option<&Entry> {
    // Nearly always it is the last one of all.
    let last = match entries.last() {
        Some(last) if last.at.main <= revision => last,
        _ => &entries[entries.partition_point(|entry| entry.at.main <= revision).checked_sub(1)?],
    };
    (!last.is_deletion()).then_some(last)
}
