//! Output: data on stdout, everything else on stderr. The only place that writes to either.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

/// Standard output took nothing more.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output")]
pub(crate) struct OutputError(#[from] io::Error);

impl OutputError {
    /// Whether whoever read has gone away, as `head` does: nothing that anybody has to be told.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

/// Writes data as it is, and sees it off.
///
/// # Errors
/// When standard output is closed or full.
pub(crate) fn data(text: &str) -> Result<(), OutputError> {
    bytes(text.as_bytes())
}

/// As [`data`], of what need not be UTF-8, as names of files.
///
/// # Errors
/// When standard output is closed or full.
pub(crate) fn bytes(bytes: &[u8]) -> Result<(), OutputError> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}

/// Writes one line of data.
///
/// # Errors
/// When standard output is closed or full.
pub(crate) fn line(text: impl Display) -> Result<(), OutputError> {
    data(&format!("{text}\n"))
}

/// What a line on stderr is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Label {
    /// Why the command failed.
    Error,
    /// What may surprise, and does not stop the command.
    Warning,
    /// What to type next.
    Hint,
}

impl Label {
    fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Hint => "hint",
        }
    }

    /// The colour's parameters (ECMA-48, SGR): bold red, bold yellow, bold cyan.
    fn colour(self) -> &'static str {
        match self {
            Self::Error => "1;31",
            Self::Warning => "1;33",
            Self::Hint => "1;36",
        }
    }
}

/// Writes a line with a label to stderr.
pub(crate) fn labelled(label: Label, text: impl Display) {
    let word = label.word();
    if coloured() {
        note(format_args!("\x1b[{}m{word}\x1b[0m: {text}", label.colour()));
    } else {
        note(format_args!("{word}: {text}"));
    }
}

/// Writes a line to stderr.
pub(crate) fn note(text: impl Display) {
    // Nobody is left to be told that stderr is closed.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Writes a question to stderr, to be answered on the same line.
pub(crate) fn prompt(text: impl Display) {
    let mut out = io::stderr();
    let _ = write!(out, "{text}").and_then(|()| out.flush());
}

/// Writes to stderr as it is: what a screen is drawn with.
pub(crate) fn draw(text: &str) {
    let mut out = io::stderr().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Whether stderr is a screen on which lines can be drawn again.
pub(crate) fn is_screen() -> bool {
    io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb" && !term.is_empty())
}

/// Whether stdout goes where people look.
pub(crate) fn is_shown() -> bool {
    io::stdout().is_terminal()
}

/// Whether stderr is somebody's screen, and they have not said that they want no colours (no-color.org).
pub(crate) fn coloured() -> bool {
    let silenced = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !silenced && io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}
