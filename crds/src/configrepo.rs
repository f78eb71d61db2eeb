//! ConfigRepo: a Git repository that the controller follows, and what identifies things in it.

use std::fmt;
use std::str::FromStr;

use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};

use crate::host::{HostKey, plain_absolute_path};
use crate::id::{IdError, Kind, RepoName, is_address, is_login, token};
use crate::manifest::ReleasePath;
use crate::problem::Problem;
use crate::span::Span;

/// What a ConfigRepo says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfigRepoSpec {
    /// Where it is: `ssh://`, `https://` or `file://`.
    pub url: RepoUrl,
    /// A branch, a tag, or a range of versions such as `>=1.2`, of which the highest tag is taken; the branch that the
    /// repository itself calls its default where there is none.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<GitRef>,
    /// The directory in it that holds the declarations; all of it where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<ReleasePath>,
    /// How often it is asked for something new.
    #[serde(default = "default_interval")]
    pub interval: Span,
    /// Whether what is no longer in it is deleted.
    #[serde(default)]
    pub prune: bool,
    /// Whether it is left alone for now: nothing is taken from it, and nothing is put back.
    #[serde(default)]
    pub suspend: bool,
    /// Whether one bad file stops the whole commit.
    #[serde(default)]
    pub atomic: bool,
    /// How to get in, and whom to find there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    /// Whose commits are taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verify>,
    /// How its server tells that something is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,
}

/// `interval` where nobody says another.
const INTERVAL: Span = Span::seconds(60);

fn default_interval() -> Span {
    INTERVAL
}

/// The shortest `interval`: a server that is asked more often than this by each of its followers notices.
const SHORTEST_INTERVAL: Span = Span::seconds(5);

/// How to get into a repository. Secrets are references: files and variables of the controller.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Credentials {
    /// For ssh: a private key on the controller's machine; its user's own keys and agent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
    /// For ssh: the only keys that the server may show; known_hosts decides where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_keys: Vec<HostKey>,
    /// For https: the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// For https: the environment variable of the controller that holds the password or token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_env: Option<String>,
    /// For https: the only authorities that may have signed the server's certificate, on the controller's machine;
    /// those of the system where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
}

/// Whose commits are taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Verify {
    /// Who may sign, as ssh-keygen(1) has it under ALLOWED SIGNERS, on the controller's machine.
    pub allowed_signers: String,
}

/// How a repository's server tells that something is new.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Webhook {
    /// The environment variable of the controller that holds the secret which the server signs with.
    pub secret_env: String,
}

/// Whether `text` is the path of a file that is handed to git and ssh: absolute, or in the controller's home.
fn is_file(text: &str) -> bool {
    plain_absolute_path(text) || text.strip_prefix("~/").is_some_and(|rest| plain_absolute_path(&format!("/{rest}")))
}

/// Why a secret may not be read from a variable. Those of the controller itself are never sent to a server that a
/// declaration names: `WINDLASS_PASSWORD` opens its store.
fn unusable(name: &str) -> Option<&'static str> {
    if !is_variable(name) {
        Some(NOT_A_VARIABLE)
    } else if name.starts_with("WINDLASS_") {
        Some("is one of the controller's own; name it something else")
    } else {
        None
    }
}

/// Whether `name` may stand before `=` in an environment (POSIX.1-2017, section 8.1).
fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

const NOT_A_FILE: &str = "must be an absolute path, or begin with ~/, of letters, digits, `.`, `_` and `-`";
const NOT_A_VARIABLE: &str = "is not the name of an environment variable: letters, digits and _";

impl ConfigRepoSpec {
    /// Everything that makes no sense about it, and everything that this version cannot honour.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.interval < SHORTEST_INTERVAL {
            problems.push(Problem::invalid("spec.interval", "must be at least 5s; a webhook makes it faster"));
        }
        if let Some(credentials) = &self.credentials {
            self.credential_problems(credentials, &mut problems);
        }
        if let Some(Verify { allowed_signers }) = &self.verify
            && !is_file(allowed_signers)
        {
            problems.push(Problem::invalid("spec.verify.allowedSigners", NOT_A_FILE));
        }
        if let Some(Webhook { secret_env }) = &self.webhook
            && let Some(why) = unusable(secret_env)
        {
            problems.push(Problem::invalid("spec.webhook.secretEnv", why));
        }
        problems
    }

    fn credential_problems(&self, credentials: &Credentials, problems: &mut Vec<Problem>) {
        let Credentials { key_file, host_keys, user, password_env, ca_file } = credentials;
        let scheme = self.url.scheme();
        let given = [
            ("keyFile", Scheme::Ssh, key_file.is_some()),
            ("hostKeys", Scheme::Ssh, !host_keys.is_empty()),
            ("user", Scheme::Https, user.is_some()),
            ("passwordEnv", Scheme::Https, password_env.is_some()),
            ("caFile", Scheme::Https, ca_file.is_some()),
        ];
        for (field, meant, given) in given {
            if given && meant != scheme {
                let message = format!("has no meaning for a url that begins with {scheme}:");
                problems.push(Problem::invalid(format!("spec.credentials.{field}"), message));
            }
        }
        if user.is_some() != password_env.is_some() {
            problems.push(Problem::invalid("spec.credentials", "`user` and `passwordEnv` go together"));
        }
        if user.as_deref().is_some_and(|user| user.is_empty() || user.chars().any(char::is_control)) {
            problems.push(Problem::invalid("spec.credentials.user", "is not the name of a user"));
        }
        for (field, file) in [("keyFile", key_file), ("caFile", ca_file)] {
            if file.as_deref().is_some_and(|file| !is_file(file)) {
                problems.push(Problem::invalid(format!("spec.credentials.{field}"), NOT_A_FILE));
            }
        }
        if let Some(why) = password_env.as_deref().and_then(unusable) {
            problems.push(Problem::invalid("spec.credentials.passwordEnv", why));
        }
    }
}

/// How a repository is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Through `ssh`.
    Ssh,
    /// HTTP over TLS.
    Https,
    /// A directory on the controller's machine.
    File,
}

impl fmt::Display for Scheme {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Ssh => "ssh",
            Self::Https => "https",
            Self::File => "file",
        })
    }
}

/// Why a text is not the address of a repository.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Plaintext, or a way that runs a program.
    #[error("{0}: is refused: others on the way could change what is declared; write ssh:// or https://")]
    Refused(String),
    /// A secret where everybody can read it.
    #[error("holds a password or a user, which belongs into `credentials`: `user` and `passwordEnv`")]
    Password,
    /// Not an address at all.
    #[error("{0:?} is not ssh://[user@]host[:port]/path, user@host:path, https://host[:port]/path or file:///path")]
    Malformed(String),
}

/// Where a repository is. It never holds a password.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RepoUrl(String);

/// The longest address: git's own remote helpers take no more.
const LONGEST_URL: usize = 1000;

impl RepoUrl {
    /// As git takes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How it is reached.
    pub fn scheme(&self) -> Scheme {
        match self.0.split_once("://") {
            Some(("https", _)) => Scheme::Https,
            Some(("file", _)) => Scheme::File,
            _ => Scheme::Ssh,
        }
    }
}

/// Whether `text` is `host` or `host:port`; an IPv6 address stands in brackets.
fn is_authority(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, tail)) => match tail.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    is_address(host) && port.is_none_or(|port| port.parse::<std::num::NonZeroU16>().is_ok())
}

impl TryFrom<String> for RepoUrl {
    type Error = UrlError;

    fn try_from(text: String) -> Result<Self, UrlError> {
        let wrong = || UrlError::Malformed(text.clone());
        let plain = |c: char| c.is_ascii_graphic() && !"\"'\\`$<>|;?#".contains(c);
        if text.len() > LONGEST_URL || !text.chars().all(plain) {
            // It may hold a password all the same: it is not repeated.
            return Err(UrlError::Malformed("this".to_owned()));
        }
        let good = match text.split_once("://") {
            Some(("https", rest)) => {
                let (authority, path) = rest.split_once('/').ok_or_else(wrong)?;
                if authority.contains('@') {
                    return Err(UrlError::Password);
                }
                is_authority(authority) && !path.is_empty()
            }
            Some(("ssh", rest)) => {
                let (authority, path) = rest.split_once('/').ok_or_else(wrong)?;
                let (user, authority) = authority.rsplit_once('@').map_or((None, authority), |(u, a)| (Some(u), a));
                if user.is_some_and(|user| user.contains(':')) {
                    return Err(UrlError::Password);
                }
                user.is_none_or(is_login) && is_authority(authority) && !path.is_empty() && !path.starts_with('-')
            }
            Some(("file", path)) => {
                path.starts_with('/') && path.len() > 1 && !path.split('/').any(|part| part == "..")
            }
            Some((scheme, _)) => {
                let scheme: String = scheme.chars().take(20).collect();
                return Err(UrlError::Refused(scheme));
            }
            // `ext::sh -c …` and its like run what they say.
            None if text.contains("::") => {
                return Err(UrlError::Refused(text.split("::").next().unwrap_or("").to_owned()));
            }
            None => match text.split_once('@').and_then(|(user, rest)| Some((user, rest.split_once(':')?))) {
                Some((user, (host, path))) => {
                    is_login(user) && is_address(host) && !path.is_empty() && !path.starts_with('-')
                }
                None => false,
            },
        };
        if good { Ok(Self(text)) } else { Err(wrong()) }
    }
}

impl FromStr for RepoUrl {
    type Err = UrlError;
    fn from_str(text: &str) -> Result<Self, UrlError> {
        Self::try_from(text.to_owned())
    }
}

impl From<RepoUrl> for String {
    fn from(url: RepoUrl) -> String {
        url.0
    }
}

impl fmt::Display for RepoUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&self.0)
    }
}

/// Why a text names nothing in a repository.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefError {
    /// git would not take it for a branch or a tag (git-check-ref-format(1)).
    #[error("{0:?} is not the name of a branch or tag")]
    NotAName(String),
    /// It begins like a range of versions and is none.
    #[error("{0:?} is not a range of versions such as `>=1.2, <2`: {1}")]
    NotARange(String, String),
}

/// A branch, a tag, or a range of versions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GitRef(String);

/// What is wanted of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// What the repository itself calls its default branch.
    Default,
    /// A branch, or else a tag; a full name where it begins with `refs/`.
    Named(&'a str),
    /// The tag with the highest version in a range.
    Range(VersionReq),
}

/// How a range of versions begins: no branch does, since git forbids `^`, `~` and `*`, and nobody begins with the rest.
const RANGE: [char; 6] = ['<', '>', '=', '^', '~', '*'];

/// Reads a range of versions: parts that all must hold, with commas or blanks between them.
fn range(text: &str) -> Result<VersionReq, semver::Error> {
    let mut parts: Vec<String> = Vec::new();
    for word in text.split([',', ' ']).filter(|word| !word.is_empty()) {
        match parts.last_mut() {
            // `>= 1.2`: an operator by itself goes with what follows.
            Some(last) if last.ends_with(RANGE) && last != "*" => last.push_str(word),
            _ => parts.push(word.to_owned()),
        }
    }
    VersionReq::parse(&parts.join(","))
}

impl GitRef {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What it asks for.
    pub fn wanted(&self) -> Wanted<'_> {
        if self.0.starts_with(RANGE) {
            Wanted::Range(range(&self.0).expect("checked when it was built"))
        } else {
            Wanted::Named(&self.0)
        }
    }
}

/// The version that a tag names: `v1.2.3` or `1.2.3`.
pub fn version_of(tag: &str) -> Option<Version> {
    Version::parse(tag.strip_prefix('v').unwrap_or(tag)).ok()
}

impl TryFrom<String> for GitRef {
    type Error = RefError;

    fn try_from(text: String) -> Result<Self, RefError> {
        if text.starts_with(RANGE) {
            return match range(&text) {
                Ok(_) => Ok(Self(text)),
                Err(error) => Err(RefError::NotARange(text, error.to_string())),
            };
        }
        let part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
        let good = !text.is_empty()
            && text.len() <= 200
            && !text.starts_with('-')
            && !text.ends_with('.')
            && !text.contains("..")
            && !text.contains("@{")
            && text != "@"
            && text.chars().all(|c| c.is_ascii_graphic() && !"~^:?*[\\'\"`$".contains(c))
            && text.split('/').all(part);
        if good { Ok(Self(text)) } else { Err(RefError::NotAName(text)) }
    }
}

impl FromStr for GitRef {
    type Err = RefError;
    fn from_str(text: &str) -> Result<Self, RefError> {
        Self::try_from(text.to_owned())
    }
}

impl From<GitRef> for String {
    fn from(reference: GitRef) -> String {
        reference.0
    }
}

impl fmt::Display for GitRef {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&self.0)
    }
}

/// Whether `text` is the name of a git object: 40 hexadecimal digits (SHA-1), or 64 (SHA-256).
fn is_object(text: &str) -> bool {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    matches!(text.len(), 40 | 64) && text.bytes().all(digit)
}

macro_rules! object {
    ($(#[$doc:meta])* $name:ident) => {
        token! {
            $(#[$doc])*
            $name, "the name of a git object: 40 or 64 hexadecimal digits", is_object
        }

        impl $name {
            /// The first digits, for people.
            pub fn short(&self) -> &str {
                &self.as_str()[..12]
            }
        }
    };
}

object! {
    /// A commit of a Git repository.
    CommitId
}
object! {
    /// A directory in a Git repository, by what it holds.
    TreeId
}
object! {
    /// A file in a Git repository, by what it holds.
    BlobId
}

/// Who writes a declaration, beside whoever may write anything: `metadata.managedBy`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Manager {
    /// A ConfigRepo: `configrepo/fleet`.
    Repo(RepoName),
    /// People, who took it from a ConfigRepo with `windlass apply --adopt`.
    People,
}

impl FromStr for Manager {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        match text.split_once('/') {
            None if text == "people" => Ok(Self::People),
            Some((kind, name)) if kind == Kind::ConfigRepo.singular() => name.parse().map(Self::Repo),
            _ => Err(IdError::Malformed(text.to_owned(), "`configrepo/<name>` or `people`")),
        }
    }
}

impl TryFrom<String> for Manager {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<Manager> for String {
    fn from(manager: Manager) -> String {
        manager.to_string()
    }
}

impl fmt::Display for Manager {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repo(name) => write!(out, "{}/{name}", Kind::ConfigRepo.singular()),
            Self::People => out.pad("people"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_ssh_https_or_files_and_hold_no_secret() {
        for (url, scheme) in [
            ("ssh://git@git.example.com/ops/fleet.git", Scheme::Ssh),
            ("ssh://git.example.com:2222/fleet", Scheme::Ssh),
            ("ssh://git@[fd00::1]:22/fleet", Scheme::Ssh),
            ("git@github.com:ops/fleet.git", Scheme::Ssh),
            ("https://github.com/ops/fleet.git", Scheme::Https),
            ("https://127.0.0.1:8443/fleet.git", Scheme::Https),
            ("file:///srv/git/fleet.git", Scheme::File),
        ] {
            let read: RepoUrl = url.parse().expect(url);
            assert_eq!(read.scheme(), scheme, "{url}");
        }
        for url in [
            "",
            "http://git.example.com/fleet.git",
            "git://git.example.com/fleet.git",
            "ftp://git.example.com/fleet",
            "ext::sh -c id",
            "ext::sh",
            "fd::17/x",
            "https://me:secret@git.example.com/fleet.git",
            "https://token@git.example.com/fleet.git",
            "ssh://git:secret@git.example.com/fleet.git",
            "ssh://-oProxyCommand=id/x",
            "ssh://git@-oProxyCommand/x",
            "ssh://git.example.com/-x",
            "-oProxyCommand=id@h:x",
            "git@-x:y",
            "git@h:-x",
            "https://git.example.com",
            "https:///x",
            "https://h/x?y=z",
            "https://h/x y",
            "https://h/$(id)",
            "file://srv/git",
            "file:///srv/../etc",
            "/srv/git/fleet.git",
            "../fleet.git",
            "--upload-pack=id",
        ] {
            assert!(url.parse::<RepoUrl>().is_err(), "{url:?}");
        }
        for url in ["http://h/x", "git://h/x", "ext::sh"] {
            let error = url.parse::<RepoUrl>().expect_err(url).to_string();
            assert!(error.contains("refused"), "{url}: {error}");
        }
        let told = "https://me:sesame@h/x".parse::<RepoUrl>().expect_err("a password").to_string();
        assert!(!told.contains("sesame") && told.contains("passwordEnv"), "{told}");
    }

    #[test]
    fn refs_are_names_or_ranges() {
        for name in ["main", "release/1.2", "v1.2.3", "refs/heads/main", "1.x", "feature_a+b"] {
            let read: GitRef = name.parse().expect(name);
            assert_eq!(read.wanted(), Wanted::Named(name));
        }
        for (text, inside, outside) in [
            (">=1.2", "1.3.0", "1.1.9"),
            (">= 1.2 <2", "1.9.9", "2.0.0"),
            (">=1.2, <2", "1.2.0", "2.1.0"),
            ("^1.2", "1.9.0", "2.0.0"),
            ("~1.2", "1.2.9", "1.3.0"),
            ("*", "9.0.0", "1.0.0-rc1"),
        ] {
            let read: GitRef = text.parse().expect(text);
            let Wanted::Range(range) = read.wanted() else { panic!("{text} is no range") };
            assert!(range.matches(&version_of(inside).expect(inside)), "{text} {inside}");
            assert!(!range.matches(&version_of(outside).expect(outside)), "{text} {outside}");
        }
        for text in [
            "", "-x", "a..b", "a b", "a:b", "a~1", "a^", "@", "a@{1}", ".a", "a/.b", "a.lock", "a/", "/a", ">=x", "><1",
        ] {
            assert!(text.parse::<GitRef>().is_err(), "{text:?}");
        }
        assert_eq!(version_of("v1.2.3"), version_of("1.2.3"));
        assert_eq!(version_of("release"), None);
    }

    #[test]
    fn managers_are_written_as_they_are_read() {
        for text in ["configrepo/fleet", "people"] {
            assert_eq!(text.parse::<Manager>().expect(text).to_string(), text);
        }
        for text in ["", "fleet", "configrepo/", "configrepo/A", "service/web", "People"] {
            assert!(text.parse::<Manager>().is_err(), "{text:?}");
        }
    }

    fn problems(spec: serde_json::Value) -> Vec<String> {
        let spec: ConfigRepoSpec = serde_json::from_value(spec).expect("a spec");
        spec.problems().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn credentials_fit_the_url() {
        let https = |credentials| serde_json::json!({"url": "https://h/x", "credentials": credentials});
        let ssh = |credentials| serde_json::json!({"url": "ssh://h/x", "credentials": credentials});
        assert!(problems(https(serde_json::json!({"user": "me", "passwordEnv": "TOKEN"}))).is_empty());
        assert!(
            problems(ssh(serde_json::json!({"keyFile": "~/.ssh/id", "hostKeys": ["ssh-ed25519 AAAA"]}))).is_empty()
        );
        for (spec, field) in [
            (https(serde_json::json!({"keyFile": "/k"})), "spec.credentials.keyFile"),
            (https(serde_json::json!({"user": "me"})), "spec.credentials:"),
            (https(serde_json::json!({"user": "me", "passwordEnv": "A B"})), "spec.credentials.passwordEnv"),
            // It would be sent to whatever server the declaration names.
            (
                https(serde_json::json!({"user": "me", "passwordEnv": "WINDLASS_PASSWORD"})),
                "spec.credentials.passwordEnv",
            ),
            (
                serde_json::json!({"url": "https://h/x", "webhook": {"secretEnv": "WINDLASS_KEY"}}),
                "spec.webhook.secretEnv",
            ),
            (ssh(serde_json::json!({"keyFile": "k"})), "spec.credentials.keyFile"),
            (ssh(serde_json::json!({"keyFile": "/k' -o x"})), "spec.credentials.keyFile"),
            (ssh(serde_json::json!({"caFile": "/ca"})), "spec.credentials.caFile"),
            (serde_json::json!({"url": "ssh://h/x", "interval": "1s"}), "spec.interval"),
            (serde_json::json!({"url": "ssh://h/x", "verify": {"allowedSigners": "x"}}), "spec.verify.allowedSigners"),
            (serde_json::json!({"url": "ssh://h/x", "webhook": {"secretEnv": "$X"}}), "spec.webhook.secretEnv"),
        ] {
            let told = problems(spec.clone());
            assert!(told.len() == 1 && told[0].starts_with(field), "{spec}: {told:?}");
        }
    }
}
