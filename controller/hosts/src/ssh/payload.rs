//! What travels to a host in a stage: one deterministic tar of what the nearest release there lacks.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};
use windlass_crds::digest::{FileDigest, PayloadDigest, ReleaseDigest, UnitDigest};
use windlass_crds::manifest::{Entry, Manifest, ReleasePath, line, mtime};

use crate::fleet::ContentPath;

/// What tar needs for one more file, beside its contents.
const HEADER_BYTES: u64 = 1024;

/// Modification time of what describes a payload; the same always, so that the same payload has the same digest.
const META_MTIME: u64 = 1_000_000_000;

/// Begins the name of every payload. Another layout gets another one, so that no upload is ever continued in it.
const FORM: &str = "payload 3\n";

/// What a release is built on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Base {
    /// The release is there and whole; only the revision is new.
    Keep,
    /// Nothing that is there helps.
    Nothing,
    /// A release that is there, and those of its paths that are not to be trusted.
    Release(ReleaseDigest, BTreeSet<String>),
}

impl Base {
    /// As the host script reads it.
    pub(crate) fn word(&self) -> String {
        match self {
            Self::Keep => "keep".to_owned(),
            Self::Nothing => "-".to_owned(),
            Self::Release(digest, _) => digest.to_string(),
        }
    }
}

/// Whether a path must travel although the base may have it.
///
/// Links always travel: they cost nothing, and their times differ from host to host.
fn must_travel(path: &ReleasePath, entry: &Entry, base: &Manifest, damaged: &BTreeSet<String>) -> bool {
    matches!(entry, Entry::Link { .. })
        || base.entries.get(path) != Some(entry)
        || damaged.contains(path.as_str())
        // A folder that was replaced takes everything in it along.
        || damaged.iter().any(|folder| path.as_str().strip_prefix(folder.as_str()).is_some_and(|rest| rest.starts_with('/')))
}

/// How many bytes have to travel to build `manifest` on `base`.
pub(crate) fn cost(manifest: &Manifest, base: &Manifest) -> u64 {
    let nothing = BTreeSet::new();
    let travels = manifest.entries.iter().filter(|(path, entry)| must_travel(path, entry, base, &nothing));
    travels.map(|(_, entry)| HEADER_BYTES + if let Entry::File { size, .. } = entry { *size } else { 0 }).sum()
}

/// What a unit and its environment say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Texts {
    /// The unit.
    pub(crate) unit: String,
    /// The environment.
    pub(crate) environment: String,
}

impl Texts {
    /// The SHA-256 of each, as the seal of a revision has them.
    pub(crate) fn sums(&self) -> String {
        let sum = |text: &str| PayloadDigest::of(text.as_bytes()).to_string();
        format!("{} {}", sum(&self.unit), sum(&self.environment))
    }

    /// What they are known by.
    pub(crate) fn digest(&self) -> UnitDigest {
        UnitDigest::of(self.sums().as_bytes())
    }
}

/// A payload before it is written: what is in it, in order.
pub(crate) struct Payload {
    meta: Vec<(String, String)>,
    files: Vec<(ReleasePath, FileDigest, u64, bool)>,
    links: Vec<(ReleasePath, String)>,
    /// What it is to become.
    release: ReleaseDigest,
    /// Whether something of the base has to go first.
    thins: bool,
    contents: ContentPath,
}

/// A payload's name and length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seal {
    /// SHA-256 of what is in it.
    pub(crate) digest: PayloadDigest,
    /// Bytes.
    pub(crate) length: u64,
}

impl Payload {
    /// Collects what has to travel; `texts` where they do.
    pub(crate) fn new(
        manifest: &Manifest,
        base: &Base,
        base_manifest: Option<&Manifest>,
        texts: Option<Texts>,
        contents: ContentPath,
    ) -> Self {
        let mut meta: Vec<(String, String)> = Vec::new();
        let (mut files, mut links) = (Vec::new(), Vec::new());
        let text = manifest.to_text();
        let release = ReleaseDigest::of(text.as_bytes());
        let mut thins = false;
        if *base != Base::Keep {
            let empty = (Manifest::default(), BTreeSet::new());
            let (from, damaged) = match (base, base_manifest) {
                (Base::Release(_, damaged), Some(from)) => (from, damaged),
                _ => (&empty.0, &empty.1),
            };
            for (path, entry) in &manifest.entries {
                if !must_travel(path, entry, from, damaged) {
                    continue;
                }
                match entry {
                    Entry::File { digest, size, executable } => {
                        files.push((path.clone(), *digest, *size, *executable));
                    }
                    Entry::Link { target } => links.push((path.clone(), target.clone())),
                }
            }
            if let Base::Release(..) = base {
                let removed = removed(from, manifest, damaged);
                thins |= !removed.is_empty() || from.entries.values().any(|entry| matches!(entry, Entry::Link { .. }));
                if !removed.is_empty() {
                    meta.push(("meta/removed".to_owned(), removed));
                }
                meta.push(("meta/edit".to_owned(), edit(from, manifest)));
            } else {
                meta.push((format!("meta/{release}.manifest"), text));
            }
        }
        if let Some(Texts { unit, environment }) = texts {
            meta.push(("revision/unit".to_owned(), unit));
            meta.push(("revision/env".to_owned(), environment));
        }
        Self { meta, files, links, release, thins, contents }
    }

    /// What it has of the release, as the host script reads it.
    pub(crate) fn files(&self) -> &'static str {
        match (self.files.len() + self.links.len(), self.thins) {
            (_, true) => "other",
            (0, false) => "none",
            (_, false) => "more",
        }
    }

    /// Its name and its length, before the first byte travels. Files are told by their digests, and not read: the host
    /// holds what arrives against the manifest, whose digest is the release.
    ///
    /// # Errors
    /// When the contents of a file are not where they should be, or not as long.
    pub(crate) fn seal(&self) -> io::Result<Seal> {
        let mut length = Length(0);
        self.write(&mut length, |_, size| Ok(io::repeat(0).take(size)))?;
        let mut name = Sha256::new();
        name.update(FORM);
        for (name_of, text) in &self.meta {
            name.update(format!("{name_of} {}\n{text}", text.len()));
        }
        for (path, digest, size, executable) in &self.files {
            name.update(line(path, &Entry::File { digest: *digest, size: *size, executable: *executable }));
            self.open(path, digest, *size)?;
        }
        for (path, target) in &self.links {
            name.update(line(path, &Entry::Link { target: target.clone() }));
        }
        name.update(self.release.to_string());
        Ok(Seal { digest: PayloadDigest::finish(name), length: length.0 })
    }

    /// Writes the tar.
    ///
    /// # Errors
    /// When the contents of a file are not where they should be, or not as long, or `out` takes no more.
    pub(crate) fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        self.write(out, |(path, digest), size| Ok(self.open(path, digest, size)?.take(size)))
    }

    /// The contents of a file.
    fn open(&self, path: &ReleasePath, digest: &FileDigest, size: u64) -> io::Result<File> {
        let place = (self.contents)(digest);
        let wrong = |error: io::Error| {
            io::Error::new(error.kind(), format!("the contents of {path} are not in {}: {error}", place.display()))
        };
        let file = File::open(&place).map_err(wrong)?;
        match file.metadata().map_err(wrong)?.len() == size {
            true => Ok(file),
            false => Err(wrong(io::Error::new(io::ErrorKind::InvalidData, "the size differs"))),
        }
    }

    /// Writes the tar, with these contents for each file.
    fn write<R: Read>(
        &self,
        out: &mut dyn Write,
        contents: impl Fn((&ReleasePath, &FileDigest), u64) -> io::Result<R>,
    ) -> io::Result<()> {
        let mut tar = tar::Builder::new(out);
        for (name, text) in &self.meta {
            // The environment may hold what only the service is to see.
            let mode = if name == "revision/env" { 0o600 } else { 0o644 };
            let mut header = header(text.len() as u64, mode, META_MTIME);
            tar.append_data(&mut header, name, text.as_bytes())?;
        }
        for (path, digest, size, executable) in &self.files {
            let mode = if *executable { 0o555 } else { 0o444 };
            let mut header = header(*size, mode, mtime(digest));
            tar.append_data(&mut header, format!("files/{path}"), contents((path, digest), *size)?)?;
        }
        // Last, so that no file is ever written through a link. The revision's link to its release is among them, since
        // a process there costs more than its half a kilobyte.
        let release = ("revision/release".to_owned(), format!("../../releases/{}", self.release));
        let links = self.links.iter().map(|(path, target)| (format!("files/{path}"), target.clone()));
        for (path, target) in links.chain([release]) {
            let mut header = header(0, 0o777, META_MTIME);
            header.set_entry_type(tar::EntryType::Symlink);
            tar.append_link(&mut header, path, target)?;
        }
        tar.finish()
    }
}

/// A header that is the same on every controller.
fn header(size: u64, mode: u32, mtime: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(mtime);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// The paths that a host takes off its copy of the base, each with a NUL behind it: what is not in the new release, and
/// what is damaged. Files that changed are not among them: tar takes each away before it writes the new one.
fn removed(base: &Manifest, manifest: &Manifest, damaged: &BTreeSet<String>) -> String {
    let gone = base.entries.keys().filter(|path| !manifest.entries.contains_key(path)).map(ReleasePath::as_str);
    let damaged = damaged.iter().map(String::as_str).filter(|path| !path.is_empty());
    let paths: BTreeSet<&str> = gone.chain(damaged).collect();
    paths.iter().map(|path| format!("{path}\0")).collect()
}

/// What makes the new manifest's text out of the base's, as the host script reads it: `<number> d` takes a line of the
/// base away, `<number> i <line>` puts one before it, `0 a <line>` at the end. Lines count from 1.
fn edit(base: &Manifest, manifest: &Manifest) -> String {
    let mut new = manifest.entries.iter().peekable();
    let mut text = String::new();
    for (index, (path, old)) in base.entries.iter().enumerate() {
        let number = index + 1;
        while let Some((added, entry)) = new.next_if(|(candidate, _)| *candidate < path) {
            text.push_str(&format!("{number} i {}\n", line(added, entry)));
        }
        match new.next_if(|(candidate, _)| *candidate == path) {
            Some((_, entry)) if entry == old => {}
            Some((path, entry)) => text.push_str(&format!("{number} d\n{number} i {}\n", line(path, entry))),
            None => text.push_str(&format!("{number} d\n")),
        }
    }
    for (path, entry) in new {
        text.push_str(&format!("0 a {}\n", line(path, entry)));
    }
    text
}

/// Counts what is written to it.
struct Length(u64);

impl Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn manifest(files: &[(&str, &str)]) -> Manifest {
        let entry = |text: &str| Entry::File {
            digest: FileDigest::of(text.as_bytes()),
            size: text.len() as u64,
            executable: false,
        };
        Manifest { entries: files.iter().map(|(path, text)| (path.parse().expect(path), entry(text))).collect() }
    }

    /// The program that reads an edit on hosts.
    fn program() -> &'static str {
        let (_, rest) = crate::ssh::shell::HOST_SCRIPT.split_once("\ncompare='").expect("the program");
        rest.split_once("}'\n").map(|(program, _)| program).expect("its end")
    }

    /// What reads an edit is an awk program of the host script: every awk that a host may have is tried.
    #[test]
    fn an_edit_makes_one_manifest_of_another() {
        let bases = [
            manifest(&[("a", "1")]),
            manifest(&[("a", "1"), ("b", "2"), ("c", "3")]),
            manifest(&[("b", "2"), ("c", "other"), ("d", "4"), ("z z", "5")]),
            manifest(&[("0", "1"), ("b", "2"), ("ba", "2"), ("bb", "2"), ("x", "9"), ("y", "9")]),
        ];
        let dir = tempfile::tempdir().expect("a folder");
        let file = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).expect("writing");
            name.to_owned()
        };
        let program = format!("{}}}", program());
        for base in &bases {
            for wanted in &bases {
                let listing = wanted.entries.iter().map(|(path, entry)| {
                    line(path, entry).splitn(4, ' ').take(3).collect::<Vec<_>>().join(" ") + &format!(" ./{path}\n")
                });
                let listing = file("list", &listing.collect::<String>());
                let (edit, base_text) = (file("edit", &edit(base, wanted)), file("base", &base.to_text()));
                for awk in [&["awk"][..], &["busybox", "awk"]] {
                    let mut command = Command::new(awk[0]);
                    command.args(&awk[1..]).arg(&program).current_dir(&dir);
                    command.args(["new=new", "part=edit", &edit, "part=base", "vouches=1", &base_text]);
                    let output = command.args(["part=found", &listing]).output().expect("awk");
                    let said = String::from_utf8_lossy(&output.stderr).into_owned();
                    assert!(output.status.success(), "{awk:?}: {said}");
                    let made = std::fs::read_to_string(dir.path().join("new")).expect("a manifest");
                    assert_eq!(made, wanted.to_text(), "{awk:?}");
                    // What the base has not is hashed, and nothing else.
                    let hashed = String::from_utf8_lossy(&output.stdout).lines().count();
                    let news = wanted.entries.iter().filter(|(path, entry)| base.entries.get(*path) != Some(*entry));
                    assert_eq!(hashed, news.count(), "{awk:?}");
                }
            }
        }
    }

    #[test]
    fn a_payload_is_the_same_each_time() {
        let directory = tempfile::tempdir().expect("a folder");
        let wanted = manifest(&[("a", "1"), ("b", "2")]);
        for text in ["1", "2"] {
            std::fs::write(directory.path().join(FileDigest::of(text.as_bytes()).to_string()), text).expect("writing");
        }
        let path = directory.path().to_owned();
        let contents: ContentPath = std::sync::Arc::new(move |digest| path.join(digest.to_string()));
        let make = |base: Base, from: Option<&Manifest>| {
            let texts = Texts { unit: "unit".to_owned(), environment: "env".to_owned() };
            Payload::new(&wanted, &base, from, Some(texts), contents.clone()).seal().expect("a seal")
        };
        let all = make(Base::Nothing, None);
        assert_eq!(all, make(Base::Nothing, None));
        let base = manifest(&[("a", "1"), ("c", "3")]);
        let nearer = make(Base::Release(base.digest(), BTreeSet::new()), Some(&base));
        assert_ne!(all, nearer);
        assert!(make(Base::Keep, None).length < nearer.length);
    }
}
