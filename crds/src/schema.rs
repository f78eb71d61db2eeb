//! JSON Schemas of the declarations, made from the types that read them: what an editor knows is what the program does.
//!
//! They are made by a test, which compares them with those that are checked in; `make schemas` has it write them.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use crate::configrepo::ConfigRepoSpec;
use crate::document::{API_VERSION, Metadata, ServiceMetadata};
use crate::host::HostSpec;
use crate::id::{HostName, Kind, PolicyName, RepoName, ZoneName};
use crate::policy::PolicySpec;
use crate::service::ServiceSpec;
use crate::zone::NetworkZoneSpec;

mod checked_in;
mod newtypes;
mod supported;

/// Patterns of fields that are plain text to serde and have a form all the same: kind, place, pattern.
const PATTERNS: [(Kind, &str, &str); 18] = [
    (Kind::Service, "/spec/properties/source/properties/path", r"^[^\x00-\x1f]+$"),
    (Kind::Service, "/spec/properties/runtime/properties/user", LOGIN),
    (Kind::Service, "/spec/properties/runtime/properties/limits/properties/memory", r"^[1-9][0-9]{0,14}[KMGT]?$"),
    (Kind::Service, "/spec/properties/runtime/properties/limits/properties/cpu", r"^[0-9]{1,4}(\.[0-9]{1,2})?$"),
    (Kind::Service, "/spec/properties/health/properties/endpoint", r"^/[!-~]*$"),
    (Kind::Service, "/spec/properties/health/properties/tls/properties/serverName", ADDRESS),
    (Kind::Service, "/spec/properties/health/properties/tls/properties/caFile", r"^/[^\x00-\x1f]+$"),
    (Kind::Host, "/spec/properties/address", ADDRESS),
    (Kind::Host, "/spec/properties/user", LOGIN),
    (Kind::Host, "/spec/properties/identity/properties/keyFile", r#"^(/|~/)[^\x00-\x1f"%$]+$"#),
    (Kind::Host, "/spec/properties/remoteDir", r"^(/[A-Za-z0-9._-]+)+$"),
    (Kind::Host, "/spec/properties/proxyJump", newtypes::LABEL),
    (Kind::ConfigRepo, "/spec/properties/credentials/properties/keyFile", FILE),
    (Kind::ConfigRepo, "/spec/properties/credentials/properties/caFile", FILE),
    (Kind::ConfigRepo, "/spec/properties/credentials/properties/user", r"^[^\x00-\x1f]+$"),
    (Kind::ConfigRepo, "/spec/properties/credentials/properties/passwordEnv", VARIABLE),
    (Kind::ConfigRepo, "/spec/properties/verify/properties/allowedSigners", FILE),
    (Kind::ConfigRepo, "/spec/properties/webhook/properties/secretEnv", VARIABLE),
];

const ADDRESS: &str = r"^[A-Za-z0-9._:%][A-Za-z0-9._:%-]*$";
const FILE: &str = r"^~?(/[A-Za-z0-9._-]+)+$";
const VARIABLE: &str = "^[A-Za-z_][A-Za-z0-9_]*$";
const LOGIN: &str = r"^[A-Za-z0-9._][A-Za-z0-9._-]*$";

/// The kinds that have a schema: those that this version reads.
pub(crate) const KINDS: [Kind; 5] = [Kind::Service, Kind::Host, Kind::NetworkZone, Kind::ConfigRepo, Kind::Policy];

/// The schema of one type, without references, so that an editor shows each field's own words.
fn of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    schema.as_object_mut().expect("a struct's schema").remove("title");
    schema
}

/// The schema of a whole document of a kind.
pub(crate) fn document(kind: Kind) -> Value {
    let (metadata, spec, description) = match kind {
        Kind::Service => (of::<ServiceMetadata>(), of::<ServiceSpec>(), "What runs, on which hosts, from which files."),
        Kind::Host => (of::<Metadata<HostName>>(), of::<HostSpec>(), "A machine, and how to reach it."),
        Kind::NetworkZone => {
            (of::<Metadata<ZoneName>>(), of::<NetworkZoneSpec>(), "A network, and what may be spoken in it.")
        }
        Kind::ConfigRepo => {
            let metadata = of::<Metadata<RepoName>>();
            (metadata, of::<ConfigRepoSpec>(), "A Git repository that the controller follows.")
        }
        Kind::Policy => (of::<Metadata<PolicyName>>(), of::<PolicySpec>(), "What has to be approved, and by whom."),
    };
    let mut properties = json!({
        "apiVersion": {"const": API_VERSION, "description": "The version of the declaration."},
        "kind": {"const": kind.name(), "description": "What is declared."},
        "metadata": metadata,
        "spec": spec,
    });
    for (_, place, pattern) in PATTERNS.iter().filter(|(of, ..)| *of == kind) {
        let field = properties.pointer_mut(place).unwrap_or_else(|| panic!("{kind} has no {place}"));
        field["pattern"] = (*pattern).into();
    }
    json!({
        "description": description,
        "type": "object",
        "properties": properties,
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "additionalProperties": false,
    })
}

/// The schema of a document of any kind.
pub(crate) fn any_document() -> Value {
    json!({
        "description": "A declaration for Windlass.",
        "type": "object",
        "required": ["apiVersion", "kind"],
        "oneOf": KINDS.map(document),
    })
}

/// A schema as it stands in its file.
fn in_file(title: &str, mut schema: Value) -> String {
    schema["$schema"] = "http://json-schema.org/draft-07/schema#".into();
    schema["title"] = title.into();
    format!("{schema:#}\n")
}

/// Every file of `schemas/` that is made from the types: its name, and what it must hold.
pub(crate) fn files() -> Vec<(String, String)> {
    let of_kind = |kind: Kind| {
        let name = format!("{}.schema.json", kind.singular());
        (name, in_file(kind.name(), document(kind)))
    };
    let mut files: Vec<(String, String)> = KINDS.map(of_kind).into();
    files.push(("declaration.schema.json".to_owned(), in_file("Declaration", any_document())));
    files
}
