//! Declarations from files: found, read, checked all together, and made ready for the store.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use windlass_crds::configrepo::Manager;
use windlass_crds::document::places::{FieldPlaces, placed};
use windlass_crds::document::{self, Declaration, Document};
use windlass_crds::id::{Namespace, ResourceKey};
use windlass_crds::problem::Problem;

use crate::failure::UsageError;
use crate::output::{self, Label};

/// The names that declarations in a directory have.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// Where a Service says which directory holds its files.
const SOURCE_PATH: &str = "spec.source.path";

/// Which files.
#[derive(Debug, Clone, Args)]
pub(crate) struct FileArgs {
    /// A file, a directory (its *.yaml, *.yml and *.json), or - for standard input; may be given several times
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Look into the directories of a directory too
    #[arg(short = 'R', long, requires = "files")]
    pub(crate) recursive: bool,
}

impl FileArgs {
    /// Demands at least one file.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn require(&self) -> Result<(), UsageError> {
        if self.files.is_empty() { Err(UsageError("say which files: -f FILE".into())) } else { Ok(()) }
    }
}

/// A document that can be put into the store.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// What it declares.
    pub(crate) declaration: Declaration,
    /// The text to store: as it was written, comments and all, so that `etcdctl get` shows what people know. Where
    /// something has to be spelled out (a relative path, the namespace of `-n`), that one value is changed in
    /// place and nothing else.
    pub(crate) text: String,
    /// Where it was read: `web.yaml:4`.
    pub(crate) place: String,
    /// The directory that a relative `spec.source.path` became.
    pub(crate) made_absolute: Option<PathBuf>,
}

impl Loaded {
    pub(crate) fn key(&self) -> ResourceKey {
        self.declaration.key()
    }

    /// Says that people declare it, whatever a ConfigRepo says.
    ///
    /// # Errors
    /// When that cannot be written into its text.
    pub(crate) fn adopt(&mut self) -> anyhow::Result<()> {
        let people = self.declaration.clone().with_manager(Some(Manager::People));
        let edited = |text: &str| document::parse(&Document { text, line: 1 }).ok();
        let found = FieldPlaces::of(&self.text).and_then(|places| {
            put_behind_name(&self.text, &places, "managedBy", "people", |text| {
                edited(text).filter(|declaration| *declaration == people)
            })
        });
        let (text, declaration) =
            found.with_context(|| format!("{}: metadata.managedBy cannot be written into it", self.place))?;
        (self.text, self.declaration) = (text, declaration);
        Ok(())
    }
}

/// What stands on a file's line for messages: the path as it was typed.
#[derive(Debug)]
struct SourceFile {
    label: String,
    /// What its relative paths start from.
    directory: PathBuf,
    text: String,
}

/// What documents are read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Intent {
    Apply,
    Compare,
    Delete,
    Plan,
}

impl Intent {
    /// What was not done, where documents cannot be used.
    pub(crate) fn undone(self) -> &'static str {
        match self {
            Self::Apply => "nothing was written",
            Self::Compare => "nothing was compared",
            Self::Delete => "nothing was deleted",
            Self::Plan => "nothing was planned",
        }
    }
}

/// Reads every document of every file. Each that cannot be used is told on stderr with its place, and then nothing
/// is returned: half of what somebody meant to apply is a state that nobody has thought about.
///
/// # Errors
/// When a file cannot be read, a document cannot be used, there is none, or two have one name.
pub(crate) fn load(files: &FileArgs, namespace: Option<&Namespace>, intent: Intent) -> anyhow::Result<Vec<Loaded>> {
    let undone = intent.undone();
    let mut loaded = Vec::new();
    let (mut documents, mut bad) = (0, 0);
    for file in find(files)? {
        let file = read(&file)?;
        for document in document::split(&file.text) {
            documents += 1;
            match load_one(&file, &document, namespace) {
                Ok(one) => loaded.push(one),
                Err(complaints) => {
                    bad += 1;
                    complaints.iter().for_each(Complaint::tell);
                }
            }
        }
    }
    match (documents, bad) {
        (0, _) => bail!("there is no document in it"),
        (_, 0) => {}
        (1, _) => bail!("the document cannot be used; {undone}"),
        _ => bail!("{bad} of {documents} documents cannot be used; {undone}"),
    }
    let mut places = BTreeMap::new();
    for one in &loaded {
        if let Some(first) = places.insert(one.key(), &one.place) {
            bail!("{} is declared twice: {first} and {}; {undone}", one.key(), one.place);
        }
    }
    Ok(loaded)
}

/// The files that were meant, in the order in which they were given, those of a directory sorted by name.
fn find(files: &FileArgs) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in &files.files {
        if path.as_os_str() == "-" || !path.is_dir() {
            found.push(path.clone());
            continue;
        }
        let before = found.len();
        find_in(path, files.recursive, &mut found)?;
        if found.len() == before {
            let deeper = if files.recursive { "" } else { "\nhint: -R looks into its directories too" };
            bail!("no *.yaml, *.yml or *.json in {}{deeper}", path.display());
        }
    }
    Ok(found)
}

fn find_in(directory: &Path, recursive: bool, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let unreadable = || format!("cannot read the directory {}", directory.display());
    let entries: Result<Vec<_>, _> = std::fs::read_dir(directory).with_context(unreadable)?.collect();
    let mut paths: Vec<PathBuf> = entries.with_context(unreadable)?.into_iter().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let declares = path.extension().is_some_and(|have| EXTENSIONS.iter().any(|extension| have == *extension));
        if path.is_dir() {
            // A link to a directory may lead back here.
            if recursive && !path.is_symlink() {
                find_in(&path, recursive, found)?;
            }
        } else if declares {
            found.push(path);
        }
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<SourceFile> {
    let standard_input = path.as_os_str() == "-";
    let label = if standard_input { "standard input".to_owned() } else { path.display().to_string() };
    let mut bytes = Vec::new();
    let (read, directory) = if standard_input {
        (std::io::stdin().read_to_end(&mut bytes).map(drop), Path::new("."))
    } else {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        (std::fs::read(path).map(|all| bytes = all), parent.unwrap_or(Path::new(".")))
    };
    read.with_context(|| format!("cannot read {label}"))?;
    // Links are followed here, so that `..` in a relative path means what it means to the shell's `cd -P`.
    let directory = directory.canonicalize().with_context(|| format!("cannot read the directory of {label}"))?;
    let text = String::from_utf8(bytes);
    let text = text
        .map_err(|error| anyhow::anyhow!("{label} is not UTF-8 from byte {} on", error.utf8_error().valid_up_to()))?;
    Ok(SourceFile { label, directory, text })
}

/// What is wrong with a document, and where.
struct Complaint {
    place: String,
    message: String,
}

impl Complaint {
    fn tell(&self) {
        let mut hints = Vec::new();
        let mut lines = Vec::new();
        for line in self.message.lines() {
            match line.strip_prefix("hint: ") {
                Some(hint) => hints.push(hint),
                None => lines.push(line),
            }
        }
        output::labelled(Label::Error, format_args!("{}: {}", self.place, lines.join("\n")));
        hints.iter().for_each(|hint| output::labelled(Label::Hint, hint));
    }
}

fn load_one(
    file: &SourceFile,
    document: &Document<'_>,
    namespace: Option<&Namespace>,
) -> Result<Loaded, Vec<Complaint>> {
    let place = format!("{}:{}", file.label, document.line);
    let mut text = declared_part(document.text);
    let places = FieldPlaces::of(&text);
    let complain = |problems: Vec<Problem>| -> Vec<Complaint> {
        problems.iter().map(|problem| complaint(file, document, places.as_ref(), problem)).collect()
    };
    let made_absolute = places.as_ref().and_then(|places| make_absolute(&mut text, places, &file.directory));
    let edited = |text: &str| document::parse(&Document { text, line: document.line });
    let mut declaration = edited(&text).map_err(complain)?;
    if let (Some(namespace), Declaration::Service(service)) = (namespace, &declaration)
        && service.key.namespace != *namespace
    {
        (text, declaration) =
            match FieldPlaces::of(&text).filter(|places| places.exact("metadata.namespace").is_none()) {
                Some(places) => put_behind_name(&text, &places, "namespace", namespace.as_str(), |text| {
                    let is_there = |read: &Declaration| {
                        matches!(read, Declaration::Service(service) if service.key.namespace == *namespace)
                    };
                    edited(text).ok().filter(is_there)
                }),
                None => None,
            }
            .ok_or_else(|| {
                let message = format!("it says {}, and -n says {namespace}", service.key.namespace);
                complain(vec![Problem::invalid("metadata.namespace", message)])
            })?;
    }
    let text = format!("{}\n", text.trim_matches(['\r', '\n']));
    Ok(Loaded { declaration, text, place, made_absolute })
}

/// A document without what `get` adds to a declaration, so that `get -o yaml`, an editor and `apply` go together.
/// Lines stay where they are.
fn declared_part(text: &str) -> String {
    let Some(places) = FieldPlaces::of(text) else { return text.to_owned() };
    let added = ["generation", "managedBy"].map(|name| (name, places.exact(&format!("metadata.{name}"))));
    if added.iter().all(|(_, place)| place.is_none()) && places.exact("status").is_none() {
        return text.to_owned();
    }
    if let Ok(mut document) = serde_json::from_str::<serde_json::Value>(text) {
        document.as_object_mut().map(|document| document.remove("status"));
        for (name, _) in added {
            document["metadata"].as_object_mut().map(|metadata| metadata.remove(name));
        }
        return format!("{document:#}");
    }
    let mut in_status = false;
    let lines = text.lines().enumerate().map(|(index, line)| {
        let is_field = line.starts_with(|first: char| !first.is_whitespace() && first != '#' && first != '-');
        in_status = if is_field { line.starts_with("status:") } else { in_status };
        let is_added = added.iter().any(|(name, place)| {
            place.as_ref().is_some_and(|place| place.line == index + 1)
                && line.trim_start().strip_prefix(name).is_some_and(|rest| rest.starts_with(':'))
        });
        if in_status || is_added { "\n".to_owned() } else { format!("{line}\n") }
    });
    lines.collect()
}

/// A problem with its place.
fn complaint(file: &SourceFile, document: &Document<'_>, places: Option<&FieldPlaces>, problem: &Problem) -> Complaint {
    let label = &file.label;
    let placed = placed(problem, document.line, places);
    let place = match placed.column {
        Some(column) => format!("{label}:{}:{column}", placed.line),
        None => format!("{label}:{}", placed.line),
    };
    Complaint { place, message: placed.message.replace("--> <input>:", &format!("--> {label}:")) }
}

/// Makes a relative source path absolute in place, and gives what it became. Whether that means anything to the
/// controller is not known here.
fn make_absolute(text: &mut String, places: &FieldPlaces, directory: &Path) -> Option<PathBuf> {
    let range = places.exact(SOURCE_PATH)?.scalar?;
    let written: String = serde_saphyr::from_str(&text[range.clone()]).ok()?;
    let absolute = absolute(&written, directory)?;
    text.replace_range(range, &quoted(absolute.to_str()?));
    Some(absolute)
}

/// What a relative path of a file in `directory` means; nothing for an absolute one.
fn absolute(written: &str, directory: &Path) -> Option<PathBuf> {
    if written.is_empty() || written.starts_with('/') {
        return None;
    }
    let (mut absolute, rest) = match written.strip_prefix("~/") {
        Some(rest) => (std::env::home_dir()?, rest),
        None => (directory.to_owned(), written),
    };
    for component in Path::new(rest).components() {
        match component {
            Component::ParentDir => {
                absolute.pop();
            }
            Component::Normal(name) => absolute.push(name),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    Some(absolute)
}

/// A text as a YAML scalar: bare where that is surely the same, else in quotes as in JSON.
fn quoted(text: &str) -> String {
    let plain =
        text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte));
    if plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

/// Writes a field of `metadata` behind the name of a document that has none, in whichever of YAML's two styles `parse`
/// takes the result.
fn put_behind_name(
    text: &str,
    places: &FieldPlaces,
    field: &str,
    value: &str,
    parse: impl Fn(&str) -> Option<Declaration>,
) -> Option<(String, Declaration)> {
    let end = places.exact("metadata.name")?.scalar?.end;
    let line = &text[text[..end].rfind('\n').map_or(0, |at| at + 1)..end];
    let indent = &line[..line.len() - line.trim_start().len()];
    let candidates = [format!("\n{indent}{field}: {value}"), format!(", \"{field}\": \"{value}\"")];
    candidates.into_iter().find_map(|insertion| {
        let mut text = text.to_owned();
        text.insert_str(end, &insertion);
        let declaration = parse(&text)?;
        Some((text, declaration))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str =
        "spec:\n  placement: {hosts: [web1]}\n  source: {path: ./src}\n  runtime: {target: python, entryPoint: a.py}\n";

    fn loaded(metadata: &str, namespace: Option<&str>) -> Result<Loaded, Vec<String>> {
        let text = format!("apiVersion: windlass/v1\nkind: Service\n{metadata}{BODY}");
        let file = SourceFile { label: "web.yaml".into(), directory: "/srv/deploy".into(), text };
        let namespace: Option<Namespace> = namespace.map(|name| name.parse().expect(name));
        let document = document::split(&file.text).remove(0);
        load_one(&file, &document, namespace.as_ref())
            .map_err(|complaints| complaints.into_iter().map(|one| format!("{}: {}", one.place, one.message)).collect())
    }

    #[test]
    fn a_relative_path_is_spelled_out_and_nothing_else_changes() {
        let one = loaded("metadata:\n  name: web # ours\n", None).expect("good");
        assert_eq!(one.made_absolute.as_deref(), Some(Path::new("/srv/deploy/src")));
        assert!(one.text.contains("source: {path: /srv/deploy/src}"), "{}", one.text);
        assert!(one.text.contains("name: web # ours"), "{}", one.text);
    }

    #[test]
    fn what_get_adds_is_left_out() {
        let body = BODY.replace("./src", "/srv/src");
        let one = |metadata: &str, rest: &str| {
            let text = format!("apiVersion: windlass/v1\nkind: Service\n{metadata}{body}{rest}");
            declared_part(&text)
        };
        let plain = one("metadata:\n  name: web\n", "");
        let added = one("metadata:\n  generation: 7\n  name: web\n", "status:\n  ready: 1\n  # x\n  hosts: {}\n");
        assert_eq!(added.replace("\n\n", "\n").trim_end(), plain.trim_end());
        assert_eq!(added.lines().nth(4), Some("  name: web"), "{added}");
        let managed = one("metadata:\n  name: web\n  managedBy: configrepo/fleet\n", "");
        assert_eq!(managed.replace("\n\n", "\n").trim_end(), plain.trim_end());
        let json = r#"{"metadata": {"name": "web", "generation": 7, "managedBy": "people"}, "status": {}}"#;
        assert_eq!(declared_part(json).replace([' ', '\n'], ""), r#"{"metadata":{"name":"web"}}"#);
        assert_eq!(declared_part("a: [\n"), "a: [\n");
    }

    #[test]
    fn paths_mean_what_they_mean_beside_their_file() {
        for (written, expected) in [
            ("src", Some("/srv/deploy/src")),
            ("./src/", Some("/srv/deploy/src")),
            ("../src", Some("/srv/src")),
            (".", Some("/srv/deploy")),
            ("../../../../x", Some("/x")),
            ("/srv/src", None),
            ("", None),
        ] {
            assert_eq!(absolute(written, Path::new("/srv/deploy")).as_deref(), expected.map(Path::new), "{written}");
        }
        assert_eq!(quoted("/srv/a b"), "\"/srv/a b\"");
    }

    #[test]
    fn the_asked_namespace_is_written_where_none_is() {
        for metadata in ["metadata:\n  name: web # x\n", "metadata: {name: web}\n", "metadata: {\"name\": \"web\"}\n"] {
            let one = loaded(metadata, Some("prod")).expect(metadata);
            assert_eq!(one.key().to_string(), "service/prod/web", "{metadata}");
        }
        let stays = loaded("metadata: {name: web, namespace: prod}\n", Some("prod")).expect("the same");
        assert!(stays.text.contains("{name: web, namespace: prod}"));
        let refused = loaded("metadata: {name: web, namespace: dev}\n", Some("prod")).expect_err("another");
        assert_eq!(refused, ["web.yaml:3:34: metadata.namespace: it says dev, and -n says prod"]);
    }
}
