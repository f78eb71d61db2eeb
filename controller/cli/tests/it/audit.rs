//! The audit trail as its users meet it: who did it, and what becomes of somebody who tampers with it.

use std::path::Path;
use std::time::Duration;

use windlass_testbed::EtcdVersion;

use crate::embedded::{Serving, place, run, stdout, with_env};

/// How long a test waits for the controller, in looks; only a failing test waits so long.
const LOOKS: u32 = 500;
const LOOK: Duration = Duration::from_millis(50);

/// Runs a command until it says something.
fn until(dir: &Path, arguments: &[&str], says: &str) -> String {
    let mut said = String::new();
    for _ in 0..LOOKS {
        said = run(dir, arguments);
        if said.contains(says) {
            return said;
        }
        std::thread::sleep(LOOK);
    }
    panic!("{arguments:?} never said {says:?}: {said}");
}

/// Runs `etcdctl` as somebody whose variables these are.
fn etcdctl(dir: &Path, variables: &str, arguments: &str) -> String {
    with_env(dir, variables, &format!("{} {arguments}", EtcdVersion::V3_5.etcdctl().display()))
}

#[test]
fn the_trail_names_who_did_it_and_whoever_tampers_with_it_is_found() {
    let dir = place();
    let dir = dir.path();
    let serving = Serving::start(dir, &[]);
    let ours = stdout(dir, &["env"]);
    let ana = stdout(dir, &["store", "certificate", "ana", "--out", "ana"]);
    let windlass = env!("CARGO_BIN_EXE_windlass");

    // Her name is in her certificate, and so in the trail.
    assert!(with_env(dir, &ana, &format!("{windlass} apply -f web.yaml")).contains("service/web created"));
    let told = until(dir, &["audit", "--service", "web"], "ana (certificate)   declared it, ");
    assert!(told.contains("service/web"), "{told}");
    with_env(dir, &ana, &format!("{windlass} rollout pause service/web"));
    until(dir, &["audit", "list", "--service", "web", "--since", "1h"], "ana (certificate)   asked: pause");
    let json = run(dir, &["audit", "list", "--service", "web", "-o", "json"]);
    assert!(json.contains("\"known\": \"certificate\"") && json.contains("\"name\": \"ana\""), "{json}");
    let later = run(dir, &["audit", "list", "--since", "2999-01-01T00:00:00Z"]);
    assert!(later.contains("nothing is in the audit trail that fits"), "{later}");
    // She may not write it.
    let refused = etcdctl(dir, &ana, "put /windlass/audit/services/default/web/000000000009 x");
    assert!(refused.contains("permission denied: ana may write only below"), "{refused}");

    // It is whole, here and elsewhere.
    until(dir, &["audit", "verify"], "\n-- exit 0");
    std::fs::write(dir.join("audit.pub"), stdout(dir, &["audit", "key"])).expect("a file");
    std::fs::write(dir.join("older.jsonl"), stdout(dir, &["audit", "list", "-o", "jsonl"])).expect("a file");
    let whole = run(dir, &["audit", "verify", "--file", "older.jsonl", "--trust", "audit.pub"]);
    assert!(whole.starts_with("whole: ") && whole.ends_with("-- exit 0"), "{whole}");
    let stranger = run(dir, &["audit", "verify", "--file", "older.jsonl", "--data-dir", "nowhere"]);
    assert!(stranger.contains("warning: no key is trusted") && stranger.ends_with("-- exit 0"), "{stranger}");
    std::fs::write(dir.join("other.pub"), format!("# another\n{}\n", "ab".repeat(32))).expect("a file");
    let other = run(dir, &["audit", "verify", "--file", "older.jsonl", "--trust", "other.pub"]);
    assert!(other.contains("which is not trusted") && other.ends_with("-- exit 1"), "{other}");
    let part = stdout(dir, &["audit", "list", "--service", "web", "-o", "jsonl"]);
    std::fs::write(dir.join("part.jsonl"), part).expect("a file");
    let part = run(dir, &["audit", "verify", "--file", "part.jsonl", "--trust", "audit.pub", "--part"]);
    assert!(part.ends_with("-- exit 0"), "{part}");

    // It went on since, and an older one does not reach its head.
    with_env(dir, &ana, &format!("{windlass} rollout resume service/web"));
    until(dir, &["audit", "--service", "web"], "asked: resume");
    until(dir, &["audit", "verify"], "\n-- exit 0");
    std::fs::write(dir.join("head.json"), stdout(dir, &["audit", "head"])).expect("a file");
    let whole = run(dir, &["audit", "verify", "--head", "head.json"]);
    assert!(whole.starts_with("whole: "), "{whole}");
    let older = run(dir, &["audit", "verify", "--file", "older.jsonl", "--head", "head.json"]);
    assert!(older.contains("before the exported head, which is anchor") && older.ends_with("-- exit 1"), "{older}");

    // Whoever may write everything changes a record, and takes one away.
    let first = "/windlass/audit/services/default/web/000000000001";
    let stored = etcdctl(dir, &ours, &format!("get --print-value-only {first}"));
    std::fs::write(dir.join("forged"), stored.trim_end().replace("\"name\":\"ana\"", "\"name\":\"bob\""))
        .expect("a file");
    assert!(etcdctl(dir, &ours, &format!("put {first} <forged")).contains("OK"));
    let found = run(dir, &["audit", "verify"]);
    assert!(found.contains("service/web: record 1 was changed") && found.ends_with("-- exit 1"), "{found}");
    std::fs::write(dir.join("stored"), stored.trim_end()).expect("a file");
    assert!(etcdctl(dir, &ours, &format!("put {first} <stored")).contains("OK"));
    assert!(run(dir, &["audit", "verify"]).starts_with("whole: "), "it is as it was");
    assert!(etcdctl(dir, &ours, &format!("del {first}")).starts_with('1'));
    let found = run(dir, &["audit", "verify"]);
    assert!(found.contains("service/web: it begins with record 2") && found.ends_with("-- exit 1"), "{found}");
    assert!(etcdctl(dir, &ours, "del --prefix /windlass/audit/services/").starts_with(char::is_numeric));
    let found = run(dir, &["audit", "verify"]);
    assert!(found.contains("service/web: all of it is gone, and an anchor knows record"), "{found}");
    serving.stop();
}

/// Whoever puts an older copy of the store in its place takes the trail back with it, and the head that was kept tells.
#[test]
fn an_older_copy_of_the_store_ends_before_the_head_that_was_kept() {
    let dir = place();
    let dir = dir.path();
    let serving = Serving::start(dir, &[]);
    assert!(run(dir, &["apply", "-f", "web.yaml"]).contains("service/web created"));
    until(dir, &["audit", "--service", "web"], "local (certificate)   declared it, ");
    until(dir, &["audit", "verify"], "\n-- exit 0");
    assert!(run(dir, &["store", "backup", "older.backup"]).ends_with("-- exit 0"));
    run(dir, &["delete", "service/web"]);
    until(dir, &["audit", "--service", "web"], "deleted the declaration");
    until(dir, &["audit", "verify"], "\n-- exit 0");
    std::fs::write(dir.join("head.json"), stdout(dir, &["audit", "head"])).expect("a file");
    serving.stop();
    let restored = run(dir, &["store", "restore", "older.backup", "--old-store-is-dead", "--replace"]);
    assert!(restored.ends_with("-- exit 0"), "{restored}");
    let serving = Serving::start(dir, &[]);
    let found = run(dir, &["audit", "verify", "--head", "head.json"]);
    assert!(found.ends_with("-- exit 1"), "{found}");
    let cut = found.contains("before the exported head") || found.contains("is another one than an anchor knows");
    assert!(cut, "{found}");
    serving.stop();
}
