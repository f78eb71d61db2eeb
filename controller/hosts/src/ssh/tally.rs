//! Counts connections, sessions and logins as they come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::traffic::{Login, Traffic};

/// What a fleet has counted.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) connections: Open,
    pub(crate) sessions: Open,
    logins: [AtomicU64; Login::ALL.len()],
}

impl Tally {
    pub(crate) fn login(&self, login: Login) {
        // The discriminants of an enum without data are its places in the list.
        self.logins[login as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn traffic(&self) -> Traffic {
        let tried = |login: Login| (login, self.logins[login as usize].load(Ordering::Relaxed));
        Traffic {
            connections: self.connections.count(),
            sessions: self.sessions.count(),
            logins: Login::ALL.into_iter().map(tried).filter(|(_, count)| *count > 0).collect(),
        }
    }
}

/// How many of something are open.
#[derive(Debug, Clone, Default)]
pub(crate) struct Open(Arc<AtomicU64>);

impl Open {
    /// One more, until what is returned is dropped.
    pub(crate) fn one(&self) -> Opened {
        self.0.fetch_add(1, Ordering::Relaxed);
        Opened(self.clone())
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One that is open.
#[derive(Debug)]
pub(crate) struct Opened(Open);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_not_open_any_more_and_every_login_has_its_own_place() {
        let tally = Tally::default();
        let first = tally.sessions.one();
        let second = tally.sessions.one();
        drop(first);
        for (times, login) in Login::ALL.into_iter().enumerate() {
            (0..times).for_each(|_| tally.login(login));
        }
        let traffic = tally.traffic();
        assert_eq!((traffic.sessions, traffic.connections), (1, 0));
        let expected = Login::ALL.into_iter().zip(0..).filter(|(_, times)| *times > 0).collect();
        assert_eq!(traffic.logins, expected);
        drop(second);
        assert_eq!(tally.traffic().sessions, 0);
    }
}
