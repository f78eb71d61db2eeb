//! Declarations as users would write them, with intervals short enough for tests.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};
use windlass_testbed::Host;

/// A declaration, and the path of its key below `declared/`.
#[derive(Debug, Clone)]
pub struct Declaration {
    /// `services/default/web`
    pub path: String,
    /// What it says. JSON is YAML too.
    pub document: Value,
}

impl Declaration {
    /// The same with another value somewhere: `with("/spec/rollout/maxUnavailable", 2)`.
    #[must_use]
    pub fn with(mut self, pointer: &str, value: impl Into<Value>) -> Self {
        let mut place = &mut self.document;
        for part in pointer.split('/').skip(1) {
            place = &mut place[part];
        }
        *place = value.into();
        self
    }

    /// The document as text.
    pub fn text(&self) -> String {
        self.document.to_string()
    }
}

/// A Host with its key pinned, whose login may `sudo`.
///
/// # Errors
/// When the host's key cannot be read.
pub fn host(host: &Host) -> Result<Declaration> {
    let document = json!({
        "apiVersion": "windlass/v1", "kind": "Host", "metadata": {"name": host.name()},
        "spec": {
            "address": host.address(), "user": "deploy",
            "identity": {"keyFile": host.key_file()}, "hostKeys": [host.host_key_line()?],
        },
    });
    Ok(Declaration { path: format!("hosts/{}", host.name()), document })
}

/// A zone in which plaintext is accepted.
pub fn zone(cidr: &str) -> Declaration {
    let document = json!({
        "apiVersion": "windlass/v1", "kind": "NetworkZone", "metadata": {"name": "internal"},
        "spec": {"location": "localNetwork", "cidrs": [cidr], "encryption": "optional"},
    });
    Declaration { path: "networkzones/internal".to_owned(), document }
}

/// A web server on `hosts`, one at a time, whose source is looked at every second.
pub fn service(name: &str, port: u16, source: &Path, hosts: &[&str]) -> Declaration {
    let document = json!({
        "apiVersion": "windlass/v1", "kind": "Service", "metadata": {"name": name},
        "spec": {
            "placement": {"hosts": hosts},
            "source": {"path": source, "changeDetection": {"method": "contentHash", "interval": "1s"}},
            "runtime": {"target": "python", "entryPoint": "server.py"},
            "network": {"port": port, "transport": "http"},
            "lifecycle": {"forceAfter": "10s"},
            "health": {
                "endpoint": "/health", "interval": "1s", "timeout": "2s",
                "healthyThreshold": 1, "unhealthyThreshold": 2, "startPeriod": "3s",
            },
            "rollout": {"maxUnavailable": 1, "minHealthyTime": "0s"},
        },
    });
    Declaration { path: format!("services/default/{name}"), document }
}

/// What people put by mistake, each with the reason that its status must show: for one service named
/// `name` that is declared as `good`.
pub fn broken_lines(good: &Declaration) -> Vec<(&'static str, String, &'static str)> {
    let mut unknown = good.clone();
    unknown.document["spec"]["rollout"]["maxUnavailible"] = json!(2);
    let renamed = good.clone().with("/metadata/name", "another");
    let unsupported = good.clone().with("/spec/rollout/strategy", "blueGreen");
    let kind = good.clone().with("/kind", "Deployment");
    let negative = good.clone().with("/spec/network/port", -1);
    let mut large = good.clone();
    large.document["spec"]["runtime"]["env"] = json!({"A": "x".repeat(300 << 10)});
    vec![
        ("no YAML at all", "spec: [1, {".to_owned(), "InvalidDeclaration"),
        ("nothing", String::new(), "InvalidDeclaration"),
        ("a value of the wrong type", negative.text(), "InvalidDeclaration"),
        ("a field that does not exist", unknown.text(), "UnknownField"),
        ("another name than the key's", renamed.text(), "NameMismatch"),
        ("a field of a later version", unsupported.text(), "NotSupported"),
        ("a kind that does not exist", kind.text(), "UnknownKind"),
        ("more than 256 KiB", large.text(), "TooLarge"),
    ]
}
