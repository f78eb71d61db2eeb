//! HTTPS with programs on a real host: whose certificate is right, and everything that must not be accepted.

use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use windlass_crds::observation::HealthAnswer;
use windlass_hosts::SshFleet;
use windlass_hosts::fleet::{Fleet, Issued, Probe, Question};
use windlass_testbed::{Authority, Host, Testbed, Validity};

use crate::real::target;

/// Listens on the ports it is told, each with its own certificate and manner, and answers with the Host header.
const SERVER: &str = r#"
import http.server, ssl, sys, threading

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.headers["Host"].encode()
        self.send_response(200 if self.path == "/health" else 500)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass

def serve(port, certificate, manner):
    server = http.server.HTTPServer(("127.0.0.1", int(port)), Handler)
    if manner != "plain":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if manner == "tls1.1":
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        if manner == "tls1.2":
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        if manner == "aes128":
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
        context.load_cert_chain(f"/tls/{certificate}.crt", f"/tls/{certificate}.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever).start()

for argument in sys.argv[1:]:
    serve(*argument.split(","))
print("listening", flush=True)
"#;

/// How long Python may take to listen on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// What must come of a question.
enum Expected {
    Well,
    Accepted,
    Answers(u16),
    /// The program's fault, told with these words.
    Fault(&'static str),
    /// Not the program's fault, told with these words.
    Unknown(String),
}

struct Stage {
    fleet: SshFleet,
    host: Host,
    authority: PathBuf,
}

impl Stage {
    async fn ask(&self, port: u16, path: Option<&str>, to: &str, by: &Path) -> HealthAnswer {
        let issued = Issued { to: to.to_owned(), by: Some(by.to_owned()) };
        let probe = Probe::Tls { path: path.map(str::to_owned), issued };
        let port = NonZeroU16::new(port).expect("a port");
        let question = Question { port, probe, timeout: Duration::from_secs(5) };
        self.fleet.ask(&target(&self.host, "root"), &question).await
    }

    async fn check(&self, what: &str, port: u16, to: &str, expected: Expected) {
        self.check_by(what, port, to, &self.authority, Some("/health"), expected).await;
    }

    async fn check_by(&self, what: &str, port: u16, to: &str, by: &Path, path: Option<&str>, expected: Expected) {
        let answer = self.ask(port, path, to, by).await;
        let as_expected = match (&answer, &expected) {
            (HealthAnswer::Http { status: 200, body }, Expected::Well) => body == to,
            (HealthAnswer::Open, Expected::Accepted) => true,
            (HealthAnswer::Http { status, .. }, Expected::Answers(expected)) => status == expected,
            (HealthAnswer::Silent { detail }, Expected::Fault(words)) => detail.contains(words),
            (HealthAnswer::Unknown { detail }, Expected::Unknown(words)) => detail.contains(words),
            _ => false,
        };
        assert!(as_expected, "{what}: {answer:?}");
    }

    fn listens(&self, arguments: &[&str]) {
        tokio::task::block_in_place(|| {
            self.host.write_file("/tls/server.py", SERVER).expect("a file");
            let mut command = vec!["systemd-run", "--quiet", "--unit=tls", "python3", "/tls/server.py"];
            command.extend(arguments);
            self.host.run(&command).expect("a server");
            let started = Instant::now();
            while !self.host.run(&["journalctl", "-u", "tls", "-o", "cat"]).expect("a log").contains("listening") {
                assert!(started.elapsed() < PATIENCE, "{:?}", self.host.run(&["journalctl", "-u", "tls", "-o", "cat"]));
                std::thread::sleep(Duration::from_millis(50));
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_verified_certificate_is_accepted() {
    let testbed = Testbed::new().expect("a testbed");
    let host = testbed.host("web1").expect("a host");
    let address = host.address().to_string();
    let dir = tempfile::tempdir().expect("a folder");
    let (authority, stranger) = tokio::task::block_in_place(|| {
        let ours = Authority::create(dir.path(), "ours").expect("openssl");
        let stranger = Authority::create(dir.path(), "stranger").expect("openssl");
        let names = format!("DNS:web.example.com,IP:{address}");
        host.run(&["mkdir", "-p", "/tls"]).expect("a folder");
        for (file, by, validity) in [
            ("good", &ours, Validity::AMonth),
            ("expired", &ours, Validity::Expired),
            ("unknown", &stranger, Validity::AMonth),
        ] {
            let pair = by.issue(file, "web", &names, validity).expect("openssl");
            for (path, ending) in [(&pair.certificate, "crt"), (&pair.key, "key")] {
                let text = std::fs::read(path).expect("PEM");
                host.write_file(&format!("/tls/{file}.{ending}"), text).expect("a file");
            }
        }
        (ours.certificate, stranger.certificate)
    });
    let stage = Stage { fleet: SshFleet::with_shell("sh").expect("a fleet"), host, authority };
    stage.listens(&[
        "9001,good,any",
        "9002,good,tls1.2",
        "9003,good,tls1.1",
        "9004,good,aes128",
        "9005,expired,any",
        "9006,unknown,any",
        "9007,good,plain",
    ]);

    stage.check("by its name", 9001, "web.example.com", Expected::Well).await;
    stage.check("by its address", 9001, &address, Expected::Well).await;
    stage.check("TLS 1.2", 9002, "web.example.com", Expected::Well).await;
    let by = stage.authority.clone();
    stage.check_by("a handshake alone", 9001, "web.example.com", &by, None, Expected::Accepted).await;
    stage.check_by("it is ill", 9001, "web.example.com", &by, Some("/"), Expected::Answers(500)).await;

    let not_for = Expected::Fault("its certificate is not for other.example.com");
    stage.check("another name", 9001, "other.example.com", not_for).await;
    stage.check("another address", 9001, "198.18.255.1", Expected::Fault("is not for 198.18.255.1")).await;
    let nobody = || Expected::Fault("signed by nobody whom");
    stage.check("an unknown authority", 9006, "web.example.com", nobody()).await;
    stage.check_by("another authority", 9001, "web.example.com", &stranger, Some("/health"), nobody()).await;
    stage.check("expired", 9005, "web.example.com", Expected::Fault("its certificate has expired")).await;
    let weak = || Expected::Fault("no TLS 1.2 or 1.3 with AES-256-GCM or ChaCha20-Poly1305");
    stage.check("TLS 1.1", 9003, "web.example.com", weak()).await;
    stage.check("AES-128 only", 9004, "web.example.com", weak()).await;
    stage.check("plaintext", 9007, "web.example.com", Expected::Fault("does not answer with TLS")).await;
    stage.check("nobody listens", 9099, "web.example.com", Expected::Fault("connection refused")).await;
    for (what, port) in [("expired", 9005), ("unknown", 9006)] {
        let answer = stage.ask(port, None, "web.example.com", &by).await;
        assert!(matches!(answer, HealthAnswer::Silent { .. }), "{what}, a handshake alone: {answer:?}");
    }

    let missing = dir.path().join("missing.pem");
    let expected = Expected::Unknown(format!("{} cannot be read", missing.display()));
    stage.check_by("no caFile", 9001, "web.example.com", &missing, Some("/health"), expected).await;
    stage.fleet.close().await;
}
