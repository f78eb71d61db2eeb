//! What `etcdctl --write-out=fields` writes: a field a line, texts quoted.

use anyhow::{Context, Result};

/// A value of the store as it was at some revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    /// At which revision it was put.
    pub(crate) modified: u64,
    /// The lease that it goes with; 0 where there is none.
    pub(crate) lease: u64,
    /// What it is.
    pub(crate) value: String,
}

/// Reads what `get` of a single key wrote; nothing where there is no such key.
pub(crate) fn version(fields: &str) -> Result<Option<Version>> {
    let field = |name: &str| {
        let wanted = format!("\"{name}\" : ");
        fields.lines().find_map(|line| line.strip_prefix(&wanted))
    };
    let Some(value) = field("Value") else { return Ok(None) };
    let number = |name: &str| field(name).and_then(|text| text.trim().parse().ok());
    Ok(Some(Version {
        modified: number("ModRevision").with_context(|| format!("no ModRevision in {fields}"))?,
        lease: number("Lease").with_context(|| format!("no Lease in {fields}"))?,
        value: serde_json::from_str(value.trim()).with_context(|| format!("not a quoted text: {value}"))?,
    }))
}

/// The store's revision, as every answer says it.
pub(crate) fn store_revision(fields: &str) -> Result<u64> {
    let line = fields.lines().find_map(|line| line.strip_prefix("\"Revision\" : "));
    line.and_then(|number| number.trim().parse().ok()).with_context(|| format!("no revision in {fields}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_with_its_quotes() -> Result<()> {
        let fields = "\"ClusterID\" : 1\n\"Revision\" : 9\n\"Key\" : \"/a\"\n\"CreateRevision\" : 2\n\
            \"ModRevision\" : 7\n\"Version\" : 1\n\"Value\" : \"{\\\"a\\\":\\\"\\\\\\\\ é\\\"}\"\n\"Lease\" : 12\n";
        let value = r#"{"a":"\\ é"}"#.to_owned();
        assert_eq!(version(fields)?, Some(Version { modified: 7, lease: 12, value }));
        assert_eq!(store_revision(fields)?, 9);
        assert_eq!(version("\"Revision\" : 9\n\"Count\" : 0\n")?, None);
        Ok(())
    }
}
