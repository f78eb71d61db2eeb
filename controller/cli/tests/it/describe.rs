//! `windlass describe` and `windlass events`.

use windlass_crds::condition::Reason;
use windlass_crds::id::{RevisionNumber, Sequence};
use windlass_crds::record::{Purpose, Rollout, RolloutState, StepFailure, Verdict};
use windlass_crds::step::StepError;
use windlass_engine::events::Event;

use crate::told;
use crate::world::World;

impl World {
    /// Puts an event that happened so many minutes ago, and half of one: its age stays while the test runs.
    pub(crate) fn happen(&self, minutes: i64, regarding: &str, reason: Reason, message: &str) {
        self.happen_again(minutes, (1, minutes), regarding, reason, message);
    }

    /// The same of one that has happened so often since so many minutes ago.
    fn happen_again(&self, minutes: i64, (count, first): (u32, i64), regarding: &str, reason: Reason, message: &str) {
        let ago = |minutes| jiff::Timestamp::now() - jiff::SignedDuration::from_secs(minutes * 60 + 30);
        let (time, first) = (ago(minutes), (count > 1).then(|| ago(first)));
        let (regarding, message) = (regarding.to_owned(), message.to_owned());
        let event = Event { time, count, first, regarding, reason, message, request: None };
        let id = format!("events/{:014}-0000", time.as_millisecond());
        self.put(&id, &serde_json::to_string(&event).expect("JSON"));
    }

    /// Puts a rollout that began 9 hours ago, and took 65 s.
    fn roll(&self, sequence: u64, state: RolloutState, change: impl FnOnce(&mut Rollout)) {
        let now = jiff::Timestamp::now();
        let ago = |seconds| now - jiff::SignedDuration::from_secs(seconds);
        let mut rollout = Rollout {
            sequence: Sequence(sequence),
            purpose: Purpose::Deploy,
            revision: Some(RevisionNumber(3)),
            term: 1,
            started: ago(570 * 60),
            progressed: ago(570 * 60 - 65),
            state,
            touched: [].into(),
            restage: [].into(),
            verdicts: [].into(),
            failures: [].into(),
            canary: None,
        };
        change(&mut rollout);
        self.put(&format!("rollouts/default/web/{sequence}"), &serde_json::to_string(&rollout).expect("JSON"));
    }
}

#[test]
fn a_service_that_went_back_explains_itself() {
    let world = World::new();
    let generation = world.declare("web");
    let mut told = told::rolled_back(generation);
    let failure = told.failure.as_mut().expect("it failed");
    failure.evidence.logs.push("\x1b]0;pwned\x07tail\u{9b}2J".to_owned());
    let evidence = failure.evidence.clone();
    for row in told.hosts.values_mut() {
        row.since = Some(jiff::Timestamp::now() - jiff::SignedDuration::from_mins(570));
    }
    world.tell("web", &told);
    world.roll(9, RolloutState::Halted, |rollout| {
        let error = StepError::NoSpace { detail: "/opt/windlass".to_owned() };
        rollout.failures.insert("web2".parse().expect("a host"), StepFailure { step: "stage 3".to_owned(), error });
    });
    world.roll(10, RolloutState::Unhealthy, |rollout| {
        rollout.verdicts.insert("web1".parse().expect("a host"), Verdict::Unhealthy { evidence });
    });
    world.roll(11, RolloutState::Succeeded, |rollout| {
        rollout.purpose = Purpose::Rollback;
        rollout.revision = Some(RevisionNumber(2));
    });
    world.happen(50, "service/web", Reason::RollingOut, "revision 3 runs on 0 of 3 hosts");
    world.happen(40, "service/web", Reason::RollingBack, "revision 3 was unhealthy on web1");
    world.happen(35, "service/api", Reason::Converged, "somebody else's");
    insta::assert_snapshot!(world.run(&["describe", "service/web"]), @r"
    service/web
      Placement:  web1, web2, web3
      Source:     /srv/src/web, looked at every 1m
      Runs:       python: server.py
      Port:       none
      Healthy:    runs for 10 s without a restart, and owns its port
      Rollout:    rolling, at most 1 unavailable, well for 5s
      Generation: 3
      Revision:   3; hosts are brought to 2
      Release:    8b5b9db0c13d
      Ready:      3 of 3 hosts
    Conditions
      CONDITION     STATUS   SINCE   REASON       MESSAGE
      Ready         False    4d      RolledBack   revision 3 was unhealthy on web1: the health endpoint answers 500; went back to revision 2
      Reconciling   False    4d      AsExpected   -
      Stalled       True     4d      RolledBack   revision 3 was unhealthy on web1: the health endpoint answers 500; went back to revision 2
    Hosts
      HOST   REVISION   STATE   SINCE   MESSAGE
      web1   2          ready   9h      -
      web2   2          ready   9h      -
      web3   2          ready   9h      -
    Rollouts
      ROLLOUT   PURPOSE    REVISION   STATE       BEGAN   TOOK   MESSAGE
      9         deploy     3          halted      9h      65s    stage 3 on web2: no space left: /opt/windlass; make room there
      10        deploy     3          unhealthy   9h      65s    unhealthy on web1
      11        rollback   2          succeeded   9h      65s    -
    Last failure
      revision 3 on web1: the health endpoint answers 500 (3 looks in a row)
        answer: HTTP 500: no database
        log: Traceback (most recent call last):
        log: ConnectionRefusedError
        log: \u{1b}]0;pwned\u{7}tail\u{9b}2J
    Events
      AGE   REASON        MESSAGE
      50m   RollingOut    revision 3 runs on 0 of 3 hosts
      40m   RollingBack   revision 3 was unhealthy on web1
    Next
      Windlass: revision 2 stays; revision 3 is not deployed again until the source or the declaration changes
      You: mend the source or the declaration and apply it; `windlass rollout retry service/web` tries the same once more
    -- exit 0
    ");
}

#[test]
fn what_is_new_broken_or_gone_is_described() {
    let world = World::new();
    world.declare("fresh");
    insta::assert_snapshot!(world.run(&["describe", "service", "fresh"]), @"
    service/fresh
      Placement:  web1, web2, web3
      Source:     /srv/src/fresh, looked at every 1m
      Runs:       python: server.py
      Port:       none
      Healthy:    runs for 10 s without a restart, and owns its port
      Rollout:    rolling, at most 1 unavailable, well for 5s
      Generation: 3; the controller has not looked at it yet
      Ready:      0 of 0 hosts
    Next
      Windlass: the controller looks at what is declared, as soon as one runs
    -- exit 0
    ");
    world.put("declared/services/default/bad", "kind: Service\nspec: [\n");
    insta::assert_snapshot!(world.run(&["describe", "svc/bad"]), @"
    service/bad
      Refused:    error: line 2 column 7: unclosed bracket '['
      Generation: 4; the controller has not looked at it yet
      Ready:      0 of 0 hosts
    Next
      Windlass: what runs goes on; the last declaration that made sense stays in force
      You: mend what it says and `windlass apply -f FILE` again
    -- exit 0
    ");
    insta::assert_snapshot!(world.run(&["describe", "svc/none", "host/none"]), @"
    -- stderr
    error: not found: service/none, host/none
    hint: `windlass get` shows what there is
    -- exit 1
    ");
    insta::assert_snapshot!(world.run(&["describe"]), @"
    -- stderr
    error: the following required arguments were not provided:
      <RESOURCE>...

    Usage: windlass describe --endpoints <URL> <RESOURCE>...

    For more information, try '--help'.
    -- exit 2
    ");
    insta::assert_snapshot!(world.run(&["describe", "services"]), @"
    -- stderr
    error: say which: services/NAME, or services NAME…
    -- exit 2
    ");
}

#[test]
fn hosts_and_zones_are_described() {
    let world = World::new();
    let generation = world.declare("web");
    world.tell("web", &told::rolling(generation, 1, "web1=3+ web2=3? web3=2~"));
    world.put(
        "declared/hosts/web2",
        "apiVersion: windlass/v1\nkind: Host\nmetadata: {name: web2, labels: {role: web}}\nspec: {address: 198.18.0.12, user: deploy}\n",
    );
    world.put(
        "status/hosts/web2",
        r#"{"observedGeneration": 99, "conditions": [], "machine": "0123456789abcdef0123456789abcdef", "scope": "user", "systemd": 252}"#,
    );
    world.happen(30, "host/web2", Reason::HostUnreachable, "no answer within 10 s");
    insta::assert_snapshot!(world.run(&["describe", "host/web2"]), @"
    host/web2
      Address:    198.18.0.12
      User:       deploy
      Host keys:  none pinned; known_hosts decides
      Labels:     role=web
      Generation: 5
      Machine:    0123456789abcdef0123456789abcdef
      systemd:    user 252
    Services
      SERVICE       REVISION   STATE      SINCE   MESSAGE
      service/web   3          starting   -       -
    Events
      AGE   REASON            MESSAGE
      30m   HostUnreachable   no answer within 10 s
    Next
      Windlass: it is looked at as soon as a controller runs
    -- exit 0
    ");
    world.put(
        "declared/networkzones/office",
        "apiVersion: windlass/v1\nkind: NetworkZone\nmetadata: {name: office}\nspec: {location: localNetwork, cidrs: [198.18.0.0/24], encryption: optional}\n",
    );
    insta::assert_snapshot!(world.run(&["describe", "zone/office"]), @"
    networkzone/office
      Location:   localNetwork
      CIDRs:      198.18.0.0/24
      Encryption: optional
      Generation: 8; the controller has not looked at it yet
    Next
      Windlass: the controller looks at what is declared, as soon as one runs
    -- exit 0
    ");
}

#[test]
fn events_come_in_the_order_of_time() {
    let world = World::new();
    insta::assert_snapshot!(world.run(&["events"]), @"
    -- stderr
    nothing happened within the hour for which events are kept
    hint: `windlass describe` tells how a resource stands now
    hint: no machine and no service is declared: `windlass host add NAME --address USER@ADDRESS` declares a machine, `windlass apply -f FILE` a service
    -- exit 0
    ");
    world.happen(15, "service/web", Reason::Converged, "revision 3 runs on 3 of 3 hosts");
    world.happen(45, "service/web", Reason::RollingOut, "revision 3 runs on 0 of 3 hosts");
    world.happen(30, "host/web2", Reason::HostUnreachable, "no\nanswer \x1b[2Jwithin 10 s");
    world.happen(20, "service/prod/web", Reason::SourceUnavailable, "no such directory");
    world.put("events/later", "from a later version");
    insta::assert_snapshot!(world.run(&["events"]), @r"
    AGE   REASON            RESOURCE      MESSAGE
    45m   RollingOut        service/web   revision 3 runs on 0 of 3 hosts
    30m   HostUnreachable   host/web2     no; answer \u{1b}[2Jwithin 10 s
    15m   Converged         service/web   revision 3 runs on 3 of 3 hosts
    -- exit 0
    ");
    insta::assert_snapshot!(world.run(&["events", "-A"]), @r"
    AGE   REASON              RESOURCE           MESSAGE
    45m   RollingOut          service/web        revision 3 runs on 0 of 3 hosts
    30m   HostUnreachable     host/web2          no; answer \u{1b}[2Jwithin 10 s
    20m   SourceUnavailable   service/prod/web   no such directory
    15m   Converged           service/web        revision 3 runs on 3 of 3 hosts
    -- exit 0
    ");
    insta::assert_snapshot!(world.run(&["events", "services", "-n", "prod"]), @"
    AGE   REASON              RESOURCE           MESSAGE
    20m   SourceUnavailable   service/prod/web   no such directory
    -- exit 0
    ");
    insta::assert_snapshot!(world.run(&["events", "service/web", "service/prod/web"]), @"
    AGE   REASON              RESOURCE           MESSAGE
    45m   RollingOut          service/web        revision 3 runs on 0 of 3 hosts
    20m   SourceUnavailable   service/prod/web   no such directory
    15m   Converged           service/web        revision 3 runs on 3 of 3 hosts
    -- exit 0
    ");
    insta::assert_snapshot!(world.run(&["events", "pods"]), @r#"
    -- stderr
    error: "pods" is no kind; there are service (svc), host, networkzone (zone), policy, configrepo
    -- exit 2
    "#);
    let output = world.command(&["events", "host/web2", "-o", "json"]).output().expect("the binary runs");
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(list["items"][0]["regarding"], "host/web2");
}

#[test]
fn what_happened_again_is_one_line_that_counts() {
    let world = World::new();
    world.happen_again(12, (7, 50), "host/web2", Reason::HostUnreachable, "no answer within 10 s");
    world.happen(20, "service/web", Reason::Converged, "revision 3 runs on 3 of 3 hosts");
    insta::assert_snapshot!(world.run(&["events"]), @r"
    AGE                 REASON            RESOURCE      MESSAGE
    20m                 Converged         service/web   revision 3 runs on 3 of 3 hosts
    12m (x7 over 50m)   HostUnreachable   host/web2     no answer within 10 s
    -- exit 0
    ");
    let listed = world.run(&["events", "host/web2", "-o", "json"]);
    assert!(listed.contains("\"count\": 7") && listed.contains("\"first\": "), "{listed}");
}

#[test]
fn a_watch_of_events_prints_what_comes() {
    let world = World::new();
    world.happen(15, "service/web", Reason::RollingOut, "revision 3 runs on 0 of 3 hosts");
    let mut watch = world.start(&["events", "service/web", "-w"]);
    let mut lines = watch.lines();
    let mut next = || lines.next().expect("a line").expect("UTF-8");
    let words = |line: &str| line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>().join(" ");
    assert_eq!(words(&next()), "REASON RESOURCE MESSAGE");
    assert_eq!(words(&next()), "RollingOut service/web revision 3 runs on 0 of 3 hosts");
    world.happen(12, "service/api", Reason::Converged, "somebody else's");
    world.happen(11, "service/web", Reason::Converged, "revision 3 runs on 3 of 3 hosts");
    assert_eq!(words(&next()), "Converged service/web revision 3 runs on 3 of 3 hosts");
    watch.interrupt();
    assert!(lines.next().is_none());
    assert_eq!(watch.end(), "-- exit 0");
}

#[test]
fn completions_are_made_for_each_shell() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let shown = world.run(&["completion", shell]);
        assert!(shown.contains("confirm-removal") && shown.ends_with("-- exit 0"), "{shell}: {shown}");
    }
    insta::assert_snapshot!(world.run(&["completion", "tcsh"]), @"
    -- stderr
    error: invalid value 'tcsh' for '<SHELL>'
      [possible values: bash, elvish, fish, powershell, zsh]

      tip: a similar value exists: 'zsh'

    For more information, try '--help'.
    -- exit 2
    ");
}
