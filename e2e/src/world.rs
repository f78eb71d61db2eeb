//! One test's own world: an etcd, a network of hosts, sources, and the controllers that it starts.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use windlass_testbed::{Etcd, EtcdVersion, Host, Testbed};

use crate::command::{Ran, binary, windlass, windlass_at_home, windlass_on_terminal};
use crate::connections::{Connection, break_connections};
use crate::controller::{Controller, Serve};
use crate::declare::{self, Declaration};
use crate::etcd_fields::{Version, store_revision, version};
use crate::http;
use crate::prober::Prober;
use crate::program::Program;
use crate::status::Status;
use crate::wait::{PATIENCE, eventually};

/// What a world's controller is called where nothing else is said.
pub(crate) const SERVE: &str = "serve";

/// What a failure's report shows of each log.
const LOG_LINES: usize = 150;

/// What a world has.
#[derive(Debug, Clone, Copy)]
pub struct WorldOptions {
    /// How many hosts, `web1` and so on.
    pub hosts: u8,
    /// Which etcd.
    pub etcd: EtcdVersion,
}

/// An etcd, hosts and sources. When the test fails, it tells what is in it; with `WINDLASS_E2E_REPORT` set it
/// tells in any case.
#[derive(Debug)]
pub struct World {
    /// The store.
    pub etcd: Etcd,
    /// The hosts, in order.
    pub hosts: Vec<Host>,
    /// Their network.
    pub testbed: Testbed,
    /// Whether the controllers have a store of their own; that etcd is only there to move to, then.
    embedded: bool,
    dir: TempDir,
    ports: AtomicU16,
    passed: AtomicBool,
}

impl World {
    /// A world with hosts and Debian's etcd 3.4.
    ///
    /// # Errors
    /// When hosts or etcd do not start.
    pub fn new(hosts: u8) -> Result<Self> {
        Self::with(WorldOptions { hosts, etcd: EtcdVersion::V3_4 })
    }

    /// A world as it is wished for.
    ///
    /// # Errors
    /// When hosts or etcd do not start.
    pub fn with(options: WorldOptions) -> Result<Self> {
        Self::around(Etcd::start(options.etcd)?, options.hosts)
    }

    /// A world whose controller carries its own store.
    ///
    /// # Errors
    /// When hosts or etcd do not start.
    pub fn embedded(hosts: u8) -> Result<Self> {
        let mut world = Self::new(hosts)?;
        world.embedded = true;
        Ok(world)
    }

    /// The same world once the keys are in its etcd.
    #[must_use]
    pub fn moved(mut self) -> Self {
        self.embedded = false;
        self
    }

    /// A world with hosts around an etcd.
    ///
    /// # Errors
    /// When hosts do not start.
    pub fn around(etcd: Etcd, hosts: u8) -> Result<Self> {
        let testbed = Testbed::new()?;
        let hosts = testbed.hosts(hosts)?;
        Ok(Self {
            etcd,
            hosts,
            testbed,
            embedded: false,
            dir: tempfile::Builder::new().prefix("windlass-e2e-").tempdir().context("creating a folder")?,
            ports: AtomicU16::new(9700),
            passed: AtomicBool::new(false),
        })
    }

    /// Ends a test that passed.
    ///
    /// # Errors
    /// Never; so that a test can end with it.
    pub fn passed(self) -> Result<()> {
        self.passed.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// A folder of this world's own.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A source directory with `version` of the test's program in it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn program(&self, name: &str, version: &str) -> Result<Program> {
        self.program_at(&self.dir().join("src").join(name), version)
    }

    /// The same in a directory of its own: one of a repository.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn program_at(&self, directory: &Path, version: &str) -> Result<Program> {
        let program = Program::create(directory.to_owned())?;
        program.good(version)?;
        Ok(program)
    }

    /// The names of the hosts.
    pub fn host_names(&self) -> Vec<&str> {
        self.hosts.iter().map(Host::name).collect()
    }

    /// Where a service of a host listens.
    pub fn address(&self, host: &Host, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(host.address()), port)
    }

    // Controllers

    /// Starts a controller and waits until it leads.
    ///
    /// # Errors
    /// When it does not.
    pub fn serve(&self) -> Result<Controller> {
        let mut controller = self.start(&Serve { name: SERVE, ..Serve::default() })?;
        controller.wait_until_up()?;
        controller.wait_until_leading(PATIENCE)?;
        Ok(controller)
    }

    /// Starts a controller and waits for nothing.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, serve: &Serve) -> Result<Controller> {
        let port = self.ports.fetch_add(1, Ordering::Relaxed);
        let listen = SocketAddr::new(self.etcd_address()?.ip(), port);
        let environment = if serve.embedded || self.embedded {
            let port = self.ports.fetch_add(1, Ordering::Relaxed);
            vec![("WINDLASS_ETCD_LISTEN".to_owned(), SocketAddr::new(listen.ip(), port).to_string())]
        } else {
            self.environment()
        };
        Controller::start(serve, &environment, listen, self.dir())
    }

    /// Takes away the lease of a controller that is dead, as the end of its time would.
    ///
    /// # Errors
    /// When etcd refuses.
    pub fn expire_leader(&self) -> Result<()> {
        if let Some(leader) = self.version("control/leader", None)?
            && leader.lease != 0
        {
            self.etcdctl(&["lease", "revoke", &format!("{:x}", leader.lease)])?;
        }
        Ok(())
    }

    // Declaring

    /// Declares the zone and every host, by raw puts.
    ///
    /// # Errors
    /// When etcd refuses.
    pub fn declare_hosts(&self) -> Result<()> {
        self.put(&declare::zone(&self.testbed.cidr()))?;
        for host in &self.hosts {
            self.put(&declare::host(host)?)?;
        }
        Ok(())
    }

    /// Puts a declaration, and hands out the generation that it gets.
    ///
    /// # Errors
    /// When etcd refuses.
    pub fn put(&self, declaration: &Declaration) -> Result<u64> {
        self.put_text(&format!("declared/{}", declaration.path), &declaration.text())
    }

    /// Puts anything at a key below the prefix, and hands out its revision.
    ///
    /// # Errors
    /// When etcd refuses.
    pub fn put_text(&self, path: &str, text: &str) -> Result<u64> {
        self.put_bytes(path, text.as_bytes())
    }

    /// As [`World::put_text`], and it need not be text.
    ///
    /// # Errors
    /// When etcd refuses.
    pub fn put_bytes(&self, path: &str, bytes: &[u8]) -> Result<u64> {
        let key = format!("/windlass/{path}");
        let put = ["put", key.as_str(), "--write-out=fields"];
        // etcdctl does not read an empty value from its standard input.
        let answer = if bytes.is_empty() {
            self.etcdctl(&[put[0], put[2], put[1], ""])
        } else {
            self.etcdctl_with_input(&put, Some(bytes))
        };
        store_revision(&answer?)
    }

    /// Deletes a key below the prefix.
    ///
    /// # Errors
    /// When there was none.
    pub fn delete_key(&self, path: &str) -> Result<()> {
        let deleted = self.etcdctl(&["del", &format!("/windlass/{path}")])?;
        ensure!(deleted.trim() == "1", "deleting {path}: {deleted}");
        Ok(())
    }

    // Asking the store

    /// The value of a key below the prefix.
    ///
    /// # Errors
    /// When etcd does not answer.
    pub fn value(&self, path: &str) -> Result<Option<String>> {
        Ok(self.version(path, None)?.map(|version| version.value))
    }

    /// The keys below a path below the prefix.
    ///
    /// # Errors
    /// When etcd does not answer.
    pub fn keys(&self, path: &str) -> Result<Vec<String>> {
        let keys = self.etcdctl(&["get", "--prefix", "--keys-only", &format!("/windlass/{path}")])?;
        Ok(keys.lines().filter_map(|key| key.strip_prefix("/windlass/")).map(str::to_owned).collect())
    }

    /// The status of a resource: `services/default/web`.
    ///
    /// # Errors
    /// When there is none, or it is not JSON.
    pub fn status(&self, path: &str) -> Result<Status> {
        let text = self.value(&format!("status/{path}"))?.with_context(|| format!("{path} has no status"))?;
        Ok(Status(serde_json::from_str(&text).with_context(|| format!("status of {path}: {text}"))?))
    }

    /// The status of a Service in the namespace `default`.
    ///
    /// # Errors
    /// When there is none, or it is not JSON.
    pub fn service(&self, name: &str) -> Result<Status> {
        self.status(&format!("services/default/{name}"))
    }

    /// What a key has said since a revision of the store, oldest first.
    ///
    /// # Errors
    /// When etcd does not answer, or has compacted.
    pub fn history(&self, path: &str, since: u64) -> Result<Vec<String>> {
        let mut values = Vec::new();
        let mut at = None;
        while let Some(version) = self.version(path, at)? {
            if version.modified <= since {
                break;
            }
            values.push(version.value);
            at = Some(version.modified - 1);
        }
        values.reverse();
        Ok(values)
    }

    /// The statuses that a Service of the namespace `default` has had since a revision of the store.
    ///
    /// # Errors
    /// When etcd does not answer, or one is not JSON.
    pub fn statuses_since(&self, name: &str, since: u64) -> Result<Vec<Status>> {
        let texts = self.history(&format!("status/services/default/{name}"), since)?;
        let parse = |text: String| -> Result<Status> { Ok(Status(serde_json::from_str(&text)?)) };
        texts.into_iter().map(parse).collect()
    }

    /// Waits until a Service of the namespace `default` is ready, for a generation or a later one.
    ///
    /// # Errors
    /// With its status where it does not become that.
    pub fn wait_ready(&self, name: &str, generation: u64) -> Result<Status> {
        eventually(format_args!("{name} is ready"), || {
            let status = self.service(name)?;
            ensure!(status.generation() >= generation, "it speaks of {} and not {generation}", status.generation());
            status.expect("Ready", "True", None)?;
            Ok(status)
        })
    }

    /// Waits until a Service of the namespace `default` says why it is not ready.
    ///
    /// # Errors
    /// With its status where it does not.
    pub fn wait_not_ready(&self, name: &str, reason: &'static str) -> Result<Status> {
        eventually(format_args!("{name} is not ready, {reason}"), || {
            let status = self.service(name)?;
            status.expect("Ready", "False", reason)?;
            Ok(status)
        })
    }

    // Asking hosts

    /// What a service answers on a host.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn version_on(&self, host: &Host, port: u16) -> Result<String> {
        let answer = http::get(self.address(host, port), "/").with_context(|| format!("asking {}", host.name()))?;
        ensure!(answer.status == 200, "{} answers {}", host.name(), answer.status);
        Ok(answer.body)
    }

    /// Makes sure that each of these hosts answers with this version.
    ///
    /// # Errors
    /// When one does not.
    pub fn expect_version<'host>(
        &self,
        hosts: impl IntoIterator<Item = &'host Host>,
        port: u16,
        version: &str,
    ) -> Result<()> {
        for host in hosts {
            let found = self.version_on(host, port)?;
            ensure!(found == version, "{} answers {found}, not {version}", host.name());
        }
        Ok(())
    }

    /// Waits until every host answers with this version and the service is ready.
    ///
    /// # Errors
    /// When it does not come to that.
    pub fn wait_version(&self, name: &str, port: u16, version: &str) -> Result<Status> {
        eventually(format_args!("{name} answers {version} everywhere"), || {
            self.expect_version(&self.hosts, port, version)
        })?;
        self.wait_ready(name, 0)
    }

    /// How often a version of a service in the namespace `default` was started on each host.
    ///
    /// # Errors
    /// When a host is off.
    pub fn starts(&self, name: &str, version: &str) -> Result<Vec<usize>> {
        self.hosts.iter().map(|host| self.starts_on(host, name, version)).collect()
    }

    /// How often a version of a service in the namespace `default` was started on one host.
    ///
    /// # Errors
    /// When the host is off.
    pub fn starts_on(&self, host: &Host, name: &str, version: &str) -> Result<usize> {
        host.run(&["journalctl", "--sync"])?;
        let log = host.run(&["journalctl", "--unit", &unit(name), "--output=cat", "--no-pager"])?;
        Ok(log.lines().filter(|line| *line == format!("started {version}")).count())
    }

    /// Starts asking every host all the while.
    pub fn probe(&self, port: u16) -> Prober {
        self.probe_on(&self.hosts, port)
    }

    /// Starts asking these hosts all the while.
    pub fn probe_on<'host>(&self, hosts: impl IntoIterator<Item = &'host Host>, port: u16) -> Prober {
        let hosts = hosts.into_iter().map(|host| (host.name().to_owned(), self.address(host, port)));
        Prober::start(hosts.collect())
    }

    /// Breaks the connections that this world's controllers have to a host, and says how many there were.
    ///
    /// # Errors
    /// When a process cannot be killed.
    pub fn break_connections(&self, host: &Host, which: Connection) -> Result<usize> {
        break_connections(self.dir(), host.address(), which)
    }

    // Commands

    /// Runs a command of `windlass` to its end, whatever its exit code.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn windlass(&self, arguments: &[&str]) -> Result<Ran> {
        windlass(&self.environment(), arguments, None)
    }

    /// As [`World::windlass`], for a user whose home is another folder: its `.ssh/known_hosts` counts.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn windlass_at_home(&self, home: &Path, arguments: &[&str]) -> Result<Ran> {
        windlass_at_home(&self.environment_at_home(home), arguments)
    }

    /// As [`World::windlass_at_home`], on a terminal on which `answer` is typed.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn windlass_on_terminal(&self, home: &Path, arguments: &[&str], answer: &str) -> Result<Ran> {
        windlass_on_terminal(&self.environment_at_home(home), arguments, answer)
    }

    fn environment_at_home(&self, home: &Path) -> Vec<(String, String)> {
        let mut environment = self.environment();
        environment.push(("HOME".to_owned(), home.display().to_string()));
        environment
    }

    /// As [`World::windlass`], with standard input.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn windlass_with_input(&self, arguments: &[&str], input: &str) -> Result<Ran> {
        windlass(&self.environment(), arguments, Some(input))
    }

    /// What users set so that commands find the store.
    fn environment(&self) -> Vec<(String, String)> {
        if self.embedded {
            return vec![("WINDLASS_DATA_DIR".to_owned(), self.dir().join(SERVE).display().to_string())];
        }
        let mut environment = vec![("WINDLASS_ENDPOINTS".to_owned(), self.etcd.endpoints().join(","))];
        if let Some(tls) = self.etcd.certificates() {
            let files = [("CACERT", &tls.authority), ("CERT", &tls.client), ("KEY", &tls.client_key)];
            environment.extend(files.map(|(name, file)| (format!("WINDLASS_{name}"), file.display().to_string())));
        }
        environment
    }

    fn etcdctl(&self, arguments: &[&str]) -> Result<String> {
        self.etcdctl_with_input(arguments, None)
    }

    /// Runs `etcdctl` against the store, whichever that is.
    fn etcdctl_with_input(&self, arguments: &[&str], input: Option<&[u8]>) -> Result<String> {
        if !self.embedded {
            return self.etcd.etcdctl_with_input(arguments, input);
        }
        let quoted = |word: &&str| format!("'{}'", word.replace('\'', r"'\''"));
        let words: Vec<String> = arguments.iter().map(quoted).collect();
        let script = format!(r#"eval "$({} env)" && etcdctl {}"#, binary("windlass")?.display(), words.join(" "));
        let mut command = Command::new("sh");
        command.args(["-c", &script]).envs(self.environment()).env("NO_COLOR", "1");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("starting a shell")?;
        let mut stdin = child.stdin.take().context("it has a standard input")?;
        // Who reads nothing leaves it unread.
        let _ = stdin.write_all(input.unwrap_or_default());
        drop(stdin);
        let output = child.wait_with_output().context("waiting for etcdctl")?;
        ensure!(output.status.success(), "etcdctl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).context("etcdctl writes UTF-8")
    }

    /// Where etcd listens, at a loopback address that it has for itself in this process.
    ///
    /// # Errors
    /// Never, but for a mistake of ours.
    pub fn etcd_address(&self) -> Result<SocketAddr> {
        let endpoint = self.etcd.endpoint();
        let authority = endpoint.split("://").nth(1).context("no address in etcd's endpoint")?;
        authority.parse().context("etcd's endpoint is no address")
    }

    fn version(&self, path: &str, at: Option<u64>) -> Result<Option<Version>> {
        let key = format!("/windlass/{path}");
        let revision = at.map(|revision| format!("--rev={revision}"));
        let mut arguments = vec!["get", key.as_str(), "--write-out=fields"];
        arguments.extend(revision.as_deref());
        version(&self.etcdctl(&arguments)?)
    }

    /// What the controllers logged and what the store holds.
    fn report(&self) -> String {
        let mut report = String::from("\n=== this world ===\n");
        for kind in ["status", "owned", "rollouts", "requests", "events", "control"] {
            for key in self.keys(kind).unwrap_or_default() {
                let value = self.value(&key).ok().flatten().unwrap_or_default();
                let _ = writeln!(report, "--- {key}\n{}", shortened(&value));
            }
        }
        let logs = fs::read_dir(self.dir()).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut logs: Vec<_> = logs.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
        logs.sort();
        for log in logs {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let tail = &lines[lines.len().saturating_sub(LOG_LINES)..];
            let _ = writeln!(report, "--- the end of {}\n{}", log.display(), tail.join("\n"));
        }
        report
    }
}

/// The unit of a service in the namespace `default`.
fn unit(name: &str) -> String {
    format!("windlass-default.{name}.service")
}

/// Lists that nobody reads are left out of a report.
fn shortened(value: &str) -> String {
    let Ok(parsed) = serde_json::from_str::<Value>(value) else { return value.to_owned() };
    parsed.to_string().chars().take(3000).collect()
}

impl Drop for World {
    #[expect(clippy::print_stderr, reason = "a test that fails has no other way to tell why")]
    fn drop(&mut self) {
        if !self.passed.load(Ordering::Relaxed) || std::env::var_os("WINDLASS_E2E_REPORT").is_some() {
            eprintln!("{}", self.report());
        }
    }
}
