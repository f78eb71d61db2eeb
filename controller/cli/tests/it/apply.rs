//! `windlass apply`.

use windlass_testbed::Meddler;

use crate::told;
use crate::world::{World, service};

const HOST: &str =
    "apiVersion: windlass/v1\nkind: Host\nmetadata:\n  name: web1\nspec:\n  address: 198.18.0.11\n  user: deploy\n";

#[test]
fn what_says_the_same_is_left_alone() {
    let world = World::new();
    // The Service comes first in the file, and its host first into the store.
    world.file("web.yaml", &format!("# ours\n---\n{}---\n{HOST}", service("web")));
    insta::assert_snapshot!(world.run(&["apply", "-f", "web.yaml"]), @"
    host/web1 created
    service/web created
    -- exit 0
    ");
    assert!(world.generation("declared/hosts/web1") < world.generation("declared/services/default/web"));
    assert_eq!(world.value("declared/services/default/web").trim_end(), service("web").trim_end());
    let before = world.generation("declared/services/default/web");

    // A comment, a default spelled out, JSON: the same.
    let spelled = service("web") + "  # a comment\n  rollout: {maxUnavailable: 1}\n";
    insta::assert_snapshot!(world.run_with_input(&["apply", "-f", "-"], &spelled), @"
    service/web unchanged
    -- exit 0
    ");
    assert_eq!(world.generation("declared/services/default/web"), before);
    // Its source may have changed all the same.
    assert_eq!(world.keys("requests/services/default/web/").len(), 2);

    let other = service("web").replace("server.py", "main.py");
    insta::assert_snapshot!(world.run_with_input(&["apply", "-f", "-", "--dry-run"], &other), @"
    service/web configured (dry run)
    -- exit 0
    ");
    assert_eq!(world.generation("declared/services/default/web"), before);
    insta::assert_snapshot!(world.run_with_input(&["apply", "-f", "-"], &other), @"
    service/web configured
    -- exit 0
    ");
    insta::assert_snapshot!(world.run_with_input(&["apply", "-f", "-", "-o", "name"], &other), @"
    service/web
    -- exit 0
    ");
}

#[test]
fn directories_are_read_in_order() {
    let world = World::new();
    world.file("all/b.yaml", &service("b"));
    world.file("all/a.yml", &service("a"));
    world.file("all/c.json", r#"{"apiVersion": "windlass/v1", "kind": "NetworkZone", "metadata": {"name": "lan"}, "spec": {"location": "vpn", "cidrs": ["198.18.0.0/24"]}}"#);
    world.file("all/README.md", "not a declaration");
    world.file("all/deeper/d.yaml", &service("d"));
    insta::assert_snapshot!(world.run(&["apply", "-f", "all"]), @"
    networkzone/lan created
    service/a created
    service/b created
    -- exit 0
    ");
    insta::assert_snapshot!(world.run(&["apply", "-R", "-f", "all", "-n", "prod"]), @"
    networkzone/lan unchanged
    service/prod/a created
    service/prod/b created
    service/prod/d created
    -- exit 0
    ");
}

#[test]
fn one_bad_document_stops_all() {
    let world = World::new();
    let bad = format!(
        "{HOST}---\n{}---\n{}---\n{}",
        service("web").replace("target:", "targets:"),
        service("Web"),
        service("api").replace("server.py", "server.py\n    env: {PORT: \"1\", 1X: b}")
    );
    world.file("bad.yaml", &bad);
    insta::assert_snapshot!(world.run(&["apply", "-f", "bad.yaml"]), @r#"
    -- stderr
    error: bad.yaml:19:5: unknown field `targets`, expected one of target, entryPoint, args, env, envFrom, install, user, limits
      --> bad.yaml:19:5
       |
    17 |     path: /srv/src/web
    18 |   runtime:
    19 |     targets: python
       |     ^ unknown field `targets`, expected one of target, entryPoint, args, env, envFrom, install, user, limits
    20 |     entryPoint: server.py
       |
    hint: did you mean `target`?
    error: bad.yaml:25:9: "Web" is not a DNS label: lower-case letters, digits and inner hyphens only
      --> bad.yaml:25:9
       |
    23 | kind: Service
    24 | metadata:
    25 |   name: Web
       |         ^ "Web" is not a DNS label: lower-case letters, digits and inner hyphens only
    26 | spec:
    27 |   placement:
       |
    error: bad.yaml:47:26: spec.runtime.env.1X: is not a name for a variable: letters, digits and _
    error: bad.yaml:47:17: spec.runtime.env.PORT: is set by Windlass itself
    error: 3 of 4 documents cannot be used; nothing was written
    -- exit 1
    "#);
    assert_eq!(world.keys("declared/"), [""; 0]);
}

#[test]
fn what_cannot_be_applied_is_told_with_its_place() {
    let world = World::new();
    let table = [
        ("bad yaml", "apiVersion: windlass/v1\nkind: [Service\n"),
        ("unknown kind", "apiVersion: windlass/v1\nkind: Servise\nmetadata: {name: web}\nspec: {}\n"),
        ("unknown version", "apiVersion: windlass/v2\nkind: Service\nmetadata: {name: web}\nspec: {}\n"),
        (
            "unknown field",
            "apiVersion: windlass/v1\nkind: Host\nmetadata: {name: web}\nspec: {adress: web.example.com}\n",
        ),
        ("wrong type", "apiVersion: windlass/v1\nkind: Host\nmetadata: {name: web}\nspec: {address: a, port: ssh}\n"),
        ("not a map", "hello\n"),
        ("nothing", "# only a comment\n"),
        (
            "not supported",
            "apiVersion: windlass/v1\nkind: Host\nmetadata: {name: web}\nspec: {address: a, forwardAgent: true}\n",
        ),
    ];
    let mut told = Vec::new();
    for (what, text) in table {
        told.push(format!("== {what}\n{}", world.run_with_input(&["apply", "-f", "-"], text)));
    }
    insta::assert_snapshot!(told.join("\n"), @r#"
    == bad yaml
    -- stderr
    error: standard input:2:7: expected a text
     --> standard input:2:7
      |
    1 | apiVersion: windlass/v1
    2 | kind: [Service
      |       ^ expected a text
    error: the document cannot be used; nothing was written
    -- exit 1
    == unknown kind
    -- stderr
    error: standard input:2:7: kind: "Servise" is unknown; did you mean Service?
    error: the document cannot be used; nothing was written
    -- exit 1
    == unknown version
    -- stderr
    error: standard input:1:13: apiVersion: "windlass/v2" is unknown; this version reads windlass/v1
    error: the document cannot be used; nothing was written
    -- exit 1
    == unknown field
    -- stderr
    error: standard input:4:8: unknown field `adress`, expected one of address, port, user, identity, hostKeys, privilege, remoteDir, proxyJump, forwardAgent, maintenance
     --> standard input:4:8
      |
    2 | kind: Host
    3 | metadata: {name: web}
    4 | spec: {adress: web.example.com}
      |        ^ unknown field `adress`, expected one of address, port, user, identity, hostKeys, privilege, remoteDir, proxyJump, forwardAgent, maintenance
    hint: did you mean `address`?
    error: the document cannot be used; nothing was written
    -- exit 1
    == wrong type
    -- stderr
    error: standard input:4:26: expected a whole number
     --> standard input:4:26
      |
    2 | kind: Host
    3 | metadata: {name: web}
    4 | spec: {address: a, port: ssh}
      |                          ^ expected a whole number
    error: the document cannot be used; nothing was written
    -- exit 1
    == not a map
    -- stderr
    error: standard input:1:1: expected fields, as `name: value`
     --> standard input:1:1
      |
    1 | hello
      | ^ expected fields, as `name: value`
    error: the document cannot be used; nothing was written
    -- exit 1
    == nothing
    -- stderr
    error: there is no document in it
    -- exit 1
    == not supported
    -- stderr
    error: standard input:4:34: spec.forwardAgent: this version of Windlass does not support it yet; leave it out
    error: the document cannot be used; nothing was written
    -- exit 1
    "#);
    assert_eq!(world.keys("declared/"), [""; 0]);
}

#[test]
fn files_that_cannot_be_read_are_told() {
    let world = World::new();
    std::fs::create_dir(world.dir.path().join("empty")).expect("a directory");
    world.file("twice.yaml", &format!("{0}---\n{0}", service("web")));
    world.file("web.yaml", &service("web"));
    std::fs::write(world.dir.path().join("binary.yaml"), b"\xff\xfe").expect("a file");
    world.file("large.yaml", &format!("{}# {}\n", service("web"), "x".repeat(300 << 10)));
    insta::assert_snapshot!(world.run(&["apply", "-f", "missing.yaml"]), @"
    -- stderr
    error: cannot read missing.yaml
      cause: No such file or directory (os error 2)
    -- exit 1
    ");
    insta::assert_snapshot!(world.run(&["apply", "-f", "empty"]), @"
    -- stderr
    error: no *.yaml, *.yml or *.json in empty
    hint: -R looks into its directories too
    -- exit 1
    ");
    insta::assert_snapshot!(world.run(&["apply", "-f", "twice.yaml"]), @"
    -- stderr
    error: service/web is declared twice: twice.yaml:1 and twice.yaml:14; nothing was written
    -- exit 1
    ");
    insta::assert_snapshot!(world.run(&["apply", "-f", "web.yaml", "-f", "web.yaml"]), @"
    -- stderr
    error: service/web is declared twice: web.yaml:1 and web.yaml:1; nothing was written
    -- exit 1
    ");
    insta::assert_snapshot!(world.run(&["apply", "-f", "binary.yaml"]), @"
    -- stderr
    error: binary.yaml is not UTF-8 from byte 0 on
    -- exit 1
    ");
    insta::assert_snapshot!(world.run(&["apply", "-f", "large.yaml"]), @"
    -- stderr
    error: large.yaml:1: 307401 bytes, and a declaration may have at most 262144
    error: the document cannot be used; nothing was written
    -- exit 1
    ");
    assert_eq!(world.keys("declared/"), [""; 0]);
}

#[test]
fn relative_paths_are_those_of_the_controllers_machine() {
    let world = World::empty();
    world.file("deploy/web.yaml", &service("web").replace("/srv/src/web", "../src  # ours"));
    insta::assert_snapshot!(world.run(&["apply", "-f", "deploy/web.yaml"]), @"
    -- stderr
    error: deploy/web.yaml:1: spec.source.path is relative, and no controller runs on this store, so it is not known on which machine it will; nothing was written
    hint: write the directory as the controller sees it; here it is DIR/src
    -- exit 1
    ");
    world.lead("elsewhere.example.com", 4711);
    insta::assert_snapshot!(world.run(&["apply", "-f", "deploy/web.yaml"]), @"
    -- stderr
    error: deploy/web.yaml:1: spec.source.path is relative, and the controller runs on elsewhere.example.com, as process 4711, and not here; nothing was written
    hint: write the directory as the controller sees it; here it is DIR/src
    -- exit 1
    ");
    assert_eq!(world.keys("declared/"), [""; 0]);

    let world = World::new();
    world.file("deploy/web.yaml", &service("web").replace("/srv/src/web", "../src  # ours"));
    insta::assert_snapshot!(world.run(&["apply", "-f", "deploy/web.yaml"]), @"
    service/web created
    -- stderr
    warning: deploy/web.yaml:1: DIR/src is no directory
    -- exit 0
    ");
    std::fs::create_dir(world.dir.path().join("src")).expect("a directory");
    insta::assert_snapshot!(world.run(&["apply", "-f", "deploy/web.yaml"]), @"
    service/web unchanged
    -- exit 0
    ");
    let expected = world.dir.path().canonicalize().expect("the directory").join("src");
    let stored = world.value("declared/services/default/web");
    assert!(stored.contains(&format!("path: {}  # ours", expected.display())), "{stored}");
}

#[test]
fn what_get_prints_can_be_applied() {
    let world = World::new();
    let generation = world.declare("web");
    world.tell("web", &told::converged(generation));
    for format in ["yaml", "json"] {
        let output = world.command(&["get", "service/web", "-o", format]).output().expect("the binary runs");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let shown = world.run_with_input(&["apply", "-f", "-", "-o", "name"], &text);
        assert_eq!(shown, "service/web\n-- exit 0", "{text}");
        assert_eq!(world.generation("declared/services/default/web"), generation);
    }
}

#[test]
fn without_a_controller_it_says_that_nothing_happens_yet() {
    let world = World::empty();
    insta::assert_snapshot!(world.run_with_input(&["apply", "-f", "-"], &service("web")), @"
    service/web created
    -- stderr
    warning: no controller runs on this store, so nothing happens yet
    hint: start one: `windlass serve`
    -- exit 0
    ");
}

/// The old status says that all is well, and is not believed: it is from before the request.
#[test]
fn waiting_means_the_time_after_the_request() {
    let world = World::new();
    let generation = world.declare("web");
    world.tell("web", &told::converged(generation));
    world.file("web.yaml", &service("web"));
    let apply = world.start(&["apply", "-f", "web.yaml", "--wait"]);
    let request = world.request_for("web");
    world.tell("web", &told::rolling(generation, 1, "web1=3+ web2=3? web3=2."));
    world.delete(&request);
    world.tell("web", &told::rolled_back(generation));
    insta::assert_snapshot!(apply.end(), @"
    service/web unchanged
    -- stderr
    service/web: web2 starting, revision 3
    service/web: web3 pending, revision 2
    service/web: web1 ready, revision 2
    service/web: web2 ready, revision 2
    service/web: web3 ready, revision 2
    error: service/web is not Ready: RolledBack: revision 3 was unhealthy on web1: the health endpoint answers 500; went back to revision 2
      revision 3 on web1: the health endpoint answers 500 (3 looks in a row)
        answer: HTTP 500: no database
        log: Traceback (most recent call last):
        log: ConnectionRefusedError
      next: revision 2 stays; revision 3 is not deployed again until the source or the declaration changes
    hint: mend the source or the declaration and apply it; `windlass rollout retry service/web` tries the same once more
    -- exit 1
    ");
}

/// Whoever reads what is declared finds it changed when he writes: what somebody else has just declared is never lost,
/// and two that say the same have no quarrel.
#[test]
fn what_somebody_else_declares_meanwhile_is_not_overwritten() {
    let world = World::new();
    let ours = service("web").replace("server.py", "ours.py");
    let theirs = service("web").replace("server.py", "theirs.py");
    world.file("web.yaml", &ours);
    for (written, expected) in [
        (
            theirs.clone(),
            "-- stderr\nerror: cannot apply service/web\n  cause: Conflict: declared/services/default/web was changed by somebody else at the same time; nothing was written\nhint: see what it says now, and type this again\n-- exit 1",
        ),
        (ours.clone(), "service/web unchanged\n-- exit 0"),
    ] {
        world.declare("web");
        let put = written.clone();
        let key = "/windlass/declared/services/default/web";
        let meddler = Meddler::before(&world.etcd, "server.py", key, move |_| put.clone()).expect("a proxy");
        let shown = world.run(&["apply", "-f", "web.yaml", "--endpoints", &meddler.endpoint()]);
        assert_eq!(meddler.times(), 1, "{shown}");
        assert_eq!(shown, expected);
        assert_eq!(world.value("declared/services/default/web").trim_end(), written.trim_end());
    }
}

/// One declaration may be rolled out either way; who has written steps expects them to be taken.
#[test]
fn steps_that_nobody_takes_are_told() {
    let world = World::new();
    let with = |strategy: &str| {
        service("web") + &format!("  rollout: {{strategy: {strategy}, canary: {{steps: [1, 25%], bake: 60s}}}}\n")
    };
    insta::assert_snapshot!(world.run_with_input(&["apply", "-f", "-"], &with("rolling")), @"
    service/web created
    -- stderr
    warning: standard input:1: spec.rollout.canary does not count without `strategy: canary`
    -- exit 0
    ");
    insta::assert_snapshot!(world.run_with_input(&["apply", "-f", "-"], &with("canary")), @"
    service/web configured
    -- exit 0
    ");
}
