//! Who has which subnet: a lock held for the life of the process, so a crash frees it.

use std::fs::{self, File, TryLockError};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Where everything lives that does not outlast the machine.
pub(crate) const RUNTIME_DIR: &str = "/run/windlass-testbed";

/// How many /24 there are in 198.18.0.0/15, which is reserved for benchmarks (RFC 2544).
const SUBNETS: u16 = 512;

/// One /24 of 198.18.0.0/15, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Subnet(u16);

impl Subnet {
    /// Name of the bridge, and what the names of all else here begin with.
    pub(crate) fn bridge(self) -> String {
        format!("wlt{:03}", self.0)
    }

    /// Where this subnet's hosts have their files.
    pub(crate) fn dir(self) -> PathBuf {
        Path::new(RUNTIME_DIR).join(format!("{:03}", self.0))
    }

    /// The address that ends in `last`; the bridge has 1.
    pub(crate) fn address(self, last: u8) -> Ipv4Addr {
        let [high, low] = self.0.to_be_bytes();
        Ipv4Addr::new(198, 18 + high, low, last)
    }

    /// The network in CIDR notation.
    pub(crate) fn cidr(self) -> String {
        format!("{}/24", self.address(0))
    }

    fn lock_file(self) -> PathBuf {
        Path::new(RUNTIME_DIR).join(format!("{:03}.lock", self.0))
    }

    /// Every subnet that some process has ever reserved since the machine started.
    pub(crate) fn known() -> Result<Vec<Self>> {
        let entries = match fs::read_dir(RUNTIME_DIR) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).context("reading the reservations"),
        };
        let mut known = Vec::new();
        for entry in entries {
            let name = entry.context("reading the reservations")?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".lock")?.parse().ok());
            known.extend(number.map(Subnet));
        }
        known.sort();
        Ok(known)
    }
}

/// A subnet that nobody else on this machine has while this value lives.
#[derive(Debug)]
pub(crate) struct Reservation {
    pub(crate) subnet: Subnet,
    lock: File,
}

impl Reservation {
    /// Takes the first subnet that is free.
    pub(crate) fn any() -> Result<Self> {
        fs::create_dir_all(RUNTIME_DIR).with_context(|| format!("creating {RUNTIME_DIR}"))?;
        for subnet in (0..SUBNETS).map(Subnet) {
            if let Some(reservation) = Self::take(subnet)? {
                return Ok(reservation);
            }
        }
        bail!("all {SUBNETS} subnets of 198.18.0.0/15 are taken\nhint: see {RUNTIME_DIR}")
    }

    /// Takes this subnet, or nothing when somebody has it.
    pub(crate) fn take(subnet: Subnet) -> Result<Option<Self>> {
        let file = subnet.lock_file();
        // The file stays: removing it could free a lock that another process is about to take.
        let lock = File::create(&file).with_context(|| format!("opening {}", file.display()))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Self { subnet, lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("locking {}", file.display())),
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // Closing would do, unless a child that is just being started holds a copy.
        let _ = self.lock.unlock();
    }
}
