//! Contacts: which hosts are out of reach, why, and when each is tried again.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;
use windlass_crds::host::Target;
use windlass_crds::id::HostId;
use windlass_crds::step::ContactError;

use crate::backoff::{self, Jitter};

/// The longest wait between two tries: whoever has mended a host waits no longer than this without asking, and each
/// try costs a process and eight seconds of patience.
pub const LONGEST: Duration = Duration::from_secs(10);

/// Hosts that did not answer when they were last tried.
#[derive(Debug, Default)]
pub struct Contacts {
    lost: Mutex<BTreeMap<HostId, Lost>>,
    jitter: Jitter,
}

#[derive(Debug)]
struct Lost {
    /// Where it was tried: at another address it may well answer.
    target: Target,
    error: ContactError,
    failures: u32,
    again: Instant,
}

/// Whether the world has changed with an answer, or with its absence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// It has.
    Yes,
    /// It was known.
    No,
}

impl Contacts {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<HostId, Lost>> {
        self.lost.lock().expect("no panic happens under this lock")
    }

    /// A host did not answer. Tells why in the words in which that was said first: ssh has several for one trouble,
    /// and a status that changed with them would be written again at every look. Where the words say what to put
    /// right, they are always the last ones.
    pub fn failed(&self, target: &Target, error: ContactError) -> (ContactError, News) {
        let now = Instant::now();
        let mut lost = self.lock();
        let known = lost.get_mut(&target.id).filter(|known| known.target == *target);
        let Some(known) = known else {
            let again = now + self.wait(1);
            lost.insert(target.id.clone(), Lost { target: target.clone(), error: error.clone(), failures: 1, again });
            return (error, News::Yes);
        };
        // Several Services may have waited for the same try.
        if known.again <= now {
            known.failures = known.failures.saturating_add(1);
            known.again = now + self.wait(known.failures);
        }
        if names_the_remedy(&error) || std::mem::discriminant(&known.error) != std::mem::discriminant(&error) {
            known.error = error;
        }
        (known.error.clone(), News::No)
    }

    /// A host answers.
    pub fn answered(&self, host: &HostId) -> News {
        if self.lock().remove(host).is_some() { News::Yes } else { News::No }
    }

    /// Why a host is not tried again yet.
    pub fn held(&self, target: &Target) -> Option<ContactError> {
        let lost = self.lock();
        let known = lost.get(&target.id).filter(|known| known.target == *target && Instant::now() < known.again)?;
        Some(known.error.clone())
    }

    /// Somebody asks: it is tried without a wait.
    pub fn try_at_once(&self, host: &HostId) {
        if let Some(known) = self.lock().get_mut(host) {
            known.again = Instant::now();
        }
    }

    fn wait(&self, failures: u32) -> Duration {
        backoff::wait_at_most(LONGEST, failures, self.jitter.next())
    }
}

/// Whether the words of an error say what to put right.
fn names_the_remedy(error: &ContactError) -> bool {
    use ContactError::{Lost, NoAddress, Refused, Timeout};
    !matches!(error, Timeout { .. } | Refused { .. } | NoAddress { .. } | Lost { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(address: &str) -> Target {
        let inline = Target::inline(&"root@198.18.0.1".parse().expect("a destination")).expect("it is inline");
        Target { address: address.to_owned(), ..inline }
    }

    fn refused(detail: &str) -> ContactError {
        ContactError::Refused { detail: detail.to_owned() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_host_is_tried_after_waits_that_grow_to_ten_seconds() {
        let (contacts, web1) = (Contacts::default(), target("198.18.0.1"));
        let mut waits = Vec::new();
        for _ in 0..6 {
            contacts.failed(&web1, refused("no"));
            // Another Service that waited for the same try has no say in it.
            contacts.failed(&web1, refused("no"));
            let since = Instant::now();
            while contacts.held(&web1).is_some() {
                tokio::time::advance(Duration::from_millis(10)).await;
            }
            waits.push(since.elapsed().as_secs_f64());
        }
        for (wait, longest) in waits.into_iter().zip([1.0, 2.0, 4.0, 8.0, 10.0, 10.0]) {
            assert!(wait > longest * 0.79 && wait <= longest + 0.01, "{wait} s, where {longest} s is the most");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_who_answers_and_who_has_moved_is_not_held() {
        let (contacts, web1) = (Contacts::default(), target("198.18.0.1"));
        assert_eq!(contacts.answered(&web1.id), News::No);
        assert_eq!(contacts.failed(&web1, refused("no")).1, News::Yes);
        assert_eq!(contacts.failed(&web1, refused("no")).1, News::No);
        assert!(contacts.held(&web1).is_some());
        assert_eq!(contacts.held(&target("198.18.0.2")), None);
        contacts.try_at_once(&web1.id);
        assert_eq!(contacts.held(&web1), None);
        contacts.failed(&web1, refused("no"));
        assert_eq!(contacts.answered(&web1.id), News::Yes);
        assert_eq!(contacts.held(&web1), None);
    }

    #[test]
    fn one_trouble_is_told_in_its_first_words() {
        let (contacts, web1) = (Contacts::default(), target("198.18.0.1"));
        let login = |detail: &str| ContactError::Login { detail: detail.to_owned() };
        for (error, told) in [
            (refused("reset"), refused("reset")),
            (refused("closed"), refused("reset")),
            (ContactError::Timeout { seconds: 8 }, ContactError::Timeout { seconds: 8 }),
            (login("no key"), login("no key")),
            (login("another key"), login("another key")),
        ] {
            assert_eq!(contacts.failed(&web1, error).0, told);
        }
    }
}
