//! What is deployed: 300 small files, one of 20 MB, and a small server that says its version.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

const SERVER: &str = include_str!("server.py");

/// How many small files there are, the server and its version not among them.
const SMALL_FILES: usize = 300;

/// How many of them lie in one folder.
const PER_FOLDER: usize = 15;

/// The size of the large one.
const LARGE_BYTES: usize = 20_000_000;

/// A source directory.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    dir: PathBuf,
}

impl Tree {
    /// Writes a tree whose contents no tree with another seed has.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn create(dir: PathBuf, seed: u64, version: &str) -> Result<Self> {
        let mut noise = Noise(seed.wrapping_mul(2) + 1);
        for number in 0..SMALL_FILES {
            let folder = dir.join(format!("lib/part{:02}", number / PER_FOLDER));
            fs::create_dir_all(&folder).context("creating a folder of a tree")?;
            let text = noise.text(500 + (number * 37) % 7500);
            fs::write(folder.join(format!("module{number:03}.py")), text).context("writing a tree")?;
        }
        fs::write(dir.join("model.bin"), noise.bytes(LARGE_BYTES)).context("writing a tree")?;
        fs::write(dir.join("server.py"), SERVER).context("writing a tree")?;
        let tree = Self { dir };
        tree.say(version)?;
        Ok(tree)
    }

    /// Where it is.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Changes one file: the version. One that ends in `-bad` is unwell.
    ///
    /// Not in the second of the change before: rsync takes a file of the same size and the same second for the same.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn say(&self, version: &str) -> Result<()> {
        if let Ok(before) = fs::metadata(self.dir.join("VERSION")).and_then(|before| before.modified()) {
            let next = before + Duration::from_secs(1);
            std::thread::sleep(next.duration_since(SystemTime::now()).unwrap_or_default());
        }
        // Whole at once, as an editor does it.
        let outside = self.dir.with_extension("new");
        fs::write(&outside, version).context("writing a version")?;
        fs::rename(&outside, self.dir.join("VERSION")).context("placing a version")
    }
}

/// Numbers that look like chance and are the same each time (xorshift64).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }

    fn text(&mut self, count: usize) -> String {
        let mut text = String::with_capacity(count + 24);
        while text.len() < count {
            text.push_str(&format!("x = {}\n", self.next()));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_of_different_seeds_share_nothing_large() {
        let start = |seed: u64| Noise(seed.wrapping_mul(2) + 1).bytes(64);
        assert_eq!(start(1), start(1));
        assert_ne!(start(1), start(2));
    }
}
