//! TLS: which ciphers this program offers, and the files that a connection needs.

use std::path::{Path, PathBuf};
use std::sync::Once;

use etcd_client::{Certificate, Identity, TlsOptions};
use rustls::CipherSuite;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;

/// Makes AES-256-GCM and ChaCha20-Poly1305 the only ciphers that rustls offers in this process, from TLS 1.2 on.
///
/// [`crate::Store::connect`] does it by itself; a program that uses TLS before calls it first. Once is enough, and
/// it does nothing when the program has already chosen a provider.
pub fn restrict_ciphers() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error says that the program has chosen already.
        if restricted_provider().install_default().is_err() {
            tracing::debug!("the program has its own TLS provider");
        }
    });
}

fn restricted_provider() -> CryptoProvider {
    let mut provider = default_provider();
    provider.cipher_suites.retain(|suite| {
        matches!(
            suite.suite(),
            CipherSuite::TLS13_AES_256_GCM_SHA384
                | CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
                | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
        )
    });
    provider
}

/// How to know the store, and to be known by it. The store's certificate is always verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificates, PEM, one of which must have signed the store's.
    pub ca_file: PathBuf,
    /// Our certificate, PEM, where the store asks for one.
    pub cert_file: Option<PathBuf>,
    /// The key of our certificate, PEM.
    pub key_file: Option<PathBuf>,
}

/// Why the files of a [`Tls`] cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsFileError {
    #[error("cannot read {}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{} holds no {what} in PEM form", path.display())]
    NotPem { path: PathBuf, what: &'static str },
    #[error("a client certificate needs its key, and a key its certificate")]
    HalfAPair,
}

impl Tls {
    pub(crate) async fn load(&self) -> Result<TlsOptions, TlsFileError> {
        let authority = read(&self.ca_file, "certificate", &["BEGIN CERTIFICATE", "BEGIN TRUSTED CERTIFICATE"]).await?;
        let options = TlsOptions::new().ca_certificate(Certificate::from_pem(authority));
        match (&self.cert_file, &self.key_file) {
            (None, None) => Ok(options),
            (Some(cert), Some(key)) => {
                let cert = read(cert, "certificate", &["BEGIN CERTIFICATE"]).await?;
                let key = read(key, "private key", &["PRIVATE KEY"]).await?;
                Ok(options.identity(Identity::from_pem(cert, key)))
            }
            (Some(_), None) | (None, Some(_)) => Err(TlsFileError::HalfAPair),
        }
    }
}

async fn read(path: &Path, what: &'static str, marks: &[&str]) -> Result<String, TlsFileError> {
    let text =
        tokio::fs::read(path).await.map_err(|source| TlsFileError::Unreadable { path: path.to_owned(), source })?;
    String::from_utf8(text)
        .ok()
        .filter(|text| marks.iter().any(|mark| text.contains(mark)))
        .ok_or_else(|| TlsFileError::NotPem { path: path.to_owned(), what })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_ciphers_are_offered() {
        let suites: Vec<String> =
            restricted_provider().cipher_suites.iter().map(|suite| format!("{:?}", suite.suite())).collect();
        assert_eq!(suites.len(), 6, "{suites:?}");
        assert!(suites.iter().all(|suite| suite.contains("AES_256_GCM") || suite.contains("CHACHA20_POLY1305")));
    }
}
