//! SHA-256 digests, a newtype for each thing that is digested.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::id::IdError;

/// Thousands of digests are written in a deploy; a byte at a time through the formatter was a tenth of the controller's
/// work.
fn hexadecimal(bytes: &[u8; 32]) -> [u8; 64] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [0; 64];
    for (byte, pair) in bytes.iter().zip(digits.chunks_exact_mut(2)) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    digits
}

macro_rules! digest {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; 32]);

        impl $name {
            /// The digest of `bytes`.
            pub fn of(bytes: &[u8]) -> Self {
                Self(Sha256::digest(bytes).into())
            }

            /// The digest that a hasher which has seen everything arrives at.
            pub fn finish(hasher: Sha256) -> Self {
                Self(hasher.finalize().into())
            }

            /// The 32 bytes.
            pub fn bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// 64 lower-case hexadecimal digits.
            pub fn digits(&self) -> [u8; 64] {
                hexadecimal(&self.0)
            }

            /// The first 12 hexadecimal digits, for people.
            pub fn short(&self) -> String {
                self.to_string()[..12].to_owned()
            }
        }

        impl fmt::Display for $name {
            /// 64 lower-case hexadecimal digits.
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(std::str::from_utf8(&self.digits()).expect("digits are ASCII"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let wrong = || IdError::Malformed(text.to_owned(), "64 lower-case hexadecimal digits");
                if text.len() != 64 {
                    return Err(wrong());
                }
                let mut bytes = [0; 32];
                for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
                    *byte = nibble(pair[0]).ok_or_else(wrong)? << 4 | nibble(pair[1]).ok_or_else(wrong)?;
                }
                Ok(Self(bytes))
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(digest: $name) -> String {
                digest.to_string()
            }
        }
    };
}

/// The value of one lower-case hexadecimal digit.
pub(crate) fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

digest! {
    /// The SHA-256 of a file's contents.
    FileDigest
}
digest! {
    /// The SHA-256 of a release's manifest, and with it the release's name.
    ReleaseDigest
}
digest! {
    /// The SHA-256 of what a declaration would bring about: what somebody approves; or of what a rollout brings where.
    PlanDigest
}
digest! {
    /// The SHA-256 of what a host gets to run: release and the part of the spec that reaches the host.
    ///
    /// Two revisions with one workload are the same to a host, so moving between them restarts nothing.
    WorkloadDigest
}
digest! {
    /// The SHA-256 of a Service's spec but for where it is placed, rolled out and removed: what is blocked
    /// together with a release when it turned out unhealthy.
    SpecDigest
}
digest! {
    /// The SHA-256 of what makes up a payload on its way to a host: its name there.
    PayloadDigest
}
digest! {
    /// The SHA-256 of a record of the audit trail, as it is stored.
    RecordDigest
}
digest! {
    /// The SHA-256 of a revision's unit and environment: of the two digests of their texts, with a blank between.
    UnitDigest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_read_what_they_write() {
        let digest = FileDigest::of(b"abc");
        // FIPS 180-2, appendix B.1.
        assert_eq!(digest.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        for wrong in ["", "zz", &"A".repeat(64), &"0".repeat(63), &"é".repeat(32)] {
            assert!(wrong.parse::<FileDigest>().is_err(), "{wrong:?}");
        }
    }
}
