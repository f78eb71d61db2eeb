//! The verdict, from what is seen of a unit look by look.

use std::num::NonZeroU32;
use std::time::Duration;

use windlass_crds::observation::{ActiveState, HealthAnswer, Listener, RunState, Sample};
use windlass_crds::service::{Health, ServiceSpec};
use windlass_crds::span::Span;
use windlass_planner::verdict::{Criteria, Judge, Judgement, confirm_within, verdict_within};

use crate::world::spec;

/// When the unit became active, in milliseconds of the host's clock.
const START: u64 = 60_000;

/// A healthy threshold of 2, an unhealthy one of 3, 5 s of well-being, 30 s to start.
fn asked() -> ServiceSpec {
    spec()
}

fn unasked() -> ServiceSpec {
    ServiceSpec { health: None, ..spec() }
}

/// Looks, so many milliseconds after the start: `1000 ok`, `1000 500`, `1000 silent`, `1000 unknown`, or without an
/// answer, what is seen of the unit or the port instead: `1000 failed`, `1000 nobody`.
fn looks(spec: &ServiceSpec, lines: &[&str]) -> String {
    let mut judge = Judge::new(Criteria::of(spec));
    let line = |line: &&str| {
        let (at, what) = line.split_once(' ').expect("when and what");
        let (sample, answer) = look(at.parse().expect("milliseconds"), what, spec.health.is_some());
        let judgement = match judge.look(&sample, answer.as_ref()) {
            Judgement::Healthy => "healthy".to_owned(),
            Judgement::Unhealthy(why) => format!("unhealthy: {why}"),
            Judgement::TakenBack => "taken back".to_owned(),
            Judgement::Pending(pause) => format!("again in {pause:?}{}", complaint(judge.last_complaint())),
        };
        format!("{line}: {judgement}\n")
    };
    lines.iter().map(line).collect()
}

fn complaint(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(", {text}") }
}

fn look(at: u64, what: &str, asked: bool) -> (Sample, Option<HealthAnswer>) {
    let mut run = RunState {
        active: ActiveState::Active,
        sub: "running".to_owned(),
        pid: Some(7),
        since: START * 1000,
        result: "success".to_owned(),
        ..RunState::default()
    };
    let (mut listener, mut boot) = (Listener::Ours, 1);
    let http = |status| Some(HealthAnswer::Http { status, body: String::new() });
    let mut answer = if asked { http(200) } else { None };
    match what {
        "ok" | "up" => {}
        // It runs another program by now.
        "voided" => run.pid = Some(9),
        "301" => answer = http(301),
        "404" => answer = http(404),
        "500" => answer = http(500),
        "open" => answer = Some(HealthAnswer::Open),
        "silent" => answer = Some(HealthAnswer::Silent { detail: "connection reset".to_owned() }),
        "unknown" => answer = Some(HealthAnswer::Unknown { detail: "administratively prohibited".to_owned() }),
        "unasked" => answer = None,
        "failed" => {
            (run.active, run.result, run.exit_status, run.pid) = (ActiveState::Failed, "exit-code".to_owned(), 1, None);
        }
        "inactive" => (run.active, run.pid) = (ActiveState::Inactive, None),
        "auto-restart" => {
            (run.active, run.sub, run.result, run.exit_status) =
                (ActiveState::Activating, "auto-restart".to_owned(), "signal".to_owned(), 9);
        }
        "restarted" => run.restarts = 1,
        "pid" => run.pid = Some(8),
        "booted" => (run.pid, boot) = (Some(8), 2),
        "starting" => (run.active, run.sub, run.since) = (ActiveState::Activating, "start".to_owned(), 0),
        "reloading" => run.active = ActiveState::Reloading,
        "nobody" => listener = Listener::Nobody,
        "another" => listener = Listener::Another,
        "hidden" => listener = Listener::Hidden,
        other => panic!("{other}"),
    }
    let boot = format!("00000000-0000-4000-8000-{boot:012}").parse().expect("a boot id");
    let (monotonic, listener, voided) = ((START + at) * 1000, Some(listener), what == "voided");
    (Sample { boot, run, monotonic, listener, voided }, answer)
}

#[test]
fn what_the_host_has_taken_back_is_neither_healthy_nor_not() {
    let told = looks(&asked(), &["1000 ok", "1500 voided"]);
    assert!(told.ends_with("1500 voided: taken back\n"), "{told}");
}

/// The parts of a deadline, with what a Service says that says nothing.
#[test]
fn a_switch_is_confirmed_before_the_host_takes_it_back() {
    for spec in [spec(), unasked()] {
        let (verdict, confirmation) = (verdict_within(&spec), confirm_within(&spec));
        // To stop what runs takes at most a minute, and a takeover at most 45 s.
        assert_eq!(confirmation - verdict, Duration::from_secs(60 + 45));
        assert!(verdict >= Duration::from_secs(30 + 5), "{verdict:?}");
    }
    let slow = ServiceSpec { health: Some(Health { start_period: Span::seconds(300), ..Health::default() }), ..spec() };
    assert_eq!(confirm_within(&slow) - confirm_within(&spec()), Duration::from_secs(270));
}

#[test]
fn healthy_after_so_many_good_answers_and_so_long() {
    insta::assert_snapshot!(looks(&asked(), &["100 ok", "125 301", "1200 ok", "4900 ok", "5100 ok"]), @r"
    100 ok: again in 25ms
    125 301: again in 25ms
    1200 ok: again in 250ms
    4900 ok: again in 200ms
    5100 ok: healthy
    ");
    let mut quick = asked();
    quick.rollout.min_healthy_time = Span::seconds(0);
    insta::assert_snapshot!(looks(&quick, &["100 ok", "125 ok"]), @r"
    100 ok: again in 25ms
    125 ok: healthy
    ");
    insta::assert_snapshot!(looks(&quick, &["100 ok", "125 500", "150 ok", "175 ok"]), @r"
    100 ok: again in 25ms
    125 500: again in 25ms, the health endpoint answers 500
    150 ok: again in 25ms
    175 ok: healthy
    ");
    quick.health.as_mut().expect("asked").healthy_threshold = NonZeroU32::MIN;
    insta::assert_snapshot!(looks(&quick, &["100 open"]), @"100 open: healthy");
}

#[test]
fn a_host_that_was_started_anew_is_watched_from_the_beginning() {
    insta::assert_snapshot!(looks(&asked(), &["100 ok", "3000 ok", "3100 booted", "3200 booted", "8100 booted"]), @r"
    100 ok: again in 25ms
    3000 ok: again in 250ms
    3100 booted: again in 250ms
    3200 booted: again in 250ms
    8100 booted: healthy
    ");
    insta::assert_snapshot!(looks(&asked(), &["100 ok", "125 pid"]), @r"
    100 ok: again in 25ms
    125 pid: unhealthy: the main process changed from 7 to 8
    ");
}

#[test]
fn a_bad_answer_begins_it_anew_and_counts_only_after_the_start_period() {
    let lines = ["100 ok", "3000 500", "3250 ok", "6000 ok", "8200 ok", "8300 ok"];
    insta::assert_snapshot!(looks(&asked(), &lines), @r"
    100 ok: again in 25ms
    3000 500: again in 250ms, the health endpoint answers 500
    3250 ok: again in 250ms
    6000 ok: again in 250ms
    8200 ok: again in 50ms
    8300 ok: healthy
    ");
    let lines = ["100 500", "29000 500", "29900 404", "30000 500", "30250 silent", "30500 500"];
    insta::assert_snapshot!(looks(&asked(), &lines), @r"
    100 500: again in 25ms, the health endpoint answers 500
    29000 500: again in 250ms, the health endpoint answers 500
    29900 404: again in 250ms, the health endpoint answers 404
    30000 500: again in 250ms, the health endpoint answers 500
    30250 silent: again in 250ms, the health endpoint does not answer: connection reset
    30500 500: unhealthy: the health endpoint answers 500 (3 looks in a row)
    ");
    let lines = ["30000 500", "30250 500", "30500 ok", "30750 500", "31000 500", "31250 500"];
    insta::assert_snapshot!(looks(&asked(), &lines), @r"
    30000 500: again in 250ms, the health endpoint answers 500
    30250 500: again in 250ms, the health endpoint answers 500
    30500 ok: again in 250ms
    30750 500: again in 250ms, the health endpoint answers 500
    31000 500: again in 250ms, the health endpoint answers 500
    31250 500: unhealthy: the health endpoint answers 500 (3 looks in a row)
    ");
}

#[test]
fn what_did_not_get_through_is_neither_good_nor_bad() {
    let lines = ["100 unknown", "125 ok", "1000 unknown", "3000 unasked", "5125 unknown", "5150 ok"];
    insta::assert_snapshot!(looks(&asked(), &lines), @r"
    100 unknown: again in 25ms
    125 ok: again in 25ms
    1000 unknown: again in 250ms
    3000 unasked: again in 250ms
    5125 unknown: again in 250ms
    5150 ok: healthy
    ");
    let lines = ["31000 500", "31250 unknown", "31500 500", "31750 unknown", "32000 500"];
    insta::assert_snapshot!(looks(&asked(), &lines), @r"
    31000 500: again in 250ms, the health endpoint answers 500
    31250 unknown: again in 250ms, the health endpoint answers 500
    31500 500: again in 250ms, the health endpoint answers 500
    31750 unknown: again in 250ms, the health endpoint answers 500
    32000 500: unhealthy: the health endpoint answers 500 (3 looks in a row)
    ");
    insta::assert_snapshot!(looks(&asked(), &["900000 unknown"]), @"900000 unknown: again in 250ms");
}

#[test]
fn an_exit_is_unhealthy_at_once_whatever_is_answered() {
    for what in ["failed", "inactive", "auto-restart", "restarted"] {
        let text = looks(&asked(), &["100 ok", &format!("125 {what}")]);
        assert!(text.lines().last().expect("a line").contains(": unhealthy: "), "{text}");
    }
    insta::assert_snapshot!(looks(&asked(), &["100 failed"]), @"100 failed: unhealthy: the unit failed (exit-code, status 1)");
    insta::assert_snapshot!(looks(&asked(), &["100 auto-restart"]), @"100 auto-restart: unhealthy: the program exited (signal, status 9)");
    insta::assert_snapshot!(looks(&asked(), &["100 restarted"]), @"100 restarted: unhealthy: the program exited, and systemd started it again 1 times (success, status 0)");
    insta::assert_snapshot!(looks(&asked(), &["100 ok", "5200 pid"]), @r"
    100 ok: again in 25ms
    5200 pid: unhealthy: the main process changed from 7 to 8
    ");
}

#[test]
fn the_port_has_to_be_the_units_own() {
    insta::assert_snapshot!(looks(&asked(), &["100 nobody", "30000 another", "30250 nobody", "30500 nobody"]), @r"
    100 nobody: again in 25ms, nothing listens on the port
    30000 another: again in 250ms, another program listens on port 8080; stop it, or say another spec.network.port
    30250 nobody: again in 250ms, nothing listens on the port
    30500 nobody: unhealthy: nothing listens on the port (3 looks in a row)
    ");
    insta::assert_snapshot!(looks(&asked(), &["100 hidden", "5100 hidden"]), @r"
    100 hidden: again in 25ms
    5100 hidden: healthy
    ");
}

#[test]
fn without_a_health_section_ten_seconds_without_an_exit_are_enough() {
    insta::assert_snapshot!(looks(&unasked(), &["100 up", "9999 up", "10000 up"]), @r"
    100 up: again in 25ms
    9999 up: again in 250ms
    10000 up: healthy
    ");
    insta::assert_snapshot!(looks(&unasked(), &["100 up", "9000 restarted"]), @r"
    100 up: again in 25ms
    9000 restarted: unhealthy: the program exited, and systemd started it again 1 times (success, status 0)
    ");
    insta::assert_snapshot!(looks(&unasked(), &["10000 nobody", "30000 nobody", "30250 nobody", "30500 nobody"]), @r"
    10000 nobody: again in 250ms, nothing listens on the port
    30000 nobody: again in 250ms, nothing listens on the port
    30250 nobody: again in 250ms, nothing listens on the port
    30500 nobody: unhealthy: nothing listens on the port (3 looks in a row)
    ");
    let mut long = unasked();
    long.rollout.min_healthy_time = Span::seconds(60);
    insta::assert_snapshot!(looks(&long, &["10000 up", "59000 up", "60000 up"]), @r"
    10000 up: again in 250ms
    59000 up: again in 250ms
    60000 up: healthy
    ");
    let mut portless = ServiceSpec { network: None, ..unasked() };
    portless.rollout.min_healthy_time = Span::seconds(5);
    insta::assert_snapshot!(looks(&portless, &["10000 nobody"]), @"10000 nobody: healthy");
}

#[test]
fn a_unit_that_takes_its_time_to_start_is_looked_at_less_often_by_and_by() {
    insta::assert_snapshot!(looks(&asked(), &["0 starting", "900 starting", "1100 starting", "80000 starting"]), @r"
    0 starting: again in 25ms
    900 starting: again in 25ms
    1100 starting: again in 250ms
    80000 starting: again in 250ms
    ");
    insta::assert_snapshot!(looks(&asked(), &["100 ok", "5200 reloading"]), @r"
    100 ok: again in 25ms
    5200 reloading: healthy
    ");
}

#[test]
fn a_short_interval_is_the_longest_pause() {
    let mut often = asked();
    often.health.as_mut().expect("asked").interval = "100ms".parse().expect("a span");
    let (sample, answer) = look(2000, "ok", true);
    let judgement = Judge::new(Criteria::of(&often)).look(&sample, answer.as_ref());
    assert_eq!(judgement, Judgement::Pending(Duration::from_millis(100)));
}
