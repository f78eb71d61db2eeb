//! A cgroup for each host: its systemd sees no other, and one write kills all of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Killed processes are gone within milliseconds, unless the disk is stuck.
const DEATH_DEADLINE: Duration = Duration::from_secs(20);

/// One host's cgroup in every hierarchy that systemd uses.
#[derive(Debug)]
pub(crate) struct Cgroup {
    /// In the unified hierarchy (version 2).
    pub(crate) unified: PathBuf,
    /// In systemd's named hierarchy of version 1, on machines that have both.
    pub(crate) named: Option<PathBuf>,
}

impl Cgroup {
    /// Where the cgroup of this name is, or would be.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").context("reading the mounts")?;
        let mut unified = None;
        let mut named = None;
        for line in mounts.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let [_, dir, kind, options, ..] = fields[..] else { continue };
            let dir = || Path::new(dir).join("windlass-testbed").join(name);
            if kind == "cgroup2" {
                unified.get_or_insert_with(dir);
            } else if kind == "cgroup" && options.split(',').any(|option| option == "name=systemd") {
                named.get_or_insert_with(dir);
            }
        }
        let unified = unified.context("no unified cgroup hierarchy is mounted")?;
        Ok(Self { unified, named })
    }

    /// Makes it, with a leaf for the wrapper and one for the machine.
    pub(crate) fn create(&self) -> Result<()> {
        for dir in self.dirs() {
            for leaf in ["wrapper", "machine"] {
                let leaf = dir.join(leaf);
                fs::create_dir_all(&leaf).with_context(|| format!("creating {}", leaf.display()))?;
            }
        }
        self.delegate_controllers();
        Ok(())
    }

    /// Passes down what controllers the unified hierarchy has; on a hybrid machine hardly any.
    fn delegate_controllers(&self) {
        for dir in [self.unified.parent(), Some(self.unified.as_path())].into_iter().flatten() {
            let available = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
            for controller in available.split_whitespace() {
                // A controller that cannot be had is not had outside of the testbed either.
                let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
    }

    /// The process that is the host's init, once it has taken its place.
    pub(crate) fn init(&self) -> Option<u32> {
        let procs = self.unified.join("machine/payload/init.scope/cgroup.procs");
        fs::read_to_string(procs).ok()?.lines().next()?.parse().ok().filter(|pid| *pid != 0)
    }

    /// Whether any process is left in it.
    pub(crate) fn populated(&self) -> bool {
        fs::read_to_string(self.unified.join("cgroup.events"))
            .is_ok_and(|events| events.lines().any(|line| line == "populated 1"))
    }

    /// Kills everything at once and waits until it is gone.
    pub(crate) fn kill(&self) -> Result<()> {
        if !self.unified.exists() {
            return Ok(());
        }
        let file = self.unified.join("cgroup.kill");
        fs::write(&file, "1").with_context(|| format!("writing {}", file.display()))?;
        let deadline = Instant::now() + DEATH_DEADLINE;
        while self.populated() {
            if Instant::now() > deadline {
                bail!("processes in {} outlive SIGKILL", self.unified.display());
            }
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Removes it, once nothing runs there. The parent stays: others make theirs there.
    pub(crate) fn remove(&self) -> Result<()> {
        for dir in self.dirs() {
            remove(dir).with_context(|| format!("removing {}", dir.display()))?;
        }
        Ok(())
    }

    fn dirs(&self) -> impl Iterator<Item = &PathBuf> {
        [Some(&self.unified), self.named.as_ref()].into_iter().flatten()
    }
}

/// Files of a cgroup cannot be removed, only the folders, deepest first.
fn remove(dir: &Path) -> std::io::Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    // A dead process leaves its cgroup a moment after it was last counted.
    let deadline = Instant::now() + DEATH_DEADLINE;
    loop {
        match fs::remove_dir(dir) {
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                sleep(Duration::from_millis(5));
            }
            done => return done,
        }
    }
}
