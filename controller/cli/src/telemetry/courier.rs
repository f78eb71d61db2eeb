//! Carries one POST to a collector: HTTP/1.1, over TLS where the address says so.
//!
//! hyper and rustls are here anyway; the clients that OpenTelemetry offers would bring another HTTP stack.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper::rt::{Read, Write};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use opentelemetry_http::{Bytes, HttpClient, HttpError};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The longest answer that is read: a collector says no more than how many spans it did not take.
const ANSWER_BYTES: usize = 64 << 10;

/// Delivers over a connection of its own each time: that is once in a few seconds at most.
#[derive(Debug)]
pub(super) struct Courier {
    tls: Arc<ClientConfig>,
}

impl Courier {
    /// Trusts `authorities` (PEM), or those of this machine.
    pub(super) fn new(authorities: Option<&[u8]>) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        match authorities {
            Some(pem) => {
                for certificate in CertificateDer::pem_slice_iter(pem) {
                    roots.add(certificate.context("the authorities' file is not PEM")?)?;
                }
                if roots.is_empty() {
                    bail!("the authorities' file holds no certificate");
                }
            }
            // A machine without any can still send by plain HTTP; an `https` collector is then not trusted.
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Ok(Self { tls: Arc::new(tls) })
    }
}

#[async_trait]
impl HttpClient for Courier {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let uri = request.uri().clone();
        let host = uri.host().ok_or("the collector's address names no host")?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let https = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        let stream = TcpStream::connect((bare, port)).await?;
        let request = relative(request, &uri)?;
        if !https {
            return deliver(TokioIo::new(stream), request).await;
        }
        let name = ServerName::try_from(bare.to_owned())?;
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await?;
        deliver(TokioIo::new(stream), request).await
    }
}

/// A request as a server expects it: its path in the first line, and who is meant in a header.
fn relative(mut request: Request<Bytes>, uri: &Uri) -> Result<Request<Full<Bytes>>, HttpError> {
    let authority = uri.authority().ok_or("the collector's address names no host")?;
    // What stands in front of an `@` is a secret, and no part of the name.
    let named = authority.as_str().rsplit('@').next().unwrap_or_default();
    request.headers_mut().insert(HOST, HeaderValue::from_str(named)?);
    *request.uri_mut() = uri.path_and_query().map_or("/", |path| path.as_str()).parse()?;
    Ok(request.map(Full::new))
}

async fn deliver<Stream>(stream: Stream, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, HttpError>
where
    Stream: Read + Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(stream).await?;
    let answer = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, ANSWER_BYTES).collect().await?.to_bytes();
        Ok::<_, HttpError>(Response::from_parts(head, body))
    };
    tokio::pin!(answer, connection);
    tokio::select! {
        answer = &mut answer => answer,
        ended = &mut connection => {
            ended?;
            // It may have ended because the answer is complete.
            answer.await
        }
    }
}
