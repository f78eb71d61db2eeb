//! Keys: what each one under the prefix names, and how it is written there.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use windlass_crds::audit::{Chain, padded, unpadded};
use windlass_crds::id::{RecordNumber, ResourceKey, RevisionNumber, Sequence, ServiceKey};

/// The longest id of a request, an event or a record, so that a key stays short enough for a line of a log.
const ID_LENGTH: usize = 128;

/// Why a text is not a prefix or an id of the store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// An id with other characters, or none, or too many.
    #[error(
        "{0:?} is not an id: 1 to {ID_LENGTH} lower-case letters, digits, dots and hyphens, at both ends a letter or digit"
    )]
    NotAnId(String),
    /// A prefix that is not a path.
    #[error("{0:?} is not a prefix: a path like /windlass, without a slash at its end or an empty part")]
    NotAPrefix(String),
}

/// Whether `text` may be an id: what a DNS name may hold, so that it never divides a path or needs quoting.
fn is_id(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(byte);
    let end = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    bytes.len() <= ID_LENGTH && bytes.iter().all(inner) && end(bytes.first()) && end(bytes.last())
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = KeyError;
            fn try_from(text: String) -> Result<Self, KeyError> {
                if is_id(&text) { Ok(Self(text)) } else { Err(KeyError::NotAnId(text)) }
            }
        }

        impl FromStr for $name {
            type Err = KeyError;
            fn from_str(text: &str) -> Result<Self, KeyError> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.pad(&self.0)
            }
        }
    };
}

id! {
    /// Which request, among those for one resource. Whoever asks chooses it.
    RequestId
}
id! {
    /// Which event. The controller chooses it, so that events sort by time.
    EventId
}
id! {
    /// The name of a record of the controller's own, below `control/records/`.
    RecordName
}

/// What stands before every key of one Windlass: `/windlass` unless told otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Prefix(String);

impl Prefix {
    /// The prefix as text, without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The bytes of a key at `path` below the prefix.
    pub(crate) fn join(&self, path: &[u8]) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.0.len() + 1 + path.len());
        key.extend_from_slice(self.0.as_bytes());
        key.push(b'/');
        key.extend_from_slice(path);
        key
    }

    /// The path of a key below the prefix; nothing for a key elsewhere.
    pub(crate) fn strip<'key>(&self, key: &'key [u8]) -> Option<&'key [u8]> {
        key.strip_prefix(self.0.as_bytes())?.strip_prefix(b"/")
    }
}

impl Default for Prefix {
    fn default() -> Self {
        Self("/windlass".to_owned())
    }
}

impl FromStr for Prefix {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let fits = text
            .strip_prefix('/')
            .is_some_and(|parts| parts.split('/').all(|part| !part.is_empty() && !part.contains(char::is_control)));
        if fits { Ok(Self(text.to_owned())) } else { Err(KeyError::NotAPrefix(text.to_owned())) }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&self.0)
    }
}

/// A path below the prefix that no other [`Key`] writes: what somebody put there with etcdctl, or a later Windlass.
///
/// Its bytes are kept as they are, UTF-8 or not, so that the key can be named and deleted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnknownPath(Vec<u8>);

impl UnknownPath {
    /// The bytes below the prefix and its slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for UnknownPath {
    /// The text itself where it is printable, else with escapes.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(&self.0) {
            Ok(text) if !text.contains(char::is_control) => out.pad(text),
            _ => write!(out, "{}", self.0.escape_ascii()),
        }
    }
}

/// What a key under the prefix names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// `declared/<kind>/…`: what users declare.
    Declared(ResourceKey),
    /// `requests/<kind>/…/<id>`: do once.
    Request {
        /// What it concerns.
        target: ResourceKey,
        /// Which request for it.
        id: RequestId,
    },
    /// `status/<kind>/…`: what the controller says of a resource.
    Status(ResourceKey),
    /// `owned/<namespace>/<name>`: which hosts carry what of a service.
    Owned(ServiceKey),
    /// `revisions/<namespace>/<name>/<n>`: an accepted revision.
    Revision(ServiceKey, RevisionNumber),
    /// `rollouts/<namespace>/<name>/<sequence>`: the decisions of a rollout.
    Rollout(ServiceKey, Sequence),
    /// `events/<id>`: what happened; leased.
    Event {
        /// Which event.
        id: EventId,
    },
    /// `audit/<chain>/<number>`: who did what.
    Audit(Chain, RecordNumber),
    /// `control/…`: the controller's own.
    Control(Control),
    /// Anything else under the prefix.
    Unknown(UnknownPath),
}

/// The controller's own keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Control {
    /// `control/leader`: who acts, held by a lease.
    Leader,
    /// `control/sequence`: the last sequence that was drawn.
    SequenceCounter,
    /// `control/cluster`: the id of this store, which hosts remember.
    ClusterId,
    /// `control/layout`: the version of the keys' layout.
    LayoutVersion,
    /// `control/records/<name>`: whatever else the controller keeps, such as confirmed removals.
    Named(RecordName),
}

impl Control {
    fn path(&self) -> String {
        match self {
            Self::Leader => "control/leader".to_owned(),
            Self::SequenceCounter => "control/sequence".to_owned(),
            Self::ClusterId => "control/cluster".to_owned(),
            Self::LayoutVersion => "control/layout".to_owned(),
            Self::Named(name) => format!("control/records/{name}"),
        }
    }

    fn from_path(path: &str) -> Option<Self> {
        Some(match path {
            "leader" => Self::Leader,
            "sequence" => Self::SequenceCounter,
            "cluster" => Self::ClusterId,
            "layout" => Self::LayoutVersion,
            other => Self::Named(other.strip_prefix("records/")?.parse().ok()?),
        })
    }
}

impl Key {
    /// The bytes of this key in etcd.
    pub fn path(&self, prefix: &Prefix) -> Vec<u8> {
        prefix.join(&self.relative())
    }

    /// Reads a key's bytes; nothing when it does not lie under the prefix.
    ///
    /// A path that is close but not exactly what [`Key::path`] writes, such as a revision `007`, is
    /// [`Key::Unknown`], so that two keys never have one name.
    pub fn parse(prefix: &Prefix, bytes: &[u8]) -> Option<Self> {
        prefix.strip(bytes).map(Self::from_relative)
    }

    /// The path below the prefix.
    pub(crate) fn relative(&self) -> Vec<u8> {
        match self {
            Self::Declared(resource) => format!("declared/{}", resource.path()),
            Self::Request { target, id } => format!("requests/{}/{id}", target.path()),
            Self::Status(resource) => format!("status/{}", resource.path()),
            Self::Owned(service) => format!("owned/{service}"),
            Self::Revision(service, number) => format!("revisions/{service}/{number}"),
            Self::Rollout(service, sequence) => format!("rollouts/{service}/{sequence}"),
            Self::Event { id } => format!("events/{id}"),
            Self::Audit(chain, number) => format!("audit/{}/{}", chain.path(), padded(*number)),
            Self::Control(control) => control.path(),
            Self::Unknown(path) => return path.0.clone(),
        }
        .into_bytes()
    }

    /// Reads a path below the prefix.
    pub(crate) fn from_relative(path: &[u8]) -> Self {
        std::str::from_utf8(path)
            .ok()
            .and_then(Self::known)
            .filter(|key| key.relative() == path)
            .unwrap_or_else(|| Self::Unknown(UnknownPath(path.to_owned())))
    }

    fn known(path: &str) -> Option<Self> {
        let (section, rest) = path.split_once('/')?;
        Some(match section {
            "declared" => Self::Declared(ResourceKey::from_path(rest).ok()?),
            "requests" => {
                let (target, id) = rest.rsplit_once('/')?;
                Self::Request { target: ResourceKey::from_path(target).ok()?, id: id.parse().ok()? }
            }
            "status" => Self::Status(ResourceKey::from_path(rest).ok()?),
            "owned" => Self::Owned(rest.parse().ok()?),
            "revisions" => {
                let (service, number) = rest.rsplit_once('/')?;
                Self::Revision(service.parse().ok()?, number.parse().ok()?)
            }
            "rollouts" => {
                let (service, sequence) = rest.rsplit_once('/')?;
                Self::Rollout(service.parse().ok()?, sequence.parse().ok()?)
            }
            "events" => Self::Event { id: rest.parse().ok()? },
            "audit" => {
                let (chain, number) = rest.rsplit_once('/')?;
                Self::Audit(Chain::from_path(chain).ok()?, unpadded(number).ok()?)
            }
            "control" => Self::Control(Control::from_path(rest)?),
            _ => return None,
        })
    }
}

impl fmt::Display for Key {
    /// The path below the prefix, printable.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        UnknownPath(self.relative()).fmt(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> ServiceKey {
        "default/web".parse().expect("a service")
    }

    /// Every kind of key, as the design's table writes it.
    #[test]
    fn keys_lie_where_the_layout_says() {
        let id = |text: &str| text.to_owned();
        for (key, path) in [
            (Key::Declared(ResourceKey::Service(service())), "declared/services/default/web"),
            (Key::Declared(ResourceKey::Host("web1".parse().expect("a host"))), "declared/hosts/web1"),
            (Key::Declared(ResourceKey::NetworkZone("vpn".parse().expect("a zone"))), "declared/networkzones/vpn"),
            (Key::Declared(ResourceKey::ConfigRepo("main".parse().expect("a repo"))), "declared/configrepos/main"),
            (
                Key::Request { target: ResourceKey::Service(service()), id: RequestId(id("r-1")) },
                "requests/services/default/web/r-1",
            ),
            (
                Key::Request { target: ResourceKey::Host("web1".parse().expect("a host")), id: RequestId(id("r.2")) },
                "requests/hosts/web1/r.2",
            ),
            (Key::Status(ResourceKey::Service(service())), "status/services/default/web"),
            (Key::Owned(service()), "owned/default/web"),
            (Key::Revision(service(), RevisionNumber(7)), "revisions/default/web/7"),
            (Key::Rollout(service(), Sequence(42)), "rollouts/default/web/42"),
            (Key::Event { id: EventId(id("0190-1")) }, "events/0190-1"),
            (Key::Audit(Chain::Anchors, RecordNumber(12)), "audit/anchors/000000000012"),
            (
                Key::Audit(Chain::Resource(ResourceKey::Service(service())), RecordNumber(2)),
                "audit/services/default/web/000000000002",
            ),
            (Key::Control(Control::Leader), "control/leader"),
            (Key::Control(Control::SequenceCounter), "control/sequence"),
            (Key::Control(Control::ClusterId), "control/cluster"),
            (Key::Control(Control::LayoutVersion), "control/layout"),
            (Key::Control(Control::Named(RecordName(id("brake")))), "control/records/brake"),
        ] {
            let prefix = Prefix::default();
            let bytes = format!("/windlass/{path}").into_bytes();
            assert_eq!(key.path(&prefix), bytes, "{key}");
            assert_eq!(Key::parse(&prefix, &bytes), Some(key), "{path}");
        }
    }

    /// Whatever people put there stays distinct, printable and deletable.
    #[test]
    fn garbage_keys_are_unknown_and_round_trip() {
        let prefix = Prefix::default();
        for path in [
            &b""[..],
            b"/",
            b"declared",
            b"declared/",
            b"declared/services/web",
            b"declared/services/default/web/",
            b"declared/services/default/web/extra",
            b"declared/services/default/Web",
            b"declared/pods/default/web",
            b"declared/hosts/a.b",
            b"requests/services/default/web",
            b"requests/services/default/web/",
            b"requests/services/default/web/A",
            b"revisions/default/web/007",
            b"revisions/default/web/+7",
            b"revisions/default/web/-1",
            b"rollouts/default/web/99999999999999999999999",
            b"control/leader/x",
            b"control/records/",
            b"control/other",
            b"events/a/b",
            b"audit/anchors/1",
            b"audit/services/default/web/0000000000012",
            b"audit/hosts/000000000001",
            b"audit/000000000001",
            b"\xff\xfe",
            b"declared/services/default/\xc3\x28",
        ] {
            let bytes = prefix.join(path);
            let key = Key::parse(&prefix, &bytes).expect("under the prefix");
            assert_eq!(key, Key::Unknown(UnknownPath(path.to_owned())), "{}", path.escape_ascii());
            assert_eq!(key.path(&prefix), bytes);
            assert!(!key.to_string().contains(char::is_control));
        }
    }

    #[test]
    fn keys_elsewhere_are_not_ours() {
        let prefix = Prefix::default();
        for bytes in [&b"/windlass"[..], b"/windlass2/declared/hosts/a", b"windlass/declared/hosts/a", b""] {
            assert_eq!(Key::parse(&prefix, bytes), None);
        }
    }

    #[test]
    fn prefixes_are_paths() {
        for (text, good) in [
            ("/windlass", true),
            ("/a/b", true),
            ("/", false),
            ("", false),
            ("windlass", false),
            ("/a/", false),
            ("/a//b", false),
            ("/a\nb", false),
        ] {
            assert_eq!(text.parse::<Prefix>().is_ok(), good, "{text:?}");
        }
    }

    #[test]
    fn ids_are_checked() {
        for (text, good) in
            [("a", true), ("20-a.b", true), ("", false), ("a/b", false), ("-a", false), ("a.", false), ("A", false)]
        {
            assert_eq!(text.parse::<RequestId>().is_ok(), good, "{text:?}");
        }
        assert!("a".repeat(ID_LENGTH).parse::<EventId>().is_ok());
        assert!("a".repeat(ID_LENGTH + 1).parse::<EventId>().is_err());
    }
}
