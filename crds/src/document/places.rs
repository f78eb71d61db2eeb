//! Field places: where in a document's text each field stands, for messages and for changing one value in place.

use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, EnumAccess, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::MAX_BYTES;
use crate::problem::Problem;

/// A document's fields, and where their values stand.
#[derive(Debug)]
pub struct FieldPlaces {
    root: Spanned<Tree>,
}

/// Where a value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldPlace {
    /// From 1, in the document.
    pub line: usize,
    /// From 1.
    pub column: usize,
    /// Its bytes in the document, quotes included; nothing for what is not a scalar.
    pub scalar: Option<Range<usize>>,
}

/// What is wrong with a document, and where in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// From 1.
    pub line: usize,
    /// From 1; nothing where it is the document as a whole.
    pub column: Option<usize>,
    /// What is wrong, with the field in front where it is one field.
    pub message: String,
}

/// A problem of a document that begins on `line` of its file, with its place: structural ones are told with theirs,
/// others by their field.
pub fn placed(problem: &Problem, line: usize, places: Option<&FieldPlaces>) -> Placed {
    if problem.field.is_empty() {
        return match split_place(&problem.message) {
            Some((line, column, rest)) => Placed { line, column: Some(column), message: rest.to_owned() },
            None => Placed { line, column: None, message: problem.message.clone() },
        };
    }
    let message = problem.to_string();
    match places.map(|places| places.nearest(&problem.field)) {
        Some(at) => Placed { line: line + at.line - 1, column: Some(at.column), message },
        None => Placed { line, column: None, message },
    }
}

/// Takes `error: line 9 column 5: ` from the front of a message.
fn split_place(message: &str) -> Option<(usize, usize, &str)> {
    let (line, rest) = message.strip_prefix("error: line ")?.split_once(" column ")?;
    let (column, rest) = rest.split_once(": ")?;
    Some((line.parse().ok()?, column.parse().ok()?, rest))
}

/// The shape of a document.
#[derive(Debug)]
enum Tree {
    Scalar,
    List(Vec<Spanned<Tree>>),
    Map(Vec<(String, Spanned<Tree>)>),
}

impl FieldPlaces {
    /// The places in `text`; nothing when it is no YAML, or longer than any declaration.
    pub fn of(text: &str) -> Option<Self> {
        if text.len() > MAX_BYTES {
            return None;
        }
        serde_saphyr::from_str(text).ok().map(|root| Self { root })
    }

    /// Where the value of `field` stands, if it is there: `spec.runtime.args[1]`.
    pub fn exact(&self, field: &str) -> Option<FieldPlace> {
        let (node, whole) = self.walk(field);
        whole.then(|| place(node))
    }

    /// Where the value of `field` stands, or else the nearest thing around it that is there.
    pub fn nearest(&self, field: &str) -> FieldPlace {
        place(self.walk(field).0)
    }

    /// The last node on the way to a field, and whether that is the field's.
    fn walk(&self, field: &str) -> (&Spanned<Tree>, bool) {
        let mut node = &self.root;
        for part in field.split(['.', '[']).filter(|part| !part.is_empty()) {
            let next = match &node.value {
                Tree::Scalar => None,
                Tree::List(items) => part.strip_suffix(']').and_then(|index| items.get(index.parse::<usize>().ok()?)),
                Tree::Map(fields) => fields.iter().find(|(name, _)| name == part).map(|(_, value)| value),
            };
            match next {
                Some(next) => node = next,
                None => return (node, false),
            }
        }
        (node, true)
    }
}

fn place(node: &Spanned<Tree>) -> FieldPlace {
    let small = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let location = node.referenced;
    let span = location.span();
    let scalar = match (&node.value, span.byte_offset(), span.byte_len()) {
        (Tree::Scalar, Some(offset), Some(length)) => Some(small(offset)..small(offset + length)),
        _ => None,
    };
    FieldPlace { line: small(location.line()).max(1), column: small(location.column()).max(1), scalar }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Shape)
    }
}

/// Takes in any value, and keeps its shape only.
struct Shape;

macro_rules! scalars {
    ($($visit:ident: $type:ty),* $(,)?) => {
        $(fn $visit<E>(self, _: $type) -> Result<Tree, E> {
            Ok(Tree::Scalar)
        })*
    };
}

impl<'de> Visitor<'de> for Shape {
    type Value = Tree;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("any value")
    }

    scalars! {
        visit_bool: bool,
        visit_i64: i64,
        visit_i128: i128,
        visit_u64: u64,
        visit_u128: u128,
        visit_f64: f64,
        visit_str: &str,
        visit_bytes: &[u8],
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Tree::Map(fields))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Tree, A::Error> {
        // A tagged value; nothing that a declaration has.
        data.variant::<IgnoredAny>().map(|_| Tree::Scalar)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_with_their_quotes() {
        let text = "# ä\nspec:\n  source: {path: \"./a b\", include: [x, 'y']}\n  runtime:\n    env:\n      A: 1.10\n";
        let places = FieldPlaces::of(text).expect("YAML");
        for (field, expected) in [
            ("spec.source.path", Some("\"./a b\"")),
            ("spec.source.include[1]", Some("'y'")),
            ("spec.runtime.env.A", Some("1.10")),
            ("spec.runtime", None),
            ("spec.network.port", None),
        ] {
            let found = places.exact(field).and_then(|place| place.scalar).map(|range| &text[range]);
            assert_eq!(found, expected, "{field}");
        }
        let near = places.nearest("spec.source.include[7].x");
        assert_eq!((near.line, near.scalar), (3, None));
    }
}
