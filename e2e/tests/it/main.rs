//! What Windlass promises, shown end to end: the real binary, a real etcd, real hosts.

mod adopt;
mod approvals;
mod bad_hosts;
mod bad_sources;
mod bad_starts;
mod checkpoints;
mod connections;
mod controllers;
mod deadman;
mod deploy;
mod drift;
mod embedded;
mod faults;
mod gitops;
mod gitops_faults;
mod gitops_owners;
mod guarded_store;
mod host_commands;
mod https;
mod idle;
mod moved;
mod partitions;
mod people;
mod readme;
mod removal;
mod security;
mod slow_stops;
mod stores;
mod strategies;
mod telemetry;
mod verdict;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use windlass_e2e::{Controller, Declaration, Program, Ran, World, service, within};
use windlass_testbed::Host;

/// The port of the service that most tests deploy.
const PORT: u16 = 8080;

/// What a command came to, for a snapshot: hashes and numbers, which differ from run to run, are hidden, and so is how wide
/// they make a column.
fn masked(ran: &Ran) -> String {
    let mask = |word: &str| {
        let number = |part: &str| part.starts_with(|letter: char| letter.is_ascii_digit()) && part.len() < 12;
        let hash = |part: &str| part.len() >= 12 && part.chars().all(|letter| letter.is_ascii_hexdigit());
        let mut text = String::new();
        for part in word.split_inclusive(|letter: char| !letter.is_ascii_alphanumeric()) {
            let (part, end) = match part.char_indices().next_back() {
                Some((at, letter)) if !letter.is_ascii_alphanumeric() => part.split_at(at),
                _ => (part, ""),
            };
            text += match part {
                part if number(part) => "N",
                part if hash(part) => "HASH",
                part => part,
            };
            text += end;
        }
        text
    };
    let line = |line: &str| {
        let mut before = "";
        let mut words = Vec::new();
        for word in line.split_whitespace() {
            let time = word.contains('T') && word.trim_end_matches(':').ends_with('Z') && word.starts_with("20");
            words.push(match before {
                _ if time => "TIME".to_owned(),
                // What it is about.
                "revision" => word.to_owned(),
                _ => mask(word),
            });
            before = word;
        }
        words.join(" ")
    };
    let lines = |text: &str| text.lines().map(line).collect::<Vec<_>>().join("\n");
    format!("exit code {}\n{}\n--- stderr\n{}", ran.code, lines(&ran.stdout), lines(&ran.stderr))
}

/// A world in which the service `web` runs version `v1` on every host.
struct Running {
    world: World,
    controller: Controller,
    program: Program,
    web: Declaration,
}

impl Running {
    fn on(hosts: u8) -> Result<Self> {
        Self::in_world(World::new(hosts)?)
    }

    fn in_world(world: World) -> Result<Self> {
        Self::changed(world, |web| web)
    }

    /// With something else about the declaration of `web`.
    fn changed(world: World, change: impl FnOnce(Declaration) -> Declaration) -> Result<Self> {
        let program = world.program("web", "v1")?;
        world.declare_hosts()?;
        let web = change(service("web", PORT, program.dir(), &world.host_names()));
        let generation = world.put(&web)?;
        let controller = world.serve()?;
        world.wait_ready("web", generation)?;
        world.expect_version(&world.hosts, PORT, "v1")?;
        Ok(Self { world, controller, program, web })
    }
}

/// A removal takes a second or two. Hosts are looked at every minute in any case, so what takes longer than this was
/// forgotten, and found again by that.
const REMOVED: Duration = Duration::from_secs(30);

/// Waits until nothing is left of a service of the namespace `default`, in the store and on hosts.
fn wait_gone(world: &World, name: &str, hosts: &[Host]) -> Result<()> {
    within(REMOVED, format_args!("{name} is gone"), || {
        for kind in ["owned", "revisions", "rollouts", "status/services"] {
            let path = format!("{kind}/default/{name}");
            let keys = world.keys(&path)?;
            let ours = |key: &&String| **key == path || key.starts_with(&format!("{path}/"));
            let left: Vec<&String> = keys.iter().filter(ours).collect();
            ensure!(left.is_empty(), "left in the store: {left:?}");
        }
        hosts.iter().try_for_each(|host| check_clean(host, name))
    })
}

/// Makes sure that a host carries nothing of a service but its fence.
fn check_clean(host: &Host, name: &str) -> Result<()> {
    let unit = format!("windlass-default.{name}.service");
    let state = host.exec(&["systemctl", "show", "--property=LoadState", "--property=ActiveState", &unit])?;
    ensure!(
        state.stdout == "LoadState=not-found\nActiveState=inactive\n",
        "{unit} on {}: {}",
        host.name(),
        state.stdout
    );
    let folder = format!("/opt/windlass/default.{name}");
    ensure!(!host.exec(&["test", "-e", &folder])?.success(), "{folder} is still on {}", host.name());
    Ok(())
}

/// A host by its name.
fn host<'world>(world: &'world World, name: &str) -> Result<&'world Host> {
    world.hosts.iter().find(|host| host.name() == name).with_context(|| format!("no host {name}"))
}
