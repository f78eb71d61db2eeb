//! `windlass rollout`.

use windlass_crds::condition::Reason;
use windlass_crds::digest::{ReleaseDigest, WorkloadDigest};
use windlass_crds::document::{self, Declaration};
use windlass_crds::id::{RevisionNumber, ServiceKey};
use windlass_crds::record::{BlockCause, Blocked, Evidence, Owned, Revision, SourceOrigin};
use windlass_crds::status::CanaryStatus;
use windlass_engine::events::Event;

use crate::told;
use crate::world::{World, service};

#[test]
fn status_tells_each_host_and_ends_with_the_rollout() {
    let world = World::new();
    let generation = world.declare("web");
    world.tell("web", &told::rolling(generation, 0, "web1=2? web2=2. web3=2."));
    let mut status = world.start(&["rollout", "status", "service/web"]);
    let mut lines = status.lines();
    let mut next = || lines.next().expect("a line").expect("UTF-8");
    let mut seen: Vec<String> = (0..4).map(|_| next()).collect();
    world.tell("web", &told::rolling(generation, 1, "web1=3+ web2=3? web3=2."));
    seen.extend((0..2).map(|_| next()));
    world.tell("web", &told::converged(generation));
    seen.extend((0..3).map(|_| next()));
    assert!(lines.next().is_none());
    insta::assert_snapshot!(seen.join("\n"), @"
    service/web: rollout 12 (deploy) to revision 3
    service/web: web1 starting, revision 2
    service/web: web2 pending, revision 2
    service/web: web3 pending, revision 2
    service/web: web1 ready, revision 3
    service/web: web2 starting, revision 3
    service/web: web2 ready, revision 3
    service/web: web3 ready, revision 3
    service/web: ready: revision 3 runs on 3 of 3 hosts
    ");
    assert_eq!(status.end(), "-- exit 0");
}

#[test]
fn status_tells_the_truth_about_the_end() {
    let world = World::new();
    let generation = world.declare("web");
    world.tell("web", &told::converged(generation));
    insta::assert_snapshot!(world.run(&["rollout", "status", "service/web"]), @"
    service/web: rollout 12 (deploy) to revision 3
    service/web: web1 ready, revision 3
    service/web: web2 ready, revision 3
    service/web: web3 ready, revision 3
    service/web: ready: revision 3 runs on 3 of 3 hosts
    -- exit 0
    ");
    world.tell("web", &told::rolled_back(generation));
    insta::assert_snapshot!(world.run(&["rollout", "status", "service/web"]), @"
    service/web: rollout 12 (deploy) to revision 2
    service/web: web1 ready, revision 2
    service/web: web2 ready, revision 2
    service/web: web3 ready, revision 2
    -- stderr
    error: service/web is not Ready: RolledBack: revision 3 was unhealthy on web1: the health endpoint answers 500; went back to revision 2
      revision 3 on web1: the health endpoint answers 500 (3 looks in a row)
        answer: HTTP 500: no database
        log: Traceback (most recent call last):
        log: ConnectionRefusedError
      next: revision 2 stays; revision 3 is not deployed again until the source or the declaration changes
    hint: mend the source or the declaration and apply it; `windlass rollout retry service/web` tries the same once more
    -- exit 1
    ");
    let message = "revision 1 was unhealthy on web1: the program exited; there is nothing good to go back to";
    world.tell("web", &told::stalled(generation, "web1=1!", Reason::FirstDeployUnhealthy, message));
    insta::assert_snapshot!(world.run(&["rollout", "status", "service/web"]), @"
    service/web: rollout 12 (deploy) to revision 3
    service/web: web1 unhealthy, revision 1: the health endpoint answers 500
    -- stderr
    error: service/web is not Ready: FirstDeployUnhealthy: revision 1 was unhealthy on web1: the program exited; there is nothing good to go back to
      web1 is unhealthy: the health endpoint answers 500
      next: it stays stopped where it was unhealthy, until the source or the declaration changes
    hint: mend the source or the declaration and apply it; `windlass rollout retry service/web` tries the same once more
    -- exit 1
    ");
    insta::assert_snapshot!(world.run(&["rollout", "status", "service/nope"]), @"
    -- stderr
    error: service/nope is not declared
    hint: `windlass get` shows what there is
    -- exit 1
    ");
}

/// Eleven revisions, of which 9 is good, 10 is blocked and 11 runs.
pub(crate) fn with_history() -> World {
    let world = World::new();
    let generation = world.declare("web");
    let text = service("web");
    let Ok(Declaration::Service(declared)) = document::parse_bytes(text.as_bytes()) else { panic!("a service") };
    let key: ServiceKey = "default/web".parse().expect("a key");
    for number in 2..=11_u64 {
        let revision = Revision {
            number: RevisionNumber(number),
            spec: Box::new(declared.spec.clone()),
            release: ReleaseDigest::of(&[number as u8]),
            workload: WorkloadDigest::of(b"x"),
            created: jiff::Timestamp::from_second(1_790_000_000 + i64::try_from(number).expect("small"))
                .expect("a time"),
            source: SourceOrigin {
                machine: "0123456789abcdef0123456789abcdef".parse().expect("a machine"),
                path: "/srv/src/web".to_owned(),
                commit: None,
            },
        };
        world.put(&format!("revisions/{key}/{number}"), &serde_json::to_string(&revision).expect("JSON"));
    }
    let owned = Owned {
        good: vec![RevisionNumber(9), RevisionNumber(11)],
        blocked: vec![Blocked {
            spec: declared.spec.digest(),
            release: ReleaseDigest::of(&[10]),
            revision: RevisionNumber(10),
            cause: BlockCause::Unhealthy {
                host: "web2".parse().expect("a host"),
                evidence: Evidence { summary: "it exited".to_owned(), answer: None, logs: vec![] },
            },
        }],
        ..Owned::default()
    };
    world.put(&format!("owned/{key}"), &serde_json::to_string(&owned).expect("JSON"));
    let mut told = told::converged(generation);
    (told.revision, told.target) = (Some(RevisionNumber(11)), Some(RevisionNumber(11)));
    world.tell("web", &told);
    world
}

#[test]
fn history_marks_what_can_be_gone_back_to() {
    let world = with_history();
    insta::assert_snapshot!(world.run(&["rollout", "history", "service/web"]), @"
    REVISION   CREATED                RELEASE        STATE                         SOURCE
    2          2026-09-21T14:13:22Z   dbc1b4c900ff   -                             /srv/src/web
    3          2026-09-21T14:13:23Z   084fed08b978   -                             /srv/src/web
    4          2026-09-21T14:13:24Z   e52d9c508c50   -                             /srv/src/web
    5          2026-09-21T14:13:25Z   e77b9a9ae9e3   -                             /srv/src/web
    6          2026-09-21T14:13:26Z   67586e98fad2   -                             /srv/src/web
    7          2026-09-21T14:13:27Z   ca358758f6d2   -                             /srv/src/web
    8          2026-09-21T14:13:28Z   beead77994cf   -                             /srv/src/web
    9          2026-09-21T14:13:29Z   2b4c342f5433   good                          /srv/src/web
    10         2026-09-21T14:13:30Z   01ba4719c80b   blocked (unhealthy on web2)   /srv/src/web
    11         2026-09-21T14:13:31Z   e7cf46a078fe   current, declared, good       /srv/src/web
    -- exit 0
    ");
    let output = world.command(&["rollout", "history", "svc/web", "-o", "json"]).output().expect("the binary runs");
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let blocked = &list["items"][8];
    assert_eq!((&blocked["number"], &blocked["blocked"]["cause"]), (&10.into(), &"unhealthy".into()));
    assert_eq!(list["items"][9]["current"], true);
    assert_eq!(list["items"][9]["spec"]["source"]["path"], "/srv/src/web");
    insta::assert_snapshot!(world.run(&["rollout", "history", "service/nope"]), @"
    -- stderr
    error: not found: service/nope
    hint: `windlass get` shows what there is
    -- exit 1
    ");
    world.declare("fresh");
    insta::assert_snapshot!(world.run(&["rollout", "history", "service/fresh"]), @"
    -- stderr
    service/fresh has no revision yet
    -- exit 0
    ");
}

#[test]
fn undo_asks_for_a_revision_that_is_there() {
    let world = with_history();
    insta::assert_snapshot!(world.run(&["rollout", "undo", "service/web", "--to-revision", "1"]), @"
    -- stderr
    error: there is no revision 1 of service/web; kept: 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
    hint: `windlass rollout history` shows what each is
    -- exit 1
    ");
    insta::assert_snapshot!(world.run(&["rollout", "undo", "service/nope"]), @"
    -- stderr
    error: not found: service/nope
    hint: `windlass get` shows what there is
    -- exit 1
    ");
    insta::assert_snapshot!(world.run(&["rollout", "undo", "service/web", "--to-revision", "9"]), @"
    service/web undo asked for
    -- exit 0
    ");
    let request = world.request_for("web");
    assert_eq!(world.value(&request).trim(), r#"{"request":"undo","revision":9,"from":11}"#);
    world.delete(&request);

    let undo = world.start(&["rollout", "undo", "service/web", "--wait"]);
    let request = world.request_for("web");
    assert_eq!(world.value(&request).trim(), r#"{"request":"undo","from":11}"#);
    let generation = world.generation("declared/services/default/web");
    world.tell("web", &told::stalled(generation, "web1=9+", Reason::Undone, "a person went back to revision 9"));
    world.delete(&request);
    insta::assert_snapshot!(undo.end(), @"
    service/web undone: a person went back to revision 9
    -- stderr
    service/web: web1 ready, revision 9
    service/web: web2 is done with
    service/web: web3 is done with
    -- exit 0
    ");
}

/// What runs is Ready all the time, which is not what was asked for.
#[test]
fn a_request_that_is_refused_does_not_end_well() {
    let world = with_history();
    let generation = world.generation("declared/services/default/web");
    for command in ["undo", "restart", "retry", "pause", "resume", "abort", "approve"] {
        if command == "resume" {
            pause(&world);
        }
        if command == "approve" {
            world.tell("web", &told::canary(generation, Reason::WaitingForApproval, STEP));
        }
        let asking = world.start(&["rollout", command, "service/web", "--wait"]);
        let request = world.request_for("web");
        let id = request.rsplit('/').next().expect("an id").parse().expect("an id");
        let event = Event {
            time: jiff::Timestamp::now(),
            count: 1,
            first: None,
            regarding: "service/web".to_owned(),
            reason: Reason::RequestRefused,
            message: format!("{command}: it cannot be"),
            request: Some(id),
        };
        world.put("events/00000000000001-0000", &serde_json::to_string(&event).expect("JSON"));
        world.delete(&request);
        let told = format!("-- stderr\nerror: service/web: the controller refused: {command}: it cannot be\n-- exit 1");
        assert_eq!(asking.end(), told, "{command}");
    }
    let mut owned: Owned = serde_json::from_str(&world.value("owned/default/web")).expect("a record");
    owned.paused = None;
    world.put("owned/default/web", &serde_json::to_string(&owned).expect("JSON"));
    world.tell("web", &told::converged(generation));
    // Somebody else's refusal is nobody else's.
    let undo = world.start(&["rollout", "undo", "service/web", "--wait"]);
    let request = world.request_for("web");
    world.delete(&request);
    assert!(undo.end().ends_with("-- exit 0"));
}

#[test]
fn retry_waits_for_what_is_declared() {
    let world = with_history();
    let generation = world.generation("declared/services/default/web");
    world.tell("web", &told::rolled_back(generation));
    let retry = world.start(&["rollout", "retry", "service/web", "--wait"]);
    let request = world.request_for("web");
    assert_eq!(world.value(&request).trim(), r#"{"request":"retry"}"#);
    world.tell("web", &told::rolling(generation, 2, "web1=3+ web2=3+ web3=3?"));
    world.delete(&request);
    world.tell("web", &told::converged(generation));
    insta::assert_snapshot!(retry.end(), @"
    service/web ready: revision 3 runs on 3 of 3 hosts
    -- stderr
    service/web: web1 ready, revision 3
    service/web: web2 ready, revision 3
    service/web: web3 starting, revision 3
    service/web: web3 ready, revision 3
    -- exit 0
    ");
}

#[test]
fn restart_waits_until_every_host_is_well_again() {
    let world = with_history();
    let generation = world.generation("declared/services/default/web");
    insta::assert_snapshot!(world.run(&["rollout", "restart", "service/web"]), @"
    service/web restart asked for
    -- exit 0
    ");
    world.delete(&world.request_for("web"));
    let restart = world.start(&["rollout", "restart", "service/web", "--wait"]);
    let request = world.request_for("web");
    assert_eq!(world.value(&request).trim(), r#"{"request":"restart"}"#);
    world.tell("web", &told::rolling(generation, 1, "web1=3+ web2=3? web3=3."));
    world.delete(&request);
    world.tell("web", &told::converged(generation));
    insta::assert_snapshot!(restart.end(), @"
    service/web ready: revision 3 runs on 3 of 3 hosts
    -- stderr
    service/web: web2 starting, revision 3
    service/web: web3 pending, revision 3
    service/web: web2 ready, revision 3
    service/web: web3 ready, revision 3
    -- exit 0
    ");

    let restart = world.start(&["rollout", "restart", "service/web", "--wait"]);
    let request = world.request_for("web");
    let message = "web1 was not well after its restart: it exited; no other host is restarted, and web1 is tried again";
    world.tell("web", &told::stalled(generation, "web1=3! web2=3+ web3=3+", Reason::Unhealthy, message));
    world.delete(&request);
    insta::assert_snapshot!(restart.end(), @"
    -- stderr
    service/web: web1 unhealthy, revision 3: the health endpoint answers 500
    error: service/web is not Ready: Unhealthy: web1 was not well after its restart: it exited; no other host is restarted, and web1 is tried again
      web1 is unhealthy: the health endpoint answers 500
      next: revision 3 stays where it is, and is looked at again; nothing is rolled back
    hint: mend the source or the declaration and apply it; `windlass rollout retry service/web` tries the same once more
    -- exit 1
    ");
    insta::assert_snapshot!(world.run(&["rollout", "restart", "service/nope"]), @"
    -- stderr
    error: not found: service/nope
    hint: `windlass get` shows what there is
    -- exit 1
    ");
}

#[test]
fn pause_and_resume_say_what_is_so_already() {
    let world = with_history();
    let generation = world.generation("declared/services/default/web");
    insta::assert_snapshot!(world.run(&["rollout", "resume", "service/web"]), @"
    service/web is not paused
    -- exit 0
    ");
    insta::assert_snapshot!(world.run(&["rollout", "pause", "service/web"]), @"
    service/web asked to pause
    -- stderr
    hint: `windlass rollout resume service/web` lets it go on
    -- exit 0
    ");
    let request = world.request_for("web");
    assert_eq!(world.value(&request).trim(), r#"{"request":"pause"}"#);
    world.delete(&request);

    pause(&world);
    world.tell("web", &told::paused(generation, 1, "web1=3+ web2=2. web3=2."));
    insta::assert_snapshot!(world.run(&["rollout", "pause", "service/web"]), @"
    service/web is paused already
    -- exit 0
    ");
    assert_eq!(world.keys("requests/"), [""; 0]);
    // Who waits is told, and does not wait.
    insta::assert_snapshot!(world.run(&["wait", "service/web"]), @"
    -- stderr
    error: service/web is not Ready: Paused: paused since 2026-01-01T00:00:00Z: nothing is begun on any host until `windlass rollout resume`
      web2 is pending
      web3 is pending
      next: nothing is begun on hosts until it is resumed; what runs goes on
    hint: `windlass rollout resume service/web` lets it go on
    -- exit 1
    ");
    insta::assert_snapshot!(world.run(&["rollout", "status", "service/web"]), @"
    service/web: rollout 12 (deploy) to revision 3
    service/web: web1 ready, revision 3
    service/web: web2 pending, revision 2
    service/web: web3 pending, revision 2
    -- stderr
    error: service/web is not Ready: Paused: paused since 2026-01-01T00:00:00Z: nothing is begun on any host until `windlass rollout resume`
      web2 is pending
      web3 is pending
      next: nothing is begun on hosts until it is resumed; what runs goes on
    hint: `windlass rollout resume service/web` lets it go on
    -- exit 1
    ");
    insta::assert_snapshot!(world.run(&["get", "service/web"]), @"
    NAME   READY   STATUS   REVISION   SINCE
    web    1/3     Paused   3          4d
    -- exit 0
    ");
    insta::assert_snapshot!(world.run(&["rollout", "resume", "service/web"]), @"
    service/web resume asked for
    -- exit 0
    ");
    assert_eq!(world.value(&world.request_for("web")).trim(), r#"{"request":"resume"}"#);
}

/// Records a pause, as the controller does.
fn pause(world: &World) {
    let mut owned: Owned = serde_json::from_str(&world.value("owned/default/web")).expect("a record");
    owned.paused = Some("2026-01-01T00:00:00Z".parse().expect("a time"));
    world.put("owned/default/web", &serde_json::to_string(&owned).expect("JSON"));
}

#[test]
fn a_pause_is_waited_for_until_it_is_recorded() {
    let world = with_history();
    let waiting = world.start(&["rollout", "pause", "service/web", "--wait"]);
    let request = world.request_for("web");
    pause(&world);
    world.delete(&request);
    insta::assert_snapshot!(waiting.end(), @"
    service/web paused
    -- stderr
    hint: `windlass rollout resume service/web` lets it go on
    -- exit 0
    ");
    let generation = world.generation("declared/services/default/web");
    world.tell("web", &told::paused(generation, 1, "web1=3+ web2=2. web3=2."));
    let waiting = world.start(&["rollout", "resume", "service/web", "--wait"]);
    let request = world.request_for("web");
    world.tell("web", &told::rolling(generation, 1, "web1=3+ web2=3? web3=2."));
    world.delete(&request);
    world.tell("web", &told::converged(generation));
    let shown = waiting.end();
    assert!(shown.starts_with("service/web ready: revision 3 runs on 3 of 3 hosts\n"), "{shown}");
    assert!(shown.ends_with("-- exit 0"), "{shown}");
}

const STEP: &str = "web1=3+ web2=2. web3=2.";

#[test]
fn a_canary_says_what_it_waits_for() {
    let world = with_history();
    let generation = world.generation("declared/services/default/web");
    world.tell("web", &told::canary(generation, Reason::Baking, STEP));
    let mut status = world.start(&["rollout", "status", "service/web"]);
    let mut lines = status.lines();
    let mut seen: Vec<String> = (0..5).map(|_| lines.next().expect("a line").expect("UTF-8")).collect();
    world.tell("web", &told::canary(generation, Reason::WaitingForApproval, STEP));
    seen.extend(lines.next().map(|line| line.expect("UTF-8")));
    let mut next = told::rolling(generation, 1, "web1=3+ web2=3? web3=2.");
    next.rollout.as_mut().expect("a rollout").canary =
        Some(CanaryStatus { step: 2, steps: 3, baking_until: None, waiting_since: None });
    world.tell("web", &next);
    seen.extend((0..2).map(|_| lines.next().expect("a line").expect("UTF-8")));
    world.tell("web", &told::converged(generation));
    insta::assert_snapshot!(seen.join("\n"), @"
    service/web: rollout 12 (deploy) to revision 3
    service/web: step 1 of 3 has to stay healthy until 2026-01-01T00:01:00Z
    service/web: web1 ready, revision 3
    service/web: web2 pending, revision 2
    service/web: web3 pending, revision 2
    service/web: step 1 of 3 waits since 2026-01-01T00:01:00Z for `windlass rollout approve service/web --revision 3`
    service/web: step 2 of 3
    service/web: web2 starting, revision 3
    ");
    assert_eq!(status.end().lines().last(), Some("-- exit 0"));
    let described = {
        world.tell("web", &told::canary(generation, Reason::Baking, STEP));
        world.run(&["describe", "service/web"])
    };
    let line = described.lines().find(|line| line.contains("Canary:")).map(str::trim);
    assert_eq!(line, Some("Canary:     step 1 of 3 has to stay healthy until 2026-01-01T00:01:00Z"), "{described}");
    let next = described.lines().rev().take(2).collect::<Vec<_>>();
    assert!(next.iter().any(|line| line.contains("`windlass rollout abort service/web` goes back")), "{described}");
    // Who only looks once is told what to type.
    world.tell("web", &told::canary(generation, Reason::WaitingForApproval, STEP));
    insta::assert_snapshot!(world.run(&["wait", "service/web", "--timeout", "1s"]), @"
    -- stderr
    error: timed out after 1s
    service/web is not Ready: WaitingForApproval: revision 3 runs on 1 of 3 hosts; step 1 of 3 is well, and has been waiting since 2026-01-01T00:01:00Z
      web2 is pending
      web3 is pending
      next: nothing new is begun until somebody approves it; what runs goes on, and a canary goes back should a host turn unhealthy
    -- exit 4
    ");
    insta::assert_snapshot!(world.run(&["get", "service/web"]), @"
    NAME   READY   STATUS               REVISION   SINCE
    web    1/3     WaitingForApproval   3          4d
    -- exit 0
    ");
}

#[test]
fn approve_names_the_revision_and_the_step_that_wait() {
    let world = with_history();
    let generation = world.generation("declared/services/default/web");
    insta::assert_snapshot!(world.run(&["rollout", "approve", "service/web"]), @"
    -- stderr
    error: nothing of service/web waits for approval
    hint: `windlass rollout status service/web` follows what is under way
    -- exit 1
    ");
    world.tell("web", &told::canary(generation, Reason::Baking, STEP));
    insta::assert_snapshot!(world.run(&["rollout", "approve", "service/web"]), @"
    -- stderr
    error: nothing of service/web waits for approval
    hint: `windlass rollout status service/web` follows what is under way
    -- exit 1
    ");
    world.tell("web", &told::canary(generation, Reason::WaitingForApproval, STEP));
    insta::assert_snapshot!(world.run(&["rollout", "approve", "service/web", "--revision", "4"]), @"
    -- stderr
    error: it is revision 3 of service/web that waits for approval, and not 4
    -- exit 1
    ");
    assert_eq!(world.keys("requests/"), [""; 0]);
    insta::assert_snapshot!(world.run(&["rollout", "approve", "service/web", "--revision", "3"]), @"
    service/web approve asked for
    -- exit 0
    ");
    let request = world.request_for("web");
    assert_eq!(world.value(&request).trim(), r#"{"request":"approve","revision":3,"step":1}"#);
    world.delete(&request);

    // Who waits is done when a person is wanted once more, and when there is nothing left to approve.
    let waiting = world.start(&["rollout", "approve", "service/web", "--wait"]);
    let request = world.request_for("web");
    let mut next = told::rolling(generation, 1, "web1=3+ web2=3? web3=2.");
    next.rollout.as_mut().expect("a rollout").canary =
        Some(CanaryStatus { step: 2, steps: 3, baking_until: None, waiting_since: None });
    world.tell("web", &next);
    world.delete(&request);
    let mut again = told::canary(generation, Reason::WaitingForApproval, "web1=3+ web2=3+ web3=2.");
    again.rollout.as_mut().and_then(|rollout| rollout.canary.as_mut()).expect("a canary").step = 2;
    world.tell("web", &again);
    insta::assert_snapshot!(waiting.end(), @"
    service/web waiting: revision 3 runs on 1 of 3 hosts; step 1 of 3 is well, and has been waiting since 2026-01-01T00:01:00Z
    -- stderr
    service/web: step 2 of 3
    service/web: web2 starting, revision 3
    service/web: step 2 of 3 waits since 2026-01-01T00:01:00Z for `windlass rollout approve service/web --revision 3`
    service/web: web2 ready, revision 3
    -- exit 0
    ");
    let waiting = world.start(&["rollout", "approve", "service/web", "--wait"]);
    let request = world.request_for("web");
    assert_eq!(world.value(&request).trim(), r#"{"request":"approve","revision":3,"step":2}"#);
    world.tell("web", &told::rolling(generation, 1, "web1=3+ web2=3+ web3=3?"));
    world.delete(&request);
    world.tell("web", &told::converged(generation));
    let shown = waiting.end();
    assert!(shown.starts_with("service/web ready: revision 3 runs on 3 of 3 hosts\n"), "{shown}");
}

#[test]
fn abort_waits_until_it_is_back() {
    let world = with_history();
    let generation = world.generation("declared/services/default/web");
    world.tell("web", &told::canary(generation, Reason::WaitingForApproval, STEP));
    let abort = world.start(&["rollout", "abort", "service/web", "--wait"]);
    let request = world.request_for("web");
    assert_eq!(world.value(&request).trim(), r#"{"request":"abort","from":3}"#);
    let message = "revision 3 was aborted by a person at 2026-01-01T00:02:00Z; went back to revision 2";
    let mut back = told::stalled(generation, "web1=2+ web2=2+ web3=2+", Reason::Aborted, message);
    back.target = Some(RevisionNumber(2));
    world.tell("web", &back);
    world.delete(&request);
    insta::assert_snapshot!(abort.end(), @"
    service/web aborted: revision 3 was aborted by a person at 2026-01-01T00:02:00Z; went back to revision 2
    -- stderr
    service/web: web1 ready, revision 2
    service/web: web2 ready, revision 2
    service/web: web3 ready, revision 2
    -- exit 0
    ");
    // Whoever waits for what is declared is told that it does not come.
    insta::assert_snapshot!(world.run(&["rollout", "status", "service/web"]), @"
    service/web: rollout 12 (deploy) to revision 2
    service/web: web1 ready, revision 2
    service/web: web2 ready, revision 2
    service/web: web3 ready, revision 2
    -- stderr
    error: service/web is not Ready: Aborted: revision 3 was aborted by a person at 2026-01-01T00:02:00Z; went back to revision 2
      next: revision 2 stays; revision 3 is not deployed again until the source or the declaration changes
    hint: mend the source or the declaration and apply it; `windlass rollout retry service/web` tries the same once more
    -- exit 1
    ");
    let mut owned: Owned = serde_json::from_str(&world.value("owned/default/web")).expect("a record");
    owned.blocked[0].cause = BlockCause::Aborted { at: "2026-01-01T00:02:00Z".parse().expect("a time") };
    world.put("owned/default/web", &serde_json::to_string(&owned).expect("JSON"));
    let history = world.run(&["rollout", "history", "service/web"]);
    assert!(history.contains("blocked (aborted)"), "{history}");
}
