//! Documents: the YAML or JSON in which declarations are written, read one at a time.
//!
//! Of each document the first structural error is told, with its line and column; where it has none, all semantic
//! problems at once, with their field paths. One bad document never hides another.

use serde::{Deserialize, Serialize};

use crate::condition::Reason;
use crate::configrepo::{ConfigRepoSpec, Manager};
use crate::host::{HostSpec, Labels};
use crate::id::{
    HostName, IdError, Kind, Namespace, PolicyName, RepoName, ResourceKey, ServiceKey, ServiceName, ZoneName,
};
use crate::policy::PolicySpec;
use crate::problem::{self, Problem};
use crate::service::ServiceSpec;
use crate::zone::NetworkZoneSpec;

pub mod places;
mod structure;

use structure::{nearest, structural};

/// The version of the declarations that this program reads.
pub const API_VERSION: &str = "windlass/v1";

/// The most bytes that a declaration may have: what is longer is data, and belongs in the source.
pub const MAX_BYTES: usize = 256 * 1024;

/// A declared resource.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all of them are Services, and they live in a cache, not in flight"
)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Declaration {
    /// What runs where.
    Service(Declared<ServiceKey, ServiceSpec>),
    /// A machine.
    Host(Declared<HostName, HostSpec>),
    /// A network.
    NetworkZone(Declared<ZoneName, NetworkZoneSpec>),
    /// A Git repository.
    ConfigRepo(Declared<RepoName, ConfigRepoSpec>),
    /// What has to be approved.
    Policy(Declared<PolicyName, PolicySpec>),
}

/// A resource of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared<K, S> {
    /// Which.
    pub key: K,
    /// What selectors look at.
    pub labels: Labels,
    /// Who writes it; whoever may where nobody is named.
    pub managed_by: Option<Manager>,
    /// What it says.
    pub spec: S,
}

impl Declaration {
    /// Which resource it declares.
    pub fn key(&self) -> ResourceKey {
        match self {
            Self::Service(declared) => ResourceKey::Service(declared.key.clone()),
            Self::Host(declared) => ResourceKey::Host(declared.key.clone()),
            Self::NetworkZone(declared) => ResourceKey::NetworkZone(declared.key.clone()),
            Self::ConfigRepo(declared) => ResourceKey::ConfigRepo(declared.key.clone()),
            Self::Policy(declared) => ResourceKey::Policy(declared.key.clone()),
        }
    }

    /// Who writes it; whoever may where nobody is named.
    pub fn managed_by(&self) -> Option<&Manager> {
        match self {
            Self::Service(declared) => declared.managed_by.as_ref(),
            Self::Host(declared) => declared.managed_by.as_ref(),
            Self::NetworkZone(declared) => declared.managed_by.as_ref(),
            Self::ConfigRepo(declared) => declared.managed_by.as_ref(),
            Self::Policy(declared) => declared.managed_by.as_ref(),
        }
    }

    /// The same, with another manager or none.
    #[must_use]
    pub fn with_manager(mut self, manager: Option<Manager>) -> Self {
        match &mut self {
            Self::Service(declared) => declared.managed_by = manager,
            Self::Host(declared) => declared.managed_by = manager,
            Self::NetworkZone(declared) => declared.managed_by = manager,
            Self::ConfigRepo(declared) => declared.managed_by = manager,
            Self::Policy(declared) => declared.managed_by = manager,
        }
        self
    }

    /// Everything that makes no sense about it, and everything that this version cannot honour.
    pub fn problems(&self) -> Vec<Problem> {
        match self {
            Self::Service(service) => service.spec.problems(),
            Self::Host(host) => host.spec.problems(),
            Self::NetworkZone(zone) => zone.spec.problems(),
            Self::ConfigRepo(repo) => repo.spec.problems(),
            Self::Policy(policy) => policy.spec.problems(),
        }
    }

    /// The declaration as it is written into the store: JSON with every default spelled out.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Service(declared) => to_json(Kind::Service, declared),
            Self::Host(declared) => to_json(Kind::Host, declared),
            Self::NetworkZone(declared) => to_json(Kind::NetworkZone, declared),
            Self::ConfigRepo(declared) => to_json(Kind::ConfigRepo, declared),
            Self::Policy(declared) => to_json(Kind::Policy, declared),
        }
    }
}

/// What a key contributes to `metadata`.
trait Names {
    fn metadata(&self) -> (String, Option<&Namespace>);
}

impl Names for ServiceKey {
    fn metadata(&self) -> (String, Option<&Namespace>) {
        (self.name.to_string(), Some(&self.namespace))
    }
}

impl Names for HostName {
    fn metadata(&self) -> (String, Option<&Namespace>) {
        (self.to_string(), None)
    }
}

impl Names for RepoName {
    fn metadata(&self) -> (String, Option<&Namespace>) {
        (self.to_string(), None)
    }
}

impl Names for PolicyName {
    fn metadata(&self) -> (String, Option<&Namespace>) {
        (self.to_string(), None)
    }
}

impl Names for ZoneName {
    fn metadata(&self) -> (String, Option<&Namespace>) {
        (self.to_string(), None)
    }
}

/// A resource of one kind as JSON.
fn to_json<K: Names, S: Serialize>(kind: Kind, declared: &Declared<K, S>) -> serde_json::Value {
    let (name, namespace) = declared.key.metadata();
    let mut metadata = serde_json::Map::from_iter([("name".to_owned(), name.into())]);
    if let Some(namespace) = namespace {
        metadata.insert("namespace".to_owned(), namespace.as_str().into());
    }
    if !declared.labels.is_empty() {
        metadata.insert("labels".to_owned(), serde_json::json!(declared.labels));
    }
    if let Some(manager) = &declared.managed_by {
        metadata.insert("managedBy".to_owned(), manager.to_string().into());
    }
    serde_json::json!({
        "apiVersion": API_VERSION,
        "kind": kind.name(),
        "metadata": metadata,
        "spec": declared.spec,
    })
}

/// One document of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document<'a> {
    /// Its text, without the markers around it, but for one that stands on its first line.
    pub text: &'a str,
    /// The line of the file on which it begins, from 1.
    pub line: usize,
}

/// The documents of a text, without those that hold nothing but comments.
///
/// Done before parsing, since a parser gives up on everything at the first bad document.
pub fn split(text: &str) -> Vec<Document<'_>> {
    // Some editors begin a file with it; it is no part of any document.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    let (mut start, mut first_line) = (0, 1);
    let mut position = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let bare = line.trim_end();
        let marker = ["---", "..."].into_iter().any(|marker| {
            bare.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t']))
        });
        if marker {
            documents.push(Document { text: &text[start..position], line: first_line });
            // What stands behind `---` on its line belongs to the document, and the marker with it, so that columns
            // are those of the file.
            let inline = bare.len() > 3 && !bare[3..].trim_start().starts_with('#');
            start = if inline { position } else { position + line.len() };
            first_line = if inline { index + 1 } else { index + 2 };
        }
        position += line.len();
    }
    documents.push(Document { text: &text[start..], line: first_line });
    let says_something = |line: &str| !matches!(line.trim_start().chars().next(), None | Some('#' | '%'));
    documents.retain(|document| document.text.lines().any(says_something));
    documents
}

/// The part of a document that tells what the rest must look like.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    api_version: Option<String>,
    kind: Option<String>,
}

/// A whole document of a known kind.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Whole<M, S> {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    metadata: M,
    spec: S,
}

/// What a Service is called.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ServiceMetadata {
    /// Its name, unique in its namespace.
    name: ServiceName,
    /// What it is grouped by.
    #[serde(default)]
    namespace: Namespace,
    /// For people and programs; nothing is placed by them.
    #[serde(default)]
    labels: Labels,
    /// Who writes it: a ConfigRepo, as `configrepo/fleet`, or `people`. The controller and `apply --adopt` write this.
    #[serde(default)]
    managed_by: Option<Manager>,
}

/// What a Host, a NetworkZone, a ConfigRepo or a Policy is called.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[serde(bound = "K: serde::de::DeserializeOwned + TryFrom<String, Error = IdError>")]
#[cfg_attr(test, schemars(bound = "K: schemars::JsonSchema"))]
pub(crate) struct Metadata<K> {
    /// Its name, unique among its kind.
    name: K,
    /// What selectors look at.
    #[serde(default)]
    labels: Labels,
    /// Who writes it: a ConfigRepo, as `configrepo/fleet`, or `people`. The controller and `apply --adopt` write this.
    #[serde(default)]
    managed_by: Option<Manager>,
}

/// How many times its own size a document may become by its anchors: who writes one value in four places is at that.
const EXPANSION: usize = 4;

/// How strictly YAML is read: duplicate keys are errors, nothing that looks like text becomes a number, and anchors
/// cannot make much of little.
pub(crate) fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_total_scalar_bytes: EXPANSION * MAX_BYTES,
            max_recorded_anchor_bytes: EXPANSION * MAX_BYTES,
            max_nodes: MAX_BYTES,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_BYTES },
        strict_booleans: true,
        reject_unsupported_tags: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        with_snippet: true,
    }
}

fn read<T: serde::de::DeserializeOwned>(text: &str, line: usize) -> Result<T, Problem> {
    // Positions count from the beginning of the file.
    let before = line.saturating_sub(1);
    serde_saphyr::from_str_with_options(text, options()).map_err(|error| structural(&error, before))
}

/// Reads a value of the store: one document, in UTF-8, of at most [`MAX_BYTES`].
///
/// # Errors
/// Everything that is wrong with it, see [`parse`].
pub fn parse_bytes(bytes: &[u8]) -> Result<Declaration, Vec<Problem>> {
    if bytes.len() > MAX_BYTES {
        let message = format!("{} bytes, and a declaration may have at most {MAX_BYTES}", bytes.len());
        return Err(vec![Problem::new(Reason::TooLarge, "", message)]);
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| vec![Problem::invalid("", format!("not UTF-8 from byte {} on", error.valid_up_to()))])?;
    if let Some(position) = text.find('\0') {
        return Err(vec![Problem::invalid("", format!("a NUL at byte {position}"))]);
    }
    match split(text).as_slice() {
        [] => Err(vec![Problem::invalid("", "empty: there is no declaration in it")]),
        [document] => parse(document),
        [_, second, ..] => {
            Err(vec![Problem::invalid("", format!("line {}: a second document; a key holds exactly one", second.line))])
        }
    }
}

/// Reads one document.
///
/// # Errors
/// The first structural error, or every semantic problem.
pub fn parse(document: &Document<'_>) -> Result<Declaration, Vec<Problem>> {
    parse_adjusted(document, |_| Ok(()))
}

/// Reads one document, and has `adjust` change what it says before it is checked: what a relative path means depends
/// on where the document lies.
///
/// # Errors
/// The first structural error, that of `adjust`, or every semantic problem.
pub fn parse_adjusted(
    document: &Document<'_>,
    adjust: impl FnOnce(&mut Declaration) -> Result<(), Problem>,
) -> Result<Declaration, Vec<Problem>> {
    if document.text.len() > MAX_BYTES {
        let message = format!("{} bytes, and a declaration may have at most {MAX_BYTES}", document.text.len());
        return Err(vec![Problem::new(Reason::TooLarge, "", message)]);
    }
    let kind = header(document).map_err(|problem| vec![problem])?;
    let mut declaration = body(kind, document).map_err(|problem| vec![problem])?;
    adjust(&mut declaration).map_err(|problem| vec![problem])?;
    let problems = declaration.problems();
    if problems.is_empty() { Ok(declaration) } else { Err(problem::at_most(problems)) }
}

fn header(document: &Document<'_>) -> Result<Kind, Problem> {
    let Header { api_version, kind } = read(document.text, document.line)?;
    match api_version.as_deref() {
        Some(API_VERSION) => {}
        Some(other) => {
            let message = format!("{other:?} is unknown; this version reads {API_VERSION}");
            return Err(Problem::new(Reason::UnknownKind, "apiVersion", message));
        }
        None => return Err(Problem::invalid("apiVersion", format!("is missing; write `apiVersion: {API_VERSION}`"))),
    }
    let names = Kind::ALL.map(Kind::name);
    match kind {
        Some(name) => Kind::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            let hint = nearest(&name, &names).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            Problem::new(Reason::UnknownKind, "kind", format!("{name:?} is unknown{hint}"))
        }),
        None => Err(Problem::invalid("kind", format!("is missing; one of {}", names.join(", ")))),
    }
}

fn body(kind: Kind, document: &Document<'_>) -> Result<Declaration, Problem> {
    Ok(match kind {
        Kind::Service => {
            let Whole { metadata, spec, .. } =
                read::<Whole<ServiceMetadata, ServiceSpec>>(document.text, document.line)?;
            let ServiceMetadata { name, namespace, labels, managed_by } = metadata;
            Declaration::Service(Declared { key: ServiceKey { namespace, name }, labels, managed_by, spec })
        }
        Kind::Host => {
            let Whole { metadata, spec, .. } = read(document.text, document.line)?;
            Declaration::Host(declared(metadata, spec))
        }
        Kind::NetworkZone => {
            let Whole { metadata, spec, .. } = read(document.text, document.line)?;
            Declaration::NetworkZone(declared(metadata, spec))
        }
        Kind::ConfigRepo => {
            let Whole { metadata, spec, .. } = read(document.text, document.line)?;
            Declaration::ConfigRepo(declared(metadata, spec))
        }
        Kind::Policy => {
            let Whole { metadata, spec, .. } = read(document.text, document.line)?;
            Declaration::Policy(declared(metadata, spec))
        }
    })
}

/// A resource of a kind without a namespace.
fn declared<K, S>(metadata: Metadata<K>, spec: S) -> Declared<K, S> {
    let Metadata { name: key, labels, managed_by } = metadata;
    Declared { key, labels, managed_by, spec }
}

/// Reads the value of a declaration's key, and checks that it is about that key.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse_at(key: &ResourceKey, bytes: &[u8]) -> Result<Declaration, Vec<Problem>> {
    let declaration = parse_bytes(bytes)?;
    if declaration.key() == *key {
        return Ok(declaration);
    }
    let message = format!("the document declares {}, and its key is that of {key}", declaration.key());
    Err(vec![Problem::new(Reason::NameMismatch, "metadata.name", message)])
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
