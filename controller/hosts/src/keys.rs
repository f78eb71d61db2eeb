//! Host keys that nobody has pinned yet: what a host shows, how people compare it, and what known_hosts says of it.

use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use windlass_crds::host::HostKey;
use windlass_crds::id::is_address;
use windlass_crds::step::ContactError;

/// How long ssh-keyscan may wait for a host: it tells within 10 s that one does not answer.
const SCAN_SECONDS: u64 = 8;

/// A little more than that, and the most for anything that happens on this machine alone.
const DEADLINE: Duration = Duration::from_millis(9500);

/// The types of keys that are asked for, the one to pin first.
const TYPES: [&str; 3] = ["ssh-ed25519", "ecdsa-sha2-", "ssh-rsa"];

/// A key that a host has shown. Nothing proves yet that it is that host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownKey {
    /// The key.
    pub key: HostKey,
    /// Its fingerprint as `ssh-keygen -lf` prints it: `SHA256:…`.
    pub fingerprint: String,
    /// Its type as `ssh-keygen -lf` prints it: `ED25519`.
    pub kind: String,
}

impl ShownKey {
    /// Where a host keeps its public key of this type.
    pub fn file(&self) -> String {
        format!("/etc/ssh/ssh_host_{}_key.pub", self.kind.to_ascii_lowercase())
    }
}

/// What known_hosts says of a host's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// Nothing.
    No,
    /// One of the keys that the host shows.
    Same {
        /// In which file.
        file: PathBuf,
        /// Which: of the others that the host shows, nothing is known.
        key: HostKey,
    },
    /// Another key, or that the one it shows must not be trusted.
    Another {
        /// In which file.
        file: PathBuf,
    },
}

/// The keys that a host shows to anybody who asks, the one to pin first.
///
/// # Errors
/// When nothing answers there, or OpenSSH's client is not installed here.
pub async fn show(address: &str, port: NonZeroU16) -> Result<Vec<ShownKey>, ContactError> {
    if !is_address(address) {
        return Err(ContactError::Local { detail: format!("{address:?} is not an address") });
    }
    let (seconds, port) = (SCAN_SECONDS.to_string(), port.to_string());
    let scan = ["-T", &seconds, "-p", &port, "-t", "ed25519,ecdsa,rsa", "--", address];
    let began = Instant::now();
    let (_, said, complaints) = run("ssh-keyscan", &scan, None).await?;
    let mut keys: Vec<HostKey> = said.lines().filter(|line| !line.starts_with('#')).filter_map(key_of_line).collect();
    keys.sort_by_key(rank);
    keys.dedup();
    if keys.is_empty() {
        return Err(silence(&complaints, began.elapsed()));
    }
    let mut shown = Vec::new();
    for key in keys {
        shown.push(fingerprint(key).await?);
    }
    Ok(shown)
}

/// What this user's and this machine's known_hosts say of the keys that a host shows.
///
/// # Errors
/// When OpenSSH's client is not installed here.
pub async fn known(address: &str, port: NonZeroU16, shown: &[ShownKey]) -> Result<Known, ContactError> {
    let name = if port.get() == 22 { address.to_owned() } else { format!("[{address}]:{port}") };
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let own = home.iter().flat_map(|home| ["known_hosts", "known_hosts2"].map(|file| home.join(".ssh").join(file)));
    let files: Vec<PathBuf> = own.chain([PathBuf::from("/etc/ssh/ssh_known_hosts")]).collect();
    let mut answer = Known::No;
    for file in files.into_iter().filter(|file| file.is_file()) {
        match known_in(&file, &name, shown).await? {
            Known::No => {}
            same @ Known::Same { .. } if answer == Known::No => answer = same,
            Known::Same { .. } => {}
            // However often another file agrees.
            another @ Known::Another { .. } => return Ok(another),
        }
    }
    Ok(answer)
}

async fn known_in(file: &Path, name: &str, shown: &[ShownKey]) -> Result<Known, ContactError> {
    let path = file.display().to_string();
    let (_, said, _) = run("ssh-keygen", &["-F", name, "-f", &path], None).await?;
    Ok(compare(&said, file, shown))
}

/// Reads the lines of a known_hosts file that are about a host.
fn compare(lines: &str, file: &Path, shown: &[ShownKey]) -> Known {
    let is_shown = |key: &HostKey| shown.iter().any(|one| one.key == *key);
    let (mut any, mut same) = (false, None);
    for line in lines.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix('@') {
            None => {
                let Some(key) = key_of_line(line) else { continue };
                any = true;
                same = same.or(Some(key).filter(is_shown));
            }
            Some(rest) if rest.starts_with("revoked") => {
                let key = rest.split_once(' ').and_then(|(_, rest)| key_of_line(rest));
                if key.as_ref().is_some_and(is_shown) {
                    return Known::Another { file: file.to_owned() };
                }
            }
            // An authority may vouch for any key; nothing is said of this one.
            Some(_) => {}
        }
    }
    match (any, same) {
        (false, _) => Known::No,
        (true, Some(key)) => Known::Same { file: file.to_owned(), key },
        (true, None) => Known::Another { file: file.to_owned() },
    }
}

/// The key of a line `name type key`.
fn key_of_line(line: &str) -> Option<HostKey> {
    line.split_once(' ')?.1.parse().ok()
}

fn rank(key: &HostKey) -> usize {
    let text = key.to_string();
    TYPES.iter().position(|kind| text.starts_with(kind)).unwrap_or(TYPES.len())
}

async fn fingerprint(key: HostKey) -> Result<ShownKey, ContactError> {
    let (ended_well, said, complaints) = run("ssh-keygen", &["-l", "-E", "sha256", "-f", "-"], Some(&key)).await?;
    // `256 SHA256:… no comment (ED25519)`
    let fingerprint = said.split(' ').nth(1).filter(|word| ended_well && word.starts_with("SHA256:"));
    let kind = said.trim_end().rsplit_once('(').and_then(|(_, kind)| kind.strip_suffix(')'));
    match (fingerprint, kind) {
        (Some(fingerprint), Some(kind)) => {
            Ok(ShownKey { fingerprint: fingerprint.to_owned(), kind: kind.to_owned(), key })
        }
        _ => Err(ContactError::Garbled { detail: format!("ssh-keygen says of its key: {said}{complaints}") }),
    }
}

/// Why ssh-keyscan has no key to show. It says nothing of a refusal, which only comes sooner than the end of its time.
fn silence(complaints: &str, took: Duration) -> ContactError {
    let lines: Vec<&str> = complaints.lines().map(str::trim).filter(|line| !line.starts_with('#')).collect();
    let detail = lines.first().copied().unwrap_or_default().to_owned();
    if complaints.contains("getaddrinfo") {
        ContactError::NoAddress { detail }
    } else if took.as_secs() >= SCAN_SECONDS {
        ContactError::Timeout { seconds: SCAN_SECONDS }
    } else if detail.is_empty() {
        ContactError::Refused { detail: "no sshd shows a key there".to_owned() }
    } else {
        ContactError::Refused { detail }
    }
}

/// Runs one of OpenSSH's programs: whether it ended well, and what it wrote to each of its outputs.
async fn run(
    program: &str,
    arguments: &[&str],
    input: Option<&HostKey>,
) -> Result<(bool, String, String), ContactError> {
    let local = |error: std::io::Error| ContactError::Local { detail: format!("{program}: {error}") };
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C").kill_on_drop(true);
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            ContactError::Local { detail: format!("{program} is not installed here; install openssh-client") }
        }
        _ => local(error),
    })?;
    if let (Some(mut stdin), Some(key)) = (child.stdin.take(), input) {
        stdin.write_all(format!("{key}\n").as_bytes()).await.map_err(local)?;
    }
    match tokio::time::timeout(DEADLINE, child.wait_with_output()).await {
        Ok(output) => {
            let output = output.map_err(local)?;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Ok((output.status.success(), text(&output.stdout), text(&output.stderr)))
        }
        Err(_) => Err(ContactError::Timeout { seconds: DEADLINE.as_secs() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIECbeTt7MaivvwPRiStQ28iE+cqpkpYOTB5dQVSHigMW";
    const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIECbeTt7MaivvwPRiStQ28iE+cqpkpYOTB5dQVSHigMX";

    fn shown() -> ShownKey {
        ShownKey { key: ONE.parse().expect("a key"), fingerprint: "SHA256:x".to_owned(), kind: "ED25519".to_owned() }
    }

    #[test]
    fn only_the_key_that_is_known_is_vouched_for() {
        let strange = ShownKey { key: OTHER.parse().expect("a key"), ..shown() };
        let known = compare(&format!("a {ONE}\n"), &PathBuf::from("/f"), &[strange, shown()]);
        assert_eq!(known, Known::Same { file: "/f".into(), key: shown().key });
    }

    #[test]
    fn what_known_hosts_says_is_told_apart() {
        let file = || PathBuf::from("/f");
        for (lines, expected) in [
            (String::new(), Known::No),
            (format!("# Host a found: line 1\na {ONE}\n"), Known::Same { file: file(), key: shown().key }),
            (format!("|1|x=|y= {ONE} a comment\n"), Known::Same { file: file(), key: shown().key }),
            (format!("a {OTHER}\n"), Known::Another { file: file() }),
            (format!("a {OTHER}\na {ONE}\n"), Known::Same { file: file(), key: shown().key }),
            (format!("a {ONE}\n@revoked a {ONE}\n"), Known::Another { file: file() }),
            (format!("@revoked a {OTHER}\n@cert-authority a {OTHER}\n"), Known::No),
        ] {
            assert_eq!(compare(&lines, &file(), &[shown()]), expected, "{lines}");
        }
    }

    #[test]
    fn silence_has_a_reason() {
        for (complaints, seconds, kind) in [
            ("getaddrinfo nowhere.invalid: Name or service not known\n", 0, "NoAddress"),
            ("connect (`198.18.0.9'): Connection refused\n", 0, "Refused"),
            ("", 0, "Refused"),
            ("", 8, "Timeout"),
        ] {
            let error = format!("{:?}", silence(complaints, Duration::from_secs(seconds)));
            assert!(error.starts_with(kind), "{complaints:?} is {error}");
        }
    }
}
