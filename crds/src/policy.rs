//! Policy: what has to be approved before it comes into force, and by whom.
//!
//! No Service can switch it off. Who somebody is counts only where something stands behind it: a certificate of the
//! store's own authority, the signature of a commit, or an approval that was signed with an SSH key.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::actor::Actor;
use crate::host::HostKey;
use crate::id::{IdError, Namespace};
use crate::problem::Problem;
use crate::service::Approval;
use crate::span::Span;

/// What a Policy says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicySpec {
    /// In which namespaces it holds; `*` is all of them.
    pub namespaces: Vec<Where>,
    /// Whether a Service there has to be approved before anything new of it comes into force.
    #[serde(default = "required")]
    pub approval: Approval,
    /// How many people have to stand behind it, 1 or 2: with 2, whoever declared it is one of them where that is known,
    /// and nobody approves what is their own.
    #[serde(default)]
    pub people: People,
    /// How long an approval counts that has not let anything come into force yet.
    #[serde(default = "default_expiry")]
    pub expiry: Span,
    /// Who is who, and who may approve. With one person and nobody named, anybody may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<Member>,
}

fn required() -> Approval {
    Approval::Required
}

/// `expiry` where nobody says another.
const EXPIRY: Span = Span::seconds(24 * 60 * 60);

fn default_expiry() -> Span {
    EXPIRY
}

/// Nobody waits longer than this to find out that nobody remembers what was approved.
const LONGEST_EXPIRY: Span = Span::seconds(90 * 24 * 60 * 60);

/// More people than this are told apart by something else than a list.
const MOST_MEMBERS: usize = 200;

/// How many people have to stand behind what comes into force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum People {
    /// Whoever approves it.
    #[default]
    One,
    /// Two, of whom nobody is both.
    Two,
}

impl TryFrom<u8> for People {
    type Error = &'static str;
    fn try_from(number: u8) -> Result<Self, Self::Error> {
        match number {
            1 => Ok(Self::One),
            2 => Ok(Self::Two),
            _ => Err("must be 1 or 2"),
        }
    }
}

impl From<People> for u8 {
    fn from(people: People) -> u8 {
        match people {
            People::One => 1,
            People::Two => 2,
        }
    }
}

/// Where a Policy holds: in a namespace, or everywhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Where {
    /// In every namespace.
    Everywhere,
    /// In this one.
    In(Namespace),
}

impl FromStr for Where {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if text == "*" { Ok(Self::Everywhere) } else { text.parse().map(Self::In) }
    }
}

impl TryFrom<String> for Where {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<Where> for String {
    fn from(place: Where) -> String {
        place.to_string()
    }
}

impl fmt::Display for Where {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everywhere => out.pad("*"),
            Self::In(namespace) => namespace.fmt(out),
        }
    }
}

/// Somebody, and by what they are known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Member {
    /// What they are called in what is said of them.
    pub name: String,
    /// The name in their certificate for the embedded store: `windlass store certificate NAME` makes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// The public keys that they sign commits and approvals with, as in `~/.ssh/id_ed25519.pub`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ssh_keys: Vec<HostKey>,
    /// Whether they may approve; who may not is known all the same as the author of what others approve.
    #[serde(default = "yes")]
    pub approves: bool,
}

fn yes() -> bool {
    true
}

/// The fingerprint of a public key, as `ssh-keygen -lf` prints it: the SHA-256 of what it is in binary (RFC 4648 and
/// ssh-keygen(1)). `None` where its base64 is none.
pub fn fingerprint(key: &HostKey) -> Option<String> {
    let text = key.to_string();
    let blob = BASE64_STANDARD.decode(text.split(' ').nth(1)?).ok()?;
    Some(format!("SHA256:{}", BASE64_STANDARD_NO_PAD.encode(Sha256::digest(blob))))
}

impl Member {
    /// Whether it was them.
    pub fn is(&self, actor: &Actor) -> bool {
        match actor {
            Actor::Certificate { name } => self.certificate.as_ref() == Some(name),
            Actor::Git { key: Some(shown), .. } if actor.is_verified() => self.has_key(shown),
            Actor::SshKey { fingerprint: shown, .. } => self.has_key(shown),
            Actor::Controller | Actor::Git { .. } | Actor::Unverified { .. } => false,
        }
    }

    fn has_key(&self, shown: &str) -> bool {
        self.ssh_keys.iter().any(|key| fingerprint(key).as_deref() == Some(shown))
    }

    fn identities(&self) -> impl Iterator<Item = (&'static str, String)> {
        let certificate = self.certificate.iter().map(|name| ("certificate", name.clone()));
        // However it is written, it is one key.
        let keys = self.ssh_keys.iter().map(|key| ("sshKeys", fingerprint(key).unwrap_or_else(|| key.to_string())));
        certificate.chain(keys)
    }
}

/// Whether a text may be shown as somebody's name: one line of it.
pub fn is_name(text: &str) -> bool {
    !text.trim().is_empty() && text.len() <= 100 && !text.chars().any(char::is_control)
}

impl PolicySpec {
    /// Whether it holds in a namespace, and asks for anything there.
    pub fn holds_in(&self, namespace: &Namespace) -> bool {
        let here = |place: &Where| match place {
            Where::Everywhere => true,
            Where::In(one) => one == namespace,
        };
        self.approval == Approval::Required && self.namespaces.iter().any(here)
    }

    /// Who of its members it was.
    pub fn member(&self, actor: &Actor) -> Option<&Member> {
        self.members.iter().find(|member| member.is(actor))
    }

    /// Everything that makes no sense about it.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.namespaces.is_empty() {
            problems.push(Problem::invalid("spec.namespaces", "names none; `[\"*\"]` is all of them"));
        }
        if self.expiry < Span::seconds(60) || self.expiry > LONGEST_EXPIRY {
            problems.push(Problem::invalid("spec.expiry", "must be at least 1m and at most 90d"));
        }
        if self.members.len() > MOST_MEMBERS {
            problems.push(Problem::invalid("spec.members", format!("at most {MOST_MEMBERS}")));
        }
        let (all, approvers) = (self.members.len(), self.members.iter().filter(|member| member.approves).count());
        if self.people == People::Two && all < 2 {
            let message = "two people have to be told apart: name at least two, and by what each is known";
            problems.push(Problem::invalid("spec.members", message));
        } else if all > 0 && approvers == 0 {
            problems.push(Problem::invalid("spec.members", "none of them may approve"));
        }
        self.identity_problems(&mut problems);
        problems
    }

    fn identity_problems(&self, problems: &mut Vec<Problem>) {
        let (mut names, mut known) = (BTreeSet::new(), BTreeSet::new());
        for (index, member) in self.members.iter().enumerate() {
            let mut wrong = |field: &str, message: String| {
                problems.push(Problem::invalid(format!("spec.members[{index}]{field}"), message));
            };
            if !is_name(&member.name) {
                wrong(".name", "must be 1 to 100 characters on one line".to_owned());
            }
            if !names.insert(&member.name) {
                wrong(".name", format!("{:?} is there twice", member.name));
            }
            if member.identities().next().is_none() {
                wrong("", "is known by nothing: say `certificate` or `sshKeys`".to_owned());
            }
            for (field, identity) in member.identities() {
                if !is_name(&identity) && field != "sshKeys" {
                    wrong(&format!(".{field}"), "must be 1 to 100 characters on one line".to_owned());
                }
                // One who is two people would approve what is their own.
                if !known.insert((field, identity.clone())) {
                    wrong(&format!(".{field}"), format!("{identity} is there twice"));
                }
            }
            if member.ssh_keys.iter().any(|key| fingerprint(key).is_none()) {
                wrong(".sshKeys", "holds a key that is no base64".to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key, and its fingerprint by `ssh-keygen -lf`.
    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIrA1XIFIaIzNVq5ZQ4ntmKbVyPwSs1ZlY0OFqKPcvKG";

    const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIECbeTt7MaivvwPRiStQ28iE+cqpkpYOTB5dQVSHigMW";

    fn policy(spec: serde_json::Value) -> PolicySpec {
        serde_json::from_value(spec).expect("a spec")
    }

    fn problems(spec: serde_json::Value) -> String {
        policy(spec).problems().iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn a_policy_holds_where_it_says() {
        let production: Namespace = "production".parse().expect("a label");
        for (namespaces, approval, holds) in [
            (serde_json::json!(["production"]), "required", true),
            (serde_json::json!(["*"]), "required", true),
            (serde_json::json!(["staging", "production"]), "required", true),
            (serde_json::json!(["staging"]), "required", false),
            (serde_json::json!(["production"]), "none", false),
        ] {
            let spec = policy(serde_json::json!({"namespaces": namespaces, "approval": approval}));
            assert_eq!(spec.holds_in(&production), holds, "{spec:?}");
        }
    }

    #[test]
    fn people_are_known_by_what_stands_behind_them_and_by_nothing_else() {
        let spec = policy(serde_json::json!({"namespaces": ["*"], "people": 2, "members": [
            {"name": "Ana", "certificate": "ana", "sshKeys": [OTHER]},
            {"name": "Bo", "sshKeys": [KEY]},
        ]}));
        assert_eq!(spec.problems(), []);
        let shown = fingerprint(&KEY.parse().expect("a key")).expect("base64");
        let hers = fingerprint(&OTHER.parse().expect("a key")).expect("base64");
        // Whatever somebody's list calls the key: it is the key that counts.
        let git = |signer: Option<&str>, key: Option<&str>| Actor::Git {
            repo: "fleet".parse().expect("a name"),
            commit: "0123456789abcdef0123456789abcdef01234567".parse().expect("a commit"),
            author: "ana@example.com".to_owned(),
            signer: signer.map(ToOwned::to_owned),
            key: key.map(ToOwned::to_owned),
        };
        let certificate = |name: &str| Actor::Certificate { name: name.to_owned() };
        let key = |fingerprint: &str| Actor::SshKey { name: "Ana".to_owned(), fingerprint: fingerprint.to_owned() };
        for (actor, name) in [
            (certificate("ana"), Some("Ana")),
            (certificate("Ana"), None),
            (certificate("bo"), None),
            (git(Some("whoever"), Some(&hers)), Some("Ana")),
            (git(Some("Ana"), Some(&shown)), Some("Bo")),
            (git(Some("Ana"), Some("SHA256:other")), None),
            (git(Some("Ana"), None), None),
            (git(None, Some(&hers)), None),
            (git(None, None), None),
            (key(&shown), Some("Bo")),
            (key("SHA256:other"), None),
            (Actor::Unverified { says: Some("ana".to_owned()) }, None),
            (Actor::Controller, None),
        ] {
            assert_eq!(spec.member(&actor).map(|member| member.name.as_str()), name, "{actor}");
        }
    }

    #[test]
    fn what_tells_nobody_apart_is_refused() {
        let with =
            |members: serde_json::Value| serde_json::json!({"namespaces": ["*"], "people": 2, "members": members});
        for (spec, told) in [
            (serde_json::json!({"namespaces": []}), "spec.namespaces: names none"),
            (serde_json::json!({"namespaces": ["*"], "people": 2}), "spec.members: two people"),
            (serde_json::json!({"namespaces": ["*"], "expiry": "1s"}), "spec.expiry"),
            (serde_json::json!({"namespaces": ["*"], "expiry": "91d"}), "spec.expiry"),
            (with(serde_json::json!([{"name": "a", "certificate": "a"}])), "spec.members: two people"),
            (
                with(serde_json::json!([{"name": "a", "certificate": "a"}, {"name": "a", "certificate": "b"}])),
                "spec.members[1].name: \"a\" is there twice",
            ),
            (
                with(serde_json::json!([{"name": "a", "certificate": "a"}, {"name": "b", "certificate": "a"}])),
                "spec.members[1].certificate: a is there twice",
            ),
            (
                with(serde_json::json!([{"name": "a", "sshKeys": [KEY]}, {"name": "b", "sshKeys": [KEY]}])),
                "spec.members[1].sshKeys",
            ),
            (
                with(serde_json::json!([{"name": "a", "sshKeys": [KEY]}, {"name": "b", "sshKeys": ["ssh-rsa AAAA="]}])),
                "spec.members[1].sshKeys: holds a key that is no base64",
            ),
            (
                with(serde_json::json!([{"name": "a", "certificate": "a"}, {"name": "b"}])),
                "spec.members[1]: is known by nothing",
            ),
            (
                with(serde_json::json!([
                    {"name": "a", "certificate": "a", "approves": false}, {"name": "b", "certificate": "b", "approves": false}
                ])),
                "none of them may approve",
            ),
        ] {
            let problems = problems(spec.clone());
            assert!(problems.contains(told), "{spec}: {problems}");
        }
        assert_eq!(problems(serde_json::json!({"namespaces": ["production"]})), "");
        for people in [0, 3] {
            let spec = serde_json::json!({"namespaces": ["*"], "people": people});
            assert!(serde_json::from_value::<PolicySpec>(spec).is_err(), "{people}");
        }
    }

    #[test]
    fn a_fingerprint_is_the_one_that_ssh_keygen_prints() {
        // `ssh-keygen -lf` of the same key.
        let known = fingerprint(&KEY.parse().expect("a key"));
        assert_eq!(known.as_deref(), Some("SHA256:qDsnIVs8NkUEdv/ESgzp4SZbjzY1sPiTuDt9C1OTQ0s"));
    }
}
