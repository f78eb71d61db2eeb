//! One HTTP question on a connection of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

/// A host on a busy machine may be slow; one that is down refuses at once.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// Asks for `path`.
///
/// # Errors
/// When nobody answers within a few seconds, or not by HTTP.
pub fn get(address: SocketAddr, path: &str) -> Result<Answer> {
    let question = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    ask(address, question.as_bytes())
}

/// Sends `body` to `path` with more headers.
///
/// # Errors
/// When nobody answers within a few seconds, or not by HTTP.
pub fn post(address: SocketAddr, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Answer> {
    let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n{more}\r\n",
        body.len()
    );
    ask(address, &[head.as_bytes(), body].concat())
}

fn ask(address: SocketAddr, question: &[u8]) -> Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).context("connecting")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(question).context("asking")?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text).context("reading the answer")?;
    let text = String::from_utf8_lossy(&text);
    let (head, body) = text.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok(Answer { status: status.with_context(|| format!("no status in {head}"))?, body: body.to_owned() })
}
