//! The crates import each other only along the edges that docs/architecture.md names.

use std::collections::BTreeSet;
use std::path::Path;

/// The crates of ours that a manifest names below `[dependencies]`.
fn imports(folder: &str) -> BTreeSet<String> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder).join("Cargo.toml");
    let text = std::fs::read_to_string(&manifest).expect("every crate has a manifest");
    let dependencies = text.split("[dependencies]").nth(1).expect("every crate lists its dependencies");
    let dependencies = dependencies.split("\n[").next().unwrap_or_default();
    let name = |line: &str| line.split(['.', ' ', '=']).next().unwrap_or_default().to_owned();
    let ours = dependencies.lines().map(name).filter(|name| name.starts_with("windlass-"));
    ours.map(|name| name.trim_start_matches("windlass-").to_owned()).collect()
}

#[track_caller]
fn check(folder: &str, allowed: &[&str]) {
    let allowed: BTreeSet<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
    let surplus: Vec<String> = imports(folder).difference(&allowed).cloned().collect();
    assert!(surplus.is_empty(), "{folder} may not import {surplus:?}");
}

#[test]
fn crates_import_along_the_edges() {
    check("crds", &[]);
    check("controller/planner", &["crds"]);
    check("controller/store", &["crds"]);
    check("controller/hosts", &["crds"]);
    check("controller/sources", &["crds"]);
    check("controller/engine", &["crds", "planner", "store", "hosts", "sources"]);
    check("controller/cli", &["crds", "planner", "store", "hosts", "sources", "engine"]);
    check("e2e/testbed", &[]);
    assert!(imports("controller/engine").contains("planner"), "the reader of manifests finds nothing");
}

/// The crate, and no other of ours, may name what it wraps.
#[track_caller]
fn check_alone(dependency: &str, folder: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folders = [
        "crds",
        "controller/planner",
        "controller/store",
        "controller/hosts",
        "controller/sources",
        "controller/engine",
        "controller/cli",
    ];
    for other in folders {
        let text = std::fs::read_to_string(root.join(other).join("Cargo.toml")).expect("every crate has a manifest");
        let named = text.lines().any(|line| line.split(['.', ' ', '=']).next() == Some(dependency));
        assert_eq!(named, other == folder, "{other} and {dependency}");
    }
}

#[test]
fn one_crate_names_etcd_and_one_names_ssh() {
    check_alone("etcd-client", "controller/store");
    check_alone("openssh", "controller/hosts");
    check_alone("globset", "controller/sources");
}

/// Compiled for tests alone, where it compares `schemas/` with the types.
const COMPARES_FILES: &str = "crds/src/schema/checked_in.rs";

/// The planner and the resource definitions are data and functions.
#[test]
fn the_pure_crates_stay_pure() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for (folder, words) in [
        ("crds/src", &["async fn", "std::fs", "SystemTime::now", "Timestamp::now", "Instant::now", "tokio"][..]),
        (
            "controller/planner/src",
            &["async fn", "std::fs", "SystemTime::now", "Timestamp::now", "Instant::now", "tokio", "HashMap"][..],
        ),
    ] {
        let mut files = vec![root.join(folder)];
        let mut read = 0;
        while let Some(path) = files.pop() {
            if path.is_dir() {
                files.extend(std::fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").path()));
            } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with(COMPARES_FILES) {
                read += 1;
                let text = std::fs::read_to_string(&path).expect("a file");
                let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
                for (number, line) in code.enumerate() {
                    let found = words.iter().find(|word| line.contains(**word));
                    assert!(found.is_none(), "{}:{number}: {found:?}", path.display());
                }
            }
        }
        assert!(read > 3, "{folder} holds code");
    }
}
