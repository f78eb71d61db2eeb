//! Commands that make no sense as they were typed, and help.

use crate::each::commands;
use crate::world::World;

#[test]
fn what_makes_no_sense_exits_with_2() {
    let world = World::new();
    for (arguments, message) in [
        (&["frobnicate"][..], "unrecognized subcommand 'frobnicate'"),
        (&["describe"], "<RESOURCE>..."),
        (
            &["get", "pods"],
            "\"pods\" is no kind; there are service (svc), host, networkzone (zone), policy, configrepo",
        ),
        (&["get", "service/Web"], "service/Web: \"Web\" is not a DNS label"),
        (&["get", "services", "-o", "xml"], "invalid value 'xml' for '--output <FORMAT>'"),
        (&["get", "services", "-A", "-n", "prod"], "cannot be used with"),
        (&["get", "services", "service/web"], "either every resource is kind/name"),
        (&["get", "-n", "dev", "service/prod/web"], "service/prod/web is not in namespace dev"),
        (&["wait", "services"], "say which: services/NAME, or services NAME…"),
        (&["wait", "service/web", "--for", "condition=Happy"], "write condition=Ready"),
        (&["wait", "service/web", "--timeout", "30"], "\"30\" is not a duration; write 250ms, 30s, 5m or 1h"),
        (&["rollout", "retry", "host/web1"], "host/web1 is a Host; this command is for Services"),
        (&["reconcile", "service/web", "--timeout", "5s"], "--wait"),
        (&["delete"], "say what: service/NAME, or -f FILE"),
        (&["delete", "service/web", "-f", "web.yaml"], "cannot be used with"),
        (&["confirm-removal", "--all", "service/web"], "cannot be used with"),
        (&["rollout"], "requires a subcommand"),
        (&["rollout", "status", "service", "web", "api"], "one Service at a time"),
        (&["rollout", "undo", "service/web", "--to-revision", "last"], "invalid value 'last'"),
        (&["apply"], "say which files: -f FILE"),
        (&["apply", "-f", "x", "--dry-run", "--wait"], "cannot be used with"),
        (&["plan"], "say what: service/NAME, or -f FILE"),
        (&["serve", "--store", "embedded"], "--store embedded needs no --endpoints, --user nor certificates"),
        (&["serve", "--insecure-loopback"], "--insecure-loopback and --etcd-name are for the embedded store"),
        (&["serve", "--etcd-name", "a b"], "invalid value 'a b' for '--etcd-name <NAME>'"),
        (&["store", "certificate", "Ana"], "\"Ana\" is no name for a certificate"),
        (&["serve", "--listen", "9700"], "invalid value '9700' for '--listen <ADDRESS>'"),
    ] {
        let shown = world.run(arguments);
        assert!(shown.contains(message), "{arguments:?}: {shown}");
        assert!(shown.starts_with("-- stderr\nerror: "), "{arguments:?}: {shown}");
        assert!(shown.ends_with("-- exit 2"), "{arguments:?}: {shown}");
    }
}

#[test]
fn every_command_has_help_with_examples() {
    let world = World::new();
    for command in commands(&world).into_iter().filter(|command| command != "help") {
        let words: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let shown = world.run(&words);
        assert!(shown.contains(&format!("Examples:\n  windlass {command}")), "{shown}");
    }
    insta::assert_snapshot!(world.run(&["-h"]), @"
    Drives services on machines that you reach by SSH to where their declarations say, and keeps them
    there

    Usage: windlass [OPTIONS] <COMMAND>

    Commands:
      serve            Run the controller
      apply            Declare what files say
      diff             Show what would change
      plan             Show what the controller would do next, without doing it
      get              Show what is declared, and how it stands
      describe         Show everything about resources: what is declared, how it stands, what failed and
                       what comes next
      events           Show what happened lately, the newest last
      audit            Show who declared and asked what, and what came of it; check that nobody has
                       tampered with that
      wait             Wait until resources are as they are wanted
      reconcile        Look at sources and hosts now, and bring services where their declarations say
      delete           Take declarations back, and confirm what that removes
      confirm-removal  Let removals go on that wait for a person
      rollout          Follow rollouts, hold or approve them, restart programs, and go back to earlier
                       revisions
      host             Add machines, check them, and take them over from another store
      store            Look after the embedded store
      env              Print the variables by which etcdctl reaches the store
      completion       Print a script with which a shell completes commands and options
      help             Print this message or the help of the given subcommand(s)

    Options:
      -n, --namespace <NAMESPACE>  The namespace of Services that are named without one [default:
                                   default] [env: WINDLASS_NAMESPACE]
      -h, --help                   Print help
      -V, --version                Print version

    Store:
          --endpoints <URL>       The members of an etcd cluster, divided by commas; unless told, the
                                  store of the controller on this machine, or http://127.0.0.1:2379
                                  where there is none [env: WINDLASS_ENDPOINTS]
          --cacert <FILE>         The certificates, PEM, one of which must have signed etcd's [env:
                                  WINDLASS_CACERT]
          --cert <FILE>           Our certificate, PEM, where etcd asks for one [env: WINDLASS_CERT]
          --key <FILE>            The key of our certificate, PEM [env: WINDLASS_KEY]
          --user <NAME>           The user's name in etcd; the password comes from WINDLASS_PASSWORD or
                                  --password-file [env: WINDLASS_USER]
          --password-file <FILE>  A file that holds the password [env: WINDLASS_PASSWORD_FILE]
          --prefix <PATH>         What every key in the store begins with [env: WINDLASS_PREFIX]
                                  [default: /windlass]
          --data-dir <DIR>        The controller's own directory; see `windlass serve --help` [env:
                                  WINDLASS_DATA_DIR]

    First steps:
      windlass serve                            Run the controller; leave it running
      windlass apply -f office.yaml             Declare a network, if it may carry plain http
      windlass host add web1 --address deploy@192.0.2.11
                                                Declare a machine, once its key is confirmed
      windlass apply -f web.yaml --wait         Declare a service, and wait until it runs
      windlass get                              See all of it, and how it stands

    Examples:
      windlass serve                            Run the controller
      windlass apply -f web.yaml --wait         Declare a service, and wait until it runs
      windlass get services -w                  Watch what becomes of it
      windlass rollout undo service/web         Go back to the last good revision
      windlass delete service/web               Take it down

    Exit codes:
      0 done   1 failed   2 typed wrongly   3 diff or plan found differences   4 timed out waiting
      130 Ctrl-C while it waited
    -- exit 0
    ");
}
