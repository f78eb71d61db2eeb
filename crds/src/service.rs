//! Service: what runs, on which hosts, from which source, and how it is rolled out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::configrepo::TreeId;
use crate::digest::{ReleaseDigest, SpecDigest, WorkloadDigest};
use crate::fields;
use crate::host::Labels;
use crate::id::{HostId, RepoName};
use crate::manifest::ReleasePath;
use crate::problem::Problem;
use crate::span::Span;

mod problems;
mod rollout;

pub use self::rollout::{
    Approval, Canary, CanaryStep, MaxUnavailable, Order, OrderError, Promotion, Rollout, Strategy,
};

/// What a Service says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceSpec {
    /// Which hosts.
    pub placement: Placement,
    /// Which files.
    pub source: Source,
    /// How they are run.
    pub runtime: Runtime,
    /// What it listens on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// How it starts and stops.
    #[serde(default)]
    pub lifecycle: Lifecycle,
    /// What else is done around a deploy.
    #[serde(default, skip_serializing_if = "Hooks::is_empty")]
    pub hooks: Hooks,
    /// What healthy means; without it, a unit that has run for 10 s and owns its port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// How a new revision gets to the hosts.
    #[serde(default)]
    pub rollout: Rollout,
    /// What happens when the declaration is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// Whether the state directory goes too when the service is removed.
    #[serde(default)]
    pub purge_data: bool,
}

/// Which hosts a Service runs on: those that are named, and those that a selector matches.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Placement {
    /// Names of Hosts, or `user@address:port`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostId>,
    /// Every Host with all of these labels.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub selector: Labels,
}

/// Which files make a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Source {
    /// A directory on the controller's machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// A Git repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<GitSource>,
    /// A directory of the commit that a ConfigRepo follows. The controller writes this where a Service that is declared
    /// in a repository has a relative `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<RepoTree>,
    /// Globs of what belongs to the release; everything where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// Globs of what does not; `.git`, `__pycache__` and `*.pyc` never do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// How a change is noticed.
    #[serde(default)]
    pub change_detection: ChangeDetection,
}

/// A directory of the commit that a ConfigRepo follows. It is named by what it holds and not by the commit, so that a
/// commit changes only the declarations whose files it touches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RepoTree {
    /// The ConfigRepo.
    pub name: RepoName,
    /// The directory, from the root of the repository; its root where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<ReleasePath>,
    /// What it holds.
    pub tree: TreeId,
}

impl fmt::Display for RepoTree {
    /// `configrepo/fleet apps/web`, for people.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "configrepo/{} {}", self.name, self.path.as_ref().map_or(".", ReleasePath::as_str))
    }
}

/// A Git repository as a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GitSource {
    /// Where it is.
    pub url: String,
    /// A branch, a tag or a commit.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// A directory in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// How a change of the source is noticed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ChangeDetection {
    /// By what.
    pub method: DetectionMethod,
    /// How often it is looked at.
    pub interval: Span,
}

impl Default for ChangeDetection {
    fn default() -> Self {
        Self { method: DetectionMethod::ContentHash, interval: Span::seconds(60) }
    }
}

/// By what a change of the source is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum DetectionMethod {
    /// By the SHA-256 of each file.
    ContentHash,
    /// By the commit.
    GitCommit,
    /// By the modification times.
    Mtime,
}

/// How a release is run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Runtime {
    /// What runs the entry point.
    pub target: RuntimeTarget,
    /// A file of the release.
    pub entry_point: ReleasePath,
    /// Arguments for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Its environment, beside `PORT` and `STATE_DIRECTORY`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Secrets for its environment, by reference.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_from: Vec<EnvFrom>,
    /// Whether dependencies are installed.
    #[serde(default)]
    pub install: Install,
    /// The user that it runs as, in system scope; systemd's DynamicUser where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What it may use at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
}

/// What runs an entry point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum RuntimeTarget {
    /// `python3`.
    Python,
    /// `node`.
    Node,
    /// A Go module, built.
    Go,
    /// A Cargo package, built.
    Rust,
    /// `dotnet`.
    Dotnet,
    /// Itself: it is executable.
    Generic,
}

/// A secret for the environment, by reference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvFrom {
    /// What the program sees it as.
    pub name: String,
    /// An environment variable of the controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
    /// A file on the controller's machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// Whether and how dependencies are installed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Install {
    /// As the files of the release ask for.
    #[default]
    Auto,
    /// Not at all.
    None,
    /// By this command.
    Command(Vec<String>),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct InstallCommand {
    command: Vec<String>,
}

impl Serialize for Install {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::None => serializer.serialize_str("none"),
            Self::Command(command) => InstallCommand { command: command.clone() }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Install {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Install;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("auto, none or {command: [...]}")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Install, E> {
                match text {
                    "auto" => Ok(Install::Auto),
                    "none" => Ok(Install::None),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Install, A::Error> {
                let InstallCommand { command } = Deserialize::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(Install::Command(command))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// What a service may use at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// `512M`: bytes, with K, M, G or T for powers of 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// Cores: `"1.5"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// Processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<NonZeroU32>,
}

/// What a service listens on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Network {
    /// The port; the program gets it as `PORT`.
    pub port: NonZeroU16,
    /// What it speaks; the zone's default where it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    /// The certificate that it shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// Who may talk to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
}

/// What a service speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Transport {
    /// HTTP over TLS.
    Https,
    /// HTTP in plaintext.
    Http,
    /// Anything over plain TCP.
    Tcp,
}

impl Transport {
    /// Whether others on the way can read it.
    pub fn is_plaintext(self) -> bool {
        match self {
            Self::Https => false,
            Self::Http | Self::Tcp => true,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Https => "https",
            Self::Http => "http",
            Self::Tcp => "tcp",
        })
    }
}

/// A certificate and its key, on the controller's machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Certificate {
    /// PEM.
    pub cert_file: String,
    /// PEM.
    pub key_file: String,
}

/// Who may talk to a service. Kept as it was written: this version refuses it by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Auth {
    /// Whoever shows a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer_token: Option<BearerToken>,
    /// Whoever shows a certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtls: Option<Mtls>,
}

/// A token, by reference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BearerToken {
    /// Where the token is.
    pub source: SecretSource,
    /// How often a new one is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Span>,
}

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretSource {
    /// An environment variable of the controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
    /// A file on the controller's machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// Clients' certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mtls {
    /// Who signs them.
    pub ca_file: String,
}

/// How a service starts and stops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Lifecycle {
    /// When it runs.
    #[serde(rename = "type")]
    pub kind: LifecycleType,
    /// When it stops for want of work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Span>,
    /// When it stops in any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_lifetime: Option<Span>,
    /// What stops it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shutdown_on: Vec<String>,
    /// How long connections may take to end before the stop.
    pub drain_timeout: Span,
    /// SIGKILL so long after the stop began.
    pub force_after: Span,
}

/// `drainTimeout` where nobody says another.
const DRAIN_TIMEOUT: Span = Span::seconds(30);

impl Default for Lifecycle {
    fn default() -> Self {
        Self {
            kind: LifecycleType::Persistent,
            idle_timeout: None,
            max_lifetime: None,
            shutdown_on: Vec::new(),
            drain_timeout: DRAIN_TIMEOUT,
            force_after: Span::seconds(60),
        }
    }
}

/// When a service runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum LifecycleType {
    /// Always.
    Persistent,
    /// Until it is done.
    Transient,
    /// When it is asked.
    OnDemand,
    /// As long as a pipe is open.
    PipelineBound,
}

/// What else is done around a deploy. Kept as it was written: this version refuses it by name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Hooks {
    /// In the staged release.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pre_deploy: Vec<serde_json::Value>,
    /// Before the old one stops.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pre_shutdown: Vec<serde_json::Value>,
    /// With the verdict.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub post_deploy: Vec<serde_json::Value>,
    /// After the old one has stopped.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub post_shutdown: Vec<serde_json::Value>,
    /// Before a rollback.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub on_health_failure: Vec<serde_json::Value>,
}

impl Hooks {
    /// Whether there is none at all.
    pub fn is_empty(&self) -> bool {
        self.named().iter().all(|(_, hooks)| hooks.is_empty())
    }

    /// Each list with its name.
    fn named(&self) -> [(&'static str, &Vec<serde_json::Value>); 5] {
        [
            ("preDeploy", &self.pre_deploy),
            ("preShutdown", &self.pre_shutdown),
            ("postDeploy", &self.post_deploy),
            ("postShutdown", &self.post_shutdown),
            ("onHealthFailure", &self.on_health_failure),
        ]
    }
}

/// What healthy means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Health {
    /// A path that answers 2xx or 3xx; without it, or with `tcp`, an accepted connection is enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The way the question takes.
    pub via: HealthRoute,
    /// How often it is asked once the rollout is over.
    pub interval: Span,
    /// How long an answer may take.
    pub timeout: Span,
    /// So many bad answers in a row make it unhealthy.
    pub unhealthy_threshold: NonZeroU32,
    /// So many good answers in a row make it healthy.
    pub healthy_threshold: NonZeroU32,
    /// Bad answers do not count for so long after a start.
    pub start_period: Span,
    /// What a certificate is checked against.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<HealthTls>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            endpoint: None,
            via: HealthRoute::Ssh,
            interval: Span::seconds(30),
            timeout: Span::seconds(5),
            unhealthy_threshold: NonZeroU32::new(3).expect("3 is not zero"),
            healthy_threshold: NonZeroU32::new(2).expect("2 is not zero"),
            start_period: Span::seconds(30),
            tls: None,
        }
    }
}

/// The way a health question takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum HealthRoute {
    /// Through the SSH connection, to the host's loopback address.
    Ssh,
    /// Straight to the host's address.
    Direct,
}

/// What a program's certificate is checked against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HealthTls {
    /// The name that the certificate must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Who signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
}

/// What happens to a service on its hosts when the declaration is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum DeletionPolicy {
    /// It is stopped and taken off.
    #[default]
    Remove,
    /// It is disowned and left running.
    Keep,
}

impl ServiceSpec {
    /// The port that it listens on.
    pub fn port(&self) -> Option<NonZeroU16> {
        self.network.as_ref().map(|network| network.port)
    }

    /// Everything that makes no sense about it, and everything that this version cannot honour.
    pub fn problems(&self) -> Vec<Problem> {
        problems::problems(self)
    }

    /// What a host would get to run: two specs with one workload restart nothing.
    ///
    /// Where it is placed, how it is watched, rolled out and removed are not part of it, and neither is where the
    /// source lies: its files are, as the release.
    pub fn workload(&self, release: &ReleaseDigest) -> WorkloadDigest {
        let Self {
            placement: _,
            source: _,
            runtime,
            network,
            lifecycle,
            hooks: _,
            health: _,
            rollout: _,
            deletion_policy: _,
            purge_data: _,
        } = self;
        let reaches_the_host = (release, runtime, network.as_ref().map(|network| network.port), lifecycle.force_after);
        WorkloadDigest::of(&serde_json::to_vec(&reaches_the_host).expect("a spec is always JSON"))
    }

    /// All of it.
    pub fn whole(&self) -> SpecDigest {
        SpecDigest::of(&serde_json::to_vec(self).expect("a spec is always JSON"))
    }

    /// Which fields another one has otherwise, by their paths.
    pub fn differing(&self, other: &Self) -> Vec<String> {
        let json = |spec: &Self| serde_json::to_value(spec).expect("a spec is always JSON");
        let changes = fields::changes(&json(self), &json(other));
        changes.into_iter().map(|change| format!("spec.{}", change.path)).collect()
    }

    /// What is blocked, together with a release, once it turned out unhealthy: everything but where it is placed,
    /// how it is rolled out and how it is removed, none of which would make it any better.
    pub fn digest(&self) -> SpecDigest {
        let rest = Self {
            placement: Placement::default(),
            rollout: Rollout::default(),
            deletion_policy: DeletionPolicy::default(),
            purge_data: false,
            // What git calls a tree, and where it lies there, is nothing to the files that are in it.
            source: Source { repo: None, ..self.source.clone() },
            ..self.clone()
        };
        SpecDigest::of(&serde_json::to_vec(&rest).expect("a spec is always JSON"))
    }

    /// The hosts that it is placed on, of those that are declared.
    pub fn hosts<'a>(&'a self, declared: impl Iterator<Item = (HostId, &'a Labels)>) -> BTreeSet<HostId> {
        let mut hosts: BTreeSet<HostId> = self.placement.hosts.iter().cloned().collect();
        if !self.placement.selector.is_empty() {
            let matches =
                |labels: &Labels| self.placement.selector.iter().all(|(key, value)| labels.get(key) == Some(value));
            hosts.extend(declared.filter(|(_, labels)| matches(labels)).map(|(id, _)| id));
        }
        hosts
    }
}
