//! Where the files of an embedded store are.

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::{EmbeddedError, Seal};
use crate::identity::random_bytes;
use crate::serve::Identity;
use crate::tls::Tls;

/// The file that says that the store was moved.
const SEAL: &str = "sealed";

/// The folder of an embedded store.
pub(super) struct Place(PathBuf);

impl Place {
    /// That of a data directory.
    pub(super) fn of(data_dir: &Path) -> Self {
        Self(data_dir.join("store"))
    }

    /// The same, made where it is not there, for its owner only.
    pub(super) fn make(data_dir: &Path) -> Result<Self, EmbeddedError> {
        let place = Self::of(data_dir);
        let unusable = |error| EmbeddedError::File { path: place.0.clone(), error };
        DirBuilder::new().recursive(true).mode(0o700).create(&place.0).map_err(unusable)?;
        std::fs::set_permissions(&place.0, Permissions::from_mode(0o700)).map_err(unusable)?;
        Ok(place)
    }

    /// What is kept.
    pub(super) fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    /// Whether what is kept was there once, and is not any more.
    pub(super) fn has_lost_data(&self) -> bool {
        !self.data().exists() && self.0.join("identity").exists()
    }

    /// The certificates.
    pub(super) fn tls(&self) -> PathBuf {
        self.0.join("tls")
    }

    /// Whether there are certificates.
    pub(super) fn has_authority(&self) -> bool {
        self.tls().join("ca-key.pem").is_file()
    }

    /// The certificate of somebody on this machine.
    pub(super) fn client_tls(&self, name: &str) -> Tls {
        let at = |file: String| self.tls().join(file);
        Tls {
            ca_file: at("ca.pem".to_owned()),
            cert_file: Some(at(format!("{name}.pem"))),
            key_file: Some(at(format!("{name}-key.pem"))),
        }
    }

    /// The numbers that answers carry; drawn once.
    pub(super) fn identity(&self) -> Result<Identity, EmbeddedError> {
        let path = self.0.join("identity");
        if let Some(text) = read(&path)? {
            let parse = |word: &str| u64::from_str_radix(word, 16).ok();
            let known =
                text.trim().split_once(' ').and_then(|(cluster, member)| Some((parse(cluster)?, parse(member)?)));
            if let Some((cluster, member)) = known {
                return Ok(Identity { cluster, member });
            }
        }
        let draw = || {
            let unusable = |error| EmbeddedError::File { path: path.clone(), error };
            random_bytes().map(u64::from_le_bytes).map_err(|error| unusable(io::Error::other(error)))
        };
        let (cluster, member) = (draw()?, draw()?);
        write(&path, &format!("{cluster:016x} {member:016x}\n"))?;
        Ok(Identity { cluster, member })
    }

    /// Lets other numbers be drawn: what is there next is another store.
    pub(super) fn forget_identity(&self) -> Result<(), EmbeddedError> {
        let path = self.0.join("identity");
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(EmbeddedError::File { path, error }),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Whether and where the store was moved; nothing where it was not.
    pub(super) fn sealed(&self) -> Result<Option<Seal>, EmbeddedError> {
        let path = self.0.join(SEAL);
        let Some(text) = read(&path)? else { return Ok(None) };
        match text.trim().split_once(' ') {
            Some(("moving", to)) => Ok(Some(Seal::Moving(to.to_owned()))),
            Some(("moved", to)) => Ok(Some(Seal::Moved(to.to_owned()))),
            // Whatever was meant: nobody uses it.
            _ => Ok(Some(Seal::Moved("another store".to_owned()))),
        }
    }

    /// Lets nobody use the store any more.
    pub(super) fn seal(&self, seal: &Seal) -> Result<(), EmbeddedError> {
        let (word, to) = match seal {
            Seal::Moving(to) => ("moving", to),
            Seal::Moved(to) => ("moved", to),
        };
        write(&self.0.join(SEAL), &format!("{word} {to}\n"))
    }

    /// What has to go for a sealed store to be used again.
    pub(super) fn seal_file(&self) -> PathBuf {
        self.0.join(SEAL)
    }

    /// Where the store was answered last.
    pub(super) fn endpoint(&self) -> Result<Option<String>, EmbeddedError> {
        Ok(read(&self.0.join("endpoint"))?.map(|text| text.trim().to_owned()))
    }

    /// Says where the store is answered.
    pub(super) fn say_endpoint(&self, endpoint: &str) -> Result<(), EmbeddedError> {
        let path = self.0.join("endpoint");
        if read(&path)?.is_some_and(|known| known.trim() == endpoint) {
            return Ok(());
        }
        write(&path, &format!("{endpoint}\n"))
    }
}

fn read(path: &Path) -> Result<Option<String>, EmbeddedError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(EmbeddedError::File { path: path.to_owned(), error }),
    }
}

/// Writes a file for its owner only, whole or not at all.
pub(super) fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    // A name that nobody foresees, and a file that nobody made before: it may hold a key.
    let number = u64::from_le_bytes(random_bytes()?);
    let new = path.with_extension(format!("{number:016x}"));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(folder)?.sync_all()
}

fn write(path: &Path, text: &str) -> Result<(), EmbeddedError> {
    write_whole(path, text).map_err(|error| EmbeddedError::File { path: path.to_owned(), error })
}
