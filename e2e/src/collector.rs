//! A collector of traces on loopback: takes OTLP by HTTP, and remembers every span.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use prost::Message;

/// A sender that falls silent in the middle is given up.
const SILENCE: Duration = Duration::from_secs(10);

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

/// What came in, each with the headers that it came with.
#[derive(Debug, Default)]
struct Received {
    spans: Vec<Span>,
    tokens: Vec<String>,
    refused: Vec<String>,
}

/// A collector, for as long as the test's process lives.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    received: Arc<Mutex<Received>>,
}

impl Collector {
    /// Begins to listen.
    ///
    /// # Errors
    /// When loopback has no port left.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("a port for a collector")?;
        let address = listener.local_addr()?;
        let received = Arc::new(Mutex::new(Received::default()));
        let shared = Arc::clone(&received);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if let Err(error) = take(&stream, &shared) {
                    shared.lock().expect("no panic").refused.push(format!("{error:#}"));
                }
            }
        });
        Ok(Self { address, received })
    }

    /// What `OTEL_EXPORTER_OTLP_ENDPOINT` has to say.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
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

    /// The header `x-token` of each request.
    pub fn tokens(&self) -> Vec<String> {
        self.received.lock().expect("no panic").tokens.clone()
    }
}

/// Reads one request and answers it.
fn take(stream: &TcpStream, received: &Mutex<Received>) -> Result<()> {
    stream.set_read_timeout(Some(SILENCE))?;
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    ensure!(first == "POST /v1/traces HTTP/1.1\r\n", "{first:?}");
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let kind = headers.get("content-type").map(String::as_str);
    ensure!(kind == Some("application/x-protobuf"), "a body of type {kind:?}");
    let length: usize = headers.get("content-length").context("no length")?.parse()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let request = ExportTraceServiceRequest::decode(body.as_slice())?;
    let mut writer = stream;
    writer.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n")?;
    let mut received = received.lock().expect("no panic");
    received.tokens.extend(headers.remove("x-token"));
    received.spans.extend(spans(request));
    Ok(())
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
