//! The controller's key: what signs the trail, and what checks it.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use rustix::fs::OFlags;
use windlass_crds::audit::{PublicKey, Sealed, Signature};

/// The file, in the data directory.
const FILE: &str = "audit.key";

/// No key is longer: one has 48 bytes (RFC 5958).
const LONGEST: u64 = 256;

/// What signs the trail: an Ed25519 key (RFC 8032). Copies are of one key.
#[derive(Clone)]
pub struct SigningKey {
    pair: Arc<Ed25519KeyPair>,
    public: PublicKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "SigningKey({})", self.public)
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Its file cannot be used.
    #[error("cannot use {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// What the file holds is no key.
    #[error(
        "{} does not hold a key of Ed25519\nhint: put it back from a copy; or move it away, and another one is made, which `windlass audit verify` has to be told of",
        .0.display()
    )]
    Damaged(PathBuf),
    /// No key could be made.
    #[error("cannot make a key")]
    Making,
}

impl SigningKey {
    fn new(pair: Ed25519KeyPair) -> Self {
        let mut public = [0; 32];
        // A public key of Ed25519 has 32 bytes.
        public.copy_from_slice(pair.public_key().as_ref());
        Self { pair: Arc::new(pair), public: PublicKey::new(public) }
    }

    /// The same key for the same seed: for simulations and tests.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self::new(Ed25519KeyPair::from_seed_unchecked(&seed).expect("any 32 bytes are a seed"))
    }

    /// One that is kept nowhere, and ends with this process.
    ///
    /// # Errors
    /// When none can be made.
    pub fn for_now() -> Result<Self, KeyError> {
        Ed25519KeyPair::generate().map(Self::new).map_err(|_| KeyError::Making)
    }

    /// The key of a data directory, made where it has none.
    ///
    /// # Errors
    /// When it cannot be read or made.
    pub fn of(data_dir: &Path) -> Result<Self, KeyError> {
        match Self::found(data_dir)? {
            Some(key) => Ok(key),
            None => Self::make(&data_dir.join(FILE)),
        }
    }

    /// The key of a data directory, where it has one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn found(data_dir: &Path) -> Result<Option<Self>, KeyError> {
        let path = data_dir.join(FILE);
        let mut bytes = Vec::new();
        let opened = OpenOptions::new().read(true).custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(&path);
        match opened.and_then(|file| file.take(LONGEST).read_to_end(&mut bytes)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(KeyError::File { path, error }),
        }
        match Ed25519KeyPair::from_pkcs8(&bytes) {
            Ok(pair) => Ok(Some(Self::new(pair))),
            Err(_) => Err(KeyError::Damaged(path)),
        }
    }

    /// Makes one: whole or not at all, and for its owner only.
    fn make(path: &Path) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| KeyError::Making)?;
        let bytes = pair.to_pkcs8v1().map_err(|_| KeyError::Making)?;
        let new = path.with_extension("key.new");
        let write = || {
            match std::fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(bytes.as_ref())?;
            file.sync_all()?;
            std::fs::rename(&new, path)?;
            path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
        };
        write().map_err(|error| KeyError::File { path: path.to_owned(), error })?;
        tracing::info!(path = %path.display(), "made a key for the audit trail");
        Ok(Self::new(pair))
    }

    /// Its public half.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// A record's text with its signature, as it is stored.
    pub(crate) fn seal(&self, text: &str) -> Vec<u8> {
        let mut signature = [0; 64];
        // A signature of Ed25519 has 64 bytes.
        signature.copy_from_slice(self.pair.sign(&Sealed::signed(text)).as_ref());
        Sealed { text, key: self.public, signature: Signature::new(signature) }.stored()
    }
}

/// Whether a signature of a key holds over what is signed.
pub fn holds(key: &PublicKey, signed: &[u8], signature: &Signature) -> bool {
    UnparsedPublicKey::new(&ED25519, key.bytes()).verify(signed, signature.bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_what_it_signs_holds() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        assert!(SigningKey::found(dir.path())?.is_none());
        let made = SigningKey::of(dir.path())?;
        let again = SigningKey::of(dir.path())?;
        assert_eq!(made.public(), again.public());
        let file = dir.path().join(FILE);
        assert_eq!(std::fs::metadata(&file)?.permissions().mode() & 0o777, 0o600);
        let stored = made.seal("{}");
        let sealed = Sealed::of(&stored)?;
        assert!(holds(&sealed.key, &Sealed::signed(sealed.text), &sealed.signature));
        assert!(!holds(&sealed.key, &Sealed::signed("{ }"), &sealed.signature));
        assert!(!holds(&SigningKey::from_seed([7; 32]).public(), &Sealed::signed("{}"), &sealed.signature));
        std::fs::write(&file, "x")?;
        assert!(matches!(SigningKey::of(dir.path()), Err(KeyError::Damaged(_))), "another one is not made by itself");
        Ok(())
    }

    /// RFC 8032, section 7.1, test 1: the seed and its public key.
    #[test]
    fn keys_are_those_of_the_standard() {
        let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let seed: PublicKey = seed.parse().expect("64 digits");
        let public = SigningKey::from_seed(*seed.bytes()).public().to_string();
        assert_eq!(public, "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
    }
}
