//! `windlass wait` and `windlass reconcile`.

use windlass_crds::condition::{ConditionStatus, ConditionType, Reason};

use crate::told;
use crate::world::World;

#[test]
fn what_holds_already_is_met_at_once() {
    let world = World::new();
    let generation = world.declare("web");
    world.tell("web", &told::converged(generation));
    insta::assert_snapshot!(world.run(&["wait", "service/web"]), @"
    service/web condition met
    -- exit 0
    ");
    insta::assert_snapshot!(world.run(&["wait", "svc/web", "--for=condition=stalled=false"]), @"
    service/web condition met
    -- exit 0
    ");
    insta::assert_snapshot!(world.run(&["wait", "svc/web", "--for=generation"]), @"
    service/web seen
    -- exit 0
    ");
    insta::assert_snapshot!(world.run(&["wait", "svc/gone", "--for=delete"]), @"
    service/gone deleted
    -- exit 0
    ");
    insta::assert_snapshot!(world.run(&["wait", "svc/gone"]), @"
    -- stderr
    error: service/gone is not declared
    hint: `windlass get` shows what there is
    -- exit 1
    ");
}

#[test]
fn time_runs_out_with_what_is_known() {
    let world = World::new();
    let generation = world.declare("web");
    insta::assert_snapshot!(world.run(&["wait", "service/web", "--timeout", "100ms"]), @"
    -- stderr
    error: timed out after 100ms
    service/web is not Ready: the controller has not looked at what is declared yet
    -- exit 4
    ");
    world.tell("web", &told::rolling(generation, 1, "web1=3+ web2=3? web3=2~"));
    insta::assert_snapshot!(world.run(&["wait", "service/web", "--timeout", "100ms"]), @"
    -- stderr
    error: timed out after 100ms
    service/web is not Ready: RollingOut: revision 3 runs on 1 of 3 hosts
      web2 is starting
      web3 is unreachable: no answer within 10 s
      next: the rollout to revision 3 goes on by itself
    -- exit 4
    ");
    world.put("requests/services/default/web/mine", "{}");
    insta::assert_snapshot!(world.run(&["wait", "service/web", "--timeout", "100ms"]), @"
    -- stderr
    error: timed out after 100ms
    service/web is not Ready: the controller has not dealt with request mine yet
      web2 is starting
      web3 is unreachable: no answer within 10 s
    -- exit 4
    ");
    world.delete("control/leader");
    insta::assert_snapshot!(world.run(&["wait", "service/web", "--for=delete", "--timeout", "100ms"]), @"
    -- stderr
    warning: no controller runs on this store, so nothing happens yet
    hint: start one: `windlass serve`
    error: timed out after 100ms
    service/web is not gone: it is still declared
      web2 is starting
      web3 is unreachable: no answer within 10 s
    hint: no controller seems to run on this store: `windlass serve` starts one
    -- exit 4
    ");
}

#[test]
fn what_cannot_come_true_is_told_at_once() {
    let world = World::new();
    let generation = world.declare("web");
    world.tell("web", &told::rolled_back(generation));
    insta::assert_snapshot!(world.run(&["wait", "service/web"]), @"
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
    // Nobody waits for more than was asked.
    insta::assert_snapshot!(world.run(&["wait", "service/web", "--for=condition=Ready=False"]), @"
    service/web condition met
    -- exit 0
    ");
}

/// The status of an older generation says Ready; believed, it would end the wait with 0.
#[test]
fn the_status_of_an_older_generation_is_not_believed() {
    let world = World::new();
    let older = world.declare("web");
    world.tell("web", &told::converged(older));
    let generation = world.declare("web");
    assert!(generation > older);
    let wait = world.start(&["wait", "service/web"]);
    world.tell("web", &told::rolled_back(generation));
    assert!(wait.end().ends_with("-- exit 1"));
}

/// As above, with the status of before a request.
#[test]
fn the_status_of_before_a_request_is_not_believed() {
    let world = World::new();
    let generation = world.declare("web");
    world.tell("web", &told::converged(generation));
    for command in [&["wait", "service/web"][..], &["rollout", "status", "service/web"]] {
        world.put("requests/services/default/web/mine", r#"{"request": "reconcile"}"#);
        let wait = world.start(command);
        world.tell("web", &told::rolled_back(generation));
        world.delete("requests/services/default/web/mine");
        assert!(wait.end().ends_with("-- exit 1"), "{command:?}");
        world.tell("web", &told::converged(generation));
    }
}

#[test]
fn several_are_waited_for_together() {
    let world = World::new();
    let (web, api) = (world.declare("web"), world.declare("api"));
    world.tell("web", &told::converged(web));
    let mut wait = world.start(&["wait", "service", "api", "web"]);
    let mut lines = wait.lines();
    let mut next = || lines.next().expect("a line").expect("UTF-8");
    assert_eq!(next(), "service/web condition met");
    world.tell("api", &told::converged(api));
    assert_eq!(next(), "service/api condition met");
    assert_eq!(wait.end(), "-- exit 0");
}

#[test]
fn a_deletion_ends_a_wait_for_ready() {
    let world = World::new();
    let generation = world.declare("web");
    world.tell("web", &told::rolling(generation, 1, "web1=3+ web2=3? web3=2."));
    let mut wait = world.start(&["rollout", "status", "service/web"]);
    // It has begun.
    let mut lines = wait.lines();
    lines.next().expect("a line").expect("UTF-8");
    world.delete("declared/services/default/web");
    insta::assert_snapshot!(wait.end(), @"
    -- stderr
    error: service/web is not declared
    hint: no machine and no service is declared: `windlass host add NAME --address USER@ADDRESS` declares a machine, `windlass apply -f FILE` a service
    -- exit 1
    ");
}

#[test]
fn reconcile_waits_until_the_request_is_done_and_work_is_over() {
    let world = World::new();
    insta::assert_snapshot!(world.run(&["reconcile", "service/web"]), @"
    -- stderr
    error: not found: service/web
    hint: no machine and no service is declared: `windlass host add NAME --address USER@ADDRESS` declares a machine, `windlass apply -f FILE` a service
    -- exit 1
    ");
    let generation = world.declare("web");
    insta::assert_snapshot!(world.run(&["reconcile", "service/web"]), @"
    service/web asked to reconcile
    -- exit 0
    ");
    let request = world.request_for("web");
    assert_eq!(world.value(&request).trim(), r#"{"request":"reconcile"}"#);
    world.delete(&request);

    world.tell("web", &told::converged(generation));
    let reconcile = world.start(&["reconcile", "service/web", "--wait"]);
    let request = world.request_for("web");
    world.tell("web", &told::rolling(generation, 2, "web1=3+ web2=3+ web3=3?"));
    world.delete(&request);
    world.tell("web", &told::converged(generation));
    insta::assert_snapshot!(reconcile.end(), @"
    service/web ready: revision 3 runs on 3 of 3 hosts
    -- stderr
    service/web: web3 starting, revision 3
    service/web: web3 ready, revision 3
    -- exit 0
    ");

    // A host out of reach: nothing is at work, nothing is stalled, and it is not well.
    let lost = told::condition(
        ConditionType::Ready,
        ConditionStatus::Unknown,
        Reason::HostUnreachable,
        "web3: no answer within 10 s",
    );
    let reconcile = world.start(&["reconcile", "service/web", "--wait"]);
    let request = world.request_for("web");
    world.tell("web", &told::status(generation, 2, "web1=3+ web2=3+ web3=3~", vec![lost]));
    world.delete(&request);
    insta::assert_snapshot!(reconcile.end(), @"
    -- stderr
    service/web: web3 unreachable, revision 3: no answer within 10 s
    error: service/web is not Ready: HostUnreachable: web3: no answer within 10 s
      web3 is unreachable: no answer within 10 s
      next: the host is tried again every 10 s, and caught up once it answers
    hint: `windlass host check NAME` says what is missing there
    -- exit 1
    ");
}

#[test]
fn a_store_that_goes_away_is_waited_for() {
    let world = World::new();
    let generation = world.declare("web");
    world.tell("web", &told::rolling(generation, 2, "web1=3+ web2=3+ web3=3?"));
    let mut wait = world.start(&["rollout", "status", "service/web"]);
    let mut lines = wait.lines();
    lines.next().expect("a line").expect("UTF-8");
    world.etcd.kill9();
    world.etcd.restart().expect("etcd starts");
    world.tell("web", &told::converged(generation));
    let told: Vec<String> = lines.map(|line| line.expect("UTF-8")).collect();
    assert_eq!(told.last().map(String::as_str), Some("service/web: ready: revision 3 runs on 3 of 3 hosts"));
    let shown = wait.end();
    assert!(shown.contains("warning: the watch broke; waiting for the store"), "{shown}");
    assert!(shown.ends_with("-- exit 0"), "{shown}");
}
