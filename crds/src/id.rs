//! Identifiers: a newtype for each, validated when built and when deserialised.

use std::cmp::Ordering;
use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest DNS label (RFC 1035, section 2.3.4).
pub const LABEL_LENGTH: usize = 63;

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Nothing at all.
    #[error("is empty")]
    Empty,
    /// More than a label holds.
    #[error("has {0} characters, and at most {LABEL_LENGTH} are allowed")]
    TooLong(usize),
    /// A character outside `[a-z0-9-]`, or a hyphen at an end.
    #[error("{0:?} is not a DNS label: lower-case letters, digits and inner hyphens only")]
    NotALabel(String),
    /// Not an SSH destination.
    #[error("{0:?} is neither the name of a Host nor user@address:port")]
    NotADestination(String),
    /// Not the digits that were expected.
    #[error("{0:?} is not {1}")]
    Malformed(String, &'static str),
}

/// Whether `text` is a DNS label as Windlass uses it: `[a-z0-9]([a-z0-9-]*[a-z0-9])?`.
fn check_label(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > LABEL_LENGTH {
        return Err(IdError::TooLong(text.len()));
    }
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let bytes = text.as_bytes();
    let ends_well = bytes[0] != b'-' && bytes[bytes.len() - 1] != b'-';
    if ends_well && bytes.iter().copied().all(inner) { Ok(()) } else { Err(IdError::NotALabel(text.to_owned())) }
}

/// So many bytes of a label are in its [`beginning`].
const BEGINNING: usize = 16;

/// The beginning of a label as a number that sorts as the text does: labels are plain ASCII, without NUL.
fn beginning(text: &str) -> u128 {
    let mut bytes = [0; BEGINNING];
    let length = text.len().min(bytes.len());
    bytes[..length].copy_from_slice(&text.as_bytes()[..length]);
    u128::from_be_bytes(bytes)
}

/// A label. Each plan of a Service on a thousand hosts compares and copies such names a million times: so copies share
/// one text, and most comparisons do without it.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name {
            beginning: u128,
            text: Arc<str>,
        }

        impl $name {
            /// The label as text.
            pub fn as_str(&self) -> &str {
                &self.text
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                check_label(text)?;
                Ok(Self { beginning: beginning(text), text: text.into() })
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.as_str().to_owned()
            }
        }

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                let short = || self.text.len() <= BEGINNING && other.text.len() <= BEGINNING;
                match self.beginning.cmp(&other.beginning) {
                    Ordering::Equal if !short() => self.text.cmp(&other.text),
                    order => order,
                }
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.debug_tuple(stringify!($name)).field(&self.text).finish()
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.pad(&self.text)
            }
        }
    };
}

label! {
    /// The name of a Service, unique in its namespace.
    ServiceName
}
label! {
    /// A namespace: what Services are grouped by.
    Namespace
}
label! {
    /// The name of a Host resource.
    HostName
}
label! {
    /// The name of a NetworkZone.
    ZoneName
}

impl Default for Namespace {
    fn default() -> Self {
        "default".parse().expect("it is a label")
    }
}

/// Which Service: its namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceKey {
    /// The namespace that it lives in.
    pub namespace: Namespace,
    /// Its name there.
    pub name: ServiceName,
}

impl ServiceKey {
    /// The name of its folder on a host: `<namespace>.<name>`, unique since labels have no dots.
    pub fn folder(&self) -> String {
        format!("{}.{}", self.namespace, self.name)
    }

    /// The name of its systemd unit: `windlass-<namespace>.<name>.service`.
    pub fn unit(&self) -> String {
        format!("windlass-{}.service", self.folder())
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for ServiceKey {
    type Err = IdError;

    /// Reads `<namespace>/<name>`.
    fn from_str(text: &str) -> Result<Self, IdError> {
        let (namespace, name) =
            text.split_once('/').ok_or_else(|| IdError::Malformed(text.to_owned(), "<namespace>/<name>"))?;
        Ok(Self { namespace: namespace.parse()?, name: name.parse()? })
    }
}

/// A plain SSH destination, `[user@]address[:port]`; an IPv6 address stands in brackets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    /// The login; the controller's own user name where there is none.
    pub user: Option<String>,
    /// A name or an address, without brackets.
    pub address: String,
    /// The port of sshd; 22 where there is none.
    pub port: Option<NonZeroU16>,
}

/// Whether an address or a login is safe to hand to `ssh`, which reads its destination without `--`.
fn plain_word(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && !text.starts_with('-')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-:%".contains(&byte))
}

/// Whether `text` may be an address: a host name, an IPv4 or an IPv6 address, never an option of `ssh`.
pub fn is_address(text: &str) -> bool {
    plain_word(text) && (!text.contains(':') || text.parse::<std::net::Ipv6Addr>().is_ok())
}

/// Whether `text` may be a login on a host, never an option of `ssh`.
pub fn is_login(text: &str) -> bool {
    plain_word(text) && !text.contains([':', '%'])
}

impl FromStr for Destination {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let wrong = || IdError::NotADestination(text.to_owned());
        let (user, rest) = match text.rsplit_once('@') {
            Some((user, rest)) => (Some(user.to_owned()), rest),
            None => (None, text),
        };
        let (address, port) = if let Some(bracketed) = rest.strip_prefix('[') {
            let (address, tail) = bracketed.split_once(']').ok_or_else(wrong)?;
            match tail.strip_prefix(':') {
                Some(port) => (address, Some(port)),
                None if tail.is_empty() => (address, None),
                None => return Err(wrong()),
            }
        } else {
            match rest.split_once(':') {
                Some((address, port)) => (address, Some(port)),
                None => (rest, None),
            }
        };
        let port = port.map(str::parse).transpose().map_err(|_| wrong())?;
        if !is_address(address) || !user.as_deref().is_none_or(is_login) {
            return Err(wrong());
        }
        Ok(Self { user, address: address.to_owned(), port })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(out, "{user}@")?;
        }
        if self.address.contains(':') {
            write!(out, "[{}]", self.address)?;
        } else {
            write!(out, "{}", self.address)?;
        }
        if let Some(port) = self.port {
            write!(out, ":{port}")?;
        }
        Ok(())
    }
}

/// What a placement calls a host: the name of a Host, or a plain SSH destination.
///
/// A text with `@`, `.` or `:` in it is a destination; a bare label is always the name of a Host, so that a
/// mistyped name is told instead of being looked up in DNS.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub enum HostId {
    /// The name of a Host resource.
    Named(HostName),
    /// An address that no Host resource describes.
    Inline(Destination),
}

impl FromStr for HostId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if text.contains(['@', '.', ':']) { text.parse().map(Self::Inline) } else { text.parse().map(Self::Named) }
    }
}

impl TryFrom<String> for HostId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<HostId> for String {
    fn from(id: HostId) -> String {
        id.to_string()
    }
}

impl Serialize for HostId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Named(name) => name.serialize(serializer),
            Self::Inline(_) => serializer.collect_str(self),
        }
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => name.fmt(out),
            Self::Inline(destination) => out.pad(&destination.to_string()),
        }
    }
}

label! {
    /// The name of a ConfigRepo.
    RepoName
}
label! {
    /// The name of a Policy.
    PolicyName
}

/// The kinds of resources that a store may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// What runs where.
    Service,
    /// A machine, and how to reach it.
    Host,
    /// A network, and what may be spoken in it.
    NetworkZone,
    /// A Git repository that the controller follows.
    ConfigRepo,
    /// What has to be approved, and by whom.
    Policy,
}

impl Kind {
    /// Every kind, in the order in which `windlass apply` writes them: what others refer to comes first.
    pub const ALL: [Self; 5] = [Self::NetworkZone, Self::Host, Self::Policy, Self::ConfigRepo, Self::Service];

    /// As it stands in a declaration: `Service`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::Host => "Host",
            Self::NetworkZone => "NetworkZone",
            Self::ConfigRepo => "ConfigRepo",
            Self::Policy => "Policy",
        }
    }

    /// As it stands in a key of the store: `services`.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Service => "services",
            Self::Host => "hosts",
            Self::NetworkZone => "networkzones",
            Self::ConfigRepo => "configrepos",
            Self::Policy => "policies",
        }
    }

    /// As it stands on the command line: `service`.
    pub fn singular(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            _ => self.plural().strip_suffix('s').expect("every other plural ends in s"),
        }
    }

    /// Reads a word of the command line in any of its forms, whatever its case: `service`, `services`, `svc`.
    pub fn from_word(word: &str) -> Option<Self> {
        let word = word.to_ascii_lowercase();
        let short = match word.as_str() {
            "svc" => Some(Self::Service),
            "nz" | "zone" | "zones" => Some(Self::NetworkZone),
            "repo" | "repos" => Some(Self::ConfigRepo),
            _ => None,
        };
        short.or_else(|| Self::ALL.into_iter().find(|kind| word == kind.plural() || word == kind.singular()))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.name())
    }
}

/// Which resource: a kind, and the name that this kind has. Written as its path: `services/default/web`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ResourceKey {
    /// A Service, by namespace and name.
    Service(ServiceKey),
    /// A Host.
    Host(HostName),
    /// A NetworkZone.
    NetworkZone(ZoneName),
    /// A ConfigRepo.
    ConfigRepo(RepoName),
    /// A Policy.
    Policy(PolicyName),
}

impl ResourceKey {
    /// The kind of the resource.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Service(_) => Kind::Service,
            Self::Host(_) => Kind::Host,
            Self::NetworkZone(_) => Kind::NetworkZone,
            Self::ConfigRepo(_) => Kind::ConfigRepo,
            Self::Policy(_) => Kind::Policy,
        }
    }

    /// The path below `declared/`, `status/` and `requests/`: `services/default/web`, `hosts/web1`.
    pub fn path(&self) -> String {
        let plural = self.kind().plural();
        match self {
            Self::Service(key) => format!("{plural}/{key}"),
            Self::Host(name) => format!("{plural}/{name}"),
            Self::NetworkZone(name) => format!("{plural}/{name}"),
            Self::ConfigRepo(name) => format!("{plural}/{name}"),
            Self::Policy(name) => format!("{plural}/{name}"),
        }
    }

    /// Reads what [`ResourceKey::path`] wrote.
    ///
    /// # Errors
    /// When the plural is not a kind's, the number of parts is wrong for it, or a part is not a DNS label.
    pub fn from_path(path: &str) -> Result<Self, IdError> {
        let wrong = || IdError::Malformed(path.to_owned(), "<kind>/[<namespace>/]<name>");
        let (plural, name) = path.split_once('/').ok_or_else(wrong)?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.plural() == plural).ok_or_else(wrong)?;
        Ok(match kind {
            Kind::Service => Self::Service(name.parse()?),
            Kind::Host => Self::Host(name.parse()?),
            Kind::NetworkZone => Self::NetworkZone(name.parse()?),
            Kind::ConfigRepo => Self::ConfigRepo(name.parse()?),
            Kind::Policy => Self::Policy(name.parse()?),
        })
    }
}

impl TryFrom<String> for ResourceKey {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        Self::from_path(&text)
    }
}

impl From<ResourceKey> for String {
    fn from(key: ResourceKey) -> String {
        key.path()
    }
}

impl fmt::Display for ResourceKey {
    /// As people type it: `service/web`, with the namespace in front of the name where it is not `default`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind().singular();
        match self {
            Self::Service(key) if key.namespace == Namespace::default() => write!(out, "{kind}/{}", key.name),
            Self::Service(key) => write!(out, "{kind}/{key}"),
            Self::Host(name) => write!(out, "{kind}/{name}"),
            Self::NetworkZone(name) => write!(out, "{kind}/{name}"),
            Self::ConfigRepo(name) => write!(out, "{kind}/{name}"),
            Self::Policy(name) => write!(out, "{kind}/{name}"),
        }
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The one after this.
            pub fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(out)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                text.parse().map(Self).map_err(|_| IdError::Malformed(text.to_owned(), "a whole number"))
            }
        }
    };
}

number! {
    /// A rollout's number, from one counter for the whole store; only grows; the fence on hosts.
    Sequence
}
number! {
    /// The number of a revision of one Service, from 1.
    RevisionNumber
}
number! {
    /// The number of a record in its chain of the audit trail, from 1.
    RecordNumber
}
number! {
    /// The `mod_revision` of a declaration's key when it was read.
    Generation
}

/// Whether `text` is made of 8 to 64 hexadecimal digits and hyphens.
fn is_token(text: &str) -> bool {
    (8..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

/// An identifier that is a text which `$fits`, and else is told not to be `$what`.
macro_rules! token {
    ($(#[$doc:meta])* $name:ident, $what:literal, $fits:path) => {
        $(#[$doc])*
        // Shared, since what names it is copied for every host and turn.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                if $fits(&text) { Ok(Self(text.into())) } else { Err(IdError::Malformed(text, $what)) }
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.pad(&self.0)
            }
        }
    };
}

pub(crate) use token;

token! {
    /// `/etc/machine-id` of a host (machine-id(5)).
    MachineId, "a machine id", is_token
}
token! {
    /// `/proc/sys/kernel/random/boot_id` of a host: another one after each boot.
    BootId, "a boot id", is_token
}
token! {
    /// The id of the store that owns what a controller put on a host.
    ClusterId, "a cluster id", is_token
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_sort_as_their_text_does() {
        let texts = ["a", "ab", "a-b", "a0", "web-prod-eu-0001", "web-prod-eu-00010", "web-prod-eu-0002", "zz"];
        let names = texts.map(|text| text.parse::<HostName>().expect("a label"));
        for (one, name) in texts.iter().zip(&names) {
            for (other, beside) in texts.iter().zip(&names) {
                assert_eq!(name.cmp(beside), one.cmp(other), "{one} and {other}");
                assert_eq!(name == beside, one == other);
            }
        }
    }

    #[test]
    fn labels_are_dns_labels() {
        for (text, good) in [
            ("web1", true),
            ("a", true),
            ("a-b", true),
            ("", false),
            ("-a", false),
            ("a-", false),
            ("a.b", false),
            ("A", false),
            ("a_b", false),
            ("ä", false),
        ] {
            assert_eq!(text.parse::<ServiceName>().is_ok(), good, "{text:?}");
        }
        assert!("a".repeat(63).parse::<ServiceName>().is_ok());
        assert_eq!("a".repeat(64).parse::<ServiceName>(), Err(IdError::TooLong(64)));
    }

    #[test]
    fn host_ids_tell_names_from_destinations() {
        for text in
            ["web1", "root@web1", "198.18.0.11", "deploy@198.18.0.11:2222", "root@[fd00::1]:22", "a.example.com"]
        {
            let id: HostId = text.parse().expect(text);
            assert_eq!(matches!(id, HostId::Named(_)), text == "web1", "{text}");
            assert_eq!(id.to_string(), text);
        }
        for text in [
            "",
            "-oProxyCommand=x",
            "root@-oProxyCommand",
            "-l@web.x",
            "a b.c",
            "web1:0",
            "web1:99999",
            "a@b@c d",
            "$(x).y",
            "x:y.z",
        ] {
            assert!(text.parse::<HostId>().is_err(), "{text:?}");
        }
    }
}
