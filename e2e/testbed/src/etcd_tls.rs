//! Certificates for one etcd: an authority, a server and a client, made afresh by `openssl`.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::run;

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
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        let (authority, authority_key) = self_signed(dir, "authority")?;
        let (stranger_authority, _) = self_signed(dir, "stranger-authority")?;
        let names = format!("IP:{address},IP:127.0.0.1,DNS:localhost");
        let sign = |name: &str, subject: &str| signed(dir, name, subject, &names, &authority, &authority_key);
        let (server, server_key) = sign("server", "etcd")?;
        let (client, client_key) = sign("client", "windlass")?;
        Ok(Self { authority, client, client_key, stranger_authority, server, server_key })
    }
}

const NEW_KEY: [&str; 6] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-batch"];

fn self_signed(dir: &Path, name: &str) -> Result<(PathBuf, PathBuf)> {
    let (certificate, key) = files(dir, name);
    let subject = format!("/CN=windlass testbed {name}");
    let mut arguments = vec!["req", "-x509", "-days", "30", "-subj", &subject];
    arguments.extend(NEW_KEY);
    arguments.extend(["-keyout", text(&key)?, "-out", text(&certificate)?]);
    run("openssl", &arguments)?;
    Ok((certificate, key))
}

fn signed(
    dir: &Path,
    name: &str,
    subject: &str,
    alternative_names: &str,
    authority: &Path,
    authority_key: &Path,
) -> Result<(PathBuf, PathBuf)> {
    let (certificate, key) = files(dir, name);
    let request = dir.join(format!("{name}.csr"));
    let extensions = dir.join(format!("{name}.ext"));
    // Both usages: etcd's own gateway presents the server's certificate as a client's.
    let content = format!("subjectAltName={alternative_names}\nextendedKeyUsage=serverAuth,clientAuth\n");
    fs::write(&extensions, content).context("writing the certificate's extensions")?;
    let subject = format!("/CN={subject}");
    let mut arguments = vec!["req", "-new", "-subj", &subject];
    arguments.extend(NEW_KEY);
    arguments.extend(["-keyout", text(&key)?, "-out", text(&request)?]);
    run("openssl", &arguments)?;
    let arguments = [
        "x509",
        "-req",
        "-days",
        "30",
        "-CAcreateserial",
        "-in",
        text(&request)?,
        "-CA",
        text(authority)?,
        "-CAkey",
        text(authority_key)?,
        "-extfile",
        text(&extensions)?,
        "-out",
        text(&certificate)?,
    ];
    run("openssl", &arguments)?;
    Ok((certificate, key))
}

fn files(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
    (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")))
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}
