//! What goes wrong with machines: links, packets, disks, keys and settings.

use anyhow::{Context, Result};

use crate::base::make_key;
use crate::command::run;
use crate::host::{DISK_BYTES, DISK_INODES, Host};

/// sshd's settings that tests made; the first value of a setting wins, so it sorts first.
const SSHD_OPTIONS: &str = "/etc/ssh/sshd_config.d/00-test.conf";

/// The chain of the host's own firewall that counts, and drops when told.
const CHAIN: &str = "INPUT";

/// What a full disk still has room for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spare {
    /// Bytes, rounded down to pages of 4096.
    pub bytes: u64,
    /// Files, folders and symlinks.
    pub inodes: u64,
}

/// What a disk holds is counted so often before it is said to be in use all the while.
const MOST_COUNTS: u32 = 10;

impl Host {
    /// Takes the host's link down: new connections fail within seconds with "no route to host",
    /// open ones go silent.
    ///
    /// # Errors
    /// When the link is not there.
    pub fn partition(&self) -> Result<()> {
        run("ip", &["link", "set", &self.site.id(), "down"]).map(drop)
    }

    /// Brings the link up again. One that is up stays.
    ///
    /// # Errors
    /// When the link is not there.
    pub fn mend(&self) -> Result<()> {
        run("ip", &["link", "set", &self.site.id(), "up"]).map(drop)
    }

    /// Drops every packet to and from the host without a word: connections hang, new and old.
    /// They are still counted, see [`Host::connection_attempts`].
    ///
    /// # Errors
    /// When the rule cannot be added.
    pub fn swallow(&self) -> Result<()> {
        self.unswallow()?;
        self.firewall(&["-A", CHAIN, "-i", "host0", "-j", "DROP"])?;
        self.firewall(&["-A", "OUTPUT", "-o", "host0", "-j", "DROP"]).map(drop)
    }

    /// Lets packets through again. A host that lets them through already stays so.
    ///
    /// # Errors
    /// When the rule cannot be removed.
    pub fn unswallow(&self) -> Result<()> {
        for rule in [[CHAIN, "-i", "host0", "-j", "DROP"], ["OUTPUT", "-o", "host0", "-j", "DROP"]] {
            let there = self.firewall(&["-S", rule[0]])?;
            if there.lines().any(|line| line.ends_with("-j DROP")) {
                self.firewall(&[&["-D"], &rule[..]].concat())?;
            }
        }
        Ok(())
    }

    /// How many packets asked sshd for a connection since the host was made or the count reset; one that goes
    /// unanswered is asked again after 1 s, 3 s, 7 s, …, and counts each time.
    ///
    /// # Errors
    /// When the count cannot be read.
    pub fn connection_attempts(&self) -> Result<u64> {
        let rules = self.firewall(&["-nvxL", CHAIN])?;
        let line = rules.lines().find(|line| line.contains("dpt:22"));
        let packets = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        packets.with_context(|| format!("no count of connections in:\n{rules}"))
    }

    /// Sets [`Host::connection_attempts`] to 0.
    ///
    /// # Errors
    /// When the count cannot be reset.
    pub fn reset_connection_count(&self) -> Result<()> {
        self.firewall(&["-Z", CHAIN]).map(drop)
    }

    /// What sshd logged since the host booted, a message a line: `Connection from …`,
    /// `Accepted publickey for …`, `Starting session: …`.
    ///
    /// # Errors
    /// When the host is off.
    pub fn sshd_log(&self) -> Result<String> {
        self.run(&["journalctl", "--sync"])?;
        self.run(&["journalctl", "--boot", "--identifier=sshd", "--output=cat", "--no-pager"])
    }

    /// How many logins sshd has accepted since the host booted.
    ///
    /// # Errors
    /// When the host is off.
    pub fn accepted_logins(&self) -> Result<usize> {
        let log = self.sshd_log()?;
        Ok(log.lines().filter(|line| line.starts_with("Accepted publickey ")).count())
    }

    /// Leaves the whole disk of the host this much room and no more; what is there stays. Files
    /// can still be overwritten in place where they have been written before.
    ///
    /// # Errors
    /// When the disk cannot be resized.
    pub fn fill_disk(&self, spare: Spare) -> Result<()> {
        let disk = self.site.disk();
        let mut counts = 0;
        loop {
            let usage = rustix::fs::statvfs(&disk).context("looking at the disk")?;
            let bytes = (usage.f_blocks - usage.f_bfree) * usage.f_frsize + spare.bytes;
            let inodes = usage.f_files - usage.f_ffree + spare.inodes;
            counts += 1;
            // 0 would mean no limit, and less than what is used is refused: the host's own journal and the like may
            // have written since it was counted, which is then counted again.
            match self.resize_disk(bytes.max(4096), inodes.max(1)) {
                Err(_) if counts < MOST_COUNTS => {}
                done => return done,
            }
        }
    }

    /// Gives the disk its room back.
    ///
    /// # Errors
    /// When the disk cannot be resized.
    pub fn unfill_disk(&self) -> Result<()> {
        self.resize_disk(DISK_BYTES, DISK_INODES)
    }

    /// Puts a disk of its own, of `bytes`, over a folder of a running host, with what the folder
    /// holds now. It is gone after the next boot, and what was there before shows again.
    ///
    /// # Errors
    /// When the host is off, or what is there does not fit.
    pub fn small_disk(&self, folder: &str, bytes: u64) -> Result<()> {
        const SCRIPT: &str = r#"set -eu
mkdir -p -- "$1" /run/small-disk
mount -t tmpfs -o "mode=0755,size=$2" small-disk /run/small-disk
cp -a -- "$1"/. /run/small-disk/
mount --make-private /run/small-disk
mount --bind /run/small-disk "$1"
umount /run/small-disk"#;
        self.run(&["sh", "-c", SCRIPT, "sh", folder, &bytes.to_string()]).map(drop)
    }

    /// Takes the disk off the folder, keeping what it holds now.
    ///
    /// # Errors
    /// When the host is off, or there is none.
    pub fn remove_small_disk(&self, folder: &str) -> Result<()> {
        const SCRIPT: &str = r#"set -eu
mkdir -p /run/small-disk
mount --bind "$1" /run/small-disk
umount -l "$1"
rsync -aHAX --delete /run/small-disk/ "$1"/
umount /run/small-disk"#;
        self.run(&["sh", "-c", SCRIPT, "sh", folder]).map(drop)
    }

    /// Adds a line such as `AllowTcpForwarding no` to sshd's settings and restarts it; open
    /// connections go on as they are. Of two values for one setting sshd takes the first.
    ///
    /// # Errors
    /// When the host is off, or sshd refuses the line.
    pub fn set_sshd_option(&self, line: &str) -> Result<()> {
        const SCRIPT: &str = r#"printf '%s\n' "$1" >>"$2""#;
        self.run(&["sh", "-c", SCRIPT, "sh", line, SSHD_OPTIONS])?;
        self.restart_sshd()
    }

    /// Takes back every [`Host::set_sshd_option`].
    ///
    /// # Errors
    /// When the host is off.
    pub fn clear_sshd_options(&self) -> Result<()> {
        self.run(&["rm", "-f", SSHD_OPTIONS])?;
        self.restart_sshd()
    }

    /// Gives the host another key, as if another machine answered at its address.
    ///
    /// # Errors
    /// When the host is off.
    pub fn new_host_key(&self) -> Result<()> {
        make_key(&self.site.host_key_file(), self.name())?;
        self.restart_sshd()
    }

    pub(crate) fn count_connections(&self) -> Result<()> {
        // No target: it counts and goes on to the next rule.
        self.firewall(&["-A", CHAIN, "-p", "tcp", "--dport", "22", "--syn"]).map(drop)
    }

    fn restart_sshd(&self) -> Result<()> {
        self.run(&["sshd", "-t"])?;
        self.run(&["systemctl", "reset-failed", "ssh.service"])?;
        // sshd tells systemd when it listens, so this returns when it does.
        self.run(&["systemctl", "restart", "ssh.service"]).map(drop)
    }

    fn resize_disk(&self, bytes: u64, inodes: u64) -> Result<()> {
        let disk = self.site.disk();
        let disk = disk.to_str().context("a path that is not UTF-8")?;
        let options = format!("remount,size={bytes},nr_inodes={inodes}");
        run("mount", &["-o", &options, disk]).map(drop)
    }

    /// The host's own packet filter, from outside, so that it works while the host is off.
    fn firewall(&self, arguments: &[&str]) -> Result<String> {
        let id = self.site.id();
        let command = [&["netns", "exec", id.as_str(), "iptables", "-w", "10"], arguments].concat();
        run("ip", &command)
    }
}
