//! The commands on the README's page, run as they stand there.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use windlass_e2e::{Serve, World, binary};

/// Stands above a block of commands whose last one exits with something else than 0, which follows.
const EXITS: &str = "<!-- exits with ";

/// A block of the page between two fences.
#[derive(Debug)]
struct Block {
    language: String,
    text: String,
    line: usize,
    /// What its commands exit with.
    exit: i32,
}

/// Every block of a page, in order.
fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let (mut open, mut before) = (false, "");
    for (index, line) in page.lines().enumerate() {
        match (line.strip_prefix("```"), open) {
            (Some(_), true) => open = false,
            (Some(language), false) => {
                let exit = before.strip_prefix(EXITS).and_then(|rest| rest.strip_suffix(" -->"));
                let exit = exit.map_or(0, |code| code.parse().expect("an exit code"));
                blocks.push(Block { language: language.to_owned(), text: String::new(), line: index + 2, exit });
                open = true;
            }
            (None, true) => {
                let block = blocks.last_mut().expect("an open block has begun");
                block.text += line;
                block.text.push('\n');
            }
            (None, false) => {}
        }
        before = line;
    }
    blocks
}

/// What the reader's controller is called, and its data directory.
const CONTROLLER: &str = "serve";

/// A reader who types what the page says, with the addresses and keys of their own.
struct Reader<'world> {
    world: &'world World,
    folder: &'world Path,
    /// What stands on the page, and what the reader has instead.
    own: Vec<(&'static str, String)>,
}

impl<'world> Reader<'world> {
    fn new(world: &'world World, folder: &'world Path) -> Result<Self> {
        let host = world.hosts.first().context("the page needs one host")?;
        let own = vec![
            ("192.0.2.11", host.address().to_string()),
            ("192.0.2.0/24", world.testbed.cidr()),
            ("~/.ssh/deploy_key", host.key_file().display().to_string()),
        ];
        Ok(Self { world, folder, own })
    }

    fn translate(&self, text: &str) -> String {
        self.own.iter().fold(text.to_owned(), |text, (theirs, ours)| text.replace(theirs, ours))
    }

    /// Writes a file whose first line says its name.
    fn write(&self, block: &Block) -> Result<()> {
        let name = block.text.lines().next().and_then(|line| line.strip_prefix("# ")).unwrap_or_default();
        ensure!(!name.is_empty() && !name.contains(' '), "README.md:{}: the block names no file", block.line);
        let path = self.folder.join(name);
        fs::create_dir_all(path.parent().context("a file lies in a folder")?)?;
        fs::write(path, self.translate(&block.text)).context("writing a file of the page")
    }

    /// Runs commands on a terminal, and answers what they ask with yes.
    fn run(&self, block: &Block) -> Result<String> {
        let script = self.folder.join("commands");
        fs::write(&script, format!("set -euo pipefail\n{}", self.translate(&block.text)))?;
        let programs = binary("windlass")?;
        let programs = programs.parent().context("a program lies in a folder")?.display();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", "180", "script", "--quiet", "--return", "--command", "bash commands"]);
        command.arg("/dev/null").current_dir(self.folder).env("PATH", format!("{programs}:{path}"));
        // Where the reader's own would be.
        command.env("WINDLASS_DATA_DIR", self.world.dir().join(CONTROLLER)).env("NO_COLOR", "1");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("starting `script`, of util-linux")?;
        let mut answers = child.stdin.take().context("it has a standard input")?;
        // Written at once: who asks nothing leaves it unread.
        let _ = std::io::Write::write_all(&mut answers, b"yes\n");
        let output = child.wait_with_output().context("waiting for the commands")?;
        drop(answers);
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let code = output.status.code().unwrap_or(-1);
        ensure!(
            code == block.exit,
            "README.md:{}: the block exits with {code}, not {}\n{}\n{said}",
            block.line,
            block.exit,
            block.text
        );
        Ok(said)
    }
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The commands of the project itself, which are run at its root.
fn make(block: &Block) -> Result<()> {
    match block.text.trim() {
        // It is what runs this test.
        "make test" => {
            let ci = fs::read_to_string(root().join(".ci/run"))?;
            ensure!(ci.lines().any(|line| line == "make test"), "CI does not run the README's test command");
        }
        "make demo" => {
            let mut command = Command::new("timeout");
            command.args(["--kill-after=30", "300", "make", "demo"]).current_dir(root()).stdin(Stdio::null());
            let output = command.output().context("running make demo")?;
            let (said, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            ensure!(output.status.success(), "make demo: {}\n{said}\n{log}", output.status);
            ensure!(said.contains("RolledBack"), "the demo showed no version that was taken back:\n{said}");
        }
        other => bail!("README.md:{}: nobody runs {other:?}", block.line),
    }
    Ok(())
}

#[test]
fn the_page_is_true() -> Result<()> {
    let page = fs::read_to_string(root().join("README.md")).context("reading the page")?;
    let world = World::new(1)?;
    let folder = world.dir().join("reader");
    fs::create_dir_all(&folder)?;
    let reader = Reader::new(&world, &folder)?;
    let mut controller = None;
    let mut said = Vec::new();
    for block in blocks(&page) {
        match block.language.as_str() {
            "yaml" | "python" => reader.write(&block)?,
            "sh" if block.text.starts_with("make ") => make(&block)?,
            "sh" if block.text.starts_with("windlass serve") => {
                let arguments = reader.translate(block.text.trim());
                let arguments = arguments.split(' ').skip(2).map(str::to_owned).collect();
                let serve = Serve { name: CONTROLLER, arguments, embedded: true, ..Serve::default() };
                let mut started = world.start(&serve)?;
                started.wait_until_up()?;
                started.wait_until_leading(windlass_e2e::PATIENCE)?;
                controller = Some(started);
            }
            "sh" => said.push(reader.run(&block)?),
            other => bail!("README.md:{}: a block of {other:?}, which nobody runs", block.line),
        }
    }
    ensure!(controller.is_some(), "the page starts no controller");
    let said = said.join("\n");
    for promised in ["hello, world", "hello again", "hello from etcd", "FileNotFoundError", "RolledBack"] {
        ensure!(said.contains(promised), "the page's commands never said {promised:?}:\n{said}");
    }
    world.passed()
}
