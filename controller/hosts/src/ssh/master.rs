//! One ssh connection to one host, as a master process that everything else shares.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use openssh::Session;
use tempfile::TempDir;
use tokio::time::error::Elapsed;
use windlass_crds::host::{HostKey, Target};
use windlass_crds::id::{is_address, is_login};
use windlass_crds::step::ContactError;

/// Seconds that ssh may take for TCP and key exchange: with it, a host that swallows packets is told within 10 s.
const CONNECT_SECONDS: u64 = 8;

/// A little more than ssh's own limit, which does not cover the login.
const CONNECT_DEADLINE: Duration = Duration::from_millis(9500);

/// An open connection that says nothing for `2 * 4` seconds is given up: three probes may be lost, and the 10 s
/// are kept.
const ALIVE_SECONDS: u64 = 2;
/// See [`ALIVE_SECONDS`]: ssh gives up when one more than this many probes went unanswered.
const ALIVE_PROBES: u64 = 3;

/// How long a master lives on when nobody uses it: a controller that was killed leaves none behind for long.
const PERSIST_SECONDS: u64 = 60;

/// The longest control path that works: ssh adds a suffix of its own for a moment.
const LONGEST_CONTROL_PATH: usize = 61;

/// How long an end of a master may take, for the socket is on this machine.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// The most of ssh's words that go into an error.
const LONGEST_DETAIL: usize = 400;

/// When a master's log is emptied: each refused health question adds a line of 70 bytes.
const LONGEST_LOG: u64 = 256 << 10;

/// The name that stands for the host on ssh's command line, so that nothing of a declaration ever does.
const ALIAS: &str = "windlass";

/// A private folder, and the lock that says that its owner lives.
pub(crate) struct PrivateDirectory {
    // Before the lock, so that nobody else finds it unlocked.
    directory: TempDir,
    _lock: fs::File,
}

/// How private folders' names begin.
const PREFIX: &str = "wl-";

/// How old a folder must be before it is taken for a dead process's: its owner needs a moment to lock it.
const SETTLED: Duration = Duration::from_secs(60);

impl PrivateDirectory {
    /// A folder for control sockets and forwards, for this user only, with a path that is short enough. Takes away
    /// those that killed processes have left.
    pub(crate) fn new() -> std::io::Result<Self> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let short = |path: &PathBuf| path.as_os_str().len() <= 24;
        let parents = [Some(std::env::temp_dir()), runtime, Some(PathBuf::from("/tmp"))].into_iter().flatten();
        let mut failure = std::io::Error::other("no folder for sockets");
        for parent in parents.filter(short) {
            match Self::new_in(&parent) {
                Ok(directory) => return Ok(directory),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn new_in(parent: &Path) -> std::io::Result<Self> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(PREFIX).rand_bytes(6).permissions(fs::Permissions::from_mode(0o700));
        let directory = builder.tempdir_in(parent)?;
        let lock = fs::File::create_new(directory.path().join("lock"))?;
        lock.lock()?;
        let _ = sweep(parent);
        Ok(Self { directory, _lock: lock })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Takes away the folders of processes that were killed.
fn sweep(parent: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(parent)?.flatten() {
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        let old = entry
            .metadata()
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > SETTLED));
        if ours
            && old
            && let Ok(lock) = fs::File::open(entry.path().join("lock"))
            && lock.try_lock().is_ok()
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Master {
    session: Arc<Session>,
    directory: PathBuf,
}

/// Why nobody is in.
#[derive(Debug)]
pub(crate) enum NotIn {
    /// The host's sshd has as many logins under way as it takes (MaxStartups), or takes none from here for a while
    /// (PerSourcePenalties): this says nothing of the next one.
    TurnedAway(ContactError),
    /// Anything else.
    Failed(ContactError),
}

impl NotIn {
    /// By what ssh has said.
    pub(crate) fn by(log: &str) -> Self {
        let error = classify(log);
        // It is closed, or reset, before either side has said who it is; later nobody is turned away any more.
        let early = ["kex_exchange_identification: ", "banner exchange: ", "Not allowed at this time"];
        match error {
            ContactError::Refused { detail } if early.iter().any(|words| log.contains(words)) => {
                Self::TurnedAway(ContactError::Refused {
                    detail: format!("{detail}; see MaxStartups and PerSourcePenalties in its sshd_config"),
                })
            }
            error => Self::Failed(error),
        }
    }

    /// Why, in any case.
    pub(crate) fn error(self) -> ContactError {
        match self {
            Self::TurnedAway(error) | Self::Failed(error) => error,
        }
    }
}

impl From<ContactError> for NotIn {
    fn from(error: ContactError) -> Self {
        Self::Failed(error)
    }
}

impl Master {
    /// Connects, and logs in. `directory` is for this connection alone, and taken away where that fails.
    pub(crate) async fn connect(target: &Target, directory: PathBuf) -> Result<Self, NotIn> {
        let connected = Self::connect_in(target, &directory).await;
        if connected.is_err() {
            let _ = fs::remove_dir_all(&directory);
        }
        connected
    }

    async fn connect_in(target: &Target, directory: &Path) -> Result<Self, NotIn> {
        let local = |error: std::io::Error| ContactError::Local { detail: error.to_string() };
        fs::DirBuilder::new().create(directory).map_err(local)?;
        let control = directory.join("m");
        if control.as_os_str().len() > LONGEST_CONTROL_PATH {
            let detail = format!("{} is too long for a socket", control.display());
            return Err(ContactError::Local { detail }.into());
        }
        let (config, log) = (directory.join("config"), directory.join("log"));
        let known_hosts = directory.join("known_hosts");
        write_private(&config, &configuration(target, &known_hosts)?).map_err(local)?;
        write_private(&known_hosts, &pinned(&target.host_keys)).map_err(local)?;
        let mut ssh = tokio::process::Command::new("ssh");
        ssh.arg("-F").arg(&config).arg("-E").arg(&log).arg("-S").arg(&control);
        ssh.args(["-M", "-f", "-N", "--", ALIAS]).env("LC_ALL", "C");
        ssh.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = ssh.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                ContactError::Local { detail: "ssh is not installed here; install openssh-client".to_owned() }
            }
            _ => local(error),
        })?;
        let status = match tokio::time::timeout(CONNECT_DEADLINE, child.wait()).await {
            Ok(status) => status.map_err(local)?,
            Err(_) => {
                let _ = child.kill().await;
                return Err(ContactError::Timeout { seconds: CONNECT_DEADLINE.as_secs() }.into());
            }
        };
        if !status.success() {
            return Err(NotIn::by(&fs::read_to_string(&log).unwrap_or_default()));
        }
        let session = Session::resume_mux(control.into_boxed_path(), Some(log.into_boxed_path()));
        Ok(Self { session: Arc::new(session), directory: directory.to_owned() })
    }

    /// An `ssh` that makes a login of its own to the same host, under the same conditions; what it says goes to the
    /// file `log` beside the sockets. Nothing secret may go by it: see [`agrees_quickly`].
    pub(crate) fn login(&self, log: &Path, quickly: bool) -> tokio::process::Command {
        let mut ssh = tokio::process::Command::new("ssh");
        ssh.arg("-F").arg(self.directory.join("config")).arg("-E").arg(log).args(["-S", "none"]);
        if quickly {
            ssh.args(QUICK_AGREEMENT);
        }
        ssh.args(["--", ALIAS]).env("LC_ALL", "C");
        ssh
    }

    /// What commands are started on.
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Where this connection's sockets are.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether the master still runs. Says nothing of the host.
    pub(crate) async fn lives(&self) -> bool {
        matches!(tokio::time::timeout(CLOSE_DEADLINE, self.session.check()).await, Ok(Ok(())))
    }

    /// How long the master's log is now. One that has grown long is begun anew: ssh appends, wherever the end is.
    pub(crate) fn log_length(&self) -> u64 {
        let log = self.directory.join("log");
        let length = fs::metadata(&log).map_or(0, |metadata| metadata.len());
        if length < LONGEST_LOG {
            return length;
        }
        let emptied = fs::OpenOptions::new().write(true).open(&log).and_then(|file| file.set_len(0));
        if emptied.is_ok() { 0 } else { length }
    }

    /// What the master has logged since it was so long.
    pub(crate) fn log_since(&self, length: u64) -> String {
        let mut bytes = Vec::new();
        let read = fs::File::open(self.directory.join("log")).and_then(|mut file| {
            file.seek(SeekFrom::Start(length))?;
            file.take(LONGEST_LOG).read_to_end(&mut bytes)
        });
        if read.is_ok() { String::from_utf8_lossy(&bytes).into_owned() } else { String::new() }
    }

    /// Why a connection ended, as far as the master has said so.
    pub(crate) fn last_words(&self) -> String {
        said(&self.log_since(0))
    }

    /// Ends the master, and with it everything that goes through it.
    pub(crate) async fn close(&self) {
        let mut ssh = tokio::process::Command::new("ssh");
        ssh.arg("-F").arg(self.directory.join("config")).arg("-S").arg(self.directory.join("m"));
        ssh.args(["-O", "exit", "--", ALIAS]).kill_on_drop(true);
        ssh.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let _ = tokio::time::timeout(CLOSE_DEADLINE, ssh.status()).await;
    }
}

impl Drop for Master {
    /// Whoever still holds it may be about to log in by its configuration.
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

/// Lines of `known_hosts` for pinned keys.
fn pinned(keys: &[HostKey]) -> String {
    keys.iter().map(|key| format!("{ALIAS} {key}\n")).collect()
}

/// The configuration of one connection. The user's own and the system's are not read: what a Host says is all.
fn configuration(target: &Target, known_hosts: &Path) -> Result<String, ContactError> {
    let wrong = |what: &str| ContactError::Local { detail: format!("the target's {what} is not usable") };
    if !is_address(&target.address) {
        return Err(wrong("address"));
    }
    // `%` begins a token of ssh's.
    let address = target.address.replace('%', "%%");
    let mut text = format!(
        "Host {ALIAS}\n HostName {address}\n Port {}\n ConnectTimeout {CONNECT_SECONDS}\n \
         ServerAliveInterval {ALIVE_SECONDS}\n ServerAliveCountMax {ALIVE_PROBES}\n \
         ControlPersist {PERSIST_SECONDS}\n StrictHostKeyChecking yes\n UpdateHostKeys no\n CheckHostIP no\n \
         VerifyHostKeyDNS no\n BatchMode yes\n PreferredAuthentications publickey\n PasswordAuthentication no\n \
         KbdInteractiveAuthentication no\n ForwardAgent no\n ForwardX11 no\n PermitLocalCommand no\n \
         RequestTTY no\n AddKeysToAgent no\n LogLevel INFO\n StreamLocalBindUnlink yes\n",
        target.port,
    );
    if let Some(ciphers) = ciphers() {
        text.push_str(&format!(" Ciphers {ciphers}\n"));
    }
    if let Some(user) = &target.user {
        if !is_login(user) {
            return Err(wrong("user"));
        }
        text.push_str(&format!(" User {user}\n"));
    }
    if let Some(file) = &target.key_file {
        if file.chars().any(|character| character.is_control() || "\"%$".contains(character)) {
            return Err(wrong("keyFile"));
        }
        text.push_str(&format!(" IdentitiesOnly yes\n IdentityFile \"{file}\"\n"));
    }
    if !target.host_keys.is_empty() {
        let path = known_hosts.display();
        text.push_str(&format!(
            " HostKeyAlias {ALIAS}\n UserKnownHostsFile {path}\n GlobalKnownHostsFile /dev/null\n \
             HostKeyAlgorithms {}\n",
            algorithms(&target.host_keys)
        ));
    }
    Ok(text)
}

/// What OpenSSH offers by itself since 6.5, in another order: where a processor helps with AES, that takes half of the
/// time that ChaCha20 does, on both sides.
const CIPHERS: &str = "aes256-gcm@openssh.com,aes128-gcm@openssh.com,chacha20-poly1305@openssh.com,aes256-ctr,\
                       aes192-ctr,aes128-ctr";

/// How a login agrees on keys that nothing secret goes by. Since 9.0 OpenSSH prefers an exchange that keeps what is
/// recorded today from the quantum computers of tomorrow, which takes each side 60 ms of a processor until 9.9. Whom one
/// talks to is proved by the host's key, in either. All others stay on offer.
const QUICK_AGREEMENT: [&str; 2] = ["-o", "KexAlgorithms=^curve25519-sha256"];

/// Whether the ssh of this machine takes that: before 8.1 it does not, nor where it is held to a policy without it.
///
/// # Errors
/// It took too long to say.
pub(crate) async fn agrees_quickly() -> Result<bool, Elapsed> {
    let mut ssh = tokio::process::Command::new("ssh");
    ssh.args(["-F", "none", "-G"]).args(QUICK_AGREEMENT).args(["--", ALIAS]).kill_on_drop(true);
    ssh.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = tokio::time::timeout(CLOSE_DEADLINE, ssh.status()).await?;
    Ok(status.is_ok_and(|status| status.success()))
}

/// Which ciphers are offered, where that is not left to ssh: it is where this machine has to compute AES, and where
/// its kernel holds everybody to FIPS, by which an ssh may refuse a list that names others.
fn ciphers() -> Option<&'static str> {
    #[cfg(target_arch = "x86_64")]
    let quick = std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    let quick = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let quick = false;
    let held = fs::read_to_string("/proc/sys/crypto/fips_enabled").is_ok_and(|held| held.trim() != "0");
    (quick && !held).then_some(CIPHERS)
}

/// What the host is asked to prove: only keys that are pinned, else it may show another one that is its own too.
fn algorithms(keys: &[HostKey]) -> String {
    let mut names = Vec::new();
    for key in keys {
        let text = key.to_string();
        let of_key: &[&str] = match text.split(' ').next().unwrap_or_default() {
            "ssh-rsa" => &["rsa-sha2-512", "rsa-sha2-256"],
            "ssh-ed25519" => &["ssh-ed25519"],
            "ecdsa-sha2-nistp256" => &["ecdsa-sha2-nistp256"],
            "ecdsa-sha2-nistp384" => &["ecdsa-sha2-nistp384"],
            "ecdsa-sha2-nistp521" => &["ecdsa-sha2-nistp521"],
            "sk-ssh-ed25519@openssh.com" => &["sk-ssh-ed25519@openssh.com"],
            "sk-ecdsa-sha2-nistp256@openssh.com" => &["sk-ecdsa-sha2-nistp256@openssh.com"],
            _ => &[],
        };
        names.extend(of_key.iter().filter(|name| !names.contains(*name)).collect::<Vec<_>>());
    }
    if names.is_empty() { "ssh-ed25519".to_owned() } else { names.join(",") }
}

/// ssh's words, without what it repeats to everyone.
fn said(log: &str) -> String {
    let skip = |line: &&str| {
        let line = line.trim();
        !(line.is_empty() || line.starts_with('@') || line.starts_with("Warning: Permanently added"))
    };
    let mut text = log.lines().filter(skip).map(str::trim).collect::<Vec<_>>().join("; ").replace(ALIAS, "the host");
    if let Some((end, _)) = text.char_indices().nth(LONGEST_DETAIL) {
        text.truncate(end);
        text.push('…');
    }
    if text.is_empty() { "ssh said nothing".to_owned() } else { text }
}

/// What makes a login possible.
const LET_IN: &str =
    "put the public key into ~/.ssh/authorized_keys of the login there, or say which key with spec.identity.keyFile";

/// What ssh says of every key that is not the known one, of which a status needs none.
const ALARM: [&str; 8] = [
    "IT IS POSSIBLE",
    "Someone could",
    "It is also possible",
    "Please contact",
    "Add correct host key",
    "remove with:",
    "ssh-keygen -f",
    "Host key verification failed",
];

/// What ssh says of a key that it does not know, and what to do about it. Where pinned keys lie is nobody's business:
/// they are in the declaration.
fn about_key(log: &str) -> String {
    let ours = format!("/{PREFIX}");
    let alarms = |line: &str| ALARM.iter().any(|alarm| line.starts_with(alarm)) || line.contains(&ours);
    let words: Vec<&str> = log.lines().map(str::trim).filter(|line| !alarms(line)).collect();
    let said = said(&words.join("\n")).replace("host is; SHA256", "host is SHA256");
    let advice = if log.contains("is known for") {
        "`windlass host add` shows its key and pins it"
    } else {
        "if it has another key now, compare that with what the host itself says (`ssh-keygen -lf` with the file in \
         /etc/ssh) before you let it be known"
    };
    format!("{said}; {advice}")
}

/// What kept ssh from connecting, by its words. Words that nobody knows are kept, and count as a refusal.
fn classify(log: &str) -> ContactError {
    let has = |words: &[&str]| words.iter().any(|word| log.contains(word));
    let detail = said(log);
    if has(&[
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "Host key verification failed",
        "host key is known for",
        "no matching host key type",
        "REVOKED HOST KEY",
    ]) {
        ContactError::HostKey { detail: about_key(log) }
    } else if has(&["Permission denied", "Too many authentication failures", "No supported authentication methods"]) {
        ContactError::Login { detail: format!("{detail}; {LET_IN}") }
    } else if has(&["Could not resolve hostname"]) {
        ContactError::NoAddress { detail }
    } else if has(&["timed out", "Timeout, server"]) {
        ContactError::Timeout { seconds: CONNECT_SECONDS }
    } else if has(&["Bad configuration option", "Bad owner or permissions", "terminating, ", "unix_listener"]) {
        ContactError::Local { detail }
    } else {
        ContactError::Refused { detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What OpenSSH 9.2 wrote in each case, and what it is taken for.
    #[test]
    fn words_of_ssh_are_told_apart() {
        for (log, kind) in [
            ("ssh: connect to host 198.18.0.9 port 22: Connection timed out\r\n", "Timeout"),
            ("Connection timed out during banner exchange\r\n", "Timeout"),
            ("ssh: connect to host 198.18.0.9 port 22: Connection refused\r\n", "Refused"),
            ("ssh: connect to host 198.18.0.9 port 22: No route to host\r\n", "Refused"),
            ("kex_exchange_identification: Connection closed by remote host\r\n", "Refused"),
            ("ssh: Could not resolve hostname nowhere.invalid: Name or service not known\r\n", "NoAddress"),
            ("No ED25519 host key is known for windlass and you have requested strict checking.\r\n", "HostKey"),
            ("root@198.18.0.9: Permission denied (publickey).\r\n", "Login"),
            ("/x/config: line 3: Bad configuration option: nonsense\r\n", "Local"),
        ] {
            let error = format!("{:?}", classify(log));
            assert!(error.starts_with(kind), "{log:?} is {error}");
        }
    }

    /// Those that ssh 9.2 writes where sshd has MaxStartups 1:100:1, and the one of sshd 9.8 and later.
    #[test]
    fn who_is_turned_away_may_come_again() {
        for log in [
            "kex_exchange_identification: read: Connection reset by peer\r\n",
            "kex_exchange_identification: Connection closed by remote host\r\nConnection closed by 198.18.0.9 port 22\r\n",
            "banner exchange: Connection to 198.18.0.9 port 22: Broken pipe\r\n",
            "kex_protocol_error: type 78 seq 0\r\nNot allowed at this time\r\n",
        ] {
            let NotIn::TurnedAway(error) = NotIn::by(log) else { panic!("{log}") };
            assert!(error.to_string().contains("MaxStartups"), "{error}");
        }
        for log in [
            "ssh: connect to host 198.18.0.9 port 22: Connection refused\r\n",
            "ssh: connect to host 198.18.0.9 port 22: Connection reset by peer\r\n",
            "Connection timed out during banner exchange\r\n",
            "root@198.18.0.9: Permission denied (publickey).\r\n",
        ] {
            assert!(matches!(NotIn::by(log), NotIn::Failed(_)), "{log}");
        }
    }

    /// What is told of a key begins with what matters, and ends with what to do.
    #[test]
    fn a_changed_key_is_told_without_alarm() {
        let changed = |file: &str| {
            classify(&format!(
                "@@@@@\r\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\r\n@@@@@\r\nIT IS POSSIBLE THAT \
                 SOMEONE IS DOING SOMETHING NASTY!\r\nSomeone could be eavesdropping on you right now \
                 (man-in-the-middle attack)!\r\nIt is also possible that a host key has just been changed.\r\nThe \
                 fingerprint for the ED25519 key sent by the remote host is\nSHA256:ZuH.\r\nPlease contact your system \
                 administrator.\r\nAdd correct host key in {file} to get rid of this message.\r\nOffending ED25519 key \
                 in {file}:1\r\n  remove with:\r\n  ssh-keygen -f \"{file}\" -R \"web1\"\r\nHost key for web1 has \
                 changed and you have requested strict checking.\r\nHost key verification failed.\r\n"
            ))
            .to_string()
        };
        let told = "its host key is not the one that is pinned or known: The fingerprint for the ED25519 key sent by \
                    the remote host is SHA256:ZuH.; ";
        let known = changed("/root/.ssh/known_hosts");
        assert!(known.starts_with(&format!("{told}Offending ED25519 key in /root/.ssh/known_hosts:1; ")), "{known}");
        let pinned = changed("/tmp/wl-abcdef/0/known_hosts");
        assert!(pinned.starts_with(&format!("{told}Host key for web1 has changed")), "{pinned}");
        assert!(pinned.contains("ssh-keygen -lf"), "{pinned}");
    }

    /// An older or another ssh may know fewer; the one here has to take the list, and to offer nothing less than before.
    #[test]
    fn the_ciphers_are_those_of_ssh_in_another_order() {
        let dump = |options: &[&str]| {
            let output = std::process::Command::new("ssh").args(["-F", "none", "-G"]).args(options).arg("x").output();
            let output = output.expect("ssh");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let line = text.lines().find_map(|line| line.strip_prefix("ciphers ")).expect("ciphers").to_owned();
            let mut names: Vec<String> = line.split(',').map(str::to_owned).collect();
            names.sort();
            names
        };
        assert_eq!(dump(&["-o", &format!("Ciphers={CIPHERS}")]), dump(&[]));
    }

    #[tokio::test]
    async fn a_quick_agreement_offers_all_that_ssh_does() {
        assert_eq!(agrees_quickly().await, Ok(true), "the ssh here is a new one");
        let offered = |options: &[&str]| {
            let output = std::process::Command::new("ssh").args(["-F", "none", "-G"]).args(options).arg("x").output();
            let text = String::from_utf8_lossy(&output.expect("ssh").stdout).into_owned();
            let line = text.lines().find_map(|line| line.strip_prefix("kexalgorithms ")).expect("a line").to_owned();
            line.split(',').map(str::to_owned).collect::<Vec<_>>()
        };
        let (mut usual, mut quick) = (offered(&[]), offered(&QUICK_AGREEMENT));
        assert_eq!(quick[0], "curve25519-sha256");
        usual.sort();
        quick.sort();
        assert_eq!(usual, quick);
    }

    #[test]
    fn nothing_of_a_target_becomes_an_option() {
        let target = |address: &str, user: Option<&str>, key_file: Option<&str>| Target {
            address: address.to_owned(),
            user: user.map(str::to_owned),
            key_file: key_file.map(str::to_owned),
            ..Target::inline(&"root@198.18.0.9".parse().expect("a destination")).expect("inline")
        };
        let configure = |target: &Target| configuration(target, Path::new("/tmp/known"));
        assert!(configure(&target("fe80::1", Some("root"), Some("~/.ssh/id"))).is_ok());
        for wrong in [
            target("-oProxyCommand=x", None, None),
            target("a\nProxyCommand x", None, None),
            target("a b", None, None),
            target("a", Some("-x"), None),
            target("a", Some("x y"), None),
            target("a", None, Some("/a\"\nProxyCommand x")),
        ] {
            assert!(configure(&wrong).is_err(), "{wrong:?}");
        }
    }
}
