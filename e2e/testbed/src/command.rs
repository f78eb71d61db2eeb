//! Running programs: argument lists in, outcome out, the program's own words in every error.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Write};
use std::process::{Command, ExitStatus, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Why the testbed cannot work on this machine as it is.
#[derive(Debug, thiserror::Error)]
pub enum NotUsable {
    /// Namespaces, mounts and bridges need root, and there is no kind way around it.
    #[error("throwaway hosts need root, and this runs as user {user}\nhint: run it with sudo")]
    NotRoot {
        /// The effective user id.
        user: u32,
    },
    /// A program is not installed.
    #[error("{program} is not installed\nhint: run scripts/setup")]
    Missing {
        /// The program as it was called.
        program: String,
    },
}

/// How a program inside a host ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// The exit code, or 128 and the signal.
    pub code: i32,
    /// What it wrote to standard output, with anything that is not UTF-8 replaced.
    pub stdout: String,
    /// What it wrote to standard error, with anything that is not UTF-8 replaced.
    pub stderr: String,
}

impl Finished {
    /// Whether the exit code is 0.
    pub fn success(&self) -> bool {
        self.code == 0
    }

    pub(crate) fn from_output(output: &Output) -> Self {
        Self {
            code: code(output.status),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Standard output, or an error that holds everything.
    pub(crate) fn into_stdout(self, what: impl fmt::Display) -> Result<String> {
        if !self.success() {
            bail!("{what} exited with {}: {}{}", self.code, self.stderr, self.stdout);
        }
        Ok(self.stdout)
    }
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// Refuses with words when this process is not root.
pub(crate) fn require_root() -> Result<(), NotUsable> {
    let user = rustix::process::geteuid();
    if user.is_root() { Ok(()) } else { Err(NotUsable::NotRoot { user: user.as_raw() }) }
}

/// Runs a program to its end; any exit but 0 is an error.
pub(crate) fn run<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments);
    finish(command, None)?.into_stdout(describe(program, arguments))
}

/// Runs a program to its end, feeding it `input`; how it ends is the caller's to judge.
pub(crate) fn finish(mut command: Command, input: Option<&[u8]>) -> Result<Finished> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| spawn_error(&program, error))?;
    let writer = input.zip(child.stdin.take());
    let output = std::thread::scope(|scope| {
        if let Some((input, mut stdin)) = writer {
            // A program that ends without reading its input is judged by its exit code.
            scope.spawn(move || stdin.write_all(input).ok());
        }
        child.wait_with_output()
    })
    .with_context(|| format!("waiting for {program}"))?;
    Ok(Finished::from_output(&output))
}

/// Why a program could not be started.
pub(crate) fn spawn_error(program: &str, error: io::Error) -> anyhow::Error {
    if error.kind() == io::ErrorKind::NotFound {
        return NotUsable::Missing { program: program.to_owned() }.into();
    }
    anyhow::Error::new(error).context(format!("starting {program}"))
}

/// A command line for an error message; it is never run.
pub(crate) fn describe<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> String {
    arguments
        .iter()
        .fold(program.to_owned(), |line, argument| format!("{line} {}", argument.as_ref().to_string_lossy()))
}
