//! `windlass plan` of what can be told without a host; what it says of hosts is shown end to end.

use crate::world::{World, service};

#[test]
fn files_are_planned_as_though_they_were_applied() {
    let world = World::empty();
    world.file("src/server.py", "pass\n");
    let source = world.dir.path().canonicalize().expect("a directory").join("src");
    let web = service("web").replace("/srv/src/web", &source.display().to_string());
    world.file("web.yaml", &web);
    insta::assert_snapshot!(world.run(&["plan", "-f", "web.yaml"]), @"
    service/web
      web1: nothing now; failed (no Host web1 is declared; declare one, or write user@address)
      web2: nothing now; failed (no Host web2 is declared; declare one, or write user@address)
      web3: nothing now; failed (no Host web3 is declared; declare one, or write user@address)
      Ready HostNotFound: web1: no Host web1 is declared; declare one, or write user@address
      nothing to do
    -- exit 0
    ");
    assert_eq!(world.keys(""), [""; 0], "a plan writes nothing");
    // Nothing is found to be different where the same is declared already.
    world.put("declared/services/default/web", &web);
    assert_eq!(world.run(&["plan", "-f", "web.yaml"]), world.run(&["plan", "service/web"]));
    insta::assert_snapshot!(world.run(&["plan", "-f", "web.yaml", "-o", "json"]), @r#"
    [
      {
        "actions": {},
        "hosts": {
          "web1": {
            "message": "no Host web1 is declared; declare one, or write user@address",
            "state": "failed"
          },
          "web2": {
            "message": "no Host web2 is declared; declare one, or write user@address",
            "state": "failed"
          },
          "web3": {
            "message": "no Host web3 is declared; declare one, or write user@address",
            "state": "failed"
          }
        },
        "rollout": null,
        "service": "default/web"
      }
    ]
    -- exit 0
    "#);
}

#[test]
fn a_host_or_a_zone_is_planned_with_the_services_that_it_concerns() {
    let world = World::empty();
    let host = "apiVersion: windlass/v1\nkind: Host\nmetadata: {name: web1}\nspec: {address: 127.0.0.1, port: 1, user: nobody}\n";
    world.file("host.yaml", host);
    insta::assert_snapshot!(world.run(&["plan", "-f", "host.yaml"]), @"
    -- stderr
    no service is concerned, so there is nothing to do
    -- exit 0
    ");
    world.declare("web");
    world.put("declared/services/default/api", &service("api").replace("web1, ", ""));
    insta::assert_snapshot!(world.run(&["plan", "-f", "host.yaml"]), @"
    service/web
      web1: nothing now; unreachable (cannot connect: ssh: connect to host 127.0.0.1 port 1: Connection refused)
      web2: nothing now; failed (no Host web2 is declared; declare one, or write user@address)
      web3: nothing now; failed (no Host web3 is declared; declare one, or write user@address)
      Ready SourceUnavailable: the source /srv/src/web is not available on the controller's machine: No such file or directory (os error 2)
      nothing to do
    -- stderr
    error: nothing is known of web1, so it cannot be told whether anything would be done there
    -- exit 1
    ");
    world.put("declared/hosts/web1", host);
    insta::assert_snapshot!(world.run(&["plan", "-f", "host.yaml"]), @"
    -- stderr
    no service is concerned, so there is nothing to do
    -- exit 0
    ");
    let zone = "apiVersion: windlass/v1\nkind: NetworkZone\nmetadata: {name: lan}\nspec: {location: vpn, cidrs: [198.18.0.0/24]}\n";
    let planned = world.run_with_input(&["plan", "-f", "-"], zone);
    assert!(planned.contains("service/api\n") && planned.contains("service/web\n"), "{planned}");
    assert_eq!(world.keys("declared/networkzones/"), [""; 0]);
}

#[test]
fn what_apply_would_refuse_cannot_be_planned() {
    let world = World::empty();
    world.file("bad.yaml", &service("web").replace("target:", "targets:"));
    insta::assert_snapshot!(world.run(&["plan", "-f", "bad.yaml"]), @"
    -- stderr
    error: bad.yaml:11:5: unknown field `targets`, expected one of target, entryPoint, args, env, envFrom, install, user, limits
      --> bad.yaml:11:5
       |
     9 |     path: /srv/src/web
    10 |   runtime:
    11 |     targets: python
       |     ^ unknown field `targets`, expected one of target, entryPoint, args, env, envFrom, install, user, limits
    12 |     entryPoint: server.py
       |
    hint: did you mean `target`?
    error: the document cannot be used; nothing was planned
    -- exit 1
    ");
    world.file("relative.yaml", &service("web").replace("/srv/src/web", "./src"));
    insta::assert_snapshot!(world.run(&["plan", "-f", "relative.yaml"]), @"
    -- stderr
    error: relative.yaml:1: spec.source.path is relative, and no controller runs on this store, so it is not known on which machine it will; nothing was planned
    hint: write the directory as the controller sees it; here it is DIR/src
    -- exit 1
    ");
    world.file("twice.yaml", &(service("web") + "---\n" + &service("web")));
    insta::assert_snapshot!(world.run(&["plan", "-f", "twice.yaml"]), @"
    -- stderr
    error: service/web is declared twice: twice.yaml:1 and twice.yaml:14; nothing was planned
    -- exit 1
    ");
    insta::assert_snapshot!(world.run(&["plan", "service/web"]), @"
    -- stderr
    error: not found: service/web
    hint: no machine and no service is declared: `windlass host add NAME --address USER@ADDRESS` declares a machine, `windlass apply -f FILE` a service
    -- exit 1
    ");
}
