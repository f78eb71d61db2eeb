//! How much memory the controller and the ssh processes take that hold its connections.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Memory of several processes, in kB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Footprint {
    /// How many processes.
    pub(crate) processes: usize,
    /// Resident memory; what processes share counts in each.
    pub(crate) resident: u64,
    /// Resident memory; what processes share is divided among them.
    pub(crate) proportional: u64,
}

/// The memory of the controller, and of every ssh that holds a connection for it.
///
/// Those are no children of it by their parent's id, since each went into the background; their titles name a socket
/// below the controller's temporary folder.
///
/// # Errors
/// When the controller has ended.
pub(crate) fn of_controller(controller: u32, folder: &Path) -> Result<Footprint> {
    let mut sum = Footprint::default();
    for id in connections(folder)?.into_iter().chain([controller]) {
        // One that has just ended has none.
        let Ok(rollup) = fs::read_to_string(format!("/proc/{id}/smaps_rollup")) else { continue };
        sum.processes += 1;
        sum.resident += field(&rollup, "Rss:")?;
        sum.proportional += field(&rollup, "Pss:")?;
    }
    ensure!(sum.processes > 1, "neither the controller nor its connections are there");
    Ok(sum)
}

/// Every ssh that holds a connection by a socket below a folder.
///
/// # Errors
/// When processes cannot be listed.
pub(crate) fn connections(folder: &Path) -> Result<Vec<u32>> {
    let folder = folder.to_string_lossy();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("listing processes")? {
        let path = entry.context("listing processes")?.path();
        let Some(id) = path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()) else { continue };
        let line = fs::read(path.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        if line.starts_with("ssh") && line.contains(&*folder) && line.contains("/wl-") {
            found.push(id);
        }
    }
    Ok(found)
}

/// A line of numbers with a unit, as the kernel writes them, in that unit.
pub(crate) fn field(rollup: &str, name: &str) -> Result<u64> {
    let line = rollup.lines().find(|line| line.starts_with(name));
    let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    number.with_context(|| format!("no {name} there"))
}
