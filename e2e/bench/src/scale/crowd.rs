//! A crowd: a thousand simulated hosts, ten thousand Services on them, and one Service that runs on each.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use windlass_hosts::memory::{Behaviour, HostSettings, MemoryFleet};

/// The Service that runs on every host.
pub(crate) const WIDE: &str = "wide";

/// How many of its hosts change at once.
pub(crate) const AT_ONCE: usize = 50;

/// Where it listens.
const WIDE_PORT: u16 = 9000;

/// The first port of the others.
const FIRST_PORT: u16 = 10_000;

/// How many hosts and Services there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Crowd {
    /// Hosts.
    pub(crate) hosts: usize,
    /// Services, the one on every host included.
    pub(crate) services: usize,
}

impl Crowd {
    /// The hosts, with nothing on them yet. A step takes as long as on a small host; the way there takes 2 to 40 ms,
    /// and a program answers 100 to 500 ms after its start, each host in its own way.
    pub(crate) fn fleet(&self) -> MemoryFleet {
        let fleet = MemoryFleet::unwatched();
        for number in 0..self.hosts {
            fleet.add(&address(number), HostSettings::default());
        }
        fleet.set_pace(|address, _| Duration::from_millis(2 + trait_of(address, 38)));
        fleet.choose_behaviours(|program| {
            Behaviour::healthy_after(Duration::from_millis(100 + trait_of(&program.address, 400)))
        });
        fleet
    }

    /// Everything but Services, as keys and values.
    pub(crate) fn surroundings(&self) -> Vec<(String, String)> {
        let zone = (zone_key(), zone(0));
        let host = |number: usize| {
            let name = host_name(number);
            let document = json!({
                "apiVersion": "windlass/v1", "kind": "Host",
                "metadata": {"name": name, "labels": {"pool": "all", "rack": format!("r{}", number % 20)}},
                "spec": {"address": address(number)},
            });
            (format!("/windlass/declared/hosts/{name}"), document.to_string())
        };
        std::iter::once(zone).chain((0..self.hosts).map(host)).collect()
    }

    /// The names of the Services that run on one host each.
    pub(crate) fn narrow(&self) -> impl Iterator<Item = usize> {
        0..self.services - 1
    }

    /// The key of a Service on one host, and what is declared of it in a version: nothing but where it runs and what
    /// it is asked, so that all else is as it is by default.
    pub(crate) fn service(&self, number: usize, version: u32, sources: &Path) -> (String, String) {
        let name = service_name(number);
        let port = FIRST_PORT + u16::try_from(number / self.hosts).expect("a host has few Services");
        let placement = json!({"hosts": [host_name(number % self.hosts)]});
        let mut document = declaration(&name, port, version, &source(sources, &name));
        document["spec"]["placement"] = placement;
        (service_key(&name), document.to_string())
    }

    /// The same of the Service on every host. How long it is watched when it answers is no time of the hosts'.
    pub(crate) fn wide(&self, version: u32, sources: &Path) -> (String, String) {
        let mut document = declaration(WIDE, WIDE_PORT, version, &source(sources, WIDE));
        document["spec"]["placement"] = json!({"selector": {"pool": "all"}});
        document["spec"]["rollout"] = json!({"maxUnavailable": AT_ONCE, "minHealthyTime": "0s"});
        (service_key(WIDE), document.to_string())
    }

    /// Writes a source for each Service.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub(crate) fn write_sources(&self, sources: &Path) -> Result<()> {
        let names = self.narrow().map(service_name).chain(std::iter::once(WIDE.to_owned()));
        for name in names {
            let folder = source(sources, &name);
            std::fs::create_dir_all(&folder).context("making a source")?;
            std::fs::write(folder.join("server.py"), format!("# The program of {name}.\n")).context("writing it")?;
            std::fs::write(folder.join("settings.toml"), "workers = 4\n").context("writing it")?;
        }
        Ok(())
    }
}

fn declaration(name: &str, port: u16, version: u32, source: &Path) -> Value {
    json!({
        "apiVersion": "windlass/v1", "kind": "Service",
        "metadata": {"name": name, "labels": {"team": "storefront"}},
        "spec": {
            "source": {"path": source},
            "runtime": {
                "target": "python", "entryPoint": "server.py", "env": {"LOG_LEVEL": "info", "VERSION": version.to_string()},
            },
            "network": {"port": port, "transport": "http"},
            "health": {"endpoint": "/health"},
        },
    })
}

/// The zone that all hosts are in, in a version that means the same.
pub(crate) fn zone(version: u32) -> String {
    let document = json!({
        "apiVersion": "windlass/v1", "kind": "NetworkZone",
        "metadata": {"name": "all", "labels": {"version": version.to_string()}},
        "spec": {"location": "vpn", "cidrs": ["198.18.0.0/15"]},
    });
    document.to_string()
}

/// Where it lies.
pub(crate) fn zone_key() -> String {
    "/windlass/declared/networkzones/all".to_owned()
}

/// The address of a host.
pub(crate) fn address(number: usize) -> String {
    format!("198.18.{}.{}", number / 250, number % 250 + 1)
}

fn host_name(number: usize) -> String {
    format!("h{number:04}")
}

/// The name of a Service on one host.
pub(crate) fn service_name(number: usize) -> String {
    format!("service-{number:05}")
}

fn service_key(name: &str) -> String {
    format!("/windlass/declared/services/default/{name}")
}

/// Where the source of a Service is.
pub(crate) fn source(sources: &Path, name: &str) -> PathBuf {
    sources.join(name)
}

/// A number below `most` that is always the same for an address, and in no order over many.
fn trait_of(address: &str, most: u64) -> u64 {
    // FNV-1a: any function would do that scatters.
    let hash = address
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (hash >> 20) % most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_differ_and_stay_as_they_are() {
        let traits: Vec<u64> = (0..1000).map(|number| trait_of(&address(number), 38)).collect();
        assert_eq!(traits[7], trait_of(&address(7), 38));
        let mean = traits.iter().sum::<u64>() / 1000;
        assert!((15..23).contains(&mean), "{mean}");
        assert!(traits.contains(&0) && traits.contains(&37));
    }

    #[test]
    fn what_is_declared_makes_sense() {
        let crowd = Crowd { hosts: 10, services: 101 };
        let sources = Path::new("/srv");
        let services = crowd.narrow().map(|number| crowd.service(number, 1, sources));
        let all = crowd.surroundings().into_iter().chain(services).chain([crowd.wide(1, sources)]);
        let mut count = 0;
        for (key, text) in all {
            let path = key.trim_start_matches("/windlass/declared/");
            let resource = windlass_crds::id::ResourceKey::from_path(path).expect("a key");
            let parsed = windlass_crds::document::parse_at(&resource, text.as_bytes());
            assert!(parsed.is_ok(), "{text}: {parsed:?}");
            count += 1;
        }
        assert_eq!(count, 112);
    }
}
