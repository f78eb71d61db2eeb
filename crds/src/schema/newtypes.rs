//! Schemas of the types that read themselves: texts and numbers of a certain form.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::configrepo::{GitRef, Manager, RepoUrl, TreeId};
use crate::host::HostKey;
use crate::id::{HostId, HostName, LABEL_LENGTH, Namespace, PolicyName, RepoName, ServiceName, ZoneName};
use crate::manifest::ReleasePath;
use crate::policy::{People, Where};
use crate::service::{CanaryStep, Install, MaxUnavailable, Order};
use crate::span::Span;
use crate::zone::Cidr;

/// A DNS label.
pub(super) const LABEL: &str = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$";

/// A DNS label, or all of them.
const WHERE: &str = r"^(\*|[a-z0-9]([a-z0-9-]*[a-z0-9])?)$";

/// The name of a Host, or something with `@`, `.` or `:` in it that is a destination.
const HOST_ID: &str = r"^([a-z0-9]([a-z0-9-]*[a-z0-9])?|(?=.*[@.:])([A-Za-z0-9._][A-Za-z0-9._-]*@)?(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._%][A-Za-z0-9._%-]*)(:[0-9]{1,5})?)$";

/// Each unit once, the largest first.
const SPAN: &str = "^(?=[0-9])([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$";

/// An address of either kind with a prefix length; which bits may be set, only the program tells.
const CIDR: &str = r"^([0-9]{1,3}(\.[0-9]{1,3}){3}/([0-9]|[12][0-9]|3[0-2])|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*/([0-9]|[1-9][0-9]|1[01][0-9]|12[0-8]))$";

/// Type and base64, as in `known_hosts`.
const HOST_KEY: &str = r"^\s*(ssh-|ecdsa-sha2-|sk-)[A-Za-z0-9@.-]*\s+AAAA[A-Za-z0-9+/=]*(\s.*)?$";

/// Relative, and without a way out.
const RELEASE_PATH: &str = r"^(?!\.{1,2}(/|$))[^/\\\x00-\x1f]+(/(?!\.{1,2}(/|$))[^/\\\x00-\x1f]+)*$";

/// ssh, https or a directory; never with a password.
const REPO_URL: &str = r#"^(?!.*["'\\`$<>|;?#])(https://[A-Za-z0-9._\[][A-Za-z0-9.:_\[\]%-]*/[!-~]+|ssh://([A-Za-z0-9._][A-Za-z0-9._-]*@)?[A-Za-z0-9._\[][A-Za-z0-9.:_\[\]%-]*/(?!-)[!-~]+|file:///(?!(.*/)?\.\.(/|$))[!-~]+|[A-Za-z0-9._][A-Za-z0-9._-]*@[A-Za-z0-9._][A-Za-z0-9._-]*:(?![-:])[!-~]+)$"#;

/// A branch or tag as git has them, or what begins like a range of versions; whether it is one, only the program tells.
const GIT_REF: &str = r#"^([<>=^~*].*|(?![-/.@]$)(?![-/.])(?!.*(\.\.|@\{|/\.|//|\.lock(/|$)|[/.]$))[!-~]+)$"#;

const MANAGER: &str = "^(people|configrepo/[a-z0-9]([a-z0-9-]*[a-z0-9])?)$";

const PERCENTAGE: &str = "^([1-9]|[1-9][0-9]|100)%$";

macro_rules! text {
    ($($name:ident: $schema:tt;)*) => {
        $(impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        })*
    };
}

text! {
    ServiceName: {"type": "string", "pattern": LABEL, "maxLength": LABEL_LENGTH};
    Namespace: {"type": "string", "pattern": LABEL, "maxLength": LABEL_LENGTH};
    HostName: {"type": "string", "pattern": LABEL, "maxLength": LABEL_LENGTH};
    PolicyName: {"type": "string", "pattern": LABEL, "maxLength": LABEL_LENGTH};
    Where: {"type": "string", "pattern": WHERE, "maxLength": LABEL_LENGTH};
    People: {"enum": [1, 2]};
    RepoName: {"type": "string", "pattern": LABEL, "maxLength": LABEL_LENGTH};
    RepoUrl: {"type": "string", "pattern": REPO_URL, "maxLength": 1000};
    GitRef: {"type": "string", "pattern": GIT_REF, "maxLength": 200};
    TreeId: {"type": "string", "pattern": "^([0-9a-f]{40}|[0-9a-f]{64})$"};
    Manager: {"type": "string", "pattern": MANAGER};
    ZoneName: {"type": "string", "pattern": LABEL, "maxLength": LABEL_LENGTH};
    HostId: {"type": "string", "pattern": HOST_ID};
    Span: {"type": "string", "pattern": SPAN};
    Cidr: {"type": "string", "pattern": CIDR};
    HostKey: {"type": "string", "pattern": HOST_KEY};
    ReleasePath: {"type": "string", "pattern": RELEASE_PATH};
    MaxUnavailable: {"oneOf": [
        {"type": "integer", "minimum": 1, "maximum": u32::MAX, "description": "So many hosts."},
        {"type": "string", "pattern": PERCENTAGE, "description": "So many of a hundred, rounded down, at least one."},
    ]};
    CanaryStep: {"oneOf": [
        {"type": "integer", "minimum": 1, "maximum": u32::MAX, "description": "So many hosts."},
        {"type": "string", "pattern": PERCENTAGE, "description": "So many of a hundred, rounded up, at least one."},
    ]};
    Order: {"type": "string", "pattern": "^(name|zone|label:.+)$"};
    Install: {"oneOf": [
        {"const": "auto", "description": "As the files of the release ask for."},
        {"const": "none", "description": "Not at all."},
        {
            "type": "object",
            "description": "By this command.",
            "properties": {"command": {"type": "array", "items": {"type": "string"}}},
            "required": ["command"],
            "additionalProperties": false,
        },
    ]};
}
