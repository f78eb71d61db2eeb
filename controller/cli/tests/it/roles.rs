//! etcd's roles by prefix, as the page on security gives them: enough for each, and no more.

use std::process::Stdio;

use windlass_testbed::Login;

use crate::world::World;

/// The commands of the page's section between its first two fences.
fn page() -> String {
    let page = include_str!("../../../../docs/security.md");
    let (_, page) = page.split_once("\n## Roles in etcd\n").expect("the section on roles");
    let (_, rest) = page.split_once("```sh\n").expect("a block of commands");
    rest.split_once("```").expect("its end").0.to_owned()
}

/// A controller that is ended with the test.
struct Serving(std::process::Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_roles_of_the_page_are_enough_and_no_more() {
    let world = World::empty();
    for line in page().lines() {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words[0], "etcdctl", "{line}");
        world.etcd.etcdctl(&words[1..]).expect(line);
    }
    for (user, role) in [("control", "controller"), ("ann", "person"), ("bob", "reader")] {
        world.etcd.etcdctl(&["user", "add", &format!("{user}:secret-{user}")]).expect(user);
        world.etcd.etcdctl(&["user", "grant-role", user, &format!("windlass-{role}")]).expect(user);
    }
    world.etcd.enable_auth("hunter2").expect("authentication");
    let login = |user: &str| Login { user: user.to_owned(), password: format!("secret-{user}") };
    let as_user = |user: &str, arguments: &[&str]| {
        let Login { user, password } = login(user);
        let mut command = world.command(arguments);
        command.env("WINDLASS_USER", user).env("WINDLASS_PASSWORD", password).stdin(Stdio::null());
        command
    };
    let run = |user: &str, arguments: &[&str]| world.show(&as_user(user, arguments).output().expect("the binary runs"));

    let mut serve = as_user("control", &["serve", "--listen", "127.0.0.1:0", "--data-dir", "controller"]);
    let log = std::fs::File::create(world.dir.path().join("serve.log")).expect("a log");
    let _serving = Serving(serve.stdout(Stdio::null()).stderr(log).spawn().expect("the binary runs"));

    world.file(
        "zone.yaml",
        "apiVersion: windlass/v1\nkind: NetworkZone\nmetadata: {name: office}\nspec: {location: vpn, cidrs: [10.0.0.0/8]}\n",
    );
    let applied = run("ann", &["apply", "-f", "zone.yaml", "--wait", "--timeout", "60s"]);
    let log = || std::fs::read_to_string(world.dir.path().join("serve.log")).unwrap_or_default();
    assert!(applied.ends_with("-- exit 0"), "{applied}\n{}", log());
    let read = run("bob", &["get", "networkzones"]);
    assert!(read.contains("office") && read.ends_with("-- exit 0"), "{read}");

    // Bob may not declare, and Ann may not say in the controller's place how things stand.
    let refused = run("bob", &["delete", "networkzone/office"]);
    assert!(refused.contains("permission denied") && refused.ends_with("-- exit 1"), "{refused}");
    // Nor what others may declare.
    for path in ["status/networkzones/office", "declared/policies/all", "declared/configrepos/fleet", "audit/leader/1"]
    {
        let mut etcdctl = world.etcd.etcdctl_command();
        etcdctl.env("ETCDCTL_USER", "ann:secret-ann").args(["put", &format!("/windlass/{path}"), "{}"]);
        let put = etcdctl.output().expect("etcdctl runs");
        let told = String::from_utf8_lossy(&put.stderr);
        assert!(!put.status.success() && told.contains("permission denied"), "{path}: {told}");
    }
}
