//! Asking a service how it is, through the SSH connection: a socket here that leads to a port on the host's loopback.
//!
//! Connecting to such a socket proves nothing: ssh accepts at once, and closes it when sshd says that nobody listens
//! or that it may not. Only the master's log tells the two apart, and it is written before the socket is closed.

use std::fs;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper_util::rt::TokioIo;
use openssh::{ForwardType, Socket};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::UnixStream;
use windlass_crds::observation::HealthAnswer;

use super::link::{Connection, Link};
use super::shell;
use super::tls::{Handshake, HandshakeError};
use crate::fleet::{Probe, Question};

/// So much of a body is kept.
const BODY_BYTES: usize = 1024;

/// How long a host that did not answer a question may take to answer anything at all.
const PING_DEADLINE: Duration = Duration::from_secs(3);

/// Round trips to the host after which sshd's refusal of a channel is in the master's log, on however slow a machine.
///
/// ssh may send the first one's question just before it asks for the channel; the second one's comes after it. sshd
/// refuses before it passes on what a shell answers to what came later, and ssh logs in the order of what it hears.
const ROUND_TRIPS: usize = 2;

/// How long ssh may take to close what was refused, once it has logged that something was.
const CLOSING: Duration = Duration::from_secs(1);

/// How long setting up a forward may take: it goes only to the master, on this machine.
const FORWARD_DEADLINE: Duration = Duration::from_secs(3);

/// Whom a plain question is addressed to.
const LOCALHOST: &str = "localhost";

fn unknown(detail: &(impl ToString + ?Sized)) -> HealthAnswer {
    HealthAnswer::Unknown { detail: detail.to_string() }
}

fn silent(detail: &(impl ToString + ?Sized)) -> HealthAnswer {
    HealthAnswer::Silent { detail: detail.to_string() }
}

/// Asks once.
pub(crate) async fn ask(link: &Link, question: &Question) -> HealthAnswer {
    // Before any connection: what is wrong on this machine is no news about the program.
    let asking = match Asking::prepare(&question.probe).await {
        Ok(asking) => asking,
        Err(detail) => return unknown(&detail),
    };
    let connection = match tokio::time::timeout(super::LOOK_DEADLINE, link.connection()).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return unknown(&error),
        Err(_) => return unknown("no connection in time"),
    };
    let before = connection.master.log_length();
    let stream = match open(&connection, question.port).await {
        Ok(stream) => stream,
        Err(detail) => {
            // The next one sets the forward up anew.
            connection.forwards.lock().await.insert(question.port, Forward::Doubtful);
            return unknown(&detail);
        }
    };
    let answer = async {
        match asking {
            Asking::Connect => stays_open(link, stream, || connection.master.log_since(before)).await,
            Asking::Http { path } => get(stream, LOCALHOST, path).await,
            Asking::Tls { handshake, host, path } => secured(stream, *handshake, &host, path).await,
        }
    };
    match tokio::time::timeout(question.timeout, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(detail)) => explain(&connection.master.log_since(before), &detail),
        Err(_) => {
            let seconds = question.timeout.as_secs_f32();
            if ping(link).await {
                explain(&connection.master.log_since(before), &format!("no answer within {seconds} s"))
            } else {
                unknown("the host itself does not answer")
            }
        }
    }
}

/// A question with all that it takes.
enum Asking<'a> {
    Connect,
    Http { path: &'a str },
    Tls { handshake: Box<Handshake>, host: String, path: Option<&'a str> },
}

impl<'a> Asking<'a> {
    async fn prepare(probe: &'a Probe) -> Result<Self, String> {
        let (path, issued) = match probe {
            Probe::Connect => return Ok(Self::Connect),
            Probe::Http(path) => return Ok(Self::Http { path }),
            Probe::Tls { path, issued } => (path.as_deref(), issued.clone()),
        };
        let host = if issued.to.contains(':') { format!("[{}]", issued.to) } else { issued.to.clone() };
        let prepared = tokio::task::spawn_blocking(move || Handshake::prepare(&issued));
        let prepared = prepared.await.map_err(|error| error.to_string())?;
        let handshake = Box::new(prepared.map_err(|error| chain(&error))?);
        Ok(Self::Tls { handshake, host, path })
    }
}

/// A verified handshake, and what is asked inside it.
async fn secured(
    stream: UnixStream,
    handshake: Handshake,
    host: &str,
    path: Option<&str>,
) -> Result<HealthAnswer, String> {
    match (handshake.shake(stream).await, path) {
        (Ok(stream), Some(path)) => get(stream, host, path).await,
        (Ok(_), None) => Ok(HealthAnswer::Open),
        (Err(HandshakeError::Program(detail)), _) => Ok(silent(&detail)),
        (Err(HandshakeError::Broken(detail)), _) => Err(detail),
    }
}

/// What a question that was cut short means, by what ssh has logged since.
fn explain(log: &str, detail: &str) -> HealthAnswer {
    if log.contains("administratively prohibited") {
        unknown("sshd refuses forwarding (AllowTcpForwarding or PermitOpen in sshd_config)")
    } else if log.contains("resource shortage") || log.contains("Timeout, server") {
        unknown(detail)
    } else if log.contains("connect failed") {
        silent("connection refused")
    } else {
        silent(detail)
    }
}

async fn ping(link: &Link) -> bool {
    let request = shell::Request { verb: "ping", arguments: Vec::new() };
    link.call(&request, None, PING_DEADLINE).await.is_ok()
}

/// A stream to a port of the host. The forward behind it is kept as long as the connection.
async fn open(connection: &Connection, port: NonZeroU16) -> Result<UnixStream, String> {
    let path = forward(connection, port).await?;
    UnixStream::connect(&path).await.map_err(|error| format!("the forward is gone: {error}"))
}

/// A way through a connection to a port of the host.
#[derive(Debug)]
pub(crate) enum Forward {
    /// It was asked for, and what came of that was not heard, or did not work.
    Doubtful,
    /// It begins at this socket.
    Open(PathBuf),
}

/// Where the forward to a port begins, which is set up where there is none. May be dropped at any point.
async fn forward(connection: &Connection, port: NonZeroU16) -> Result<PathBuf, String> {
    let mut forwards = connection.forwards.lock().await;
    let path = connection.master.directory().join(format!("f{port}"));
    let session = connection.master.session();
    let listen = || Socket::from(path.clone());
    let target = || Socket::new("127.0.0.1", port.get());
    let doubtful = match forwards.get(&port) {
        Some(Forward::Open(path)) => return Ok(path.clone()),
        Some(Forward::Doubtful) => true,
        None => false,
    };
    // Before ssh hears of it: whoever asks may be called off before the answer is here.
    forwards.insert(port, Forward::Doubtful);
    let request = async {
        if doubtful {
            // ssh says yes to what it takes for open already, and makes no socket. It may as well not have it.
            let _ = session.close_port_forward(ForwardType::Local, listen(), target()).await;
        }
        // A socket file that is left keeps ssh from making it again.
        let _ = fs::remove_file(&path);
        session.request_port_forward(ForwardType::Local, listen(), target()).await
    };
    match tokio::time::timeout(FORWARD_DEADLINE, request).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(format!("no forward: {error}")),
        Err(_) => return Err("no forward in time".to_owned()),
    }
    forwards.insert(port, Forward::Open(path.clone()));
    Ok(path)
}

/// An HTTP GET, and the beginning of what it brings.
async fn get<S>(stream: S, host: &str, path: &str) -> Result<HealthAnswer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(stream);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(io).await.map_err(|error| chain(&error))?;
    let driver = tokio::spawn(connection);
    let question = async {
        let request = Request::get(path)
            .header("host", host)
            .header("user-agent", concat!("windlass/", env!("CARGO_PKG_VERSION")))
            .header("connection", "close")
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(|error| chain(&error))?;
        let status = response.status().as_u16();
        let mut body = response.into_body();
        let mut bytes = Vec::new();
        while bytes.len() < BODY_BYTES {
            // A body that breaks off does not undo the status.
            let Some(Ok(frame)) = body.frame().await else { break };
            if let Ok(data) = frame.into_data() {
                bytes.extend_from_slice(&data);
            }
        }
        bytes.truncate(BODY_BYTES);
        Ok(HealthAnswer::Http { status, body: String::from_utf8_lossy(&bytes).into_owned() })
    };
    let answer = question.await;
    driver.abort();
    answer
}

/// Whether the program has taken the connection: nothing was refused by the time that `logged` must tell of it. What
/// was may be another question's, so then it is waited for whether this one's stream is closed.
async fn stays_open(link: &Link, mut stream: UnixStream, logged: impl Fn() -> String) -> Result<HealthAnswer, String> {
    let mut byte = [0];
    let looked = async {
        for _ in 0..ROUND_TRIPS {
            if !ping(link).await {
                return unknown("the host itself does not answer");
            }
        }
        if logged().contains("open failed") {
            tokio::time::sleep(CLOSING).await;
        }
        HealthAnswer::Open
    };
    tokio::select! {
        biased;
        read = stream.read(&mut byte) => match read {
            Ok(1) => Ok(HealthAnswer::Open),
            _ => Err("the connection was closed at once".to_owned()),
        },
        answer = looked => Ok(answer),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_by_sshd_is_not_the_programs_fault() {
        for (log, unknown) in [
            ("channel 3: open failed: administratively prohibited: open failed\r\n", true),
            ("channel 3: open failed: connect failed: Connection refused\r\n", false),
            ("", false),
        ] {
            let answer = explain(log, "closed");
            assert_eq!(matches!(answer, HealthAnswer::Unknown { .. }), unknown, "{log:?}: {answer:?}");
        }
    }
}
