//! Who asks: known by the certificate that they show, and allowed what it says.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use tonic::Status;
use webpki::EndEntityCert;

use super::validity;
use crate::key::Prefix;
use crate::mvcc::{KeyRange, Operation, Order, Request};

/// Begins the name in a certificate: `windlass://<rights>/<name>`.
const SCHEME: &str = "windlass://";

/// Longer names help nobody, and each is kept with what its owner writes.
const LONGEST_NAME: usize = 64;

/// What somebody is called in the store's history.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerName(Arc<str>);

impl PeerName {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why something is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no name for a certificate: 1 to {LONGEST_NAME} of a-z, 0-9, `.`, `_`, `-`, and no `-key` at its end")]
pub struct NotAName(String);

impl FromStr for PeerName {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        let whole = (1..=LONGEST_NAME).contains(&text.len()) && text.bytes().all(fits);
        // Names are names of files too.
        let hidden = text.starts_with(['.', '-']) || text.ends_with("-key");
        if whole && !hidden { Ok(Self(text.into())) } else { Err(NotAName(text.to_owned())) }
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&self.0)
    }
}

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// Everything.
    All,
    /// Write what is declared and what is asked for, and read the rest.
    Declare,
}

impl Rights {
    const ALL: [Self; 2] = [Self::All, Self::Declare];

    fn word(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Declare => "declare",
        }
    }
}

/// Somebody, and what they may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Who.
    pub name: PeerName,
    /// What they may do.
    pub rights: Rights,
}

impl Peer {
    /// As a certificate says it.
    pub(crate) fn uri(&self) -> String {
        format!("{SCHEME}{}/{}", self.rights.word(), self.name)
    }

    /// Whom a certificate of our authority is for; `None` where it is for nobody who may ask.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let parsed = EndEntityCert::try_from(certificate).ok()?;
        let (rights, name) = parsed.valid_uri_names().find_map(|uri| uri.strip_prefix(SCHEME)?.split_once('/'))?;
        let rights = Rights::ALL.into_iter().find(|known| known.word() == rights)?;
        Some(Self { name: name.parse().ok()?, rights })
    }

    /// How long a certificate holds yet that was checked; `None` where it does not say so in a way that we know.
    pub(super) fn left(certificate: &CertificateDer<'_>) -> Option<Duration> {
        let until = validity::until(certificate)?;
        let now = Timestamp::now();
        Some(until.duration_since(now).try_into().unwrap_or(Duration::ZERO))
    }
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    /// Somebody whom nobody asked who they are.
    Anybody,
    /// Somebody whose certificate says so.
    Known(Arc<Peer>),
}

impl Caller {
    /// Who has sent a request. Every connection says so; one that does not may do nothing.
    pub(super) fn of<T>(request: &tonic::Request<T>) -> Result<Self, Status> {
        let nobody = || Status::internal("nobody knows who asks");
        request.extensions().get::<Self>().cloned().ok_or_else(nobody)
    }

    /// A request in their name.
    pub(super) fn order(&self, request: Request) -> Order {
        let author = match self {
            Self::Anybody => None,
            Self::Known(peer) => Some(Arc::clone(&peer.name.0)),
        };
        Order { request, author }
    }

    /// Refuses what is only for those who may do everything.
    pub(super) fn may_do_everything(&self, what: &str) -> Result<(), Status> {
        match self {
            Self::Known(peer) if peer.rights != Rights::All => {
                Err(denied(peer, &format!("not {what}; that is for who runs the store")))
            }
            _ => Ok(()),
        }
    }

    /// Whether they run the store.
    pub(super) fn is_owner(&self) -> bool {
        match self {
            Self::Anybody => true,
            Self::Known(peer) => peer.rights == Rights::All,
        }
    }

    /// Refuses to keep what they may not write: a lease with such a key.
    pub(super) fn may_keep(&self, keys: &[Bytes], prefix: &Prefix) -> Result<(), Status> {
        let Self::Known(peer) = self else { return Ok(()) };
        let theirs = |key: &Bytes| is_declared(&KeyRange::One(key.clone()), prefix);
        if peer.rights == Rights::All || keys.iter().all(theirs) {
            return Ok(());
        }
        Err(denied(peer, "not keep a lease that somebody else's keys are on"))
    }

    /// Refuses to write what they may not.
    pub(super) fn may_write(&self, request: &Request, prefix: &Prefix) -> Result<(), Status> {
        let Self::Known(peer) = self else { return Ok(()) };
        if peer.rights == Rights::All {
            return Ok(());
        }
        let allowed = match request {
            Request::Put(put) => is_declared(&KeyRange::One(put.key.clone()), prefix),
            Request::Delete(delete) => is_declared(&delete.keys, prefix),
            Request::Txn(txn) => txn.success.iter().chain(&txn.failure).all(|operation| is_allowed(operation, prefix)),
            // It ends by itself.
            Request::Grant(..) => true,
            Request::Revoke(_) | Request::Expire(_) => false,
        };
        if allowed {
            return Ok(());
        }
        Err(denied(
            peer,
            &format!("write only below {prefix}/declared/ and {prefix}/requests/, but for Policies and ConfigRepos"),
        ))
    }
}

/// etcd's own error, and what it is about.
fn denied(peer: &Peer, what: &str) -> Status {
    Status::permission_denied(format!("etcdserver: permission denied: {} may {what}", peer.name))
}

fn is_allowed(operation: &Operation, prefix: &Prefix) -> bool {
    match operation {
        Operation::Range(_) => true,
        Operation::Put(put) => is_declared(&KeyRange::One(put.key.clone()), prefix),
        Operation::Delete(delete) => is_declared(&delete.keys, prefix),
        Operation::Txn(txn) => txn.success.iter().chain(&txn.failure).all(|inner| is_allowed(inner, prefix)),
    }
}

/// The kinds that say what others may declare: who could write those could let in whatever they have declared.
const DECIDING: [&str; 2] = ["configrepos", "policies"];

/// Whether all of some keys are what is declared or asked for, but for what decides over others.
fn is_declared(keys: &KeyRange, prefix: &Prefix) -> bool {
    let decides = |kind: &&str| touches(keys, &format!("{prefix}/declared/{kind}"));
    !DECIDING.iter().any(decides)
        && ["declared", "requests"].iter().any(|section| lies_in(keys, &format!("{prefix}/{section}")))
}

/// Whether all of some keys lie below a path. `0` is what follows `/`.
fn lies_in(keys: &KeyRange, path: &str) -> bool {
    keys.begin().starts_with(format!("{path}/").as_bytes())
        && match keys {
            KeyRange::One(_) => true,
            KeyRange::Until(_, to) => &**to <= format!("{path}0").as_bytes(),
            KeyRange::From(_) => false,
        }
}

/// Whether some keys may lie below a path.
fn touches(keys: &KeyRange, path: &str) -> bool {
    let (first, behind) = (format!("{path}/"), format!("{path}0"));
    match keys {
        KeyRange::One(key) => key.starts_with(first.as_bytes()),
        KeyRange::Until(from, to) => &**from < behind.as_bytes() && &**to > first.as_bytes(),
        KeyRange::From(from) => &**from < behind.as_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mvcc::{Delete, Field, LeaseNumber, Put, Range, Txn};

    fn put(key: &str) -> Put {
        let (value, lease) = (Field::New("x".into()), Field::New(LeaseNumber::NONE));
        Put { key: key.to_owned().into(), value, lease, tell_previous: false }
    }

    fn delete(from: &str, to: &str) -> Delete {
        Delete { keys: KeyRange::new(from.to_owned().into(), to.to_owned().into()), tell_previous: false }
    }

    #[test]
    fn who_may_declare_writes_what_is_declared_and_asked_for_and_nothing_else() {
        let name = "ana".parse().expect("a name");
        let caller = Caller::Known(Arc::new(Peer { name, rights: Rights::Declare }));
        let prefix = Prefix::default();
        let inner = |operation: Operation| Txn {
            success: vec![Operation::Txn(Txn { failure: vec![operation], ..Txn::default() })],
            ..Txn::default()
        };
        let rows = [
            (Request::Put(put("/windlass/declared/hosts/a")), true),
            (Request::Put(put("/windlass/requests/hosts/a/1")), true),
            (Request::Put(put("/windlass/declared")), false),
            (Request::Put(put("/windlass/declared0")), false),
            (Request::Put(put("/windlass/owned/default/web")), false),
            (Request::Put(put("/windlass/control/leader/1")), false),
            (Request::Put(put("/elsewhere")), false),
            (Request::Delete(delete("/windlass/declared/", "/windlass/declared0")), false),
            (Request::Delete(delete("/windlass/declared/services/", "/windlass/declared/services0")), true),
            (Request::Delete(delete("/windlass/declared/hosts/", "/windlass/declared/policies/")), true),
            (Request::Delete(delete("/windlass/declared/hosts/", "/windlass/declared/policies/a")), false),
            (Request::Delete(delete("/windlass/declared/policies/z", "/windlass/declared/services0")), false),
            (Request::Delete(delete("/windlass/declared/policies0", "/windlass/declared/services0")), true),
            (Request::Put(put("/windlass/declared/policies/production")), false),
            (Request::Put(put("/windlass/declared/policies-x/a")), true),
            (Request::Put(put("/windlass/declared/configrepos/fleet")), false),
            (Request::Delete(delete("/windlass/declared/a", "/windlass/declared/d")), false),
            (Request::Put(put("/windlass/requests/configrepos/fleet/1")), true),
            (Request::Delete(delete("/windlass/declared/", "/windlass/declared1")), false),
            (Request::Delete(delete("/windlass/declared/", "/windlass/requests/z")), false),
            (Request::Delete(delete("/windlass/declared/", "\0")), false),
            (Request::Delete(delete("\0", "\0")), false),
            (Request::Txn(inner(Operation::Put(put("/windlass/declared/hosts/a")))), true),
            (Request::Txn(inner(Operation::Put(put("/windlass/control/x")))), false),
            (Request::Txn(inner(Operation::Delete(delete("/", "\0")))), false),
            (Request::Txn(inner(Operation::Range(Range::of(KeyRange::From("".into()))))), true),
            (Request::Grant(LeaseNumber(1), 5), true),
            (Request::Revoke(LeaseNumber(1)), false),
        ];
        for (request, allowed) in rows {
            assert_eq!(caller.may_write(&request, &prefix).is_ok(), allowed, "{request:?}");
        }
        let told = |refused: Result<(), Status>| refused.expect_err("it is refused").message().to_owned();
        let refusals = [
            told(caller.may_do_everything("compact")),
            told(caller.may_keep(&["/windlass/control/leader/1".into()], &prefix)),
            told(caller.may_write(&Request::Put(put("/elsewhere")), &prefix)),
        ];
        let words = [
            "ana may not compact; that is for who runs the store",
            "ana may not keep a lease that somebody else's keys are on",
            "ana may write only below /windlass/declared/ and /windlass/requests/, but for Policies and ConfigRepos",
        ];
        for (told, words) in refusals.iter().zip(words) {
            assert_eq!(told, &format!("etcdserver: permission denied: {words}"));
        }
    }

    #[test]
    fn a_name_is_one_of_a_file_too() {
        for name in ["", "..", ".a", "-a", "a/b", "Ana", "a b", "ana-key", &"a".repeat(65)] {
            assert!(name.parse::<PeerName>().is_err(), "{name}");
        }
        for name in ["ana", "build-7", "ci.example_org", &"a".repeat(64)] {
            assert!(name.parse::<PeerName>().is_ok(), "{name}");
        }
    }
}
