//! The tree that every host is an overlay on, and the keys that log in there.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::command::{run, spawn_error};

const RECIPE: &str = include_str!("base.sh");

const KEY: &str = "key";

/// The base tree and the keys, built on first use and shared by every process of this machine.
#[derive(Debug, Clone)]
pub(crate) struct Base {
    /// Root of the tree; only ever an overlay's lower layer.
    pub(crate) tree: PathBuf,
    /// Private key that every login accepts.
    pub(crate) key: PathBuf,
    /// Private key that no login accepts.
    pub(crate) stranger_key: PathBuf,
}

impl Base {
    /// Finds the base, or builds it, which takes about a minute.
    pub(crate) fn ready() -> Result<Self> {
        let cache = cache_dir();
        fs::create_dir_all(&cache).with_context(|| format!("creating {}", cache.display()))?;
        let lock = File::create(cache.join("lock")).context("opening the lock of the base tree")?;
        lock.lock().context("locking the base tree")?;

        let key = key_pair(&cache, KEY)?;
        let stranger_key = key_pair(&cache, "stranger-key")?;
        let public_key = key.with_added_extension("pub");
        let authorised = fs::read_to_string(&public_key).context("reading the public key")?;
        let tree = cache.join(format!("base-{:016x}", fingerprint(&[RECIPE, &authorised])));
        if !tree.exists() {
            build(&cache, &tree, &public_key)?;
        }
        Ok(Self { tree, key, stranger_key })
    }

    /// Where the key is, or would be.
    pub(crate) fn key_file() -> PathBuf {
        cache_dir().join(KEY)
    }
}

fn cache_dir() -> PathBuf {
    std::env::var_os("WINDLASS_TESTBED_DIR").map_or_else(|| PathBuf::from("/var/cache/windlass-testbed"), PathBuf::from)
}

fn key_pair(cache: &Path, name: &str) -> Result<PathBuf> {
    let key = cache.join(name);
    if !key.with_added_extension("pub").exists() {
        make_key(&key, "windlass-testbed")?;
    }
    Ok(key)
}

/// Makes an ed25519 key pair without a passphrase, replacing what is there.
pub(crate) fn make_key(file: &Path, comment: &str) -> Result<()> {
    let _ = fs::remove_file(file);
    let arguments = ["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"];
    let arguments = arguments.iter().map(AsRef::as_ref).chain([file.as_os_str()]);
    run("ssh-keygen", &arguments.collect::<Vec<_>>()).map(drop)
}

#[expect(clippy::print_stderr, reason = "a silent minute looks like a hang")]
fn build(cache: &Path, tree: &Path, public_key: &Path) -> Result<()> {
    eprintln!("windlass-testbed: building {}, once; it takes about a minute", tree.display());
    let building = cache.join("building");
    // The lock is ours, so whatever is there was left by a build that was killed.
    if building.exists() {
        remove_tree(&building)?;
    }
    let log = cache.join("build.log");
    let output = File::create(&log).context("creating the log of the build")?;
    let mirror = std::env::var("WINDLASS_TESTBED_MIRROR").unwrap_or_else(|_| "http://deb.debian.org/debian".to_owned());
    // In a mount namespace of its own, so that a killed build leaves no proc mounted in the tree.
    let status = Command::new("unshare")
        .args(["--mount", "sh", "-c", RECIPE, "base.sh"])
        .args([&building, Path::new(&mirror), public_key])
        .stdin(Stdio::null())
        .stdout(output.try_clone().context("sharing the log of the build")?)
        .stderr(output)
        .status()
        .map_err(|error| spawn_error("unshare", error))?;
    if !status.success() {
        bail!("building the base tree failed, {status}:\n{}", tail(&log));
    }
    fs::rename(&building, tree).with_context(|| format!("moving {} in place", tree.display()))
}

/// Removes a tree, but nothing that is mounted in it.
pub(crate) fn remove_tree(tree: &Path) -> Result<()> {
    run("rm", &["-rf".as_ref(), "--one-file-system".as_ref(), tree.as_os_str()]).map(drop)
}

/// The last lines of a log, for an error message.
pub(crate) fn tail(log: &Path) -> String {
    const LINES: usize = 30;
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// FNV-1a: it only has to tell recipes apart, the same on every toolchain.
fn fingerprint(parts: &[&str]) -> u64 {
    parts
        .iter()
        .flat_map(|part| part.bytes().chain([0]))
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
