//! Certificates for one etcd: an authority, a server and a client.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::authority::{Authority, Validity};

/// PEM files that live as long as their [`Etcd`](crate::Etcd).
#[derive(Debug, Clone)]
pub struct Certificates {
    /// The authority that signed the server's and the client's certificate.
    pub authority: PathBuf,
    /// A certificate that the server accepts, for the common name `windlass`.
    pub client: PathBuf,
    /// Its private key.
    pub client_key: PathBuf,
    /// An authority that signed neither: who trusts it must refuse the server.
    pub stranger_authority: PathBuf,
    pub(crate) server: PathBuf,
    pub(crate) server_key: PathBuf,
}

impl Certificates {
    /// Makes them in `dir`, for a server at `address` and `localhost`.
    pub(crate) fn create(dir: &Path, address: Ipv4Addr) -> Result<Self> {
        let ours = Authority::create(dir, "authority")?;
        let stranger = Authority::create(dir, "stranger-authority")?;
        let names = format!("IP:{address},IP:127.0.0.1,DNS:localhost");
        let server = ours.issue("server", "etcd", &names, Validity::AMonth)?;
        let client = ours.issue("client", "windlass", &names, Validity::AMonth)?;
        Ok(Self {
            authority: ours.certificate,
            client: client.certificate,
            client_key: client.key,
            stranger_authority: stranger.certificate,
            server: server.certificate,
            server_key: server.key,
        })
    }
}
