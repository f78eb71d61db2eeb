//! The embedded store, driven by `etcdctl` of both versions.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use windlass_store::mvcc::{Memory, restore};
use windlass_testbed::EtcdVersion;

use crate::subject::{Embedded, Keeping};
use crate::{PATIENCE, report};

/// Keys that `check perf` is let write in an ordinary run: some seconds of its minute.
const PERF_KEYS: u64 = 300;

/// An `etcdctl` that goes on until it is dropped.
struct Going(Child);

impl Drop for Going {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One store, and an `etcdctl` of one version.
struct Driven {
    version: EtcdVersion,
    store: Embedded,
}

impl Driven {
    fn start(version: EtcdVersion, keeping: Keeping) -> Result<Self> {
        Ok(Self { version, store: Embedded::start(keeping)? })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.version.etcdctl());
        command.env("ETCDCTL_API", "3").arg("--endpoints").arg(self.store.address()).args(arguments);
        command
    }

    fn says(&self, arguments: &[&str]) -> Result<String> {
        self.says_to(arguments, "")
    }

    /// With standard input.
    fn says_to(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = self.command(arguments);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("etcdctl")?;
        child.stdin.take().context("it was piped")?.write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{:?} {arguments:?}: {said}", self.version);
        Ok(said)
    }

    fn check(&self, rows: &[(&[&str], &str)]) -> Result<()> {
        for (arguments, expected) in rows {
            let said = self.says(arguments)?;
            ensure!(said.contains(expected), "{:?} {arguments:?}: {said:?} lacks {expected:?}", self.version);
        }
        Ok(())
    }

    /// Begins something that goes on, and gives the lines that it writes.
    fn begin(&self, arguments: &[&str]) -> Result<(Going, mpsc::Receiver<String>)> {
        let mut child = self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let output = BufReader::new(child.stdout.take().context("it was piped")?);
        let (line, lines) = mpsc::channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|told| line.send(told)));
        Ok((Going(child), lines))
    }

    fn count(&self, prefix: &str) -> Result<u64> {
        let said = self.says(&["get", "--prefix", prefix, "--keys-only", "--limit=1", "--write-out=fields"])?;
        let count = said.lines().find_map(|line| line.strip_prefix("\"Count\" : "));
        count.and_then(|count| count.parse().ok()).with_context(|| format!("no count in {said}"))
    }

    fn wait_for_count(&self, prefix: &str, least: u64) -> Result<()> {
        let begun = Instant::now();
        while self.count(prefix)? < least {
            ensure!(begun.elapsed() < PATIENCE, "{:?}: {} keys in {prefix}", self.version, self.count(prefix)?);
        }
        Ok(())
    }
}

#[test]
fn it_reads_and_writes() -> Result<()> {
    for version in EtcdVersion::ALL {
        let driven = Driven::start(version, Keeping::Memory)?;
        driven.check(&[
            (&["put", "a/1", "one"], "OK\n"),
            (&["put", "a/2", "two"], "OK\n"),
            (&["put", "b", "three", "--prev-kv"], "OK\n"),
            (&["get", "--prefix", "a/"], "a/1\none\na/2\ntwo\n"),
            (&["put", "a/1", "uno"], "OK\n"),
            (&["get", "a/1", "--rev", "3"], "a/1\none\n"),
            (
                &["get", "", "--from-key", "--keys-only", "--sort-by", "MODIFY", "--order", "DESCEND"],
                "a/1\n\nb\n\na/2\n\n",
            ),
        ])?;
        let (_watch, lines) = driven.begin(&["watch", "--prefix", "a/", "--rev", "2"])?;
        for expected in ["PUT", "a/1", "one", "PUT", "a/2", "two", "PUT", "a/1", "uno"] {
            ensure!(lines.recv_timeout(PATIENCE)? == expected, "{version:?}: {expected} is not what was watched");
        }
        let txn = "value(\"a/1\") = \"uno\"\n\nput c yes\nget b\n\nput c no\n\n";
        ensure!(driven.says_to(&["txn"], txn)?.contains("SUCCESS\n\nOK\n\nb\nthree\n"), "{version:?}");
        ensure!(driven.says_to(&["txn"], &txn.replace("uno", "one"))?.contains("FAILURE\n\nOK\n"), "{version:?}");
        driven.check(&[
            (&["get", "c"], "c\nno\n"),
            (&["del", "a/", "--prefix"], "2\n"),
            (&["compaction", "7"], "compacted revision 7\n"),
        ])?;
        let gone = driven.says(&["get", "a/1", "--rev", "3"]).expect_err("compacted");
        ensure!(report(gone).contains("required revision has been compacted"), "{version:?}");
        let gone = driven.says(&["watch", "a/1", "--rev", "3"]).expect_err("compacted");
        ensure!(report(gone).contains("required revision has been compacted"), "{version:?}");
    }
    Ok(())
}

#[test]
fn it_holds_leases_and_locks() -> Result<()> {
    for version in EtcdVersion::ALL {
        let driven = Driven::start(version, Keeping::Memory)?;
        driven.check(&[(&["lease", "list"], "found 0 leases\n")])?;
        let granted = driven.says(&["lease", "grant", "60"])?;
        let lease = granted.split_whitespace().nth(1).context("a lease's number")?;
        driven.check(&[
            (&["put", "leased", "x", "--lease", lease], "OK\n"),
            (&["lease", "timetolive", lease, "--keys"], "attached keys([leased])"),
            (&["lease", "keep-alive", "--once", lease], "keepalived with TTL(60)"),
            (&["lease", "list"], lease),
            (&["lease", "revoke", lease], "revoked"),
        ])?;
        ensure!(driven.says(&["get", "leased"])?.is_empty(), "it goes with its lease");
        driven.check(&[(&["lock", "door", "echo", "inside"], "inside\n")])?;
    }
    Ok(())
}

#[test]
fn it_is_kept_up() -> Result<()> {
    let folder = TempDir::new()?;
    for (version, keeping) in EtcdVersion::ALL.into_iter().zip([Keeping::Memory, Keeping::Disk]) {
        let driven = Driven::start(version, keeping)?;
        driven.check(&[
            (&["put", "a", "1"], "OK\n"),
            (&["endpoint", "status"], "3.5.0"),
            (&["endpoint", "health"], "is healthy"),
            (&["endpoint", "hashkv"], ","),
            (&["member", "list"], "8, started, windlass, , "),
            (&["alarm", "list"], ""),
            (&["defrag"], "Finished defragmenting"),
        ])?;
        let file = folder.path().join(format!("{version:?}"));
        let path = file.to_str().context("a path of letters")?;
        driven.check(&[(&["snapshot", "save", path], "Snapshot saved at")])?;
        let restored = restore(&mut File::open(&file)?, &Memory::default())?;
        ensure!((restored.revision, restored.changes) == (2, 1), "{version:?}: {restored:?}");
    }
    Ok(())
}

#[test]
fn it_mirrors_from_it_and_to_it() -> Result<()> {
    for version in EtcdVersion::ALL {
        let (from, to) = (Driven::start(version, Keeping::Memory)?, Driven::start(version, Keeping::Memory)?);
        from.check(&[(&["put", "a/1", "one"], "OK\n")])?;
        let (_mirror, _lines) = from.begin(&["make-mirror", "--prefix", "a/", to.store.address()])?;
        to.wait_for_count("a/", 1)?;
        from.check(&[(&["put", "a/2", "two"], "OK\n"), (&["put", "b", "x"], "OK\n")])?;
        to.wait_for_count("a/", 2)?;
        to.check(&[(&["get", "--prefix", "a/"], "a/1\none\na/2\ntwo\n")])?;
        ensure!(to.count("")? == 2, "only what was asked for");
    }
    Ok(())
}

#[test]
fn it_is_checked_for_some_seconds() -> Result<()> {
    for version in EtcdVersion::ALL {
        let driven = Driven::start(version, Keeping::Disk)?;
        let (_check, _lines) = driven.begin(&["check", "perf"])?;
        driven.wait_for_count("/etcdctl-check-perf/", PERF_KEYS)?;
    }
    Ok(())
}

#[test]
#[ignore = "etcdctl takes a minute for it; `make soak` runs it"]
fn it_passes_the_check_of_a_minute() -> Result<()> {
    for version in EtcdVersion::ALL {
        let driven = Driven::start(version, Keeping::Disk)?;
        driven.check(&[(&["check", "perf"], "PASS\n")])?;
    }
    Ok(())
}
