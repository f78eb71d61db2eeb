//! Which paths of a tree belong to the release: the include and exclude globs.

use globset::{Candidate, Glob, GlobBuilder, GlobSet, GlobSetBuilder};

use crate::SourceTree;
use crate::error::{GlobProblem, SourceError};

/// What a path below the root is, as far as globs care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathKind {
    /// A directory: a glob that matches it stands for all that is in it.
    Directory,
    /// Anything else.
    Leaf,
}

/// The globs of one source, compiled.
///
/// A `*` or `?` never matches a `/`; `**` as a whole component matches any number of components, none included.
/// An include glob starts at the root. So does an exclude glob with a `/` in front or within; one without holds at
/// any depth, as in `.gitignore`, because a forgotten `sub/.env` does more harm than a missing file, which the health
/// check finds. A `/` at the end restricts a glob to directories. Excludes win over includes.
#[derive(Debug)]
pub(crate) struct Selection {
    include: Option<Globs>,
    exclude: Globs,
}

impl Selection {
    /// Compiles the globs of `tree`.
    ///
    /// # Errors
    /// [`SourceError::Glob`], for the first one that cannot be used.
    pub(crate) fn new(tree: &SourceTree) -> Result<Self, SourceError> {
        let mut include = GlobsBuilder::new();
        for glob in &tree.include {
            include.add(glob, Anchor::Root)?;
        }
        let mut exclude = GlobsBuilder::new();
        for glob in &tree.exclude {
            exclude.add(glob, Anchor::AnyDepth)?;
        }
        let include = if tree.include.is_empty() { None } else { Some(include.build()?) };
        Ok(Self { include, exclude: exclude.build()? })
    }

    /// Whether the path is left out, whatever is included. `name` is its last component.
    pub(crate) fn excludes(&self, path: &[u8], name: &[u8], kind: PathKind) -> bool {
        always_excluded(name) || self.exclude.matches(path, kind)
    }

    /// Whether the path is taken by name, the excludes aside; for a directory that means all that is in it.
    pub(crate) fn includes(&self, path: &[u8], kind: PathKind) -> bool {
        self.include.as_ref().is_none_or(|globs| globs.matches(path, kind))
    }

    /// Whether a directory that is not itself included may hold something that is.
    pub(crate) fn may_hold_included(&self, directory: &[u8]) -> bool {
        self.include.as_ref().is_none_or(|globs| globs.prefixes.iter().any(|prefix| overlaps(prefix, directory)))
    }

    /// Whether a walk would take the leaf `path`, decided as the walk does: component by component.
    pub(crate) fn takes(&self, path: &str) -> bool {
        let mut inside = false;
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for end in ends {
            let (here, kind) =
                (&path.as_bytes()[..end], if end == path.len() { PathKind::Leaf } else { PathKind::Directory });
            let name = here.rsplit(|byte| *byte == b'/').next().expect("split yields at least one part");
            if self.excludes(here, name, kind) {
                return false;
            }
            inside |= self.includes(here, kind);
            if kind == PathKind::Directory && !inside && !self.may_hold_included(here) {
                return false;
            }
        }
        inside
    }
}

/// What is in no release: version control, and byte code that Python writes beside its sources.
fn always_excluded(name: &[u8]) -> bool {
    name == b".git" || name == b"__pycache__" || name.ends_with(b".pyc")
}

/// Whether one of two paths is the other, or leads to it.
fn overlaps(one: &[u8], other: &[u8]) -> bool {
    let (short, long) = if one.len() <= other.len() { (one, other) } else { (other, one) };
    short.is_empty() || (long.starts_with(short) && (long.len() == short.len() || long[short.len()] == b'/'))
}

/// Where a glob without `/` may match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Anchor {
    Root,
    AnyDepth,
}

/// A set of compiled globs.
#[derive(Debug)]
struct Globs {
    /// Globs that match anything.
    any: GlobSet,
    /// Globs that match only directories.
    directories: GlobSet,
    /// Of each glob the components in front that hold no special character, so that a walk can pass by the rest.
    prefixes: Vec<Vec<u8>>,
}

impl Globs {
    fn matches(&self, path: &[u8], kind: PathKind) -> bool {
        if self.prefixes.is_empty() {
            return false;
        }
        let candidate = Candidate::from_bytes(path);
        self.any.is_match_candidate(&candidate)
            || (kind == PathKind::Directory && self.directories.is_match_candidate(&candidate))
    }
}

#[derive(Debug)]
struct GlobsBuilder {
    any: GlobSetBuilder,
    directories: GlobSetBuilder,
    prefixes: Vec<Vec<u8>>,
}

impl GlobsBuilder {
    fn new() -> Self {
        Self { any: GlobSetBuilder::new(), directories: GlobSetBuilder::new(), prefixes: Vec::new() }
    }

    fn add(&mut self, text: &str, anchor: Anchor) -> Result<(), SourceError> {
        let wrong = |problem| SourceError::Glob { glob: text.to_owned(), problem };
        let compile = |pattern: &str| -> Result<Glob, SourceError> {
            let built = GlobBuilder::new(pattern).literal_separator(true).build();
            built.map_err(|error| wrong(GlobProblem::Syntax(error.kind().clone())))
        };
        if text.starts_with('!') {
            return Err(wrong(GlobProblem::Negated));
        }
        let only_directories = text.ends_with('/');
        let body = text.strip_suffix('/').unwrap_or(text);
        let body = body.strip_prefix("./").unwrap_or(body);
        let below_root = body.strip_prefix('/').unwrap_or(body);
        if below_root.is_empty() {
            return Err(wrong(GlobProblem::Empty));
        }
        if below_root.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(wrong(GlobProblem::NotBelowRoot));
        }
        let anywhere = anchor == Anchor::AnyDepth && !body.contains('/') && !text.starts_with("./");
        let pattern = if anywhere { format!("**/{below_root}") } else { below_root.to_owned() };

        // Compiled first as it was written, so that an error speaks of the user's text.
        compile(below_root)?;
        let glob = compile(&pattern)?;
        if only_directories {
            self.directories.add(glob);
        } else {
            self.any.add(glob);
        }
        // `logs/**` is all that is in `logs`: taking the directory for it spares the walk.
        if let Some(directory) = pattern.strip_suffix("/**").filter(|directory| *directory != "**") {
            self.directories.add(compile(directory)?);
        }
        self.prefixes.push(literal_prefix(&pattern));
        Ok(())
    }

    fn build(self) -> Result<Globs, SourceError> {
        let build = |set: GlobSetBuilder| {
            set.build().map_err(|error| SourceError::Glob {
                glob: error.glob().unwrap_or_default().to_owned(),
                problem: GlobProblem::Syntax(error.kind().clone()),
            })
        };
        Ok(Globs { any: build(self.any)?, directories: build(self.directories)?, prefixes: self.prefixes })
    }
}

/// The components of a glob up to the first that holds a special character.
fn literal_prefix(pattern: &str) -> Vec<u8> {
    // Inside braces a `/` separates no components, so nothing from the brace's component on is literal anyway.
    let literal: Vec<&str> =
        pattern.split('/').take_while(|part| !part.contains(['*', '?', '[', ']', '{', '}', '\\'])).collect();
    literal.join("/").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(include: &[&str], exclude: &[&str]) -> Result<Selection, SourceError> {
        let own = |globs: &[&str]| globs.iter().map(|glob| (*glob).to_owned()).collect();
        Selection::new(&SourceTree { root: "/".into(), include: own(include), exclude: own(exclude) })
    }

    #[test]
    fn globs_select() {
        let check = |include: &[&str], exclude: &[&str], taken: &[&str], left: &[&str]| {
            let selection = selection(include, exclude).expect("good globs");
            for (path, expected) in taken.iter().map(|path| (path, true)).chain(left.iter().map(|path| (path, false))) {
                assert_eq!(selection.takes(path), expected, "{path} with include {include:?}, exclude {exclude:?}");
            }
        };
        check(
            &[],
            &[],
            &["a", "a/b", ".hidden", "a/.b/c"],
            &[".git/config", "a/.git", "x.pyc", "a/b.pyc", "a/__pycache__/x"],
        );
        check(
            &["src/**/*.py", "models/*.pkl", "requirements.txt"],
            &["*.log"],
            &["src/a.py", "src/b/c/a.py", "models/m.pkl", "requirements.txt"],
            &["a.py", "src/a.txt", "models/sub/m.pkl", "sub/requirements.txt", "other/src/a.py", "srcs/a.py"],
        );
        check(&["src"], &[], &["src", "src/a", "src/b/c"], &["a/src/b", "srcs", "src.py"]);
        check(&["src/"], &[], &["src/a", "src/b/c"], &["src", "a/src/b"]);
        check(&["/src/"], &[], &["src/a"], &["a/src/b"]);
        check(&["./src"], &[], &["src/a"], &["a/src/b"]);
        check(&["*"], &[], &["a", "a/b/c", ".x"], &[]);
        check(&["*.py"], &[], &["a.py"], &["a/b.py"]);
        check(&["**/*.py"], &[], &["a.py", "a/b/c.py"], &["a.txt"]);
        check(&["**"], &[], &["a.py", "a/b/c.py"], &[".git/x"]);
        check(&["a/**/b/**/c"], &[], &["a/b/c", "a/x/b/c", "a/x/y/b/z/c", "a/b/b/c/d"], &["a/c", "b/c", "a/b/d"]);
        check(&["src/**"], &[], &["src/a", "src/a/b"], &["src", "a"]);
        check(&["{a,b}/*.py", "c[12]"], &[], &["a/x.py", "b/x.py", "c1", "c2/d"], &["c/x.py", "c3"]);
        check(&["{a/b,c}/x"], &[], &["a/b/x", "c/x"], &["a/x"]);
        check(&["src"], &["src/x", "*.log"], &["src/a", "src/a/x"], &["src/x", "src/x/y", "src/a.log"]);
        check(&[], &["*.log"], &["a.logs"], &["a.log", "a/b.log", "a/b.log/c"]);
        check(&[], &["/*.log"], &["a/b.log"], &["b.log"]);
        check(&[], &["./*.log"], &["a/b.log"], &["b.log"]);
        check(&[], &["a/*.log"], &["b.log", "a/b/c.log", "x/a/b.log"], &["a/b.log"]);
        check(
            &[],
            &["node_modules/"],
            &["a/node_modules", "node_modules.txt"],
            &["node_modules/x", "a/node_modules/b/c"],
        );
        check(&[], &["logs/**"], &["logs", "a/logs/b"], &["logs/a", "logs/a/b"]);
        check(&[], &["**/logs/**"], &["logs"], &["logs/a", "a/logs/b/c"]);
        check(&[], &["**"], &[], &["a", "a/b"]);
        check(&["a/keep"], &["a"], &[], &["a/keep"]);
        check(&[".git", "x.pyc"], &[], &[], &[".git/config", "x.pyc"]);
    }

    #[test]
    fn bad_globs_are_named() {
        for (glob, expected) in [
            ("", GlobProblem::Empty),
            ("/", GlobProblem::Empty),
            ("!a", GlobProblem::Negated),
            ("../a", GlobProblem::NotBelowRoot),
            ("a/../b", GlobProblem::NotBelowRoot),
            ("a//b", GlobProblem::NotBelowRoot),
            (".", GlobProblem::NotBelowRoot),
            ("a[", GlobProblem::Syntax(globset::ErrorKind::UnclosedClass)),
            ("{a", GlobProblem::Syntax(globset::ErrorKind::UnclosedAlternates)),
        ] {
            for (include, exclude) in [(vec!["a", glob], vec![]), (vec![], vec!["a", glob])] {
                match selection(&include, &exclude) {
                    Err(SourceError::Glob { glob: named, problem }) => {
                        assert_eq!((named.as_str(), &problem), (glob, &expected));
                    }
                    other => panic!("{glob:?}: {other:?}"),
                }
            }
        }
    }

    #[test]
    fn a_walk_passes_by_what_no_glob_can_reach() {
        let selection = selection(&["src/**/*.py", "a/b/c"], &[]).expect("good globs");
        for (directory, expected) in [
            ("src", true),
            ("src/x/y", true),
            ("a", true),
            ("a/b", true),
            ("a/x", false),
            ("data", false),
            ("sr", false),
        ] {
            assert_eq!(selection.may_hold_included(directory.as_bytes()), expected, "{directory}");
        }
    }
}
