//! The client of both: etcd's own API, and nothing of Windlass.

use anyhow::{Context, Result};
use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};

use super::server::Credentials;

pub(crate) use etcd_client::Client;

/// A connection of its own.
///
/// # Errors
/// When nobody answers.
pub(crate) async fn connect(endpoint: &str, credentials: Option<&Credentials>) -> Result<Client> {
    let options = credentials.map(|files| -> Result<ConnectOptions> {
        let read = |path| std::fs::read(path).with_context(|| format!("reading {path:?}"));
        let identity = Identity::from_pem(read(&files.certificate)?, read(&files.key)?);
        let tls = TlsOptions::new().ca_certificate(Certificate::from_pem(read(&files.authority)?)).identity(identity);
        Ok(ConnectOptions::new().with_tls(tls))
    });
    Client::connect([endpoint], options.transpose()?).await.context("connecting")
}
