//! `docs/bad-input.md` names a test in each row, and the test is there.

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

#[test]
fn each_row_of_the_table_is_shown_by_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let table = std::fs::read_to_string(root.join("docs/bad-input.md")).expect("the table");
    let mut files = Vec::new();
    for folder in ["crds", "controller", "e2e"] {
        sources(&root.join(folder), &mut files);
    }
    let code: Vec<String> = files.iter().filter_map(|file| std::fs::read_to_string(file).ok()).collect();
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| ---")).collect();
    let rows: Vec<&str> = rows.into_iter().filter(|row| !row.ends_with("| shown by |")).collect();
    assert!(rows.len() > 25, "the reader of the table finds {} rows", rows.len());
    for row in rows {
        let name = row
            .trim_end_matches(" |")
            .rsplit_once("| ")
            .and_then(|(_, cell)| cell.strip_prefix('`')?.strip_suffix('`'));
        let name = name.unwrap_or_else(|| panic!("no test in the last cell of {row}"));
        let definition = format!("fn {name}(");
        assert!(code.iter().any(|text| text.contains(&definition)), "there is no test {name}: {row}");
    }
}
