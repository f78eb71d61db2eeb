//! A `windlass serve` process: started, asked, told to stop, killed.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::command::binary;
use crate::http;
use crate::wait::within;

/// How to start a controller.
#[derive(Debug, Clone, Default)]
pub struct Serve {
    /// What its data directory and its log are called.
    pub name: &'static str,
    /// The step at which it kills itself, or with `hold@` before it waits, and the file that it writes then.
    pub checkpoint: Option<(String, PathBuf)>,
    /// More arguments.
    pub arguments: Vec<String>,
    /// More variables.
    pub environment: Vec<(String, String)>,
    /// Whether it has a store of its own, instead of this world's etcd.
    pub embedded: bool,
    /// What it is started by, as `setpriv` and its arguments; nothing where it is started directly.
    pub wrapper: &'static [&'static str],
}

/// A controller. Dropping it kills it; should this process be killed, it goes too.
#[derive(Debug)]
pub struct Controller {
    child: Child,
    guard: Child,
    listen: SocketAddr,
    log: PathBuf,
}

impl Controller {
    pub(crate) fn start(
        serve: &Serve,
        environment: &[(String, String)],
        listen: SocketAddr,
        dir: &Path,
    ) -> Result<Self> {
        const GUARD: &str = r#"read -r _; kill -9 "$1""#;
        let log = dir.join(format!("{}.log", serve.name));
        let output = File::options().create(true).append(true).open(&log).context("opening a log")?;
        let program = binary("windlass")?;
        let mut command = match serve.wrapper {
            [] => Command::new(program),
            [wrapper, arguments @ ..] => {
                let mut command = Command::new(wrapper);
                command.args(arguments).arg(program);
                command
            }
        };
        command.arg("serve").arg("--listen").arg(listen.to_string());
        command.arg("--data-dir").arg(dir.join(serve.name)).args(&serve.arguments);
        let environment = environment.iter().chain(&serve.environment);
        // Nobody's agent but one of the test's own.
        command.env_remove("SSH_AUTH_SOCK").envs(environment.map(|(name, value)| (name, value)));
        command.env("NO_COLOR", "1").env("TMPDIR", dir);
        if let Some((name, marker)) = &serve.checkpoint {
            command.env("WINDLASS_CHECKPOINT", format!("{name}:{}", marker.display()));
        }
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
        let mut child = command.spawn().context("starting windlass serve")?;
        let guard = Command::new("sh")
            .args(["-c", GUARD, "serve-guard", &child.id().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        match guard {
            Ok(guard) => Ok(Self { child, guard, listen, log }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error).context("starting a guard")
            }
        }
    }

    /// What it has logged, and those before it under the same name.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Where it logs.
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it answers at a path of its own port.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn get(&self, path: &str) -> Result<http::Answer> {
        http::get(self.listen, path)
    }

    /// What it answers to what is sent to a path of its own port.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<http::Answer> {
        http::post(self.listen, path, headers, body)
    }

    /// Waits until it answers at all, as leader or as standby.
    ///
    /// # Errors
    /// When it ends instead, or takes too long.
    pub fn wait_until_up(&mut self) -> Result<()> {
        self.wait_for("it is up", |answer| answer.is_ok())
    }

    /// Waits until it leads.
    ///
    /// # Errors
    /// When it ends instead, or takes longer than `limit`.
    pub fn wait_until_leading(&mut self, limit: Duration) -> Result<()> {
        within(limit, "it leads", || {
            let answer = self.get("/readyz")?;
            ensure!(
                answer.status == 200 && says_leader(&answer.body),
                "/readyz says {}: {}",
                answer.status,
                answer.body
            );
            Ok(())
        })
    }

    fn wait_for(&mut self, what: &str, good: impl Fn(&Result<http::Answer>) -> bool) -> Result<()> {
        let looked = within(Duration::from_secs(30), what, || {
            if let Some(status) = self.child.try_wait().context("looking after it")? {
                return Ok(Err(status));
            }
            let answer = http::get(self.listen, "/readyz");
            ensure!(good(&answer), "/readyz says {answer:?}");
            Ok(Ok(()))
        })?;
        looked.or_else(|status| bail!("windlass serve ended with {status}:\n{}", self.log()))
    }

    /// Kills it with SIGKILL.
    ///
    /// # Errors
    /// When it had ended before.
    pub fn kill9(mut self) -> Result<()> {
        ensure!(self.child.try_wait()?.is_none(), "it had ended before it was killed");
        self.child.kill().context("killing it")?;
        self.child.wait().context("waiting for its end").map(drop)
    }

    /// Asks it to stop (SIGTERM), and waits until it has.
    ///
    /// # Errors
    /// When it takes longer than `limit`, or its exit code is not 0.
    pub fn stop(mut self, limit: Duration) -> Result<()> {
        self.signal(Signal::TERM)?;
        let status = self.wait(limit)?;
        ensure!(status.success(), "asked to stop, it ended with {status}:\n{}", self.log());
        Ok(())
    }

    /// Stops it in its tracks (SIGSTOP), as a machine that sleeps does, and waits until each of its threads has stopped.
    ///
    /// # Errors
    /// When it has ended.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        within(Duration::from_secs(10), "every thread has stopped", || {
            for thread in fs::read_dir(format!("/proc/{}/task", self.child.id())).context("looking at its threads")? {
                let status = fs::read_to_string(thread?.path().join("status")).context("looking at a thread")?;
                let state = status.lines().find(|line| line.starts_with("State:")).unwrap_or_default();
                ensure!(state.starts_with("State:\tT"), "{state}");
            }
            Ok(())
        })
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it has ended.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Waits until it has killed itself with SIGKILL.
    ///
    /// # Errors
    /// When it takes longer than `limit`, or it ends otherwise.
    pub fn wait_until_killed(mut self, limit: Duration) -> Result<()> {
        let status = self.wait(limit)?;
        ensure!(status.signal() == Some(9), "it ended with {status}:\n{}", self.log());
        Ok(())
    }

    /// Makes sure that it still runs.
    ///
    /// # Errors
    /// When it has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("windlass serve ended with {status}:\n{}", self.log()),
        }
    }

    fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        within(limit, "windlass serve ends", || self.child.try_wait()?.context("it runs"))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), signal).context("sending a signal")
    }
}

/// Whether the words of `/readyz` are a leader's.
fn says_leader(body: &str) -> bool {
    let body = body.to_lowercase();
    (body.contains("lead") || body.contains("active")) && !body.contains("standby")
}

impl Drop for Controller {
    fn drop(&mut self) {
        // The guard first: it must not kill by an id that is somebody else's by then.
        for child in [&mut self.guard, &mut self.child] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
