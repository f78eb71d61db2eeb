//! TLS with a program on a host: what is offered, whom its certificate must come from, and what a failure means.
//!
//! A certificate is always verified, TLS is 1.2 at least, and only AES-256-GCM and ChaCha20-Poly1305 are offered: none
//! of it can be turned off.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{AlertDescription, CertificateError, CipherSuite, ClientConfig, RootCertStore};
use tokio::net::UnixStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::fleet::Issued;

/// The machine's trust store changes by the month, and reading it takes milliseconds that a question every 20 ms has
/// not got.
const TRUST_STORE_AGE: Duration = Duration::from_secs(60);

/// The most bytes of a file of certificates: a machine's whole trust store has 250 kB.
const LARGEST_FILE: u64 = 1024 * 1024;

/// What is spoken inside; a server that offers HTTP/2 as well must know that it is not meant.
const HTTP_1_1: &[u8] = b"http/1.1";

/// Why a handshake could not even be tried: something on this machine, or in the declaration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsSetupError {
    /// The file of a declaration's `caFile`.
    #[error("spec.health.tls.caFile: {} cannot be read on the controller's machine", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    /// What is in it.
    #[error("spec.health.tls.caFile: {} holds no usable certificate in PEM form", path.display())]
    NoCertificate { path: PathBuf },
    /// Nobody is trusted on this machine.
    #[error(
        "the controller's machine trusts no certificate authority; install ca-certificates there, or say spec.health.tls.caFile"
    )]
    NobodyTrusted,
    /// The name of a host that no certificate can hold.
    #[error("{0:?} is no name that a certificate can have; say spec.health.tls.serverName")]
    NotAName(String),
}

/// Why a handshake failed.
#[derive(Debug)]
pub(crate) enum HandshakeError {
    /// By what the program showed or offered: its own fault.
    Program(String),
    /// The connection broke off; whose fault that is, only ssh can tell.
    Broken(String),
}

/// What a handshake takes.
pub(crate) struct Handshake {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Handshake {
    /// Reads whom to trust. Blocks: it reads files.
    ///
    /// # Errors
    /// When it cannot be known whom to trust, or what name to expect. The program is not at fault.
    pub(crate) fn prepare(issued: &Issued) -> Result<Self, TlsSetupError> {
        let name = ServerName::try_from(issued.to.clone()).map_err(|_| TlsSetupError::NotAName(issued.to.clone()))?;
        let roots = match &issued.by {
            Some(path) => Arc::new(authorities(path)?),
            None => trust_store()?,
        };
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .expect("the suites are of both versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![HTTP_1_1.to_vec()];
        // A certificate that has run out since must be seen, so every question begins anew.
        config.resumption = Resumption::disabled();
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name })
    }

    /// Shakes hands over `stream`, and verifies who answers.
    ///
    /// # Errors
    /// When the program is not who it should be, does not speak TLS as it must, or is cut off.
    pub(crate) async fn shake(self, stream: UnixStream) -> Result<TlsStream<UnixStream>, HandshakeError> {
        let name = self.name.to_str().into_owned();
        self.connector.connect(self.name, stream).await.map_err(|error| {
            let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            match tls {
                Some(tls) => HandshakeError::Program(complaint(tls, &name)),
                None => HandshakeError::Broken(format!("the TLS handshake was cut short: {error}")),
            }
        })
    }
}

/// aws-lc with the two ciphers that are offered.
fn provider() -> CryptoProvider {
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

/// The certificates of a file. It is read for every question, so that a new one counts at once.
fn authorities(path: &Path) -> Result<RootCertStore, TlsSetupError> {
    let unreadable = |source| TlsSetupError::Unreadable { path: path.to_owned(), source };
    let about = fs::metadata(path).map_err(unreadable)?;
    // A pipe would wait for ever, and a device never ends.
    if !about.is_file() || about.len() > LARGEST_FILE {
        return Err(unreadable(std::io::Error::other("it is no file, or larger than 1 MiB")));
    }
    let bytes = fs::read(path).map_err(unreadable)?;
    let mut roots = RootCertStore::empty();
    let found: Vec<_> = CertificateDer::pem_slice_iter(&bytes).filter_map(Result::ok).collect();
    let (added, _) = roots.add_parsable_certificates(found);
    if added == 0 { Err(TlsSetupError::NoCertificate { path: path.to_owned() }) } else { Ok(roots) }
}

/// Whom this machine trusts.
fn trust_store() -> Result<Arc<RootCertStore>, TlsSetupError> {
    static READ: Mutex<Option<(Instant, Arc<RootCertStore>)>> = Mutex::new(None);
    let mut read = READ.lock().expect("nobody panics while holding it");
    if let Some((at, roots)) = &*read
        && at.elapsed() < TRUST_STORE_AGE
    {
        return Ok(Arc::clone(roots));
    }
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 {
        return Err(TlsSetupError::NobodyTrusted);
    }
    let roots = Arc::new(roots);
    *read = Some((Instant::now(), Arc::clone(&roots)));
    Ok(roots)
}

/// What is wrong with a program's TLS, as a sentence about it.
fn complaint(error: &rustls::Error, name: &str) -> String {
    match error {
        rustls::Error::InvalidCertificate(why) => about_certificate(why, name),
        rustls::Error::InvalidMessage(_) => "it does not answer with TLS; `transport: https` needs it".to_owned(),
        rustls::Error::AlertReceived(
            AlertDescription::HandshakeFailure
            | AlertDescription::ProtocolVersion
            | AlertDescription::InsufficientSecurity,
        )
        | rustls::Error::PeerIncompatible(_) => {
            format!("it offers no TLS 1.2 or 1.3 with AES-256-GCM or ChaCha20-Poly1305 ({error})")
        }
        rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            "it does not speak HTTP/1.1 inside TLS".to_owned()
        }
        other => format!("the TLS handshake failed: {other}"),
    }
}

fn about_certificate(why: &CertificateError, name: &str) -> String {
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "its certificate has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet".to_owned()
        }
        CertificateError::UnknownIssuer => {
            "its certificate is signed by nobody whom spec.health.tls.caFile or the controller's machine trusts"
                .to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("its certificate is not for {name}")
        }
        other => format!("its certificate is not valid: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_ciphers_are_offered() {
        let suites: Vec<String> = provider().cipher_suites.iter().map(|suite| format!("{:?}", suite.suite())).collect();
        assert_eq!(suites.len(), 6, "{suites:?}");
        assert!(suites.iter().all(|suite| suite.contains("AES_256_GCM") || suite.contains("CHACHA20_POLY1305")));
    }

    /// None of these is the program's fault, and each names what is at fault.
    #[test]
    fn what_cannot_be_trusted_is_told_by_its_path() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).expect("ours");
            path
        };
        let rows = [
            (file("empty.pem", ""), "holds no usable certificate"),
            (file("text.pem", "hello"), "holds no usable certificate"),
            (
                file("broken.pem", "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n"),
                "holds no usable certificate",
            ),
            (dir.path().join("missing.pem"), "cannot be read"),
            (dir.path().to_owned(), "cannot be read"),
            (PathBuf::from("/dev/zero"), "cannot be read"),
        ];
        for (path, expected) in rows {
            let issued = Issued { to: "web.example.com".to_owned(), by: Some(path.clone()) };
            let Err(error) = Handshake::prepare(&issued) else { panic!("{} is trusted", path.display()) };
            let told = error.to_string();
            assert!(told.contains(expected) && told.contains(&path.display().to_string()), "{told}");
        }
        let Err(error) = Handshake::prepare(&Issued { to: "a_b c".to_owned(), by: None }) else { panic!("a name") };
        assert!(error.to_string().contains("serverName"), "{error}");
    }
}
