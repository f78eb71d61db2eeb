//! The declaration of a Host, written as a person would, and how it differs from another one.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::{Value, json};
use windlass_crds::document::{self, API_VERSION, Declaration, Document};
use windlass_crds::host::HostKey;
use windlass_crds::id::HostName;

use crate::failure::UsageError;

/// What shall be declared, and no default of it.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub(super) name: HostName,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) address: String,
    pub(super) port: Option<NonZeroU16>,
    pub(super) user: Option<String>,
    pub(super) key_file: Option<PathBuf>,
    pub(super) remote_dir: Option<String>,
    /// As declarations spell it.
    pub(super) privilege: Option<&'static str>,
    pub(super) host_key: Option<HostKey>,
}

impl Draft {
    /// The same with a key that the machine has to show.
    pub(super) fn pinning(mut self, key: &HostKey) -> Self {
        self.host_key = Some(key.clone());
        self
    }

    /// As YAML, and what that declares.
    ///
    /// # Errors
    /// When something that was typed makes no sense in a declaration.
    pub(super) fn declaration(&self) -> anyhow::Result<(String, Declaration)> {
        let document = self.document()?;
        let mut text = serde_saphyr::to_string(&document).context("a Host as YAML")?;
        if !text.ends_with('\n') {
            text.push('\n');
        }
        let declaration = document::parse(&Document { text: &text, line: 1 }).map_err(|problems| {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            UsageError(lines.join("\n"))
        })?;
        Ok((text, declaration))
    }

    fn document(&self) -> anyhow::Result<Value> {
        let mut metadata = json!({"name": self.name.to_string()});
        if !self.labels.is_empty() {
            metadata["labels"] = json!(self.labels);
        }
        let mut spec = json!({"address": self.address});
        let mut set = |field: &str, value: Option<Value>| {
            if let Some(value) = value {
                spec[field] = value;
            }
        };
        set("port", self.port.map(|port| port.get().into()));
        set("user", self.user.clone().map(Value::from));
        set("remoteDir", self.remote_dir.clone().map(Value::from));
        set("privilege", self.privilege.map(Value::from));
        set("hostKeys", self.host_key.as_ref().map(|key| json!([key])));
        if let Some(file) = &self.key_file {
            let file = file.to_str().context("the key file's path is not UTF-8")?;
            set("identity", Some(json!({"keyFile": file})));
        }
        Ok(json!({"apiVersion": API_VERSION, "kind": "Host", "metadata": metadata, "spec": spec}))
    }
}

/// What becomes different, a field a line: `spec.user: "root" -> "deploy"`. All of it where there was nothing usable.
pub(super) fn differences(before: Option<&Value>, after: &Value) -> Vec<String> {
    let (mut old, mut new) = (BTreeMap::new(), BTreeMap::new());
    if let Some(before) = before {
        flatten("", before, &mut old);
    }
    flatten("", after, &mut new);
    let mut lines = Vec::new();
    for path in old.keys().chain(new.keys()).collect::<std::collections::BTreeSet<_>>() {
        let word =
            |values: &BTreeMap<String, String>| values.get(path).cloned().unwrap_or_else(|| "nothing".to_owned());
        let (left, right) = (word(&old), word(&new));
        if left != right {
            lines.push(format!("{path}: {left} -> {right}"));
        }
    }
    lines
}

/// The leaves of a document by their paths.
fn flatten(path: &str, value: &Value, leaves: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flatten(&path, value, leaves);
            }
        }
        leaf => _ = leaves.insert(path.to_owned(), leaf.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft() -> Draft {
        Draft {
            name: "web1".parse().expect("a name"),
            labels: BTreeMap::from([("role".to_owned(), "web".to_owned()), ("on".to_owned(), "yes".to_owned())]),
            address: "198.18.0.11".to_owned(),
            port: NonZeroU16::new(2222),
            user: Some("deploy".to_owned()),
            key_file: Some("~/.ssh/id_ed25519".into()),
            remote_dir: None,
            privilege: Some("sudo"),
            host_key: None,
        }
    }

    #[test]
    fn a_draft_is_written_as_a_person_would() {
        let (text, _) = draft().declaration().expect("it makes sense");
        insta::assert_snapshot!(text, @r#"
        apiVersion: windlass/v1
        kind: Host
        metadata:
          labels:
            "on": "yes"
            role: web
          name: web1
        spec:
          address: "198.18.0.11"
          identity:
            keyFile: ~/.ssh/id_ed25519
          port: 2222
          privilege: sudo
          user: deploy
        "#);
    }

    #[test]
    fn what_makes_no_sense_is_told_by_its_field() {
        let draft = Draft { remote_dir: Some("srv".to_owned()), ..draft() };
        let error = draft.declaration().expect_err("a relative folder");
        assert!(error.to_string().starts_with("spec.remoteDir: "), "{error}");
    }

    #[test]
    fn a_difference_names_its_field() {
        let (_, before) = draft().declaration().expect("it makes sense");
        let (_, after) = Draft { user: None, port: None, ..draft() }.declaration().expect("it makes sense");
        let lines = differences(Some(&before.to_json()), &after.to_json());
        assert_eq!(lines, ["spec.port: 2222 -> nothing", "spec.user: \"deploy\" -> nothing"]);
        assert!(differences(Some(&after.to_json()), &after.to_json()).is_empty());
        assert!(differences(None, &after.to_json()).contains(&"spec.address: nothing -> \"198.18.0.11\"".to_owned()));
    }
}
