//! The governor: how many logins are under way at once, and which connections are kept while nobody uses them.
//!
//! A connection that is kept is an ssh process here and an sshd there; one that is not costs a login at the next look.
//! `docs/decisions/0010` has what each was measured to cost. No connection is ended under work: whoever works on one
//! holds a reference to it, and it is ended only where nobody does.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::Instant;
use windlass_crds::step::ContactError;

use super::link::{Connection, State, retire};

/// Logins that may be under way at once. Each is an ssh process and 20 ms of a processor while it agrees on keys; one
/// that waits for a dead host costs neither, so there may be more of them than processors.
const CONNECTING: usize = 32;

/// As many again to hosts that did not answer last time, which may take ten seconds each: whoever answers does not wait
/// for them.
const RETRYING: usize = 32;

/// And so many that confirm: a host takes back what is not confirmed in time.
const CONFIRMING: usize = 16;

/// Logins that may be under way by one way to a host at once, well below the ten from which sshd turns some away unless told
/// otherwise (MaxStartups 10:30:100): others log in there too.
const CONNECTING_TO_ONE: u32 = 4;

/// So often a login that was turned away is tried again, each time alone: with the pauses between them that is three
/// seconds in which others may get in or give up.
pub(crate) const MORE_TRIES: u32 = 5;

/// Before the first of them. It doubles.
const TURNED_AWAY_PAUSE: Duration = Duration::from_millis(100);

/// A connection beyond those that are kept is ended when nobody has used it for so long: longer than the pauses in a
/// deploy, and shorter than those between two looks.
const IDLE: Duration = Duration::from_secs(15);

/// One that is kept, too, when nobody has used it for so long: hosts are looked at every minute, so this leads to one
/// that is not ours any more, or has another address now.
const FORGOTTEN: Duration = Duration::from_secs(300);

/// What a login is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To have a connection.
    Connecting,
    /// The same, to a host that did not answer last time.
    Retrying,
    /// To show that one can log in.
    Confirming,
}

/// What all hosts share.
pub(crate) struct Governor {
    connecting: Semaphore,
    retrying: Semaphore,
    confirming: Semaphore,
    kept: Arc<Semaphore>,
}

impl Governor {
    /// One that keeps so many connections open while nobody uses them.
    pub(crate) fn new(keep: usize) -> Self {
        let keep = keep.min(Semaphore::MAX_PERMITS);
        Self {
            connecting: Semaphore::new(CONNECTING),
            retrying: Semaphore::new(RETRYING),
            confirming: Semaphore::new(CONFIRMING),
            kept: Arc::new(Semaphore::new(keep)),
        }
    }

    /// The place of a connection that has just been opened: it is kept while there is room.
    pub(crate) fn place(&self) -> Place {
        let kept = Arc::clone(&self.kept).try_acquire_owned().ok();
        Place { kept, used: Mutex::new(Instant::now()) }
    }
}

/// One host's turns to log in.
pub(crate) struct Turns(Semaphore);

impl Default for Turns {
    fn default() -> Self {
        Self(Semaphore::new(CONNECTING_TO_ONE as usize))
    }
}

impl Turns {
    /// Waits until a login may be made that was turned away so many times. Who was turned away waits until nobody else
    /// of us is at it there, and a while longer each time.
    pub(crate) async fn take<'a>(
        &'a self,
        governor: &'a Governor,
        purpose: Purpose,
        tries: u32,
    ) -> Result<(SemaphorePermit<'a>, SemaphorePermit<'a>), ContactError> {
        let closed = |_| ContactError::Local { detail: "the fleet is closed".to_owned() };
        let share = if tries == 0 { 1 } else { CONNECTING_TO_ONE };
        let turn = self.0.acquire_many(share).await.map_err(closed)?;
        if let Some(doubled) = tries.checked_sub(1) {
            tokio::time::sleep(TURNED_AWAY_PAUSE * 2_u32.pow(doubled.min(MORE_TRIES))).await;
        }
        let all = match purpose {
            Purpose::Connecting => &governor.connecting,
            Purpose::Retrying => &governor.retrying,
            Purpose::Confirming => &governor.confirming,
        };
        Ok((turn, all.acquire().await.map_err(closed)?))
    }
}

/// What becomes of a connection that nobody uses.
pub(crate) struct Place {
    kept: Option<OwnedSemaphorePermit>,
    used: Mutex<Instant>,
}

impl Place {
    /// Somebody uses it.
    pub(crate) fn used(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// From when on nobody will have used it for long enough.
    fn idle_at(&self) -> Instant {
        let idle = if self.kept.is_some() { FORGOTTEN } else { IDLE };
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) + idle
    }
}

/// Ends a connection once nobody has used it for long enough.
pub(crate) fn end_when_idle(state: &Arc<tokio::sync::Mutex<State>>, connection: &Arc<Connection>) {
    tokio::spawn(wait_until_idle(Arc::downgrade(state), Arc::downgrade(connection)));
}

async fn wait_until_idle(state: Weak<tokio::sync::Mutex<State>>, connection: Weak<Connection>) {
    loop {
        let Some(idle_at) = connection.upgrade().map(|connection| connection.place.idle_at()) else { return };
        tokio::time::sleep_until(idle_at).await;
        let Some(state) = state.upgrade() else { return };
        // Whoever comes for a connection waits for this, so nobody takes it while it is ended.
        let mut state = state.lock().await;
        let Some(ours) = state.connection.as_ref().filter(|ours| Arc::as_ptr(ours) == connection.as_ptr()) else {
            return;
        };
        if Arc::strong_count(ours) > 1 {
            ours.place.used();
        } else if ours.place.idle_at() <= Instant::now() {
            retire(state.connection.take());
            return;
        }
    }
}
