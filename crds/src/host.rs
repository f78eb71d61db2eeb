//! Host: a machine, how to reach it and how to be sure that it is the one.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{HostId, is_address, is_login};
use crate::problem::Problem;

/// The labels of a resource.
pub type Labels = BTreeMap<String, String>;

/// A public key that a host proves to hold, as in `known_hosts`: type and base64.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostKey(String);

/// Why a text is not a host key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a public host key such as `ssh-ed25519 AAAAC3…`")]
pub struct HostKeyError(String);

impl TryFrom<String> for HostKey {
    type Error = HostKeyError;
    fn try_from(text: String) -> Result<Self, HostKeyError> {
        let mut words = text.split_ascii_whitespace();
        let (Some(algorithm), Some(key)) = (words.next(), words.next()) else {
            return Err(HostKeyError(text));
        };
        let known = ["ssh-", "ecdsa-sha2-", "sk-"].iter().any(|start| algorithm.starts_with(start))
            && algorithm.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-@.".contains(&byte));
        let base64 =
            key.starts_with("AAAA") && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
        if known && base64 { Ok(Self(format!("{algorithm} {key}"))) } else { Err(HostKeyError(text)) }
    }
}

impl FromStr for HostKey {
    type Err = HostKeyError;
    fn from_str(text: &str) -> Result<Self, HostKeyError> {
        Self::try_from(text.to_owned())
    }
}

impl From<HostKey> for String {
    fn from(key: HostKey) -> String {
        key.0
    }
}

impl fmt::Display for HostKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// Which key the controller logs in with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Identity {
    /// The keys of the running ssh-agent; the default where there is no `keyFile`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<bool>,
    /// A private key on the controller's machine; `~/` is the home of the controller's user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
}

/// What the login may do on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Privilege {
    /// It may run anything with `sudo`, without a password.
    Sudo,
    /// It is root.
    Root,
    /// It is nobody special: services run in its own systemd.
    User,
}

/// What a Host says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostSpec {
    /// A name or an IP address.
    pub address: String,
    /// The port of sshd; 22 unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<NonZeroU16>,
    /// The login; the controller's own user name unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Which key to log in with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// Pinned keys; without any, known_hosts decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_keys: Vec<HostKey>,
    /// What the login may do; found out when omitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privilege: Option<Privilege>,
    /// Where Windlass keeps its files there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_dir: Option<String>,
    /// Another Host to go through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_jump: Option<String>,
    /// Whether the agent's keys are lent to the host.
    #[serde(default)]
    pub forward_agent: bool,
    /// Whether the host is drained and left alone.
    #[serde(default)]
    pub maintenance: bool,
}

/// Whether a path may be written into a unit file and handed to the tools of a host as it is.
pub(crate) fn plain_absolute_path(path: &str) -> bool {
    path.len() > 1
        && path.starts_with('/')
        && !path.ends_with('/')
        && path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte))
        && path[1..].split('/').all(|part| !matches!(part, "" | "." | ".."))
}

impl HostSpec {
    /// Everything that makes no sense about it, and everything that this version cannot honour.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !is_address(&self.address) {
            problems.push(Problem::invalid(
                "spec.address",
                format!("{:?} is not a host name or an IP address", self.address),
            ));
        }
        if let Some(user) = &self.user
            && !is_login(user)
        {
            problems.push(Problem::invalid("spec.user", format!("{user:?} is not a login")));
        }
        if let Some(identity) = &self.identity
            && let Identity { agent: Some(true), key_file: Some(_) } | Identity { agent: Some(false), key_file: None } =
                identity
        {
            problems.push(Problem::invalid("spec.identity", "say either `agent: true` or a `keyFile`"));
        }
        if let Some(file) = self.identity.as_ref().and_then(|identity| identity.key_file.as_ref())
            && (!(file.starts_with('/') || file.starts_with("~/"))
                || file.chars().any(|c| c.is_control() || "\"%$".contains(c)))
        {
            problems.push(Problem::invalid("spec.identity.keyFile", "must be an absolute path, or begin with ~/"));
        }
        if let Some(directory) = &self.remote_dir
            && !plain_absolute_path(directory)
        {
            problems.push(Problem::invalid(
                "spec.remoteDir",
                "must be an absolute path of letters, digits, `.`, `_` and `-`",
            ));
        }
        let refused = [
            ("spec.proxyJump", self.proxy_jump.is_some()),
            ("spec.forwardAgent", self.forward_agent),
            ("spec.maintenance", self.maintenance),
        ];
        problems.extend(refused.into_iter().filter(|(_, set)| *set).map(|(field, _)| Problem::not_supported(field)));
        problems
    }
}

/// Everything that is needed to reach a host again, also when its Host is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// What placements call it.
    pub id: HostId,
    /// A name or an IP address.
    pub address: String,
    /// The port of sshd.
    pub port: NonZeroU16,
    /// The login; the controller's own user name where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// A private key on the controller's machine; the agent's keys where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
    /// Pinned keys; known_hosts decides where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_keys: Vec<HostKey>,
    /// What the login may do; found out where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privilege: Option<Privilege>,
    /// Where Windlass keeps its files; by scope where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_dir: Option<String>,
}

/// The port of sshd where nobody says another (RFC 4253, section 4.1).
const SSH_PORT: NonZeroU16 = NonZeroU16::new(22).expect("22 is not zero");

impl Target {
    /// How to reach a declared Host.
    pub fn declared(id: HostId, spec: &HostSpec) -> Self {
        Self {
            id,
            address: spec.address.clone(),
            port: spec.port.unwrap_or(SSH_PORT),
            user: spec.user.clone(),
            key_file: spec.identity.as_ref().and_then(|identity| identity.key_file.clone()),
            host_keys: spec.host_keys.clone(),
            privilege: spec.privilege,
            remote_dir: spec.remote_dir.clone(),
        }
    }

    /// How to reach a plain SSH destination; `None` for the name of a Host.
    pub fn inline(id: &HostId) -> Option<Self> {
        let HostId::Inline(destination) = id else { return None };
        Some(Self {
            id: id.clone(),
            address: destination.address.clone(),
            port: destination.port.unwrap_or(SSH_PORT),
            user: destination.user.clone(),
            key_file: None,
            host_keys: Vec::new(),
            privilege: None,
            remote_dir: None,
        })
    }
}
