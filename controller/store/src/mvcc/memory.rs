//! The history in memory, for tests and for the simulator.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::backend::{Backend, BackendError, Batch, DefragmentError, Meta, Piece, Size, State, View};
use super::model::{Change, Revision};

/// Keeps the history as long as it lives.
#[derive(Debug, Default)]
pub struct Memory {
    held: Mutex<Held>,
}

#[derive(Debug, Clone, Default)]
struct Held {
    changes: BTreeMap<Revision, (Meta, Bytes)>,
    state: State,
    fails: Option<BackendError>,
}

impl Memory {
    /// From now on every commit fails like this, or none does.
    pub fn fail(&self, with: Option<BackendError>) {
        self.held().fails = with;
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for Memory {
    fn load(&self, each: &mut dyn FnMut(Revision, Meta)) -> Result<State, BackendError> {
        let held = self.held();
        held.changes.iter().for_each(|(at, (meta, _))| each(*at, meta.clone()));
        Ok(held.state.clone())
    }

    fn commit(&self, batch: &Batch) -> Result<(), BackendError> {
        let mut held = self.held();
        if let Some(error) = &held.fails {
            return Err(error.clone());
        }
        let Batch { changes, forgotten, leases, compacted } = batch;
        held.changes.extend(changes.iter().map(|(at, change)| (*at, change.clone())));
        for at in forgotten {
            held.changes.remove(at);
        }
        for (lease, ttl) in leases {
            match ttl {
                Some(ttl) => held.state.leases.insert(*lease, *ttl),
                None => held.state.leases.remove(lease),
            };
        }
        if let Some((compacted, revision)) = compacted {
            (held.state.compacted, held.state.revision) = (*compacted, *revision);
        }
        Ok(())
    }

    fn values(&self, at: &[Revision]) -> Result<Vec<Bytes>, BackendError> {
        let held = self.held();
        let value = |at: &Revision| held.changes.get(at).map(|(_, value)| value.clone());
        at.iter().map(|at| value(at).ok_or(BackendError::Gone(*at))).collect()
    }

    fn changes(&self, from: i64, most: usize, bytes: usize) -> Result<Vec<Change>, BackendError> {
        View::changes(&*self.held(), from, most, bytes)
    }

    fn view(&self) -> Result<Box<dyn View>, BackendError> {
        Ok(Box::new(self.held().clone()))
    }

    fn size(&self) -> Result<Size, BackendError> {
        let used = self.held().changes.values().map(|(meta, value)| (meta.key.len() + value.len()) as u64).sum();
        Ok(Size { file: used, used })
    }

    fn defragment(&self) -> Result<(), DefragmentError> {
        Ok(())
    }
}

impl View for Held {
    fn state(&self) -> &State {
        &self.state
    }

    fn changes(&self, from: i64, most: usize, bytes: usize) -> Result<Vec<Change>, BackendError> {
        let mut piece = Piece::new(most, bytes);
        for (at, (meta, value)) in self.changes.range(Revision { main: from, sub: 0 }..) {
            if piece.ends_before(*at) {
                break;
            }
            piece.push(meta.clone().into_change(*at, value.clone()));
        }
        Ok(piece.changes)
    }
}
