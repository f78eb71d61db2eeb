//! Certificate authorities for tests: what they sign is made afresh by `openssl`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::run;

/// An authority, and the folder in which it writes what it signs.
#[derive(Debug, Clone)]
pub struct Authority {
    /// Its own certificate, PEM: who trusts it trusts what it signs.
    pub certificate: PathBuf,
    key: PathBuf,
    dir: PathBuf,
}

/// A certificate with its key, both PEM.
#[derive(Debug, Clone)]
pub struct KeyPair {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// How long a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// From now on for a month.
    AMonth,
    /// Until yesterday.
    Expired,
}

impl Validity {
    /// As `openssl` counts.
    fn days(self) -> &'static str {
        match self {
            Self::AMonth => "30",
            Self::Expired => "-1",
        }
    }
}

const NEW_KEY: [&str; 6] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-batch"];

impl Authority {
    /// Makes one that writes into `dir`.
    ///
    /// # Errors
    /// When the folder cannot be written, or `openssl` fails.
    pub fn create(dir: &Path, name: &str) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        let (certificate, key) = files(dir, name);
        let subject = format!("/CN=windlass testbed {name}");
        let mut arguments = vec!["req", "-x509", "-days", Validity::AMonth.days(), "-subj", &subject];
        arguments.extend(NEW_KEY);
        arguments.extend(["-keyout", text(&key)?, "-out", text(&certificate)?]);
        run("openssl", &arguments)?;
        Ok(Self { certificate, key, dir: dir.to_owned() })
    }

    /// Signs a certificate that is called `file` and has the common name `subject`, for `names`, written as
    /// `DNS:web.example.com,IP:198.18.0.1`.
    ///
    /// # Errors
    /// When the folder cannot be written, or `openssl` fails.
    pub fn issue(&self, file: &str, subject: &str, names: &str, validity: Validity) -> Result<KeyPair> {
        let (certificate, key) = files(&self.dir, file);
        let request = self.dir.join(format!("{file}.csr"));
        let extensions = self.dir.join(format!("{file}.ext"));
        // Both usages: etcd's own gateway presents the server's certificate as a client's.
        let content = format!("subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\n");
        fs::write(&extensions, content).context("writing the certificate's extensions")?;
        let subject = format!("/CN={subject}");
        let mut arguments = vec!["req", "-new", "-subj", &subject];
        arguments.extend(NEW_KEY);
        arguments.extend(["-keyout", text(&key)?, "-out", text(&request)?]);
        run("openssl", &arguments)?;
        let mut arguments = vec!["x509", "-req", "-days", validity.days(), "-CAcreateserial"];
        arguments.extend(["-CA", text(&self.certificate)?, "-CAkey", text(&self.key)?]);
        arguments.extend(["-in", text(&request)?, "-extfile", text(&extensions)?, "-out", text(&certificate)?]);
        run("openssl", &arguments)?;
        Ok(KeyPair { certificate, key })
    }
}

fn files(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
    (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")))
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}
