//! The engine: takes requests in batches, each batch one commit, and takes back what was not written.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use bytes::Bytes;

use super::backend::{Backend, BackendError, Batch, Meta};
use super::check::check;
use super::compaction::left_over;
use super::index::{Entry, Index};
use super::lease::{Lease, LeaseDraft, Leases, SHORTEST_LEASE};
use super::model::{KeyValue, LeaseNumber, Revision};
use super::read::{self, Room};
use super::recent::Recent;
use super::request::{Delete, Field, Found, LONGEST_LEASE, MOST_LEASES, Outcome, Put, Range, Refusal, Txn};

/// Bytes that a request takes beside its keys and values, about.
const REQUEST_ALLOWANCE: usize = 256;

/// Something that changes the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Writes a pair.
    Put(Put),
    /// Deletes pairs.
    Delete(Delete),
    /// Does several things at once.
    Txn(Txn),
    /// Makes a lease with a number that the caller has chosen, for so many seconds.
    Grant(LeaseNumber, i64),
    /// Ends a lease, and deletes what goes with it.
    Revoke(LeaseNumber),
    /// The same where nobody has kept it in time; where it was granted anew meanwhile, it is not found.
    Expire(LeaseNumber),
}

/// A request, and who makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// What to do.
    pub request: Request,
    /// Who asks, where that is known: kept with what is written.
    pub author: Option<Arc<str>>,
}

impl Order {
    /// What can be told without the store.
    fn check(&self) -> Result<(), Refusal> {
        match &self.request {
            Request::Txn(txn) => check(txn),
            _ => Ok(()),
        }
    }

    /// Bytes of keys and values in it, and an allowance for everything else, for whoever keeps many of them.
    pub fn bytes(&self) -> usize {
        REQUEST_ALLOWANCE
            + match &self.request {
                Request::Put(put) => put.bytes(),
                Request::Delete(delete) => delete.keys.bytes(),
                Request::Txn(txn) => txn.bytes(),
                Request::Grant(..) | Request::Revoke(_) | Request::Expire(_) => 0,
            }
    }
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The store's revision then.
    pub revision: i64,
    /// The answer.
    pub reply: Reply,
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The pair before, where that was asked for and there was one.
    Put(Option<KeyValue>),
    /// How many were deleted, and which where that was asked for.
    Delete(i64, Vec<KeyValue>),
    /// What was done.
    Txn(Outcome),
    /// Seconds that the lease lasts.
    Granted(i64),
    /// The lease has ended.
    Revoked,
    /// History is forgotten.
    Compacted,
}

/// The store: many read, one writes at a time.
#[derive(Debug)]
pub struct Engine {
    inner: RwLock<Inner>,
    writer: Mutex<Writer>,
    backend: Box<dyn Backend>,
}

/// What readers see. While a batch is being written the index is ahead of `committed`, which is what they read at.
#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) index: Index,
    pub(super) leases: Leases,
    pub(super) committed: i64,
    pub(super) compacted: i64,
    pub(super) recent: Recent,
}

/// What only the writer knows.
#[derive(Debug, Default)]
pub(super) struct Writer {
    /// Changes that are forgotten, and still on the disk.
    pub(super) forgotten: Vec<Revision>,
}

impl Engine {
    /// Reads what the backend holds. Each lease lasts its whole time again from `now` on.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged.
    pub fn open(backend: Box<dyn Backend>, now: Duration) -> Result<Self, BackendError> {
        let mut inner = Inner::default();
        let mut last = 0;
        let state = backend.load(&mut |at, Meta { key, created, version, lease, author: _ }| {
            inner.index.push(&key, Entry { at, created, version, lease });
            last = last.max(at.main);
        })?;
        // etcd's first revision is 1, before anything was written.
        inner.committed = last.max(state.revision).max(1);
        inner.recent = Recent::after(inner.committed);
        inner.compacted = state.compacted;
        inner.leases.all = state.leases.iter().map(|(number, seconds)| (*number, Lease::new(*seconds, now))).collect();
        let forgotten = left_over(&mut inner);
        let Inner { index, leases, .. } = &mut inner;
        leases.attach(index.living().map(|(key, entry)| (key, entry.lease)));
        Ok(Self { inner: RwLock::new(inner), writer: Mutex::new(Writer { forgotten }), backend })
    }

    /// Does requests in their order, and writes what they change in one commit. What was refused has changed nothing;
    /// where the commit fails, nothing has changed, and every one is told so.
    ///
    /// Leases that are granted last from `now` on.
    pub fn write(&self, orders: &[Order], now: Duration) -> Vec<Result<Done, Refusal>> {
        // Before anybody has to wait for it.
        let checked: Vec<_> = orders.iter().map(Order::check).collect();
        let _alone = self.alone();
        let (batch, leases, revision, answers) = {
            let mut inner = self.inner_mut();
            let revision = inner.committed;
            let mut draft = Draft::new(&mut inner, self.backend(), revision, now);
            let run = |(order, checked): (&Order, Result<_, _>)| checked.and_then(|()| draft.run(order));
            let answers: Vec<_> = orders.iter().zip(checked).map(run).collect();
            (draft.batch, draft.leases, draft.revision, answers)
        };
        if batch.is_empty() {
            return answers;
        }
        match self.backend.commit(&batch) {
            Ok(()) => {
                let mut inner = self.inner_mut();
                inner.recent.push(&batch, revision);
                inner.committed = revision;
                inner.leases.take(leases);
                answers
            }
            Err(error) => {
                self.take_back(&batch);
                let refusal = Refusal::from(error);
                answers.into_iter().map(|answer| answer.and_then(|_| Err(refusal.clone()))).collect()
            }
        }
    }

    /// A batch was not written: everything is as it was before.
    fn take_back(&self, batch: &Batch) {
        let mut inner = self.inner_mut();
        let Inner { index, committed, .. } = &mut *inner;
        for (meta, _) in batch.changes.values() {
            index.undo(&meta.key, *committed + 1);
        }
    }

    /// The store's revision: the last that would outlive a power cut.
    pub fn revision(&self) -> i64 {
        self.inner().committed
    }

    /// How many changes there are, those before others of the same key included, and how many keys now.
    pub fn size(&self) -> (usize, usize) {
        let inner = self.inner();
        (inner.index.len(), inner.index.living().count())
    }

    pub(super) fn backend(&self) -> &dyn Backend {
        self.backend.as_ref()
    }

    pub(super) fn alone(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn inner(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn inner_mut(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A batch that is being made.
pub(super) struct Draft<'a> {
    pub(super) inner: &'a mut Inner,
    backend: &'a dyn Backend,
    batch: Batch,
    leases: LeaseDraft,
    /// The store's revision after what the batch has so far.
    pub(super) revision: i64,
    /// How many changes the request has made that is being done.
    changed: i64,
    author: Option<Arc<str>>,
    /// How much the request that is being done may read yet.
    room: Room,
    now: Duration,
}

impl<'a> Draft<'a> {
    fn new(inner: &'a mut Inner, backend: &'a dyn Backend, revision: i64, now: Duration) -> Self {
        let (batch, leases) = (Batch::default(), LeaseDraft::default());
        let room = Room::whole();
        Self { inner, backend, batch, leases, revision, changed: 0, author: None, room, now }
    }

    /// Does one request, whole or not at all.
    fn run(&mut self, order: &Order) -> Result<Done, Refusal> {
        self.changed = 0;
        self.room = Room::whole();
        self.author.clone_from(&order.author);
        match self.request(&order.request) {
            Ok(reply) => {
                self.revision = self.current();
                Ok(Done { revision: self.revision, reply })
            }
            Err(refusal) => {
                self.take_back();
                Err(refusal)
            }
        }
    }

    fn request(&mut self, request: &Request) -> Result<Reply, Refusal> {
        match request {
            Request::Put(put) => {
                self.check_put(put)?;
                Ok(Reply::Put(self.put(put)?))
            }
            Request::Delete(delete) => {
                if delete.keys.begin().is_empty() {
                    return Err(Refusal::EmptyKey);
                }
                let (count, deleted) = self.delete(delete)?;
                Ok(Reply::Delete(count, deleted))
            }
            Request::Txn(txn) => self.txn(txn).map(Reply::Txn),
            Request::Grant(number, seconds) => self.grant(*number, *seconds).map(Reply::Granted),
            Request::Revoke(number) => self.revoke(*number).map(|()| Reply::Revoked),
            Request::Expire(number) => {
                let now = self.now;
                self.lease(*number).filter(|lease| lease.ends <= now).ok_or(Refusal::LeaseNotFound)?;
                self.revoke(*number).map(|()| Reply::Revoked)
            }
        }
    }

    /// What one request has done so far is taken out of the batch again.
    fn take_back(&mut self) {
        let main = self.revision + 1;
        let undone = self.batch.changes.split_off(&Revision { main, sub: 0 });
        for (meta, _) in undone.values() {
            let left = self.inner.index.at(&meta.key, i64::MAX).map_or(LeaseNumber::NONE, |entry| entry.lease);
            self.inner.index.undo(&meta.key, main);
            let before = self.inner.index.at(&meta.key, i64::MAX).map_or(LeaseNumber::NONE, |entry| entry.lease);
            self.leases.moved(&meta.key, left, before);
        }
    }

    /// The revision that reads in this request see: its own, once it has changed something.
    pub(super) fn current(&self) -> i64 {
        self.revision + i64::from(self.changed > 0)
    }

    pub(super) fn entry(&self, key: &[u8]) -> Option<Entry> {
        self.inner.index.at(key, i64::MAX).copied()
    }

    pub(super) fn values(&self, at: &[Revision]) -> Result<Vec<Bytes>, BackendError> {
        let fresh = |at: &Revision| self.batch.changes.get(at).map(|(_, value)| value.clone());
        if self.batch.changes.is_empty() {
            return self.backend.values(at);
        }
        let old: Vec<Revision> = at.iter().filter(|at| !self.batch.changes.contains_key(at)).copied().collect();
        let mut old = self.backend.values(&old)?.into_iter();
        Ok(at.iter().filter_map(|at| fresh(at).or_else(|| old.next())).collect())
    }

    fn pair_of(&mut self, key: &Bytes, entry: Entry) -> Result<KeyValue, Refusal> {
        let value = self.values(&[entry.at])?.pop().unwrap_or_default();
        let pair = read::pair(key.clone(), entry, value);
        self.room.take_pair(&pair)?;
        Ok(pair)
    }

    /// Whether a put may be done, in the order in which etcd asks.
    pub(super) fn check_put(&self, put: &Put) -> Result<(), Refusal> {
        if put.key.is_empty() {
            return Err(Refusal::EmptyKey);
        }
        if let Field::New(lease) = put.lease
            && lease != LeaseNumber::NONE
            && self.lease(lease).is_none()
        {
            return Err(Refusal::LeaseNotFound);
        }
        self.check_kept(put)
    }

    /// Whether what a put keeps is there.
    pub(super) fn check_kept(&self, put: &Put) -> Result<(), Refusal> {
        let keeps = put.value == Field::Keep || put.lease == Field::Keep;
        if keeps && self.entry(&put.key).is_none() { Err(Refusal::KeyNotFound) } else { Ok(()) }
    }

    /// Writes a pair that was checked.
    pub(super) fn put(&mut self, put: &Put) -> Result<Option<KeyValue>, Refusal> {
        let before = self.entry(&put.key);
        let previous = match before {
            Some(entry) if put.tell_previous || put.value == Field::Keep => Some(self.pair_of(&put.key, entry)?),
            _ => None,
        };
        let value = match (&put.value, &previous) {
            (Field::New(value), _) => value.clone(),
            (Field::Keep, Some(previous)) => previous.value.clone(),
            (Field::Keep, None) => return Err(Refusal::KeyNotFound),
        };
        let lease = match (&put.lease, before) {
            (Field::New(lease), _) => *lease,
            (Field::Keep, before) => before.map_or(LeaseNumber::NONE, |entry| entry.lease),
        };
        let at = self.next();
        let (created, version) = before.map_or((at.main, 1), |entry| (entry.created, entry.version + 1));
        self.push(&put.key, Entry { at, created, version, lease }, value);
        Ok(previous.filter(|_| put.tell_previous))
    }

    /// Deletes pairs.
    pub(super) fn delete(&mut self, delete: &Delete) -> Result<(i64, Vec<KeyValue>), Refusal> {
        let found: Vec<(Bytes, Entry)> =
            self.inner.index.range(&delete.keys, i64::MAX).map(|(key, entry)| (key.clone(), *entry)).collect();
        let mut told = Vec::new();
        if delete.tell_previous {
            let mut room = self.room;
            let at: Vec<Revision> = found.iter().map(|(_, entry)| entry.at).collect();
            let values = room.read(&at, |at| self.values(at))?;
            room.take(found.iter().map(|(key, _)| key.len()).sum())?;
            self.room = room;
            told =
                found.iter().zip(values).map(|((key, entry), value)| read::pair(key.clone(), *entry, value)).collect();
        }
        for (key, _) in &found {
            self.remove(key);
        }
        Ok((found.len() as i64, told))
    }

    fn remove(&mut self, key: &Bytes) {
        let at = self.next();
        self.push(key, Entry { at, created: 0, version: 0, lease: LeaseNumber::NONE }, Bytes::new());
    }

    /// Reads in the middle of a transaction, which all of its reads together must leave room for: everybody who writes
    /// waits meanwhile.
    pub(super) fn range(&mut self, range: &Range) -> Result<Found, Refusal> {
        let selection = read::select(&self.inner.index, range, self.current(), self.inner.compacted)?;
        let mut room = self.room;
        room.take_look(selection.looked_at())?;
        let found = read::complete(range, selection, &mut room, |at| self.values(at))?;
        self.room = room;
        Ok(found)
    }

    fn grant(&mut self, number: LeaseNumber, seconds: i64) -> Result<i64, Refusal> {
        if number == LeaseNumber::NONE {
            return Err(Refusal::LeaseNotFound);
        }
        if seconds > LONGEST_LEASE {
            return Err(Refusal::LeaseTtlTooLarge);
        }
        if self.lease(number).is_some() {
            return Err(Refusal::LeaseExists);
        }
        if self.leases.count(&self.inner.leases) >= MOST_LEASES {
            return Err(Refusal::TooManyLeases(MOST_LEASES));
        }
        let seconds = seconds.max(SHORTEST_LEASE);
        self.leases.grant(number, Lease::new(seconds, self.now));
        self.batch.leases.insert(number, Some(seconds));
        Ok(seconds)
    }

    fn revoke(&mut self, number: LeaseNumber) -> Result<(), Refusal> {
        self.lease(number).ok_or(Refusal::LeaseNotFound)?;
        for key in self.leases.keys(&self.inner.leases, number) {
            self.remove(&key);
        }
        self.leases.end(number);
        self.batch.leases.insert(number, None);
        Ok(())
    }

    fn lease(&self, number: LeaseNumber) -> Option<&Lease> {
        self.leases.get(&self.inner.leases, number)
    }

    fn next(&mut self) -> Revision {
        let at = Revision { main: self.revision + 1, sub: self.changed };
        self.changed += 1;
        at
    }

    fn push(&mut self, key: &Bytes, entry: Entry, value: Bytes) {
        let (key, before) = self.inner.index.push(key, entry);
        self.leases.moved(&key, before, entry.lease);
        let Entry { at, created, version, lease } = entry;
        let meta = Meta { key, created, version, lease, author: self.author.clone() };
        self.batch.changes.insert(at, (meta, value));
    }
}

impl From<BackendError> for Refusal {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::NoSpace(what) => Self::NoSpace(what),
            other => Self::Broken(other.to_string()),
        }
    }
}
