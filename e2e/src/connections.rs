//! The ssh processes of this world's controllers: found by where they lead to, and killed as if the connection broke.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// The one that everything else goes through.
    Shared,
    /// The one that a confirmation makes for itself.
    OfItsOwn,
}

/// Kills every such connection to a host by controllers whose folders are in `dir`, and says how many there were.
pub(crate) fn break_connections(dir: &Path, address: Ipv4Addr, which: Connection) -> Result<usize> {
    let mut broken = 0;
    for process in fs::read_dir("/proc").context("looking at processes")?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else {
            continue;
        };
        // Processes end while they are looked at.
        let Ok(line) = fs::read(process.path().join("cmdline")) else { continue };
        let Some((config, found)) = connection(&String::from_utf8_lossy(&line)) else { continue };
        let leads_there = || {
            let text = fs::read_to_string(&config).unwrap_or_default();
            text.lines().any(|line| line.trim() == format!("HostName {address}"))
        };
        if found == which && config.starts_with(dir) && leads_there() {
            match kill_process(pid, Signal::KILL) {
                Ok(()) => broken += 1,
                Err(Errno::SRCH) => {}
                Err(error) => return Err(error).context("killing ssh"),
            }
        }
    }
    Ok(broken)
}

/// The configuration and the kind of an ssh, by its command line.
fn connection(line: &str) -> Option<(PathBuf, Connection)> {
    let words: Vec<&str> = line.split('\0').collect();
    match words.as_slice() {
        ["ssh", "-F", config, "-E", _, "-S", "none", ..] => Some((PathBuf::from(config), Connection::OfItsOwn)),
        ["ssh", "-F", config, "-E", _, "-S", _, "-M", ..] => Some((PathBuf::from(config), Connection::Shared)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_told_apart_by_what_they_call_themselves() {
        let config = PathBuf::from("/tmp/a/wl-1/0/config");
        for (line, expected) in [
            (
                "ssh\0-F\0/tmp/a/wl-1/0/config\0-E\0/tmp/a/wl-1/0/log\0-S\0/tmp/a/wl-1/0/m\0-M\0-f\0-N\0--\0windlass\0",
                Some((config.clone(), Connection::Shared)),
            ),
            (
                "ssh\0-F\0/tmp/a/wl-1/0/config\0-E\0/tmp/a/wl-1/0/login3\0-S\0none\0--\0windlass\0x\0",
                Some((config, Connection::OfItsOwn)),
            ),
            ("ssh\0somewhere\0", None),
            ("sshd: deploy [priv]\0", None),
        ] {
            assert_eq!(connection(line), expected, "{line:?}");
        }
    }
}
