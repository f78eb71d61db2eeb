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
        let bytes = |name: &str| -> Result<u64> {
            let text = host.read_file(&format!("/sys/class/net/host0/statistics/{name}"))?;
            text.trim().parse().with_context(|| format!("{name} is {text}"))
        };
        Ok(Self {
            logins: count("Accepted publickey "),
            sessions: count("Starting session: "),
            received: bytes("rx_bytes")?,
            sent: bytes("tx_bytes")?,
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
