//! What shall be: the declaration that is in force, its files, and the hosts that it is placed on.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use windlass_crds::condition::Reason;
use windlass_crds::document::Declaration;
use windlass_crds::host::Target;
use windlass_crds::id::{Generation, HostId, ServiceKey};
use windlass_crds::manifest::{Entry, Manifest};
use windlass_crds::problem::Problem;
use windlass_crds::record::{Accepted, Owned, SourceOrigin};
use windlass_crds::security::{default_at, transport, zone_of};
use windlass_crds::service::{Install, Order, ServiceSpec, Source, Transport};
use windlass_hosts::fleet::Fleet;
use windlass_planner::input::{Complaint, Files, Placement};
use windlass_sources::{Release, ScanMode, SourceError, SourceTree};

use crate::cache::{ServiceView, Surroundings};
use crate::controller::{Controller, Memory, Scan};

/// How long a name may take to resolve.
const RESOLVE: Duration = Duration::from_secs(3);

/// A tree that keeps changing is complained about when it has not settled so often in a row.
const UNSETTLED: u32 = 3;

/// A tree that never settles is looked at again after this at the latest: each look reads what has changed.
const UNSETTLED_PAUSE: Duration = Duration::from_secs(60);

/// Files at the root of a release that ask for dependencies to be installed.
const DEPENDENCY_FILES: [&str; 4] = ["requirements.txt", "package-lock.json", "go.mod", "Cargo.toml"];

/// Which declaration is in force; `None` where none ever made sense.
pub fn in_force(view: &ServiceView) -> (Option<Accepted>, Option<Complaint>) {
    let before = view.owned.as_ref().and_then(|owned| owned.value.accepted.clone());
    let Some(read) = &view.declared else { return (before, None) };
    match read.parsed.as_deref() {
        Ok(Declaration::Service(service)) => {
            let generation = windlass_crds::id::Generation(read.at.0);
            (Some(Accepted { generation, spec: service.spec.clone() }), None)
        }
        Ok(_) => (before, None),
        Err(problems) => (before, Some(complaint(problems))),
    }
}

/// Everything that is wrong with a declaration, as one complaint.
pub fn complaint(problems: &[Problem]) -> Complaint {
    let reason = problems.first().map_or(Reason::InvalidDeclaration, |problem| problem.reason);
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    Complaint { reason, message: lines.join("\n") }
}

impl<F: Fleet> Controller<F> {
    /// Whether the source has to be looked at, and why.
    pub fn scan_due(accepted: &Accepted, memory: &Memory, asked: bool) -> Option<ScanMode> {
        let interval = accepted.spec.source.change_detection.interval.duration();
        match memory.scan.as_ref().filter(|scan| scan.generation == accepted.generation.0) {
            // Somebody has just declared it, and has finished editing.
            None => Some(ScanMode::Ask),
            Some(_) if asked => Some(ScanMode::Ask),
            // What a commit holds is in its name.
            Some(scan) if accepted.spec.source.repo.is_some() && scan.trouble.is_none() => None,
            Some(scan) if scan.at.elapsed() >= pause(interval, scan) => Some(ScanMode::Interval),
            Some(_) => None,
        }
    }

    /// Looks at the source of a declaration; `before` is what was found last.
    pub async fn scan(&self, accepted: &Accepted, mode: ScanMode, before: Option<Scan>) -> Option<Scan> {
        let Source { path, git: _, repo, include, exclude, change_detection: _ } = &accepted.spec.source;
        if let Some(tree) = repo {
            let found = self.sources.repo_release(tree, include, exclude).await;
            return Some(digest_scan(found, accepted.generation.0, before.as_ref()));
        }
        let tree =
            SourceTree { root: PathBuf::from(path.as_ref()?), include: include.clone(), exclude: exclude.clone() };
        let last = before.as_ref().and_then(|scan| scan.found.as_ref()).map(|release| release.digest);
        let found = self.sources.release(&tree, mode, last.as_ref()).await;
        Some(digest_scan(found, accepted.generation.0, before.as_ref()))
    }

    /// The files that a declaration shall run, by the last look at its source.
    pub fn files(
        &self,
        key: &ServiceKey,
        accepted: &Accepted,
        view: &ServiceView,
        memory: &Memory,
    ) -> (Files, Option<Complaint>) {
        let Source { path, repo, .. } = &accepted.spec.source;
        let Some(place) = repo.as_ref().map(ToString::to_string).or_else(|| path.clone()) else {
            return (Files::AsBefore, Some(complaint(&[Problem::not_supported("spec.source.git")])));
        };
        let Some(scan) = &memory.scan else { return (Files::AsBefore, None) };
        let trouble = scan.trouble.as_ref();
        let trouble =
            trouble.filter(|(complaint, times)| complaint.reason != Reason::SourceUnsettled || *times >= UNSETTLED);
        match (&scan.found, trouble) {
            (_, Some((complaint, _))) => (Files::AsBefore, Some(complaint.clone())),
            (Some(release), None) => self.accept(key, accepted, view, release, &place),
            (None, None) => (Files::AsBefore, None),
        }
    }

    /// Whether a release may be deployed as what is declared.
    fn accept(
        &self,
        key: &ServiceKey,
        accepted: &Accepted,
        view: &ServiceView,
        release: &Release,
        path: &str,
    ) -> (Files, Option<Complaint>) {
        if let Some(complaint) = unfit(&accepted.spec, &release.manifest) {
            return (Files::AsBefore, Some(complaint));
        }
        if let Some(tree) = &accepted.spec.source.repo {
            let commit = self.repos.commit(&tree.name);
            let origin = SourceOrigin { machine: self.machine.clone(), path: path.to_owned(), commit };
            return (Files::Release { digest: release.digest, origin }, None);
        }
        // After a takeover, the directory of this name on this machine may be another one.
        let unchanged = view.owned.as_ref().and_then(|owned| owned.value.accepted.as_ref());
        let unchanged = unchanged.is_some_and(|before| before.generation == accepted.generation);
        let newest = view.revisions.values().next_back();
        let elsewhere = newest.filter(|revision| revision.source.machine != self.machine);
        if let Some(revision) = elsewhere
            && unchanged
            && revision.release != release.digest
        {
            tracing::warn!(service = %key, "the source here is not what was deployed from another machine");
            let message = format!(
                "{path} on this controller's machine is not what revision {} was made from on another; apply the declaration again to deploy it",
                revision.number
            );
            return (Files::AsBefore, Some(Complaint { reason: Reason::SourceDiffers, message }));
        }
        let origin = SourceOrigin { machine: self.machine.clone(), path: path.to_owned(), commit: None };
        (Files::Release { digest: release.digest, origin }, None)
    }
}

/// How long a source is left alone after a look: longer each time where it keeps changing under our eyes.
fn pause(interval: Duration, scan: &Scan) -> Duration {
    let times = match &scan.trouble {
        Some((complaint, times)) if complaint.reason == Reason::SourceUnsettled => *times,
        _ => 0,
    };
    let longer = interval.saturating_mul(1 << times.saturating_sub(1).min(16));
    longer.min(UNSETTLED_PAUSE).max(interval)
}

/// Why a release cannot be run as declared.
fn unfit(spec: &ServiceSpec, manifest: &Manifest) -> Option<Complaint> {
    let entry_point = &spec.runtime.entry_point;
    match manifest.entries.get(entry_point) {
        None => {
            let message =
                format!("spec.runtime.entryPoint: {entry_point} is not in the release; look at include and exclude");
            return Some(Complaint { reason: Reason::EntryPointMissing, message });
        }
        Some(Entry::File { executable: false, .. })
            if spec.runtime.target == windlass_crds::service::RuntimeTarget::Generic =>
        {
            let message = format!("spec.runtime.entryPoint: {entry_point} is not executable; chmod +x it");
            return Some(Complaint { reason: Reason::EntryPointMissing, message });
        }
        Some(_) => {}
    }
    if spec.runtime.install == Install::Auto {
        let wants = manifest.entries.keys().find(|path| {
            DEPENDENCY_FILES.contains(&path.as_str())
                || (path.as_str().ends_with(".csproj") && !path.as_str().contains('/'))
        });
        if let Some(file) = wants {
            let message = format!(
                "spec.runtime.install: {file} asks for dependencies, which this version does not install yet; say `install: none`, or exclude it"
            );
            return Some(Complaint { reason: Reason::InstallNotSupported, message });
        }
    }
    None
}

/// What is remembered of a look at a source.
fn digest_scan(found: Result<Release, SourceError>, generation: u64, before: Option<&Scan>) -> Scan {
    let at = Instant::now();
    match found {
        Ok(release) => Scan { generation, at, found: Some(release), trouble: None },
        Err(error) => {
            let reason = match &error {
                SourceError::Unavailable { .. }
                | SourceError::Repo { .. }
                | SourceError::Stopping
                | SourceError::Contents { .. } => Reason::SourceUnavailable,
                SourceError::Unsettled { .. } => Reason::SourceUnsettled,
                _ => Reason::SourceInvalid,
            };
            let times = before.and_then(|scan| scan.trouble.as_ref());
            let times = times.filter(|(old, _)| old.reason == reason).map_or(1, |(_, times)| times + 1);
            // What was found before is still what is wanted while the tree only moves.
            let same = before.filter(|scan| scan.generation == generation && reason == Reason::SourceUnsettled);
            let found = same.and_then(|scan| scan.found.clone());
            Scan { generation, at, found, trouble: Some((Complaint { reason, message: chain(&error) }, times)) }
        }
    }
}

/// An error and everything below it, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// How long what was found out of the hosts of a Service holds, where nothing else is declared: names are looked up anew
/// then.
const FOUND: Duration = Duration::from_secs(1);

/// The hosts of a Service as they were found, and by what.
#[derive(Debug)]
pub struct FoundPlaces {
    places: Arc<Places>,
    around: Arc<Surroundings>,
    generation: Option<Generation>,
    at: Instant,
}

impl FoundPlaces {
    /// These places, found just now by a declaration of that generation.
    pub fn new(places: Arc<Places>, around: Arc<Surroundings>, generation: Option<Generation>) -> Self {
        Self { places, around, generation, at: Instant::now() }
    }

    /// The same places, where finding them anew would come to nothing else. What is left somewhere is on record, and
    /// may be reached by what that says: so only those are kept that are all where the Service shall run.
    pub fn hold(
        &self,
        around: &Arc<Surroundings>,
        generation: Option<Generation>,
        owned: &Owned,
    ) -> Option<Arc<Places>> {
        let placements = &self.places.placements;
        let same = Arc::ptr_eq(&self.around, around) && self.generation == generation && self.at.elapsed() < FOUND;
        let placed = || placements.values().all(|(_, placement)| *placement == Placement::Placed);
        let all = || owned.hosts.keys().all(|id| placements.contains_key(id));
        (same && generation.is_some() && placed() && all()).then(|| Arc::clone(&self.places))
    }
}

/// The hosts of a Service.
#[derive(Debug, Default)]
pub struct Places {
    /// Each that it is placed on or may have left something on, and whether it shall run there.
    pub placements: BTreeMap<HostId, (Arc<Target>, Placement)>,
    /// What is spoken to those that it shall run on, where a declaration does not say.
    pub default_transports: BTreeMap<HostId, Transport>,
    /// Which zone or value of the label those that it shall run on have, where `rollout.order` names one.
    pub groups: BTreeMap<HostId, String>,
}

/// Finds the hosts of a Service, by what is declared and by what is recorded.
pub async fn places(spec: Option<&ServiceSpec>, owned: &Owned, around: &Surroundings) -> Places {
    let mut placements = BTreeMap::new();
    let mut default_transports = BTreeMap::new();
    let mut groups = BTreeMap::new();
    let placed = spec.map(|spec| spec.hosts(around.labelled())).unwrap_or_default();
    for id in placed {
        let found = match target(&id, around) {
            Ok(target) => match spec {
                Some(spec) => {
                    let addresses = addresses(&target.address).await;
                    if let Some(group) = group(spec, &id, addresses.as_deref().unwrap_or_default(), around) {
                        groups.insert(id.clone(), group);
                    }
                    match allowed(spec, &target, addresses, around) {
                        Ok(default) => {
                            default_transports.insert(id.clone(), default);
                            (target, Placement::Placed)
                        }
                        Err(complaint) => (target, Placement::Refused(complaint)),
                    }
                }
                None => continue,
            },
            Err(complaint) => (stand_in(&id, owned), Placement::Refused(complaint)),
        };
        placements.insert(id, found);
    }
    let chosen_by_label = spec.is_some_and(|spec| !spec.placement.selector.is_empty());
    for (id, host) in &owned.hosts {
        if placements.contains_key(id) {
            continue;
        }
        if chosen_by_label
            && around.is_broken(id)
            && let Err(complaint) = target(id, around)
        {
            // Whether the selector still means it cannot be told, so it is left as it is.
            placements.insert(id.clone(), (host.target.clone(), Placement::Refused(complaint)));
        } else {
            let target = match id {
                HostId::Named(_) => target(id, around).unwrap_or_else(|_| host.target.clone()),
                // Where a Host led before, which may take its own key and folder.
                HostId::Inline(_) => host.target.clone(),
            };
            placements.insert(id.clone(), (target, Placement::Unplaced));
        }
    }
    Places { placements, default_transports, groups }
}

/// Which of the groups of `rollout.order` a host belongs to. One whose addresses are in several zones is in none.
fn group(spec: &ServiceSpec, id: &HostId, addresses: &[IpAddr], around: &Surroundings) -> Option<String> {
    match &spec.rollout.order {
        Order::Name => None,
        Order::Label(key) => {
            let HostId::Named(name) = id else { return None };
            around.hosts.get(name).and_then(|(labels, _)| labels.get(key).cloned())
        }
        Order::Zone => {
            let zones = || around.zones.iter().map(|(name, zone)| (name, zone));
            let mut found = addresses.iter().map(|address| zone_of(*address, zones()));
            let first = found.next()??;
            found.all(|other| other == Some(first)).then(|| first.to_string())
        }
    }
}

/// How a host is reached that is not declared (any more).
fn stand_in(id: &HostId, owned: &Owned) -> Arc<Target> {
    let known = owned.hosts.get(id).map(|host| host.target.clone());
    let unknown = || Target {
        id: id.clone(),
        address: id.to_string(),
        port: std::num::NonZeroU16::MIN,
        user: None,
        key_file: None,
        host_keys: Vec::new(),
        privilege: None,
        remote_dir: None,
    };
    known.unwrap_or_else(|| Arc::new(unknown()))
}

fn target(id: &HostId, around: &Surroundings) -> Result<Arc<Target>, Complaint> {
    let HostId::Named(name) = id else {
        return Ok(Arc::new(Target::inline(id).expect("what is not a name is a destination")));
    };
    if let Some(target) = around.targets.get(name) {
        return Ok(Arc::clone(target));
    }
    let message = if around.host_names.contains(name) {
        format!("the Host {name} makes no sense; `windlass get host/{name} -o yaml` says why")
    } else {
        format!("no Host {name} is declared; declare one, or write user@address")
    };
    Err(Complaint { reason: Reason::HostNotFound, message })
}

/// The plaintext rule, before any connection. Tells what is spoken to the host where a declaration does not say.
fn allowed(
    spec: &ServiceSpec,
    target: &Target,
    addresses: Result<Vec<IpAddr>, String>,
    around: &Surroundings,
) -> Result<Transport, Complaint> {
    let zones = || around.zones.iter().map(|(_, zone)| zone);
    let Some(network) = &spec.network else {
        // Nothing is spoken; but a revision that did may be gone back to, and is asked by this.
        let known = addresses.ok().and_then(|addresses| default_at(&addresses, &zones()));
        return Ok(known.unwrap_or(Transport::Https));
    };
    let addresses = addresses.map_err(|message| Complaint {
        // Nobody knows where it is; that is no verdict on the transport.
        reason: Reason::HostUnreachable,
        message,
    })?;
    let on_this_machine = addresses.iter().all(|address| address.to_canonical().is_loopback());
    if let Some(zone) = around.broken_zones.first().filter(|_| !on_this_machine) {
        let message = format!("{zone} makes no sense, so it cannot be told what may be spoken to {}", target.address);
        return Err(Complaint { reason: Reason::PlaintextRefused, message });
    }
    let chosen = transport(network.transport, &addresses, &zones())
        .map_err(|refusal| Complaint { reason: Reason::PlaintextRefused, message: refusal.to_string() })?;
    if chosen.is_plaintext() && spec.health.as_ref().is_some_and(|health| health.tls.is_some()) {
        let message = format!(
            "spec.health.tls has no meaning there: {} is spoken {chosen} to by its zone's default; say `transport: https`",
            target.address
        );
        return Err(Complaint { reason: Reason::InvalidDeclaration, message });
    }
    Ok(default_at(&addresses, &zones()).unwrap_or(chosen))
}

/// Every address that a name has, in an order that does not change from one look to the next.
async fn addresses(name: &str) -> Result<Vec<IpAddr>, String> {
    if let Ok(address) = name.parse() {
        return Ok(vec![address]);
    }
    match tokio::time::timeout(RESOLVE, tokio::net::lookup_host((name, 0))).await {
        Ok(Ok(found)) => {
            let addresses: std::collections::BTreeSet<IpAddr> =
                found.map(|address| address.ip().to_canonical()).collect();
            Ok(addresses.into_iter().collect())
        }
        Ok(Err(_)) => Err(format!("the name {name} does not resolve")),
        Err(_) => Err(format!("the name {name} was not resolved within {} s", RESOLVE.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use windlass_crds::digest::FileDigest;

    use super::*;

    #[test]
    fn a_tree_that_keeps_changing_is_left_alone_for_longer_each_time() {
        let scan = |reason, times| Scan {
            generation: 1,
            at: Instant::now(),
            found: None,
            trouble: Some((Complaint { reason, message: String::new() }, times)),
        };
        let seconds = |interval, reason, times| pause(Duration::from_secs(interval), &scan(reason, times)).as_secs();
        let unsettled = [1, 2, 3, 4, 7, 100].map(|times| seconds(1, Reason::SourceUnsettled, times));
        assert_eq!(unsettled, [1, 2, 4, 8, 60, 60]);
        assert_eq!(seconds(300, Reason::SourceUnsettled, 9), 300, "never sooner than it was asked for");
        assert_eq!(seconds(5, Reason::SourceUnavailable, 9), 5, "what is away may come back at any time");
    }

    /// What is complained about a release with these files beside its entry point.
    fn complaint(target: &str, install: &str, files: &[&str]) -> Option<Complaint> {
        let spec = serde_json::json!({
            "placement": {"hosts": ["web1"]},
            "source": {"path": "/srv"},
            "runtime": {"target": target, "entryPoint": "main", "install": install},
        });
        let spec: ServiceSpec = serde_json::from_value(spec).expect("a spec");
        let mut manifest = Manifest::default();
        for file in files.iter().chain(&["main"]) {
            let entry = Entry::File { digest: FileDigest::of(b""), size: 0, executable: true };
            manifest.entries.insert(file.parse().expect(file), entry);
        }
        unfit(&spec, &manifest)
    }

    #[test]
    fn a_dependency_file_is_refused_until_nothing_shall_be_installed() {
        for (target, file) in [
            ("python", "requirements.txt"),
            ("node", "package-lock.json"),
            ("go", "go.mod"),
            ("rust", "Cargo.toml"),
            ("dotnet", "web.csproj"),
            // Whatever runs it: `auto` would install for all of them.
            ("generic", "requirements.txt"),
        ] {
            let refused = complaint(target, "auto", &[file]).unwrap_or_else(|| panic!("{file} passes"));
            assert_eq!(refused.reason, Reason::InstallNotSupported, "{file}");
            assert!(refused.message.contains(file) && refused.message.contains("install: none"), "{}", refused.message);
            assert_eq!(complaint(target, "none", &[file]), None, "{file}");
        }
        for file in ["lib/requirements.txt", "tests/web.csproj", "requirements.txt.bak", "go.sum"] {
            assert_eq!(complaint("python", "auto", &[file]), None, "{file}");
        }
    }
}
