//! Where one host's parts are: all names follow from its subnet and number, so that a process that
//! never saw the host can take it down.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::base::remove_tree;
use crate::cgroup::Cgroup;
use crate::command::run;
use crate::subnet::Subnet;

/// Addresses below are the bridge's, and room for things that are no hosts.
const FIRST_ADDRESS: u8 = 11;

/// The most hosts that fit a subnet.
pub(crate) const MAX_HOSTS: u8 = 240;

/// One host's place on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Site {
    pub(crate) subnet: Subnet,
    /// From 1 to [`MAX_HOSTS`].
    pub(crate) number: u8,
}

impl Site {
    /// Name of the network namespace, the veth's outer end, the cgroup and the machine.
    pub(crate) fn id(self) -> String {
        format!("{}h{:03}", self.subnet.bridge(), self.number)
    }

    pub(crate) fn dir(self) -> PathBuf {
        self.subnet.dir().join(format!("h{:03}", self.number))
    }

    /// A tmpfs of its own, so that it can be filled without filling anything else.
    pub(crate) fn disk(self) -> PathBuf {
        self.dir().join("disk")
    }

    /// The overlay: what the host sees as `/`.
    pub(crate) fn root(self) -> PathBuf {
        self.dir().join("root")
    }

    pub(crate) fn console(self) -> PathBuf {
        self.dir().join("console")
    }

    pub(crate) fn name_file(self) -> PathBuf {
        self.dir().join("name")
    }

    pub(crate) fn address(self) -> Ipv4Addr {
        self.subnet.address(FIRST_ADDRESS - 1 + self.number)
    }

    pub(crate) fn host_key_file(self) -> PathBuf {
        self.root().join("etc/ssh/ssh_host_ed25519_key")
    }

    /// The public key as `ssh-ed25519 AAAA…`, without a comment.
    pub(crate) fn host_key_line(self) -> Result<String> {
        let file = self.host_key_file().with_added_extension("pub");
        let line = fs::read_to_string(&file).context("reading the host key")?;
        Ok(line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
    }

    pub(crate) fn cgroup(self) -> Result<Cgroup> {
        Cgroup::new(&self.id())
    }

    /// The hosts of this subnet that are there, or that somebody left half made.
    pub(crate) fn all(subnet: Subnet) -> Vec<Self> {
        let mut sites: Vec<Self> = fs::read_dir(subnet.dir())
            .into_iter()
            .flatten()
            .filter_map(|entry| {
                let number = entry.ok()?.file_name().to_str()?.strip_prefix('h')?.parse().ok()?;
                Some(Self { subnet, number })
            })
            .collect();
        sites.sort_by_key(|site| site.number);
        sites
    }

    /// Kills, unmounts and removes whatever is there of the host; nothing being there is fine.
    pub(crate) fn take_down(self) -> Result<()> {
        let id = self.id();
        let cgroup = self.cgroup()?;
        cgroup.kill().with_context(|| format!("killing {id}"))?;
        unmount(&self.root())?;
        unmount(&self.disk())?;
        cgroup.remove()?;
        if Path::new("/sys/class/net").join(&id).exists() {
            run("ip", &["link", "delete", &id])?;
        }
        if Path::new("/run/netns").join(&id).exists() {
            run("ip", &["netns", "delete", &id])?;
        }
        // systemd-nspawn leaves these when it is killed.
        for dir in ["propagate", "unix-export"] {
            let _ = fs::remove_dir(Path::new("/run/systemd/nspawn").join(dir).join(&id));
        }
        if self.dir().exists() {
            remove_tree(&self.dir())?;
        }
        Ok(())
    }
}

/// Takes down every host of a subnet, then its bridge.
pub(crate) fn take_down_subnet(subnet: Subnet) -> Result<()> {
    for site in Site::all(subnet) {
        site.take_down()?;
    }
    if Path::new("/sys/class/net").join(subnet.bridge()).exists() {
        run("ip", &["link", "delete", &subnet.bridge()])?;
    }
    if subnet.dir().exists() {
        remove_tree(&subnet.dir())?;
    }
    Ok(())
}

/// Unmounts what is mounted there, submounts included.
fn unmount(target: &Path) -> Result<()> {
    // A killed process can hold a mount for a moment; a mount that stays busy is let go lazily.
    const TRIES: u32 = 40;
    for attempt in 0.. {
        if !mounted(target)? {
            return Ok(());
        }
        let outcome = if attempt < TRIES {
            run("umount", &["--recursive".as_ref(), target.as_os_str()])
        } else {
            run("umount", &["--lazy".as_ref(), target.as_os_str()])
        };
        match outcome {
            Ok(_) => {}
            Err(error) if attempt > TRIES => return Err(error),
            Err(_) => sleep(Duration::from_millis(25)),
        }
    }
    bail!("{} stays mounted", target.display())
}

fn mounted(target: &Path) -> Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading the mounts")?;
    let target = target.to_str().context("a path that is not UTF-8")?;
    Ok(mounts.lines().any(|line| line.split(' ').nth(1) == Some(target)))
}
