//! What is declared beside what hosts run: revisions, files, settings and drift. Pure: a preview in, a picture out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};
use windlass_crds::condition::{ConditionStatus, ConditionType};
use windlass_crds::digest::ReleaseDigest;
use windlass_crds::fields::{self, FieldChange};
use windlass_crds::id::{HostId, ResourceKey, RevisionNumber, ServiceKey};
use windlass_crds::manifest::{Entry, Manifest, ReleasePath};
use windlass_crds::observation::Drift;
use windlass_crds::record::Revision;
use windlass_engine::Foreseen;
use windlass_planner::input::{HostInput, HostView, Placement};

use crate::text::printable;

/// Digits of a hash that people are shown.
const SHORT: usize = 12;

/// A Service as it is declared beside what its hosts run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Comparison {
    resource: String,
    /// The revision of what is declared; nothing where none can be made, or nothing is declared.
    declared: Option<RevisionNumber>,
    hosts: BTreeMap<HostId, HostSide>,
    /// A change for each other revision that hosts run.
    changes: Vec<Change>,
    /// What stands in the way, in the words of the condition `Ready`.
    problems: Vec<String>,
    /// Whether the source could be read: else it may hold anything.
    source_read: bool,
    /// Whether there is something to do.
    differs: bool,
}

/// What one host runs, and shall run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct HostSide {
    running: Option<RevisionNumber>,
    declared: Option<RevisionNumber>,
    drift: BTreeSet<Drift>,
    /// Why nothing is known of it.
    unknown: Option<String>,
}

impl HostSide {
    fn differs(&self) -> bool {
        self.unknown.is_none() && (self.running != self.declared || !self.drift.is_empty())
    }
}

/// From a revision that runs somewhere to the declared one.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Change {
    from: RevisionNumber,
    to: RevisionNumber,
    /// Nothing where no host told what is in a release.
    files: Option<Vec<FileChange>>,
    /// Nothing where the old revision is recorded no more.
    settings: Option<Vec<FieldChange>>,
}

/// A path that differs. Files are told by their SHA-256, links by where they lead.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct FileChange {
    path: ReleasePath,
    old: Option<String>,
    new: Option<String>,
}

/// Compares what is declared with what was found. `manifests` holds what is in the releases that are known.
pub(crate) fn compare(
    service: &ServiceKey,
    foreseen: &Foreseen,
    manifests: &BTreeMap<ReleaseDigest, Arc<Manifest>>,
) -> Comparison {
    let declared = foreseen.declared();
    let number = declared.map(|declared| declared.number);
    let hosts: BTreeMap<HostId, HostSide> =
        foreseen.hosts.iter().map(|(id, host)| (id.clone(), side(host, number))).collect();
    // By revision, each with a host that runs it.
    let mut others: BTreeMap<RevisionNumber, &HostId> = BTreeMap::new();
    for (id, side) in hosts.iter().filter(|(_, side)| side.declared.is_some() && side.running != side.declared) {
        if let Some(running) = side.running {
            others.entry(running).or_insert(id);
        }
    }
    let change = |(from, host): (RevisionNumber, &HostId)| {
        let declared = declared?;
        let before = foreseen.running(host).and_then(|release| manifests.get(&release));
        let files = before.zip(manifests.get(&declared.release)).map(|(before, after)| file_changes(before, after));
        let settings = foreseen.revisions.get(&from).map(|before| fields::changes(&spec(before), &spec(declared)));
        Some(Change { from, to: declared.number, files, settings })
    };
    let changes = others.into_iter().filter_map(change).collect();
    let differs = !foreseen.plan.is_idle() || hosts.values().any(HostSide::differs);
    let resource = ResourceKey::Service(service.clone()).to_string();
    let findings = foreseen
        .plan
        .report
        .findings
        .iter()
        .filter(|finding| finding.kind == ConditionType::Ready && finding.status != ConditionStatus::True);
    let problems = findings.map(|finding| format!("{}: {}", finding.reason, finding.message)).collect();
    Comparison { resource, declared: number, hosts, changes, problems, source_read: foreseen.source.is_some(), differs }
}

fn side(host: &HostInput, declared: Option<RevisionNumber>) -> HostSide {
    let mut side = HostSide { running: None, declared, drift: BTreeSet::new(), unknown: None };
    match &host.placement {
        Placement::Placed => {}
        Placement::Unplaced => side.declared = None,
        Placement::Refused(complaint) => side.unknown = Some(complaint.message.clone()),
    }
    match &host.view {
        HostView::Seen(seen) => {
            side.running = seen.service.unit.revision();
            side.drift.clone_from(&seen.service.drift);
        }
        HostView::Unreachable(error) => side.unknown = Some(error.to_string()),
        HostView::Refusing(error) => side.unknown = Some(error.to_string()),
        HostView::Busy(_) => side.unknown = Some("a step is under way".to_owned()),
        HostView::NotLookedAt => {
            side.unknown.get_or_insert_with(|| "nobody looked".to_owned());
        }
    }
    side
}

fn spec(revision: &Revision) -> Value {
    json!({ "spec": revision.spec })
}

fn file_changes(before: &Manifest, after: &Manifest) -> Vec<FileChange> {
    let paths: BTreeSet<&ReleasePath> = before.entries.keys().chain(after.entries.keys()).collect();
    let differing = paths.into_iter().filter(|path| before.entries.get(*path) != after.entries.get(*path));
    let told = |manifest: &Manifest, path| manifest.entries.get(path).map(content);
    differing.map(|path| FileChange { path: path.clone(), old: told(before, path), new: told(after, path) }).collect()
}

fn content(entry: &Entry) -> String {
    match entry {
        Entry::File { digest, size: _, executable: false } => digest.to_string(),
        Entry::File { digest, size: _, executable: true } => format!("{digest} (executable)"),
        Entry::Link { target } => format!("link to {target}"),
    }
}

/// A hash in fewer digits; what is none, as it is.
fn shortened(content: &str) -> String {
    let digits = content.bytes().take_while(u8::is_ascii_hexdigit).count();
    if digits == 64 { format!("{}{}", &content[..SHORT], &content[digits..]) } else { content.to_owned() }
}

impl Comparison {
    /// Whether there is something to do.
    pub(crate) fn differs(&self) -> bool {
        self.differs
    }

    /// What nothing is known of, so that it may differ.
    pub(crate) fn unknown(&self) -> Option<String> {
        if self.declared.is_some() && !self.source_read {
            return Some(format!("the source of {}", self.resource));
        }
        self.hosts.iter().find(|(_, side)| side.unknown.is_some()).map(|(id, _)| id.to_string())
    }

    /// For people.
    pub(crate) fn to_text(&self) -> String {
        let declared = self.declared.map(|number| format!("revision {number}"));
        let declared = declared.unwrap_or_else(|| "nothing that can be run".to_owned());
        let mut text = format!("{}: {declared} is declared\n", self.resource);
        for (id, side) in &self.hosts {
            text += &host_text(id, side);
        }
        for change in &self.changes {
            text += &change_text(change);
        }
        for problem in &self.problems {
            text += &format!("  {}\n", printable(problem));
        }
        match (self.differs, self.hosts.values().any(HostSide::differs)) {
            (true, false) => {
                text += &format!("  there is something to do; `windlass plan {}` tells it\n", self.resource);
            }
            (false, _) if self.unknown().is_none() => text += "  no difference\n",
            _ => {}
        }
        text
    }
}

fn host_text(id: &HostId, side: &HostSide) -> String {
    let told = |revision: Option<RevisionNumber>| {
        revision.map_or_else(|| "nothing".to_owned(), |revision| format!("revision {revision}"))
    };
    if let Some(why) = &side.unknown {
        return format!("  {id}: unknown ({})\n", printable(why));
    }
    let mut text = format!("  {id}: {}", told(side.running));
    if side.running != side.declared {
        text += &format!(" -> {}", told(side.declared));
    }
    text.push('\n');
    for drift in &side.drift {
        text += &format!("    drift: {}\n", printable(&drift.to_string()));
    }
    text
}

fn change_text(change: &Change) -> String {
    let Change { from, to, files, settings } = change;
    let mut text = format!("  revision {from} -> revision {to}:\n");
    match files {
        None => text += "    files: no host tells what is in the old release\n",
        Some(files) if files.is_empty() => text += "    files: the same\n",
        Some(files) => {
            for FileChange { path, old, new } in files {
                let side = |content: &Option<String>| content.as_deref().map_or("(none)".to_owned(), shortened);
                text += &format!("    {path}: {} -> {}\n", side(old), side(new));
            }
        }
    }
    match settings {
        None => text += "    settings: the old revision is recorded no more\n",
        Some(settings) if settings.is_empty() => text += "    settings: the same\n",
        Some(settings) => settings.iter().for_each(|field| text += &format!("    {field}\n")),
    }
    text
}

#[cfg(test)]
mod tests {
    use windlass_crds::digest::FileDigest;

    use super::*;

    fn manifest(files: &[(&str, &str)]) -> Manifest {
        let mut manifest = Manifest::default();
        for (path, text) in files {
            let entry =
                Entry::File { digest: FileDigest::of(text.as_bytes()), size: text.len() as u64, executable: false };
            manifest.entries.insert(path.parse().expect(path), entry);
        }
        manifest
    }

    #[test]
    fn files_are_compared_by_what_is_in_them() {
        let before = manifest(&[("gone", "a"), ("same", "b"), ("server.py", "c")]);
        let mut after = manifest(&[("new", "a"), ("same", "b"), ("server.py", "d")]);
        let link = "link".parse().expect("a path");
        after.entries.insert(link, Entry::Link { target: "same".to_owned() });
        let (from, to) = (RevisionNumber(1), RevisionNumber(2));
        let change = Change { from, to, files: Some(file_changes(&before, &after)), settings: Some(Vec::new()) };
        let of = |text: &str| FileDigest::of(text.as_bytes()).short();
        let (a, c, d) = (of("a"), of("c"), of("d"));
        assert_eq!(
            change_text(&change),
            format!(
                "  revision 1 -> revision 2:\n    gone: {a} -> (none)\n    link: (none) -> link to same\n    \
                 new: (none) -> {a}\n    server.py: {c} -> {d}\n    settings: the same\n"
            )
        );
    }

    #[test]
    fn what_a_host_says_cannot_move_the_cursor() {
        let drift = Drift::FilesChanged { paths: vec!["\u{1b}[2J".to_owned()] };
        let side = HostSide {
            running: None,
            declared: Some(RevisionNumber(2)),
            drift: BTreeSet::from([drift]),
            unknown: None,
        };
        let text = host_text(&"web1".parse().expect("a host"), &side);
        assert!(text.starts_with("  web1: nothing -> revision 2\n    drift: files were changed: "), "{text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
        assert!(side.differs());
    }
}
