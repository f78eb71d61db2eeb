//! The brake: how many removals are too many.

use windlass_planner::brake::Removals;
use windlass_planner::input::RemovalGate::{self, Held, Open};

/// `services` services leave `hosts` hosts each, of `all` pairs.
fn check(services: usize, hosts: usize, all: usize, expected: RemovalGate) {
    let pairs = (0..services).flat_map(|service| {
        let key = format!("default/s{service}");
        (0..hosts).map(move |host| (key.parse().expect("a key"), format!("h{host}").parse().expect("a name")))
    });
    let removals = Removals { pairs: pairs.collect(), unmatched: std::collections::BTreeSet::new(), all };
    let gate = removals.gate(&"default/s0".parse().expect("a key"));
    assert_eq!(gate, expected, "{services} services, {hosts} hosts each, of {all}");
}

#[test]
fn it_holds_from_three_services_and_over_a_fifth_of_all_pairs() {
    check(0, 0, 0, Open);
    check(1, 3, 3, Open);
    check(2, 5, 10, Open);
    check(3, 1, 3, Held);
    check(3, 1, 14, Held);
    check(3, 1, 15, Open);
    check(3, 2, 30, Open);
    check(3, 2, 29, Held);
    check(10, 1, 50, Open);
    check(10, 1, 49, Held);
}

#[test]
fn a_selector_that_matches_nothing_holds_its_own_service_only() {
    let key = |name: &str| name.parse().expect("a key");
    let mut removals = Removals { all: 100, ..Removals::default() };
    removals.pairs.insert((key("default/web"), "a".parse().expect("a name")));
    removals.unmatched.insert(key("default/web"));
    assert_eq!(removals.gate(&key("default/web")), Held);
    assert_eq!(removals.gate(&key("default/other")), Open);
}
