//! The audit trail: who declared and asked what, and what came of it, in chains that show what was taken out or changed.
//!
//! A record is stored as its text and a signature over that text, and names the digest of the one before it, as that is
//! stored. So nothing has to be written out again to be checked: what is hashed and signed are the bytes that are there.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::RecordDigest;
use crate::id::{ClusterId, Generation, IdError, RecordNumber, ResourceKey};

pub mod bounds;
pub mod edits;
mod keys;
pub mod told;
pub mod verify;

pub use keys::{PublicKey, Signature};
pub use told::{Entry, HostOutcome, Outcome, What};

/// What stands before a record when it is signed, so that no signature over it can be taken for one over anything else.
const DOMAIN: &[u8] = b"windlass audit 1\n";

/// One of the chains of the trail: its records have numbers from 1, and each names the one before.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Chain {
    /// Records that say how far the other chains have come: they show what was cut off at a chain's end.
    Anchors,
    /// Which controllers began to lead.
    Leader,
    /// What concerns one resource.
    Resource(ResourceKey),
}

impl Chain {
    /// The path below `audit/`: `services/default/web`.
    pub fn path(&self) -> String {
        match self {
            Self::Anchors => "anchors".to_owned(),
            Self::Leader => "leader".to_owned(),
            Self::Resource(resource) => resource.path(),
        }
    }

    /// Reads what [`Chain::path`] wrote.
    ///
    /// # Errors
    /// When it is the path of no resource.
    pub fn from_path(path: &str) -> Result<Self, IdError> {
        Ok(match path {
            "anchors" => Self::Anchors,
            "leader" => Self::Leader,
            path => Self::Resource(ResourceKey::from_path(path)?),
        })
    }
}

impl TryFrom<String> for Chain {
    type Error = IdError;
    fn try_from(path: String) -> Result<Self, IdError> {
        Self::from_path(&path)
    }
}

impl From<Chain> for String {
    fn from(chain: Chain) -> String {
        chain.path()
    }
}

impl fmt::Display for Chain {
    /// As people type a resource: `service/web`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anchors => out.pad("anchors"),
            Self::Leader => out.pad("leader"),
            Self::Resource(resource) => resource.fmt(out),
        }
    }
}

/// A record of a chain, by its number and its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// Which.
    pub number: RecordNumber,
    /// Of all that is stored of it.
    pub digest: RecordDigest,
}

/// What the trail last told of a declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// Of which generation; of one that was deleted, the last that there was.
    pub generation: Generation,
    /// How it stands.
    pub state: DeclaredState,
    /// The record that holds all of what is in force, where one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<RecordNumber>,
}

/// How it stands with a declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DeclaredState {
    /// It makes sense.
    InForce,
    /// It does not, and what was in force before still is.
    Refused,
    /// There is none any more.
    Deleted,
}

/// How far the chains have come that have moved since the last anchor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Anchor {
    /// Of which store.
    pub cluster: ClusterId,
    /// The last record of each.
    pub heads: BTreeMap<Chain, Head>,
}

/// What links a record to the others: all that is looked at to find out whether the trail is whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    /// In which chain.
    pub chain: Chain,
    /// Which of it.
    pub number: RecordNumber,
    /// The digest of the one before, as it is stored; the first has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<RecordDigest>,
    /// Everything of the chain up to this one was deleted because of its age or number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pruned: Option<Head>,
    /// When it was written.
    pub at: Timestamp,
    /// How far other chains have come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchor: Option<Anchor>,
}

/// A record: what it says, in the order in which that is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// What links it to the others.
    #[serde(flatten)]
    pub link: Link,
    /// The term of the controller that wrote it.
    pub term: u64,
    /// What happened, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<Entry>,
    /// So many more happened: there was no room for them.
    #[serde(default, skip_serializing_if = "told::is_zero")]
    pub left_out: usize,
    /// How it stands with the declaration by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declared: Option<Standing>,
}

/// A record as it is stored, taken apart: there is one way of putting these three together, and no other is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealed<'a> {
    /// The record's text.
    pub text: &'a str,
    /// Who has signed it.
    pub key: PublicKey,
    /// Their signature over [`Sealed::signed`].
    pub signature: Signature,
}

/// Why something is not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It does not look like one.
    #[error("it is not a record")]
    NotSealed,
    /// What it says makes no sense.
    #[error("its text cannot be read: {0}")]
    Text(String),
}

const KEY: &str = r#"{"key":""#;
const SIGNATURE: &str = r#"","signature":""#;
const TEXT: &str = r#"","record":"#;

impl<'a> Sealed<'a> {
    /// What is signed of a record's text.
    pub fn signed(text: &str) -> Vec<u8> {
        [DOMAIN, text.as_bytes()].concat()
    }

    /// Takes apart what is stored.
    ///
    /// # Errors
    /// When it is anything else than what [`Sealed::stored`] wrote.
    pub fn of(stored: &'a [u8]) -> Result<Self, RecordError> {
        let parts = || {
            let rest = std::str::from_utf8(stored).ok()?.strip_prefix(KEY)?;
            let (key, rest) = rest.split_at_checked(PublicKey::DIGITS)?;
            let (signature, rest) = rest.strip_prefix(SIGNATURE)?.split_at_checked(Signature::DIGITS)?;
            let text = rest.strip_prefix(TEXT)?.strip_suffix('}')?;
            Some(Self { text, key: key.parse().ok()?, signature: signature.parse().ok()? })
        };
        parts().filter(|sealed| !sealed.text.contains('\n')).ok_or(RecordError::NotSealed)
    }

    /// What is stored: one line of JSON.
    pub fn stored(&self) -> Vec<u8> {
        let Self { text, key, signature } = self;
        format!("{KEY}{key}{SIGNATURE}{signature}{TEXT}{text}}}").into_bytes()
    }

    /// What links it to the others.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn link(&self) -> Result<Link, RecordError> {
        self.read()
    }

    /// All that it says. A record of a later version may tell what this one does not know.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn record(&self) -> Result<Record, RecordError> {
        self.read()
    }

    fn read<T: serde::de::DeserializeOwned>(&self) -> Result<T, RecordError> {
        serde_json::from_str(self.text).map_err(|error| RecordError::Text(error.to_string()))
    }
}

/// An exported head: the last anchor as it is stored, whose digest and heads a later trail has to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedHead {
    /// Which anchor.
    pub head: Head,
    /// When it was written.
    pub at: Timestamp,
    /// What it says.
    pub anchor: Anchor,
    /// Who has signed it.
    pub key: PublicKey,
    /// As it is stored.
    pub stored: Vec<u8>,
}

impl ExportedHead {
    /// Reads an anchor as it is stored; whether its signature holds is another question.
    ///
    /// # Errors
    /// When it is no record, or no anchor.
    pub fn of(stored: &[u8]) -> Result<Self, RecordError> {
        let stored = stored.trim_ascii();
        let sealed = Sealed::of(stored)?;
        let Link { chain, number, at, anchor, .. } = sealed.link()?;
        let anchor = anchor.filter(|_| chain == Chain::Anchors).ok_or(RecordError::NotSealed)?;
        let head = Head { number, digest: RecordDigest::of(stored) };
        Ok(Self { head, at, anchor, key: sealed.key, stored: stored.to_owned() })
    }
}

/// How a number is written in a key, so that keys sort as numbers do.
pub fn padded(number: RecordNumber) -> String {
    format!("{:012}", number.0)
}

/// Reads what [`padded`] wrote, and nothing else.
///
/// # Errors
/// When it is something else.
pub fn unpadded(text: &str) -> Result<RecordNumber, IdError> {
    let number = RecordNumber::from_str(text)?;
    // What nobody reaches by counting is none of ours: nothing could be told behind it.
    if padded(number) == text && number.0 < MOST_NUMBER {
        Ok(number)
    } else {
        Err(IdError::Malformed(text.to_owned(), "a record's number"))
    }
}

/// No chain comes as far.
pub const MOST_NUMBER: u64 = 100_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_read_in_one_way_only() {
        let key: PublicKey = "0a".repeat(32).parse().expect("64 digits");
        let signature: Signature = "0b".repeat(64).parse().expect("128 digits");
        let text = r#"{"chain":"hosts/a","number":1,"at":"2026-12-01T00:00:00Z","term":7}"#;
        let stored = Sealed { text, key, signature }.stored();
        let sealed = Sealed::of(&stored).expect("a record");
        assert_eq!((sealed.text, sealed.key, sealed.signature), (text, key, signature));
        assert_eq!(sealed.record().expect("it reads").link, sealed.link().expect("it reads"));
        assert!(serde_json::from_slice::<serde_json::Value>(&stored).is_ok(), "jq can read it");
        let other = |change: &dyn Fn(&str) -> String| change(std::str::from_utf8(&stored).expect("UTF-8")).into_bytes();
        for wrong in [
            other(&|text| text.replace("\"key\"", " \"key\"")),
            other(&|text| text.replace("0a0a", "0A0A")),
            other(&|text| text.replace(",\"record\"", ", \"record\"")),
            other(&|text| format!("{text} ")),
            other(&|text| text.replace("\"term\":7", "\n\"term\":7")),
            b"{}".to_vec(),
            b"\xff".to_vec(),
        ] {
            assert_eq!(Sealed::of(&wrong), Err(RecordError::NotSealed), "{}", wrong.escape_ascii());
        }
    }

    #[test]
    fn numbers_sort_as_keys_do() {
        let keys = [1, 9, 10, 99_999_999_999].map(|number| padded(RecordNumber(number)));
        assert!(keys.is_sorted());
        for (key, number) in keys.iter().zip([1, 9, 10, 99_999_999_999]) {
            assert_eq!(unpadded(key), Ok(RecordNumber(number)));
        }
        for wrong in ["1", "+00000000001", "00000000000x", "999999999999", "18446744073709551615", ""] {
            assert!(unpadded(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn chains_read_what_they_write() {
        for path in ["anchors", "leader", "services/default/web", "hosts/web1", "configrepos/fleet"] {
            assert_eq!(Chain::from_path(path).expect(path).path(), path);
        }
        assert!(Chain::from_path("services/web").is_err());
    }
}
