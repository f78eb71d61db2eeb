//! The store that is not there, or will not have us.

use windlass_testbed::{Etcd, EtcdOptions, EtcdVersion, Transport};

use crate::world::{World, binary, show};

/// Runs the binary without a world, with these variables.
fn run(variables: &[(&str, &str)], arguments: &[&str]) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let output = binary(dir.path(), arguments).envs(variables.iter().copied()).output().expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    show(&text(output.stdout), &text(output.stderr), output.status.code())
}

/// Nothing listens on port 1.
const NOBODY: &str = "http://127.0.0.1:1";

#[test]
fn without_a_store_each_command_says_what_to_start() {
    insta::assert_snapshot!(run(&[("WINDLASS_ENDPOINTS", NOBODY)], &["get", "services"]), @"
    -- stderr
    error: no connection to the store: the store at http://127.0.0.1:1 cannot be reached: tcp connect error: transport error: Connection refused (os error 111)
    hint: nothing listens there; does the store run, and is this its port?
    hint: `windlass serve` runs the controller, and a store with it; where an etcd is the store, --endpoints or WINDLASS_ENDPOINTS say where it is
    -- exit 1
    ");
    let first = run(&[], &["--endpoints", NOBODY, "get", "services"]);
    for arguments in [
        &["wait", "service/web"][..],
        &["reconcile", "service/web"],
        &["delete", "service/web"],
        &["confirm-removal"],
        &["rollout", "status", "service/web"],
        &["rollout", "history", "service/web"],
        &["rollout", "undo", "service/web"],
        &["rollout", "retry", "service/web"],
    ] {
        assert_eq!(run(&[("WINDLASS_ENDPOINTS", NOBODY)], arguments), first, "{arguments:?}");
    }
}

#[test]
fn arguments_that_contradict_each_other_are_usage_errors() {
    for (arguments, snapshot) in [
        (&["--cert", "me.pem", "--key", "me.key"][..], "--cert and --key need --cacert"),
        (&["--cacert", "ca.pem", "--cert", "me.pem"], "--cert and --key go together"),
        (&["--user", "ops"], "--user ops needs a password\nhint: put it into WINDLASS_PASSWORD or --password-file"),
        (&["--user", "ops:secret"], "--user is a name only"),
        (&["--prefix", "windlass"], "invalid value 'windlass' for '--prefix <PATH>'"),
        (&["-n", "Prod"], "invalid value 'Prod' for '--namespace <NAMESPACE>'"),
    ] {
        let shown = run(&[], &[arguments, &["get", "services"]].concat());
        assert!(shown.contains(snapshot), "{arguments:?}: {shown}");
        assert!(shown.ends_with("-- exit 2"), "{arguments:?}: {shown}");
    }
}

#[test]
fn passwords_come_from_the_environment_or_a_file() {
    let world = World::empty();
    world.etcd.enable_auth("hunter2").expect("authentication");
    world.file("password", "hunter2\n");
    let with = |variables: &[(&str, &str)], arguments: &[&str]| {
        let mut command = world.command(&[arguments, &["get", "services", "-o", "name"]].concat());
        world.show(&command.envs(variables.iter().copied()).output().expect("the binary runs"))
    };
    insta::assert_snapshot!(with(&[], &[]), @"
    -- stderr
    error: no connection to the store: the store at ETCD did not accept the credentials: etcdserver: user name is empty
    hint: authentication is enabled there; give --user and the password
    -- exit 1
    ");
    insta::assert_snapshot!(with(&[("WINDLASS_PASSWORD", "wrong")], &["--user", "root"]), @"
    -- stderr
    error: no connection to the store: the store at ETCD did not accept the credentials: etcdserver: authentication failed, invalid user ID or password
    hint: check the user's name and password
    -- exit 1
    ");
    insta::assert_snapshot!(with(&[("WINDLASS_PASSWORD", "hunter2")], &["--user", "root"]), @"
    -- stderr
    no services found in namespace default
    hint: no machine and no service is declared: `windlass host add NAME --address USER@ADDRESS` declares a machine, `windlass apply -f FILE` a service
    warning: no controller runs on this store, so nothing happens yet
    hint: start one: `windlass serve`
    -- exit 0
    ");
    insta::assert_snapshot!(with(&[], &["--user", "root", "--password-file", "password"]), @"
    -- stderr
    no services found in namespace default
    hint: no machine and no service is declared: `windlass host add NAME --address USER@ADDRESS` declares a machine, `windlass apply -f FILE` a service
    warning: no controller runs on this store, so nothing happens yet
    hint: start one: `windlass serve`
    -- exit 0
    ");
    insta::assert_snapshot!(with(&[], &["--user", "root", "--password-file", "nothing"]), @"
    -- stderr
    error: cannot read the password from nothing
      cause: No such file or directory (os error 2)
    -- exit 1
    ");
}

#[test]
fn tls_is_asked_for_by_files() {
    let options = EtcdOptions { version: EtcdVersion::V3_4, transport: Transport::MutualTls };
    let etcd = Etcd::start(options).expect("etcd starts");
    let files = etcd.certificates().expect("certificates");
    let path = |path: &std::path::Path| path.display().to_string();
    let (authority, cert, key) = (path(&files.authority), path(&files.client), path(&files.client_key));
    let endpoint = etcd.endpoint();
    let variables = [
        ("WINDLASS_ENDPOINTS", endpoint.as_str()),
        ("WINDLASS_CACERT", &authority),
        ("WINDLASS_CERT", &cert),
        ("WINDLASS_KEY", &key),
    ];
    let plain = |text: String| text.replace(&endpoint, "ETCD");
    insta::assert_snapshot!(plain(run(&variables, &["get", "services"])), @"
    -- stderr
    no services found in namespace default
    hint: no machine and no service is declared: `windlass host add NAME --address USER@ADDRESS` declares a machine, `windlass apply -f FILE` a service
    warning: no controller runs on this store, so nothing happens yet
    hint: start one: `windlass serve`
    -- exit 0
    ");
    // How etcd tells that it wants a certificate depends on who of the two is quicker.
    let refused = run(&variables[..2], &["get", "services"]);
    assert!(refused.contains("--cert and --key") && refused.ends_with("-- exit 1"), "{refused}");
    insta::assert_snapshot!(plain(run(&variables[..1], &["get", "services"])), @r#"
    -- stderr
    error: "ETCD" is no endpoint: https needs the authority that signed its certificate (--cacert)
    -- exit 1
    "#);
}

#[test]
fn a_reader_who_goes_away_is_no_failure() {
    let world = World::new();
    for number in 0..40 {
        world.declare(&format!("web{number}"));
    }
    let script =
        format!("{} get services -o json | head -n 1; exit ${{PIPESTATUS[0]}}", env!("CARGO_BIN_EXE_windlass"));
    let mut shell = std::process::Command::new("bash");
    let output = shell.args(["-c", &script]).env("WINDLASS_ENDPOINTS", world.etcd.endpoint()).output();
    insta::assert_snapshot!(world.show(&output.expect("bash")), @"
    {
    -- exit 0
    ");
}
