//! Switches that are cut off in their middle, by a kill or by the power: told as such, and ended by the next step.

use std::time::{Duration, Instant};

use windlass_crds::observation::{ActiveState, StepState, UnitFile};
use windlass_crds::step::{Step, Verb};
use windlass_hosts::fleet::Scrutiny;
use windlass_testbed::Testbed;

use crate::contract::{Case, revision};
use crate::faults::said;
use crate::real::Login;

/// How long anything may take that takes a second or two.
const PATIENCE: Duration = Duration::from_secs(30);

/// Goes before systemd's own: what `/run/cut` names is never done, and `/run/reached` says that it was asked for.
const STUCK: &str = r#"#!/bin/sh
if [ -e /run/cut ] && read -r verb </run/cut; then
    case " $* " in *" $verb "*) : >/run/reached && exec sleep 600 ;; esac
fi
exec /usr/bin/systemctl "$@"
"#;

/// What ends a switch in its middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Somebody kills the script.
    Kill,
    /// The power goes.
    PowerCut,
}

/// Lets `step` come as far as systemctl's `verb`, and ends it there.
async fn cut_off(login: &Login<'_>, case: &Case<'_, Login<'_>>, sequence: u64, step: Step, verb: &str, end: End) {
    login.run(&format!("rm -f /run/reached; echo {verb} >/run/cut"));
    let cutter = async {
        let began = Instant::now();
        while !login.run("ls /run").contains("reached") {
            assert!(began.elapsed() < PATIENCE, "it never came to {verb}");
            // The step runs on the same task.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        match end {
            End::Kill => {
                login.run("pkill -KILL -f ' [s]witch '; pkill -KILL -f '[s]leep 600'; rm /run/cut");
            }
            End::PowerCut => tokio::task::block_in_place(|| {
                login.host.power_cut().expect("a power cut");
                login.host.boot().expect("a boot");
            }),
        }
    };
    let (outcome, ()) = tokio::join!(case.act(sequence, step), cutter);
    assert!(outcome.is_err(), "it was cut off");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_that_was_cut_off_is_noticed_and_ended() {
    let testbed = Testbed::new().expect("a testbed");
    let host = testbed.host("web1").expect("a host");
    host.write_file("/usr/local/sbin/systemctl", STUCK).expect("a program");
    let login = Login::new(&host, "root", "sh", "default", 8000);
    login.run("chmod 755 /usr/local/sbin/systemctl");
    let mut case = Case::new(&login, "cut");
    let release = case.releases.server("1", 3);
    // Another argument is another unit, so each switch is the rename of a unit file.
    for number in [1, 2] {
        case.spec.runtime.args = vec![number.to_string()];
        case.stage(number, number, &release, &[]).await.expect("stage");
        case.activate(number, number).await.expect("activate");
        case.confirm(number, number, &[1]).await.expect("confirm");
    }
    let rows = [
        (Step::Revert { revision: revision(1) }, "daemon-reload", End::Kill),
        (Step::Activate { revision: revision(2) }, "daemon-reload", End::Kill),
        (Step::Revert { revision: revision(1) }, "restart", End::Kill),
        (Step::Revert { revision: revision(2) }, "daemon-reload", End::PowerCut),
        (Step::Activate { revision: revision(1) }, "restart", End::PowerCut),
    ];
    for (at, (step, verb, end)) in rows.into_iter().enumerate() {
        let (sequence, what) = (10 * (at as u64 + 1), format!("{step} cut off at {verb} by {end:?}"));
        let (wanted, record) = match &step {
            Step::Activate { revision } => (*revision, Verb::Activate),
            Step::Revert { revision } => (*revision, Verb::Revert),
            other => unreachable!("{other}"),
        };
        let before = said(&case).await["args"].clone();
        assert_ne!(before, serde_json::json!([wanted.to_string()]), "{what}");
        cut_off(&login, &case, sequence, step.clone(), verb, end).await;

        let seen = case.look(Scrutiny::Full).await;
        assert_eq!(seen.steps[&record].state, StepState::Begun, "{what}: nobody knows how it ended");
        assert_eq!((seen.unit, seen.run.active), (UnitFile::Revision(wanted), ActiveState::Active), "{what}: {seen:?}");
        // What was not read by systemd is told, for the old program runs on; a boot reads everything.
        assert_eq!(seen.run.needs_reload, end == End::Kill && verb == "daemon-reload", "{what}: {seen:?}");
        let now = if end == End::Kill { before } else { serde_json::json!([wanted.to_string()]) };
        assert_eq!(said(&case).await["args"], now, "{what}");

        case.act(sequence + 1, step).await.expect(&what);
        let seen = case.look(Scrutiny::Full).await;
        assert!(seen.drift.is_empty() && !seen.run.needs_reload, "{what}: {seen:?}");
        assert_eq!(seen.steps[&record].state, StepState::Ok, "{what}");
        assert_eq!(said(&case).await["args"], serde_json::json!([wanted.to_string()]), "{what}");
    }
}
