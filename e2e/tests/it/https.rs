//! A remote host speaks https: deployed when its certificate is right, taken back when it is not.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use windlass_e2e::{Declaration, PATIENCE, Program, Serve, World, host, service};
use windlass_testbed::{Authority, KeyPair, Validity};

use crate::PORT;

/// A web server with a certificate; the files of its source are all that it needs.
const SERVER: &str = r#"
import http.server, os, ssl

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("server.crt", "server.key")
server = http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"#;

/// Puts a certificate into a source whose interval never comes, so that nothing is deployed before all of it is there.
fn shows(program: &Program, pair: &KeyPair) -> Result<()> {
    let read = |path: &Path| fs::read_to_string(path).context("reading what openssl made");
    program.put("server.key", &read(&pair.key)?)?;
    program.put("server.crt", &read(&pair.certificate)?)?;
    program.put("server.py", SERVER)
}

/// A Service that says nothing of its transport, on a host that no zone knows.
fn remote(name: &str, port: u16, program: &Program) -> Declaration {
    let mut declaration = service(name, port, program.dir(), &["web1"])
        .with("/spec/source/changeDetection/interval", "1h")
        .with("/spec/network", serde_json::json!({"port": port}));
    declaration.document["spec"]["health"]["startPeriod"] = "1s".into();
    declaration
}

#[test]
fn a_remote_service_is_asked_by_https_and_its_certificate_counts() -> Result<()> {
    let world = World::new(1)?;
    let address = world.hosts[0].address();
    let authority = Authority::create(&world.dir().join("tls"), "authority")?;
    let for_its_address = authority.issue("address", "web1", &format!("IP:{address}"), Validity::AMonth)?;
    let for_a_name = authority.issue("name", "web", "DNS:web.example.com", Validity::AMonth)?;
    let trusted = authority.certificate.display().to_string();
    world.put(&host(&world.hosts[0])?)?;
    // What the controller's machine trusts, for the service that names nobody.
    let environment = vec![("SSL_CERT_FILE".to_owned(), trusted.clone())];
    let mut controller = world.start(&Serve { name: "serve", environment, ..Serve::default() })?;
    controller.wait_until_up()?;
    controller.wait_until_leading(PATIENCE)?;

    // By its host's address and this machine's trust, and by a name and a file.
    let (plain, named) = (world.program("plain", "v1")?, world.program("named", "v1")?);
    shows(&plain, &for_its_address)?;
    shows(&named, &for_a_name)?;
    let generation = world.put(&remote("plain", PORT, &plain))?;
    let mut declaration = remote("named", 8081, &named);
    declaration.document["spec"]["health"]["tls"] =
        serde_json::json!({"serverName": "web.example.com", "caFile": trusted});
    world.wait_ready("plain", generation)?;
    let generation = world.put(&declaration)?;
    world.wait_ready("named", generation)?;

    // The certificate for a name is none for the address.
    shows(&plain, &for_a_name)?;
    world.windlass(&["reconcile", "service/plain", "--wait", "--timeout", "60s"])?.expect(1)?;
    let status = world.wait_not_ready("plain", "RolledBack")?;
    let evidence = status.0["failure"]["evidence"].to_string();
    ensure!(evidence.contains(&format!("its certificate is not for {address}")), "{evidence}");
    ensure!(status.target() == Some(1), "it went to {:?}", status.target());

    // A file that nobody can read is no fault of the program: nothing is taken back for it.
    let generation = world
        .put(&declaration.clone().with("/spec/health/tls/caFile", world.dir().join("gone").display().to_string()))?;
    let status = world.wait_ready("named", generation)?;
    ensure!(status.target() == Some(1), "it went to {:?}", status.target());
    world.passed()
}
