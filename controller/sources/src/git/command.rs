//! Running `git`: what it may do, what it is told, how long it may take and how much it may say.
//!
//! Nothing of git's own configuration is read, neither the user's nor the machine's: it could turn off the checks of
//! certificates, run programs, or lead elsewhere. `ssh` reads its own, so aliases, agents and known hosts are the user's.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use windlass_crds::configrepo::Scheme;

use super::{GitError, Remote};

/// What a run of git may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) time: Duration,
    /// Bytes of its output.
    pub(super) output: u64,
}

/// So much is kept of what git complains about.
const COMPLAINT: usize = 600;

/// So much of it is read at all; the rest is passed by.
const COMPLAINT_READ: u64 = 64 << 10;

/// What git sees of the controller's environment. Secrets of the controller are none of its business.
const PASSED_ON: [&str; 12] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "TMPDIR",
    "SSH_AUTH_SOCK",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
];

/// Set for every run, in the place of what configuration files say.
const SETTINGS: [(&str, &str); 22] = [
    ("protocol.allow", "never"),
    ("core.hooksPath", "/dev/null"),
    ("core.symlinks", "false"),
    ("core.fsmonitor", "false"),
    ("core.askPass", ""),
    ("credential.helper", ""),
    ("http.sslVerify", "true"),
    ("http.sslVersion", "tlsv1.2"),
    // A server that sends us elsewhere is not whom the password is for.
    ("http.followRedirects", "false"),
    // Only ssh's signatures count, whatever a commit brings.
    ("gpg.program", "/bin/false"),
    ("gpg.openpgp.program", "/bin/false"),
    ("gpg.x509.program", "/bin/false"),
    ("http.lowSpeedLimit", "1"),
    ("http.lowSpeedTime", "30"),
    ("submodule.recurse", "false"),
    ("fetch.recurseSubmodules", "false"),
    ("transfer.bundleURI", "false"),
    // Whatever comes stays one file, whose size is watched, and is never unpacked into many.
    ("fetch.unpackLimit", "1"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("pack.threads", "1"),
    ("core.quotePath", "false"),
];

/// Reads user and password out of git's own environment, so that they stand in no command line. `printf` is the shell's.
const HELPER: &str = r#"!f() { test "$1" = get && printf 'username=%s\npassword=%s\n' "$WINDLASS_GIT_USER" "$WINDLASS_GIT_PASSWORD"; }; f"#;

/// How a server is got into.
#[derive(Debug)]
pub(super) struct Access {
    scheme: Scheme,
    settings: Vec<(&'static str, OsString)>,
    environment: Vec<(&'static str, OsString)>,
}

/// A file that may lie in the home of the controller's user.
pub(super) fn at_home(file: &str) -> Result<PathBuf, GitError> {
    let Some(rest) = file.strip_prefix("~/") else { return Ok(PathBuf::from(file)) };
    let home = std::env::home_dir().ok_or_else(|| GitError::Credentials {
        what: format!("{file}: the controller's user has no home directory; write an absolute path"),
    })?;
    Ok(home.join(rest))
}

/// A file that has to be there.
fn there(file: &str) -> Result<PathBuf, GitError> {
    let path = at_home(file)?;
    match std::fs::File::open(&path) {
        Ok(_) => Ok(path),
        Err(error) => Err(GitError::Credentials { what: format!("cannot read {}: {error}", path.display()) }),
    }
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A path for an option of `ssh`, which expands `%` and splits at blanks.
fn ssh_path(path: &Path) -> Result<String, GitError> {
    let wrong = || GitError::Credentials { what: format!("ssh cannot be told of {path:?}") };
    let text = path.to_str().filter(|text| !text.contains(['"', '\\', '\n'])).ok_or_else(wrong)?;
    Ok(format!("\"{}\"", text.replace('%', "%%")))
}

/// What a server is called in our own list of known hosts, whatever its address.
const ALIAS: &str = "windlass-repo";

impl Access {
    /// What a declaration says of it. `directory` is where a list of pinned keys is kept.
    pub(super) fn of(remote: &Remote, directory: &Path) -> Result<Self, GitError> {
        let scheme = remote.url.scheme();
        let mut access = Self { scheme, settings: Vec::new(), environment: Vec::new() };
        let credentials = remote.credentials.clone().unwrap_or_default();
        if scheme == Scheme::Ssh {
            access.environment.push(("GIT_SSH_VARIANT", "ssh".into()));
            let mut words = vec!["ssh".to_owned()];
            let mut option = |text: String| words.extend(["-o".to_owned(), text]);
            for fixed in [
                "BatchMode=yes",
                "StrictHostKeyChecking=yes",
                "UpdateHostKeys=no",
                // Neither a connection nor a key that somebody else vouches for.
                "ControlPath=none",
                "VerifyHostKeyDNS=no",
                "ForwardAgent=no",
                "ForwardX11=no",
                "ClearAllForwardings=yes",
                "PermitLocalCommand=no",
                "ConnectTimeout=10",
                "ServerAliveInterval=10",
            ] {
                option(fixed.to_owned());
            }
            if let Some(file) = &credentials.key_file {
                option(format!("IdentityFile={}", ssh_path(&there(file)?)?));
                option("IdentitiesOnly=yes".to_owned());
            }
            if !credentials.host_keys.is_empty() {
                let known = directory.join(format!("{}.known_hosts", remote.name));
                let lines: String = credentials.host_keys.iter().map(|key| format!("{ALIAS} {key}\n")).collect();
                std::fs::write(&known, lines).map_err(|error| GitError::Credentials {
                    what: format!("cannot write {}: {error}", known.display()),
                })?;
                option(format!("HostKeyAlias={ALIAS}"));
                option(format!("UserKnownHostsFile={}", ssh_path(&known)?));
                option("GlobalKnownHostsFile=/dev/null".to_owned());
            }
            let command: Vec<String> = words.iter().map(|word| quoted(word)).collect();
            access.environment.push(("GIT_SSH_COMMAND", command.join(" ").into()));
        }
        if let Some(file) = &credentials.ca_file {
            access.settings.push(("http.sslCAInfo", there(file)?.into()));
        }
        if let (Some(user), Some(variable)) = (&credentials.user, &credentials.password_env) {
            let password = std::env::var_os(variable).filter(|password| !password.is_empty());
            let password = password.ok_or_else(|| GitError::Credentials {
                what: format!("the controller has no environment variable {variable}, which shall hold the password"),
            })?;
            access.settings.push(("credential.helper", HELPER.into()));
            access.environment.push(("WINDLASS_GIT_USER", user.into()));
            access.environment.push(("WINDLASS_GIT_PASSWORD", password));
        }
        Ok(access)
    }
}

/// What a run of git left.
#[derive(Debug)]
pub(super) struct Output {
    stdout: Vec<u8>,
}

impl Output {
    /// What it said.
    pub(super) fn text(self) -> Result<String, GitError> {
        String::from_utf8(self.stdout).map_err(|_| GitError::Damaged { detail: "not UTF-8".to_owned() })
    }

    /// What it said, whatever is no UTF-8 replaced.
    pub(super) fn text_lossy(self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// What it said, as bytes.
    pub(super) fn bytes(self) -> Vec<u8> {
        self.stdout
    }
}

/// How git is run.
#[derive(Debug)]
pub(super) struct Git<'a> {
    access: Option<&'a Access>,
    copy: Option<&'a Path>,
    settings: Vec<(&'static str, OsString)>,
}

impl<'a> Git<'a> {
    /// With a server.
    pub(super) fn reaching(access: &'a Access, copy: Option<&'a Path>) -> Self {
        Self { access: Some(access), copy, settings: Vec::new() }
    }

    /// With our copy alone.
    pub(super) fn reading(copy: &'a Path) -> Self {
        Self { access: None, copy: Some(copy), settings: Vec::new() }
    }

    /// With nothing.
    pub(super) fn alone() -> Self {
        Self { access: None, copy: None, settings: Vec::new() }
    }

    /// With one more setting.
    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.settings.push((name, value.into()));
        self
    }

    /// With one more setting that is a path.
    pub(super) fn with_path(mut self, name: &'static str, value: &Path) -> Self {
        self.settings.push((name, value.into()));
        self
    }

    /// The command, guarded.
    pub(super) fn command<A: AsRef<OsStr>>(&self, arguments: &[A]) -> std::process::Command {
        let mut command = std::process::Command::new("git");
        command.env_clear();
        for name in PASSED_ON {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .env("LC_ALL", "C")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_OPTIONAL_LOCKS", "0");
        if let Some(copy) = self.copy {
            let mut word = OsString::from("--git-dir=");
            word.push(copy);
            command.arg(word);
        }
        let mut set = |name: &str, value: &OsStr| {
            let mut word = OsString::from(format!("{name}="));
            word.push(value);
            command.arg("-c").arg(word);
        };
        for (name, value) in SETTINGS {
            set(name, OsStr::new(value));
        }
        if let Some(access) = self.access {
            set(&format!("protocol.{}.allow", access.scheme), OsStr::new("always"));
            for (name, value) in &access.settings {
                set(name, value);
            }
        }
        for (name, value) in &self.settings {
            set(name, value);
        }
        if let Some(access) = self.access {
            command.envs(access.environment.iter().map(|(name, value)| (name, value)));
        }
        command.args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs it to its end. Dropping the future ends it and everything that it has started.
    pub(super) async fn run<A: AsRef<OsStr>>(&self, arguments: &[A], limits: Limits) -> Result<Output, GitError> {
        let what =
            || format!("git {}", arguments.first().map(|word| word.as_ref().to_string_lossy()).unwrap_or_default());
        let mut command = Command::from(self.command(arguments));
        command.process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(GitError::Missing)?;
        let group = Group::of(child.id());
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let run = async {
            let (stdout, stderr) = tokio::join!(read(stdout, limits.output), read_some(stderr));
            (stdout, stderr, child.wait().await)
        };
        let Ok((stdout, stderr, ended)) = tokio::time::timeout(limits.time, run).await else {
            return Err(GitError::Slow { what: what(), seconds: limits.time.as_secs() });
        };
        let Some(stdout) = stdout else {
            return Err(GitError::TooLarge { what: format!("what {} says, in bytes,", what()), most: limits.output });
        };
        group.over();
        match ended {
            Ok(status) if status.success() => Ok(Output { stdout }),
            Ok(_) => Err(self.failed(&stderr)),
            Err(error) => Err(GitError::Missing(error)),
        }
    }

    /// Why it failed: the server's doing, or our copy's.
    fn failed(&self, stderr: &[u8]) -> GitError {
        let detail = complaint(stderr);
        // What the server says of itself comes behind that word.
        let said = String::from_utf8_lossy(stderr);
        let ours: String =
            said.lines().filter(|line| !line.starts_with("remote:")).flat_map(|line| [line, "\n"]).collect();
        if self.access.is_some() && !self.is_ours(&ours) {
            GitError::Away { detail }
        } else {
            GitError::Damaged { detail }
        }
    }

    /// Whether what git complains about is our copy: it names files of it. A disk that is full or may not be written is
    /// no damage.
    fn is_ours(&self, complaint: &str) -> bool {
        let Some(copy) = self.copy.and_then(Path::to_str) else { return false };
        let outside = ["No space left", "Permission denied", "Read-only file system", "quota exceeded"];
        let damage = ["is corrupt", "bad object", "missing blob", "missing tree"];
        !outside.iter().any(|sign| complaint.contains(sign))
            && (complaint.contains(copy) || damage.iter().any(|sign| complaint.contains(sign)))
    }
}

/// What git complains about, in one line.
pub(super) fn complaint(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut text: String = lines.collect::<Vec<_>>().join("; ");
    text.retain(|c| !c.is_control());
    if text.len() > COMPLAINT {
        text.truncate(text.floor_char_boundary(COMPLAINT));
        text.push('…');
    }
    if text.is_empty() { "git says nothing".to_owned() } else { text }
}

/// All of a pipe; nothing where it is more than `most`.
async fn read(pipe: Option<impl AsyncRead + Unpin>, most: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    // What cannot be read to its end shows in how the process ends.
    let _ = pipe?.take(most + 1).read_to_end(&mut bytes).await;
    (bytes.len() as u64 <= most).then_some(bytes)
}

/// The beginning of a pipe; the rest is passed by, so that the writer does not wait.
async fn read_some(pipe: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let Some(mut pipe) = pipe else { return bytes };
    let _ = (&mut pipe).take(COMPLAINT_READ).read_to_end(&mut bytes).await;
    let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
    bytes
}

/// git, and the programs that it starts: they end with it.
#[derive(Debug)]
pub(super) struct Group(Option<Pid>);

impl Group {
    /// The group of a process that was started as its leader.
    pub(super) fn of(id: Option<u32>) -> Self {
        Self(id.and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)))
    }

    /// It has ended by itself.
    pub(super) fn over(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_git_says_becomes_one_line() {
        assert_eq!(complaint(b"fatal: a\n\n  b \x1b[31m\n"), "fatal: a; b [31m");
        assert_eq!(complaint(b" \n"), "git says nothing");
        let long = complaint("ä".repeat(1000).as_bytes());
        assert!(long.len() < 610 && long.ends_with('…'), "{}", long.len());
    }

    #[test]
    fn what_is_wrong_with_our_copy_is_told_from_what_is_wrong_elsewhere() {
        let copy = Path::new("/data/repos/fleet.git");
        let git = Git::reading(copy);
        for (complaint, ours) in [
            ("error: index file /data/repos/fleet.git/objects/pack/pack-1.idx is too small", true),
            ("fatal: loose object 12 (stored in /data/repos/fleet.git/objects/12) is corrupt", true),
            ("fatal: bad object refs/windlass/fetched", true),
            ("fatal: Could not read from remote repository.", false),
            ("fatal: '/srv/git/fleet.git' does not appear to be a git repository", false),
            ("fatal: cannot create '/data/repos/fleet.git/objects/pack/tmp_pack': No space left on device", false),
        ] {
            assert_eq!(git.is_ours(complaint), ours, "{complaint}");
        }
    }

    #[test]
    fn words_for_a_shell_stay_words() {
        assert_eq!(quoted("a'b $(c)"), r"'a'\''b $(c)'");
        assert_eq!(ssh_path(Path::new("/a b/100%")).expect("a path"), "\"/a b/100%%\"");
        assert!(ssh_path(Path::new("/a\"b")).is_err());
    }
}
