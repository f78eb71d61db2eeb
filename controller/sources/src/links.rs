//! Whether every link of a scan leads to something in the same scan.

use crate::error::SourceError;
use crate::scan::{Found, Scan};

/// How many links may be followed to reach one target: Linux's own bound (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// Checks that no link dangles in the release that `scan` would make.
///
/// Where a link leads is looked up in the scan, never on the disk: what is on the disk but left out of the release
/// will not be on the host.
///
/// # Errors
/// [`SourceError::Dangling`] for the first link, by name, that leads nowhere or in a circle.
pub(crate) fn check_links(scan: &Scan) -> Result<(), SourceError> {
    for (path, found) in &scan.entries {
        if let Found::Link { target } = found
            && !leads_somewhere(scan, path.as_str())
        {
            return Err(SourceError::Dangling { path: path.clone(), target: target.clone() });
        }
    }
    Ok(())
}

/// Whether following `link` arrives at a file or a directory.
///
/// Every target climbs only in front, by no more than the depth of its link (`Entry::link`), and directories on the
/// way are real, so that `..` may be taken off the text.
fn leads_somewhere(scan: &Scan, link: &str) -> bool {
    let mut here: Vec<&str> = Vec::new();
    // What is still to be walked, the next component last.
    let mut ahead: Vec<&str> = link.split('/').rev().collect();
    let mut followed = 0;
    while let Some(part) = ahead.pop() {
        match part {
            "" | "." => continue,
            ".." => {
                here.pop();
                continue;
            }
            _ => here.push(part),
        }
        match scan.get(&here.join("/")) {
            Some(Found::Link { target }) => {
                followed += 1;
                if followed > MAX_LINKS {
                    return false;
                }
                here.pop();
                ahead.extend(target.split('/').rev());
            }
            // `file/` and `file/.` do not exist either.
            Some(Found::File { .. }) => return ahead.is_empty(),
            None if scan.is_directory(&here.join("/")) => {}
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use windlass_crds::manifest::ReleasePath;

    use super::*;
    use crate::scan::Stamp;

    /// Words are `path` for a file, `path>target` for a link.
    fn check(tree: &str, dangling: Option<&str>) {
        let mut entries: Vec<(ReleasePath, Found)> = tree
            .split_whitespace()
            .map(|word| {
                let stamp = Stamp { device: 0, inode: 0, size: 0, modified: 0, changed: 0 };
                let (path, found) = match word.split_once('>') {
                    Some((path, target)) => (path, Found::Link { target: target.to_owned() }),
                    None => (word, Found::File { stamp, executable: false }),
                };
                (path.parse().expect(path), found)
            })
            .collect();
        entries.sort_by(|(one, _), (other, _)| one.cmp(other));
        let found = check_links(&Scan { entries }).err().map(|error| match error {
            SourceError::Dangling { path, .. } => path.to_string(),
            other => panic!("{tree}: {other}"),
        });
        assert_eq!(found.as_deref(), dangling, "{tree}");
    }

    #[test]
    fn links_lead_somewhere() {
        check("a l>a", None);
        check("d/a l>d", None);
        check("d/a l>d/", None);
        check("d/a d/l>../d/a", None);
        check("d/a l>d m>l/a", None);
        check("d/a e/l>../d m>e/l/a", None);
        check("d/e/a l>d/e m>l n>m/a", None);
        check("a l>.", None);
        check("a d/l>..", None);
        check("a l>b", Some("l"));
        check("a l>a/", Some("l"));
        check("a l>a/b", Some("l"));
        check("d/a l>d/b", Some("l"));
        check("d/a l>d m>l/b", Some("m"));
        check("a l>l", Some("l"));
        check("a l>m m>l", Some("l"));
        check("a l>m m>b", Some("l"));
        check("l>.", None);
    }
}
