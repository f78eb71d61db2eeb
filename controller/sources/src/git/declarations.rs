//! What a commit declares: which of its files are read, and what they say.

use std::collections::{BTreeMap, BTreeSet};

use windlass_crds::condition::Reason;
use windlass_crds::configrepo::{CommitId, Manager, TreeId};
use windlass_crds::document::places::{FieldPlaces, placed};
use windlass_crds::document::{Declaration, MAX_BYTES, parse_adjusted, parse_bytes, split};
use windlass_crds::id::{RepoName, ResourceKey};
use windlass_crds::manifest::ReleasePath;
use windlass_crds::problem::Problem;
use windlass_crds::service::{RepoTree, Source};
use windlass_crds::status::FileError;

use super::GitError;
use super::tree::{Blob, Candidate, Listing, Node, Unread};

/// The names that files with declarations have.
const EXTENSIONS: [&str; 3] = [".yaml", ".yml", ".json"];

/// So many files are looked at: what owns more than a controller is made for is not one repository's.
pub(super) const MOST_FILES: usize = 5000;

/// So many declarations are taken from one repository: what it owns is told in one value of the store.
const MOST_DECLARATIONS: usize = 5000;

/// A file may hold many documents, and each may have 256 KiB; a larger file is data.
const FILE_BYTES: u64 = 4 << 20;

/// All of them together, since they are in memory at once.
const ALL_BYTES: u64 = 64 << 20;

/// What a commit declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Which.
    pub id: CommitId,
    /// Who has made it, as it says itself: anybody can say so.
    pub author: String,
    /// When it was committed, as it says itself: seconds since 1970. Whoever has signed it has signed that.
    pub at: i64,
    /// What it declares.
    pub declarations: BTreeMap<ResourceKey, Wanted>,
    /// What is wrong with it, by file and line.
    pub errors: Vec<FileError>,
    /// Files of which something could not be read: what they declared before is left as it is.
    pub broken: BTreeSet<String>,
    /// What is declared more than once, and so by nobody.
    pub contested: BTreeSet<ResourceKey>,
}

/// One declaration of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// What it says, with its manager.
    pub declaration: Declaration,
    /// The file, from the root of the repository.
    pub file: String,
    /// The line on which its document begins.
    pub line: usize,
    /// Whether the file says that it takes over what somebody else has declared.
    pub adopts: bool,
}

/// The files below a directory that may hold declarations.
pub(super) fn candidates(listing: &Listing, path: Option<&ReleasePath>) -> Result<Vec<Candidate>, GitError> {
    let prefix = match path {
        None => String::new(),
        Some(path) if listing.directory(path.as_str()).is_some() => format!("{path}/"),
        Some(path) => return Err(GitError::NoDirectory { path: path.to_string() }),
    };
    let named = |path: &str| EXTENSIONS.iter().any(|extension| path.ends_with(extension));
    let below = listing.nodes.range(prefix.clone()..).take_while(|(path, _)| path.starts_with(&prefix));
    let candidate = |(path, node): (&String, &Node)| {
        let path_is_plain = path.parse::<ReleasePath>().is_ok();
        let blob = match node {
            _ if !named(path) => return None,
            Node::Directory(_) | Node::Submodule => return None,
            Node::Link { .. } => Err(Unread::Link),
            Node::File { .. } if !path_is_plain => Err(Unread::Path),
            Node::File { size, .. } if *size > FILE_BYTES => Err(Unread::TooLarge(*size)),
            Node::File { blob, size, .. } => Ok((blob.clone(), *size)),
        };
        Some(Candidate { path: path.clone(), blob })
    };
    let found: Vec<Candidate> = below.filter_map(candidate).take(MOST_FILES + 1).collect();
    if found.len() > MOST_FILES {
        return Err(GitError::TooLarge { what: "the number of files".to_owned(), most: MOST_FILES as u64 });
    }
    let bytes: u64 = found.iter().filter_map(|file| Some(file.blob.as_ref().ok()?.1)).sum();
    if bytes > ALL_BYTES {
        return Err(GitError::TooLarge { what: "the size of all files, in bytes,".to_owned(), most: ALL_BYTES });
    }
    Ok(found)
}

/// What files say.
pub(super) fn read(name: &RepoName, id: &CommitId, listing: &Listing, files: Vec<Blob>) -> Commit {
    let mut reading = Reading { name, listing, sources: BTreeSet::new(), source: None };
    let read: Vec<(String, Vec<Result<Wanted, FileError>>)> = files
        .into_iter()
        .map(|Blob { path, contents }| {
            let found = reading.file(&path, contents);
            (path, found)
        })
        .collect();
    let mut commit = Commit {
        id: id.clone(),
        author: String::new(),
        at: 0,
        declarations: BTreeMap::new(),
        errors: Vec::new(),
        broken: BTreeSet::new(),
        contested: BTreeSet::new(),
    };
    let mut hidden = BTreeSet::new();
    for (path, found) in read {
        let is_source = reading.is_source(&path);
        for found in found {
            match found {
                // What was declared there before is not declared any more, and not gone either.
                Ok(wanted) if is_source => {
                    hidden.insert(wanted.declaration.key());
                }
                Err(_) if is_source => {}
                Ok(wanted) => commit.take(wanted),
                Err(error) => {
                    commit.broken.insert(path.clone());
                    commit.errors.push(error);
                }
            }
        }
    }
    commit.settle_contests();
    hidden.retain(|key| !commit.declarations.contains_key(key));
    commit.contested.extend(hidden);
    commit.errors.sort();
    commit
}

impl Commit {
    fn take(&mut self, wanted: Wanted) {
        let key = wanted.declaration.key();
        let about = |message: String, reason| FileError {
            file: wanted.file.clone(),
            line: Some(wanted.line),
            column: None,
            reason,
            message,
        };
        if let Some(first) = self.declarations.get(&key) {
            let message = format!("{key} is declared in {}:{} too; neither counts", first.file, first.line);
            self.errors.push(about(message, Reason::DeclaredTwice));
            self.contested.insert(key);
        } else if self.declarations.len() >= MOST_DECLARATIONS {
            let message =
                format!("{key} is not taken: {MOST_DECLARATIONS} declarations are the most of one repository");
            self.errors.push(about(message, Reason::RepoTooLarge));
            self.broken.insert(wanted.file.clone());
        } else {
            self.declarations.insert(key, wanted);
        }
    }

    /// What two files declare is declared by neither: nobody knows which was meant.
    fn settle_contests(&mut self) {
        for key in &self.contested {
            if let Some(first) = self.declarations.remove(key) {
                let message = format!("{key} is declared in another place too; neither counts");
                let Wanted { file, line, .. } = first;
                let reason = Reason::DeclaredTwice;
                self.errors.push(FileError { file, line: Some(line), column: None, reason, message });
            }
        }
    }
}

/// Files being read.
struct Reading<'a> {
    name: &'a RepoName,
    listing: &'a Listing,
    /// Directories that are the source of a Service, and the file that says so.
    sources: BTreeSet<(String, String)>,
    /// The one that the document at hand names, which may make no sense.
    source: Option<(String, String)>,
}

impl Reading<'_> {
    /// Whether a file is part of what a Service runs, and no declaration: a program may bring YAML and JSON of its own.
    fn is_source(&self, path: &str) -> bool {
        self.sources.iter().any(|(directory, declared_in)| {
            let inside = |path: &str| directory.is_empty() || path.starts_with(&format!("{directory}/"));
            // Who says that his own directory is the source has declarations in it.
            inside(path) && !inside(declared_in)
        })
    }

    fn file(&mut self, path: &str, contents: Result<Vec<u8>, Unread>) -> Vec<Result<Wanted, FileError>> {
        let whole =
            |reason, message: String| FileError { file: path.to_owned(), line: None, column: None, reason, message };
        let bytes = match contents {
            Ok(bytes) => bytes,
            Err(Unread::Link) => {
                let message = "is a symbolic link, which is not followed; put the declaration there".to_owned();
                return vec![Err(whole(Reason::LeavesTree, message))];
            }
            Err(Unread::Path) => {
                let message = "has a path that no file can have".to_owned();
                return vec![Err(whole(Reason::LeavesTree, message))];
            }
            Err(Unread::TooLarge(size)) => {
                let message = format!("{size} bytes, and a file with declarations may have at most {FILE_BYTES}");
                return vec![Err(whole(Reason::TooLarge, message))];
            }
        };
        let text = match std::str::from_utf8(&bytes) {
            Ok(text) if !text.contains('\0') => text,
            Ok(_) => return vec![Err(whole(Reason::InvalidDeclaration, "holds a NUL".to_owned()))],
            Err(error) => {
                let message = format!("is not UTF-8 from byte {} on", error.valid_up_to());
                return vec![Err(whole(Reason::InvalidDeclaration, message))];
            }
        };
        let documents = split(text);
        documents.iter().flat_map(|document| self.document(path, document)).collect()
    }

    fn document(
        &mut self,
        path: &str,
        document: &windlass_crds::document::Document<'_>,
    ) -> Vec<Result<Wanted, FileError>> {
        let mut adopts = false;
        self.source = None;
        let parsed = parse_adjusted(document, |declaration| {
            adopts = self.adjust(path, declaration)?;
            Ok(())
        });
        let problems = match parsed {
            Ok(declaration) => {
                let written = declaration.to_json().to_string();
                let size = written.len();
                let again = parse_bytes(written.as_bytes());
                if size <= MAX_BYTES && again.as_ref() == Ok(&declaration) {
                    self.sources.extend(self.source.take());
                    let (file, line) = (path.to_owned(), document.line);
                    return vec![Ok(Wanted { declaration, file, line, adopts })];
                }
                if size > MAX_BYTES {
                    let message =
                        format!("{size} bytes once written out, and a declaration may have at most {MAX_BYTES}");
                    vec![Problem::new(Reason::TooLarge, "", message)]
                } else {
                    // It would be put again for ever, as if somebody changed it.
                    again.err().unwrap_or_else(|| vec![Problem::invalid("", "does not read back as it was written")])
                }
            }
            Err(problems) => problems,
        };
        let places = FieldPlaces::of(document.text);
        let error = |problem: &Problem| {
            let placed = placed(problem, document.line, places.as_ref());
            // An excerpt takes five lines; the status names the place, and the file is at hand.
            let message = placed.message.lines().next().unwrap_or_default().to_owned();
            let (line, column) = (Some(placed.line), placed.column);
            Err(FileError { file: path.to_owned(), line, column, reason: problem.reason, message })
        };
        problems.iter().map(error).collect()
    }

    /// Spells out what a declaration means where it lies; tells whether it takes over what somebody else has declared.
    fn adjust(&mut self, file: &str, declaration: &mut Declaration) -> Result<bool, Problem> {
        if let Declaration::Policy(_) = declaration {
            let message = "a Policy is not taken from a repository: what its commits may bring is not for them to say; `windlass apply` declares it";
            return Err(Problem::new(Reason::NotSupported, "kind", message));
        }
        let ours = Manager::Repo(self.name.clone());
        let adopts = match declaration.managed_by() {
            None => false,
            Some(manager) if *manager == ours => true,
            Some(manager) => {
                let message = format!("says {manager}, and this is {ours}; leave it out");
                return Err(Problem::new(Reason::Conflict, "metadata.managedBy", message));
            }
        };
        if let Declaration::Service(service) = declaration {
            self.source(file, &mut service.spec.source)?;
        }
        *declaration = declaration.clone().with_manager(Some(ours));
        Ok(adopts)
    }

    /// A relative path means a directory of the same commit, seen from the file.
    fn source(&mut self, file: &str, source: &mut Source) -> Result<(), Problem> {
        if source.repo.is_some() {
            let message = "is written by the controller; write a relative `path` instead";
            return Err(Problem::invalid("spec.source.repo", message));
        }
        let Some(written) = source.path.clone().filter(|path| !path.starts_with('/')) else { return Ok(()) };
        const FIELD: &str = "spec.source.path";
        if written.starts_with("~/") || written.is_empty() {
            return Err(Problem::invalid(FIELD, "must be a directory of this repository, or an absolute path"));
        }
        let directory = file.rsplit_once('/').map_or("", |(directory, _)| directory);
        let path = join(directory, &written).ok_or_else(|| {
            Problem::new(Reason::LeavesTree, FIELD, format!("{written:?} leads out of the repository"))
        })?;
        let tree = self.tree(&path)?;
        self.source = Some((path.clone(), file.to_owned()));
        let path = if path.is_empty() {
            None
        } else {
            Some(path.parse().map_err(|error| Problem::invalid(FIELD, format!("{error}")))?)
        };
        source.path = None;
        source.repo = Some(RepoTree { name: self.name.clone(), path, tree });
        Ok(())
    }

    fn tree(&self, path: &str) -> Result<TreeId, Problem> {
        const FIELD: &str = "spec.source.path";
        if let Some(tree) = self.listing.directory(path) {
            return Ok(tree.clone());
        }
        // A link on the way is not followed, wherever it leads.
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        let linked =
            ends.map(|end| &path[..end]).find(|part| matches!(self.listing.nodes.get(*part), Some(Node::Link { .. })));
        Err(match linked {
            Some(link) => {
                let message = format!("{link} is a symbolic link, which is not followed");
                Problem::new(Reason::LeavesTree, FIELD, message)
            }
            None => Problem::new(Reason::SourceUnavailable, FIELD, format!("the commit has no directory {path}")),
        })
    }
}

/// What a relative path means in a directory of a repository; nothing where it leads out.
fn join(directory: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = directory.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(digit: char) -> TreeId {
        digit.to_string().repeat(40).parse().expect("digits")
    }

    /// A listing with these directories, each with a tree of its own, and these links.
    fn listing(directories: &[&str], links: &[&str]) -> Listing {
        let blob = || "f".repeat(40).parse().expect("digits");
        let directory = |(index, path): (usize, &&str)| {
            let digit = char::from_digit(u32::try_from(index + 1).expect("few"), 16).expect("few");
            ((*path).to_owned(), Node::Directory(tree(digit)))
        };
        let link = |path: &&str| ((*path).to_owned(), Node::Link { blob: blob(), size: 3 });
        let nodes = directories.iter().enumerate().map(directory).chain(links.iter().map(link)).collect();
        Listing { nodes, root: Some(tree('0')) }
    }

    fn service(name: &str, path: &str) -> String {
        format!(
            "apiVersion: windlass/v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  placement: {{hosts: [web1]}}\n  source: {{path: {path:?}}}\n  runtime: {{target: python, entryPoint: a.py}}\n"
        )
    }

    fn read_all(listing: &Listing, files: &[(&str, &str)]) -> Commit {
        let blobs = files
            .iter()
            .map(|(path, text)| Blob { path: (*path).to_owned(), contents: Ok(text.as_bytes().to_owned()) });
        let id = "a".repeat(40).parse().expect("digits");
        read(&"fleet".parse().expect("a name"), &id, listing, blobs.collect())
    }

    fn told(commit: &Commit) -> Vec<String> {
        commit.errors.iter().map(|error| format!("[{}] {error}", error.reason)).collect()
    }

    fn declared(commit: &Commit) -> Vec<String> {
        commit.declarations.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn one_bad_document_hides_no_other() {
        let good = service("good", "/srv/good");
        let bad = service("bad", "/srv/bad").replace("target: python", "target: cobol");
        let worse = service("worse", "/srv/worse").replace("  placement", "  placemint");
        let port = service("port", "/srv/port").replace("[web1]", "[]");
        let many = format!("{good}---\n{bad}---\n{port}");
        let commit = read_all(&listing(&["a"], &[]), &[("a/many.yaml", &many), ("a/worse.yml", &worse)]);
        assert_eq!(declared(&commit), ["service/good"]);
        assert_eq!(commit.broken, BTreeSet::from(["a/many.yaml".to_owned(), "a/worse.yml".to_owned()]));
        let told = told(&commit);
        assert_eq!(told.len(), 3, "{told:#?}");
        assert!(told[0].starts_with("[InvalidDeclaration] a/many.yaml:15:"), "{told:#?}");
        assert!(
            told[1].starts_with("[InvalidDeclaration] a/many.yaml:21:") && told[1].contains("placement"),
            "{told:#?}"
        );
        assert!(told[2].starts_with("[UnknownField] a/worse.yml:5:3: "), "{told:#?}");
        assert!(told.iter().all(|line| line.lines().count() == 1), "{told:#?}");
    }

    #[test]
    fn a_policy_is_not_taken_from_a_repository() {
        let policy =
            "apiVersion: windlass/v1\nkind: Policy\nmetadata: {name: all}\nspec: {namespaces: ['*'], approval: none}\n";
        let good = service("good", "/srv/good");
        let commit = read_all(&listing(&[], &[]), &[("good.yaml", &good), ("policy.yaml", policy)]);
        assert_eq!(declared(&commit), ["service/good"]);
        let told = told(&commit);
        assert!(told[0].starts_with("[NotSupported] policy.yaml:2:") && told[0].contains("not taken from"), "{told:?}");
    }

    #[test]
    fn json_is_read_as_well_and_what_is_declared_twice_is_declared_by_nobody() {
        let json = r#"{"apiVersion": "windlass/v1", "kind": "Host", "metadata": {"name": "web1"}, "spec": {"address": "198.18.0.1"}}"#;
        let twice = [("a.yaml", service("web", "/srv/a")), ("b.yaml", service("web", "/srv/b"))];
        let files = [("h.json", json), (twice[0].0, &twice[0].1), (twice[1].0, &twice[1].1)];
        let commit = read_all(&listing(&[], &[]), &files);
        assert_eq!(declared(&commit), ["host/web1"]);
        assert_eq!(commit.contested.iter().map(ToString::to_string).collect::<Vec<_>>(), ["service/web"]);
        let told = told(&commit);
        assert_eq!(told.len(), 2, "{told:#?}");
        assert!(told.iter().all(|line| line.starts_with("[DeclaredTwice] ")), "{told:#?}");
    }

    #[test]
    fn a_relative_source_is_a_directory_of_the_commit() {
        let listing = listing(&["apps", "apps/web", "production"], &["apps/link"]);
        for (path, expected) in [
            ("../apps/web", Ok((Some("apps/web"), '2'))),
            ("./../apps/./web/", Ok((Some("apps/web"), '2'))),
            ("..", Ok((None, '0'))),
            (".", Ok((Some("production"), '3'))),
            ("../..", Err("LeavesTree")),
            ("../../etc", Err("LeavesTree")),
            ("../apps/link", Err("LeavesTree")),
            ("../apps/link/x", Err("LeavesTree")),
            ("../apps/gone", Err("SourceUnavailable")),
            ("~/x", Err("InvalidDeclaration")),
        ] {
            let commit = read_all(&listing, &[("production/web.yaml", &service("web", path))]);
            match expected {
                Ok((expected, digit)) => {
                    let Some(Declaration::Service(read)) =
                        commit.declarations.values().next().map(|one| &one.declaration)
                    else {
                        panic!("{path}: {:?}", told(&commit))
                    };
                    let repo = read.spec.source.repo.as_ref().expect("a directory");
                    assert_eq!(repo.path.as_ref().map(ReleasePath::as_str), expected, "{path}");
                    assert_eq!(repo.tree, tree(digit), "{path}");
                    assert_eq!(read.spec.source.path, None);
                }
                Err(reason) => {
                    let told = told(&commit);
                    assert!(
                        told.len() == 1 && told[0].starts_with(&format!("[{reason}] production/web.yaml:6:")),
                        "{path}: {told:?}"
                    );
                }
            }
        }
        let absolute = read_all(&listing, &[("web.yaml", &service("web", "/srv/web"))]);
        assert_eq!(declared(&absolute), ["service/web"]);
    }

    #[test]
    fn what_a_program_brings_is_no_declaration() {
        let listing = listing(&["apps", "apps/web", "production"], &[]);
        let (web, own) = (service("web", "../apps/web"), service("own", "."));
        let files = [("apps/web/package.json", "{\"name\": \"x\"}"), ("production/web.yaml", &web)];
        let commit = read_all(&listing, &files);
        assert_eq!((declared(&commit), told(&commit)), (vec!["service/web".to_owned()], vec![]));
        // Where the file itself lies in the directory that it names, the rest of that is read as declarations.
        let commit = read_all(&listing, &[("production/own.yaml", &own), ("production/x.yaml", "a: 1\n")]);
        assert_eq!(declared(&commit), ["service/own"]);
        assert_eq!(commit.errors.len(), 1, "{:?}", told(&commit));
    }

    #[test]
    fn a_file_takes_over_for_its_own_repository_only() {
        let listing = listing(&[], &[]);
        let says =
            |manager: &str| service("web", "/srv").replace("name: web", &format!("name: web, managedBy: {manager}"));
        let ours = read_all(&listing, &[("a.yaml", &says("configrepo/fleet"))]);
        assert!(ours.declarations.values().all(|one| one.adopts) && ours.declarations.len() == 1);
        for other in ["configrepo/other", "people"] {
            let commit = read_all(&listing, &[("a.yaml", &says(other))]);
            let told = told(&commit);
            assert!(told.len() == 1 && told[0].starts_with("[Conflict] a.yaml:3:"), "{told:?}");
        }
        let plain = read_all(&listing, &[("a.yaml", &service("web", "/srv"))]);
        let one = plain.declarations.values().next().expect("one");
        assert!(!one.adopts);
        assert_eq!(one.declaration.managed_by().map(ToString::to_string).as_deref(), Some("configrepo/fleet"));
    }

    #[test]
    fn what_is_not_read_is_told() {
        let id = "a".repeat(40).parse().expect("digits");
        let name = "fleet".parse().expect("a name");
        for (why, reason) in [
            (Unread::Link, Reason::LeavesTree),
            (Unread::Path, Reason::LeavesTree),
            (Unread::TooLarge(100 << 20), Reason::TooLarge),
        ] {
            let files = vec![Blob { path: "a.yaml".to_owned(), contents: Err(why) }];
            let commit = read(&name, &id, &listing(&[], &[]), files);
            assert_eq!(commit.errors.iter().map(|error| error.reason).collect::<Vec<_>>(), [reason]);
            assert!(commit.broken.contains("a.yaml"));
        }
    }

    #[test]
    fn too_many_files_are_refused_before_any_is_read() {
        let mut listing = listing(&["a"], &[]);
        let blob = "f".repeat(40).parse::<windlass_crds::configrepo::BlobId>().expect("digits");
        let file = |size| Node::File { blob: blob.clone(), size, executable: false };
        for number in 0..MOST_FILES {
            listing.nodes.insert(format!("a/{number}.yaml"), file(10));
        }
        let path: ReleasePath = "a".parse().expect("a path");
        assert_eq!(candidates(&listing, Some(&path)).expect("as many as may be").len(), MOST_FILES);
        listing.nodes.insert("a/one-more.yaml".to_owned(), file(10));
        assert!(matches!(candidates(&listing, Some(&path)), Err(GitError::TooLarge { .. })));
        assert!(matches!(candidates(&listing, Some(&"b".parse().expect("a path"))), Err(GitError::NoDirectory { .. })));
        let large: BTreeMap<String, Node> =
            (0..20).map(|number| (format!("{number}.json"), file(FILE_BYTES))).collect();
        let listing = Listing { nodes: large, root: None };
        assert!(matches!(candidates(&listing, None), Err(GitError::TooLarge { .. })));
    }
}
