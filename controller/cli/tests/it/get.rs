//! `windlass get`.

use windlass_crds::condition::Reason;

use crate::told;
use crate::world::{World, service};

/// A fleet in every state that a table shows.
fn fleet() -> World {
    let world = World::new();
    let generation = world.declare("web");
    world.tell("web", &told::converged(generation));
    let generation = world.declare("api");
    world.tell("api", &told::rolling(generation, 1, "web1=3+ web2=3? web3=2."));
    // Written since the controller last looked, and wrong.
    world.put("declared/services/default/broken", &service("broken").replace("target:", "targets:"));
    world.put("declared/services/default/garbage", "\u{1}\u{2}");
    let generation = world.declare("bad");
    world.tell("bad", &told::rolled_back(generation));
    world.put("declared/services/prod/web", &service("web").replace("name: web", "name: web\n  namespace: prod"));
    world.put("owned/default/old", "{}");
    world.put(
        "declared/hosts/web1",
        "apiVersion: windlass/v1\nkind: Host\nmetadata: {name: web1, labels: {role: web}}\nspec: {address: 198.18.0.11, port: 2222, user: deploy}\n",
    );
    world.put(
        "declared/networkzones/lan",
        "apiVersion: windlass/v1\nkind: NetworkZone\nmetadata: {name: lan}\nspec: {location: localNetwork, cidrs: [198.18.0.0/24], encryption: optional}\n",
    );
    world
}

#[test]
fn tables_show_everything_that_is_there() {
    let world = fleet();
    insta::assert_snapshot!(world.run(&["get", "services"]), @"
    NAME      READY   STATUS               REVISION   SINCE
    api       1/3     RollingOut           3          4d
    bad       3/3     RolledBack           3          4d
    broken    -       UnknownField         -          -
    garbage   -       InvalidDeclaration   -          -
    old       -       Removing             -          -
    web       3/3     Converged            3          4d
    -- exit 0
    ");
    insta::assert_snapshot!(world.run(&["get", "all", "-A"]), @"
    Services
    NAMESPACE   NAME              READY   STATUS               REVISION   SINCE
    default     service/api       1/3     RollingOut           3          4d
    default     service/bad       3/3     RolledBack           3          4d
    default     service/broken    -       UnknownField         -          -
    default     service/garbage   -       InvalidDeclaration   -          -
    default     service/old       -       Removing             -          -
    default     service/web       3/3     Converged            3          4d
    prod        service/web       -       NotObserved          -          -

    Hosts
    NAME        ADDRESS            STATUS        MACHINE
    host/web1   198.18.0.11:2222   NotObserved   -

    NetworkZones
    NAME              LOCATION       CIDRS           ENCRYPTION   STATUS
    networkzone/lan   localNetwork   198.18.0.0/24   optional     NotObserved
    -- exit 0
    ");
    insta::assert_snapshot!(world.run(&["get", "svc,hosts", "-o", "wide"]), @"
    Services
    NAME              READY   STATUS               REVISION   SINCE   TARGET   RELEASE        ROLLOUT   HOSTS
    service/api       1/3     RollingOut           3          4d      3        8b5b9db0c13d   12        web1,web2,web3
    service/bad       3/3     RolledBack           3          4d      2        8b5b9db0c13d   12        web1,web2,web3
    service/broken    -       UnknownField         -          -       -        -              -         -
    service/garbage   -       InvalidDeclaration   -          -       -        -              -         -
    service/old       -       Removing             -          -       -        -              -         -
    service/web       3/3     Converged            3          4d      3        8b5b9db0c13d   12        web1,web2,web3

    Hosts
    NAME        ADDRESS            STATUS        MACHINE   USER     SCOPE   SYSTEMD   LABELS
    host/web1   198.18.0.11:2222   NotObserved   -         deploy   -       -         role=web
    -- exit 0
    ");
    insta::assert_snapshot!(world.run(&["get", "service", "web", "api"]), @"
    NAME   READY   STATUS       REVISION   SINCE
    api    1/3     RollingOut   3          4d
    web    3/3     Converged    3          4d
    -- exit 0
    ");
    insta::assert_snapshot!(world.run(&["get", "all", "-o", "name", "-n", "prod"]), @"
    service/prod/web
    host/web1
    networkzone/lan
    -- exit 0
    ");
}

#[test]
fn an_empty_store_names_the_next_command() {
    let world = World::new();
    insta::assert_snapshot!(world.run(&["get", "services"]), @"
    -- stderr
    no services found in namespace default
    hint: no machine and no service is declared: `windlass host add NAME --address USER@ADDRESS` declares a machine, `windlass apply -f FILE` a service
    -- exit 0
    ");
    insta::assert_snapshot!(world.run(&["get", "hosts,zones", "-o", "json"]), @r#"
    {
      "apiVersion": "windlass/v1",
      "items": [],
      "kind": "List"
    }
    -- exit 0
    "#);
    insta::assert_snapshot!(world.run(&["get", "service/web"]), @"
    -- stderr
    error: not found: service/web
    hint: no machine and no service is declared: `windlass host add NAME --address USER@ADDRESS` declares a machine, `windlass apply -f FILE` a service
    -- exit 1
    ");
}

#[test]
fn what_comes_next_depends_on_what_is_there() {
    let world = World::empty();
    insta::assert_snapshot!(world.run(&["get"]), @"
    -- stderr
    nothing found
    hint: no machine and no service is declared: `windlass host add NAME --address USER@ADDRESS` declares a machine, `windlass apply -f FILE` a service
    warning: no controller runs on this store, so nothing happens yet
    hint: start one: `windlass serve`
    -- exit 0
    ");
    insta::assert_snapshot!(world.run(&["get", "-o", "yaml"]), @"-- exit 0");
    insta::assert_snapshot!(world.run(&["get", "service/web", "-o", "json"]), @"
    -- stderr
    error: not found: service/web
    -- exit 1
    ");
    let host = "apiVersion: windlass/v1\nkind: Host\nmetadata: {name: web1}\nspec: {address: 198.18.0.11}\n";
    world.put("declared/hosts/web1", host);
    insta::assert_snapshot!(world.run(&["get", "services"]), @"
    -- stderr
    no services found in namespace default
    hint: no service is declared: `windlass apply -f FILE` declares one
    warning: no controller runs on this store, so nothing happens yet
    hint: start one: `windlass serve`
    -- exit 0
    ");
    world.declare("web");
    insta::assert_snapshot!(world.run(&["get", "services", "-n", "prod"]), @"
    -- stderr
    no services found in namespace prod
    hint: -A looks in every namespace
    -- exit 0
    ");
    insta::assert_snapshot!(world.run(&["get", "zones"]), @"
    -- stderr
    no networkzones found
    hint: declare one: `windlass apply -f FILE`
    -- exit 0
    ");
    world.delete("declared/hosts/web1");
    insta::assert_snapshot!(world.run(&["get", "hosts"]), @"
    -- stderr
    no hosts found
    hint: declare one: `windlass host add NAME --address USER@ADDRESS`
    -- exit 0
    ");
    insta::assert_snapshot!(world.run(&["get"]), @"
    Services
    NAMESPACE   NAME          READY   STATUS        REVISION   SINCE
    default     service/web   -       NotObserved   -          -
    -- stderr
    warning: no controller runs on this store, so nothing happens yet
    hint: start one: `windlass serve`
    -- exit 0
    ");
}

#[test]
fn without_a_resource_everything_is_shown() {
    let world = fleet();
    assert_eq!(world.run(&["get"]), world.run(&["get", "all", "-A"]));
    assert_eq!(world.run(&["get", "-n", "prod", "-o", "name"]), world.run(&["get", "all", "-n", "prod", "-o", "name"]));
    let output = world.command(&["get", "-o", "json"]).output().expect("the binary runs");
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let kinds: Vec<_> = list["items"].as_array().expect("items").iter().map(|item| item["kind"].clone()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "Service").count(), 7);
    assert!(kinds.contains(&"Host".into()) && kinds.contains(&"NetworkZone".into()), "{kinds:?}");
}

#[test]
fn a_watch_of_nothing_says_what_comes_next() {
    let world = World::empty();
    let mut watch = world.start(&["get", "-w"]);
    let mut errors = watch.errors();
    let mut next = || errors.next().expect("a line").expect("UTF-8");
    assert_eq!(next(), "nothing found");
    assert!(next().starts_with("hint: no machine and no service is declared: `windlass host add"));
    watch.interrupt();
    assert_eq!(watch.end(), "-- exit 0");
}

#[test]
fn keys_that_name_nothing_are_told() {
    let world = World::new();
    world.put("declared/services/web", &service("web"));
    insta::assert_snapshot!(world.run(&["get", "services"]), @"
    -- stderr
    no services found in namespace default
    hint: no machine and no service is declared: `windlass host add NAME --address USER@ADDRESS` declares a machine, `windlass apply -f FILE` a service
    warning: declared/services/web names no resource, so nothing is done with it
    hint: keys are declared/services/<namespace>/<name>, declared/hosts/<name> and declared/networkzones/<name>
    -- exit 0
    ");
}

#[test]
fn documents_hold_spec_and_status() {
    let world = World::new();
    world.put(
        "declared/hosts/web1",
        "apiVersion: windlass/v1\nkind: Host\nmetadata: {name: web1}\nspec: {address: 198.18.0.11} # ours\n",
    );
    world.put("status/hosts/web1", r#"{"observedGeneration": 3, "conditions": [], "future": true}"#);
    insta::assert_snapshot!(world.run(&["get", "host/web1", "-o", "yaml"]), @r#"
    apiVersion: windlass/v1
    kind: Host
    metadata:
      generation: 3
      name: web1
    spec:
      address: "198.18.0.11"
      forwardAgent: false
      maintenance: false
    status:
      conditions: []
      future: true
      observedGeneration: 3
    -- exit 0
    "#);
    insta::assert_snapshot!(world.run(&["get", "host/web1", "-o", "json"]), @r#"
    {
      "apiVersion": "windlass/v1",
      "kind": "Host",
      "metadata": {
        "generation": 3,
        "name": "web1"
      },
      "spec": {
        "address": "198.18.0.11",
        "forwardAgent": false,
        "maintenance": false
      },
      "status": {
        "conditions": [],
        "future": true,
        "observedGeneration": 3
      }
    }
    -- exit 0
    "#);
    world.put("declared/hosts/web2", "garbage");
    insta::assert_snapshot!(world.run(&["get", "hosts", "-o", "yaml"]), @r#"
    apiVersion: windlass/v1
    kind: Host
    metadata:
      generation: 3
      name: web1
    spec:
      address: "198.18.0.11"
      forwardAgent: false
      maintenance: false
    status:
      conditions: []
      future: true
      observedGeneration: 3
    ---
    apiVersion: windlass/v1
    kind: Host
    metadata:
      generation: 5
      name: web2
    -- exit 0
    "#);
}

#[test]
fn a_watch_prints_what_changes_and_ends_at_ctrl_c() {
    let world = World::new();
    let generation = world.declare("web");
    let mut watch = world.start(&["get", "services", "-w"]);
    let mut lines = watch.lines();
    let mut next = || lines.next().expect("a line").expect("UTF-8");
    let mut seen = vec![next(), next()];
    world.tell("web", &told::rolling(generation, 1, "web1=3+ web2=3? web3=2."));
    seen.push(next());
    // Nothing that the table shows.
    world.put("requests/services/default/web/x", "{}");
    world.tell("web", &told::rolling(generation, 1, "web1=3+ web2=3? web3=3?"));
    world.tell("web", &told::converged(generation));
    seen.push(next());
    world.delete("declared/services/default/web");
    seen.push(next());
    world.delete("requests/services/default/web/x");
    world.delete("status/services/default/web");
    seen.push(next());
    watch.interrupt();
    assert!(lines.next().is_none());
    insta::assert_snapshot!(seen.join("\n"), @"
    NAME   READY   STATUS        REVISION   SINCE
    web    -       NotObserved   -          -
    web    1/3     RollingOut    3          4d
    web    3/3     Converged     3          4d
    web    3/3     Removing      3          4d
    web    -       Deleted       -          -
    ");
    assert_eq!(watch.end(), "-- exit 0");
}

#[test]
fn a_watch_of_documents_is_an_object_a_line() {
    let world = World::new();
    let generation = world.declare("web");
    let mut watch = world.start(&["get", "service/web", "-w", "-o", "json"]);
    let mut lines = watch.lines();
    let mut next =
        || -> serde_json::Value { serde_json::from_str(&lines.next().expect("a line").expect("UTF-8")).expect("JSON") };
    assert_eq!(next()["metadata"]["generation"], generation);
    world.tell("web", &told::stalled(generation, "", Reason::SourceUnavailable, "no such directory"));
    assert_eq!(next()["status"]["conditions"][2]["reason"], "SourceUnavailable");
    watch.interrupt();
    assert_eq!(watch.end(), "-- exit 0");
}
