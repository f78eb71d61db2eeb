//! A bridge and a subnet of one's own, and the hosts on it.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result};

use crate::base::Base;
use crate::command::{require_root, run};
use crate::host::Host;
use crate::site::{MAX_HOSTS, Site, take_down_subnet};
use crate::subnet::{Reservation, Subnet};

/// A private network of throwaway hosts.
///
/// Any number of them live side by side, in one process or in many. The network goes when the
/// testbed and all of its hosts have been dropped.
#[derive(Debug, Clone)]
pub struct Testbed {
    network: Arc<Network>,
}

/// What hosts share; each host keeps it alive.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) base: Base,
    pub(crate) subnet: Subnet,
    hosts_made: AtomicU16,
    // Last, so that the subnet is free only once everything on it is gone.
    _reservation: Reservation,
}

impl Testbed {
    /// Takes down what killed processes left, reserves a subnet and makes a bridge on it.
    ///
    /// The very first call on a machine builds the base tree, which takes about a minute.
    ///
    /// # Errors
    /// Without root ([`NotUsable::NotRoot`](crate::NotUsable)), when the base tree cannot be built,
    /// or when the bridge cannot be made.
    pub fn new() -> Result<Self> {
        require_root()?;
        let base = Base::ready()?;
        gc()?;
        let reservation = Reservation::any()?;
        let subnet = reservation.subnet;
        take_down_subnet(subnet)?;
        let network = Arc::new(Network { base, subnet, hosts_made: AtomicU16::new(0), _reservation: reservation });
        fs::create_dir_all(subnet.dir()).context("creating the testbed's folder")?;
        let bridge = subnet.bridge();
        let address = format!("{}/24", subnet.address(1));
        run("ip", &["link", "add", &bridge, "type", "bridge"])?;
        run("ip", &["address", "add", &address, "dev", &bridge])?;
        run("ip", &["link", "set", &bridge, "up"])?;
        Ok(Self { network })
    }

    /// Boots one host and waits until it can be logged in to.
    ///
    /// # Errors
    /// When it is not ready within a minute; the error ends with the tail of its console.
    pub fn host(&self, name: &str) -> Result<Host> {
        self.boot(name, self.next_number())
    }

    /// Boots `web1` to `web<count>` side by side.
    ///
    /// # Errors
    /// When any of them is not ready; the others are taken down again.
    pub fn hosts(&self, count: u8) -> Result<Vec<Host>> {
        let names: Vec<String> = (1..=count).map(|number| format!("web{number}")).collect();
        self.hosts_named(&names)
    }

    /// Boots a host for each name, side by side.
    ///
    /// # Errors
    /// When any of them is not ready; the others are taken down again.
    pub fn hosts_named<S: AsRef<str> + Sync>(&self, names: &[S]) -> Result<Vec<Host>> {
        let numbered: Vec<_> = names.iter().map(|name| (name.as_ref(), self.next_number())).collect();
        std::thread::scope(|scope| {
            let boot = |(name, number)| scope.spawn(move || self.boot(name, number));
            let boots: Vec<_> = numbered.into_iter().map(boot).collect();
            boots.into_iter().map(|boot| boot.join().expect("booting does not panic")).collect()
        })
    }

    /// The network in CIDR notation, as a NetworkZone wants it.
    pub fn cidr(&self) -> String {
        self.network.subnet.cidr()
    }

    /// This machine's own address on the network.
    pub fn gateway(&self) -> std::net::Ipv4Addr {
        self.network.subnet.address(1)
    }

    /// Numbers follow the order of asking, and so do addresses, however boots overtake each other.
    fn next_number(&self) -> u16 {
        self.network.hosts_made.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn boot(&self, name: &str, number: u16) -> Result<Host> {
        let number = u8::try_from(number).ok().filter(|number| *number <= MAX_HOSTS);
        let number = number.with_context(|| format!("a testbed holds {MAX_HOSTS} hosts"))?;
        let site = Site { subnet: self.network.subnet, number };
        Host::create(name, site, Arc::clone(&self.network))
            .with_context(|| format!("booting the throwaway host {name}"))
    }

    pub(crate) fn subnet(&self) -> Subnet {
        self.network.subnet
    }
}

impl Drop for Network {
    #[expect(clippy::print_stderr, reason = "a drop has no other way to tell")]
    fn drop(&mut self) {
        if let Err(error) = take_down_subnet(self.subnet) {
            eprintln!("windlass-testbed: {} is left for the next run: {error:#}", self.subnet.bridge());
        }
    }
}

/// What [`gc`] took down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Bridges of the testbeds whose process is gone.
    pub bridges: Vec<String>,
}

/// Takes down the hosts and bridges of processes that are gone; those of living ones stay.
///
/// # Errors
/// Without root, and when something cannot be killed, unmounted or removed.
pub fn gc() -> Result<GcReport> {
    require_root()?;
    let mut report = GcReport::default();
    for subnet in Subnet::known()? {
        // Whoever holds it is alive, or is taking it down just now.
        let Some(_reservation) = Reservation::take(subnet)? else { continue };
        if subnet.dir().exists() {
            take_down_subnet(subnet)?;
            report.bridges.push(subnet.bridge());
        }
    }
    Ok(report)
}
