//! `windlass host`, as far as it needs no hosts: e2e shows the rest.

use crate::world::World;

/// A fingerprint that no key has.
const NO_KEY: &str = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// A Host on a port of this machine where nobody listens.
fn nobody_at(name: &str) -> String {
    format!(
        "apiVersion: windlass/v1\nkind: Host\nmetadata:\n  name: {name}\nspec:\n  address: 127.0.0.1\n  port: 1\n  user: deploy\n"
    )
}

#[test]
fn without_hosts_there_is_nothing_to_check() {
    let world = World::new();
    insta::assert_snapshot!(world.run(&["host", "check"]), @"
    -- stderr
    no hosts are declared
    hint: declare one: `windlass host add NAME --address USER@ADDRESS`
    -- exit 0
    ");
    insta::assert_snapshot!(world.run(&["host", "check", "web1"]), @"
    -- stderr
    error: not found: host/web1
    hint: no machine and no service is declared: `windlass host add NAME --address USER@ADDRESS` declares a machine, `windlass apply -f FILE` a service
    -- exit 1
    ");
    insta::assert_snapshot!(world.run(&["host", "check", "service/web"]), @"
    -- stderr
    error: service/web is a Service; this command is for Hosts
    -- exit 2
    ");
}

#[test]
fn a_host_that_refuses_is_told_with_all_that_is_not_known() {
    let world = World::new();
    world.put("declared/hosts/web1", &nobody_at("web1"));
    insta::assert_snapshot!(world.run(&["host", "check", "web1"]), @"
    HOST   CHECK        RESULT    DETAIL
    web1   connection   failed    cannot connect: ssh: connect to host 127.0.0.1 port 1: Connection refused -> does sshd run there, and listen on port 1?
    web1   the rest     unknown   not looked at
    -- stderr
    error: 1 of 1 hosts cannot be used as it is
    -- exit 1
    ");
    // From another machine's view it may look different.
    world.lead("elsewhere", 1);
    world.put("declared/hosts/web2", &nobody_at("web2"));
    let both = world.run(&["host", "check"]);
    for words in [
        "\nweb1   connection   failed",
        "\nweb2   connection   failed",
        "the controller runs on elsewhere",
        "error: 2 of 2 hosts cannot be used as they are",
    ] {
        assert!(both.contains(words), "{words:?} is not in\n{both}");
    }
}

#[test]
fn checks_are_printed_for_programs_too() {
    let world = World::new();
    world.put("declared/hosts/web1", &nobody_at("web1"));
    let shown = world.run(&["host", "check", "host/web1", "-o", "json"]);
    let (json, rest) = shown.split_once("-- stderr").expect("an error");
    assert!(rest.ends_with("-- exit 1"), "{rest}");
    let document: serde_json::Value = serde_json::from_str(json).expect("JSON");
    let host = &document["hosts"][0];
    assert_eq!((&host["host"], &host["usable"]), (&"web1".into(), &false.into()));
    assert_eq!(host["checks"].as_array().map(Vec::len), Some(13));
    assert_eq!(host["checks"][0]["check"], "connection");
    assert_eq!(host["checks"][0]["result"], "failed");
    assert_eq!(host["checks"][0]["remedy"], "does sshd run there, and listen on port 1?");
    assert_eq!(host["checks"][1], serde_json::json!({"check": "host-key", "result": "unknown"}));
}

#[test]
fn a_declaration_that_makes_no_sense_is_not_checked() {
    let world = World::new();
    world.put("declared/hosts/web1", &nobody_at("web2"));
    insta::assert_snapshot!(world.run(&["host", "check"]), @"
    -- stderr
    error: what is declared of host/web1 cannot be used
    hint: `windlass get host/web1 -o yaml` says why
    error: 1 of 1 hosts cannot be used as it is
    -- exit 1
    ");
}

#[test]
fn without_a_terminal_a_fingerprint_must_be_given() {
    let world = World::new();
    insta::assert_snapshot!(world.run(&["host", "add", "web1", "--address", "deploy@127.0.0.1"]), @"
    -- stderr
    error: nobody can be asked whether the key is right: there is no terminal
    hint: say --fingerprint SHA256:…; on the machine itself: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub
    -- exit 2
    ");
    let add = |more: &[&str]| {
        let shown = world.run(&[&["host", "add", "web1", "--address", "deploy@127.0.0.1:1"], more].concat());
        assert_eq!(world.keys("declared/"), [""; 0], "{shown}");
        shown
    };
    insta::assert_snapshot!(add(&["--fingerprint", "MD5:aa"]), @r#"
    -- stderr
    error: "MD5:aa" is not a fingerprint such as SHA256:LqH…
    hint: on the machine itself: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub
    -- exit 2
    "#);
    insta::assert_snapshot!(add(&["--fingerprint", NO_KEY, "--remote-dir", "srv"]), @"
    -- stderr
    error: spec.remoteDir: must be an absolute path of letters, digits, `.`, `_` and `-`
    -- exit 2
    ");
    insta::assert_snapshot!(add(&["--fingerprint", NO_KEY, "--user", "deploy"]), @"
    -- stderr
    error: --user is the user's name in etcd
    hint: the login goes before the address: --address USER@ADDRESS
    -- exit 2
    ");
    insta::assert_snapshot!(add(&["--fingerprint", NO_KEY]), @"
    -- stderr
    error: 127.0.0.1 port 1 does not show its key
      cause: cannot connect: no sshd shows a key there
    -- exit 1
    ");
    insta::assert_snapshot!(add(&["--fingerprint", NO_KEY, "--label", "web"]), @"
    -- stderr
    error: invalid value 'web' for '--label <KEY=VALUE>': a label is KEY=VALUE

    For more information, try '--help'.
    -- exit 2
    ");
}
