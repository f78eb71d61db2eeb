//! What a host's lines mean. Strict: what does not follow the form is an error, never a guess.

use std::collections::{BTreeMap, BTreeSet};

use windlass_crds::digest::{PayloadDigest, ReleaseDigest, UnitDigest};
use windlass_crds::id::{RevisionNumber, Sequence};
use windlass_crds::manifest::Manifest;
use windlass_crds::observation::{
    ActiveState, Drift, HostFacts, HostObservation, Listener, RunState, Sample, Scope, ServiceObservation, StepRecord,
    StepState, UnitFile,
};
use windlass_crds::step::{ContactError, StepError, Verb};

use super::shell::{Answer, Hello};
use crate::fleet::Order;

/// At most so many changed files are told.
const MOST_CHANGED: usize = 10;

/// A line that is not the script's.
fn garbled(line: &str) -> ContactError {
    ContactError::Garbled { detail: line.chars().take(300).collect() }
}

/// `text` as a value, or the line as the reason why not.
fn read<T: std::str::FromStr>(text: &str, line: &str) -> Result<T, ContactError> {
    text.parse().map_err(|_| garbled(line))
}

/// The exit code of a confirmation that has to come by a login that was made after the switch.
pub(crate) const NEEDS_LOGIN: i32 = 52;

/// Everything that the verb had to say about its failure.
fn detail(answer: &Answer) -> String {
    let said = answer.lines.iter().filter_map(|line| line.strip_prefix("err ")).filter(|line| !line.trim().is_empty());
    let text = said.map(without_script).collect::<Vec<_>>().join("; ");
    let replayed = answer.lines.iter().any(|line| line == "replayed");
    match (text.is_empty(), replayed) {
        (_, true) => "as recorded when it was tried before".to_owned(),
        (true, false) => "the host gave no reason".to_owned(),
        (false, false) => text,
    }
}

/// A complaint of the shell's without the script's own place, which tells people nothing:
/// `/opt/windlass/bin/<digest>: 83: cannot create …`.
fn without_script(line: &str) -> &str {
    let Some((script, rest)) = line.split_once(": ") else { return line };
    let ours = script.rsplit_once("/bin/").is_some_and(|(_, name)| name.parse::<PayloadDigest>().is_ok());
    let number = |text: &str| text.trim_start_matches("line ").bytes().all(|byte| byte.is_ascii_digit());
    match rest.split_once(": ") {
        Some((place, complaint)) if ours && number(place) => complaint,
        _ => line,
    }
}

/// The rest of the first line that begins with `key`.
fn value<'a>(answer: &'a Answer, key: &str) -> Option<&'a str> {
    answer.lines.iter().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
}

/// Why a verb that changes something failed; `None` where it did not.
pub(crate) fn failure(answer: &Answer, ours: Sequence, revision: RevisionNumber) -> Option<StepError> {
    let garbled = |what: &str| StepError::Contact { error: garbled(what) };
    Some(match answer.code {
        0 => return None,
        40 => match value(answer, "owner").and_then(|owner| owner.parse().ok()) {
            Some(owner) => StepError::OwnedByAnother { owner },
            None => garbled("a refusal without the owner"),
        },
        41 => match value(answer, "superseded").and_then(|theirs| theirs.parse().ok()) {
            Some(theirs) => StepError::Superseded { ours, theirs },
            None => garbled("a refusal without the sequence"),
        },
        42 => StepError::Locked,
        43 => StepError::TimedOut { detail: detail(answer) },
        47 => StepError::NotStaged { revision, detail: detail(answer) },
        48 | NEEDS_LOGIN => StepError::NotActivated { revision, detail: detail(answer) },
        51 => StepError::Voided { revision },
        49 => StepError::StartFailed { detail: start_failure(answer) },
        code => file_failure(code, detail(answer)),
    })
}

/// Why files could not be written. A disk that is full, or read-only, comes first: to the script it looks as if what
/// was sent were damaged, or what it builds on not there.
fn file_failure(code: i32, detail: String) -> StepError {
    if detail.contains("No space left") || detail.contains("Disk quota exceeded") {
        return StepError::NoSpace { detail };
    }
    if detail.contains("Read-only file system") {
        return StepError::ReadOnly { detail };
    }
    match code {
        45 => StepError::Damaged { detail },
        46 => StepError::Base { detail },
        code => StepError::Failed { code, detail },
    }
}

/// As [`failure`], for a step.
pub(crate) fn step_failure(answer: &Answer, order: &Order) -> Option<StepError> {
    failure(answer, order.stamp.sequence, order.step.revision().unwrap_or_default())
}

/// What systemctl said of a start, and what the unit says.
fn start_failure(answer: &Answer) -> String {
    let fields: Vec<&str> = answer.lines.iter().map(String::as_str).filter(|line| is_property(line)).collect();
    if fields.is_empty() { detail(answer) } else { format!("{} ({})", detail(answer), fields.join(", ")) }
}

/// Whether a line is one of systemctl's: `Key=Value`.
fn is_property(line: &str) -> bool {
    line.split_once('=').is_some_and(|(key, _)| {
        !key.is_empty()
            && key.starts_with(|c: char| c.is_ascii_uppercase())
            && key.bytes().all(|b| b.is_ascii_alphanumeric())
    })
}

/// systemctl's lines, by key.
fn properties(answer: &Answer) -> BTreeMap<&str, &str> {
    answer.lines.iter().filter(|line| is_property(line)).filter_map(|line| line.split_once('=')).collect()
}

/// What systemd says of the unit.
fn run_state(answer: &Answer) -> Result<RunState, ContactError> {
    let properties = properties(answer);
    let get = |key: &str| properties.get(key).copied().ok_or_else(|| garbled(&format!("no {key}")));
    let number = |key: &str| get(key).and_then(|text| if text.is_empty() { Ok(0) } else { read::<u64>(text, text) });
    let small = |key: &str| number(key).map(|number| u32::try_from(number).unwrap_or(u32::MAX));
    Ok(RunState {
        active: match get("ActiveState")? {
            "active" => ActiveState::Active,
            "reloading" => ActiveState::Reloading,
            "inactive" => ActiveState::Inactive,
            "failed" => ActiveState::Failed,
            "activating" => ActiveState::Activating,
            "deactivating" => ActiveState::Deactivating,
            _ => ActiveState::Unknown,
        },
        sub: get("SubState")?.to_owned(),
        pid: Some(small("MainPID")?).filter(|pid| *pid != 0),
        since: number("ActiveEnterTimestampMonotonic")?,
        restarts: small("NRestarts")?,
        result: get("Result")?.to_owned(),
        exit_status: i32::try_from(number("ExecMainStatus")?).unwrap_or(i32::MAX),
        needs_reload: get("NeedDaemonReload")? == "yes",
        enabled: get("UnitFileState")? == "enabled",
    })
}

/// What a first look collects before it is put together.
#[derive(Default)]
struct Look {
    service: ServiceObservation,
    cluster: Option<String>,
    last: String,
    installed: Option<String>,
    unit_changed: bool,
    changed: BTreeSet<String>,
}

/// Reads the answer of `observe`.
pub(crate) fn observation(answer: &Answer, hello: &Hello, folder: &str) -> Result<HostObservation, ContactError> {
    let mut look = Look::default();
    for line in &answer.lines {
        look.line(line, folder)?;
    }
    let run = run_state(answer)?;
    let properties = properties(answer);
    let Look { mut service, cluster, last, installed, unit_changed, changed } = look;
    let missing = |what: &str| garbled(&format!("a look without {what}"));
    service.unit = match installed.as_deref() {
        None => return Err(missing("the unit")),
        Some("") => UnitFile::Absent,
        Some("-") => UnitFile::Foreign,
        Some(number) if unit_changed => UnitFile::Changed(read(number, number)?),
        Some(number) => UnitFile::Revision(read(number, number)?),
    };
    service.present |= service.unit != UnitFile::Absent;
    let releases = service.releases.clone();
    service.revisions.retain(|_, release| releases.contains(release));
    if unit_changed || service.unit == UnitFile::Foreign {
        service.drift.insert(Drift::UnitChanged);
    }
    if !changed.is_empty() {
        service.drift.insert(Drift::FilesChanged { paths: changed.into_iter().take(MOST_CHANGED).collect() });
    }
    let drop_ins = drop_ins(properties.get("DropInPaths").copied().unwrap_or_default());
    if !drop_ins.is_empty() {
        service.drift.insert(Drift::DropIn { paths: drop_ins });
    }
    if service.unit.revision().is_some() {
        if !run.enabled {
            service.drift.insert(Drift::NotEnabled);
        }
        // Where the fence was lost, there is no record that we did.
        let by_us = matches!(last.as_str(), "stop" | "remove");
        if matches!(run.active, ActiveState::Inactive | ActiveState::Failed) && !by_us {
            service.drift.insert(Drift::Stopped);
        }
    }
    service.run = run;
    let facts = HostFacts {
        machine: read(&hello.machine, &hello.machine)?,
        boot: read(&hello.boot, &hello.boot)?,
        scope: scope(hello)?,
        user: hello.user.clone(),
        cluster: cluster.map(|id| read(&id, &id)).transpose()?,
        remote_dir: hello.dir.clone(),
        systemd: hello.systemd.split('.').next().and_then(|text| text.parse().ok()).unwrap_or_default(),
    };
    Ok(HostObservation { facts, service })
}

/// Drop-ins that somebody made for this unit, and not those that a distribution ships for every service.
fn drop_ins(paths: &str) -> Vec<String> {
    let shipped = |path: &&str| path.starts_with("/usr/lib/") || path.starts_with("/lib/");
    paths.split_ascii_whitespace().filter(|path| !shipped(path)).map(str::to_owned).collect()
}

/// Whose systemd.
pub(crate) fn scope(hello: &Hello) -> Result<Scope, ContactError> {
    match hello.scope.as_str() {
        "system" => Ok(Scope::System),
        "user" => Ok(Scope::User),
        other => Err(garbled(other)),
    }
}

impl Look {
    fn line(&mut self, line: &str, folder: &str) -> Result<(), ContactError> {
        if is_property(line) || line.is_empty() {
            return Ok(());
        }
        let (key, rest) = line.split_once(' ').unwrap_or((line, ""));
        match key {
            "present" => self.service.present = true,
            "release" => _ = self.service.releases.insert(read(rest, line)?),
            "good" => self.service.good = Some(read(rest, line)?),
            "incoming" => self.service.incoming = Some(incoming(rest).ok_or_else(|| garbled(line))?),
            "installed" => self.installed = Some(rest.to_owned()),
            "drift" if rest == "unit" => self.unit_changed = true,
            "drift" if rest == "revision" => _ = self.service.drift.insert(Drift::RevisionChanged),
            "changed" => _ = self.changed.insert(rest.to_owned()),
            _ => self.file(line, folder)?,
        }
        Ok(())
    }

    /// A line that grep wrote: a path, a colon, and a line of that file.
    fn file(&mut self, line: &str, folder: &str) -> Result<(), ContactError> {
        let (path, text) = line.split_once(':').ok_or_else(|| garbled(line))?;
        if path == "cluster" {
            self.cluster = Some(text.to_owned());
        } else if let Some(record) = path.strip_prefix("fence/").and_then(|path| path.strip_prefix(folder)) {
            match record {
                "/seq" => {
                    self.service.sequence = read(text, line)?;
                    if self.service.sequence.0 > HIGHEST_SEQUENCE {
                        return Err(garbled(line));
                    }
                }
                "/last" => text.trim_end().clone_into(&mut self.last),
                _ => {
                    let verb = record.strip_prefix("/steps/").and_then(verb).ok_or_else(|| garbled(line))?;
                    if let Some(record) = step_record(text).ok_or_else(|| garbled(line))? {
                        self.service.steps.insert(verb, record);
                    }
                }
            }
        } else {
            let revision = path
                .strip_prefix(folder)
                .and_then(|path| path.strip_prefix("/revisions/")?.strip_suffix("/seal"))
                .ok_or_else(|| garbled(line))?;
            let release = text.split(' ').next().unwrap_or_default();
            self.service.revisions.insert(read(revision, line)?, read(release, line)?);
            if let Some((_, sums)) = text.split_once(' ') {
                self.service.units.insert(UnitDigest::of(sums.as_bytes()));
            }
        }
        Ok(())
    }
}

/// A sequence above this was not drawn by any store: taken over into the counter, which is never lowered, it would
/// leave no room for further ones.
const HIGHEST_SEQUENCE: u64 = 1 << 48;

fn verb(name: &str) -> Option<Verb> {
    Verb::ALL.into_iter().find(|verb| verb.as_str() == name)
}

/// A record of a step: `None` inside where there was none yet.
fn step_record(text: &str) -> Option<Option<StepRecord>> {
    let mut words = text.split_ascii_whitespace();
    let sequence = words.next()?.parse().ok()?;
    let state = words.next()?;
    let code = words.next()?.parse().ok()?;
    let revision = words.next()?.parse().ok()?;
    let state = match state {
        "none" => return Some(None),
        "begun" => StepState::Begun,
        "ok" => StepState::Ok,
        "fail" => StepState::Failed(code),
        "void" => StepState::Voided,
        _ => return None,
    };
    Some(Some(StepRecord { sequence, revision, state }))
}

/// Reads the answer of `stamp`: the host's records of steps.
pub(crate) fn records(answer: &Answer) -> Result<BTreeMap<Verb, StepRecord>, ContactError> {
    let mut records = BTreeMap::new();
    for line in answer.lines.iter().filter(|line| !line.is_empty()) {
        let read = || {
            let (name, text) = line.strip_prefix("step ")?.split_once(' ')?;
            Some((verb(name)?, step_record(text)?))
        };
        let (verb, record) = read().ok_or_else(|| garbled(line))?;
        records.extend(record.map(|record| (verb, record)));
    }
    Ok(records)
}

/// The digest and the length of what has arrived, from the length and the path of the part.
fn incoming(text: &str) -> Option<(PayloadDigest, u64)> {
    let (length, path) = text.split_once(' ')?;
    let name = path.rsplit('/').next()?;
    Some((name.split('.').next()?.parse().ok()?, length.parse().ok()?))
}

/// What a host has that a stage can build on.
#[derive(Debug, Default)]
pub(crate) struct Have {
    /// This very stage is done.
    pub(crate) staged: bool,
    /// The interpreter's path; empty where there is none.
    pub(crate) program: Option<String>,
    /// Releases that are there.
    pub(crate) releases: BTreeSet<ReleaseDigest>,
    /// Units that are there.
    pub(crate) units: BTreeSet<UnitDigest>,
    /// The release that is wanted is there, and these of its paths are damaged.
    pub(crate) damaged: Option<BTreeSet<String>>,
    /// Payloads that have arrived in part.
    pub(crate) incoming: BTreeMap<PayloadDigest, u64>,
}

/// Reads the answer of `have`.
pub(crate) fn have(answer: &Answer) -> Result<Have, ContactError> {
    let mut have = Have::default();
    for line in &answer.lines {
        let (key, rest) = line.split_once(' ').unwrap_or((line, ""));
        match key {
            "staged" => have.staged = true,
            "program" => have.program = Some(rest.to_owned()),
            "release" => _ = have.releases.insert(read(rest, line)?),
            "verified" => have.damaged = Some(BTreeSet::new()),
            "damaged" => _ = have.damaged.get_or_insert_default().insert(rest.to_owned()),
            "incoming" => {
                let (digest, length) = incoming(rest).ok_or_else(|| garbled(line))?;
                have.incoming.insert(digest, length);
            }
            "present" | "good" | "err" => {}
            _ => return Err(garbled(line)),
        }
    }
    Ok(have)
}

/// Reads the answer of `sample`.
pub(crate) fn sample(answer: &Answer, hello: &Hello) -> Result<Sample, ContactError> {
    let uptime = value(answer, "uptime").ok_or_else(|| garbled("a sample without the uptime"))?;
    let (seconds, hundredths) = uptime.split_once('.').ok_or_else(|| garbled(uptime))?;
    let listener = match value(answer, "listener") {
        None => None,
        Some("nobody") => Some(Listener::Nobody),
        Some("ours") => Some(Listener::Ours),
        Some("another") => Some(Listener::Another),
        Some("hidden") => Some(Listener::Hidden),
        Some(other) => return Err(garbled(other)),
    };
    let monotonic = read::<u64>(seconds, uptime)? * 1_000_000 + read::<u64>(hundredths, uptime)? * 10_000;
    let voided = answer.lines.iter().any(|line| line == "voided");
    Ok(Sample { boot: read(&hello.boot, &hello.boot)?, run: run_state(answer)?, monotonic, listener, voided })
}

/// Reads the answer of `logs`.
pub(crate) fn logs(answer: &Answer) -> Vec<String> {
    answer.lines.iter().filter_map(|line| line.strip_prefix("log ")).map(str::to_owned).collect()
}

/// Reads the answer of `manifest`. What is not the release that was asked for is worth nothing.
pub(crate) fn manifest(answer: &Answer, release: &ReleaseDigest) -> Result<Option<Manifest>, ContactError> {
    if !answer.lines.iter().any(|line| line == "held") {
        return Ok(None);
    }
    let lines = answer.lines.iter().filter_map(|line| line.strip_prefix("entry "));
    let text: String = lines.flat_map(|line| [line, "\n"]).collect();
    if ReleaseDigest::of(text.as_bytes()) != *release {
        let detail = format!("the manifest of release {} was changed there", release.short());
        return Err(ContactError::Garbled { detail });
    }
    let manifest = Manifest::from_text(&text);
    manifest.map(Some).map_err(|error| ContactError::Garbled { detail: error.to_string() })
}

/// Why a look failed that changes nothing.
pub(crate) fn look_failure(answer: &Answer) -> Option<ContactError> {
    (answer.code != 0)
        .then(|| ContactError::Garbled { detail: format!("exit code {}: {}", answer.code, detail(answer)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_as_one_wherever_it_shows() {
        let full = "err cp: cannot create hard link 'files/a': No space left on device";
        for (code, line, expected) in [
            (1, full, "no space left"),
            (45, "err tar: files/a: Cannot write: No space left on device", "no space left"),
            (46, full, "no space left"),
            (46, "err cp: cannot create directory 'files': Read-only file system", "the file system is read-only"),
            (45, "err the payload ended early", "damaged on arrival"),
            (46, "err cannot link to the release", "the base release"),
        ] {
            let error = failure(&Answer { lines: vec![line.to_owned()], code }, Sequence(1), RevisionNumber(1));
            let told = error.expect("it failed").to_string();
            assert!(told.starts_with(expected), "{code} {line}: {told}");
        }
    }

    /// Nobody drew it, and a store that took it over would have no room for its own.
    #[test]
    fn a_sequence_that_nobody_drew_is_not_believed() {
        for (sequence, believed) in [(0, true), (7, true), (1 << 48, true), ((1 << 48) + 1, false), (u64::MAX, false)] {
            let mut look = Look::default();
            let read = look.line(&format!("fence/default.web/seq:{sequence:020}"), "default.web");
            assert_eq!(read.is_ok(), believed, "{sequence}: {read:?}");
            assert!(!believed || look.service.sequence == Sequence(sequence), "{sequence}");
        }
    }

    #[test]
    fn complaints_are_told_without_the_scripts_own_place() {
        let script = format!("/opt/windlass/bin/{}", "ab".repeat(32));
        for (line, expected) in [
            (
                format!("{script}: 83: cannot create /x/lock: Read-only file system"),
                "cannot create /x/lock: Read-only file system",
            ),
            (format!("{script}: line 83: /x: No space left on device"), "/x: No space left on device"),
            ("mkdir: cannot create directory: File exists".to_owned(), "mkdir: cannot create directory: File exists"),
            ("/srv/bin/tool: 83: no".to_owned(), "/srv/bin/tool: 83: no"),
        ] {
            assert_eq!(without_script(&line), expected);
        }
        let answer =
            Answer { lines: vec![format!("err {script}: 83: cannot create /x: Read-only file system")], code: 2 };
        let error = failure(&answer, Sequence(1), RevisionNumber(1)).expect("it failed");
        assert_eq!(
            error.to_string(),
            "the file system is read-only: cannot create /x: Read-only file system; mount it for writing, or say another remoteDir"
        );
    }
}
