//! A collector of traces on loopback: takes OTLP by HTTP and by gRPC, in the open or inside TLS, and remembers every
//! span.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use prost::Message;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;
use windlass_testbed::KeyPair;

/// Where OTLP goes by HTTP.
const HTTP_PATH: &str = "/v1/traces";

/// Where it goes by gRPC.
const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// What gRPC puts before a message: whether it is compressed, and its length.
const GRPC_PREFIX: usize = 5;

/// A span, as far as tests look.
#[derive(Debug, Clone)]
pub struct Span {
    /// What it is of.
    pub name: String,
    /// Its number.
    pub id: Vec<u8>,
    /// The number of the one that it is part of; empty where it is part of none.
    pub parent: Vec<u8>,
    /// What it knows.
    pub attributes: BTreeMap<String, String>,
    /// What its sender says of itself.
    pub resource: BTreeMap<String, String>,
}

/// What came in.
#[derive(Debug, Default)]
struct Received {
    spans: Vec<Span>,
    /// Of each request.
    paths: Vec<String>,
    /// The header `x-token` of each request.
    tokens: Vec<String>,
    refused: Vec<String>,
}

/// A collector; it stops when it is dropped.
#[derive(Debug)]
pub struct Collector {
    endpoint: String,
    received: Arc<Mutex<Received>>,
    _runtime: Runtime,
}

impl Collector {
    /// Begins to listen.
    ///
    /// # Errors
    /// When loopback has no port left.
    pub fn start() -> Result<Self> {
        Self::serve("http", None)
    }

    /// Begins to listen, and speaks nothing but TLS.
    ///
    /// # Errors
    /// When loopback has no port left, or the certificate is none.
    pub fn start_with_tls(keys: &KeyPair) -> Result<Self> {
        let chain = CertificateDer::pem_file_iter(&keys.certificate).context("reading the certificate")?;
        let chain = chain.collect::<Result<Vec<_>, _>>().context("reading the certificate")?;
        let key = PrivateKeyDer::from_pem_file(&keys.key).context("reading the key")?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut config = versions.with_no_client_auth().with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self::serve("https", Some(TlsAcceptor::from(Arc::new(config))))
    }

    fn serve(scheme: &str, tls: Option<TlsAcceptor>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).context("a port for a collector")?;
        let address: SocketAddr = listener.local_addr()?;
        let received = Arc::new(Mutex::new(Received::default()));
        runtime.spawn(accept(listener, tls, Arc::clone(&received)));
        Ok(Self { endpoint: format!("{scheme}://{address}"), received, _runtime: runtime })
    }

    /// What `OTEL_EXPORTER_OTLP_ENDPOINT` has to say.
    pub fn endpoint(&self) -> String {
        self.endpoint.clone()
    }

    /// The spans that came so far.
    ///
    /// # Errors
    /// When something came that is no OTLP.
    pub fn spans(&self) -> Result<Vec<Span>> {
        let received = self.received.lock().expect("no panic");
        ensure!(received.refused.is_empty(), "the collector got {:?}", received.refused);
        Ok(received.spans.clone())
    }

    /// Where each request went.
    pub fn paths(&self) -> Vec<String> {
        self.received.lock().expect("no panic").paths.clone()
    }

    /// The header `x-token` of each request.
    pub fn tokens(&self) -> Vec<String> {
        self.received.lock().expect("no panic").tokens.clone()
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, received: Arc<Mutex<Received>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, received) = (tls.clone(), Arc::clone(&received));
        tokio::spawn(async move {
            match tls {
                None => converse(stream, received).await,
                Some(tls) => {
                    // Whoever does not trust us goes away; that is theirs to tell.
                    if let Ok(stream) = tls.accept(stream).await {
                        converse(stream, received).await;
                    }
                }
            }
        });
    }
}

/// Answers what comes by one connection, by HTTP/1.1 or by HTTP/2.
async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, received: Arc<Mutex<Received>>) {
    let answer = service_fn(|request: Request<Incoming>| {
        let received = Arc::clone(&received);
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes());
            let taken =
                body.map_err(anyhow::Error::from).and_then(|body| take(&parts.headers, parts.uri.path(), &body));
            let mut received = received.lock().expect("no panic");
            let status = match taken {
                Ok(spans) => {
                    let token = parts.headers.get("x-token").and_then(|token| token.to_str().ok());
                    received.tokens.extend(token.map(str::to_owned));
                    received.paths.push(parts.uri.path().to_owned());
                    received.spans.extend(spans);
                    StatusCode::OK
                }
                Err(error) => {
                    received.refused.push(format!("{error:#}"));
                    StatusCode::BAD_REQUEST
                }
            };
            Ok::<_, Infallible>(response(status, parts.uri.path() == GRPC_PATH))
        }
    });
    // How the sender ends the connection says nothing about what it sent.
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer).await;
}

/// What a request brings.
fn take(headers: &HeaderMap, path: &str, body: &[u8]) -> Result<Vec<Span>> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let message = match path {
        HTTP_PATH => {
            ensure!(kind == Some("application/x-protobuf"), "a body of type {kind:?}");
            body
        }
        GRPC_PATH => {
            ensure!(kind == Some("application/grpc"), "a body of type {kind:?}");
            let (prefix, message) = body.split_at_checked(GRPC_PREFIX).context("no message")?;
            ensure!(prefix[0] == 0, "a compressed message");
            message
        }
        other => anyhow::bail!("nothing is taken at {other:?}"),
    };
    Ok(spans(ExportTraceServiceRequest::decode(message)?))
}

/// An empty answer, which says that all of it was taken, unless the status says otherwise.
fn response(status: StatusCode, grpc: bool) -> Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>> {
    let (kind, message, trailers) = if grpc {
        let trailers = HeaderMap::from_iter([("grpc-status".parse().expect("a name"), HeaderValue::from_static("0"))]);
        ("application/grpc", Bytes::from_static(&[0; GRPC_PREFIX]), Some(Ok(trailers)))
    } else {
        ("application/x-protobuf", Bytes::new(), None)
    };
    let mut response = Response::new(Full::new(message).with_trailers(async { trailers }));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn spans(request: ExportTraceServiceRequest) -> Vec<Span> {
    let mut spans = Vec::new();
    for group in request.resource_spans {
        let resource = group.resource.map(|resource| texts(resource.attributes)).unwrap_or_default();
        for span in group.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            spans.push(Span {
                name: span.name,
                id: span.span_id,
                parent: span.parent_span_id,
                attributes: texts(span.attributes),
                resource: resource.clone(),
            });
        }
    }
    spans
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        Some(any_value::Value::BoolValue(truth)) => truth.to_string(),
        other => format!("{other:?}"),
    };
    attributes.into_iter().map(|pair| (pair.key, text(pair.value))).collect()
}
