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

/// What somebody puts by mistake, and what its status says.
#[derive(Debug, Clone)]
pub struct Broken {
    /// What is wrong.
    pub what: &'static str,
    /// The value.
    pub value: Vec<u8>,
    /// For programs.
    pub reason: &'static str,
    /// What people are told: what is wrong, and where, or what to do.
    pub words: [&'static str; 2],
}

/// What people put by mistake, for one service named `name` that is declared as `good`.
pub fn broken_values(good: &Declaration) -> Vec<Broken> {
    let broken = |what, value: &str, reason, words| Broken { what, value: value.as_bytes().to_vec(), reason, words };
    let with = |pointer: &str, value: Value| good.clone().with(pointer, value).text();
    let text = good.text();
    let invalid = "InvalidDeclaration";
    let mut binary = broken("a program and no declaration", "", invalid, ["not UTF-8", "from byte 4 on"]);
    binary.value = b"\x7fELF\x81\x02\xff\xfe".to_vec();
    vec![
        broken("no YAML at all", "spec: [1, {", invalid, ["unclosed bracket", "line 1 column 11"]),
        broken("nothing", "", invalid, ["empty", "there is no declaration in it"]),
        broken("a NUL byte", "apiVersion: windlass/v1\0\n", invalid, ["a NUL", "at byte 23"]),
        binary,
        broken(
            "two documents",
            &format!("{text}\n---\n{text}\n"),
            invalid,
            ["line 3: a second document", "a key holds exactly one"],
        ),
        broken(
            "a value of the wrong type",
            &with("/spec/network/port", json!(-1)),
            invalid,
            ["expected a whole number", r#""port":-1"#],
        ),
        broken(
            "no duration",
            &with("/spec/health/interval", json!("soon")),
            invalid,
            [r#""soon" is not a duration; write 250ms"#, r#""interval":"soon""#],
        ),
        broken(
            "a field that does not exist",
            &with("/spec/rollout/maxUnavailible", json!(2)),
            "UnknownField",
            ["unknown field `maxUnavailible`", "did you mean `maxUnavailable`?"],
        ),
        broken(
            "another name than the key's",
            &with("/metadata/name", json!("another")),
            "NameMismatch",
            ["metadata.name: the document declares service/another", "its key is that of service/"],
        ),
        broken(
            "a field of a later version",
            &with("/spec/rollout/strategy", json!("blueGreen")),
            "NotSupported",
            ["spec.rollout.strategy", "leave it out"],
        ),
        broken(
            "a kind that does not exist",
            &with("/kind", json!("Servise")),
            "UnknownKind",
            [r#"kind: "Servise" is unknown"#, "did you mean Service?"],
        ),
        broken(
            "more than 256 KiB",
            &with("/spec/runtime/env", json!({"A": "x".repeat(300 << 10)})),
            "TooLarge",
            [" bytes", "at most 262144"],
        ),
    ]
}
