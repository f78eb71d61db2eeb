//! What a ConfigRepo owns it keeps, and what others own it leaves.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use windlass_e2e::{Declaration, Repository, World, config_repo, eventually, holds, service, zone};

use crate::gitops::wait_applied;
use crate::wait_gone;

/// A zone by another name.
fn named(name: &str, cidr: &str) -> Declaration {
    let zone = zone(cidr).with("/metadata/name", name);
    Declaration { path: format!("networkzones/{name}"), ..zone }
}

fn declared(world: &World, name: &str) -> Result<String> {
    world.value(&format!("declared/networkzones/{name}"))?.with_context(|| format!("{name} is not declared"))
}

fn expect_cidr(world: &World, name: &str, cidr: &str) -> Result<()> {
    let declared = declared(world, name)?;
    ensure!(declared.contains(cidr), "{name} is not {cidr}: {declared}");
    Ok(())
}

#[test]
fn what_it_owns_is_put_back_unless_somebody_takes_it_over() -> Result<()> {
    let world = World::new(0)?;
    let repository = Repository::create(world.dir(), "fleet")?;
    repository.declare("production/lan.yaml", &named("lan", "198.18.1.0/24"))?;
    repository.declare("production/dmz.yaml", &named("dmz", "198.18.2.0/24"))?;
    let first = repository.publish("one")?;
    let fleet = config_repo("fleet", &repository.url());
    world.put(&fleet)?;
    let _controller = world.serve()?;
    wait_applied(&world, "fleet", &first)?;

    // A raw put and a raw delete.
    world.put(&named("lan", "198.18.9.0/24"))?;
    eventually("the put is put back", || expect_cidr(&world, "lan", "198.18.1.0/24"))?;
    world.delete_key("declared/networkzones/dmz")?;
    eventually("the delete is put back", || expect_cidr(&world, "dmz", "198.18.2.0/24"))?;
    eventually("that is told", || {
        let events = world.windlass(&["events"])?.expect(0)?;
        ensure!(events.contains("Conflict") && events.contains("configrepo/fleet"), "{events}");
        Ok(())
    })?;

    // `apply` and `delete` are told before they do it.
    let mine = named("lan", "198.18.7.0/24").text();
    let refused = world.windlass_with_input(&["apply", "-f", "-"], &mine)?;
    let said = refused.expect_error(1)?;
    ensure!(said.contains("Conflict") && said.contains("configrepo/fleet in production/lan.yaml"), "{said}");
    let said = world.windlass(&["delete", "networkzone/lan"])?.expect_error(1)?;
    ensure!(said.contains("Conflict"), "{said}");
    expect_cidr(&world, "lan", "198.18.1.0/24")?;

    // Taken over, it stays so, and the repository says so.
    world.windlass_with_input(&["apply", "--adopt", "-f", "-"], &mine)?.expect(0)?;
    eventually("the repository has noticed", || {
        let status = world.status("configrepos/fleet")?;
        status.expect("Ready", "False", "Conflict")?;
        ensure!(status.0["errors"][0]["file"] == "production/lan.yaml", "{}", status.0);
        Ok(())
    })?;
    holds(Duration::from_secs(7), "it stays taken over", || expect_cidr(&world, "lan", "198.18.7.0/24"))?;
    // What people have taken over, they may change as they like.
    world.windlass_with_input(&["apply", "-f", "-"], &named("lan", "198.18.8.0/24").text())?.expect(0)?;
    holds(Duration::from_secs(2), "it stays taken over", || expect_cidr(&world, "lan", "198.18.8.0/24"))?;

    // A file that says so takes it back.
    let back = named("lan", "198.18.1.0/24").with("/metadata/managedBy", "configrepo/fleet");
    repository.declare("production/lan.yaml", &back)?;
    let second = repository.publish("ours again")?;
    wait_applied(&world, "fleet", &second)?;
    expect_cidr(&world, "lan", "198.18.1.0/24")?;

    // Suspended, it leaves everything alone; then it puts its own back.
    world.put(&fleet.clone().with("/spec/suspend", true))?;
    eventually("it is suspended", || {
        world.status("configrepos/fleet")?.expect("Ready", "True", "Suspended").map(drop)
    })?;
    world.windlass_with_input(&["apply", "-f", "-"], &named("dmz", "198.18.6.0/24").text())?.expect(0)?;
    holds(Duration::from_secs(7), "nothing is put back", || expect_cidr(&world, "dmz", "198.18.6.0/24"))?;
    world.put(&fleet)?;
    eventually("its own is put back", || expect_cidr(&world, "dmz", "198.18.2.0/24"))?;
    world.passed()
}

#[test]
fn of_two_repositories_the_first_keeps_what_both_declare() -> Result<()> {
    let world = World::new(0)?;
    let (one, two) = (Repository::create(world.dir(), "one")?, Repository::create(world.dir(), "two")?);
    one.declare("production/lan.yaml", &named("lan", "198.18.1.0/24"))?;
    two.declare("production/lan.yaml", &named("lan", "198.18.2.0/24"))?;
    two.declare("production/dmz.yaml", &named("dmz", "198.18.3.0/24"))?;
    let first = one.publish("one")?;
    two.publish("two")?;
    world.put(&config_repo("one", &one.url()))?;
    let _controller = world.serve()?;
    wait_applied(&world, "one", &first)?;
    world.put(&config_repo("two", &two.url()))?;
    eventually("the second is told", || {
        let status = world.status("configrepos/two")?;
        status.expect("Ready", "False", "Conflict")?;
        ensure!(status.0["errors"][0]["message"].to_string().contains("configrepo/one"), "{}", status.0);
        Ok(())
    })?;
    // What only the second declares is in force all the same, and the first is not disturbed.
    expect_cidr(&world, "dmz", "198.18.3.0/24")?;
    holds(Duration::from_secs(7), "the first keeps it", || expect_cidr(&world, "lan", "198.18.1.0/24"))?;
    wait_applied(&world, "one", &first)?;
    // Once the first lets go of it, the second has it.
    one.remove("production/lan.yaml")?;
    one.declare("production/other.yaml", &named("other", "198.18.5.0/24"))?;
    one.publish("let go")?;
    eventually("the second has it", || expect_cidr(&world, "lan", "198.18.2.0/24"))?;
    world.passed()
}

#[test]
fn what_git_no_longer_has_goes_only_where_that_is_asked_for() -> Result<()> {
    let world = World::new(0)?;
    let repository = Repository::create(world.dir(), "fleet")?;
    for name in ["a", "b", "c"] {
        repository.declare(&format!("production/{name}.yaml"), &named(name, &format!("198.18.{}.0/24", name.len())))?;
    }
    let first = repository.publish("three")?;
    let fleet = config_repo("fleet", &repository.url());
    world.put(&fleet)?;
    let _controller = world.serve()?;
    wait_applied(&world, "fleet", &first)?;
    repository.remove("production/a.yaml")?;
    let second = repository.publish("two")?;
    wait_applied(&world, "fleet", &second)?;
    let status = world.status("configrepos/fleet")?;
    ensure!(status.0["left"][0] == "networkzones/a", "{}", status.0);
    declared(&world, "a")?;

    // With `prune` it goes.
    world.put(&fleet.clone().with("/spec/prune", true))?;
    eventually("a is gone", || {
        ensure!(world.value("declared/networkzones/a")?.is_none(), "a is still declared");
        Ok(())
    })?;
    // A copy that still says whose it is was never written by it.
    let copy = world
        .value("declared/networkzones/b")?
        .context("b is declared")?
        .replace("\"name\":\"b\"", "\"name\":\"copy\"");
    world.put_text("declared/networkzones/copy", &copy)?;
    // What is only broken does not go, moved elsewhere or not.
    repository.remove("production/b.yaml")?;
    repository.put("production/moved.yaml", "kind: [\n")?;
    let third = repository.publish("b is moved, and broken")?;
    eventually("b is told", || {
        let status = world.status("configrepos/fleet")?;
        let error = &status.0["errors"][0];
        ensure!(
            status.0["applied"] == third
                && error["file"] == "production/moved.yaml"
                && error["line"].is_u64()
                && error["column"].is_u64(),
            "{}",
            status.0
        );
        ensure!(status.0["left"][0] == "networkzones/b", "{}", status.0);
        Ok(())
    })?;
    declared(&world, "b")?;
    repository.declare("production/moved.yaml", &named("other", "198.18.7.0/24"))?;
    let fourth = repository.publish("it is mended, and says something else")?;
    wait_applied(&world, "fleet", &fourth)?;
    eventually("b is gone", || {
        ensure!(world.value("declared/networkzones/b")?.is_none(), "b is still declared");
        Ok(())
    })?;
    declared(&world, "copy")?;

    // An empty tree deletes nothing.
    for name in ["moved", "c"] {
        repository.remove(&format!("production/{name}.yaml"))?;
    }
    repository.put("production/README", "nothing here\n")?;
    repository.publish("nothing")?;
    eventually("the empty tree is refused", || {
        world.status("configrepos/fleet")?.expect("Ready", "False", "EmptyTree").map(drop)
    })?;
    declared(&world, "other")?;
    declared(&world, "c")?;
    world.passed()
}

/// A commit that takes out most of what runs is more likely a mistake than a wish.
#[test]
fn a_mass_delete_by_git_waits_for_a_person() -> Result<()> {
    let world = World::new(1)?;
    let repository = Repository::create(world.dir(), "fleet")?;
    world.program_at(&repository.work().join("apps/web"), "v1")?;
    world.declare_hosts()?;
    let hosts = world.host_names();
    let names = ["one", "two", "three", "four"];
    for (port, name) in (8081..).zip(names) {
        let declared = service(name, port, Path::new("../apps/web"), &hosts);
        repository.declare(&format!("production/{name}.yaml"), &declared)?;
    }
    let first = repository.publish("four services")?;
    world.put(&config_repo("fleet", &repository.url()).with("/spec/prune", true))?;
    let _controller = world.serve()?;
    wait_applied(&world, "fleet", &first)?;
    for name in names {
        world.wait_ready(name, 0)?;
    }
    for name in ["two", "three", "four"] {
        repository.remove(&format!("production/{name}.yaml"))?;
    }
    let second = repository.publish("one is left")?;
    wait_applied(&world, "fleet", &second)?;
    for name in ["two", "three", "four"] {
        ensure!(world.value(&format!("declared/services/default/{name}"))?.is_none(), "{name} is still declared");
        world.wait_not_ready(name, "RemovalNeedsConfirmation")?;
    }
    for port in 8081..8085 {
        world.expect_version(&world.hosts, port, "v1")?;
    }
    world.windlass(&["confirm-removal", "service/two", "service/three", "service/four"])?.expect(0)?;
    for name in ["two", "three", "four"] {
        wait_gone(&world, name, &world.hosts)?;
    }
    world.expect_version(&world.hosts, 8081, "v1")?;
    world.passed()
}

/// Two repositories declare one Service: the first keeps it, the second is told, and the program is started once.
#[test]
fn a_service_of_two_repositories_is_the_firsts() -> Result<()> {
    let world = World::new(1)?;
    world.declare_hosts()?;
    let program = world.program("web", "v1")?;
    let web = service("web", crate::PORT, program.dir(), &["web1"]);
    let (one, two) = (Repository::create(world.dir(), "one")?, Repository::create(world.dir(), "two")?);
    one.declare("production/web.yaml", &web)?;
    two.declare("production/web.yaml", &web.clone().with("/spec/runtime/env", serde_json::json!({"OF": "two"})))?;
    let first = one.publish("one")?;
    two.publish("two")?;
    world.put(&config_repo("one", &one.url()))?;
    let _controller = world.serve()?;
    wait_applied(&world, "one", &first)?;
    world.wait_version("web", crate::PORT, "v1")?;
    world.put(&config_repo("two", &two.url()))?;
    let told = || {
        let status = world.status("configrepos/two")?;
        ensure!(status.0["errors"].to_string().contains("configrepo/one"), "{}", status.0);
        status.expect("Ready", "False", "Conflict").map(drop)
    };
    eventually("the second is told whose it is", told)?;
    holds(Duration::from_secs(3), "it stays the first's", || {
        told()?;
        let declared = world.value("declared/services/default/web")?.context("it is not declared")?;
        ensure!(declared.contains("configrepo/one") && !declared.contains("\"OF\""), "{declared}");
        ensure!(world.starts("web", "v1")? == [1], "{:?}", world.starts("web", "v1")?);
        Ok(())
    })?;
    world.passed()
}
