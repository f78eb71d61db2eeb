//! `windlass host adopt`.

use windlass_crds::condition::{ConditionStatus, ConditionType, Reason};
use windlass_crds::id::Generation;
use windlass_crds::status::HostStatus;

use crate::told;
use crate::world::World;

const OWNER: &str = "feedfacefeedface";

/// web1 is declared.
fn with_host() -> (World, u64) {
    let world = World::new();
    let key = "declared/hosts/web1";
    world.put(key, "apiVersion: windlass/v1\nkind: Host\nmetadata: {name: web1}\nspec: {address: 198.18.0.11}\n");
    let generation = world.generation(key);
    (world, generation)
}

fn tell(world: &World, generation: u64, owner: Option<&str>) {
    use ConditionStatus::{False, True};
    let refused = format!("the host belongs to the store {OWNER}; `windlass host adopt` takes it over");
    let conditions = match owner {
        Some(_) => vec![
            told::condition(ConditionType::Ready, False, Reason::OwnedByAnother, &refused),
            told::condition(ConditionType::Stalled, True, Reason::OwnedByAnother, &refused),
        ],
        None => vec![told::condition(ConditionType::Ready, True, Reason::Reachable, "systemd 252 answers")],
    };
    let owner = owner.map(|owner| owner.parse().expect("an id"));
    let told = HostStatus { observed_generation: Generation(generation), conditions, owner, ..HostStatus::default() };
    world.put("status/hosts/web1", &serde_json::to_string(&told).expect("JSON"));
}

fn request(world: &World) -> String {
    for _ in 0..1000 {
        if let Some(id) = world.keys("requests/hosts/web1/").pop() {
            return format!("requests/hosts/web1/{id}");
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("no request for web1");
}

#[test]
fn it_is_shown_whose_it_is_and_asked_for_in_that_owners_name() {
    let (world, generation) = with_host();
    insta::assert_snapshot!(world.run(&["host", "adopt", "web1", "--yes"]), @"
    -- stderr
    error: whose host/web1 is has not been seen yet: NotObserved
    hint: `windlass reconcile host/web1 --wait` looks now
    -- exit 1
    ");
    tell(&world, generation, Some(OWNER));
    let declared = world.declare("web");
    world.tell("web", &told::stalled(declared, "web1=!", Reason::OwnedByAnother, "web1: it is another's"));
    // Nobody is there to be asked.
    insta::assert_snapshot!(world.run(&["host", "adopt", "host/web1"]), @"
    -- stderr
    host/web1 belongs to the store feedfacefeedface, and its controller looks after it.
    Of what this store knows, service/web is to run there; nothing else is touched.
    error: nobody can be asked whether to take it over: there is no terminal
    hint: say --yes
    -- exit 2
    ");
    assert_eq!(world.keys("requests/"), [""; 0]);
    let adopt = world.start(&["host", "adopt", "web1", "--yes", "--wait"]);
    let request = request(&world);
    assert_eq!(world.value(&request).trim(), format!(r#"{{"request":"adopt","owner":"{OWNER}"}}"#));
    tell(&world, generation, None);
    world.delete(&request);
    insta::assert_snapshot!(adopt.end(), @"
    host/web1 ready: systemd 252 answers
    -- stderr
    host/web1 belongs to the store feedfacefeedface, and its controller looks after it.
    Of what this store knows, service/web is to run there; nothing else is touched.
    -- exit 0
    ");
    insta::assert_snapshot!(world.run(&["host", "adopt", "web1", "--yes"]), @"
    host/web1 belongs to this store already
    -- exit 0
    ");
    assert_eq!(world.keys("requests/"), [""; 0]);
    insta::assert_snapshot!(world.run(&["host", "adopt", "web2", "--yes"]), @"
    -- stderr
    error: not found: host/web2
    hint: `windlass get` shows what there is
    -- exit 1
    ");
}

#[test]
fn an_adoption_that_came_too_late_fails() {
    let (world, generation) = with_host();
    tell(&world, generation, Some(OWNER));
    let adopt = world.start(&["host", "adopt", "web1", "--yes", "--wait"]);
    let request = request(&world);
    // A third store was faster.
    tell(&world, generation, Some("0123456701234567"));
    world.delete(&request);
    let shown = adopt.end();
    assert!(shown.contains("error: host/web1 is not Ready: OwnedByAnother") && shown.ends_with("-- exit 1"), "{shown}");
}
