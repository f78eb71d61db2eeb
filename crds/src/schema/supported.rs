//! Every field that a schema knows either behaves or is refused by name: nothing that a user writes is ever ignored.

use serde_json::{Value, json};

use super::document;
use crate::condition::Reason;
use crate::document::parse_bytes;
use crate::id::Kind;

/// What behaves in this version, and how. A field that is neither here nor refused fails the test: whoever adds one
/// has to say which.
const BEHAVES: [(Kind, &str, &str); 90] = [
    (Kind::Service, "placement.hosts[]", "runs there"),
    (Kind::Service, "placement.selector.*", "runs on every Host with the label"),
    (Kind::Service, "source.path", "is read"),
    (Kind::Service, "source.repo.name", "is which repository the files are read from"),
    (Kind::Service, "source.repo.path", "is told"),
    (Kind::Service, "source.repo.tree", "is what is read"),
    (Kind::Service, "source.include[]", "selects files"),
    (Kind::Service, "source.exclude[]", "leaves files out"),
    (Kind::Service, "source.changeDetection.interval", "is when the source is looked at"),
    (Kind::Service, "runtime.target=python", "runs `python3`"),
    (Kind::Service, "runtime.target=node", "runs `node`"),
    (Kind::Service, "runtime.target=generic", "runs the entry point itself"),
    (Kind::Service, "runtime.entryPoint", "is what is run"),
    (Kind::Service, "runtime.args[]", "reaches the program"),
    (Kind::Service, "runtime.env.*", "reaches the program"),
    (Kind::Service, "runtime.install=none", "lets a release with a dependency file pass"),
    (Kind::Service, "runtime.user", "is the unit's user"),
    (Kind::Service, "runtime.limits.memory", "is the unit's MemoryMax"),
    (Kind::Service, "runtime.limits.cpu", "is the unit's CPUQuota"),
    (Kind::Service, "runtime.limits.tasks", "is the unit's TasksMax"),
    (Kind::Service, "network.port", "is PORT, and must be the program's own"),
    (Kind::Service, "network.transport=https", "is asked inside TLS"),
    (Kind::Service, "network.transport=http", "is asked in plaintext where that is allowed"),
    (Kind::Service, "network.transport=tcp", "must accept connections"),
    (Kind::Service, "lifecycle.forceAfter", "ends a stop by SIGKILL"),
    (Kind::Service, "health.endpoint", "is asked"),
    (Kind::Service, "health.interval", "is how often"),
    (Kind::Service, "health.timeout", "is how long an answer may take"),
    (Kind::Service, "health.unhealthyThreshold", "makes it unhealthy"),
    (Kind::Service, "health.healthyThreshold", "makes it healthy"),
    (Kind::Service, "health.startPeriod", "forgives bad answers"),
    (Kind::Service, "health.tls.serverName", "is the name that a certificate must have"),
    (Kind::Service, "health.tls.caFile", "is who must have signed it"),
    (Kind::Service, "rollout.strategy=canary", "brings it to some hosts first"),
    (Kind::Service, "rollout.strategy=allAtOnce", "brings it everywhere at once"),
    (Kind::Service, "rollout.approval=required", "waits for a person"),
    (Kind::Service, "rollout.maxUnavailable", "bounds hosts that are down"),
    (Kind::Service, "rollout.maxFailures", "is how many hosts may fail before all go back"),
    (Kind::Service, "rollout.order", "is which hosts come first"),
    (Kind::Service, "rollout.canary.steps[]", "is how many hosts come first"),
    (Kind::Service, "rollout.canary.bake", "is how long they must stay healthy"),
    (Kind::Service, "rollout.canary.promotion=automatic", "goes on by itself"),
    (Kind::Service, "rollout.canary.promotion=approved", "waits for a person"),
    (Kind::Service, "rollout.minHealthyTime", "is how long before it counts"),
    (Kind::Service, "rollout.progressDeadline", "ends a rollout that stands still"),
    (Kind::Service, "rollout.rollbackOnFailure", "says whether it goes back"),
    (Kind::Service, "rollout.revisionHistoryLimit", "bounds what is kept"),
    (Kind::Service, "deletionPolicy=keep", "leaves it running"),
    (Kind::Service, "purgeData", "deletes the state directory with it"),
    (Kind::Host, "address", "is where it is"),
    (Kind::Host, "port", "is sshd's"),
    (Kind::Host, "user", "is the login"),
    (Kind::Host, "identity.agent", "logs in with the agent's keys"),
    (Kind::Host, "identity.keyFile", "logs in with this key"),
    (Kind::Host, "hostKeys[]", "is the only key accepted"),
    (Kind::Host, "privilege=sudo", "is how root's work is done"),
    (Kind::Host, "privilege=root", "is how root's work is done"),
    (Kind::Host, "privilege=user", "runs services in the login's systemd"),
    (Kind::Host, "remoteDir", "is where files are kept"),
    (Kind::NetworkZone, "location=localhost", "allows plaintext"),
    (Kind::NetworkZone, "location=vpn", "allows plaintext"),
    (Kind::NetworkZone, "location=localNetwork", "asks for https"),
    (Kind::NetworkZone, "location=remote", "asks for https"),
    (Kind::NetworkZone, "cidrs[]", "is which addresses"),
    (Kind::NetworkZone, "encryption=optional", "allows plaintext"),
    (Kind::NetworkZone, "transport=https", "is what is spoken there"),
    (Kind::NetworkZone, "transport=http", "is what is spoken there"),
    (Kind::NetworkZone, "transport=tcp", "is what is spoken there"),
    (Kind::Policy, "namespaces[]", "is where it holds"),
    (Kind::Policy, "approval=none", "asks for nothing"),
    (Kind::Policy, "people=2", "is how many stand behind it"),
    (Kind::Policy, "expiry", "is how long an approval counts"),
    (Kind::Policy, "members[].name", "is who may approve"),
    (Kind::Policy, "members[].certificate", "is who it was"),
    (Kind::Policy, "members[].sshKeys[]", "is who it was"),
    (Kind::Policy, "members[].approves", "is who may approve"),
    (Kind::ConfigRepo, "url", "is followed"),
    (Kind::ConfigRepo, "ref", "is which commit"),
    (Kind::ConfigRepo, "path", "is where declarations are"),
    (Kind::ConfigRepo, "interval", "is how often it is asked"),
    (Kind::ConfigRepo, "prune", "deletes what is gone"),
    (Kind::ConfigRepo, "suspend", "leaves it alone"),
    (Kind::ConfigRepo, "atomic", "takes all of a commit or nothing"),
    (Kind::ConfigRepo, "credentials.keyFile", "logs in with this key"),
    (Kind::ConfigRepo, "credentials.hostKeys[]", "is the only key accepted"),
    (Kind::ConfigRepo, "credentials.user", "logs in"),
    (Kind::ConfigRepo, "credentials.passwordEnv", "logs in"),
    (Kind::ConfigRepo, "credentials.caFile", "is who must have signed the certificate"),
    (Kind::ConfigRepo, "verify.allowedSigners", "is who may have signed"),
    (Kind::ConfigRepo, "webhook.secretEnv", "is what the webhook is signed with"),
];

/// The least document of a kind.
fn minimal(kind: Kind) -> Value {
    let spec = match kind {
        Kind::Service => json!({
            "placement": {"hosts": ["web1"]},
            "source": {"path": "/srv/web"},
            "runtime": {"target": "python", "entryPoint": "server.py"},
            "network": {"port": 8080},
        }),
        Kind::Host => json!({"address": "198.18.0.1"}),
        Kind::Policy => json!({"namespaces": ["production"]}),
        Kind::ConfigRepo => json!({"url": "ssh://git@198.18.0.1/fleet.git"}),
        _ => json!({"location": "localNetwork", "cidrs": ["198.18.0.0/24"]}),
    };
    json!({"apiVersion": "windlass/v1", "kind": kind.name(), "metadata": {"name": "web1"}, "spec": spec})
}

/// What a field needs beside it to make sense.
fn surroundings(kind: Kind, field: &str, document: &mut Value) {
    let spec = &mut document["spec"];
    match kind {
        Kind::Service if field.starts_with("source.git") || field.starts_with("source.repo") => {
            spec["source"] = json!({});
        }
        Kind::ConfigRepo if ["credentials.user", "credentials.passwordEnv", "credentials.caFile"].contains(&field) => {
            spec["url"] = "https://198.18.0.1/fleet.git".into();
            if field != "credentials.caFile" {
                spec["credentials"] = json!({"user": "me", "passwordEnv": "TOKEN"});
            }
        }
        Kind::Service if field == "rollout.strategy=canary" => spec["rollout"] = json!({"canary": {"steps": [1]}}),
        Kind::NetworkZone if field.starts_with("transport") => spec["encryption"] = "optional".into(),
        Kind::Policy if field == "people=2" => {
            spec["members"] = json!([{"name": "Ana", "certificate": "ana"}, {"name": "Bo", "certificate": "bo"}]);
        }
        _ => {}
    }
}

/// A text for a field that is not free text.
fn sample_text(field: &str, pattern: &str) -> &'static str {
    const SAMPLES: [&str; 14] = [
        "/srv/other",
        "other",
        "90s",
        "512M",
        "1.5",
        "ssh-ed25519 AAAAC3Nz",
        "198.18.9.0/24",
        "label:rack",
        "50%",
        "~/.ssh/key",
        "ssh://git@198.18.0.9/other.git",
        "0123456789012345678901234567890123456789",
        "OTHER",
        "refs/heads/other",
    ];
    let fits = |sample: &&&str| {
        let schema = json!({"type": "string", "pattern": pattern});
        jsonschema::draft7::new(&schema).expect("a schema").is_valid(&json!(sample))
    };
    // The most specific form first: every label is a host's name, too.
    let found = SAMPLES.iter().find(|sample| fits(sample));
    found.unwrap_or_else(|| panic!("no sample fits {pattern} of {field}; add one"))
}

/// Every value other than its default that a schema's field may have, with the name of the case.
fn cases(field: &str, schema: &Value, default: &Value) -> Vec<(String, Value)> {
    let default = schema.get("default").unwrap_or(default);
    if let Some(choices) = schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Value::as_array) {
        return choices.iter().flat_map(|choice| cases(field, choice, default)).collect();
    }
    if let Some(only) = schema.get("const") {
        let name = only.as_str().map_or(field.to_owned(), |only| format!("{field}={only}"));
        return if only == default { Vec::new() } else { vec![(name, only.clone())] };
    }
    if let Some(choices) = schema.get("enum").and_then(Value::as_array) {
        let others = choices.iter().filter(|choice| *choice != default && !choice.is_null());
        let name = |choice: &Value| choice.as_str().map_or_else(|| choice.to_string(), ToOwned::to_owned);
        return others.map(|choice| (format!("{field}={}", name(choice)), choice.clone())).collect();
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().find(|kind| *kind != "null").and_then(Value::as_str),
        kind => kind.as_str(),
    };
    let value = match kind {
        Some("object") => return object_cases(field, schema, default),
        Some("array") => {
            let items = cases(&format!("{field}[]"), &schema["items"], &Value::Null);
            return items.into_iter().map(|(name, item)| (name, json!([item]))).collect();
        }
        Some("null") => return Vec::new(),
        Some("boolean") => json!(!default.as_bool().unwrap_or(false)),
        Some("integer") => json!(default.as_u64().unwrap_or(6) + 1),
        Some("string") => json!(sample_text(field, schema["pattern"].as_str().unwrap_or(""))),
        // Anything at all.
        None => json!({"saveState": {}}),
        Some(other) => panic!("{field} is of type {other}"),
    };
    assert_ne!(value, *default, "{field} has its default");
    vec![(field.to_owned(), value)]
}

/// One field of an object after the other, each with what the object demands beside it.
fn object_cases(field: &str, schema: &Value, default: &Value) -> Vec<(String, Value)> {
    let prefix = if field.is_empty() { String::new() } else { format!("{field}.") };
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        let values = cases(&format!("{prefix}*"), &schema["additionalProperties"], &Value::Null);
        return values.into_iter().map(|(name, value)| (name, json!({"KEY": value}))).collect();
    };
    let of = |name: &String, schema: &Value| cases(&format!("{prefix}{name}"), schema, &default[name.as_str()]);
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let least: serde_json::Map<String, Value> = required
        .map(|name| {
            let (_, value) = of(&name.to_owned(), &properties[name]).swap_remove(0);
            (name.to_owned(), value)
        })
        .collect();
    let fields = properties.iter().flat_map(|(name, schema)| {
        of(name, schema).into_iter().map(|(case, value)| {
            let mut object = least.clone();
            object.insert(name.clone(), value);
            (case, Value::Object(object))
        })
    });
    fields.collect()
}

/// Puts what a case says into a document, beside what is there.
fn merge(into: &mut Value, value: Value, case: &str, prefix: &str) {
    match (into, value) {
        (Value::Object(into), Value::Object(fields)) => {
            for (name, value) in fields {
                let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                // What is required elsewhere is in the least document already.
                let about =
                    case.strip_prefix(&path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '=', '[']));
                match into.get_mut(&name) {
                    Some(there) if about => merge(there, value, case, &path),
                    Some(_) => {}
                    None => drop(into.insert(name, value)),
                }
            }
        }
        (into, value) => *into = value,
    }
}

/// Gives a Policy's members what each needs to be one: something that they are known by, and somebody who approves.
fn complete(kind: Kind, document: &mut Value) {
    let members = document["spec"].get_mut("members").and_then(Value::as_array_mut);
    let Some(members) = members.filter(|_| kind == Kind::Policy) else { return };
    for member in members.iter_mut() {
        if !["certificate", "sshKeys"].iter().any(|field| member.get(field).is_some()) {
            member["certificate"] = "somebody".into();
        }
    }
    if members.iter().all(|member| member.get("approves") == Some(&json!(false))) {
        members.push(json!({"name": "Bo", "certificate": "bo"}));
    }
}

/// The field of a case: without the value, the index and the key.
fn field_of(case: &str) -> &str {
    case.split(['=', '[']).next().unwrap_or(case).trim_end_matches(".*")
}

fn try_case(kind: Kind, case: &str, value: Value) -> Result<(), String> {
    let mut written = minimal(kind);
    surroundings(kind, case, &mut written);
    let before = written.clone();
    merge(&mut written["spec"], value, case, "");
    complete(kind, &mut written);
    let behaves = BEHAVES.iter().any(|(of, field, _)| *of == kind && *field == case);
    // Where a choice has no default, the least document holds one of them already.
    if written == before && !(behaves && case.contains('=')) {
        return Err(format!("{kind} {case} changed nothing"));
    }
    let problems = parse_bytes(written.to_string().as_bytes()).err().unwrap_or_default();
    let told: Vec<String> = problems.iter().map(|problem| format!("[{}] {problem}", problem.reason)).collect();
    if behaves {
        return if problems.is_empty() {
            Ok(())
        } else {
            Err(format!("{kind} {case} behaves, and is refused: {told:?}"))
        };
    }
    let field = format!("spec.{}", field_of(case));
    let refused = match problems.as_slice() {
        // The field itself, or the object that holds it and was not there before.
        [problem] => {
            problem.reason == Reason::NotSupported
                && (field == problem.field
                    || field.starts_with(&format!("{}.", problem.field))
                        && before.pointer(&format!("/{}", problem.field.replace('.', "/"))).is_none())
        }
        _ => false,
    };
    if refused { Ok(()) } else { Err(format!("{kind} {case} neither behaves nor is refused by name: {told:?}")) }
}

#[test]
fn every_field_behaves_or_is_refused_by_name() {
    let mut tried = Vec::new();
    let mut wrong = Vec::new();
    for kind in super::KINDS {
        let schema = document(kind).pointer("/properties/spec").cloned().expect("a spec");
        for (case, value) in object_cases("", &schema, &Value::Null) {
            wrong.extend(try_case(kind, &case, value).err());
            tried.push((kind, case));
        }
    }
    for (kind, field, _) in BEHAVES {
        if !tried.iter().any(|(of, case)| *of == kind && case == field) {
            wrong.push(format!("{kind} {field} is no field that was tried"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every field as `null`: what the schema takes the program takes, and nothing else.
#[test]
fn null_is_taken_where_the_schema_says_so() {
    let mut wrong = Vec::new();
    for kind in super::KINDS {
        let whole = document(kind);
        let validator = jsonschema::draft7::new(&whole).expect("a schema");
        let spec = whole.pointer("/properties/spec").expect("a spec");
        for (case, value) in object_cases("", spec, &Value::Null) {
            let mut written = minimal(kind);
            merge(&mut written["spec"], value, &case, "");
            let pointer = format!("/spec/{}", field_of(&case).replace('.', "/"));
            // An entry of a map is not a field.
            let Some(field) = written.pointer_mut(&pointer) else { continue };
            *field = Value::Null;
            let fits = validator.is_valid(&written);
            let problems = parse_bytes(written.to_string().as_bytes()).err().unwrap_or_default();
            // A structural error is of no field.
            if fits == problems.iter().any(|problem| problem.field.is_empty()) {
                wrong.push(format!("{kind} {case}: the schema says {fits}, and the program {problems:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
