//! Testbeds with a name, which outlive the command that asks for them: for the demo and for people.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::base::{Base, tail};
use crate::command::{require_root, spawn_error};
use crate::site::{Site, take_down_subnet};
use crate::subnet::{RUNTIME_DIR, Reservation, Subnet};
use crate::testbed::Testbed;

/// A killed process lets go of its lock at once.
const HOLDER_DEADLINE: Duration = Duration::from_secs(10);

/// A testbed that a process in the background holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedTestbed {
    /// What it was called.
    pub name: String,
    /// Its network in CIDR notation.
    pub cidr: String,
    /// Its hosts, in the order in which they were asked for.
    pub hosts: Vec<NamedHost>,
    subnet: Subnet,
    holder: Pid,
}

/// What it takes to log in to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedHost {
    /// `web1` and so on.
    pub name: String,
    /// Its only address, port 22 of which is sshd.
    pub address: Ipv4Addr,
    /// `ssh-ed25519 AAAA…`
    pub host_key: String,
    /// Private key that every login of the host accepts.
    pub key_file: PathBuf,
}

/// Makes sure that a testbed of this name and size runs, and tells its hosts.
///
/// `hold` is the command that calls [`hold`]; the name and the count are added to it.
///
/// # Errors
/// When there is one of another size, or the hosts do not boot.
pub fn up(name: &str, count: u8, mut hold: Command) -> Result<NamedTestbed> {
    require_root()?;
    let _turn = my_turn()?;
    if let Some(there) = find(name)? {
        if there.hosts.len() == usize::from(count) {
            return Ok(there);
        }
        bail!("{name} is up with {} hosts\nhint: take it down first", there.hosts.len());
    }
    // Here, where somebody sees that it takes a minute.
    Base::ready()?;
    let log = Path::new(RUNTIME_DIR).join("holder.log");
    let errors = File::create(&log).context("creating the holder's log")?;
    hold.arg(name).arg(count.to_string()).current_dir("/").process_group(0);
    hold.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
    let program = hold.get_program().to_string_lossy().into_owned();
    let mut holder = hold.spawn().map_err(|error| spawn_error(&program, error))?;
    let output = holder.stdout.take().context("the holder has no output")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line).context("waiting for the hosts")?;
    if line.trim_end() != READY {
        let _ = holder.wait();
        bail!("the hosts did not boot:\n{}", tail(&log));
    }
    find(name)?.with_context(|| format!("{name} was up and is gone"))
}

/// What a holder says when its hosts are up.
const READY: &str = "ready";

/// Boots the hosts, tells `ready`, and holds them for as long as this process lives.
///
/// # Errors
/// When the hosts do not boot, or `ready` cannot be written.
pub fn hold(name: &str, count: u8, mut ready: impl Write) -> Result<()> {
    let testbed = Testbed::new()?;
    let _hosts = testbed.hosts(count)?;
    let subnet = testbed.subnet();
    fs::write(holder_file(subnet), format!("{name}\n{}\n", std::process::id()))
        .context("writing the testbed's name")?;
    writeln!(ready, "{READY}").and_then(|()| ready.flush()).context("telling that it is ready")?;
    loop {
        std::thread::park();
    }
}

/// Takes down the testbed of this name. `false` when there is none.
///
/// # Errors
/// When its holder does not end, or something cannot be removed.
pub fn take_down(name: &str) -> Result<bool> {
    require_root()?;
    let _turn = my_turn()?;
    let Some(testbed) = find(name)? else { return Ok(false) };
    // The lock is held, so this is the process that wrote its id there.
    kill_process(testbed.holder, Signal::KILL).context("ending the testbed's holder")?;
    let deadline = Instant::now() + HOLDER_DEADLINE;
    loop {
        if let Some(_reservation) = Reservation::take(testbed.subnet)? {
            take_down_subnet(testbed.subnet)?;
            return Ok(true);
        }
        if Instant::now() > deadline {
            bail!("process {} holds on to {name}", testbed.holder.as_raw_nonzero());
        }
        sleep(Duration::from_millis(20));
    }
}

/// The named testbeds that run.
///
/// # Errors
/// Without root, and when a testbed's files cannot be read.
pub fn list() -> Result<Vec<NamedTestbed>> {
    require_root()?;
    let mut testbeds = Vec::new();
    for subnet in Subnet::known()? {
        let Ok(holder) = fs::read_to_string(holder_file(subnet)) else { continue };
        // A lock that is free belonged to a process that is gone: what it left is for gc.
        if Reservation::take(subnet)?.is_none() {
            testbeds.extend(describe(subnet, &holder)?);
        }
    }
    Ok(testbeds)
}

fn find(name: &str) -> Result<Option<NamedTestbed>> {
    Ok(list()?.into_iter().find(|testbed| testbed.name == name))
}

fn describe(subnet: Subnet, holder: &str) -> Result<Option<NamedTestbed>> {
    let mut lines = holder.lines();
    let (Some(name), Some(holder)) = (lines.next(), lines.next()) else { return Ok(None) };
    let Some(holder) = holder.parse().ok().and_then(Pid::from_raw) else { return Ok(None) };
    let key_file = Base::key_file();
    let hosts = Site::all(subnet).into_iter().map(|site| {
        let name = fs::read_to_string(site.name_file()).context("reading a host's name")?;
        let host_key = site.host_key_line()?;
        Ok(NamedHost { name, address: site.address(), host_key, key_file: key_file.clone() })
    });
    let hosts = hosts.collect::<Result<Vec<_>>>()?;
    Ok(Some(NamedTestbed { name: name.to_owned(), cidr: subnet.cidr(), hosts, subnet, holder }))
}

fn holder_file(subnet: Subnet) -> PathBuf {
    subnet.dir().join("holder")
}

/// Only one of these commands at a time.
fn my_turn() -> Result<File> {
    fs::create_dir_all(RUNTIME_DIR).with_context(|| format!("creating {RUNTIME_DIR}"))?;
    let lock = File::create(Path::new(RUNTIME_DIR).join("named")).context("opening a lock")?;
    lock.lock().context("waiting for another command")?;
    Ok(lock)
}
