//! Who did something, and how that is known.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::configrepo::CommitId;
use crate::id::RepoName;

/// Who did something, and by what that is known. A name that nothing stands behind is kept apart from those that
/// something does: etcd does not record who writes a key, and what a command says of its user anybody can say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "known")]
pub enum Actor {
    /// The controller itself.
    Controller,
    /// Somebody who showed the embedded store a certificate of its own authority.
    Certificate {
        /// The name in it.
        name: String,
    },
    /// Somebody whose commit a ConfigRepo follows.
    Git {
        /// Which ConfigRepo.
        repo: RepoName,
        /// Which commit.
        commit: CommitId,
        /// Who it says has made it: anybody can say so.
        author: String,
        /// Who has signed it, where the ConfigRepo says who may, by its list of signers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signer: Option<String>,
        /// With which key: `SHA256:…`. What a list calls somebody is for those who read it; the key is who it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
    },
    /// Somebody who signed what they ask for.
    SshKey {
        /// Who that is, by the Policy that knows the key.
        name: String,
        /// Its fingerprint: `SHA256:…`.
        fingerprint: String,
    },
    /// Nobody knows.
    Unverified {
        /// Who they say they are.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        says: Option<String>,
    },
}

impl Actor {
    /// Somebody of whom nothing is known.
    pub const UNKNOWN: Self = Self::Unverified { says: None };

    /// Whether it is known who it was.
    pub fn is_verified(&self) -> bool {
        match self {
            Self::Controller | Self::Certificate { .. } | Self::SshKey { .. } => true,
            Self::Git { signer, key, .. } => signer.is_some() && key.is_some(),
            Self::Unverified { .. } => false,
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Controller => out.pad("the controller"),
            Self::Certificate { name } => write!(out, "{name} (certificate)"),
            Self::Git { repo, commit, author, signer: Some(signer), .. } => {
                write!(out, "{signer} (signed commit {} of configrepo/{repo}, made by {author})", commit.short())
            }
            Self::Git { repo, commit, author, signer: None, .. } => {
                write!(out, "{author} (unverified: commit {} of configrepo/{repo} says so)", commit.short())
            }
            Self::SshKey { name, fingerprint } => write!(out, "{name} (SSH key {fingerprint})"),
            Self::Unverified { says: Some(name) } => write!(out, "{name} (unverified)"),
            Self::Unverified { says: None } => out.pad("somebody (unverified)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_somebody_has_proved_is_verified() {
        let commit: CommitId = "0123456789abcdef0123456789abcdef01234567".parse().expect("a commit");
        let git = |signer: Option<&str>| Actor::Git {
            repo: "fleet".parse().expect("a name"),
            commit: commit.clone(),
            author: "Ana <ana@example.com>".to_owned(),
            signer: signer.map(ToOwned::to_owned),
            key: signer.map(|_| "SHA256:x".to_owned()),
        };
        for (actor, verified, told) in [
            (Actor::Controller, true, "the controller"),
            (Actor::Certificate { name: "ana".to_owned() }, true, "ana (certificate)"),
            (git(Some("ana@example.com")), true, "ana@example.com (signed commit 0123456789ab"),
            (git(None), false, "Ana <ana@example.com> (unverified"),
            (Actor::Unverified { says: Some("root".to_owned()) }, false, "root (unverified)"),
            (Actor::UNKNOWN, false, "somebody (unverified)"),
        ] {
            assert_eq!(actor.is_verified(), verified, "{actor}");
            assert!(actor.to_string().starts_with(told), "{actor}");
            let json = serde_json::to_string(&actor).expect("JSON");
            assert_eq!(serde_json::from_str::<Actor>(&json).expect(&json), actor);
        }
    }
}
