//! The manifest of a release: what each path in it is, in a text that a host can check with its own tools.
//!
//! A line a path, sorted by the bytes of the path (`LC_ALL=C sort`):
//! ```text
//! 444 <size> <mtime> <sha256>  <path>      a file; 555 where it is executable
//! lnk <target>\t<path>                     a symbolic link
//! ```
//! So `cut -d' ' -f1-3,6-` of the file lines is what `stat -c '%a %s %Y %n'` prints, and `cut -d' ' -f4-` is
//! what `sha256sum -c` reads: no process per file on the host. Paths and targets hold no control character and
//! no backslash, which is why neither tool ever quotes them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::{FileDigest, ReleaseDigest};

/// The most paths that a release may hold: a listing of so many still fits in a host's and our memory (20 MB).
pub const MAX_PATHS: usize = 100_000;

/// Why a path or link target cannot be part of a release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It is not UTF-8, or holds a control character or a backslash.
    #[error("{0:?} holds a control character, a backslash or bytes that are not UTF-8")]
    Unprintable(String),
    /// It is absolute, empty, or has an empty, `.` or `..` component.
    #[error("{0:?} is not a plain relative path")]
    NotRelative(String),
    /// The link's target leaves the release.
    #[error("the link {path} points to {target:?}, outside the release")]
    LeavesTree {
        /// The link.
        path: ReleasePath,
        /// Where it points to.
        target: String,
    },
}

/// A path inside a release: relative, `/` between components, none of them empty, `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReleasePath(String);

/// Whether every character survives a line-based text and the tools of a host.
fn printable(text: &str) -> bool {
    !text.chars().any(|character| character.is_control() || character == '\\')
}

impl ReleasePath {
    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ReleasePath {
    type Error = PathError;
    fn try_from(text: String) -> Result<Self, PathError> {
        if !printable(&text) {
            return Err(PathError::Unprintable(text));
        }
        if text.is_empty() || text.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(PathError::NotRelative(text));
        }
        Ok(Self(text))
    }
}

impl FromStr for ReleasePath {
    type Err = PathError;
    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::try_from(text.to_owned())
    }
}

impl From<ReleasePath> for String {
    fn from(path: ReleasePath) -> String {
        path.0
    }
}

impl fmt::Display for ReleasePath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&self.0)
    }
}

/// What one path of a release is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A file with its contents' digest, its size in bytes, and whether it may be executed.
    File {
        /// SHA-256 of the contents.
        digest: FileDigest,
        /// Bytes.
        size: u64,
        /// The one bit of the mode that is kept.
        executable: bool,
    },
    /// A symbolic link to this target, which lies inside the release.
    Link {
        /// As `readlink` prints it.
        target: String,
    },
}

impl Entry {
    /// Builds a link after checking that following it from `path` stays inside the release.
    ///
    /// # Errors
    /// When the target is absolute, climbs above the release's root, or cannot be written in a manifest.
    pub fn link(path: &ReleasePath, target: &str) -> Result<Self, PathError> {
        if !printable(target) || target.is_empty() {
            return Err(PathError::Unprintable(target.to_owned()));
        }
        let leaves = || PathError::LeavesTree { path: path.clone(), target: target.to_owned() };
        if target.starts_with('/') {
            return Err(leaves());
        }
        // `..` is counted only in front: behind a name it could climb out through another link (`s -> .`).
        let mut above = path.as_str().matches('/').count();
        let mut descending = false;
        for part in target.split('/') {
            match part {
                "" | "." => {}
                ".." if descending => return Err(leaves()),
                ".." => above = above.checked_sub(1).ok_or_else(leaves)?,
                _ => descending = true,
            }
        }
        Ok(Self::Link { target: target.to_owned() })
    }
}

/// Earliest modification time that a file on a host gets: 2001-09-09.
const FIRST_MTIME: u64 = 1_000_000_000;
/// The span of modification times, in seconds: they end in 2017, so never in the future of a sane clock.
const MTIME_SPAN: u64 = 500_000_000;

/// The modification time, in seconds since 1970, that a file with these contents gets on every host.
///
/// Made from the contents, so that a release is the same on each host, that a file which links to its twin in an
/// older release needs no touch, and that whatever caches by name, size and time (Python's byte code, `ETag`s)
/// sees that a file of the same size has changed.
pub fn mtime(digest: &FileDigest) -> u64 {
    let [a, b, c, d, ..] = *digest.bytes();
    FIRST_MTIME + u64::from(u32::from_be_bytes([a, b, c, d])) % MTIME_SPAN
}

/// Everything in a release, by path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manifest {
    /// Sorted by the bytes of the path.
    pub entries: BTreeMap<ReleasePath, Entry>,
}

/// Why a text is not a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// A line that does not follow the form.
    #[error("line {0} of the manifest is malformed")]
    Malformed(usize),
    /// The text is not what this manifest would be written as: unsorted, repeated or padded.
    #[error("the manifest is not in canonical form")]
    NotCanonical,
}

impl Manifest {
    /// The release's name: the SHA-256 of [`Manifest::to_text`].
    pub fn digest(&self) -> ReleaseDigest {
        ReleaseDigest::of(self.to_text().as_bytes())
    }

    /// The sum of the sizes of all files, in bytes.
    pub fn size(&self) -> u64 {
        self.entries.values().map(|entry| if let Entry::File { size, .. } = entry { *size } else { 0 }).sum()
    }

    /// The canonical text, a line a path.
    pub fn to_text(&self) -> String {
        let mut text = String::with_capacity(self.entries.len() * 120);
        for (path, entry) in &self.entries {
            text.push_str(&line(path, entry));
            text.push('\n');
        }
        text
    }

    /// Reads what [`Manifest::to_text`] wrote, and nothing else.
    ///
    /// # Errors
    /// When a line is malformed, or the text is not canonical.
    pub fn from_text(text: &str) -> Result<Self, ManifestError> {
        let mut entries = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let (path, entry) = parse_line(line).ok_or(ManifestError::Malformed(index + 1))?;
            entries.insert(path, entry);
        }
        let manifest = Self { entries };
        if manifest.to_text() == text { Ok(manifest) } else { Err(ManifestError::NotCanonical) }
    }
}

/// One line of a manifest, without its newline.
pub fn line(path: &ReleasePath, entry: &Entry) -> String {
    match entry {
        Entry::File { digest, size, executable } => {
            let mode = if *executable { 555 } else { 444 };
            format!("{mode} {size} {} {digest}  {path}", mtime(digest))
        }
        Entry::Link { target } => format!("lnk {target}\t{path}"),
    }
}

/// Reads one line; `None` where it is malformed.
fn parse_line(line: &str) -> Option<(ReleasePath, Entry)> {
    if let Some(link) = line.strip_prefix("lnk ") {
        let (target, path) = link.split_once('\t')?;
        let path: ReleasePath = path.parse().ok()?;
        let entry = Entry::link(&path, target).ok()?;
        return Some((path, entry));
    }
    let mut words = line.splitn(6, ' ');
    let executable = match words.next()? {
        "444" => false,
        "555" => true,
        _ => return None,
    };
    let size = words.next()?.parse().ok()?;
    let _mtime = words.next()?;
    let digest = words.next()?.parse().ok()?;
    let empty = words.next()?;
    let path = words.next()?.parse().ok()?;
    empty.is_empty().then_some((path, Entry::File { digest, size, executable }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Manifest {
        let mut manifest = Manifest::default();
        let mut add = |path: &str, entry: Entry| manifest.entries.insert(path.parse().expect(path), entry);
        let file = |text: &str, executable| Entry::File {
            digest: FileDigest::of(text.as_bytes()),
            size: text.len() as u64,
            executable,
        };
        add("server.py", file("print()", false));
        add("bin/run me", file("#!/bin/sh", true));
        add("bin/link", Entry::Link { target: "../server.py".to_owned() });
        manifest
    }

    #[test]
    fn a_manifest_reads_what_it_writes() {
        let manifest = sample();
        let text = manifest.to_text();
        assert_eq!(Manifest::from_text(&text), Ok(manifest));
        assert_eq!(Manifest::from_text(&format!("{text}x")), Err(ManifestError::Malformed(4)));
        let reversed: String = text.lines().rev().map(|line| format!("{line}\n")).collect();
        assert_eq!(Manifest::from_text(&reversed), Err(ManifestError::NotCanonical));
    }

    #[test]
    fn links_stay_inside() {
        for (path, target, good) in [
            ("a", "b", true),
            ("d/a", "../b", true),
            ("d/a", "./../b", true),
            ("d/a", "x/../b", false),
            ("t", "s/s/../..", false),
            ("a", "../b", false),
            ("d/a", "../../b", false),
            ("a", "/etc/passwd", false),
            ("a", "", false),
            ("a", "x\ny", false),
            ("d/e/a", "../../../../b", false),
        ] {
            let path = path.parse().expect(path);
            assert_eq!(Entry::link(&path, target).is_ok(), good, "{path} -> {target:?}");
        }
    }

    #[test]
    fn paths_are_plain() {
        for (path, good) in [
            ("a/b c/ü", true),
            ("a/../b", false),
            ("/a", false),
            ("a//b", false),
            ("a/", false),
            ("", false),
            ("a\nb", false),
            ("a\\b", false),
            ("-rf", true),
        ] {
            assert_eq!(path.parse::<ReleasePath>().is_ok(), good, "{path:?}");
        }
    }
}
