//! Keys and signatures of the trail, as bytes and as hexadecimal digits. Who signs and who checks is elsewhere.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::{RecordDigest, nibble};
use crate::id::IdError;

macro_rules! hexadecimal {
    ($(#[$doc:meta])* $name:ident, $length:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; $length]);

        impl $name {
            /// So many digits it is written with.
            pub const DIGITS: usize = 2 * $length;

            /// What these bytes are.
            pub fn new(bytes: [u8; $length]) -> Self {
                Self(bytes)
            }

            /// Its bytes.
            pub fn bytes(&self) -> &[u8; $length] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            /// Lower-case hexadecimal digits.
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
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
                let wrong = || IdError::Malformed(text.to_owned(), $what);
                let digits = text.as_bytes();
                if digits.len() != Self::DIGITS {
                    return Err(wrong());
                }
                let mut bytes = [0; $length];
                for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
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
            fn from(value: $name) -> String {
                value.to_string()
            }
        }
    };
}

hexadecimal! {
    /// The public half of a controller's key, of Ed25519 (RFC 8032).
    PublicKey, 32, "a public key: 64 lower-case hexadecimal digits"
}
hexadecimal! {
    /// A signature of Ed25519.
    Signature, 64, "a signature: 128 lower-case hexadecimal digits"
}

impl PublicKey {
    /// The beginning of its SHA-256, for people.
    pub fn short(&self) -> String {
        RecordDigest::of(&self.0).short()
    }
}
