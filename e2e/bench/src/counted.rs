//! What a deploy costs a host, counted there: logins and sessions by sshd's log, bytes by its interface.

use anyhow::{Context, Result};
use windlass_testbed::Host;

/// Counters of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Logins that sshd accepted.
    pub(crate) logins: usize,
    /// Sessions that were started on them: a shell, a command, a subsystem.
    pub(crate) sessions: usize,
    /// Bytes that came in, headers and all.
    pub(crate) received: u64,
    /// Bytes that went out.
    pub(crate) sent: u64,
}

impl Counters {
    /// As they are now.
    ///
    /// # Errors
    /// When the host is off.
    pub(crate) fn read(host: &Host) -> Result<Self> {
        let log = host.sshd_log()?;
        let count = |start: &str| log.lines().filter(|line| line.starts_with(start)).count();
        let interfaces = host.read_file("/proc/net/dev")?;
        let line = interfaces.lines().find_map(|line| line.trim_start().strip_prefix("host0:"));
        let numbers: Vec<u64> = line
            .context("no host0 in /proc/net/dev")?
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        // proc_net(5): eight columns of what was received, then eight of what was sent; bytes first.
        let bytes = |column: usize| numbers.get(column).copied().context("/proc/net/dev has other columns");
        Ok(Self {
            logins: count("Accepted publickey "),
            sessions: count("Starting session: "),
            received: bytes(0)?,
            sent: bytes(8)?,
        })
    }

    /// How much more there is than before.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            logins: self.logins - before.logins,
            sessions: self.sessions - before.sessions,
            received: self.received - before.received,
            sent: self.sent - before.sent,
        }
    }
}
