//! What differs between two declarations, field by field.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

/// A field that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FieldChange {
    /// `spec.rollout.maxUnavailable`.
    pub path: String,
    /// What it is at present; nothing where it is not there.
    #[serde(rename = "old")]
    pub before: Option<Value>,
    /// What it would become; nothing where it would go.
    #[serde(rename = "new")]
    pub after: Option<Value>,
}

impl fmt::Display for FieldChange {
    /// Values are told as JSON, so that nothing in them can move the cursor, and `"1"` is not `1`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, before, after } = self;
        match (before, after) {
            (Some(before), Some(after)) => write!(out, "{path}: {before} -> {after}"),
            (None, Some(after)) => write!(out, "{path}: (none) -> {after}"),
            (Some(before), None) => write!(out, "{path}: {before} -> (none)"),
            (None, None) => write!(out, "{path}: (none)"),
        }
    }
}

/// The fields that differ, sorted by their paths. A list is one field: its order means something.
pub fn changes(before: &Value, after: &Value) -> Vec<FieldChange> {
    let (before, after) = (leaves(before), leaves(after));
    let mut paths: Vec<&String> = before.keys().chain(after.keys()).collect();
    paths.sort();
    paths.dedup();
    let differing = paths.into_iter().filter(|path| before.get(*path) != after.get(*path));
    let change = |path: &String| FieldChange {
        path: path.clone(),
        before: before.get(path).map(|value| (*value).clone()),
        after: after.get(path).map(|value| (*value).clone()),
    };
    differing.map(change).collect()
}

/// Every field that is no map, by its path. What is null is not there.
fn leaves(value: &Value) -> BTreeMap<String, &Value> {
    let mut found = BTreeMap::new();
    gather(value, "", &mut found);
    found
}

fn gather<'value>(value: &'value Value, path: &str, found: &mut BTreeMap<String, &'value Value>) {
    match value {
        Value::Null => {}
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                gather(value, &below, found);
            }
        }
        _ => {
            found.insert(path.to_owned(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_compared_by_their_paths() {
        let before = json!({"a": 1, "b": {"c": [1, 2], "d": null, "gone": {"deep": true}}, "same": "x", "empty": {}});
        let after = json!({"a": "1", "b": {"c": [2, 1], "new": "\u{1b}[2J"}, "same": "x", "empty": {}});
        let told: Vec<String> = changes(&before, &after).iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            ["a: 1 -> \"1\"", "b.c: [1,2] -> [2,1]", "b.gone.deep: true -> (none)", "b.new: (none) -> \"\\u001b[2J\"",]
        );
        assert_eq!(changes(&after, &after), []);
    }
}
