//! The binary, and what its commands say.

use std::fmt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};

/// No command of a test takes longer; one that does is stuck.
const LIMIT_SECONDS: &str = "180";

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// What was typed.
    pub line: String,
    /// The exit code; 124 where it was stuck, 128 and the signal where it was killed.
    pub code: i32,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Ran {
    /// Standard output, where the exit code is `code`.
    ///
    /// # Errors
    /// With everything it wrote, where it is another one.
    pub fn expect(self, code: i32) -> Result<String> {
        ensure!(self.code == code, "expected exit code {code}: {self}");
        Ok(self.stdout)
    }

    /// Standard error, where the exit code is `code`.
    ///
    /// # Errors
    /// With everything it wrote, where it is another one.
    pub fn expect_error(self, code: i32) -> Result<String> {
        ensure!(self.code == code, "expected exit code {code}: {self}");
        Ok(self.stderr)
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "`{}` exited with {}\n{}{}", self.line, self.code, self.stdout, self.stderr)
    }
}

/// Where the build put a program of the workspace: beside this one, or a folder above this test.
///
/// # Errors
/// When it is not there.
pub fn binary(name: &str) -> Result<PathBuf> {
    let us = std::env::current_exe().context("finding this program")?;
    let folder = us.parent().context("a program lies in a folder")?;
    // Tests lie in target/PROFILE/deps, programs in target/PROFILE.
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    let program = folder.join(name);
    ensure!(program.exists(), "{} is not there\nhint: make build", program.display());
    Ok(program)
}

/// Runs `windlass` to its end, whatever its exit code.
pub(crate) fn windlass(environment: &[(String, String)], arguments: &[&str], input: Option<&str>) -> Result<Ran> {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", LIMIT_SECONDS]).arg(binary("windlass")?).args(arguments);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("starting windlass by `timeout`")?;
    let writer = input.zip(child.stdin.take());
    let output = std::thread::scope(|scope| {
        if let Some((input, mut stdin)) = writer {
            // A command that ends without reading its input is judged by its exit code.
            scope.spawn(move || std::io::Write::write_all(&mut stdin, input.as_bytes()).ok());
        }
        child.wait_with_output()
    });
    Ok(ran(arguments, &output.context("waiting for windlass")?))
}

/// Makes `$HOME/.ssh` that of this user, for one process and its children: ssh goes by the user database.
const AT_HOME: &str = r#"own=$(getent passwd "$(id -u)" | cut -d: -f6) && mkdir -p "$own/.ssh" &&
mount --bind "$HOME/.ssh" "$own/.ssh" && exec "$@""#;

/// What starts a program as a user whose `.ssh` is that of `$HOME`.
pub const USER_OF_HOME: &[&str] = &["unshare", "--mount", "sh", "-c", AT_HOME, "sh"];

/// As [`windlass`], with the `.ssh` of `$HOME` as this user's own.
pub(crate) fn windlass_at_home(environment: &[(String, String)], arguments: &[&str]) -> Result<Ran> {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", LIMIT_SECONDS]).args(USER_OF_HOME).arg(binary("windlass")?).args(arguments);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let output = command.stdin(Stdio::null()).output().context("starting windlass in a mount namespace")?;
    Ok(ran(arguments, &output))
}

/// Runs `windlass` on a terminal of its own, on which `answer` is typed; what it shows there is its standard output.
pub(crate) fn windlass_on_terminal(environment: &[(String, String)], arguments: &[&str], answer: &str) -> Result<Ran> {
    let program = binary("windlass")?.display().to_string();
    let words: Vec<&str> = [&[program.as_str()], arguments].concat();
    // `script` takes a line for sh, and no test types a quote.
    let line = words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", LIMIT_SECONDS, "script", "--quiet", "--return", "--command", &line, "/dev/null"]);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("starting windlass by `script`")?;
    let mut stdin = child.stdin.take().context("script has no standard input")?;
    std::io::Write::write_all(&mut stdin, answer.as_bytes()).context("typing")?;
    // Held open: its end would be the terminal's.
    let output = child.wait_with_output().context("waiting for windlass");
    drop(stdin);
    Ok(ran(arguments, &output?))
}

fn ran(arguments: &[&str], output: &Output) -> Ran {
    use std::os::unix::process::ExitStatusExt;
    let status = output.status;
    Ran {
        line: format!("windlass {}", arguments.join(" ")),
        code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
