//! `windlass diff`: files against what is declared; what it says of hosts is shown end to end.

use crate::world::{World, service};

#[test]
fn files_are_compared_with_what_is_declared() {
    let world = World::new();
    world.file("web.yaml", &service("web"));
    insta::assert_snapshot!(world.run(&["diff", "-f", "web.yaml"]), @"
    service/web: new
    -- exit 3
    ");
    assert_eq!(world.keys("declared/"), [""; 0], "a diff declares nothing");
    world.declare("web");
    let spelled = service("web") + "  # a comment\n  rollout: {maxUnavailable: 1}\n";
    insta::assert_snapshot!(world.run_with_input(&["diff", "-f", "-"], &spelled), @"
    service/web: unchanged
    -- exit 0
    ");

    let other = service("web").replace("server.py", "main.py\n    env: {GREETING: hello}").replace(", web3", "")
        + "  rollout: {maxUnavailable: 2}\n---\n"
        + &service("api");
    insta::assert_snapshot!(world.run_with_input(&["diff", "-f", "-"], &other), @r#"
    service/web: changed
      spec.placement.hosts: ["web1","web2","web3"] -> ["web1","web2"]
      spec.rollout.maxUnavailable: 1 -> 2
      spec.runtime.entryPoint: "server.py" -> "main.py"
      spec.runtime.env.GREETING: (none) -> "hello"
    service/api: new
    -- exit 3
    "#);
    let back = service("web") + "  rollout: {maxUnavailable: 2}\n";
    insta::assert_snapshot!(world.run_with_input(&["diff", "-f", "-", "-o", "json"], &back), @r#"
    [
      {
        "difference": "changed",
        "fields": [
          {
            "new": 2,
            "old": 1,
            "path": "spec.rollout.maxUnavailable"
          }
        ],
        "resource": "service/web"
      }
    ]
    -- exit 3
    "#);

    world.put("declared/services/default/web", "hello");
    insta::assert_snapshot!(world.run(&["diff", "-f", "web.yaml"]), @"
    service/web: what is declared makes no sense, and would be replaced
    -- exit 3
    ");
}

#[test]
fn what_cannot_be_compared_is_told() {
    let world = World::new();
    world.file("bad.yaml", &service("web").replace("server.py", "server.py\n    env: {PORT: \"1\"}"));
    insta::assert_snapshot!(world.run(&["diff", "-f", "bad.yaml"]), @"
    -- stderr
    error: bad.yaml:13:17: spec.runtime.env.PORT: is set by Windlass itself
    error: the document cannot be used; nothing was compared
    -- exit 1
    ");
    insta::assert_snapshot!(world.run(&["diff"]), @"
    -- stderr
    error: say what: service/NAME, or -f FILE
    -- exit 2
    ");
    insta::assert_snapshot!(world.run(&["diff", "host/web1"]), @"
    -- stderr
    error: host/web1 is a Host; this command is for Services
    -- exit 2
    ");
    insta::assert_snapshot!(world.run(&["diff", "service/nothing"]), @"
    -- stderr
    error: not found: service/nothing
    hint: no machine and no service is declared: `windlass host add NAME --address USER@ADDRESS` declares a machine, `windlass apply -f FILE` a service
    -- exit 1
    ");
    // No Host is declared, so nobody knows.
    world.declare("web");
    insta::assert_snapshot!(world.run(&["diff", "service/web"]), @"
    service/web: nothing that can be run is declared
      web1: unknown (no Host web1 is declared; declare one, or write user@address)
      web2: unknown (no Host web2 is declared; declare one, or write user@address)
      web3: unknown (no Host web3 is declared; declare one, or write user@address)
      SourceUnavailable: the source /srv/src/web is not available on the controller's machine: No such file or directory (os error 2)
    -- stderr
    error: nothing is known of web1, so it cannot be told whether anything would change
    -- exit 1
    ");
}
