//! Structural errors: what a YAML parser says, in the words of somebody who writes declarations.

use std::borrow::Cow;

use serde_saphyr::{Error, MessageFormatter, UserMessageFormatter};

use crate::condition::Reason;
use crate::problem::Problem;

/// A structural error as a problem: its message holds line, column and an excerpt. `before` is how many lines of the
/// file stand before what was read.
pub(super) fn structural(error: &Error, before: usize) -> Problem {
    let (reason, hint) = match error.without_snippet() {
        Error::SerdeUnknownField { field, expected, .. } => {
            (Reason::UnknownField, nearest(field, expected).map(|name| format!("\nhint: did you mean `{name}`?")))
        }
        _ => (Reason::InvalidDeclaration, None),
    };
    let line_offset = u64::try_from(before).unwrap_or(u64::MAX);
    let told =
        error.render_with_options(serde_saphyr::render_options! { formatter: &Plainly, line_offset: line_offset });
    Problem::new(reason, "", one_place(told.trim_end()) + &hint.unwrap_or_default())
}

/// The message with the place of its first line in front of the excerpt too: of a long line only a part is shown, and
/// the parser counts the excerpt's column from the beginning of that.
fn one_place(told: &str) -> String {
    const ARROW: &str = "--> <input>:";
    let place = told.strip_prefix("error: line ").and_then(|rest| rest.split_once(": ")).map(|(place, _)| place);
    let (Some(place), Some(at)) = (place, told.find(ARROW)) else { return told.to_owned() };
    let (before, excerpt) = told.split_at(at + ARROW.len());
    let rest = excerpt.find('\n').map_or("", |end| &excerpt[end..]);
    format!("{before}{}{rest}", place.replace(" column ", ":"))
}

/// Says what is expected without the names that a parser has for it.
struct Plainly;

impl MessageFormatter for Plainly {
    fn format_message<'a>(&self, error: &'a Error) -> Cow<'a, str> {
        match error {
            Error::Unexpected { expected: "string scalar", .. } => "expected a text".into(),
            Error::Unexpected { expected: "mapping start", .. } => "expected fields, as `name: value`".into(),
            Error::Unexpected { expected: "sequence start", .. } => "expected a list, as `[a, b]`".into(),
            Error::InvalidScalar { ty: "u8" | "u16" | "u32" | "u64", .. } => "expected a whole number".into(),
            Error::DuplicateMappingKey { key: Some(key), .. } => format!("`{key}` is there twice").into(),
            Error::ExternalMessage { msg, .. } if msg.contains("recursion limit") => "nested too deeply".into(),
            Error::Budget { .. }
            | Error::AliasReplayLimitExceeded { .. }
            | Error::AliasReplayStackDepthExceeded { .. } => {
                "nested too deeply, or anchors and aliases make too much of it".into()
            }
            other => UserMessageFormatter.format_message(other),
        }
    }
}

/// The candidate that `word` was probably meant to be.
pub(super) fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let longest = candidates.iter().map(|candidate| candidate.len()).max()?;
    // More than a third of the letters wrong is another word; what is far longer need not be compared.
    if word.len() > 2 * longest + 3 {
        return None;
    }
    let scored =
        candidates.iter().map(|candidate| (distance(&word.to_lowercase(), &candidate.to_lowercase()), *candidate));
    scored.filter(|(score, candidate)| *score <= candidate.len().max(3) / 3).min().map(|(_, candidate)| candidate)
}

/// The Levenshtein distance.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}
