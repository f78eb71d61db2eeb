//! One throwaway host: made, booted, asked, and taken down.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::base::{make_key, tail};
use crate::cgroup::Cgroup;
use crate::command::{Finished, finish, run, spawn_error};
use crate::site::Site;
use crate::testbed::Network;

/// A boot takes 1 s on an idle core; ten at once on two busy ones take many times that.
const BOOT_DEADLINE: Duration = Duration::from_secs(60);

/// A polite shutdown waits for units that may take a while to stop.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(60);

/// How often to look whether something has come up or gone down.
const POLL: Duration = Duration::from_millis(20);

/// `timeout`'s limit for a program inside a host; no test waits that long for one on purpose.
const EXEC_SECONDS: &str = "120";

/// Runs its arguments in a process of their own: only a child is in the host's PID namespace.
///
/// nsenter would fork too, but stops itself when its child is stopped. A shutdown stops every process before it kills
/// them, so the child would then be a zombie that nobody collects, and no namespace ends before its last zombie.
const FORK: &str = r#""$@"; exit $?"#;

/// What a host's disk holds until somebody fills it. Memory is used only for what is written.
pub(crate) const DISK_BYTES: u64 = 2 << 30;

/// How many files a host's disk holds until somebody fills it.
pub(crate) const DISK_INODES: u64 = 1 << 20;

/// A throwaway host: Debian 12 with systemd and sshd, at an address of its own.
///
/// Logins, all by [`Host::key_file`]: `root`; `deploy`, who may sudo; `app`, who may not but
/// lingers; `nolinger`, who may neither. Dropping it takes it down.
#[derive(Debug)]
pub struct Host {
    name: String,
    pub(crate) site: Site,
    pub(crate) cgroup: Cgroup,
    wrapper: Mutex<Option<Child>>,
    network: Arc<Network>,
}

impl Host {
    pub(crate) fn create(name: &str, site: Site, network: Arc<Network>) -> Result<Self> {
        let cgroup = site.cgroup()?;
        let host = Self { name: name.to_owned(), site, cgroup, wrapper: Mutex::new(None), network };
        host.make_disk()?;
        host.make_identity()?;
        host.make_link()?;
        host.boot()?;
        if !answers(host.address()) {
            bail!("sshd of {name} does not answer at {}", host.address());
        }
        host.reset_connection_count()?;
        Ok(host)
    }

    /// The host's name, here and by its own `hostname`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The host's only address, port 22 of which is sshd.
    pub fn address(&self) -> Ipv4Addr {
        self.site.address()
    }

    /// Private key that every login of the host accepts.
    pub fn key_file(&self) -> &Path {
        &self.network.base.key
    }

    /// Private key that no login of the host accepts.
    pub fn stranger_key_file(&self) -> &Path {
        &self.network.base.stranger_key
    }

    /// The host's public key as `ssh-ed25519 AAAA…`, without a comment.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn host_key_line(&self) -> Result<String> {
        self.site.host_key_line()
    }

    /// The host's line in a `known_hosts` file, without a line end.
    ///
    /// # Errors
    /// When the host key cannot be read.
    pub fn known_hosts_line(&self) -> Result<String> {
        Ok(format!("{} {}", self.address(), self.host_key_line()?))
    }

    /// The host's `/etc/machine-id`, without a line end.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn machine_id(&self) -> Result<String> {
        let id = fs::read_to_string(self.root().join("etc/machine-id"));
        Ok(id.context("reading the machine id")?.trim_end().to_owned())
    }

    /// The host's file tree as seen from outside, running or not: for looking at what a power cut
    /// left. Absolute symlinks in it lead astray, and so do `/run`, `/tmp`, `/dev` and `/proc`.
    pub fn root(&self) -> PathBuf {
        self.site.root()
    }

    /// What the host wrote to its console, over all of its boots.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.site.console()).unwrap_or_default()).into_owned()
    }

    /// Whether anything of the host runs.
    pub fn is_running(&self) -> bool {
        self.cgroup.populated()
    }

    /// Boots the host from its disk and waits until it can be logged in to. One that runs stays.
    ///
    /// # Errors
    /// When it is not ready within a minute; the error ends with the tail of its console.
    pub fn boot(&self) -> Result<()> {
        if !self.is_running() {
            self.start()?;
        }
        self.wait_until_ready()
    }

    /// Shuts the host down as its `reboot` does, and boots it again.
    ///
    /// # Errors
    /// When it does not come back within a minute.
    pub fn reboot(&self) -> Result<()> {
        let before = self.cgroup.init();
        // Its answer may get lost with the host.
        self.exec(&["systemctl", "reboot"])?;
        let deadline = Instant::now() + SHUTDOWN_DEADLINE;
        while before.is_some_and(|init| Path::new("/proc").join(init.to_string()).exists()) {
            if Instant::now() > deadline {
                bail!("{} does not go down:\n{}", self.name, tail(&self.site.console()));
            }
            sleep(POLL);
        }
        self.wait_until_ready()
    }

    /// Kills everything on the host at once, like pulling the plug. Its disk stays, and what was
    /// written stays even where nobody asked for a sync.
    ///
    /// # Errors
    /// When the processes do not die.
    pub fn power_cut(&self) -> Result<()> {
        self.cgroup.kill()?;
        self.reap();
        Ok(())
    }

    /// Runs a program on the host as root, by way of no network; any exit code is fine.
    ///
    /// # Errors
    /// When the host is off.
    pub fn exec<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<Finished> {
        self.exec_with_input(arguments, None)
    }

    /// Runs a program on the host as root, and gives what it wrote to standard output.
    ///
    /// # Errors
    /// When the host is off, or the program exits with anything but 0.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<String> {
        self.exec(arguments)?.into_stdout(crate::command::describe(&self.name, arguments))
    }

    /// Reads a file of a running host.
    ///
    /// # Errors
    /// When the host is off, or the file cannot be read or is not UTF-8.
    pub fn read_file(&self, path: &str) -> Result<String> {
        self.run(&["cat", "--", path])
    }

    /// Writes a file of a running host, making its folder too.
    ///
    /// # Errors
    /// When the host is off, or the file cannot be written.
    pub fn write_file(&self, path: &str, content: impl AsRef<[u8]>) -> Result<()> {
        let script = r#"mkdir -p -- "$(dirname -- "$1")" && cat >"$1""#;
        self.exec_with_input(&["sh", "-c", script, "sh", path], Some(content.as_ref()))?
            .into_stdout(format_args!("writing {path} on {}", self.name))
            .map(drop)
    }

    /// Runs a command line by the `ssh` program, with the right key and a strict check of the
    /// host key; a new connection every time.
    ///
    /// # Errors
    /// When `ssh` cannot be started. A refused login is exit code 255.
    pub fn ssh(&self, user: &str, command_line: &str) -> Result<Finished> {
        self.ssh_with_key(self.key_file(), user, command_line)
    }

    /// As [`Host::ssh`], with another private key.
    ///
    /// # Errors
    /// When `ssh` cannot be started. A refused login is exit code 255.
    pub fn ssh_with_key(&self, key: &Path, user: &str, command_line: &str) -> Result<Finished> {
        let mut known_hosts = tempfile::NamedTempFile::new().context("creating known_hosts")?;
        std::io::Write::write_all(&mut known_hosts, self.known_hosts_line()?.as_bytes())?;
        let mut command = Command::new("ssh");
        command.args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"]);
        command.args(["-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=10"]);
        command.args(["-o", "GlobalKnownHostsFile=none", "-o"]);
        command.arg(format!("UserKnownHostsFile={}", known_hosts.path().display()));
        command.arg("-i").arg(key);
        command.arg(format!("{user}@{}", self.address())).arg("--").arg(command_line);
        command.env_remove("SSH_AUTH_SOCK");
        finish(command, None)
    }

    /// Runs a program in all of the host's namespaces.
    fn exec_with_input<S: AsRef<OsStr>>(&self, arguments: &[S], input: Option<&[u8]>) -> Result<Finished> {
        let init = self.cgroup.init().with_context(|| format!("{} is off", self.name))?;
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", EXEC_SECONDS, "nsenter", "--target", &init.to_string()]);
        command.args(["--all", "--root", "--no-fork", "--", "sh", "-c", FORK, "sh"]).args(arguments);
        command.env_clear();
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", "/root").env("LANG", "C.UTF-8");
        finish(command, input)
    }

    fn make_disk(&self) -> Result<()> {
        let (disk, root) = (self.site.disk(), self.site.root());
        for dir in [&disk, &root] {
            fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        }
        fs::write(self.site.name_file(), &self.name).context("writing the host's name")?;
        let options = format!("mode=0755,size={DISK_BYTES},nr_inodes={DISK_INODES}");
        let disk_path = disk.to_str().context("a path that is not UTF-8")?;
        run("mount", &["-t", "tmpfs", "-o", &options, "windlass-testbed", disk_path])?;
        let (upper, work) = (disk.join("upper"), disk.join("work"));
        for dir in [&upper, &work] {
            fs::create_dir(dir).with_context(|| format!("creating {}", dir.display()))?;
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            self.network.base.tree.display(),
            upper.display(),
            work.display()
        );
        let root = root.to_str().context("a path that is not UTF-8")?;
        run("mount", &["-t", "overlay", "-o", &options, "windlass-testbed", root]).map(drop)
    }

    /// Gives the host a machine id, a host key and a name.
    fn make_identity(&self) -> Result<()> {
        let root = self.root();
        let id = fs::read_to_string("/proc/sys/kernel/random/uuid").context("drawing an id")?;
        fs::write(root.join("etc/machine-id"), id.replace('-', "")).context("writing machine-id")?;
        let hosts = format!("127.0.0.1 localhost\n{} {}\n", self.address(), self.name);
        fs::write(root.join("etc/hosts"), hosts).context("writing /etc/hosts")?;
        make_key(&self.site.host_key_file(), &self.name)
    }

    /// Gives the host a network: one veth, one end on the bridge, and a count of SYNs to sshd.
    fn make_link(&self) -> Result<()> {
        let id = self.site.id();
        let bridge = self.site.subnet.bridge();
        let address = format!("{}/24", self.address());
        run("ip", &["netns", "add", &id])?;
        run("ip", &["link", "add", &id, "type", "veth", "peer", "name", "host0", "netns", &id])?;
        run("ip", &["link", "set", &id, "master", &bridge, "up"])?;
        run("ip", &["-n", &id, "address", "add", &address, "dev", "host0"])?;
        run("ip", &["-n", &id, "link", "set", "host0", "up"])?;
        run("ip", &["-n", &id, "link", "set", "lo", "up"])?;
        self.count_connections()
    }

    fn start(&self) -> Result<()> {
        self.reap();
        self.cgroup.remove()?;
        self.cgroup.create()?;
        let console = fs::OpenOptions::new().create(true).append(true).open(self.site.console());
        let console = console.context("opening the console")?;
        let id = self.site.id();
        let mut command = Command::new("setsid");
        command.args(["--wait", "sh", "-c", include_str!("host.sh"), "boot"]);
        command.arg(&self.cgroup.unified);
        command.arg(self.cgroup.named.as_deref().unwrap_or(Path::new("")));
        command.args(["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--boot"]);
        command.args(["--link-journal=no", "--resolv-conf=off", "--timezone=off"]);
        command.arg(format!("--machine={id}")).arg(format!("--hostname={}", self.name));
        command.arg(format!("--network-namespace-path=/run/netns/{id}"));
        // As on any machine, its root may change its links: the namespace is its own.
        command.arg("--capability=CAP_NET_ADMIN");
        command.arg("--directory").arg(self.root());
        command.stdin(Stdio::null());
        command.stdout(console.try_clone().context("sharing the console")?).stderr(console);
        // Ctrl-C in a terminal is for the test, which takes its hosts down itself.
        command.process_group(0);
        let child = command.spawn().map_err(|error| spawn_error("setsid", error))?;
        *self.wrapper.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        Ok(())
    }

    /// Ready is: sshd answers, the boot is over, everybody may log in, and whoever lingers is there.
    fn wait_until_ready(&self) -> Result<()> {
        let deadline = Instant::now() + BOOT_DEADLINE;
        while !self.is_ready() {
            let gone = self.wrapper_is_gone();
            if gone || Instant::now() > deadline {
                let why = if gone { "ended while it booted" } else { "is not ready in time" };
                bail!("{} {why}:\n{}", self.name, tail(&self.site.console()));
            }
            sleep(POLL);
        }
        Ok(())
    }

    /// Looks from inside, so that a host that is cut off can boot too.
    fn is_ready(&self) -> bool {
        let Some(init) = self.cgroup.init() else { return false };
        let Ok(home) = fs::metadata(self.root().join("home/app")) else { return false };
        let run = Path::new("/proc").join(init.to_string()).join("root/run");
        run.join("systemd/private").exists()
            && run.join(format!("user/{}/systemd/private", home.uid())).exists()
            && self.exec(&["systemctl", "is-active", "--quiet", "ssh.service"]).is_ok_and(|ssh| ssh.success())
            && self
                .exec(&["systemctl", "is-system-running"])
                .is_ok_and(|state| matches!(state.stdout.trim_end(), "running" | "degraded"))
    }

    fn wrapper_is_gone(&self) -> bool {
        let mut wrapper = self.wrapper.lock().unwrap_or_else(PoisonError::into_inner);
        wrapper.as_mut().is_none_or(|child| matches!(child.try_wait(), Ok(Some(_))))
    }

    /// Collects the dead wrapper, so that it does not stay a zombie.
    fn reap(&self) {
        let wrapper = self.wrapper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut wrapper) = wrapper {
            let _ = wrapper.kill();
            let _ = wrapper.wait();
        }
    }
}

impl Drop for Host {
    #[expect(clippy::print_stderr, reason = "a drop has no other way to tell")]
    fn drop(&mut self) {
        let outcome = self.site.take_down();
        self.reap();
        if let Err(error) = outcome {
            eprintln!("windlass-testbed: {} is left for the next run: {error:#}", self.name);
        }
    }
}

/// Whether sshd shows its banner.
fn answers(address: Ipv4Addr) -> bool {
    const PATIENCE: Duration = Duration::from_secs(1);
    let address = SocketAddr::from((address, 22));
    let Ok(mut stream) = TcpStream::connect_timeout(&address, PATIENCE) else { return false };
    let mut banner = [0; 4];
    stream.set_read_timeout(Some(PATIENCE)).is_ok() && stream.read_exact(&mut banner).is_ok() && banner == *b"SSH-"
}
