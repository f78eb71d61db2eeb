//! `docs/bad-input.md` and `docs/faults.md` name tests in each row, and the tests are there.

use std::path::{Path, PathBuf};

/// Every Rust file below a folder, without what was built.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() && entry.file_name().is_none_or(|name| name != "target" && name != ".git") {
            sources(&entry, found);
        } else if entry.extension().is_some_and(|end| end == "rs") {
            found.push(entry);
        }
    }
}

/// Whether code has a test of this name, or a function that one of them calls.
fn is_shown(code: &[String], name: &str) -> bool {
    let mut calls = 0;
    for text in code {
        let spoken = |at: usize| text[..at].rsplit('\n').next().is_some_and(|line| line.trim_start().starts_with("//"));
        for (at, _) in text.match_indices(name) {
            let (before, after) = (&text[..at], &text[at + name.len()..]);
            let part =
                |neighbour: Option<char>| neighbour.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
            if part(before.chars().next_back()) || part(after.chars().next()) {
                continue;
            }
            if !before.ends_with("fn ") {
                calls += usize::from(!spoken(at));
                continue;
            }
            let above = before.lines().rev().skip(1).map(str::trim).take_while(|line| line.starts_with(['#', '/']));
            if above.into_iter().any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test")) {
                return true;
            }
        }
    }
    let defined = format!("fn {name}");
    calls > 0 && code.iter().any(|text| text.contains(&format!("{defined}(")) || text.contains(&format!("{defined}<")))
}

/// Makes sure that the last cell of each row of a document's tables is a list of tests, and that they are there.
fn check(document: &str, least: usize) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let table = std::fs::read_to_string(root.join("docs").join(document)).expect("the table");
    let mut files = Vec::new();
    for folder in ["crds", "controller", "e2e"] {
        sources(&root.join(folder), &mut files);
    }
    let code: Vec<String> = files.iter().filter_map(|file| std::fs::read_to_string(file).ok()).collect();
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| ---")).collect();
    let rows: Vec<&str> = rows.into_iter().filter(|row| !row.ends_with("| shown by |")).collect();
    assert!(rows.len() >= least, "the reader of {document} finds {} rows", rows.len());
    for row in rows {
        let (_, cell) = row.trim_end_matches(" |").rsplit_once("| ").unwrap_or_else(|| panic!("one cell: {row}"));
        for name in cell.split(", ") {
            let name = name.strip_prefix('`').and_then(|name| name.strip_suffix('`'));
            let name = name.unwrap_or_else(|| panic!("no test in the last cell of {row}"));
            assert!(is_shown(&code, name), "there is no test {name}: {row}");
        }
    }
}

#[test]
fn a_function_that_nothing_runs_shows_nothing() {
    let code = |text: &str| vec![text.to_owned()];
    assert!(is_shown(&code("/// What.\n#[test]\n#[ignore]\nfn it_holds() {\n"), "it_holds"));
    assert!(is_shown(&code("#[tokio::test(flavor = \"multi_thread\")]\nasync fn it_holds() {\n"), "it_holds"));
    assert!(is_shown(&code("fn all() { it_holds(); }\nfn it_holds() {}\n"), "it_holds"));
    for nothing in [
        "",
        "fn it_holds() {}\n",
        "// it_holds\nfn it_holds() {}\n",
        "#[test]\nfn it_holds_not() {}\n",
        "#[test]\nfn a() {}\n\nfn it_holds() {}\n",
    ] {
        assert!(!is_shown(&code(nothing), "it_holds"), "{nothing}");
    }
}

#[test]
fn each_mistake_is_shown_by_a_test() {
    check("bad-input.md", 26);
}

#[test]
fn each_fault_is_shown_by_a_test() {
    check("faults.md", 30);
}
