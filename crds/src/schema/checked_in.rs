//! `schemas/` beside the types: the files are what the types say, examples fit, and what is wrong does not.

use std::fs;
use std::path::{Path, PathBuf};

use jsonschema::Validator;
use serde_json::Value;

use super::{any_document, document, files};
use crate::condition::Reason;
use crate::document::{self as documents, Document};
use crate::id::Kind;

/// Set by `make schemas`: the files are written before they are compared.
const WRITE: &str = "WINDLASS_WRITE_SCHEMAS";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas")
}

fn validator(schema: &Value) -> Validator {
    jsonschema::draft7::new(schema).expect("a schema")
}

/// A document as a schema sees it.
fn value(document: &Document<'_>) -> Value {
    serde_saphyr::from_str_with_options(document.text, documents::options()).expect(document.text)
}

#[test]
fn the_files_are_what_the_types_say() {
    let folder = folder();
    for (name, expected) in files() {
        let path = folder.join(&name);
        if std::env::var_os(WRITE).is_some() {
            fs::write(&path, &expected).expect("schemas/ can be written");
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(found == expected, "schemas/{name} is not what the types say; run `make schemas`");
    }
    let made: Vec<String> = files().into_iter().map(|(name, _)| name).collect();
    for entry in fs::read_dir(&folder).expect("schemas/").flatten() {
        let name = entry.file_name().into_string().expect("UTF-8");
        assert!(!name.ends_with(".json") || made.contains(&name), "schemas/{name} is made by nothing");
    }
}

/// Every `*.yaml` of a folder with its text.
fn examples(folder: &Path) -> Vec<(PathBuf, String)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(path).expect("an example"))).collect()
}

/// Ours, and those of the design where they lie beside the project.
#[test]
fn examples_fit_and_parse() {
    let any = validator(&any_document());
    let ours = examples(&folder().join("examples"));
    assert!(ours.len() >= 3, "schemas/examples has {} files", ours.len());
    for (path, text) in ours.into_iter().chain(examples(&folder().join("../../shared/examples"))) {
        for document in documents::split(&text) {
            let value = value(&document);
            let parsed = documents::parse(&document);
            let errors: Vec<String> = any.iter_errors(&value).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{}: {errors:?}", path.display());
            // What a later version brings parses all the same, and is refused by name.
            let problems = parsed.err().unwrap_or_default();
            assert!(problems.iter().all(|problem| problem.reason == Reason::NotSupported), "{problems:?}");
        }
    }
}

const SERVICE: &str = "apiVersion: windlass/v1\nkind: Service\nmetadata: {name: web}\nspec:\n  placement: {hosts: [web1]}\n  source: {path: /srv/web}\n  runtime: {target: python, entryPoint: a.py}\n  network: {port: 80, transport: http}\n";
const HOST: &str = "apiVersion: windlass/v1\nkind: Host\nmetadata: {name: web1}\nspec:\n  address: 198.18.0.1\n";
const REPO: &str = "apiVersion: windlass/v1\nkind: ConfigRepo\nmetadata: {name: fleet}\nspec:\n  url: ssh://git@198.18.0.1/fleet.git\n";
const POLICY: &str = "apiVersion: windlass/v1\nkind: Policy\nmetadata: {name: prod}\nspec:\n  namespaces: [production]\n  people: 1\n  expiry: 24h\n";
const ZONE: &str = "apiVersion: windlass/v1\nkind: NetworkZone\nmetadata: {name: lan}\nspec:\n  location: vpn\n  cidrs: [198.18.0.0/24]\n";

/// A document with `from` become `to`, and whether schema and program take it: they must agree.
fn agree(kind: Kind, from: &str, to: &str) -> bool {
    let text = match kind {
        Kind::Service => SERVICE,
        Kind::Host => HOST,
        Kind::ConfigRepo => REPO,
        Kind::NetworkZone => ZONE,
        Kind::Policy => POLICY,
    };
    assert!(text.contains(from), "{from:?} is not in the {kind}");
    let text = text.replacen(from, to, 1);
    let documents = documents::split(&text);
    let [document] = documents.as_slice() else { panic!("{text:?}") };
    let value = value(document);
    let by_kind = validator(&super::document(kind)).is_valid(&value);
    assert_eq!(by_kind, validator(&any_document()).is_valid(&value), "{text}");
    let parsed = documents::parse(document);
    assert_eq!(by_kind, parsed.is_ok(), "{text}\n{parsed:?}");
    by_kind
}

#[test]
fn what_is_wrong_does_not_fit() {
    use Kind::{ConfigRepo, Host, NetworkZone, Policy, Service};
    for (kind, from, to) in [
        (Service, "apiVersion: windlass/v1\n", ""),
        (Service, "windlass/v1", "windlass/v2"),
        (Service, "kind: Service", "kind: Servise"),
        (Service, "metadata: {name: web}\n", ""),
        (Service, "name: web", "name: Web"),
        (Service, "name: web", "name: web.example"),
        (Service, "name: web", "name: -web"),
        (Service, "name: web}", "name: web, namespace: A}"),
        (Service, "name: web}", "name: web, label: {a: b}}"),
        (Service, "  placement: {hosts: [web1]}\n", ""),
        (Service, "hosts: [web1]", "hosts: [web_1]"),
        (Service, "hosts: [web1]", "hosts: web1"),
        (Service, "hosts: [web1]", "hosts: [\"root@web1:ssh\"]"),
        (Service, "hosts: [web1]", "hosts: [web1], zone: a"),
        (Service, "target: python", "target: cobol"),
        (Service, "entryPoint: a.py", "entryPoint: /a.py"),
        (Service, "entryPoint: a.py", "entryPoint: a/../b.py"),
        (Service, ", entryPoint: a.py", ""),
        (Service, "entryPoint: a.py", "entryPoint: a.py, install: all"),
        (Service, "entryPoint: a.py", "entryPoint: a.py, install: {run: [a]}"),
        (Service, "entryPoint: a.py", "entryPoint: a.py, env: [A]"),
        (Service, "entryPoint: a.py", "entryPoint: a.py, limits: {memory: lots}"),
        (Service, "entryPoint: a.py", "entryPoint: a.py, limits: {tasks: 0}"),
        (Service, "port: 80", "port: 0"),
        (Service, "port: 80", "port: 65536"),
        (Service, "port: 80", "port: http"),
        (Service, "transport: http", "transport: udp"),
        (Service, "  network", "  health: {interval: 30}\n  network"),
        (Service, "  network", "  health: {interval: soon}\n  network"),
        (Service, "  network", "  health: {interval: 1s5m}\n  network"),
        (Service, "  network", "  health: {healthyThreshold: 0}\n  network"),
        (Service, "  network", "  health: {endpoint: health}\n  network"),
        (Service, "  network", "  rollout: {maxUnavailable: 0}\n  network"),
        (Service, "  network", "  rollout: {maxUnavailable: 101%}\n  network"),
        (Service, "  network", "  rollout: {maxUnavailable: 0%}\n  network"),
        (Service, "  network", "  rollout: {rollbackOnFailure: \"yes\"}\n  network"),
        (Service, "  network", "  lifecycle: {type: forever}\n  network"),
        (Service, "  network", "  netwrok: {}\n  network"),
        (Host, "  address: 198.18.0.1\n", "  port: 22\n"),
        (Host, "198.18.0.1", "\"-oProxyCommand=x\""),
        (Host, "198.18.0.1", "198.18.0.1\n  hostKeys: [ssh-ed25519]"),
        (Host, "198.18.0.1", "198.18.0.1\n  privilege: admin"),
        (Host, "198.18.0.1", "198.18.0.1\n  remoteDir: opt"),
        (Host, "198.18.0.1", "198.18.0.1\n  identity: {keyFile: key}"),
        (Host, "name: web1", "name: web1, namespace: default"),
        (ConfigRepo, "ssh://git@", "http://"),
        (ConfigRepo, "ssh://git@", "git://"),
        (ConfigRepo, "ssh://git@", "ssh://git:secret@"),
        (ConfigRepo, "ssh://git@", "https://me@"),
        (ConfigRepo, "ssh://git@", "ssh://-o"),
        (ConfigRepo, "ssh://git@198.18.0.1", "file:///srv/.."),
        (ConfigRepo, "fleet.git", "fleet.git\n  ref: a..b"),
        (ConfigRepo, "fleet.git", "fleet.git\n  ref: -x"),
        (ConfigRepo, "fleet.git", "fleet.git\n  path: ../x"),
        (ConfigRepo, "fleet.git", "fleet.git\n  path: /x"),
        (ConfigRepo, "fleet.git", "fleet.git\n  prune: \"yes\""),
        (ConfigRepo, "fleet.git", "fleet.git\n  credentials: {password: x}"),
        (ConfigRepo, "fleet.git", "fleet.git\n  credentials: {keyFile: x}"),
        (ConfigRepo, "fleet.git", "fleet.git\n  verify: {}"),
        (ConfigRepo, "fleet.git", "fleet.git\n  webhook: {secretEnv: a-b}"),
        (ConfigRepo, "name: fleet", "name: fleet, managedBy: me"),
        (NetworkZone, "198.18.0.0/24", "198.18.0.0"),
        (Policy, "[production]", "[Production]"),
        (Policy, "[production]", "production"),
        (Policy, "  namespaces: [production]\n", ""),
        (Policy, "people: 1", "people: 3"),
        (Policy, "people: 1", "people: two"),
        (Policy, "people: 1", "approval: always"),
        (Policy, "24h", "a day"),
        (Policy, "24h", "24h\n  members: [{certificate: ana}]"),
        (Policy, "24h", "24h\n  members: [{name: Ana, sshKeys: [AAAA]}]"),
        (Policy, "24h", "24h\n  members: [{name: Ana, email: ana}]"),
        (NetworkZone, "198.18.0.0/24", "198.18.0.0/33"),
        (NetworkZone, "location: vpn", "location: here"),
        (NetworkZone, "location: vpn", "location: vpn\n  encryption: never"),
    ] {
        assert!(!agree(kind, from, to), "{kind}: {to:?} fits");
    }
}

#[test]
fn what_is_right_fits() {
    use Kind::{ConfigRepo, Host, NetworkZone, Policy, Service};
    for (kind, from, to) in [
        (Service, "name: web", "name: web"),
        (Service, "name: web}", "name: web, namespace: prod, labels: {Team: \"A b\"}}"),
        (Service, "[web1]", "[web1, \"root@198.18.0.1:2222\", \"[fd00::1]\", \"a@[fd00::1]:22\", a.example.com]"),
        (Service, "entryPoint: a.py", "entryPoint: bin/a b.py, install: none"),
        (Service, "entryPoint: a.py", "entryPoint: .a/..b, limits: {memory: 512M, cpu: \"1.5\", tasks: 5}"),
        (Service, "  network", "  health: {interval: 1h30m, timeout: 250ms, startPeriod: 0s}\n  network"),
        (Service, "  network", "  rollout: {maxUnavailable: 100%}\n  network"),
        (Service, "  network", "  rollout: {maxUnavailable: 3}\n  network"),
        (Service, "transport: http", "transport: https"),
        (Service, "  network: {port: 80, transport: http}\n", "  network: null\n"),
        (Host, "198.18.0.1", "fd00::1"),
        (Host, "198.18.0.1", "198.18.0.1\n  hostKeys: [ssh-ed25519 AAAAC3Nz me@here]\n  privilege: sudo"),
        (Host, "198.18.0.1", "a.b\n  identity: {keyFile: ~/.ssh/id}\n  remoteDir: /opt/w_1"),
        (ConfigRepo, "ssh://git@198.18.0.1/", "git@198.18.0.1:"),
        (ConfigRepo, "ssh://git@198.18.0.1", "https://a.example.com:8443"),
        (ConfigRepo, "ssh://git@198.18.0.1", "file:///srv"),
        (ConfigRepo, "fleet.git", "fleet.git\n  ref: release/1.2\n  path: a/b c\n  interval: 5m\n  prune: true"),
        (ConfigRepo, "fleet.git", "fleet.git\n  ref: \">=1.2 <2\"\n  verify: {allowedSigners: ~/signers}"),
        (ConfigRepo, "fleet.git", "fleet.git\n  credentials: {keyFile: /k, hostKeys: [ssh-ed25519 AAAAC3Nz]}"),
        (ConfigRepo, "name: fleet", "name: fleet, managedBy: configrepo/other"),
        (Host, "name: web1", "name: web1, managedBy: people"),
        (Policy, "[production]", "[\"*\"]"),
        (Policy, "people: 1", "approval: none"),
        (
            Policy,
            "people: 1",
            "people: 2\n  members: [{name: Ana, certificate: ana}, {name: Bo, certificate: bo, approves: false}]",
        ),
        (Policy, "24h", "24h\n  members: [{name: Ana, sshKeys: [\"ssh-ed25519 AAAAC3Nz ana@laptop\"]}]"),
        (NetworkZone, "198.18.0.0/24", "\"fd00::/8\", \"::/0\", 0.0.0.0/0"),
    ] {
        assert!(agree(kind, from, to), "{kind}: {to:?} does not fit");
    }
}

/// What a schema calls a default is what the program takes for one.
#[test]
fn defaults_are_those_of_the_program() {
    for (kind, text) in [
        (Kind::Service, SERVICE),
        (Kind::Host, HOST),
        (Kind::NetworkZone, ZONE),
        (Kind::ConfigRepo, REPO),
        (Kind::Policy, POLICY),
    ] {
        let written = documents::parse(&documents::split(text)[0]).expect("good").to_json();
        let spec = document(kind).pointer("/properties/spec/properties").cloned().expect("a spec");
        let mut compared = 0;
        for (name, field) in spec.as_object().expect("fields") {
            if let Some(default) = field.get("default").filter(|default| !default.is_null()) {
                compared += 1;
                assert_eq!(written["spec"].get(name), Some(default), "{kind}: spec.{name}");
            }
        }
        assert!(compared > 0, "{kind} has no defaults");
    }
}
