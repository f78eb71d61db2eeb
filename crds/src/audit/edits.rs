//! How a declaration was changed, as the trail tells it: by field, without values that may be somebody's secret, and
//! never more than fits into a record.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bounds::PATH;
use crate::fields::{self, FieldChange};

/// So many fields are told of one change; a declaration has fewer, but for those with a long environment.
pub const MOST: usize = 100;

/// So many bytes of a value are told, as JSON.
const LONGEST: usize = 512;

/// A field that was changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Edit {
    /// `spec.rollout.maxUnavailable`.
    pub path: String,
    /// What it was; nothing where it was not there, or is not shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<Value>,
    /// What it has become; nothing where it went, or is not shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<Value>,
    /// What was done to a value that is not shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden: Option<Hidden>,
}

/// What was done to a value that is not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Hidden {
    /// It was not there.
    Set,
    /// It was another one.
    Changed,
    /// It is not there any more.
    Removed,
}

impl fmt::Display for Hidden {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Set => "set",
            Self::Changed => "changed",
            Self::Removed => "removed",
        })
    }
}

impl fmt::Display for Edit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, old, new, hidden } = self;
        if let Some(hidden) = hidden {
            return write!(out, "{path}: {hidden}");
        }
        let told = |value: &Option<Value>| value.as_ref().map_or_else(|| "(none)".to_owned(), ToString::to_string);
        write!(out, "{path}: {} -> {}", told(old), told(new))
    }
}

/// How one thing became another, and how many more fields differ than are told.
pub fn edits(before: &Value, after: &Value) -> (Vec<Edit>, usize) {
    let mut changes = fields::changes(before, after);
    let more = changes.len().saturating_sub(MOST);
    changes.truncate(MOST);
    (changes.into_iter().map(edit).collect(), more)
}

/// Whether the values of a field may be secrets that somebody wrote where none belong: those of the environment, and
/// arguments, `--token=…` among them.
fn is_hidden(path: &str) -> bool {
    path.split('.').any(|part| ["env", "args"].contains(&part))
}

fn edit(FieldChange { path, before, after }: FieldChange) -> Edit {
    let is_hidden = is_hidden(&path);
    // The name of a label may be as long as a declaration.
    let path = beginning(&path, PATH);
    if is_hidden {
        let hidden = match (&before, &after) {
            (None, _) => Hidden::Set,
            (Some(_), Some(_)) => Hidden::Changed,
            (Some(_), None) => Hidden::Removed,
        };
        return Edit { path, old: None, new: None, hidden: Some(hidden) };
    }
    Edit { path, old: before.map(cut), new: after.map(cut), hidden: None }
}

/// A value, or that it is long.
fn cut(value: Value) -> Value {
    let length = value.to_string().len();
    if length <= LONGEST { value } else { Value::String(format!("({length} bytes)")) }
}

/// The beginning of a text that somebody else wrote, in so many bytes as JSON has it.
pub(crate) fn beginning(text: &str, bytes: usize) -> String {
    let mut room = bytes;
    let end = text.char_indices().find(|(_, letter)| match room.checked_sub(escaped(*letter)) {
        Some(rest) => {
            room = rest;
            false
        }
        None => true,
    });
    end.map_or_else(|| text.to_owned(), |(end, _)| format!("{}…", &text[..end]))
}

/// How many bytes a letter has in JSON.
fn escaped(letter: char) -> usize {
    match letter {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..' ' => 6,
        letter => letter.len_utf8(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_of_the_environment_and_arguments_are_not_told() {
        let before = json!({"spec": {"runtime": {"env": {"A": "s3cret-one", "B": "s3cret-two"}, "args": ["s3cret"]}}});
        let after = json!({"spec": {"runtime": {"env": {"A": "s3cret-new", "C": "s3cret-too"}, "args": ["s3cret-x"]}}});
        let (told, more) = edits(&before, &after);
        let lines: Vec<String> = told.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "spec.runtime.args: changed",
                "spec.runtime.env.A: changed",
                "spec.runtime.env.B: removed",
                "spec.runtime.env.C: set",
            ]
        );
        assert_eq!(more, 0);
        let json = serde_json::to_string(&told).expect("JSON");
        assert!(!json.contains("s3cret"), "{json}");
        assert_eq!(serde_json::from_str::<Vec<Edit>>(&json).expect(&json), told);
    }

    #[test]
    fn what_is_long_or_much_is_bounded() {
        let many: serde_json::Map<String, Value> =
            (0..500).map(|number| (format!("f{number}"), "x".repeat(5000).into())).collect();
        let (told, more) = edits(&Value::Null, &Value::Object(many));
        assert_eq!((told.len(), more), (MOST, 400));
        assert!(serde_json::to_vec(&told).expect("JSON").len() < 16_384);
        assert_eq!(beginning("prédictor", 3), "pr…");
        assert_eq!(beginning("abc", 3), "abc");
        assert_eq!(beginning("a\u{1}b", 7), "a\u{1}…", "six bytes in JSON");
        assert_eq!(beginning("\n\"", 3), "\n…");
        let field = format!("spec.labels.{}", "x".repeat(9000));
        let (told, _) = edits(&Value::Null, &json!({ field: 1 }));
        assert!(told[0].path.len() < 210 && told[0].path.ends_with('…'), "{}", told[0].path);
    }
}
