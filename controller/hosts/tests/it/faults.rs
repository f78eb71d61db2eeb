//! What only a real machine can do to us: broken connections, full disks, damaged files, sshd's settings.

use std::num::NonZeroU16;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use windlass_crds::id::ServiceKey;
use windlass_crds::manifest::{Entry, Manifest};
use windlass_crds::observation::{ActiveState, Drift, HealthAnswer, Listener, StepState, UnitFile};
use windlass_crds::step::{ContactError, DataFate, Step, StepError, Verb};
use windlass_hosts::SshFleet;
use windlass_hosts::fleet::{Fleet, Look, Material, Probe, Question, Scrutiny, Seen};
use windlass_testbed::{Host, Spare, Testbed};

use crate::contract::{Case, Stand, a_hand_is_seen_and_undone, revision};
use crate::real::{Login, target};

/// How long a program may take to answer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A case as root on a host of its own, in a namespace of the same name.
fn root(host: &Host) -> Login<'_> {
    Login::new(host, "root", "sh", "default", 8000)
}

async fn ask(case: &Case<'_, Login<'_>>, path: &str) -> HealthAnswer {
    let port = case.spec.port().expect("a port");
    let question = Question { port, probe: Probe::Http(path.to_owned()), timeout: Duration::from_secs(2) };
    case.stand.fleet().ask(&case.stand.target(), &question).await
}

/// What the server says, once it does.
pub(crate) async fn said(case: &Case<'_, Login<'_>>) -> serde_json::Value {
    let started = Instant::now();
    loop {
        match ask(case, "/").await {
            HealthAnswer::Http { status: 200, body } => return serde_json::from_str(&body).expect("JSON"),
            other if started.elapsed() > PATIENCE => panic!("{other:?}"),
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_settings_and_health_reach_the_program_and_back() {
    let testbed = Testbed::new().expect("a testbed");
    let host = testbed.host("web1").expect("a host");
    let login = root(&host);
    everything_reaches_the_program(&login).await;
    only_what_changed_travels(&login).await;
    health_is_asked_through_the_connection(&login).await;
    a_question_may_be_dropped_at_any_moment(&login).await;
    what_cannot_start_says_so(&login).await;
    every_target_runs(&login).await;
    who_runs_it_is_who_was_declared(&login).await;
    a_service_holds_no_lock(&login).await;
    a_missing_script_is_brought_again(&login).await;
    damage_is_found_and_mended(&login).await;
}

/// Names, arguments and values that a shell, tar, systemd or a manifest could stumble over.
async fn everything_reaches_the_program(login: &Login<'_>) {
    let mut case = Case::new(login, "odd");
    let odd = "a \"b\" 'c' $HOME ${PATH} %n %% \\ \\n `id` ; | & # ü \u{1f980}";
    case.spec.runtime.args = vec![odd.to_owned(), String::new(), "-x".to_owned(), "two\nlines\ttab".to_owned()];
    case.spec.runtime.env.insert("SAID".to_owned(), format!("{odd}\nsecond line\n\\"));
    let mut release = case.releases.server("1", 0);
    let names = [
        "-rf",
        "--",
        "a b",
        " leading",
        "trailing ",
        "it's",
        "\"quoted\"",
        "$HOME",
        "`id`",
        "%n",
        "*",
        "?",
        "ü/é\u{301}",
        "#x",
        "a;b",
        "a&b",
        "deep/er/and/deep er/x",
        "x -> y",
        "(x)",
        "[x]",
        "~",
        "!x",
        "a=b",
        "lnk x",
        &"long".repeat(50),
    ];
    for name in names {
        case.releases.add(&mut release, name, name.as_bytes(), false);
    }
    case.releases.add(&mut release, "empty", b"", false);
    for (path, to) in [("link to it", "a b"), ("deep/link", "../-rf"), ("dangling", "nowhere")] {
        let path = path.parse().expect(path);
        let entry = Entry::link(&path, to).expect("a link");
        release.entries.insert(path, entry);
    }
    case.deploy(1, 1, &release).await;
    let seen = case.look(Scrutiny::Full).await;
    assert!(seen.drift.is_empty(), "{seen:?}");
    let said = said(&case).await;
    assert_eq!(said["args"], serde_json::json!(case.spec.runtime.args));
    assert_eq!(said["env"], case.spec.runtime.env["SAID"]);
    assert_eq!(said["state"], "/var/lib/windlass/default.odd");
    let paths: Vec<&str> = release.entries.keys().map(|path| path.as_str()).collect();
    assert_eq!(said["paths"], serde_json::json!(paths));
    // The same again on the base of it, with everything odd kept, changed or gone.
    let mut second = release.clone();
    second.entries.remove(&"*".parse().expect("*"));
    second.entries.remove(&"dangling".parse().expect("dangling"));
    case.releases.add(&mut second, "--", b"changed", true);
    case.releases.add(&mut second, " leading", b"changed", false);
    case.releases.add(&mut second, "zz", b"last", false);
    second.entries.retain(|path, _| !path.as_str().starts_with("deep/er/"));
    case.releases.add(&mut second, "deep/er", b"a file where a folder was", false);
    case.stage(2, 2, &second, &[&release]).await.expect("stage");
    case.activate(2, 2).await.expect("activate");
    let seen = case.look(Scrutiny::Full).await;
    assert!(seen.drift.is_empty() && seen.releases.contains(&second.digest()), "{seen:?}");
    case.remove(3, DataFate::Purge).await.expect("remove");
}

/// How many bytes of the contents' files a stage reads, and what it sent, by what the host has received.
async fn only_what_changed_travels(login: &Login<'_>) {
    let case = Case::new(login, "small");
    let first = case.releases.server("1", 300);
    case.deploy(1, 1, &first).await;
    let mut second = first.clone();
    case.releases.add(&mut second, "version.txt", b"2", false);
    let before = received(login);
    case.stage(2, 2, &second, &[&first]).await.expect("stage");
    let bytes = received(login) - before;
    assert!(bytes < 12_000, "{bytes} bytes for one changed file");
    case.activate(2, 2).await.expect("activate");
    // Files that are equal are the same file.
    let dir = format!("{}/default.small/releases", login.dir());
    let same = login.run(&format!(
        "[ {dir}/{0}/server.py -ef {dir}/{1}/server.py ] && echo same",
        first.digest(),
        second.digest()
    ));
    assert_eq!(same, "same\n");
    a_deploy_is_one_connection(&case, &second).await;
    // A new revision of the same release carries no files at all.
    let before = received(login);
    case.stage(4, 4, &second, &[]).await.expect("stage");
    assert!(received(login) - before < 12_000);
    case.remove(5, DataFate::Purge).await.expect("remove");
}

/// One changed file, from nothing to a confirmation, with a health question: counted by the host.
async fn a_deploy_is_one_connection(case: &Case<'_, Login<'_>>, base: &Manifest) {
    let login = case.stand;
    let mut third = base.clone();
    case.releases.add(&mut third, "version.txt", b"3", false);
    login.fleet().close().await;
    let sessions = || {
        let log = tokio::task::block_in_place(|| login.host.sshd_log()).expect("sshd's log");
        ["Accepted publickey", "Starting session"].map(|word| log.lines().filter(|line| line.starts_with(word)).count())
    };
    let (before, [logins, channels]) = (received(login), sessions());
    let seen = Seen::from(&case.look(Scrutiny::Quick).await);
    case.stamp_alone(3).await.expect("stamp");
    case.stage_on((3, 3), &third, &[base], seen).await.expect("stage");
    case.activate(3, 3).await.expect("activate");
    case.pid().await;
    ask(case, "/").await;
    let (after, [logins_after, channels_after]) = (received(login), sessions());
    assert_eq!((logins_after - logins, channels_after - channels), (1, 1));
    assert!(after - before < 15_000, "{} bytes", after - before);
    // What is new is confirmed by a login of its own.
    case.confirm(3, 3, &[2]).await.expect("confirm");
    let (last, [logins_last, channels_last]) = (received(login), sessions());
    assert_eq!((logins_last - logins_after, channels_last - channels_after), (1, 1));
    assert!(last - after < 6_000, "{} bytes", last - after);
}

/// Bytes that the host has received.
pub(crate) fn received(login: &Login<'_>) -> u64 {
    login
        .run("cat /sys/class/net/host0/statistics/rx_bytes 2>/dev/null || grep host0 /proc/net/dev | awk '{print $2}'")
        .trim()
        .parse()
        .expect("a number")
}

async fn health_is_asked_through_the_connection(login: &Login<'_>) {
    let case = Case::new(login, "health");
    let port = case.spec.port();
    let (fleet, target) = (login.fleet(), login.target());
    assert!(matches!(ask(&case, "/").await, HealthAnswer::Silent { .. }), "nobody listens");
    let tcp = Question { port: port.expect("a port"), probe: Probe::Connect, timeout: Duration::from_secs(2) };
    assert!(matches!(fleet.ask(&target, &tcp).await, HealthAnswer::Silent { .. }), "nobody listens");
    case.deploy(1, 1, &case.releases.server("1", 0)).await;
    said(&case).await;
    assert!(matches!(ask(&case, "/broken").await, HealthAnswer::Http { status: 500, .. }));
    assert_eq!(fleet.ask(&target, &tcp).await, HealthAnswer::Open);
    let sample = fleet.sample(&target, &case.service, port).await.expect("a sample");
    assert_eq!((sample.run.active, sample.listener), (ActiveState::Active, Some(Listener::Ours)));
    assert!(sample.monotonic > sample.run.since, "{sample:?}");
    let sample = fleet.sample(&target, &case.service, NonZeroU16::new(22)).await.expect("a sample");
    assert_eq!(sample.listener, Some(Listener::Another), "sshd");
    let sample = fleet.sample(&target, &case.service, NonZeroU16::new(9)).await.expect("a sample");
    assert_eq!(sample.listener, Some(Listener::Nobody));
    let logs = fleet.logs(&target, &case.service, 5).await.expect("logs");
    assert!(logs.iter().any(|line| line.contains("Started windlass-default.health.service")), "{logs:?}");
    // A program that takes the question and says nothing.
    login.run("systemd-run -q --unit=mute python3 -c 'import socket,time; s=socket.create_server((\"\", 7777)); time.sleep(600)'");
    let mute = Question {
        port: NonZeroU16::new(7777).expect("a port"),
        probe: Probe::Http("/".to_owned()),
        timeout: Duration::from_secs(1),
    };
    let started = Instant::now();
    let mut answer = fleet.ask(&target, &mute).await;
    while !matches!(&answer, HealthAnswer::Silent { detail } if detail.contains("within"))
        && started.elapsed() < PATIENCE
    {
        tokio::time::sleep(Duration::from_millis(50)).await;
        answer = fleet.ask(&target, &mute).await;
    }
    assert_eq!(answer, HealthAnswer::Silent { detail: "no answer within 1 s".to_owned() });
    case.remove(2, DataFate::Purge).await.expect("remove");
}

/// ssh does what it was asked, whether anybody hears of it or not; the next question must find its way all the same.
async fn a_question_may_be_dropped_at_any_moment(login: &Login<'_>) {
    let (fleet, target) = (login.fleet(), login.target());
    let mut moment = 1;
    for attempt in 1..100 {
        let port = NonZeroU16::new(20_000 + attempt).expect("a port");
        let question = Question { port, probe: Probe::Connect, timeout: Duration::from_secs(2) };
        let ended = waits(&mut Box::pin(fleet.ask(&target, &question)), moment).await;
        // By the time that a round trip has taken, ssh has done what it was asked before.
        let other = Question { port: NonZeroU16::new(20_000).expect("a port"), ..question.clone() };
        assert!(matches!(fleet.ask(&target, &other).await, HealthAnswer::Silent { .. }), "nobody listens");
        let answer = fleet.ask(&target, &question).await;
        assert!(matches!(answer, HealthAnswer::Silent { .. }), "dropped when it had waited {moment} times: {answer:?}");
        match (ended, moment) {
            // A machine that held us up for long enough had the whole answer before we first waited for it.
            (true, 1) => {}
            (true, _) => return,
            (false, _) => moment += 1,
        }
    }
    panic!("a question that may wait {moment} times never ends");
}

/// Drives something until it has had to wait so many times; whether it came to its end.
async fn waits(future: &mut (impl Future + Unpin), times: u16) -> bool {
    let mut waited = 0;
    std::future::poll_fn(|context| {
        if std::pin::Pin::new(&mut *future).poll(context).is_ready() {
            return std::task::Poll::Ready(true);
        }
        waited += 1;
        if waited == times { std::task::Poll::Ready(false) } else { std::task::Poll::Pending }
    })
    .await
}

async fn what_cannot_start_says_so(login: &Login<'_>) {
    let mut case = Case::new(login, "wrong");
    let mut release = case.releases.server("1", 0);
    case.releases.add(&mut release, "not-executable", b"#!/bin/sh\n", false);
    case.spec.runtime.target = serde_json::from_str("\"generic\"").expect("a target");
    case.spec.runtime.entry_point = "not-executable".parse().expect("a path");
    case.stage(1, 1, &release, &[]).await.expect("stage");
    let outcome = case.activate(1, 1).await;
    assert!(matches!(outcome, Err(StepError::StartFailed { .. })), "{outcome:?}");
    assert!(matches!(case.look(Scrutiny::Quick).await.steps[&Verb::Activate].state, StepState::Failed(_)));
    assert!(matches!(case.activate(1, 1).await, Err(StepError::StartFailed { .. })), "from its record");
    assert!(matches!(case.confirm(1, 1, &[]).await, Err(StepError::NotActivated { .. })));
    case.spec.runtime.target = serde_json::from_str("\"node\"").expect("a target");
    let outcome = case.stage(2, 2, &release, &[]).await;
    assert!(matches!(&outcome, Err(StepError::NotStaged { detail, .. }) if detail.contains("node")), "{outcome:?}");
    case.remove(3, DataFate::Purge).await.expect("remove");
    assert_eq!(case.look(Scrutiny::Quick).await.run.active, ActiveState::Inactive);
}

/// A program that runs by itself, and one that an interpreter runs.
async fn every_target_runs(login: &Login<'_>) {
    login.run("printf '#!/bin/sh\nexec python3 -u \"$@\"\n' >/usr/local/bin/node && chmod 755 /usr/local/bin/node");
    for (target, entry_point) in [("python", "server.py"), ("node", "server.py"), ("generic", "bin/serve")] {
        let mut case = Case::new(login, &format!("runs-{target}"));
        case.spec.runtime.target = serde_json::from_value(target.into()).expect("a target");
        case.spec.runtime.entry_point = entry_point.parse().expect("a path");
        case.spec.runtime.args = vec!["--said".to_owned(), "$HOME %n".to_owned()];
        let mut release = case.releases.server("1", 0);
        let alone = b"#!/bin/sh\nexec python3 -u server.py \"$@\"\n";
        case.releases.add(&mut release, "bin/serve", alone, true);
        case.deploy(1, 1, &release).await;
        assert_eq!(said(&case).await["args"], serde_json::json!(case.spec.runtime.args), "{target}");
        let pid = case.pid().await.expect("a process");
        let command = login.run(&format!("tr '\\0' ' ' </proc/{pid}/cmdline"));
        assert!(command.starts_with("python3 -u") || target == "python", "{target}: {command}");
        case.remove(2, DataFate::Purge).await.expect("remove");
    }
}

async fn who_runs_it_is_who_was_declared(login: &Login<'_>) {
    let mut case = Case::new(login, "whose");
    let release = case.releases.server("1", 0);
    case.deploy(1, 1, &release).await;
    case.spec.runtime.user = Some("nobody-here".to_owned());
    let outcome = case.stage(2, 2, &release, &[]).await;
    let told = "runtime.user is nobody-here, and there is no such user here";
    assert!(matches!(&outcome, Err(StepError::NotStaged { detail, .. }) if detail.contains(told)), "{outcome:?}");
    said(&case).await;
    // Nor is anybody switched to by mistake: what ran goes on.
    assert!(matches!(case.activate(2, 2).await, Err(StepError::NotStaged { .. })));
    case.spec.runtime.user = Some("app".to_owned());
    case.stage(3, 3, &release, &[&release]).await.expect("stage");
    case.activate(3, 3).await.expect("activate");
    said(&case).await;
    let owner = |pid: u32| login.run(&format!("stat -c %U /proc/{pid}"));
    assert_eq!(owner(case.pid().await.expect("a process")), "app\n");
    case.remove(4, DataFate::Purge).await.expect("remove");

    // Without privilege nobody runs anything as somebody else, so that is not passed over.
    let plain = Login::new(login.host, "app", "sh", "plain", 8900);
    let mut case = Case::new(&plain, "whose");
    case.spec.runtime.user = Some("deploy".to_owned());
    let outcome = case.stage(1, 1, &release, &[]).await;
    let told = "runtime.user is deploy, and what app starts here runs as app";
    assert!(matches!(&outcome, Err(StepError::NotStaged { detail, .. }) if detail.contains(told)), "{outcome:?}");
    assert!(plain.run("ls /home/app/.config/systemd/user 2>/dev/null || true").is_empty(), "a unit was left");
}

async fn a_service_holds_no_lock(login: &Login<'_>) {
    let case = Case::new(login, "lock");
    case.deploy(1, 1, &case.releases.server("1", 0)).await;
    let free = login.run(&format!("flock -n {}/fence/default.lock/lock echo free", login.dir()));
    assert_eq!(free, "free\n");
    let pid = case.pid().await.expect("a process");
    let open = login.run(&format!("ls -l /proc/{pid}/fd"));
    assert!(!open.contains("fence"), "{open}");
    case.remove(2, DataFate::Purge).await.expect("remove");
}

async fn a_missing_script_is_brought_again(login: &Login<'_>) {
    login.fleet().close().await;
    login.run(&format!("cd {}/bin && for f in *; do chmod u+w $f; echo damaged >>$f; done", login.dir()));
    let case = Case::new(login, "script");
    case.stamp(1).await.expect("stamp");
    login.fleet().close().await;
    login.run(&format!("rm -r {}/bin", login.dir()));
    case.stamp(2).await.expect("stamp");
}

async fn damage_is_found_and_mended(login: &Login<'_>) {
    let case = Case::new(login, "damage");
    let first = case.releases.server("1", 20);
    case.deploy(1, 1, &first).await;
    let file = format!("{}/default.damage/releases/{}/lib/part1/file1.txt", login.dir(), first.digest());
    // The same size, time and mode: only the hash tells.
    login.run(&format!(
        "touch -r {file} /tmp/when && sed -i s/file/lief/ {file} && chmod 444 {file} && touch -r /tmp/when {file}"
    ));
    assert!(case.look(Scrutiny::Quick).await.drift.is_empty());
    let seen = case.look(Scrutiny::Full).await;
    let told = Drift::FilesChanged { paths: vec!["lib/part1/file1.txt".to_owned()] };
    assert!(seen.drift.contains(&told), "{seen:?}");
    let outcome = case.revert(2, 1).await;
    assert!(
        matches!(&outcome, Err(StepError::NotStaged { detail, .. }) if detail.contains("file1.txt")),
        "{outcome:?}"
    );
    case.stage(3, 1, &first, &[]).await.expect("stage");
    case.revert(3, 1).await.expect("revert");
    assert!(case.look(Scrutiny::Full).await.drift.is_empty());
    // A base whose damage shows is not built on: everything travels.
    login.run(&format!("chmod u+w {file} && echo more >>{file}"));
    let second = case.releases.server("2", 20);
    case.stage(4, 2, &second, &[&first]).await.expect("stage");
    case.activate(4, 2).await.expect("activate");
    assert!(case.look(Scrutiny::Full).await.drift.is_empty());
    // A revision whose own files were changed.
    login.run(&format!("echo X=1 >>{}/default.damage/revisions/2/env", login.dir()));
    assert!(case.look(Scrutiny::Quick).await.drift.contains(&Drift::RevisionChanged));
    assert!(matches!(case.activate(5, 2).await, Err(StepError::NotStaged { .. })));
    case.stage(6, 2, &second, &[]).await.expect("stage");
    case.activate(6, 2).await.expect("activate");
    assert!(case.look(Scrutiny::Quick).await.drift.is_empty());
    case.remove(7, DataFate::Purge).await.expect("remove");
}

/// With one shell, which has started what it looks at: it asks systemd only where that may have more to tell.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_started_it_sees_a_hand_too() {
    let testbed = Testbed::new().expect("a testbed");
    let host = testbed.host("web1").expect("a host");
    let login = Login::new(&host, "root", "sh", "default", 8000);
    a_hand_is_seen_and_undone(Case::new(&login, "handled")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_break_and_nothing_is_left_half() {
    let testbed = Testbed::new().expect("a testbed");
    let host = testbed.host("web1").expect("a host");
    let login = root(&host);
    an_upload_is_resumed(&login).await;
    an_activation_goes_on_without_us(&login).await;
    what_had_only_begun_is_run_again(&login).await;
    what_a_power_cut_took_of_a_stage_is_brought_again(&login).await;
    room_to_build_in_is_used_once(&login).await;
    what_is_stopped_where_the_fence_was_lost_was_stopped_by_somebody(&login).await;
    an_upload_holds_no_sample_up(&login).await;
    a_reboot_starts_the_service(&login).await;
    packets_that_vanish_are_noticed(&login).await;
}

/// Kills the masters of this fleet, as a broken network would end them.
fn cut(login: &Login<'_>) {
    login.run("pkill -KILL -f '^sshd: root' || true");
}

/// Contents of a file that do not compress and have a name.
fn big(case: &Case<'_, Login<'_>>, manifest: &mut Manifest, name: &str, megabytes: usize) {
    let contents: Vec<u8> = (0..megabytes << 20).map(|index| (index * 31 + (index >> 8) * 7) as u8).collect();
    case.releases.add(manifest, name, &contents, false);
}

async fn an_upload_is_resumed(login: &Login<'_>) {
    let case = Case::new(login, "upload");
    let mut release = case.releases.server("1", 0);
    big(&case, &mut release, "big", 64);
    case.stamp(1).await.expect("stamp");
    let cutter = async {
        // As soon as some of it is there.
        let place = format!("{}/default.upload/incoming", login.dir());
        for _ in 0..1000 {
            let size = login.run(&format!("cat {place}/*.part* 2>/dev/null | wc -c"));
            if size.trim().parse::<u64>().is_ok_and(|size| size > 100_000) {
                break;
            }
            // The other half of this test runs on the same task.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        cut(login);
    };
    let (outcome, ()) = tokio::join!(case.stage(1, 1, &release, &[]), cutter);
    assert!(matches!(outcome, Err(StepError::Contact { .. })), "{outcome:?}");
    let seen = case.look(Scrutiny::Quick).await;
    let (_, arrived) = seen.incoming.expect("what has arrived is kept");
    assert!(arrived > 0 && seen.revisions.is_empty() && seen.releases.is_empty(), "{seen:?}");
    assert!(matches!(case.activate(1, 1).await, Err(StepError::NotStaged { .. })));
    // Whose process it was is somebody else after a boot: here a shell of ours, which receives something else.
    let place = format!("{}/default.upload/incoming", login.dir());
    let ours = format!("{}/bin/{}", login.dir(), "0".repeat(64));
    login.run(&format!("systemd-run --quiet --unit=ours sh -c 'while sleep 600; do :; done' {ours}"));
    let pid = login.run("systemctl show -p MainPID --value ours");
    let gone = format!("{}-00000000-0000-4000-8000-000000000000", pid.trim());
    login.run(&format!("for part in {place}/*.part*; do mv $part ${{part%%.part*}}.part.{gone}; done"));
    // There may be passwords in it.
    assert_eq!(login.run(&format!("stat -c %a {place}/*.part.{gone}")).trim(), "600");
    let before = received(login);
    case.stage(1, 1, &release, &[]).await.expect("stage");
    let bytes = received(login) - before;
    assert!(bytes < (70 << 20) - arrived, "{bytes} bytes after {arrived} had arrived");
    case.activate(1, 1).await.expect("activate");
    let seen = case.look(Scrutiny::Full).await;
    assert!(seen.drift.is_empty() && seen.incoming.is_none(), "{seen:?}");
    // What that boot has left otherwise is swept.
    login.run(&format!("cd {place} && mkdir build.{gone} && echo left >build.{gone}/x && echo left >small.{gone}"));
    case.confirm(1, 1, &[]).await.expect("confirm");
    let left = login.run(&format!("ls {place}"));
    assert!(!left.contains(&gone), "{left}");
    login.run("systemctl stop ours");
    case.remove(2, DataFate::Purge).await.expect("remove");
}

async fn an_activation_goes_on_without_us(login: &Login<'_>) {
    let case = Case::new(login, "cut");
    case.stage(1, 1, &case.releases.server("1", 0), &[]).await.expect("stage");
    let cutter = async {
        for _ in 0..1000 {
            if login.run(&format!("cat {}/fence/default.cut/steps/activate || true", login.dir())).contains("begun") {
                break;
            }
            // The other half of this test runs on the same task.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        cut(login);
    };
    let (outcome, ()) = tokio::join!(case.activate(1, 1), cutter);
    // It may have been faster than the cut.
    assert!(matches!(outcome, Err(StepError::Contact { .. }) | Ok(())), "{outcome:?}");
    // Asked again, it waits for the one under way and answers from its record. Where it was faster than the cut, this is
    // what finds the connection broken.
    let again = match (outcome, case.activate(1, 1).await) {
        (Ok(()), Err(StepError::Contact { .. })) => case.activate(1, 1).await,
        (_, again) => again,
    };
    again.expect("activate again");
    let seen = case.look(Scrutiny::Quick).await;
    assert_eq!((seen.unit, seen.run.active), (UnitFile::Revision(revision(1)), ActiveState::Active));
    assert_eq!(seen.steps[&Verb::Activate].state, StepState::Ok);
    case.remove(2, DataFate::Purge).await.expect("remove");
}

async fn what_had_only_begun_is_run_again(login: &Login<'_>) {
    let case = Case::new(login, "begun");
    case.deploy(1, 1, &case.releases.server("1", 0)).await;
    let before = case.pid().await;
    login.run(&format!("sed -i 's/ ok    / begun /' {}/fence/default.begun/steps/activate", login.dir()));
    assert_eq!(case.look(Scrutiny::Quick).await.steps[&Verb::Activate].state, StepState::Begun);
    assert!(matches!(case.confirm(2, 1, &[]).await, Err(StepError::NotActivated { .. })));
    case.activate(2, 1).await.expect("activate");
    assert_ne!(case.pid().await, before);
    case.remove(3, DataFate::Purge).await.expect("remove");
}

async fn what_a_power_cut_took_of_a_stage_is_brought_again(login: &Login<'_>) {
    let case = Case::new(login, "torn");
    let (first, second) = (case.releases.server("1", 3), case.releases.server("2", 3));
    case.deploy(1, 1, &first).await;
    case.stage(2, 2, &second, &[&first]).await.expect("stage");
    // What was moved may be lost though the record of it is not.
    let home = format!("{}/default.torn", login.dir());
    login.run(&format!("cd {home} && rm -r revisions/2 releases/{}*", second.digest()));
    assert_eq!(case.look(Scrutiny::Quick).await.steps[&Verb::Stage].state, StepState::Ok);
    case.stage(2, 2, &second, &[&first]).await.expect("stage again");
    case.activate(2, 2).await.expect("activate");
    assert_eq!(said(&case).await["version"], "2");
    case.remove(3, DataFate::Purge).await.expect("remove");
}

/// A confirmation leaves an empty folder for the next small stage. One that was begun, or is from before a boot, is not
/// used.
async fn room_to_build_in_is_used_once(login: &Login<'_>) {
    let case = Case::new(login, "room");
    let mut releases: Vec<Manifest> = (1..=6).map(|version| case.releases.server(&version.to_string(), 3)).collect();
    case.deploy(1, 1, &releases[0]).await;
    let incoming = format!("{}/default.room/incoming", login.dir());
    let room = || login.run(&format!("cat {incoming}/ready/room"));
    let boot = login.run("cat /proc/sys/kernel/random/boot_id");
    let spoils = [
        "true".to_owned(),
        // Cut off after it was begun.
        format!(
            ": >{incoming}/ready/room; echo '[Unit]' >{incoming}/ready/revision/unit; mkdir {incoming}/ready/files"
        ),
        format!(
            "echo 00000000-0000-0000-0000-000000000000 >{incoming}/ready/room; touch {incoming}/ready/revision/env"
        ),
        format!("rm -r {incoming}/ready"),
    ];
    for (at, spoil) in (2..).zip(spoils) {
        assert_eq!(room(), boot, "before {at}");
        login.run(&spoil);
        let (before, next) = (releases[0].clone(), releases.remove(1));
        case.stage(at * 10, at, &next, &[&before]).await.expect("stage");
        // The same again, under another number.
        case.stage(at * 10 + 1, at, &next, &[&before]).await.expect("stage again");
        case.activate(at * 10 + 1, at).await.expect("activate");
        let seen = case.look(Scrutiny::Full).await;
        assert!(seen.drift.is_empty(), "{spoil}: {seen:?}");
        assert_eq!(said(&case).await["version"], at.to_string());
        case.confirm(at * 10 + 1, at, &[1]).await.expect("confirm");
        let left = login.run(&format!("cd {incoming} && ls -A . ready/revision && find . -type f ! -empty"));
        assert!(!left.contains("build.") && left.contains("ready/room"), "{left}");
        assert_eq!(login.run(&format!("ls -A {incoming}/ready/revision")), "", "{spoil}");
    }
    case.remove(60, DataFate::Purge).await.expect("remove");
}

async fn what_is_stopped_where_the_fence_was_lost_was_stopped_by_somebody(login: &Login<'_>) {
    let case = Case::new(login, "lost");
    case.deploy(1, 1, &case.releases.server("1", 0)).await;
    login.run(&format!("rm -r {}/fence/default.lost; systemctl stop windlass-default.lost.service", login.dir()));
    for _ in 0..2 {
        let seen = case.look(Scrutiny::Quick).await;
        assert!(seen.drift.contains(&Drift::Stopped), "{seen:?}");
        // It is the same once the records were made anew.
        case.stamp(2).await.expect("stamp");
    }
    case.activate(3, 1).await.expect("activate");
    case.act(4, Step::Stop).await.expect("stop");
    let seen = case.look(Scrutiny::Quick).await;
    assert!(!seen.drift.contains(&Drift::Stopped), "{seen:?}");
    case.remove(5, DataFate::Purge).await.expect("remove");
}

async fn an_upload_holds_no_sample_up(login: &Login<'_>) {
    let case = Case::new(login, "side");
    let mut release = case.releases.server("1", 0);
    big(&case, &mut release, "big", 24);
    case.stamp(1).await.expect("stamp");
    let slowest = Mutex::new(Duration::ZERO);
    let samples = async {
        for _ in 0..20 {
            let started = Instant::now();
            case.pid().await;
            let mut slowest = slowest.lock().expect("a lock");
            *slowest = (*slowest).max(started.elapsed());
        }
    };
    let (outcome, ()) = tokio::join!(case.stage(1, 1, &release, &[]), samples);
    outcome.expect("stage");
    let slowest = *slowest.lock().expect("a lock");
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
    case.remove(2, DataFate::Purge).await.expect("remove");
}

async fn a_reboot_starts_the_service(login: &Login<'_>) {
    let case = Case::new(login, "boot");
    case.deploy(1, 1, &case.releases.server("1", 0)).await;
    let before = case.stamp(1).await.expect("stamp").facts.boot;
    tokio::task::block_in_place(|| login.host.reboot()).expect("a reboot");
    // The old connection may still have to be noticed as broken.
    let after = loop {
        match case.stamp(1).await {
            Ok(seen) => break seen,
            Err(StepError::Contact { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    };
    assert_ne!(after.facts.boot, before);
    assert_eq!(after.service.run.active, ActiveState::Active);
    assert!(after.service.drift.is_empty(), "{after:?}");
    said(&case).await;
    case.remove(2, DataFate::Purge).await.expect("remove");
}

async fn packets_that_vanish_are_noticed(login: &Login<'_>) {
    let case = Case::new(login, "swallow");
    case.deploy(1, 1, &case.releases.server("1", 0)).await;
    tokio::task::block_in_place(|| login.host.swallow()).expect("a rule");
    for what in ["an open connection", "a new one"] {
        let started = Instant::now();
        let outcome = case.stamp(1).await;
        let took = started.elapsed();
        assert!(matches!(outcome, Err(StepError::Contact { .. })), "{what}: {outcome:?}");
        assert!(took < Duration::from_secs(10), "{what}: {took:?}");
    }
    let started = Instant::now();
    assert!(matches!(ask(&case, "/").await, HealthAnswer::Unknown { .. }));
    assert!(started.elapsed() < Duration::from_secs(15));
    tokio::task::block_in_place(|| login.host.unswallow()).expect("a rule");
    case.stamp(1).await.expect("stamp");
}

#[tokio::test(flavor = "multi_thread")]
async fn full_disks_stop_neither_rollback_nor_removal() {
    let testbed = Testbed::new().expect("a testbed");
    let host = testbed.host("web1").expect("a host");
    let login = root(&host);
    let case = Case::new(&login, "full");
    let (one, two) = (case.releases.server("1", 5), case.releases.server("2", 5));
    let mut three = case.releases.server("3", 5);
    big(&case, &mut three, "big", 2);
    case.deploy(1, 1, &one).await;
    case.stage(2, 2, &two, &[&one]).await.expect("stage");
    case.activate(2, 2).await.expect("activate");
    let fill = |spare| tokio::task::block_in_place(|| host.fill_disk(spare)).expect("a full disk");
    fill(Spare { bytes: 200_000, inodes: 1000 });
    case.stamp(3).await.expect("stamp");
    let outcome = case.stage(3, 3, &three, &[]).await;
    assert!(matches!(outcome, Err(StepError::NoSpace { .. })), "{outcome:?}");
    fill(Spare { bytes: 0, inodes: 0 });
    let outcome = case.stage(3, 3, &three, &[]).await;
    assert!(matches!(outcome, Err(StepError::NoSpace { .. })), "{outcome:?}");
    case.stamp(4).await.expect("stamp");
    case.revert(4, 1).await.expect("revert");
    let seen = case.look(Scrutiny::Quick).await;
    assert_eq!((seen.unit, seen.run.active), (UnitFile::Revision(revision(1)), ActiveState::Active));
    case.act(5, Step::Stop).await.expect("stop");
    case.remove(5, DataFate::Purge).await.expect("remove");
    assert!(!case.look(Scrutiny::Quick).await.present);
    tokio::task::block_in_place(|| host.unfill_disk()).expect("room");
    case.deploy(6, 4, &three).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_must_not_get_in_does_not() {
    let testbed = Testbed::new().expect("a testbed");
    let host = testbed.host("web1").expect("a host");
    let service: ServiceKey = "default/web".parse().expect("a service");
    let look = Look { service, stamp: None, scrutiny: Scrutiny::Quick };
    let fleet = SshFleet::new().expect("a fleet");
    let contact = async |target: &_| match fleet.observe(target, &look).await {
        Err(StepError::Contact { error }) => error,
        other => panic!("{other:?}"),
    };
    let mut wrong_key = target(&host, "root");
    wrong_key.host_keys = vec![
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIECbeTt7MaivvwPRiStQ28iE+cqpkpYOTB5dQVSHigMW".parse().expect("a key"),
    ];
    assert!(matches!(contact(&wrong_key).await, ContactError::HostKey { .. }));
    let mut unknown = target(&host, "root");
    unknown.host_keys.clear();
    assert!(matches!(contact(&unknown).await, ContactError::HostKey { .. }), "nothing is accepted at first sight");
    let mut stranger = target(&host, "root");
    stranger.key_file = Some(host.stranger_key_file().to_str().expect("UTF-8").to_owned());
    assert!(matches!(contact(&stranger).await, ContactError::Login { .. }));
    let mut nowhere = target(&host, "root");
    nowhere.address = "nowhere.invalid".to_owned();
    assert!(matches!(contact(&nowhere).await, ContactError::NoAddress { .. }));
    let mut closed = target(&host, "root");
    closed.port = NonZeroU16::new(23).expect("a port");
    assert!(matches!(contact(&closed).await, ContactError::Refused { .. }));
    match contact(&target(&host, "nolinger")).await {
        ContactError::Unsuitable { detail } => assert!(detail.contains("loginctl enable-linger nolinger"), "{detail}"),
        other => panic!("{other:?}"),
    }
    let mut no_sudo = target(&host, "app");
    no_sudo.privilege = Some(windlass_crds::host::Privilege::Sudo);
    assert!(matches!(contact(&no_sudo).await, ContactError::Unsuitable { .. }));
    let mut read_only = target(&host, "root");
    read_only.remote_dir = Some("/proc/windlass".to_owned());
    assert!(matches!(contact(&read_only).await, ContactError::Unsuitable { .. }));
    sshd_may_be_strict(&host).await;
    fleet.close().await;
}

/// One session a connection, and no forwarding.
async fn sshd_may_be_strict(host: &Host) {
    let set = |line| tokio::task::block_in_place(|| host.set_sshd_option(line)).expect(line);
    set("MaxSessions 1");
    let login = root(host);
    let case = Case::new(&login, "strict");
    case.deploy(1, 1, &case.releases.server("1", 0)).await;
    said(&case).await;
    let looks = (0..6).map(|_| case.look(Scrutiny::Quick));
    assert!(futures::future::join_all(looks).await.iter().all(|seen| seen.unit == UnitFile::Revision(revision(1))));
    sessions_are_few(&login, &case).await;
    set("AllowTcpForwarding no");
    login.fleet().close().await;
    for probe in [Probe::Http("/".to_owned()), Probe::Connect] {
        let port = case.spec.port().expect("a port");
        let question = Question { port, probe, timeout: Duration::from_secs(2) };
        let answer = login.fleet().ask(&login.target(), &question).await;
        assert!(
            matches!(&answer, HealthAnswer::Unknown { detail } if detail.contains("AllowTcpForwarding")),
            "{answer:?}"
        );
    }
    case.remove(2, DataFate::Purge).await.expect("remove");
}

/// However few sessions sshd grants, all that is asked is answered; a shell that ended makes room for the next one a
/// moment later, and that one is asked for again. Where sshd grants none, that is what is told.
async fn sessions_are_few(login: &Login<'_>, case: &Case<'_, Login<'_>>) {
    let set = async |line: &str| {
        // Of two lines sshd goes by the first.
        tokio::task::block_in_place(|| login.host.clear_sshd_options().and_then(|()| login.host.set_sshd_option(line)))
            .expect(line);
        login.fleet().close().await;
    };
    let release = case.releases.server("2", 3);
    for (sequence, line) in (2..).zip(["MaxSessions 1", "MaxSessions 2", "MaxSessions 3"]) {
        set(line).await;
        let broken = Material {
            contents: Arc::new(|digest| format!("/nowhere/{digest}").into()),
            ..case.releases.material(&case.spec, &release, &[])
        };
        let order = case.order(sequence, Step::Stage { revision: revision(sequence), release: release.digest() });
        let target = login.target();
        for _ in 0..3 {
            // Ends its shell, for nobody knows what is still on the line.
            let stage = login.fleet().stage(&target, &order, &broken);
            let looks = futures::future::join_all((0..6).map(|_| case.look(Scrutiny::Quick)));
            let (failed, looks) = tokio::join!(stage, looks);
            assert!(matches!(failed, Err(StepError::Contact { error: ContactError::Local { .. } })), "{failed:?}");
            assert!(looks.iter().all(|seen| seen.unit == UnitFile::Revision(revision(1))), "{line}");
        }
    }
    set("MaxSessions 0").await;
    match case.stamp(9).await {
        Err(StepError::Contact { error: ContactError::Refused { detail } }) => {
            assert!(detail.contains("MaxSessions"), "{detail}");
        }
        other => panic!("{other:?}"),
    }
    set("MaxSessions 10").await;
}

#[test]
fn the_scripts_are_clean() {
    for script in ["host.sh", "bootstrap.sh", "check.sh"] {
        let path = format!("{}/src/ssh/{script}", env!("CARGO_MANIFEST_DIR"));
        let checked = std::process::Command::new("shellcheck").args(["-s", "sh", &path]).output().expect("shellcheck");
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    }
}

/// The contents that a stage reads are ours to give: nothing is sent when they are not there.
#[tokio::test(flavor = "multi_thread")]
async fn missing_contents_are_told_here() {
    let testbed = Testbed::new().expect("a testbed");
    let host = testbed.host("web1").expect("a host");
    let login = root(&host);
    let case = Case::new(&login, "gone");
    let release = case.releases.server("1", 0);
    let material: Material = Material {
        contents: Arc::new(|digest| format!("/nowhere/{digest}").into()),
        ..case.releases.material(&case.spec, &release, &[])
    };
    let order = case.order(1, Step::Stage { revision: revision(1), release: release.digest() });
    let outcome = login.fleet().stage(&login.target(), &order, &material).await;
    assert!(matches!(outcome, Err(StepError::Contact { error: ContactError::Local { .. } })), "{outcome:?}");
}
