//! A Git repository that a test works in, and the places that it is pushed to.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use windlass_testbed::Host;

use crate::declare::Declaration;

/// A repository that somebody works in; whoever follows it sees what was pushed.
#[derive(Debug)]
pub struct Repository {
    work: PathBuf,
    /// A bare one on this machine, which is what servers serve.
    bare: PathBuf,
    /// Where else it is pushed to, and how to get there.
    elsewhere: Option<(String, String)>,
}

impl Repository {
    /// An empty one below `dir`.
    ///
    /// # Errors
    /// When git does not make it.
    pub fn create(dir: &Path, name: &str) -> Result<Self> {
        let folder = dir.join("git");
        fs::create_dir_all(&folder).context("creating a folder for repositories")?;
        let repository = Self { work: folder.join(name), bare: folder.join(format!("{name}.git")), elsewhere: None };
        fs::create_dir_all(&repository.work).context("creating a working tree")?;
        repository.git(&["init", "--quiet", "--initial-branch=main"])?;
        let bare = repository.bare.to_string_lossy().into_owned();
        repository.git(&["init", "--quiet", "--bare", "--initial-branch=main", &bare])?;
        repository.git(&["remote", "add", "origin", &bare])?;
        Ok(repository)
    }

    /// The folder that bare repositories lie in.
    pub fn served(&self) -> &Path {
        self.bare.parent().unwrap_or(&self.bare)
    }

    /// The bare one.
    pub fn bare(&self) -> &Path {
        &self.bare
    }

    /// The working tree.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// Its address on this machine.
    pub fn url(&self) -> String {
        format!("file://{}", self.bare.display())
    }

    /// Has it pushed to the home of `deploy` on a host too, which gets git from this machine. Returns its address.
    ///
    /// # Errors
    /// When the host cannot be prepared.
    pub fn on_host(&mut self, host: &Host) -> Result<String> {
        let bin = host.root().join("usr/local/bin");
        fs::copy("/usr/bin/git", bin.join("git")).context("giving git to a host")?;
        for name in ["git-upload-pack", "git-receive-pack"] {
            let _ = std::os::unix::fs::symlink("git", bin.join(name));
        }
        let path = "/home/deploy/fleet.git";
        host.run(&[
            "runuser",
            "-u",
            "deploy",
            "--",
            "git",
            "init",
            "--quiet",
            "--bare",
            "--initial-branch=main",
            path,
        ])?;
        let known = self.work.with_extension("known_hosts");
        fs::write(&known, format!("{}\n", host.known_hosts_line()?)).context("writing known hosts")?;
        let ssh = format!(
            "ssh -F /dev/null -i {} -o IdentitiesOnly=yes -o UserKnownHostsFile={}",
            host.key_file().display(),
            known.display()
        );
        let url = format!("ssh://deploy@{}{path}", host.address());
        self.elsewhere = Some((url.clone(), ssh));
        Ok(url)
    }

    /// Runs git as its user would.
    ///
    /// # Errors
    /// With what git says, when it fails.
    pub fn git(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("git");
        command.current_dir(&self.work).args(["-c", "user.name=Me", "-c", "user.email=me@example.com"]);
        command.args(["-c", "protocol.file.allow=always"]).args(arguments);
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1").stdin(Stdio::null());
        if let Some((_, ssh)) = &self.elsewhere {
            command.env("GIT_SSH_COMMAND", ssh);
        }
        let output = command.output().context("running git")?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "git {arguments:?}: {stderr}");
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Writes a file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(&self, path: &str, text: &str) -> Result<()> {
        let path = self.work.join(path);
        fs::create_dir_all(path.parent().unwrap_or(&self.work)).context("creating a folder")?;
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }

    /// Writes a declaration.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn declare(&self, path: &str, declaration: &Declaration) -> Result<()> {
        self.put(path, &format!("{:#}\n", declaration.document))
    }

    /// Removes a file.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self, path: &str) -> Result<()> {
        fs::remove_file(self.work.join(path)).with_context(|| format!("removing {path}"))
    }

    /// Commits everything, and gives the commit.
    ///
    /// # Errors
    /// When git fails.
    pub fn commit(&self, message: &str) -> Result<String> {
        self.git(&["add", "--all"])?;
        self.git(&["commit", "--quiet", "--allow-empty", "-m", message])?;
        self.git(&["rev-parse", "HEAD"])
    }

    /// Pushes what is committed.
    ///
    /// # Errors
    /// When git fails.
    pub fn push(&self) -> Result<()> {
        self.git(&["push", "--quiet", "--force", "--tags", "origin", "HEAD:main"])?;
        if let Some((url, _)) = &self.elsewhere {
            self.git(&["push", "--quiet", "--force", url, "HEAD:main"])?;
        }
        Ok(())
    }

    /// Commits everything and pushes it.
    ///
    /// # Errors
    /// When git fails.
    pub fn publish(&self, message: &str) -> Result<String> {
        let commit = self.commit(message)?;
        self.push()?;
        Ok(commit)
    }
}

/// A ConfigRepo that is asked every few seconds, and whose declarations lie in `production/`.
pub fn config_repo(name: &str, url: &str) -> Declaration {
    let document: Value = json!({
        "apiVersion": "windlass/v1", "kind": "ConfigRepo", "metadata": {"name": name},
        "spec": {"url": url, "ref": "main", "path": "production", "interval": "5s"},
    });
    Declaration { path: format!("configrepos/{name}"), document }
}
