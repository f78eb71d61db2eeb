//! Releases to deploy: a small web server, and whatever else a case needs.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;
use windlass_crds::digest::{FileDigest, ReleaseDigest};
use windlass_crds::manifest::{Entry, Manifest};
use windlass_crds::service::ServiceSpec;
use windlass_hosts::fleet::{ContentPath, Material};

/// Answers each GET with what version.txt holds, with its arguments and with one variable of its environment.
const SERVER: &str = r#"
import http.server, json, os, socketserver, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        paths = sorted(os.path.relpath(os.path.join(folder, name)) for folder, _, names in os.walk(".") for name in names)
        said = {"version": open("version.txt").read(), "args": sys.argv[1:], "env": os.environ.get("SAID", ""),
                "paths": paths, "state": os.environ.get("STATE_DIRECTORY")}
        body = json.dumps(said).encode()
        self.send_response(200 if self.path != "/broken" else 500)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass

open(os.path.join(os.environ["STATE_DIRECTORY"], "data"), "a").write("x")
socketserver.TCPServer.allow_reuse_address = True
http.server.HTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
"#;

/// Contents on this machine, and what is made of them.
pub(crate) struct Releases {
    directory: TempDir,
}

impl Releases {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a temporary folder") }
    }

    /// Adds a file to a manifest, and keeps its contents.
    pub(crate) fn add(&self, manifest: &mut Manifest, path: &str, contents: &[u8], executable: bool) {
        let digest = FileDigest::of(contents);
        std::fs::write(self.directory.path().join(digest.to_string()), contents).expect("writing contents");
        let entry = Entry::File { digest, size: contents.len() as u64, executable };
        manifest.entries.insert(path.parse().expect(path), entry);
    }

    /// The server with this version, and `more` small files beside it.
    pub(crate) fn server(&self, version: &str, more: usize) -> Manifest {
        let mut manifest = Manifest::default();
        self.add(&mut manifest, "server.py", SERVER.as_bytes(), false);
        self.add(&mut manifest, "version.txt", version.as_bytes(), false);
        for number in 0..more {
            let path = format!("lib/part{}/file{number}.txt", number % 10);
            self.add(&mut manifest, &path, format!("file {number}\n").repeat(50).as_bytes(), number % 7 == 0);
        }
        manifest
    }

    /// What a stage of it brings, with these releases to build on.
    pub(crate) fn material(&self, spec: &ServiceSpec, manifest: &Manifest, bases: &[&Manifest]) -> Material {
        let directory: PathBuf = self.directory.path().to_owned();
        let contents: ContentPath = Arc::new(move |digest| directory.join(digest.to_string()));
        let bases: BTreeMap<ReleaseDigest, Arc<Manifest>> =
            bases.iter().map(|base| (base.digest(), Arc::new((*base).clone()))).collect();
        Material { spec: spec.clone(), manifest: Arc::new(manifest.clone()), bases, contents, seen: None }
    }
}

/// A Service that runs the server on this port.
pub(crate) fn spec(port: NonZeroU16) -> ServiceSpec {
    let json = serde_json::json!({
        "placement": { "hosts": [] },
        "source": { "path": "/nowhere" },
        "runtime": { "target": "python", "entryPoint": "server.py" },
        "network": { "port": port },
    });
    serde_json::from_value(json).expect("a spec")
}
