//! What the end of a session, and a program that takes its time, do to a step.

use std::time::{Duration, Instant};

use windlass_crds::id::ClusterId;
use windlass_crds::manifest::Manifest;
use windlass_crds::observation::{ActiveState, StepState, UnitFile};
use windlass_crds::step::{DataFate, Step, StepError, Verb};
use windlass_hosts::fleet::{Adoption, Fleet, Scrutiny};
use windlass_testbed::Testbed;

use crate::contract::{Case, Stand, cluster, revision};
use crate::real::Login;

/// How long anything may take that takes a second or two.
const PATIENCE: Duration = Duration::from_secs(30);

/// A program that needs so many seconds to stop.
fn slow_to_stop(case: &Case<'_, Login<'_>>, seconds: u32) -> Manifest {
    let mut manifest = case.releases.server("slow", 0);
    let program = format!(
        "import os, signal, time\ndef stop(*_):\n    time.sleep({seconds})\n    raise SystemExit(0)\n\
         signal.signal(signal.SIGTERM, stop)\nopen(os.environ['STATE_DIRECTORY'] + '/ready', 'w').close()\n\
         while True:\n    time.sleep(1)\n"
    );
    case.releases.add(&mut manifest, "server.py", program.as_bytes(), false);
    manifest
}

/// Waits until a shell text says a word on the host.
async fn wait_for(login: &Login<'_>, text: &str, word: &str) {
    let began = Instant::now();
    while !login.run(text).contains(word) {
        assert!(began.elapsed() < PATIENCE, "{text:?} never said {word:?}: {}", login.run(text));
        // Steps that are under way run on the same task.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the program has said how it will take SIGTERM.
async fn ready(login: &Login<'_>, case: &Case<'_, Login<'_>>) {
    wait_for(login, &format!("ls /var/lib/windlass/{}/", case.service.folder()), "ready").await;
}

/// A host that is adopted while a stage of its old store is on its way takes nothing of it any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_stage_that_is_overtaken_by_an_adoption_is_refused() {
    let testbed = Testbed::new().expect("a testbed");
    let host = testbed.host("web1").expect("a host");
    let login = Login::new(&host, "root", "sh", "default", 8000);
    let case = Case::new(&login, "late");
    let mut release = case.releases.server("1", 0);
    let large: Vec<u8> = (0..64_usize << 20).map(|index| (index * 31 + (index >> 8) * 7) as u8).collect();
    case.releases.add(&mut release, "large", &large, false);
    case.stamp(1).await.expect("stamp");
    let next: ClusterId = "00000000000000ff".to_owned().try_into().expect("an id");
    let adoption = Adoption { from: cluster(), to: next.clone() };
    let place = format!("{}/default.late", login.dir());
    let adopter = async {
        // It has passed the fence, and asks it again for what it has received, once nobody else holds the lock.
        wait_for(&login, &format!("ls {place}/incoming 2>/dev/null || true"), ".part.").await;
        let lock = format!("{}/fence/default.late/lock", login.dir());
        login.run(&format!("systemd-run --quiet --unit=hold flock -n {lock} sh -c 'touch /run/held; exec sleep 600'"));
        wait_for(&login, "ls /run", "held").await;
        login.fleet().adopt(&login.target(), &adoption).await.expect("adopt");
        login.run("systemctl stop hold");
    };
    let (outcome, ()) = tokio::join!(case.stage(1, 1, &release, &[]), adopter);
    assert_eq!(outcome, Err(StepError::OwnedByAnother { owner: next }));
    let left = login.run(&format!("find {place} ! -type d; cat {}/fence/default.late/steps/stage", login.dir()));
    assert!(left.contains(" begun ") && left.lines().count() == 1, "{left}");
}

/// With `KillUserProcesses=yes`, whatever a session has started dies with it; the switch does not.
#[tokio::test(flavor = "multi_thread")]
async fn an_activation_outlives_a_session_that_takes_everything_with_it() {
    let testbed = Testbed::new().expect("a testbed");
    let host = testbed.host("web1").expect("a host");
    let login = Login::new(&host, "deploy", "sh", "default", 8000);
    login.run(
        "mkdir -p /etc/systemd/logind.conf.d && printf '[Login]\\nKillUserProcesses=yes\\n' \
         >/etc/systemd/logind.conf.d/kill.conf && systemctl restart systemd-logind",
    );
    // It is in force: what a login leaves behind is gone.
    tokio::task::block_in_place(|| host.ssh("deploy", "nohup sleep 4242 >/dev/null 2>&1 &")).expect("a login");
    wait_for(&login, "pgrep -f '^sleep 4242' || echo gone", "gone").await;

    let case = Case::new(&login, "kill");
    let slow = slow_to_stop(&case, 3);
    case.deploy(1, 1, &slow).await;
    ready(&login, &case).await;
    let next = case.releases.server("2", 0);
    case.stamp(2).await.expect("stamp");
    case.stage(2, 2, &next, &[&slow]).await.expect("stage");
    let killer = async {
        wait_for(&login, "systemctl show -p ActiveState windlass-default.kill.service", "deactivating").await;
        login.run("loginctl terminate-user deploy");
    };
    let (outcome, ()) = tokio::join!(case.activate(2, 2), killer);
    assert!(matches!(outcome, Err(StepError::Contact { .. })), "the session ended in its middle: {outcome:?}");
    // Nobody asks again, and it goes on to its end.
    wait_for(&login, "cat /opt/windlass/fence/default.kill/steps/activate", " ok ").await;
    let seen = case.look(Scrutiny::Quick).await;
    assert_eq!((seen.unit, seen.run.active), (UnitFile::Revision(revision(2)), ActiveState::Active), "{seen:?}");
    case.activate(2, 2).await.expect("answered from its record");
    case.remove(3, DataFate::Purge).await.expect("remove");
}

/// A stop that outlasts what systemctl is given is neither done nor failed: it goes on there, and is asked for again.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_outlasts_its_time_is_unknown() {
    let testbed = Testbed::new().expect("a testbed");
    let host = testbed.host("web1").expect("a host");
    let login = Login::new(&host, "root", "sh", "default", 8000);
    let mut case = Case::new(&login, "slow");
    case.spec.lifecycle.force_after = "600s".parse().expect("a span");
    case.deploy(1, 1, &slow_to_stop(&case, 500)).await;
    ready(&login, &case).await;
    // The order allows 10 s, and 30 s more for SIGKILL, which this unit's own settings put off for longer.
    let outcome = case.act(2, Step::Stop).await;
    match &outcome {
        Err(StepError::TimedOut { detail }) => {
            assert!(detail.contains("systemctl stop did not end within"), "{detail}");
        }
        other => panic!("{other:?}"),
    }
    let seen = case.look(Scrutiny::Quick).await;
    assert_eq!(seen.run.active, ActiveState::Deactivating, "the job goes on: {seen:?}");
    assert_eq!(seen.steps[&Verb::Stop].state, StepState::Begun, "nobody knows how it ends");
    login.run("systemctl kill --signal=SIGKILL windlass-default.slow.service");
    case.act(2, Step::Stop).await.expect("it has ended meanwhile");
    let seen = case.look(Scrutiny::Quick).await;
    assert_eq!(seen.steps[&Verb::Stop].state, StepState::Ok);
    case.remove(3, DataFate::Purge).await.expect("remove");
}
