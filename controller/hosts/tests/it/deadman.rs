//! The dead man's switch on real hosts: over a boot, against a confirmation that comes at the last moment, and what is
//! left of it.

use std::time::{Duration, Instant};

use windlass_crds::observation::{ActiveState, ServiceObservation, StepState, UnitFile};
use windlass_crds::step::{DataFate, StepError, Verb};
use windlass_hosts::fleet::Scrutiny;
use windlass_testbed::Testbed;

use crate::contract::{Case, Stand as _, revision};
use crate::faults::said;
use crate::real::Login;

/// How long a host may take to go back, a boot included.
const PATIENCE: Duration = Duration::from_secs(90);

/// Services that race at once: below the ten logins under way that sshd allows unless told (MaxStartups).
const RACERS: usize = 6;

/// How long each may go unconfirmed: on a busy machine a login takes a second.
const WITHIN: Duration = Duration::from_secs(4);

/// How often they race.
const ROUNDS: u64 = 4;

/// Everything of a dead man's switch that is on a host, and does anything there: the templates do nothing. systemd keeps
/// the names of what it was told to start at its last reload until its next one.
const TRACES: &str = "ls -d /etc/systemd/system/windlass-revert-* /etc/systemd/system/timers.target.wants/windlass-* \
     /etc/systemd/system/.windlass-revert-* /var/lib/systemd/timers/stamp-windlass-* 2>/dev/null \
     | grep -v '@[.]timer$' | grep -v '@[.]service$'; \
     systemctl list-units --plain --no-legend 'windlass-revert-*' 'system-windlass*.slice'";

/// What timers are made of.
const TEMPLATES: &str = "ls /etc/systemd/system/ | grep windlass-revert-; true";

fn is_voided(seen: &ServiceObservation) -> bool {
    seen.steps.get(&Verb::Activate).is_some_and(|record| record.state == StepState::Voided)
}

/// Waits until nothing is left of any dead man's switch.
async fn until_clean(login: &Login<'_>) {
    let mut left = String::new();
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        left = login.run(TRACES);
        if left.trim().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("this is left: {left}");
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let waits = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waits).await.unwrap_or_else(|_| panic!("{what}"));
}

/// Takes the host's power away, and gives it back.
async fn boot_again(login: &Login<'_>) {
    tokio::task::block_in_place(|| {
        login.host.power_cut().expect("a power cut");
        login.host.boot().expect("a boot");
    });
    // The connection from before says nothing of it yet.
    login.fleet().close().await;
}

/// A service whose revision 1 is confirmed, and revision 2 staged.
async fn two_revisions<'a, 'b>(login: &'a Login<'b>, name: &str) -> Case<'a, Login<'b>> {
    two_revisions_of(Case::new(login, name)).await
}

async fn two_revisions_of<'a, 'b>(mut case: Case<'a, Login<'b>>) -> Case<'a, Login<'b>> {
    let release = case.releases.server("1", 3);
    for number in [1, 2] {
        case.spec.runtime.args = vec![number.to_string()];
        case.stage(number, number, &release, &[]).await.expect("stage");
        if number == 1 {
            case.activate(1, 1).await.expect("activate");
            case.confirm(1, 1, &[]).await.expect("confirm");
        }
    }
    case
}

/// The same, where revision 2 was switched to, nobody has confirmed it, and the host has taken it back after a boot.
async fn goes_back_after_a_boot<'a, 'b>(login: &'a Login<'b>, name: &str) -> Case<'a, Login<'b>> {
    let mut case = two_revisions(login, name).await;
    case.confirm_within = Duration::from_secs(3);
    case.activate(2, 2).await.expect("activate");
    boot_again(login).await;
    until_it_has_gone_back(&case).await;
    case
}

async fn until_it_has_gone_back(case: &Case<'_, Login<'_>>) {
    until("it goes back after the boot", async || {
        let seen = case.look(Scrutiny::Quick).await;
        is_voided(&seen) && seen.unit == UnitFile::Revision(revision(1)) && seen.run.active == ActiveState::Active
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_goes_back_by_itself_after_a_boot_too() {
    let testbed = Testbed::new().expect("a testbed");
    let host = testbed.host("web1").expect("a host");
    let login = Login::new(&host, "root", "sh", "default", 8000);
    let mut case = goes_back_after_a_boot(&login, "booted").await;
    // That is the last thing that it does.
    until_clean(&login).await;
    assert_eq!(said(&case).await["args"], serde_json::json!(["1"]), "the program, too");
    let late = case.confirm(2, 2, &[1]).await;
    assert!(matches!(late, Err(StepError::NotActivated { .. })), "{late:?}");

    // One that was confirmed stays, over a boot as well, and leaves nothing.
    case.activate(3, 2).await.expect("activate");
    case.confirm_within = Duration::from_secs(600);
    case.confirm(3, 2, &[1]).await.expect("confirm");
    until_clean(&login).await;
    boot_again(&login).await;
    let seen = case.look(Scrutiny::Quick).await;
    assert_eq!((seen.unit, is_voided(&seen)), (UnitFile::Revision(revision(2)), false));

    // Each switch was timed by the same two files, and they go with the service.
    let templates = "windlass-revert-default.booted@.service\nwindlass-revert-default.booted@.timer";
    assert_eq!(login.run(TEMPLATES).trim(), templates);
    case.remove(4, DataFate::Keep).await.expect("remove");
    assert_eq!(login.run(TEMPLATES).trim(), "");
}

/// A machine without a clock of its own comes up in the past: what was due then is an hour away by the time of day. It goes
/// back all the same, within the time that it was given, counted from the boot. Hosts here have the clock of the machine
/// that they are on, so they are told an hour too much while the switch is armed.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_boots_with_a_clock_an_hour_behind_goes_back_in_time() {
    // It has to last until the power goes.
    const WITHIN: Duration = Duration::from_secs(20);
    let testbed = Testbed::new().expect("a testbed");
    let host = testbed.host("web1").expect("a host");
    let login = Login::new(&host, "root", "sh", "default", 8000);
    login.run(
        "printf '#!/bin/sh\nexec /bin/date -d \"1 hour\" \"$@\"\n' >/usr/local/bin/date && chmod 755 /usr/local/bin/date",
    );
    let mut case = two_revisions(&login, "behind").await;
    case.confirm_within = WITHIN;
    case.activate(2, 2).await.expect("activate");
    let now = login
        .run("rm /usr/local/bin/date && touch -d '1 hour' /var/lib/systemd/timers/stamp-windlass-revert-* && date +%s");
    let due = login
        .run("ls /etc/systemd/system/timers.target.wants | sed -n 's/^windlass-revert-.*@\\(.*\\)[.]timer$/\\1/p'");
    let [now, due] = [now, due].map(|text| text.trim().parse::<u64>().expect("seconds"));
    assert!((3500..3700).contains(&(due - now)), "due in {} s", due - now);
    assert!(!is_voided(&case.look(Scrutiny::Quick).await), "it has gone back before the boot: too slow a machine");
    boot_again(&login).await;
    until_it_has_gone_back(&case).await;
    let late = case.confirm(2, 2, &[1]).await;
    assert!(matches!(late, Err(StepError::NotActivated { .. })), "{late:?}");
    until_clean(&login).await;
}

/// A clock that is set ahead makes the timer go off too early; the host sees by the clock that nobody sets that its time has
/// not come, and tries again. The clock of these hosts cannot be set, so it is what the timer starts that is started here.
#[tokio::test(flavor = "multi_thread")]
async fn what_goes_off_before_its_time_takes_nothing_back() {
    let testbed = Testbed::new().expect("a testbed");
    let host = testbed.host("web1").expect("a host");
    let login = Login::new(&host, "root", "sh", "default", 8000);
    let mut case = two_revisions(&login, "early").await;
    case.confirm_within = PATIENCE;
    case.activate(2, 2).await.expect("activate");
    let unit = login.run(
        "cd /etc/systemd/system/timers.target.wants && ls -d windlass-revert-default.early@* | sed 's/timer$/service/'",
    );
    let unit = unit.trim();
    login.run(&format!("systemctl start {unit}"));
    let failed = format!("journalctl -o cat -u {unit} | grep -c 'status=1/FAILURE'; true");
    until("it has seen that it is early", async || login.run(&failed).trim() != "0").await;
    let seen = case.look(Scrutiny::Quick).await;
    assert_eq!((seen.unit, is_voided(&seen)), (UnitFile::Revision(revision(2)), false));
    case.confirm(2, 2, &[1]).await.expect("confirm");
    until_clean(&login).await;
    let seen = case.look(Scrutiny::Quick).await;
    assert_eq!((seen.unit, seen.good), (UnitFile::Revision(revision(2)), Some(revision(2))));
}

/// The same where a user's own manager runs it, which lingering starts at a boot.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_s_manager_goes_back_after_a_boot_too() {
    let testbed = Testbed::new().expect("a testbed");
    let host = testbed.host("web1").expect("a host");
    let login = Login::new(&host, "app", "sh", "default", 8000);
    let case = goes_back_after_a_boot(&login, "lingers").await;
    assert_eq!(said(&case).await["args"], serde_json::json!(["1"]), "the program, too");
    let late = case.confirm(2, 2, &[1]).await;
    assert!(matches!(late, Err(StepError::NotActivated { .. })), "{late:?}");
    until("nothing is left of it", async || {
        login.run("ls /home/app/.config/systemd/user/timers.target.wants 2>/dev/null || true").trim().is_empty()
    })
    .await;
    case.remove(4, DataFate::Purge).await.expect("remove");
}

/// What earlier versions wrote for each switch goes with the next confirmation; what somebody has edited is written again.
#[tokio::test(flavor = "multi_thread")]
async fn timers_of_earlier_versions_and_edited_templates_do_no_harm() {
    let testbed = Testbed::new().expect("a testbed");
    let host = testbed.host("web1").expect("a host");
    let login = Login::new(&host, "root", "sh", "default", 8000);
    let mut case = two_revisions(&login, "older").await;
    login.run(
        "cd /etc/systemd/system && old=windlass-revert-default.older.00000000000000000001-001700000000 && mkdir -p timers.target.wants \
         && printf '[Service]\\nExecStart=/bin/false\\n' >$old.service && printf '[Timer]\\nOnActiveSec=600\\n' >$old.timer \
         && ln -s ../$old.timer timers.target.wants/ && systemctl start $old.timer",
    );
    assert!(login.run(TRACES).contains("00000000000000000001-001700000000.timer"), "it was planted");
    case.confirm_within = Duration::from_secs(3);
    let text = |name| login.run(&format!("cat /etc/systemd/system/windlass-revert-default.older@.{name}"));
    let written = ["service", "timer"].map(text);
    for name in ["service", "timer"] {
        login.run(&format!("printf '[Unit]\n' >/etc/systemd/system/windlass-revert-default.older@.{name}"));
    }
    case.activate(2, 2).await.expect("activate");
    let again = ["service", "timer"].map(text);
    assert_eq!(again[0], written[0]);
    assert!(written[1].contains("OnActiveSec=601") && again[1].contains("OnActiveSec=4"), "{again:?}");
    until("it goes back", async || is_voided(&case.look(Scrutiny::Quick).await)).await;
    case.confirm_within = Duration::from_secs(600);
    case.activate(3, 2).await.expect("activate");
    case.confirm(3, 2, &[1]).await.expect("confirm");
    until_clean(&login).await;
}

/// Each is confirmed or voided, and never both.
#[tokio::test(flavor = "multi_thread")]
async fn a_confirmation_at_the_last_moment_wins_or_loses() {
    let testbed = Testbed::new().expect("a testbed");
    let host = testbed.host("web1").expect("a host");
    let login = Login::new(&host, "root", "sh", "default", 8000);
    let racers = (0..RACERS).map(async |number| {
        let mut case = two_revisions(&login, &format!("race{number}")).await;
        let mut won = 0;
        for round in 1..=ROUNDS {
            let sequence = round * 10;
            case.confirm_within = WITHIN;
            case.activate(sequence, 2).await.expect("activate");
            // From well before its time to well after it.
            let share = (round - 1) * RACERS as u64 + number as u64;
            tokio::time::sleep(WITHIN * 2 * share as u32 / (ROUNDS * RACERS as u64) as u32).await;
            let confirmed = case.confirm(sequence, 2, &[1]).await;
            until("it is one or the other", async || {
                let seen = case.look(Scrutiny::Quick).await;
                let at = if is_voided(&seen) { 1 } else { 2 };
                seen.unit == UnitFile::Revision(revision(at)) && (confirmed.is_ok() || is_voided(&seen))
            })
            .await;
            let seen = case.look(Scrutiny::Quick).await;
            assert_eq!(confirmed.is_ok(), !is_voided(&seen), "{confirmed:?} {seen:?}");
            assert_eq!(confirmed.is_ok(), seen.good == Some(revision(2)), "{confirmed:?} {seen:?}");
            if confirmed.is_ok() {
                won += 1;
                case.confirm_within = Duration::from_secs(600);
                case.revert(sequence + 1, 1).await.expect("revert");
                // No part of the race: a login that a busy machine kept waiting is made again, as the engine does.
                until("it is confirmed", async || match case.confirm(sequence + 1, 1, &[2]).await {
                    Err(StepError::Contact { .. }) => false,
                    outcome => outcome.map(|()| true).expect("confirm"),
                })
                .await;
            }
        }
        won
    });
    let won: u64 = futures::future::join_all(racers).await.into_iter().sum();
    assert!((1..RACERS as u64 * ROUNDS).contains(&won), "{won} of them were confirmed, so it was no race");
    until_clean(&login).await;
}

/// One service's timers are its own, however much its name looks like another's; and the longest name has one, too.
#[tokio::test(flavor = "multi_thread")]
async fn services_with_names_alike_have_timers_of_their_own() {
    let testbed = Testbed::new().expect("a testbed");
    let host = testbed.host("web1").expect("a host");
    let login = Login::new(&host, "root", "sh", "default", 8000);
    let longest = format!("{}a", "a-".repeat(31));
    let mut long = Case::new(&login, "long");
    long.service = format!("{longest}/{longest}").parse().expect("63 letters each");
    long.spec.network = None;
    long.spec.health = None;
    let mut first = two_revisions(&login, "web").await;
    let mut second = two_revisions(&login, "web-b").await;
    let mut long = two_revisions_of(long).await;
    for case in [&mut first, &mut second, &mut long] {
        case.confirm_within = Duration::from_secs(20);
        case.activate(2, 2).await.expect("activate");
    }
    first.confirm(2, 2, &[1]).await.expect("confirm");
    let waits = login.run("ls /etc/systemd/system/timers.target.wants | grep windlass-revert- | sed 's/@.*//'");
    let expected = [format!("windlass-revert-{longest}.{longest}"), "windlass-revert-default.web-b".to_owned()];
    assert_eq!(waits.lines().collect::<Vec<_>>(), expected, "those of the others stay");
    first.remove(3, DataFate::Keep).await.expect("remove");
    for case in [&second, &long] {
        until("it goes back", async || is_voided(&case.look(Scrutiny::Quick).await)).await;
    }
    until_clean(&login).await;
}

/// One that is overtaken by a later switch does nothing, and the later one does.
#[tokio::test(flavor = "multi_thread")]
async fn a_timer_that_was_overtaken_takes_nothing_back() {
    let testbed = Testbed::new().expect("a testbed");
    let host = testbed.host("web1").expect("a host");
    let login = Login::new(&host, "root", "sh", "default", 8000);
    let mut case = two_revisions(&login, "overtaken").await;
    case.confirm_within = Duration::from_secs(3);
    case.activate(2, 2).await.expect("activate");
    case.activate(3, 2).await.expect("activate");
    let waits = "ls /etc/systemd/system/timers.target.wants | grep -c windlass-revert-";
    assert_eq!(login.run(waits).trim(), "2", "each has a name of its own");
    case.confirm_within = Duration::from_secs(20);
    case.activate(4, 2).await.expect("activate");
    until("the first two have gone off", async || login.run(waits).trim() == "1").await;
    let seen = case.look(Scrutiny::Quick).await;
    assert_eq!((seen.unit, is_voided(&seen)), (UnitFile::Revision(revision(2)), false));
    until("the third takes it back", async || is_voided(&case.look(Scrutiny::Quick).await)).await;
    until_clean(&login).await;
}

/// What nobody would take back is not left running.
#[tokio::test(flavor = "multi_thread")]
async fn what_no_timer_guards_is_taken_back_at_once() {
    let testbed = Testbed::new().expect("a testbed");
    let host = testbed.host("web1").expect("a host");
    let login = Login::new(&host, "root", "sh", "default", 8000);
    let mut case = two_revisions(&login, "unguarded").await;
    case.spec.runtime.args = vec!["1".to_owned()];
    let third = case.releases.server("3", 3);
    case.stage(3, 3, &third, &[]).await.expect("stage");
    let drop_in = "/run/systemd/system/windlass-revert-.timer.d";
    login.run(&format!(
        "mkdir -p {drop_in} && printf '[Unit]\\nAssertPathExists=/nowhere\\n' >{drop_in}/never.conf && systemctl daemon-reload"
    ));
    // The unit stays, so that the timer starts with it: it is switched, and taken back.
    let before = case.pid().await;
    let outcome = case.activate(3, 3).await;
    let Err(StepError::Failed { code: 1, detail }) = &outcome else { panic!("{outcome:?}") };
    assert!(detail.contains("taken back at once") && detail.contains("windlass-revert-"), "{detail}");
    runs_the_first(&case).await;
    let after = case.pid().await;
    assert_ne!(before, after);
    // From then on it is the timer that comes first, and nothing is switched.
    let outcome = case.activate(4, 3).await;
    let Err(StepError::Failed { code: 1, detail }) = &outcome else { panic!("{outcome:?}") };
    assert!(detail.contains("windlass-revert-"), "it says what did not start: {detail}");
    assert_eq!(case.pid().await, after, "nothing was started");
    // So it is where the unit changes.
    let outcome = case.activate(5, 2).await;
    assert!(matches!(outcome, Err(StepError::Failed { code: 1, .. })), "{outcome:?}");
    assert_eq!(case.pid().await, after, "nothing was started");
    runs_the_first(&case).await;
    for number in [2, 3] {
        let late = case.confirm(5, number, &[]).await;
        assert!(matches!(late, Err(StepError::NotActivated { .. })), "{late:?}");
    }

    login.run(&format!("rm -r {drop_in} && systemctl daemon-reload"));
    case.activate(6, 3).await.expect("activate");
    case.confirm(6, 3, &[1]).await.expect("confirm");
    until_clean(&login).await;
}

async fn runs_the_first(case: &Case<'_, Login<'_>>) {
    let seen = case.look(Scrutiny::Quick).await;
    assert_eq!((seen.unit, seen.run.active), (UnitFile::Revision(revision(1)), ActiveState::Active));
    assert_eq!(said(case).await["version"], "1", "the program, too");
}
