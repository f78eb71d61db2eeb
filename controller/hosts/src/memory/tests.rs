//! Tests: a line of words is done to one host, and a line of words says what came of it.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use windlass_crds::digest::{FileDigest, ReleaseDigest};
use windlass_crds::id::{ClusterId, RevisionNumber, Sequence, ServiceKey};
use windlass_crds::manifest::{Entry, Manifest};
use windlass_crds::observation::{Drift, HealthAnswer, Listener, ServiceObservation, StepState, UnitFile};
use windlass_crds::service::{Install, Lifecycle, Network, Placement, Runtime, RuntimeTarget, ServiceSpec, Source};
use windlass_crds::step::{ContactError, DataFate, Step, StepError, Verb};

use super::*;
use crate::fleet::{Fleet, Look, Material, Order, Probe, Question, Stamp};

/// What is done, and what comes of it.
type Rows = &'static [(&'static str, &'static str)];

const PORT: NonZeroU16 = NonZeroU16::new(8080).expect("it is not zero");
/// How long a switch may go unconfirmed.
const WITHIN: Duration = Duration::from_secs(3600);
const HOST: &str = "a";
const DARK: Duration = Duration::from_secs(20);

fn service() -> ServiceKey {
    "default/web".parse().expect("it is a service")
}

fn spec() -> ServiceSpec {
    let file = "server.py".parse().expect("it is a path");
    ServiceSpec {
        placement: Placement::default(),
        source: Source {
            repo: None,
            path: Some("/src".to_owned()),
            git: None,
            include: Vec::new(),
            exclude: Vec::new(),
            change_detection: windlass_crds::service::ChangeDetection::default(),
        },
        runtime: Runtime {
            target: RuntimeTarget::Python,
            entry_point: file,
            args: Vec::new(),
            env: BTreeMap::new(),
            env_from: Vec::new(),
            install: Install::None,
            user: None,
            limits: None,
        },
        network: Some(Network { port: PORT, transport: None, certificate: None, auth: None }),
        lifecycle: Lifecycle::default(),
        hooks: windlass_crds::service::Hooks::default(),
        health: None,
        rollout: windlass_crds::service::Rollout::default(),
        deletion_policy: windlass_crds::service::DeletionPolicy::default(),
        purge_data: false,
    }
}

/// `server.py` differs from revision to revision, `lib.py` is the same in all.
fn manifest(revision: u64) -> Manifest {
    let mut manifest = Manifest::default();
    for (path, text) in [("server.py", format!("print({revision})")), ("lib.py", "pass".to_owned())] {
        let entry = Entry::File { digest: FileDigest::of(text.as_bytes()), size: 1 << 20, executable: false };
        manifest.entries.insert(path.parse().expect("it is a path"), entry);
    }
    manifest
}

fn release(revision: u64) -> ReleaseDigest {
    manifest(revision).digest()
}

fn material(revision: u64) -> Material {
    Material {
        spec: spec(),
        manifest: Arc::new(manifest(revision)),
        bases: BTreeMap::new(),
        contents: Arc::new(|_| PathBuf::new()),
        seen: None,
    }
}

fn cluster(name: &str) -> ClusterId {
    let text = if name == "other" { "22222222" } else { "11111111" };
    text.parse().expect("it is a cluster id")
}

/// One host at `a`, and the same as another controller sees it.
struct Bench {
    fleet: MemoryFleet,
}

impl Bench {
    fn new() -> Self {
        let fleet = MemoryFleet::new();
        for address in [HOST, "b", "c"] {
            fleet.add(address, HostSettings::default());
        }
        Self { fleet }
    }

    /// `[host:]<what> [<revision>] [@<sequence>] [by other]`.
    async fn run(&self, line: &str) -> String {
        let (address, line) = line.split_once(':').unwrap_or((HOST, line));
        let words: Vec<&str> = line.split(' ').collect();
        let number = |index: usize| words.get(index).and_then(|word| word.parse::<u64>().ok());
        let sequence = words.iter().find_map(|word| word.strip_prefix('@')?.parse().ok()).unwrap_or(0);
        let owner = if line.ends_with("by other") { "other" } else { "ours" };
        let stamp = Stamp { sequence: Sequence(sequence), cluster: cluster(owner) };
        let revision = RevisionNumber(number(1).unwrap_or(0));
        let step = match words[0] {
            "wait" => {
                tokio::time::sleep(Duration::from_millis(number(1).expect("milliseconds"))).await;
                return String::new();
            }
            "look" => return self.look(address, Scrutiny::Quick, None).await,
            "scan" => return self.look(address, Scrutiny::Full, None).await,
            "stamp" => return self.look(address, Scrutiny::Quick, Some(stamp)).await,
            "sample" => return self.sample(address).await,
            "ask" => return self.ask(address).await,
            "stage" => Step::Stage { revision, release: release(revision.0) },
            "stop" => Step::Stop,
            "activate" => Step::Activate { revision },
            "confirm" => Step::Confirm { revision, keep: number(2).map(RevisionNumber).into_iter().collect() },
            "revert" => Step::Revert { revision },
            "remove" => Step::Remove { data: DataFate::Keep },
            "purge" => Step::Remove { data: DataFate::Purge },
            other => panic!("{other} is no word of these tests"),
        };
        let order =
            Order { service: service(), stamp, step, force_after: Duration::from_secs(2), confirm_within: WITHIN };
        let target = self.fleet.target(address);
        let result = match order.step.verb() {
            Verb::Stage => self.fleet.stage(&target, &order, &material(revision.0)).await,
            _ => self.fleet.act(&target, &order).await,
        };
        result.map_or_else(|error| short(&error), |()| "ok".to_owned())
    }

    async fn look(&self, address: &str, scrutiny: Scrutiny, stamp: Option<Stamp>) -> String {
        let look = Look { service: service(), stamp, scrutiny };
        match self.fleet.observe(&self.fleet.target(address), &look).await {
            Ok(seen) => summary(&seen.service),
            Err(error) => short(&error),
        }
    }

    async fn sample(&self, address: &str) -> String {
        match self.fleet.sample(&self.fleet.target(address), &service(), Some(PORT)).await {
            Ok(sample) => {
                let who = match sample.listener {
                    Some(Listener::Ours) => "ours",
                    Some(Listener::Nobody) => "nobody",
                    Some(Listener::Another) => "another",
                    Some(Listener::Hidden) => "hidden",
                    None => "none",
                };
                let pid = if sample.run.pid.is_some() { "pid" } else { "no pid" };
                format!("{} {pid} {who} restarts {} {}", sample.run.sub, sample.run.restarts, sample.run.result)
            }
            Err(error) => short(&StepError::Contact { error }),
        }
    }

    async fn ask(&self, address: &str) -> String {
        let question =
            Question { port: PORT, probe: Probe::Http("/health".to_owned()), timeout: Duration::from_secs(1) };
        match self.fleet.ask(&self.fleet.target(address), &question).await {
            HealthAnswer::Http { status, body } => format!("{status} {body}"),
            HealthAnswer::Open => "open".to_owned(),
            HealthAnswer::Silent { .. } => "silent".to_owned(),
            HealthAnswer::Unknown { .. } => "unknown".to_owned(),
        }
    }

    /// Brings revision 1 to a host as a rollout does.
    async fn deployed(&self, address: &str) {
        for line in ["stage 1 @1", "activate 1 @1", "wait 100", "confirm 1 @1"] {
            let said = self.run(&format!("{address}:{line}")).await;
            assert!(matches!(said.as_str(), "ok" | ""), "{address}: {line}: {said}");
        }
    }
}

fn short(error: &StepError) -> String {
    match error {
        StepError::Contact { error: ContactError::Timeout { .. } } => "timeout".to_owned(),
        StepError::Contact { error: ContactError::Lost { .. } } => "lost".to_owned(),
        StepError::Contact { error: ContactError::Refused { .. } } => "refused".to_owned(),
        StepError::Contact { error: ContactError::HostKey { .. } } => "host key".to_owned(),
        StepError::Contact { error: ContactError::Login { .. } } => "login".to_owned(),
        StepError::Contact { error: ContactError::NoAddress { .. } } => "no address".to_owned(),
        StepError::Contact { error } => error.to_string(),
        StepError::Superseded { ours, theirs } => format!("{ours} superseded by {theirs}"),
        StepError::OwnedByAnother { .. } => "another's".to_owned(),
        StepError::Locked => "locked".to_owned(),
        StepError::TimedOut { .. } => "timed out".to_owned(),
        StepError::NoSpace { .. } => "no space".to_owned(),
        StepError::ReadOnly { .. } => "read-only".to_owned(),
        StepError::NotStaged { revision, .. } => format!("{revision} not staged"),
        StepError::NotActivated { revision, .. } => format!("{revision} not activated"),
        StepError::StartFailed { .. } => "start failed".to_owned(),
        StepError::Voided { .. } => "voided".to_owned(),
        StepError::Damaged { .. } | StepError::Base { .. } | StepError::Failed { .. } => error.to_string(),
    }
}

/// `@5 unit 1 good 1 has 1 2 active`, then what has drifted and which steps did not end well.
fn summary(seen: &ServiceObservation) -> String {
    let mut words = vec![format!("@{}", seen.sequence)];
    words.push(match seen.unit {
        UnitFile::Absent => "no unit".to_owned(),
        UnitFile::Revision(revision) => format!("unit {revision}"),
        UnitFile::Changed(revision) => format!("changed {revision}"),
        UnitFile::Foreign => "foreign".to_owned(),
    });
    words.extend(seen.good.map(|good| format!("good {good}")));
    if !seen.revisions.is_empty() {
        words.push("has".to_owned());
        words.extend(seen.revisions.keys().map(RevisionNumber::to_string));
    }
    words.push(format!("{:?}", seen.run.active).to_lowercase());
    words.extend(seen.run.enabled.then(|| "enabled".to_owned()));
    for drift in &seen.drift {
        words.push(match drift {
            Drift::UnitChanged => "drift: unit".to_owned(),
            Drift::DropIn { .. } => "drift: drop-in".to_owned(),
            Drift::FilesChanged { paths } => format!("drift: {}", paths.join(" ")),
            Drift::RevisionChanged => "drift: revision".to_owned(),
            Drift::NotEnabled => "drift: not enabled".to_owned(),
            Drift::Stopped => "drift: stopped".to_owned(),
        });
    }
    for (verb, record) in &seen.steps {
        match record.state {
            StepState::Ok => {}
            StepState::Begun => words.push(format!("begun: {verb} {}", record.revision)),
            StepState::Voided => words.push(format!("voided: {verb} {}", record.revision)),
            StepState::Failed(_) => words.push(format!("failed: {verb} {}", record.revision)),
        }
    }
    words.extend((!seen.present).then(|| "gone".to_owned()));
    words.extend(seen.incoming.map(|(_, bytes)| format!("incoming {bytes}")));
    words.join(" ")
}

async fn check(name: &str, bench: &Bench, rows: &[(&str, &str)]) {
    for (line, expected) in rows {
        assert_eq!(bench.run(line).await, *expected, "{name}: {line}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_fence_holds() {
    let tables: &[(&str, Rows)] = &[
        (
            "a deploy",
            &[
                ("look", "@0 no unit inactive gone"),
                ("stamp @1", "@1 no unit inactive gone"),
                ("stage 1 @1", "ok"),
                ("look", "@1 no unit has 1 inactive"),
                ("activate 1 @1", "ok"),
                ("look", "@1 unit 1 has 1 active enabled"),
                ("confirm 1 @1", "ok"),
                ("look", "@1 unit 1 good 1 has 1 active enabled"),
            ],
        ),
        (
            "a lower sequence is refused, whatever it asks; an equal or a higher one is not",
            &[
                ("stage 1 @5", "ok"),
                ("stamp @4", "4 superseded by 5"),
                ("stage 2 @4", "4 superseded by 5"),
                ("activate 1 @4", "4 superseded by 5"),
                ("stop @4", "4 superseded by 5"),
                ("confirm 1 @4", "4 superseded by 5"),
                ("revert 1 @4", "4 superseded by 5"),
                ("remove @4", "4 superseded by 5"),
                ("look @4", "@5 no unit has 1 inactive"),
                ("stamp @5", "@5 no unit has 1 inactive"),
                ("activate 1 @9", "ok"),
                ("confirm 1 @8", "8 superseded by 9"),
                ("confirm 1 @9", "ok"),
            ],
        ),
        (
            "another store's host",
            &[
                ("stamp @1 by other", "@1 no unit inactive gone"),
                ("stamp @2", "another's"),
                ("stage 1 @2", "another's"),
                ("remove @2", "another's"),
                ("look", "@1 no unit inactive gone"),
            ],
        ),
        (
            "what is not staged is not activated, and what is not activated is not confirmed",
            &[
                ("activate 1 @1", "1 not staged"),
                ("revert 1 @1", "1 not staged"),
                ("confirm 1 @1", "1 not activated"),
                ("stage 1 @1", "ok"),
                ("confirm 1 @1", "1 not activated"),
                ("activate 1 @1", "ok"),
                ("confirm 2 @1", "2 not activated"),
                ("stage 2 @2", "ok"),
                ("activate 2 @2", "ok"),
                ("revert 1 @3", "ok"),
                ("confirm 2 @3", "2 not activated"),
                ("confirm 1 @3", "ok"),
                ("look", "@3 unit 1 good 1 has 1 active enabled"),
            ],
        ),
        (
            "a confirmation clears away what is not to be kept",
            &[
                ("stage 1 @1", "ok"),
                ("stage 2 @1", "ok"),
                ("stage 3 @1", "ok"),
                ("activate 3 @1", "ok"),
                ("confirm 3 2 @1", "ok"),
                ("look", "@1 unit 3 good 3 has 2 3 active enabled"),
                ("activate 1 @2", "1 not staged"),
            ],
        ),
        (
            "a removal keeps the fence",
            &[
                ("stage 1 @1", "ok"),
                ("activate 1 @1", "ok"),
                ("remove @2", "ok"),
                ("look", "@2 no unit inactive gone"),
                ("activate 1 @1", "1 superseded by 2"),
                ("remove @3", "ok"),
                ("confirm 1 @3", "1 not activated"),
            ],
        ),
        (
            "stopped by us is no drift",
            &[
                ("stage 1 @1", "ok"),
                ("activate 1 @1", "ok"),
                ("stop @2", "ok"),
                ("look", "@2 unit 1 has 1 inactive enabled"),
            ],
        ),
    ];
    for (name, rows) in tables {
        check(name, &Bench::new(), rows).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_done_is_answered_from_its_record() {
    let bench = Bench::new();
    bench.deployed(HOST).await;
    let pid = || bench.fleet.peek(HOST, &service()).service.run.pid;
    let before = pid();
    check("again", &bench, &[("activate 1 @1", "ok"), ("stage 1 @1", "ok"), ("confirm 1 @1", "ok")]).await;
    assert_eq!(pid(), before, "nothing was restarted");
    let deeds: Vec<Deed> = bench.fleet.calls().iter().rev().take(3).map(|called| called.deed).collect();
    assert_eq!(deeds, [Deed::Replayed; 3]);
    check("a new sequence", &bench, &[("activate 1 @2", "ok")]).await;
    assert_ne!(pid(), before, "a new sequence does it again");

    bench.fleet.set_behaviour(release(2), Behaviour::start_fails());
    check(
        "a failure is answered from its record, too",
        &bench,
        &[("stage 2 @3", "ok"), ("activate 2 @3", "start failed"), ("activate 2 @3", "start failed")],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn programs_behave_as_they_were_told() {
    let second = Duration::from_secs(1);
    let table: &[(&str, Behaviour, Rows)] = &[
        (
            "healthy",
            Behaviour::healthy_after(second),
            &[
                ("activate 1 @1", "ok"),
                ("sample", "running pid nobody restarts 0 success"),
                ("ask", "silent"),
                ("wait 1000", ""),
                ("sample", "running pid ours restarts 0 success"),
                ("ask", "200 revision 1"),
            ],
        ),
        (
            "unhealthy",
            Behaviour::unhealthy(500),
            &[
                ("activate 1 @1", "ok"),
                ("wait 100", ""),
                ("ask", "500 revision 1"),
                ("sample", "running pid ours restarts 0 success"),
            ],
        ),
        (
            "crashes, is started again, and crashes",
            Behaviour::crashes_after(5 * second),
            &[
                ("activate 1 @1", "ok"),
                ("wait 100", ""),
                ("ask", "200 revision 1"),
                ("wait 5000", ""),
                ("sample", "auto-restart no pid nobody restarts 0 exit-code"),
                ("ask", "silent"),
                ("wait 1000", ""),
                ("sample", "running pid ours restarts 1 success"),
                ("wait 60000", ""),
                ("sample", "running pid ours restarts 11 success"),
            ],
        ),
        (
            "exits at once, again and again",
            Behaviour::exits_at_once(),
            &[
                ("activate 1 @1", "ok"),
                ("wait 50", ""),
                ("sample", "auto-restart no pid nobody restarts 0 exit-code"),
                ("wait 10200", ""),
                ("sample", "auto-restart no pid nobody restarts 10 exit-code"),
                ("look", "@1 unit 1 has 1 activating enabled"),
                ("stop @2", "ok"),
                ("look", "@2 unit 1 has 1 inactive enabled"),
                ("sample", "dead no pid nobody restarts 0 exit-code"),
            ],
        ),
        (
            "never listens",
            Behaviour::never_listens(),
            &[("activate 1 @1", "ok"), ("wait 9000", ""), ("sample", "running pid nobody restarts 0 success")],
        ),
        (
            "hangs",
            Behaviour::hangs(),
            &[
                ("activate 1 @1", "ok"),
                ("wait 100", ""),
                ("ask", "silent"),
                ("sample", "running pid ours restarts 0 success"),
            ],
        ),
        (
            "flaps",
            Behaviour::flapping(second, second),
            &[
                ("activate 1 @1", "ok"),
                ("wait 500", ""),
                ("ask", "200 revision 1"),
                ("wait 1000", ""),
                ("ask", "503 revision 1"),
                ("wait 1000", ""),
                ("ask", "200 revision 1"),
            ],
        ),
        (
            "cannot be started",
            Behaviour::start_fails(),
            &[("activate 1 @1", "start failed"), ("confirm 1 @1", "1 not activated"), ("ask", "silent")],
        ),
        (
            "has to be killed",
            Behaviour::ignores_sigterm(),
            &[("activate 1 @1", "ok"), ("stop @2", "ok"), ("sample", "failed no pid nobody restarts 0 timeout")],
        ),
    ];
    for (name, behaviour, rows) in table {
        let bench = Bench::new();
        bench.fleet.set_behaviour(release(1), behaviour.clone());
        check(name, &bench, &[("stage 1 @1", "ok")]).await;
        check(name, &bench, rows).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_shows_in_pid_restarts_and_log() {
    let bench = Bench::new();
    let crashing = Behaviour::crashes_after(Duration::from_secs(4)).saying(["Traceback (most recent call last):"]);
    bench.fleet.set_behaviour(release(1), crashing);
    check("start", &bench, &[("stage 1 @1", "ok"), ("activate 1 @1", "ok"), ("wait 100", "")]).await;
    let first = bench.fleet.peek(HOST, &service()).service.run;
    check("crash", &bench, &[("wait 5000", "")]).await;
    let second = bench.fleet.peek(HOST, &service()).service.run;
    assert_ne!(first.pid, second.pid);
    assert_eq!(second.since - first.since, 5_000_000, "a life and the wait");
    assert_eq!((first.restarts, second.restarts), (0, 1));
    let logged = bench.fleet.logs(&bench.fleet.target(HOST), &service(), 3).await.expect("the host can be reached");
    assert_eq!(logged.len(), 3);
    assert!(logged[0].contains("exited"), "{logged:?}");
    assert_eq!(logged[2], "Traceback (most recent call last):");
}

#[tokio::test(start_paused = true)]
async fn edits_show_as_drift_and_are_put_right() {
    let file = |how| Edit::File { path: "lib.py".to_owned(), how };
    let table: &[(&str, Edit, Rows)] = &[
        (
            "file",
            file(FileChange::Replaced),
            &[
                ("look", "@1 unit 1 good 1 has 1 active enabled drift: lib.py"),
                ("revert 1 @2", "1 not staged"),
                ("activate 1 @2", "1 not staged"),
                ("stage 1 @2", "ok"),
                ("revert 1 @2", "ok"),
                ("activate 1 @2", "ok"),
            ],
        ),
        (
            "file, with size and time put back",
            file(FileChange::Hidden),
            &[
                ("look", "@1 unit 1 good 1 has 1 active enabled"),
                ("scan", "@1 unit 1 good 1 has 1 active enabled drift: lib.py"),
                ("revert 1 @2", "1 not staged"),
                ("activate 1 @2", "ok"),
                ("stage 1 @2", "ok"),
                ("revert 1 @2", "ok"),
            ],
        ),
        (
            "unit",
            Edit::Unit,
            &[("look", "@1 changed 1 good 1 has 1 active enabled drift: unit"), ("activate 1 @2", "ok")],
        ),
        (
            "foreign unit",
            Edit::ForeignUnit,
            &[("look", "@1 foreign good 1 has 1 active enabled drift: unit"), ("activate 1 @2", "ok")],
        ),
        ("no unit", Edit::NoUnit, &[("look", "@1 no unit good 1 has 1 active"), ("activate 1 @2", "ok")]),
        (
            "revision",
            Edit::Revision,
            &[
                ("look", "@1 unit 1 good 1 has 1 active enabled drift: revision"),
                ("activate 1 @2", "1 not staged"),
                ("stage 1 @2", "ok"),
                ("activate 1 @2", "ok"),
            ],
        ),
        (
            "stopped",
            Edit::Stop,
            &[("look", "@1 unit 1 good 1 has 1 inactive enabled drift: stopped"), ("activate 1 @2", "ok")],
        ),
        (
            "disabled",
            Edit::Disable,
            &[("look", "@1 unit 1 good 1 has 1 active drift: not enabled"), ("activate 1 @2", "ok")],
        ),
        (
            "killed",
            Edit::Kill,
            &[
                ("sample", "auto-restart no pid nobody restarts 0 signal"),
                ("wait 1100", ""),
                ("sample", "running pid ours restarts 1 success"),
                ("stamp @2", "@2 unit 1 good 1 has 1 active enabled"),
            ],
        ),
        (
            "fence lost",
            Edit::LoseFence,
            &[
                ("look", "@0 unit 1 good 1 has 1 active enabled"),
                ("confirm 1 @1", "1 not activated"),
                ("activate 1 @2", "ok"),
                ("confirm 1 @2", "ok"),
            ],
        ),
        (
            "wiped",
            Edit::Wipe,
            &[
                ("look", "@0 no unit inactive gone"),
                ("stage 1 @2", "ok"),
                ("activate 1 @2", "ok"),
                ("confirm 1 @2", "ok"),
            ],
        ),
    ];
    for (name, edit, rows) in table {
        let bench = Bench::new();
        bench.deployed(HOST).await;
        bench.fleet.edit(HOST, &service(), edit.clone());
        check(name, &bench, rows).await;
        check(name, &bench, &[("scan", "@2 unit 1 good 1 has 1 active enabled")]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_stopped_where_the_fence_was_lost_was_stopped_by_somebody() {
    let bench = Bench::new();
    bench.deployed(HOST).await;
    bench.fleet.edit(HOST, &service(), Edit::LoseFence);
    bench.fleet.edit(HOST, &service(), Edit::Stop);
    check("lost", &bench, &[("look", "@0 unit 1 good 1 has 1 inactive enabled drift: stopped")]).await;
    let by_us = &[("stop @2", "ok"), ("look", "@2 unit 1 good 1 has 1 inactive enabled")];
    check("by us", &bench, by_us).await;
}

#[tokio::test(start_paused = true)]
async fn a_drop_in_outlives_an_activation() {
    let bench = Bench::new();
    bench.deployed(HOST).await;
    bench.fleet.edit(HOST, &service(), Edit::DropIn { path: "/etc/systemd/system/x.d/y.conf".to_owned() });
    let drifted = "@1 unit 1 good 1 has 1 active enabled drift: drop-in";
    let still = "@2 unit 1 good 1 has 1 active enabled drift: drop-in";
    check("drop-in", &bench, &[("look", drifted), ("activate 1 @2", "ok"), ("look", still)]).await;
}

#[tokio::test(start_paused = true)]
async fn a_write_through_a_link_damages_every_release_that_has_the_file() {
    let bench = Bench::new();
    bench.deployed(HOST).await;
    check("second", &bench, &[("stage 2 @2", "ok"), ("activate 2 @2", "ok")]).await;
    let how = FileChange::WrittenThrough;
    bench.fleet.edit(HOST, &service(), Edit::File { path: "lib.py".to_owned(), how });
    check("back", &bench, &[("revert 1 @3", "1 not staged")]).await;
}

#[tokio::test(start_paused = true)]
async fn links_fail_as_they_were_told_and_no_sooner() {
    for (link, said, seconds) in [
        (Link::partitioned(), "timeout", 8),
        (Link::refused(), "refused", 0),
        (Link::login_refused(), "login", 0),
        (Link::wrong_host_key(), "host key", 0),
        (Link::no_address(), "no address", 0),
    ] {
        let bench = Bench::new();
        bench.deployed(HOST).await;
        bench.fleet.set_link(HOST, link);
        for line in ["look", "stamp @2", "stage 2 @2", "activate 1 @2", "remove @2", "sample"] {
            let began = bench.fleet.now();
            check("cut", &bench, &[(line, said)]).await;
            assert_eq!((bench.fleet.now() - began).as_secs(), seconds, "{line}");
        }
        check("cut", &bench, &[("ask", "unknown"), ("b:look", "@0 no unit inactive gone")]).await;
        bench.fleet.set_link(HOST, Link::Up);
        check("mended", &bench, &[("look", "@1 unit 1 good 1 has 1 active enabled")]).await;
    }
    let bench = Bench::new();
    check("nobody there", &bench, &[("z:look", "no address")]).await;
}

#[tokio::test(start_paused = true)]
async fn a_link_can_be_one_controllers_own() {
    let bench = Bench::new();
    let other = Bench { fleet: bench.fleet.seen_by(Caller(1)) };
    other.fleet.set_own_link(HOST, Link::partitioned());
    check("cut off", &other, &[("stamp @1", "timeout")]).await;
    check("not cut off", &bench, &[("stamp @2", "@2 no unit inactive gone")]).await;
    other.fleet.set_own_link(HOST, Link::Up);
    check("mended", &other, &[("stamp @1", "1 superseded by 2")]).await;
    let callers: Vec<Caller> = bench.fleet.calls().iter().map(|called| called.caller).collect();
    assert_eq!(callers, [Caller(1), Caller(0), Caller(1)]);
}

#[tokio::test(start_paused = true)]
async fn a_pinned_key_is_compared() {
    let fleet = MemoryFleet::new();
    let key = |end: &str| format!("ssh-ed25519 AAAA{end}").parse().expect("it is a key");
    fleet.add(HOST, HostSettings { host_key: Some(key("b")), ..HostSettings::default() });
    for (pinned, good) in [(vec![], true), (vec![key("a"), key("b")], true), (vec![key("a")], false)] {
        let target = Target { host_keys: pinned, ..fleet.target(HOST) };
        let look = Look { service: service(), stamp: None, scrutiny: Scrutiny::Quick };
        assert_eq!(fleet.observe(&target, &look).await.is_ok(), good);
    }
}

#[tokio::test(start_paused = true)]
async fn calls_go_wrong_one_at_a_time() {
    let activate = Some(Call::Step(Verb::Activate));
    let stage = Some(Call::Step(Verb::Stage));
    let full = StepError::NoSpace { detail: "/".to_owned() };
    let table: &[(&str, Option<Call>, Mishap, Rows)] = &[
        (
            "lost before",
            activate,
            Mishap::LostBefore,
            &[
                ("stage 2 @2", "ok"),
                ("activate 2 @2", "lost"),
                ("look", "@2 unit 1 good 1 has 1 2 active enabled"),
                ("activate 2 @2", "ok"),
            ],
        ),
        (
            "lost reply",
            activate,
            Mishap::LostReply,
            &[
                ("stage 2 @2", "ok"),
                ("activate 2 @2", "lost"),
                ("look", "@2 unit 2 good 1 has 1 2 active enabled"),
                ("activate 2 @2", "ok"),
                ("confirm 2 @2", "ok"),
            ],
        ),
        (
            "half upload",
            stage,
            Mishap::HalfUpload { bytes: 1000 },
            &[
                ("stage 2 @2", "lost"),
                ("look", "@2 unit 1 good 1 has 1 active enabled begun: stage 2 incoming 1000"),
                ("activate 2 @2", "2 not staged"),
                ("stage 2 @2", "ok"),
                ("look", "@2 unit 1 good 1 has 1 2 active enabled begun: activate 2"),
            ],
        ),
        (
            "times out, and happens all the same",
            activate,
            Mishap::TimesOut,
            &[
                ("stage 2 @2", "ok"),
                ("activate 2 @2", "timed out"),
                ("look", "@2 unit 2 good 1 has 1 2 active enabled begun: activate 2"),
                ("confirm 2 @2", "2 not activated"),
                ("activate 2 @2", "ok"),
                ("confirm 2 @2", "ok"),
            ],
        ),
        (
            "any answer",
            None,
            Mishap::Answers(full),
            &[
                ("look", "@1 unit 1 good 1 has 1 active enabled"),
                ("stage 2 @2", "no space"),
                ("look", "@2 unit 1 good 1 has 1 active enabled begun: stage 2"),
                ("stage 2 @2", "ok"),
            ],
        ),
        (
            "power cut before the switch",
            activate,
            Mishap::PowerCut { effects: 0, dark: DARK },
            &[
                ("stage 2 @2", "ok"),
                ("activate 2 @2", "timeout"),
                ("look", "timeout"),
                ("wait 20000", ""),
                ("look", "@2 unit 1 good 1 has 1 2 active enabled begun: activate 2"),
                ("confirm 2 @2", "2 not activated"),
                ("activate 2 @2", "ok"),
            ],
        ),
        (
            "power cut after the switch",
            activate,
            Mishap::PowerCut { effects: 2, dark: DARK },
            &[
                ("stage 2 @2", "ok"),
                ("activate 2 @2", "timeout"),
                ("wait 20000", ""),
                ("look", "@2 unit 2 good 1 has 1 2 active enabled begun: activate 2"),
                ("confirm 2 @2", "2 not activated"),
                ("revert 1 @3", "ok"),
            ],
        ),
    ];
    for (name, call, mishap, rows) in table {
        let bench = Bench::new();
        bench.deployed(HOST).await;
        bench.fleet.fail_next(HOST, *call, mishap.clone());
        check(name, &bench, rows).await;
        assert_eq!(bench.fleet.mishaps_waiting(HOST), 0, "{name}: it landed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_stops_stages_alone() {
    let bench = Bench::new();
    bench.deployed(HOST).await;
    check("room", &bench, &[("stage 2 @2", "ok"), ("activate 2 @2", "ok")]).await;
    bench.fleet.change(HOST, HostChange::DiskFull);
    check("full", &bench, &[("stage 3 @3", "no space"), ("revert 1 @3", "ok"), ("confirm 1 @3", "ok")]).await;
    check("full", &bench, &[("remove @4", "ok"), ("look", "@4 no unit inactive begun: stage 3 gone")]).await;

    let fleet = MemoryFleet::new();
    fleet.add(HOST, HostSettings { capacity_kib: 5 << 10, ..HostSettings::default() });
    let bench = Bench { fleet };
    check("five MiB", &bench, &[("stage 1 @1", "ok"), ("stage 2 @1", "ok"), ("stage 3 @1", "no space")]).await;
}

#[tokio::test(start_paused = true)]
async fn a_reboot_starts_what_is_enabled() {
    for (edit, after) in [
        (None, "@1 unit 1 good 1 has 1 active enabled"),
        (Some(Edit::Disable), "@1 unit 1 good 1 has 1 inactive drift: not enabled drift: stopped"),
    ] {
        let bench = Bench::new();
        bench.deployed(HOST).await;
        let before = bench.fleet.peek(HOST, &service());
        if let Some(edit) = edit {
            bench.fleet.edit(HOST, &service(), edit);
        }
        bench.fleet.reboot(HOST, DARK);
        check("down", &bench, &[("look", "timeout"), ("wait 20000", ""), ("look", after)]).await;
        let seen = bench.fleet.peek(HOST, &service());
        assert_ne!(seen.facts.boot, before.facts.boot);
        assert_eq!(seen.facts.machine, before.facts.machine);
        assert_eq!(seen.service.run.restarts, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_goes_on_without_its_caller() {
    let bench = Bench::new();
    bench.deployed(HOST).await;
    check("stage", &bench, &[("stage 2 @2", "ok")]).await;
    let gone = tokio::time::timeout(Duration::from_millis(20), bench.run("activate 2 @2")).await;
    assert!(gone.is_err());
    check(
        "the next one waits for the lock, and finds the record",
        &bench,
        &[("look", "@2 unit 2 good 1 has 1 2 active enabled begun: activate 2"), ("activate 2 @2", "ok")],
    )
    .await;
    assert_eq!(bench.fleet.calls().last().map(|called| called.deed), Some(Deed::Replayed));

    let gone = tokio::time::timeout(Duration::from_millis(10), bench.run("stage 3 @3")).await;
    assert!(gone.is_err());
    let incoming = bench.fleet.peek(HOST, &service()).service.incoming.expect("something has arrived");
    assert!(incoming.1 > 0 && incoming.1 < manifest(3).size(), "{incoming:?}");
}

#[tokio::test(start_paused = true)]
async fn the_lock_is_waited_for_and_no_longer_than_it_may() {
    let bench = Bench::new();
    bench.fleet.set_timing(Timing { stamp_lock: Duration::from_secs(1), ..Timing::default() });
    bench.fleet.set_behaviour(release(1), Behaviour::ignores_sigterm());
    bench.deployed(HOST).await;
    let (stopped, stamped) = tokio::join!(bench.run("stop @2"), async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        bench.run("stamp @3").await
    });
    assert_eq!((stopped.as_str(), stamped.as_str()), ("ok", "locked"));
}

#[tokio::test(start_paused = true)]
async fn what_we_take_down_is_counted() {
    let bench = Bench::new();
    for address in ["a", "b", "c"] {
        bench.deployed(address).await;
    }
    assert_eq!(bench.fleet.max_down(&service()), 0, "a first deploy takes nothing down");
    for line in ["a:stage 2 @2", "b:stage 2 @2", "a:activate 2 @2", "a:wait 100", "a:confirm 2 @2"] {
        bench.run(line).await;
    }
    assert_eq!((bench.fleet.max_down(&service()), bench.fleet.down(&service()).len()), (1, 0));
    bench.fleet.set_behaviour(release(2), Behaviour::unhealthy(500));
    bench.run("b:activate 2 @2").await;
    bench.run("wait 100").await;
    assert_eq!(bench.fleet.down(&service()), ["b"]);
    bench.fleet.edit("c", &service(), Edit::Stop);
    assert_eq!(bench.fleet.down(&service()), ["b"], "what others stop is not ours");
    bench.run("a:stop @3").await;
    assert_eq!(bench.fleet.max_down(&service()), 2);
    for line in ["a:remove @4", "b:revert 1 @4", "b:wait 100"] {
        bench.run(line).await;
    }
    assert!(bench.fleet.down(&service()).is_empty());
}

#[tokio::test(start_paused = true)]
async fn calls_are_told_in_order() {
    let bench = Bench::new();
    let told = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&told);
    bench.fleet.on_call(move |called| lines.lock().expect("nobody panicked").push(called.to_string()));
    for line in ["stamp @7", "stage 2 @7", "activate 2 @7", "activate 2 @7", "stop @6", "look"] {
        bench.run(line).await;
    }
    let changes = [
        "a stamp under 7: ok",
        "a stage 2 under 7: begun, ok",
        "a activate 2 under 7: begun, ok",
        "a activate 2 under 7: replayed, ok",
        "a stop under 6: the host follows sequence 7, newer than 6",
    ];
    assert_eq!(bench.fleet.changes(), changes);
    let told = told.lock().expect("nobody panicked");
    assert_eq!(told.len(), 12, "{told:?}");
    assert_eq!((told[2].as_str(), told[3].as_str()), ("a stage 2 under 7: unanswered", changes[1]));
}

#[tokio::test(start_paused = true)]
async fn two_names_may_be_one_machine() {
    let bench = Bench::new();
    bench.fleet.add_alias("198.18.0.1", HOST);
    check("by its other name", &bench, &[("198.18.0.1:stamp @3", "@3 no unit inactive gone")]).await;
    check("by its name", &bench, &[("stamp @2", "2 superseded by 3")]).await;
    let machine = bench.fleet.peek(HOST, &service()).facts.machine;
    assert_ne!(bench.fleet.peek("b", &service()).facts.machine, machine);
    bench.fleet.change("b", HostChange::Machine(machine.clone()));
    assert_eq!(bench.fleet.peek("b", &service()).facts.machine, machine);
}

#[tokio::test(start_paused = true)]
async fn ports_tell_who_listens() {
    for (change, sampled, asked) in [
        (HostChange::Occupied(PORT), "running pid another restarts 0 success", "200 another program"),
        (HostChange::HidesListeners, "running pid hidden restarts 0 success", "200 revision 1"),
        (HostChange::RefusesForwarding, "running pid ours restarts 0 success", "unknown"),
    ] {
        let bench = Bench::new();
        bench.deployed(HOST).await;
        bench.fleet.change(HOST, change);
        check("changed", &bench, &[("sample", sampled), ("ask", asked)]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn data_outlives_a_removal_unless_it_is_purged() {
    for (removal, there) in [("remove @2", true), ("purge @2", false)] {
        let bench = Bench::new();
        bench.deployed(HOST).await;
        assert!(bench.fleet.has_data(HOST, &service()));
        check("removed", &bench, &[(removal, "ok")]).await;
        assert_eq!(bench.fleet.has_data(HOST, &service()), there);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_does_not_outlive_a_boot() {
    let bench = Bench::new();
    bench.deployed(HOST).await;
    let (staged, ()) = tokio::join!(bench.run("stage 2 @2"), async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        bench.fleet.reboot(HOST, Duration::from_millis(1));
    });
    assert_eq!(staged, "lost");
    let seen = bench.fleet.peek(HOST, &service()).service;
    assert!(seen.incoming.is_some() && seen.revisions.len() == 1, "{seen:?}");
}

/// What three rollouts at once, with faults, leave in the log.
async fn tangle() -> Vec<Called> {
    let bench = Bench::new();
    bench.fleet.set_behaviour(release(2), Behaviour::crashes_after(Duration::from_millis(300)));
    bench.fleet.fail_next("b", None, Mishap::LostReply);
    bench.fleet.fail_next("c", Some(Call::Step(Verb::Activate)), Mishap::PowerCut { effects: 2, dark: DARK });
    let rollout = async |address: &str| {
        for line in ["stage 1 @1", "activate 1 @1", "confirm 1 @1", "stage 2 @2", "activate 2 @2", "sample", "ask"] {
            bench.run(&format!("{address}:{line}")).await;
        }
    };
    tokio::join!(rollout("a"), rollout("b"), rollout("c"));
    bench.fleet.calls()
}

#[test]
fn the_same_happens_each_time() {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime needs nothing").block_on(tangle())
    };
    let first = run();
    assert!(first.len() > 20);
    assert_eq!(first, run());
}
