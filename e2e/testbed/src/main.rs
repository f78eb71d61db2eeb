//! `windlass-testbed`: throwaway hosts for the demo and for people.

use std::io::Write;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use windlass_testbed::{NamedTestbed, gc, hold, list, take_down, up};

const USAGE: &str = "\
Throwaway hosts with a real systemd and a real sshd. Needs root.

Usage: windlass-testbed COMMAND [--name NAME]

  up COUNT   boot web1 to web<COUNT> and leave them running; again is harmless
  down       take them down; again is harmless
  list       tell what runs
  gc         take down what killed tests left

NAME is `demo` unless told otherwise. `up` and `list` write a line a host to standard output:
testbed, host, address, host key and private key file, with tabs between them.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let mut words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut name = "demo";
    if let Some(flag) = words.iter().position(|word| *word == "--name") {
        name = words.get(flag + 1).context("--name needs a name")?;
        words.drain(flag..=flag + 1);
    }
    match words[..] {
        ["up", count] => {
            let mut holder = Command::new(std::env::current_exe().context("finding this program")?);
            holder.arg("hold");
            print(&[up(name, number(count)?, holder)?])
        }
        // What `up` starts in the background.
        ["hold", name, count] => hold(name, number(count)?, std::io::stdout()),
        ["down"] => {
            let was_there = take_down(name)?;
            tell(format_args!("{name} {}", if was_there { "is down" } else { "was not up" }));
            Ok(())
        }
        ["list"] => print(&list()?),
        ["gc"] => {
            for bridge in gc()?.bridges {
                tell(format_args!("took down {bridge}"));
            }
            Ok(())
        }
        ["--help" | "-h" | "help"] => write!(std::io::stdout(), "{USAGE}").context("writing the usage"),
        _ => bail!("no such command: {}\n\n{USAGE}", arguments.join(" ")),
    }
}

fn number(count: &str) -> Result<u8> {
    count
        .parse()
        .ok()
        .filter(|count| *count > 0)
        .with_context(|| format!("{count} is no number of hosts\nhint: from 1 to 240"))
}

fn print(testbeds: &[NamedTestbed]) -> Result<()> {
    let mut output = std::io::stdout().lock();
    for testbed in testbeds {
        for host in &testbed.hosts {
            let key_file = host.key_file.display();
            writeln!(output, "{}\t{}\t{}\t{}\t{key_file}", testbed.name, host.name, host.address, host.host_key)
                .context("writing the list")?;
        }
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "this is the program's edge")]
fn tell(message: std::fmt::Arguments<'_>) {
    eprintln!("{message}");
}
