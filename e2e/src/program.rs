//! The program that tests deploy, as a directory that a Service names as its source.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

const SERVER: &str = include_str!("server.py");

/// A source directory with a web server that says its version.
#[derive(Debug)]
pub struct Program {
    dir: PathBuf,
    /// Where a new version is written before it is renamed into place.
    outside: PathBuf,
}

impl Program {
    pub(crate) fn create(dir: PathBuf) -> Result<Self> {
        fs::create_dir_all(&dir).context("creating a source")?;
        let outside = dir.with_extension("new");
        Ok(Self { dir, outside })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A version that is well.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn good(&self, version: &str) -> Result<()> {
        self.write(version, 200, "")
    }

    /// A version whose health check fails; it answers everything else.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn bad(&self, version: &str) -> Result<()> {
        self.write(version, 503, "")
    }

    /// A version that is well only on hosts that have a file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn good_with(&self, version: &str, file: &str) -> Result<()> {
        self.write(version, 200, file)
    }

    /// A version that is well, and takes no notice of being asked to stop.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn deaf(&self, version: &str) -> Result<()> {
        let deaf = "import signal\n\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n";
        self.put("server.py", &format!("{deaf}{}", server(version, 200, "")))
    }

    /// A version that is well, and has its host start a unit first.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn starting(&self, version: &str, unit: &str) -> Result<()> {
        let start = format!("import subprocess\n\nsubprocess.run(['systemctl', 'start', '{unit}'], check=True)\n");
        self.put("server.py", &format!("{start}{}", server(version, 200, "")))
    }

    /// A version that ends as soon as it starts.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn crashing(&self, version: &str) -> Result<()> {
        self.put("server.py", &format!("print('started {version}', flush=True)\nraise SystemExit(3)\n"))
    }

    /// Any file of the source, whole at once.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(&self, name: &str, content: &str) -> Result<()> {
        let file = self.dir.join(name);
        fs::create_dir_all(file.parent().unwrap_or(&self.dir)).context("creating a folder of a source")?;
        fs::write(&self.outside, content).context("writing a source")?;
        fs::rename(&self.outside, file).context("placing a source")
    }

    fn write(&self, version: &str, status: u16, needs: &str) -> Result<()> {
        self.put("server.py", &server(version, status, needs))
    }
}

fn server(version: &str, status: u16, needs: &str) -> String {
    SERVER.replace("@VERSION@", version).replace("@NEEDS@", needs).replace("@STATUS@", &status.to_string())
}
