//! The embedded store, as its users meet it: nothing else to install, and nobody let in who has no certificate.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use tempfile::TempDir;
use windlass_testbed::EtcdVersion;

use crate::world::{binary, service, show};

/// A controller with a store of its own; dropped, it is killed.
pub(crate) struct Serving {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStderr>>,
}

impl Serving {
    /// Starts one, and waits until it leads.
    pub(crate) fn start(dir: &Path, more: &[&str]) -> Self {
        let arguments = ["serve", "--listen", "127.0.0.1:0", "--etcd-listen", "127.0.0.1:0", "--data-dir", "data"];
        let mut command = binary(dir, &[&arguments[..], more].concat());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("the binary runs");
        let lines = BufReader::new(child.stderr.take().expect("stderr")).lines();
        let mut serving = Self { child, lines };
        let mut seen = Vec::new();
        loop {
            let line = serving.lines.next().unwrap_or_else(|| panic!("it ended: {seen:#?}")).expect("UTF-8");
            seen.push(line);
            if seen.last().is_some_and(|line| line.contains("leading")) {
                return serving;
            }
        }
    }

    /// Asks it to stop, and returns the rest of its log.
    pub(crate) fn stop(mut self) -> Vec<String> {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").arg(id).status().expect("kill").success());
        let rest = self.lines.by_ref().map_while(Result::ok).collect();
        assert!(self.child.wait().expect("it ends").success(), "{rest:#?}");
        rest
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command that finds the store by its data directory.
pub(crate) fn run(dir: &Path, arguments: &[&str]) -> String {
    let mut command = binary(dir, arguments);
    let output = command.env("WINDLASS_DATA_DIR", "data").stdin(Stdio::null()).output().expect("the binary runs");
    let plain = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&dir.display().to_string(), "DIR");
    show(&plain(&output.stdout), &plain(&output.stderr), output.status.code())
}

/// What a script of a shell prints that has taken what `windlass env` says.
pub(crate) fn with_env(dir: &Path, variables: &str, script: &str) -> String {
    let mut command = Command::new("sh");
    let output = command.args(["-c", &format!("{variables}\n{script}")]).current_dir(dir).output().expect("sh");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

pub(crate) fn stdout(dir: &Path, arguments: &[&str]) -> String {
    let mut command = binary(dir, arguments);
    let output = command.env("WINDLASS_DATA_DIR", "data").stdin(Stdio::null()).output().expect("the binary runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

pub(crate) fn place() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("web.yaml"), service("web")).expect("a file");
    dir
}

#[test]
fn a_controller_carries_its_own_store_and_commands_and_etcdctl_find_it() {
    let dir = place();
    let dir = dir.path();
    let serving = Serving::start(dir, &[]);
    assert!(run(dir, &["apply", "-f", "web.yaml"]).contains("service/web created"));
    let variables = stdout(dir, &["env"]);
    for version in EtcdVersion::ALL {
        let etcdctl = version.etcdctl().display().to_string();
        let keys = with_env(dir, &variables, &format!("{etcdctl} get --prefix /windlass/declared/ --keys-only"));
        assert_eq!(keys.trim(), "/windlass/declared/services/default/web", "{version:?}");
        let status = with_env(dir, &variables, &format!("{etcdctl} endpoint status"));
        assert!(status.contains(", 3.5.0, "), "{version:?}: {status}");
        // The variables are what makes the difference.
        let refused = with_env(
            dir,
            "unset WINDLASS_X",
            &format!(
                "ETCDCTL_API=3 {etcdctl} --command-timeout 1s --dial-timeout 1s --endpoints $(sed 's#.*//##' data/store/endpoint) get --prefix /"
            ),
        );
        assert!(!refused.contains("/windlass/"), "{version:?}: {refused}");
    }
    // Controllers that are stopped kindly close it, and the next one goes on with it.
    serving.stop();
    let told = run(dir, &["get", "services"]);
    assert!(told.contains("`windlass serve` runs the controller, and a store with it"), "{told}");
    let serving = Serving::start(dir, &[]);
    assert!(run(dir, &["get", "services", "-o", "name"]).contains("service/web"));
    serving.stop();
}

#[test]
fn somebody_with_a_certificate_declares_and_their_commands_work() {
    let dir = place();
    let dir = dir.path();
    let serving = Serving::start(dir, &[]);
    let variables = stdout(dir, &["store", "certificate", "ana", "--out", "ana"]);
    let windlass = env!("CARGO_BIN_EXE_windlass");
    let script =
        format!("{windlass} apply -f web.yaml; {windlass} get services -o name; {windlass} reconcile service/web");
    let said = with_env(dir, &variables, &script);
    assert!(said.contains("service/web created") && said.contains("\nservice/web\n"), "{said}");
    assert!(!said.contains("error"), "{said}");
    let etcdctl = EtcdVersion::V3_5.etcdctl().display().to_string();
    let refused = with_env(dir, &variables, &format!("{etcdctl} put /windlass/owned/default/web x"));
    assert!(refused.contains("permission denied: ana may write only below /windlass/declared/"), "{refused}");
    insta::assert_snapshot!(run(dir, &["store", "certificate", "ana", "--out", "ana"]), @r"
    -- stderr
    error: ana/ana.pem is there already
    hint: --out takes another folder
    -- exit 1
    ");
    serving.stop();
}

#[test]
fn a_second_controller_is_told_which_process_has_the_store() {
    let dir = place();
    let serving = Serving::start(dir.path(), &[]);
    let told = run(dir.path(), &["serve", "--listen", "127.0.0.1:0", "--etcd-listen", "127.0.0.1:0"]);
    let process = format!("error: process {} uses the data directory data\n", serving.child.id());
    assert!(told.contains(&process), "{told}");
    assert!(told.ends_with("-- exit 1"), "{told}");
    serving.stop();
}

/// The test runs as root, and `nobody` is anybody else.
#[test]
fn another_user_of_the_machine_gets_nothing() {
    let dir = place();
    let serving = Serving::start(dir.path(), &[]);
    let endpoint = std::fs::read_to_string(dir.path().join("data/store/endpoint")).expect("where it is");
    let data = dir.path().join("data");
    // The program lies where only its owner may look, too.
    let script = format!(
        "cat {0}/store/data {0}/store/tls/local-key.pem; ls {0}; curl --silent --show-error --insecure {1}/version",
        data.display(),
        endpoint.trim()
    );
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", &script]);
    let output = command.output().expect("setpriv");
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(said, "", "{errors}");
    assert_eq!(errors.matches("Permission denied").count(), 3, "{errors}");
    assert!(errors.contains("curl: ("), "{errors}");
    serving.stop();
}

#[test]
fn insecure_is_said_loudly_and_for_loopback_only() {
    let dir = place();
    let serving = Serving::start(dir.path(), &["--insecure-loopback"]);
    let plain = std::fs::read_to_string(dir.path().join("data/store/endpoint")).expect("where it is");
    assert!(plain.starts_with("http://127.0.0.1:"), "{plain}");
    assert!(run(dir.path(), &["apply", "-f", "web.yaml"]).contains("service/web created"));
    serving.stop();
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--etcd-listen", "0.0.0.0:0", "--insecure-loopback"];
    insta::assert_snapshot!(run(dir.path(), &arguments), @r"
    -- stderr
    error: 0.0.0.0:0 can be reached from other machines, and without certificates they could run programs on every host
    hint: leave out --insecure-loopback, or listen on 127.0.0.1
    -- exit 1
    ");
}

#[test]
fn a_copy_that_is_taken_while_it_runs_makes_the_same_store_again() {
    let dir = place();
    let dir = dir.path();
    let serving = Serving::start(dir, &[]);
    assert!(run(dir, &["apply", "-f", "web.yaml"]).contains("service/web created"));
    let told = run(dir, &["store", "backup", "copy"]);
    assert!(told.starts_with("copy: revision ") && told.ends_with("-- exit 0"), "{told}");
    insta::assert_snapshot!(run(dir, &["store", "backup", "copy"]), @r"
    -- stderr
    error: copy is there already
    hint: a copy never overwrites another; take a new name
    -- exit 1
    ");
    // While it runs nothing is put in its place.
    let told = run(dir, &["store", "restore", "copy", "--old-store-is-dead", "--replace"]);
    assert!(told.contains("uses the data directory data"), "{told}");
    assert!(run(dir, &["delete", "service/web"]).contains("service/web deleted"));
    serving.stop();
    insta::assert_snapshot!(run(dir, &["store", "restore", "copy"]), @r"
    -- stderr
    error: the hosts obey the store that the copy is of, and would obey both
    hint: make sure that nobody can start it again, and say so with --old-store-is-dead
    -- exit 2
    ");
    insta::assert_snapshot!(run(dir, &["store", "restore", "copy", "--old-store-is-dead"]), @r"
    -- stderr
    error: there is a store already: data/store/data
    hint: --replace puts the copy in its place, and keeps it beside
    -- exit 1
    ");
    // What is not whole changes nothing.
    let copy = std::fs::read(dir.join("copy")).expect("the copy");
    std::fs::write(dir.join("torn"), &copy[..copy.len() - 100]).expect("a file");
    let mut flipped = copy;
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    std::fs::write(dir.join("flipped"), flipped).expect("a file");
    let before = std::fs::read(dir.join("data/store/data")).expect("the store");
    for (file, why) in
        [("torn", "the copy is damaged"), ("flipped", "the copy is damaged"), ("web.yaml", "this is not a copy")]
    {
        let told = run(dir, &["store", "restore", file, "--old-store-is-dead", "--replace"]);
        assert!(told.contains(why) && told.ends_with("-- exit 1"), "{file}: {told}");
    }
    assert_eq!(std::fs::read(dir.join("data/store/data")).expect("the store"), before);
    let told = run(dir, &["store", "restore", "copy", "--old-store-is-dead", "--replace"]);
    assert!(told.contains("restored: revision ") && told.contains("store/data.replaced-"), "{told}");
    let serving = Serving::start(dir, &[]);
    assert!(run(dir, &["get", "services", "-o", "name"]).contains("service/web"), "it is declared again");
    let told = run(dir, &["store", "status"]);
    for line in ["store        embedded\n", "access       by certificate\n", "controller   process "] {
        assert!(told.contains(line), "{told}");
    }
    serving.stop();
    let elsewhere = place();
    std::fs::copy(dir.join("copy"), elsewhere.path().join("copy")).expect("a copy of the copy");
    let told = run(elsewhere.path(), &["store", "restore", "copy", "--old-store-is-dead"]);
    assert!(told.contains("restored: revision "), "{told}");
    let serving = Serving::start(elsewhere.path(), &[]);
    assert!(run(elsewhere.path(), &["get", "services", "-o", "name"]).contains("service/web"));
    serving.stop();
}

/// The generation of a resource, and the one that its status speaks of.
fn generations(etcd: &windlass_testbed::Etcd, path: &str) -> (u64, u64) {
    let fields = etcd.etcdctl(&["get", "--write-out=fields", &format!("/windlass/declared/{path}")]).expect("get");
    let generation = fields.lines().find_map(|line| line.strip_prefix("\"ModRevision\" : ")).expect("it is there");
    let status = etcd.etcdctl(&["get", "--print-value-only", &format!("/windlass/status/{path}")]).expect("get");
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    (generation.parse().expect("a number"), status["observedGeneration"].as_u64().expect("a number"))
}

#[test]
fn a_store_is_moved_into_an_etcd_whole_and_used_no_more() {
    let dir = place();
    let dir = dir.path();
    let etcd = windlass_testbed::Etcd::start(EtcdVersion::V3_5).expect("etcd starts");
    let serving = Serving::start(dir, &[]);
    // Some revisions more than the new store will have, and a status that speaks of the declaration.
    for number in 0..20 {
        std::fs::write(dir.join("web.yaml"), format!("{}# {number}\n", service("web"))).expect("a file");
        let told = run(dir, &["apply", "-f", "web.yaml"]);
        assert!(told.ends_with("-- exit 0"), "{told}");
    }
    let told = run(dir, &["wait", "service/web", "--for", "condition=Ready=False", "--timeout", "20s"]);
    assert!(told.ends_with("-- exit 0"), "{told}");
    let to = etcd.endpoint();
    let told = run(dir, &["store", "migrate", "--to", &to]);
    assert!(told.contains("uses the data directory data"), "{told}");
    let keys_of = |listed: &str| {
        let keys = listed.lines().filter(|line| line.starts_with("/windlass/"));
        let kept = |key: &&str| !key.contains("/control/leader") && !key.contains("/records/moved-from");
        keys.filter(kept).map(str::to_owned).collect::<Vec<_>>()
    };
    let variables = stdout(dir, &["env"]);
    let etcdctl = EtcdVersion::V3_5.etcdctl().display().to_string();
    serving.stop();
    // What somebody else has there is left alone.
    etcd.etcdctl(&["put", "/windlass/declared/hosts/theirs", "{}"]).expect("put");
    let told = run(dir, &["store", "migrate", "--to", &to]);
    assert!(told.contains("holds 1 keys below /windlass"), "{told}");
    etcd.etcdctl(&["del", "/windlass/declared/hosts/theirs"]).expect("del");
    let serving = Serving::start(dir, &[]);
    let before = keys_of(&with_env(
        dir,
        &variables_now(dir, &variables),
        &format!("{etcdctl} get --prefix /windlass/ --keys-only"),
    ));
    serving.stop();
    let told = run(dir, &["store", "migrate", "--to", &to]);
    assert!(told.contains("keys moved, read back and compared; the embedded store is sealed"), "{told}");
    let after = keys_of(&etcd.etcdctl(&["get", "--prefix", "/windlass/", "--keys-only"]).expect("get"));
    assert_eq!(after, before);
    let (generation, observed) = generations(&etcd, "services/default/web");
    assert_eq!(observed, generation, "what was seen is still seen");
    assert!(generation < 20, "{generation}: it is the new store's own");
    // The old one is dead, for everybody.
    for arguments in [&["get", "services"][..], &["serve", "--listen", "127.0.0.1:0", "--etcd-listen", "127.0.0.1:0"]] {
        let told = run(dir, arguments);
        assert!(told.contains("error: this store was moved to http://127."), "{arguments:?}: {told}");
    }
    // And again is no harm.
    let told = run(dir, &["store", "migrate", "--to", &to]);
    assert!(told.contains("keys were moved before"), "{told}");
    let told = run(dir, &["get", "services", "-o", "name", "--endpoints", &to]);
    assert!(told.contains("service/web"), "{told}");
}

/// The variables of a store that answers at another port now.
fn variables_now(dir: &Path, before: &str) -> String {
    let now = stdout(dir, &["env"]);
    assert_ne!(now, before, "another port");
    now
}

#[test]
fn a_move_that_was_cut_off_goes_on_and_nobody_uses_half_a_store() {
    let dir = place();
    let dir = dir.path();
    let etcd = windlass_testbed::Etcd::start(EtcdVersion::V3_4).expect("etcd starts");
    let serving = Serving::start(dir, &[]);
    assert!(run(dir, &["apply", "-f", "web.yaml"]).contains("service/web created"));
    serving.stop();
    // As one leaves it that was killed between its steps: marked, sealed, some keys there.
    let identity = std::fs::read_to_string(dir.join("data/store/identity")).expect("an identity");
    let mark = format!("moving from {}", identity.split_whitespace().next().expect("two numbers"));
    etcd.etcdctl(&["put", "/windlass/control/layout", &mark]).expect("put");
    etcd.etcdctl(&["put", "/windlass/declared/hosts/half", "{}"]).expect("put");
    std::fs::write(dir.join("data/store/sealed"), format!("moving {}\n", etcd.endpoint())).expect("a file");
    let to = etcd.endpoint();
    let told = run(dir, &["get", "services", "--endpoints", &to]);
    assert!(told.contains("keys are being moved to this store, or that was cut off"), "{told}");
    let told = run(dir, &["serve", "--listen", "127.0.0.1:0", "--etcd-listen", "127.0.0.1:0"]);
    assert!(told.contains("error: this store is being moved to http://127."), "{told}");
    let told = run(dir, &["store", "migrate", "--to", &to]);
    assert!(told.contains("keys moved, read back and compared"), "{told}");
    let listed = etcd.etcdctl(&["get", "--prefix", "/windlass/declared/", "--keys-only"]).expect("get");
    assert_eq!(listed.trim(), "/windlass/declared/services/default/web", "what was half is whole");
    // Killed before the last step, it knows that all is there.
    std::fs::write(dir.join("data/store/sealed"), format!("moving {to}\n")).expect("a file");
    let told = run(dir, &["store", "migrate", "--to", &to]);
    assert!(told.contains("keys were moved before"), "{told}");
}

#[test]
fn a_data_directory_that_is_not_ours_alone_is_refused_as_it_is() {
    let dir = place();
    let serve = |data: &str| {
        run(dir.path(), &["serve", "--listen", "127.0.0.1:0", "--etcd-listen", "127.0.0.1:0", "--data-dir", data])
    };
    let make = |name: &str, mode: u32| {
        let path = dir.path().join(name);
        std::fs::create_dir(&path).expect("a folder");
        std::fs::write(path.join("file"), "").expect("a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("its mode");
        path
    };
    let open = make("open", 0o755);
    let told = serve("open");
    assert!(told.contains("error: others may look into the data directory open\n"), "{told}");
    assert_eq!(std::fs::metadata(&open).expect("it is there").permissions().mode() & 0o777, 0o755);
    std::os::unix::fs::chown(make("theirs", 0o700), Some(65534), None).expect("the test runs as root");
    let told = serve("theirs");
    assert!(told.contains("error: the data directory theirs is user 65534's, and this is user 0\n"), "{told}");
    let linked = make("linked", 0o700);
    std::os::unix::fs::symlink(linked.join("file"), linked.join("lock")).expect("a link");
    let told = serve("linked");
    assert!(told.contains("error: cannot use the data directory linked\n"), "{told}");
    assert_eq!(std::fs::read(linked.join("file")).expect("a file"), b"");
}

#[test]
fn a_store_whose_file_is_gone_is_not_an_empty_one() {
    let dir = place();
    let serving = Serving::start(dir.path(), &[]);
    // What `windlass env` says does not lead a controller away from its own store.
    let variables = stdout(dir.path(), &["env"]);
    serving.stop();
    std::fs::rename(dir.path().join("data/store/data"), dir.path().join("kept")).expect("it is there");
    let serve = ["serve", "--listen", "127.0.0.1:0", "--etcd-listen", "127.0.0.1:0"];
    let told = run(dir.path(), &serve);
    assert!(told.contains("error: the store's file is gone: data/store/data\n"), "{told}");
    let script = format!("{} --data-dir data {}", env!("CARGO_BIN_EXE_windlass"), serve.join(" "));
    let told = with_env(dir.path(), &variables, &script);
    assert!(told.contains("the store's file is gone"), "it is the embedded one that is started: {told}");
    std::fs::rename(dir.path().join("kept"), dir.path().join("data/store/data")).expect("it is there");
    Serving::start(dir.path(), &[]).stop();
}
