//! A Git server over HTTPS: git's own `http-backend` behind TLS, for repositories in one folder.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use windlass_testbed::KeyPair;

/// No question of git takes longer in a test.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who may read, as `user:password` in base64; anybody where there is none.
#[derive(Debug, Clone)]
struct Served {
    folder: PathBuf,
    login: Option<String>,
    asked: Arc<Mutex<Vec<String>>>,
    count: Arc<AtomicUsize>,
}

/// A server that runs until the test's process ends.
#[derive(Debug)]
pub struct GitServer {
    address: SocketAddr,
    served: Served,
}

impl GitServer {
    /// Serves the repositories of a folder with a certificate. `login` is `user:password` in base64.
    ///
    /// # Errors
    /// When it cannot listen, or the certificate cannot be read.
    pub fn start(folder: &Path, certificate: &KeyPair, login: Option<&str>) -> Result<Self> {
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_file_iter(&certificate.certificate)?.collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_file(&certificate.key)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").context("listening for git")?;
        let address = listener.local_addr()?;
        let served = Served {
            folder: folder.to_owned(),
            login: login.map(str::to_owned),
            asked: Arc::default(),
            count: Arc::default(),
        };
        let serve = served.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, serve) = (Arc::clone(&config), serve.clone());
                thread::spawn(move || {
                    // How a client's connection ends is its affair; the test sees what becomes of it.
                    let _ = answer(stream, config, &serve);
                });
            }
        });
        Ok(Self { address, served })
    }

    /// The address of a repository.
    pub fn url(&self, repository: &str) -> String {
        format!("https://127.0.0.1:{}/{repository}", self.address.port())
    }

    /// How many questions were asked.
    pub fn asked(&self) -> usize {
        self.served.count.load(Ordering::SeqCst)
    }

    /// Which questions were asked: method and path.
    pub fn questions(&self) -> Vec<String> {
        self.served.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The head of a question.
struct Head {
    method: String,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
}

impl Head {
    fn read(reader: &mut impl BufRead) -> Result<Self> {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut words = line.split_whitespace();
        let (method, target) = words.next().zip(words.next()).context("no request line")?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut head =
            Self { method: method.to_owned(), path: path.to_owned(), query: query.to_owned(), headers: Vec::new() };
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            match line.trim_end().split_once(':') {
                Some((name, value)) => head.headers.push((name.to_ascii_lowercase(), value.trim().to_owned())),
                None => return Ok(head),
            }
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn body(&self, reader: &mut impl BufRead) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        if self.header("transfer-encoding") == Some("chunked") {
            loop {
                let mut line = String::new();
                reader.read_line(&mut line)?;
                let length = usize::from_str_radix(line.trim(), 16).context("a chunk's length")?;
                let mut chunk = vec![0; length + 2];
                reader.read_exact(&mut chunk)?;
                if length == 0 {
                    return Ok(body);
                }
                body.extend_from_slice(&chunk[..length]);
            }
        }
        let length = self.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        reader.take(length).read_to_end(&mut body)?;
        Ok(body)
    }
}

fn answer(stream: TcpStream, config: Arc<ServerConfig>, served: &Served) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(StreamOwned::new(ServerConnection::new(config)?, stream));
    let head = Head::read(&mut reader)?;
    let body = head.body(&mut reader)?;
    served.count.fetch_add(1, Ordering::SeqCst);
    served.asked.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{} {}", head.method, head.path));
    let allowed =
        served.login.as_ref().is_none_or(|login| head.header("authorization") == Some(&format!("Basic {login}")));
    let reply = if allowed {
        backend(&head, &body, served)?
    } else {
        b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"git\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            .to_vec()
    };
    let mut stream = reader.into_inner();
    stream.write_all(&reply)?;
    stream.conn.send_close_notify();
    stream.flush()?;
    Ok(())
}

/// Asks `git http-backend` by CGI (RFC 3875), and makes its answer one of HTTP.
fn backend(head: &Head, body: &[u8], served: &Served) -> Result<Vec<u8>> {
    let mut command = Command::new("git");
    command.arg("http-backend").env("GIT_PROJECT_ROOT", &served.folder).env("GIT_HTTP_EXPORT_ALL", "1");
    command.env("PATH_INFO", &head.path).env("QUERY_STRING", &head.query).env("REQUEST_METHOD", &head.method);
    command.env("CONTENT_TYPE", head.header("content-type").unwrap_or_default());
    command.env("CONTENT_LENGTH", body.len().to_string()).env("GIT_CONFIG_GLOBAL", "/dev/null");
    for (name, variable) in [("content-encoding", "HTTP_CONTENT_ENCODING"), ("git-protocol", "GIT_PROTOCOL")] {
        if let Some(value) = head.header(name) {
            command.env(variable, value);
        }
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().context("starting git http-backend")?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    let body = body.to_owned();
    let writer = thread::spawn(move || stdin.write_all(&body));
    let output = child.wait_with_output().context("waiting for git http-backend")?;
    let _ = writer.join();
    let end = output.stdout.windows(4).position(|four| four == b"\r\n\r\n");
    let Some(end) = end else { bail!("git http-backend says nothing") };
    let (headers, body) = (String::from_utf8_lossy(&output.stdout[..end]).into_owned(), &output.stdout[end + 4..]);
    let mut status = "200 OK".to_owned();
    let mut reply = String::new();
    for line in headers.lines() {
        match line.strip_prefix("Status: ") {
            Some(told) => told.clone_into(&mut status),
            None => reply.push_str(&format!("{line}\r\n")),
        }
    }
    let head = format!("HTTP/1.1 {status}\r\n{reply}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    Ok([head.as_bytes(), body].concat())
}
