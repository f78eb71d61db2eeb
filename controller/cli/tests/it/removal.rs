//! `windlass delete` and `windlass confirm-removal`.

use windlass_crds::condition::Reason;
use windlass_crds::host::Target;
use windlass_crds::id::HostId;
use windlass_crds::record::{Owned, OwnedHost};

use crate::told;
use crate::world::{World, service};

#[test]
fn delete_confirms_what_it_names() {
    let world = World::new();
    world.declare("web");
    world.file("api.yaml", &service("api"));
    world.declare("api");
    world.put(
        "declared/hosts/web1",
        "apiVersion: windlass/v1\nkind: Host\nmetadata: {name: web1}\nspec: {address: 198.18.0.11}\n",
    );
    insta::assert_snapshot!(world.run(&["delete", "service/web", "host/web1", "service/nope"]), @"
    service/web deleted
    host/web1 deleted
    -- stderr
    error: not found: service/nope
    hint: `windlass get` shows what there is
    -- exit 1
    ");
    assert_eq!(world.value(&world.request_for("web")).trim(), r#"{"request":"confirmRemoval"}"#);
    assert_eq!(world.keys("requests/hosts/"), [""; 0]);
    insta::assert_snapshot!(world.run(&["delete", "-f", "api.yaml"]), @"
    service/api deleted
    -- exit 0
    ");
    insta::assert_snapshot!(world.run(&["delete", "-f", "api.yaml"]), @"
    -- stderr
    error: not found: service/api
    hint: no machine and no service is declared: `windlass host add NAME --address USER@ADDRESS` declares a machine, `windlass apply -f FILE` a service
    -- exit 1
    ");
    insta::assert_snapshot!(world.run(&["delete", "-f", "api.yaml", "--ignore-not-found"]), @"-- exit 0");
    assert_eq!(world.keys("declared/"), [""; 0]);
}

#[test]
fn delete_waits_until_nothing_is_left() {
    let world = World::new();
    let generation = world.declare("web");
    world.tell("web", &told::converged(generation));
    world.put("owned/default/web", r#"{"hosts": {}}"#);
    let delete = world.start(&["delete", "service/web", "--wait"]);
    let request = world.request_for("web");
    // The brake holds until the confirmation has been read.
    world.tell("web", &told::stalled(generation, "web1=3-", Reason::RemovalNeedsConfirmation, "waits"));
    world.tell("web", &told::stalled(generation, "web1=3-", Reason::Removing, "it is taken down"));
    world.delete(&request);
    world.delete("owned/default/web");
    world.delete("status/services/default/web");
    insta::assert_snapshot!(delete.end(), @"
    service/web deleted
    service/web gone
    -- stderr
    service/web: web1 removing, revision 3
    service/web: web2 is done with
    service/web: web3 is done with
    -- exit 0
    ");

    // Deleted by a raw key, and still there on hosts.
    world.put("owned/default/web", r#"{"hosts": {}}"#);
    insta::assert_snapshot!(world.run(&["get", "services"]), @"
    NAME   READY   STATUS     REVISION   SINCE
    web    -       Removing   -          -
    -- exit 0
    ");
    insta::assert_snapshot!(world.run(&["delete", "service/web"]), @"
    service/web is being removed already
    -- exit 0
    ");
}

/// What is recorded of a service that was put on these hosts.
fn owned_on(hosts: &[&str]) -> Owned {
    let owned = |name: &&str| {
        let id: HostId = format!("root@{name}.example.com").parse().expect(name);
        let target = Target::inline(&id).expect("a destination");
        (
            id,
            OwnedHost {
                target: target.into(),
                machine: None,
                former: Vec::new(),
                confirmed: false,
                in_doubt: false,
                carries: None,
            },
        )
    };
    Owned { hosts: hosts.iter().map(owned).collect(), ..Owned::default() }
}

#[test]
fn removals_that_wait_are_shown_and_confirmed() {
    let world = World::new();
    insta::assert_snapshot!(world.run(&["confirm-removal"]), @"
    -- stderr
    no removal waits for confirmation
    hint: no machine and no service is declared: `windlass host add NAME --address USER@ADDRESS` declares a machine, `windlass apply -f FILE` a service
    -- exit 0
    ");
    let generation = world.declare("web");
    world.tell("web", &told::stalled(generation, "web1=3+ web2=3-", Reason::RemovalNeedsConfirmation, "waits"));
    world.tell("api", &told::stalled(generation, "", Reason::RemovalNeedsConfirmation, "waits"));
    world.put("owned/default/api", &serde_json::to_string(&owned_on(&["web1", "web3"])).expect("JSON"));
    let generation = world.declare("well");
    world.tell("well", &told::converged(generation));
    insta::assert_snapshot!(world.run(&["get", "services"]), @"
    NAME   READY   STATUS                     REVISION   SINCE
    api    0/0     RemovalNeedsConfirmation   3          4d
    web    0/2     RemovalNeedsConfirmation   3          4d
    well   3/3     Converged                  3          4d
    -- exit 0
    ");
    insta::assert_snapshot!(world.run(&["confirm-removal"]), @"
    service/api waits to be removed from root@web1.example.com, root@web3.example.com
    service/web waits to be removed from web2
    -- stderr
    hint: name them, or say --all, to let them go on
    -- exit 0
    ");
    assert_eq!(world.keys("requests/"), [""; 0]);
    insta::assert_snapshot!(world.run(&["confirm-removal", "service/web", "service/well"]), @"
    -- stderr
    error: no removal of service/well waits for confirmation; nothing was confirmed
    -- exit 1
    ");
    assert_eq!(world.keys("requests/"), [""; 0]);
    insta::assert_snapshot!(world.run(&["confirm-removal", "service/web"]), @"
    service/web removal from web2 confirmed
    -- exit 0
    ");
    assert_eq!(world.value(&world.request_for("web")).trim(), r#"{"request":"confirmRemoval"}"#);
    insta::assert_snapshot!(world.run(&["confirm-removal", "--all", "-n", "prod"]), @"
    -- stderr
    no removal waits for confirmation
    -- exit 0
    ");
    insta::assert_snapshot!(world.run(&["confirm-removal", "--all"]), @"
    service/api removal from root@web1.example.com, root@web3.example.com confirmed
    service/web removal from web2 confirmed
    -- exit 0
    ");
    world.delete(&world.request_for("api"));
    insta::assert_snapshot!(world.run(&["wait", "service/api", "--for=delete"]), @"
    -- stderr
    error: service/api is not gone: RemovalNeedsConfirmation: waits
      next: nothing is removed until somebody confirms it
    hint: `windlass confirm-removal service/api` lets it go on
    -- exit 1
    ");
}

#[test]
fn deleting_a_host_confirms_what_leaves_it() {
    let world = World::new();
    let host = "apiVersion: windlass/v1\nkind: Host\nmetadata: {name: web1}\nspec: {address: 198.18.0.11}\n";
    world.put("declared/hosts/web1", host);
    let id: HostId = "web1".parse().expect("a name");
    let target = Target::inline(&"root@198.18.0.11".parse().expect("a destination")).expect("inline");
    let owned = OwnedHost {
        target: target.into(),
        machine: None,
        former: Vec::new(),
        confirmed: false,
        in_doubt: false,
        carries: None,
    };
    let owned = Owned { hosts: [(id, owned)].into(), ..Owned::default() };
    let owned = serde_json::to_string(&owned).expect("JSON");
    // Chosen by a label, by its name, and not at all.
    let chosen = service("api").replace("hosts: [web1, web2, web3]", "selector: {role: web}");
    world.put("declared/services/default/api", &chosen);
    world.put("owned/default/api", &owned);
    world.declare("web");
    world.put("owned/default/web", &owned);
    world.declare("elsewhere");
    insta::assert_snapshot!(world.run(&["delete", "host/web1"]), @"
    host/web1 deleted
    service/api removal from web1 confirmed
    -- stderr
    warning: service/web names web1 in spec.placement.hosts: it runs on there, and nobody looks after it until you take web1 out of there
    -- exit 0
    ");
    assert_eq!(world.value(&world.request_for("api")).trim(), r#"{"request":"confirmRemoval","hosts":["web1"]}"#);
    assert_eq!(world.keys("requests/").len(), 1);
}
