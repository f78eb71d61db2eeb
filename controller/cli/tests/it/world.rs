//! A world of its own for each test: an etcd, a directory, and the binary.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};

use tempfile::TempDir;
use windlass_testbed::{Etcd, EtcdVersion};

/// How long a test waits for the binary to do something, in looks of [`LOOK`]. Only a failing test waits so long.
const LOOKS: u32 = 1000;
const LOOK: std::time::Duration = std::time::Duration::from_millis(20);

pub(crate) struct World {
    pub(crate) etcd: Etcd,
    pub(crate) dir: TempDir,
}

impl World {
    /// An empty store, on which no controller runs.
    pub(crate) fn empty() -> Self {
        let etcd = Etcd::start(EtcdVersion::V3_4).expect("etcd starts");
        Self { etcd, dir: tempfile::tempdir().expect("a directory") }
    }

    /// A store on which a controller seems to run: this process, on this machine.
    pub(crate) fn new() -> Self {
        let world = Self::empty();
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a host name");
        world.lead(hostname.trim(), std::process::id());
        world
    }

    /// Writes the leader's record.
    pub(crate) fn lead(&self, hostname: &str, pid: u32) {
        let record = format!(
            r#"{{"identity": "test", "hostname": "{hostname}", "pid": {pid}, "since": "2026-01-01T00:00:00Z"}}"#
        );
        self.put("control/leader", &record);
    }

    /// Puts a key below the prefix, as `etcdctl put` does.
    pub(crate) fn put(&self, key: &str, value: &str) {
        let key = format!("/windlass/{key}");
        self.etcd.etcdctl_with_input(&["put", &key], Some(value.as_bytes())).expect("put");
    }

    pub(crate) fn delete(&self, key: &str) {
        self.etcd.etcdctl(&["del", &format!("/windlass/{key}")]).expect("del");
    }

    /// What a key below the prefix holds.
    pub(crate) fn value(&self, key: &str) -> String {
        self.etcd.etcdctl(&["get", "--print-value-only", &format!("/windlass/{key}")]).expect("get")
    }

    /// The keys below a path below the prefix, without either.
    pub(crate) fn keys(&self, below: &str) -> Vec<String> {
        let below = format!("/windlass/{below}");
        let listed = self.etcd.etcdctl(&["get", "--prefix", "--keys-only", &below]).expect("get");
        listed.lines().filter_map(|line| line.strip_prefix(&below)).map(str::to_owned).collect()
    }

    /// The `mod_revision` of a key below the prefix.
    pub(crate) fn generation(&self, key: &str) -> u64 {
        let answer = self.etcd.etcdctl(&["get", "--write-out=json", &format!("/windlass/{key}")]).expect("get");
        let (_, rest) = answer.split_once("\"mod_revision\":").expect(key);
        rest.split(|c: char| !c.is_ascii_digit()).next().expect("digits").parse().expect("a number")
    }

    /// Declares a Service on web1 to web3, as a user does by hand.
    pub(crate) fn declare(&self, name: &str) -> u64 {
        let key = format!("declared/services/default/{name}");
        self.put(&key, &service(name));
        self.generation(&key)
    }

    /// Writes a file into the directory.
    pub(crate) fn file(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, text).expect("a file");
    }

    /// The binary, in the directory, with an environment of its own.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = binary(self.dir.path(), arguments);
        command.env("WINDLASS_ENDPOINTS", self.etcd.endpoint());
        command
    }

    /// Runs the binary: stdout, stderr and the exit code, for a snapshot.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        self.show(&self.command(arguments).stdin(Stdio::null()).output().expect("the binary runs"))
    }

    /// Runs the binary with standard input.
    pub(crate) fn run_with_input(&self, arguments: &[&str], input: &str) -> String {
        let mut command = self.command(arguments);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        child.stdin.take().expect("stdin").write_all(input.as_bytes()).expect("it reads");
        self.show(&child.wait_with_output().expect("it ends"))
    }

    /// Starts the binary, to go on while the test does things.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running<'_> {
        let mut command = self.command(arguments);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Running { world: self, child: child.expect("the binary runs") }
    }

    /// Waits until there is a request for a Service, and gives its key.
    pub(crate) fn request_for(&self, service: &str) -> String {
        let below = format!("requests/services/default/{service}/");
        for _ in 0..LOOKS {
            if let Some(id) = self.keys(&below).pop() {
                return below + &id;
            }
            std::thread::sleep(LOOK);
        }
        panic!("no request for {service}");
    }

    /// What a snapshot shows, with what differs from run to run replaced.
    pub(crate) fn show(&self, output: &Output) -> String {
        let dir = self.dir.path().canonicalize().expect("the directory");
        let plain = |bytes: &[u8]| {
            let text = String::from_utf8(bytes.to_owned()).expect("UTF-8");
            text.replace(&self.etcd.endpoint(), "ETCD").replace(&dir.display().to_string(), "DIR")
        };
        show(&plain(&output.stdout), &plain(&output.stderr), output.status.code())
    }
}

/// A binary that goes on while the test does things.
pub(crate) struct Running<'world> {
    world: &'world World,
    child: Child,
}

impl Running<'_> {
    /// Waits until it ends.
    pub(crate) fn end(self) -> String {
        self.world.show(&self.child.wait_with_output().expect("it ends"))
    }

    /// Its stdout, line by line.
    pub(crate) fn lines(&mut self) -> Lines<BufReader<ChildStdout>> {
        BufReader::new(self.child.stdout.take().expect("stdout")).lines()
    }

    /// Its stderr, line by line.
    pub(crate) fn errors(&mut self) -> Lines<BufReader<ChildStderr>> {
        BufReader::new(self.child.stderr.take().expect("stderr")).lines()
    }

    /// Types Ctrl-C.
    pub(crate) fn interrupt(&self) {
        let done = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().expect("kill");
        assert!(done.success());
    }
}

/// The binary with none of this process's variables that it would look at.
pub(crate) fn binary(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("WINDLASS_") || name_text.starts_with("OTEL_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).current_dir(dir).env_remove("NO_COLOR").env_remove("COLUMNS");
    command
}

pub(crate) fn show(stdout: &str, stderr: &str, code: Option<i32>) -> String {
    let mut text = stdout.to_owned();
    if !stderr.is_empty() {
        text += &format!("-- stderr\n{stderr}");
    }
    text + &code.map_or("-- ended by a signal".to_owned(), |code| format!("-- exit {code}"))
}

/// A Service on web1 to web3.
pub(crate) fn service(name: &str) -> String {
    format!(
        "apiVersion: windlass/v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  placement:\n    hosts: [web1, web2, web3]\n  source:\n    path: /srv/src/{name}\n  runtime:\n    target: python\n    entryPoint: server.py\n"
    )
}
